"""What a run has logged and the server does not have yet: sent by a thread, so that a training loop never waits.

Memory is bounded: past the bound, and while the server is away, batches go to a file below the home directory, from
which they are sent once it is back; a program that died leaves the file, and the next run sends it. A batch may reach
the server twice, which is harmless: it drops exact duplicates of points, and params and tags only repeat themselves.
"""

from __future__ import annotations

import fcntl
import logging
import os
import struct
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import msgspec

from modelyard.kernel.errors import EngineError, LimitExceeded, ModelyardError, Unavailable
from modelyard.kernel.paths import make_private
from modelyard.sdk.client import Client
from modelyard.types.tracking import DatasetInput, LogBatch, Point

POINTS_IN_MEMORY_MAX = 100_000
POINTS_IN_BATCH_MAX = 5_000
SEND_INTERVAL_S = 0.5
RETRY_S_MIN, RETRY_S_MAX = 0.5, 10.0
PARAMS_IN_BATCH_MAX = 100
_AWAY = (Unavailable, LimitExceeded, EngineError)
_FRAME = struct.Struct("<I")
_log = logging.getLogger("modelyard.run")


class Outbox:
    """The outbox of one run. Made by `start_run`; safe to use from many threads."""

    def __init__(self, client: Client, run_id: str, spool: Path) -> None:
        self._client = client
        self._path = f"/api/runs/{run_id}/log"
        self._spool = Spool(spool / f"{run_id}.spool")
        self._points: deque[Point] = deque()
        self._params: dict[str, str] = {}
        self._tags: dict[str, str] = {}
        self._inputs: list[DatasetInput] = []
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._idle = threading.Condition(self._lock)
        self._busy = False
        self._away = False
        self._stopping = False
        self._refused: list[ModelyardError] = []
        self._thread = threading.Thread(target=self._run, name=f"outbox-{run_id[:8]}", daemon=True)
        self._thread.start()

    def add(
        self,
        points: Sequence[Point] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        inputs: Sequence[DatasetInput] = (),
    ) -> None:
        """Take what was logged, to be sent soon. Never waits for the server."""
        with self._lock:
            self._points.extend(points)
            self._params.update(params or {})
            self._tags.update(tags or {})
            self._inputs.extend(inputs)
            if len(self._points) >= POINTS_IN_MEMORY_MAX:
                self._spool.put(self._take_all())
            urgent = len(self._points) >= POINTS_IN_BATCH_MAX
        if urgent:
            self._wake.set()

    def flush(self, timeout_s: float = 60.0) -> None:
        """Return once the server has all of it, or once it is on this machine's disk where the server is away.

        Raises the error with which the server refused something, once.
        """
        deadline = time.monotonic() + timeout_s
        with self._idle:
            while (self._points or self._params or self._tags or self._inputs or self._busy) and not self._away:
                self._wake.set()
                if not self._idle.wait(min(0.2, max(deadline - time.monotonic(), 0.0))) and (
                    time.monotonic() >= deadline
                ):
                    break
            if self._points or self._params or self._tags or self._inputs:
                self._spool.put(self._take_all())
            refused, self._refused = self._refused, []
        if refused:
            raise refused[0]

    def close(self, timeout_s: float = 60.0) -> bool:
        """Flush and stop. Whether the server has everything; what it has not is kept on disk for the next run."""
        try:
            self.flush(timeout_s)
        finally:
            self._stopping = True
            self._wake.set()
            self._thread.join(timeout_s)
        return not self._spool.waiting

    def _run(self) -> None:
        delay_s = RETRY_S_MIN
        while True:
            self._wake.wait(SEND_INTERVAL_S)
            self._wake.clear()
            if self._send():
                delay_s = RETRY_S_MIN
            elif self._stopping:
                return
            else:
                self._wake.wait(delay_s)
                delay_s = min(2 * delay_s, RETRY_S_MAX)
            with self._lock:
                done = not (self._points or self._params or self._tags or self._inputs or self._spool.waiting)
            if self._stopping and done:
                return

    def _send(self) -> bool:
        """Send what there is. False if the server is away; then all is kept."""
        batch = None
        try:
            for spooled in self._spool.batches():
                self._post(spooled)
            while batch := self._take():
                self._post(batch)
        except _AWAY as error:
            if not self._away:
                _log.warning("the server does not take what this run logs; it is kept on disk: %s", error)
            with self._lock:
                if batch is not None:
                    self._spool.put([batch])
                self._away, self._busy = True, False
                self._idle.notify_all()
            return False
        with self._lock:
            self._away = self._busy = False
            self._idle.notify_all()
        return True

    def _post(self, batch: LogBatch) -> None:
        try:
            self._client.post(self._path, batch)
        except _AWAY:
            raise
        except ModelyardError as error:
            parts = _parts(batch)
            if len(parts) > 1:
                # One bad key must not cost the others of its batch.
                for part in parts:
                    self._post(part)
                return
            _log.warning("the server refused something that this run logged: %s", error)
            with self._lock:
                self._refused.append(error)

    def _take(self) -> LogBatch | None:
        with self._lock:
            batch = self._take_one()
            self._busy = batch is not None
            return batch

    def _take_one(self) -> LogBatch | None:
        if not (self._points or self._params or self._tags or self._inputs):
            return None
        points = [self._points.popleft() for _ in range(min(len(self._points), POINTS_IN_BATCH_MAX))]
        batch = LogBatch(metrics=points, params=self._params, tags=self._tags, inputs=self._inputs)
        self._params, self._tags, self._inputs = {}, {}, []
        return batch

    def _take_all(self) -> list[LogBatch]:
        taken = []
        while batch := self._take_one():
            taken.append(batch)
        return taken


