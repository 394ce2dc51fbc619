"""Jobs through their public face: run as real processes, fail, retry, hang, get cancelled, get lost; metered."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from modelyard.engines.compute.base import Running
from modelyard.engines.compute.process import ProcessEngine
from modelyard.kernel import auth, events
from modelyard.kernel.auth import Principal, Role, Scope, system_scope
from modelyard.kernel.clock import FixedClock
from modelyard.kernel.database import Database
from modelyard.kernel.errors import Conflict, InvalidInput, NotFound, Unauthenticated
from modelyard.kernel.reconcile import ReconcileLoop
from modelyard.planes.jobs import Jobs
from modelyard.types.jobs import AttemptState, Job, JobState, Resources, SubmitJob

WAIT_S = 30.0


class Works:
    """Jobs with their loop, driven by hand; time moves only when a test moves it."""

    def __init__(self, database: Database, clock: FixedClock, root: Path, scope: Scope) -> None:
        self.database, self.clock, self.scope = database, clock, scope
        engine = ProcessEngine(os.environ, cpus=2, memory_bytes=4 * 2**30)
        self.jobs = Jobs(database, engine, root / "jobs", server_url="http://127.0.0.1:1")
        self.loop = ReconcileLoop(database, self.jobs.reconcilers())

    def python(self, program: str, **options: object) -> Job:
        return self.submit([sys.executable, "-c", program], **options)

    def submit(self, command: list[str], **options: object) -> Job:
        return self.jobs.submit_job(self.scope, SubmitJob(command=command, **options))  # type: ignore[arg-type]

    def get(self, job: Job) -> Job:
        return self.jobs.get_job(self.scope, job.id)

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + WAIT_S
        while not condition():
            assert time.monotonic() < deadline, "it did not happen"
            self.loop.settle()
            time.sleep(0.01)

    def ended(self, job: Job) -> Job:
        self.until(lambda: self.get(job).state.final)
        return self.get(job)

    def running(self, job: Job, output: str = "") -> Job:
        self.until(lambda: self.get(job).attempts and self.get(job).attempts[-1].state is AttemptState.RUNNING)
        self.until(lambda: output in self.jobs.read_log(self.scope, job.id).text)
        return self.get(job)

    def supervisor(self, job: Job) -> int:
        handle = self.jobs.engine.find(str(self.jobs.attempt_directory(job.id, self.get(job).attempts[-1].number)))
        assert handle is not None
        return handle.pid

    def kinds(self, job: Job) -> list[str]:
        with self.database.reading(self.scope) as tx:
            return [event.kind for event in reversed(events.recent(tx, subject=f"job:{job.id}"))]


@pytest.fixture
def works(database: Database, clock: FixedClock, tmp_path: Path, scope: Scope) -> Iterator[Works]:
    works = Works(database, clock, tmp_path, scope)
    yield works
    for job in works.jobs.list_jobs(scope).items:
        for attempt in job.attempts:
            handle = works.jobs.engine.find(str(works.jobs.attempt_directory(job.id, attempt.number)))
            if handle is not None and isinstance(works.jobs.engine.poll(handle), Running):
                works.jobs.engine.stop(handle, 0)
                works.jobs.engine.wait(handle, WAIT_S)


def test_a_job_runs_and_is_metered(works: Works) -> None:
    job = works.python("sum(range(5_000_000)); print('hello')", name="add", labels={"team": "pricing"})
    assert (job.state, job.name) == (JobState.QUEUED, "add")
    done = works.ended(job)
    assert (done.state, done.reason, len(done.attempts)) == (JobState.SUCCEEDED, "", 1)
    assert (done.attempts[0].state, done.attempts[0].exit_code) == (AttemptState.SUCCEEDED, 0)
    assert done.usage.cpu_s > 0.02
    assert done.usage.peak_rss_bytes > 1_000_000
    assert works.kinds(job) == ["job.submitted", "job.started", "job.succeeded"]
    log = works.jobs.read_log(works.scope, job.id)
    assert (log.text, log.complete) == ("hello\n", True)
    at = works.clock.now()
    rows = works.jobs.usage(works.scope, since=at - timedelta(hours=1), until=at + timedelta(hours=1))
    assert [(row.job_id, row.attempt, row.labels, row.usage) for row in rows] == [
        (job.id, 1, {"team": "pricing"}, done.usage)
    ]
    assert works.jobs.usage(works.scope, since=at + timedelta(hours=1), until=at + timedelta(hours=2)) == []


def test_what_a_job_submits_is_counted_for_whoever_submitted_that_job(works: Works) -> None:
    first = works.python("pass")
    ids, scope = [first.id], works.scope
    for _ in range(2):
        scope = Scope("default", Principal(f"job:{ids[-1]}", {"default": Role.CONTRIBUTOR}))
        ids.append(works.jobs.submit_job(scope, SubmitJob(command=["true"])).id)
    assert {works.jobs.get_job(works.scope, one).submitted_by for one in ids} == {works.scope.actor}
    with works.database.reading(works.scope) as tx:
        (said,) = events.recent(tx, subject=f"job:{ids[-1]}")
    assert (said.actor, said.data["submitted_by"]) == (f"job:{ids[-2]}", works.scope.actor)
    stranger = Scope("default", Principal("job:" + "0" * 32, {"default": Role.CONTRIBUTOR}))
    assert works.jobs.submit_job(stranger, SubmitJob(command=["true"])).submitted_by == stranger.actor


def test_a_failing_program_is_tried_again_after_a_delay_and_then_fails(works: Works) -> None:
    job = works.python("raise SystemExit(3)", max_attempts=2)
    works.until(lambda: works.get(job).attempts and works.get(job).state is JobState.QUEUED)
    waiting = works.get(job)
    assert waiting.attempts[0].reason == "app_error"
    assert "the last attempt failed" in waiting.reason
    works.clock.advance(1.0)
    done = works.ended(job)
    assert done.state is JobState.FAILED
    assert done.reason == "ended with exit code 3 in the last of 2 attempts"
    assert [attempt.exit_code for attempt in done.attempts] == [3, 3]
    assert works.kinds(job) == [
        "job.submitted", "job.started", "job.requeued", "job.started", "job.failed",
    ]  # fmt: skip


def test_hanging_past_the_timeout(works: Works) -> None:
    job = works.python("import time; time.sleep(600)", timeout_s=0.3, grace_s=0.2)
    done = works.ended(job)
    assert (done.state, done.attempts[0].state) == (JobState.TIMED_OUT, AttemptState.TIMED_OUT)
    assert "0.3 s" in done.reason
    assert works.kinds(job)[-1] == "job.failed"


def test_killed_from_outside_is_a_failure_that_says_so(works: Works) -> None:
    job = works.python("import os; os.kill(os.getpid(), 9)")
    done = works.ended(job)
    assert (done.state, done.attempts[0].reason, done.attempts[0].signal) == (JobState.FAILED, "killed", 9)
    assert "SIGKILL" in done.reason


def test_a_job_runs_in_its_own_empty_folder_or_where_it_is_told(works: Works, tmp_path: Path) -> None:
    listing = "import os; print(os.listdir())"
    own = works.ended(works.python(listing))
    assert works.jobs.read_log(works.scope, own.id).text == "[]\n"
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "data.txt").write_text("")
    told = works.ended(works.python(listing, cwd=str(tmp_path / "there")))
    assert works.jobs.read_log(works.scope, told.id).text == "['data.txt']\n"
    absent = works.ended(works.python(listing, cwd=str(tmp_path / "absent")))
    assert absent.attempts[0].reason == "not_started"


def test_no_such_program_is_not_tried_again(works: Works) -> None:
    done = works.ended(works.submit(["no-such-program-anywhere"], max_attempts=5))
    assert (done.state, len(done.attempts), done.attempts[0].reason) == (JobState.FAILED, 1, "not_started")


def test_a_lost_process_is_started_again_without_spending_an_attempt(works: Works) -> None:
    job = works.python("import time; print('up', flush=True); time.sleep(600)", max_attempts=1)
    works.running(job, "up")
    os.kill(works.supervisor(job), signal.SIGKILL)
    works.until(lambda: works.get(job).attempts[0].state is AttemptState.LOST)
    works.clock.advance(2.0)
    works.until(lambda: len(works.get(job).attempts) == 2)
    again = works.running(job, "up")
    assert again.state is JobState.RUNNING
    works.jobs.cancel_job(works.scope, job.id)
    assert works.ended(job).state is JobState.CANCELLED


def test_a_job_that_is_lost_for_ever_gives_up(works: Works) -> None:
    job = works.python("import time; print('up', flush=True); time.sleep(600)")
    for _ in range(4):
        works.until(lambda: works.get(job).state is JobState.RUNNING)
        works.running(job, "up")
        os.kill(works.supervisor(job), signal.SIGKILL)
        works.until(lambda: works.get(job).state is not JobState.RUNNING)
        works.clock.advance(60.0)
    done = works.get(job)
    assert (done.state, len(done.attempts)) == (JobState.FAILED, 4)
    assert "lost 4 times" in done.reason


def test_cancel_while_waiting_and_while_running(works: Works) -> None:
    first = works.python("import time; print('up', flush=True); time.sleep(600)", resources=Resources(cpus=2))
    works.running(first, "up")
    second = works.python("print('never')")
    works.loop.settle()
    waiting = works.get(second)
    assert waiting.reason.startswith(f"waiting: 2 of 2 CPUs are in use by job {first.id}")
    assert works.jobs.list_jobs(works.scope).items[0].reason == waiting.reason
    assert works.jobs.cancel_job(works.scope, second.id).state is JobState.CANCELLED
    assert works.jobs.cancel_job(works.scope, second.id).state is JobState.CANCELLED
    assert works.jobs.cancel_job(works.scope, first.id).cancel_requested
    done = works.ended(first)
    assert (done.state, done.attempts[0].state) == (JobState.CANCELLED, AttemptState.CANCELLED)
    assert works.kinds(first)[-2:] == ["job.cancel_requested", "job.cancelled"]
    assert works.get(second).attempts == []


def test_cancelling_what_has_ended_is_refused(works: Works) -> None:
    job = works.ended(works.python("pass"))
    with pytest.raises(Conflict, match="succeeded already"):
        works.jobs.cancel_job(works.scope, job.id)


def test_jobs_wait_for_room_and_priority_goes_first(works: Works) -> None:
    blocker = works.python("import time; time.sleep(600)", resources=Resources(cpus=2))
    works.running(blocker)
    low = works.python("pass", resources=Resources(cpus=2), priority=-1)
    high = works.python("pass", resources=Resources(cpus=2), priority=1)
    works.jobs.cancel_job(works.scope, blocker.id)
    works.until(lambda: works.get(low).state.final and works.get(high).state.final)
    assert works.get(high).attempts[0].started_at <= works.get(low).attempts[0].started_at
    with works.database.reading(works.scope) as tx:
        started = [event.subject for event in reversed(events.recent(tx, kinds=frozenset({"job.started"})))]
    assert started == [f"job:{blocker.id}", f"job:{high.id}", f"job:{low.id}"]


def test_the_same_key_gives_the_same_job_and_another_content_is_refused(works: Works) -> None:
    first = works.python("pass", idempotency_key="k")
    assert works.python("pass", idempotency_key="k").id == first.id
    with pytest.raises(Conflict, match="idempotency key"):
        works.python("print()", idempotency_key="k")
    other = Scope("other", works.scope.principal)
    assert works.jobs.submit_job(other, SubmitJob(command=["true"], idempotency_key="k")).id != first.id


def test_another_projects_job_is_not_found(works: Works) -> None:
    job = works.python("pass")
    other = Scope("other", works.scope.principal)
    for look in (works.jobs.get_job, works.jobs.cancel_job, works.jobs.read_log):
        with pytest.raises(NotFound):
            look(other, job.id)
    assert works.jobs.list_jobs(other).items == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"command": []},
        {"command": [""]},
        {"command": ["a\0b"]},
        {"command": ["x" * 200_000]},
        {"command": ["x"], "resources": Resources(cpus=0)},
        {"command": ["x"], "resources": Resources(cpus=float("nan"))},
        {"command": ["x"], "resources": Resources(cpus=3)},
        {"command": ["x"], "resources": Resources(memory_bytes=-1)},
        {"command": ["x"], "resources": Resources(memory_bytes=2**50)},
        {"command": ["x"], "timeout_s": 0.0},
        {"command": ["x"], "timeout_s": float("inf")},
        {"command": ["x"], "priority": 101},
        {"command": ["x"], "max_attempts": 0},
        {"command": ["x"], "env": {"A=B": "x"}},
        {"command": ["x"], "env": {"A": "x\0"}},
        {"command": ["x"], "env": {"A": "x" * 300_000}},
        {"command": ["x"], "name": "n" * 300},
        {"command": ["x"], "cwd": "relative"},
    ],
)
def test_a_job_without_meaning_is_refused_and_leaves_nothing(works: Works, wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidInput) as refused:
        works.jobs.submit_job(works.scope, SubmitJob(**wrong))  # type: ignore[arg-type]
    assert refused.value.code.startswith("job.")
    assert works.jobs.list_jobs(works.scope).items == []


def test_the_token_works_while_the_job_runs_and_is_nowhere_to_be_read(works: Works, tmp_path: Path) -> None:
    program = "import os, time\nopen('t', 'w').write(os.environ['MODELYARD_TOKEN'])\n"
    program += "print(os.environ['MODELYARD_TOKEN'], os.environ['MODELYARD_URL'], os.environ['MLFLOW_TRACKING_URI'])\n"
    program += "assert os.environ['MLFLOW_TRACKING_TOKEN'] == os.environ['MODELYARD_TOKEN']\n"
    job = works.python(program + "time.sleep(600)", env={"DB_PASSWORD": "canary-77", "PLAIN": "seen"})
    running = works.running(job, "http")
    file = works.jobs.attempt_directory(job.id, 1) / "work" / "t"
    token = file.read_text()
    file.unlink()
    with works.database.reading(system_scope("*")) as tx:
        principal = auth.authenticate(tx, token)
    assert principal.name == f"job:{job.id}"
    assert principal.roles == {"default": Role.CONTRIBUTOR}
    assert works.jobs.read_log(works.scope, job.id).text == "*** http://127.0.0.1:1 http://127.0.0.1:1/p/default\n"
    assert running.env == {"DB_PASSWORD": "***", "PLAIN": "seen"}
    works.jobs.cancel_job(works.scope, job.id)
    works.ended(job)
    with works.database.reading(system_scope("*")) as tx, pytest.raises(Unauthenticated):
        auth.authenticate(tx, token)
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or token.encode() not in path.read_bytes(), path
    with works.database.reading(works.scope) as tx:
        assert "canary-77" not in str(events.recent(tx))


def test_the_log_is_read_on_and_made_safe(works: Works) -> None:
    program = r"""
