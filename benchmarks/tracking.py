"""How fast tracking takes and gives back what is logged, over plain HTTP so that no client is the bottleneck.

Beside the floors (SQLite's `executemany` of the same rows, one commit a batch; a server that does nothing) and, unless
`--alone`, beside `mlflow server` with one worker over SQLite, from the environment that `make foreign` sets up. All run
in turn on the same machine; each figure is measured the same way. (`benchmarks.search` has the searches.)
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks._servers import API, Plain, mlflow_program, noop, ours, theirs

BATCH = 1_000
HISTORY_POINTS = 100_000
LONG_POINTS = 1_000_000
CLIENTS = 32
COMPACTED_S = 15
SECONDS = float(os.environ.get("BENCHMARK_SECONDS", "3"))


@dataclass(frozen=True)
class Figure:
    """A measured thing: `value` in `unit`; whether more is better; how many times the peer's it should be."""

    name: str
    value: float
    unit: str
    more_is_better: bool
    aim: float = 0.0


def points(key: str, start: int, count: int) -> list[dict[str, Any]]:
    return [{"key": key, "value": at * 0.5, "timestamp": at, "step": at} for at in range(start, start + count)]


def rate(act: Callable[[int], object], seconds: float = SECONDS) -> float:
    """Calls a second."""
    act(0)
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        done += 1
        act(done)
    return done / (time.perf_counter() - started)


def best_ms(act: Callable[[], object], times: int = 5) -> float:
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        act()
        taken.append((time.perf_counter() - started) * 1_000)
    return min(taken)


