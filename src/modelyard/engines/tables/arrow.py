"""Arrow types as tables keep them: one integer family, UTF-8 strings, and every instant in microseconds of UTC.

Other widths and encodings of the same values are brought to these, so that two producers of one dataset agree.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from modelyard.engines.tables.base import FILE_COLUMN, FileSet
from modelyard.engines.tables.places import damaged, speaks_of_files
from modelyard.kernel.errors import InvalidInput

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds

COLUMNS_MAX = 5_000
# Reading further ahead gains nothing on a local disk, and holds a gigabyte of what nobody asked for yet.
_BATCHES_AHEAD = 2
_FILES_AHEAD = 1
_COLUMN_NAME_BYTES_MAX = 255


def normalised_schema(schema: pa.Schema) -> pa.Schema:
    """The schema under which a table keeps this one. Raises InvalidInput for a column that cannot be kept."""
    import pyarrow as pa  # heavy: imported late

    check_names(schema.names)
    return pa.schema([pa.field(field.name, _normalised(field.name, field.type)) for field in schema])


def check_names(names: list[str]) -> None:
    """Raise InvalidInput unless these can name the columns of one table."""
    if not names:
        raise InvalidInput("the data has no columns", code="dataset.no_columns")
    if len(names) > COLUMNS_MAX:
        raise InvalidInput(
            f"the data has {len(names)} columns, more than {COLUMNS_MAX}", code="dataset.too_many_columns"
        )
    seen: dict[str, str] = {}
    for name in names:
        if not name or len(name.encode()) > _COLUMN_NAME_BYTES_MAX or not name.isprintable():
            raise InvalidInput(
                f"{name[:80]!a} cannot name a column: names are printable, not empty, at most 255 bytes",
                code="dataset.column_name_invalid",
            )
        # Delta and SQL compare column names without case.
        other = seen.setdefault(name.casefold(), name)
        if other is not name or names.count(name) > 1:
            raise InvalidInput(
                f"two columns have one name: '{other}' and '{name}'",
                code="dataset.column_duplicate",
                hint="rename one; column names are compared without case",
            )


def kept_type(field: pa.Field) -> pa.DataType:
    """The type as which a table keeps a column. Raises InvalidInput where it cannot."""
    return _normalised(field.name, field.type)


def _normalised(column: str, kind: pa.DataType) -> pa.DataType:
    import pyarrow as pa  # heavy: imported late

    t = pa.types
    if t.is_dictionary(kind) or t.is_run_end_encoded(kind):
        return _normalised(column, kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        return _normalised(column, kind.storage_type)
    if t.is_timestamp(kind):
        return pa.timestamp("us", tz="UTC")
    if t.is_string(kind) or t.is_large_string(kind) or t.is_string_view(kind):
        return pa.string()
    if t.is_binary(kind) or t.is_large_binary(kind) or t.is_binary_view(kind) or t.is_fixed_size_binary(kind):
        return pa.binary()
    if t.is_decimal(kind) and kind.precision <= 38:
        return pa.decimal128(kind.precision, kind.scale)
    if t.is_list(kind) or t.is_large_list(kind) or t.is_fixed_size_list(kind):
        return pa.list_(_normalised(column, kind.value_type))
    if t.is_struct(kind):
        return pa.struct([pa.field(inner.name, _normalised(f"{column}.{inner.name}", inner.type)) for inner in kind])
    if t.is_map(kind):
        return pa.map_(_normalised(column, kind.key_type), _normalised(column, kind.item_type))
    plain = {
        pa.uint8(): pa.int16(),
        pa.uint16(): pa.int32(),
        pa.uint32(): pa.int64(),
        pa.uint64(): pa.int64(),
        pa.float16(): pa.float32(),
        pa.date64(): pa.date32(),
    }
    if kind in plain:
        return plain[kind]
    if t.is_boolean(kind) or t.is_signed_integer(kind) or t.is_floating(kind) or t.is_date32(kind):
        return kind
    hint = "cast it to a type that has values" if t.is_null(kind) else "cast it, for example to a string or a number"
    raise InvalidInput(
        f"column '{column}' has type {kind}, which a table cannot hold",
        code="dataset.type_unsupported",
        hint=hint,
    )


def fits(source: pa.DataType, target: pa.DataType) -> bool:
    """Whether values of a normalised type may go into a column of the other, being checked value by value where
    the types alone do not tell (an integer in a float column must be exact)."""
    import pyarrow as pa  # heavy: imported late

    t = pa.types
    if source == target or t.is_null(source):
        return True
    if t.is_signed_integer(source):
        wider = t.is_signed_integer(target) and source.bit_width <= target.bit_width
        return bool(wider or t.is_floating(target))
    if t.is_floating(source):
        return bool(t.is_floating(target) and source.bit_width <= target.bit_width)
    if t.is_decimal(source) and t.is_decimal(target):
        return bool(source.scale <= target.scale and source.precision - source.scale <= target.precision - target.scale)
    return False


def staged_schema(source: pa.Schema, target: pa.Schema | None) -> pa.Schema:
    """The types under which a stream is staged: those of `target` where its column fits, else normalised ones.

    A column that is missing, additional or of another type stays so: judging that is the caller's business.
    """
    import pyarrow as pa  # heavy: imported late

    known = {} if target is None else {field.name: field.type for field in target}
    fields = []
    for field in source:
        wanted = known.get(field.name)
        if wanted is not None and pa.types.is_null(field.type):
            fields.append(pa.field(field.name, wanted))
            continue
        kind = _normalised(field.name, field.type)
        fields.append(pa.field(field.name, wanted if wanted is not None and fits(kind, wanted) else kind))
    check_names([field.name for field in fields])
    if target is not None and {field.name for field in fields} == set(known):
        fields.sort(key=lambda field: target.get_field_index(field.name))
    return pa.schema(fields)


def cast_batch(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The batch under another schema of the same column names. Raises InvalidInput where a value does not fit."""
    import pyarrow as pa  # heavy: imported late

    columns = [_cast(batch.column(field.name), field) for field in schema]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _cast(column: pa.Array, field: pa.Field) -> pa.Array:
    import pyarrow as pa  # heavy: imported late
    import pyarrow.compute as pc  # heavy: imported late

    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if isinstance(column, pa.DictionaryArray):
        column = column.dictionary_decode()
    if column.type == field.type:
        return column
    # Nanoseconds are cut to microseconds, which is our resolution; every other loss is refused.
    cut = _holds_timestamps(field.type)
    try:
        return pc.cast(column, field.type, safe=not cut)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InvalidInput(
            f"column '{field.name}' has a value that does not fit its type {field.type}: {_first_line(error)}",
            code="dataset.value_unfit",
            hint="cast the column before writing, or write to another dataset",
        ) from error


