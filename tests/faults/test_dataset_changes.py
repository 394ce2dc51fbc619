"""Every operation on a dataset, killed at each of its steps: the old state or the new one, nothing lost, nothing half.

See `killing` for the operations and the steps.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import deltalake
import pytest

import killing
from killing import DIED, FAILED, OPERATIONS, SCOPE, Kill, files_limited, open_data, rows
from modelyard.kernel.errors import ModelyardError
from modelyard.planes.data import Data
from modelyard.types.data import Range, Retention
from modelyard.types.data_branches import Vacuum

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
def killer() -> Iterator[Kill]:
    with killing.killing() as kill:
        yield kill


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


def killed(home: Path, kill: Kill, operation: str, step: str) -> None:
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
    OPERATIONS[operation](data)
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


@pytest.mark.parametrize(("operation", "step"), FEW)
def test_killed_it_is_the_old_state_or_the_new_one(home: Path, killer: Kill, operation: str, step: str) -> None:
    killed(home, killer, operation, step)


@pytest.mark.slow
@pytest.mark.parametrize(("operation", "step"), CASES)
def test_killed_at_each_step_it_is_the_old_state_or_the_new_one(
    home: Path, killer: Kill, operation: str, step: str
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


@pytest.fixture(scope="module", params=CALLS, ids=lambda one: f"{one[0]}-{one[1]}")
def failing(request: pytest.FixtureRequest) -> Iterator[Kill]:
    """Runs an operation in a process for which the kernel refuses one call, the n-th of its kind."""
    if shutil.which("strace") is None:
        pytest.skip("strace makes single calls of the kernel fail")
    call, number = request.param
    inject = f"inject={call}:error=EIO:when={number}"
    try:
        # Each process that is forked counts its calls anew.
        with killing.killing(
            "strace", "-f", "--seccomp-bpf", "-o", os.devnull, "-e", f"trace={call}", "-e", inject
        ) as run:
            yield run
    except ChildProcessError as error:
        pytest.skip(f"processes may not be traced here: {error}")


@pytest.mark.slow
@pytest.mark.parametrize("operation", ["merge", "delete", "branch merge", "compact"])
def test_a_call_of_the_kernel_that_fails_leaves_the_old_state_or_the_new_one(
    home: Path, failing: Kill, operation: str
) -> None:
    assert failing(home, operation, "") in (0, FAILED)
    data = open_data(home)
    data.upkeep.recover(SCOPE, "flights")
    check_whole(data)
    assert held(data) in (BEFORE, AFTER[operation])
    assert in_log(home) == held(data)
    OPERATIONS[operation](data)
    assert held(data) == in_log(home) == AFTER[operation]


@pytest.mark.parametrize("limit_bytes", [0, 700, 4_000])
@pytest.mark.parametrize("operation", ["merge", "delete", "overwrite", "compact", "branch merge", "revert"])
def test_files_that_may_not_grow_leave_the_old_state(home: Path, operation: str, limit_bytes: int) -> None:
    """The catalog, made larger first, stays."""
    data = open_data(home)
    with files_limited(limit_bytes), pytest.raises((ModelyardError, OSError)):
        OPERATIONS[operation](data)
    check_whole(data)
    assert held(data) == in_log(home) == BEFORE
    OPERATIONS[operation](data)
    assert held(data) == in_log(home) == AFTER[operation]
