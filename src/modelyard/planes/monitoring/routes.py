"""The HTTP face of monitoring."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from litestar.params import Parameter

from modelyard.kernel.auth import Action, Scope
from modelyard.kernel.limits import PAGE_ITEMS_DEFAULT, PAGE_ITEMS_MAX
from modelyard.kernel.routing import delete, get, post, put
from modelyard.planes.monitoring.service import Monitoring
from modelyard.types.monitoring import Alert, Evaluate, Evaluation, Monitor, MonitorSpec, MonitorWindow, Note
from modelyard.types.page import Page

Limit = Annotated[int, Parameter(ge=1, le=PAGE_ITEMS_MAX)]


@get("/api/monitors", requires=Action.READ)
def list_monitors(
    caller: Scope, monitoring: Monitoring, after: str | None = None, limit: Limit = PAGE_ITEMS_DEFAULT
) -> Page[Monitor]:
    """Monitors by name."""
    return monitoring.list(caller, after=after, limit=limit)


@post("/api/monitors", requires=Action.WRITE, status_code=201)
def create_monitor(caller: Scope, monitoring: Monitoring, data: MonitorSpec) -> Monitor:
    """A new monitor."""
    return monitoring.create(caller, data)


@get("/api/monitors/{name:str}", requires=Action.READ)
def get_monitor(caller: Scope, monitoring: Monitoring, name: str) -> Monitor:
    """One monitor."""
    return monitoring.get(caller, name)


@put("/api/monitors/{name:str}", requires=Action.WRITE)
def update_monitor(caller: Scope, monitoring: Monitoring, name: str, data: MonitorSpec) -> Monitor:
    """Change what it watches; its windows are computed anew."""
    return monitoring.update(caller, name, data)


@delete("/api/monitors/{name:str}", requires=Action.WRITE, status_code=204)
def delete_monitor(caller: Scope, monitoring: Monitoring, name: str) -> None:
    """Remove it and its windows; its alerts stay as history."""
    monitoring.delete(caller, name)


@get("/api/monitors/{name:str}/windows", requires=Action.READ)
def list_windows(
    caller: Scope,
    monitoring: Monitoring,
    name: str,
    before: datetime | None = None,
    limit: Limit = PAGE_ITEMS_DEFAULT,
) -> Page[MonitorWindow]:
    """Results per window and model version, newest first; `before` continues a listing."""
    return monitoring.windows(caller, name, before=before, limit=limit)


@post("/api/monitors/{name:str}/evaluate", requires=Action.WRITE)
def evaluate_monitor(caller: Scope, monitoring: Monitoring, name: str, data: Evaluate) -> Evaluation:
    """Look at what is new now, instead of when the platform gets to it."""
    return monitoring.evaluate(caller, name, complete_through=data.complete_through)


@get("/api/alerts", requires=Action.READ)
def list_alerts(
    caller: Scope,
    monitoring: Monitoring,
    monitor: str | None = None,
    status: str | None = None,
    before: str | None = None,
    limit: Limit = PAGE_ITEMS_DEFAULT,
) -> Page[Alert]:
    """Alerts, newest first."""
    return monitoring.alerts(caller, monitor=monitor, status=status, before=before, limit=limit)


@get("/api/alerts/{alert_id:str}", requires=Action.READ)
def get_alert(caller: Scope, monitoring: Monitoring, alert_id: str) -> Alert:
    """One alert."""
    return monitoring.alert(caller, alert_id)


@post("/api/alerts/{alert_id:str}/acknowledge", requires=Action.WRITE)
def acknowledge_alert(caller: Scope, monitoring: Monitoring, alert_id: str, data: Note) -> Alert:
    """Say that somebody looks after it."""
    return monitoring.acknowledge(caller, alert_id, data.note)


@post("/api/alerts/{alert_id:str}/resolve", requires=Action.WRITE)
def resolve_alert(caller: Scope, monitoring: Monitoring, alert_id: str, data: Note) -> Alert:
    """Close it."""
    return monitoring.resolve(caller, alert_id, data.note)


ROUTES: list[Any] = [
    list_monitors,
    create_monitor,
    get_monitor,
    update_monitor,
    delete_monitor,
    list_windows,
    evaluate_monitor,
    list_alerts,
    get_alert,
    acknowledge_alert,
    resolve_alert,
]
