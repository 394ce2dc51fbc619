"""What runs beside requests: ending publications that a crash cut off."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from modelyard.kernel.auth import Scope, system_scope
from modelyard.kernel.reconcile import Lease


class Recovering(Protocol):
    """What the recovery needs of the plane."""

    def unfinished(self, now: datetime) -> Sequence[tuple[str, str]]:
        """Project and name of datasets with a publication that began some time ago and did not end."""
        ...

    def recover(self, scope: Scope, name: str) -> int:
        """Carry such publications out."""
        ...


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
