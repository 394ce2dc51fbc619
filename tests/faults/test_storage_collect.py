"""A collection killed by the kernel at any removal: what is named stays, and no freed byte is left untold."""

from __future__ import annotations

import io
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from modelyard.engines.blobs.local import LocalBlobs
from modelyard.kernel import events
from modelyard.kernel.auth import Principal, Role, Scope
from modelyard.kernel.clock import FixedClock
from modelyard.kernel.database import Database, metadata
from modelyard.planes.storage import Storage
from modelyard.planes.tracking import Owner, Tracking
from modelyard.types.tracking import CreateRun

ADA = Scope("default", Principal("ada", {"*": Role.ADMIN}))
LOOSE, SIZE = 60, 100
KILLED = -9
# Two looks a year apart, from 2100 on, when all that is on the disk today is old; killed before the Nth removal.
PROGRAM = """
import os, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from modelyard.kernel.auth import Principal, Role, Scope
from modelyard.kernel.clock import FixedClock
from modelyard.kernel.database import Database
from modelyard.engines.blobs.local import LocalBlobs
from modelyard.planes.storage import Storage
from modelyard.planes.tracking import Tracking

home, year, nth = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
database = Database(f"sqlite:///{home}/catalog.db", FixedClock(datetime(year, 1, 1, tzinfo=UTC)))
blobs = LocalBlobs(home / "blobs")
unlink, left = Path.unlink, [nth]
def dying(file, missing_ok=False):
    left[0] -= 1
    if left[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    unlink(file, missing_ok)
Path.unlink = dying
storage = Storage(database, blobs, [Tracking(database, blobs).kept_blobs], spill=home / "spill", project="default")
storage.collect(Scope("default", Principal("ada", {"*": Role.ADMIN})))
"""


def _collect(home: Path, year: int, nth: int) -> int:
    return subprocess.run([sys.executable, "-c", PROGRAM, home, str(year), str(nth)], check=False).returncode


@pytest.mark.slow
def test_killed_again_and_again_it_frees_all_and_nothing_else_and_tells_of_every_byte(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/catalog.db", FixedClock(datetime.now(UTC)))
    metadata.create_all(database.engine)
    blobs = LocalBlobs(tmp_path / "blobs")
    tracking = Tracking(database, blobs)
    run = tracking.runs.create(ADA, CreateRun(experiment_id="0")).id
    for at in range(LOOSE):
        blobs.put(io.BytesIO(b"%0*d" % (SIZE, at)), durable=False)
        tracking.artifacts.put(ADA, Owner("run", run), f"{at}.txt", io.BytesIO(b"kept %d" % at))
    assert _collect(tmp_path, 2100, 10_000) == 0, "the first look removes nothing"
    assert len(list(blobs.digests())) == 2 * LOOSE
    kills = 0
    for nth in (0, 1, 2, 5, 9, 14, 10_000):
        ended = _collect(tmp_path, 2101, nth)
        assert ended in (0, KILLED)
        kills += ended == KILLED
        for at in range(LOOSE):
            _, file = tracking.artifacts.open(ADA, Owner("run", run), f"{at}.txt")
            with file:
                assert file.read() == b"kept %d" % at
    assert kills == 6
    assert len(list(blobs.digests())) == LOOSE
    with database.reading(ADA) as tx:
        said = events.recent(tx, kinds=frozenset({"storage.collected"}))
    assert sum(one.data["freed"] for one in said) == LOOSE
    assert sum(one.data["freed_bytes"] for one in said) == LOOSE * SIZE
    storage = Storage(database, blobs, [tracking.kept_blobs], spill=tmp_path / "spill", project="default")
    assert storage.collect(ADA).freed == 0
    database.close()
