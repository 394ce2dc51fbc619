"""Tables of others: read in place, taken over, imported; and what is wrong with them said with its place."""

from __future__ import annotations

import datetime as dt
import json
import os
from pathlib import Path

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modelyard.engines.tables.delta import DeltaTables
from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database
from modelyard.kernel.errors import Conflict, EngineError, InvalidInput, ModelyardError, NotFound
from modelyard.planes.data import Data
from modelyard.sdk.data_import import open_source
from modelyard.types.data import Range


@pytest.fixture
def data(database: Database, tmp_path: Path) -> Data:
    return Data(database, DeltaTables(tmp_path / "tables"), tmp_path / "spill")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "theirs"
    made.mkdir()
    return made


ROWS = pa.table({"id": [1, 2, 3], "carrier": ["AA", "B6", None], "x": [1.0, float("nan"), 3.0]})


# --- read in place ----------------------------------------------------------------------------------------------


def test_a_delta_table_is_read_where_it_lies_and_followed(data: Data, scope: Scope, folder: Path) -> None:
    deltalake.write_deltalake(folder, ROWS, partition_by=["carrier"])
    before = {file.name for file in folder.rglob("*")}
    made = data.sources.register(scope, "flights", str(folder), "theirs")
    assert (made.status, made.version, made.rows) == ("published", 1, 3)
    assert data.get(scope, "flights").origin == str(folder.resolve())
    assert {file.name for file in folder.rglob("*")} == before, "nothing is written there"
    read = data.read(scope, "flights").sort_by("id")
    assert read["carrier"].to_pylist() == ["AA", "B6", None]
    assert data.read(scope, "flights", filter="carrier = 'B6'")["id"].to_pylist() == [2]
    assert data.read(scope, "flights", columns=["carrier"], filter="carrier IS NULL").num_rows == 1
    assert data.query(
        scope, "SELECT count(*) AS n FROM flights WHERE carrier IS NOT NULL", {"flights": 1}
    ).to_pylist() == [{"n": 2}]
    profile = data.resolve(scope, "flights").profile
    assert profile is not None
    assert profile.rows == 3
    assert data.sources.sync(scope, "flights").status == "unchanged"
    deltalake.write_deltalake(folder, ROWS, mode="append")
    assert data.sources.sync(scope, "flights").version == 2
    assert data.read(scope, "flights").num_rows == 6
    assert data.read(scope, "flights", 1).num_rows == 3
    assert data.resolve(scope, "flights").table_version == 1


def test_what_is_read_in_place_is_not_written(data: Data, scope: Scope, folder: Path) -> None:
    deltalake.write_deltalake(folder, ROWS)
    data.sources.register(scope, "flights", str(folder))
    for act in (
        lambda: data.write(scope, "flights", ROWS),
        lambda: data.delete_rows(scope, "flights", "true"),
        lambda: data.layout.compact(scope, "flights"),
        lambda: data.layout.vacuum(scope, "flights"),
        lambda: data.buffers.append(scope, "flights", ROWS),
        lambda: data.branches.revert(scope, "flights", 1),
    ):
        with pytest.raises(Conflict) as caught:
            act()
        assert caught.value.code == "dataset.read_in_place"
    assert data.read(scope, "flights").num_rows == 3


def test_checks_guard_what_others_write(data: Data, scope: Scope, folder: Path) -> None:
    deltalake.write_deltalake(folder, ROWS)
    data.sources.register(scope, "flights", str(folder))
    data.update(scope, "flights", checks=[Range(column="id", min=0)])
    deltalake.write_deltalake(folder, pa.table({"id": [-1], "carrier": ["AA"], "x": [0.0]}), mode="append")
    assert data.sources.sync(scope, "flights").status == "quarantined"
    assert data.read(scope, "flights").num_rows == 3
    [held] = data.quarantine.list(scope, "flights").items
    assert (held.mode, held.rows) == ("adopt", 4)


