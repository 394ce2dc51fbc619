"""What a run does next, as a pure function: in named cases, and driven to its end over random plans."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.planes.pipelines.advance import (
    Cancel,
    Fail,
    Finish,
    Hit,
    RunView,
    Skip,
    Submit,
    UseCache,
    decide,
    step_job,
)
from modelyard.planes.pipelines.keys import bind_step, needs, step_key
from modelyard.types.jobs import Attempt, AttemptState, Job, JobState, Resources
from modelyard.types.pipelines import (
    Input,
    ListOf,
    Output,
    OutputRef,
    Plan,
    RunState,
    Step,
    StepError,
    StepRun,
    StepState,
    Value,
)

NOW = datetime(2013, 3, 1, tzinfo=UTC)


def output(value: Any = 1) -> Output:
    return Output(digest=str(value), format="json", size_bytes=1, inline=True, value=value)


def plan(**edges: list[str]) -> Plan:
    steps = []
    for name, froms in edges.items():
        inputs: dict[str, Input] = {"x": ListOf([OutputRef(one) for one in froms])} if froms else {"x": Value(name)}
        steps.append(Step(name=name, task="m:f", code_hash=name, inputs=inputs))
    return Plan(name="p", steps=steps)


DIAMOND = plan(a=[], b=["a"], c=["a"], d=["b", "c"])


def job(state: JobState, *, reason: str = "", attempt: Attempt | None = None, cancel_requested: bool = False) -> Job:
    return Job(
        id="j", name="j", command=["x"], resources=Resources(), env={}, priority=0, timeout_s=1, grace_s=1,
        max_attempts=1, labels={}, state=state, reason=reason, submitted_by="a", submitted_at=NOW,
        cancel_requested=cancel_requested, attempts=[attempt] if attempt else [],
    )  # fmt: skip


def view(
    made: Plan, states: dict[str, StepState], *, state: RunState = RunState.RUNNING, jobs: dict[str, Job] | None = None,
    reported: dict[str, StepError] | None = None,
) -> RunView:  # fmt: skip
    steps = {
        step.name: StepRun(
            name=step.name,
            task=step.task,
            state=states.get(step.name, StepState.PENDING),
            job_id=f"job-{step.name}" if states.get(step.name) is StepState.RUNNING else None,
            output=output() if states.get(step.name, StepState.PENDING).done else None,
        )
        for step in made.steps
    }
    named = {f"job-{name}": one for name, one in (jobs or {}).items()}
    return RunView(
        plan=made, state=state, params={}, datasets={}, env="e", steps=steps, jobs=named, reported=reported or {}
    )


def never(_key: str) -> None:
    return None


R, S, F, P = StepState.RUNNING, StepState.SUCCEEDED, StepState.FAILED, StepState.PENDING


def test_steps_start_when_what_they_need_is_there() -> None:
    first = decide(view(DIAMOND, {}), never)
    assert [(type(one), one.step.name) for one in first] == [(Submit, "a")]  # type: ignore[union-attr]
    both = decide(view(DIAMOND, {"a": S}), never)
    assert [one.step.name for one in both] == ["b", "c"]  # type: ignore[union-attr]
    assert decide(view(DIAMOND, {"a": S, "b": S, "c": R}), never) == []
    assert decide(view(DIAMOND, {"a": S, "b": S, "c": S, "d": S}), never) == [Finish(RunState.SUCCEEDED, "")]


def test_cached_steps_open_the_way_at_once() -> None:
    hit = Hit(output(), "earlier", "job")
    decisions = decide(view(DIAMOND, {}), lambda _key: hit)
    assert [type(one) for one in decisions] == [UseCache] * 4 + [Finish]
    uncached = msgspec.structs.replace(
        DIAMOND, steps=[msgspec.structs.replace(step, cache=step.name != "b") for step in DIAMOND.steps]
    )
    decisions = decide(view(uncached, {}), lambda _key: hit)
    assert [(type(one), one.step.name) for one in decisions] == [  # type: ignore[union-attr]
        (UseCache, "a"),
        (Submit, "b"),
        (UseCache, "c"),
    ]


def test_a_failure_lets_what_runs_end_and_starts_nothing_more() -> None:
    failed = job(JobState.FAILED, reason="ended with exit code 1")
    decisions = decide(view(DIAMOND, {"a": S, "b": R, "c": R}, jobs={"b": failed, "c": job(JobState.RUNNING)}), never)
    assert decisions == [
        Fail("b", F, StepError(kind="platform", message="ended with exit code 1")),
        Skip("d", "step 'b' failed"),
    ]
    later = view(DIAMOND, {"a": S, "b": F, "c": S, "d": StepState.SKIPPED})
    assert decide(later, never) == [Finish(RunState.FAILED, "step 'b' failed")]


def test_cancelling_stops_what_runs_and_skips_the_rest() -> None:
    states = {"a": S, "b": R, "c": R}
    jobs = {"b": job(JobState.RUNNING), "c": job(JobState.RUNNING, cancel_requested=True)}
    decisions = decide(view(DIAMOND, states, state=RunState.CANCELLING, jobs=jobs), never)
    assert decisions == [Cancel("b", "job-b"), Skip("d", "the run was cancelled")]
    ended = {"b": job(JobState.CANCELLED, reason="cancelled on request")}
    states = {"a": S, "b": R, "c": S, "d": StepState.SKIPPED}
    decisions = decide(view(DIAMOND, states, state=RunState.CANCELLING, jobs=ended), never)
    assert [type(one) for one in decisions] == [Fail, Finish]
    assert decisions[-1] == Finish(RunState.CANCELLED, "cancelled on request")


def test_why_a_step_failed() -> None:
    def kind(state: JobState, *, said: StepError | None = None, **attempt: Any) -> str:
        tried = Attempt(number=1, state=AttemptState.FAILED, started_at=NOW, **attempt) if attempt else None
        jobs = {"a": job(state, reason="why", attempt=tried)}
        decisions = decide(view(DIAMOND, {"a": R}, jobs=jobs, reported={"a": said} if said else {}), never)
        assert isinstance(decisions[0], Fail)
        return decisions[0].error.kind

    user = StepError(kind="user_code", message="ValueError")
    assert kind(JobState.FAILED, said=user, reason="app_error", exit_code=1) == "user_code"
    assert kind(JobState.TIMED_OUT, reason="timed_out") == "timed_out"
    assert kind(JobState.FAILED, reason="killed", signal=9) == "killed"
    assert kind(JobState.FAILED, reason="out_of_memory") == "out_of_memory"
    assert kind(JobState.FAILED, reason="lost") == "lost"
    assert kind(JobState.FAILED, reason="app_error", exit_code=3) == "user_code"
    assert kind(JobState.FAILED, reason="app_error", exit_code=70) == "platform"
    assert kind(JobState.FAILED) == "platform"
    assert kind(JobState.SUCCEEDED, reason="ok", exit_code=0) == "platform"
    assert kind(JobState.CANCELLED) == "cancelled"


def test_a_resumed_step_is_another_job() -> None:
    one, other = (step_job(DIAMOND, "run", DIAMOND.steps[0], number) for number in (1, 2))
    assert one.idempotency_key != other.idempotency_key
    assert one.labels == {"pipeline": "p", "pipeline_run": "run", "step": "a"}


graphs = st.integers(1, 8).flatmap(
    lambda size: st.tuples(
        *(st.lists(st.integers(0, max(number - 1, 0)), max_size=3, unique=True) for number in range(size))
    )
)


@settings(deadline=None)
@given(graphs, st.sets(st.integers(0, 7)), st.sets(st.integers(0, 7)), st.randoms(use_true_random=False))
def test_every_run_comes_to_its_end(
    edges: tuple[list[int], ...], cached: set[int], failing: set[int], random: Any
) -> None:
    made = plan(**{f"s{n}": [f"s{i}" for i in froms if i < n] for n, froms in enumerate(edges)})
    states: dict[str, StepState] = {}
    hits = {f"s{n}" for n in cached}
    for _ in range(500):
        running = [name for name, state in states.items() if state is R]
        jobs = {}
        for name in running:
            if random.random() < 0.5:
                if int(name[1:]) in failing:
                    jobs[name] = job(JobState.FAILED)
                else:
                    states[name] = S
            else:
                jobs[name] = job(JobState.RUNNING)
        current = view(made, states, jobs=jobs)
        decisions = decide(current, _cache_of(made, hits))
        for decision in decisions:
            if isinstance(decision, Finish):
                assert (decision.state is RunState.SUCCEEDED) == all(state.done for state in states.values())
                assert len(states) == len(made.steps)
                return
            if isinstance(decision, Submit | UseCache):
                assert all(states[need].done for need in needs(decision.step))
                assert states.get(decision.step.name, P) is P
                states[decision.step.name] = R if isinstance(decision, Submit) else StepState.CACHED
            elif isinstance(decision, Fail):
                states[decision.step] = decision.state
            elif isinstance(decision, Skip):
                states[decision.step] = StepState.SKIPPED
        if not decisions and not any(state is R for state in states.values()):
            break
    raise AssertionError(f"stuck in {states}")


def _cache_of(made: Plan, hits: set[str]) -> Any:
    """A cache that knows the steps of a set; keys are opaque, so the order of asking tells which is asked for."""

    def lookup(key: str) -> Hit | None:
        outputs = {step.name: output() for step in made.steps}
        for step in made.steps:
            if step.name in hits and step_key(step, bind_step(step, made, {}, {}), outputs, "e") == key:
                return Hit(output(), "r", None)
        return None

    return lookup