def _holds_timestamps(kind: pa.DataType) -> bool:
    import pyarrow as pa  # heavy: imported late

    if pa.types.is_timestamp(kind):
        return True
    return any(_holds_timestamps(kind.field(index).type) for index in range(kind.num_fields))


def as_reader(source: Any) -> pa.RecordBatchReader:
    """A stream of record batches from whatever holds Arrow data: a table, batch, reader, iterable of batches, or an
    object with the Arrow C stream interface (a pandas or Polars frame, a DuckDB relation). Raises InvalidInput.
    """
    import pyarrow as pa  # heavy: imported late

    if isinstance(source, pa.RecordBatchReader):
        return source
    if isinstance(source, pa.RecordBatch):
        return pa.RecordBatchReader.from_batches(source.schema, [source])
    if isinstance(source, pa.Table):
        return source.to_reader()
    if hasattr(source, "__arrow_c_stream__"):
        return pa.RecordBatchReader.from_stream(source)
    if isinstance(source, Iterable) and not isinstance(source, (str, bytes, dict)):
        return _reader_of_batches(iter(source))
    raise InvalidInput(
        f"{type(source).__name__} is not tabular data",
        code="dataset.not_tabular",
        hint="pass a pyarrow Table, RecordBatchReader or batches, or a pandas or Polars frame",
    )


