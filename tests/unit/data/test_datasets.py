"""Datasets through the plane's face: versions, write-audit-publish, quarantine, reading, tags, lineage and events."""

from __future__ import annotations

import datetime as dt
import json
import os
import threading
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelyard.engines.tables.delta import DeltaTables
from modelyard.kernel import lineage
from modelyard.kernel.auth import Principal, Role, Scope
from modelyard.kernel.clock import FixedClock
from modelyard.kernel.database import Database
from modelyard.kernel.errors import Conflict, InvalidInput, ModelyardError, NotFound
from modelyard.kernel.events import events as events_table
from modelyard.planes.data import Data
from modelyard.planes.data.schemas import Allowed, resulting_schema, schema_result
from modelyard.types.data import (
    Check,
    DatasetVersion,
    Finite,
    Freshness,
    InSet,
    NotNull,
    Range,
    RowCount,
    Sql,
    Unique,
    WriteMode,
)


@pytest.fixture
def data(database: Database, tmp_path: Path) -> Data:
    return Data(database, DeltaTables(tmp_path / "tables"), tmp_path / "spill")


JOB = Scope("default", Principal("job:abc", {"*": Role.CONTRIBUTOR}))
OTHER = Scope("other", Principal("bob", {"*": Role.ADMIN}))


def flights(*ids: int, distance: float = 100.0) -> pa.Table:
    return pa.table({"id": pa.array(ids, pa.int64()), "distance": [distance] * len(ids), "carrier": ["AA"] * len(ids)})


def kinds(data: Data, scope: Scope) -> list[str]:
    with data._database.reading(scope) as tx:
        return [row.kind for row in tx.all(events_table.select().order_by(events_table.c.id))]


def edges(data: Data, scope: Scope) -> set[tuple[str, str, str]]:
    with data._database.reading(scope) as tx:
        rows = tx.all(lineage.edges.select().where(lineage.edges.c.project == scope.project))
    return {(row.cause, row.relation, row.effect) for row in rows}


# --- datasets and versions --------------------------------------------------------------------------------------


def test_a_new_dataset_has_no_version_until_the_first_write(data: Data, scope: Scope) -> None:
    made = data.create(scope, "flights", description="departures", key=["id"])
    assert (made.latest, made.rows, made.key) == (0, 0, ["id"])
    with pytest.raises(NotFound) as caught:
        data.read(scope, "flights")
    assert caught.value.code == "dataset.empty"
    written = data.write(scope, "flights", flights(1, 2), source="bts")
    assert (written.status, written.version, written.rows) == ("published", 1, 2)
    version = data.resolve(scope, "flights")
    assert (version.version, version.rows, version.source, version.created_by) == (1, 2, "bts", "ada")
    assert [column.type for column in version.columns] == ["int64", "double", "string"]
    assert data.get(scope, "flights").rows == 2


def test_versions_count_without_gaps_and_stay_as_they_were(data: Data, scope: Scope) -> None:
    data.create(scope, "flights")
    data.write(scope, "flights", flights(1, 2))
    data.write(scope, "flights", flights(3))
    data.write(scope, "flights", flights(9), mode="overwrite")
    data.append(scope, "flights", flights(10))
    read = [sorted(data.read(scope, "flights", ref)["id"].to_pylist()) for ref in (1, 2, 3, 4)]
    assert read == [[1, 2], [1, 2, 3], [9], [9, 10]]
    listed = data.versions(scope, "flights")
    assert [(one.version, one.mode, one.rows, one.rows_written) for one in listed.items] == [
        (4, "append", 2, 1),
        (3, "overwrite", 1, 1),
        (2, "append", 3, 1),
        (1, "append", 2, 2),
    ]
    first = data.versions(scope, "flights", limit=3)
    second = data.versions(scope, "flights", after=first.next, limit=3)
    assert [one.version for one in first.items + second.items] == [4, 3, 2, 1]
    assert second.next is None


@pytest.mark.parametrize(
    ("ref", "version"), [(None, 2), ("main", 2), ("latest", 2), (1, 1), ("1", 1), ("2", 2), ("gold", 1)]
)
def test_a_reference_is_a_number_a_tag_or_the_newest(data: Data, scope: Scope, ref: int | str, version: int) -> None:
    data.create(scope, "flights")
    data.write(scope, "flights", flights(1))
    data.write(scope, "flights", flights(2))
    data.tag(scope, "flights", "gold", 1)
    assert data.resolve(scope, "flights", ref).version == version


