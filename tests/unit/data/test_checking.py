"""Checking versions that are there: over all of their rows, going on from earlier ones, each failing row to be read."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from modelyard.engines.tables.delta import DeltaTables
from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database
from modelyard.kernel.errors import Conflict, InvalidInput, NotFound
from modelyard.planes.data import Data
from modelyard.types.checks import (
    Check,
    Distribution,
    InSet,
    Monotonic,
    NotNull,
    Parses,
    Range,
    Reference,
    References,
    RowCount,
    Sql,
    Statistic,
    Unique,
)


@pytest.fixture
def data(database: Database, tmp_path: Path) -> Data:
    return Data(database, DeltaTables(tmp_path / "tables"), tmp_path / "spill")


def rows(*ids: int, group: str = "x", value: float = 1.0) -> pa.Table:
    return pa.table({"id": pa.array(ids, pa.int64()), "g": [group] * len(ids), "v": [value] * len(ids)})


SUITE: list[Check] = [
    NotNull(column="id"),
    Unique(columns=["id"]),
    Range(column="v", min=0, by="g"),
    Statistic(column="v", measure="mean", max=10),
    Monotonic(column="id"),
    RowCount(of="dataset", min=1),
    InSet(column="g", values=["x", "y"], severity="warn"),
    Sql(query="SELECT * FROM dataset WHERE v > 100"),
]


def test_a_suite_runs_over_all_rows_of_any_version_and_changes_nothing(data: Data, scope: Scope) -> None:
    data.create(scope, "d")
    data.write(scope, "d", rows(1, 2, 3))
    data.write(scope, "d", rows(3, 4, group="z", value=-5.0))
    first = data.checking.run(scope, "d", 1, SUITE, "mine")
    assert (first.report.passed, first.report.rows, first.version, first.suite) == (True, 3, 1, "mine")
    second = data.checking.run(scope, "d", None, SUITE)
    assert not second.report.passed
    found = {one.check: one for one in second.report.results}
    assert (found["unique"].evaluated, found["unique"].failing) == (5, 2)
    assert [(one.value, one.status) for one in found["range"].slices] == [("z", "failed"), ("x", "passed")]
    assert found["in_set"].status == "failed" and found["in_set"].severity == "warn"
    assert found["unique"].sample[0]["id"] == 3 and "SELECT" in found["unique"].query
    assert all(one.state == "" and one.key == "" for one in second.report.results)
    assert data.get(scope, "d").latest == 2
    assert [one.id for one in data.checking.runs(scope, "d")] == [second.id, first.id]
    assert data.checking.one(scope, "d", first.id).report.passed


def test_a_run_goes_on_from_the_version_before_it(data: Data, scope: Scope) -> None:
    data.create(scope, "d")
    data.write(scope, "d", rows(1, 2, 3))
    before = data.checking.run(scope, "d", None, SUITE)
    assert {one.merge for one in before.report.results} == {"scanned", "rescans"}
    for start in (4, 7, 9):
        data.write(scope, "d", rows(start, start + 1, start + 2))
    after = {one.check: one for one in data.checking.run(scope, "d", None, SUITE).report.results}
    assert {kind for kind, one in after.items() if one.merge != "merged"} == {"sql"}
    assert (after["unique"].evaluated, after["unique"].failing) == (12, 2)
    assert after["monotonic"].failing == 0
    assert after["row_count"].observed == 12
    data.write(scope, "d", rows(1), mode="overwrite")
    fresh = {one.check: one for one in data.checking.run(scope, "d", None, SUITE).report.results}
    assert fresh["not_null"].merge == "scanned"
    assert (fresh["unique"].evaluated, fresh["row_count"].observed) == (1, 1)


def test_a_write_goes_on_from_the_state_of_the_version_that_it_appends_to(data: Data, scope: Scope) -> None:
    data.create(scope, "d", checks=SUITE)
    data.write(scope, "d", rows(1, 2, 3))
    written = data.write(scope, "d", rows(4, 5))
    assert written.published
    found = {one.check: one for one in written.report.results}
    assert {kind for kind, one in found.items() if one.merge == "merged"} >= {"unique", "statistic", "monotonic"}
    assert (found["not_null"].evaluated, found["unique"].evaluated) == (2, 5)
    refused = data.write(scope, "d", rows(2, 6))
    assert refused.status == "quarantined"
    assert {one.check for one in refused.report.failed} == {"unique", "monotonic"}
    assert data.get(scope, "d").latest == 2
    # What was refused left no trace in what is known of the rows.
    again = data.write(scope, "d", rows(6))
    assert {one.check: one.evaluated for one in again.report.results}["unique"] == 6
    whole = data.checking.run(scope, "d")
    assert {one.merge for one in whole.report.results if one.check != "sql"} == {"merged"}
    assert {one.check: one.evaluated for one in whole.report.results}["not_null"] == 6


def test_all_failing_rows_of_a_check_can_be_read(data: Data, scope: Scope) -> None:
    data.create(scope, "d")
    many = pa.table({"id": [n // 2 for n in range(1000)], "t": ["no json" if n % 4 else "{}" for n in range(1000)]})
    data.write(scope, "d", many)
    checks: list[Check] = [
        Range(column="id", max=99),
        Unique(columns=["id"]),
        Parses(column="t", form="json"),
        Sql(query="SELECT id FROM dataset WHERE id < 10"),
        RowCount(min=5000),
    ]
    run = data.checking.run(scope, "d", None, checks)
    read = []
    for place in range(4):
        schema, batches = data.checking.failing(scope, "d", run.id, place)
        read.append(pa.Table.from_batches(batches, schema=schema))
    assert [table.num_rows for table in read] == [800, 1000, 750, 20]
    assert [one.failing for one in run.report.results[:4]] == [800, 1000, 750, 20]
    assert read[0]["id"].to_pylist()[0] == 100
    with pytest.raises(InvalidInput):
        data.checking.failing(scope, "d", run.id, 4)
    with pytest.raises(NotFound):
        data.checking.failing(scope, "d", run.id, 9)
    with pytest.raises(NotFound):
        data.checking.failing(scope, "d", "0" * 32, 0)


def test_referential_integrity_and_distributions_are_of_the_version_that_is_named(data: Data, scope: Scope) -> None:
    data.create(scope, "parents")
    data.write(scope, "parents", pa.table({"id": [1, 2], "v": [1.0, 2.0]}))
    data.tag(scope, "parents", "frozen", 1)
    data.write(scope, "parents", pa.table({"id": [3], "v": [50.0]}))
    data.create(scope, "d")
    data.write(scope, "d", rows(1, 2, 3, value=1.5))
    checks: list[Check] = [
        References(columns=["id"], dataset="parents"),
        References(columns=["id"], dataset="parents", ref="frozen"),
        References(columns=["id"], dataset="nowhere"),
        Distribution(column="v", measure="mean", reference=Reference(dataset="parents", version="frozen"), max=0.1),
        Distribution(column="v", measure="mean", reference=Reference(dataset="parents"), max=0.1),
        Distribution(column="v", measure="psi", reference=Reference(version="1"), max=0.1),
        Distribution(column="v", measure="quantiles", reference=Reference(version="1", profile=True), max=0.1),
    ]
    found = data.checking.run(scope, "d", None, checks).report.results
    statuses = [one.status for one in found]
    assert statuses == ["passed", "failed", "error", "passed", "failed", "passed", "passed"]
    assert found[1].sample == [{"id": 3, "g": "x", "v": 1.5}]
    assert "nowhere" in found[2].message


def test_referential_integrity_guards_writes_too(data: Data, scope: Scope) -> None:
    data.create(scope, "parents")
    data.write(scope, "parents", pa.table({"id": [1, 2]}))
    data.create(scope, "d", checks=[References(columns=["id"], dataset="parents")])
    data.append(scope, "d", rows(1))
    with pytest.raises(Conflict):
        data.append(scope, "d", rows(7))
    data.append(scope, "parents", pa.table({"id": [7]}))
    data.append(scope, "d", rows(7))


@pytest.mark.parametrize(
    "check",
    [
        NotNull(column="nope"),
        Range(column="v", min=0, by="nope"),
        Sql(query="SELECT * FROM read_csv('/etc/passwd')"),
        Sql(query="SELECT * FROM parents", tables={"parents": "elsewhere"}),
        Sql(query="SELECT * FROM reference_0"),
        Sql(query="COPY dataset TO '/tmp/x'"),
    ],
)
def test_a_check_that_cannot_be_asked_says_so_and_the_dataset_is_unharmed(
    data: Data, scope: Scope, check: Check
) -> None:
    data.create(scope, "d")
    data.write(scope, "d", rows(1))
    run = data.checking.run(scope, "d", None, [check, NotNull(column="id")])
    assert [one.status for one in run.report.results] == ["error", "passed"]
    assert run.report.results[0].message
    assert data.read(scope, "d").num_rows == 1


def test_own_sql_reads_the_datasets_that_it_names(data: Data, scope: Scope) -> None:
    data.create(scope, "limits")
    data.write(scope, "limits", pa.table({"g": ["x"], "most": [2]}))
    data.create(scope, "d")
    data.write(scope, "d", rows(1, 2, 3))
    check = Sql(query="SELECT d.* FROM dataset d JOIN caps USING (g) WHERE id > most", tables={"caps": "limits@1"})
    [found] = data.checking.run(scope, "d", None, [check]).report.results
    assert (found.status, found.failing, found.sample[0]["id"]) == ("failed", 1, 3)


def test_no_checks_no_version_and_no_dataset_are_named(data: Data, scope: Scope) -> None:
    data.create(scope, "d")
    with pytest.raises(NotFound):
        data.checking.run(scope, "d", None, SUITE)
    data.write(scope, "d", rows(1))
    with pytest.raises(InvalidInput) as caught:
        data.checking.run(scope, "d")
    assert caught.value.code == "dataset.checks_missing"
    with pytest.raises(NotFound):
        data.checking.run(scope, "nope", None, SUITE)


def test_all_null_and_odd_columns_get_verdicts(data: Data, scope: Scope) -> None:
    schema = pa.schema([("n", pa.int64()), ("d", pa.timestamp("us", tz="UTC")), ('odd "name"', pa.string())])
    nothing: dict[str, Any] = {"n": None, "d": None, 'odd "name"': None}
    data.create(scope, "d")
    data.write(scope, "d", pa.Table.from_pylist([nothing] * 3, schema=schema))
    checks: list[Check] = [
        Range(column="n", min=0),
        Statistic(column="d", measure="max", min=dt.datetime(2024, 1, 1, tzinfo=dt.UTC).isoformat()),
        NotNull(column='odd "name"'),
        Unique(columns=["n", 'odd "name"']),
        Statistic(column='odd "name"', measure="distinct", min=0, max=0),
    ]
    found = data.checking.run(scope, "d", None, checks).report.results
    assert [one.status for one in found] == ["passed", "failed", "failed", "passed", "passed"]


def test_of_many_runs_the_newest_are_kept(data: Data, scope: Scope, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelyard.planes.data.check_runs.RUNS_KEPT", 3)
    data.create(scope, "d")
    data.write(scope, "d", rows(1))
    made = [data.checking.run(scope, "d", None, [NotNull(column="id")]).id for _ in range(5)]
    assert [one.id for one in data.checking.runs(scope, "d")] == made[:1:-1]
