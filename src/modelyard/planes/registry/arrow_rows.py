"""Scored rows as they come over the wire: an Arrow IPC stream of row_id, label, score and slice columns."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from modelyard.kernel.errors import InvalidInput, TooLarge
from modelyard.planes.registry.arrow_guard import is_compressed
from modelyard.planes.registry.evaluation import Rows

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_MAX = 10_000_000
BODY_BYTES_MAX = 1024 * 1024 * 1024
SLICE_COLUMNS_MAX = 20
SLICE_VALUES_MAX = 1_000
SLICE_CHARACTERS_MAX = 500
REQUIRED = ("row_id", "label", "score")


def read_rows(stream: BinaryIO) -> Rows:
    """The rows of a body. Raises InvalidInput naming the column that is wrong, TooLarge past the caps."""
    import pyarrow as pa  # heavy: imported late

    try:
        return _rows_of(_read_table(stream))
    except (pa.ArrowException, OSError, ValueError) as error:
        text = str(error).strip().splitlines()
        raise InvalidInput(
            f"the body is not an Arrow IPC stream that can be read: {text[0][:300] if text else error!r}",
            code="evaluation.not_arrow",
            hint="write it with pyarrow.ipc.new_stream",
        ) from error


def _rows_of(table: pa.Table) -> Rows:
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
    return Rows(
        ids=_ids(table),
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

    _refuse_compressed(stream)
    stream.seek(0)
    reader = ipc.open_stream(stream)
    batches, rows = [], 0
    for batch in reader:
        rows += batch.num_rows
        if rows > ROWS_MAX:
            raise TooLarge(f"more than {ROWS_MAX:,} rows", code="evaluation.too_large")
        batch.validate(full=True)
        batches.append(batch)
    return pa.Table.from_batches(batches, reader.schema)


def _refuse_compressed(stream: BinaryIO) -> None:
    from pyarrow import ipc  # heavy: imported late

    reader = ipc.MessageReader.open_stream(stream)
    while True:
        try:
            message = reader.read_next_message()
        except StopIteration:
            return
        if is_compressed(message.metadata.to_pybytes()):
            raise InvalidInput(
                "the rows are compressed, and what they unfold to cannot be bounded",
                code="evaluation.compressed",
                hint="write them without compression (the default of pyarrow.ipc.new_stream)",
            )


def _ids(table: pa.Table) -> Sequence[str]:
    from pyarrow import types  # heavy: imported late

    column = table.column("row_id")
    kind = column.type
    # Types that share one long text between many rows would unfold here.
    if not (types.is_string(kind) or types.is_large_string(kind) or types.is_integer(kind)):
        raise InvalidInput(f"row_id is {kind}, neither text nor integer", code="evaluation.row_id")
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
    # A missing number becomes NaN, which the metrics answer with "not enough data" and its count; an integer beyond
    # what a float holds is no label and no score anyway, so its rounding decides nothing.
    return np.asarray(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), dtype=np.float64)


def _slice(table: pa.Table, name: str) -> Sequence[str]:
    import pyarrow as pa  # heavy: imported late

    column = table.column(name).unify_dictionaries()
    _check_slice_type(name, column.type)
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    if not column.num_chunks:
        return []
    # One dictionary for all chunks, so that each text exists once, however many rows share it.
    column = column.unify_dictionaries()
    values = column.chunk(0).dictionary
    if len(values) > SLICE_VALUES_MAX:
        raise InvalidInput(
            f"slice column '{name[:100]}' has {len(values):,} values, more than {SLICE_VALUES_MAX:,}",
            code="evaluation.columns",
            hint="cut it into fewer groups before you send it",
        )
    texts = ["null" if value is None else str(value) for value in values.cast(pa.string()).to_pylist()]
    if any(len(text) > SLICE_CHARACTERS_MAX for text in texts):
        raise InvalidInput(
            f"slice column '{name[:100]}' has a value of more than {SLICE_CHARACTERS_MAX} characters",
            code="evaluation.columns",
        )
    places = [place for chunk in column.chunks for place in chunk.indices.to_pylist()]
    return ["null" if place is None else texts[place] for place in places]


def _check_slice_type(name: str, kind: Any) -> None:
    from pyarrow import types  # heavy: imported late

    inner = kind.value_type if types.is_dictionary(kind) else kind
    plain = (types.is_string, types.is_large_string, types.is_integer, types.is_boolean, types.is_date)
    if not any(fits(inner) for fits in plain):
        raise InvalidInput(
            f"slice column '{name[:100]}' is {kind}",
            code="evaluation.columns",
            hint="slices are texts, whole numbers, dates or yes and no; cut other numbers into groups first",
        )
