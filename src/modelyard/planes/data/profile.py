"""What the rows of a version look like: shown from sketches, and merged with those of an append. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import msgspec

from modelyard.planes.data.sketches import Sketch, Unreadable, distinct_count, merged, packed, quantiles, unpacked
from modelyard.types.data import ColumnProfile, LengthProfile, Profile

QUANTILES = ("0.05", "0.25", "0.5", "0.75", "0.95")
TOP_SHOWN = 10
_BYTES_SHOWN = 200


def profile_of_sketch(
    name: str, kind: str, *, count: int, nulls: int, nans: int, bounds: tuple[Any, Any], sketch: Sketch
) -> ColumnProfile:
    """The profile of a column from its exact counts and bounds and from its sketch."""
    low, high = bounds
    plain = ColumnProfile(
        name=name, type=kind, count=count, nulls=nulls, nans=nans, min=wire_value(low), max=wire_value(high)
    )
    return _shown(plain, sketch)


def _shown(column: ColumnProfile, sketch: Sketch) -> ColumnProfile:
    """The profile with what its sketch says."""
    distinct = len(sketch.top) if sketch.exact else distinct_count(sketch.registers)
    shown: dict[str, float] = {}
    if sketch.means:
        low, high = float(column.min), float(column.max)
        found = quantiles(sketch, [float(one) for one in QUANTILES], low, high)
        shown = dict(zip(QUANTILES, found, strict=True))
    is_spread = sketch.finite > 0 and column.type != "bool"
    lengths = sketch.lengths
    return msgspec.structs.replace(
        column,
        distinct=None if distinct is None else min(distinct, column.count),
        mean=sketch.mean if sketch.finite else None,
        std=math.sqrt(max(sketch.m2, 0.0) / sketch.finite) if is_spread else None,
        quantiles=shown,
        top=[value for value, _ in sketch.top[:TOP_SHOWN]],
        top_counts=[round(count) for _, count in sketch.top[:TOP_SHOWN]],
        exact=sketch.exact,
        lengths=None
        if lengths is None
        else LengthProfile(min=lengths.least, max=lengths.greatest, mean=lengths.total / max(column.count, 1)),
        sketch=packed(sketch),
    )


def merge_profiles(*parts: Profile) -> Profile | None:
    """The profile of the rows of all together, or None where they cannot be merged: one has no sketches, or hashed
    otherwise. The columns are in the order in which they come first."""
    by_name = [{column.name: column for column in one.columns} for one in parts]
    names = {name: None for one in by_name for name in one}
    try:
        columns = [_merge([one.get(name) for one in by_name], [one.rows for one in parts]) for name in names]
    except Unreadable:
        return None
    return Profile(rows=sum(one.rows for one in parts), columns=columns)


def _merge(parts: Sequence[ColumnProfile | None], rows: Sequence[int]) -> ColumnProfile:
    """The profile of a column over all rows; it is null in those of a part that has it not."""
    present = [one for one in parts if one is not None]
    missing = sum(count for one, count in zip(parts, rows, strict=True) if one is None)
    if len(present) == 1:
        return msgspec.structs.replace(present[0], nulls=present[0].nulls + missing)
    bounds = [one for one in present if one.min is not None]
    joined = msgspec.structs.replace(
        present[0],
        count=sum(one.count for one in present),
        nulls=sum(one.nulls for one in present) + missing,
        nans=sum(one.nans for one in present),
        min=min(bounds, key=_ordered_min).min if bounds else None,
        max=max(bounds, key=_ordered_max).max if bounds else None,
    )
    sketches = [unpacked(one.sketch) for one in present]
    if len({one.hashed_by for one in sketches if one.registers}) > 1:
        raise Unreadable("the sketches were hashed by different functions")
    return _shown(joined, merged(*sketches))


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
        return value[:_BYTES_SHOWN].hex()
    if isinstance(value, dict):
        return {str(key): wire_value(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [wire_value(inner) for inner in value]
    return value


def wire_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as JSON can carry it."""
    return {name: wire_value(value) for name, value in row.items()}
