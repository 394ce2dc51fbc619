"""What it costs to have Modelyard: packages, megabytes, import, `--help`, time until the server answers a
call of tracking, its memory.

Beside `mlflow` and a bare Python, each installed in a virtual environment of its own in this run.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks._servers import end, environment, free_port, wait_until_ready

ROOT = Path(__file__).parents[1]
MLFLOW = "mlflow==3.17.2"
REPEATS = 5
FIRST_CALL = "/api/2.0/mlflow/experiments/get-by-name?experiment_name=Default"
"""What has to be answered first: a call of tracking for both, since a health route may answer before the rest."""


@dataclass(frozen=True)
class Footprint:
    """Of one package. Times in seconds (best of several, bytecode cached), sizes in MB (10^6 bytes)."""

    name: str
    packages: int
    installed_mb: float
    import_s: float
    help_s: float
    ready_s: float
    processes: int
    memory_mb: float


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        ours = measure(Path(directory), "modelyard", str(ROOT), ["up", "--port", "{port}"])
        peer = None
        if "--alone" not in sys.argv:
            server = ["server", "--port", "{port}", "--backend-store-uri", f"sqlite:///{directory}/mlflow.db"]
            peer = measure(Path(directory), "mlflow", MLFLOW, server)
        floor = best(lambda: run([sys.executable, "-c", "pass"]))
    show(ours, peer, floor)


def measure(directory: Path, name: str, requirement: str, serve: list[str]) -> Footprint:
    venv = directory / f"venv-{name}"
    run([sys.executable, "-m", "venv", str(venv)])
    empty = len(packages(venv)), size_mb(venv)
    print(f"installing {name} …", flush=True)
    run([str(venv / "bin/python"), "-m", "pip", "install", "-q", "--no-compile", requirement])
    # Sizes before any start, since a start writes bytecode.
    installed = len(packages(venv)) - empty[0], size_mb(venv) - empty[1]
    python, command = str(venv / "bin/python"), str(venv / "bin" / name)
    import_s = best(lambda: run([python, "-c", f"import {name}"]))
    help_s = best(lambda: run([command, "--help"]))
    ready_s, processes, memory_mb = start(command, serve, directory / f"home-{name}")
    found = Footprint(name, *installed, import_s, help_s, ready_s, processes, memory_mb)
    print(found, flush=True)
    return found


def start(command: str, serve: list[str], home: Path) -> tuple[float, int, float]:
    """The warm start: the second one, on the catalog that the first made."""
    results = []
    for _ in range(2):
        port = free_port()
        arguments = [part.format(port=port) for part in serve]
        environ = environment(
            MODELYARD_HOME=str(home), MODELYARD_ANONYMOUS_ROLE="viewer", MLFLOW_DISABLE_TELEMETRY="true"
        )
        home.mkdir(exist_ok=True)
        began = time.monotonic()
        process = subprocess.Popen(
            [command, *arguments], cwd=home, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        try:
            wait_until_ready(f"http://127.0.0.1:{port}{FIRST_CALL}", process)
            ready_s = time.monotonic() - began
            time.sleep(3)
            tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            memory = sum(pss(one) for one in tree)
            results.append((ready_s, len(tree), memory / 1e6))
        finally:
            end(process)
    return results[-1]


def pss(process: psutil.Process) -> int:
    """Its share of memory; nothing, where it ended in the meantime, as helpers of a start do."""
    try:
        return int(process.memory_full_info().pss)
    except psutil.NoSuchProcess:
        return 0


def packages(venv: Path) -> list[str]:
    listed = subprocess.run(
        [str(venv / "bin/python"), "-m", "pip", "list", "--format=freeze"], capture_output=True, text=True, check=True
    )
    return listed.stdout.split()


def size_mb(venv: Path) -> float:
    return sum(f.stat().st_size for f in venv.rglob("*") if f.is_file() and not f.is_symlink()) / 1e6


def best(action: object) -> float:
    assert callable(action)
    action()
    times = []
    for _ in range(REPEATS):
        began = time.monotonic()
        action()
        times.append(time.monotonic() - began)
    return min(times)


def run(command: list[str]) -> None:
    subprocess.run(command, check=True, env=environment(), stdout=subprocess.DEVNULL)


def show(ours: Footprint, peer: Footprint | None, floor: float) -> None:
    width = shutil.get_terminal_size().columns
    print(f"floor: python -c pass {floor:.3f} s"[:width])
    print(f"{'':24}{'modelyard':>12}{'mlflow':>12}{'ratio':>9}")
    for label, field, digits in [
        ("packages", "packages", 0), ("installed, MB", "installed_mb", 0), ("import, s", "import_s", 3),
        ("--help, s", "help_s", 3), ("server ready (warm), s", "ready_s", 2), ("processes", "processes", 0),
        ("memory (PSS), MB", "memory_mb", 0),
    ]:  # fmt: skip
        mine = getattr(ours, field)
        if peer is None:
            print(f"{label:24}{mine:>12.{digits}f}")
            continue
        theirs = getattr(peer, field)
        print(f"{label:24}{mine:>12.{digits}f}{theirs:>12.{digits}f}{theirs / mine:>8.1f}x")
