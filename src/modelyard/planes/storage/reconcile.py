"""What runs beside requests: a collection of the blobs that nothing names, once a day."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol

from modelyard.kernel.auth import Scope, system_scope
from modelyard.kernel.clock import Clock, Moves
from modelyard.kernel.reconcile import Lease
from modelyard.types.storage import Collect, Collection

EVERY = timedelta(days=1)


class Collecting(Protocol):
    """What the collector needs of the plane."""

    def last_at(self) -> datetime | None:
        """When the last collection was made."""
        ...

    def collect(self, scope: Scope, asked: Collect | None = None) -> Collection:
        """Remove what nothing has named for the grace."""
        ...


class Collector:
    """Collects once a day, counted from the last collection, whoever asked for it, and whatever the wall clock does."""

    name = "storage.collection"

    def __init__(self, storage: Collecting, project: str, clock: Clock) -> None:
        self._storage = storage
        self._project = project
        self._clock = clock
        self._moves = Moves(clock)
        self._collected_at = -math.inf

    def due(self, now: datetime) -> Sequence[str]:
        self._moves.ahead()
        last = self._storage.last_at()
        if last is not None and last > now:
            # The clock was ahead then, and says nothing of how long ago that was.
            due = self._clock.monotonic() - self._collected_at >= EVERY.total_seconds()
        else:
            due = last is None or now - last >= EVERY
        return ["blobs"] if due else []

    def act(self, key: str, lease: Lease) -> None:  # noqa: ARG002  two at once remove no more than one
        self._collected_at = self._clock.monotonic()
        grace_s = Collect().grace_s + math.ceil(self._moves.ahead().total_seconds())
        self._storage.collect(system_scope(self._project), Collect(grace_s=grace_s))
