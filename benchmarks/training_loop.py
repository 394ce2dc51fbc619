"""What logging costs a training loop: steps of about 1 ms with 10 metrics each, beside mlflow's client.

The floor is the bare loop; the peer is the mlflow client of `.venvs/mlflow3` (`make foreign`) against the same server.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks._loop import METRICS, slowdown

ROOT = Path(__file__).parents[1]
FOREIGN = ROOT / ".venvs" / "mlflow3" / "bin" / "python"


@contextmanager
def serving(home: Path) -> Iterator[tuple[str, str]]:
    """The URL and token of a server of ours in a process of its own."""
    command = [sys.executable, "-m", "benchmarks._serve_tracking", str(home)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url, token = process.stdout.readline().split()
            yield url, token
        finally:
            process.terminate()


def main() -> None:
    """Print by how much each client slows the loop, in percent of the bare loop."""
    with tempfile.TemporaryDirectory() as directory, serving(Path(directory) / "home") as (url, token):
        os.environ["MODELYARD_HOME"] = str(Path(directory) / "client")
        from modelyard.sdk.active_run import start_run
        from modelyard.sdk.client import Client

        print(f"steps of about 1 ms with {METRICS} metrics each; slowed against the bare loop by")
        run = start_run(client=Client(url, token=token))
        run.flush()
        _show("modelyard", slowdown(run.log_metrics))
        started = time.perf_counter()
        run.finish()
        print(f"  (all of it sent {time.perf_counter() - started:.2f} s after the loop)")
        if not FOREIGN.exists():
            print("  mlflow's client is not set up: `make foreign`")
            return
        environment = {**os.environ, "MLFLOW_TRACKING_TOKEN": token, "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "false"}
        done = subprocess.run(
            [str(FOREIGN), "-m", "benchmarks._loop", url], cwd=ROOT, env=environment, capture_output=True, text=True,
            check=True,
        )  # fmt: skip
        background, waiting = map(float, done.stdout.split()[-2:])
        _show("mlflow, in background", background)
        _show("mlflow", waiting)


def _show(name: str, part: float) -> None:
    print(f"  {name:<24}{100 * part:8.1f} %")
