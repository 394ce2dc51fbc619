"""The features plane's tables and all SQL on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Column, Row, Select, String, Table, Text, select

from modelyard.kernel.database import Instant, Json, Transaction, insert_missing, metadata
from modelyard.types.features import DefineFeatureView, Feature, FeatureView

views = Table(
    "feature_views",
    metadata,
    Column("project", String(64), primary_key=True),
    Column("name", String(128), primary_key=True),
    Column("current", String(12), nullable=False),
    Column("description", Text, nullable=False),
    Column("updated_at", Instant, nullable=False),
)
versions = Table(
    "feature_view_versions",
    metadata,
    Column("project", String(64), primary_key=True),
    Column("name", String(128), primary_key=True),
    Column("version", String(12), primary_key=True),
    Column("definition", Json, nullable=False),
    Column("features", Json, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("created_by", String(255), nullable=False),
)


def add_version(tx: Transaction, definition: DefineFeatureView, version: str, features: Sequence[Feature]) -> bool:
    """Keep a version if it is new. Returns whether it was."""
    if view(tx, definition.name, version) is not None:
        return False
    row = {
        "project": tx.project, "name": definition.name, "version": version, "definition": definition,
        "features": list(features), "created_at": tx.now, "created_by": tx.actor,
    }  # fmt: skip
    insert_missing(tx, versions, [row])
    return True


def set_current(tx: Transaction, name: str, version: str, description: str) -> str | None:
    """Let a view's name stand for a version. Returns the one that it stood for before."""
    mine = (views.c.project == tx.project, views.c.name == name)
    before = tx.one(select(views.c.current).where(*mine))
    values = {"current": version, "description": description, "updated_at": tx.now}
    if before is None:
        tx.execute(views.insert().values(project=tx.project, name=name, **values))
        return None
    tx.execute(views.update().where(*mine).values(**values))
    return str(before.current)


def view(tx: Transaction, name: str, version: str | None) -> FeatureView | None:
    """One version of a view; the current one for None."""
    wanted = versions.c.version == (views.c.current if version is None else version)
    row = tx.one(_joined(tx).where(versions.c.name == name, wanted))
    return None if row is None else _noun(row)


def current_views(tx: Transaction, after: str, limit: int) -> list[FeatureView]:
    """Current versions by name."""
    statement = _joined(tx).where(versions.c.version == views.c.current, versions.c.name > after)
    return [_noun(row) for row in tx.all(statement.order_by(versions.c.name).limit(limit))]


def versions_of(tx: Transaction, name: str, limit: int) -> list[FeatureView]:
    """Versions of a view, newest first."""
    statement = _joined(tx).where(versions.c.name == name)
    order = (versions.c.created_at.desc(), versions.c.version)
    return [_noun(row) for row in tx.all(statement.order_by(*order).limit(limit))]


def _joined(tx: Transaction) -> Select[Any]:
    same = (versions.c.project == views.c.project) & (versions.c.name == views.c.name)
    return (
        select(versions, views.c.current, views.c.description)
        .select_from(versions.join(views, same))
        .where(versions.c.project == tx.project)
    )


def _noun(row: Row[Any]) -> FeatureView:
    definition: Mapping[str, Any] = {**row.definition, "description": row.description}
    return FeatureView(
        name=row.name,
        version=row.version,
        definition=msgspec.convert(definition, DefineFeatureView),
        features=msgspec.convert(row.features, list[Feature]),
        current=row.current == row.version,
        created_at=row.created_at,
        created_by=row.created_by,
    )
