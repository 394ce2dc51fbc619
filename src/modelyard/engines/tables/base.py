"""What a store of versioned tables can do: stage files aside, commit them as one version, read any version.

A table lives at a location, `<project>/<dataset>`. Nothing here knows of datasets, checks or the catalog.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    import pyarrow as pa

Watch = Callable[["pa.RecordBatch"], None]
CommitMode = Literal["append", "overwrite"]


@dataclass(frozen=True, slots=True)
class StagedFile:
    """One Parquet file of a staged write; `name` is its name in the staging directory and, later, in the table."""

    name: str
    size_bytes: int
    rows: int
    stats: str


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
    """One version of a table: immutable, so it may be kept."""

    version: int
    schema: pa.Schema
    files: tuple[Path, ...]
    size_bytes: int
    rows: int

    @property
    def file_set(self) -> FileSet:
        """The files, for SQL to read."""
        return FileSet(self.schema, self.files)


@dataclass(frozen=True, slots=True)
class Commit:
    """What a commit shall do. `remove` names files of the version before it that the new files replace."""

    write_id: str
    mode: CommitMode
    files: tuple[StagedFile, ...]
    schema: pa.Schema
    base_version: int | None
    remove: tuple[str, ...] = field(default=())


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
        watch: Watch | None = None,
    ) -> Staged:
        """Write a stream aside in bounded memory, its types normalised, and cast to `target` where that loses nothing.

        `watch` is shown every batch as it will be written, before it is.

        Raises InvalidInput for types or values that a table cannot hold, Unavailable on a full disk. When it raises,
        nothing is left behind.
        """
        ...

    def staged(self, location: str, write_id: str) -> tuple[Path, ...]:
        """The files of a staged write, empty where there is none."""
        ...

    def discard(self, location: str, write_id: str) -> None:
        """Remove a staged write, if it is there."""
        ...

    def withdraw(self, location: str, commit: Commit) -> None:
        """Remove all files of a write that is known not to have been committed, and will not be."""
        ...

    def commit(self, location: str, commit: Commit) -> int:
        """Make the staged files a version, once: for a write that was committed before, its version is returned."""
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
    """Parquet files read as one table under a schema: columns that a file lacks are null."""

    schema: pa.Schema
    files: tuple[Path, ...]
