"""Conformance of table stores: every engine of the kind runs this suite."""

from __future__ import annotations

import datetime as dt
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from modelyard.engines.tables.base import Commit, DataFile, FileSet, Staged, TableStore
from modelyard.engines.tables.delta import DeltaTables
from modelyard.engines.tables.sql import SqlLimits, sandbox
from modelyard.kernel.errors import Conflict, EngineError, InvalidInput, LimitExceeded, NotFound, Unavailable

HERE = "default/flights"
LONG_AGO = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
FUTURE = dt.datetime(2100, 1, 1, tzinfo=dt.UTC)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "tables"


@pytest.fixture
def tables(root: Path) -> TableStore:
    return DeltaTables(root)


def stage(tables: TableStore, write_id: str, data: pa.Table, target: pa.Schema | None = None) -> Staged:
    return tables.stage(HERE, write_id, data.to_reader(), target)


def commit_of(
    staged: Staged,
    base: int | None,
    mode: str = "append",
    schema: pa.Schema | None = None,
    remove: tuple[DataFile, ...] = (),
) -> Commit:
    return Commit(staged.write_id, mode, staged.files, schema or staged.schema, base, remove)


def write(
    tables: TableStore, write_id: str, data: pa.Table, base: int | None = None, remove: tuple[DataFile, ...] = ()
) -> int:
    return tables.commit(HERE, commit_of(stage(tables, write_id, data), base, remove=remove))


def rows(tables: TableStore, version: int) -> list[dict[str, Any]]:
    found = tables.snapshot(HERE, version)
    table = ds.dataset([str(file) for file in found.files], schema=found.schema).to_table()
    return sorted(table.to_pylist(), key=repr)


ONE = pa.table({"id": [1, 2], "x": ["a", None]})
TWO = pa.table({"id": [3], "x": ["c"]})


def test_versions_are_immutable_and_other_readers_open_them(tables: TableStore, root: Path) -> None:
    first = write(tables, "w1", ONE)
    second = write(tables, "w2", TWO, first)
    third = write(tables, "w3", TWO, second, tables.snapshot(HERE, second).held)
    assert [len(rows(tables, version)) for version in (first, second, third)] == [2, 3, 1]
    assert tables.snapshot(HERE, second).rows == 3
    for version, count in ((first, 2), (second, 3), (third, 1)):
        assert deltalake.DeltaTable(root / HERE, version=version).to_pyarrow_table().num_rows == count


def test_who_watches_sees_every_batch_as_it_is_written(tables: TableStore) -> None:
    seen: list[pa.RecordBatch] = []
    source = pa.table({"id": pa.array([1, 2, 3], pa.uint8()), "x": pa.array(["a", None, "c"], pa.large_string())})
    staged = tables.stage(HERE, "w1", source.to_reader(max_chunksize=2), None, watch=seen.append)
    assert [batch.num_rows for batch in seen] == [2, 1]
    written = ds.dataset([str(file) for file in tables.staged(HERE, "w1")]).to_table()
    assert pa.Table.from_batches(seen).equals(written)
    assert {batch.schema for batch in seen} == {staged.schema}


def test_staged_rows_are_in_no_version_and_can_be_discarded(tables: TableStore, root: Path) -> None:
    first = write(tables, "w1", ONE)
    staged = stage(tables, "w2", TWO)
    assert staged.rows == 1
    assert deltalake.DeltaTable(root / HERE).to_pyarrow_table().num_rows == 2
    [file] = tables.staged(HERE, "w2")
    assert ds.dataset(file).to_table().to_pylist() == TWO.to_pylist()
    tables.discard(HERE, "w2")
    assert tables.staged(HERE, "w2") == ()
    assert len(rows(tables, first)) == 2
    tables.discard(HERE, "never was")


def test_committing_twice_is_committing_once(tables: TableStore) -> None:
    commit = commit_of(stage(tables, "w1", ONE), None)
    first = tables.commit(HERE, commit)
    assert tables.commit(HERE, commit) == first
    assert tables.committed(HERE, "w1", None) == first
    assert tables.committed(HERE, "w1", first) is None
    assert tables.committed(HERE, "other", None) is None
    assert len(rows(tables, first)) == 2


