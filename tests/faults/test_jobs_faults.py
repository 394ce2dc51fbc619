"""Jobs under faults: racing clients, two servers at once, a full disk."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import catalogs
from modelyard.engines.compute.base import CommandSpec, Finished
from modelyard.engines.compute.process import ProcessEngine
from modelyard.kernel import events
from modelyard.kernel.auth import Scope
from modelyard.kernel.clock import SystemClock
from modelyard.kernel.database import Database
from modelyard.kernel.errors import Unavailable
from modelyard.kernel.reconcile import ReconcileLoop
from modelyard.planes.jobs import Jobs
from modelyard.types.jobs import JobState, SubmitJob

WAIT_S = 60.0


@pytest.fixture
def ticking(catalog_url: str) -> Iterator[Database]:
    """A catalog with a clock that runs."""
    database = Database(catalog_url, SystemClock())
    catalogs.prepare(database)
    yield database
    database.close()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def test_a_hundred_submits_of_one_key_are_one_job(ticking: Database, tmp_path: Path, scope: Scope) -> None:
    jobs = Jobs(ticking, ProcessEngine(os.environ), tmp_path / "jobs")
    spec = SubmitJob(command=["true"], idempotency_key="once")
    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(lambda _: jobs.submit_job(scope, spec).id, range(100)))
    assert len(set(made)) == 1
    assert len(jobs.list_jobs(scope).items) == 1
    with ticking.reading(scope) as tx:
        assert len(events.recent(tx, kinds=frozenset({"job.submitted"}))) == 1


def test_two_servers_on_one_catalog_start_each_job_once_and_never_too_many(
    ticking: Database, tmp_path: Path, scope: Scope
) -> None:
    other = Database(ticking.url, SystemClock())
    servers = [
        Jobs(database, ProcessEngine(os.environ, cpus=3), tmp_path / "jobs", server_url="http://127.0.0.1:1")
        for database in (ticking, other)
    ]
    command = [sys.executable, "-c", "open('count', 'a').write('x'); import time; time.sleep(0.1)"]
    made = [servers[0].submit_job(scope, SubmitJob(command=command)).id for _ in range(12)]
    together: list[int] = []
    loops = [ReconcileLoop(jobs.database, jobs.reconcilers(), interval_s=0.01) for jobs in servers]
    for loop in loops:
        loop.start()
    try:

        def over() -> bool:
            found = servers[0].list_jobs(scope).items
            together.append(sum(job.state is JobState.RUNNING for job in found))
            return all(job.state.final for job in found)

        until(over)
    finally:
        for loop in loops:
            loop.stop()
        other.close()
    assert max(together) <= 3
    for job_id in made:
        job = servers[0].get_job(scope, job_id)
        assert (job.state, len(job.attempts)) == (JobState.SUCCEEDED, 1)
        assert (tmp_path / "jobs" / job_id / "1" / "work" / "count").read_text() == "x"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    mount = tmp_path / "disk"
    mount.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(mount)], check=False, capture_output=True
    )
    if made.returncode != 0:
        pytest.skip("mounting a small file system needs root")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


def test_a_job_that_fills_the_disk_still_has_its_end_recorded(small_disk: Path) -> None:
    engine = ProcessEngine(os.environ)
    program = "import os\nprint('before', flush=True)\nimport time; time.sleep(0.3)\nfile = open('big', 'wb')\ntry:\n"
    program += "    while True:\n        file.write(b'x' * 4096); file.flush()\nexcept OSError as error:\n"
    program += (
        "    print('full', error.errno, flush=True)\nfor _ in range(1000): print('y' * 1000)\nraise SystemExit(9)"
    )
    spec = CommandSpec(directory=str(small_disk / "job"), argv=[sys.executable, "-c", program])
    end = engine.wait(engine.start(spec), WAIT_S)
    assert isinstance(end, Finished)
    assert end.exit_code == 9
    found = engine.find(spec.directory)
    assert found is not None
    assert engine.read_log(found).content.startswith(b"before\nfull 28\n")


def test_a_job_waits_for_space_and_runs_when_there_is_some(small_disk: Path, ticking: Database, scope: Scope) -> None:
    filler = small_disk / "filler"
    with pytest.raises(OSError, match="No space"), filler.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    engine = ProcessEngine(os.environ)
    with pytest.raises(Unavailable, match="disk is full"):
        engine.start(CommandSpec(directory=str(small_disk / "direct"), argv=["true"]))
    jobs = Jobs(ticking, engine, small_disk / "jobs", server_url="http://127.0.0.1:1")
    job = jobs.submit_job(scope, SubmitJob(command=["true"]))
    loop = ReconcileLoop(ticking, jobs.reconcilers())
    for _ in range(5):
        loop.step()
    assert jobs.get_job(scope, job.id).state is JobState.RUNNING
    filler.unlink()

    def ended() -> bool:
        loop.step()
        return jobs.get_job(scope, job.id).state.final

    until(ended)
    done = jobs.get_job(scope, job.id)
    assert (done.state, len(done.attempts)) == (JobState.SUCCEEDED, 1)