def _reader_of_batches(batches: Iterator[Any]) -> pa.RecordBatchReader:
    import pyarrow as pa  # heavy: imported late

    first = next(batches, None)
    if first is None:
        raise InvalidInput("there are no batches to write", code="dataset.batch_empty")
    if not isinstance(first, pa.RecordBatch):
        raise InvalidInput(
            f"an iterable of {type(first).__name__} is not tabular data",
            code="dataset.not_tabular",
            hint="yield pyarrow record batches",
        )

    def rest() -> Iterator[pa.RecordBatch]:
        yield first
        yield from batches

    return pa.RecordBatchReader.from_batches(first.schema, rest())


def scan(table: FileSet, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Rows of Parquet files, batch by batch, with the checksum of every page verified.

    Raises EngineError (`table.file_damaged`) where the files are not those that were written.
    """
    import pyarrow as pa  # heavy: imported late
    import pyarrow.dataset as ds  # heavy: imported late

    if not table.files:
        return
    options = ds.ParquetFragmentScanOptions(page_checksum_verification=True, pre_buffer=False)
    files = _dataset(table, ds.ParquetFileFormat(default_fragment_scan_options=options))
    rows = 0
    try:
        for batch in files.to_batches(
            columns=list(columns), batch_readahead=_BATCHES_AHEAD, fragment_readahead=_FILES_AHEAD
        ):
            yield batch
            rows += batch.num_rows
    except (pa.ArrowInvalid, OSError) as error:
        text = _first_line(error)
        file = "" if speaks_of_files(text, [table]) else _damaged_after(files, columns, rows)
        raise damaged(f"{file}: {text}" if file else text, [table]) from error


def _damaged_after(files: ds.Dataset, columns: Sequence[str], rows: int) -> str:
    """The file that cannot be read on after so many rows, of which the error does not tell; empty where it now can."""
    import pyarrow as pa  # heavy: imported late

    looked_at = 0
    for fragment in files.get_fragments():
        try:
            held = fragment.count_rows()
            if held <= rows:
                rows -= held
                continue
            looked_at += 1
            for _ in fragment.to_batches(files.schema, columns=list(columns), batch_readahead=_BATCHES_AHEAD):
                pass
        except (pa.ArrowInvalid, OSError):
            return str(fragment.path)
        if looked_at > _FILES_AHEAD:
            break
        rows = 0
    return ""


def _dataset(table: FileSet, kind: ds.ParquetFileFormat) -> ds.Dataset:
    import pyarrow.dataset as ds  # heavy: imported late
    from pyarrow.fs import LocalFileSystem  # heavy: imported late

    if not table.partitions:
        return ds.dataset([str(file) for file in table.files], schema=table.schema, format=kind)
    disk = LocalFileSystem()
    outside = partition_arrays(table).drop_columns([FILE_COLUMN]).to_pylist()
    fragments = []
    for file, values in zip(table.files, outside, strict=True):
        given = None
        for name, value in values.items():
            term = ds.field(name).is_null() if value is None else ds.field(name) == value
            given = term if given is None else given & term
        fragments.append(kind.make_fragment(str(file), disk, given))
    return ds.FileSystemDataset(fragments, table.schema, kind, disk)


def partition_arrays(table: FileSet) -> pa.Table:
    """For each file its path, and the values that are not in it, typed."""
    import pyarrow as pa  # heavy: imported late
    import pyarrow.compute as pc  # heavy: imported late

    columns = {FILE_COLUMN: pa.array([str(file) for file in table.files])}
    for name in table.partitions[0]:
        kind = table.schema.field(name).type
        texts = pa.array([one[name] for one in table.partitions], pa.string())
        if pa.types.is_timestamp(kind):
            columns[name] = pc.assume_timezone(pc.cast(texts, pa.timestamp("us")), "UTC")
        else:
            columns[name] = pc.cast(texts, kind)
    return pa.table(columns)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
