"""One file per noun: its screens as frozen structs, how they are built from the planes' nouns, and its routes."""

from __future__ import annotations

from typing import Any

from modelyard.ui import assets
from modelyard.ui.views import datasets, events, experiments, jobs, lineage, runs, signin

ROUTES: list[Any] = [
    *assets.ROUTES,
    *signin.ROUTES,
    *experiments.ROUTES,
    *runs.ROUTES,
    *datasets.ROUTES,
    *jobs.ROUTES,
    *lineage.ROUTES,
    *events.ROUTES,
]
