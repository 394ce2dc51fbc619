"""What the rows of a batch look like: compiled to few statements, their answers read back, and merged. Pure.

One statement gives the exact aggregates. Quantiles and frequent values come from a sample of rows, which costs a
fraction of computing them over all, and is all of them for a small batch. Distinct values are counted column by column.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import msgspec

from modelyard.engines.tables.sql import quoted
from modelyard.planes.data.checks import is_float, is_number, is_time
from modelyard.planes.data.sketches import Sketch, distinct_count, merged, packed, quantile, unpacked
from modelyard.types.data import Column, ColumnProfile, Profile

QUANTILES = ("0.05", "0.25", "0.5", "0.75", "0.95")
TOP_SHOWN = 5
SAMPLE_ROWS = 20_000
_TEXT_CHARACTERS_MAX = 200


def profile_statement(columns: Sequence[Column], table: str) -> str:
    """One SELECT of all exact aggregates over the table, named by the column's place and the measure."""
    terms = ["count(*) AS n"]
    for index, column in enumerate(columns):
        terms += [f"{expression} AS {measure}_{index}" for measure, expression in _measures(column).items()]
    return f"SELECT {', '.join(terms)} FROM {table}"


def _measures(column: Column) -> dict[str, str]:
    name = quoted(column.name)
    measures = {"count": f"count({name})"}
    if is_number(column.type):
        finite = f" FILTER (WHERE isfinite({name}))" if is_float(column.type) else ""
        if is_float(column.type):
            measures["nans"] = f"count_if(isnan({name}))"
        measures |= {
            "finite": f"count({name}){finite}",
            "min": f"min({name}){finite}",
            "max": f"max({name}){finite}",
            "mean": f"avg({name}::DOUBLE){finite}",
            "variance": f"var_pop({_scaled(name, column.type)}){finite}",
        }
    elif is_time(column.type):
        measures |= {"min": f"min({name})", "max": f"max({name})"}
    elif column.type == "string":
        cut = f"left({name}, {_TEXT_CHARACTERS_MAX})"
        measures |= {"min": f"min({cut})", "max": f"max({cut})"}
    elif column.type == "bool":
        measures |= {"mean": f"avg({name}::INT)"}
    return measures


def _scaled(name: str, kind: str) -> str:
    # The square of a double beyond 1e150 overflows, and DuckDB makes an error of that.
    return f"CASE WHEN abs({name}) < 1e150 THEN {name}::DOUBLE END" if kind == "double" else f"{name}::DOUBLE"


def is_counted(column: Column) -> bool:
    """Whether distinct values of a column are counted."""
    return is_number(column.type) or is_time(column.type) or column.type in ("string", "bool")


def distinct_statement(column: Column, table: str) -> str:
    """A SELECT of bucket and least remainder of the hashes of a column's values: what registers are made of."""
    name = quoted(column.name)
    hashed = f"SELECT hash({name}) AS h FROM {table} WHERE {name} IS NOT NULL"
    return f"SELECT (h & 1023)::INT AS bucket, min(h >> 10) AS least FROM ({hashed}) GROUP BY 1"


def sample_statement(columns: Sequence[Column], table: str, rows: int) -> str:
    """A SELECT of the sampled columns of some rows; empty where no column is sampled."""
    names = []
    for column in columns:
        name = quoted(column.name)
        if is_number(column.type):
            names.append(f"{name}::DOUBLE AS {name}")
        elif column.type == "string":
            names.append(f"left({name}, {_TEXT_CHARACTERS_MAX}) AS {name}")
    sample = f" USING SAMPLE reservoir({SAMPLE_ROWS} ROWS) REPEATABLE (1)" if rows > SAMPLE_ROWS else ""
    return f"SELECT {', '.join(names)} FROM {table}{sample}" if names else ""


def read_profile(columns: Sequence[Column], answer: Mapping[str, Any], sketches: Sequence[Sketch]) -> Profile:
    """The profile that the aggregates' one row and the sketches of its columns stand for."""
    rows = int(answer["n"])
    found = [_read(column, index, rows, answer, sketches[index]) for index, column in enumerate(columns)]
    return Profile(rows=rows, columns=found)