def at_once(url: str, token: str, clients: int, seconds: float, act: Callable[[Plain, int], object]) -> float:
    """Calls a second of so many clients together, each on its own connection. A call that fails ends the benchmark."""
    counts, failed = [0] * clients, []
    until = time.perf_counter() + seconds

    def one(place: int) -> None:
        plain = Plain(url, token)
        try:
            while time.perf_counter() < until:
                act(plain, place)
                counts[place] += 1
        except (RuntimeError, OSError) as error:
            failed.append(error)

    threads = [threading.Thread(target=one, args=(place,)) for place in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise RuntimeError(f"{len(failed)} of {clients} clients failed: {failed[0]}")
    return sum(counts) / seconds


def measure_writes(url: str, token: str) -> list[Figure]:
    """Calls one after the other on one connection, and those of many clients at once."""
    plain = Plain(url, token)
    run = plain.create_run()

    def metric(at: int, client: Plain = plain, key: str = "one") -> None:
        body = {"run_id": run, "key": key, "value": 1, "timestamp": at, "step": at}
        client.send("POST", f"{API}/runs/log-metric", body)

    # Written beforehand, since writing JSON is the client's work.
    batches = [json.dumps({"run_id": run, "metrics": points("many", at * BATCH, BATCH)}).encode() for at in range(100)]

    def batch(at: int) -> None:
        plain.send("POST", f"{API}/runs/log-batch", batches[at % len(batches)])

    figures = [
        Figure("log-metric", rate(metric), "calls/s", True, 10),
        Figure("log-batch of 1000", rate(batch) * BATCH, "points/s", True, 20),
        Figure("runs/create", rate(lambda _: plain.create_run()), "runs/s", True, 10),
        Figure("runs/get", rate(lambda _: plain.send("GET", f"{API}/runs/get?run_id={run}")), "runs/s", True, 10),
    ]
    counts = [0] * CLIENTS

    def own_metric(client: Plain, place: int) -> None:
        metric(counts[place], client, f"client{place}")
        counts[place] += 1

    many = at_once(url, token, CLIENTS, SECONDS, own_metric)
    figures.append(Figure(f"log-metric, {CLIENTS} clients at once", many, "calls/s", True))
    for place in range(0, CLIENTS, 5):
        path = f"/metrics/get-history?run_id={run}&metric_key=client{place}"
        kept = plain.call("GET", path).get("metrics", [])
        if len(kept) != counts[place]:
            raise RuntimeError(f"client {place} had {counts[place]} calls answered, {len(kept)} points are kept")
    return figures


def measure_history(url: str, token: str) -> list[Figure]:
    """The whole history of a series, as bytes: reading JSON is the client's work."""
    plain = Plain(url, token)
    run = plain.create_run()
    for start in range(0, HISTORY_POINTS, BATCH):
        plain.call("POST", "/runs/log-batch", {"run_id": run, "metrics": points("m", start, BATCH)})
    path = f"{API}/metrics/get-history?run_id={run}&metric_key=m"
    return [Figure("history of 100k points", best_ms(lambda: plain.send("GET", path), 3), "ms", False, 20)]


def measure_chart(url: str, token: str) -> list[Figure]:
    """A series of a million points, thinned to 2,000; MLflow's API has no such thing."""
    plain = Plain(url, token)
    run = plain.create_run()
    many = LONG_POINTS // 20
    for start in range(0, LONG_POINTS, many):
        _native(
            plain, f"/api/runs/{run}/log", {"metrics": [["m", at * 0.5, at, at] for at in range(start, start + many)]}
        )
    path = f"/api/runs/{run}/metrics/m"
    # Compaction runs beside; what a chart costs before and after it is said.
    before = best_ms(lambda: plain.send("GET", path))
    for _ in range(COMPACTED_S):
        time.sleep(1)
        plain.send("GET", path)
    after = best_ms(lambda: plain.send("GET", path))
    return [
        Figure("chart of 1M points, just logged", before, "ms", False),
        Figure("chart of 1M points, compacted", after, "ms", False),
    ]


def _native(plain: Plain, path: str, body: Any) -> None:
    plain._connection.request("POST", path, json.dumps(body).encode(), plain._headers)
    reply = plain._connection.getresponse()
    reply.read()
    if reply.status != 204:
        raise RuntimeError(f"{path}: {reply.status}")


def floors(directory: Path) -> tuple[float, float]:
    """What SQLite does with the same points: rows a second by `executemany`, and commits a second of one row each,
    synced to disk as ours are."""
    connection = sqlite3.connect(directory / "floor.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE metrics (run TEXT, key TEXT, value REAL, step INTEGER, timestamp INTEGER)")

    def write(at: int, count: int) -> None:
        rows = [("r", "many", one * 0.5, one, one) for one in range(at * count, at * count + count)]
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO metrics VALUES (?, ?, ?, ?, ?)", rows)
        connection.execute("COMMIT")

    return rate(lambda at: write(at, BATCH)) * BATCH, rate(lambda at: write(at, 1))


def main() -> None:
    """Measure, and print each figure with its ratio to MLflow's."""
    program = "" if "--alone" in sys.argv else mlflow_program()
    other: dict[str, Figure] = {}
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        rows, commits = floors(directory)
        with noop() as (url, _):
            plain = Plain(url)
            empty = rate(lambda _: plain.send("GET", "/"))
        with ours(directory / "ours") as (url, token):
            mine = [*measure_writes(url, token), *measure_history(url, token), *measure_chart(url, token)]
        if program:
            with theirs(directory / "theirs", program) as (url, token):
                measured = [*measure_writes(url, token), *measure_history(url, token)]
                other = {figure.name: figure for figure in measured}
    show(mine, other)
    batch = next(figure for figure in mine if figure.name.startswith("log-batch"))
    print(f"floors: executemany {rows:,.0f} rows/s ({batch.value / rows:.2f} of it reached; 0.5 is aimed at), "
          f"commits of one row {commits:,.0f}/s, a server that does nothing {empty:,.0f} requests/s")  # fmt: skip


def show(mine: list[Figure], other: dict[str, Figure]) -> None:
    print(f"{'':36} {'modelyard':>12} {'mlflow':>12} {'ratio':>8} {'aim':>6}")
    for figure in mine:
        line = f"{figure.name:36} {figure.value:12,.1f} "
        peer = other.get(figure.name)
        if peer is not None:
            times = figure.value / peer.value if figure.more_is_better else peer.value / figure.value
            line += f"{peer.value:12,.1f} {times:7.1f}x {f'{figure.aim:g}x' if figure.aim else '':>6}"
        else:
            line += f"{'-':>12} {'':8} {'':6}"
        print(f"{line}  {figure.unit}")


if __name__ == "__main__":
    main()
