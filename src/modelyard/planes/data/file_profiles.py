"""A profile for each data file, so that a write that rewrites one file of a hundred looks at the rows of that one.

A file never changes, so its profile holds for as long as the file does. It is kept where it was known anyway (a write
that made one file), and otherwise once it was needed. Small files are looked at again, which costs less than keeping
what they say. What is kept is for speed alone: without it, the same is found by reading.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import Column, String, Table, Text, select

from modelyard.engines.tables.arrow import scan
from modelyard.engines.tables.base import DataFile, Staged, StagedFile, TableStore, file_set
from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database, Transaction, insert_missing, metadata
from modelyard.kernel.portions import portions
from modelyard.planes.data.profile import merge_profiles
from modelyard.planes.data.profiling import profile_of
from modelyard.planes.data.store import DatasetRow
from modelyard.types.data import Profile

if TYPE_CHECKING:
    import pyarrow as pa

KEPT_ROWS_MIN = 20_000
FILES_MAX = 1_000
"""Of more files, putting profiles together is no longer surely cheaper than reading."""
_AT_ONCE = 500
_DECODER = msgspec.json.Decoder(Profile)

profiles = Table(
    "dataset_file_profiles",
    metadata,
    Column("dataset_id", String(32), primary_key=True),
    # The file's path below the table.
    Column("name", String(1024), primary_key=True),
    # JSON, decoded by the type that it is wanted in.
    Column("profile", Text, nullable=False),
)

Look = Callable[[Sequence[DataFile]], Profile]
"""Reads files and says what their rows look like."""


class FileProfile(msgspec.Struct, frozen=True):
    """What the rows of a file look like."""

    name: str
    profile: Profile


def of_one_file(files: Sequence[StagedFile], batch: Profile) -> tuple[FileProfile, ...]:
    """The profile of a write's only file, which is that of its rows."""
    if len(files) != 1 or files[0].rows < KEPT_ROWS_MIN:
        return ()
    return (FileProfile(files[0].name, batch),)


class Reprofiler:
    """Says what a table looks like after some of its files were taken away and others came."""

    def __init__(self, database: Database, tables: TableStore) -> None:
        self._database = database
        self._tables = tables

    def after(
        self,
        scope: Scope,
        dataset: DatasetRow,
        kept: Sequence[DataFile],
        rewritten: Staged | None,
        batch: Profile,
        schema: pa.Schema,
    ) -> tuple[Profile | None, tuple[FileProfile, ...]]:
        """The profile of the files that stay, of those that were rewritten and of the rows that came, and what is to be
        kept of the rewritten. None where reading all is the way."""
        if len(kept) > FILES_MAX:
            return None, ()
        found = self._of_kept(scope, dataset, kept, schema)
        new: dict[str, Profile] = {}
        if rewritten is not None:
            aside = [one.as_held for one in rewritten.files]
            names = [one.name for one in aside]
            paths = dict(
                zip(names, self._tables.staged_paths(dataset.location, rewritten.write_id, names), strict=True)
            )
            new = profiles_of(aside, {}, lambda some: _look(schema, [paths[one.name] for one in some], some))
        total = together([*found.values(), *new.values(), batch], schema.names)
        return total, tuple(FileProfile(name, profile) for name, profile in new.items() if name)

    def _of_kept(
        self, scope: Scope, dataset: DatasetRow, kept: Sequence[DataFile], schema: pa.Schema
    ) -> dict[str, Profile]:
        with self._database.reading(scope) as tx:
            known = read(tx, dataset.id, [one.name for one in worth_keeping(kept)])
        found = profiles_of(kept, known, lambda some: _look(schema, self._tables.paths(dataset.location, some), some))
        new = [FileProfile(name, profile) for name, profile in found.items() if name and name not in known]
        if new:
            # Whatever becomes of the write: these files are there.
            with self._database.transaction(scope) as tx:
                keep(tx, dataset.id, new)
        return found


def _look(schema: pa.Schema, paths: Sequence[Path], files: Sequence[DataFile]) -> Profile:
    return profile_of(schema, scan(file_set(schema, tuple(paths), files), schema.names))


def worth_keeping(files: Sequence[DataFile]) -> list[DataFile]:
    """Those of the files of which a profile is kept."""
    return [one for one in files if one.rows >= KEPT_ROWS_MIN]


def profiles_of(files: Sequence[DataFile], known: Mapping[str, Profile], look: Look) -> dict[str, Profile]:
    """Profiles that together are those of all files, by file; those of small files together under no name."""
    large = worth_keeping(files)
    names = {one.name for one in large}
    small = [one for one in files if one.name not in names]
    found = {one.name: known.get(one.name) or look([one]) for one in large}
    return found | ({"": look(small)} if small else {})


def together(parts: Sequence[Profile], order: Sequence[str]) -> Profile | None:
    """The profile of all parts, its columns in this order; None where they cannot be put together, or lack one."""
    merged = merge_profiles(*(one for one in parts if one.rows))
    if merged is None:
        return None
    columns = {one.name: one for one in merged.columns}
    if set(columns) != set(order):
        return None
    return Profile(rows=merged.rows, columns=[columns[name] for name in order])


# --- kept ---------------------------------------------------------------------------------------------------------


def read(tx: Transaction, dataset_id: str, names: Sequence[str]) -> dict[str, Profile]:
    """The profiles that are kept of files, by name."""
    found: dict[str, Profile] = {}
    for some in portions(names, _AT_ONCE):
        asked = select(profiles.c.name, profiles.c.profile).where(
            profiles.c.dataset_id == dataset_id, profiles.c.name.in_(some)
        )
        found.update({row.name: _DECODER.decode(row.profile) for row in tx.execute(asked)})
    return found


def keep(tx: Transaction, dataset_id: str, found: Sequence[FileProfile]) -> None:
    """Keep profiles of files that may be kept already."""
    rows = [
        {"dataset_id": dataset_id, "name": one.name, "profile": msgspec.json.encode(one.profile).decode()}
        for one in found
    ]
    insert_missing(tx, profiles, rows)


def forget(tx: Transaction, dataset_id: str, live: Collection[str], *, of: Table) -> None:
    """Remove what a table keeps of files that are no longer."""
    rows = tx.all(select(of.c.name).where(of.c.dataset_id == dataset_id))
    drop(tx, dataset_id, sorted({row.name for row in rows} - set(live)), of=of)


def drop(tx: Transaction, dataset_id: str, names: Sequence[str], *, of: Table) -> None:
    """Remove what a table keeps of these files."""
    for some in portions(names, _AT_ONCE):
        tx.execute(of.delete().where(of.c.dataset_id == dataset_id, of.c.name.in_(some)))