@pytest.mark.parametrize("ref", [0, -1, 3, "0", "3", "nope", "", "99999999999999999999", "१", "1 "])
def test_references_to_nothing_are_not_found(data: Data, scope: Scope, ref: int | str) -> None:
    data.create(scope, "flights")
    data.write(scope, "flights", flights(1))
    with pytest.raises(NotFound):
        data.resolve(scope, "flights", ref)


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "_x", "a b", "é", "x" * 129, "a\x00", "-x", "a\n"])
def test_a_dataset_has_a_plain_name(data: Data, scope: Scope, name: str) -> None:
    with pytest.raises(InvalidInput):
        data.create(scope, name)


def test_names_are_unique_without_case_and_per_project(data: Data, scope: Scope) -> None:
    data.create(scope, "Flights")
    for name in ("Flights", "flights"):
        with pytest.raises(Conflict):
            data.create(scope, name)
    data.create(OTHER, "flights")
    data.write(OTHER, "flights", flights(1, 2, 3))
    assert data.get(scope, "Flights").rows == 0
    for act in (data.get, data.read, data.versions, data.quarantine.list):
        with pytest.raises(NotFound):
            act(scope, "flights")  # type: ignore[operator]


def test_datasets_are_listed_by_name_in_pages(data: Data, scope: Scope) -> None:
    for name in ("b", "a", "c"):
        data.create(scope, name)
    data.create(OTHER, "z")
    first = data.list(scope, limit=2)
    assert [one.name for one in first.items] == ["a", "b"]
    assert [one.name for one in data.list(scope, after=first.next, limit=2).items] == ["c"]
    for limit in (0, -1, 1001):
        with pytest.raises(InvalidInput):
            data.list(scope, limit=limit)


def test_description_key_and_checks_can_change(data: Data, scope: Scope) -> None:
    data.create(scope, "flights", checks=[NotNull(column="id")])
    changed = data.update(scope, "flights", description="new", checks=[Range(column="id", min=5)])
    assert (changed.description, changed.checks) == ("new", [Range(column="id", min=5)])
    assert data.update(scope, "flights").checks == changed.checks
    assert not data.write(scope, "flights", flights(1)).published


# --- write, audit, publish --------------------------------------------------------------------------------------

CHECKS: list[Check] = [
    Range(name="distance is positive", column="distance", min=0),
    InSet(name="known carrier", column="carrier", values=["AA", "B6"]),
]


def test_a_bad_batch_stays_in_quarantine_and_main_does_not_move(data: Data, scope: Scope) -> None:
    data.create(scope, "flights", checks=CHECKS)
    data.write(scope, "flights", flights(1, 2))
    bad = pa.concat_tables([flights(3), flights(4, distance=-1.0)])
    written = data.write(scope, "flights", bad, source="broken feed")
    assert (written.status, written.version, written.rows) == ("quarantined", None, 2)
    [failed] = written.report.failed
    assert (failed.name, failed.evaluated, failed.failing) == ("distance is positive", 2, 1)
    assert failed.sample == [{"id": 4, "distance": -1.0, "carrier": "AA"}]
    assert data.resolve(scope, "flights").version == 1
    assert data.read(scope, "flights").num_rows == 2

    assert written.quarantine_id is not None
    held = data.quarantine.get(scope, "flights", written.quarantine_id)
    assert (held.rows, held.source, held.report) == (2, "broken feed", written.report)
    assert [one.id for one in data.quarantine.list(scope, "flights").items] == [held.id]
    shown = data.quarantine.rows(scope, "flights", held.id, filter="distance < 0")
    assert shown.rows == [{"id": 4, "distance": -1.0, "carrier": "AA"}]

    data.quarantine.discard(scope, "flights", held.id)
    assert data.quarantine.list(scope, "flights").items == []
    for act in (data.quarantine.get, data.quarantine.rows, data.quarantine.discard):
        with pytest.raises(NotFound):
            act(scope, "flights", held.id)  # type: ignore[operator]
    assert "dataset.batch_quarantined" in kinds(data, scope)
    assert "dataset.batch_discarded" in kinds(data, scope)


