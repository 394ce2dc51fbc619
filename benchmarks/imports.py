"""Bringing MLflow's runs over, beside plainly reading the same folder: each run has 5 metrics of 50 points, 10 params
and a file."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from benchmarks._servers import ours
from modelyard.sdk.client import Client
from modelyard.sdk.imports import import_mlflow, open_mlflow
from modelyard.sdk.imports.source import Owner

RUNS = int(os.environ.get("RUNS", "400"))


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory) / "mlruns"
        make(root)
        read_s = read(root)
        with ours(Path(directory) / "home") as (url, token):
            began = time.perf_counter()
            report = import_mlflow(str(root), client=Client(url, token=token))
            took_s = time.perf_counter() - began
    if not report.verified:
        sys.exit(f"the import was not verified: {report.problems[:3]}")
    print(
        f"{RUNS} runs: {RUNS / took_s:.0f} runs/s, read back and verified; {took_s / read_s:.1f} x plainly reading them"
    )
    print(f"load {os.getloadavg()[0]:.1f}")


def make(root: Path) -> None:
    write(root / "0/meta.yaml", "experiment_id: '0'\nname: Default\nlifecycle_stage: active\n")
    for number in range(RUNS):
        run = root / "0" / f"a{number:031x}"
        write(
            run / "meta.yaml",
            f"run_id: {run.name}\nrun_name: r{number}\nstatus: 3\nlifecycle_stage: active\n"
            f"start_time: {number}\nend_time: {number + 1}\n",
        )
        for key in range(5):
            write(run / f"metrics/m{key}", "".join(f"{at} {at * 0.5!r} {at}\n" for at in range(50)))
        for key in range(10):
            write(run / f"params/p{key}", str(key))
        write(run / "artifacts/notes.txt", f"{number}" * 100)


def read(root: Path) -> float:
    """Seconds to read all of it once."""
    source = open_mlflow(str(root))
    began = time.perf_counter()
    for experiment in source.experiments():
        for run in source.runs(experiment.id):
            for key in run.metrics:
                source.history(run.id, key)
            for file in source.files(Owner("run", run.id)):
                with source.open(Owner("run", run.id), file.path) as pieces:
                    b"".join(pieces)
    return time.perf_counter() - began


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
