"""The profile of rows as they pass by: a batch is looked at once, column by column, while the next is being written.

Counts, bounds, moments, lengths and few-valued columns are exact over all rows, and quantiles and distinct counts are
sketches over all rows. Only the frequent values of a column with many are counted on a sixteenth of the rows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING

from modelyard.planes.data.column_summary import ColumnSummary, summary_of
from modelyard.planes.data.profile import profile_of_sketch
from modelyard.types.data import Profile

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK_ROWS = 128 * 1024
_BATCHES_WAITING_MAX = 8
_BYTES_WAITING_MAX = 64 * 1024 * 1024


class Profiler:
    """Profiles batches on a thread of its own, while whoever gives them goes on. Use as a context manager.

    `add` waits where too many batches are on their way, so memory stays bounded.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="profile")
        self._waiting: deque[tuple[Future[None], int]] = deque()
        self._waiting_bytes = 0
        self._summaries: Summaries | None = None

    def __enter__(self) -> Profiler:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(cancel_futures=True)

    def add(self, batch: pa.RecordBatch) -> None:
        """Take a batch; all have one schema. Raises what went wrong with one before."""
        if self._summaries is None:
            self._summaries = Summaries(batch.schema)
        while len(self._waiting) >= _BATCHES_WAITING_MAX or self._waiting_bytes >= _BYTES_WAITING_MAX:
            self._wait()
        self._waiting.append((self._thread.submit(self._summaries.add, batch), batch.nbytes))
        self._waiting_bytes += batch.nbytes

    def finish(self) -> Profile:
        """The profile of all batches. Raises what went wrong with one of them."""
        while self._waiting:
            self._wait()
        return Profile(rows=0, columns=[]) if self._summaries is None else self._summaries.profile()

    def _wait(self) -> None:
        done, size_bytes = self._waiting.popleft()
        self._waiting_bytes -= size_bytes
        done.result()


class Summaries:
    """What all columns of some rows look like so far."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._rows = 0
        self._nulls = [0] * len(schema)
        self._columns: list[ColumnSummary] = [summary_of(field.type) for field in schema]

    def add(self, batch: pa.RecordBatch) -> None:
        """Look at further rows."""
        for block in _blocks(batch):
            self._rows += block.num_rows
            for place, summary in enumerate(self._columns):
                values = block.column(place)
                if values.null_count:
                    self._nulls[place] += values.null_count
                    values = values.drop_null()
                if len(values):
                    summary.add(values)

    def profile(self) -> Profile:
        """The profile of the rows so far."""
        columns = [
            profile_of_sketch(
                field.name,
                str(field.type),
                count=self._rows - self._nulls[place],
                nulls=self._nulls[place],
                nans=self._columns[place].nans,
                bounds=self._columns[place].bounds(),
                sketch=self._columns[place].sketch(),
            )
            for place, field in enumerate(self._schema)
        ]
        return Profile(rows=self._rows, columns=columns)


def profile_of(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Profile:
    """The profile of a stream of batches."""
    summaries = Summaries(schema)
    for batch in batches:
        summaries.add(batch)
    return summaries.profile()


def _blocks(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Slices that fit a processor's cache with what is computed of them."""
    for start in range(0, batch.num_rows, BLOCK_ROWS):
        yield batch.slice(start, BLOCK_ROWS)
