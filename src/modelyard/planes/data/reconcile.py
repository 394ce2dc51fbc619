"""What runs beside requests: ending publications that a crash cut off, and removing what crashes left behind."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol

from modelyard.kernel.auth import Scope, system_scope
from modelyard.kernel.clock import Clock, Moves
from modelyard.kernel.reconcile import Lease

SWEEP_EVERY_S = 3_600.0
VACUUM_EVERY_S = 86_400.0


class Recovering(Protocol):
    """What the recovery needs of the plane."""

    def unfinished(self, now: datetime) -> Sequence[tuple[str, str]]:
        """Project and name of datasets with a publication that began some time ago and did not end."""
        ...

    def recover(self, scope: Scope, name: str) -> int:
        """Carry such publications out."""
        ...


class Sweeping(Protocol):
    """What the sweep needs of the plane."""

    def sweep(self, now: datetime) -> int:
        """Remove what writes that came to nothing left behind a day ago or longer. Returns how many that were."""
        ...


class Flushing(Protocol):
    """What the flush needs of the buffers."""

    def due(self, now_s: float) -> Sequence[str]:
        """Datasets, as `<project>/<name>`, whose buffer is old or large enough."""
        ...

    def flush(self, scope: Scope, name: str) -> object:
        """Make what waits a version."""
        ...


class Retaining(Protocol):
    """What the vacuum needs to know of datasets."""

    def with_retention(self) -> Sequence[tuple[str, str]]:
        """Project and name of datasets that say which versions to keep."""
        ...


class Vacuuming(Protocol):
    """What the vacuum needs of the tables."""

    def vacuum(self, scope: Scope, name: str, *, ahead: timedelta = ...) -> object:
        """Give up what the dataset's retention does not keep, by a clock that may be so far ahead."""
        ...


class BufferFlush:
    """Makes buffered appends versions. It may run twice: a segment's id is the idempotency key of its write."""

    name = "data.buffer"

    def __init__(self, buffers: Flushing) -> None:
        self._buffers = buffers

    def due(self, now: datetime) -> Sequence[str]:
        return self._buffers.due(now.timestamp())

    def act(self, key: str, lease: Lease) -> None:  # noqa: ARG002  the keys of the writes fence
        project, _, name = key.partition("/")
        self._buffers.flush(system_scope(project), name)


class RetentionVacuum:
    """Vacuums datasets that have a retention, soon after the start and then daily, whatever the wall clock does."""

    name = "data.retention"

    def __init__(self, datasets: Retaining, layout: Vacuuming, clock: Clock) -> None:
        self._datasets = datasets
        self._layout = layout
        self._clock = clock
        self._moves = Moves(clock)
        self._done_at: dict[str, float] = {}

    def due(self, now: datetime) -> Sequence[str]:  # noqa: ARG002  counted in seconds that never go back
        self._moves.ahead()
        since = self._clock.monotonic() - VACUUM_EVERY_S
        keys = [f"{project}/{name}" for project, name in self._datasets.with_retention()]
        return [key for key in keys if self._done_at.get(key, -math.inf) <= since]

    def act(self, key: str, lease: Lease) -> None:  # noqa: ARG002  giving up twice is giving up once
        project, _, name = key.partition("/")
        self._done_at[key] = self._clock.monotonic()
        self._layout.vacuum(system_scope(project), name, ahead=self._moves.ahead())


class PublicationRecovery:
    """Carries out publications whose writer is gone. It may run twice, and beside live writers: the table's lock
    decides, and a publication that has ended is no longer there to be found."""

    name = "data.publication"

    def __init__(self, data: Recovering) -> None:
        self._data = data

    def due(self, now: datetime) -> Sequence[str]:
        return [f"{project}/{name}" for project, name in self._data.unfinished(now)]

    def act(self, key: str, lease: Lease) -> None:  # noqa: ARG002  the table's lock fences, not the lease
        project, _, name = key.partition("/")
        self._data.recover(system_scope(project), name)


class StagedSweep:
    """Removes files of writes that were cut off before their verdict, soon after the start and then every hour."""

    name = "data.sweep"

    def __init__(self, data: Sweeping, clock: Clock) -> None:
        self._data = data
        self._clock = clock
        self._moves = Moves(clock)
        self._swept_at = -math.inf

    def due(self, now: datetime) -> Sequence[str]:
        ahead = self._moves.ahead()
        if self._clock.monotonic() - self._swept_at < SWEEP_EVERY_S:
            return []
        self._swept_at = self._clock.monotonic()
        return [(now - ahead).isoformat()]

    def act(self, key: str, lease: Lease) -> None:  # noqa: ARG002  removing twice is removing once
        self._data.sweep(datetime.fromisoformat(key))
