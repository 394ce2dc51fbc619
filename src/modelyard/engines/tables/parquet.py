"""Writing Parquet files of bounded size in bounded memory, one for each combination of partition values."""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from modelyard.engines.tables.base import Partition, StagedFile
from modelyard.engines.tables.stats import file_stats
from modelyard.kernel.errors import InvalidInput

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

FILE_BYTES = 256 * 1024 * 1024
PARTITIONS_MAX = 2_000
_GROUP_BYTES = 32 * 1024 * 1024
_GROUP_ROWS = 512 * 1024
_HELD_BYTES = 192 * 1024 * 1024
_OPEN_FILES = 256


def write_files(
    directory: Path, write_id: str, batches: Iterator[pa.RecordBatch], schema: pa.Schema, partition_by: Sequence[str]
) -> tuple[StagedFile, ...]:
    """Write Parquet files of bounded size from row groups of bounded size, and make them durable.

    Raises InvalidInput where the partition columns have too many values, or some that cannot be told apart in a log.
    """
    if partition_by:
        return _write_partitions(directory, write_id, batches, schema, partition_by)
    files: list[StagedFile] = []
    groups = _row_groups(batches)
    group = next(groups, None)
    while group is not None:
        name = f"{write_id}-{len(files):05d}.parquet"
        group = _write_file(directory / name, group, groups, schema)
        files.append(describe(directory / name, schema, {}))
    return tuple(files)


def _write_file(file: Path, group: pa.Table | None, groups: Iterator[pa.Table], schema: pa.Schema) -> pa.Table | None:
    """Write one file from `group` on until it is large enough. Returns the group that the next file starts with."""
    with _Target(file, schema) as target:
        while group is not None and target.size < FILE_BYTES:
            target.write(group)
            group = next(groups, None)
    return group


class _Target:
    """One Parquet file being written, which is durable when its block has ended."""

    def __init__(self, file: Path, schema: pa.Schema) -> None:
        self._sink: BinaryIO = open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")  # noqa: SIM115  closed below
        self._writer = _writer(self._sink, schema)

    def __enter__(self) -> _Target:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._sink:
            self._writer.close()
            if kind is None:
                self._sink.flush()
                os.fsync(self._sink.fileno())

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self._sink.tell()

    def write(self, group: pa.Table) -> None:
        """Add rows as a row group."""
        self._writer.write_table(group, row_group_size=_GROUP_ROWS)


def _writer(sink: BinaryIO, schema: pa.Schema) -> pq.ParquetWriter:
    import pyarrow as pa  # heavy: imported late
    import pyarrow.parquet as pq  # heavy: imported late

    # Bounds of floats leave NaN out, so a reader that skips by them loses rows: `x > 2` is true of NaN in SQL.
    bounded = [field.name for field in schema if not pa.types.is_floating(field.type) and not field.type.num_fields]
    options: dict[str, Any] = {
        "compression": "zstd",
        "compression_level": 1,
        "write_statistics": bounded,
        # Without it a damaged page decodes to other numbers, and nobody notices.
        "write_page_checksum": True,
    }
    return pq.ParquetWriter(sink, schema, **options)


