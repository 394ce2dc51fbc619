"""The tables of monitoring, and all SQL on them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy import Boolean, Column, Index, Integer, String, Table, Text, UniqueConstraint, select

from modelyard.kernel.database import Instant, Json, Transaction, metadata
from modelyard.kernel.portions import portions
from modelyard.planes.monitoring.state import Memory, StoredWindow, WindowKey, WindowMark, WindowState
from modelyard.types.monitoring import Alert, Monitor, MonitorSpec, MonitorWindow

STARTS_AT_ONCE = 500

monitors = Table(
    "monitors",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("project", String(64), nullable=False),
    Column("name", String(64), nullable=False),
    Column("spec", Json, nullable=False),
    Column("memory", Json, nullable=False),
    # Grows with every change; an evaluation that began from an older one is thrown away.
    Column("revision", Integer, nullable=False),
    Column("predictions", String(128), nullable=False),
    Column("labels", String(128)),
    Column("predictions_version", Integer),
    Column("labels_version", Integer),
    Column("evaluated_at", Instant),
    Column("due_at", Instant),
    # How often it was made due: what arrives while an evaluation runs is looked at by the next one.
    Column("marks", Integer, nullable=False, default=0),
    Column("problem", Text),
    Column("created_at", Instant, nullable=False),
    Column("created_by", String(255), nullable=False),
    Column("updated_at", Instant, nullable=False),
    UniqueConstraint("project", "name"),
    Index("monitors_due", "due_at"),
    Index("monitors_by_predictions", "project", "predictions"),
    Index("monitors_by_labels", "project", "labels"),
)
windows = Table(
    "monitor_windows",
    metadata,
    Column("monitor_id", String(32), primary_key=True),
    Column("start", Instant, primary_key=True),
    Column("model_version", String(64), primary_key=True),
    Column("project", String(64), nullable=False),
    Column("complete", Boolean, nullable=False),
    Column("labels_digest", String(64), nullable=False),
    Column("state", Json, nullable=False),
    Column("result", Json, nullable=False),
)
alerts = Table(
    "alerts",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("project", String(64), nullable=False),
    Column("monitor_id", String(32), nullable=False),
    Column("monitor", String(64), nullable=False),
    Column("endpoint", String(64), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("status", String(16), nullable=False),
    Column("model", String(255)),
    Column("model_version", String(64), nullable=False),
    Column("window_start", Instant, nullable=False),
    Column("window_end", Instant, nullable=False),
    Column("reason", Text, nullable=False),
    Column("numbers", Json, nullable=False),
    Column("windows", Integer, nullable=False),
    Column("raised_at", Instant, nullable=False),
    Column("acknowledged_at", Instant),
    Column("acknowledged_by", String(255)),
    Column("resolved_at", Instant),
    Column("resolved_by", String(255)),
    Column("resolution", Text),
    Index("alerts_by_status", "project", "status", "id"),
    Index("alerts_by_monitor", "monitor_id", "id"),
)
# The rule "one unresolved alert per monitor and kind", held by the database whatever the code does.
Index(
    "alerts_unresolved",
    alerts.c.monitor_id,
    alerts.c.kind,
    unique=True,
    sqlite_where=alerts.c.status != "resolved",
    postgresql_where=alerts.c.status != "resolved",
)


class MonitorRow(msgspec.Struct, frozen=True, kw_only=True):
    """A monitor with what it remembers."""

    noun: Monitor
    project: str
    memory: Memory
    revision: int
    marks: int
    predictions: str


def insert_monitor(tx: Transaction, values: dict[str, Any]) -> None:
    """A new monitor of the transaction's project."""
    tx.execute(monitors.insert().values(project=tx.project, **values))


def monitor_named(tx: Transaction, name: str) -> MonitorRow | None:
    """The monitor of that name, if there is one."""
    row = tx.one(select(monitors).where(monitors.c.project == tx.project, monitors.c.name == name))
    return None if row is None else _monitor_row(row)


def list_monitors(tx: Transaction, after: str, limit: int) -> list[Monitor]:
    """Monitors by name."""
    statement = select(monitors).where(monitors.c.project == tx.project, monitors.c.name > after)
    return [_monitor_row(row).noun for row in tx.all(statement.order_by(monitors.c.name).limit(limit))]


