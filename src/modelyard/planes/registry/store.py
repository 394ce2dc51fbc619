"""The registry's tables and their SQL. Inside, a model is known by its id: a name may change, or be used again."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Index, Integer, String, Table, Text, func, select

from modelyard.kernel.database import Instant, Json, Transaction, metadata
from modelyard.types.registry import (
    AliasMove,
    GateResult,
    Model,
    ModelFile,
    ModelVersion,
    Policy,
    Provenance,
    Retention,
)

models = Table(
    "registry_models",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("project", String(64), nullable=False),
    Column("name", String(255), nullable=False),
    # Null once deleted: the name is free again, the row stays for the history that points to it.
    Column("live_name", String(255)),
    Column("description", Text, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("created_by", String(255), nullable=False),
    Column("updated_at", Instant, nullable=False),
    Column("deleted_at", Instant),
    Column("policy", Json),
    Column("retention", Json),
    # When retention looks next; null where none is declared.
    Column("retention_due_at", Instant),
    # Counts every change that a promotion rests on; a promotion is guarded by it.
    Column("revision", BigInteger, nullable=False),
    sa.UniqueConstraint("project", "live_name"),
    Index("registry_models_retention_due", "retention_due_at"),
)
names = Table(
    "registry_names",
    metadata,
    Column("project", String(64), primary_key=True),
    Column("name", String(255), primary_key=True),
    Column("model_id", String(32), nullable=False),
    Column("last_version", Integer, nullable=False),
)
model_tags = Table(
    "registry_model_tags",
    metadata,
    Column("model_id", String(32), ForeignKey("registry_models.id"), primary_key=True),
    Column("key", String(250), primary_key=True),
    Column("value", Text, nullable=False),
)
versions = Table(
    "registry_versions",
    metadata,
    Column("model_id", String(32), ForeignKey("registry_models.id"), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("created_at", Instant, nullable=False),
    Column("created_by", String(255), nullable=False),
    Column("updated_at", Instant, nullable=False),
    Column("description", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("location", Text, nullable=False),
    Column("run_link", Text, nullable=False),
    Column("stage", String(16), nullable=False),
    Column("run_id", String(64), nullable=False),
    Column("logged_model_id", String(64), nullable=False),
    Column("data", Json, nullable=False),
    Column("code", String(255), nullable=False),
    Column("environment", String(255), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("files", Integer, nullable=False),
    Column("format", String(16), nullable=False),
    Column("format_reason", Text, nullable=False),
    Column("signature", Json),
    Column("flavors", Json, nullable=False),
    Column("trusted", Boolean, nullable=False),
    Column("trusted_by", String(255), nullable=False),
    Column("trusted_reason", Text, nullable=False),
    Column("dropped_at", Instant),
    Column("dropped_by", String(255), nullable=False),
    Column("dropped_reason", Text, nullable=False),
    # Set once the bytes of a dropped version were given up; the digests stay.
    Column("purged_at", Instant),
    Column("license", String(255), nullable=False, server_default=""),
    Column("input_example", String(1024), nullable=False, server_default=""),
    Index("registry_versions_by_run", "run_id"),
)
version_files = Table(
    "registry_version_files",
    metadata,
    Column("model_id", String(32), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("path", String(1024), primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("format", String(32), nullable=False, server_default=""),
    Column("safety", String(16), nullable=False, server_default=""),
    Column("reason", Text, nullable=False, server_default=""),
    Index("registry_version_files_by_digest", "digest"),
)
version_tags = Table(
    "registry_version_tags",
    metadata,
    Column("model_id", String(32), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("key", String(250), primary_key=True),
    Column("value", Text, nullable=False),
)
aliases = Table(
    "registry_aliases",
    metadata,
    Column("model_id", String(32), ForeignKey("registry_models.id"), primary_key=True),
    Column("alias", String(255), primary_key=True),
    Column("version", Integer, nullable=False),
)
alias_moves = Table(
    "registry_alias_moves",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("model_id", String(32), ForeignKey("registry_models.id"), nullable=False),
    Column("alias", String(255), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("version", Integer),
    Column("previous", Integer),
    Column("at", Instant, nullable=False),
    Column("by", String(255), nullable=False),
    Column("reason", Text, nullable=False),
    Column("unmet", Json, nullable=False),
    # What the move rested on then: null for moves without a decision.
    Column("gates", Json),
    Column("approved_by", Json),
    Index("registry_alias_moves_by_alias", "model_id", "alias", "id"),
)


# --- rows to nouns ----------------------------------------------------------------------------------------------


def policy_of(row: Any) -> Policy | None:
    """The policy of a model's row."""
    return None if row.policy is None else msgspec.convert(row.policy, Policy)


