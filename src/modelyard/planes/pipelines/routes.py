"""The HTTP face of pipelines, and what their workers call."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any, TypeVar

from anyio import from_thread, to_thread
from litestar import Request, Response
from litestar.params import Parameter
from litestar.response import Stream

from modelyard.engines.blobs.base import chunks
from modelyard.kernel.auth import Action, Scope
from modelyard.kernel.limits import PAGE_ITEMS_DEFAULT, PAGE_ITEMS_MAX
from modelyard.kernel.routing import get, post, put
from modelyard.planes.pipelines.service import Pipelines
from modelyard.types.page import Page
from modelyard.types.pipelines import (
    Environment,
    Output,
    OutputFormat,
    Pipeline,
    PipelineRun,
    RegisterPipeline,
    RunState,
    StartRun,
    StepReport,
    StepWork,
)

T = TypeVar("T")
BYTES = "application/octet-stream"
_MEDIA = {"json": "application/json", "arrow": "application/vnd.apache.arrow.stream", "pickle": BYTES}
Limit = Annotated[int, Parameter(ge=1, le=PAGE_ITEMS_MAX)]


@put("/api/code", requires=Action.WRITE, request_max_body_size=None)
async def put_code(request: Request[Any, Any, Any], caller: Scope, pipelines: Pipelines) -> dict[str, Any]:
    """Keep a snapshot of a source tree: the body is its archive."""
    blob = await _received(request, lambda pieces: pipelines.put_code(caller, pieces))
    return {"digest": blob.digest, "size_bytes": blob.size_bytes}


@get("/api/code/{digest:str}", requires=Action.READ)
def get_code(caller: Scope, pipelines: Pipelines, digest: str) -> Stream:
    """The archive of a snapshot."""
    return Stream(chunks(pipelines.open_code(caller, digest)), media_type=BYTES)


@get("/api/code/{digest:str}/exists", requires=Action.READ)
def has_code(caller: Scope, pipelines: Pipelines, digest: str) -> dict[str, bool]:
    """Whether a snapshot need not be sent again."""
    return {"exists": pipelines.has_code(caller, digest)}


@post("/api/pipelines", requires=Action.WRITE)
def register_pipeline(caller: Scope, pipelines: Pipelines, data: RegisterPipeline) -> Pipeline:
    """Make a plan and its code a version of a pipeline."""
    return pipelines.register(caller, data)


@get("/api/pipelines", requires=Action.READ)
def list_pipelines(
    caller: Scope, pipelines: Pipelines, after: str | None = None, limit: Limit = PAGE_ITEMS_DEFAULT
) -> Page[Pipeline]:
    """The newest version of every pipeline."""
    return pipelines.list_pipelines(caller, after=after, limit=limit)


@get("/api/pipelines/{name:str}", requires=Action.READ)
def get_pipeline(caller: Scope, pipelines: Pipelines, name: str, version: int | None = None) -> Pipeline:
    """A version of a pipeline."""
    return pipelines.get_pipeline(caller, name, version)


@post("/api/pipelines/{name:str}/runs", requires=Action.WRITE, status_code=201)
def start_run(caller: Scope, pipelines: Pipelines, name: str, data: StartRun) -> PipelineRun:
    """Start a run."""
    return pipelines.start(
        caller,
        name,
        data.params,
        cause=data.cause,
        version=data.version,
        idempotency_key=data.idempotency_key,
    )


@get("/api/pipeline-runs", requires=Action.READ)
def list_runs(
    caller: Scope,
    pipelines: Pipelines,
    pipeline: str | None = None,
    in_state: Annotated[RunState | None, Parameter(query="state")] = None,
    after: str | None = None,
    limit: Limit = PAGE_ITEMS_DEFAULT,
) -> Page[PipelineRun]:
    """Runs, newest first."""
    return pipelines.list_runs(caller, pipeline=pipeline, state=in_state, after=after, limit=limit)


@get("/api/pipeline-runs/{run_id:str}", requires=Action.READ)
def get_run(caller: Scope, pipelines: Pipelines, run_id: str) -> PipelineRun:
    """A run with its steps."""
    return pipelines.get_run(caller, run_id)


@post("/api/pipeline-runs/{run_id:str}/cancel", requires=Action.WRITE)
def cancel_run(caller: Scope, pipelines: Pipelines, run_id: str) -> PipelineRun:
    """End a run."""
    return pipelines.cancel(caller, run_id)


@post("/api/pipeline-runs/{run_id:str}/resume", requires=Action.WRITE)
def resume_run(caller: Scope, pipelines: Pipelines, run_id: str) -> PipelineRun:
    """Go on with a run that failed or was cancelled."""
    return pipelines.resume(caller, run_id)


@get("/api/environments/{env_hash:str}", requires=Action.READ)
def get_environment(pipelines: Pipelines, env_hash: str) -> Environment:
    """The interpreter and packages that a hash stands for."""
    return pipelines.get_environment(env_hash)


@get("/api/pipeline-runs/{run_id:str}/steps/{step:str}/output", requires=Action.READ)
def get_output(caller: Scope, pipelines: Pipelines, run_id: str, step: str) -> Response[Any]:
    """The bytes of what a step returned, as a download."""
    output, content = pipelines.open_output(caller, run_id, step)
    headers = {"content-disposition": "attachment", "etag": f'"{output.digest}"'}
    if isinstance(content, bytes):
        return Response(content, media_type=_MEDIA[output.format], headers=headers)
    return Stream(chunks(content), media_type=_MEDIA[output.format], headers=headers)


@get("/api/pipeline-runs/{run_id:str}/steps/{step:str}/work", requires=Action.WRITE)
def get_work(caller: Scope, pipelines: Pipelines, run_id: str, step: str) -> StepWork:
    """What the worker of a step has to do; for that step's own job only."""
    return pipelines.work_of(caller, run_id, step)


@put("/api/pipeline-runs/{run_id:str}/steps/{step:str}/output", requires=Action.WRITE, request_max_body_size=None)
async def put_output(
    request: Request[Any, Any, Any], caller: Scope, pipelines: Pipelines, run_id: str, step: str, format: OutputFormat
) -> Output:
    """Keep the bytes of what a step returned; for that step's own job only."""
    return await _received(request, lambda pieces: pipelines.put_output(caller, run_id, step, format, pieces))


@post("/api/pipeline-runs/{run_id:str}/steps/{step:str}/report", requires=Action.WRITE)
def report_step(caller: Scope, pipelines: Pipelines, run_id: str, step: str, data: StepReport) -> dict[str, str]:
    """How a step went; for that step's own job only."""
    pipelines.report(caller, run_id, step, data)
    return {"status": "recorded"}


async def _received(request: Request[Any, Any, Any], keep: Callable[[Iterator[bytes]], T]) -> T:
    """Hand the body, as it arrives and in bounded memory, to a function that runs in a thread."""
    arriving = request.stream()
    return await to_thread.run_sync(lambda: keep(_pieces(arriving)))


def _pieces(arriving: AsyncIterator[bytes]) -> Iterator[bytes]:
    while (piece := from_thread.run(_next, arriving)) is not None:
        yield piece


async def _next(arriving: AsyncIterator[bytes]) -> bytes | None:
    return await anext(arriving, None)


ROUTES: list[Any] = [
    put_code, get_code, has_code, register_pipeline, list_pipelines, get_pipeline, start_run, list_runs, get_run,
    cancel_run, resume_run, get_environment, get_output, get_work, put_output, report_step,
]  # fmt: skip