import sys
out = sys.stdout.buffer
out.write(b"\x1b[31mred\x1b[0m \x1b]0;title\x07 bell\x07 \xff\xfe\n")
out.write("progress 1\rprogress 2\nhidden \u202e txt\n".encode())
for n in range(3000): print("line", n)
"""
    job = works.ended(works.python(program))
    offset, text = 0, ""
    while not (piece := works.jobs.read_log(works.scope, job.id, offset=offset, limit_bytes=5_000)).complete:
        text += piece.text
        offset = piece.next
    text += piece.text
    assert "\x1b" not in text
    assert text.splitlines()[:4] == ["red  bell\u2407 \ufffd\ufffd", "progress 1", "progress 2", "hidden \ufffd txt"]
    assert [line for line in text.splitlines() if line.startswith("line")] == [f"line {n}" for n in range(3000)]
    assert works.jobs.read_log(works.scope, job.id, offset=-10).text == "line 2999\n"
    with pytest.raises(NotFound):
        works.jobs.read_log(works.scope, job.id, attempt=7)


def test_without_a_server_jobs_wait_and_say_so(works: Works) -> None:
    works.jobs.server_url = ""
    job = works.python("pass")
    works.loop.settle()
    assert works.get(job).state is JobState.QUEUED
    assert "modelyard up" in works.get(job).reason


def test_another_server_goes_on_with_what_runs(works: Works, tmp_path: Path) -> None:
    job = works.python("import time; print('up', flush=True); time.sleep(1); print('done')")
    works.running(job, "up")
    heir = Works(works.database, works.clock, tmp_path, works.scope)
    done = heir.ended(job)
    assert (done.state, len(done.attempts)) == (JobState.SUCCEEDED, 1)


def test_a_start_that_was_never_recorded_is_found_again(works: Works) -> None:
    """The server dies after it started the process and before it wrote that down."""
    job = works.python("open('count', 'a').write('x'); import time; time.sleep(0.3)")
    schedule, follow = works.jobs.reconcilers()
    ReconcileLoop(works.database, [schedule]).settle()
    directory = works.jobs.attempt_directory(job.id, 1)
    record, works.jobs.database = works.jobs.database, _Dies(works.database, "engine")  # type: ignore[assignment]
    with pytest.raises(_Death):
        ReconcileLoop(works.database, [follow]).step()
    works.jobs.database = record
    assert works.get(job).attempts[0].state is AttemptState.STARTING
    works.clock.advance(120)
    done = works.ended(job)
    assert (done.state, len(done.attempts)) == (JobState.SUCCEEDED, 1)
    assert (directory / "work" / "count").read_text() == "x"


class _Death(BaseException):
    pass


class _Dies:
    """A catalog whose second writing transaction is the end of its server."""

    def __init__(self, database: Database, _when: str) -> None:
        self._database, self._left = database, 1

    def reading(self, scope: Scope) -> object:
        return self._database.reading(scope)

    def transaction(self, scope: Scope, lease: object = None) -> object:
        if self._left == 0:
            raise _Death
        self._left -= 1
        return self._database.transaction(scope, lease=lease)  # type: ignore[arg-type]
