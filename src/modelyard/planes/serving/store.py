"""The tables of serving: endpoints as wanted and as seen, and what each revision meant."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import BigInteger, Boolean, Column, Integer, Row, String, Table, Text, select

from modelyard.engines.compute.base import Handle
from modelyard.kernel.auth import ALL_PROJECTS
from modelyard.kernel.database import Transaction
from modelyard.kernel.errors import NotFound
from modelyard.kernel.schema import Instant, Json, metadata
from modelyard.types.serving import Endpoint, EndpointOptions, EndpointState, Variant, VariantSpec

endpoints = Table(
    "endpoints",
    metadata,
    Column("project", String(64), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("model", String(255), nullable=False),
    Column("specs", Json, nullable=False),
    Column("variants", Json, nullable=False),
    Column("options", Json, nullable=False),
    Column("running", Boolean, nullable=False),
    Column("deleting", Boolean, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("written_revision", Integer, nullable=False),
    Column("observed_revision", Integer, nullable=False),
    Column("failed_revision", Integer, nullable=False),
    Column("serving", Json, nullable=False),
    Column("state", String(16), nullable=False),
    Column("error", Text, nullable=False),
    Column("refusal", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("handle", Json),
    Column("launched", Boolean, nullable=False),
    Column("stopping", Boolean, nullable=False),
    Column("host", String(255), nullable=False),
    Column("port", Integer, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("restarts", Integer, nullable=False),
    Column("started_at", Instant),
    Column("next_start_at", Instant),
    Column("rows_logged", BigInteger, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("created_by", String(255), nullable=False),
    Column("updated_at", Instant, nullable=False),
)
revisions = Table(
    "endpoint_revisions",
    metadata,
    Column("project", String(64), primary_key=True),
    Column("endpoint", String(64), primary_key=True),
    Column("created_at", Instant, primary_key=True),
    Column("revision", Integer, primary_key=True),
    Column("at", Instant, nullable=False),
    Column("by", String(255), nullable=False),
    Column("variants", Json, nullable=False),
    Column("reason", Text, nullable=False),
)


class EndpointRow(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint as stored: what is wanted, what was last seen, and the process that was started for it.

    `error` is what its process or its start complains of, `refusal` why it did not follow an alias. `launched` says
    that start number `attempt` was decided, before it happens; `handle` is known once it has happened.
    """

    project: str
    name: str
    model: str
    specs: list[VariantSpec]
    variants: list[Variant]
    options: EndpointOptions
    running: bool
    deleting: bool
    revision: int
    written_revision: int
    observed_revision: int
    failed_revision: int
    serving: list[Variant]
    state: EndpointState
    error: str
    refusal: str
    attempt: int
    handle: Handle | None
    launched: bool
    stopping: bool
    host: str
    port: int
    pid: int
    restarts: int
    started_at: datetime | None
    next_start_at: datetime | None
    rows_logged: int
    created_at: datetime
    created_by: str
    updated_at: datetime

    @property
    def key(self) -> str:
        """Its name among those of all projects."""
        return f"{self.project}/{self.name}"


_STRUCTURED: dict[str, Any] = {
    "specs": list[VariantSpec],
    "variants": list[Variant],
    "serving": list[Variant],
    "options": EndpointOptions,
    "handle": Handle | None,
}


def to_row(row: Row[Any]) -> EndpointRow:
    """The typed form of a row."""
    values = dict(row._mapping)
    for name, kind in _STRUCTURED.items():
        values[name] = msgspec.convert(values[name], kind)
    return EndpointRow(**values)


def to_endpoint(row: EndpointRow) -> Endpoint:
    """The noun that the API shows."""
    known = row.port > 0 and row.observed_revision > 0 and row.state not in ("stopped", "deleting")
    return Endpoint(
        name=row.name,
        project=row.project,
        model=row.model,
        state=row.state,
        revision=row.revision,
        observed_revision=row.observed_revision,
        variants=row.variants,
        serving=row.serving,
        options=row.options,
        created_at=row.created_at,
        created_by=row.created_by,
        updated_at=row.updated_at,
        url=f"http://{row.host}:{row.port}" if known else "",
        port=row.port,
        pid=row.pid,
        error=row.error or row.refusal,
        restarts=row.restarts,
        rows_logged=row.rows_logged,
    )


