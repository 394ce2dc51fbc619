"""A platform with a loopback server, as small as pipelines need it, and projects of users written to disk."""

from __future__ import annotations

import importlib
import os
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import uvicorn
from litestar import Litestar
from litestar.di import Provide

from modelyard.engines.blobs.local import LocalBlobs
from modelyard.engines.compute.base import Running
from modelyard.engines.compute.process import ProcessEngine
from modelyard.engines.tables.delta import DeltaTables
from modelyard.kernel import auth
from modelyard.kernel.auth import Role, Scope, system_scope
from modelyard.kernel.clock import FixedClock
from modelyard.kernel.database import Database
from modelyard.kernel.reconcile import ReconcileLoop
from modelyard.planes.data import Data
from modelyard.planes.data.routes import ROUTES as DATA_ROUTES
from modelyard.planes.jobs import Jobs
from modelyard.planes.jobs.routes import ROUTES as JOB_ROUTES
from modelyard.planes.pipelines import Pipelines
from modelyard.planes.pipelines.routes import ROUTES as PIPELINE_ROUTES
from modelyard.sdk import pipelines as sdk
from modelyard.sdk.client import Client
from modelyard.server.app import _caller, enforce
from modelyard.server.gate import Gate
from modelyard.server.problems import HANDLERS
from modelyard.types.pipelines import PipelineRun

WAIT_S = 60.0


class Plant:
    """Data, jobs and pipelines over one catalog, served on loopback, driven by hand on a clock that tests move."""

    def __init__(self, database: Database, clock: FixedClock, root: Path, scope: Scope) -> None:
        self.database, self.clock, self.scope, self.root = database, clock, scope, root
        self.blobs = LocalBlobs(root / "blobs")
        self.data = Data(database, DeltaTables(root / "tables"), spill=root / "spill")
        engine = ProcessEngine(os.environ, cpus=4, memory_bytes=4 * 2**30)
        self.jobs = Jobs(database, engine, root / "jobs")
        self.pipelines = Pipelines(database, self.jobs, self.data, self.blobs)
        self.loop = ReconcileLoop(
            database, [*self.jobs.reconcilers(), *self.pipelines.reconcilers()], self.pipelines.readers()
        )
        with database.transaction(system_scope("*")) as tx:
            token = auth.issue_token(tx, "ada", "*", Role.ADMIN)
        self._server = uvicorn.Server(uvicorn.Config(self._app(), port=0, log_level="warning", lifespan="on"))
        self._thread = Thread(target=self._server.run, daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.005)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.jobs.server_url = f"http://127.0.0.1:{port}"
        self.client = Client(self.jobs.server_url, token=token)

    def _app(self) -> Any:
        def provide(value: Any) -> Provide:
            return Provide(lambda: value, use_cache=True, sync_to_thread=False)

        app = Litestar(
            route_handlers=[*DATA_ROUTES, *JOB_ROUTES, *PIPELINE_ROUTES],
            guards=[enforce],
            dependencies={
                "jobs": provide(self.jobs),
                "pipelines": provide(self.pipelines),
                "datasets": provide(self.data),
                "caller": Provide(_caller, sync_to_thread=False),
            },
            exception_handlers=HANDLERS,
            openapi_config=None,
            logging_config=None,
        )
        return Gate(app, self.database, frozenset({"127.0.0.1"}))

    def step(self) -> None:
        """A round of the loop, and a little time."""
        self.loop.step()
        self.clock.advance(0.5)
        time.sleep(0.02)

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + WAIT_S
        while not condition():
            assert time.monotonic() < deadline, "it did not happen"
            self.step()

    def start(self, pipeline: Any, **params: Any) -> PipelineRun:
        return sdk.start_run(pipeline, params, client=self.client)

    def get(self, run: PipelineRun) -> PipelineRun:
        return sdk.get_run(run.id, self.client)

    def ended(self, run: PipelineRun) -> PipelineRun:
        self.until(lambda: self.get(run).state.final)
        return self.get(run)

    def run(self, pipeline: Any, **params: Any) -> PipelineRun:
        return self.ended(self.start(pipeline, **params))

    def states(self, run: PipelineRun) -> dict[str, str]:
        return {step.name: step.state.value for step in self.get(run).steps}

    def close(self) -> None:
        for job in self.jobs.list_jobs(self.scope).items:
            for attempt in job.attempts:
                handle = self.jobs.engine.find(str(self.jobs.attempt_directory(job.id, attempt.number)))
                if handle is not None and isinstance(self.jobs.engine.poll(handle), Running):
                    self.jobs.engine.stop(handle, 0)
                    self.jobs.engine.wait(handle, WAIT_S)
        self.client.close()
        self._server.should_exit = True
        self._thread.join(10)


@pytest.fixture
def plant(database: Database, clock: FixedClock, tmp_path: Path, scope: Scope) -> Iterator[Plant]:
    plant = Plant(database, clock, tmp_path / "home", scope)
    yield plant
    plant.close()


class Project:
    """A user's project in a folder: write modules, import them, change them and import them again."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()
        (root / "pyproject.toml").write_text("")

    def write(self, name: str, source: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source))

    def load(self, module: str) -> Any:
        """Import afresh, as another run of the user's program would."""
        self.forget()
        importlib.invalidate_caches()
        sys.dont_write_bytecode = True
        return importlib.import_module(module)

    def forget(self) -> None:
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None)
            if file and Path(file).is_relative_to(self.root):
                del sys.modules[name]


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    project = Project(tmp_path / "project")
    sys.path.insert(0, str(project.root))
    before = sys.dont_write_bytecode
    yield project
    sys.dont_write_bytecode = before
    project.forget()
    sys.path.remove(str(project.root))
