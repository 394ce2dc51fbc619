"""Nouns of the data plane for what moves and what is cleared away: branches, compaction, vacuum."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from msgspec import Meta, Struct

from modelyard.types.data import Column, Retention


class Branch(Struct, frozen=True, kw_only=True):
    """A name that moves over versions. `head`: the version that it names, 0 before the first; `base`: the version that
    it was made at."""

    dataset: str
    name: str
    head: int
    base: int
    created_at: datetime
    created_by: str


class CreateBranch(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A branch to be made at a version, by default at the newest of `main`."""

    at: int | str | None = None


class MergeBranch(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The branch that shall name what another names."""

    into: str = "main"


class BranchMerge(Struct, frozen=True, kw_only=True):
    """How a merge ended. `moved` is false where the branch had nothing that `into` did not have."""

    dataset: str
    branch: str
    into: str
    before: int
    version: int
    moved: bool


class RevertTo(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The version whose rows a branch shall have again."""

    to: int | str
    branch: str = "main"


class DeleteRows(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The rows that shall go: an SQL condition."""

    where: Annotated[str, Meta(min_length=1)]
    branch: str = "main"
    source: str = ""
    key: str | None = None


class Compact(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which branch's newest version shall lie in fewer files."""

    branch: str = "main"


class Compaction(Struct, frozen=True, kw_only=True):
    """How a compaction ended: the same version, its rows and their order as before, in other files."""

    dataset: str
    version: int
    files_before: int
    files_after: int
    size_bytes: int


class Vacuum(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a vacuum shall do. `retention`: instead of the dataset's own. `grace_s`: how long what nothing names stays
    for those who are reading it."""

    retention: Retention | None = None
    grace_s: Annotated[float, Meta(ge=0)] = 3600.0
    dry_run: bool = False


class VacuumReport(Struct, frozen=True, kw_only=True):
    """What a vacuum did, or with `dry_run` would do. `expired`: versions whose rows were given up. `kept`: why others
    that the retention would not keep were kept. Of a dataset of files, `files_removed` are those that it held for no
    version and gave up, and `files_waiting` those that a vacuum after the grace gives up; the collection of blobs frees
    the bytes that nothing else holds."""

    dataset: str
    dry_run: bool
    expired: list[int]
    kept: dict[int, str]
    files_removed: int
    bytes_removed: int
    files_waiting: int = 0
    bytes_waiting: int = 0


class KeyConflict(Struct, frozen=True, kw_only=True):
    """Rows that both sides of a merge changed, by key."""

    keys: int
    examples: list[dict[str, Any]]


class Buffered(Struct, frozen=True, kw_only=True):
    """Rows that were taken for the next flush: durable, and not yet in a version."""

    dataset: str
    rows: int


class BufferState(Struct, frozen=True, kw_only=True):
    """What waits for the next flush."""

    dataset: str
    appends: int
    rows: int
    size_bytes: int
    oldest_at: datetime | None = None


class Register(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A folder on the server's machine that shall be read in place: a Delta table, or Parquet files."""

    path: str
    description: str = ""


class DatasetFiles(Struct, frozen=True, kw_only=True):
    """The Parquet files of a version, in order. `uniform`: each holds all columns. `partitions`: for each file the
    values of columns that are not in it, empty where all are."""

    dataset: str
    version: int
    columns: list[Column]
    files: list[str]
    uniform: bool
    partitions: list[dict[str, str | None]] = []
