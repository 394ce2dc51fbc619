"""A dataset commit that is killed, or meets a full disk, at each of its steps: the old version or the new, never half.

Every kill is a real one: a process of its own that dies by `os._exit` at a named step, or by SIGKILL at any moment.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import killing
from killing import BATCH, DIED, SCOPE, Kill, batch_of, files_limited, open_data
from modelyard.kernel.errors import ModelyardError, Unavailable
from modelyard.planes.data import Data

PLACES = (
    *("files", "staging", "judged", "planned", "moved", "entry"),
    *("committed", "version", "advanced", "remembered", "finished", "carried", "settled"),
)
STEPS = [*(f"before {place}" for place in PLACES), "after entry", "after finished", "after settled"]


def check_whole(data: Data) -> dict[int, int]:
    """Every version is gap-free, holds whole batches only, and one more than the version before. Batch -> version."""
    latest = data.get(SCOPE, "flights").latest
    numbers = [version.version for version in data.versions(SCOPE, "flights").items]
    assert numbers == list(range(latest, 0, -1))
    found: dict[int, int] = {}
    for version in range(1, latest + 1):
        table = data.read(SCOPE, "flights", version)
        batches = table["batch"].to_pylist()
        assert len(batches) == version * BATCH == data.resolve(SCOPE, "flights", version).rows
        for number in set(batches):
            assert batches.count(number) == BATCH, f"version {version} holds a part of batch {number}"
            found.setdefault(number, version)
    assert len(found) == latest
    return found


def leftovers(home: Path) -> list[Path]:
    return list((home / "tables" / "default" / "flights" / "_staged").glob("*"))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    data = open_data(tmp_path)
    data.create(SCOPE, "flights")
    data.append(SCOPE, "flights", batch_of(0))
    return tmp_path


@pytest.fixture(scope="module")
def killer() -> Iterator[Kill]:
    with killing.killing() as kill:
        yield kill


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_a_step_it_is_the_old_version_or_the_new_one(home: Path, killer: Kill, step: str) -> None:
    assert killer(home, "batch 1", step) == DIED
    data = open_data(home)
    before = check_whole(data)
    assert before in ({0: 1}, {0: 1, 1: 2})
    data.upkeep.recover(SCOPE, "flights")
    after = check_whole(data)
    assert before.items() <= after.items()
    # The client saw no answer and sends the batch again: it is there once, whatever had happened.
    version = data.write(SCOPE, "flights", batch_of(1), idempotency_key="1").version
    assert version == 2
    assert check_whole(data) == {0: 1, 1: 2}
    assert data.append(SCOPE, "flights", batch_of(2)).version == 3
    assert check_whole(data) == {0: 1, 1: 2, 2: 3}
    assert data.upkeep.unfinished(data._database.clock.now()) == []


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
def test_the_next_writer_carries_on_without_being_told(home: Path, killer: Kill, step: str) -> None:
    assert killer(home, "batch 1", step) == DIED
    data = open_data(home)
    version = data.append(SCOPE, "flights", batch_of(2)).version
    found = check_whole(data)
    assert found[2] == version
    assert found in ({0: 1, 2: 2}, {0: 1, 1: 2, 2: 3})


def test_recovery_may_run_twice_and_at_once_with_writers(home: Path, killer: Kill) -> None:
    assert killer(home, "batch 1", "after committed") == DIED
    recovery = open_data(home).reconcilers()[0]
    for _ in range(2):
        for key in ("default/flights",):
            recovery.act(key, None)  # type: ignore[arg-type]
    assert check_whole(open_data(home)) == {0: 1, 1: 2}


@pytest.mark.slow
def test_killed_at_any_moment_nothing_acknowledged_is_lost(home: Path) -> None:
    acknowledged: dict[int, int] = {}
    first = 1
    for turn in range(12):
        writer = subprocess.Popen(
            [sys.executable, killing.__file__, "append", home, str(first)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        acknowledged |= [_acknowledgement(writer.stdout.readline())]
        time.sleep(0.013 * turn)
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read().splitlines()
        acknowledged |= [_acknowledgement(line) for line in rest if line.count(" ") == 1]
        writer.wait()
        writer.stdout.close()
        data = open_data(home)
        data.upkeep.recover(SCOPE, "flights")
        found = check_whole(data)
        assert acknowledged.items() <= found.items()
        first = max(found) + 1


def _acknowledgement(line: str) -> tuple[int, int]:
    number, version = line.split()
    return int(number), int(version)


# --- a full disk ------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB. Where that may not be mounted, the test is not run here but by `.ci/run`, which may."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "modelyard-test", place], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip("a small file system cannot be mounted without root")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def free_bytes(place: Path) -> int:
    found = os.statvfs(place)
    return found.f_bavail * found.f_frsize


@pytest.mark.parametrize("left_kib", [0, 4, 8, 16, 24, 40, 64, 100, 200])
def test_a_full_disk_leaves_the_old_version_and_recovers(small_disk: Path, left_kib: int) -> None:
    data = open_data(small_disk)
    data.create(SCOPE, "flights")
    data.append(SCOPE, "flights", batch_of(0))
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * max(0, free_bytes(small_disk) - left_kib * 1024))
    outcome: int | None = None
    hint = "none needed"
    try:
        outcome = data.append(SCOPE, "flights", batch_of(1), idempotency_key="1").version
    except Unavailable as error:
        hint = error.hint
    assert hint
    assert check_whole(data) in ([{0: 1}, {0: 1, 1: 2}] if outcome is None else [{0: 1, 1: 2}])
    filler.unlink()
    assert data.write(SCOPE, "flights", batch_of(1), idempotency_key="1").version == 2
    assert check_whole(data) == {0: 1, 1: 2}
    assert leftovers(small_disk) == []


@pytest.mark.parametrize("limit_bytes", [0, 300, 700, 1_500, 4_000])
def test_files_that_may_not_grow_leave_the_old_version(tmp_path: Path, limit_bytes: int) -> None:
    """The catalog, made larger first, stays."""
    data = open_data(tmp_path)
    data.create(SCOPE, "flights")
    data.append(SCOPE, "flights", batch_of(0))
    with files_limited(limit_bytes), pytest.raises((ModelyardError, OSError)):
        data.append(SCOPE, "flights", batch_of(1), idempotency_key="1")
    assert check_whole(data) == {0: 1}
    assert data.write(SCOPE, "flights", batch_of(1), idempotency_key="1").version == 2
    assert check_whole(data) == {0: 1, 1: 2}