def _row_groups(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    import pyarrow as pa  # heavy: imported late

    held: list[pa.RecordBatch] = []
    rows = size_bytes = 0
    for batch in batches:
        held.append(batch)
        rows += batch.num_rows
        size_bytes += batch.nbytes
        if rows >= _GROUP_ROWS or size_bytes >= _GROUP_BYTES:
            yield pa.Table.from_batches(held)
            held, rows, size_bytes = [], 0, 0
    if held:
        yield pa.Table.from_batches(held)


def describe(file: Path, schema: pa.Schema, partition: Partition) -> StagedFile:
    """What a table needs to know of a file."""
    import pyarrow.parquet as pq  # heavy: imported late

    metadata = pq.read_metadata(file)
    stats = json.dumps(file_stats(metadata))
    return StagedFile(file.name, file.stat().st_size, metadata.num_rows, stats, len(schema.names), partition)


# --- partitions -------------------------------------------------------------------------------------------------

Values = tuple[str | None, ...]


def check_partition_columns(schema: pa.Schema, partition_by: Sequence[str]) -> None:
    """Raise InvalidInput unless these columns are there and of types whose values a log can hold exactly."""
    import pyarrow as pa  # heavy: imported late

    for name in partition_by:
        if name not in schema.names:
            raise InvalidInput(
                f"the table is partitioned by '{name}', which the data does not have",
                code="dataset.partition_missing",
                hint=f"its columns are: {', '.join(schema.names[:20])}",
            )
        kind = schema.field(name).type
        fits = (pa.types.is_string, pa.types.is_integer, pa.types.is_date32, pa.types.is_boolean)
        if not any(test(kind) for test in fits):
            raise InvalidInput(
                f"column '{name}' is {kind}: a table is partitioned by texts, integers, days or booleans",
                code="dataset.partition_type",
                hint="derive such a column, for example the day of a time",
            )
    if partition_by and len(set(partition_by)) >= len(schema.names):
        raise InvalidInput(
            "a table needs a column besides those it is partitioned by", code="dataset.partition_missing"
        )


def _write_partitions(
    directory: Path, write_id: str, batches: Iterator[pa.RecordBatch], schema: pa.Schema, partition_by: Sequence[str]
) -> tuple[StagedFile, ...]:
    check_partition_columns(schema, partition_by)
    with _Partitions(directory, write_id, schema) as partitions:
        for batch in batches:
            for values, rows in _split(batch, partition_by):
                partitions.add(values, rows)
        partitions.finish()
    return tuple(
        describe(directory / name, schema, dict(zip(partition_by, values, strict=True)))
        for name, values in partitions.written
    )


class _Partitions:
    """Rows held back for each combination of values until they make a good row group, or memory asks for it."""

    def __init__(self, directory: Path, write_id: str, schema: pa.Schema) -> None:
        self._directory = directory
        self._write_id = write_id
        self._schema = schema
        self._held: dict[Values, list[pa.RecordBatch]] = {}
        self._sizes: dict[Values, int] = {}
        self._targets: OrderedDict[Values, _Target] = OrderedDict()
        self._stack = ExitStack()
        self.written: list[tuple[str, Values]] = []

    def __enter__(self) -> _Partitions:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        for target in self._targets.values():
            target.__exit__(kind)

    def add(self, values: Values, rows: pa.RecordBatch) -> None:
        """Take rows of one partition."""
        if values not in self._sizes and len(self._sizes) >= PARTITIONS_MAX:
            raise InvalidInput(
                f"the data has more than {PARTITIONS_MAX} partitions",
                code="dataset.too_many_partitions",
                hint="partition by a column with fewer values, or write it in several batches",
            )
        self._held.setdefault(values, []).append(rows)
        self._sizes[values] = self._sizes.get(values, 0) + rows.nbytes
        if self._sizes[values] >= _GROUP_BYTES:
            self._flush(values)
        while sum(self._sizes.values()) > _HELD_BYTES:
            self._flush(max(self._sizes, key=self._sizes.__getitem__))

    def finish(self) -> None:
        """Write all that is held back."""
        for values in list(self._held):
            self._flush(values)

    def _flush(self, values: Values) -> None:
        import pyarrow as pa  # heavy: imported late

        target = self._target(values)
        target.write(pa.Table.from_batches(self._held.pop(values)))
        self._sizes[values] = 0
        if target.size >= FILE_BYTES:
            self._targets.pop(values).__exit__(None)

    def _target(self, values: Values) -> _Target:
        if values in self._targets:
            self._targets.move_to_end(values)
            return self._targets[values]
        while len(self._targets) >= _OPEN_FILES:
            self._targets.popitem(last=False)[1].__exit__(None)
        name = f"{self._write_id}-{len(self.written):05d}.parquet"
        self._targets[values] = _Target(self._directory / name, self._schema)
        self.written.append((name, values))
        return self._targets[values]


def _split(batch: pa.RecordBatch, partition_by: Sequence[str]) -> Iterator[tuple[Values, pa.RecordBatch]]:
    """The rows of a batch by their partition values, in their order."""
    import pyarrow as pa  # heavy: imported late
    import pyarrow.compute as pc  # heavy: imported late

    keys = pa.table([batch[name] for name in partition_by], names=[f"k{i}" for i in range(len(partition_by))])
    numbered = keys.append_column("row", pa.array(range(batch.num_rows), pa.int64()))
    grouped = numbered.group_by(list(keys.column_names)).aggregate([("row", "list")])
    for group in grouped.to_batches():
        for index in range(group.num_rows):
            values = tuple(_written(group[f"k{i}"][index].as_py(), name) for i, name in enumerate(partition_by))
            rows = pc.sort_indices(group["row_list"][index].values)
            yield values, batch.take(group["row_list"][index].values.take(rows))


def _written(value: Any, column: str) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    if not text:
        raise InvalidInput(
            f"column '{column}' holds an empty text, which a table partitioned by it would read as null",
            code="dataset.partition_empty",
            hint="write null, or another text",
        )
    return text
