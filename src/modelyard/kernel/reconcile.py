"""The one loop that carries decisions out: ask what is due, take a lease, act, apply under the lease.

No transaction is held while acting. Everything here is level-triggered and may run twice: a reconciler decides from
state, so a missed wake costs time, never correctness. Events reach their readers by the same loop, each reader under
its own lease, with its own durable cursor.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Protocol

from modelyard.kernel import events
from modelyard.kernel.auth import system_scope
from modelyard.kernel.database import Database
from modelyard.kernel.errors import ModelyardError
from modelyard.kernel.ids import new_id
from modelyard.kernel.leases import Lease, StaleLease, owners_of, release_lease, release_leases_of, take_lease

__all__ = ["Lease", "ReconcileLoop", "Reconciler", "StaleLease"]

LEASE_TTL_S = 60.0
READER_BATCH = 200
READER_STRIDE = 1_000
BACKOFF_S_MAX = 60.0
LOOK_S_MIN = 0.05
"""However many events wake it, nothing looks more often than this while it finds nothing to do; and each look in vain
doubles the pause, up to the interval, so that a burst of events for others is no burst of queries."""
_log = logging.getLogger("modelyard.reconcile")


class Reconciler(Protocol):
    """Brings one kind of thing from what it is to what it should be."""

    name: str

    def due(self, now: datetime) -> Sequence[str]:
        """The keys of things that need a look now. Cheap, indexed, and at most some hundreds."""
        ...

    def act(self, key: str, lease: Lease) -> None:
        """Look at one thing and act. Effects happen outside any transaction; what they did is written by
        `database.transaction(scope, lease=lease)`, which fails with StaleLease if another took over."""
        ...


class ReconcileLoop:
    """Runs reconcilers and event readers. `step` does one round, `start` keeps going in a thread of its own."""

    def __init__(
        self,
        database: Database,
        reconcilers: Sequence[Reconciler] = (),
        readers: Sequence[events.EventReader] = (),
        interval_s: float = 0.5,
    ) -> None:
        self._database = database
        self._reconcilers = reconcilers
        self._readers = readers
        self._interval_s = interval_s
        self._owner = f"{socket.gethostname()}:{os.getpid()}:{new_id()[-8:]}"
        """host:process:loop; `forget_dead_owners` reads the first two."""
        self._scope = system_scope("*")
        self._woken = threading.Condition()
        self._wakes = 0
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []
        self._retry_at: dict[str, tuple[float, float]] = {}
        self._held: dict[str, Lease] = {}

    def step(self) -> int:
        """One round over everything. Returns how many things were acted on."""
        return self._step_events() + sum(self._step_reconciler(one) for one in self._reconcilers)

    def settle(self, rounds_max: int = 1_000) -> None:
        """Rounds until nothing is left to do; for tests and for work without a server."""
        for _ in range(rounds_max):
            if self.step() == 0:
                return
        raise RuntimeError(f"still busy after {rounds_max} rounds")

    def start(self) -> None:
        """Keep going, each reconciler in a thread of its own so that a slow one delays no other, until `stop`."""
        self.forget_dead_owners()
        self._database.after_commit.append(self.wake)
        for name, step in [
            ("events", self._step_events),
            *((one.name, lambda one=one: self._step_reconciler(one)) for one in self._reconcilers),
        ]:
            thread = threading.Thread(target=self._run, args=(step,), name=f"reconcile-{name}", daemon=True)
            thread.start()
            self._threads.append(thread)
        keeper = threading.Thread(target=self._keep_leases, name="reconcile-leases", daemon=True)
        keeper.start()
        self._threads.append(keeper)

    def forget_dead_owners(self) -> None:
        """Free what processes of this machine held that are no more, instead of waiting for it to expire."""
        host = socket.gethostname()
        with self._database.transaction(self._scope) as tx:
            for owner in owners_of(tx.connection, f"{host}:"):
                process = owner.split(":")[1]
                if not Path(f"/proc/{process}").exists():
                    release_leases_of(tx.connection, f"{host}:{process}:")

    def renew_leases(self) -> None:
        """Renew what is held, so that an act may take longer than a lease lasts. A lease that was lost stays lost."""
        for name in list(self._held):
            with self._database.transaction(self._scope) as tx:
                take_lease(tx.connection, name, self._owner, tx.now, LEASE_TTL_S)

    def _keep_leases(self) -> None:
        while not self._stopped.wait(LEASE_TTL_S / 4):
            try:
                self.renew_leases()
            except ModelyardError as error:
                _log.warning("leases could not be renewed: %s", error)

    def wake(self) -> None:
        """Look now instead of at the next interval."""
        with self._woken:
            self._wakes += 1
            self._woken.notify_all()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Stop after the current acts."""
        self._stopped.set()
        self.wake()
        for thread in self._threads:
            thread.join(timeout_s)

    def _run(self, step: object) -> None:
        assert callable(step)
        pause_s = LOOK_S_MIN
        while not self._stopped.is_set():
            seen, looked = self._wakes, time.monotonic()
            try:
                busy = step()
            except Exception:  # noqa: BLE001  the loop outlives any fault of what it runs
                _log.exception("a reconcile round failed; it is repeated")
                busy = 0
            if not busy:
                with self._woken:
                    woken = self._woken.wait_for(lambda seen=seen: self._wakes != seen, self._interval_s)  # type: ignore[misc]
                self._stopped.wait(max(0.0, looked + pause_s - time.monotonic()))
                pause_s = max(LOOK_S_MIN, min(pause_s * 2, self._interval_s)) if woken else LOOK_S_MIN
            else:
                pause_s = LOOK_S_MIN

    def _step_reconciler(self, reconciler: Reconciler) -> int:
        due = reconciler.due(self._database.clock.now())
        return self._each([(_name(reconciler, key), partial(self._act, reconciler, key)) for key in due])

    def _each(self, acts: Sequence[tuple[str, Callable[[], int]]]) -> int:
        """Run the acts by name. One that fails as nothing should waits like any other that failed, and is raised once
        the others had their turn: else they would wait for its mending."""
        acted = 0
        faults: list[Exception] = []
        for name, act in acts:
            if self._stopped.is_set():
                break
            try:
                acted += act()
            except Exception as fault:  # noqa: BLE001  raised below
                self._back_off(name, fault)
                faults.append(fault)
        if faults:
            raise faults[0]
        return acted

    def _act(self, reconciler: Reconciler, key: str) -> int:
        name = _name(reconciler, key)
        if not self._may_try(name):
            return 0
        lease = self._take(name)
        if lease is None:
            return 0
        try:
            reconciler.act(key, lease)
        except StaleLease:
            _log.info("%s: lease lost, result thrown away", name)
        except ModelyardError as error:
            self._back_off(name, error)
        else:
            self._retry_at.pop(name, None)
        finally:
            self._release(lease)
        return 1

    def _may_try(self, name: str) -> bool:
        retry_at, _ = self._retry_at.get(name, (0.0, 0.0))
        return self._database.clock.monotonic() >= retry_at

    def _back_off(self, name: str, error: Exception) -> None:
        _, delay_s = self._retry_at.get(name, (0.0, 0.25))
        delay_s = min(delay_s * 2, BACKOFF_S_MAX)
        self._retry_at[name] = (self._database.clock.monotonic() + delay_s, delay_s)
        _log.warning("%s failed, tried again in %.1f s: %s", name, delay_s, error)

    def _take(self, name: str) -> Lease | None:
        with self._database.transaction(self._scope) as tx:
            lease = take_lease(tx.connection, name, self._owner, tx.now, LEASE_TTL_S)
        if lease is not None:
            self._held[name] = lease
        return lease

    def _release(self, lease: Lease) -> None:
        self._held.pop(lease.name, None)
        with self._database.transaction(self._scope) as tx:
            release_lease(tx.connection, lease)

    def _step_events(self) -> int:
        with self._database.reading(self._scope) as tx:
            unsealed = events.has_unsealed(tx)
        if unsealed:
            with self._database.transaction(self._scope) as tx:
                events.seal(tx)
        return self._each([(reader.name, partial(self._step_reader, reader)) for reader in self._readers])

    def _step_reader(self, reader: events.EventReader) -> int:
        with self._database.reading(self._scope) as tx:
            cursor = events.cursor_of(tx, reader.name)
            head = events.head_seq(tx)
            # What is of no interest is passed over in long steps: a step is a write, and most events are for others.
            far = head - cursor >= READER_STRIDE
            wanted = cursor < head and (far or bool(events.after(tx, cursor, reader.kinds, limit=1)))
        if not wanted or not self._may_try(reader.name):
            return 0
        lease = self._take(f"reader:{reader.name}")
        if lease is None:
            return 0
        try:
            return self._read_on(reader, lease, head)
        finally:
            self._release(lease)

    def _read_on(self, reader: events.EventReader, lease: Lease, head: int) -> int:
        with self._database.reading(self._scope) as tx:
            batch = events.after(tx, events.cursor_of(tx, reader.name), reader.kinds, READER_BATCH)
        handled = 0
        for event in batch:
            try:
                reader.handle(event)
            except ModelyardError as error:
                self._back_off(reader.name, error)
                return handled
            self._retry_at.pop(reader.name, None)
            with self._database.transaction(self._scope, lease=lease) as tx:
                events.move_cursor(tx, reader.name, event.seq or 0)
            handled += 1
        if len(batch) < READER_BATCH:
            with self._database.transaction(self._scope, lease=lease) as tx:
                events.move_cursor(tx, reader.name, head)
        return handled


def _name(reconciler: Reconciler, key: str) -> str:
    return f"{reconciler.name}:{key}"[:255]
