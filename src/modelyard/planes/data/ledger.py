"""Which blobs a dataset of files holds. Bytes count as there only for the dataset that they were sent to: whoever
knows the digest of another's file cannot claim its bytes by it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import BigInteger, Column, Index, String, Table, select, text

from modelyard.kernel.database import Instant, Transaction, insert_missing, metadata
from modelyard.kernel.portions import portions

_MARKED = text("unneeded_since IS NOT NULL")
blobs = Table(
    "dataset_blobs",
    metadata,
    Column("dataset_id", String(32), primary_key=True),
    Column("digest", String(64), primary_key=True),
    Column("size_bytes", BigInteger, nullable=False),
    # Since which look of a vacuum no version names it, and nobody asked for it.
    Column("unneeded_since", Instant),
    Index("dataset_blobs_unneeded", "dataset_id", sqlite_where=_MARKED, postgresql_where=_MARKED),
)
_AT_ONCE = 1_000


class Held(NamedTuple):
    """A blob that a dataset holds; `unneeded_since`: when a vacuum first found that no version names it."""

    digest: str
    size_bytes: int
    unneeded_since: datetime | None


def known(tx: Transaction, dataset_id: str, digests: Sequence[str]) -> dict[str, int]:
    """Size by digest of those that the dataset holds."""
    found: dict[str, int] = {}
    for some in portions(digests, _AT_ONCE):
        asked = select(blobs.c.digest, blobs.c.size_bytes).where(
            blobs.c.dataset_id == dataset_id, blobs.c.digest.in_(some)
        )
        found.update({row.digest: row.size_bytes for row in tx.execute(asked)})
    return found


def held(tx: Transaction) -> Iterator[str]:
    """The digests of all that any dataset holds."""
    return (row.digest for row in tx.stream(select(blobs.c.digest)))


def held_after(tx: Transaction, dataset_id: str, after: str, limit: int) -> list[Held]:
    """What a dataset holds, by digest, after another."""
    asked = (
        select(blobs.c.digest, blobs.c.size_bytes, blobs.c.unneeded_since)
        .where(blobs.c.dataset_id == dataset_id, blobs.c.digest > after)
        .order_by(blobs.c.digest)
        .limit(limit)
    )
    return [Held(row.digest, row.size_bytes, row.unneeded_since) for row in tx.all(asked)]


def has_marked(tx: Transaction, dataset_id: str) -> bool:
    """Whether a vacuum found any that no version names."""
    marked = select(blobs.c.digest).where(blobs.c.dataset_id == dataset_id, blobs.c.unneeded_since.is_not(None))
    return bool(tx.all(marked.limit(1)))


def keep(tx: Transaction, dataset_id: str, digests: Sequence[str]) -> None:
    """Take away the marks of blobs that are named, or about to be."""
    for some in portions(digests, _AT_ONCE):
        marked = (blobs.c.dataset_id == dataset_id, blobs.c.digest.in_(some), blobs.c.unneeded_since.is_not(None))
        tx.execute(blobs.update().where(*marked).values(unneeded_since=None))


def mark(tx: Transaction, dataset_id: str, digests: Sequence[str]) -> None:
    """Note that no version names these blobs now."""
    for some in portions(digests, _AT_ONCE):
        plain = (blobs.c.dataset_id == dataset_id, blobs.c.digest.in_(some), blobs.c.unneeded_since.is_(None))
        tx.execute(blobs.update().where(*plain).values(unneeded_since=tx.now))


def give_up(tx: Transaction, dataset_id: str, digests: Sequence[str], before: datetime) -> set[str]:
    """Give up those of the blobs that are marked since the instant or longer. Returns which that were."""
    gone: set[str] = set()
    for some in portions(digests, _AT_ONCE):
        old = (blobs.c.dataset_id == dataset_id, blobs.c.digest.in_(some), blobs.c.unneeded_since <= before)
        gone.update(row.digest for row in tx.all(blobs.delete().where(*old).returning(blobs.c.digest)))
    return gone


def add(tx: Transaction, dataset_id: str, received: Sequence[tuple[str, int]]) -> None:
    """Record that the dataset holds blobs of these sizes."""
    if has_marked(tx, dataset_id):
        keep(tx, dataset_id, [digest for digest, _ in received])
    rows = [{"dataset_id": dataset_id, "digest": digest, "size_bytes": size_bytes} for digest, size_bytes in received]
    for some in portions(rows, _AT_ONCE):
        insert_missing(tx, blobs, some)
