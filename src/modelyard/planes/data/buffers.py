"""Small appends that are durable at once and become a version together.

An append is written to a segment, a file that only grows, and is acknowledged when the disk has it. A flush seals the
segment and writes all of it as one batch through the usual way: staged, audited, published. The segment's id is the
idempotency key of that write and the file goes last, so a crash at any point neither loses an append nor adds it twice.

Where the batch does not pass, the appends that make it fail are found by halving, each goes to quarantine as a batch of
its own under a key of its own, and the others are published.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard.engines.tables.arrow import as_reader, cast_batch, staged_schema
from modelyard.engines.tables.base import ELSEWHERE
from modelyard.kernel.auth import Principal, Scope
from modelyard.kernel.database import Database
from modelyard.kernel.disk import full_disk
from modelyard.kernel.errors import InvalidInput, TooLarge
from modelyard.kernel.ids import new_id
from modelyard.kernel.limits import BUFFERED_APPEND_BYTES_MAX
from modelyard.kernel.paths import make_private, safe_join, sync_directory
from modelyard.planes.data import segments, store
from modelyard.planes.data.branches import dataset_row
from modelyard.planes.data.schemas import Allowed, schema_result
from modelyard.planes.data.segments import Record
from modelyard.planes.data.states import States
from modelyard.planes.data.writing import Writer, WriteRequest, require_writable
from modelyard.types.data import WriteResult
from modelyard.types.data_branches import Buffered, BufferState

if TYPE_CHECKING:
    import pyarrow as pa

FLUSH_BYTES = 32 * 1024 * 1024
FLUSH_AGE_S = 30.0
_CURRENT = "current"
_SEALED = ".sealed"
_DAMAGED = ".damaged"


@dataclass
class _Waiting:
    """An append of this process that waits for the disk."""

    record: bytes
    done: bool = False
    error: OSError | None = None


@dataclass
class _Place:
    """What this process knows of one dataset's buffer. `good_end`: up to where the segment of that identity was found
    whole."""

    directory: Path
    queue: list[_Waiting] = field(default_factory=list)
    queueing: threading.Lock = field(default_factory=threading.Lock)
    leading: threading.Lock = field(default_factory=threading.Lock)
    identity: bytes = b""
    good_end: int = 0


class Buffers:
    """Buffered appends of all datasets, below one directory."""

    def __init__(self, database: Database, states: States, writer: Writer, root: Path) -> None:
        self._database = database
        self._states = states
        self._writer = writer
        self._root = root
        self._places: dict[str, _Place] = {}
        self._guard = threading.Lock()

    def append(self, scope: Scope, name: str, batches: Any, *, source: str = "") -> Buffered:
        """Keep rows for the next flush. When this returns, they survive a crash; readers see them after the flush.

        Raises InvalidInput where they have not the dataset's structure, TooLarge for what is a batch of its own,
        Unavailable on a full disk. The checks run at the flush.
        """
        found = self._states.append_target(scope, name)
        if found is None or found[0].kind != "table" or found[0].location.startswith(ELSEWHERE):
            require_writable(dataset_row(self._database, scope, name), store.MAIN)
        assert found is not None
        target, schema = found
        table = _fitted(name, schema, batches)
        record = segments.encode(Record(scope.actor, source, time.time_ns() // 1000, table))
        if len(record) > BUFFERED_APPEND_BYTES_MAX:
            raise TooLarge(
                f"a buffered append has at most {BUFFERED_APPEND_BYTES_MAX} bytes",
                code="dataset.buffer_too_large",
                hint="write that much as a batch of its own",
            )
        place = self._place(target.location)
        self._write(place, record)
        if place.good_end >= FLUSH_BYTES:
            self.flush(scope, name)
        return Buffered(dataset=name, rows=table.num_rows)

    def state(self, scope: Scope, name: str) -> BufferState:
        """What waits for the next flush."""
        place = self._place(dataset_row(self._database, scope, name).location)
        files = [place.directory / _CURRENT, *_sealed(place.directory)]
        marks = [mark for file in files if file.exists() for mark in segments.marks(file)]
        return BufferState(
            dataset=name,
            appends=len(marks),
            rows=sum(mark.rows for mark in marks),
            size_bytes=sum(mark.size_bytes for mark in marks),
            oldest_at=min((mark.at for mark in marks), default=None),
        )

    def flush(self, scope: Scope, name: str) -> list[WriteResult]:
        """Make what waits a version. Returns what became of it: what was published, and each append in quarantine."""
        row = dataset_row(self._database, scope, name)
        place = self._place(row.location)
        if not place.directory.is_dir():
            return []
        results: list[WriteResult] = []
        with _locked(place.directory / "flush"):
            self._seal(place)
            # Read again: what was appended after checks were set is judged by them.
            row = dataset_row(self._database, scope, name)
            for file in _sealed(place.directory):
                results += self._take_in(scope, row, file)
        return results

    def due(self, now_s: float) -> list[str]:
        """Datasets, as `<project>/<name>`, whose buffer is old or large enough, or was left sealed by a crash."""
        found = []
        for directory in self._root.glob("*/*"):
            current = directory / _CURRENT
            try:
                held = current.stat()
                ready = held.st_size >= FLUSH_BYTES or (held.st_size and now_s - _begun(current, held) >= FLUSH_AGE_S)
            except FileNotFoundError:
                ready = False
            if ready or _sealed(directory):
                found.append(f"{directory.parent.name}/{directory.name}")
        return found

    # --- within -----------------------------------------------------------------------------------------------

    def _write(self, place: _Place, record: bytes) -> None:
        """Wait until the disk has the record. Whoever comes first writes for all who wait by then."""
        mine = _Waiting(record)
        with place.queueing:
            place.queue.append(mine)
        with place.leading:
            if not mine.done:
                with place.queueing:
                    waiting, place.queue = place.queue, []
                _append_all(place, waiting)
        if mine.error is not None:
            with full_disk(
                "the disk of the buffers is full; the rows were not taken",
                code="table.disk_full",
                hint="free some space and append again",
            ):
                raise mine.error

    def _seal(self, place: _Place) -> None:
        """Let the segment grow no more."""
        current = place.directory / _CURRENT
        with place.leading, _locked(place.directory / "append"):
            if current.exists() and current.stat().st_size:
                current.rename(place.directory / f"{new_id()}{_SEALED}")
                sync_directory(place.directory)

    def _take_in(self, scope: Scope, row: store.DatasetRow, file: Path) -> list[WriteResult]:
        """Write a sealed segment. May be repeated: what was done is known by its keys."""
        key = f"buffer:{file.stem}"
        records, whole = segments.read(file)
        numbered = {f"{key}:{at}": one for at, one in enumerate(records)}
        with self._database.reading(scope) as tx:
            known = store.keys_known(tx, row.id, [key, *numbered])
        results: list[WriteResult] = []
        if key not in known:
            left = {one: record for one, record in numbered.items() if one not in known}
            results = _Taking(self._writer, scope, row, key).run(left)
        if whole:
            file.unlink(missing_ok=True)
        else:
            # What follows a damaged place cannot be told apart, and is kept for a look.
            file.rename(file.with_suffix(_DAMAGED))
            with self._database.transaction(scope) as tx:
                about = {"segment": file.stem, "appends": len(records), "kept": str(file.with_suffix(_DAMAGED))}
                tx.event("dataset.buffer_damaged", f"dataset:{row.noun.name}", about)
        sync_directory(file.parent)
        return results

    def _place(self, location: str) -> _Place:
        with self._guard:
            if location not in self._places:
                self._places[location] = _Place(safe_join(self._root, location))
            return self._places[location]


class _Taking:
    """One segment on its way into the dataset."""

    def __init__(self, writer: Writer, scope: Scope, row: store.DatasetRow, key: str) -> None:
        self._writer = writer
        self._scope = scope
        self._row = row
        self._key = key
        self._bad: list[str] = []

    def run(self, left: dict[str, Record]) -> list[WriteResult]:
        """Publish what passes together; each append that does not goes to quarantine under its own key."""
        results: list[WriteResult] = []
        while left:
            together = self._write(list(left.values()), self._key, hold=False)
            if together.status == "published":
                return [*results, together]
            self._bad = []
            self._sift([], list(left), left, known_bad=True)
            # Where each half passes alone and the whole no more, the last is the one too many.
            for one in self._bad or [list(left)[-1]]:
                results.append(self._write([left.pop(one)], one, hold=True))
        return results

    def _sift(self, base: list[str], some: list[str], left: dict[str, Record], *, known_bad: bool = False) -> list[str]:
        """Those of `some` that pass on top of `base`; the others are noted."""
        if not known_bad and self._passes([left[one] for one in (*base, *some)]):
            return some
        if len(some) == 1:
            self._bad.append(some[0])
            return []
        half = len(some) // 2
        first = self._sift(base, some[:half], left)
        return [*first, *self._sift([*base, *first], some[half:], left)]

    def _passes(self, records: Sequence[Record]) -> bool:
        if any(one.table.schema != records[0].table.schema for one in records):
            return False
        return self._writer.would_pass(self._scope, self._row, self._request("", records), _table(records))

    def _write(self, records: Sequence[Record], key: str, *, hold: bool) -> WriteResult:
        actors = {one.actor for one in records}
        scope = Scope(self._scope.project, Principal(actors.pop())) if len(actors) == 1 else self._scope
        return self._writer.write(scope, self._row, self._request(key, records), _table(records), hold=hold)

    def _request(self, key: str, records: Sequence[Record]) -> WriteRequest:
        sources = sorted({one.source for one in records if one.source})
        named = f"{len(records)} buffered appends" if len(records) > 1 else f"buffered append {key.rpartition(':')[2]}"
        source = sources[0] if len(sources) == 1 else named
        return WriteRequest(
            mode="append", checks=tuple(self._row.noun.checks), source=source, idempotency_key=key or None
        )


def _fitted(name: str, base: pa.Schema | None, batches: Any) -> pa.Table:
    """The rows under the dataset's types. Raises InvalidInput."""
    import pyarrow as pa  # heavy: imported late

    source = as_reader(batches)
    schema = staged_schema(source.schema, base)
    structure = schema_result(schema, base, Allowed())
    if structure.status != "passed":
        raise InvalidInput(
            f"the rows do not fit dataset '{name}': {structure.message}",
            code="dataset.buffer_schema",
            hint="a buffered append has the dataset's columns; to add one, write a batch with `evolve`",
        )
    table = pa.Table.from_batches([cast_batch(batch, schema) for batch in source], schema=schema)
    if not table.num_rows:
        raise InvalidInput("there are no rows to append", code="dataset.batch_empty")
    return table


