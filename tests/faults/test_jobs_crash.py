"""The server is killed (kill -9) in the middle of a pipeline run and comes back: nothing is lost or run twice."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import msgspec
import pytest

from modelyard.kernel.home import read_token
from modelyard.sdk.client import Client
from modelyard.types.jobs import Job
from modelyard.types.page import Page
from modelyard.types.pipelines import PipelineRun

pytestmark = pytest.mark.slow
WAIT_S = 120.0
FLOW = """
    import pathlib, time
    from modelyard.sdk.tasks import pipeline, task

    def note(folder, name):
        with open(pathlib.Path(folder) / name, "a") as file:
            file.write("x")

    @task
    def first(folder):
        note(folder, "first")
        return 1

    @task
    def slow(x, folder, which):
        note(folder, f"slow-{which}")
        while not (pathlib.Path(folder) / "go").exists():
            time.sleep(0.05)
        return x + which

    @task
    def last(values, folder):
        note(folder, "last")
        return sum(values)

    @pipeline
    def flow(folder: str):
        one = first(folder)
        return last([slow(one, folder, which) for which in (10, 20)], folder)
"""


class Crashing:
    """A real server process that can be killed and started again, on the same port or on another."""

    def __init__(self, root: Path) -> None:
        self.home = root / "home"
        self.notes = root / "notes"
        self.notes.mkdir()
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def up(self) -> Client:
        command = [sys.executable, "-m", "modelyard", "--home", str(self.home), "up", "--port", str(self.port)]
        env = {**os.environ, "MODELYARD_CPUS": "4", "MODELYARD_RECONCILE_INTERVAL_S": "0.2"}
        self.process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, start_new_session=True)
        url = f"http://127.0.0.1:{self.port}"
        self.until(lambda: self.answers(url))
        return Client(url, token=read_token(self.home))

    def answers(self, url: str) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, "the server ended by itself"
        try:
            return httpx.get(f"{url}/api/health").status_code == 200
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        assert self.process is not None
        # The server alone, not its group: what it started must live on.
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + WAIT_S
        while not condition():
            assert time.monotonic() < deadline, "it did not happen"
            time.sleep(0.05)

    def noted(self) -> dict[str, str]:
        return {file.name: file.read_text() for file in self.notes.iterdir() if file.name != "go"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def crashing(tmp_path: Path) -> Iterator[Crashing]:
    crashing = Crashing(tmp_path)
    yield crashing
    (crashing.notes / "go").write_text("")
    if crashing.process is not None and crashing.process.poll() is None:
        crashing.kill()


def start(crashing: Crashing, client: Client, tmp_path: Path) -> PipelineRun:
    project = tmp_path / "project"
    project.mkdir()
    (project / "pyproject.toml").write_text("")
    (project / "flow.py").write_text(textwrap.dedent(FLOW))
    command = [sys.executable, "-m", "modelyard", "--url", client.base_url, "pipeline", "run", "flow.py:flow"]
    arguments = ["-P", f"folder={crashing.notes}", "--no-wait", "--json"]
    env = {**os.environ, "MODELYARD_TOKEN": client.token}
    done = subprocess.run([*command, *arguments], cwd=project, env=env, check=True, capture_output=True)
    return msgspec.json.decode(done.stdout, type=PipelineRun)


def jobs(client: Client) -> list[Job]:
    return client.get("/api/jobs", Page[Job]).items


def get(client: Client, run: PipelineRun) -> PipelineRun:
    return client.get(f"/api/pipeline-runs/{run.id}", PipelineRun)


def test_a_run_goes_on_after_the_server_was_killed_while_its_steps_ran(crashing: Crashing, tmp_path: Path) -> None:
    client = crashing.up()
    run = start(crashing, client, tmp_path)
    crashing.until(lambda: set(crashing.noted()) == {"first", "slow-10", "slow-20"})
    crashing.kill()
    client = crashing.up()
    assert get(client, run).state == "running"
    (crashing.notes / "go").write_text("")
    crashing.until(lambda: get(client, run).state.final)
    done = get(client, run)
    assert (done.state, done.result) == ("succeeded", 32)
    assert crashing.noted() == {"first": "x", "slow-10": "x", "slow-20": "x", "last": "x"}
    assert all(len(job.attempts) == 1 for job in jobs(client))


def test_workers_that_end_while_the_server_is_down_wait_for_it(crashing: Crashing, tmp_path: Path) -> None:
    client = crashing.up()
    run = start(crashing, client, tmp_path)
    crashing.until(lambda: set(crashing.noted()) == {"first", "slow-10", "slow-20"})
    crashing.kill()
    (crashing.notes / "go").write_text("")
    time.sleep(1.0)  # long enough that the workers find nobody to report to
    client = crashing.up()
    crashing.until(lambda: get(client, run).state.final)
    assert get(client, run).result == 32
    assert crashing.noted() == {"first": "x", "slow-10": "x", "slow-20": "x", "last": "x"}


def test_killed_at_any_moment_the_run_ends_right(crashing: Crashing, tmp_path: Path) -> None:
    """Kills at moments spread over the run, which hit whatever the server is doing then."""
    (crashing.notes / "go").write_text("")
    client = crashing.up()
    run = start(crashing, client, tmp_path)
    for delay_s in (0.05, 0.3, 0.9):
        time.sleep(delay_s)
        crashing.kill()
        client = crashing.up()
    crashing.until(lambda: get(client, run).state.final)
    done = get(client, run)
    assert (done.state, done.result) == ("succeeded", 32), done
    assert client.get("/api/audit")["ok"] is True
    assert all(job.state == "succeeded" for job in jobs(client))
