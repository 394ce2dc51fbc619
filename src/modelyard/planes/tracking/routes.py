"""The HTTP face of tracking, for the SDK, the command line and programs. MLflow's clients have their own dialect."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any

from litestar import Request
from litestar.params import Parameter
from litestar.response import Stream

from modelyard.kernel.auth import Action, Scope
from modelyard.kernel.errors import InvalidInput
from modelyard.kernel.limits import PAGE_ITEMS_DEFAULT, PAGE_ITEMS_MAX
from modelyard.kernel.routing import delete, get, patch, post, put
from modelyard.planes.tracking import transfer
from modelyard.planes.tracking.import_routes import ROUTES as IMPORT_ROUTES
from modelyard.planes.tracking.owners import Owner
from modelyard.planes.tracking.plane import Tracking
from modelyard.planes.tracking.rules import NATIVE_BATCH_METRICS_MAX
from modelyard.types.page import Page
from modelyard.types.tracking import (
    Artifact,
    AskCurves,
    CreateExperiment,
    CreateRun,
    Curve,
    Experiment,
    LogBatch,
    LoggedModel,
    Purge,
    Purged,
    Run,
    SearchRuns,
    Series,
    UpdateExperiment,
    UpdateRun,
    View,
)

CHART_POINTS_MAX = 2_000
Limit = Annotated[int, Parameter(ge=1, le=PAGE_ITEMS_MAX)]
_FILE = "/api/runs/{run_id:str}/artifacts/{path:path}"
_MODEL_FILE = "/api/logged-models/{model_id:str}/artifacts/{path:path}"


@get("/api/experiments", requires=Action.READ)
def list_experiments(
    caller: Scope,
    tracking: Tracking,
    name: str = "",
    filter: str = "",
    order_by: list[str] | None = None,
    view: View = "active",
    limit: Limit = PAGE_ITEMS_DEFAULT,
    page: str = "",
) -> Page[Experiment]:
    """The experiment of a name, of whichever stage; or those that a filter picks, newest first unless ordered."""
    if name:
        found = tracking.experiments.find(caller, name)
        return Page([found] if found else [])
    return tracking.experiments.search(caller, filter, order_by or (), view, limit, page)


@post("/api/experiments", requires=Action.WRITE, status_code=201)
def create_experiment(caller: Scope, tracking: Tracking, data: CreateExperiment) -> Experiment:
    """A new experiment."""
    return tracking.experiments.create(caller, data)


@get("/api/experiments/{experiment_id:str}", requires=Action.READ)
def get_experiment(caller: Scope, tracking: Tracking, experiment_id: str) -> Experiment:
    """An experiment of whichever stage."""
    return tracking.experiments.get(caller, experiment_id)


@patch("/api/experiments/{experiment_id:str}", requires=Action.WRITE)
def update_experiment(caller: Scope, tracking: Tracking, experiment_id: str, data: UpdateExperiment) -> Experiment:
    """Rename, tag, delete or restore an experiment."""
    return tracking.experiments.update(caller, experiment_id, data)


@post("/api/runs", requires=Action.WRITE, status_code=201)
def create_run(caller: Scope, tracking: Tracking, data: CreateRun) -> Run:
    """A new running run."""
    return tracking.runs.create(caller, data)


@get("/api/runs", requires=Action.READ)
def list_runs(
    caller: Scope,
    tracking: Tracking,
    experiment: list[str] | None = None,
    filter: str = "",
    order_by: list[str] | None = None,
    view: View = "active",
    limit: Limit = PAGE_ITEMS_DEFAULT,
    page: str = "",
    metric: list[str] | None = None,
) -> Page[Run]:
    """The runs that a filter picks, newest first unless ordered otherwise; with `metric` only those metrics."""
    return tracking.runs.search(caller, experiment, filter, order_by or (), view, limit, page, metric)


@post("/api/runs/search", requires=Action.READ)
def search_runs(caller: Scope, tracking: Tracking, data: SearchRuns) -> Page[Run]:
    """As the listing, for filters too long for an address."""
    return tracking.runs.ask(caller, data)


@post("/api/runs/curves", requires=Action.READ)
def draw_curves(caller: Scope, tracking: Tracking, data: AskCurves) -> list[Curve]:
    """Metrics of many runs, thinned for drawing with their extremes kept."""
    return tracking.metrics.curves(caller, data)


@post("/api/runs/purge", requires=Action.ADMIN)
def purge_runs(caller: Scope, tracking: Tracking, data: Purge) -> Purged:
    """End runs and experiments for good that were deleted."""
    return tracking.purges.purge(caller, data)


@get("/api/runs/{run_id:str}", requires=Action.READ)
def get_run(caller: Scope, tracking: Tracking, run_id: str) -> Run:
    """A run with its params, tags, latest metrics, inputs and outputs."""
    return tracking.runs.get(caller, run_id)


@patch("/api/runs/{run_id:str}", requires=Action.WRITE)
def update_run(caller: Scope, tracking: Tracking, run_id: str, data: UpdateRun) -> Run:
    """Change the status, end, name or stage of a run."""
    return tracking.runs.update(caller, run_id, data)


@delete("/api/runs/{run_id:str}", requires=Action.WRITE)
def delete_run(caller: Scope, tracking: Tracking, run_id: str) -> Run:
    """Mark a run deleted; it can be restored."""
    tracking.runs.delete(caller, run_id)
    return tracking.runs.get(caller, run_id)


@post("/api/runs/{run_id:str}/restore", requires=Action.WRITE)
def restore_run(caller: Scope, tracking: Tracking, run_id: str) -> Run:
    """Make a deleted run active again."""
    tracking.runs.restore(caller, run_id)
    return tracking.runs.get(caller, run_id)


@post("/api/runs/{run_id:str}/log", requires=Action.WRITE, status_code=204)
def log(caller: Scope, tracking: Tracking, run_id: str, data: LogBatch) -> None:
    """Log metrics, params, tags and inputs, all or nothing."""
    count = len(data.metrics) + sum(map(len, data.blocks))
    if count > NATIVE_BATCH_METRICS_MAX:
        raise InvalidInput(
            f"a batch has at most {NATIVE_BATCH_METRICS_MAX} points, not {count}",
            code="batch.too_large",
            hint="send it in parts",
        )
    tracking.runs.log(caller, run_id, _points(data), data.params, data.tags, data.inputs)


@get("/api/runs/{run_id:str}/metrics/{key:path}", requires=Action.READ)
def get_history(
    caller: Scope,
    tracking: Tracking,
    run_id: str,
    key: str,
    points_max: Annotated[int, Parameter(ge=4, le=1_000_000)] = CHART_POINTS_MAX,
) -> Series:
    """The history of a metric by time, thinned to `points_max` with its extremes kept."""
    return tracking.metrics.history(caller, run_id, key.lstrip("/"), points_max=points_max)


@get("/api/runs/{run_id:str}/artifacts", requires=Action.READ)
def list_artifacts(
    caller: Scope, tracking: Tracking, run_id: str, path: str = "", tree: bool = False
) -> list[Artifact]:
    """What is in a directory of a run's artifacts; with `tree` all files of the run."""
    tracking.runs.get(caller, run_id)
    if tree:
        return list(tracking.artifacts.tree(caller, Owner("run", run_id)))
    return tracking.artifacts.list(caller, Owner("run", run_id), path)


