"""Vacuum of a dataset of files: versions that the retention does not keep, then what the dataset holds for none.

A blob is given up when no version that is left named it at two looks that lie a grace apart, and nobody sent it, asked
for it or committed it in between: the first look marks it, and each of those takes the mark away. So a sender, who asks
which bytes are there and names them a while later, has that grace; without one, the worst that a commit at the same
moment can meet is that bytes which are there are asked for again. Each step is one transaction and may be repeated, so
a vacuum may be killed at any point; what was given up is told by an event of the same commit.

The dataset gives its hold up; the bytes go from the disk by the collection of blobs, where nothing else holds them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from modelyard.engines.blobs.base import BlobStore
from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database, Transaction
from modelyard.planes.data import ledger, retention_store, store, trees
from modelyard.planes.data.retention import decide
from modelyard.types.data import Retention
from modelyard.types.data_branches import Vacuum, VacuumReport

_SHOWN_MAX = 100
_AT_ONCE = 2_000


class _Given(NamedTuple):
    """Versions given up, why others were kept, and the trees of those that are left."""

    expired: list[int]
    kept: dict[int, str]
    trees: list[str]


class _Unnamed(NamedTuple):
    """Blobs of a dataset that none of its versions names: given up, and waiting for the second look."""

    files: int = 0
    size_bytes: int = 0
    waiting: int = 0
    waiting_bytes: int = 0


class FileVacuum:
    """Vacuums datasets of files."""

    def __init__(self, database: Database, blobs: BlobStore) -> None:
        self._database = database
        self._blobs = blobs

    def vacuum(self, scope: Scope, row: store.DatasetRow, wanted: Vacuum, ahead: timedelta) -> VacuumReport:
        """Give up what is kept for nobody, by a clock that may be so far ahead. Raises EngineError for a tree that
        cannot be read: then no blob is."""
        now = self._database.clock.now() - ahead
        before = now - timedelta(seconds=wanted.grace_s)
        given = self._versions(scope, row, wanted, now)
        named = self._named(given.trees)
        looks = [self._look(scope, row, some, named, before, dry_run=wanted.dry_run) for some in self._held(scope, row)]
        found = _Unnamed(*(sum(one) for one in zip(*looks, strict=True))) if looks else _Unnamed()
        return VacuumReport(
            dataset=row.noun.name,
            dry_run=wanted.dry_run,
            expired=given.expired,
            kept=dict(list(given.kept.items())[:_SHOWN_MAX]),
            files_removed=found.files,
            bytes_removed=found.size_bytes,
            files_waiting=found.waiting,
            bytes_waiting=found.waiting_bytes,
        )

    def _versions(self, scope: Scope, row: store.DatasetRow, wanted: Vacuum, now: datetime) -> _Given:
        """Give up versions: decided over what points at them in the commit that gives them up."""
        reading = self._database.reading if wanted.dry_run else self._database.transaction
        with reading(scope) as tx:
            newest = store.dataset_named(tx, row.noun.name) or row
            retention = wanted.retention or newest.noun.retention or Retention()
            marks, pins = retention_store.version_marks(tx, newest), retention_store.pins(tx, newest)
            decisions = decide(marks, retention, now, pins)
            expired = [one.version for one in decisions if not one.keep]
            if expired and not wanted.dry_run:
                retention_store.expire(tx, row.id, expired)
                tx.event("dataset.vacuumed", f"dataset:{row.noun.name}", {"versions": expired[:_SHOWN_MAX]})
            left = retention_store.trees_of(tx, row.id, frozenset(expired))
        return _Given(expired, {one.version: one.reason for one in decisions if one.keep and one.reason}, left)

    def _named(self, named: Sequence[str]) -> frozenset[bytes]:
        """The digests that trees name. Trees share most of their chunks, each of which is read once."""
        chunks = {chunk.digest: chunk for tree in named for chunk in trees.read_index(self._blobs, tree)}
        return frozenset(
            bytes.fromhex(one.digest) for chunk in chunks.values() for one in trees.read_chunk(self._blobs, chunk)
        )

    def _held(self, scope: Scope, row: store.DatasetRow) -> Iterator[list[ledger.Held]]:
        """What the dataset holds, a portion at a time, so that no look keeps others from writing."""
        after = ""
        while True:
            with self._database.reading(scope) as tx:
                some = ledger.held_after(tx, row.id, after, _AT_ONCE)
            if not some:
                return
            yield some
            after = some[-1].digest

    def _look(
        self,
        scope: Scope,
        row: store.DatasetRow,
        held: Sequence[ledger.Held],
        named: frozenset[bytes],
        before: datetime,
        *,
        dry_run: bool,
    ) -> _Unnamed:
        loose = [one for one in held if bytes.fromhex(one.digest) not in named]
        again = [one.digest for one in held if one.unneeded_since is not None and bytes.fromhex(one.digest) in named]
        ripe = [one for one in loose if one.unneeded_since is not None and one.unneeded_since <= before]
        gone = {one.digest for one in ripe}
        waiting = [one for one in loose if one.digest not in gone]
        if not dry_run and (loose or again):
            with self._database.transaction(scope) as tx:
                ledger.keep(tx, row.id, again)
                ledger.mark(tx, row.id, [one.digest for one in waiting if one.unneeded_since is None])
                ripe = _give_up(tx, row, ripe, before)
        return _Unnamed(
            len(ripe),
            sum(one.size_bytes for one in ripe),
            len(waiting),
            sum(one.size_bytes for one in waiting),
        )


def _give_up(
    tx: Transaction, row: store.DatasetRow, ripe: Sequence[ledger.Held], before: datetime
) -> list[ledger.Held]:
    """Give up blobs that still are marked. Returns which."""
    gone = ledger.give_up(tx, row.id, [one.digest for one in ripe], before)
    given_up = [one for one in ripe if one.digest in gone]
    if given_up:
        said = {"files": len(given_up), "bytes": sum(one.size_bytes for one in given_up)}
        tx.event("dataset.files_given_up", f"dataset:{row.noun.name}", said)
    return given_up
