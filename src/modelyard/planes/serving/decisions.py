"""What to do next about an endpoint: a pure function of what is wanted, what was recorded and what is seen now."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from modelyard.planes.serving.store import EndpointRow
from modelyard.types.serving import EndpointStatus

BACKOFF_S_MIN = 1.0
BACKOFF_S_MAX = 60.0
HEALTHY_S = 60.0
START_TIMEOUT_S = 180.0


class Life(StrEnum):
    """How the process is."""

    NONE = "none"
    RUNNING = "running"
    ENDED = "ended"


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint's process as it is now. `why` says how it ended; `status` is what a live one says of itself."""

    life: Life
    why: str = ""
    status: EndpointStatus | None = None
    waiting_segments: bool = False


class Step(StrEnum):
    """What to do."""

    WAIT = "wait"
    STOP = "stop"
    FORGET = "forget"
    WRITE = "write"
    START = "start"
    OBSERVE = "observe"
    REMOVE = "remove"


class Decision(msgspec.Struct, frozen=True):
    """The next step, and why in words."""

    step: Step
    reason: str


def decide(row: EndpointRow, seen: Seen, now: datetime) -> Decision:
    """The one next step for an endpoint."""
    if seen.life is Life.ENDED:
        return Decision(Step.FORGET, seen.why or "its process ended")
    if row.deleting or not row.running:
        return _end(row, seen)
    if row.written_revision < row.revision:
        return Decision(Step.WRITE, f"revision {row.revision} is wanted, {row.written_revision} is written")
    if seen.life is Life.NONE:
        if row.next_start_at is not None and now < row.next_start_at:
            return Decision(Step.WAIT, f"it is started again at {row.next_start_at:%H:%M:%S}")
        return Decision(Step.START, "it shall run, and no process does")
    if seen.status is None:
        late = row.started_at is not None and now - row.started_at > timedelta(seconds=START_TIMEOUT_S)
        if late and not row.stopping:
            return Decision(Step.STOP, f"its process said nothing within {START_TIMEOUT_S:g} s")
        return Decision(Step.WAIT, "its process is starting")
    if news(row, seen.status):
        return Decision(Step.OBSERVE, "its process says something new")
    return Decision(Step.WAIT, "all is as it should be")


def _end(row: EndpointRow, seen: Seen) -> Decision:
    if seen.life is Life.RUNNING:
        if row.stopping:
            return Decision(Step.WAIT, "its process is ending")
        return Decision(Step.STOP, "it shall be deleted" if row.deleting else "it shall not run")
    if not row.deleting:
        return Decision(Step.WAIT, "it is stopped, as it should be")
    if seen.waiting_segments:
        return Decision(Step.WAIT, "its last predictions are being taken in")
    return Decision(Step.REMOVE, "its process ended and its predictions are kept")


def news(row: EndpointRow, status: EndpointStatus) -> bool:
    """Whether a process says something that is not recorded yet."""
    recorded = (row.pid, row.port, row.observed_revision, row.failed_revision, row.error, row.state)
    return recorded != (
        status.pid,
        status.port,
        status.revision or row.observed_revision,
        status.failed_revision,
        status.error,
        state_of(status),
    )


def state_of(status: EndpointStatus) -> str:
    """The endpoint's state by what its process says."""
    return "starting" if status.state == "stopped" else status.state


def backoff_s(restarts: int) -> float:
    """How long to wait before start number `restarts` + 1 after a death: 1 s, 2 s, 4 s … at most a minute."""
    return min(BACKOFF_S_MIN * 2.0 ** min(restarts, 16), BACKOFF_S_MAX)


def restarts_after(row: EndpointRow, now: datetime) -> int:
    """How many times in a row it died soon: a process that had served for a while starts the count anew."""
    lived = row.started_at is not None and now - row.started_at >= timedelta(seconds=HEALTHY_S)
    return 1 if lived else row.restarts + 1