def _read(column: Column, index: int, rows: int, answer: Mapping[str, Any], sketch: Sketch) -> ColumnProfile:
    def measure(name: str) -> Any:
        return answer.get(f"{name}_{index}")

    count = int(measure("count"))
    if is_number(column.type):
        finite = int(measure("finite") or 0)
        mean, variance = _number(measure("mean")) or 0.0, _number(measure("variance")) or 0.0
        sketch = msgspec.structs.replace(sketch, finite=finite, mean=mean, m2=variance * finite)
    elif column.type == "bool":
        sketch = msgspec.structs.replace(sketch, finite=count, mean=_number(measure("mean")) or 0.0)
    return _shown(
        ColumnProfile(
            name=column.name,
            type=column.type,
            count=count,
            nulls=rows - count,
            nans=int(measure("nans") or 0),
            min=wire_value(measure("min")),
            max=wire_value(measure("max")),
        ),
        sketch,
    )


def _shown(column: ColumnProfile, sketch: Sketch) -> ColumnProfile:
    """The profile with what its sketch says."""
    distinct = distinct_count(sketch.registers)
    quantiles = {}
    if sketch.means:
        low, high = float(column.min), float(column.max)
        quantiles = {one: quantile(sketch, float(one), low, high) for one in QUANTILES}
    is_spread = sketch.finite > 0 and column.type != "bool"
    return msgspec.structs.replace(
        column,
        distinct=None if distinct is None else min(distinct, column.count),
        mean=sketch.mean if sketch.finite else None,
        std=math.sqrt(max(sketch.m2, 0.0) / sketch.finite) if is_spread else None,
        quantiles={one: value for one, value in quantiles.items() if value is not None},
        top=[value for value, _ in sketch.top[:TOP_SHOWN]],
        sketch=packed(sketch),
    )


def merge_profiles(before: Profile, batch: Profile) -> Profile | None:
    """The profile of both together, or None where the one before has no sketches to merge."""
    known = {column.name: column for column in before.columns}
    added = {column.name: column for column in batch.columns}
    if any(not column.sketch for column in before.columns):
        return None
    names = [*known, *(name for name in added if name not in known)]
    columns = [_merge(known.get(name), added.get(name), before.rows, batch.rows) for name in names]
    return Profile(rows=before.rows + batch.rows, columns=columns)


def _merge(
    before: ColumnProfile | None, batch: ColumnProfile | None, rows_before: int, rows_batch: int
) -> ColumnProfile:
    if before is None or batch is None:
        present = before or batch
        assert present is not None
        missing = rows_before if before is None else rows_batch
        return msgspec.structs.replace(present, nulls=present.nulls + missing)
    bounds = [one for one in (before, batch) if one.min is not None]
    low = min(bounds, key=_ordered_min).min if bounds else None
    high = max(bounds, key=_ordered_max).max if bounds else None
    joined = msgspec.structs.replace(
        before,
        count=before.count + batch.count,
        nulls=before.nulls + batch.nulls,
        nans=before.nans + batch.nans,
        min=low,
        max=high,
    )
    return _shown(joined, merged(unpacked(before.sketch), unpacked(batch.sketch)))


def _ordered_min(column: ColumnProfile) -> Any:
    return _ordered(column, column.min)


def _ordered_max(column: ColumnProfile) -> Any:
    return _ordered(column, column.max)


def _ordered(column: ColumnProfile, value: Any) -> Any:
    """A bound as it is compared: decimals travel as text, and so do times, which compare as texts of one form."""
    if column.type.startswith("decimal"):
        return Decimal(value)
    if column.type.startswith("timestamp"):
        return datetime.fromisoformat(value)
    return value


def _number(value: Any) -> float | None:
    if value is None:
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def wire_value(value: Any) -> Any:
    """A value of a table as JSON can carry it: instants in RFC 3339, bytes in hex, NaN and infinity as their names."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, bytes):
        return value[:_TEXT_CHARACTERS_MAX].hex()
    if isinstance(value, dict):
        return {str(key): wire_value(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [wire_value(inner) for inner in value]
    return value


def wire_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as JSON can carry it."""
    return {name: wire_value(value) for name, value in row.items()}
