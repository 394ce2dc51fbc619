"""Small appends: durable when acknowledged, one version a flush, exactly once; bad ones in quarantine by themselves."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelyard.engines.tables.delta import DeltaTables
from modelyard.kernel.auth import Principal, Role, Scope
from modelyard.kernel.database import Database, metadata
from modelyard.kernel.errors import InvalidInput, ModelyardError, NotFound, TooLarge
from modelyard.planes.data import Data, segments, store
from modelyard.planes.data.segments import Record
from modelyard.types.data import Range, RowCount, Unique


@pytest.fixture
def data(database: Database, tmp_path: Path) -> Data:
    return Data(database, DeltaTables(tmp_path / "tables"), tmp_path / "spill")


def rows(*ids: int, x: float = 1.0) -> pa.Table:
    return pa.table({"id": pa.array(ids, pa.int64()), "x": [x] * len(ids)})


def buffer_of(tmp_path: Path) -> Path:
    return tmp_path / "buffers" / "default" / "flights"


def test_appends_wait_durably_and_become_one_version(
    data: Data, scope: Scope, tmp_path: Path, database: Database
) -> None:
    data.create(scope, "flights")
    for number in range(50):
        assert data.buffers.append(scope, "flights", rows(number, number + 100), source="feed").rows == 2
    state = data.buffers.state(scope, "flights")
    assert (state.appends, state.rows) == (50, 100)
    assert state.oldest_at is not None
    assert data.get(scope, "flights").latest == 0
    # Another process finds them, as after a crash.
    again = Data(database, DeltaTables(tmp_path / "tables"), tmp_path / "spill")
    [result] = again.buffers.flush(scope, "flights")
    assert (result.status, result.version, result.rows) == ("published", 1, 100)
    assert data.read(scope, "flights")["id"].to_pylist()[:4] == [0, 100, 1, 101]
    version = data.resolve(scope, "flights")
    assert (version.source, version.created_by) == ("feed", "ada")
    assert data.buffers.flush(scope, "flights") == []
    assert data.buffers.state(scope, "flights").appends == 0
    assert sorted(file.name for file in buffer_of(tmp_path).iterdir()) == ["append", "flush"]


def test_bad_appends_go_to_quarantine_by_themselves(data: Data, scope: Scope) -> None:
    data.create(scope, "flights", checks=[Range(column="x", min=0)])
    for number in range(20):
        data.buffers.append(scope, "flights", rows(number, x=-1.0 if number in (3, 11) else 1.0), source=f"f{number}")
    results = data.buffers.flush(scope, "flights")
    assert sorted((one.status, one.rows) for one in results) == [
        ("published", 18),
        ("quarantined", 1),
        ("quarantined", 1),
    ]
    assert sorted(data.read(scope, "flights")["id"].to_pylist()) == [n for n in range(20) if n not in (3, 11)]
    held = data.quarantine.list(scope, "flights").items
    assert sorted(one.source for one in held) == ["f11", "f3"]
    assert data.quarantine.rows(scope, "flights", held[0].id).rows[0]["x"] == -1.0


@pytest.mark.slow
def test_of_appends_that_contradict_each_other_one_is_taken(data: Data, scope: Scope) -> None:
    data.create(scope, "flights", checks=[Unique(columns=["id"])])
    data.write(scope, "flights", rows(1))
    for number in (2, 3, 2, 1, 4):
        data.buffers.append(scope, "flights", rows(number))
    data.buffers.flush(scope, "flights")
    assert sorted(data.read(scope, "flights")["id"].to_pylist()) == [1, 2, 3, 4]
    assert len(data.quarantine.list(scope, "flights").items) == 2


def test_where_all_are_bad_none_is_published(data: Data, scope: Scope) -> None:
    data.create(scope, "flights", checks=[RowCount(of="dataset", min=1_000)])
    for number in range(3):
        data.buffers.append(scope, "flights", rows(number))
    assert {one.status for one in data.buffers.flush(scope, "flights")} == {"quarantined"}
    assert len(data.quarantine.list(scope, "flights").items) == 3
    assert data.get(scope, "flights").latest == 0


def test_what_cannot_be_in_the_dataset_is_refused_at_once(data: Data, scope: Scope, tmp_path: Path) -> None:
    data.create(scope, "flights")
    with pytest.raises(NotFound):
        data.buffers.append(scope, "nope", rows(1))
    data.write(scope, "flights", rows(1))
    for batch, code in (
        (pa.table({"id": ["a"], "x": [1.0]}), "dataset.buffer_schema"),
        (pa.table({"id": [1]}), "dataset.buffer_schema"),
        (rows(1).slice(0, 0), "dataset.batch_empty"),
        ("text", "dataset.not_tabular"),
        (pa.table({"id": [1], "x": [2**53 + 1]}), "dataset.value_unfit"),
    ):
        with pytest.raises(InvalidInput) as caught:
            data.buffers.append(scope, "flights", batch)
        assert caught.value.code == code
    with pytest.raises(TooLarge):
        data.buffers.append(scope, "flights", rows(*range(600_000)))
    assert not buffer_of(tmp_path).exists()
    assert data.buffers.append(scope, "flights", pa.table({"x": [3], "id": pa.array([7], pa.int8())})).rows == 1
    data.buffers.flush(scope, "flights")
    assert data.read(scope, "flights").to_pylist()[-1] == {"id": 7, "x": 3.0}


def test_many_threads_and_a_flush_among_them_lose_nothing(data: Data, scope: Scope) -> None:
    data.create(scope, "flights")
    failures: list[Exception] = []

    def append(first: int) -> None:
        try:
            for number in range(first, first + 10):
                data.buffers.append(scope, "flights", rows(number))
        except ModelyardError as error:
            failures.append(error)

    threads = [threading.Thread(target=append, args=(100 * number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    data.buffers.flush(scope, "flights")
    for thread in threads:
        thread.join()
    data.buffers.flush(scope, "flights")
    assert failures == []
    wanted = sorted(100 * one + other for one in range(8) for other in range(10))
    assert sorted(data.read(scope, "flights")["id"].to_pylist()) == wanted


def test_appends_of_two_processes_and_flushes_in_turn_are_all_there(
    data: Data, scope: Scope, tmp_path: Path, database: Database
) -> None:
    """The inode of a segment that is gone comes back as that of the next; each process remembers another end."""
    other = Data(database, DeltaTables(tmp_path / "tables"), tmp_path / "spill")
    data.create(scope, "flights")
    wanted = []
    for turn in range(12):
        for at, one in enumerate((data, other, data, other)[: 1 + turn % 4]):
            wanted.append(10 * turn + at)
            one.buffers.append(scope, "flights", rows(wanted[-1]))
        if turn % 2:
            (data, other)[turn % 3 == 0].buffers.flush(scope, "flights")
    data.buffers.flush(scope, "flights")
    assert sorted(data.read(scope, "flights")["id"].to_pylist()) == wanted
    assert list(buffer_of(tmp_path).glob("*.damaged")) == []


APPENDER = """
import sys
from pathlib import Path
import pyarrow as pa
from modelyard.engines.tables.delta import DeltaTables
from modelyard.kernel.auth import Principal, Role, Scope
from modelyard.kernel.database import Database, metadata
from modelyard.planes.data import Data
home, number = Path(sys.argv[1]), int(sys.argv[2])
data = Data(Database(f"sqlite:///{home}/catalog.db"), DeltaTables(home / "tables"), home / "spill")
scope = Scope("default", Principal("ada", {"*": Role.ADMIN}))
while True:
    data.buffers.append(scope, "flights", pa.table({"id": [number], "x": [1.0]}))
    print(number, flush=True)
    number += 1
    if number % 7 == 0:
        data.buffers.flush(scope, "flights")