def test_a_commit_goes_on_from_files_half_moved(tables: TableStore, root: Path) -> None:
    staged = stage(tables, "w1", ONE)
    os.rename(root / HERE / "_staged/w1" / staged.files[0].name, root / HERE / staged.files[0].name)
    assert len(rows(tables, tables.commit(HERE, commit_of(staged, None)))) == 2


def test_files_that_are_gone_are_said_and_nothing_is_committed(tables: TableStore) -> None:
    first = write(tables, "w1", ONE)
    staged = stage(tables, "w2", TWO)
    tables.discard(HERE, "w2")
    with pytest.raises(EngineError):
        tables.commit(HERE, commit_of(staged, first))
    assert tables.committed(HERE, "w2", first) is None


def test_a_write_withdrawn_leaves_no_file(tables: TableStore, root: Path) -> None:
    first = write(tables, "w1", ONE)
    staged = stage(tables, "w2", TWO)
    os.rename(root / HERE / "_staged/w2" / staged.files[0].name, root / HERE / staged.files[0].name)
    tables.withdraw(HERE, commit_of(staged, first))
    assert not [path for path in (root / HERE).rglob("*") if path.name.startswith("w2")]
    assert len(rows(tables, first)) == 2


def test_sixteen_writers_at_once_lose_nothing(tables: TableStore, root: Path) -> None:
    """Without the lock, as writers on several machines would: who is not next is told so, and nobody is lost."""
    base = write(tables, "w0", pa.table({"id": [0]}))
    versions: dict[int, int] = {}
    moved: list[Conflict] = []

    def append(number: int) -> None:
        store = DeltaTables(root)
        staged = stage(store, f"w{number}", pa.table({"id": [number]}))
        while number not in versions:
            try:
                versions[number] = store.commit(HERE, commit_of(staged, store.head(HERE, base)))
            except Conflict as error:
                moved.append(error)

    threads = [threading.Thread(target=append, args=(number,)) for number in range(1, 17)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {error.code for error in moved} <= {"table.moved"}
    assert sorted(versions.values()) == list(range(base + 1, base + 17))
    assert [row["id"] for row in sorted(rows(tables, base + 16), key=lambda row: row["id"])] == list(range(17))
    assert deltalake.DeltaTable(root / HERE).to_pyarrow_table().num_rows == 17


def test_the_lock_admits_one_at_a_time_and_ends_with_its_process(tables: TableStore, root: Path) -> None:
    program = """
import sys, time
from pathlib import Path
from modelyard.engines.tables.delta import DeltaTables
with DeltaTables(Path(sys.argv[1])).exclusive("default/flights"):
    print("held", flush=True)
    time.sleep(60)
"""
    holder = subprocess.Popen([sys.executable, "-c", program, root], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    entered = threading.Event()

    def enter() -> None:
        with tables.exclusive(HERE):
            entered.set()

    thread = threading.Thread(target=enter)
    thread.start()
    assert not entered.wait(0.2)
    holder.send_signal(signal.SIGKILL)
    assert entered.wait(10)
    thread.join()
    holder.wait()
    holder.stdout.close()


# --- types ------------------------------------------------------------------------------------------------------

UTC_US = pa.timestamp("us", tz="UTC")
NOON = dt.datetime(2013, 1, 1, 12)


@pytest.mark.parametrize(
    ("given", "kept", "values"),
    [
        (pa.array([NOON], pa.timestamp("ns")), UTC_US, [NOON.replace(tzinfo=dt.UTC)]),
        (pa.array([NOON], pa.timestamp("s", tz="America/New_York")), UTC_US, [NOON.replace(tzinfo=dt.UTC)]),
        (pa.array([1_000_000_001], pa.timestamp("ns")), UTC_US, [dt.datetime(1970, 1, 1, 0, 0, 1, tzinfo=dt.UTC)]),
        (pa.array(["a", "b", "a"]).dictionary_encode(), pa.string(), ["a", "b", "a"]),
        (pa.array(["a"], pa.large_string()), pa.string(), ["a"]),
        (pa.array(["a"], pa.string_view()), pa.string(), ["a"]),
        (pa.array([255], pa.uint8()), pa.int16(), [255]),
        (pa.array([2**40], pa.uint64()), pa.int64(), [2**40]),
        (pa.array([Decimal("1.50")], pa.decimal128(5, 2)), pa.decimal128(5, 2), [Decimal("1.50")]),
        (pa.array([dt.date(2013, 1, 1)], pa.date64()), pa.date32(), [dt.date(2013, 1, 1)]),
        (pa.array([b"\x00\xff"], pa.binary(2)), pa.binary(), [b"\x00\xff"]),
        (pa.array([[1, None]], pa.large_list(pa.int8())), pa.list_(pa.int8()), [[1, None]]),
        (pa.array([{"t": NOON}], pa.struct([("t", pa.timestamp("ms"))])), pa.struct([("t", UTC_US)]), None),
        (pa.array([True, None]), pa.bool_(), [True, None]),
        (pa.array([float("nan"), float("inf"), None]), pa.float64(), None),
    ],
)
def test_types_are_brought_to_one_form(
    tables: TableStore, given: pa.Array, kept: pa.DataType, values: list[Any] | None
) -> None:
    version = write(tables, "w1", pa.table({"c": given}))
    found = tables.snapshot(HERE, version)
    assert found.schema.field("c").type == kept
    if values is not None:
        assert ds.dataset([str(file) for file in found.files]).to_table()["c"].to_pylist() == values


@pytest.mark.parametrize(
    "column",
    [
        pa.array([dt.timedelta(seconds=1)]),
        pa.array([dt.time(12)]),
        pa.array([None], pa.null()),
        pa.array([Decimal(1)], pa.decimal256(60, 2)),
        pa.array([2**63], pa.uint64()),
    ],
)
def test_what_a_table_cannot_hold_is_refused_with_the_column(tables: TableStore, root: Path, column: pa.Array) -> None:
    with pytest.raises(InvalidInput) as caught:
        stage(tables, "w1", pa.table({"fine": [1], "odd": column}))
    assert "'odd'" in caught.value.message
    assert list(root.rglob("*.parquet")) == []


@pytest.mark.parametrize("names", [[], ["a", "a"], ["a", "A"], [""], ["a\nb"], ["x" * 300]])
def test_column_names_must_tell_columns_apart(tables: TableStore, names: list[str]) -> None:
    with pytest.raises(InvalidInput):
        stage(tables, "w1", pa.Table.from_arrays([pa.array([1])] * len(names), names=names))


TARGET = pa.schema([("i", pa.int64()), ("f", pa.float64()), ("s", pa.string())])


def test_a_batch_is_cast_to_the_table_where_nothing_is_lost(tables: TableStore) -> None:
    given = pa.table({"s": pa.array([None, None], pa.null()), "i": pa.array([1, 2], pa.int8()), "f": [3, 4]})
    staged = stage(tables, "w1", given, TARGET)
    assert staged.schema == TARGET


@pytest.mark.parametrize("column", [pa.array([1.0]), pa.array(["1"]), pa.array([True])])
def test_a_narrowing_is_not_made_in_silence(tables: TableStore, column: pa.Array) -> None:
    staged = stage(tables, "w1", pa.table({"i": column}), TARGET)
    assert staged.schema.field("i").type == column.type


def test_an_integer_that_a_float_cannot_hold_is_refused(tables: TableStore) -> None:
    with pytest.raises(InvalidInput) as caught:
        stage(tables, "w1", pa.table({"f": [2**53 + 1]}), TARGET)
    assert caught.value.code == "dataset.value_unfit"


def test_columns_can_be_added_and_are_null_before(tables: TableStore, root: Path) -> None:
    first = write(tables, "w1", ONE)
    wider = TWO.append_column("new", pa.array([1.5]))
    staged = stage(tables, "w2", wider, tables.snapshot(HERE, first).schema)
    merged = tables.snapshot(HERE, first).schema.append(pa.field("new", pa.float64()))
    second = tables.commit(HERE, replace(commit_of(staged, first, schema=merged), schema_changed=True))
    assert deltalake.DeltaTable(root / HERE).to_pyarrow_table().num_rows == 3
    assert [row["new"] for row in rows(tables, second)] == [None, None, 1.5]
    with sandbox({"t": tables.snapshot(HERE, second).file_set}) as session:
        assert session.one("SELECT count(new) AS n, count(*) AS whole FROM t") == {"n": 1, "whole": 3}


# --- faults -----------------------------------------------------------------------------------------------------


def test_a_source_that_breaks_leaves_nothing(tables: TableStore, root: Path) -> None:
    def batches() -> Iterator[pa.RecordBatch]:
        yield from ONE.to_batches()
        raise pa.ArrowInvalid("truncated")

    with pytest.raises(InvalidInput):
        tables.stage(HERE, "w1", pa.RecordBatchReader.from_batches(ONE.schema, batches()), None)
    assert list(root.rglob("*.parquet")) == []


def test_a_full_disk_while_staging_leaves_nothing(tables: TableStore, root: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, before[1]))
    try:
        with pytest.raises(Unavailable) as caught:
            stage(tables, "w1", pa.table({"x": [os.urandom(1024) for _ in range(500)]}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert caught.value.code == "table.disk_full"
    assert list(root.rglob("*.parquet")) == []


def test_a_log_with_a_gap_or_damage_is_named(tables: TableStore, root: Path) -> None:
    first = write(tables, "w1", ONE)
    write(tables, "w2", TWO, first)
    log = root / HERE / "_delta_log"
    entry = log / f"{first:020d}.json"
    whole = entry.read_bytes()
    for damage in (b"{not json", b""):
        entry.write_bytes(damage)
        with pytest.raises(EngineError) as caught:
            DeltaTables(root).snapshot(HERE, first)
        assert caught.value.code == "table.log_damaged"
    entry.write_bytes(whole)
    assert len(rows(DeltaTables(root), first)) == 2


def test_versions_and_tables_that_are_not_there(tables: TableStore) -> None:
    with pytest.raises(NotFound):
        tables.snapshot(HERE, 0)
    write(tables, "w1", ONE)
    with pytest.raises(EngineError):
        tables.snapshot(HERE, 99)


@pytest.mark.parametrize("location", ["../x", "/x", "a/../../b"])
def test_a_location_never_leaves_the_root(tables: TableStore, location: str) -> None:
    with pytest.raises(InvalidInput):
        tables.stage(location, "w1", ONE.to_reader(), None)


def test_a_sweep_takes_only_old_writes_that_nobody_keeps(tables: TableStore) -> None:
    stage(tables, "kept", ONE)
    stage(tables, "dropped", ONE)
    assert tables.sweep(HERE, ["kept"], LONG_AGO) == 0
    assert tables.sweep(HERE, ["kept"], FUTURE) == 1
    assert tables.staged(HERE, "kept")
    assert not tables.staged(HERE, "dropped")


def test_bounds_in_the_log_never_hide_a_row(tables: TableStore, root: Path) -> None:
    """A reader that skips files by the log's statistics must find what is there: NaN, long texts, fine times."""
    instant = dt.datetime(2013, 1, 1, 0, 0, 0, 999_999, tzinfo=dt.UTC)
    data = pa.table({"f": [1.0, float("nan")], "s": ["b" * 40, "a"], "t": pa.array([instant] * 2, UTC_US), "i": [5, 7]})
    write(tables, "w1", data)
    [line] = [
        json.loads(line)["add"]["stats"]
        for line in (root / HERE / "_delta_log/00000000000000000000.json").read_text().splitlines()
        if "add" in json.loads(line)
    ]
    stats = json.loads(line)
    assert stats["numRecords"] == 2
    assert stats["nullCount"] == {"s": 0, "t": 0, "i": 0}
    found = deltalake.DeltaTable(root / HERE).to_pyarrow_dataset()
    assert found.to_table(filter=ds.field("t") == pa.scalar(instant, UTC_US)).num_rows == 2
    assert found.to_table(filter=ds.field("i") == 5).num_rows == 1
    assert found.to_table(filter=ds.field("s") == "b" * 40).num_rows == 1


def test_sql_finds_nan_where_the_footers_bounds_do_not_count_it(tables: TableStore) -> None:
    """In SQL NaN is greater than all numbers; a filter on bounds that leave it out loses it."""
    found = tables.snapshot(HERE, write(tables, "w1", pa.table({"f": [1.0, float("nan")]})))
    with sandbox({"t": found.file_set}) as session:
        assert session.one("SELECT count(*) AS n FROM t WHERE f > 2") == {"n": 1}
        assert session.one("SELECT count_if(f > 2) AS n FROM t") == {"n": 1}
        assert session.one("SELECT count(*) AS n FROM t WHERE f > 2 AND f IS NOT NULL AND isnan(f)") == {"n": 1}


@pytest.mark.slow
def test_a_large_stream_is_staged_in_bounded_memory(tmp_path: Path) -> None:
    program = """
import resource, sys
from pathlib import Path
import numpy as np, pyarrow as pa
from modelyard.engines.tables.delta import DeltaTables
def batches(n):
    for turn in range(n):
        yield pa.record_batch({"x": np.random.default_rng(turn).random(65536), "y": np.arange(65536)})
store = DeltaTables(Path(sys.argv[1]))
schema = next(batches(1)).schema
store.stage("p/warm", "w", pa.RecordBatchReader.from_batches(schema, batches(40)), None)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
staged = store.stage("p/d", "w", pa.RecordBatchReader.from_batches(schema, batches(500)), None)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(staged.rows, after - before)
"""
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True)
    count, grown_kib = (int(part) for part in done.stdout.split())
    assert count == 500 * 65_536
    assert grown_kib < 300 * 1024, "524 MB of rows grew the process by as much"


# --- the sandbox ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM glob('/*')",
        "COPY t TO '/tmp/modelyard-escape.csv'",
        "ATTACH '/tmp/modelyard-escape.db'",
        "INSTALL httpfs",
        "SET enable_external_access = true",
        "PRAGMA enable_external_access = true",
        "SELECT 1; SELECT 2",
        "DROP VIEW t",
        "CREATE TABLE x AS SELECT 1",
        "SELECT * FROM secret",
        "SELECT getenv('HOME')",
        "not sql",
        "",
    ],
)
def test_sql_of_users_reaches_nothing_but_its_tables(statement: str, tmp_path: Path) -> None:
    secret = pa.table({"password": ["x"]})
    assert secret.num_rows == 1
    with sandbox({"t": pa.table({"a": [1]})}, spill=tmp_path) as session:
        with pytest.raises(InvalidInput):
            session.rows(statement)
        assert session.rows("SELECT a FROM t") == [{"a": 1}]