def retention_of(row: Any) -> Retention | None:
    """The retention of a model's row."""
    return None if row.retention is None else msgspec.convert(row.retention, Retention)


def to_version(row: Any, name: str, tags: Mapping[str, str], held: Sequence[str]) -> ModelVersion:
    """The noun for a row of versions."""
    return ModelVersion(
        model=name,
        version=row.version,
        created_at=row.created_at,
        created_by=row.created_by,
        updated_at=row.updated_at,
        description=row.description,
        source=row.source,
        location=row.location,
        run_link=row.run_link,
        stage=row.stage,
        digest=row.digest,
        size_bytes=row.size_bytes,
        files=row.files,
        format=row.format,
        format_reason=row.format_reason,
        trusted=row.trusted,
        trusted_by=row.trusted_by,
        trusted_reason=row.trusted_reason,
        signature=row.signature,
        flavors=row.flavors,
        provenance=Provenance(
            source=row.source,
            run=row.run_id,
            logged_model=row.logged_model_id,
            data=row.data,
            code=row.code,
            environment=row.environment,
        ),
        tags=dict(tags),
        aliases=sorted(held),
        dropped_at=row.dropped_at,
        dropped_by=row.dropped_by,
        dropped_reason=row.dropped_reason,
        purged_at=row.purged_at,
        license=row.license,
        input_example=row.input_example,
    )


def _to_move(row: Any, name: str) -> AliasMove:
    return AliasMove(
        id=row.id,
        model=name,
        alias=row.alias,
        kind=row.kind,
        version=row.version,
        previous=row.previous,
        at=row.at,
        by=row.by,
        reason=row.reason,
        unmet=row.unmet,
        guarded=row.gates is not None,
        gates=msgspec.convert(row.gates or [], list[GateResult]),
        approved_by=row.approved_by or [],
    )


# --- models -----------------------------------------------------------------------------------------------------


def live_model(tx: Transaction, name: str) -> Any | None:
    """The row of the model that has this name now."""
    return tx.one(select(models).where(models.c.project == tx.project, models.c.live_name == name))


def model_by_id(tx: Transaction, model_id: str) -> Any | None:
    """The row of a model of the project that is not deleted."""
    same = (models.c.id == model_id, models.c.project == tx.project, models.c.live_name.is_not(None))
    return tx.one(select(models).where(*same))


def last_model(tx: Transaction, name: str) -> Any | None:
    """The row of the model that has this name, or had it last: deleted, or called otherwise now."""
    owner = select(names.c.model_id).where(names.c.project == tx.project, names.c.name == name)
    return tx.one(select(models).where(models.c.project == tx.project, models.c.id.in_(owner)))


def touch(tx: Transaction, model_id: str, *, revised: bool = False, updated: bool = True) -> None:
    """Renew the model's time, and count a revision where a promotion could rest on what changed. Locks the row."""
    values: dict[str, Any] = {"revision": models.c.revision + (1 if revised else 0)}
    if updated:
        values["updated_at"] = tx.now
    tx.execute(models.update().where(models.c.id == model_id).values(values))


def last_number(tx: Transaction, name: str) -> Any | None:
    """The row that keeps the highest version number ever given out under a name."""
    return tx.one(select(names).where(names.c.project == tx.project, names.c.name == name))


