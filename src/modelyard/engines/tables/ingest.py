"""Tabular data as it arrives in a file: an Arrow stream or file, Parquet, CSV or JSON lines, opened as batches.

What a peer sent is not trusted: every Arrow batch is validated in full before its offsets are followed, since a
crafted one would else be read outside its buffers.
"""

from __future__ import annotations

import logging
import mmap
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from modelyard.kernel.errors import InvalidInput, ModelyardError, to_problem
from modelyard.kernel.ids import new_id
from modelyard.types.data import BROKEN_OFF

if TYPE_CHECKING:
    import pyarrow as pa

ARROW_STREAM = "application/vnd.apache.arrow.stream"
ARROW_FILE = "application/vnd.apache.arrow.file"
PARQUET = "application/vnd.apache.parquet"
CSV = "text/csv"
TSV = "text/tab-separated-values"
JSON_LINES = "application/x-ndjson"
_MAGIC = ((b"PAR1", PARQUET), (b"ARROW1", ARROW_FILE), (b"\xff\xff\xff\xff", ARROW_STREAM))
_log = logging.getLogger("modelyard.tables")
_ROWS_PER_BATCH = 64 * 1024
_GIVEN_BACK_BYTES = 64 * 1024 * 1024


@contextmanager
def open_tabular(file: Path, media_type: str) -> Iterator[pa.RecordBatchReader]:
    """The file as a stream of batches. Texts are only read as such where the media type says so.

    Raises InvalidInput (`dataset.not_tabular`) for what is none of these, or is damaged at its start.
    """
    import pyarrow as pa  # heavy: imported late

    with file.open("rb") as head:
        start = head.read(8)
    if not start:
        raise InvalidInput(
            "there is nothing in the body",
            code="dataset.batch_empty",
            hint="send Arrow, Parquet, CSV, TSV or JSON lines",
        )
    kind = _text_kind(media_type) or _kind_of(start)
    try:
        with _Mapped(file) as mapped:
            found = _open(pa.BufferReader(mapped.content), kind)
            yield pa.RecordBatchReader.from_batches(found.schema, mapped.giving_back(found))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise InvalidInput(
            f"the body is no readable {_NAMES[kind]}: {str(error).splitlines()[0]}",
            code="dataset.not_tabular",
            hint="it may be truncated; produce it again",
        ) from error


class _Mapped:
    """A file that is read by mapping it, so that even a single batch of many gigabytes needs no memory of its own. What
    was read is given back on the way, or the process would seem to hold all of the file in the end."""

    def __init__(self, file: Path) -> None:
        with file.open("rb") as source:
            self._map = mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ)

    def __enter__(self) -> _Mapped:
        return self

    def __exit__(self, *_: object) -> None:
        # Batches may be held for longer, so the map is not closed but goes with the last of them.
        self._map.madvise(mmap.MADV_DONTNEED)

    @property
    def content(self) -> pa.Buffer:
        """The bytes of the file."""
        import pyarrow as pa  # heavy: imported late

        return pa.py_buffer(self._map)

    def giving_back(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The batches. Pages that are still looked at are read again, from the system's cache."""
        read_bytes = 0
        for batch in batches:
            yield batch
            read_bytes += batch.nbytes
            if read_bytes >= _GIVEN_BACK_BYTES:
                self._map.madvise(mmap.MADV_DONTNEED)
                read_bytes = 0


def table_of_bytes(data: bytes, media_type: str) -> pa.Table:
    """As `open_tabular`, of a body that is in memory, read to its end."""
    import pyarrow as pa  # heavy: imported late

    if not data:
        raise InvalidInput(
            "there is nothing in the body",
            code="dataset.batch_empty",
            hint="send Arrow, Parquet, CSV, TSV or JSON lines",
        )
    kind = _text_kind(media_type) or _kind_of(data[:8])
    try:
        return _open(pa.BufferReader(data), kind).read_all()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError, EOFError, OSError) as error:
        raise InvalidInput(
            f"the body is no readable {_NAMES[kind]}: {str(error).splitlines()[0]}",
            code="dataset.not_tabular",
            hint="it may be truncated; produce it again",
        ) from error


