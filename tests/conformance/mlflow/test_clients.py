"""Programs of MLflow's users, run unchanged by the releases 3.17 and 2.22 in interpreters of their own, against us.

Each program in `programs/` asserts what it needs itself; nothing but the environment tells it where the server is. What
the platform knows afterwards is looked at here.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from foreign_python import foreign_python
from modelyard.kernel.auth import Role
from modelyard.server.run import Server
from running import client_of, running_server, token_for

pytestmark = pytest.mark.slow
PROGRAMS = Path(__file__).parent / "programs"
BOTH = pytest.mark.parametrize("release", ["mlflow3", "mlflow2"])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server; each test has a project of its own."""
    with running_server(tmp_path_factory.mktemp("home") / "home") as running:
        yield running


@pytest.fixture
def project(request: pytest.FixtureRequest) -> str:
    return f"p{abs(hash(request.node.nodeid)) % 10**12}"


def environment(server: Server, project: str, python: Path, folder: Path) -> dict[str, str]:
    """What a user sets, and what any program needs; nothing of this process's own."""
    return {
        "MLFLOW_TRACKING_URI": f"{server.url}/p/{project}",
        "MLFLOW_TRACKING_TOKEN": token_for(server, "ann", Role.CONTRIBUTOR, project),
        "PATH": f"{python.parent}:{os.environ['PATH']}",
        "HOME": str(folder),
        "OMP_NUM_THREADS": "1",
        "MPLCONFIGDIR": str(folder),
    }


def run_program(name: str, release: str, server: Server, project: str, folder: Path) -> dict[str, Any]:
    """Run a program to its end and read the last line that it prints."""
    python = foreign_python(release)
    done = subprocess.run(
        [python, PROGRAMS / name], env=environment(server, project, python, folder), cwd=folder,
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-6000:]}"
    lines = done.stdout.strip().splitlines()
    found: dict[str, Any] = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}
    return found


@BOTH
def test_the_fluent_api_and_the_client(release: str, server: Server, project: str, tmp_path: Path) -> None:
    seen = run_program("fluent.py", release, server, project, tmp_path)
    assert {"notes", "plots", "table.json", "images"} <= set(seen["artifacts"])
    assert any("cpu_utilization" in key for key in seen["system"]), seen["system"]
    found = client_of(server, project).get(f"/api/runs/{seen['parent']}")
    assert found["inputs"][0]["tags"] == {"mlflow.data.context": "training"}
    kinds = [one["kind"] for one in client_of(server, project).get("/api/events?limit=1000")["items"]]
    assert kinds.count("run.finished") >= 5


@BOTH
def test_autologging_of_scikit_learn(release: str, server: Server, project: str, tmp_path: Path) -> None:
    run_program("sklearn_autolog.py", release, server, project, tmp_path)


def test_autologging_of_xgboost_and_lightgbm(server: Server, project: str, tmp_path: Path) -> None:
    run_program("boosters.py", "mlflow3", server, project, tmp_path)


def test_autologging_of_pytorch(server: Server, project: str, tmp_path: Path) -> None:
    seen = run_program("torch_autolog.py", "mlflow3", server, project, tmp_path)
    assert any("checkpoint" in one for one in seen["files"]), seen


@BOTH
def test_evaluation_of_a_model(release: str, server: Server, project: str, tmp_path: Path) -> None:
    seen = run_program("evaluate.py", release, server, project, tmp_path)
    assert seen["metrics"] > 5


@BOTH
def test_the_registry(release: str, server: Server, project: str, tmp_path: Path) -> None:
    seen = run_program("registry.py", release, server, project, tmp_path)
    client = client_of(server, project)
    versions = client.get("/api/models/line/versions")
    assert [one["version"] for one in versions] == [4, 3, 2, 1]
    assert all(one["digest"] for one in versions), "what was registered is here, file by file"
    assert versions[2]["provenance"]["run"] == seen["run"]
    moves = client.get("/api/models/line/history")
    assert [one["alias"] for one in moves if one["kind"] == "promote"] == ["champion", "challenger"]


def test_traces(server: Server, project: str, tmp_path: Path) -> None:
    seen = run_program("trace.py", "mlflow3", server, project, tmp_path)
    assert seen["spans"] == 4


@BOTH
def test_mlflow_serves_a_model_of_our_registry(release: str, server: Server, project: str, tmp_path: Path) -> None:
    run_program("served.py", release, server, project, tmp_path)
    python = foreign_python(release)
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    command = [python, "-m", "mlflow", "models", "serve", "-m", "models:/served@champion", "--env-manager", "local",
               "--host", "127.0.0.1", "--port", str(port)]  # fmt: skip
    with (tmp_path / "log").open("w") as log:
        serving = subprocess.Popen(
            command, env=environment(server, project, python, tmp_path), cwd=tmp_path, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
        try:
            address = f"http://127.0.0.1:{port}"
            _wait_for(address, serving, tmp_path / "log")
            asked = {"dataframe_split": {"columns": ["a", "b"], "data": [[3.0, 9.0], [5.0, 25.0]]}}
            answered = httpx.post(f"{address}/invocations", json=asked, timeout=60)
            assert answered.json()["predictions"] == pytest.approx([7.0, 11.0]), answered.text
        finally:
            os.killpg(serving.pid, 15)
            serving.wait(30)


def _wait_for(address: str, serving: subprocess.Popen[bytes], log: Path) -> None:
    give_up = time.monotonic() + 120
    while time.monotonic() < give_up:
        assert serving.poll() is None, log.read_text()[-4000:]
        try:
            if httpx.get(f"{address}/ping", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    pytest.fail(f"it did not come up: {log.read_text()[-4000:]}")
