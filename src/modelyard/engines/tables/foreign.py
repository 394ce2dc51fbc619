"""Rows of somebody else's for SQL to look at where they are, in memory or in files: nothing is copied that need not be.

A table that is written to has few types (`arrow.normalised_schema`); these rows keep theirs, and SQL is told where a
value would else mean something else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from modelyard.engines.tables.arrow import as_reader, check_names, kept_type
from modelyard.engines.tables.base import FileSet
from modelyard.engines.tables.frames import table_of_frame
from modelyard.engines.tables.ingest import CSV, JSON_LINES, TSV, open_tabular
from modelyard.kernel.errors import InvalidInput

if TYPE_CHECKING:
    import pyarrow as pa

_FOOTERS_MAX = 64
_SLICES = 8
_SLICE_ROWS = 1_024
_CODED_BYTES_MAX = 3.0
_IN_MEMORY_BYTES = 64 * 1024**2
_GROUP_ROWS = 128 * 1024
_MEDIA_TYPES = {".csv": CSV, ".tsv": TSV, ".jsonl": JSON_LINES, ".ndjson": JSON_LINES}
_PARQUET_SUFFIXES = frozenset({".parquet", ".pq"})


@dataclass(frozen=True, slots=True)
class ForeignRows:
    """A table in memory or in Parquet files. `kinds`: the Arrow types of its columns, as a table would keep them;
    `casts`: by column, the expression of SQL that brings it to its type, in which `{}` stands for it. `without_nan`:
    those of floats of which it is known that none is NaN. `folder`: where the files are if they are there for these
    rows only; it goes when they do."""

    rows: pa.Table | FileSet
    kinds: Mapping[str, str]
    casts: Mapping[str, str]
    without_nan: frozenset[str] = frozenset()
    folder: TemporaryDirectory[str] | None = None


def foreign_rows(data: Any) -> ForeignRows:
    """The rows of an Arrow table or reader, a pandas or Polars frame, or of files: Parquet (one, several or a folder of
    them), Arrow, CSV or JSON lines. Raises InvalidInput for what holds no rows."""
    import pyarrow as pa  # heavy: imported late

    if isinstance(data, ForeignRows):
        return data
    if isinstance(data, (str, Path)):
        return _of_files(_files(Path(data)))
    if isinstance(data, Sequence) and data and all(isinstance(one, (str, Path)) for one in data):
        return _of_files([Path(one) for one in data])
    if type(data).__module__.partition(".")[0] == "pandas":
        table, without_nan = table_of_frame(data)
        return replace(of_table(table), without_nan=without_nan)
    return of_table(data if isinstance(data, pa.Table) else as_reader(data).read_all())


def of_table(table: pa.Table) -> ForeignRows:
    """Rows that are in memory."""
    import pyarrow as pa  # heavy: imported late

    for place, field in enumerate(table.schema):
        values = table.column(place)
        if pa.types.is_float16(field.type):
            table = table.set_column(place, field.name, values.cast(pa.float32()))
        elif field.type == pa.timestamp("us"):
            # The same numbers by another name, which spares SQL the work.
            instants = pa.timestamp("us", "UTC")
            table = table.set_column(
                place, field.name, pa.chunked_array([one.view(instants) for one in values.chunks], instants)
            )
    return ForeignRows(table, *_types(table.schema))


def text_columns(rows: ForeignRows) -> list[str]:
    """The columns that hold texts."""
    return [name for name, kind in rows.kinds.items() if kind == "string" and name not in rows.casts]


def row_count(rows: ForeignRows) -> int | None:
    """How many rows there are, where that is known without counting them."""
    if isinstance(rows.rows, FileSet):
        return sum(one.num_rows for one in _footers(rows.rows)) if len(rows.rows.files) <= _FOOTERS_MAX else None
    count: int = rows.rows.num_rows
    return count


def distinct_texts(rows: ForeignRows, columns: Sequence[str]) -> dict[str, int]:
    """About how many different values columns have, found without a look at all of them: from some of the rows, or from
    how little room they take in a file."""
    if isinstance(rows.rows, FileSet):
        return _distinct_in_files(rows.rows, columns) if len(rows.rows.files) <= _FOOTERS_MAX else {}
    return {name: _distinct_in_memory(rows.rows.column(name)) for name in columns}


def _distinct_in_memory(values: pa.ChunkedArray) -> int:
    import pyarrow as pa  # heavy: imported late

    count = len(values)
    if count <= _SLICES * _SLICE_ROWS:
        return len(values.unique())
    step = (count - _SLICE_ROWS) // (_SLICES - 1)
    slices = [values.slice(place * step, _SLICE_ROWS) for place in range(_SLICES)]
    found = len(pa.chunked_array([one for drawn in slices for one in drawn.chunks], values.type).unique())
    # Of so many drawn at random from D values so many differ: solved for D by halving.
    low, high = found, count
    while low < high:
        middle = (low + high) // 2
        if middle * -math.expm1(-_SLICES * _SLICE_ROWS / middle) < found:
            low = middle + 1
        else:
            high = middle
    return low


def _distinct_in_files(files: FileSet, columns: Sequence[str]) -> dict[str, int]:
    """A column whose values take few bytes each is coded by a dictionary, which a writer gives up where it grows."""
    sizes = dict.fromkeys(columns, 0)
    rows = 0
    for footer in _footers(files):
        rows += footer.num_rows
        for group in range(footer.num_row_groups):
            held = footer.row_group(group)
            for place in range(held.num_columns):
                column = held.column(place)
                if column.path_in_schema in sizes:
                    sizes[column.path_in_schema] += column.total_uncompressed_size
    return {name: rows // 16 if size <= _CODED_BYTES_MAX * rows else rows for name, size in sizes.items()}


def _footers(files: FileSet) -> list[Any]:
    import pyarrow as pa  # heavy: imported late
    import pyarrow.parquet as pq  # heavy: imported late

    try:
        return [pq.read_metadata(file) for file in files.files]
    except (pa.ArrowInvalid, OSError) as error:
        raise InvalidInput(
            f"a Parquet file cannot be read: {str(error).splitlines()[0]}",
            code="dataset.not_tabular",
            hint="it may be truncated; produce it again",
        ) from error


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(one for one in path.iterdir() if one.suffix.lower() in _PARQUET_SUFFIXES)
    if not found:
        raise InvalidInput(f"there is no Parquet file in {path}", code="dataset.not_tabular")
    return found


def _of_files(files: Sequence[Path]) -> ForeignRows:
    for file in files:
        if not file.is_file():
            raise InvalidInput(f"there is no file {file}", code="dataset.not_tabular")
    if any(one.suffix.lower() not in _PARQUET_SUFFIXES for one in files):
        if len(files) > 1:
            raise InvalidInput("of several files each must be Parquet", code="dataset.not_tabular")
        return _of_texts(files[0])
    schema = _parquet_schema(files[0])
    return ForeignRows(FileSet(schema, tuple(files), uniform=len(files) == 1), *_types(schema))


def _of_texts(file: Path) -> ForeignRows:
    """The rows of a file that SQL cannot read where it is: in memory if they are few, else as Parquet for the time
    being, since a text of a gigabyte takes more than that in memory."""
    import pyarrow.parquet as pq  # heavy: imported late

    with open_tabular(file, _MEDIA_TYPES.get(file.suffix.lower(), "")) as reader:
        if file.stat().st_size < _IN_MEMORY_BYTES:
            return of_table(reader.read_all())
        folder = TemporaryDirectory(prefix="modelyard-rows-", ignore_cleanup_errors=True)
        written = Path(folder.name) / "rows.parquet"
        with pq.ParquetWriter(written, reader.schema, compression="zstd", compression_level=1) as writer:
            for batch in reader:
                writer.write_batch(batch, row_group_size=_GROUP_ROWS)
    return replace(_of_files([written]), folder=folder)


def _parquet_schema(file: Path) -> pa.Schema:
    import pyarrow as pa  # heavy: imported late
    import pyarrow.parquet as pq  # heavy: imported late

    try:
        schema: pa.Schema = pq.read_schema(file)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise InvalidInput(
            f"{file} is no readable Parquet file: {str(error).splitlines()[0]}",
            code="dataset.not_tabular",
            hint="it may be truncated; produce it again",
        ) from error
    return schema


def _types(schema: pa.Schema) -> tuple[dict[str, str], dict[str, str]]:
    check_names(schema.names)
    kinds: dict[str, str] = {}
    casts: dict[str, str] = {}
    for field in schema:
        kinds[field.name], cast = _type(field)
        if cast:
            casts[field.name] = cast
    return kinds, casts


def _type(field: pa.Field) -> tuple[str, str]:
    import pyarrow as pa  # heavy: imported late

    kind = field.type
    if isinstance(kind, (pa.UuidType, pa.JsonType)):
        return "string", "CAST({} AS VARCHAR)"
    if pa.types.is_timestamp(kind):
        zoned = "CAST({} AS TIMESTAMPTZ)" if kind.unit != "us" else ""
        return str(kept_type(field)), zoned if kind.tz else _as_instant(kind.unit)
    if pa.types.is_time(kind) or pa.types.is_null(kind) or pa.types.is_duration(kind):
        # No table keeps these, but that is no reason not to look at the columns beside them.
        return str(kind), ""
    return str(kept_type(field)), ""


def _as_instant(unit: str) -> str:
    """DuckDB takes a time of no zone for a local one, and knows no way from nanoseconds but over microseconds. Its cast
    asks a calendar about every value, even where the zone is UTC: counting microseconds takes a thirtieth of that."""
    time = "{}" if unit == "us" else "CAST({} AS TIMESTAMP)"
    counted = f"make_timestamptz(epoch_us({time}))"
    return f"CASE WHEN isfinite({{}}) THEN {counted} ELSE CAST({time} AS TIMESTAMPTZ) END"
