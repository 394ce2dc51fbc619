"""Tabular files of this machine as a stream of batches: Parquet, CSV, JSON lines, Arrow, folders of them, Delta tables.

What is damaged is named by its file; nothing of a source is kept in memory but the batch at hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from modelyard.kernel.errors import InvalidInput

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH_ROWS = 64 * 1024
_KINDS = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".arrow": "arrow",
    ".feather": "arrow",
}


def open_source(path: Path) -> pa.RecordBatchReader:
    """The rows of a file, of a folder of files of one kind, or of a Delta table at its newest version.

    Raises InvalidInput, naming the file, for what is no such thing or is damaged; what is damaged further in raises
    when it is met.
    """
    if not path.exists():
        raise InvalidInput(f"there is no {path}", code="dataset.source_missing", hint="check the path")
    if (path / "_delta_log").is_dir():
        return _delta(path)
    files = _files(path)
    kinds = {_KINDS[file.suffix.lower()] for file in files}
    if len(kinds) > 1:
        raise InvalidInput(
            f"{path} holds files of several kinds: {', '.join(sorted(kinds))}",
            code="dataset.source_mixed",
            hint="import them one kind at a time",
        )
    kind = kinds.pop()
    if kind in ("csv", "json"):
        return _text(files, kind)
    return _columnar(files, kind)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        files = [path] if path.suffix.lower() in _KINDS else []
    else:
        inside = (one for one in sorted(path.rglob("*")) if one.suffix.lower() in _KINDS and one.is_file())
        files = [one for one in inside if not any(part.startswith(("_", ".")) for part in one.relative_to(path).parts)]
    if not files:
        raise InvalidInput(
            f"there is nothing to import in {path}",
            code="dataset.source_empty",
            hint=f"name a Delta table, or files that end in {', '.join(_KINDS)}",
        )
    return files


def _gap(path: Path) -> str:
    """Which entry its log lacks, empty where it lacks none."""
    numbers = {int(file.stem) for file in (path / "_delta_log").glob("*.json") if file.stem.isdecimal()}
    lacking = [one for one in range(min(numbers, default=0), max(numbers, default=0)) if one not in numbers]
    return f"its log lacks the entry {lacking[0]:020d}.json" if lacking else ""


def _delta(path: Path) -> pa.RecordBatchReader:
    import pyarrow as pa  # heavy: imported late
    from deltalake import DeltaTable, QueryBuilder  # heavy: imported late
    from deltalake.exceptions import DeltaError  # heavy: imported late

    try:
        table = DeltaTable(path)
        reader = QueryBuilder().register("source", table).execute("SELECT * FROM source")
        return pa.RecordBatchReader.from_stream(reader)
    except (DeltaError, OSError, ValueError) as error:
        raise InvalidInput(
            f"the Delta table {path} cannot be read: {_gap(path) or _line(error)}",
            code="dataset.source_damaged",
            hint="restore its log from a backup",
        ) from error


def _text(files: Sequence[Path], kind: str) -> pa.RecordBatchReader:
    import duckdb  # heavy: imported late
    import pyarrow as pa  # heavy: imported late

    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    listed = [str(file) for file in files]
    try:
        # Types are told from all rows and not from the first: a text in the last row makes the column one of texts.
        if kind == "csv":
            relation = connection.read_csv(listed, union_by_name=True, sample_size=-1)
        else:
            relation = connection.read_json(
                listed,
                format="newline_delimited",
                union_by_name=True,
                sample_size=-1,
            )
        reader = relation.to_arrow_reader(_BATCH_ROWS)
    except duckdb.Error as error:
        raise _unreadable(files, error) from error

    def batches() -> Iterator[pa.RecordBatch]:
        # The connection lives as long as its rows are read.
        with connection:
            try:
                yield from reader
            except (duckdb.Error, pa.ArrowInvalid, OSError) as error:
                raise _unreadable(files, error) from error

    return pa.RecordBatchReader.from_batches(reader.schema, batches())


def _columnar(files: Sequence[Path], kind: str) -> pa.RecordBatchReader:
    import pyarrow as pa  # heavy: imported late

    schema = pa.unify_schemas([_opened(file, kind)[0] for file in files])

    def batches() -> Iterator[pa.RecordBatch]:
        for file in files:
            try:
                for batch in _opened(file, kind)[1]:
                    yield _under(batch, schema)
            except (pa.ArrowInvalid, OSError) as error:
                raise _unreadable([file], error) from error

    return pa.RecordBatchReader.from_batches(schema, batches())


def _opened(file: Path, kind: str) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    import pyarrow as pa  # heavy: imported late

    try:
        if kind == "parquet":
            import pyarrow.parquet as pq  # heavy: imported late

            parquet = pq.ParquetFile(file)
            return parquet.schema_arrow, parquet.iter_batches(_BATCH_ROWS)
        opened = pa.ipc.open_file(pa.memory_map(str(file)))
        return opened.schema, (opened.get_batch(at) for at in range(opened.num_record_batches))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise _unreadable([file], error) from error


def _under(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    import pyarrow as pa  # heavy: imported late

    columns = [
        batch[field.name].cast(field.type) if field.name in batch.schema.names else pa.nulls(len(batch), field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _unreadable(files: Sequence[Path], error: Exception) -> InvalidInput:
    where = str(files[0]) if len(files) == 1 else f"one of {len(files)} files in {files[0].parent}"
    return InvalidInput(
        f"{where} cannot be read: {_line(error)}",
        code="dataset.source_damaged",
        hint="it may be truncated; produce it again",
    )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:500]
