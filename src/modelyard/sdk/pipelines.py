"""Pipelines in a program: compile, send, start, follow."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import quote

import msgspec

from modelyard.kernel.errors import InvalidInput, UserCodeError
from modelyard.kernel.settings import Settings
from modelyard.sdk.client import Client, connect
from modelyard.sdk.code_hash import CodeHasher
from modelyard.sdk.code_snapshot import commit_of, import_paths, pack, project_root
from modelyard.sdk.jobs import serving_client, wait_until
from modelyard.sdk.tasks import Pipeline as PipelineFunction
from modelyard.sdk.tasks import Task
from modelyard.types.page import Page
from modelyard.types.pipelines import (
    Code,
    Pipeline,
    PipelineRun,
    Plan,
    RegisterPipeline,
    RunState,
    StartRun,
)


def compile_pipeline(pipeline: PipelineFunction[..., Any]) -> tuple[Plan, Path]:
    """The plan of a pipeline, and the root of the project that its code belongs to."""
    root = project_root(Path(inspect.getfile(pipeline.function)))
    hasher = CodeHasher(root)
    return pipeline.compile(hasher.hash, lambda called: task_reference(called, root)), root


def register_pipeline(pipeline: PipelineFunction[..., Any], client: Client | None = None) -> Pipeline:
    """Compile a pipeline, send its code where the server has it not, and make it a version."""
    chosen = client or connect()
    plan, root = compile_pipeline(pipeline)
    archive = pack(root)
    digest = hashlib.sha256(archive).hexdigest()
    if not chosen.get(f"/api/code/{digest}/exists")["exists"]:
        chosen.send_bytes("PUT", "/api/code", archive)
    commit, dirty = commit_of(root)
    code = Code(digest=digest, size_bytes=len(archive), import_paths=import_paths(root), commit=commit, dirty=dirty)
    return chosen.post("/api/pipelines", RegisterPipeline(plan=plan, code=code), Pipeline)


def start_run(
    pipeline: PipelineFunction[..., Any] | str,
    params: Mapping[str, Any] | None = None,
    *,
    version: int | None = None,
    cause: str | None = None,
    idempotency_key: str | None = None,
    client: Client | None = None,
) -> PipelineRun:
    """Start a run of a pipeline function, registered as it is now, or of a registered pipeline by its name."""
    chosen = client or connect()
    if isinstance(pipeline, PipelineFunction):
        registered = register_pipeline(pipeline, chosen)
        name, version = registered.name, registered.version
    else:
        name = pipeline
    body = StartRun(params=dict(params or {}), version=version, cause=cause, idempotency_key=idempotency_key)
    return chosen.post(f"{_pipeline_path(name)}/runs", body, PipelineRun)


def run_pipeline(
    pipeline: PipelineFunction[..., Any] | str,
    params: Mapping[str, Any] | None = None,
    *,
    timeout_s: float | None = None,
    on_change: Callable[[PipelineRun], None] | None = None,
    settings: Settings | None = None,
) -> PipelineRun:
    """Start a run and wait for its end; where no server runs, this program is one meanwhile. Raises UserCodeError if a
    step failed."""
    with serving_client(settings) as client:
        run = start_run(pipeline, params, client=client)
        done = wait_run(run.id, timeout_s=timeout_s, on_change=on_change, client=client)
    return check_succeeded(done)


def wait_run(
    run_id: str,
    *,
    timeout_s: float | None = None,
    on_change: Callable[[PipelineRun], None] | None = None,
    client: Client | None = None,
) -> PipelineRun:
    """Wait until a run has ended. `on_change` sees each change of a step. Raises Unavailable past the timeout."""
    chosen = client or connect()
    return wait_until(
        lambda: get_run(run_id, chosen),
        lambda run: run.state.final,
        lambda run: (run.state, [step.state for step in run.steps]),
        on_change,
        timeout_s,
        f"pipeline run '{run_id}'",
    )


def check_succeeded(run: PipelineRun) -> PipelineRun:
    """The run, if it succeeded. Raises UserCodeError with the failed step's error otherwise."""
    if run.state is RunState.SUCCEEDED:
        return run
    failed = next((step for step in run.steps if step.error is not None), None)
    error = failed.error if failed is not None else None
    if failed is None or error is None:
        raise UserCodeError(f"pipeline run '{run.id}' {run.state}: {run.reason}", code="pipeline_run.failed")
    raise UserCodeError(
        f"pipeline run '{run.id}' failed: step '{failed.name}' ({error.kind}): {error.message}",
        code="pipeline_run.failed",
        hint=f"see `modelyard job logs {failed.job_id}`; go on with `modelyard pipeline resume {run.id}`",
        details={"step": failed.name, "traceback": error.traceback},
    )


def get_run(run_id: str, client: Client | None = None) -> PipelineRun:
    """A run with its steps."""
    return (client or connect()).get(_run_path(run_id), PipelineRun)


