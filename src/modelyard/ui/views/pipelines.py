"""Pipelines: their plans as graphs, and their runs as graph and timeline, with what was not run again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

from msgspec import Struct

from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database
from modelyard.planes.jobs import Jobs
from modelyard.planes.pipelines import Pipelines as PipelinesPlane
from modelyard.planes.tracking import Tracking
from modelyard.types.pipelines import (
    DatasetRef,
    OutputRef,
    ParamRef,
    Pipeline,
    PipelineRun,
    Plan,
    StepRun,
    StepState,
    leaves,
)
from modelyard.ui.format import duration
from modelyard.ui.frame import Crumb, Frame, Screen, rail
from modelyard.ui.graph import Drawing, GraphEdge, GraphNode, draw
from modelyard.ui.names import names
from modelyard.ui.page import page as ui_page
from modelyard.ui.timeline import Span, Timeline, timeline
from modelyard.ui.urns import address_of

RUNS_SHOWN = 30


class RunRow(Struct, frozen=True, kw_only=True):
    """A pipeline run in a table."""

    run: PipelineRun
    duration_s: float | None
    cached: int
    done: int


class PipelineRow(Struct, frozen=True, kw_only=True):
    """A pipeline with its latest run."""

    pipeline: Pipeline
    latest: RunRow | None


class Pipelines(Screen, frozen=True, kw_only=True):
    """All pipelines, and the latest runs of any of them."""

    rows: tuple[PipelineRow, ...]
    runs: tuple[RunRow, ...]
    next: str | None = None


class PipelinePage(Screen, frozen=True, kw_only=True):
    """One pipeline: the plan of its newest version, and its runs."""

    pipeline: Pipeline
    drawing: Drawing
    runs: tuple[RunRow, ...]
    next: str | None = None


class Given(Struct, frozen=True, kw_only=True):
    """What a run was given: a value, or a dataset at the version that it is pinned to, with what was asked for."""

    name: str
    value: Any = None
    dataset: str = ""
    asked: str = ""

    @property
    def asked_otherwise(self) -> bool:
        """Whether the version was asked for in other words than its number."""
        return self.asked != self.dataset.rpartition("@")[2]


class PipelineRunPage(Screen, frozen=True, kw_only=True):
    """One run of a pipeline."""

    run: PipelineRun
    row: RunRow
    drawing: Drawing
    timeline: Timeline
    failed: tuple[StepRun, ...]
    given: tuple[Given, ...]


def run_row(run: PipelineRun, now: datetime) -> RunRow:
    """A run as a row of a table."""
    return RunRow(
        run=run,
        duration_s=((run.ended_at or now) - run.created_at).total_seconds(),
        cached=sum(step.state is StepState.CACHED for step in run.steps),
        done=sum(step.state.done for step in run.steps),
    )


def plan_graph(plan: Plan, run: PipelineRun | None, now: datetime) -> Drawing:
    """The steps of a plan and the datasets that they read, as a graph; with the states of a run where there is one."""
    steps = {step.name: step for step in run.steps} if run else {}
    nodes: list[GraphNode] = []
    edges: list[GraphEdge] = []
    read: dict[str, GraphNode] = {}
    for step in plan.steps:
        ran = steps.get(step.name)
        nodes.append(
            GraphNode(
                id=step.name,
                label=step.name,
                kind="step",
                detail=_step_detail(ran, now) if ran else "",
                state=ran.state.value if ran else "",
                href=address_of(f"job:{ran.job_id}") if ran and ran.job_id else "",
            )
        )
        for leaf in (leaf for given in step.inputs.values() for leaf in leaves(given)):
            if isinstance(leaf, OutputRef):
                edges.append(GraphEdge(leaf.step, step.name))
            ref = plan.dataset_of(leaf, run.params if run else {})
            if ref is not None:
                urn = _urn(ref, run)
                label = urn.removeprefix("dataset:").replace("@", " @")
                read[urn] = GraphNode(id=urn, label=label, kind="dataset", href=address_of(urn))
                edges.append(GraphEdge(urn, step.name))
    return draw([*read.values(), *nodes], edges)


def _urn(ref: DatasetRef, run: PipelineRun | None) -> str:
    version = run.datasets.get(ref.label) if run else None
    return f"dataset:{ref.name}@{version}" if version else f"dataset:{ref.name}"


def what_was_given(plan: Plan, run: PipelineRun) -> tuple[Given, ...]:
    """The params of a run by name, and the datasets that its plan names itself."""
    given, shown = [], set()
    for name, value in sorted(run.params.items()):
        ref = plan.dataset_of(ParamRef(name), run.params)
        if ref is None:
            given.append(Given(name=name, value=value))
        else:
            shown.add(ref.label)
            given.append(Given(name=name, dataset=_urn(ref, run), asked=str(ref.ref or "newest")))
    for label in sorted(run.datasets.keys() - shown):
        name, _, asked = label.partition("@")
        given.append(Given(name="dataset", dataset=f"dataset:{name}@{run.datasets[label]}", asked=asked or "newest"))
    return tuple(given)


def _step_detail(step: StepRun, now: datetime) -> str:
    if step.state is StepState.CACHED:
        return "not run again"
    if step.started_at is None:
        return ""
    return duration(((step.ended_at or now) - step.started_at).total_seconds())


def steps_timeline(steps: Sequence[StepRun], now: datetime) -> Timeline:
    """The steps of a run as bars; what came from the cache or was not begun has none."""
    spans = [
        Span(
            label=step.name,
            started_at=None if step.state is StepState.CACHED else step.started_at,
            ended_at=step.ended_at,
            state=step.state.value,
            href=address_of(f"job:{step.job_id}") if step.job_id else "",
        )
        for step in steps
    ]
    return timeline(spans, now)


@ui_page("/pipelines", template="pipelines.html")
def pipelines(caller: Scope, database: Database, pipelines: PipelinesPlane, page: str = "") -> Pipelines:
    """All pipelines, with what ran last."""
    now = database.clock.now()
    found = pipelines.list_pipelines(caller, after=page or None)
    rows = []
    for one in found.items:
        newest = pipelines.list_runs(caller, pipeline=one.name, limit=1).items
        rows.append(PipelineRow(pipeline=one, latest=run_row(newest[0], now) if newest else None))
    return Pipelines(
        frame=Frame(title="Pipelines", section="pipelines"),
        rows=tuple(rows),
        runs=tuple(run_row(run, now) for run in pipelines.list_runs(caller, limit=RUNS_SHOWN).items),
        next=found.next,
    )


@ui_page("/pipelines/{name:str}", template="pipeline.html")
def pipeline(caller: Scope, database: Database, pipelines: PipelinesPlane, name: str, page: str = "") -> PipelinePage:
    """One pipeline."""
    now = database.clock.now()
    found = pipelines.get_pipeline(caller, name)
    runs = pipelines.list_runs(caller, pipeline=name, after=page or None, limit=RUNS_SHOWN)
    return PipelinePage(
        frame=Frame(
            title=name,
            section="pipelines",
            kind="pipeline",
            about=found.plan.description,
            owner=found.created_by,
            at=found.created_at,
            crumbs=(Crumb("Pipelines", "/pipelines"),),
        ),
        pipeline=found,
        drawing=plan_graph(found.plan, None, now),
        runs=tuple(run_row(run, now) for run in runs.items),
        next=runs.next,
    )


@ui_page("/pipelines/runs/{run_id:str}", template="pipeline_run.html")
def pipeline_run(
    caller: Scope, database: Database, pipelines: PipelinesPlane, jobs: Jobs, tracking: Tracking, run_id: str
) -> PipelineRunPage:
    """One run: which steps ran, how long, and which were not run again."""
    now = database.clock.now()
    run = pipelines.get_run(caller, run_id)
    plan = pipelines.get_pipeline(caller, run.pipeline, run.version).plan
    return PipelineRunPage(
        frame=Frame(
            title=f"{run.pipeline} {run_id[-8:]}",
            section="pipelines",
            kind="pipeline run",
            state=run.state.value,
            owner=run.created_by,
            at=run.created_at,
            crumbs=(
                Crumb("Pipelines", "/pipelines"),
                Crumb(run.pipeline, f"/pipelines/{quote(run.pipeline, safe='')}"),
            ),
            rail=rail(
                database,
                caller,
                f"pipeline-run:{run_id}",
                f"modelyard pipeline runs {run_id}",
                name_them=names(caller, jobs, tracking),
            ),
            refresh_s=0 if run.state.final else 3,
        ),
        run=run,
        row=run_row(run, now),
        drawing=plan_graph(plan, run, now),
        timeline=steps_timeline(run.steps, now),
        failed=tuple(step for step in run.steps if step.error is not None),
        given=what_was_given(plan, run),
    )


ROUTES: list[Any] = [pipelines, pipeline, pipeline_run]
