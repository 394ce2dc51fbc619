"""What runs beside requests: a collection of the blobs that nothing names, once a day."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol

from modelyard.kernel.auth import Scope, system_scope
from modelyard.kernel.reconcile import Lease
from modelyard.types.storage import Collection

EVERY = timedelta(days=1)


class Collecting(Protocol):
    """What the collector needs of the plane."""

    def last_at(self) -> datetime | None:
        """When the last collection was made."""
        ...

    def collect(self, scope: Scope) -> Collection:
        """Remove what nothing has named for the grace."""
        ...


class Collector:
    """Collects once a day, counted from the last collection, whoever asked for it."""

    name = "storage.collection"

    def __init__(self, storage: Collecting, project: str) -> None:
        self._storage = storage
        self._project = project

    def due(self, now: datetime) -> Sequence[str]:
        last = self._storage.last_at()
        return ["blobs"] if last is None or now - last >= EVERY else []

    def act(self, key: str, lease: Lease) -> None:  # noqa: ARG002  two at once remove no more than one
        self._storage.collect(system_scope(self._project))
