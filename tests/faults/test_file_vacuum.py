"""A vacuum of a dataset of files, killed before and after each of its steps: what is named stays, and what it gave up
is told of to the byte."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import pytest

from modelyard.engines.blobs.local import LocalBlobs
from modelyard.engines.tables.delta import DeltaTables
from modelyard.kernel import events, frames
from modelyard.kernel.auth import Principal, Role, Scope
from modelyard.kernel.clock import FixedClock
from modelyard.kernel.database import Database, metadata
from modelyard.planes.data import Data, Files
from modelyard.types.files import CommitFiles, FileEntry

ADA = Scope("default", Principal("ada", {"*": Role.ADMIN}))
PER_VERSION, SIZE = 30, 20
DIED = 137
# Two looks a year apart; dies before or after the Nth time that a step is taken. Portions are small, so there are many.
PROGRAM = """
import os, sys
from datetime import UTC, datetime
from pathlib import Path
from modelyard.engines.blobs.local import LocalBlobs
from modelyard.engines.tables.delta import DeltaTables
from modelyard.kernel.auth import Principal, Role, Scope
from modelyard.kernel.clock import FixedClock
from modelyard.kernel.database import Database
from modelyard.planes.data import Data, file_vacuum, ledger, retention_store
from modelyard.types.data import Retention
from modelyard.types.data_branches import Vacuum

home, year, when, step, nth = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5])
database = Database(f"sqlite:///{home}/catalog.db", FixedClock(datetime(year, 1, 1, tzinfo=UTC)))
data = Data(database, DeltaTables(home / "tables"), home / "spill", blobs=LocalBlobs(home / "blobs"))
file_vacuum._AT_ONCE = 10
owner, name = {"expire": (retention_store, "expire"), "mark": (ledger, "mark"), "give up": (ledger, "give_up"),
               "told": (file_vacuum, "_give_up"), "look": (file_vacuum.FileVacuum, "_look"), "": (os, "sep")}[step]
original, left = getattr(owner, name), [nth]
def dying(*args, **named):
    left[0] -= 1
    if left[0] < 0 and when == "before":
        os._exit(137)
    result = original(*args, **named)
    if left[0] < 0:
        os._exit(137)
    return result
if step:
    setattr(owner, name, dying)
ada = Scope("default", Principal("ada", {"*": Role.ADMIN}))
data.layout.vacuum(ada, "scans", Vacuum(retention=Retention(versions=1)))
"""


def _vacuum(home: Path, year: int, when: str = "", step: str = "", nth: int = 0) -> int:
    command = [sys.executable, "-c", PROGRAM, home, str(year), when, step, str(nth)]
    return subprocess.run(command, check=False).returncode


def _entries(version: int) -> Iterator[tuple[FileEntry, bytes]]:
    for at in range(PER_VERSION):
        # A third is in every version.
        content = b"%0*d" % (SIZE, at if at % 3 == 0 else version * 1_000 + at)
        yield FileEntry(f"{at:03d}", hashlib.sha256(content).hexdigest(), SIZE), content


@pytest.mark.slow
def test_killed_at_each_step_it_gives_up_all_and_nothing_else_and_tells_of_every_byte(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/catalog.db", FixedClock(datetime(2100, 1, 1, tzinfo=UTC)))
    metadata.create_all(database.engine)
    blobs = LocalBlobs(tmp_path / "blobs")
    data, files = (
        Data(database, DeltaTables(tmp_path / "tables"), tmp_path / "spill", blobs=blobs),
        Files(database, blobs),
    )
    data.create(ADA, "scans", kind="files")
    for version in (1, 2, 3):
        sent = list(_entries(version))
        body = b"".join(frames.head(one.digest, one.size_bytes) + content for one, content in sent)
        files.receive(ADA, "scans", BytesIO(body))
        files.commit(ADA, "scans", CommitFiles(put=[one for one, _ in sent], replace_below=""))
    loose = 2 * PER_VERSION * 2 // 3
    for step, nth in (("expire", 0), ("look", 0), ("mark", 0), ("mark", 2), ("look", 3)):
        for when in ("before", "after"):
            assert _vacuum(tmp_path, 2101, when, step, nth) in (0, DIED)
    assert _vacuum(tmp_path, 2101) == 0
    assert len(files.missing(ADA, "scans", [one.digest for one, _ in _entries(1)])) == 0, "the first look gives up none"
    assert _vacuum(tmp_path, 2102) == 0, "and whoever asked has the grace"
    kills = 0
    for step, nth in (("give up", 0), ("told", 0), ("told", 1), ("look", 0), ("give up", 1)):
        for when in ("before", "after"):
            kills += _vacuum(tmp_path, 2103, when, step, nth) == DIED
            assert files.verify(ADA, "scans").problems == []
    assert kills == 10
    assert _vacuum(tmp_path, 2103) == 0
    with database.reading(ADA) as tx:
        said = events.recent(tx, limit=1_000, kinds=frozenset({"dataset.files_given_up", "dataset.vacuumed"}))
    told = [one.data for one in said if one.kind == "dataset.files_given_up"]
    assert sum(one["files"] for one in told) == loose
    assert sum(one["bytes"] for one in told) == loose * SIZE
    assert [one.data for one in said if one.kind == "dataset.vacuumed"] == [{"versions": [1, 2]}]
    assert files.missing(ADA, "scans", [one.digest for one, _ in _entries(3)]) == []
    assert len(files.missing(ADA, "scans", [one.digest for one, _ in _entries(1)])) == PER_VERSION * 2 // 3
    database.close()