def find(tx: Transaction, name: str) -> EndpointRow:
    """An endpoint of the transaction's project. Raises NotFound."""
    row = tx.one(select(endpoints).where(endpoints.c.project == tx.project, endpoints.c.name == name))
    if row is None:
        raise NotFound(
            f"endpoint '{name[:80]}' does not exist in project '{tx.project}'",
            code="endpoint.not_found",
            hint="list them with `modelyard endpoint list`",
        )
    return to_row(row)


def page(tx: Transaction, after: str | None, limit: int) -> list[EndpointRow]:
    """Endpoints of the transaction's project by name."""
    statement = select(endpoints).where(endpoints.c.project == tx.project).order_by(endpoints.c.name).limit(limit)
    if after:
        statement = statement.where(endpoints.c.name > after)
    return [to_row(row) for row in tx.all(statement)]


def everywhere(tx: Transaction) -> list[EndpointRow]:
    """The endpoints of all projects, for the reconcilers, which act for each in its own project's scope."""
    assert tx.project == ALL_PROJECTS
    return [to_row(row) for row in tx.all(select(endpoints).order_by(endpoints.c.project, endpoints.c.name))]


def following(tx: Transaction, model: str) -> list[EndpointRow]:
    """The endpoints of the transaction's project that serve a model."""
    statement = select(endpoints).where(
        endpoints.c.project == tx.project, endpoints.c.model == model, endpoints.c.deleting.is_(False)
    )
    return [to_row(row) for row in tx.all(statement)]


def serving_now(tx: Transaction) -> list[EndpointRow]:
    """The endpoints of the transaction's project."""
    statement = select(endpoints).where(endpoints.c.project == tx.project, endpoints.c.deleting.is_(False))
    return [to_row(row) for row in tx.all(statement.order_by(endpoints.c.name))]


def insert(tx: Transaction, values: dict[str, Any]) -> None:
    """A new endpoint."""
    tx.execute(endpoints.insert().values(project=tx.project, **values))


def update(tx: Transaction, row: EndpointRow, **values: Any) -> None:
    """Change an endpoint that is still at the revision and the attempt it was read at. Raises Conflict."""
    tx.update_guarded(
        endpoints.update()
        .where(
            endpoints.c.project == tx.project,
            endpoints.c.name == row.name,
            endpoints.c.revision == row.revision,
            endpoints.c.attempt == row.attempt,
            endpoints.c.created_at == row.created_at,
        )
        .values(**values),
        what=f"endpoint '{row.name}'",
    )


def note_rows(tx: Transaction, name: str, rows: int) -> None:
    """Record how many rows the prediction log has."""
    tx.execute(
        endpoints.update().where(endpoints.c.project == tx.project, endpoints.c.name == name).values(rows_logged=rows)
    )


def remove(tx: Transaction, row: EndpointRow) -> None:
    """Forget an endpoint and its revisions; its events and its predictions stay."""
    mine = (revisions.c.project == tx.project, revisions.c.endpoint == row.name)
    tx.execute(revisions.delete().where(*mine, revisions.c.created_at == row.created_at))
    tx.update_guarded(
        endpoints.delete().where(
            endpoints.c.project == tx.project, endpoints.c.name == row.name, endpoints.c.deleting.is_(True)
        ),
        what=f"endpoint '{row.name}'",
    )


def add_revision(
    tx: Transaction, name: str, created_at: datetime, revision: int, variants: Sequence[Variant], reason: str
) -> None:
    """Record what a revision means, before any process serves it."""
    tx.execute(
        revisions.insert().values(
            project=tx.project, endpoint=name, created_at=created_at, revision=revision, at=tx.now, by=tx.actor,
            variants=list(variants), reason=reason,
        )
    )  # fmt: skip


class Revision(msgspec.Struct, frozen=True):
    """What a revision means, who asked for it and why."""

    variants: list[Variant]
    by: str
    reason: str


def revision_of(tx: Transaction, row: EndpointRow, revision: int) -> Revision:
    """What a revision of an endpoint means. Raises NotFound."""
    found = tx.one(
        select(revisions).where(
            revisions.c.project == tx.project,
            revisions.c.endpoint == row.name,
            revisions.c.created_at == row.created_at,
            revisions.c.revision == revision,
        )
    )
    if found is None:
        raise NotFound(f"endpoint '{row.name}' has no revision {revision}", code="endpoint.revision_not_found")
    return Revision(msgspec.convert(found.variants, list[Variant]), found.by, found.reason)
