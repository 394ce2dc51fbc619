"""What a store of versioned tables can do: stage files aside, commit them as one version, read any version.

A table lives at a location, `<project>/<dataset>`. Nothing here knows of datasets, checks or the catalog.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

if TYPE_CHECKING:
    import pyarrow as pa

Watch = Callable[["pa.RecordBatch"], None]
Partition = Mapping[str, str | None]
"""Values of the partition columns, written as the Delta protocol writes them."""


ELSEWHERE = "file://"
"""What the location of a table begins with that lies in a folder of somebody else's, and is only read."""


class DataFile(Struct, frozen=True, array_like=True):
    """One Parquet file of a table, as lists of files hold it. `name` is its path below the table.

    `columns`: how many columns it holds, 0 where that is not known. `embedded`: whether the partition columns are in
    it too, and not only in its name and the log. `modified_us`: for a file of somebody else's that no log says never to
    change, when it was written last, in microseconds; else 0.
    """

    name: str
    size_bytes: int
    rows: int
    columns: int = 0
    partition: dict[str, str | None] = {}
    embedded: bool = True
    modified_us: int = 0


@dataclass(frozen=True, slots=True)
class StagedFile:
    """One Parquet file of a staged write; `name` is its name in the staging directory and, later, in the table."""

    name: str
    size_bytes: int
    rows: int
    stats: str
    columns: int = 0
    partition: Partition = field(default_factory=dict)

    @property
    def as_held(self) -> DataFile:
        """The file as a table holds it."""
        return DataFile(self.name, self.size_bytes, self.rows, self.columns, dict(self.partition))


