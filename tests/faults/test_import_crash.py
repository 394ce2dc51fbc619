"""An import that is killed goes on where it was: nothing twice, nothing lost, nothing half called whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from modelyard.sdk.client import Client
from modelyard.sdk.imports import import_mlflow
from running import client_of, running_server

pytestmark = pytest.mark.slow
RUNS = 160
KILLS = 3


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def make_store(root: Path) -> None:
    """A folder of MLflow's file store with many small runs."""
    write(root / "0/meta.yaml", "experiment_id: '0'\nname: Default\nlifecycle_stage: active\n")
    for number in range(RUNS):
        run = root / "0" / f"a{number:031x}"
        write(
            run / "meta.yaml",
            f"run_id: a{number:031x}\nrun_name: r{number}\nstatus: 3\nlifecycle_stage: active\n"
            f"start_time: {number}\nend_time: {number + 1}\n",
        )
        for key in ("loss", "auc", "lr"):
            write(run / "metrics" / key, "".join(f"{at} {at * 0.5!r} {at}\n" for at in range(300)))
        write(run / "params/depth", str(number))
        for name in ("a.txt", "b/c.txt"):
            write(run / "artifacts" / name, f"{number}" * 1_000)


def complete_runs(client: Client) -> list[dict[str, Any]]:
    filter = "tags.`modelyard.import.state` = 'complete'"
    found: list[dict[str, Any]] = client.get("/api/runs", params={"filter": filter, "limit": 1_000})["items"]
    return found


def test_killed_again_and_again_it_comes_to_an_end(tmp_path: Path) -> None:
    make_store(tmp_path / "mlruns")
    with running_server(tmp_path / "home") as server:
        client = client_of(server)
        environment = {**os.environ, "MODELYARD_URL": server.url, "MODELYARD_TOKEN": server.token}
        command = [sys.executable, "-m", "modelyard", "import", "mlflow", str(tmp_path / "mlruns"), "--json"]
        killed_at = []
        for _ in range(KILLS):
            before = len(complete_runs(client))
            going = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            give_up = time.monotonic() + 60
            while len(complete_runs(client)) < before + 2 and going.poll() is None:
                assert time.monotonic() < give_up
                time.sleep(0.01)
            going.send_signal(signal.SIGKILL)
            assert going.wait(30) == -signal.SIGKILL, "it was killed before its end"
            killed_at.append(len(complete_runs(client)))
        assert killed_at == sorted(killed_at)
        assert killed_at[-1] < RUNS
        report = import_mlflow(str(tmp_path / "mlruns"), client=client)
        assert report.verified, report.problems
        assert 0 < report.counts["runs"].new == RUNS - killed_at[-1], "what was whole is not brought again"
        again = import_mlflow(str(tmp_path / "mlruns"), client=client, recheck=True)
        assert again.verified, again.problems
        assert again.counts["points"].here == RUNS * 900
        assert again.counts["files"].here == RUNS * 2
        told = client.get("/api/events", params={"kind": "run.imported", "limit": 1_000})["items"]
        subjects = [one["subject"] for one in told]
        assert len(subjects) == len(set(subjects)) == RUNS, "each run is told of once"
