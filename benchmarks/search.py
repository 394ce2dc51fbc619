"""Finding runs among many: ours at 100,000 runs (or `RUNS=…`), and beside `mlflow server` at the 5,000 that it manages.

Over plain HTTP. `python -m benchmarks search`, with `--alone` without the peer, `--explain` for the query plans too.
`DATABASE_URL=postgresql://…` measures ours on that server instead of SQLite.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from benchmarks._catalog import fill, fill_theirs, run_id
from benchmarks._servers import Plain, mlflow_program, ours, theirs
from modelyard.app import compose
from modelyard.kernel import settings

RUNS, PEER_RUNS = 100_000, 5_000
POINTS = 20
REPEATS = 15
SEARCH = "/api/2.0/mlflow/runs/search"
ASKED: dict[str, dict[str, Any]] = {
    "newest 100": {},
    "ordered by a metric": {"order_by": ["metrics.m1 DESC"]},
    "metric filter, ordered by it": {"filter": "metrics.m2 > 500", "order_by": ["metrics.m2 ASC"]},
    "metric, param and tag, ordered by a metric": {
        "filter": "metrics.m2 > 500 AND params.depth = '3' AND tags.team = 'fraud'", "order_by": ["metrics.m1 DESC"],
    },
    "a rare metric range, ordered by another": {
        "filter": "metrics.m3 > 999.5", "order_by": ["metrics.m1 DESC"],
    },
    "one param value, newest first": {"filter": "params.seed = '4711'"},
    "param and status, newest first": {"filter": "params.optimizer = 'lamb' AND status = 'FAILED'"},
    "a tag, ordered by a param": {"filter": "tags.team = 'vision'", "order_by": ["params.lr"]},
    "name ILIKE": {"filter": "run_name ILIKE '%4711%'"},
    "nothing matches": {"filter": "metrics.m0 > 2000"},
}  # fmt: skip


def percentiles(act: Callable[[], object], times: int) -> tuple[float, float]:
    """Median and 95th percentile, in ms."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        act()
        taken.append((time.perf_counter() - began) * 1_000)
    taken.sort()
    return taken[len(taken) // 2], taken[int(len(taken) * 0.95)]


def measure(url: str, token: str, times: int) -> dict[str, tuple[float, float]]:
    """Each search, a page of 100; and what a page of one run and a list of experiments ask for."""
    plain = Plain(url, token)
    found = {}
    for name, asked in ASKED.items():
        body = msgspec.json.encode({"experiment_ids": ["0"], "max_results": 100, **asked})
        plain.send("POST", SEARCH, body)
        found[name] = percentiles(lambda body=body: plain.send("POST", SEARCH, body), times)  # type: ignore[misc]
    path = f"/api/2.0/mlflow/runs/get?run_id={run_id(4_711)}"
    found["one run"] = percentiles(lambda: plain.send("GET", path), times)
    history = f"/api/2.0/mlflow/metrics/get-history?run_id={run_id(4_711)}&metric_key=m1"
    found["one short history"] = percentiles(lambda: plain.send("GET", history), times)
    listed = "/api/2.0/mlflow/experiments/search?max_results=100"
    found["list of experiments"] = percentiles(lambda: plain.send("GET", listed), times)
    return found


def filled(home: Path, runs: int) -> settings.Settings:
    """A home with a catalog of so many runs."""
    flags: dict[str, Any] = {"home": str(home)}
    if os.environ.get("DATABASE_URL"):
        flags["database_url"] = os.environ["DATABASE_URL"]
    loaded = settings.load(flags)
    yard = compose(loaded)
    rate = fill(yard.database, runs, POINTS)
    print(f"filled {runs:,} runs with {runs * 5 * POINTS:,} points, {rate:,.0f} runs/s", flush=True)
    yard.close()
    return loaded


def main() -> None:
    runs = int(os.environ.get("RUNS", RUNS))
    program = "" if "--alone" in sys.argv else mlflow_program()
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory) / "ours"
        filled(home, runs)
        with ours(home) as (url, token):
            large = measure(url, token, REPEATS)
        small, other = {}, {}
        if program:
            filled(home.with_name("small"), PEER_RUNS)
            with ours(home.with_name("small")) as (url, token):
                small = measure(url, token, REPEATS)
            peer = home.with_name("theirs")
            with theirs(peer, program) as (url, token):
                fill_theirs(peer / "mlflow.db", PEER_RUNS)
                other = measure(url, token, 5)
    show(runs, large, small, other)


def show(runs: int, large: Any, small: Any, other: Any) -> None:
    print(f"{'ms, page of 100':44}{f'{runs:,} runs':>22}{f'{PEER_RUNS:,} runs':>12}{'mlflow':>10}{'ratio':>8}")
    for name, (middle, high) in large.items():
        line = f"{name:44}{middle:9.1f} (p95 {high:6.1f})"
        if small:
            line += f"{small[name][0]:12.1f}{other[name][0]:10.1f}{other[name][0] / small[name][0]:7.1f}x"
        print(line)


if __name__ == "__main__":
    main()