def _table(records: Sequence[Record]) -> pa.Table:
    import pyarrow as pa  # heavy: imported late

    schema = records[0].table.schema
    # One piece: what is done for each batch on the way would else be done for each append.
    return pa.concat_tables([one.table for one in records if one.table.schema == schema]).combine_chunks()


def _append_all(place: _Place, waiting: Sequence[_Waiting]) -> None:
    try:
        make_private(place.directory)
        with _locked(place.directory / "append"):
            _append_durably(place, b"".join(one.record for one in waiting))
    except OSError as error:
        for one in waiting:
            one.error = error
    finally:
        for one in waiting:
            one.done = True


def _append_durably(place: _Place, data: bytes) -> None:
    """Add to the end of the segment what is whole there, or leave it as it was."""
    current = place.directory / _CURRENT
    handle = os.open(current, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        data = _find_end(place, handle, current) + data
        try:
            written = 0
            while written < len(data):
                written += os.pwrite(handle, data[written:], place.good_end + written)
            os.fdatasync(handle)
        except OSError:
            os.ftruncate(handle, place.good_end)
            raise
        if not place.good_end:
            place.identity = data[: segments.IDENTITY_BYTES]
            sync_directory(place.directory)
        place.good_end += len(data)
    finally:
        os.close(handle)


def _find_end(place: _Place, handle: int, current: Path) -> bytes:
    """Bring `good_end` to the end of what is whole, and cut off what is not: what another process did not finish was
    not acknowledged. Returns what a segment begins with where there is none yet."""
    identity = os.pread(handle, segments.IDENTITY_BYTES, 0)
    size = os.fstat(handle).st_size
    if len(identity) < segments.IDENTITY_BYTES:
        place.good_end = 0
        os.ftruncate(handle, 0)
        return os.urandom(segments.IDENTITY_BYTES)
    if identity != place.identity or size < place.good_end:
        place.identity, place.good_end = identity, segments.IDENTITY_BYTES
    if size != place.good_end:
        place.good_end = segments.whole_until(current, place.good_end)
        os.ftruncate(handle, place.good_end)
    return b""


def _sealed(directory: Path) -> list[Path]:
    return sorted(directory.glob(f"*{_SEALED}"))


def _begun(file: Path, held: os.stat_result) -> float:
    mark = next(iter(segments.marks(file)), None)
    return held.st_mtime if mark is None else mark.at.timestamp()


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    with open(os.open(file, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600), "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
