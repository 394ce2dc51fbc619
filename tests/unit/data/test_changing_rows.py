"""Writes that take rows away: merge by key, delete by condition, overwrite of a part; partitions; other readers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import deltalake
import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelyard.engines.tables.delta import DeltaTables
from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database, metadata
from modelyard.kernel.errors import InvalidInput, NotFound
from modelyard.planes.data import Data
from modelyard.types.data import RowCount, Unique


@pytest.fixture
def data(database: Database, tmp_path: Path) -> Data:
    return Data(database, DeltaTables(tmp_path / "tables"), tmp_path / "spill")


def rows(*ids: int, x: float = 1.0) -> pa.Table:
    return pa.table({"id": pa.array(ids, pa.int64()), "x": [x] * len(ids)})


def held(data: Data, scope: Scope, ref: int | str | None = None) -> dict[int, float]:
    found = data.read(scope, "flights", ref).to_pylist()
    assert len({row["id"] for row in found}) == len(found)
    assert len(found) == data.resolve(scope, "flights", ref).rows
    return {row["id"]: row["x"] for row in found}


def in_log(tmp_path: Path) -> list[dict[str, Any]]:
    """What another reader of the table sees."""
    table = deltalake.DeltaTable(tmp_path / "tables" / "default" / "flights")
    found: list[dict[str, Any]] = table.to_pyarrow_table().to_pylist()
    return found


def test_a_merge_replaces_rows_by_key_and_adds_the_others(data: Data, scope: Scope, tmp_path: Path) -> None:
    data.create(scope, "flights", key=["id"])
    data.write(scope, "flights", rows(1, 2))
    data.write(scope, "flights", rows(3, 4))
    data.write(scope, "flights", rows(5, 6))
    untouched = set(data.files(scope, "flights").files)
    merged = data.write(scope, "flights", rows(4, 7, x=2.0), mode="merge")
    assert (merged.status, merged.version, merged.rows) == ("published", 4, 2)
    assert held(data, scope) == {1: 1, 2: 1, 3: 1, 4: 2, 5: 1, 6: 1, 7: 2}
    assert held(data, scope, 3) == dict.fromkeys(range(1, 7), 1)
    assert len(untouched & set(data.files(scope, "flights").files)) == 2, "files without such a key stay as they are"
    assert sorted(row["id"] for row in in_log(tmp_path)) == [1, 2, 3, 4, 5, 6, 7]
    version = data.resolve(scope, "flights")
    assert (version.mode, version.parent, version.rows) == ("merge", 3, 7)
    assert version.profile is not None
    assert version.profile.rows == 7


def test_a_first_merge_is_a_first_version(data: Data, scope: Scope) -> None:
    data.create(scope, "flights")
    assert data.write(scope, "flights", rows(1, 2), mode="merge", on=["id"]).version == 1
    assert held(data, scope) == {1: 1, 2: 1}


@pytest.mark.parametrize(
    ("batch", "code"),
    [
        (pa.table({"id": [1, None], "x": [1.0, 1.0]}), "dataset.merge_key_null"),
        (pa.table({"id": [1, 2, 2], "x": [1.0, 1.0, 3.0]}), "dataset.merge_key_duplicate"),
    ],
)
def test_keys_that_are_null_or_there_twice_are_refused_with_examples(
    data: Data, scope: Scope, tmp_path: Path, batch: pa.Table, code: str
) -> None:
    data.create(scope, "flights", key=["id"])
    data.write(scope, "flights", rows(1))
    with pytest.raises(InvalidInput) as caught:
        data.write(scope, "flights", batch, mode="merge")
    assert caught.value.code == code
    assert caught.value.details["examples"][0]["id"] in (None, 2)
    assert held(data, scope) == {1: 1}
    assert not list((tmp_path / "tables" / "default" / "flights" / "_staged").glob("*"))


def test_nan_is_no_key(data: Data, scope: Scope) -> None:
    data.create(scope, "points")
    points = pa.table({"p": [1.0, float("nan")], "y": [1, 2]})
    with pytest.raises(InvalidInput) as caught:
        data.write(scope, "points", points, mode="merge", on=["p"])
    assert caught.value.code == "dataset.merge_key_null"
    assert data.get(scope, "points").latest == 0


@pytest.mark.parametrize("on", [[], ["nope"]])
def test_a_merge_needs_a_key_that_is_there(data: Data, scope: Scope, on: list[str]) -> None:
    data.create(scope, "flights")
    data.write(scope, "flights", rows(1))
    with pytest.raises(InvalidInput) as caught:
        data.write(scope, "flights", rows(1), mode="merge", on=on)
    assert caught.value.code == "dataset.merge_key_missing"


def test_a_delete_takes_the_rows_that_meet_a_condition(data: Data, scope: Scope, tmp_path: Path) -> None:
    data.create(scope, "flights")
    data.write(scope, "flights", rows(1, 2, 3))
    data.write(scope, "flights", pa.table({"id": [4, 5], "x": [None, 9.0]}))
    done = data.delete_rows(scope, "flights", "x > 0 AND id <> 2 -- and no more", source="request 17")
    assert (done.status, done.version, done.rows) == ("published", 3, 3)
    assert held(data, scope) == {2: 1.0, 4: None}, "a condition that is null holds of no row"
    assert sorted(row["id"] for row in in_log(tmp_path)) == [2, 4]
    version = data.resolve(scope, "flights")
    assert (version.mode, version.rows_written, version.source) == ("delete", 3, "request 17")
    again = data.delete_rows(scope, "flights", "id = 99")
    assert (again.status, again.version) == ("unchanged", 3)
    assert data.delete_rows(scope, "flights", "true").version == 4
    assert held(data, scope) == {}
    assert in_log(tmp_path) == []
    assert data.write(scope, "flights", rows(8)).version == 5
    assert held(data, scope, 2) == {1: 1, 2: 1, 3: 1, 4: None, 5: 9}


def test_a_condition_may_look_at_the_whole_dataset(data: Data, scope: Scope) -> None:
    data.create(scope, "flights")
    data.write(scope, "flights", rows(1, 2, 3))
    data.write(scope, "flights", rows(4))
    data.delete_rows(scope, "flights", "id < (SELECT max(id) FROM dataset)")
    assert held(data, scope) == {4: 1}


@pytest.mark.parametrize(
    "where",
    ["nope = 1", "id >", "", "true) OR (true", "id IN (SELECT 1 FROM read_csv('/etc/passwd'))", "1; DROP VIEW x"],
)
def test_what_is_no_condition_is_refused(data: Data, scope: Scope, where: str) -> None:
    data.create(scope, "flights")
    data.write(scope, "flights", rows(1))
    with pytest.raises(InvalidInput):
        data.delete_rows(scope, "flights", where)
    with pytest.raises(InvalidInput):
        data.write(scope, "flights", rows(2), mode="overwrite", where=where)
    assert held(data, scope) == {1: 1}


def test_there_is_nothing_to_delete_from_a_dataset_without_versions(data: Data, scope: Scope) -> None:
    data.create(scope, "flights")
    with pytest.raises(NotFound):
        data.delete_rows(scope, "flights", "true")


def test_a_delete_that_its_checks_turn_down_moves_nothing(data: Data, scope: Scope) -> None:
    data.create(scope, "flights", checks=[RowCount(of="dataset", min=2)])
    data.write(scope, "flights", rows(1, 2))
    done = data.delete_rows(scope, "flights", "id = 1")
    assert done.status == "quarantined"
    assert held(data, scope) == {1: 1, 2: 1}
    assert data.quarantine.get(scope, "flights", done.quarantine_id or "").mode == "delete"
    with pytest.raises(NotFound):
        data.quarantine.rows(scope, "flights", done.quarantine_id or "")


def test_an_overwrite_of_a_part_replaces_that_part(data: Data, scope: Scope, tmp_path: Path) -> None:
    data.create(scope, "flights", checks=[Unique(columns=["id"])])
    data.write(scope, "flights", rows(1, 2))
    data.write(scope, "flights", rows(10, 11))
    assert data.write(scope, "flights", rows(12, 13, 14, x=5.0), mode="overwrite", where="id >= 10").version == 3
    assert held(data, scope) == {1: 1, 2: 1, 12: 5, 13: 5, 14: 5}
    assert len(in_log(tmp_path)) == 5
    with pytest.raises(InvalidInput) as caught:
        data.write(scope, "flights", rows(3, 15), mode="overwrite", where="id >= 10")
    assert caught.value.code == "dataset.overwrite_outside"
    wider = rows(20).append_column("y", pa.array(["new"]))
    assert data.write(scope, "flights", wider, mode="overwrite", where="id >= 10").status == "quarantined"
    for mode in ("append", "merge"):
        with pytest.raises(InvalidInput):
            data.write(scope, "flights", rows(1), mode=mode, where="id = 1")  # type: ignore[arg-type]


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("merge"), st.dictionaries(st.integers(0, 8), st.integers(0, 3), min_size=1, max_size=5)),
            st.tuples(st.just("delete"), st.integers(0, 8)),
            st.tuples(st.just("compact"), st.just(0)),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_any_row_of_changes_ends_as_in_a_dictionary(
    tmp_path_factory: pytest.TempPathFactory, scope: Scope, steps: list[Any]
) -> None:
    home = tmp_path_factory.mktemp("changes")
    database = Database(f"sqlite:///{home}/catalog.db")

    metadata.create_all(database.engine)
    data = Data(database, DeltaTables(home / "tables"), home / "spill")
    data.create(scope, "flights", key=["id"])
    wanted: dict[int, float] = {}
    for kind, what in steps:
        if kind == "merge":
            wanted |= what
            batch = pa.table({"id": list(what), "x": [float(one) for one in what.values()]})
            data.write(scope, "flights", batch, mode="merge")
        elif data.get(scope, "flights").latest:
            if kind == "delete":
                wanted = {key: value for key, value in wanted.items() if key < what}
                data.delete_rows(scope, "flights", f"id >= {what}")
            else:
                data.layout.compact(scope, "flights")
    if data.get(scope, "flights").latest:
        assert held(data, scope) == wanted
        table = deltalake.DeltaTable(home / "tables" / "default" / "flights").to_pyarrow_table()
        assert dict(zip(table["id"].to_pylist(), table["x"].to_pylist(), strict=True)) == wanted
    database.close()


# --- partitions -------------------------------------------------------------------------------------------------


def test_a_partitioned_table_is_one_for_every_reader(data: Data, scope: Scope, tmp_path: Path) -> None:
    data.create(scope, "flights", partition_by=["carrier", "month"])
    batch = pa.table(
        {"id": [1, 2, 3, 4], "carrier": ["AA", "B6", "AA", None], "month": [1, 1, 2, 1], "x": [1.0, 2.0, 3.0, 4.0]}
    )
    data.write(scope, "flights", batch)
    data.write(scope, "flights", pa.table({"id": [5], "carrier": ["AA"], "month": [1], "x": [5.0]}))
    assert len(data.files(scope, "flights").files) == 5
    ordered = data.read(scope, "flights").sort_by("id")
    assert ordered["carrier"].to_pylist() == ["AA", "B6", "AA", None, "AA"]
    table = deltalake.DeltaTable(tmp_path / "tables" / "default" / "flights")
    assert table.metadata().partition_columns == ["carrier", "month"]
    by_partition = table.to_pyarrow_table(partitions=[("carrier", "=", "AA"), ("month", "=", "1")])
    assert sorted(by_partition["id"].to_pylist()) == [1, 5]
    assert table.to_pyarrow_table().sort_by("id").select(batch.schema.names).to_pylist() == ordered.to_pylist()
    seen = (
        deltalake.QueryBuilder().register("t", table).execute("SELECT id, carrier FROM t WHERE month = 1 ORDER BY id")
    )
    assert pa.table(seen)["carrier"].to_pylist() == ["AA", "B6", None, "AA"]
    data.delete_rows(scope, "flights", "carrier = 'AA' AND month = 1")
    data.layout.compact(scope, "flights")
    assert sorted(data.read(scope, "flights")["id"].to_pylist()) == [2, 3, 4]
    table.update_incremental()
    assert sorted(table.to_pyarrow_table()["id"].to_pylist()) == [2, 3, 4]


@pytest.mark.parametrize(
    ("batch", "code"),
    [
        (pa.table({"id": [1], "p": [1.5]}), "dataset.partition_type"),
        (pa.table({"id": [1]}), "dataset.partition_missing"),
        (pa.table({"p": ["a"]}), "dataset.partition_missing"),
        (pa.table({"id": [1, 2], "p": ["a", ""]}), "dataset.partition_empty"),
        (pa.table({"id": range(2_001), "p": range(2_001)}), "dataset.too_many_partitions"),
    ],
)
def test_partitions_that_cannot_be_are_refused(
    data: Data, scope: Scope, tmp_path: Path, batch: pa.Table, code: str
) -> None:
    data.create(scope, "flights", partition_by=["p"])
    with pytest.raises(InvalidInput) as caught:
        data.write(scope, "flights", batch)
    assert caught.value.code == code
    assert data.get(scope, "flights").latest == 0
    assert list((tmp_path / "tables").rglob("*.parquet")) == []


def test_duckdb_reads_the_files_of_a_version(data: Data, scope: Scope) -> None:
    data.create(scope, "flights")
    data.write(scope, "flights", rows(1, 2))
    data.write(scope, "flights", rows(3).append_column("y", pa.array(["new"])), evolve=True)
    held = data.files(scope, "flights")
    assert not held.uniform
    found = duckdb.read_parquet(held.files, union_by_name=True).order("id").fetchall()
    assert found == [(1, 1.0, None), (2, 1.0, None), (3, 1.0, "new")]
    assert data.files(scope, "flights", 1).uniform
