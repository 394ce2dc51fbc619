"""Experiments: the groups of runs."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from modelyard.kernel.auth import Scope
from modelyard.kernel.settings import Settings
from modelyard.planes.tracking import Tracking
from modelyard.types.tracking import Experiment, Run
from modelyard.ui.frame import Frame, Screen
from modelyard.ui.page import page as ui_page

SHOWN = 100
COUNTED_MAX = 10_000


class ExperimentRow(Struct, frozen=True, kw_only=True):
    """An experiment with its latest run. `more`: counting its runs ended at `runs`."""

    experiment: Experiment
    latest: Run | None
    runs: int
    more: bool = False


class Experiments(Screen, frozen=True, kw_only=True):
    """All experiments, and the URL that a client sets to log to this server."""

    rows: tuple[ExperimentRow, ...]
    url: str
    next: str | None = None


@ui_page("/experiments", template="experiments.html")
def experiments(caller: Scope, tracking: Tracking, settings: Settings, page: str = "") -> Experiments:
    """All experiments, newest first."""
    found = tracking.experiments.search(caller, limit=SHOWN, page=page or None)
    return Experiments(
        frame=Frame(title="Experiments", section="experiments"),
        rows=tuple(_row(caller, tracking, one) for one in found.items),
        url=settings.public_url,
        next=found.next,
    )


def _row(caller: Scope, tracking: Tracking, experiment: Experiment) -> ExperimentRow:
    latest = tracking.runs.search(caller, [experiment.id], limit=1, metric_keys=[]).items
    runs = tracking.overview.count(caller, [experiment.id], at_most=COUNTED_MAX) if latest else 0
    return ExperimentRow(
        experiment=experiment, latest=latest[0] if latest else None, runs=runs, more=runs >= COUNTED_MAX
    )


ROUTES: list[Any] = [experiments]
