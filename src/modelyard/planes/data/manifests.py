"""Which files a version is made of, kept in the catalog, so that opening one replays no log.

A manifest is an immutable list of files; a version names the manifests that it consists of, and shares them with the
versions that it came from. An append adds one; small ones at the end are joined, as a binary counter carries, so that a
version of N files names few manifests and all versions together hold each file a logarithmic number of times.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

import msgspec
from sqlalchemy import Column, String, Table, Text, or_, select

from modelyard.engines.tables.base import DataFile
from modelyard.kernel.database import Instant, Transaction, insert_missing, metadata
from modelyard.kernel.ids import new_id
from modelyard.kernel.portions import portions

FILES_MAX = 1_000
_IDS_AT_ONCE = 500

manifests = Table(
    "dataset_manifests",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("dataset_id", String(32), nullable=False, index=True),
    # A JSON list of files, decoded by the type that it is wanted in.
    Column("files", Text, nullable=False),
    # Since when no version names it; its files go a while after that.
    Column("unneeded_since", Instant),
)
schemas = Table(
    "dataset_schemas",
    metadata,
    Column("dataset_id", String(32), primary_key=True),
    Column("digest", String(64), primary_key=True),
    # An Arrow schema, as Arrow writes it, in base64.
    Column("schema", Text, nullable=False),
)


_DECODER = msgspec.json.Decoder(list[DataFile])


class Part(NamedTuple):
    """A manifest and how many files it lists."""

    id: str
    files: int


class Manifest(msgspec.Struct, frozen=True):
    """A manifest that is to be written."""

    id: str
    files: list[DataFile]

    @property
    def part(self) -> Part:
        """How a version names it."""
        return Part(self.id, len(self.files))


class Arrangement(msgspec.Struct, frozen=True):
    """The manifests of a new version, and those among them that are not written yet."""

    parts: list[Part]
    new: list[Manifest]


def appended(
    before: Sequence[Part], added: Sequence[DataFile], read: Callable[[Sequence[Part]], Sequence[DataFile]]
) -> Arrangement:
    """The arrangement for files that come after all others. `read` gives the files of parts, to join small ones."""
    kept = list(before)
    joined: list[Part] = []
    total = len(added)
    while kept and kept[-1].files <= total and kept[-1].files + total <= FILES_MAX:
        total += kept[-1].files
        joined.insert(0, kept.pop())
    files = [*(read(joined) if joined else ()), *added]
    new = [Manifest(new_id(), some) for some in portions(files, FILES_MAX)]
    return Arrangement([*kept, *(one.part for one in new)], new)


def without(held: Iterable[tuple[Part, Sequence[DataFile]]], removed: Collection[str]) -> Arrangement:
    """The arrangement of what is left when files go: manifests that hold none of them stay."""
    parts: list[Part] = []
    new: list[Manifest] = []
    for part, files in held:
        left = [one for one in files if one.name not in removed]
        if len(left) == len(files):
            parts.append(part)
        elif left:
            new.append(Manifest(new_id(), left))
            parts.append(new[-1].part)
    return Arrangement(parts, new)


def insert(tx: Transaction, dataset_id: str, new: Sequence[Manifest]) -> None:
    """Write manifests."""
    rows = [{"id": one.id, "dataset_id": dataset_id, "files": msgspec.json.encode(one.files).decode()} for one in new]
    if rows:
        tx.execute(manifests.insert(), rows)


def read(tx: Transaction, parts: Sequence[Part]) -> list[tuple[Part, list[DataFile]]]:
    """The files of each part, in order."""
    found: dict[str, list[DataFile]] = {}
    ids = [part.id for part in parts]
    for some in portions(ids, _IDS_AT_ONCE):
        for row in tx.all(select(manifests).where(manifests.c.id.in_(some))):
            found[row.id] = _DECODER.decode(row.files)
    return [(part, found[part.id]) for part in parts]


def insert_schema(tx: Transaction, dataset_id: str, schema: str) -> str:
    """Write a schema that may be there. Returns its digest."""
    digest = hashlib.sha256(schema.encode()).hexdigest()
    insert_missing(tx, schemas, [{"dataset_id": dataset_id, "digest": digest, "schema": schema}])
    return digest


def schema_of(tx: Transaction, dataset_id: str, digest: str) -> str:
    """A schema by its digest."""
    found: str = tx.scalar(
        select(schemas.c.schema).where(schemas.c.dataset_id == dataset_id, schemas.c.digest == digest)
    )
    return found


def mark_unneeded(tx: Transaction, dataset_id: str, needed: Collection[str]) -> None:
    """Note since when manifests that no version names are not named."""
    rows = tx.all(select(manifests.c.id, manifests.c.unneeded_since).where(manifests.c.dataset_id == dataset_id))
    _mark(tx, [row.id for row in rows if row.id not in needed and row.unneeded_since is None], tx.now)
    _mark(tx, [row.id for row in rows if row.id in needed and row.unneeded_since is not None], None)


def _mark(tx: Transaction, ids: Sequence[str], since: datetime | None) -> None:
    for some in portions(ids, _IDS_AT_ONCE):
        chosen = manifests.c.id.in_(some)
        tx.execute(manifests.update().where(chosen).values(unneeded_since=since))


def names_live(tx: Transaction, dataset_id: str, before: datetime) -> set[str]:
    """The files of all manifests that some version named after the instant."""
    recent = or_(manifests.c.unneeded_since.is_(None), manifests.c.unneeded_since > before)
    rows = tx.all(select(manifests.c.files).where(manifests.c.dataset_id == dataset_id, recent))
    return {one.name for row in rows for one in _DECODER.decode(row.files)}


def delete_unneeded(tx: Transaction, dataset_id: str, before: datetime) -> None:
    """Remove manifests that no version named since the instant."""
    old = manifests.c.unneeded_since <= before
    tx.execute(manifests.delete().where(manifests.c.dataset_id == dataset_id, old))
