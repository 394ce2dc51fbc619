"""A registry over a real catalog, real blobs, real tracking and real datasets, with people of several roles."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from modelyard.engines.blobs.local import LocalBlobs
from modelyard.engines.tables.delta import DeltaTables
from modelyard.kernel import auth
from modelyard.kernel.auth import Principal, Role, Scope
from modelyard.kernel.clock import FixedClock
from modelyard.kernel.database import Database
from modelyard.planes.data import Data
from modelyard.planes.registry import Registry
from modelyard.planes.tracking import Owner, Tracking
from modelyard.types.registry import ModelVersion
from modelyard.types.tracking import CreateRun

MLMODEL = b"""
artifact_path: model
flavors:
  onnx: {data: model.onnx, onnx_version: 1.17.0}
  python_function: {loader_module: mlflow.onnx}
signature:
  inputs: '[{"type": "double", "name": "distance", "required": true}]'
  outputs: '[{"type": "double"}]'
"""
LIGHTGBM = b"tree\nversion=v4\nnum_class=1\n"
PICKLE = b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94."


@dataclass
class House:
    """The registry and all that it stands on."""

    registry: Registry
    tracking: Tracking
    data: Data
    blobs: LocalBlobs
    database: Database
    clock: FixedClock

    def scope(self, name: str, role: Role = Role.CONTRIBUTOR, project: str = "default") -> Scope:
        """A person whom the catalog knows, with a role."""
        with self.database.transaction(auth.system_scope(project)) as tx:
            auth.grant(tx, name, project, role)
        return Scope(project, Principal(name, {project: role}))

    def logged(self, scope: Scope, files: dict[str, bytes] | None = None) -> str:
        """A run with a logged model of these files. Returns the model's source."""
        run = self.tracking.runs.create(scope, CreateRun(experiment_id="0", tags={}))
        model = self.tracking.models.create(scope, "0", "delay", source_run_id=run.id)
        for path, content in (files or {"MLmodel": MLMODEL, "model.txt": LIGHTGBM}).items():
            self.tracking.artifacts.put(scope, Owner("model", model.id), path, io.BytesIO(content))
        self.tracking.models.finish(scope, model.id, "READY")
        return f"models:/{model.id}"

    def version(self, scope: Scope, name: str = "delay", files: dict[str, bytes] | None = None) -> ModelVersion:
        """A new version of a model, which is registered if it is not."""
        if not self.registry.models.search(scope, f"name = '{name}'").items:
            self.registry.models.create(scope, name)
        return self.registry.versions.create(scope, name, self.logged(scope, files))


@pytest.fixture
def house(database: Database, clock: FixedClock, tmp_path: Path) -> House:
    """Everything, empty."""
    blobs = LocalBlobs(tmp_path / "blobs")
    data = Data(database, DeltaTables(tmp_path / "tables"), spill=tmp_path / "spill")
    tracking = Tracking(database, blobs)
    return House(Registry(database, blobs, tracking, data), tracking, data, blobs, database, clock)


@pytest.fixture
def ann(house: House) -> Scope:
    """Who submits."""
    return house.scope("ann")


@pytest.fixture
def bob(house: House) -> Scope:
    """Who approves."""
    return house.scope("bob", Role.APPROVER)


@pytest.fixture
def root(house: House) -> Scope:
    """Who may override."""
    return house.scope("root", Role.ADMIN)


Body = Callable[..., bytes]


def arrow(columns: dict[str, Sequence[object]]) -> bytes:
    """An Arrow IPC stream of columns."""
    import pyarrow as pa

    table = pa.table(columns)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def scored(noise: float, rows: int = 2_000, seed: int = 1) -> bytes:
    """Rows of the same flights with the same labels, whatever the noise of the scores."""
    import numpy as np

    truth_of = np.random.default_rng(99)
    truth = truth_of.normal(size=rows)
    labels = (truth + truth_of.normal(size=rows) > 0.5).astype(int)
    carrier = truth_of.choice(["UA", "B6", "DL"], size=rows)
    blurred = truth + noise * np.random.default_rng(seed).normal(size=rows)
    return arrow(
        {
            "row_id": [f"f{n}" for n in range(rows)],
            "label": labels.tolist(),
            "score": (1 / (1 + np.exp(-blurred))).tolist(),
            "carrier": carrier.tolist(),
        }
    )