def list_runs(
    *,
    pipeline: str | None = None,
    state: RunState | None = None,
    after: str | None = None,
    limit: int = 100,
    client: Client | None = None,
) -> Page[PipelineRun]:
    """Runs of the project, newest first."""
    params = {"pipeline": pipeline, "state": state, "after": after, "limit": limit}
    return (client or connect()).get("/api/pipeline-runs", Page[PipelineRun], params)


def cancel_run(run_id: str, client: Client | None = None) -> PipelineRun:
    """End a run."""
    return (client or connect()).post(f"{_run_path(run_id)}/cancel", None, PipelineRun)


def resume_run(run_id: str, client: Client | None = None) -> PipelineRun:
    """Go on with a failed or cancelled run from where it stopped."""
    return (client or connect()).post(f"{_run_path(run_id)}/resume", None, PipelineRun)


def get_pipeline(name: str, version: int | None = None, client: Client | None = None) -> Pipeline:
    """A version of a pipeline, the newest for None."""
    return (client or connect()).get(_pipeline_path(name), Pipeline, {"version": version})


def list_pipelines(*, after: str | None = None, limit: int = 100, client: Client | None = None) -> Page[Pipeline]:
    """The newest version of every pipeline."""
    return (client or connect()).get("/api/pipelines", Page[Pipeline], {"after": after, "limit": limit})


def step_output(run_id: str, step: str, client: Client | None = None) -> Any:
    """What a step returned: a plain value or an Arrow table. Raises InvalidInput for a pickled one, which only
    workers load."""
    chosen = client or connect()
    found = next((one for one in get_run(run_id, chosen).steps if one.name == step), None)
    path = f"{_run_path(run_id)}/steps/{quote(step, safe='')}/output"
    if found is not None and found.output is not None and found.output.format == "pickle":
        raise InvalidInput(
            f"the output of step '{step}' is pickled, so it is for other steps only",
            code="step.output_pickled",
            hint="return plain values or an Arrow table from what is to be read elsewhere",
        )
    content = chosen.get_bytes(path)
    if found is not None and found.output is not None and found.output.format == "arrow":
        import pyarrow as pa  # heavy: imported late

        return pa.ipc.open_stream(content).read_all()
    return msgspec.json.decode(content)


# --- finding pipelines in files -----------------------------------------------------------------------------------


def load_pipeline(target: str) -> PipelineFunction[..., Any]:
    """The pipeline that `path/to/file.py:name`, `module:name`, or a file with a single pipeline names."""
    place, _, name = target.partition(":")
    module = _load_module(place)
    found = {key: value for key, value in vars(module).items() if isinstance(value, PipelineFunction)}
    if name:
        chosen = found.get(name) or next((one for one in found.values() if one.name == name), None)
    else:
        chosen = next(iter(found.values())) if len(found) == 1 else None
    if chosen is None:
        raise InvalidInput(
            f"'{place}' has no pipeline '{name}'" if name else f"'{place}' has {len(found)} pipelines: name one",
            code="pipeline.target_invalid",
            hint=f"it has: {', '.join(sorted(found)) or 'no function decorated with @pipeline'}",
        )
    return chosen


def _load_module(place: str) -> ModuleType:
    path = Path(place)
    if path.suffix == ".py":
        if not path.is_file():
            raise InvalidInput(f"there is no file {place}", code="pipeline.target_invalid")
        folder, place = str(path.resolve().parent), path.stem
        if folder not in sys.path:
            sys.path.insert(0, folder)
    elif "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    if not all(part.isidentifier() for part in place.split(".")) or importlib.util.find_spec(place) is None:
        raise InvalidInput(
            f"'{place}' cannot be imported", code="pipeline.target_invalid", hint="use path/to/file.py:function"
        )
    try:
        return importlib.import_module(place)
    except (ImportError, SyntaxError) as error:
        raise UserCodeError(f"'{place}' cannot be imported: {error}", code="pipeline.import_failed") from error


def task_reference(called: Task[..., Any], root: Path) -> str:
    """`module:function` as a worker imports it. Raises InvalidInput for what is not at the top level of a module."""
    function = called.function
    if "." in function.__qualname__:
        raise InvalidInput(
            f"task '{function.__qualname__}' cannot be found by a worker: it is defined inside of something",
            code="task.not_importable",
            hint="define tasks at the top level of a module",
        )
    file = Path(inspect.getfile(function)).resolve()
    if not file.is_relative_to(root):
        return f"{function.__module__}:{function.__name__}"
    module = function.__module__
    if module == "__main__":
        # Run as a script: a worker imports the same file under its own name.
        module = _module_of(file, root)
    return f"{module}:{function.__name__}"


def _module_of(file: Path, root: Path) -> str:
    for path in sorted(import_paths(root), key=len, reverse=True):
        folder = root / path
        if file.is_relative_to(folder):
            return ".".join(file.relative_to(folder).with_suffix("").parts)
    return file.stem


def _pipeline_path(name: str) -> str:
    return f"/api/pipelines/{quote(name, safe='')}"


def _run_path(run_id: str) -> str:
    return f"/api/pipeline-runs/{quote(run_id, safe='')}"