def test_a_missing_column_is_a_verdict_and_not_a_crash(data: Data, scope: Scope) -> None:
    data.create(scope, "flights", checks=CHECKS)
    data.write(scope, "flights", flights(1))
    written = data.write(scope, "flights", flights(2).drop_columns(["carrier"]))
    assert written.status == "quarantined"
    statuses = {one.name: one.status for one in written.report.results}
    assert statuses == {"schema": "failed", "distance is positive": "passed", "known carrier": "error"}
    assert data.quarantine.rows(scope, "flights", written.quarantine_id or "").rows == [{"id": 2, "distance": 100.0}]


def test_a_warning_does_not_hold_a_batch_back(data: Data, scope: Scope) -> None:
    data.create(scope, "flights", checks=[Range(column="distance", min=0, severity="warn")])
    written = data.write(scope, "flights", flights(1, distance=-1))
    assert written.published
    assert [one.status for one in written.report.failed] == ["failed"]
    assert data.resolve(scope, "flights").report == written.report


def test_checks_of_a_write_come_on_top_of_the_datasets(data: Data, scope: Scope) -> None:
    data.create(scope, "flights", checks=[NotNull(column="id")])
    assert not data.write(scope, "flights", flights(1), checks=[RowCount(min=2)]).published
    assert data.write(scope, "flights", flights(1)).published


def test_append_raises_where_the_batch_was_turned_down(data: Data, scope: Scope) -> None:
    data.create(scope, "flights", checks=CHECKS)
    version = data.append(scope, "flights", flights(1))
    assert isinstance(version, DatasetVersion)
    with pytest.raises(Conflict) as caught:
        data.append(scope, "flights", flights(2, distance=-5))
    assert caught.value.code == "dataset.quarantined"
    assert caught.value.details["quarantine_id"] == data.quarantine.list(scope, "flights").items[0].id


@pytest.mark.parametrize("bad", [None, float("nan"), float("inf"), float("-inf")])
def test_key_columns_hold_no_null_nan_or_infinity(data: Data, scope: Scope, bad: float | None) -> None:
    data.create(scope, "points", key=["x"])
    written = data.write(scope, "points", pa.table({"x": [1.0, bad], "y": [1.0, bad]}))
    assert written.status == "quarantined"
    [failed] = written.report.failed
    assert failed.failing == 1
    assert "'x'" in failed.name


def test_an_overwrite_with_another_schema_is_held_back_unless_it_shall_replace_it(
    data: Data, scope: Scope, database: Database
) -> None:
    data.create(scope, "flights")
    data.write(scope, "flights", flights(1))
    new = pa.table({"id": ["a"], "z": [1]})
    assert not data.write(scope, "flights", new, mode="overwrite").published
    held = data.write(scope, "flights", new, mode="overwrite", evolve=True)
    assert held.status == "quarantined"
    [failed] = held.report.failed
    for said in ("column 'distance' (double) is missing", "column 'id' is string, not int64", "`replace_schema`"):
        assert said in failed.message
    assert data.write(scope, "flights", new, mode="overwrite", replace_schema=True).version == 2
    lost = ["column 'distance' (double) is missing", "column 'carrier' (string) is missing"]
    lost.append("column 'id' is string, not int64")
    report = data.resolve(scope, "flights").report
    assert report is not None
    assert report.results[0].details == {"replaced": lost}
    published = events_table.c.kind == "dataset.version_published"
    with database.reading(scope) as tx:
        found = tx.all(events_table.select().where(published).order_by(events_table.c.id))
    told = [json.loads(row.data) if isinstance(row.data, str) else row.data for row in found]
    assert [one.get("schema_replaced") for one in told] == [None, lost]
    assert data.read(scope, "flights").to_pylist() == [{"id": "a", "z": 1}]
    assert data.read(scope, "flights", 1).to_pylist() == flights(1).to_pylist()
    assert data.append(scope, "flights", new).rows == 2


