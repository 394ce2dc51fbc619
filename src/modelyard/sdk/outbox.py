"""What a run has logged and the server does not have yet: sent by a thread, so that a training loop never waits.

Memory is bounded: past the bound, and while the server is away, batches go to a file below the home directory, from
which they are sent once it is back; a program that died leaves the file, and the next run sends it. A batch may reach
the server twice, which is harmless: it drops exact duplicates of points, and params and tags only repeat themselves.
"""

from __future__ import annotations

import logging
import math
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from modelyard.kernel.errors import EngineError, LimitExceeded, ModelyardError, Unavailable
from modelyard.sdk.client import Client
from modelyard.sdk.spool import Spool
from modelyard.types.tracking import DatasetInput, LogBatch, Point, PointBlock

POINTS_IN_MEMORY_MAX = 100_000
POINTS_IN_BATCH_MAX = 20_000
KEYS_IN_ROW_MAX = 5_000
SEND_INTERVAL_S = 0.5
RETRY_S_MIN, RETRY_S_MAX = 0.5, 10.0
AWAY = (Unavailable, LimitExceeded, EngineError)
"""The errors that say: later. Every other one is a refusal."""
_log = logging.getLogger("modelyard.run")


class Row(NamedTuple):
    """What one call logged: a value a key, at one step and time."""

    keys: tuple[str, ...]
    step: int
    timestamp_ms: int
    values: list[float]


class Outbox:
    """The outbox of one run. Made by `start_run`; safe to use from many threads."""

    def __init__(self, client: Client, run_id: str, spool: Path) -> None:
        self._client = client
        self._path = f"/api/runs/{run_id}/log"
        self._spool = Spool(spool / f"{run_id}.spool")
        self._rows: deque[Row] = deque()
        self._points = 0
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

    def add_row(self, row: Row) -> None:
        """Take the values of one step, to be sent soon. Never waits for the server: what is here runs in the loop."""
        # Without the lock: appending to a deque is atomic, and the count only has to be about right.
        if len(row.keys) > KEYS_IN_ROW_MAX:
            self._rows.extend(_narrow(row))
        else:
            self._rows.append(row)
        self._points += len(row.keys)
        if self._points >= POINTS_IN_BATCH_MAX and not self._wake.is_set():
            self._wake.set()
        if self._points >= POINTS_IN_MEMORY_MAX:
            with self._lock:
                self._spool.put(self._take_all())

    def add(
        self,
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        inputs: Sequence[DatasetInput] = (),
    ) -> None:
        """Take params, tags and inputs, to be sent soon. Never waits for the server."""
        with self._lock:
            self._params.update(params or {})
            self._tags.update(tags or {})
            self._inputs.extend(inputs)

    def flush(self, timeout_s: float = 60.0) -> None:
        """Return once the server has all of it, or once it is on this machine's disk where the server is away.

        Raises the error with which the server refused something, once.
        """
        deadline = time.monotonic() + timeout_s
        with self._idle:
            while (self._holds_any() or self._busy) and not self._away:
                self._wake.set()
                left = max(deadline - time.monotonic(), 0.0)
                if not self._idle.wait(min(0.2, left)) and time.monotonic() >= deadline:
                    break
            if self._holds_any():
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
                done = not (self._holds_any() or self._spool.waiting)
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
        except AWAY as error:
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
        for error in post_in_parts(self._client, self._path, batch):
            _log.warning("the server refused something that this run logged: %s", error)
            with self._lock:
                self._refused.append(error)

    def _holds_any(self) -> bool:
        return bool(self._rows or self._params or self._tags or self._inputs)

    def _take(self) -> LogBatch | None:
        with self._lock:
            batch = self._take_one()
            self._busy = batch is not None
            return batch

    def _take_one(self) -> LogBatch | None:
        if not self._holds_any():
            return None
        rows, points = [], 0
        while self._rows and points < POINTS_IN_BATCH_MAX:
            rows.append(self._rows.popleft())
            points += len(rows[-1].keys)
        self._points = max(0, self._points - points) if self._rows else 0
        batch = LogBatch(blocks=blocks(rows), params=self._params, tags=self._tags, inputs=self._inputs)
        self._params, self._tags, self._inputs = {}, {}, []
        return batch

    def _take_all(self) -> list[LogBatch]:
        taken = []
        while batch := self._take_one():
            taken.append(batch)
        return taken


def blocks(rows: Sequence[Row]) -> list[PointBlock]:
    """Rows of the same keys put together, each as it was logged; an infinity is the largest double of its sign."""
    by_keys: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        by_keys.setdefault(row.keys, []).append(row)
    return [
        PointBlock(
            list(keys),
            [row.step for row in found],
            [row.timestamp_ms for row in found],
            [_storable(row.values) for row in found],
        )
        for keys, found in by_keys.items()
    ]


def send_leftovers(client: Client, spool: Path) -> int:
    """Send what programs that ended before the server was back have left. Returns how many runs had something."""
    sent = 0
    for path in sorted(spool.glob("*.spool")):
        left = Spool(path)
        if not left.adopt():
            continue
        try:
            for batch in left.batches():
                for error in post_in_parts(client, f"/api/runs/{path.stem}/log", batch):
                    _log.warning("the server refused something that an earlier run logged: %s", error)
        except AWAY:
            return sent
        sent += 1
    return sent


def post_in_parts(client: Client, path: str, batch: LogBatch) -> list[ModelyardError]:
    """Send a batch; what is refused is sent again key by key, since one bad key must not cost the others.

    Returns the refusals. Raises one of `AWAY` where the server is away.
    """
    try:
        client.post(path, batch)
    except AWAY:
        raise
    except ModelyardError as error:
        parts = _parts(batch)
        if len(parts) <= 1:
            return [error]
        return [refusal for part in parts for refusal in post_in_parts(client, path, part)]
    return []


def _parts(batch: LogBatch) -> list[LogBatch]:
    """The batch in parts that can be refused each for itself; one part where it cannot be divided."""
    by_key: dict[str, list[Point]] = {}
    for point in batch.metrics:
        by_key.setdefault(point.key, []).append(point)
    return [
        *(LogBatch(metrics=points) for points in by_key.values()),
        *(LogBatch(blocks=[column]) for block in batch.blocks for column in _columns(block)),
        *(LogBatch(params={key: value}) for key, value in batch.params.items()),
        *(LogBatch(tags={key: value}) for key, value in batch.tags.items()),
        *(LogBatch(inputs=[one]) for one in batch.inputs),
    ]


def _columns(block: PointBlock) -> list[PointBlock]:
    return [
        PointBlock([key], block.steps, block.timestamps_ms, [[row[at]] for row in block.values])
        for at, key in enumerate(block.keys)
    ]


def _narrow(row: Row) -> list[Row]:
    return [
        Row(row.keys[at : at + KEYS_IN_ROW_MAX], row.step, row.timestamp_ms, row.values[at : at + KEYS_IN_ROW_MAX])
        for at in range(0, len(row.keys), KEYS_IN_ROW_MAX)
    ]


def _storable(values: list[float]) -> list[float | None]:
    # A NaN goes over the wire as null, which is what msgspec makes of it by itself in JSON, and only there.
    if all(map(math.isfinite, values)):
        return values  # type: ignore[return-value]
    return [
        None if value != value else math.copysign(sys.float_info.max, value) if math.isinf(value) else value
        for value in values
    ]
