"""What is done next about an endpoint: every state has a way on, and the way ends where it should."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.planes.serving.decisions import Life, Seen, Step, backoff_s, decide, restarts_after
from modelyard.planes.serving.store import EndpointRow
from modelyard.types.serving import EndpointOptions, EndpointStatus

NOW = datetime(2013, 3, 1, 12, tzinfo=UTC)


def row(**changes: Any) -> EndpointRow:
    """An endpoint that is ready and as wanted."""
    ready = EndpointRow(
        project="default", name="late", model="delay", specs=[], variants=[], options=EndpointOptions(), running=True,
        deleting=False, revision=3, written_revision=3, observed_revision=3, failed_revision=0, serving=[],
        state="ready", error="", refusal="", attempt=1, handle=None, launched=True, stopping=False, host="127.0.0.1",
        port=4000, pid=7, restarts=0, started_at=NOW - timedelta(seconds=10), next_start_at=None, rows_logged=0,
        created_at=NOW, created_by="ann", updated_at=NOW,
    )  # fmt: skip
    return msgspec.structs.replace(ready, **changes)


def says(**changes: Any) -> EndpointStatus:
    """What a process says that is as recorded in `row`."""
    status = EndpointStatus(
        pid=7, process_started_at=0.0, host="127.0.0.1", port=4000, state="ready", revision=3, failed_revision=0
    )
    return msgspec.structs.replace(status, **changes)


RUNNING = Seen(life=Life.RUNNING, status=says())


@pytest.mark.parametrize(
    ("changes", "seen", "step"),
    [
        ({}, RUNNING, Step.WAIT),
        ({"revision": 4}, RUNNING, Step.WRITE),
        ({"written_revision": 0, "observed_revision": 0}, Seen(life=Life.NONE), Step.WRITE),
        ({}, Seen(life=Life.NONE), Step.START),
        ({"next_start_at": NOW + timedelta(seconds=1)}, Seen(life=Life.NONE), Step.WAIT),
        ({"next_start_at": NOW}, Seen(life=Life.NONE), Step.START),
        ({}, Seen(life=Life.ENDED, why="signal 9"), Step.FORGET),
        ({"revision": 4}, Seen(life=Life.ENDED), Step.FORGET),
        ({}, Seen(life=Life.RUNNING), Step.WAIT),
        ({"started_at": NOW - timedelta(hours=1)}, Seen(life=Life.RUNNING), Step.STOP),
        ({"started_at": NOW - timedelta(hours=1), "stopping": True}, Seen(life=Life.RUNNING), Step.WAIT),
        ({}, Seen(life=Life.RUNNING, status=says(revision=2)), Step.OBSERVE),
        ({}, Seen(life=Life.RUNNING, status=says(failed_revision=4, error="no")), Step.OBSERVE),
        ({}, Seen(life=Life.RUNNING, status=says(port=5000)), Step.OBSERVE),
        ({"running": False}, RUNNING, Step.STOP),
        ({"running": False, "stopping": True}, RUNNING, Step.WAIT),
        ({"running": False}, Seen(life=Life.NONE), Step.WAIT),
        ({"deleting": True, "running": False}, RUNNING, Step.STOP),
        ({"deleting": True, "running": False}, Seen(life=Life.NONE, waiting_segments=True), Step.WAIT),
        ({"deleting": True, "running": False}, Seen(life=Life.NONE), Step.REMOVE),
    ],
)
def test_the_next_step(changes: dict[str, Any], seen: Seen, step: Step) -> None:
    decision = decide(row(**changes), seen, NOW)
    assert decision.step is step
    assert decision.reason


class World:
    """A process that does what it is told, to follow decisions to their end."""

    def __init__(self, start: EndpointRow, life: Life) -> None:
        self.row, self.life, self.now, self.removed = start, life, NOW, False
        self.heard = start.written_revision

    def step(self) -> Step:
        status = says(revision=self.heard) if self.life is Life.RUNNING else None
        step = decide(self.row, Seen(life=self.life, status=status), self.now).step
        change: dict[str, Any] = {}
        match step:
            case Step.WRITE:
                change = {"written_revision": self.row.revision}
                self.heard = self.row.revision
            case Step.START:
                self.life, change = Life.RUNNING, {"started_at": self.now, "stopping": False}
            case Step.STOP:
                self.life, change = Life.ENDED, {"stopping": True}
            case Step.FORGET:
                self.life = Life.NONE
                restarts = restarts_after(self.row, self.now)
                change = {"restarts": restarts, "next_start_at": self.now + timedelta(seconds=backoff_s(restarts))}
            case Step.OBSERVE:
                change = {"observed_revision": self.heard, "state": "ready", "pid": 7, "port": 4000, "error": ""}
                change["failed_revision"] = 0
            case Step.REMOVE:
                self.removed = True
            case Step.WAIT:
                self.now += timedelta(seconds=30)
        self.row = msgspec.structs.replace(self.row, **change)
        return step


@given(st.booleans(), st.booleans(), st.integers(1, 5), st.integers(0, 5), st.sampled_from(Life), st.integers(0, 40))
def test_from_every_state_the_wanted_one_is_reached(
    running: bool, deleting: bool, revision: int, written: int, life: Life, restarts: int
) -> None:
    start = row(
        running=running and not deleting, deleting=deleting, revision=revision, restarts=restarts,
        written_revision=min(written, revision), observed_revision=0, state="starting", error="x", pid=0, port=0,
    )  # fmt: skip
    world = World(start, life)
    for _ in range(30):
        if world.removed:
            break
        world.step()
    if deleting:
        assert world.removed
    elif running:
        assert (world.life, world.row.observed_revision, world.row.state) == (Life.RUNNING, revision, "ready")
        assert world.step() is Step.WAIT
    else:
        assert world.life is Life.NONE
        assert world.step() is Step.WAIT


def test_restarts_back_off_and_start_anew_after_a_healthy_while() -> None:
    delays = [backoff_s(number) for number in range(200)]
    assert delays[:4] == [1.0, 2.0, 4.0, 8.0]
    assert delays == sorted(delays)
    assert max(delays) == 60.0
    assert restarts_after(row(restarts=5), NOW) == 6
    assert restarts_after(row(restarts=5, started_at=NOW - timedelta(minutes=2)), NOW) == 1