def test_a_folder_of_parquet_is_read_in_place(data: Data, scope: Scope, folder: Path) -> None:
    for month in (1, 2):
        (folder / f"month={month}").mkdir()
        pq.write_table(ROWS, folder / f"month={month}" / "a.parquet")
    assert data.sources.register(scope, "flights", str(folder)).version == 1
    assert data.read(scope, "flights", filter="month = 2")["month"].to_pylist() == [2, 2, 2]
    assert data.read(scope, "flights")["month"].to_pylist() == [1, 1, 1, 2, 2, 2]
    (folder / "month=3").mkdir()
    pq.write_table(ROWS.append_column("y", pa.array([1, 2, 3])), folder / "month=3" / "b.parquet")
    assert data.sources.sync(scope, "flights").version == 2
    assert data.sources.sync(scope, "flights").status == "unchanged"
    assert data.read(scope, "flights").num_rows == 9
    assert data.read(scope, "flights", 1).num_rows == 6


def test_a_file_that_was_changed_in_place_is_noticed(data: Data, scope: Scope, folder: Path) -> None:
    pq.write_table(ROWS, folder / "a.parquet")
    data.sources.register(scope, "flights", str(folder))
    pq.write_table(ROWS.slice(0, 1), folder / "a.parquet")
    with pytest.raises(EngineError) as caught:
        data.read(scope, "flights")
    assert caught.value.code == "table.file_changed"
    assert data.sources.sync(scope, "flights").version == 2
    assert data.read(scope, "flights").num_rows == 1
    (folder / "a.parquet").unlink()
    with pytest.raises(EngineError):
        data.read(scope, "flights")


def test_what_cannot_be_read_in_place_is_refused_with_the_place(
    data: Data, scope: Scope, folder: Path, tmp_path: Path
) -> None:
    def refused(code: str, *words: str, path: Path = folder) -> None:
        with pytest.raises(ModelyardError) as caught:
            data.sources.register(scope, "flights", str(path))
        assert caught.value.code == code
        assert all(word in caught.value.message for word in words)
        with pytest.raises(NotFound):
            data.get(scope, "flights")

    refused("dataset.nothing_to_register")
    refused("dataset.path_invalid", path=Path("relative"))
    refused("dataset.path_invalid", path=tmp_path / "nope")
    (folder / "bad.parquet").write_bytes(b"PAR1 truncated")
    refused("table.file_damaged", "bad.parquet")
    (folder / "bad.parquet").unlink()
    pq.write_table(ROWS, folder / "a.parquet")
    pq.write_table(ROWS, folder / "A.parquet")
    refused("dataset.names_collide", "a.parquet", "A.parquet")
    (folder / "A.parquet").unlink()
    pq.write_table(pa.table({"id": ["x"]}), folder / "b.parquet")
    refused("dataset.files_differ", "b.parquet", "'id'")
    naive = pa.table({"t": pa.array([dt.datetime(2013, 1, 1)], pa.timestamp("us"))})
    pq.write_table(naive, folder / "b.parquet")
    refused("dataset.not_in_place", "b.parquet", "'t'")
    (folder / "b.parquet").unlink()
    os.symlink("/etc/passwd", folder / "link.parquet")
    refused("dataset.not_in_place", "link.parquet")


def test_a_log_with_a_gap_or_a_path_out_of_the_table_is_refused(data: Data, scope: Scope, folder: Path) -> None:
    for _ in range(3):
        deltalake.write_deltalake(folder, ROWS, mode="append")
    entry = folder / "_delta_log" / f"{1:020d}.json"
    kept = entry.read_text()
    entry.unlink()
    with pytest.raises(EngineError) as caught:
        data.sources.register(scope, "flights", str(folder))
    assert entry.name in caught.value.message
    lines = [json.loads(line) for line in kept.splitlines()]
    for line in lines:
        if "add" in line:
            line["add"]["path"] = "../secret.parquet"
    entry.write_text("\n".join(json.dumps(line) for line in lines))
    with pytest.raises(EngineError) as caught:
        data.sources.register(scope, "flights", str(folder))
    assert caught.value.code == "table.path_outside"
    entry.write_text(kept)
    protocol = {"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": ["deletionVectors"],
                             "writerFeatures": ["deletionVectors"]}}  # fmt: skip
    (folder / "_delta_log" / f"{3:020d}.json").write_text(json.dumps(protocol))
    with pytest.raises(InvalidInput) as refused:
        data.sources.register(scope, "flights", str(folder))
    assert refused.value.code == "dataset.not_in_place"
    assert "deletionVectors" in refused.value.message


