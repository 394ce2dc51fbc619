"""The statistics of a file as the Delta log wants them, taken from the Parquet footer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow.parquet as pq


def file_stats(metadata: pq.FileMetaData) -> dict[str, Any]:
    """Rows, and the nulls of each flat column.

    Least and greatest values are left out on purpose. Parquet's do not count NaN, long texts and fine times would
    have to be cut, and where only some columns have bounds the `deltalake` reader compares the others with null and
    finds no rows at all. A missing bound is always right; readers still skip by the footers of the files.
    """
    nulls: dict[str, int] = {}
    for index in range(metadata.num_columns):
        name = metadata.schema.column(index).path
        groups = [metadata.row_group(group).column(index) for group in range(metadata.num_row_groups)]
        statistics = [column.statistics for column in groups]
        if "." not in name and all(one is not None and one.has_null_count for one in statistics):
            nulls[name] = sum(one.null_count for one in statistics)
    return {"numRecords": metadata.num_rows, "nullCount": nulls}
