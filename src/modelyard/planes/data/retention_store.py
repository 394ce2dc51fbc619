"""The SQL of vacuum: what points at versions, which were given up, which manifests are still named."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec
from sqlalchemy import select

from modelyard.kernel.database import Transaction
from modelyard.kernel.lineage import edges
from modelyard.kernel.portions import portions
from modelyard.planes.data.manifests import Part
from modelyard.planes.data.retention import VersionMark
from modelyard.planes.data.store import MAIN, DatasetRow, VersionRow, version_row, versions

_VERSIONS_AT_ONCE = 500


def version_marks(tx: Transaction, row: DatasetRow) -> list[VersionMark]:
    """All versions that were not given up, oldest first."""
    rows = tx.all(
        select(versions.c.version, versions.c.created_at)
        .where(versions.c.dataset_id == row.id, versions.c.expired_at.is_(None))
        .order_by(versions.c.version)
    )
    return [VersionMark(one.version, one.created_at) for one in rows]


def pins(tx: Transaction, row: DatasetRow) -> dict[int, str]:
    """The versions that something points at, each with what that is: what used one, then a branch or tag."""
    prefix = f"dataset:{row.noun.name}@"
    of_it = edges.c.cause.startswith(prefix, autoescape=True)
    found: dict[int, str] = {}
    for edge in tx.all(select(edges).where(edges.c.project == tx.project, of_it)):
        number = edge.cause.removeprefix(prefix)
        if not edge.effect.startswith(prefix) and edge.cause.startswith(prefix) and number.isdecimal():
            found[int(number)] = f"{edge.effect} {edge.relation} it"
    found |= {number: f"tag '{tag}'" for tag, number in row.noun.tags.items()}
    found |= {number: f"branch '{branch}'" for branch, number in row.noun.branches.items()}
    return found | {row.noun.latest: f"branch '{MAIN}'"}


def expire(tx: Transaction, dataset_id: str, numbers: Sequence[int]) -> None:
    """Note that the rows of versions were given up."""
    for some in portions(numbers, _VERSIONS_AT_ONCE):
        chosen = versions.c.version.in_(some)
        tx.execute(versions.update().where(versions.c.dataset_id == dataset_id, chosen).values(expired_at=tx.now))


def parts_needed(tx: Transaction, dataset_id: str) -> set[str]:
    """The manifests that versions name which were not given up."""
    kept = (versions.c.dataset_id == dataset_id, versions.c.expired_at.is_(None), versions.c.parts.is_not(None))
    rows = tx.all(select(versions.c.parts).where(*kept))
    return {part.id for one in rows for part in msgspec.convert(one.parts, list[Part])}


def trees_named(tx: Transaction) -> list[str]:
    """The trees of files of all datasets of all projects that versions name which were not given up."""
    kept = (versions.c.tree.is_not(None), versions.c.expired_at.is_(None))
    return [row.tree for row in tx.all(select(versions.c.tree).where(*kept).distinct())]


def trees_of(tx: Transaction, dataset_id: str, without: Collection[int]) -> list[str]:
    """The trees that versions of a dataset name which were not given up, and are not about to be."""
    kept = (versions.c.dataset_id == dataset_id, versions.c.tree.is_not(None), versions.c.expired_at.is_(None))
    rows = tx.all(select(versions.c.version, versions.c.tree).where(*kept))
    return sorted({row.tree for row in rows if row.version not in without})


def unlisted_versions(tx: Transaction, row: DatasetRow) -> list[VersionRow]:
    """Versions of before there were manifests, whose files only the log names."""
    kept = (versions.c.dataset_id == row.id, versions.c.expired_at.is_(None), versions.c.parts.is_(None))
    found = [version_row(tx, row, one.version) for one in tx.all(select(versions.c.version).where(*kept))]
    return [one for one in found if one is not None]
