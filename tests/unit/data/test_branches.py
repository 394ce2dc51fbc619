"""Branches, instants, merges, reverts; and what compaction and vacuum leave alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelyard.engines.tables.delta import DeltaTables
from modelyard.kernel import lineage
from modelyard.kernel.auth import Principal, Role, Scope
from modelyard.kernel.clock import FixedClock
from modelyard.kernel.database import Database
from modelyard.kernel.errors import Conflict, InvalidInput, NotFound
from modelyard.kernel.events import events as events_table
from modelyard.planes.data import Data
from modelyard.planes.data.retention import VersionMark, decide
from modelyard.types.data import Retention, RowCount
from modelyard.types.data_branches import Vacuum

JOB = Scope("default", Principal("job:abc", {"*": Role.CONTRIBUTOR}))


@pytest.fixture
def data(database: Database, tmp_path: Path) -> Data:
    return Data(database, DeltaTables(tmp_path / "tables"), tmp_path / "spill")


def rows(*ids: int, x: float = 1.0) -> pa.Table:
    return pa.table({"id": pa.array(ids, pa.int64()), "x": [x] * len(ids)})


def ids(data: Data, scope: Scope, ref: int | str | None = None) -> list[int]:
    found: list[int] = data.read(scope, "flights", ref)["id"].to_pylist()
    assert len(found) == data.resolve(scope, "flights", ref).rows
    return found


def log(tmp_path: Path) -> deltalake.DeltaTable:
    return deltalake.DeltaTable(tmp_path / "tables" / "default" / "flights")


def bytes_of(tmp_path: Path) -> int:
    return sum(file.stat().st_size for file in (tmp_path / "tables").rglob("*.parquet"))


def two_versions(data: Data, scope: Scope, **options: Any) -> None:
    data.create(scope, "flights", key=["id"], **options)
    data.write(scope, "flights", rows(1, 2))
    data.write(scope, "flights", rows(3))


# --- branches ---------------------------------------------------------------------------------------------------


def test_a_branch_copies_nothing_and_main_is_a_plain_table_beside_it(data: Data, scope: Scope, tmp_path: Path) -> None:
    two_versions(data, scope)
    before = bytes_of(tmp_path)
    made = data.branches.create(scope, "flights", "try")
    assert (made.head, made.base, made.created_by) == (2, 2, "ada")
    assert bytes_of(tmp_path) == before
    written = data.write(scope, "flights", rows(4), branch="try")
    assert written.version == 3
    data.write(scope, "flights", rows(1, x=9.0), mode="merge", branch="try")
    data.delete_rows(scope, "flights", "id = 2", branch="try")
    assert sorted(ids(data, scope, "try")) == [1, 3, 4]
    assert ids(data, scope) == ids(data, scope, "main") == [1, 2, 3]
    assert log(tmp_path).version() == 1
    assert sorted(log(tmp_path).to_pyarrow_table()["id"].to_pylist()) == [1, 2, 3]
    version = data.resolve(scope, "flights", "try")
    assert (version.version, version.branch, version.parent, version.table_version) == (5, "try", 4, None)
    assert data.get(scope, "flights").branches == {"try": 5}
    assert data.get(scope, "flights").latest == 2


def test_a_merge_moves_main_by_one_entry_of_the_log(data: Data, scope: Scope, tmp_path: Path) -> None:
    two_versions(data, scope)
    data.branches.create(scope, "flights", "try")
    data.write(scope, "flights", rows(4), branch="try")
    data.write(
        scope, "flights", rows(1, x=9.0).append_column("y", pa.array(["new"])), mode="merge", branch="try", evolve=True
    )
    done = data.branches.merge(scope, "flights", "try")
    assert (done.before, done.version, done.moved) == (2, 4, True)
    assert sorted(ids(data, scope)) == [1, 2, 3, 4]
    assert data.resolve(scope, "flights").table_version == log(tmp_path).version() == 2
    seen = log(tmp_path).to_pyarrow_table().sort_by("id")
    assert seen["x"].to_pylist() == [9, 1, 1, 1]
    assert seen["y"].to_pylist() == ["new", None, None, None]
    assert not data.branches.merge(scope, "flights", "try").moved
    assert data.write(scope, "flights", rows(5).append_column("y", pa.array(["z"]))).version == 5
    assert ids(data, scope, 2) == [1, 2, 3]
    assert not data.branches.merge(scope, "flights", "try").moved, "main has it all already"


def test_where_both_moved_a_merge_is_refused_with_what_conflicts(data: Data, scope: Scope) -> None:
    two_versions(data, scope)
    data.branches.create(scope, "flights", "try")
    data.write(scope, "flights", rows(1, 3, x=5.0), mode="merge", branch="try")
    data.write(scope, "flights", rows(3, 9, x=6.0), mode="merge")
    with pytest.raises(Conflict) as caught:
        data.branches.merge(scope, "flights", "try")
    assert caught.value.code == "dataset.merge_conflict"
    assert "since version 2" in caught.value.message
    assert caught.value.details["versions"] == {"try": [3], "main": [4]}
    assert caught.value.details["key_conflicts"].keys == 1
    assert caught.value.details["key_conflicts"].examples == [{"id": 3}]
    assert data.get(scope, "flights").latest == 4
    data.branches.create(scope, "flights", "again")
    assert data.branches.merge(scope, "flights", "main", into="again").moved is False


def test_branches_are_made_anywhere_and_removed(data: Data, scope: Scope) -> None:
    two_versions(data, scope)
    data.tag(scope, "flights", "gold", 1)
    assert data.branches.create(scope, "flights", "old", "gold").head == 1
    assert data.branches.create(scope, "flights", "older", "old").head == 1
    assert [one.name for one in data.branches.list(scope, "flights")] == ["old", "older"]
    for name, code in (
        ("old", "dataset.branch_exists"),
        ("gold", "dataset.ref_taken"),
        ("main", "dataset.branch_invalid"),
        ("7", "dataset.branch_invalid"),
        ("2013-04-01", "dataset.branch_invalid"),
        ("../x", "dataset.branch_invalid"),
    ):
        with pytest.raises((Conflict, InvalidInput)) as caught:
            data.branches.create(scope, "flights", name)
        assert caught.value.code == code
    with pytest.raises(Conflict):
        data.tag(scope, "flights", "old", 1)
    data.branches.delete(scope, "flights", "older")
    for act in (data.branches.delete, data.branches.get):
        with pytest.raises(NotFound):
            act(scope, "flights", "older")
    with pytest.raises(NotFound):
        data.write(scope, "flights", rows(1), branch="older")
    with pytest.raises(NotFound):
        data.branches.create(scope, "flights", "new", 99)


def test_a_dataset_may_begin_on_a_branch(data: Data, scope: Scope, tmp_path: Path) -> None:
    data.create(scope, "flights")
    data.branches.create(scope, "flights", "try")
    assert data.write(scope, "flights", rows(1), branch="try").version == 1
    with pytest.raises(NotFound) as caught:
        data.read(scope, "flights")
    assert caught.value.code == "dataset.empty"
    data.branches.merge(scope, "flights", "try")
    assert ids(data, scope) == [1]
    assert log(tmp_path).to_pyarrow_table().num_rows == 1


def test_checks_guard_branches_too(data: Data, scope: Scope) -> None:
    two_versions(data, scope, checks=[RowCount(max=2)])
    data.branches.create(scope, "flights", "try")
    assert data.write(scope, "flights", rows(7, 8, 9), branch="try").status == "quarantined"
    assert data.get(scope, "flights").branches == {"try": 2}


def test_versions_of_branches_differ_as_others_do(data: Data, scope: Scope) -> None:
    two_versions(data, scope)
    data.branches.create(scope, "flights", "try", 1)
    data.write(scope, "flights", rows(2, 4, x=3.0), mode="merge", branch="try")
    found = data.diffs.between(scope, "flights", "main", "try", ["id"])
    assert (found.added, found.removed, found.changed) == (1, 1, 1)


# --- time and reverting -----------------------------------------------------------------------------------------


def test_an_instant_names_what_main_was_then(data: Data, scope: Scope, clock: FixedClock) -> None:
    two_versions(data, scope)
    clock.advance(86_400)
    data.write(scope, "flights", rows(4), mode="overwrite")
    clock.advance(86_400)
    data.branches.create(scope, "flights", "try")
    data.write(scope, "flights", rows(5), branch="try")
    clock.advance(86_400)
    data.branches.merge(scope, "flights", "try")
    for at, version in (
        ("2013-03-01T12:00Z", 2),
        ("2013-03-02T11:59:59Z", 2),
        ("2013-03-02T13:00+01:00", 3),
        ("2013-03-03 23:00", 3),
        ("2013-03-04T12:00:00.000001Z", 4),
        ("2100-01-01", 4),
    ):
        assert data.resolve(scope, "flights", at).version == version
    with pytest.raises(NotFound):
        data.resolve(scope, "flights", "2013-01-01")
    with pytest.raises(InvalidInput):
        data.resolve(scope, "flights", "2013-13-01T00:00Z")


def test_a_revert_is_a_version_in_the_files_of_the_older_one(data: Data, scope: Scope, tmp_path: Path) -> None:
    two_versions(data, scope)
    data.write(scope, "flights", rows(7).append_column("y", pa.array([1])), mode="overwrite", evolve=True)
    before = bytes_of(tmp_path)
    done = data.branches.revert(scope, "flights", 2)
    assert (done.status, done.version, done.rows) == ("published", 4, 3)
    assert bytes_of(tmp_path) == before
    assert ids(data, scope) == [1, 2, 3]
    assert data.resolve(scope, "flights").source == "dataset:flights@2"
    assert sorted(log(tmp_path).to_pyarrow_table()["id"].to_pylist()) == [1, 2, 3]
    assert log(tmp_path).to_pyarrow_table().schema.names == ["id", "x"]
    assert data.branches.revert(scope, "flights", 4).status == "unchanged"
    assert data.write(scope, "flights", rows(8)).version == 5
    assert ids(data, scope, 3) == [7]
    with pytest.raises(NotFound):
        data.branches.revert(scope, "flights", 99)


def test_what_moves_is_said_and_tied(data: Data, scope: Scope, database: Database) -> None:
    two_versions(data, scope)
    data.branches.create(scope, "flights", "try")
    data.write(scope, "flights", rows(4), branch="try", source="dataset:feed@3")
    data.branches.merge(scope, "flights", "try")
    data.branches.delete(scope, "flights", "try")
    data.branches.revert(scope, "flights", 1)
    with database.reading(scope) as tx:
        kinds = [row.kind for row in tx.all(events_table.select().order_by(events_table.c.id))]
        edges = {(row.cause, row.effect) for row in tx.all(lineage.edges.select())}
    assert kinds[3:] == [
        "dataset.branch_created",
        "dataset.branch_written",
        "dataset.merged",
        "dataset.version_published",
        "dataset.branch_deleted",
        "dataset.version_published",
    ]
    assert edges == {
        ("dataset:flights@1", "dataset:flights@2"),
        ("dataset:flights@2", "dataset:flights@3"),
        ("dataset:feed@3", "dataset:flights@3"),
        ("dataset:flights@3", "dataset:flights@4"),
        ("dataset:flights@1", "dataset:flights@4"),
    }


# --- compaction and vacuum --------------------------------------------------------------------------------------


def test_compaction_leaves_the_version_its_rows_and_their_order(data: Data, scope: Scope, tmp_path: Path) -> None:
    data.create(scope, "flights")
    for number in range(12):
        data.write(scope, "flights", rows(100 - number, number))
    before = data.read(scope, "flights")
    done = data.layout.compact(scope, "flights")
    assert (done.version, done.files_before, done.files_after) == (12, 12, 1)
    assert data.get(scope, "flights").latest == 12
    assert data.read(scope, "flights").equals(before)
    assert data.read(scope, "flights", 7).num_rows == 14
    assert len(log(tmp_path).file_uris()) == 1
    assert log(tmp_path).to_pyarrow_table().num_rows == 24
    assert data.layout.compact(scope, "flights").files_after == 1
    data.write(scope, "flights", rows(500))
    assert data.read(scope, "flights").slice(0, 24).equals(before)
    assert log(tmp_path).to_pyarrow_table().num_rows == 25
    assert data.resolve(scope, "flights", 12).profile is not None


def test_vacuum_keeps_what_something_points_at(data: Data, scope: Scope, tmp_path: Path, clock: FixedClock) -> None:
    data.create(scope, "flights")
    for number in range(1, 9):
        data.write(scope, "flights", rows(number), mode="overwrite")
        clock.advance(3_600)
    data.tag(scope, "flights", "gold", 2)
    data.branches.create(scope, "flights", "try", 3)
    data.read(JOB, "flights", 4)
    nothing = data.layout.vacuum(scope, "flights", Vacuum(grace_s=0))
    assert (nothing.expired, nothing.files_removed) == ([], 0)
    asked = Vacuum(retention=Retention(versions=2), grace_s=0, dry_run=True)
    shown = data.layout.vacuum(scope, "flights", asked)
    assert (shown.expired, shown.files_removed) == ([1, 5, 6], 0)
    assert shown.kept == {2: "tag 'gold'", 3: "branch 'try'", 4: "job:abc used it"}
    assert ids(data, scope, 5) == [5]
    done = data.layout.vacuum(scope, "flights", Vacuum(retention=Retention(versions=2), grace_s=0))
    assert (done.expired, done.files_removed) == ([1, 5, 6], 3)
    for number in (2, 3, 4, 7, 8):
        assert ids(data, scope, number) == [number]
    for act in (data.read, data.branches.revert):
        with pytest.raises(NotFound) as caught:
            act(scope, "flights", 5)
        assert caught.value.code == "dataset.version_expired"
    assert data.resolve(scope, "flights", 5).expired_at is not None
    assert len(list((tmp_path / "tables" / "default" / "flights").glob("*.parquet"))) == 5
    assert log(tmp_path).to_pyarrow_table()["id"].to_pylist() == [8]
    assert data.layout.vacuum(scope, "flights", Vacuum(grace_s=0)).files_removed == 0


def test_files_that_nothing_names_stay_for_the_grace(data: Data, scope: Scope, clock: FixedClock) -> None:
    data.create(scope, "flights")
    for number in range(4):
        data.write(scope, "flights", rows(number))
    old = data.files(scope, "flights").files
    data.layout.compact(scope, "flights")
    keep_one = Vacuum(retention=Retention(versions=1), grace_s=0.001)
    assert data.layout.vacuum(scope, "flights", keep_one).files_removed == 0, "a reader may be at it"
    assert all(Path(file).exists() for file in old)
    clock.advance(10)
    assert data.layout.vacuum(scope, "flights", keep_one).files_removed == 4
    assert len(ids(data, scope)) == 4


def test_a_retention_of_the_dataset_is_carried_out_by_itself(data: Data, scope: Scope, clock: FixedClock) -> None:
    two_versions(data, scope)
    vacuum = data.reconcilers()[3]
    assert vacuum.due(clock.now()) == []
    assert data.update(scope, "flights", retention=Retention(versions=1)).retention == Retention(versions=1)
    [key] = vacuum.due(clock.now())
    vacuum.act(key, None)  # type: ignore[arg-type]
    assert data.resolve(scope, "flights", 1).expired_at is not None


marks = st.lists(st.integers(0, 20), unique=True, min_size=1).map(sorted)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(marks, st.none() | st.integers(1, 25), st.none() | st.integers(0, 25), st.sets(st.integers(0, 20)))
def test_a_vacuum_gives_up_only_what_no_rule_keeps(
    days: list[int], versions: int | None, keep_days: int | None, pinned: set[int]
) -> None:
    at = datetime(2013, 3, 1, tzinfo=UTC)
    held = [VersionMark(day + 1, at - timedelta(days=20 - day)) for day in days]
    pins = {one + 1: "a tag" for one in pinned}
    decisions = decide(held, Retention(versions=versions, days=keep_days), at, pins)
    given_up = {one.version for one in decisions if not one.keep}
    assert [one.version for one in decisions] == [one.version for one in held]
    assert not given_up & pins.keys()
    if versions is None and keep_days is None:
        assert given_up == set()
    for one in held:
        newest = sorted((other.version for other in held), reverse=True).index(one.version)
        kept = (versions is not None and newest < versions) or (
            keep_days is not None and one.created_at >= at - timedelta(days=keep_days)
        )
        assert not (kept and one.version in given_up)


def test_what_is_for_tables_is_refused_for_files(data: Data, scope: Scope) -> None:
    data.create(scope, "images", kind="files")
    for act in (
        lambda: data.branches.revert(scope, "images", 1),
        lambda: data.layout.compact(scope, "images"),
        lambda: data.layout.vacuum(scope, "images"),
        lambda: data.buffers.append(scope, "images", rows(1)),
        lambda: data.delete_rows(scope, "images", "true"),
    ):
        with pytest.raises(Conflict) as caught:
            act()
        assert caught.value.code == "dataset.kind"
