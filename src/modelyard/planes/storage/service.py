"""The verbs of storage: collect the blobs that nothing names any more.

A blob goes when no plane named it at two looks that lie a grace apart, and nobody put it in between. One look would
not do: what copies a name (a version registered from a run, a commit of files that were sent before) reads it, and
writes its own later; a look between the two sees neither where the first name goes meanwhile. Whatever copies within
the grace is seen by the second look. What is put anew is spared by the blob store itself, which holds who puts and who
removes apart. So the collection needs no pause of writers, and may be killed and run twice at any point.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from modelyard.engines.blobs.base import BlobStore
from modelyard.kernel.auth import ALL_PROJECTS, Action, Scope, check
from modelyard.kernel.database import Database, Transaction
from modelyard.kernel.ids import new_id
from modelyard.kernel.reconcile import Reconciler
from modelyard.planes.storage import store
from modelyard.planes.storage.marking import PARTS, Marks
from modelyard.planes.storage.reconcile import Collector
from modelyard.types.storage import Collect, Collection

Keeper = Callable[[], Iterator[str]]
"""Gives the digests of all blobs that a plane names, of all projects, in any order, some perhaps more than once."""


class _Found(NamedTuple):
    """What one part of the blobs came to."""

    blobs: int = 0
    freed: int = 0
    freed_bytes: int = 0
    waiting: int = 0
    waiting_bytes: int = 0
    young: int = 0


class Storage:
    """The blobs of all projects. `keepers`: every plane that names blobs; one that takes names over from another comes
    after it. `spill`: where the digests that are kept lie meanwhile. `project`: in whose events it is told."""

    def __init__(
        self, database: Database, blobs: BlobStore, keepers: Sequence[Keeper], *, spill: Path, project: str
    ) -> None:
        self._project = project
        self._database = database
        self._blobs = blobs
        self._keepers = keepers
        self._spill = spill

    def collect(self, scope: Scope, asked: Collect | None = None) -> Collection:
        """Remove the blobs that nothing has named for the grace, and note which nothing names now.

        Raises Forbidden for who is no admin of all projects; EngineError where a plane cannot read what it keeps: then
        nothing is removed.
        """
        wanted = asked or Collect()
        check(scope.principal, Action.ADMIN, ALL_PROJECTS)
        now = self._database.clock.now()
        before = now - timedelta(seconds=wanted.grace_s)
        folder = self._spill / f"marks-{new_id()}"
        try:
            marks = Marks(folder)
            for keeper in self._keepers:
                marks.add(keeper())
            with self._database.reading(scope) as tx:
                condemned = store.parts_condemned(tx)
            parts = [
                self._part(scope, first, marks, before, known=first in condemned, dry_run=wanted.dry_run)
                for first in range(PARTS)
            ]
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        unfinished = 0 if wanted.dry_run else self._blobs.clear(before)
        found = _Found(*(sum(one) for one in zip(*parts, strict=True)))
        made = Collection(
            at=now, dry_run=wanted.dry_run, grace_s=wanted.grace_s, unfinished_bytes=unfinished, **found._asdict()
        )
        return made if wanted.dry_run else self._told(scope, made)

    def collections(self, scope: Scope) -> list[Collection]:
        """The collections that were made, newest first. Raises Forbidden for who is no admin of all projects."""
        check(scope.principal, Action.ADMIN, ALL_PROJECTS)
        with self._database.reading(scope) as tx:
            return store.collections_made(tx)

    def last_at(self) -> datetime | None:
        """When the last collection was made."""
        with self._database.reading() as tx:
            return next((one.at for one in store.collections_made(tx, 1)), None)

    def reconcilers(self) -> Sequence[Reconciler]:
        """What runs in the background: a collection a day."""
        return [Collector(self, self._project, self._database.clock)]

    def _part(self, scope: Scope, first: int, marks: Marks, before: datetime, *, known: bool, dry_run: bool) -> _Found:
        """Look at the blobs whose digest begins with a byte. `known`: some of them were unnamed at the last look."""
        there = list(self._blobs.digests(f"{first:02x}"))
        kept = marks.part(first) if there else frozenset()
        old: dict[str, int] = {}
        young = 0
        for digest in there:
            written = None if bytes.fromhex(digest) in kept else self._blobs.written_at(digest)
            if written is not None and written[1] < before:
                old[digest] = written[0]
            elif written is not None:
                young += 1
        if not old and not known:
            return _Found(len(there), young=young)
        with self._database.reading(scope) as tx:
            known_at = store.condemned_in(tx, first)
        ripe = {digest: size for digest, size in old.items() if digest in known_at and known_at[digest].since <= before}
        waiting = {digest: size for digest, size in old.items() if digest not in ripe}
        if not dry_run:
            self._blobs.remove(ripe, before)
            self._settle(scope, known_at, waiting)
        return _Found(len(there), len(ripe), sum(ripe.values()), len(waiting), sum(waiting.values()), young)

    def _settle(self, scope: Scope, known: dict[str, store.Condemned], waiting: dict[str, int]) -> None:
        """Write down what became of the blobs of a part."""
        gone = {digest for digest in known if digest not in waiting and not self._blobs.exists(digest)}
        acquitted = {digest for digest in known if digest not in gone and digest not in waiting}
        # Looked at once more: what another collection removed and told of meanwhile is not to be told of again.
        new = {digest: size for digest, size in waiting.items() if digest not in known and self._blobs.exists(digest)}
        if not (gone or acquitted or new):
            return
        with self._database.transaction(scope) as tx:
            store.acquit(tx, acquitted)
            store.note_removed(tx, gone)
            store.condemn(tx, new)

    def _told(self, scope: Scope, made: Collection) -> Collection:
        with self._database.transaction(scope) as tx:
            return _tell(tx, made)


def _tell(tx: Transaction, made: Collection) -> Collection:
    freed, freed_bytes = store.take_removed(tx)
    told = replace(made, freed=freed, freed_bytes=freed_bytes)
    store.add_collection(tx, told)
    if freed or told.unfinished_bytes:
        said = {"freed": freed, "freed_bytes": freed_bytes, "unfinished_bytes": told.unfinished_bytes}
        tx.event("storage.collected", "storage:blobs", {**said, "waiting": told.waiting})
    return told
