"""Catalogs of many runs, filled table by table: ours through the plane's own tables and packing, MLflow's by SQL.

A run has 5 params, 3 tags and 5 metrics, each metric with `points` points. What is drawn depends on the number of the
run only, so that both catalogs hold the same.
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import bindparam, func, select

from modelyard.kernel.auth import system_scope
from modelyard.kernel.database import Database, Transaction
from modelyard.kernel.prepared import Prepared
from modelyard.planes.tracking import store
from modelyard.planes.tracking.points import Batch, PointColumns

CHUNK = 2_000
START_MS = 1_700_000_000_000
PARAMS, METRICS = 5, 5
USERS, TEAMS = (
    ("ada", "bob", "cyd", "dan"),
    ("vision", "speech", "ranking", "fraud", "pricing", "search", "ads", "maps"),
)


def run_id(at: int) -> str:
    return f"{at:032x}"


def params_of(at: int) -> dict[str, str]:
    draw = random.Random(at)
    return {
        "lr": str(10 ** -draw.randint(1, 5)), "depth": str(draw.randint(2, 12)), "seed": str(at),
        "optimizer": draw.choice(["adam", "sgd", "lamb"]), "batch": str(2 ** draw.randint(4, 10)),
    }  # fmt: skip


def tags_of(at: int) -> dict[str, str]:
    return {"mlflow.runName": f"run-{at}", "team": TEAMS[at % len(TEAMS)], "mlflow.user": USERS[at % len(USERS)]}


def latest_of(at: int) -> dict[str, float]:
    draw = random.Random(-at - 1)
    return {f"m{key}": draw.random() * 1_000 for key in range(METRICS)}


def history_of(at: int, points: int) -> list[tuple[str, float, int, int]]:
    """The points of a run, the latest of each metric last."""
    latest = latest_of(at)
    return [
        (key, value * (step + 1) / points, step, START_MS + at * 1_000 + step)
        for step in range(points)
        for key, value in latest.items()
    ]


def fill(database: Database, runs: int, points: int, experiment: int = 0, project: str = "default") -> float:
    """Add so many runs to an experiment. Returns runs a second."""
    with database.reading(system_scope(project)) as tx:
        first = int(tx.scalar(select(func.coalesce(func.max(store.runs.c.number), 0))))
    if database.engine.dialect.name == "sqlite":
        # Nobody waits for a generator's commits to reach the disk.
        with database.engine.connect() as connection:
            connection.exec_driver_sql("ROLLBACK")
            connection.exec_driver_sql("PRAGMA synchronous=OFF")
            connection.invalidate()
    began = time.perf_counter()
    for start in range(first, first + runs, CHUNK):
        with database.transaction(system_scope(project)) as tx:
            if tx.dialect == "sqlite":
                tx.connection.exec_driver_sql("PRAGMA cache_size=-200000")
            _fill(tx, range(start, min(start + CHUNK, first + runs)), points, experiment)
    if database.engine.dialect.name == "postgresql":
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("ANALYZE")
    return runs / (time.perf_counter() - began)


def _fill(tx: Transaction, numbers: Sequence[int], points: int, experiment: int) -> None:
    common = {"project": tx.project}
    _insert(tx, store.runs, ({
        **common, "number": at + 1, "id": run_id(at), "experiment": experiment, "name": f"run-{at}",
        "user": USERS[at % len(USERS)], "status": "FAILED" if at % 10 == 3 else "FINISHED", "stage": "active",
        "start_ms": START_MS + at * 1_000, "end_ms": START_MS + at * 1_000 + 500,
        "artifact_uri": f"mlflow-artifacts:/{experiment}/{run_id(at)}/artifacts", "has_links": False,
    } for at in numbers))  # fmt: skip
    for table, of in ((store.params, params_of), (store.run_tags, tags_of)):
        of_run: Callable[[int], dict[str, str]] = of
        _insert(tx, table, (
            {**common, "run": at + 1, "key": key, "value": value}
            for at in numbers for key, value in sorted(of_run(at).items())
        ))  # fmt: skip
    _insert(tx, store.latest_metrics, (
        {**common, "run": at + 1, "key": key, "is_nan": False, "value": value, "step": points - 1,
         "timestamp_ms": START_MS + at * 1_000 + points - 1}
        for at in numbers for key, value in latest_of(at).items()
    ))  # fmt: skip
    batches = ((at, Batch.of(PointColumns.of(history_of(at, points)))) for at in numbers)
    _insert(tx, store.metric_segments, (
        {**common, "run": at + 1, "first_key": "m0", "last_key": f"m{METRICS - 1}", "level": 0,
         "points": batch.points, "body": batch.body}
        for at, batch in batches
    ))  # fmt: skip


def _insert(tx: Transaction, table: Any, rows: Iterator[dict[str, Any]]) -> None:
    listed = list(rows)
    names = list(listed[0])
    prepared = _PREPARED.setdefault(table.name, Prepared(table.insert().values({n: bindparam(n) for n in names})))
    tx.run_many(prepared, listed)


_PREPARED: dict[str, Prepared] = {}


def fill_theirs(file: Path, runs: int) -> None:
    """The same runs in the SQLite catalog of an `mlflow server` that has made its tables."""
    connection = sqlite3.connect(file, timeout=60)
    numbers = range(runs)

    def insert(table: str, rows: list[dict[str, Any]]) -> None:
        names = list(rows[0])
        text = f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
        connection.executemany(text, [tuple(row.values()) for row in rows])

    insert("runs", [{
        "run_uuid": run_id(at), "name": f"run-{at}", "source_type": "UNKNOWN", "source_name": "",
        "entry_point_name": "", "user_id": USERS[at % len(USERS)],
        "status": "FAILED" if at % 10 == 3 else "FINISHED", "start_time": START_MS + at * 1_000,
        "end_time": START_MS + at * 1_000 + 500, "source_version": "", "lifecycle_stage": "active",
        "artifact_uri": f"mlflow-artifacts:/0/{run_id(at)}/artifacts", "experiment_id": 0,
    } for at in numbers])  # fmt: skip
    for table, of in (("params", params_of), ("tags", tags_of)):
        insert(table, [
            {"key": key, "value": value, "run_uuid": run_id(at)} for at in numbers for key, value in of(at).items()
        ])  # fmt: skip
    for table in ("metrics", "latest_metrics"):
        insert(table, [
            {"key": key, "value": value, "timestamp": START_MS, "run_uuid": run_id(at), "step": 0, "is_nan": False}
            for at in numbers for key, value in latest_of(at).items()
        ])  # fmt: skip
    connection.commit()
    connection.close()
