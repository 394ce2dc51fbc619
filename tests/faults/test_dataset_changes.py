"""Every operation on a dataset, killed at each of its steps: the old state or the new one, nothing lost, nothing half.

A process of its own is loaded once and forks for every case; the child dies by `os._exit` at a named step.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import pytest

from modelyard.engines.tables.delta import DeltaTables
from modelyard.kernel.auth import Principal, Role, Scope
from modelyard.kernel.database import Database, metadata
from modelyard.kernel.errors import ModelyardError
from modelyard.planes.data import Data
from modelyard.types.data import Range, Retention
from modelyard.types.data_branches import Vacuum

SCOPE = Scope("default", Principal("ada", {"*": Role.ADMIN}))
DIED = 137
FINISHED = 0

PROGRAM = """
import os, sys, traceback
from pathlib import Path
import pyarrow as pa, pyarrow.parquet, pyarrow.dataset, deltalake, duckdb, numpy
from modelyard.engines.tables import delta
from modelyard.engines.tables.delta import DeltaTables
from modelyard.kernel.auth import Principal, Role, Scope
from modelyard.kernel.database import Database
from modelyard.planes.data import Data, buffers, layout, manifests, publish, retention_store, rewriting, segments, store
from modelyard.planes.data import writing
from modelyard.types.data import Retention
from modelyard.types.data_branches import Vacuum

PLACES = {
    "staging": (DeltaTables, "stage"),
    "rewriting": (rewriting.Rewriter, "_rewrite"),
    "planned": (store, "insert_write"),
    "moved": (DeltaTables, "_move_in"),
    "entry": (delta, "write_entry"),
    "placed": (DeltaTables, "place"),
    "committed": (DeltaTables, "commit"),
    "manifests": (manifests, "insert"),
    "version": (store, "insert_version"),
    "branch moved": (store, "move"),
    "layout": (store, "update_version"),
    "finished": (store, "finish_write"),
    "carried": (publish.Publisher, "_carry_out"),
    "expired": (retention_store, "expire"),
    "unneeded": (manifests, "mark_unneeded"),
    "removed": (DeltaTables, "remove"),
    "forgotten": (manifests, "delete_unneeded"),
    "sealed": (buffers.Buffers, "_seal"),
    "read": (segments, "read"),
    "taken": (buffers.Buffers, "_take_in"),
    "written": (writing.Writer, "write"),
}

def rows(*ids, x=1.0):
    return pa.table({"id": pa.array(ids, pa.int64()), "x": [x] * len(ids)})

OPERATIONS = {
    "append": lambda d, s: d.write(s, "flights", rows(50), idempotency_key="k"),
    "overwrite": lambda d, s: d.write(s, "flights", rows(60, 61), mode="overwrite", idempotency_key="k"),
    "merge": lambda d, s: d.write(s, "flights", rows(2, 70, x=9.0), mode="merge", idempotency_key="k"),
    "delete": lambda d, s: d.delete_rows(s, "flights", "id = 2 OR id = 3", idempotency_key="k"),
    "revert": lambda d, s: d.branches.revert(s, "flights", 1),
    "branch write": lambda d, s: d.write(s, "flights", rows(80), branch="try", idempotency_key="k"),
    "branch merge": lambda d, s: d.branches.merge(s, "flights", "ahead"),
    "compact": lambda d, s: d.layout.compact(s, "flights"),
    "vacuum": lambda d, s: d.layout.vacuum(s, "flights", Vacuum(retention=Retention(versions=1), grace_s=0)),
    "flush": lambda d, s: d.buffers.flush(s, "flights"),
}

def run(home, operation, step):
    when, _, place = step.partition(" ")
    owner, name = PLACES[place]
    original = getattr(owner, name)
    def dying(*args, **named):
        if when == "before":
            os._exit(137)
        result = original(*args, **named)
        os._exit(137)
    setattr(owner, name, dying)
    home = Path(home)
    data = Data(Database(f"sqlite:///{home}/catalog.db"), DeltaTables(home / "tables"), home / "spill")
    OPERATIONS[operation](data, Scope("default", Principal("ada", {"*": Role.ADMIN})))
    os._exit(0)