def set_tag(tx: Transaction, table: Table, key: Mapping[str, Any], value: str) -> None:
    """Set one tag, new or not."""
    same = [table.c[name] == part for name, part in key.items()]
    if tx.execute(table.update().where(*same).values(value=value)).rowcount == 0:
        tx.execute(table.insert().values(**key, value=value))


def unset_tag(tx: Transaction, table: Table, key: Mapping[str, Any]) -> None:
    """Take one tag away, if it is there."""
    tx.execute(table.delete().where(*[table.c[name] == part for name, part in key.items()]))


def to_models(tx: Transaction, rows: Sequence[Any], *, with_latest: bool = True) -> list[Model]:
    """The nouns for rows of models, with tags, aliases, version counts and the newest version of each stage."""
    ids = [row.id for row in rows]
    if not ids:
        return []
    tags: dict[str, dict[str, str]] = {}
    for row in tx.all(select(model_tags).where(model_tags.c.model_id.in_(ids)).order_by(model_tags.c.key)):
        tags.setdefault(row.model_id, {})[row.key] = row.value
    held: dict[str, dict[str, int]] = {}
    for row in tx.all(select(aliases).where(aliases.c.model_id.in_(ids)).order_by(aliases.c.alias)):
        held.setdefault(row.model_id, {})[row.alias] = row.version
    live = versions.c.dropped_at.is_(None)
    counts = {
        row.model_id: row.total
        for row in tx.all(
            select(versions.c.model_id, func.count().label("total"))
            .where(versions.c.model_id.in_(ids), live)
            .group_by(versions.c.model_id)
        )
    }
    latest = _latest_by_stage(tx, rows) if with_latest else {}
    return [
        Model(
            id=row.id,
            name=row.name,
            created_at=row.created_at,
            created_by=row.created_by,
            updated_at=row.updated_at,
            description=row.description,
            tags=tags.get(row.id, {}),
            aliases=held.get(row.id, {}),
            latest=latest.get(row.id, []),
            policy=policy_of(row),
            retention=retention_of(row),
            versions=counts.get(row.id, 0),
        )
        for row in rows
    ]


def _latest_by_stage(tx: Transaction, rows: Sequence[Any]) -> dict[str, list[ModelVersion]]:
    ids = [row.id for row in rows]
    newest = (
        select(versions.c.model_id, func.max(versions.c.version).label("version"))
        .where(versions.c.model_id.in_(ids), versions.c.dropped_at.is_(None))
        .group_by(versions.c.model_id, versions.c.stage)
        .subquery()
    )
    found = tx.all(
        select(versions, models.c.name)
        .join(models, models.c.id == versions.c.model_id)
        .join(newest, (newest.c.model_id == versions.c.model_id) & (newest.c.version == versions.c.version))
        .order_by(versions.c.version)
    )
    latest: dict[str, list[ModelVersion]] = {}
    for row, version in zip(found, to_versions(tx, found), strict=True):
        latest.setdefault(row.model_id, []).append(version)
    return latest


# --- versions ---------------------------------------------------------------------------------------------------


def version_row(tx: Transaction, model_id: str, version: int) -> Any | None:
    """The row of a version that was not dropped."""
    return tx.one(
        select(versions).where(
            versions.c.model_id == model_id, versions.c.version == version, versions.c.dropped_at.is_(None)
        )
    )