def test_an_append_may_add_columns_when_asked_and_never_change_them(data: Data, scope: Scope) -> None:
    data.create(scope, "flights")
    data.write(scope, "flights", flights(1))
    wider = flights(2).append_column("gate", pa.array(["B7"]))
    assert not data.write(scope, "flights", wider).published
    assert data.write(scope, "flights", wider, evolve=True).published
    assert [row["gate"] for row in data.read(scope, "flights").sort_by("id").to_pylist()] == [None, "B7"]
    assert not data.write(scope, "flights", flights(3), evolve=True).published, "a column is missing"
    narrowed = wider.set_column(0, "id", pa.array(["2"]))
    assert not data.write(scope, "flights", narrowed, evolve=True).published
    assert data.resolve(scope, "flights").version == 2


def test_an_overwrite_of_all_may_widen_columns_and_narrow_none(data: Data, scope: Scope) -> None:
    narrow, wide = pa.table({"id": pa.array([1], pa.int32())}), pa.table({"id": pa.array([2**40], pa.int64())})
    data.create(scope, "counts")
    data.write(scope, "counts", narrow)
    assert not data.write(scope, "counts", wide, mode="overwrite").published
    assert data.write(scope, "counts", wide, mode="overwrite", evolve=True).published
    # A narrower integer fits into the wider column, so that is what it becomes; unless the schema is to be another.
    assert data.write(scope, "counts", narrow, mode="overwrite", evolve=True).published
    assert str(data.read(scope, "counts").schema.field("id").type) == "int64"
    assert data.write(scope, "counts", narrow, mode="overwrite", replace_schema=True).published
    assert str(data.read(scope, "counts").schema.field("id").type) == "int32"
    texts = pa.table({"id": ["1"]})
    assert not data.write(scope, "counts", texts, mode="overwrite", evolve=True).published


def test_rows_that_stay_keep_their_schema(data: Data, scope: Scope) -> None:
    data.create(scope, "flights")
    data.write(scope, "flights", flights(1, 2))
    texts = flights(1).set_column(0, "id", pa.array(["1"]))
    held = data.write(scope, "flights", texts, mode="overwrite", where="true", evolve=True)
    assert held.status == "quarantined"
    assert "overwrite all rows" in held.report.failed[0].message
    for how in ({"mode": "append"}, {"mode": "overwrite", "where": "id = '1'"}, {"mode": "merge", "on": ["id"]}):
        with pytest.raises(InvalidInput, match="only an overwrite of all rows"):
            data.write(scope, "flights", texts, replace_schema=True, **how)
    assert data.get(scope, "flights").latest == 1


def test_columns_may_come_in_any_order_and_in_narrower_types(data: Data, scope: Scope) -> None:
    data.create(scope, "flights")
    data.write(scope, "flights", flights(1))
    turned = pa.table({"carrier": ["B6"], "distance": pa.array([7], pa.int32()), "id": pa.array([2], pa.int16())})
    assert data.write(scope, "flights", turned).published
    assert data.read(scope, "flights").sort_by("id").to_pylist()[1] == {"id": 2, "distance": 7.0, "carrier": "B6"}


@pytest.mark.parametrize(
    ("batch", "code"),
    [
        (flights(1).slice(0, 0), "dataset.batch_empty"),
        ([], "dataset.batch_empty"),
        ("text", "dataset.not_tabular"),
        ({"a": [1]}, "dataset.not_tabular"),
        ([1, 2], "dataset.not_tabular"),
        (None, "dataset.not_tabular"),
        (pa.table({"a": pa.array([dt.time(1)])}), "dataset.type_unsupported"),
        (pa.table({"a": [1], "A": [2]}), "dataset.column_duplicate"),
    ],
)
def test_what_is_no_batch_is_refused_and_leaves_nothing(
    data: Data, scope: Scope, tmp_path: Path, batch: object, code: str
) -> None:
    data.create(scope, "flights")
    with pytest.raises(InvalidInput) as caught:
        data.write(scope, "flights", batch)
    assert caught.value.code == code
    assert data.get(scope, "flights").latest == 0
    assert list((tmp_path / "tables").rglob("*.parquet")) == []


def test_missing_datasets_and_odd_modes_are_refused(data: Data, scope: Scope) -> None:
    with pytest.raises(NotFound) as caught:
        data.write(scope, "flights", flights(1))
    assert "modelyard dataset create" in caught.value.hint
    assert data.write(scope, "flights", flights(1), create=True).version == 1
    assert data.write(scope, "flights", flights(2), create=True).version == 2
    mode: WriteMode = "upsert"  # type: ignore[assignment]
    with pytest.raises(InvalidInput):
        data.write(scope, "flights", flights(1), mode=mode)


