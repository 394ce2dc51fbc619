"""The tables of automation, and all SQL on them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Boolean, Column, Index, Integer, String, Table, Text, UniqueConstraint, or_, select

from modelyard.kernel.database import Instant, Json, Transaction, metadata
from modelyard.planes.automation.decisions import Verdict
from modelyard.types.automation import Promotion, Response, Trigger, TriggerSpec
from modelyard.types.registry import GateResult

HISTORY_MAX = 1_000

triggers = Table(
    "triggers",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("project", String(64), nullable=False),
    Column("name", String(64), nullable=False),
    Column("spec", Json, nullable=False),
    Column("enabled", Boolean, nullable=False),
    # The kind of event that it waits for; null for a schedule.
    Column("event_kind", String(64)),
    Column("next_at", Instant),
    Column("created_at", Instant, nullable=False),
    Column("created_by", String(255), nullable=False),
    Column("updated_at", Instant, nullable=False),
    UniqueConstraint("project", "name"),
    Index("triggers_due", "next_at"),
    Index("triggers_by_kind", "event_kind"),
)
responses = Table(
    "responses",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("project", String(64), nullable=False),
    Column("trigger_id", String(32), nullable=False),
    Column("trigger", String(64), nullable=False),
    Column("event", String(128), nullable=False),
    Column("event_kind", String(64), nullable=False),
    Column("event_subject", String(512), nullable=False),
    Column("event_at", Instant, nullable=False),
    Column("alert", String(32)),
    Column("state", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("pipeline", String(255), nullable=False),
    Column("params", Json, nullable=False),
    Column("promotion", Json),
    Column("pipeline_run", String(32)),
    Column("model", String(255)),
    Column("challenger", Integer),
    Column("champion", Integer),
    Column("verdict", Text),
    Column("gates", Json, nullable=False),
    # What was decided about the challenger before it was done: after a crash in between, it is known what was meant.
    Column("planned", Json),
    Column("check_at", Instant),
    Column("created_at", Instant, nullable=False),
    Column("updated_at", Instant, nullable=False),
    # Exactly one response, and so at most one pipeline run, per trigger and event.
    UniqueConstraint("trigger_id", "event"),
    Index("responses_due", "check_at"),
    Index("responses_by_project", "project", "id"),
    Index("responses_by_run", "pipeline_run"),
)


class ResponseRow(msgspec.Struct, frozen=True, kw_only=True):
    """A response with what it needs to go on."""

    noun: Response
    project: str
    promotion: Promotion | None
    planned: Verdict | None


def insert_trigger(tx: Transaction, values: dict[str, Any]) -> None:
    """A new trigger of the transaction's project."""
    tx.execute(triggers.insert().values(project=tx.project, **values))


def trigger_named(tx: Transaction, name: str) -> Trigger | None:
    """The trigger of that name, if there is one."""
    row = tx.one(select(triggers).where(triggers.c.project == tx.project, triggers.c.name == name))
    return None if row is None else _trigger(row)


def list_triggers(tx: Transaction, after: str, limit: int) -> list[Trigger]:
    """Triggers by name."""
    statement = select(triggers).where(triggers.c.project == tx.project, triggers.c.name > after)
    return [_trigger(row) for row in tx.all(statement.order_by(triggers.c.name).limit(limit))]


def triggers_for(tx: Transaction, event_kind: str, before: datetime) -> list[Trigger]:
    """The triggers that wait for this kind, and did so at that moment already."""
    statement = select(triggers).where(
        triggers.c.project == tx.project, triggers.c.event_kind == event_kind, triggers.c.created_at <= before
    )
    return [_trigger(row) for row in tx.all(statement.order_by(triggers.c.name))]


def event_kinds(tx: Transaction) -> frozenset[str]:
    """The kinds that triggers of any project wait for."""
    statement = select(triggers.c.event_kind).where(triggers.c.event_kind.is_not(None)).distinct()
    return frozenset(row.event_kind for row in tx.all(statement))


def due_triggers(tx: Transaction, now: datetime, limit: int) -> list[tuple[str, str]]:
    """Project and name of the schedules of all projects that came due."""
    statement = select(triggers.c.project, triggers.c.name).where(
        triggers.c.next_at <= now, triggers.c.enabled.is_(True)
    )
    return [(row.project, row.name) for row in tx.all(statement.order_by(triggers.c.next_at).limit(limit))]