@get(_FILE, requires=Action.READ)
def get_artifact(caller: Scope, tracking: Tracking, run_id: str, request: Request[Any, Any, Any]) -> Stream:
    """A file, as a download."""
    tracking.runs.get(caller, run_id)
    return transfer.attachment(*tracking.artifacts.open(caller, Owner("run", run_id), _path_of(request)))


@put(_FILE, requires=Action.WRITE, request_max_body_size=None)
async def put_artifact(caller: Scope, tracking: Tracking, run_id: str, request: Request[Any, Any, Any]) -> Artifact:
    """Store a file, in place of one of this path."""
    owner, path = Owner("run", run_id), _path_of(request)
    return await transfer.receive(request, lambda pieces: tracking.artifacts.put(caller, owner, path, pieces))


@delete(_FILE, requires=Action.WRITE, status_code=204)
def delete_artifact(caller: Scope, tracking: Tracking, run_id: str, request: Request[Any, Any, Any]) -> None:
    """Remove a file, or a directory with all below it."""
    tracking.artifacts.delete(caller, Owner("run", run_id), _path_of(request))


@get("/api/logged-models", requires=Action.READ)
def list_logged_models(
    caller: Scope,
    tracking: Tracking,
    experiment: list[str] | None = None,
    filter: str = "",
    limit: Limit = PAGE_ITEMS_DEFAULT,
    page: str = "",
) -> Page[LoggedModel]:
    """The logged models that a filter picks, newest first."""
    return tracking.models.search(caller, experiment, filter, limit=limit, page=page)


@get("/api/logged-models/{model_id:str}", requires=Action.READ)
def get_logged_model(caller: Scope, tracking: Tracking, model_id: str) -> LoggedModel:
    """A logged model with its params, tags and metrics."""
    return tracking.models.get(caller, model_id)


@get("/api/logged-models/{model_id:str}/artifacts", requires=Action.READ)
def list_model_artifacts(caller: Scope, tracking: Tracking, model_id: str) -> list[Artifact]:
    """All files of a logged model."""
    tracking.models.get(caller, model_id)
    return list(tracking.artifacts.tree(caller, Owner("model", model_id)))


@put(_MODEL_FILE, requires=Action.WRITE, request_max_body_size=None)
async def put_model_artifact(
    caller: Scope, tracking: Tracking, model_id: str, request: Request[Any, Any, Any]
) -> Artifact:
    """Store a file of a logged model, in place of one of this path."""
    owner, path = Owner("model", model_id), _path_of(request)
    return await transfer.receive(request, lambda pieces: tracking.artifacts.put(caller, owner, path, pieces))


def _points(batch: LogBatch) -> Iterator[tuple[str, float, int, int]]:
    for point in batch.metrics:
        yield point.key, math.nan if point.value is None else point.value, point.step, point.timestamp_ms
    for at, block in enumerate(batch.blocks):
        widths = {len(block.keys), *map(len, block.values)}
        if len(widths) > 1 or not len(block.steps) == len(block.timestamps_ms) == len(block.values):
            raise InvalidInput(
                f"blocks[{at}] is ragged: it needs one step, one time and one value a key in every row",
                code="batch.ragged",
            )
        for step, timestamp_ms, row in zip(block.steps, block.timestamps_ms, block.values, strict=True):
            for key, value in zip(block.keys, row, strict=True):
                yield key, math.nan if value is None else value, step, timestamp_ms


def _path_of(request: Request[Any, Any, Any]) -> str:
    # From the path as the server decoded it, once: Litestar would decode a parameter again.
    return str(request.scope["path"]).split("/artifacts/", 1)[1]


ROUTES: list[Any] = [
    list_experiments,
    create_experiment,
    get_experiment,
    update_experiment,
    create_run,
    list_runs,
    search_runs,
    draw_curves,
    purge_runs,
    get_run,
    update_run,
    delete_run,
    restore_run,
    log,
    get_history,
    list_artifacts,
    get_artifact,
    put_artifact,
    delete_artifact,
    list_logged_models,
    get_logged_model,
    list_model_artifacts,
    put_model_artifact,
    *IMPORT_ROUTES,
]
