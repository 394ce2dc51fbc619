"""Collections: what nothing names goes after the grace; what anything names stays, whatever happens meanwhile."""

from __future__ import annotations

import io
import random
import threading
from pathlib import Path

import pytest

from modelyard.engines.blobs.local import LocalBlobs
from modelyard.kernel import events
from modelyard.kernel.auth import Principal, Role, Scope
from modelyard.kernel.errors import EngineError, Forbidden, NotFound
from modelyard.planes.storage import Storage
from modelyard.planes.storage.marking import Marks
from modelyard.planes.tracking import Owner
from modelyard.types.storage import Collect

from .conftest import DAY, Yard


def test_what_nothing_names_goes_at_the_second_look_after_the_grace(yard: Yard) -> None:
    run = yard.run()
    kept, gone = yard.put(run, "kept.txt", b"kept"), yard.put(run, "gone.txt", b"gone!")
    yard.tracking.artifacts.delete(yard.scope, Owner("run", run), "gone.txt")
    first = yard.collect()
    assert (first.freed, first.waiting, first.young) == (0, 0, 1)
    yard.clock.advance(DAY + 1)
    second = yard.collect()
    assert (second.freed, second.waiting, second.waiting_bytes) == (0, 1, 5)
    yard.clock.advance(DAY - 60)
    assert yard.collect().freed == 0
    yard.clock.advance(60)
    seen = yard.collect(dry_run=True)
    assert (seen.freed, seen.freed_bytes) == (1, 5)
    assert yard.blobs.exists(gone)
    last = yard.collect()
    assert (last.freed, last.freed_bytes, last.waiting) == (1, 5, 0)
    assert not yard.blobs.exists(gone)
    assert yard.blobs.get(kept) == b"kept"
    with yard.database.reading(yard.scope) as tx:
        [said] = events.recent(tx, kinds=frozenset({"storage.collected"}))
    assert (said.data["freed"], said.data["freed_bytes"]) == (1, 5)
    assert [one.freed for one in yard.storage.collections(yard.scope)] == [1, 0, 0, 0]


def test_what_is_named_again_or_put_again_in_the_meantime_stays(yard: Yard) -> None:
    run = yard.run()
    named, put = yard.put(run, "a", b"a"), yard.put(run, "b", b"b")
    source = yard.tracking.runs.get(yard.scope, run).artifact_uri
    yard.registry.models.create(yard.scope, "m")
    yard.tracking.artifacts.delete(yard.scope, Owner("run", run), "b")
    yard.clock.advance(2 * DAY)
    yard.collect()
    # A registration that began before the artifact went, and ends after the look that found it unnamed.
    version = yard.registry.versions.create(yard.scope, "m", source, run=run)
    yard.tracking.artifacts.delete(yard.scope, Owner("run", run), "a")
    yard.blobs.put(io.BytesIO(b"b"))
    yard.clock.advance(DAY)
    yard.collect()
    yard.clock.advance(DAY)
    yard.collect()
    assert yard.blobs.get(named) == b"a"
    assert [one.digest for one in yard.registry.versions.files(yard.scope, "m", version.version)] == [named]
    yard.clock.advance(2 * DAY)
    yard.collect()
    assert not yard.blobs.exists(put)


def test_a_name_that_moves_behind_the_look_is_seen_by_the_next(yard: Yard) -> None:
    """Copied from a plane that was asked after the copy's was, and gone there before: unseen once, and not removed."""
    digest = yard.blobs.put(io.BytesIO(b"moving")).digest
    hidden = [True]
    storage = Storage(
        yard.database, yard.blobs, [lambda: iter([] if hidden[0] else [digest])], spill=yard.home, project="default"
    )
    yard.clock.advance(2 * DAY)
    assert storage.collect(yard.scope).waiting == 1
    hidden[0] = False
    yard.clock.advance(2 * DAY)
    assert storage.collect(yard.scope).freed == 0
    hidden[0] = True
    yard.clock.advance(2 * DAY)
    assert storage.collect(yard.scope).freed == 0, "the count begins anew"
    assert yard.blobs.exists(digest)


def test_datasets_of_files_keep_what_they_hold_and_what_versions_name(yard: Yard) -> None:
    yard.dataset("scans")
    entries = [yard.send("scans", bytes([at]) * 20) for at in range(5)]
    yard.commit("scans", *entries)
    yard.commit("scans", entries[0])
    sent = yard.send("scans", b"not committed yet")
    for _ in range(3):
        yard.clock.advance(2 * DAY)
        yard.collect()
    assert yard.files.verify(yard.scope, "scans", 1).problems == []
    assert yard.files.verify(yard.scope, "scans", 2).problems == []
    yard.commit("scans", sent)
    assert yard.files.verify(yard.scope, "scans").problems == []