_NAMES = {
    ARROW_STREAM: "Arrow stream",
    ARROW_FILE: "Arrow file",
    PARQUET: "Parquet file",
    CSV: "CSV",
    TSV: "file of tab-separated values",
    JSON_LINES: "file of JSON lines",
}


def _text_kind(media_type: str) -> str:
    named = media_type.split(";")[0].strip().lower()
    return named if named in (CSV, TSV, JSON_LINES) else ""


def _kind_of(start: bytes) -> str:
    for magic, kind in _MAGIC:
        if start.startswith(magic):
            return kind
    raise InvalidInput(
        f"the body begins with {start!r}: it is neither Arrow nor Parquet",
        code="dataset.not_tabular",
        hint=f"send an Arrow IPC stream, a Parquet file, or a text with content type {CSV}, {TSV} or {JSON_LINES}",
    )


def _open(source: pa.NativeFile, kind: str) -> pa.RecordBatchReader:
    import pyarrow as pa  # heavy: imported late

    if kind == ARROW_STREAM:
        reader = pa.ipc.open_stream(source)
        return pa.RecordBatchReader.from_batches(reader.schema, _validated(iter(reader)))
    if kind == ARROW_FILE:
        file = pa.ipc.open_file(source)
        batches = (file.get_batch(index) for index in range(file.num_record_batches))
        return pa.RecordBatchReader.from_batches(file.schema, _validated(batches))
    if kind == PARQUET:
        import pyarrow.parquet as pq  # heavy: imported late

        parquet = pq.ParquetFile(source)
        return pa.RecordBatchReader.from_batches(parquet.schema_arrow, parquet.iter_batches(_ROWS_PER_BATCH))
    if kind == JSON_LINES:
        import pyarrow.json as json  # heavy: imported late

        return json.open_json(source)
    import pyarrow.csv as csv  # heavy: imported late

    return csv.open_csv(source, parse_options=csv.ParseOptions(delimiter="\t" if kind == TSV else ","))


def _validated(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        batch.validate(full=True)
        yield batch


def ipc_chunks(schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> Iterator[bytes]:
    """Batches as the bytes of an Arrow stream, a piece for each. The first batch is made now, so that what fails at
    once is an answer and not a broken stream.

    Where they end by an error, the last piece is a batch without rows whose metadata says why, and no end of the stream
    follows: who reads it knows that there should be more, whatever became of the connection.
    """
    first = next(batches, None)
    return _ipc_chunks(schema, batches if first is None else chain([first], batches))


def _ipc_chunks(schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> Iterator[bytes]:
    import pyarrow as pa  # heavy: imported late

    sink = _Pieces()
    with pa.ipc.new_stream(pa.PythonFile(sink, mode="w"), schema) as writer:
        try:
            for batch in batches:
                writer.write_batch(batch)
                yield sink.take()
        except ModelyardError as error:
            # Logged here: who reads why goes at once, and whoever goes ends what sends.
            request_id = error.details.setdefault("request_id", new_id())
            _log.error("request %s: the rows broke off: %s [%s]", request_id, error, error.code)
            problem = to_problem(error, request_id)
            no_rows = pa.RecordBatch.from_arrays([pa.nulls(0, field.type) for field in schema], schema=schema)
            writer.write_batch(no_rows, custom_metadata={BROKEN_OFF: msgspec.json.encode(problem)})
            yield sink.take()
            raise
    yield sink.take()


class _Pieces:
    """A sink that gives back what was written to it since the last time."""

    closed = False

    def __init__(self) -> None:
        self._held: list[bytes] = []

    def write(self, piece: bytes) -> int:
        self._held.append(bytes(piece))
        return len(piece)

    def take(self) -> bytes:
        held, self._held = self._held, []
        return b"".join(held)

    def writable(self) -> bool:
        return True

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        self.closed = True
