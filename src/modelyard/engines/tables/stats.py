"""The statistics of a file as the Delta log wants them, taken from the Parquet footer: readers skip files by them."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow.parquet as pq

_TEXT_CHARACTERS_MAX = 32


def file_stats(metadata: pq.FileMetaData) -> dict[str, Any]:
    """Rows, and per flat column the nulls, least and greatest value.

    Bounds are left out where they might be wrong: Parquet's do not count NaN, long texts would have to be cut, and
    instants would have to be rounded to milliseconds. A missing bound is always right, a narrow one loses rows.
    """
    nulls: dict[str, int] = {}
    low: dict[str, Any] = {}
    high: dict[str, Any] = {}
    columns = [index for index in range(metadata.num_columns) if "." not in metadata.schema.column(index).path]
    for index in columns:
        found = [metadata.row_group(group).column(index) for group in range(metadata.num_row_groups)]
        statistics = [column.statistics for column in found]
        name = metadata.schema.column(index).path
        if any(one is None or not one.has_null_count for one in statistics):
            continue
        nulls[name] = sum(one.null_count for one in statistics)
        bounded = [one for one in statistics if one.has_min_max]
        if len(bounded) != len(statistics):
            continue
        lowest, highest = _bound(min(one.min for one in bounded)), _bound(max(one.max for one in bounded))
        if lowest is not None and highest is not None:
            low[name], high[name] = lowest, highest
    return {"numRecords": metadata.num_rows, "minValues": low, "maxValues": high, "nullCount": nulls}


def _bound(value: Any) -> int | str | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, str):
        return value if len(value) <= _TEXT_CHARACTERS_MAX else None
    return value.isoformat() if type(value) is date else None
