"""Scored rows as they come over the wire: an Arrow IPC stream of row_id, label, score and slice columns."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from modelyard.kernel.errors import InvalidInput, TooLarge
from modelyard.planes.registry.evaluation import Rows

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_MAX = 10_000_000
BODY_BYTES_MAX = 1024 * 1024 * 1024
SLICE_COLUMNS_MAX = 20
SLICE_VALUES_MAX = 1_000
REQUIRED = ("row_id", "label", "score")


def read_rows(stream: BinaryIO) -> Rows:
    """The rows of a body. Raises InvalidInput naming the column that is wrong, TooLarge past the caps."""
    table = _read_table(stream)
    lacking = [name for name in REQUIRED if name not in table.column_names]
    if lacking or len(set(table.column_names)) < len(table.column_names):
        raise InvalidInput(
            f"the rows have columns {table.column_names[:30]}, but need each of {list(REQUIRED)} once",
            code="evaluation.columns",
            hint="name them row_id (unique), label (0 or 1) and score; all further columns are slices",
        )
    slices = [name for name in table.column_names if name not in REQUIRED]
    if len(slices) > SLICE_COLUMNS_MAX:
        raise InvalidInput(f"{len(slices)} slice columns are more than {SLICE_COLUMNS_MAX}", code="evaluation.columns")
    ids = _ids(table)
    return Rows(
        ids=ids,
        labels=_numbers(table, "label"),
        scores=_numbers(table, "score"),
        slices={name: _slice(table, name) for name in slices},
    )


def labels_digest(rows: Rows) -> str:
    """Equal for two sets of rows with the same ids and labels, in whatever order: they can be compared in pairs."""
    digest = hashlib.sha256()
    for row_id, label in sorted(zip(rows.ids, rows.labels.tolist(), strict=True)):
        digest.update(f"{len(row_id)}:{row_id}={label:g};".encode())
    return digest.hexdigest()


def in_order_of_ids(rows: Rows) -> tuple[Any, Any]:
    """Labels and scores, ordered by row id, so that two sets with the same `labels_digest` stand pair by pair."""
    import numpy as np  # heavy: imported late

    order = np.asarray(sorted(range(len(rows.ids)), key=rows.ids.__getitem__), dtype=np.int64)
    return rows.labels[order], rows.scores[order]


def _read_table(stream: BinaryIO) -> pa.Table:
    import pyarrow as pa  # heavy: imported late
    from pyarrow import ipc

    try:
        reader = ipc.open_stream(stream)
        batches, rows = [], 0
        for batch in reader:
            batch.validate(full=True)
            rows += batch.num_rows
            if rows > ROWS_MAX:
                raise TooLarge(f"more than {ROWS_MAX:,} rows", code="evaluation.too_large")
            batches.append(batch)
        return pa.Table.from_batches(batches, reader.schema)
    except (pa.ArrowException, OSError, ValueError, UnicodeDecodeError) as error:
        text = str(error).strip().splitlines()
        raise InvalidInput(
            f"the body is not an Arrow IPC stream that can be read: {text[0][:300] if text else error!r}",
            code="evaluation.not_arrow",
            hint="write it with pyarrow.ipc.new_stream",
        ) from error


def _ids(table: pa.Table) -> Sequence[str]:
    column = table.column("row_id")
    if column.null_count:
        raise InvalidInput(f"{column.null_count} rows have no row_id", code="evaluation.row_id")
    ids = [str(value) for value in column.to_pylist()]
    if len(set(ids)) < len(ids):
        raise InvalidInput(
            f"row_id is not unique: {len(ids) - len(set(ids))} repeats in {len(ids)} rows", code="evaluation.row_id"
        )
    return ids


def _numbers(table: pa.Table, name: str) -> Any:
    import numpy as np  # heavy: imported late
    import pyarrow as pa
    from pyarrow import types

    column = table.column(name)
    kind = column.type
    if not (types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind)):
        raise InvalidInput(f"{name} is {kind}, not a number", code="evaluation.columns")
    if types.is_boolean(kind):
        column = column.cast(pa.int8())
    # A missing number becomes NaN, which the metrics answer with "not enough data" and its count.
    return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)


def _slice(table: pa.Table, name: str) -> Sequence[str]:
    import pyarrow as pa  # heavy: imported late
    from pyarrow import types

    column = table.column(name)
    if types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if types.is_nested(column.type) or types.is_binary(column.type):
        raise InvalidInput(f"slice column '{name[:100]}' is {column.type}", code="evaluation.columns")
    distinct = len(column.unique())
    if distinct > SLICE_VALUES_MAX:
        raise InvalidInput(
            f"slice column '{name[:100]}' has {distinct:,} values, more than {SLICE_VALUES_MAX:,}",
            code="evaluation.columns",
            hint="cut it into fewer groups before you send it",
        )
    try:
        texts = column.cast(pa.string())
    except pa.ArrowException as error:
        raise InvalidInput(
            f"slice column '{name[:100]}' is {column.type}, not text", code="evaluation.columns"
        ) from error
    return ["null" if value is None else str(value) for value in texts.to_pylist()]
