"""How fast tracking takes and gives back what is logged, over plain HTTP so that no client is the bottleneck.

Beside the floor (SQLite's `executemany` of the same rows, one commit a batch) and, unless `--alone`, beside
`mlflow server` with one worker over SQLite, where the program `mlflow` with its server parts is installed (`MLFLOW`
names another than the one on the PATH). Both servers answer on loopback; each figure is measured the same way.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[1]
BATCH = 1_000
SEARCHED_RUNS = 2_000
HISTORY_POINTS = 100_000
READY_TIMEOUT_S = 180
API = "/api/2.0/mlflow"


@dataclass(frozen=True)
class Figure:
    """A measured thing: `value` in `unit`; whether more is better."""

    name: str
    value: float
    unit: str
    more_is_better: bool


class Plain:
    """One keep-alive connection that speaks MLflow's REST API."""

    def __init__(self, url: str, token: str = "") -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=120)
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})

    def call(self, method: str, path: str, body: Any = None) -> Any:
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        self._connection.request(method, API + path, content, self._headers)
        reply = self._connection.getresponse()
        found = reply.read()
        if reply.status != 200:
            raise RuntimeError(f"{method} {path}: {reply.status} {found[:300]!r}")
        return json.loads(found)

    def create_run(self) -> str:
        made = self.call("POST", "/runs/create", {"experiment_id": "0", "start_time": time.time_ns() // 10**6})
        return str(made["run"]["info"]["run_id"])


def points(key: str, start: int, count: int) -> list[dict[str, Any]]:
    return [{"key": key, "value": at * 0.5, "timestamp": at, "step": at} for at in range(start, start + count)]


def rate(act: Callable[[int], object], seconds: float = 3.0) -> float:
    """Calls a second."""
    act(0)
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        done += 1
        act(done)
    return done / (time.perf_counter() - started)


def median_ms(act: Callable[[], object], times: int = 7) -> float:
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        act()
        taken.append((time.perf_counter() - started) * 1_000)
    return sorted(taken)[times // 2]


def measure(url: str, token: str, searched: int) -> list[Figure]:
    """All figures of one server."""
    plain = Plain(url, token)
    run = plain.create_run()

    def log_metric(at: int) -> None:
        plain.call("POST", "/runs/log-metric", {"run_id": run, "key": "one", "value": 1, "timestamp": at, "step": at})

    # Written beforehand, since writing JSON is the client's work.
    batches = [json.dumps({"run_id": run, "metrics": points("many", at * BATCH, BATCH)}).encode() for at in range(200)]

    def log_batch(at: int) -> None:
        plain.call("POST", "/runs/log-batch", batches[at % len(batches)])

    figures = [
        Figure("log-metric", rate(log_metric), "calls/s", True),
        Figure("log-batch of 1000", rate(log_batch) * BATCH, "points/s", True),
        Figure("runs/create", rate(lambda _: plain.create_run()), "runs/s", True),
        Figure("runs/get", rate(lambda _: plain.call("GET", f"/runs/get?run_id={run}")), "runs/s", True),
    ]
    history = plain.create_run()
    for start in range(0, HISTORY_POINTS, BATCH):
        plain.call("POST", "/runs/log-batch", {"run_id": history, "metrics": points("m", start, BATCH)})
    path = f"/metrics/get-history?run_id={history}&metric_key=m"
    figures.append(Figure("history of 100k points", median_ms(lambda: plain.call("GET", path), 3), "ms", False))
    for at in range(searched):
        one = plain.create_run()
        params = [{"key": f"p{key}", "value": str(at % 10)} for key in range(5)]
        metrics = [{"key": f"m{key}", "value": (at * 7919) % 1_000, "timestamp": 1, "step": 0} for key in range(5)]
        plain.call("POST", "/runs/log-batch", {"run_id": one, "metrics": metrics, "params": params})
    ordered = {"experiment_ids": ["0"], "order_by": ["metrics.m1 DESC"], "max_results": 100}
    filtered = {**ordered, "filter": "metrics.m2 > 500 AND params.p1 = '3'"}
    for name, asked in (("search, ordered by a metric", ordered), ("search, filtered and ordered", filtered)):
        taken = median_ms(lambda asked=asked: plain.call("POST", "/runs/search", asked))  # type: ignore[misc]
        figures.append(Figure(f"{name}, {searched} runs", taken, "ms", False))
    return figures


def floor(directory: Path) -> float:
    """Rows a second that SQLite takes of the same points, synced to disk a batch at a time as ours are."""
    connection = sqlite3.connect(directory / "floor.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE metrics (run TEXT, key TEXT, value REAL, step INTEGER, timestamp INTEGER)")

    def batch(at: int) -> None:
        rows = [("r", "many", at * 0.5, at, at) for at in range(at * BATCH, at * BATCH + BATCH)]
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO metrics VALUES (?, ?, ?, ?, ?)", rows)
        connection.execute("COMMIT")

    return rate(batch) * BATCH


@contextmanager
def ours(directory: Path) -> Iterator[tuple[str, str]]:
    """A server of ours in a process of its own: its URL and token."""
    environment = {**os.environ, "MODELYARD_HOME": str(directory / "ours"), "MODELYARD_PORT": "0", "NO_COLOR": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-m", "benchmarks._serve_tracking", str(directory / "ours")]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        url, token = process.stdout.readline().split()
        yield url, token
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def theirs(directory: Path, program: str) -> Iterator[tuple[str, str]]:
    """`mlflow server` with one worker over SQLite."""
    port = 5_911
    (directory / "theirs").mkdir()
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    command = [program, "server", "--port", str(port), "--workers", "1", "--backend-store-uri", "sqlite:///mlflow.db"]
    log = (directory / "theirs.log").open("w")
    process = subprocess.Popen(command, cwd=directory / "theirs", env=environment, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline:
            try:
                Plain(f"http://127.0.0.1:{port}").call("GET", "/experiments/get?experiment_id=0")
                break
            except (OSError, RuntimeError, http.client.HTTPException):
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}", ""
    finally:
        process.terminate()
        process.wait(30)


def main() -> None:
    """Measure, and print each figure with its ratio to MLflow's."""
    program = os.environ.get("MLFLOW") or shutil.which("mlflow") or ""
    searched = int(os.environ.get("BENCHMARK_RUNS", SEARCHED_RUNS))
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        lowest = floor(directory)
        with ours(directory) as (url, token):
            mine = measure(url, token, searched)
        other: dict[str, Figure] = {}
        if program and "--alone" not in sys.argv:
            with theirs(directory, program) as (url, token):
                other = {figure.name: figure for figure in measure(url, token, searched)}
    print(f"{'':40} {'modelyard':>14} {'mlflow':>14} {'ratio':>8}")
    for figure in mine:
        peer = other.get(figure.name)
        ratio = ""
        if peer is not None:
            times = figure.value / peer.value if figure.more_is_better else peer.value / figure.value
            ratio = f"{times:7.1f}x"
        theirs_shown = f"{peer.value:14,.1f}" if peer else f"{'-':>14}"
        print(f"{figure.name:40} {figure.value:14,.1f} {theirs_shown} {ratio:>8}  {figure.unit}")
    batch = next(figure for figure in mine if figure.name.startswith("log-batch"))
    print(f"{'floor: SQLite executemany':40} {lowest:14,.1f} {'':>14} {batch.value / lowest:7.2f}   rows/s; ours to it")