def test_a_key_makes_a_repeated_write_have_the_first_result(data: Data, scope: Scope) -> None:
    data.create(scope, "flights", checks=CHECKS)
    data.create(scope, "others")
    first = data.write(scope, "flights", flights(1), idempotency_key="k")
    assert data.write(scope, "flights", flights(1), idempotency_key="k") == first
    assert data.write(scope, "others", flights(1), idempotency_key="k").version == 1
    bad = data.write(scope, "flights", flights(2, distance=-1), idempotency_key="b")
    assert data.write(scope, "flights", flights(2, distance=-1), idempotency_key="b") == bad
    assert data.get(scope, "flights").rows == 1
    assert len(data.quarantine.list(scope, "flights").items) == 1


def test_sixteen_writers_at_once_each_make_one_version(data: Data, scope: Scope) -> None:
    data.create(scope, "flights", checks=[Unique(columns=["id"])])
    written: dict[int, int | None] = {}
    failures: list[Exception] = []

    def write(number: int) -> None:
        try:
            # Two writers share each key, so half of them are repeats.
            written[number] = data.write(
                scope, "flights", flights(number // 2), idempotency_key=f"{number // 2}"
            ).version
        except ModelyardError as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert all(written[number] == written[number + 1] for number in range(0, 16, 2))
    assert sorted(set(written.values()), key=str) == list(range(1, 9))
    assert sorted(data.read(scope, "flights")["id"].to_pylist()) == list(range(8))


def test_a_verdict_is_one_over_the_newest_version(data: Data, scope: Scope) -> None:
    """Two writers append the same id at once: each batch alone is unique, together they are not."""
    data.create(scope, "flights", checks=[Unique(columns=["id"])])
    results = []

    def write() -> None:
        results.append(data.write(scope, "flights", flights(7)).status)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["published", "quarantined", "quarantined", "quarantined"]
    assert data.read(scope, "flights").num_rows == 1


def test_freshness_is_judged_by_the_given_clock(data: Data, scope: Scope, clock: FixedClock) -> None:
    data.create(scope, "flights", checks=[Freshness(column="at", max_age_s=3600)])
    stamps = pa.table({"at": pa.array([clock.now() - dt.timedelta(minutes=59)], pa.timestamp("us", tz="UTC"))})
    assert data.write(scope, "flights", stamps).published
    clock.advance(120)
    assert not data.write(scope, "flights", stamps).published
    assert data.write(scope, "flights", pa.table({"at": [clock.now()]})).published
    future = pa.table({"at": [clock.now() + dt.timedelta(days=1)]})
    assert "future" in data.write(scope, "flights", future).report.failed[0].message


# --- reading ----------------------------------------------------------------------------------------------------


def test_reading_takes_columns_and_a_condition(data: Data, scope: Scope) -> None:
    data.create(scope, "flights")
    data.write(scope, "flights", pa.concat_tables([flights(1, 2, 3), flights(4, distance=5.5)]))
    table = data.read(scope, "flights", columns=["distance", "id"], filter="distance < 10 AND carrier = 'AA'")
    assert table.schema.names == ["distance", "id"]
    assert table.to_pylist() == [{"distance": 5.5, "id": 4}]
    nothing = data.read(scope, "flights", filter="id > 100")
    assert nothing.num_rows == 0
    assert nothing.schema == data.read(scope, "flights").schema
    assert data.rows(scope, "flights", filter="id = 2").rows == [{"id": 2, "distance": 100.0, "carrier": "AA"}]
    assert len(data.rows(scope, "flights", limit=2).rows) == 2


@pytest.mark.parametrize(
    ("columns", "condition"),
    [
        (["nope"], None),
        ([], None),
        (None, "nope > 1"),
        (None, "id >"),
        (None, "true; DROP VIEW dataset"),
        (None, "id IN (SELECT 1 FROM read_csv('/etc/passwd'))"),
        (None, "carrier > 5"),
    ],
)
def test_wrong_columns_and_conditions_are_refused(
    data: Data, scope: Scope, columns: list[str] | None, condition: str | None
) -> None:
    data.create(scope, "flights")
    data.write(scope, "flights", flights(1))
    with pytest.raises(InvalidInput):
        data.read(scope, "flights", columns=columns, filter=condition)


def test_sql_runs_over_named_versions_only(data: Data, scope: Scope) -> None:
    data.create(scope, "flights")
    data.write(scope, "flights", flights(1, 2))
    data.write(scope, "flights", flights(3))
    statement = "SELECT count(*) AS n FROM flights"
    assert data.query(scope, statement, {"flights": None}).to_pylist() == [{"n": 3}]
    assert data.query(scope, statement, {"flights": 1}).to_pylist() == [{"n": 2}]
    with pytest.raises(InvalidInput):
        data.query(scope, statement, {})


def test_times_are_kept_in_microseconds_of_utc(data: Data, scope: Scope) -> None:
    data.create(scope, "times")
    data.write(scope, "times", pa.table({"t": pa.array([dt.datetime(2013, 1, 1)], pa.timestamp("ns"))}))
    found = data.read(scope, "times", filter="t >= TIMESTAMPTZ '2013-01-01 00:00:00Z'")
    assert found.schema.field("t").type == pa.timestamp("us", tz="UTC")
    assert found["t"].to_pylist() == [dt.datetime(2013, 1, 1, tzinfo=dt.UTC)]


# --- lineage, events, tags --------------------------------------------------------------------------------------


def test_what_a_job_reads_and_writes_is_in_the_lineage(data: Data, scope: Scope) -> None:
    data.create(scope, "flights")
    data.write(scope, "flights", flights(1))
    data.read(scope, "flights")
    assert edges(data, scope) == set(), "a person's looking is no lineage"
    data.read(JOB, "flights")
    data.append(JOB, "flights", flights(2))
    assert edges(data, scope) == {
        ("dataset:flights@1", "used", "job:abc"),
        ("dataset:flights@1#**", "used", "job:abc"),
        ("job:abc", "produced", "dataset:flights@2"),
        ("dataset:flights@1", "derived", "dataset:flights@2"),
    }


def test_every_change_is_an_event(data: Data, scope: Scope) -> None:
    data.create(scope, "flights")
    data.write(scope, "flights", flights(1))
    data.tag(scope, "flights", "gold", 1)
    data.untag(scope, "flights", "gold")
    data.update(scope, "flights", description="x")
    assert kinds(data, scope) == [
        "dataset.created",
        "dataset.version_published",
        "dataset.tagged",
        "dataset.untagged",
        "dataset.updated",
    ]


def test_tags_move_and_go(data: Data, scope: Scope) -> None:
    data.create(scope, "flights")
    for number in (1, 2):
        data.write(scope, "flights", flights(number))
    assert data.tag(scope, "flights", "gold", 1).tags == ["gold"]
    assert data.tag(scope, "flights", "gold", 2).tags == ["gold"]
    assert data.resolve(scope, "flights", 1).tags == []
    assert data.get(scope, "flights").tags == {"gold": 2}
    data.untag(scope, "flights", "gold")
    with pytest.raises(NotFound):
        data.untag(scope, "flights", "gold")
    with pytest.raises(NotFound):
        data.tag(scope, "flights", "gold", 3)
    for tag in ("1", "main", "latest", "", "a/b"):
        with pytest.raises(InvalidInput):
            data.tag(scope, "flights", tag, 1)


# --- sweeping ---------------------------------------------------------------------------------------------------


def test_what_a_crash_left_is_swept_and_quarantine_is_not(
    data: Data, scope: Scope, clock: FixedClock, tmp_path: Path
) -> None:
    data.create(scope, "flights", checks=CHECKS)
    held = data.write(scope, "flights", flights(1, distance=-1)).quarantine_id
    staging = tmp_path / "tables" / "default" / "flights" / "_staged"
    orphan, fresh, body = staging / "0", staging / "1", data.spool()
    for path in (orphan, fresh):
        path.mkdir()
    body.write_bytes(b"half")
    now = dt.datetime.now(dt.UTC)
    long_ago = (now - dt.timedelta(days=2)).timestamp()
    for path in (orphan, body, staging / (held or "")):
        os.utime(path, (long_ago, long_ago))
    recovery, sweep, *_ = data.reconcilers()
    assert recovery.due(now) == []
    [key] = sweep.due(now)
    sweep.act(key, None)  # type: ignore[arg-type]
    assert (orphan.exists(), fresh.exists(), body.exists()) == (False, True, False)
    assert data.quarantine.rows(scope, "flights", held or "").rows
    clock.advance(59 * 60)
    assert sweep.due(now + dt.timedelta(minutes=59)) == []
    clock.advance(2 * 60)
    assert sweep.due(now + dt.timedelta(minutes=61)) != []


# --- profile ----------------------------------------------------------------------------------------------------


def test_every_version_has_a_profile_of_all_its_rows(data: Data, scope: Scope) -> None:
    data.create(scope, "mixed")
    nan = float("nan")
    data.write(
        scope,
        "mixed",
        pa.table(
            {
                "n": [1, 2, 3, None],
                "f": [1.0, nan, float("inf"), None],
                "s": ["a", "b", "a", None],
                "b": [True, False, True, None],
                "d": pa.array([dt.date(2013, 1, 1), dt.date(2013, 1, 3), None, None]),
                "l": [[1], [], None, [2]],
            }
        ),
    )
    profile = data.resolve(scope, "mixed").profile
    assert profile is not None
    by_name = {column.name: column for column in profile.columns}
    assert profile.rows == 4
    n = by_name["n"]
    assert (n.count, n.nulls, n.min, n.max, n.mean, n.distinct) == (3, 1, 1, 3, 2.0, 3)
    assert n.quantiles["0.5"] == 2.0
    f = by_name["f"]
    assert (f.count, f.nulls, f.nans, f.min, f.max, f.mean) == (3, 1, 1, 1.0, 1.0, 1.0)
    s = by_name["s"]
    assert (s.min, s.max, s.distinct, s.top[0]) == ("a", "b", 2, "a")
    assert by_name["b"].mean == pytest.approx(2 / 3)
    assert (by_name["d"].min, by_name["d"].max) == ("2013-01-01", "2013-01-03")
    assert (by_name["l"].count, by_name["l"].nulls) == (3, 1)
    json.loads(msgspec.json.encode(profile))


@pytest.mark.parametrize(
    "column",
    [
        pa.array([None, None], pa.int64()),
        pa.array([float("nan")] * 2),
        pa.array(["", "é" * 1_000]),
        pa.array([2**63 - 1, -(2**63)]),
        pa.array([1e308, -1e308]),
        pa.array([b"\xff", b""]),
        pa.array([{"a": 1}, None]),
    ],
)
def test_profiles_and_samples_of_odd_columns_are_json(data: Data, scope: Scope, column: pa.Array) -> None:
    data.create(scope, "odd", checks=[Sql(query="SELECT * FROM batch", severity="warn")])
    written = data.write(scope, "odd", pa.table({"odd column; --": column}))
    assert written.published, written.report
    json.loads(msgspec.json.encode(data.resolve(scope, "odd")))
    assert len(written.report.failed[0].sample) == 2


# --- schemas, pure ----------------------------------------------------------------------------------------------

fields = st.sampled_from([pa.field(name, kind) for name in "abc" for kind in (pa.int64(), pa.string())])
schemas = st.lists(fields, unique_by=lambda field: field.name, min_size=1).map(pa.schema)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(schemas, schemas)
def test_an_append_keeps_what_the_dataset_had(batch: pa.Schema, base: pa.Schema) -> None:
    strict = schema_result(batch, base, Allowed())
    assert (strict.status == "passed") == ({(f.name, f.type) for f in batch} == {(f.name, f.type) for f in base})
    if schema_result(batch, base, Allowed(evolve=True)).status == "passed":
        merged = resulting_schema(batch, base)
        assert list(merged)[: len(base)] == list(base)
        assert set(merged.names) == set(batch.names)
    kept = {(f.name, f.type) for f in base} <= {(f.name, f.type) for f in batch}
    assert (schema_result(batch, base, Allowed(evolve=True, whole=True)).status == "passed") == kept
    assert schema_result(batch, base, Allowed(replace=True, whole=True)).status == "passed"
    assert schema_result(batch, base, Allowed(replace=True)).status == strict.status
    assert resulting_schema(batch, base, whole=True) == batch
    assert Finite(column="a").severity == "block"
