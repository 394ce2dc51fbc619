"""Pipelines end to end, with real workers: results, the cache, failures and what they say, resume, cancel, lineage."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from modelyard.kernel import events, lineage
from modelyard.kernel.auth import Principal, Role, Scope, system_scope
from modelyard.kernel.errors import Conflict, Forbidden, InvalidInput, NotFound, TooLarge, UserCodeError
from modelyard.planes.pipelines.environment import current_environment
from modelyard.sdk import pipelines as sdk
from modelyard.types.jobs import Job
from modelyard.types.pipelines import (
    Code,
    Output,
    PipelineRun,
    Plan,
    RegisterPipeline,
    Step,
    StepError,
    StepReport,
    StepRun,
)

if TYPE_CHECKING:
    from conftest import Plant, Project

FLOW = """
    from modelyard.sdk.tasks import pipeline, task

    @task
    def load(n):
        return list(range(n))

    @task
    def total(values, scale=1):
        print("adding", len(values))
        return sum(values) * scale

    @task
    def pair(a, b):
        return {"a": a, "both": [a, b]}

    @pipeline
    def flow(n: int = 4, scale: int = 10):
        values = load(n)
        whole = total(values, scale=scale)
        both = pair(whole, total(values))
        return {"whole": whole, "last": both["both"][1]}