"""


@pytest.mark.slow
def test_killed_at_any_moment_nothing_acknowledged_is_lost_or_there_twice(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/catalog.db")
    metadata.create_all(database.engine)
    data = Data(database, DeltaTables(tmp_path / "tables"), tmp_path / "spill")
    scope = Scope("default", Principal("ada", {"*": Role.ADMIN}))
    data.create(scope, "flights")
    acknowledged: set[int] = set()
    for turn in range(8):
        writer = subprocess.Popen(
            [sys.executable, "-c", APPENDER, tmp_path, str(1_000 * turn)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        acknowledged.add(int(writer.stdout.readline()))
        time.sleep(0.11 * turn)
        writer.send_signal(signal.SIGKILL)
        acknowledged |= {int(line) for line in writer.stdout.read().splitlines() if line}
        writer.wait()
        writer.stdout.close()
        data.buffers.flush(scope, "flights")
        found = data.read(scope, "flights")["id"].to_pylist()
        assert len(found) == len(set(found))
        assert acknowledged <= set(found)
        assert len(set(found) - acknowledged) <= turn + 1, "at most the one that was on its way when it was killed"
    database.close()


def test_a_flush_is_due_by_age_and_carried_out_by_itself(data: Data, scope: Scope) -> None:
    data.create(scope, "flights")
    flush = data.reconcilers()[2]
    data.buffers.append(scope, "flights", rows(1))
    assert data.buffers.due(time.time()) == []
    assert data.buffers.due(time.time() + 31) == ["default/flights"]
    flush.act("default/flights", None)  # type: ignore[arg-type]
    assert data.get(scope, "flights").rows == 1
    assert data.buffers.due(time.time() + 31) == []


def test_a_torn_end_was_never_acknowledged_and_is_dropped(
    data: Data, scope: Scope, tmp_path: Path, database: Database
) -> None:
    data.create(scope, "flights")
    data.buffers.append(scope, "flights", rows(1))
    current = buffer_of(tmp_path) / "current"
    whole = current.stat().st_size
    with current.open("ab") as file:
        file.write(current.read_bytes()[: whole // 2])
    again = Data(database, DeltaTables(tmp_path / "tables"), tmp_path / "spill")
    again.buffers.append(scope, "flights", rows(2))
    assert current.stat().st_size == 2 * whole - segments.IDENTITY_BYTES
    with current.open("ab") as file:
        file.write(b"\x01")
    again.buffers.flush(scope, "flights")
    assert again.read(scope, "flights")["id"].to_pylist() == [1, 2]


def test_damage_in_the_middle_is_kept_for_a_look(data: Data, scope: Scope, tmp_path: Path) -> None:
    data.create(scope, "flights")
    ends = []
    for number in (1, 2, 3):
        data.buffers.append(scope, "flights", rows(number))
        ends.append((buffer_of(tmp_path) / "current").stat().st_size)
    with (buffer_of(tmp_path) / "current").open("r+b") as file:
        file.seek(ends[0] + 100)
        file.write(b"\xff\xff\xff\xff")
    data.buffers.flush(scope, "flights")
    assert data.read(scope, "flights")["id"].to_pylist() == [1]
    assert len(list(buffer_of(tmp_path).glob("*.damaged"))) == 1
    assert data.buffers.flush(scope, "flights") == []


def test_a_segment_taken_in_twice_is_there_once(data: Data, scope: Scope, tmp_path: Path) -> None:
    """As after a crash between the version and the removal of the file, with and without bad appends."""
    data.create(scope, "flights", checks=[Range(column="x", min=0)])
    for number in range(6):
        data.buffers.append(scope, "flights", rows(number, x=-1.0 if number == 2 else 1.0))
    kept = (buffer_of(tmp_path) / "current").read_bytes()
    data.buffers.flush(scope, "flights")
    with data._database.reading(scope) as tx:
        keys = [row.idempotency_key for row in tx.all(store.writes.select())]
    sealed = [key.split(":")[1] for key in keys if key.count(":") == 1]
    (buffer_of(tmp_path) / f"{sealed[0]}.sealed").write_bytes(kept)
    assert data.buffers.due(time.time()) == ["default/flights"]
    assert data.buffers.flush(scope, "flights") == []
    assert sorted(data.read(scope, "flights")["id"].to_pylist()) == [0, 1, 3, 4, 5]
    assert len(data.quarantine.list(scope, "flights").items) == 1


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.integers(0, 50), min_size=1, max_size=6), st.data())
def test_a_segment_that_is_cut_anywhere_is_whole_up_to_there(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], drawn: st.DataObject
) -> None:
    records = [segments.encode(Record("ada", "", at, rows(*range(size)))) for at, size in enumerate(sizes)]
    file = tmp_path_factory.mktemp("segment") / "s"
    content = b"i" * segments.IDENTITY_BYTES + b"".join(records)
    begun = segments.IDENTITY_BYTES
    cut = drawn.draw(st.integers(0, len(content)))
    file.write_bytes(content[:cut])
    whole = 0
    while whole < len(records) and begun + sum(map(len, records[: whole + 1])) <= cut:
        whole += 1
    found, clean = segments.read(file)
    assert clean
    assert [one.table.num_rows for one in found] == sizes[:whole]
    assert segments.whole_until(file, begun) == begun + sum(map(len, records[:whole]))
    assert [mark.rows for mark in segments.marks(file)] == sizes[:whole]
