"""What a vacuum of a dataset of files gives up, what it leaves, and who stays its hand."""

from __future__ import annotations

import hashlib
from io import BytesIO
from pathlib import Path

import pytest

from modelyard.engines.blobs.local import LocalBlobs
from modelyard.engines.tables.delta import DeltaTables
from modelyard.kernel import frames
from modelyard.kernel.auth import Principal, Role, Scope
from modelyard.kernel.clock import FixedClock
from modelyard.kernel.database import Database
from modelyard.kernel.errors import NotFound
from modelyard.kernel.events import recent
from modelyard.planes.data import Data, Files
from modelyard.types.data import Retention
from modelyard.types.data_branches import Vacuum, VacuumReport
from modelyard.types.files import CommitFiles, FileEntry

JOB = Scope("default", Principal("job:abc", {"*": Role.CONTRIBUTOR}))
NEWEST = Retention(versions=1)
HOUR = 3600


class Scans:
    """A dataset of files, of which every version replaces all files by others."""

    def __init__(self, database: Database, root: Path, scope: Scope) -> None:
        blobs = LocalBlobs(root / "blobs")
        self.data = Data(database, DeltaTables(root / "tables"), root / "spill", blobs=blobs)
        self.files = Files(database, blobs)
        self.scope = scope
        self.data.create(scope, "scans", kind="files")

    def send(self, *texts: str) -> list[FileEntry]:
        body = b"".join(frames.head(digest(text), len(text)) + text.encode() for text in texts)
        self.files.receive(self.scope, "scans", BytesIO(body))
        return [FileEntry(f"{text}.txt", digest(text), len(text)) for text in sorted(texts)]

    def commit(self, *texts: str, branch: str = "main") -> int:
        asked = CommitFiles(put=self.send(*texts), replace_below="", branch=branch)
        return self.files.commit(self.scope, "scans", asked).version.version

    def vacuum(self, retention: Retention | None = NEWEST, *, dry_run: bool = False) -> VacuumReport:
        asked = Vacuum(retention=retention, grace_s=HOUR, dry_run=dry_run)
        return self.data.layout.vacuum(self.scope, "scans", asked)

    def lacking(self, *texts: str) -> int:
        return len(self.files.missing(self.scope, "scans", [digest(text) for text in texts]))

    def read(self, version: int, text: str) -> bytes:
        _, content = self.files.open(self.scope, "scans", f"{text}.txt", version)
        with content:
            return content.read()


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture
def scans(database: Database, tmp_path: Path, scope: Scope) -> Scans:
    return Scans(database, tmp_path, scope)


def test_what_no_version_names_goes_at_the_second_look_and_is_told(
    scans: Scans, database: Database, clock: FixedClock
) -> None:
    scans.commit("a", "bb", "shared")
    scans.commit("ccc", "shared")
    scans.send("never committed")
    shown = scans.vacuum(dry_run=True)
    assert (shown.expired, shown.files_removed, shown.files_waiting, shown.bytes_waiting) == ([1], 0, 3, 18)
    assert scans.files.version(scans.scope, "scans", 1).version == 1, "looking changes nothing"
    first = scans.vacuum()
    assert (first.expired, first.files_removed, first.files_waiting) == ([1], 0, 3)
    with pytest.raises(NotFound) as refused:
        scans.read(1, "a")
    assert refused.value.code == "dataset.version_expired"
    clock.advance(HOUR - 1)
    assert scans.vacuum().files_removed == 0, "whoever is sending has the grace"
    clock.advance(1)
    dry = scans.vacuum(dry_run=True)
    assert (dry.files_removed, dry.bytes_removed, dry.files_waiting) == (3, 18, 0)
    done = scans.vacuum()
    assert (done.expired, done.files_removed, done.bytes_removed, done.files_waiting) == ([], 3, 18, 0)
    assert scans.vacuum().files_removed == 0
    with database.reading(scans.scope) as tx:
        told = recent(tx, kinds=frozenset({"dataset.vacuumed", "dataset.files_given_up"}))
    assert [one.data for one in reversed(told)] == [{"versions": [1]}, {"files": 3, "bytes": 18}]
    assert scans.lacking("a", "bb", "never committed", "shared", "ccc") == 3
    kept = set(scans.files.kept_blobs())
    assert {digest("shared"), digest("ccc")} <= kept
    assert not {digest("a"), digest("bb"), digest("never committed")} & kept, "the collection of blobs may free them"
    assert (scans.read(2, "ccc"), scans.read(2, "shared")) == (b"ccc", b"shared")


def test_what_something_points_at_stays(scans: Scans, database: Database, clock: FixedClock) -> None:
    for text in ("tagged", "used", "branched", "loose", "newest"):
        scans.commit(text)
    scans.data.tag(scans.scope, "scans", "gold", 1)
    scans.files.used(JOB, scans.files.version(JOB, "scans", 2))
    scans.data.branches.create(scans.scope, "scans", "try", 3)
    with database.transaction(scans.scope) as tx:
        tx.link("run:1", "used", "dataset:scans-2@4")
    done = scans.vacuum()
    clock.advance(2 * HOUR)
    assert scans.vacuum().files_removed == 1
    assert done.expired == [4]
    assert done.kept == {1: "tag 'gold'", 2: "job:abc used it", 3: "branch 'try'"}
    for version, text in ((1, "tagged"), (2, "used"), (3, "branched"), (5, "newest")):
        assert scans.read(version, text) == text.encode()


def test_without_a_retention_only_what_was_never_committed_goes(scans: Scans, clock: FixedClock) -> None:
    scans.commit("one")
    scans.commit("two")
    scans.send("broken off")
    assert scans.vacuum(None).expired == []
    clock.advance(2 * HOUR)
    assert scans.vacuum(None).files_removed == 1
    assert (scans.read(1, "one"), scans.read(2, "two")) == (b"one", b"two")


@pytest.mark.parametrize("how", ["asked for", "sent again", "committed"])
def test_what_is_wanted_between_the_looks_stays(scans: Scans, clock: FixedClock, how: str) -> None:
    scans.commit("old")
    scans.commit("new")
    scans.vacuum()
    clock.advance(2 * HOUR)
    match how:
        case "asked for":
            assert scans.lacking("old") == 0
        case "sent again":
            scans.send("old")
        case _:
            entry = FileEntry("again.txt", digest("old"), 3)
            scans.files.commit(scans.scope, "scans", CommitFiles(put=[entry]))
    done = scans.vacuum()
    assert (done.files_removed, done.files_waiting) == (0, 0 if how == "committed" else 1)
    entry = FileEntry("more.txt", digest("old"), 3)
    assert scans.files.commit(scans.scope, "scans", CommitFiles(put=[entry])).changed
    clock.advance(2 * HOUR)
    assert scans.vacuum().files_removed == 0


def test_a_retention_of_its_own_is_kept_by_the_daily_vacuum(scans: Scans, clock: FixedClock) -> None:
    scans.commit("old")
    scans.commit("new")
    scans.data.update(scans.scope, "scans", retention=NEWEST)
    vacuum = next(one for one in scans.data.reconcilers() if one.name == "data.retention")
    [key] = vacuum.due(clock.now())
    for _ in range(2):
        vacuum.act(key, None)  # type: ignore[arg-type]
        clock.advance(24 * HOUR)
    assert scans.lacking("old", "new") == 1
