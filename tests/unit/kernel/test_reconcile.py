"""The loop: acts on what is due, hands every event on once and in order, backs off from what fails."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Sequence
from datetime import datetime

import pytest
import sqlalchemy as sa

from modelyard.kernel.auth import Scope, principals, system_scope
from modelyard.kernel.clock import FixedClock
from modelyard.kernel.database import Database
from modelyard.kernel.errors import EngineError
from modelyard.kernel.event import Event
from modelyard.kernel.leases import Lease, take_lease
from modelyard.kernel.reconcile import ReconcileLoop


class Revoker:
    """Revokes every principal that is not revoked yet, under its lease."""

    name = "revoker"

    def __init__(self, database: Database) -> None:
        self.database = database
        self.failing = 0
        self.acts: list[str] = []

    def due(self, now: datetime) -> Sequence[str]:
        with self.database.reading() as tx:
            return [row.name for row in tx.all(sa.select(principals).where(principals.c.revoked.is_(False)))]

    def act(self, key: str, lease: Lease) -> None:
        self.acts.append(key)
        if self.failing:
            self.failing -= 1
            raise EngineError("not now")
        with self.database.transaction(system_scope("default"), lease=lease) as tx:
            tx.execute(principals.update().where(principals.c.name == key).values(revoked=True))


class SlowRevoker(Revoker):
    """Takes 100 s over each act; `meanwhile` is called in its middle."""

    def __init__(self, database: Database, clock: FixedClock) -> None:
        super().__init__(database)
        self.clock = clock
        self.meanwhile = lambda: None

    def act(self, key: str, lease: Lease) -> None:
        self.clock.advance(50)
        self.meanwhile()
        self.clock.advance(50)
        super().act(key, lease)


class Listener:
    name = "listener"
    kinds = frozenset({"run.finished"})

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.failing = 0

    def handle(self, event: Event) -> None:
        if self.failing:
            self.failing -= 1
            raise EngineError("not now")
        self.heard.append(event.subject)


def add(database: Database, scope: Scope, *names: str) -> None:
    with database.transaction(scope) as tx:
        for name in names:
            tx.execute(principals.insert().values(name=name, created_at=tx.now, revoked=False))


def test_what_is_due_is_done_once(database: Database, scope: Scope) -> None:
    revoker = Revoker(database)
    add(database, scope, "a", "b")
    ReconcileLoop(database, [revoker]).settle()
    assert sorted(revoker.acts) == ["a", "b"]


def test_two_loops_do_not_act_at_once_and_running_twice_is_harmless(database: Database, scope: Scope) -> None:
    revoker = Revoker(database)
    add(database, scope, "a")
    loops = [ReconcileLoop(database, [revoker]) for _ in range(2)]
    for loop in loops * 2:
        loop.settle()
    assert revoker.acts == ["a"]


def test_a_failure_is_tried_again_later_not_at_once(database: Database, scope: Scope, clock: FixedClock) -> None:
    revoker = Revoker(database)
    revoker.failing = 1
    add(database, scope, "a")
    loop = ReconcileLoop(database, [revoker])
    loop.step()
    loop.step()
    assert revoker.acts == ["a"]
    clock.advance(1)
    loop.step()
    assert revoker.acts == ["a", "a"]
    assert revoker.due(clock.now()) == []


def test_a_fault_in_one_thing_does_not_keep_the_others_waiting(
    database: Database, scope: Scope, clock: FixedClock
) -> None:
    class Faulty(Revoker):
        def act(self, key: str, lease: Lease) -> None:
            if key == "a":
                self.acts.append(key)
                raise KeyError("a fault of ours")
            super().act(key, lease)

    class Deaf(Listener):
        name = "deaf"

        def handle(self, event: Event) -> None:
            raise TypeError("a fault of ours")

    faulty, listener = Faulty(database), Listener()
    add(database, scope, "a", "b", "c")
    with database.transaction(scope) as tx:
        tx.event("run.finished", "run:1", {})
    loop = ReconcileLoop(database, [faulty], [Deaf(), listener])
    with pytest.raises(TypeError):
        loop.step()
    assert listener.heard == ["run:1"]
    with pytest.raises(KeyError):
        loop.step()
    assert sorted(faulty.acts) == ["a", "b", "c"]
    assert faulty.due(clock.now()) == ["a"]
    assert loop.step() == 0, "what failed waits before it is tried again"
    clock.advance(1)
    with pytest.raises((KeyError, TypeError)):
        loop.step()


def test_a_long_act_keeps_its_lease_by_renewal(database: Database, scope: Scope, clock: FixedClock) -> None:
    revoker = SlowRevoker(database, clock)
    add(database, scope, "a")
    loop = ReconcileLoop(database, [revoker])
    revoker.meanwhile = loop.renew_leases
    loop.step()
    assert revoker.due(clock.now()) == []


def test_what_a_late_act_did_is_thrown_away(database: Database, scope: Scope, clock: FixedClock) -> None:
    revoker = SlowRevoker(database, clock)
    add(database, scope, "a")
    ReconcileLoop(database, [revoker]).step()
    assert revoker.acts == ["a"]
    assert revoker.due(clock.now()) == ["a"]


def test_what_a_killed_process_held_is_free_at_the_next_start(database: Database, scope: Scope) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    with database.transaction(scope) as tx:
        take_lease(tx.connection, "revoker:a", f"{socket.gethostname()}:{ended.pid}:x", tx.now, 3600)
        take_lease(tx.connection, "revoker:b", "elsewhere:1:x", tx.now, 3600)
        take_lease(tx.connection, "revoker:c", f"{socket.gethostname()}:{os.getpid()}:x", tx.now, 3600)
    revoker = Revoker(database)
    add(database, scope, "a", "b", "c")
    loop = ReconcileLoop(database, [revoker])
    loop.forget_dead_owners()
    loop.step()
    assert revoker.acts == ["a"]


def test_a_reader_gets_every_event_of_its_kinds_in_order_once(database: Database, scope: Scope) -> None:
    listener = Listener()
    loop = ReconcileLoop(database, readers=[listener])
    for round_ in range(3):
        for place in range(150):
            with database.transaction(scope) as tx:
                tx.event("run.finished" if place % 2 else "run.created", f"run:{round_}-{place}")
        loop.settle()
    assert listener.heard == [f"run:{r}-{p}" for r in range(3) for p in range(150) if p % 2]
    loop.settle()
    assert len(listener.heard) == 225


def test_a_failing_reader_keeps_its_place(database: Database, scope: Scope, clock: FixedClock) -> None:
    listener = Listener()
    listener.failing = 1
    loop = ReconcileLoop(database, readers=[listener])
    with database.transaction(scope) as tx:
        tx.event("run.finished", "run:a")
    loop.settle()
    assert listener.heard == []
    clock.advance(5)
    ReconcileLoop(database, readers=[listener]).settle()
    assert listener.heard == ["run:a"]