def update_monitor(tx: Transaction, row: MonitorRow, values: dict[str, Any]) -> None:
    """Change a monitor, unless it has changed since it was read. Raises Conflict (`stale`).

    Having become due in the meantime is no change: then it stays due, whatever `values` says.
    """
    if "due_at" in values:
        due_at = sa.literal(values["due_at"], Instant)
        values = {**values, "due_at": sa.case((monitors.c.marks == row.marks, due_at), else_=monitors.c.due_at)}
    tx.update_guarded(
        monitors.update()
        .where(monitors.c.project == tx.project, monitors.c.id == row.noun.id, monitors.c.revision == row.revision)
        .values(revision=row.revision + 1, **values),
        what=f"monitor '{row.noun.name}'",
    )


def delete_monitor(tx: Transaction, monitor_id: str) -> None:
    """Remove a monitor and its windows. Its alerts stay: they are history."""
    tx.execute(windows.delete().where(windows.c.project == tx.project, windows.c.monitor_id == monitor_id))
    tx.execute(monitors.delete().where(monitors.c.project == tx.project, monitors.c.id == monitor_id))


def due_monitors(tx: Transaction, now: datetime, limit: int) -> list[tuple[str, str]]:
    """Project and name of monitors that need a look, of all projects, the longest due first."""
    statement = select(monitors.c.project, monitors.c.name).where(monitors.c.due_at <= now)
    return [(row.project, row.name) for row in tx.all(statement.order_by(monitors.c.due_at).limit(limit))]


def mark_due(tx: Transaction, dataset: str, due_at: datetime) -> int:
    """Let the monitors that read a dataset be due by then, if they are not before. Returns how many there are."""
    reads = sa.or_(monitors.c.predictions == dataset, monitors.c.labels == dataset)
    by_then = sa.literal(due_at, Instant)
    earlier = sa.case((monitors.c.due_at < by_then, monitors.c.due_at), else_=by_then)
    changed = tx.execute(
        monitors.update()
        .where(monitors.c.project == tx.project, reads)
        .values(due_at=earlier, marks=monitors.c.marks + 1)
    )
    return int(changed.rowcount)


def results_of(tx: Transaction, monitor_id: str, *, limit: int, before: datetime | None = None) -> list[MonitorWindow]:
    """The results of windows, newest first."""
    statement = select(windows.c.result).where(windows.c.project == tx.project, windows.c.monitor_id == monitor_id)
    if before is not None:
        statement = statement.where(windows.c.start < before)
    rows = tx.all(statement.order_by(windows.c.start.desc(), windows.c.model_version).limit(limit))
    return [msgspec.convert(row.result, MonitorWindow) for row in rows]


def window_marks(tx: Transaction, monitor_id: str) -> list[WindowMark]:
    """A few words on every window."""
    statement = select(windows.c.start, windows.c.model_version, windows.c.complete, windows.c.labels_digest).where(
        windows.c.project == tx.project, windows.c.monitor_id == monitor_id
    )
    return [
        WindowMark(key=WindowKey(row.start, row.model_version), complete=row.complete, labels_digest=row.labels_digest)
        for row in tx.all(statement)
    ]


def window_states(tx: Transaction, monitor_id: str, keys: Sequence[WindowKey]) -> dict[WindowKey, WindowState]:
    """The states of those of the windows that are there."""
    starts = sorted({key.start for key in keys})
    found: dict[WindowKey, WindowState] = {}
    for some in portions(starts, STARTS_AT_ONCE):
        statement = select(windows.c.start, windows.c.model_version, windows.c.state).where(
            windows.c.project == tx.project,
            windows.c.monitor_id == monitor_id,
            windows.c.start.in_(some),
        )
        for row in tx.all(statement):
            found[WindowKey(row.start, row.model_version)] = msgspec.convert(row.state, WindowState)
    return {key: found[key] for key in keys if key in found}