def update_trigger(tx: Transaction, trigger_id: str, values: dict[str, Any]) -> None:
    """Change a trigger."""
    tx.execute(triggers.update().where(triggers.c.project == tx.project, triggers.c.id == trigger_id).values(**values))


def delete_trigger(tx: Transaction, trigger_id: str) -> None:
    """Remove a trigger. What it did stays."""
    tx.execute(triggers.delete().where(triggers.c.project == tx.project, triggers.c.id == trigger_id))


def insert_response(tx: Transaction, values: dict[str, Any]) -> None:
    """A new response of the transaction's project."""
    tx.execute(responses.insert().values(project=tx.project, **values))


def has_response(tx: Transaction, trigger_id: str, event_id: str) -> bool:
    """Whether a trigger has made up its mind about an event already."""
    statement = select(responses.c.id).where(responses.c.trigger_id == trigger_id, responses.c.event == event_id)
    return tx.one(statement) is not None


def history(tx: Transaction, trigger_id: str) -> list[Response]:
    """The responses of a trigger that fired, newest first."""
    statement = select(responses).where(
        responses.c.project == tx.project, responses.c.trigger_id == trigger_id, responses.c.state != "suppressed"
    )
    rows = tx.all(statement.order_by(responses.c.id.desc()).limit(HISTORY_MAX))
    return [_response(row).noun for row in rows]


def response_of(tx: Transaction, response_id: str) -> ResponseRow | None:
    """A response by its id."""
    row = tx.one(select(responses).where(responses.c.project == tx.project, responses.c.id == response_id))
    return None if row is None else _response(row)


def list_responses(
    tx: Transaction, *, trigger: str | None, alert: str | None, before: str | None, limit: int
) -> list[Response]:
    """Responses, newest first."""
    statement = select(responses).where(responses.c.project == tx.project)
    if trigger is not None:
        statement = statement.where(responses.c.trigger == trigger)
    if alert is not None:
        statement = statement.where(responses.c.alert == alert)
    if before is not None:
        statement = statement.where(responses.c.id < before)
    return [_response(row).noun for row in tx.all(statement.order_by(responses.c.id.desc()).limit(limit))]


def due_responses(tx: Transaction, now: datetime, limit: int) -> list[tuple[str, str]]:
    """Project and id of responses of all projects that need a look."""
    statement = select(responses.c.project, responses.c.id).where(responses.c.check_at <= now)
    return [(row.project, row.id) for row in tx.all(statement.order_by(responses.c.check_at).limit(limit))]


def update_response(tx: Transaction, noun: Response, values: dict[str, Any]) -> None:
    """Change a response, unless its state has changed since it was read. Raises Conflict (`stale`)."""
    tx.update_guarded(
        responses.update()
        .where(responses.c.project == tx.project, responses.c.id == noun.id, responses.c.state == noun.state)
        .values(updated_at=tx.now, **values),
        what=f"response '{noun.id}'",
    )


def mark_due(tx: Transaction, pipeline_run: str) -> int:
    """A pipeline run is over: who waits for it needs a look. Returns how many do."""
    changed = tx.execute(
        responses.update()
        .where(
            responses.c.project == tx.project,
            responses.c.pipeline_run == pipeline_run,
            responses.c.state == "running",
            or_(responses.c.check_at.is_(None), responses.c.check_at > tx.now),
        )
        .values(check_at=tx.now)
    )
    return int(changed.rowcount)


def _trigger(row: Any) -> Trigger:
    return Trigger(
        id=row.id,
        name=row.name,
        spec=msgspec.convert(row.spec, TriggerSpec),
        created_at=row.created_at,
        created_by=row.created_by,
        updated_at=row.updated_at,
        next_at=row.next_at,
    )


def _response(row: Any) -> ResponseRow:
    gates: Sequence[GateResult] = msgspec.convert(row.gates, list[GateResult])
    noun = Response(
        id=row.id,
        trigger=row.trigger,
        event=row.event,
        event_kind=row.event_kind,
        event_subject=row.event_subject,
        event_at=row.event_at,
        state=row.state,
        reason=row.reason,
        alert=row.alert,
        pipeline=row.pipeline,
        params=row.params,
        pipeline_run=row.pipeline_run,
        model=row.model,
        challenger=row.challenger,
        champion=row.champion,
        verdict=row.verdict,
        gates=tuple(gates),
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
    return ResponseRow(
        noun=noun,
        project=row.project,
        promotion=None if row.promotion is None else msgspec.convert(row.promotion, Promotion),
        planned=None if row.planned is None else msgspec.convert(row.planned, Verdict),
    )