@dataclass(frozen=True, slots=True)
class Staged:
    """Files that were written aside under a write's id, and are part of no version yet."""

    write_id: str
    schema: pa.Schema
    files: tuple[StagedFile, ...]

    @property
    def rows(self) -> int:
        """Rows over all files."""
        return sum(file.rows for file in self.files)

    @property
    def size_bytes(self) -> int:
        """Bytes on disk over all files."""
        return sum(file.size_bytes for file in self.files)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One state of a table: immutable, so it may be kept. `held` says of each of `files` what the table knows,
    `of` what it is a state of, in words."""

    version: int
    schema: pa.Schema
    files: tuple[Path, ...]
    size_bytes: int
    rows: int
    held: tuple[DataFile, ...] = ()
    of: str = ""

    @property
    def file_set(self) -> FileSet:
        """The files, for SQL to read."""
        return file_set(self.schema, self.files, self.held, of=self.of)


@dataclass(frozen=True, slots=True)
class Commit:
    """What a commit shall do, as the entry right after `base_version` (None: as the first).

    `files` are staged and new, `add` are in the table's folder already (they were of an older state, or of a branch),
    `remove` are of the state before. `schema_changed`: the schema is another than that of the entry before.
    `changes_rows` is false where only the files are others.
    """

    write_id: str
    mode: str
    files: tuple[StagedFile, ...]
    schema: pa.Schema
    base_version: int | None
    remove: tuple[DataFile, ...] = ()
    add: tuple[DataFile, ...] = ()
    partition_by: tuple[str, ...] = ()
    schema_changed: bool = False
    changes_rows: bool = True


class TableStore(Protocol):
    """Versioned tables. A version is all there or not there; an acknowledged one survives a crash."""

    def exclusive(self, location: str) -> AbstractContextManager[None]:
        """Hold the table's lock, which ends with the process that holds it, however that ends."""
        ...

    def stage(
        self,
        location: str,
        write_id: str,
        source: pa.RecordBatchReader,
        target: pa.Schema | None,
        partition_by: Sequence[str] = (),
        part: str = "",
        watch: Watch | None = None,
    ) -> Staged:
        """Write a stream aside in bounded memory, its types normalised, and cast to `target` where that loses nothing.

        `watch` is shown every batch as it will be written, before it is.
        With `partition_by` each file holds one combination of values of these columns. `part` tells several streams
        of one write apart; a stream replaces what was staged as the same part before. Raises InvalidInput for types or
        values that a table cannot hold, Unavailable on a full disk. When it raises, nothing of the part is left.
        """
        ...

    def unstage(self, location: str, write_id: str, part: str) -> None:
        """Remove one part of a staged write, if it is there."""
        ...

    def staged(self, location: str, write_id: str) -> tuple[Path, ...]:
        """The files of the rows that a staged write brought, empty where there are none."""
        ...

    def staged_paths(self, location: str, write_id: str, names: Sequence[str]) -> tuple[Path, ...]:
        """Where staged files lie."""
        ...

    def discard(self, location: str, write_id: str) -> None:
        """Remove a staged write, if it is there."""
        ...

    def withdraw(self, location: str, commit: Commit) -> None:
        """Remove all files of a write that is known not to have been committed, and will not be."""
        ...

    def place(self, location: str, write_id: str, files: Sequence[StagedFile]) -> None:
        """Move staged files among those of the table, where its log does not name them yet. May be repeated."""
        ...

    def commit(self, location: str, commit: Commit) -> int:
        """Make the staged files a version, once: for a write that was committed before, its version is returned.

        Raises Conflict (`table.moved`) where something else made the entry that was to be made.
        """
        ...

    def head(self, location: str, since: int | None) -> int | None:
        """The newest version of the log, which is at least `since`; None where there is no log."""
        ...

    def require_unchanged(self, location: str, files: Sequence[DataFile]) -> None:
        """Raise EngineError (`table.file_changed`) where files of somebody else's are not as they were taken over."""
        ...

    def paths(self, location: str, files: Sequence[DataFile]) -> tuple[Path, ...]:
        """Where files of the table lie."""
        ...

    def remove(self, location: str, keep: frozenset[str], age_s_min: float) -> tuple[int, int]:
        """Remove Parquet files of the table that are not named in `keep` and were last written so long ago.

        Returns how many, and their bytes.
        """
        ...

    def committed(self, location: str, write_id: str, since: int | None) -> int | None:
        """The version in which a write was committed after version `since`, if any."""
        ...

    def snapshot(self, location: str, version: int) -> Snapshot:
        """The files and schema of a version. Raises NotFound; EngineError for a damaged log."""
        ...

    def sweep(self, location: str, keep: Sequence[str], older_than: datetime) -> int:
        """Remove staged writes not in `keep` that were last touched before the instant. Returns how many."""
        ...


@dataclass(frozen=True, slots=True)
class FileSet:
    """Parquet files read as one table under a schema: columns that a file lacks are null.

    `uniform`: every file holds every column, so that only the first needs to be looked at before reading. `partitions`
    gives for each file the values of columns that are not in it; empty where all are. `marked`: for SQL there is one
    column more, `FILE_COLUMN`, with the file that a row is in. `names`: what the files are called below their table,
    empty where that is not known; `of`: what they are of, in words, both for who reads of an error.
    """

    schema: pa.Schema
    files: tuple[Path, ...]
    uniform: bool = False
    partitions: tuple[Partition, ...] = ()
    marked: bool = False
    names: tuple[str, ...] = ()
    of: str = ""


FILE_COLUMN = "__file"


def file_set(
    schema: pa.Schema, files: tuple[Path, ...], held: Sequence[DataFile], *, marked: bool = False, of: str = ""
) -> FileSet:
    """Files with what their table knows of them. `of`: what they are of, in words."""
    width = len(schema.names)
    uniform = len(held) == len(files) and all(one.columns == width for one in held)
    outside = any(not one.embedded for one in held)
    partitions = tuple(one.partition for one in held) if outside else ()
    names = tuple(one.name for one in held) if len(held) == len(files) else ()
    return FileSet(schema, files, uniform, partitions, marked, names, of)
