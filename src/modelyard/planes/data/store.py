"""The data plane's tables and all SQL on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy import BigInteger, Column, Index, Integer, String, Table, Text, UniqueConstraint, select

from modelyard.engines.tables.base import ELSEWHERE
from modelyard.kernel.database import Instant, Json, Transaction, metadata
from modelyard.kernel.errors import Conflict
from modelyard.kernel.ids import new_id
from modelyard.kernel.portions import portions
from modelyard.kernel.prepared import Prepared
from modelyard.planes.data.manifests import Part
from modelyard.types import data as nouns
from modelyard.types.data_branches import Branch

datasets = Table(
    "datasets",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("project", String(64), nullable=False),
    Column("name", String(128), nullable=False),
    Column("name_folded", String(128), nullable=False),
    Column("location", String(255), nullable=False, unique=True),
    Column("kind", String(16), nullable=False, server_default="table"),
    Column("description", Text, nullable=False),
    Column("key", Json, nullable=False),
    Column("checks", Json, nullable=False),
    # What `main` names, and the greatest number given out on any branch.
    Column("latest", Integer, nullable=False),
    Column("last", Integer, nullable=False, server_default="0"),
    Column("rows", BigInteger, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("partition_by", Json, nullable=False, server_default="[]"),
    Column("retention", Json),
    Column("created_at", Instant, nullable=False),
    Column("created_by", String(255), nullable=False),
    Column("updated_at", Instant, nullable=False),
    UniqueConstraint("project", "name_folded"),
)
versions = Table(
    "dataset_versions",
    metadata,
    Column("dataset_id", String(32), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("project", String(64), nullable=False),
    Column("parent", Integer, nullable=False, server_default="0"),
    Column("branch", String(128), nullable=False, server_default="main"),
    # Null where the rows were never on `main`: the log holds `main` alone.
    Column("table_version", BigInteger),
    # The manifests with its files; null for versions of before there were any, whose files the log names.
    Column("parts", Json),
    Column("schema_digest", String(64)),
    # Of a dataset of files: the blob with the index of its tree.
    Column("tree", String(64)),
    Column("expired_at", Instant),
    Column("write_id", String(32), nullable=False, unique=True),
    Column("mode", String(16), nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("rows_written", BigInteger, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("columns", Json, nullable=False),
    Column("report", Json, nullable=False),
    Column("profile", Json),
    Column("source", Text, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("created_by", String(255), nullable=False),
)
writes = Table(
    "dataset_writes",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("project", String(64), nullable=False),
    Column("dataset_id", String(32), nullable=False),
    Column("idempotency_key", String(255)),
    Column("status", String(16), nullable=False),
    Column("mode", String(16), nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("columns", Json, nullable=False),
    Column("report", Json, nullable=False),
    Column("version", Integer),
    # What is needed to carry a publication to its end after a crash; null once that is done.
    Column("plan", Json),
    Column("source", Text, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("created_by", String(255), nullable=False),
    UniqueConstraint("dataset_id", "idempotency_key"),
    Index("dataset_writes_by_status", "status", "created_at"),
    Index("dataset_writes_by_dataset", "dataset_id", "status"),
)
tags = Table(
    "dataset_tags",
    metadata,
    Column("dataset_id", String(32), primary_key=True),
    Column("tag", String(128), primary_key=True),
    Column("version", Integer, nullable=False),
    Column("at", Instant, nullable=False),
    Column("by", String(255), nullable=False),
)

branches = Table(
    "dataset_branches",
    metadata,
    Column("dataset_id", String(32), primary_key=True),
    Column("branch", String(128), primary_key=True),
    Column("head", Integer, nullable=False),
    Column("base", Integer, nullable=False),
    Column("at", Instant, nullable=False),
    Column("by", String(255), nullable=False),
)
moves = Table(
    "dataset_moves",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("dataset_id", String(32), nullable=False),
    Column("branch", String(128), nullable=False),
    Column("version", Integer, nullable=False),
    Column("why", String(32), nullable=False),
    Column("at", Instant, nullable=False),
    Column("by", String(255), nullable=False),
    Index("dataset_moves_by_time", "dataset_id", "branch", "at"),
)

MAIN = "main"
_KEYS_AT_ONCE = 500
PUBLISHING = "publishing"
PUBLISHED = "published"
QUARANTINED = "quarantined"
DISCARDED = "discarded"


_HELD = {
    "table": ("a table, not files", "read and write its rows, or give the files a dataset of their own"),
    "files": ("files, not a table", "use `modelyard dataset files`, or make a dataset for rows"),
}


class DatasetRow(msgspec.Struct, frozen=True, kw_only=True):
    """A dataset with what only this plane knows of it."""

    id: str
    location: str
    last: int
    noun: nouns.Dataset

    def require(self, kind: nouns.DatasetKind) -> None:
        """Raise Conflict where the dataset holds something else."""
        if self.noun.kind != kind:
            held, hint = _HELD[self.noun.kind]
            raise Conflict(f"dataset '{self.noun.name}' holds {held}", code="dataset.kind", hint=hint)

    def head(self, branch: str) -> int:
        """The version that a branch names, 0 where it names none or is not there."""
        return self.noun.latest if branch == MAIN else self.noun.branches.get(branch, 0)


class VersionRow(msgspec.Struct, frozen=True, kw_only=True):
    """A version with what tells where its rows are."""

    noun: nouns.DatasetVersion
    parts: list[Part] | None = None
    schema_digest: str | None = None


class WriteRow(msgspec.Struct, frozen=True, kw_only=True):
    """A write that got as far as a verdict."""

    id: str
    project: str
    dataset_id: str
    dataset: str
    location: str
    status: str
    mode: nouns.VersionMode
    rows: int
    columns: list[nouns.Column]
    report: nouns.CheckReport
    version: int | None
    plan: dict[str, Any] | None
    source: str
    created_at: datetime
    created_by: str


def insert_dataset(tx: Transaction, values: Mapping[str, Any]) -> None:
    tx.execute(datasets.insert().values(project=tx.project, **values))


def dataset_named(tx: Transaction, name: str) -> DatasetRow | None:
    row = tx.one(select(datasets).where(datasets.c.project == tx.project, datasets.c.name == name))
    return None if row is None else _dataset(tx, row)


def dataset_folded(tx: Transaction, folded: str) -> str | None:
    """The name of the dataset whose name, without case, is this."""
    found: str | None = tx.scalar(
        select(datasets.c.name).where(datasets.c.project == tx.project, datasets.c.name_folded == folded)
    )
    return found


def list_datasets(tx: Transaction, after: str, limit: int) -> list[nouns.Dataset]:
    rows = tx.all(
        select(datasets)
        .where(datasets.c.project == tx.project, datasets.c.name > after)
        .order_by(datasets.c.name)
        .limit(limit)
    )
    ids = [row.id for row in rows]
    tagged, branched = _tags_of(tx, ids), _branches_of(tx, ids)
    return [_dataset_noun(row, tagged.get(row.id, {}), branched.get(row.id, {})) for row in rows]


def update_dataset(tx: Transaction, dataset_id: str, values: Mapping[str, Any]) -> None:
    tx.execute(
        datasets.update()
        .where(datasets.c.project == tx.project, datasets.c.id == dataset_id)
        .values(updated_at=tx.now, **values)
    )


def advance(tx: Transaction, dataset_id: str, version: nouns.DatasetVersion) -> None:
    """Give out the number of a new version, and let its branch name it, if that names its parent now."""
    what = f"branch '{version.branch}' of dataset '{version.dataset}'"
    tx.update_guarded(
        datasets.update()
        .where(datasets.c.project == tx.project, datasets.c.id == dataset_id, datasets.c.last == version.version - 1)
        .values(last=version.version, updated_at=tx.now),
        what=what,
    )
    move(tx, dataset_id, version, version.branch, version.parent, version.mode)


def move(tx: Transaction, dataset_id: str, version: nouns.DatasetVersion, branch: str, before: int, why: str) -> None:
    """Let a branch name a version, if it names the version `before` now."""
    if branch == MAIN:
        statement = (
            datasets.update()
            .where(datasets.c.project == tx.project, datasets.c.id == dataset_id, datasets.c.latest == before)
            .values(latest=version.version, rows=version.rows, size_bytes=version.size_bytes, updated_at=tx.now)
        )
    else:
        named = (branches.c.dataset_id == dataset_id, branches.c.branch == branch, branches.c.head == before)
        statement = branches.update().where(*named).values(head=version.version)
    tx.update_guarded(statement, what=f"branch '{branch}' of dataset '{version.dataset}'")
    note_move(tx, dataset_id, branch, version.version, why)


def note_move(tx: Transaction, dataset_id: str, branch: str, version: int, why: str) -> None:
    """Remember what a branch names from now on."""
    values = {"id": new_id(), "dataset_id": dataset_id, "branch": branch, "version": version, "why": why}
    tx.execute(moves.insert().values(at=tx.now, by=tx.actor, **values))


def version_at(tx: Transaction, dataset_id: str, branch: str, at: datetime) -> int | None:
    """The version that a branch named at an instant."""
    found: int | None = tx.scalar(
        select(moves.c.version)
        .where(moves.c.dataset_id == dataset_id, moves.c.branch == branch, moves.c.at <= at)
        .order_by(moves.c.at.desc(), moves.c.id.desc())
        .limit(1)
    )
    return found


class AppendTarget(msgspec.Struct, frozen=True):
    """What a buffered append needs to know of a dataset: asked for each of them, so it is one cheap question."""

    id: str
    location: str
    kind: nouns.DatasetKind
    latest: int
    schema_digest: str | None


_APPEND_TARGET = (
    select(datasets.c.id, datasets.c.location, datasets.c.kind, datasets.c.latest, versions.c.schema_digest)
    .outerjoin(versions, (versions.c.dataset_id == datasets.c.id) & (versions.c.version == datasets.c.latest))
    .where(datasets.c.project == sa.bindparam("p"), datasets.c.name == sa.bindparam("n"))
)


def append_target(tx: Transaction, name: str) -> AppendTarget | None:
    row = tx.execute(_APPEND_TARGET, {"p": tx.project, "n": name}).first()
    return None if row is None else AppendTarget(row.id, row.location, row.kind, row.latest, row.schema_digest)


def insert_branch(tx: Transaction, dataset_id: str, branch: str, head: int) -> None:
    values = {"dataset_id": dataset_id, "branch": branch, "head": head, "base": head, "at": tx.now, "by": tx.actor}
    tx.execute(branches.insert().values(**values))


def delete_branch(tx: Transaction, dataset_id: str, branch: str) -> bool:
    named = (branches.c.dataset_id == dataset_id, branches.c.branch == branch)
    return tx.execute(branches.delete().where(*named)).rowcount == 1


def branches_of(tx: Transaction, row: DatasetRow) -> list[Branch]:
    """By name, without `main`."""
    rows = tx.all(select(branches).where(branches.c.dataset_id == row.id).order_by(branches.c.branch))
    return [
        Branch(
            dataset=row.noun.name, name=one.branch, head=one.head, base=one.base, created_at=one.at, created_by=one.by
        )
        for one in rows
    ]


def parents(tx: Transaction, dataset_id: str) -> dict[int, int]:
    """What each version came from."""
    rows = tx.all(select(versions.c.version, versions.c.parent).where(versions.c.dataset_id == dataset_id))
    return {row.version: row.parent for row in rows}


def line(parents: Mapping[int, int], number: int) -> list[int]:
    """A version and all that it came from, down to 0, which is before the first."""
    line = [number]
    while number:
        number = parents.get(number, 0)
        line.append(number)
    return line


def insert_version(
    tx: Transaction,
    dataset_id: str,
    version: nouns.DatasetVersion,
    *,
    parts: Sequence[Part],
    schema_digest: str | None,
    write_id: str,
) -> None:
    tx.execute(
        versions.insert().values(
            dataset_id=dataset_id,
            version=version.version,
            project=tx.project,
            parent=version.parent,
            branch=version.branch,
            table_version=version.table_version,
            parts=list(parts),
            schema_digest=schema_digest,
            tree=version.tree,
            write_id=write_id,
            mode=version.mode,
            rows=version.rows,
            rows_written=version.rows_written,
            size_bytes=version.size_bytes,
            columns=version.columns,
            report=version.report,
            profile=version.profile,
            source=version.source,
            created_at=version.created_at,
            created_by=version.created_by,
        )
    )


def version_row(tx: Transaction, dataset: DatasetRow, version: int) -> VersionRow | None:
    row = tx.one(
        select(versions).where(
            versions.c.project == tx.project, versions.c.dataset_id == dataset.id, versions.c.version == version
        )
    )
    if row is None:
        return None
    named = sorted(tag for tag, number in dataset.noun.tags.items() if number == version)
    parts = None if row.parts is None else msgspec.convert(row.parts, list[Part])
    noun = _version_noun(row, dataset.noun.name, named)
    return VersionRow(noun=noun, parts=parts, schema_digest=row.schema_digest)


def update_version(tx: Transaction, dataset_id: str, version: int, values: Mapping[str, Any]) -> None:
    """Where the rows of a version lie, which may change, unlike the rows."""
    tx.execute(
        versions.update()
        .where(versions.c.project == tx.project, versions.c.dataset_id == dataset_id, versions.c.version == version)
        .values(**values)
    )


def list_versions(tx: Transaction, dataset: DatasetRow, before: int | None, limit: int) -> list[nouns.DatasetVersion]:
    """Newest first, without profile and report, which are large."""
    light = [column for column in versions.c if column.name not in ("report", "profile", "parts")]
    statement = select(*light).where(versions.c.project == tx.project, versions.c.dataset_id == dataset.id)
    if before is not None:
        statement = statement.where(versions.c.version < before)
    named: dict[int, list[str]] = {}
    for tag, number in sorted(dataset.noun.tags.items()):
        named.setdefault(number, []).append(tag)
    rows = tx.all(statement.order_by(versions.c.version.desc()).limit(limit))
    return [_version_noun(row, dataset.noun.name, named.get(row.version, [])) for row in rows]


def insert_write(tx: Transaction, values: Mapping[str, Any]) -> None:
    tx.execute(writes.insert().values(project=tx.project, **values))


def finish_write(tx: Transaction, write_id: str, status: str) -> None:
    """Move a write out of `publishing`, or out of `quarantined` when it is discarded."""
    before = QUARANTINED if status == DISCARDED else PUBLISHING
    tx.update_guarded(
        writes.update()
        .where(writes.c.project == tx.project, writes.c.id == write_id, writes.c.status == before)
        .values(status=status, plan=sa.null()),
        what=f"write '{write_id}'",
    )


def delete_write(tx: Transaction, write_id: str) -> None:
    """Forget a write that came to nothing."""
    tx.execute(
        writes.delete().where(writes.c.project == tx.project, writes.c.id == write_id, writes.c.status == PUBLISHING)
    )


def write_row(tx: Transaction, write_id: str) -> WriteRow | None:
    row = tx.one(_write_select().where(writes.c.project == tx.project, writes.c.id == write_id))
    return None if row is None else _write(row)


def write_by_key(tx: Transaction, dataset_id: str, idempotency_key: str) -> WriteRow | None:
    row = tx.one(
        _write_select().where(
            writes.c.project == tx.project,
            writes.c.dataset_id == dataset_id,
            writes.c.idempotency_key == idempotency_key,
        )
    )
    return None if row is None else _write(row)


def keys_known(tx: Transaction, dataset_id: str, keys: Sequence[str]) -> set[str]:
    """Those of some idempotency keys that writes have had which ended."""
    known: set[str] = set()
    for some in portions(keys, _KEYS_AT_ONCE):
        asked = writes.c.idempotency_key.in_(some)
        ended = writes.c.status != PUBLISHING
        rows = tx.all(select(writes.c.idempotency_key).where(writes.c.dataset_id == dataset_id, ended, asked))
        known |= {row.idempotency_key for row in rows}
    return known


def writes_of(tx: Transaction, dataset_id: str | None, status: str, limit: int) -> list[WriteRow]:
    """Of a dataset or all of the project; oldest first for `publishing`, else newest first."""
    order = writes.c.id if status == PUBLISHING else writes.c.id.desc()
    statement = _write_select().where(writes.c.project == tx.project, writes.c.status == status)
    if dataset_id is not None:
        statement = statement.where(writes.c.dataset_id == dataset_id)
    return [_write(row) for row in tx.all(statement.order_by(order).limit(limit))]


def unfinished(tx: Transaction, before: datetime, limit: int) -> list[tuple[str, str]]:
    """Project and dataset name of publications begun before the instant and not ended, over all projects."""
    rows = tx.all(
        select(writes.c.project, datasets.c.name)
        .join(datasets, datasets.c.id == writes.c.dataset_id)
        .where(writes.c.status == PUBLISHING, writes.c.created_at < before)
        .distinct()
        .limit(limit)
    )
    return [(row.project, row.name) for row in rows]


def with_retention(tx: Transaction) -> list[tuple[str, str]]:
    """Project and name of all datasets that say which versions to keep."""
    rows = tx.all(select(datasets.c.project, datasets.c.name).where(datasets.c.retention.is_not(None)))
    return [(row.project, row.name) for row in rows]


def locations(tx: Transaction) -> list[str]:
    """Where the tables of all projects are."""
    return [row.location for row in tx.all(select(datasets.c.location))]


def write_ids_kept(tx: Transaction) -> list[str]:
    """The writes of all projects whose staged files are needed."""
    statement = select(writes.c.id).where(writes.c.status.in_((PUBLISHING, QUARANTINED)))
    return [row.id for row in tx.all(statement)]


def set_tag(tx: Transaction, dataset_id: str, tag: str, version: int) -> None:
    delete_tag(tx, dataset_id, tag)
    tx.execute(tags.insert().values(dataset_id=dataset_id, tag=tag, version=version, at=tx.now, by=tx.actor))


def delete_tag(tx: Transaction, dataset_id: str, tag: str) -> bool:
    return tx.execute(tags.delete().where(tags.c.dataset_id == dataset_id, tags.c.tag == tag)).rowcount == 1


def _tags_of(tx: Transaction, dataset_ids: Sequence[str]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for row in tx.all(select(tags).where(tags.c.dataset_id.in_(dataset_ids)).order_by(tags.c.tag)):
        found.setdefault(row.dataset_id, {})[row.tag] = row.version
    return found


def _branches_of(tx: Transaction, dataset_ids: Sequence[str]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for row in tx.all(select(branches).where(branches.c.dataset_id.in_(dataset_ids)).order_by(branches.c.branch)):
        found.setdefault(row.dataset_id, {})[row.branch] = row.head
    return found


_TAGS = Prepared(
    select(tags.c.tag, tags.c.version).where(tags.c.dataset_id == sa.bindparam("dataset")).order_by(tags.c.tag)
)
_BRANCHES = Prepared(
    select(branches.c.branch, branches.c.head)
    .where(branches.c.dataset_id == sa.bindparam("dataset"))
    .order_by(branches.c.branch)
)


def _dataset(tx: Transaction, row: sa.Row[Any]) -> DatasetRow:
    named = {"dataset": row.id}
    noun = _dataset_noun(row, dict(tx.run(_TAGS, named)), dict(tx.run(_BRANCHES, named)))
    return DatasetRow(id=row.id, location=row.location, last=row.last, noun=noun)


def _dataset_noun(row: sa.Row[Any], tagged: dict[str, int], branched: dict[str, int]) -> nouns.Dataset:
    return nouns.Dataset(
        name=row.name,
        kind=row.kind,
        description=row.description,
        key=row.key,
        checks=msgspec.convert(row.checks, list[nouns.Check]),
        latest=row.latest,
        rows=row.rows,
        size_bytes=row.size_bytes,
        tags=tagged,
        branches=branched,
        partition_by=row.partition_by,
        retention=msgspec.convert(row.retention, nouns.Retention | None),
        origin=row.location.removeprefix(ELSEWHERE) if row.location.startswith(ELSEWHERE) else "",
        created_at=row.created_at,
        created_by=row.created_by,
        updated_at=row.updated_at,
    )


def _version_noun(row: sa.Row[Any], dataset: str, named: list[str]) -> nouns.DatasetVersion:
    whole = row._mapping
    return nouns.DatasetVersion(
        dataset=dataset,
        version=row.version,
        mode=row.mode,
        rows=row.rows,
        rows_written=row.rows_written,
        size_bytes=row.size_bytes,
        columns=msgspec.convert(row.columns, list[nouns.Column]),
        created_at=row.created_at,
        created_by=row.created_by,
        source=row.source,
        parent=row.parent,
        branch=row.branch,
        table_version=row.table_version,
        tree=row.tree,
        expired_at=row.expired_at,
        tags=named,
        report=msgspec.convert(whole.get("report"), nouns.CheckReport | None),
        profile=msgspec.convert(whole.get("profile"), nouns.Profile | None),
    )


def _write_select() -> sa.Select[Any]:
    return select(writes, datasets.c.name.label("dataset"), datasets.c.location).join(
        datasets, datasets.c.id == writes.c.dataset_id
    )


def _write(row: sa.Row[Any]) -> WriteRow:
    return WriteRow(
        id=row.id,
        project=row.project,
        dataset_id=row.dataset_id,
        dataset=row.dataset,
        location=row.location,
        status=row.status,
        mode=row.mode,
        rows=row.rows,
        columns=msgspec.convert(row.columns, list[nouns.Column]),
        report=msgspec.convert(row.report, nouns.CheckReport),
        version=row.version,
        plan=row.plan,
        source=row.source,
        created_at=row.created_at,
        created_by=row.created_by,
    )