def put_windows(tx: Transaction, monitor_id: str, changed: Sequence[StoredWindow]) -> None:
    """Write windows, in place of those of the same key."""
    for window in changed:
        key = window.key
        tx.execute(
            windows.delete().where(
                windows.c.monitor_id == monitor_id,
                windows.c.start == key.start,
                windows.c.model_version == key.model_version,
            )
        )
    if changed:
        tx.execute(
            windows.insert(),
            [
                {
                    "monitor_id": monitor_id,
                    "project": tx.project,
                    "start": window.key.start,
                    "model_version": window.key.model_version,
                    "complete": window.result.complete,
                    "labels_digest": window.state.labels_digest,
                    "state": window.state,
                    "result": window.result,
                }
                for window in changed
            ],
        )


def delete_windows(tx: Transaction, monitor_id: str) -> None:
    """Forget all windows of a monitor."""
    tx.execute(windows.delete().where(windows.c.project == tx.project, windows.c.monitor_id == monitor_id))


def insert_alert(tx: Transaction, values: dict[str, Any]) -> None:
    """A new alert of the transaction's project."""
    tx.execute(alerts.insert().values(project=tx.project, **values))


def alert_of(tx: Transaction, alert_id: str) -> Alert | None:
    """An alert by its id."""
    row = tx.one(select(alerts).where(alerts.c.project == tx.project, alerts.c.id == alert_id))
    return None if row is None else _alert(row)


def alerts_of(tx: Transaction, monitor_id: str, limit: int) -> list[Alert]:
    """The alerts of a monitor, newest first."""
    statement = select(alerts).where(alerts.c.project == tx.project, alerts.c.monitor_id == monitor_id)
    return [_alert(row) for row in tx.all(statement.order_by(alerts.c.id.desc()).limit(limit))]


def list_alerts(
    tx: Transaction, *, monitor: str | None, status: str | None, before: str | None, limit: int
) -> list[Alert]:
    """Alerts, newest first."""
    statement = select(alerts).where(alerts.c.project == tx.project)
    if monitor is not None:
        statement = statement.where(alerts.c.monitor == monitor)
    if status is not None:
        statement = statement.where(alerts.c.status == status)
    if before is not None:
        statement = statement.where(alerts.c.id < before)
    return [_alert(row) for row in tx.all(statement.order_by(alerts.c.id.desc()).limit(limit))]


def update_alert(tx: Transaction, alert: Alert, values: dict[str, Any]) -> None:
    """Change an alert, unless its status has changed since it was read. Raises Conflict (`stale`)."""
    tx.update_guarded(
        alerts.update()
        .where(alerts.c.project == tx.project, alerts.c.id == alert.id, alerts.c.status == alert.status)
        .values(**values),
        what=f"alert '{alert.id}'",
    )


def _monitor_row(row: Any) -> MonitorRow:
    spec = msgspec.convert(row.spec, MonitorSpec)
    memory = msgspec.convert(row.memory, Memory)
    noun = Monitor(
        id=row.id,
        name=row.name,
        spec=spec,
        created_at=row.created_at,
        created_by=row.created_by,
        updated_at=row.updated_at,
        reference_rows=None if memory.reference is None else memory.reference.rows,
        reference_source=None if memory.reference is None else memory.reference.source,
        predictions_version=row.predictions_version,
        labels_version=row.labels_version,
        evaluated_at=row.evaluated_at,
        due_at=row.due_at,
        problem=row.problem,
    )
    return MonitorRow(
        noun=noun,
        project=row.project,
        memory=memory,
        revision=row.revision,
        marks=row.marks,
        predictions=row.predictions,
    )


def _alert(row: Any) -> Alert:
    return Alert(
        id=row.id,
        monitor=row.monitor,
        endpoint=row.endpoint,
        kind=row.kind,
        status=row.status,
        model=row.model,
        model_version=row.model_version,
        window_start=row.window_start,
        window_end=row.window_end,
        reason=row.reason,
        values=row.numbers,
        windows=row.windows,
        raised_at=row.raised_at,
        acknowledged_at=row.acknowledged_at,
        acknowledged_by=row.acknowledged_by,
        resolved_at=row.resolved_at,
        resolved_by=row.resolved_by,
        resolution=row.resolution,
    )