def test_nothing_is_removed_where_a_plane_cannot_read_what_it_keeps(yard: Yard) -> None:
    yard.dataset("scans")
    yard.commit("scans", yard.send("scans", b"x"))
    loose = yard.blobs.put(io.BytesIO(b"loose")).digest
    tree = yard.files.version(yard.scope, "scans").tree or ""
    yard.clock.advance(2 * DAY)
    yard.collect()
    (yard.home / "blobs" / tree[:2] / tree).write_bytes(b"[]")
    yard.clock.advance(2 * DAY)
    with pytest.raises(EngineError):
        yard.collect()
    assert yard.blobs.exists(loose)
    assert list((yard.home / "spill").iterdir()) == []


def test_an_interrupted_removal_is_counted_by_the_next(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    for at in range(20):
        yard.blobs.put(io.BytesIO(bytes([at]) * 10))
    yard.clock.advance(2 * DAY)
    yard.collect()
    yard.clock.advance(2 * DAY)
    settle, done = Storage._settle, []

    def killed(self: Storage, *args: object) -> None:
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(1)
        settle(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Storage, "_settle", killed)
    with pytest.raises(KeyboardInterrupt):
        yard.collect()
    monkeypatch.undo()
    assert 0 < len(list(yard.blobs.digests())) < 20
    last = yard.collect()
    assert (last.freed, last.freed_bytes) == (20, 200)
    assert list(yard.blobs.digests()) == []


def test_two_collections_at_once_count_once(yard: Yard) -> None:
    for at in range(50):
        yard.blobs.put(io.BytesIO(bytes([at]) * 10))
    yard.clock.advance(2 * DAY)
    yard.collect()
    yard.clock.advance(2 * DAY)
    counted: list[int] = []
    threads = [threading.Thread(target=lambda: counted.append(yard.collect().freed)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(counted) == 4
    assert sum(counted) == 50


def test_only_an_admin_of_all_projects_collects(yard: Yard) -> None:
    admin_here = Scope("default", Principal("ada", {"default": Role.ADMIN}))
    with pytest.raises(Forbidden):
        yard.storage.collect(admin_here, Collect())
    with pytest.raises(Forbidden):
        yard.storage.collections(admin_here)


def test_the_reconciler_collects_once_a_day(yard: Yard) -> None:
    [collector] = yard.storage.reconcilers()
    assert list(collector.due(yard.clock.now())) == ["blobs"]
    lease: object = None
    collector.act("blobs", lease)  # type: ignore[arg-type]
    assert list(collector.due(yard.clock.now())) == []
    yard.clock.advance(DAY)
    assert list(collector.due(yard.clock.now())) == ["blobs"]


def test_a_clock_that_is_moved_makes_no_blob_old_and_stops_no_collection(yard: Yard) -> None:
    [collector] = yard.storage.reconcilers()
    lease: object = None
    collector.act("blobs", lease)  # type: ignore[arg-type]
    put = yard.blobs.put(io.BytesIO(b"named in a moment")).digest
    yard.clock.jump(30 * DAY)
    for _ in range(2):
        assert list(collector.due(yard.clock.now())) == ["blobs"]
        collector.act("blobs", lease)  # type: ignore[arg-type]
        assert yard.blobs.exists(put)
        assert list(collector.due(yard.clock.now())) == []
        yard.clock.jump(30 * DAY)
    yard.clock.jump(-90 * DAY)
    assert list(collector.due(yard.clock.now())) == []
    yard.clock.advance(DAY)
    assert list(collector.due(yard.clock.now())) == ["blobs"], "though the last was made at an instant to come"
    collector.act("blobs", lease)  # type: ignore[arg-type]
    assert list(collector.due(yard.clock.now())) == []


def test_marks_are_exact_and_lie_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelyard.planes.storage.marking._HELD_DIGESTS_MAX", 100)
    draw = random.Random(1)
    digests = [draw.randbytes(32).hex() for _ in range(2_000)]
    marks = Marks(tmp_path / "marks")
    marks.add(digests[:1_500])
    marks.add([*digests[1_000:], "", "no digest"])
    found = [one for first in range(256) for one in marks.part(first)]
    assert sorted(one.hex() for one in found) == sorted(digests)
    assert not marks._held


def test_a_plain_store_frees_what_was_put_long_ago(yard: Yard, tmp_path: Path) -> None:
    """The times of real files: nothing is old enough by a clock that stands at now, and all is two days later."""
    blobs = LocalBlobs(tmp_path / "plain")
    digest = blobs.put(io.BytesIO(b"x")).digest
    storage = Storage(yard.database, blobs, [], spill=tmp_path / "marks", project="default")
    yard.clock.jump(blobs.written_at(digest)[1].timestamp() - yard.clock.now().timestamp())  # type: ignore[index]
    assert storage.collect(yard.scope).young == 1
    yard.clock.advance(2 * DAY)
    assert storage.collect(yard.scope).waiting == 1
    yard.clock.advance(2 * DAY)
    assert storage.collect(yard.scope).freed == 1
    with pytest.raises(NotFound):
        blobs.get(digest)
