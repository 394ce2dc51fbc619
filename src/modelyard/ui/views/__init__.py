"""One file per noun: its screens as frozen structs, how they are built from the planes' nouns, and its routes."""

from __future__ import annotations

from typing import Any

from modelyard.ui import assets
from modelyard.ui.views import (
    artifacts,
    automation,
    compare,
    cost,
    datasets,
    endpoints,
    events,
    experiments,
    features,
    home,
    jobs,
    lineage,
    model_versions,
    models,
    monitors,
    pipelines,
    run,
    run_actions,
    runs,
    signin,
)

ROUTES: list[Any] = [
    *assets.ROUTES,
    *signin.ROUTES,
    *home.ROUTES,
    *datasets.ROUTES,
    *features.ROUTES,
    *experiments.ROUTES,
    *runs.ROUTES,
    *run.ROUTES,
    *run_actions.ROUTES,
    *artifacts.ROUTES,
    *compare.ROUTES,
    *pipelines.ROUTES,
    *jobs.ROUTES,
    *models.ROUTES,
    *model_versions.ROUTES,
    *endpoints.ROUTES,
    *monitors.ROUTES,
    *automation.ROUTES,
    *lineage.ROUTES,
    *events.ROUTES,
    *cost.ROUTES,
]
