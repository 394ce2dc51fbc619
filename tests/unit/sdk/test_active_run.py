"""`modelyard.start_run` against a running server: what is logged arrives, whatever happens to server and program."""

from __future__ import annotations

import json
import math
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from modelyard.kernel.errors import Conflict, InvalidInput
from modelyard.sdk.active_run import ActiveRun, start_run
from modelyard.sdk.client import Client
from modelyard.sdk.tracking import get_run, list_artifacts, read_history
from modelyard.sdk.uploads import upload_leftovers
from modelyard.server.run import Server
from modelyard.types.tracking import CreateRun, Run
from running import client_of, running_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("sdk") / "home") as server:
        yield server


@pytest.fixture
def client(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setenv("MODELYARD_HOME", str(tmp_path / "own"))
    return client_of(server)


def _plain(client: Client, **options: object) -> ActiveRun:
    return start_run(client=client, capture=False, system_metrics=False, **options)  # type: ignore[arg-type]


def test_what_a_loop_logs_arrives_whole_and_in_order(client: Client) -> None:
    with _plain(client, params={"lr": 0.1}) as run:
        for step in range(500):
            run.log_metrics({"loss": 1 / (step + 1), "acc": step / 500}, step)
            run.log_metric("lr", 0.1, step)
    for key in ("loss", "acc", "lr"):
        assert read_history(run.id, key, client=client).steps == list(range(500))
    found = get_run(run.id, client)
    assert found.status == "FINISHED"
    assert found.params == {"lr": "0.1"}


def test_odd_numbers_are_kept_or_refused_at_the_call(client: Client) -> None:
    with _plain(client) as run:
        run.log_metrics({"a": math.nan, "b": math.inf, "c": np.float32(0.5), "d": True, "e": 7}, 1)
        with pytest.raises(InvalidInput, match="metric 'x' is 'high'"):
            run.log_metrics({"ok": 1.0, "x": "high"})  # type: ignore[dict-item]
    found = {metric.key: metric.value for metric in get_run(run.id, client).metrics}
    assert found == {"a": None, "b": sys.float_info.max, "c": 0.5, "d": 1.0, "e": 7.0}


def test_one_refused_key_costs_no_other(client: Client) -> None:
    run = _plain(client, params={"lr": 1})
    run.flush()
    run.log_params({"lr": 2})
    run.log_metrics({"good": 1.0, "bad\nkey": 2.0})
    with pytest.raises((InvalidInput, Conflict)):
        run.flush()
    run.finish()
    assert [metric.key for metric in get_run(run.id, client).metrics] == ["good"]


def test_very_many_keys_in_one_step(client: Client) -> None:
    with _plain(client) as run:
        run.log_metrics({f"k{at}": float(at) for at in range(12_000)})
    assert len(get_run(run.id, client).metrics) == 12_000


def test_media_lie_under_their_names(client: Client) -> None:
    with _plain(client) as run:
        run.log_image("sample", np.zeros((4, 4, 3)), step=2)
        run.log_table({"x": [1, 2]}, "tables/errors.json")
        run.log_histogram("weights", np.arange(100), step=3)
        run.log_text("hello", "notes/hello.txt")
        run.log_dict({"a": {"b": 1}}, "config.json")
    paths = {one.path for folder in ("", "tables", "histograms/weights", "notes") for one in
             list_artifacts(run.id, folder, client) if not one.is_dir}  # fmt: skip
    assert paths == {"tables/errors.json", "histograms/weights/000000000003.json", "notes/hello.txt", "config.json"}
    (image,) = list_artifacts(run.id, "images", client)
    assert image.path.startswith("images/sample+step+2+timestamp+")
    tags = get_run(run.id, client).tags
    assert json.loads(tags["mlflow.loggedArtifacts"]) == [{"path": "tables/errors.json", "type": "table"}]
    with pytest.raises(InvalidInput):
        run.log_text("x", "../up.txt")


def test_code_packages_seed_and_load_are_on_record(client: Client, tmp_path: Path) -> None:
    with start_run(client=client, seed=7, system_metrics=0.05) as run:
        drawn = random.random()
        run.flush()
        run.log_metric("loss", 1.0)
    assert drawn == random.Random(7).random()
    found = get_run(run.id, client)
    assert found.tags["modelyard.seed"] == "7"
    listed = client.get_bytes(f"/api/runs/{run.id}/artifacts/environment/requirements.txt").decode()
    assert "\nmsgspec==" in listed
    assert "system/cpu_utilization_percentage" in {metric.key for metric in found.metrics}
    graph = json.dumps(client.get("/api/lineage", params={"urn": f"run:{run.id}"}))
    assert f"env:{found.tags['modelyard.env']}" in graph
    assert f"code:{found.tags['mlflow.source.git.commit']}" in graph


DYING = """
import os, sys, numpy
from modelyard.sdk.active_run import ActiveRun
from modelyard.sdk.client import Client
from modelyard.types.tracking import Run
from pathlib import Path
import msgspec

run = msgspec.json.decode(sys.argv[2], type=Run)
run = ActiveRun(run, Client(sys.argv[1]), Path(sys.argv[3]))
run.log_metric("loss", 0.5)
run.log_text("kept", "kept.txt")
run.flush()
os.kill(os.getpid(), 9)
"""


@pytest.mark.slow
def test_what_was_flushed_outlives_the_program_and_the_absent_server(client: Client, tmp_path: Path) -> None:
    import msgspec

    run = client.post("/api/runs", CreateRun(), Run)
    spool = tmp_path / "own" / "spool" / "default"
    command = [sys.executable, "-c", DYING, "http://127.0.0.1:9", msgspec.json.encode(run).decode(), str(spool)]
    died = subprocess.run(command, timeout=60, check=False)
    assert died.returncode == -signal.SIGKILL
    # The next run of the same home brings what is left.
    with _plain(client):
        pass
    assert client.get_bytes(f"/api/runs/{run.id}/artifacts/kept.txt") == b"kept"
    assert read_history(run.id, "loss", client=client).values == [0.5]
    assert list(spool.iterdir()) == []


def test_files_of_a_living_program_are_left_alone(client: Client, tmp_path: Path) -> None:
    run = client.post("/api/runs", CreateRun(), Run)
    living = ActiveRun(run, Client("http://127.0.0.1:9"), tmp_path / "spool")
    living.log_text("mine", "mine.txt")
    assert upload_leftovers(client, tmp_path / "spool") == 0
    living._uploads.close(timeout_s=1)
    assert upload_leftovers(client, tmp_path / "spool") == 1
    assert client.get_bytes(f"/api/runs/{run.id}/artifacts/mine.txt") == b"mine"
    living._ended = True
