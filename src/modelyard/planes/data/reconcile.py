"""What runs beside requests: ending publications that a crash cut off, and removing what crashes left behind."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol

from modelyard.kernel.auth import Scope, system_scope
from modelyard.kernel.reconcile import Lease

SWEEP_EVERY = timedelta(hours=1)
VACUUM_EVERY = timedelta(days=1)


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

    def vacuum(self, scope: Scope, name: str) -> object:
        """Give up what the dataset's retention does not keep."""
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
    """Vacuums datasets that have a retention, once a day."""

    name = "data.retention"

    def __init__(self, datasets: Retaining, layout: Vacuuming) -> None:
        self._datasets = datasets
        self._layout = layout
        self._done_at: dict[str, datetime] = {}

    def due(self, now: datetime) -> Sequence[str]:
        keys = [f"{project}/{name}" for project, name in self._datasets.with_retention()]
        return [key for key in keys if key not in self._done_at or now - self._done_at[key] >= VACUUM_EVERY]

    def act(self, key: str, lease: Lease) -> None:  # noqa: ARG002  giving up twice is giving up once
        project, _, name = key.partition("/")
        self._done_at[key] = datetime.now(UTC)
        self._layout.vacuum(system_scope(project), name)


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

    def __init__(self, data: Sweeping) -> None:
        self._data = data
        self._swept_at: datetime | None = None

    def due(self, now: datetime) -> Sequence[str]:
        if self._swept_at is not None and now - self._swept_at < SWEEP_EVERY:
            return []
        self._swept_at = now
        return [now.isoformat()]

    def act(self, key: str, lease: Lease) -> None:  # noqa: ARG002  removing twice is removing once
        self._data.sweep(datetime.fromisoformat(key))