def to_versions(tx: Transaction, rows: Sequence[Any]) -> list[ModelVersion]:
    """The nouns for rows of versions joined with their model's `name`."""
    if not rows:
        return []
    ids = {row.model_id for row in rows}
    wanted = {(row.model_id, row.version) for row in rows}
    numbers = {row.version for row in rows}
    tags: dict[tuple[str, int], dict[str, str]] = {}
    for row in tx.all(
        select(version_tags)
        .where(version_tags.c.model_id.in_(ids), version_tags.c.version.in_(numbers))
        .order_by(version_tags.c.key)
    ):
        if (row.model_id, row.version) in wanted:
            tags.setdefault((row.model_id, row.version), {})[row.key] = row.value
    held: dict[tuple[str, int], list[str]] = {}
    for row in tx.all(select(aliases).where(aliases.c.model_id.in_(ids))):
        held.setdefault((row.model_id, row.version), []).append(row.alias)
    return [
        to_version(row, row.name, tags.get((row.model_id, row.version), {}), held.get((row.model_id, row.version), []))
        for row in rows
    ]


def with_name(model: Any) -> sa.Select[Any]:
    """Rows of a model's versions, with its name."""
    return select(versions, sa.literal(model.name).label("name")).where(versions.c.model_id == model.id)


def files_of(tx: Transaction, model_id: str, version: int) -> list[ModelFile]:
    """The files of a version, by path."""
    rows = tx.all(
        select(version_files)
        .where(version_files.c.model_id == model_id, version_files.c.version == version)
        .order_by(version_files.c.path)
    )
    return [ModelFile(row.path, row.digest, row.size_bytes, row.format, row.safety, row.reason) for row in rows]


def add_files(tx: Transaction, model_id: str, version: int, files: Iterable[ModelFile]) -> None:
    """Record the files of a version."""
    rows = [{"model_id": model_id, "version": version, **msgspec.structs.asdict(one)} for one in files]
    if rows:
        tx.execute(version_files.insert(), rows)


# --- aliases ----------------------------------------------------------------------------------------------------


def alias_version(tx: Transaction, model_id: str, alias: str) -> int | None:
    """The version that an alias points to."""
    found = tx.scalar(select(aliases.c.version).where(aliases.c.model_id == model_id, aliases.c.alias == alias))
    return None if found is None else int(found)


def point_alias(tx: Transaction, model_id: str, alias: str, version: int | None) -> None:
    """Make an alias point to a version, or to none."""
    same = (aliases.c.model_id == model_id, aliases.c.alias == alias)
    tx.execute(aliases.delete().where(*same))
    if version is not None:
        tx.execute(aliases.insert().values(model_id=model_id, alias=alias, version=version))


def add_move(tx: Transaction, model_id: str, move: AliasMove) -> None:
    """Append to the history of an alias."""
    values = msgspec.structs.asdict(move)
    del values["model"]
    if not values.pop("guarded"):
        values |= {"gates": None, "approved_by": None}
    tx.execute(alias_moves.insert().values(model_id=model_id, **values))


def moves_of(tx: Transaction, model_id: str, name: str, alias: str | None = None) -> list[AliasMove]:
    """The history of an alias, or of all of a model, oldest first."""
    statement = select(alias_moves).where(alias_moves.c.model_id == model_id).order_by(alias_moves.c.id)
    if alias is not None:
        statement = statement.where(alias_moves.c.alias == alias)
    return [_to_move(row, name) for row in tx.all(statement)]


def versions_in_force(tx: Transaction) -> list[tuple[str, int]]:
    """Model and number of every version that an alias names or that stands in production."""
    ids = (models.c.project == tx.project, models.c.deleted_at.is_(None), versions.c.dropped_at.is_(None))
    named = select(aliases.c.model_id).where(
        aliases.c.model_id == versions.c.model_id, aliases.c.version == versions.c.version
    )
    statement = (
        select(models.c.name, versions.c.version)
        .join(models, models.c.id == versions.c.model_id)
        .where(*ids, sa.or_(versions.c.stage == "Production", named.exists()))
    )
    return [(row.name, row.version) for row in tx.all(statement.order_by(models.c.name, versions.c.version))]


def usable_versions(tx: Transaction, model_id: str) -> Collection[int]:
    """The numbers of the versions that were not dropped."""
    rows = tx.all(select(versions.c.version).where(versions.c.model_id == model_id, versions.c.dropped_at.is_(None)))
    return {row.version for row in rows}