# --- what others add to ours ------------------------------------------------------------------------------------


def test_what_another_writer_added_to_our_table_is_taken_over_and_checked(
    data: Data, scope: Scope, tmp_path: Path
) -> None:
    data.create(scope, "flights", checks=[Range(column="id", min=0)])
    data.write(scope, "flights", ROWS)
    table = tmp_path / "tables" / "default" / "flights"
    deltalake.write_deltalake(table, ROWS, mode="append")
    assert data.read(scope, "flights").num_rows == 3
    with pytest.raises(Conflict) as caught:
        data.write(scope, "flights", ROWS)
    assert caught.value.code == "dataset.foreign_commits"
    assert data.sources.sync(scope, "flights").version == 2
    assert data.read(scope, "flights").num_rows == 6
    assert data.write(scope, "flights", ROWS).version == 3
    assert deltalake.DeltaTable(table).to_pyarrow_table().num_rows == 9
    assert data.layout.compact(scope, "flights").files_after == 1
    assert data.read(scope, "flights").num_rows == 9


# --- importing --------------------------------------------------------------------------------------------------


def imported(path: Path) -> list[dict[str, object]]:
    return sorted(open_source(path).read_all().to_pylist(), key=lambda row: row["id"])


def test_every_kind_of_source_is_imported(folder: Path) -> None:
    wanted = ROWS.set_column(2, "x", pa.array([1.5, None, 3.0])).to_pylist()
    (folder / "a.csv").write_text("id,carrier,x\n1,AA,1.5\n2,B6,\n")
    assert imported(folder / "a.csv") == wanted[:2]
    (folder / "b.csv").write_text("id,carrier,x\n3,,3.0\n")
    assert imported(folder) == wanted
    lines = folder / "lines"
    lines.mkdir()
    (lines / "a.jsonl").write_text("\n".join(json.dumps(row) for row in wanted))
    assert imported(lines) == wanted
    parquet = folder / "parquet"
    parquet.mkdir()
    pq.write_table(ROWS.select(["id", "carrier"]), parquet / "a.parquet")
    pq.write_table(pa.table({"id": [9]}), parquet / "b.parquet")
    assert imported(parquet)[-1] == {"id": 9, "carrier": None}
    delta = folder / "delta"
    deltalake.write_deltalake(delta, ROWS.select(["id", "carrier"]), partition_by=["carrier"])
    assert [row["carrier"] for row in imported(delta)] == ["AA", "B6", None]


def test_a_column_is_typed_by_all_of_its_rows(folder: Path) -> None:
    numbers = "\n".join(str(number) for number in range(50_000))
    (folder / "a.csv").write_text(f"id\n{numbers}\nlast\n")
    table = open_source(folder / "a.csv").read_all()
    assert table.schema.field("id").type == pa.string()
    assert table["id"][-1].as_py() == "last"


def test_what_is_damaged_in_a_source_is_named(folder: Path) -> None:
    def refused(path: Path, code: str, *words: str) -> None:
        with pytest.raises(InvalidInput) as caught:
            open_source(path).read_all()
        assert caught.value.code == code
        assert all(word in caught.value.message for word in words)

    refused(folder, "dataset.source_empty")
    refused(folder / "nope", "dataset.source_missing")
    pq.write_table(pa.table({"x": [os.urandom(1_000) for _ in range(500)]}), folder / "a.parquet")
    whole = (folder / "a.parquet").read_bytes()
    (folder / "a.parquet").write_bytes(whole[: len(whole) // 2])
    refused(folder, "dataset.source_damaged", "a.parquet")
    (folder / "b.csv").write_text("id\n1\n")
    refused(folder, "dataset.source_mixed")
    (folder / "c.jsonl").write_text('{"id": 1}\n{"id": \n')
    refused(folder / "c.jsonl", "dataset.source_damaged", "c.jsonl")
    (folder / "d" / "_delta_log").mkdir(parents=True)
    refused(folder / "d", "dataset.source_damaged", "d")
