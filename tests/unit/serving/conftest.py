"""Serving over a real catalog, registry, datasets and processes."""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from modelyard.engines.blobs.local import LocalBlobs
from modelyard.engines.compute.process import ProcessEngine
from modelyard.engines.tables.delta import DeltaTables
from modelyard.kernel import auth
from modelyard.kernel.auth import Principal, Role, Scope
from modelyard.kernel.clock import FixedClock
from modelyard.kernel.database import Database
from modelyard.kernel.reconcile import ReconcileLoop
from modelyard.planes.data import Data
from modelyard.planes.registry import Registry
from modelyard.planes.serving import Serving
from modelyard.planes.tracking import Owner, Tracking
from modelyard.types.serving import CreateEndpoint, Endpoint, EndpointOptions
from modelyard.types.tracking import CreateRun
from unit.endpoint.living import linear

DEADLINE_S = 60.0
INPUTS = json.dumps([{"name": "distance", "type": "float", "required": True}])
QUICK = EndpointOptions(segment_age_s_max=0.05)


def model_files(bias: float, *, signature: bool = True) -> dict[str, bytes]:
    """An MLflow directory of a model that adds a bias to `distance`."""
    described: dict[str, Any] = {"flavors": {"onnx": {"data": "model.onnx"}}}
    if signature:
        described["signature"] = {"inputs": INPUTS, "outputs": json.dumps([{"name": "y", "type": "float"}])}
    return {"MLmodel": yaml.safe_dump(described).encode(), "model.onnx": linear([1.0], bias)}


@dataclass
class House:
    """The serving plane and all that it stands on. `restart` is a server that was killed and came up again."""

    database: Database
    clock: FixedClock
    home: Path
    blobs: LocalBlobs = field(init=False)
    data: Data = field(init=False)
    tracking: Tracking = field(init=False)
    registry: Registry = field(init=False)
    compute: ProcessEngine = field(init=False)
    serving: Serving = field(init=False)
    loop: ReconcileLoop = field(init=False)

    def __post_init__(self) -> None:
        self.blobs = LocalBlobs(self.home / "blobs")
        self.data = Data(self.database, DeltaTables(self.home / "tables"), spill=self.home / "spill")
        self.tracking = Tracking(self.database, self.blobs)
        self.registry = Registry(self.database, self.blobs, self.tracking, self.data)
        self.restart()

    def restart(self) -> None:
        self.compute = ProcessEngine(dict(os.environ))
        self.serving = Serving(self.database, self.registry, self.data, self.compute, self.home / "endpoints")
        self.loop = ReconcileLoop(self.database, self.serving.reconcilers(), self.serving.readers())

    def scope(self, name: str, role: Role = Role.CONTRIBUTOR) -> Scope:
        with self.database.transaction(auth.system_scope("default")) as tx:
            auth.grant(tx, name, "default", role)
        return Scope("default", Principal(name, {"default": role}))

    def version(self, scope: Scope, files: dict[str, bytes], name: str = "delay") -> int:
        """Log and register a version."""
        if not self.registry.models.search(scope, f"name = '{name}'").items:
            self.registry.models.create(scope, name)
        run = self.tracking.runs.create(scope, CreateRun(experiment_id="0", tags={}))
        model = self.tracking.models.create(scope, "0", name, source_run_id=run.id)
        for path, content in files.items():
            self.tracking.artifacts.put(scope, Owner("model", model.id), path, io.BytesIO(content))
        self.tracking.models.finish(scope, model.id, "READY")
        return self.registry.versions.create(scope, name, f"models:/{model.id}").version

    def champion(self, scope: Scope, version: int) -> None:
        self.registry.promote(scope, "delay", version, "champion", "it is better")

    def served(self, scope: Scope, name: str = "late") -> Endpoint:
        """An endpoint that follows the champion, up and ready."""
        self.serving.create(scope, CreateEndpoint(name=name, model="delay", options=QUICK))
        return self.until_ready(scope, name)

    def until(self, wanted: Callable[[], bool], what: str = "") -> None:
        """Reconcile until it is as wanted."""
        deadline = time.monotonic() + DEADLINE_S
        while not wanted():
            assert time.monotonic() < deadline, what or "not in time"
            if self.loop.step() == 0:
                time.sleep(0.01)

    def until_ready(self, scope: Scope, name: str = "late") -> Endpoint:
        self.until(lambda: self.serving.get(scope, name).ready, f"{name} is not ready")
        return self.serving.get(scope, name)

    def ask(self, endpoint: Endpoint, *values: float, request_id: str = "") -> httpx.Response:
        body: dict[str, Any] = {
            "inputs": [{"name": "distance", "datatype": "FP32", "shape": [len(values)], "data": list(values)}]
        }
        if request_id:
            body["id"] = request_id
        return httpx.post(f"{endpoint.url}/v2/models/{endpoint.name}/infer", json=body, timeout=30.0)

    def answers(self, endpoint: Endpoint, *values: float, request_id: str = "") -> list[float]:
        reply = self.ask(endpoint, *values, request_id=request_id)
        assert reply.status_code == 200, reply.text
        found: list[float] = reply.json()["outputs"][0]["data"]
        return found

    def events(self, scope: Scope, name: str = "late") -> list[str]:
        """Kinds of the endpoint's events, oldest first."""
        from modelyard.kernel import events

        with self.database.reading(scope) as tx:
            return [one.kind for one in events.recent(tx, subject=f"endpoint:{name}")][::-1]

    def end_all(self) -> None:
        for directory in (self.home / "endpoints").glob("*/*/runs/*"):
            handle = self.compute.find(str(directory))
            if handle is not None:
                self.compute.stop(handle, 1.0)
                self.compute.wait(handle, 20.0)


@pytest.fixture
def house(database: Database, clock: FixedClock, tmp_path: Path) -> Iterator[House]:
    """Everything, empty; what it started is ended with the test."""
    made = House(database, clock, tmp_path)
    yield made
    made.end_all()


@pytest.fixture
def ann(house: House) -> Scope:
    """Who submits and serves."""
    return house.scope("ann")


@pytest.fixture
def root(house: House) -> Scope:
    """Who may do everything."""
    return house.scope("root", Role.ADMIN)