print("ready", flush=True)
for line in sys.stdin:
    home, operation, step = line.rstrip("\\n").split("|")
    child = os.fork()
    if child == 0:
        try:
            run(home, operation, step)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""

BEFORE = {1: 1.0, 2: 1.0, 3: 1.0, 4: 1.0}
AFTER: dict[str, dict[int, float]] = {
    "append": BEFORE | {50: 1.0},
    "overwrite": {60: 1.0, 61: 1.0},
    "merge": BEFORE | {2: 9.0, 70: 9.0},
    "delete": {1: 1.0, 4: 1.0},
    "revert": {1: 1.0, 2: 1.0},
    "branch write": BEFORE,
    "branch merge": BEFORE | {5: 1.0},
    "compact": BEFORE,
    "vacuum": BEFORE,
    "flush": BEFORE | {90: 1.0, 91: 1.0},
}
COMMON = ("planned", "committed", "manifests", "finished", "carried")
STEPS: dict[str, tuple[str, ...]] = {
    "append": (*COMMON, "entry", "version"),
    "overwrite": (*COMMON, "moved", "entry", "version"),
    "merge": (*COMMON, "staging", "rewriting", "moved", "entry", "version", "branch moved"),
    "delete": (*COMMON, "rewriting", "staging", "moved", "entry", "version"),
    "revert": (*COMMON, "entry", "version"),
    "branch write": ("planned", "moved", "placed", "manifests", "version", "branch moved", "finished", "carried"),
    "branch merge": ("planned", "entry", "committed", "branch moved", "layout", "finished", "carried"),
    "compact": (*COMMON, "staging", "moved", "entry", "layout"),
    "vacuum": ("expired", "unneeded", "removed", "forgotten"),
    "flush": (*COMMON, "sealed", "read", "staging", "entry", "version", "written", "taken"),
}
CASES = [(one, f"{when} {step}") for one, steps in STEPS.items() for step in steps for when in ("before", "after")]
FEW = [(one, f"{when} {step}") for one, when, step in [
    ("merge", "after", "rewriting"), ("merge", "after", "entry"), ("delete", "before", "version"),
    ("overwrite", "after", "entry"), ("revert", "after", "planned"), ("branch write", "after", "placed"),
    ("branch merge", "after", "entry"), ("compact", "after", "entry"), ("compact", "after", "layout"),
    ("vacuum", "after", "expired"), ("vacuum", "after", "removed"), ("flush", "after", "sealed"),
    ("flush", "after", "written"),
]]  # fmt: skip


def rows(*ids: int, x: float = 1.0) -> pa.Table:
    return pa.table({"id": pa.array(ids, pa.int64()), "x": [x] * len(ids)})


def open_data(home: Path) -> Data:
    database = Database(f"sqlite:///{home}/catalog.db")
    metadata.create_all(database.engine)
    return Data(database, DeltaTables(home / "tables"), home / "spill")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    data = open_data(tmp_path)
    data.create(SCOPE, "flights", key=["id"])
    data.write(SCOPE, "flights", rows(1, 2))
    data.write(SCOPE, "flights", rows(3))
    data.write(SCOPE, "flights", rows(4))
    data.branches.create(SCOPE, "flights", "try")
    data.branches.create(SCOPE, "flights", "ahead")
    data.write(SCOPE, "flights", rows(5), branch="ahead")
    return tmp_path


@pytest.fixture(scope="module")
def killer() -> Iterator[Callable[[Path, str, str], int]]:
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert program.stdin is not None
    assert program.stdout is not None
    assert program.stdout.readline() == "ready\n"
    sink, source = program.stdin, program.stdout

    def kill(home: Path, operation: str, step: str) -> int:
        sink.write(f"{home}|{operation}|{step}\n")
        sink.flush()
        return int(source.readline())

    yield kill
    sink.close()
    program.wait()
    source.close()


def held(data: Data, ref: int | str | None = None) -> dict[int, float]:
    found = data.read(SCOPE, "flights", ref)
    kept = dict(zip(found["id"].to_pylist(), found["x"].to_pylist(), strict=True))
    assert len(kept) == found.num_rows == data.resolve(SCOPE, "flights", ref).rows
    return kept


