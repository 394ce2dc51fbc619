"""Automation over real planes: a registry with gates, pipelines whose steps a test ends as their worker would."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from modelyard.engines.blobs.local import LocalBlobs
from modelyard.engines.compute.process import ProcessEngine
from modelyard.engines.tables.delta import DeltaTables
from modelyard.kernel import events
from modelyard.kernel.auth import Principal, Role, Scope, system_scope
from modelyard.kernel.clock import FixedClock
from modelyard.kernel.database import Database
from modelyard.kernel.event import Event
from modelyard.kernel.ids import new_id
from modelyard.kernel.reconcile import ReconcileLoop
from modelyard.planes.automation import Automation
from modelyard.planes.data import Data
from modelyard.planes.jobs import Jobs
from modelyard.planes.pipelines import Pipelines
from modelyard.planes.registry import Registry
from modelyard.planes.tracking import Owner, Tracking
from modelyard.types.automation import Response
from modelyard.types.pipelines import Code, Output, OutputRef, Param, ParamRef, Plan, RegisterPipeline, Step, StepReport
from modelyard.types.registry import ApprovalRule, ChampionGate, MetricGate, Policy
from modelyard.types.tracking import CreateRun

POLICY = Policy(
    aliases=["champion"],
    metrics=[MetricGate(metric="auc", min=0.6)],
    champion=ChampionGate(alias="champion", metric="auc"),
    approvals=ApprovalRule(count=1, automation=True),
)


class House:
    """All that automation stands on, driven by hand on a clock that tests move."""

    def __init__(self, database: Database, clock: FixedClock, root: Path, scope: Scope) -> None:
        self.database, self.clock, self.scope = database, clock, scope
        blobs = LocalBlobs(root / "blobs")
        self.data = Data(database, DeltaTables(root / "tables"), spill=root / "spill")
        self.tracking = Tracking(database, blobs)
        self.registry = Registry(database, blobs, self.tracking, self.data)
        # Without a server's address no job is started: the tests are the workers.
        self.jobs = Jobs(database, ProcessEngine(os.environ, cpus=2, memory_bytes=2**30), root / "jobs")
        self.pipelines = Pipelines(database, self.jobs, self.data, blobs)
        self.automation = Automation(database, self.pipelines, self.registry)
        self.loop = self.loop_of(self.automation)
        content = b"a snapshot of the project's code"
        blob = self.pipelines.put_code(scope, io.BytesIO(content))
        plan = Plan(
            name="train",
            params=[Param(name="until", default="")],
            steps=[
                Step(name="fit", task="project:fit", code_hash="c0", inputs={"until": ParamRef("until")}, cache=False)
            ],
            result=OutputRef("fit"),
        )
        self.pipelines.register(scope, RegisterPipeline(plan=plan, code=Code(digest=blob.digest, size_bytes=32)))

    def loop_of(self, automation: Automation) -> ReconcileLoop:
        reconcilers = [*self.pipelines.reconcilers(), *automation.reconcilers()]
        return ReconcileLoop(self.database, reconcilers, [*self.pipelines.readers(), *automation.readers()])

    def say(self, data: dict[str, Any], kind: str = "alert.raised") -> str:
        """An event, as monitoring would say it. Returns its subject."""
        subject = f"alert:{new_id()}"
        with self.database.transaction(system_scope(self.scope.project)) as tx:
            tx.event(kind, subject, data)
        return subject

    def said(self, kind: str) -> list[Event]:
        with self.database.reading(self.scope) as tx:
            return events.recent(tx, kinds=frozenset({kind}))

    def responses(self) -> list[Response]:
        """Oldest first."""
        return self.automation.responses(self.scope).items[::-1]

    def work(self, output: Any = None) -> None:
        """Do what the one running step has to do, as its worker: return this output."""
        runs = [run for run in self.pipelines.list_runs(self.scope).items if not run.state.final]
        assert runs, f"no run goes on: {self.responses()}"
        (step,) = runs[0].steps
        worker = Scope(self.scope.project, Principal(f"job:{step.job_id}"))
        report = StepReport(output=Output(digest="", format="json", size_bytes=0, inline=True, value=output))
        self.pipelines.report(worker, runs[0].id, "fit", report)
        # A run ends after its jobs. This one was never started, so it is over as soon as it is cancelled.
        self.jobs.cancel_job(self.scope, step.job_id or "")

    def version(self, noise: float, *, evaluated: bool = True) -> int:
        """A registered version whose scores are so noisy."""
        if not self.registry.models.search(self.scope, "name = 'delay'").items:
            self.registry.models.create(self.scope, "delay")
            self.registry.models.set_policy(self.scope, "delay", POLICY)
        run = self.tracking.runs.create(self.scope, CreateRun(experiment_id="0", tags={}))
        model = self.tracking.models.create(self.scope, "0", "delay", source_run_id=run.id)
        files = {"MLmodel": b"flavors: {}\n", "model.txt": f"tree {new_id()}".encode()}
        for path, content in files.items():
            self.tracking.artifacts.put(self.scope, Owner("model", model.id), path, io.BytesIO(content))
        self.tracking.models.finish(self.scope, model.id, "READY")
        made = self.registry.versions.create(self.scope, "delay", f"models:/{model.id}")
        if evaluated:
            self.registry.evidence.evaluate(
                self.scope, "delay", made.version, [scored(noise)], dataset="dataset:held@1"
            )
        return made.version

    def champion(self, noise: float = 2.0) -> int:
        """A version in production, approved by a person."""
        version = self.version(noise)
        approver = Scope("default", Principal("bob", {"default": Role.APPROVER}))
        self.registry.approve(approver, "delay", version, "looks right")
        self.registry.promote(approver, "delay", version, "champion", "the first")
        return version

    def serving(self) -> int | None:
        return self.registry.models.get(self.scope, "delay").aliases.get("champion")


def scored(noise: float, rows: int = 2_000) -> bytes:
    """Scores of the same rows with the same labels, whatever their noise."""
    random = np.random.default_rng(99)
    truth = random.normal(size=rows)
    labels = (truth + random.normal(size=rows) > 0.5).astype(int)
    blurred = truth + noise * np.random.default_rng(1).normal(size=rows)
    table = pa.table({"row_id": [f"f{n}" for n in range(rows)], "label": labels, "score": 1 / (1 + np.exp(-blurred))})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


@pytest.fixture
def house(database: Database, clock: FixedClock, tmp_path: Path, scope: Scope) -> House:
    return House(database, clock, tmp_path, scope)