"""


def step(run: PipelineRun, name: str) -> StepRun:
    return next(one for one in run.steps if one.name == name)


def up(plant: Plant, urn: str) -> set[str]:
    with plant.database.reading(plant.scope) as tx:
        return set(lineage.walk(tx, urn, "up").nodes)


def kinds(plant: Plant, run: PipelineRun) -> list[str]:
    with plant.database.reading(plant.scope) as tx:
        return [event.kind for event in reversed(events.recent(tx, subject=f"pipeline-run:{run.id}"))]


@pytest.mark.slow
def test_a_pipeline_runs_and_what_is_unchanged_is_not_run_again(plant: Plant, project: Project) -> None:
    project.write("flow.py", FLOW)
    run = plant.run(project.load("flow").flow)
    assert run.state == "succeeded", run
    assert run.result == {"whole": 60, "last": 6}
    assert [one.name for one in run.steps] == ["load", "total", "total-2", "pair"]
    assert all(one.state == "succeeded" and one.job_id for one in run.steps)
    assert run.params == {"n": 4, "scale": 10}
    assert kinds(plant, run)[0] == "pipeline-run.started"
    assert kinds(plant, run)[-1] == "pipeline-run.succeeded"

    again = plant.run("flow")
    assert set(plant.states(again).values()) == {"cached"}
    assert (again.result, step(again, "pair").cached_from) == (run.result, run.id)
    assert "step.cached" in kinds(plant, again)

    other = plant.run("flow", scale=100)
    assert other.result == {"whole": 600, "last": 6}
    assert plant.states(other) == {"load": "cached", "total": "succeeded", "total-2": "cached", "pair": "succeeded"}

    project.write("flow.py", FLOW.replace('"both": [a, b]', '"both": [a, b + 1]') + "\n    # another line\n")
    changed = plant.run(project.load("flow").flow)
    assert (changed.version, changed.result) == (2, {"whole": 60, "last": 7})
    assert plant.states(changed) == {"load": "cached", "total": "cached", "total-2": "cached", "pair": "succeeded"}
    old = plant.client.post("/api/pipelines/flow/runs", {"version": 1}, PipelineRun)
    assert plant.ended(old).result == {"whole": 60, "last": 6}


def test_steps_are_counted_for_whoever_started_the_run(plant: Plant, project: Project) -> None:
    """A person by name, a trigger by its name; and for what a job starts, whoever that job is counted for."""
    project.write("flow.py", FLOW)

    def first_job(run: PipelineRun) -> Job:
        plant.until(lambda: step(plant.get(run), "load").job_id)
        return plant.jobs.get_job(plant.scope, str(step(plant.get(run), "load").job_id))

    by_ada = first_job(plant.start(project.load("flow").flow))
    by_trigger, by_job = (
        first_job(plant.pipelines.start(Scope("default", Principal(name, {"default": Role.CONTRIBUTOR})), "flow", more))
        for name, more in (("automation:retrain", {"n": 5}), (f"job:{by_ada.id}", {"n": 6}))
    )
    assert [one.submitted_by for one in (by_ada, by_trigger, by_job)] == ["ada", "automation:retrain", "ada"]
    with plant.database.reading(plant.scope) as tx:
        (said,) = events.recent(tx, subject=f"job:{by_trigger.id}", kinds=frozenset({"job.submitted"}))
    assert (said.actor, said.data["submitted_by"]) == ("system", "automation:retrain")


@pytest.mark.slow
def test_outputs_of_every_kind_reach_the_next_step(plant: Plant, project: Project) -> None:
    project.write(
        "kinds.py",
        """
        import pyarrow as pa
        from modelyard.sdk.tasks import pipeline, task
        import thing

        @task
        def make():
            return {"table": 1, "big": "x" * 100_000}
        @task
        def table():
            return pa.table({"a": [1, 2, 3]})
        @task
        def model():
            return thing.Model(7), float("nan"), {3}
        @task
        def nothing():
            return None
        @task
        def join(made, table, model, none, mixed):
            found, nan, numbers = model
            assert nan != nan and numbers == {3} and none is None and isinstance(found, thing.Model)
            assert mixed["list"][0] is table or mixed["list"][0].equals(table)
            return [len(made["big"]), table["a"].to_pylist(), found.predict(), mixed["plain"]]
        @pipeline(name="kinds")
        def flow():
            t, m = table(), model()
            return join(make(), t, m, nothing(), {"list": [t, m[0]], "plain": [1, "a"]})
    """,
    )
    project.write(
        "thing.py",
        """
        class Model:
            def __init__(self, k): self.k = k
            def predict(self): return self.k * 6
    """,
    )
    run = plant.run(project.load("kinds").flow)
    assert run.state == "succeeded", run
    assert run.result == [100_000, [1, 2, 3], 42, [1, "a"]]
    formats = {one.name: (one.output.format, one.output.inline) for one in run.steps if one.output}
    assert formats == {
        "table": ("arrow", False),
        "model": ("pickle", False),
        "make": ("json", False),
        "nothing": ("json", True),
        "join": ("json", True),
    }
    assert sdk.step_output(run.id, "table", plant.client).equals(pa.table({"a": [1, 2, 3]}))
    assert sdk.step_output(run.id, "make", plant.client)["table"] == 1
    assert sdk.step_output(run.id, "join", plant.client) == run.result
    with pytest.raises(InvalidInput, match="pickled"):
        sdk.step_output(run.id, "model", plant.client)
    assert plant.run("kinds").result == run.result


@pytest.mark.slow
def test_the_server_never_unpickles(plant: Plant, project: Project, tmp_path: Any) -> None:
    canary = tmp_path / "executed"
    project.write(
        "evil.py",
        f"""
        from modelyard.sdk.tasks import pipeline, task
        class Evil:
            def __reduce__(self):
                return (eval, ("open({str(canary)!r}, 'a').write(str(__import__('os').getpid()) + ' ')",))
        @task
        def make(): return Evil()
        @task
        def use(x): return 1
        @pipeline(name="evil")
        def flow(): return use(make())
    """,
    )
    run = plant.run(project.load("evil").flow)
    assert run.state == "succeeded"
    assert plant.run("evil").state == "succeeded"
    plant.client.get_bytes(f"/api/pipeline-runs/{run.id}/steps/make/output")
    pids = canary.read_text().split()
    assert len(pids) == 1
    assert int(pids[0]) != os.getpid()


@pytest.mark.slow
def test_a_dataset_is_pinned_and_new_data_runs_anew(plant: Plant, project: Project) -> None:
    plant.data.write(plant.scope, "numbers", pa.table({"x": [1, 2]}).to_batches(), create=True)
    project.write(
        "sums.py",
        """
        from modelyard.sdk.tasks import Dataset, pipeline, task
        @task
        def add(numbers):
            return [numbers.ref, sum(numbers.read(["x"])["x"].to_pylist())]
        @pipeline(name="sums")
        def flow(numbers: Dataset = Dataset("numbers")):
            return {"of": add(numbers), "data": numbers}
    """,
    )
    first = plant.run(project.load("sums").flow)
    assert first.result == {"of": [1, 3], "data": "dataset:numbers@1"}
    assert first.datasets == {"numbers": 1}
    plant.data.write(plant.scope, "numbers", pa.table({"x": [10]}).to_batches())
    assert plant.run("sums").result["of"] == [2, 13]
    pinned = plant.run("sums", numbers="numbers@1")
    assert (pinned.result["of"], plant.states(pinned)) == ([1, 3], {"add": "cached"})
    job = f"job:{step(first, 'add').job_id}"
    assert {"dataset:numbers@1", f"code:{first.code}", f"env:{first.env}", f"pipeline-run:{first.id}"} <= up(plant, job)
    with pytest.raises(NotFound, match="nowhere"):
        plant.start("sums", numbers="nowhere")
    assert len(plant.pipelines.list_runs(plant.scope).items) == 3


FAILS = """
    import os, time
    from modelyard.sdk.tasks import pipeline, task
    import pathlib

    @task
    def good(): return 1

    @task(timeout_s=20)
    def risky(x, how):
        flag = pathlib.Path(how.partition(":")[2] or "/nonexistent/flag")
        if flag.exists():
            return x + 1
        how = how.partition(":")[0]
        if how == "raise":
            raise ValueError("no such airport \\x1b[31m")
        if how == "exit":
            raise SystemExit(3)
        if how == "vanish":
            os._exit(5)
        if how == "kill":
            os.kill(os.getpid(), 9)
        if how == "hang":
            print("hanging", flush=True)
            time.sleep(600)
        if how == "unpicklable":
            return lambda: __import__("threading").Lock() and Broken()
        return Broken()

    class Broken:
        def __reduce__(self):
            raise TypeError("cannot be kept")

    @task
    def last(x): return x * 10

    @pipeline(name="fails")
    def flow(how: str = "raise"):
        return last(risky(good(), how))