def check_whole(data: Data) -> None:
    """Every version that was not given up has all of its rows, and numbers have no gap."""
    listed = data.versions(SCOPE, "flights").items
    assert [one.version for one in listed] == list(range(len(listed), 0, -1))
    for version in listed:
        if version.expired_at is None:
            held(data, version.version)


def in_log(home: Path) -> dict[int, float]:
    table = deltalake.DeltaTable(home / "tables" / "default" / "flights").to_pyarrow_table()
    return dict(zip(table["id"].to_pylist(), table["x"].to_pylist(), strict=True))


def killed(home: Path, kill: Callable[[Path, str, str], int], operation: str, step: str) -> None:
    if operation == "flush":
        for number in (90, 91):
            open_data(home).buffers.append(SCOPE, "flights", rows(number))
    assert kill(home, operation, step) == DIED, f"{operation} does not come by {step}"
    data = open_data(home)
    after = AFTER[operation]
    check_whole(data)
    assert held(data) in (BEFORE, after)
    data.upkeep.recover(SCOPE, "flights")
    check_whole(data)
    assert held(data) in (BEFORE, after)
    assert in_log(home) == held(data), "what other readers see is what main is"
    assert data.upkeep.unfinished(data._database.clock.now()) == []
    again(data, operation)
    check_whole(data)
    assert held(data) == in_log(home) == after
    assert held(data, "try") == (BEFORE | {80: 1.0} if operation == "branch write" else BEFORE)
    assert held(data, "ahead") == BEFORE | {5: 1.0}
    data.write(SCOPE, "flights", rows(99))
    assert held(data) == in_log(home) == after | {99: 1.0}
    data.layout.vacuum(SCOPE, "flights", Vacuum(retention=Retention(versions=1), grace_s=0))
    check_whole(data)
    files = {file.name for file in (home / "tables" / "default" / "flights").glob("*.parquet")}
    named = {Path(one).name for ref in ("main", "try", "ahead") for one in data.files(SCOPE, "flights", ref).files}
    assert files == named, "nothing is left behind, nothing is missing"


def again(data: Data, operation: str) -> None:
    """The operation once more, as whoever saw no answer repeats it."""
    namespace: dict[str, Any] = {"pa": pa, "Vacuum": Vacuum, "Retention": Retention, "rows": rows}
    operations = eval("{" + PROGRAM.split("OPERATIONS = {")[1].split("\n}")[0] + "}", namespace)
    operations[operation](data, SCOPE)


@pytest.mark.parametrize(("operation", "step"), FEW)
def test_killed_it_is_the_old_state_or_the_new_one(
    home: Path, killer: Callable[[Path, str, str], int], operation: str, step: str
) -> None:
    killed(home, killer, operation, step)


@pytest.mark.slow
@pytest.mark.parametrize(("operation", "step"), CASES)
def test_killed_at_each_step_it_is_the_old_state_or_the_new_one(
    home: Path, killer: Callable[[Path, str, str], int], operation: str, step: str
) -> None:
    killed(home, killer, operation, step)


