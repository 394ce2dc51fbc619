"""What carries automation on: events are heard, schedules fire, responses go from step to step."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from modelyard.kernel.event import Event
from modelyard.kernel.reconcile import Lease

if TYPE_CHECKING:
    from modelyard.planes.automation.service import Automation

DUE_AT_ONCE = 100
RUN_ENDED = frozenset({"pipeline-run.succeeded", "pipeline-run.failed", "pipeline-run.cancelled"})


class WatchEvents:
    """Hears of what triggers wait for, and of the ends of the runs that they started."""

    name = "automation"

    def __init__(self, automation: Automation) -> None:
        self._automation = automation

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds that matter now; a trigger that is made later hears of what happens later."""
        return self._automation.kinds() | RUN_ENDED

    def handle(self, event: Event) -> None:
        """Idempotent: a trigger answers an event once."""
        if event.kind in RUN_ENDED:
            self._automation.run_ended(event.project, event.subject.removeprefix("pipeline-run:"))
        self._automation.hear(event)


class FireSchedules:
    """Fires the schedules that came due. Keys are `<project>/<trigger>`."""

    name = "fire-schedules"

    def __init__(self, automation: Automation) -> None:
        self._automation = automation

    def due(self, now: datetime) -> Sequence[str]:
        """The schedules that came due."""
        return [f"{project}/{name}" for project, name in self._automation.due_schedules(now, DUE_AT_ONCE)]

    def act(self, key: str, lease: Lease) -> None:
        """Fire one."""
        project, _, name = key.partition("/")
        self._automation.fire_schedule(project, name, lease)


class FollowResponses:
    """Starts pipelines, and judges what they made. Keys are `<project>/<response>`."""

    name = "follow-responses"

    def __init__(self, automation: Automation) -> None:
        self._automation = automation

    def due(self, now: datetime) -> Sequence[str]:
        """The responses that need a look."""
        return [f"{project}/{response}" for project, response in self._automation.due_responses(now, DUE_AT_ONCE)]

    def act(self, key: str, lease: Lease) -> None:
        """Take one a step on."""
        project, _, response = key.partition("/")
        self._automation.follow(project, response, lease)
