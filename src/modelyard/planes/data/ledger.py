"""Which blobs a dataset of files holds. Bytes count as there only for the dataset that they were sent to: whoever
knows the digest of another's file cannot claim its bytes by it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sqlalchemy import BigInteger, Column, String, Table, select

from modelyard.kernel.database import Transaction, insert_missing, metadata
from modelyard.kernel.portions import portions

blobs = Table(
    "dataset_blobs",
    metadata,
    Column("dataset_id", String(32), primary_key=True),
    Column("digest", String(64), primary_key=True),
    Column("size_bytes", BigInteger, nullable=False),
)
_AT_ONCE = 1_000


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


def add(tx: Transaction, dataset_id: str, received: Sequence[tuple[str, int]]) -> None:
    """Record that the dataset holds blobs of these sizes."""
    rows = [{"dataset_id": dataset_id, "digest": digest, "size_bytes": size_bytes} for digest, size_bytes in received]
    for some in portions(rows, _AT_ONCE):
        insert_missing(tx, blobs, some)