def test_files_beside_those_of_a_table_cannot_be_read(tables: TableStore) -> None:
    first = write(tables, "w1", ONE)
    stage(tables, "w2", TWO)
    [other] = tables.staged(HERE, "w2")
    with sandbox({"t": tables.snapshot(HERE, first).file_set}) as session:
        assert session.one("SELECT count(*) AS n FROM t") == {"n": 2}
        with pytest.raises(InvalidInput):
            session.rows(f"SELECT * FROM read_parquet('{other}')")


def test_a_query_without_end_is_stopped() -> None:
    with sandbox({}, limits=SqlLimits(timeout_s=0.3)) as session, pytest.raises(LimitExceeded):
        session.rows("SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE a.range % 7 = b.range % 11")


def test_a_query_that_wants_the_whole_machine_is_stopped() -> None:
    small = SqlLimits(memory_bytes=64 * 1024 * 1024, timeout_s=60)
    with sandbox({}, limits=small) as session, pytest.raises(LimitExceeded):
        session.rows("SELECT list(a.range) FROM range(50000000) a")


def test_what_does_not_fit_spills_and_the_spill_is_removed(tmp_path: Path) -> None:
    small = SqlLimits(memory_bytes=96 * 1024 * 1024, timeout_s=120)
    spill = tmp_path / "of a new home" / "spill"
    with sandbox({}, spill=spill, limits=small) as session:
        counted = session.one("SELECT count(DISTINCT hash(range)::VARCHAR) AS n FROM range(3000000)")
        assert counted == {"n": 3_000_000}
    assert list(spill.iterdir()) == []


@pytest.mark.parametrize("condition", ["a > 1) OR (1 = 1", "true; DROP VIEW t", "nope = 1", "a >", ""])
def test_a_condition_is_one_condition(condition: str) -> None:
    with sandbox({"t": pa.table({"a": [1, 2]})}) as session:
        session.check_condition("t", "a > 1 AND a IN (SELECT a FROM t)")
        with pytest.raises(InvalidInput):
            session.check_condition("t", condition)


def test_damaged_files_are_named_and_not_the_users_fault(tables: TableStore) -> None:
    found = tables.snapshot(HERE, write(tables, "w1", ONE))
    found.files[0].write_bytes(b"PAR1 damaged PAR1")
    with pytest.raises((EngineError, InvalidInput)), sandbox({"t": FileSet(found.schema, found.files)}) as session:
        session.rows("SELECT * FROM t")
