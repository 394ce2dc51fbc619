"""A tracking plane over an empty catalog, once on SQLite and once on PostgreSQL."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.engines.blobs.local import LocalBlobs
from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database
from modelyard.planes.tracking import Tracking
from modelyard.types.tracking import CreateRun


@pytest.fixture
def tracking(database: Database, tmp_path: Path) -> Tracking:
    """The plane."""
    return Tracking(database, LocalBlobs(tmp_path / "blobs"))


@pytest.fixture
def run_id(tracking: Tracking, scope: Scope) -> str:
    """A run of experiment 0."""
    return tracking.runs.create(scope, CreateRun(name="one")).id
