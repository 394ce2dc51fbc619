"""Runs that the real clients of W&B and TensorBoard logged, imported and looked at here."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from foreign_python import foreign_python
from modelyard.sdk.client import Client
from modelyard.sdk.imports import import_tensorboard, import_wandb
from running import client_of, running_server

pytestmark = pytest.mark.slow
WANDB = """
import math, time
import numpy as np
import wandb
from PIL import Image

for number in range(2):
    run = wandb.init(project="flights", entity="ops", name=f"run{number}", tags=["a", "b"], notes="what it is",
                     config={"lr": 0.1 * number, "opt": {"name": "adam", "eps": [1, 2]}})
    for step in range(500):
        run.log({"loss": 1 / (step + 1 + number), "val": {"auc": step / 500}, "nan": math.nan}, step=step)
    run.log({"img": wandb.Image(Image.new("RGB", (8, 8))), "hist": wandb.Histogram(np.arange(10.0)), "word": "late",
             "table": wandb.Table(columns=["x", "y"], data=[[1, "a"]])})
    run.summary["best"] = 0.9
    run.summary["verdict"] = "good"
    artifact = wandb.Artifact("model", "model")
    open("m.bin", "wb").write(b"12345")
    artifact.add_file("m.bin")
    run.log_artifact(artifact)
    run.finish(exit_code=number)
"""
TENSORBOARD = """
import numpy as np
from torch.utils.tensorboard import SummaryWriter

writer = SummaryWriter("runs/a")
for step in range(200):
    writer.add_scalar("loss/train", 1 / (step + 1), step)
writer.add_histogram("weights", np.arange(100.0), 3)
writer.add_image("img", np.zeros((3, 8, 8)), 2)
writer.add_text("note", "hello ü", 1)
writer.add_hparams({"lr": 0.1, "opt": "adam"}, {"hp/auc": 0.9}, run_name="best")
writer.add_pr_curve("pr", np.array([0, 1, 1, 0]), np.array([0.1, 0.8, 0.9, 0.3]), 0)
writer.close()
"""


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    with running_server(tmp_path / "home") as server:
        yield client_of(server)


def run_program(environment: str, text: str, folder: Path) -> None:
    python = foreign_python(environment)
    given = {**os.environ, "WANDB_MODE": "offline", "WANDB_SILENT": "true", "HOME": str(folder)}
    done = subprocess.run([python, "-c", text], cwd=folder, env=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]


def test_offline_runs_of_wandb(client: Client, tmp_path: Path) -> None:
    run_program("wandb", WANDB, tmp_path)
    report = import_wandb(tmp_path / "wandb", client=client)
    assert report.verified, report.problems
    runs = {one["name"]: one for one in client.get("/api/runs")["items"]}
    assert {name: one["status"] for name, one in runs.items()} == {"run0": "FINISHED", "run1": "FAILED"}
    run = runs["run1"]
    assert run["params"] == {"lr": "0.1", "opt.name": "adam", "opt.eps": "[1, 2]"}
    assert run["tags"]["wandb.tags"] == "a, b"
    assert run["tags"]["wandb.summary.verdict"] == "good"
    latest = {one["key"]: one["value"] for one in run["metrics"]}
    assert (latest["loss"], latest["val.auc"], latest["nan"], latest["best"]) == (1 / 501, 499 / 500, None, 0.9)
    assert any(key.startswith("system/") for key in latest)
    history = client.get(f"/api/runs/{run['id']}/metrics/loss")
    assert history["values"] == [1 / (step + 2) for step in range(500)]
    assert history["steps"] == list(range(500))
    paths = [one["path"] for one in client.get(f"/api/runs/{run['id']}/artifacts", params={"tree": "true"})]
    assert {"history/hist.jsonl", "history/word.jsonl", "requirements.txt"} <= set(paths)
    assert any(path.startswith("media/images/") for path in paths)
    assert client.get_bytes(f"/api/runs/{run['id']}/artifacts/artifacts/model/m.bin") == b"12345"
    again = import_wandb(tmp_path / "wandb", client=client, recheck=True)
    assert again.verified
    assert all(count.new == 0 for count in again.counts.values()), again.counts


def test_event_files_of_tensorboard(client: Client, tmp_path: Path) -> None:
    run_program("mlflow3", TENSORBOARD, tmp_path)
    report = import_tensorboard(tmp_path / "runs", client=client)
    assert report.verified, report.problems
    runs = {one["name"]: one for one in client.get("/api/runs")["items"]}
    assert set(runs) == {"a", "a/best"}
    assert runs["a/best"]["params"] == {"lr": "0.1", "opt": "adam"}
    history = client.get(f"/api/runs/{runs['a']['id']}/metrics/loss/train")
    assert history["values"] == pytest.approx([1 / (step + 1) for step in range(200)], rel=1e-6)
    paths = {one["path"] for one in client.get(f"/api/runs/{runs['a']['id']}/artifacts", params={"tree": "true"})}
    assert {"images/img/2.png", "history/weights.jsonl"} <= paths
    picture = client.get_bytes(f"/api/runs/{runs['a']['id']}/artifacts/images/img/2.png")
    assert picture.startswith(b"\x89PNG")
    again = import_tensorboard(tmp_path / "runs", client=client, recheck=True)
    assert again.verified
    assert all(count.new == 0 for count in again.counts.values())
