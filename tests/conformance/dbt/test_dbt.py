"""dbt's generic tests, run by the real dbt and by us over the same rows: statuses and counts of failures are equal."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from foreign_python import foreign_python
from modelyard.engines.tables.sql import sandbox
from modelyard.planes.data.audit import columns_of
from modelyard.planes.data.checks import Provided
from modelyard.planes.data.checks.running import run_suite
from modelyard.planes.data.suites import read_suite
from modelyard.types.data import CheckResult

ORDERS = pa.table(
    {
        "id": [1, 2, 2, 3, 3, 3, None, None],
        "status": ["new", "paid", "lost", None, "lost", "new", "void", "paid"],
        "customer": [1, 2, None, 9, 9, 1, 2, 8],
        "amount": [1.0, 2.0, float("nan"), None, -1.0, 5.0, 7.0, 0.0],
    }
)
CUSTOMERS = pa.table({"id": [1, 2, None], "country": ["AT", "CH", "AT"]})
REFERS: dict[str, Any] = {"to": "ref('customers')", "field": "id"}
CASES: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    ("not_null", "id", {}, {}),
    ("not_null", "amount", {}, {"severity": "warn"}),
    ("not_null", "status", {}, {"where": "id is null"}),
    ("not_null", "id", {}, {"error_if": ">2", "warn_if": ">1"}),
    ("not_null", "id", {}, {"error_if": ">2", "warn_if": ">2"}),
    ("unique", "id", {}, {}),
    ("unique", "id", {}, {"where": "status <> 'lost'"}),
    ("unique", "id", {}, {"error_if": ">2", "warn_if": ">1"}),
    ("unique", "id", {}, {"error_if": ">1"}),
    ("unique", "id", {}, {"severity": "warn", "error_if": ">1"}),
    ("unique", "customer", {}, {"where": "customer = 8"}),
    ("accepted_values", "status", {"values": ["new", "paid"]}, {}),
    ("accepted_values", "status", {"values": ["new", "paid", "lost", "void"]}, {}),
    ("accepted_values", "status", {"values": ["new", "paid"]}, {"where": "id = 3", "severity": "warn"}),
    ("accepted_values", "status", {"values": ["new"]}, {"error_if": ">3", "warn_if": "=3"}),
    ("accepted_values", "customer", {"values": [1, 2], "quote": False}, {}),
    ("relationships", "customer", REFERS, {}),
    ("relationships", "customer", REFERS, {"where": "customer < 9"}),
    ("relationships", "customer", REFERS, {"error_if": ">3", "warn_if": ">2"}),
    ("relationships", "customer", REFERS, {"error_if": ">5", "warn_if": ">4"}),
]


def schema() -> dict[str, Any]:
    """The properties file with every case, each under a name of its own."""
    columns: dict[str, list[Any]] = {}
    for place, (kind, column, arguments, config) in enumerate(CASES):
        entry = {kind: {"name": f"case_{place}", **arguments, "config": config}}
        columns.setdefault(column, []).append(entry)
    listed = [{"name": name, "data_tests": tests} for name, tests in columns.items()]
    return {"version": 2, "models": [{"name": "orders", "columns": listed}]}


@pytest.mark.slow
def test_statuses_and_failures_are_those_of_dbt(tmp_path: Path) -> None:
    dbt = foreign_python("dbt").parent / "dbt"
    theirs = real(dbt, tmp_path)
    tables = {"batch": ORDERS, "dataset": ORDERS, "customers": CUSTOMERS}
    provided = {"customers": Provided("customers", {"id": "int64", "country": "string"}, "dataset:customers@1")}
    suite = read_suite(schema(), "orders")
    with sandbox(tables) as session:
        now = dt.datetime.now(dt.UTC)
        found = run_suite(session, suite.checks, columns_of(ORDERS.schema), now, provided=provided, one_table=True)
    ours = {one.name: (status(one), failures(one)) for one in found}
    assert len(ours) == len(CASES)
    assert ours == theirs
    assert {one for one, _ in theirs.values()} == {"pass", "warn", "fail"}, "the cases meet every status"


def status(found: CheckResult) -> str:
    """Ours in dbt's words."""
    if found.status == "passed":
        return "pass"
    return {"error": "error", "failed": "warn" if found.severity == "warn" else "fail"}[found.status]


def failures(found: CheckResult) -> int:
    """What dbt counts: distinct values for `unique` and `accepted_values`, else rows; and nothing of what passes."""
    if found.status == "passed":
        return 0
    if found.check == "distinct_values":
        assert isinstance(found.observed, dict)
        return int(found.observed["unexpected"])
    return int(found.details.get("values", found.failing))


def real(dbt: Path, folder: Path) -> dict[str, tuple[str, int]]:
    """Status and failures of each case, as the real dbt says."""
    (folder / "models").mkdir()
    for name, rows in (("orders", ORDERS), ("customers", CUSTOMERS)):
        pq.write_table(rows, folder / f"{name}.parquet")
        (folder / "models" / f"{name}.sql").write_text(f"select * from read_parquet('{folder}/{name}.parquet')")
    (folder / "models" / "schema.yml").write_text(yaml.safe_dump(schema()))
    project = {"name": "shop", "version": "1.0", "profile": "shop", "models": {"+materialized": "table"}}
    (folder / "dbt_project.yml").write_text(yaml.safe_dump(project))
    target = {"type": "duckdb", "path": str(folder / "shop.duckdb"), "threads": 1}
    profile = {"shop": {"target": "dev", "outputs": {"dev": target}}}
    (folder / "profiles.yml").write_text(yaml.safe_dump(profile))
    environ = {**os.environ, "DBT_SEND_ANONYMOUS_USAGE_STATS": "false", "DBT_PROFILES_DIR": str(folder)}
    done = subprocess.run(
        [dbt, "--no-version-check", "build"], cwd=folder, env=environ, capture_output=True, text=True, check=False,
        timeout=600,
    )  # fmt: skip
    file = folder / "target" / "run_results.json"
    assert file.exists(), done.stdout + done.stderr
    results = json.loads(file.read_text())["results"]
    tests = {one["unique_id"].split(".")[2]: one for one in results if one["unique_id"].startswith("test.")}
    return {name: (one["status"], one["failures"] or 0) for name, one in tests.items()}
