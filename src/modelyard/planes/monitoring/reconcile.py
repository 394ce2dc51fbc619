"""What keeps monitors up to date: new data makes them due, what is due is evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from modelyard.kernel.auth import system_scope
from modelyard.kernel.errors import NotFound
from modelyard.kernel.event import Event
from modelyard.kernel.reconcile import Lease

if TYPE_CHECKING:
    from modelyard.planes.monitoring.service import Monitoring

DUE_AT_ONCE = 100


class EvaluateMonitors:
    """Evaluates the monitors that are due. Keys are `<project>/<monitor>`."""

    name = "evaluate-monitors"

    def __init__(self, monitoring: Monitoring) -> None:
        self._monitoring = monitoring

    def due(self, now: datetime) -> Sequence[str]:
        """The monitors that need a look."""
        return [f"{project}/{name}" for project, name in self._monitoring.due(now, DUE_AT_ONCE)]

    def act(self, key: str, lease: Lease) -> None:
        """Evaluate one. A monitor that was deleted meanwhile needs nothing."""
        project, _, name = key.partition("/")
        try:
            self._monitoring.carry_out(system_scope(project), name, lease=lease)
        except NotFound as error:
            if error.code != "monitor.not_found":
                raise


class WatchDatasets:
    """Makes monitors due when a dataset that they read has a new version."""

    name = "monitoring"
    kinds = frozenset({"dataset.version_published"})

    def __init__(self, monitoring: Monitoring) -> None:
        self._monitoring = monitoring

    def handle(self, event: Event) -> None:
        """Mark who reads the dataset. Doing it twice only looks once more."""
        self._monitoring.mark_due(system_scope(event.project), str(event.data["dataset"]))
