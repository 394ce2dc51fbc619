"""Stores that real releases of MLflow wrote come over whole: SQLite files, folders, servers."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest

from foreign_python import foreign_python
from modelyard.sdk.imports import import_mlflow
from modelyard.server.run import Server
from modelyard.types.imports import ImportReport
from running import client_of, running_server

pytestmark = pytest.mark.slow
FILL = Path(__file__).parent / "programs" / "fill.py"
BOTH = pytest.mark.parametrize("release", ["mlflow3", "mlflow2"])
ENVIRONMENT = {**os.environ, "MLFLOW_ALLOW_FILE_STORE": "true", "OMP_NUM_THREADS": "1"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with running_server(tmp_path / "home") as running:
        yield running


def fill(release: str, uri: str, folder: Path) -> None:
    python = foreign_python(release)
    done = subprocess.run([python, FILL, uri], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]


def check(server: Server, report: ImportReport, release: str) -> None:
    """Look at what came through the platform's own eyes."""
    assert report.verified, report.problems
    counts = {noun: (count.there, count.here) for noun, count in report.counts.items()}
    assert counts["runs"] == (5, 5)
    assert counts["points"] == (2 * 81 + 1, 2 * 81 + 1)
    assert counts["versions"] == (2, 2)
    assert counts["aliases"] == (1, 1)
    client = client_of(server)
    experiments = {one["name"]: one for one in client.get("/api/experiments", params={"view": "all"})["items"]}
    assert experiments["flights"]["tags"]["team"] == "ops"
    assert experiments["old"]["stage"] == "deleted"
    runs = client.get("/api/runs", params={"view": "all"})["items"]
    assert {one["name"]: (one["status"], one["stage"]) for one in runs} == {
        "r0": ("FINISHED", "active"), "r1": ("FINISHED", "active"), "gone": ("RUNNING", "deleted"),
        "in a deleted experiment": ("FAILED", "deleted"), "going on": ("RUNNING", "active"),
    }  # fmt: skip
    first = next(one for one in runs if one["name"] == "r0")
    assert first["params"] == {"depth": "0", "lr": "0.0"}
    assert client.get_bytes(f"/api/runs/{first['id']}/artifacts/notes/a ü.txt") == "hello ü".encode()
    assert [one["digest"] != "" for one in client.get("/api/models/line/versions")] == [True, True]
    assert client.get("/api/models/line/aliases/champion")["version"] == 2
    assert client.get("/api/models/line/versions/1")["stage"] == "Staging"
    ties = client.get("/api/lineage", params={"urn": "model:line@1", "direction": "up"})["edges"]
    assert (f"run:{first['id']}", "produced", "model:line@1") in {
        (one["subject"], one["relation"], one["object"]) for one in ties
    }
    kinds = {one["kind"] for one in client.get("/api/events", params={"limit": 1000})["items"]}
    assert {"experiment.imported", "run.imported", "model.version_imported"} <= kinds
    assert "run.finished" not in kinds, "what is old sets nothing off"
    if release == "mlflow3":
        assert counts["logged models"] == (2, 2)


@BOTH
def test_a_sqlite_file(release: str, server: Server, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    fill(release, uri, tmp_path)
    check(server, import_mlflow(uri, client=client_of(server)), release)
    again = import_mlflow(uri, recheck=True, client=client_of(server))
    assert again.verified, again.problems
    assert all(count.new == 0 for count in again.counts.values()), again.counts


@BOTH
def test_a_folder_that_was_moved(release: str, server: Server, tmp_path: Path) -> None:
    fill(release, (tmp_path / "mlruns").as_uri(), tmp_path)
    (tmp_path / "mlruns").rename(tmp_path / "moved")
    report = import_mlflow(str(tmp_path / "moved"), client=client_of(server))
    check(server, report, release)


@BOTH
def test_a_server(release: str, server: Server, tmp_path: Path) -> None:
    with mlflow_server(release, tmp_path) as url:
        fill(release, url, tmp_path)
        check(server, import_mlflow(url, client=client_of(server)), release)


def test_one_of_our_own_servers(server: Server, tmp_path: Path) -> None:
    """We speak MLflow's API, so that one of our projects goes over to another server the same way."""
    with running_server(tmp_path / "other") as other:
        python = foreign_python("mlflow3")
        done = subprocess.run(
            [python, FILL, other.url], cwd=tmp_path, env={**ENVIRONMENT, "MLFLOW_TRACKING_TOKEN": other.token},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-4000:]
        check(server, import_mlflow(other.url, token=other.token, client=client_of(server)), "mlflow3")


@contextmanager
def mlflow_server(release: str, folder: Path) -> Iterator[str]:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    command = [
        foreign_python(release), "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{folder / 'server.db'}", "--artifacts-destination", str(folder / "files"),
    ]  # fmt: skip
    environment = {**ENVIRONMENT, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "server.log").open("w") as log:
        serving = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            give_up = time.monotonic() + 120
            while time.monotonic() < give_up:
                assert serving.poll() is None, (folder / "server.log").read_text()[-3000:]
                try:
                    if httpx.get(f"http://127.0.0.1:{port}/health", timeout=5).status_code == 200:
                        break
                except httpx.TransportError:
                    time.sleep(0.3)
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(serving.pid, 15)
            serving.wait(30)