"""


@pytest.mark.parametrize(
    ("how", "kind", "message"),
    [
        ("raise", "user_code", "ValueError: no such airport"),
        ("exit", "user_code", "SystemExit: 3"),
        ("vanish", "user_code", "exit code 5"),
        ("kill", "killed", "SIGKILL"),
        ("broken", "user_code", "cannot be kept"),
    ],
)
def test_a_failing_task_fails_its_run_and_says_how(
    plant: Plant, project: Project, how: str, kind: str, message: str
) -> None:
    project.write("fails.py", FAILS)
    run = plant.run(project.load("fails").flow, how=how)
    assert (run.state, run.reason) == ("failed", "step 'risky' failed")
    assert plant.states(run) == {"good": "succeeded", "risky": "failed", "last": "skipped"}
    error = step(run, "risky").error
    assert error is not None
    assert (error.kind, message in error.message) == (kind, True), error
    assert step(run, "last").job_id is None
    assert kinds(plant, run)[-2:] == ["step.failed", "pipeline-run.failed"]
    with pytest.raises(UserCodeError, match="step 'risky'") as raised:
        sdk.check_succeeded(run)
    assert "resume" in raised.value.hint
    if how == "raise":
        assert 'raise ValueError("no such airport' in error.traceback
        assert "worker.py" not in error.traceback


@pytest.mark.slow
def test_a_task_that_hangs_is_ended_at_its_timeout(plant: Plant, project: Project) -> None:
    project.write("fails.py", FAILS.replace("timeout_s=20", "timeout_s=1.5"))
    run = plant.run(project.load("fails").flow, how="hang")
    error = step(run, "risky").error
    assert error is not None
    assert (error.kind, plant.states(run)["risky"]) == ("timed_out", "failed")


def test_code_that_cannot_be_imported_in_the_worker_is_the_users_failure(plant: Plant, project: Project) -> None:
    only_there = """
    import os
    if "MYD_JOB" in os.environ:
        import a_module_that_is_not_there
    """
    project.write("flow.py", only_there + FLOW)
    run = plant.run(project.load("flow").flow)
    error = step(run, "load").error
    assert error is not None
    assert (error.kind, error.type) == ("user_code", "ModuleNotFoundError")


@pytest.mark.slow
def test_resume_goes_on_where_it_failed(plant: Plant, project: Project, tmp_path: Any) -> None:
    project.write("fails.py", FAILS)
    flag = tmp_path / "flag"
    run = plant.run(project.load("fails").flow, how=f"raise:{flag}")
    assert run.state == "failed"
    done = step(run, "good")
    flag.write_text("")
    sdk.resume_run(run.id, plant.client)
    resumed = plant.ended(run)
    assert (resumed.state, resumed.result) == ("succeeded", 20)
    assert step(resumed, "good") == done
    assert step(resumed, "risky").error is None
    with pytest.raises(Conflict, match="nothing to resume"):
        sdk.resume_run(run.id, plant.client)


@pytest.mark.slow
def test_retries_are_made_before_a_step_fails(plant: Plant, project: Project, tmp_path: Any) -> None:
    project.write(
        "again.py",
        f"""
        import pathlib
        from modelyard.sdk.tasks import pipeline, task
        @task(retries=2)
        def flaky():
            count = pathlib.Path({str(tmp_path / "count")!r})
            count.write_text(count.read_text() + "x" if count.exists() else "x")
            if len(count.read_text()) < 3:
                raise RuntimeError("not yet")
            return len(count.read_text())
        @pipeline(name="again")
        def flow(): return flaky()
    """,
    )
    run = plant.run(project.load("again").flow)
    assert (run.state, run.result) == ("succeeded", 3)
    job = plant.jobs.get_job(plant.scope, str(step(run, "flaky").job_id))
    assert [attempt.reason for attempt in job.attempts] == ["app_error", "app_error", "ok"]


@pytest.mark.slow
def test_cancel_stops_what_runs_and_resume_goes_on(plant: Plant, project: Project, tmp_path: Any) -> None:
    project.write("fails.py", FAILS)
    flag = tmp_path / "flag"
    run = plant.start(project.load("fails").flow, how=f"hang:{flag}")
    plant.until(lambda: plant.states(run)["risky"] == "running")
    job_id = str(step(plant.get(run), "risky").job_id)
    plant.until(lambda: "hanging" in plant.jobs.read_log(plant.scope, job_id).text)
    assert sdk.cancel_run(run.id, plant.client).state == "cancelling"
    ended = plant.ended(run)
    assert (ended.state, plant.states(run)) == (
        "cancelled",
        {"good": "succeeded", "risky": "cancelled", "last": "skipped"},
    )
    assert plant.jobs.get_job(plant.scope, job_id).state == "cancelled"
    assert sdk.cancel_run(run.id, plant.client).state == "cancelled"
    flag.write_text("")
    sdk.resume_run(run.id, plant.client)
    assert plant.ended(run).result == 20
    with pytest.raises(Conflict, match="succeeded already"):
        sdk.cancel_run(run.id, plant.client)


@pytest.mark.slow
def test_a_killed_worker_that_is_tried_again_reports_its_own_error_only(plant: Plant, project: Project) -> None:
    """An error of the first attempt must not stand for the second, which was killed without a word."""
    project.write("fails.py", FAILS.replace("timeout_s=20", "timeout_s=20, retries=1"))
    run = plant.start(project.load("fails").flow, how="hang")
    plant.until(lambda: plant.states(run)["risky"] == "running")
    job_id = str(step(plant.get(run), "risky").job_id)
    for attempt in (1, 2):
        plant.until(
            lambda number=attempt: (
                "hanging"
                in (
                    plant.jobs.read_log(plant.scope, job_id, attempt=number).text
                    if len(plant.jobs.get_job(plant.scope, job_id).attempts) >= number
                    else ""
                )
            )
        )
        if attempt == 1:
            error = StepError(kind="user_code", message="of the first attempt")
            as_job = Scope("default", Principal(f"job:{job_id}", {"default": Role.CONTRIBUTOR}))
            plant.pipelines.report(as_job, run.id, "risky", StepReport(error=error))
        handle = plant.jobs.engine.find(str(plant.jobs.attempt_directory(job_id, attempt)))
        assert handle is not None
        for child in _children(handle.pid):
            os.kill(child, signal.SIGKILL)
    ended = step(plant.ended(run), "risky").error
    assert ended is not None
    assert ended.kind == "killed"


def _children(pid: int) -> list[int]:
    import psutil

    return [child.pid for child in psutil.Process(pid).children()]


def test_only_the_steps_own_job_may_ask_and_report(plant: Plant, project: Project) -> None:
    project.write("fails.py", FAILS)
    run = plant.start(project.load("fails").flow, how="hang")
    plant.until(lambda: plant.states(run)["risky"] == "running")
    report = StepReport(output=Output(digest="", format="json", size_bytes=0, inline=True, value=1))
    stranger = Scope("default", Principal("job:" + "0" * 32, {"default": Role.ADMIN}))
    for scope in (plant.scope, stranger):
        for call in (
            lambda scope=scope: plant.pipelines.work_of(scope, run.id, "risky"),
            lambda scope=scope: plant.pipelines.report(scope, run.id, "risky", report),
            lambda scope=scope: plant.pipelines.put_output(scope, run.id, "risky", "json", [b"1"]),
        ):
            with pytest.raises(Forbidden, match="does not run step"):
                call()
    other = Scope("other", plant.scope.principal)
    for look in (plant.pipelines.get_run, plant.pipelines.cancel, plant.pipelines.resume):
        with pytest.raises(NotFound):
            look(other, run.id)
    with pytest.raises(NotFound):
        plant.pipelines.open_code(other, run.code)
    with pytest.raises(NotFound):
        plant.pipelines.open_output(plant.scope, run.id, "risky")
    sdk.cancel_run(run.id, plant.client)
    plant.ended(run)


@pytest.mark.slow
def test_a_cached_output_whose_bytes_are_gone_is_made_again(plant: Plant, project: Project) -> None:
    project.write(
        "tables.py",
        """
        import pyarrow as pa
        from modelyard.sdk.tasks import pipeline, task
        @task
        def make(): return pa.table({"a": [1]})
        @task
        def count(t): return t.num_rows
        @pipeline(name="tables")
        def flow(): return count(make())
    """,
    )
    run = plant.run(project.load("tables").flow)
    output = step(run, "make").output
    assert output is not None
    assert output.digest in set(plant.pipelines.kept_blobs())
    assert run.code in set(plant.pipelines.kept_blobs())
    plant.blobs.delete(output.digest)
    again = plant.run("tables")
    assert plant.states(again) == {"make": "succeeded", "count": "cached"}
    assert plant.blobs.exists(output.digest)


@pytest.mark.slow
def test_what_triggered_a_run_is_its_cause_and_one_trigger_starts_one_run(plant: Plant, project: Project) -> None:
    project.write("flow.py", FLOW)
    plant.run(project.load("flow").flow)
    trigger = Scope("default", Principal("automation:drift", {"default": Role.CONTRIBUTOR}))
    started = plant.pipelines.start(trigger, "flow", {"n": 2}, cause="alert:a1", idempotency_key="a1")
    assert plant.pipelines.start(trigger, "flow", {"n": 2}, cause="alert:a1", idempotency_key="a1").id == started.id
    with pytest.raises(Conflict, match="idempotency key"):
        plant.pipelines.start(trigger, "flow", {"n": 3}, cause="alert:a1", idempotency_key="a1")
    assert plant.ended(started).result == {"whole": 10, "last": 1}
    assert (started.created_by, started.cause) == ("automation:drift", "alert:a1")
    assert "alert:a1" in up(plant, f"job:{step(plant.get(started), 'pair').job_id}")


def test_the_environment_is_known_by_its_hash(plant: Plant, project: Project) -> None:
    project.write("flow.py", FLOW)
    run = plant.start(project.load("flow").flow)
    known = plant.pipelines.get_environment(run.env)
    assert known == current_environment()
    assert "msgspec" in known.packages
    with pytest.raises(NotFound):
        plant.pipelines.get_environment("0" * 64)
    sdk.cancel_run(run.id, plant.client)
    plant.ended(run)


def test_registering_twice_is_one_version_and_bad_plans_are_refused(plant: Plant, project: Project) -> None:
    project.write("flow.py", FLOW)
    flow = project.load("flow").flow
    first = sdk.register_pipeline(flow, plant.client)
    assert sdk.register_pipeline(flow, plant.client) == first
    assert [one.name for one in sdk.list_pipelines(client=plant.client).items] == ["flow"]
    one = Step(name="s", task="m:f", code_hash="x")
    absent = Code(digest="0" * 64, size_bytes=1)
    with pytest.raises(InvalidInput, match="not sent"):
        plant.pipelines.register(plant.scope, RegisterPipeline(plan=Plan(name="p", steps=[one]), code=absent))
    huge = Plan(name="p", steps=[Step(name="s", task="m:f", code_hash="x", timeout_s=-1)])
    with pytest.raises(InvalidInput, match="timeout_s"):
        plant.pipelines.register(plant.scope, RegisterPipeline(plan=huge, code=first.code))
    with pytest.raises(NotFound, match="pipeline list"):
        sdk.start_run("never", client=plant.client)
    with pytest.raises(InvalidInput, match="'n' must be int"):
        sdk.start_run("flow", {"n": "x"}, client=plant.client)
    with pytest.raises(InvalidInput, match="not a URN"):
        sdk.start_run("flow", cause="no urn", client=plant.client)
    assert plant.pipelines.list_runs(plant.scope).items == []


def test_a_snapshot_over_the_limit_is_refused_and_leaves_nothing(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelyard.planes.pipelines.service.CODE_SNAPSHOT_BYTES_MAX", 10)
    with pytest.raises(TooLarge):
        plant.client.send_bytes("PUT", "/api/code", b"x" * 100)
    assert list(plant.blobs.digests()) == []


@pytest.mark.slow
def test_every_move_may_be_made_twice(plant: Plant, project: Project) -> None:
    """The reconciler acts again on what it has acted on; events come again; nothing is done twice."""
    project.write("flow.py", FLOW)
    run = plant.start(project.load("flow").flow)
    (advance,) = plant.pipelines.reconcilers()
    (heard,) = plant.pipelines.readers()
    while not plant.get(run).state.final:
        plant.step()
        with plant.database.transaction(system_scope("*")) as tx:
            from modelyard.kernel.leases import take_lease

            lease = take_lease(tx.connection, f"twice:{run.id}", "test", tx.now, 60)
        assert lease is not None
        advance.act(run.id, lease)
        advance.act(run.id, lease)
        with plant.database.reading(plant.scope) as tx:
            for event in events.recent(tx, kinds=heard.kinds):
                heard.handle(event)
    assert plant.get(run).result == {"whole": 60, "last": 6}
    assert len(plant.jobs.list_jobs(plant.scope).items) == 4