class Spool:
    """Batches in a file, each after its length, in the order they came. Locked by the process that fills it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._file: BinaryIO | None = None
        self._sent = 0
        self._end = 0

    @property
    def waiting(self) -> bool:
        """Whether there is anything in it that was not sent."""
        return self._end > self._sent

    def put(self, batches: Sequence[LogBatch]) -> None:
        """Keep batches, on disk when this returns."""
        with self._lock:
            file = self._opened()
            file.seek(self._end)
            for batch in batches:
                body = msgspec.msgpack.encode(batch)
                file.write(_FRAME.pack(len(body)) + body)
            file.flush()
            os.fsync(file.fileno())
            self._end = file.tell()

    def batches(self) -> Iterator[LogBatch]:
        """The batches that wait; one counts as sent when the next is asked for."""
        while True:
            with self._lock:
                if not self.waiting:
                    self._drop()
                    return
                batch, after = self._read(self._opened(), self._sent)
            if batch is not None:
                yield batch
            with self._lock:
                self._sent = after

    def adopt(self) -> bool:
        """Take over what a program that ended left in the file. False while that program still runs."""
        try:
            file = self.path.open("r+b")
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (FileNotFoundError, BlockingIOError):
            return False
        self._file = file
        self._end = file.seek(0, os.SEEK_END)
        return True

    def _opened(self) -> BinaryIO:
        if self._file is None:
            make_private(self.path.parent)
            self._file = os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600), "r+b")
            fcntl.flock(self._file, fcntl.LOCK_EX)
        return self._file

    def _read(self, file: BinaryIO, at: int) -> tuple[LogBatch | None, int]:
        file.seek(at)
        head = file.read(_FRAME.size)
        length = _FRAME.unpack(head)[0] if len(head) == _FRAME.size else -1
        body = file.read(max(length, 0))
        if len(body) != length:
            # The program died while it wrote: what it had not finished, it had not been promised.
            return None, self._end
        try:
            return msgspec.msgpack.decode(body, type=LogBatch), at + _FRAME.size + length
        except msgspec.MsgspecError:
            return None, self._end

    def _drop(self) -> None:
        if self._file is not None:
            with suppress(FileNotFoundError):
                self.path.unlink()
            self._file.close()
        self._file, self._sent, self._end = None, 0, 0


def send_leftovers(client: Client, spool: Path) -> int:
    """Send what programs that ended before the server was back have left. Returns how many runs had something."""
    sent = 0
    for path in sorted(spool.glob("*.spool")):
        left = Spool(path)
        if not left.adopt():
            continue
        try:
            for batch in left.batches():
                _send_part(client, f"/api/runs/{path.stem}/log", batch)
        except _AWAY:
            return sent
        sent += 1
    return sent


def _send_part(client: Client, path: str, batch: LogBatch) -> None:
    try:
        client.post(path, batch)
    except _AWAY:
        raise
    except ModelyardError as error:
        parts = _parts(batch)
        if len(parts) == 1:
            _log.warning("the server refused something that an earlier run logged: %s", error)
            return
        for part in parts:
            _send_part(client, path, part)


def _parts(batch: LogBatch) -> list[LogBatch]:
    """The batch in parts that can be refused each for itself; one part where it cannot be divided."""
    by_key: dict[str, list[Point]] = {}
    for point in batch.metrics:
        by_key.setdefault(point.key, []).append(point)
    return [
        *(LogBatch(metrics=points) for points in by_key.values()),
        *(LogBatch(params={key: value}) for key, value in batch.params.items()),
        *(LogBatch(tags={key: value}) for key, value in batch.tags.items()),
        *(LogBatch(inputs=[one]) for one in batch.inputs),
    ]
