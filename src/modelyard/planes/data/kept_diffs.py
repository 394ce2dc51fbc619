"""Diffs that were made: two versions never change, so what differs between them is found once.

Some are kept for each dataset, the newest; those of versions that are given up go with their rows, of which they hold
samples.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence

import msgspec
from sqlalchemy import Column, Integer, String, Table, Text, or_, select

from modelyard.kernel.database import Instant, Transaction, insert_missing, metadata
from modelyard.kernel.portions import portions
from modelyard.types.data import VersionDiff

KEPT_MAX = 20
BYTES_MAX = 1024 * 1024
_AT_ONCE = 500
# Of another form of diff, or another way to find it, nothing that was kept is taken.
_FORM = "2"
_DECODER = msgspec.json.Decoder(VersionDiff)

diffs = Table(
    "dataset_diffs",
    metadata,
    Column("dataset_id", String(32), primary_key=True),
    Column("before", Integer, primary_key=True),
    Column("after", Integer, primary_key=True),
    # By which columns rows were matched.
    Column("key_digest", String(64), primary_key=True),
    Column("diff", Text, nullable=False),
    Column("kept_at", Instant, nullable=False),
)


def kept(tx: Transaction, dataset_id: str, before: int, after: int, key: Sequence[str]) -> VersionDiff | None:
    """What differs between two versions, where that is known."""
    asked = select(diffs.c.diff).where(
        diffs.c.dataset_id == dataset_id,
        diffs.c.before == before,
        diffs.c.after == after,
        diffs.c.key_digest == _digest(key),
    )
    found = tx.all(asked)
    return _DECODER.decode(found[0].diff) if found else None


def keep(tx: Transaction, dataset_id: str, diff: VersionDiff) -> None:
    """Keep a diff, unless it is large, in place of the oldest."""
    text = msgspec.json.encode(diff).decode()
    if len(text) > BYTES_MAX:
        return
    row = {"dataset_id": dataset_id, "before": diff.before, "after": diff.after, "key_digest": _digest(diff.key)}
    insert_missing(tx, diffs, [{**row, "diff": text, "kept_at": tx.now}])
    of_it = diffs.c.dataset_id == dataset_id
    newest = select(diffs.c.kept_at).where(of_it).order_by(diffs.c.kept_at.desc()).offset(KEPT_MAX).limit(1)
    for old in tx.all(newest):
        tx.execute(diffs.delete().where(of_it, diffs.c.kept_at <= old.kept_at))


def forget(tx: Transaction, dataset_id: str, versions: Collection[int]) -> None:
    """Remove the diffs of versions that were given up."""
    for some in portions(versions, _AT_ONCE):
        gone = or_(diffs.c.before.in_(some), diffs.c.after.in_(some))
        tx.execute(diffs.delete().where(diffs.c.dataset_id == dataset_id, gone))


def _digest(key: Sequence[str]) -> str:
    return hashlib.sha256("\n".join([_FORM, *key]).encode()).hexdigest()