@pytest.mark.slow
def test_sixteen_writers_of_all_kinds_and_a_reader_lose_nothing(tmp_path: Path) -> None:
    """Appends, merges, deletions, compactions, vacuums and branches at once; each writer counts what it was told."""
    data = open_data(tmp_path)
    data.create(SCOPE, "flights", key=["id"], checks=[Range(column="x", min=0)])
    data.write(SCOPE, "flights", rows(0))
    failures: list[BaseException] = []
    ended = threading.Event()

    def writer(number: int) -> None:
        mine = range(1_000 * (number + 1), 1_000 * (number + 1) + 6)
        try:
            own = open_data(tmp_path)
            for one in mine:
                own.write(SCOPE, "flights", rows(one), mode="merge" if one % 2 else "append")
            own.write(SCOPE, "flights", rows(mine[0], x=5.0), mode="merge")
            own.delete_rows(SCOPE, "flights", f"id = {mine[1]}")
            own.write(SCOPE, "flights", rows(mine[2], x=6.0), mode="overwrite", where=f"id = {mine[2]}")
        except ModelyardError as error:
            failures.append(error)

    def keeper() -> None:
        own = open_data(tmp_path)
        while not ended.is_set():
            try:
                own.layout.compact(SCOPE, "flights")
            except ModelyardError as error:
                if error.code != "dataset.compaction_overtaken":
                    raise
            own.layout.vacuum(SCOPE, "flights", Vacuum(retention=Retention(versions=3)))

    def reader() -> None:
        own = open_data(tmp_path)
        while not ended.is_set():
            held(own, own.get(SCOPE, "flights").latest)

    others = [threading.Thread(target=_noting(failures, work)) for work in (keeper, reader)]
    writers = [threading.Thread(target=_noting(failures, writer, number)) for number in range(14)]
    for thread in (*others, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    ended.set()
    for thread in others:
        thread.join()
    assert failures == []
    wanted = {0: 1.0}
    for number in range(14):
        first = 1_000 * (number + 1)
        wanted |= {first: 5.0, first + 2: 6.0} | {first + more: 1.0 for more in (3, 4, 5)}
    assert held(data) == wanted
    assert in_log(tmp_path) == wanted
    assert data.get(SCOPE, "flights").latest == 1 + 14 * 9


def _noting(failures: list[BaseException], work: Callable[..., None], *args: Any) -> Callable[[], None]:
    def run() -> None:
        try:
            work(*args)
        except BaseException as error:  # noqa: BLE001  a thread's failure is the test's
            failures.append(error)

    return run


# --- calls that fail, disks that are full -----------------------------------------------------------------------

CALLS = [
    *(("fsync", number) for number in range(1, 7)),
    *(("fdatasync", number) for number in (1, 2, 3, 5, 7)),
    ("rename", 1),
    ("link", 1),
]
ONE_OPERATION = (
    PROGRAM.split('print("ready"')[0].replace("PLACES = {", "PLACES: dict = {")
    + """
home = Path(sys.argv[1])
data = Data(Database(f"sqlite:///{home}/catalog.db"), DeltaTables(home / "tables"), home / "spill")
try:
    OPERATIONS[sys.argv[2]](data, Scope("default", Principal("ada", {"*": Role.ADMIN})))
except Exception as error:
    print(type(error).__name__, error)
    sys.exit(3)
"""
)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace makes single calls of the kernel fail")
@pytest.mark.parametrize("operation", ["merge", "delete", "branch merge", "compact"])
@pytest.mark.parametrize(("call", "number"), CALLS)
def test_a_call_of_the_kernel_that_fails_leaves_the_old_state_or_the_new_one(
    home: Path, operation: str, call: str, number: int
) -> None:
    failing = f"inject={call}:error=EIO:when={number}"
    words = ["strace", "-f", "-o", os.devnull, "-e", f"trace={call}", "-e", failing]
    done = subprocess.run(
        [*words, sys.executable, "-c", ONE_OPERATION, home, operation], capture_output=True, text=True
    )
    if "PTRACE" in done.stderr:
        pytest.skip("processes may not be traced here")
    assert done.returncode in (0, 3), done.stderr
    data = open_data(home)
    data.upkeep.recover(SCOPE, "flights")
    check_whole(data)
    assert held(data) in (BEFORE, AFTER[operation])
    assert in_log(home) == held(data)
    again(data, operation)
    assert held(data) == in_log(home) == AFTER[operation]


@pytest.mark.parametrize("limit_bytes", [0, 700, 4_000])
@pytest.mark.parametrize("operation", ["merge", "delete", "overwrite", "compact", "branch merge", "revert"])
def test_files_that_may_not_grow_leave_the_old_state(home: Path, operation: str, limit_bytes: int) -> None:
    """As a full disk, without root: the kernel lets no file grow past a size. The catalog, made larger first, stays."""
    data = open_data(home)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, before[1]))
    try:
        with pytest.raises((ModelyardError, OSError)):
            again(data, operation)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    check_whole(data)
    assert held(data) == in_log(home) == BEFORE
    again(data, operation)
    assert held(data) == in_log(home) == AFTER[operation]
