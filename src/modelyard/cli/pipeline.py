"""`modelyard pipeline`: pipelines of cached steps."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from datetime import datetime
from typing import Annotated, Any

import msgspec
import typer

from modelyard.cli.context import JsonFlag, client, current_settings, show_fields, show_items, show_json, show_table
from modelyard.cli.options import json_or_text, pairs
from modelyard.kernel.errors import InvalidInput
from modelyard.sdk import pipelines as sdk
from modelyard.sdk.client import Client
from modelyard.sdk.jobs import serving_client
from modelyard.types.pipelines import Input, OutputRef, Param, PipelineRun, RunState, Step, StepRun, StepState

app = typer.Typer(add_completion=False, no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The pipeline's name.")]
RunId = Annotated[str, typer.Argument(help="The id of a pipeline run.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Show progress and wait for its end.")]
EXIT_RUN_FAILED = 1
_SIGNS = {
    StepState.SUCCEEDED: "+",
    StepState.CACHED: "=",
    StepState.FAILED: "!",
    StepState.CANCELLED: "!",
    StepState.SKIPPED: ".",
    StepState.RUNNING: ">",
    StepState.PENDING: " ",
}


@app.callback()
def pipeline() -> None:
    """A pipeline ties functions marked with @task together. What ran before with the same code, inputs, params and
    environment is not run again.

    \b
    modelyard pipeline run train.py:flow -P rate=0.1
    modelyard pipeline runs            all runs, newest first
    modelyard pipeline resume RUN      go on where a run failed
    """


@app.command("list")
def list_pipelines(
    limit: Annotated[int, typer.Option(help="At most so many.", min=1, max=1000)] = 100, as_json: JsonFlag = False
) -> None:
    """The pipelines of the project."""
    page = sdk.list_pipelines(limit=limit, client=client())
    columns = {
        "NAME": lambda one: one.name,
        "VERSION": lambda one: one.version,
        "STEPS": lambda one: len(one.plan.steps),
        "PARAMS": lambda one: ", ".join(param.name for param in one.plan.params),
        "REGISTERED": lambda one: one.created_at,
        "BY": lambda one: one.created_by,
    }
    empty = "no pipeline yet; run one with `modelyard pipeline run FILE.py:FUNCTION`"
    show_items(page.items, columns, as_json=as_json, empty=empty, more=page.next)


@app.command()
def get(
    name: Name,
    version: Annotated[int | None, typer.Option(help="Which version. Default: the newest.", min=1)] = None,
    as_json: JsonFlag = False,
) -> None:
    """A pipeline: its parameters, and its steps with what they need."""
    found = sdk.get_pipeline(name, version, client())
    if as_json:
        show_json(found)
        return
    show_fields(
        [
            ("name", found.name),
            ("version", found.version),
            ("description", found.plan.description),
            ("params", ", ".join(_shown_param(param) for param in found.plan.params)),
            ("code", found.code.digest),
            ("commit", f"{found.code.commit}{' and changes' if found.code.dirty else ''}" if found.code.commit else ""),
            ("registered", f"{found.created_at:%Y-%m-%d %H:%M:%S} by {found.created_by}"),
        ]
    )
    typer.echo("")
    columns = {
        "STEP": lambda one: one.name,
        "TASK": lambda one: one.task,
        "NEEDS": lambda one: ", ".join(_needs(one)),
        "CPUS": lambda one: one.resources.cpus,
        "TIMEOUT S": lambda one: one.timeout_s,
        "CACHED": lambda one: one.cache,
    }
    show_table(found.plan.steps, columns, empty="no steps")


@app.command()
def run(
    target: Annotated[str, typer.Argument(help="FILE.py:FUNCTION, MODULE:FUNCTION, or a registered pipeline's name.")],
    param: Annotated[list[str] | None, typer.Option("--param", "-P", help="NAME=VALUE; may be repeated.")] = None,
    wait: Wait = True,
    as_json: JsonFlag = False,
) -> None:
    """Run a pipeline, and wait for it.

    Where no server runs, this command is one meanwhile. The exit code says whether the run succeeded.
    """
    given = pairs(param)
    with serving_client(current_settings()) if wait else nullcontext(client()) as chosen:
        name, version, params = _prepared(target, given, chosen)
        started = sdk.start_run(name, params, version=version, client=chosen)
        _follow(started, wait, as_json, chosen)


@app.command()
def runs(
    run_id: Annotated[str | None, typer.Argument(help="Show this run with its steps.")] = None,
    pipeline_name: Annotated[str | None, typer.Option("--pipeline", help="Only runs of this pipeline.")] = None,
    state: Annotated[RunState | None, typer.Option(help="Only those in this state.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1, max=1000)] = 50,
    as_json: JsonFlag = False,
) -> None:
    """The runs of pipelines, newest first; or one of them with its steps."""
    if run_id is not None:
        found = sdk.get_run(run_id, client())
        if as_json:
            show_json(found)
        else:
            _show(found)
        return
    page = sdk.list_runs(pipeline=pipeline_name, state=state, limit=limit, client=client())
    columns = {
        "ID": lambda one: one.id,
        "PIPELINE": lambda one: f"{one.pipeline}@{one.version}",
        "STATE": lambda one: one.state.value,
        "STEPS": _counts,
        "CAUSE": lambda one: one.cause,
        "STARTED": lambda one: one.created_at,
        "TOOK": lambda one: _duration(one.created_at, one.ended_at),
        "REASON": lambda one: one.reason,
    }
    empty = "no run yet; start one with `modelyard pipeline run FILE.py:FUNCTION`"
    show_items(page.items, columns, as_json=as_json, empty=empty, more=page.next)


@app.command()
def resume(run_id: RunId, wait: Wait = True, as_json: JsonFlag = False) -> None:
    """Go on with a failed or cancelled run, with the same code, params and data. What was done stays done."""
    with serving_client(current_settings()) if wait else nullcontext(client()) as chosen:
        _follow(sdk.resume_run(run_id, chosen), wait, as_json, chosen)


@app.command()
def cancel(run_id: RunId, as_json: JsonFlag = False) -> None:
    """End a run: what runs is stopped, what waits is not started."""
    found = sdk.cancel_run(run_id, client())
    if as_json:
        show_json(found)
    else:
        typer.echo(f"pipeline run {found.id} {found.state.value}")


def _prepared(target: str, given: dict[str, str], chosen: Client) -> tuple[str, int, dict[str, Any]]:
    """Name and version of what to run, registered first where the target is code; and the params by their kinds."""
    if ":" in target or target.endswith(".py"):
        registered = sdk.register_pipeline(sdk.load_pipeline(target), chosen)
    else:
        registered = sdk.get_pipeline(target, client=chosen)
    kinds = {param.name: param for param in registered.plan.params}
    params = {name: _converted(kinds.get(name), text) for name, text in given.items()}
    return registered.name, registered.version, params


def _converted(param: Param | None, text: str) -> Any:
    if param is not None and param.kind in ("str", "dataset"):
        return text
    value = json_or_text(text)
    if value is text and param is not None and param.kind != "any":
        raise InvalidInput(f"'{param.name}' must be {param.kind}, not '{text}'", code="pipeline.params_invalid")
    return value


def _follow(started: PipelineRun, wait: bool, as_json: bool, chosen: Client) -> None:
    if not wait:
        if as_json:
            show_json(started)
        else:
            typer.echo(f"pipeline run {started.id} {started.state.value}")
        return
    typer.echo(f"pipeline run {started.id} of {started.pipeline}@{started.version}", err=True)
    done = sdk.wait_run(started.id, on_change=_progress(), client=chosen)
    if as_json:
        show_json(done)
    else:
        took = _duration(done.created_at, done.ended_at)
        typer.echo(f"{done.state.value} in {took}{f': {done.reason}' if done.reason else ''}", err=True)
        if done.result is not None:
            show_json(done.result)
    if done.state is not RunState.SUCCEEDED:
        _show_errors(done)
        raise typer.Exit(EXIT_RUN_FAILED)


def _progress() -> Callable[[PipelineRun], None]:
    """Prints a line for each step whose state is another than when it was last seen."""
    seen: dict[str, StepState] = {}

    def show(run: PipelineRun) -> None:
        for step in run.steps:
            if step.state is not seen.get(step.name, StepState.PENDING):
                typer.echo(f"  {_line(step)}", err=True)
            seen[step.name] = step.state

    return show


def _line(step: StepRun) -> str:
    took = f" {_duration(step.started_at, step.ended_at)}" if step.state is StepState.SUCCEEDED else ""
    why = f": {step.error.message.splitlines()[0]}" if step.error is not None and step.error.message else ""
    reason = f": {step.reason}" if step.state in (StepState.CACHED, StepState.SKIPPED) else ""
    return f"{_SIGNS[step.state]} {step.name:<24} {step.state.value}{took}{why}{reason}"


def _show(found: PipelineRun) -> None:
    show_fields(
        [
            ("id", found.id),
            ("pipeline", f"{found.pipeline}@{found.version}"),
            ("state", found.state.value),
            ("reason", found.reason),
            ("params", msgspec.json.encode(found.params).decode()),
            ("datasets", ", ".join(f"{name}={version}" for name, version in found.datasets.items())),
            ("code", found.code),
            ("environment", found.env),
            ("cause", found.cause),
            ("started", f"{found.created_at:%Y-%m-%d %H:%M:%S} by {found.created_by}"),
            ("took", _duration(found.created_at, found.ended_at)),
            ("result", None if found.result is None else msgspec.json.encode(found.result).decode()),
        ]
    )
    typer.echo("")
    columns = {
        "STEP": lambda one: one.name,
        "STATE": lambda one: one.state.value,
        "TOOK": lambda one: _duration(one.started_at, one.ended_at),
        "JOB": lambda one: one.job_id,
        "REASON": lambda one: one.error.message.splitlines()[0] if one.error else one.reason,
    }
    show_table(found.steps, columns, empty="no steps")
    _show_errors(found)


def _show_errors(found: PipelineRun) -> None:
    for step in found.steps:
        if step.error is not None:
            typer.echo(f"\nstep '{step.name}' failed ({step.error.kind}): {step.error.message}", err=True)
            if step.error.traceback:
                typer.echo(step.error.traceback.rstrip(), err=True)
            if step.job_id:
                typer.echo(f"  its output: modelyard job logs {step.job_id}", err=True)
    if found.state in (RunState.FAILED, RunState.CANCELLED):
        typer.echo(f"  next: modelyard pipeline resume {found.id}", err=True)


def _shown_param(param: Param) -> str:
    kind = "" if param.kind == "any" else f": {param.kind}"
    return f"{param.name}{kind}" if param.required else f"{param.name}{kind} = {_default(param)}"


def _default(param: Param) -> str:
    if param.kind == "dataset" and isinstance(param.default, dict):
        ref = param.default.get("ref")
        return f"{param.default['name']}{f'@{ref}' if ref else ''}"
    return repr(param.default)


def _needs(step: Step) -> list[str]:
    found: list[str] = []

    def visit(given: Input) -> None:
        if isinstance(given, OutputRef) and given.step not in found:
            found.append(given.step)
        items = getattr(given, "items", [])
        for item in items.values() if isinstance(items, dict) else items:
            visit(item)

    for given in step.inputs.values():
        visit(given)
    return found


def _counts(run: PipelineRun) -> str:
    done = sum(step.state.done for step in run.steps)
    cached = sum(step.state is StepState.CACHED for step in run.steps)
    return f"{done}/{len(run.steps)}{f', {cached} cached' if cached else ''}"


def _duration(start: datetime | None, end: datetime | None) -> str:
    return "-" if start is None or end is None else f"{(end - start).total_seconds():.1f} s"
