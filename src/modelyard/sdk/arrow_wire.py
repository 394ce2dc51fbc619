"""Rows on the wire: Arrow streams made of whatever holds rows, and read from pieces that arrive."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from modelyard.kernel.errors import InvalidInput, Problem, Unavailable, from_problem
from modelyard.types.data import BROKEN_OFF

if TYPE_CHECKING:
    import pyarrow as pa

ARROW_STREAM = "application/vnd.apache.arrow.stream"
_END = b"\xff\xff\xff\xff\0\0\0\0"


def ipc_stream(data: Any) -> Iterator[bytes]:
    """Tabular data as the bytes of an Arrow stream, a piece for each batch. Raises InvalidInput."""
    import pyarrow as pa  # heavy: imported late

    if isinstance(data, pa.RecordBatch):
        data = pa.Table.from_batches([data])
    if isinstance(data, pa.Table):
        data = data.to_reader(max_chunksize=64 * 1024)
    elif type(data).__module__.partition(".")[0] == "pandas":
        # The index is a name for the row and not a column of the data.
        data = pa.Table.from_pandas(data, preserve_index=False).to_reader(max_chunksize=64 * 1024)
    elif hasattr(data, "__arrow_c_stream__"):
        data = pa.RecordBatchReader.from_stream(data)
    elif hasattr(data, "__iter__") and not isinstance(data, (str, bytes, dict)):
        data = _of_batches(iter(data))
    else:
        raise InvalidInput(
            f"{type(data).__name__} is not tabular data",
            code="dataset.not_tabular",
            hint="pass a pyarrow Table or batches, or a pandas or Polars frame",
        )
    return _pieces(data)


def _of_batches(batches: Iterator[Any]) -> pa.RecordBatchReader:
    import pyarrow as pa  # heavy: imported late

    first = next(batches, None)
    if not isinstance(first, pa.RecordBatch):
        found = "nothing" if first is None else type(first).__name__
        raise InvalidInput(
            f"an iterable of {found} is not tabular data",
            code="dataset.not_tabular",
            hint="yield at least one pyarrow record batch",
        )

    def all_of_them() -> Iterator[pa.RecordBatch]:
        yield first
        yield from batches

    return pa.RecordBatchReader.from_batches(first.schema, all_of_them())


def _pieces(reader: pa.RecordBatchReader) -> Iterator[bytes]:
    import pyarrow as pa  # heavy: imported late

    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, reader.schema) as writer:
        for batch in reader:
            writer.write_batch(batch)
            yield sink.getvalue()
            sink.seek(0)
            sink.truncate()
    yield sink.getvalue()


def received(chunks: Iterator[bytes]) -> pa.RecordBatchReader:
    """The batches of an Arrow stream as its pieces arrive.

    Reading raises the error that the sender met on the way, as it was told, and Unavailable where the stream ends
    without its end: rows that are missing are never taken for all there are.
    """
    import pyarrow as pa  # heavy: imported late

    source = Reading(chunks)
    stream = pa.ipc.open_stream(pa.PythonFile(io.BufferedReader(source), mode="r"))

    def batches() -> Iterator[pa.RecordBatch]:
        while True:
            try:
                batch, metadata = stream.read_next_batch_with_custom_metadata()
            except StopIteration:
                break
            if metadata is not None and BROKEN_OFF in metadata:
                raise from_problem(msgspec.json.decode(metadata[BROKEN_OFF], type=Problem))
            yield batch
        if source.tail != _END:
            raise Unavailable(
                "the rows broke off before their end",
                code="server.broke_off",
                hint="the server's log says why, if it still runs; then repeat",
            )

    return pa.RecordBatchReader.from_batches(stream.schema, batches())


class Reading(io.RawIOBase):
    """A file over pieces that arrive; `tail` is the last of what came."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._held = memoryview(b"")
        self.tail = b""

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        while not self._held:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._held = memoryview(piece)
            self.tail = (self.tail + piece[-len(_END) :])[-len(_END) :]
        taken = min(len(target), len(self._held))
        target[:taken] = self._held[:taken]
        self._held = self._held[taken:]
        return taken
