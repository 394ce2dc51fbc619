"""The tables of storage: blobs that nothing named when it was last looked, and the collections that were made."""

from __future__ import annotations

from collections.abc import Collection as Digests
from datetime import datetime
from typing import NamedTuple

import msgspec
from sqlalchemy import BigInteger, Column, Index, Integer, String, Table, func, select

from modelyard.kernel.database import Instant, Json, Transaction, insert_missing, metadata
from modelyard.kernel.portions import portions
from modelyard.types.storage import Collection

condemned = Table(
    "storage_condemned",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("size_bytes", BigInteger, nullable=False),
    Column("since", Instant, nullable=False),
    # Set when it was removed, until a collection has said so: a crash between the two loses no count.
    Column("removed_at", Instant),
    Index("storage_condemned_removed", "removed_at"),
)
collections = Table(
    "storage_collections",
    metadata,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("at", Instant, nullable=False),
    Column("result", Json, nullable=False),
)
_KEPT_COLLECTIONS = 100
_AT_ONCE = 500


class Condemned(NamedTuple):
    """A blob that nothing names: since which look, and its size."""

    since: datetime
    size_bytes: int


def parts_condemned(tx: Transaction) -> frozenset[int]:
    """With which bytes the digests begin of blobs that nothing named when it was last looked."""
    begin = func.substr(condemned.c.digest, 1, 2)
    rows = tx.all(select(begin.label("begin")).where(condemned.c.removed_at.is_(None)).distinct())
    return frozenset(int(row.begin, 16) for row in rows)


def condemned_in(tx: Transaction, first: int) -> dict[str, Condemned]:
    """Those whose digest begins with this byte, and that were not removed yet."""
    following = f"{first + 1:02x}" if first < 0xFF else "g"
    digest = condemned.c.digest
    rows = tx.all(
        select(digest, condemned.c.since, condemned.c.size_bytes).where(
            digest >= f"{first:02x}", digest < following, condemned.c.removed_at.is_(None)
        )
    )
    return {row.digest: Condemned(row.since, row.size_bytes) for row in rows}


def condemn(tx: Transaction, sizes: dict[str, int]) -> None:
    """Note that nothing names these blobs now."""
    rows = [{"digest": digest, "size_bytes": size, "since": tx.now} for digest, size in sizes.items()]
    insert_missing(tx, condemned, rows)


def acquit(tx: Transaction, digests: Digests[str]) -> None:
    """Forget that nothing named these blobs: something does, or they were put anew."""
    for some in portions(sorted(digests), _AT_ONCE):
        tx.execute(condemned.delete().where(condemned.c.digest.in_(some)))


def note_removed(tx: Transaction, digests: Digests[str]) -> None:
    """Note that these blobs are gone."""
    for some in portions(sorted(digests), _AT_ONCE):
        tx.execute(condemned.update().where(condemned.c.digest.in_(some)).values(removed_at=tx.now))


def take_removed(tx: Transaction) -> tuple[int, int]:
    """How many blobs were removed and not yet told of, and their bytes; they are told of now."""
    gone = condemned.c.removed_at.is_not(None)
    sizes = [row.size_bytes for row in tx.all(condemned.delete().where(gone).returning(condemned.c.size_bytes))]
    return len(sizes), sum(sizes)


def add_collection(tx: Transaction, made: Collection) -> None:
    """Keep a collection, with those before it up to some number."""
    number = tx.scalar(collections.insert().values(at=made.at, result=made).returning(collections.c.number))
    tx.execute(collections.delete().where(collections.c.number <= number - _KEPT_COLLECTIONS))


def collections_made(tx: Transaction, limit: int = _KEPT_COLLECTIONS) -> list[Collection]:
    """Collections, newest first."""
    rows = tx.all(select(collections.c.result).order_by(collections.c.number.desc()).limit(limit))
    return [msgspec.convert(row.result, Collection) for row in rows]
