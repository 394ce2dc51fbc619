"""What a pipeline run does next: a pure function of its plan, its steps, their jobs and the cache."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence

import msgspec

from modelyard.planes.pipelines.keys import bind_step, needs, step_key
from modelyard.types.jobs import Attempt, Job, JobState, SubmitJob
from modelyard.types.pipelines import (
    ErrorKind,
    Input,
    Output,
    Plan,
    RunState,
    Step,
    StepError,
    StepRun,
    StepState,
)


class Hit(msgspec.Struct, frozen=True):
    """What the cache holds: the output, and the run and job that made it."""

    output: Output
    run_id: str
    job_id: str | None


class UseCache(msgspec.Struct, frozen=True):
    """Take the output of an earlier run instead of running the step."""

    step: Step
    key: str
    hit: Hit
    reason: str


class Submit(msgspec.Struct, frozen=True):
    """Run the step as a job."""

    step: Step
    key: str
    inputs: dict[str, Input]
    reason: str


class Fail(msgspec.Struct, frozen=True):
    """The step's job has ended without an output."""

    step: str
    state: StepState
    error: StepError


class Skip(msgspec.Struct, frozen=True):
    """The step will not be run."""

    step: str
    reason: str


class Cancel(msgspec.Struct, frozen=True):
    """Ask the step's job to end."""

    step: str
    job_id: str


class Finish(msgspec.Struct, frozen=True):
    """The run is over."""

    state: RunState
    reason: str


Decision = UseCache | Submit | Fail | Skip | Cancel | Finish


class RunView(msgspec.Struct, frozen=True, kw_only=True):
    """All that a run's next move depends on.

    `jobs`: those of its steps, by id. `reported`: by step, the error of its job's latest attempt, if any.
    """

    plan: Plan
    state: RunState
    params: dict[str, object]
    datasets: dict[str, int]
    env: str
    steps: dict[str, StepRun]
    jobs: dict[str, Job]
    reported: dict[str, StepError]


def decide(view: RunView, lookup: Callable[[str], Hit | None]) -> list[Decision]:
    """The next moves. `lookup` asks the cache for a key."""
    decisions: list[Decision] = []
    states = {name: step.state for name, step in view.steps.items()}
    outputs = {name: step.output for name, step in view.steps.items() if step.output is not None}
    for name, step in view.steps.items():
        job = view.jobs.get(step.job_id or "")
        if step.state is StepState.RUNNING and job is not None and job.state.final:
            failed = judge(job, view.reported.get(name))
            states[name] = failed[0]
            decisions.append(Fail(name, *failed))
    broken = [name for name, state in states.items() if state in (StepState.FAILED, StepState.CANCELLED)]
    if view.state is RunState.CANCELLING or broken:
        why = (
            "the run was cancelled" if view.state is RunState.CANCELLING else f"step '{broken[0]}' {states[broken[0]]}"
        )
        decisions += _wind_down(view, states, why)
    else:
        decisions += _go_on(view, states, outputs, lookup)
    # A job that has reported may still be ending: its run ends after it, with all usage known.
    if all(state.final for state in states.values()) and all(job.state.final for job in view.jobs.values()):
        decisions.append(_finish(view, states, broken))
    return decisions


def _go_on(
    view: RunView,
    states: dict[str, StepState],
    outputs: dict[str, Output],
    lookup: Callable[[str], Hit | None],
) -> list[Decision]:
    decisions: list[Decision] = []
    # In the plan's order, in which a step comes after those that it needs: one pass finds all that is ready.
    for step in view.plan.steps:
        if states[step.name] is not StepState.PENDING or not all(states[need].done for need in needs(step)):
            continue
        inputs = bind_step(step, view.plan, view.params, view.datasets)
        key = step_key(step, inputs, outputs, view.env)
        hit = lookup(key) if step.cache else None
        if hit is not None:
            reason = f"same code, inputs, params and environment as in run {hit.run_id}"
            decisions.append(UseCache(step, key, hit, reason))
            states[step.name], outputs[step.name] = StepState.CACHED, hit.output
        else:
            reason = "nothing like it has run before" if step.cache else "it is never cached"
            decisions.append(Submit(step, key, inputs, reason))
            states[step.name] = StepState.RUNNING
    return decisions


def _wind_down(view: RunView, states: dict[str, StepState], why: str) -> list[Decision]:
    decisions: list[Decision] = []
    for step in view.plan.steps:
        state, run = states[step.name], view.steps[step.name]
        if state is StepState.PENDING:
            decisions.append(Skip(step.name, why))
            states[step.name] = StepState.SKIPPED
        elif state is StepState.RUNNING and view.state is RunState.CANCELLING and run.job_id is not None:
            job = view.jobs.get(run.job_id)
            if job is not None and not job.state.final and not job.cancel_requested:
                decisions.append(Cancel(step.name, run.job_id))
    return decisions


def _finish(view: RunView, states: Mapping[str, StepState], broken: Sequence[str]) -> Finish:
    if view.state is RunState.CANCELLING and not all(state.done for state in states.values()):
        return Finish(RunState.CANCELLED, "cancelled on request")
    if broken:
        failed = next((name for name in broken if states[name] is StepState.FAILED), broken[0])
        return Finish(RunState.FAILED, f"step '{failed}' {states[failed]}")
    return Finish(RunState.SUCCEEDED, "")


WORKER = "modelyard.sdk.worker"
WORKER_EXITS = (1, 70, 75)
"""With what our worker ends when the interpreter, the import of it, or the platform failed it."""

_KINDS: dict[str, ErrorKind] = {
    "timed_out": "timed_out",
    "killed": "killed",
    "out_of_memory": "out_of_memory",
    "lost": "lost",
    "temporary": "platform",
}


def judge(job: Job, reported: StepError | None) -> tuple[StepState, StepError]:
    """The end of a step whose job has ended but that has no output: the worker's own word first, else the job's."""
    if job.state is JobState.CANCELLED:
        return StepState.CANCELLED, StepError(kind="cancelled", message=job.reason or "its job was cancelled")
    if reported is not None:
        return StepState.FAILED, reported
    last = job.attempts[-1] if job.attempts else None
    if job.state is JobState.SUCCEEDED:
        message = "the worker ended without saying what the task returned"
        return StepState.FAILED, StepError(kind="platform", message=message)
    return StepState.FAILED, StepError(kind=_kind(last), message=job.reason)


def _kind(last: Attempt | None) -> ErrorKind:
    if last is None:
        return "platform"
    if last.reason == "app_error" and last.exit_code not in WORKER_EXITS:
        # Not an exit of our worker: the task has ended the process by itself.
        return "user_code"
    return _KINDS.get(last.reason, "platform")


def step_job(plan: Plan, run_id: str, step: Step, round_number: int) -> SubmitJob:
    """The job that runs a step. A step that is resumed is another job."""
    return SubmitJob(
        command=[sys.executable, "-m", WORKER, "--run", run_id, "--step", step.name],
        name=f"{plan.name}/{step.name}",
        resources=step.resources,
        timeout_s=step.timeout_s,
        max_attempts=step.retries + 1,
        labels={"pipeline": plan.name, "pipeline_run": run_id, "step": step.name},
        idempotency_key=f"{run_id}/{step.name}/{round_number}",
    )
