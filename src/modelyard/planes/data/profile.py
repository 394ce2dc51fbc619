"""What the rows of a version look like: compiled to one statement, and its answer read back. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from modelyard.engines.tables.sql import quoted
from modelyard.planes.data.checks import is_float, is_number, is_time
from modelyard.types.data import Column, ColumnProfile, Profile

QUANTILES = ("0.05", "0.25", "0.5", "0.75", "0.95")
TOP_VALUES = 5
_TEXT_CHARACTERS_MAX = 200


def profile_statement(columns: Sequence[Column], table: str) -> str:
    """One SELECT of all aggregates over the table; its columns are named by the column's place and the measure."""
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
        points = ", ".join(QUANTILES)
        measures |= {
            "min": f"min({name}){finite}",
            "max": f"max({name}){finite}",
            "mean": f"avg({name}){finite}",
            "std": f"stddev_pop({name}::DOUBLE){finite}",
            "quantiles": f"approx_quantile({name}::DOUBLE, [{points}]){finite}",
            "distinct": f"approx_count_distinct({name})",
        }
    elif is_time(column.type):
        measures |= {"min": f"min({name})", "max": f"max({name})", "distinct": f"approx_count_distinct({name})"}
    elif column.type == "string":
        cut = f"left({name}, {_TEXT_CHARACTERS_MAX})"
        measures |= {
            "min": f"min({cut})",
            "max": f"max({cut})",
            "distinct": f"approx_count_distinct({name})",
            "top": f"approx_top_k({cut}, {TOP_VALUES})",
        }
    elif column.type == "bool":
        measures |= {"mean": f"avg({name}::INT)", "distinct": f"count(DISTINCT {name})"}
    return measures


def read_profile(columns: Sequence[Column], answer: Mapping[str, Any]) -> Profile:
    """The profile that the statement's one row stands for."""
    rows = int(answer["n"])
    return Profile(rows=rows, columns=[_read(column, index, rows, answer) for index, column in enumerate(columns)])


def _read(column: Column, index: int, rows: int, answer: Mapping[str, Any]) -> ColumnProfile:
    def measure(name: str) -> Any:
        return answer.get(f"{name}_{index}")

    count = int(measure("count"))
    quantiles = measure("quantiles")
    distinct = measure("distinct")
    return ColumnProfile(
        name=column.name,
        type=column.type,
        count=count,
        nulls=rows - count,
        nans=int(measure("nans") or 0),
        distinct=None if distinct is None else min(int(distinct), count),
        min=wire_value(measure("min")),
        max=wire_value(measure("max")),
        mean=_number(measure("mean")),
        std=_number(measure("std")),
        quantiles={} if quantiles is None else dict(zip(QUANTILES, (float(one) for one in quantiles), strict=True)),
        top=[wire_value(value) for value in measure("top") or []],
    )


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
