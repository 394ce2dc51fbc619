"""The entity frame: whose features are wanted, as of when; and the narrow table of it that a join looks up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from modelyard.kernel.errors import InvalidInput, TooLarge

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_MAX = 10_000_000


def read_frame(reader: pa.RecordBatchReader) -> pa.Table:
    """All rows of a stream, at most `ROWS_MAX`. Raises TooLarge; InvalidInput for two columns of one name."""
    import pyarrow as pa  # heavy: imported late

    batches, rows = [], 0
    for batch in reader:
        rows += batch.num_rows
        if rows > ROWS_MAX:
            raise TooLarge(
                f"an entity frame has at most {ROWS_MAX} rows",
                code="features.too_many_rows",
                hint="join it in several parts",
            )
        batches.append(batch)
    names = reader.schema.names
    if len(set(names)) < len(names):
        raise InvalidInput("the entity frame has two columns of one name", code="features.column_duplicate")
    return pa.Table.from_batches(batches, schema=reader.schema)


def lookup_table(frame: pa.Table, timestamp: str, keys: Mapping[str, tuple[str, pa.DataType]]) -> pa.Table:
    """`nth`, `t` in microseconds, and for each of `keys` the frame's column cast to the type that the source has.

    Raises InvalidInput for a column that is missing, is no timestamp, has nulls where an instant is needed, or holds
    values that the source's key cannot be.
    """
    import numpy as np  # heavy: imported late
    import pyarrow as pa  # heavy: imported late

    columns = {"nth": pa.array(np.arange(frame.num_rows, dtype=np.int64)), "t": _instants(frame, timestamp)}
    for name, (column, kind) in keys.items():
        columns[name] = _key(frame, column, kind)
    return pa.table(columns)


def with_features(frame: pa.Table, features: pa.Table, metadata: Mapping[bytes, bytes]) -> pa.Table:
    """The frame with the features beside its columns, row for row. Raises InvalidInput where a name is taken."""
    taken = [name for name in features.column_names if name in frame.column_names]
    if taken:
        raise InvalidInput(
            f"the entity frame has a column '{taken[0]}' already",
            code="features.column_duplicate",
            hint="rename or drop it: features are named <view>__<feature>",
        )
    for name in features.column_names:
        frame = frame.append_column(features.schema.field(name), features.column(name))
    return frame.replace_schema_metadata({**(frame.schema.metadata or {}), **metadata})


def _instants(frame: pa.Table, timestamp: str) -> pa.ChunkedArray:
    import pyarrow as pa  # heavy: imported late
    import pyarrow.compute as pc  # heavy: imported late

    column = _column(frame, timestamp, "the timestamp")
    if not pa.types.is_timestamp(column.type):
        raise InvalidInput(
            f"column '{timestamp}' of the entity frame is {column.type}, not a timestamp",
            code="features.timestamp_invalid",
            hint="convert it to instants in UTC",
        )
    if column.null_count:
        raise InvalidInput(
            f"column '{timestamp}' of the entity frame is null in {column.null_count} rows: as of when is not known",
            code="features.timestamp_null",
            hint="drop these rows, or say when",
        )
    # An instant without a zone is taken as UTC, as datasets take it; nanoseconds are cut to microseconds.
    return pc.cast(pc.cast(column, pa.timestamp("us", tz="UTC"), safe=False), pa.int64())


def _key(frame: pa.Table, name: str, kind: pa.DataType) -> pa.ChunkedArray:
    import pyarrow as pa  # heavy: imported late
    import pyarrow.compute as pc  # heavy: imported late

    column = _column(frame, name, "the entity")
    try:
        return pc.cast(column, kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InvalidInput(
            f"column '{name}' of the entity frame is {column.type}, the views' is {kind}: {str(error).splitlines()[0]}",
            code="features.entity_type",
            hint=f"convert it to {kind}",
        ) from error


def _column(frame: pa.Table, name: str, role: str) -> pa.ChunkedArray:
    if name not in frame.column_names:
        raise InvalidInput(
            f"the entity frame has no column '{name}', which is {role}",
            code="features.entity_missing",
            hint=f"its columns are: {', '.join(frame.column_names)}",
        )
    return frame.column(name)


def feature_refs(refs: Sequence[str]) -> list[tuple[str, str]]:
    """`view` or `view@version`, maybe with `:feature`, as pairs of view and feature ("" for all)."""
    if not refs:
        raise InvalidInput("no feature is asked for", code="features.none_asked", hint="name views, or view:feature")
    pairs = []
    for ref in refs:
        view, _, feature = ref.partition(":")
        if not view:
            raise InvalidInput(f"{ref!a} names no view", code="features.ref_invalid", hint="write view or view:feature")
        pairs.append((view, feature))
    return pairs
