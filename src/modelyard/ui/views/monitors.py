"""Monitors and alerts: drift and quality window by window, and what somebody has to answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from litestar import Response
from msgspec import Struct

from modelyard.kernel.auth import Action, Scope
from modelyard.kernel.database import Database
from modelyard.kernel.routing import post
from modelyard.planes.automation import Automation
from modelyard.planes.monitoring import Monitoring
from modelyard.types import automation as triggers
from modelyard.types.monitoring import Alert, Monitor, MonitorWindow
from modelyard.ui.format import words
from modelyard.ui.frame import Crumb, Frame, Screen, rail
from modelyard.ui.page import page as ui_page
from modelyard.ui.render import project_path
from modelyard.ui.series import Chart, Series, series
from modelyard.ui.urns import address_of

_COLUMNS_DRAWN = 6


class MonitorRow(Struct, frozen=True, kw_only=True):
    """A monitor, its unresolved alerts, and AUC by window."""

    monitor: Monitor
    open: int
    aucs: tuple[float, ...]


class Monitors(Screen, frozen=True, kw_only=True):
    rows: tuple[MonitorRow, ...]
    alerts: tuple[Alert, ...]
    next: str | None = None


class MonitorPage(Screen, frozen=True, kw_only=True):
    monitor: Monitor
    windows: tuple[MonitorWindow, ...]
    charts: tuple[Chart, ...]
    alerts: tuple[Alert, ...]


class AlertPage(Screen, frozen=True, kw_only=True):
    """An alert, and what triggers made of it."""

    alert: Alert
    responses: tuple[triggers.Response, ...] = ()


def charts(monitor: Monitor, windows: Sequence[MonitorWindow]) -> tuple[Chart, ...]:
    """AUC, calibration, prediction drift and the inputs that drifted most, each over the windows."""
    starts = sorted({window.start for window in windows})
    ticks = tuple(_tick(monitor.spec.window, index, starts) for index in range(len(starts)))
    place = {start: float(index) for index, start in enumerate(starts)}
    limits, baseline = monitor.spec.thresholds, monitor.spec.baseline
    floor = None
    if baseline is not None and baseline.auc is not None and limits.auc_drop is not None:
        floor = baseline.auc - limits.auc_drop

    def by_version(value: Callable[[MonitorWindow], float | None]) -> tuple[Series, ...]:
        lines = []
        for version in sorted({window.model_version for window in windows}, key=lambda v: (len(v), v)):
            points = [(place[w.start], value(w)) for w in windows if w.model_version == version]
            if any(y is not None for _, y in points):
                lines.append(series(f"version {version}", points))
        return tuple(lines)

    candidates = (
        Chart(
            title="AUC",
            x="window",
            ticks=ticks,
            threshold=floor,
            threshold_label="alert below",
            series=by_version(lambda w: w.performance.auc if w.performance else None),
        ),
        Chart(
            title="Calibration error",
            x="window",
            ticks=ticks,
            threshold=limits.calibration,
            threshold_label="alert above",
            series=by_version(lambda w: w.performance.calibration_error if w.performance else None),
        ),
        Chart(
            title="Input drift, the farthest columns",
            x="window",
            ticks=ticks,
            threshold=limits.input_drift,
            threshold_label="warn above",
            series=_farthest(windows, place),
        ),
        Chart(
            title="Prediction drift (PSI)",
            x="window",
            ticks=ticks,
            threshold=limits.prediction_psi,
            threshold_label="alert above",
            series=by_version(lambda w: w.prediction.psi if w.prediction else None),
        ),
        Chart(title="Rows predicted", x="window", ticks=ticks, series=by_version(lambda w: float(w.rows))),
    )
    return tuple(chart for chart in candidates if chart.series)


def _farthest(windows: Sequence[MonitorWindow], place: Mapping[datetime, float]) -> tuple[Series, ...]:
    reach: dict[str, float] = {}
    for window in windows:
        for distance in window.inputs:
            if distance.value is not None:
                reach[distance.column] = max(reach.get(distance.column, 0.0), distance.value)
    columns = sorted(reach, key=lambda column: (-reach[column], column))[:_COLUMNS_DRAWN]
    return tuple(
        series(
            column,
            [(place[w.start], d.value) for w in windows for d in w.inputs if d.column == column],
        )
        for column in columns
    )


def _tick(window: str, index: int, starts: Sequence[datetime]) -> str:
    start = starts[index]
    pattern = {"month": "%b %Y" if index == 0 else "%b", "day": "%d %b", "week": "%d %b"}.get(window, "%d %b %H:%M")
    return start.strftime(pattern)


def aucs(windows: Sequence[MonitorWindow]) -> tuple[float, ...]:
    """AUC of the windows that have labels, in time order."""
    ordered = sorted(windows, key=lambda window: window.start)
    return tuple(w.performance.auc for w in ordered if w.performance and w.performance.auc is not None)


def in_time(windows: Sequence[MonitorWindow]) -> tuple[MonitorWindow, ...]:
    """Windows from the oldest to the newest, those of one time by version."""
    return tuple(sorted(windows, key=lambda window: (window.start, len(window.model_version), window.model_version)))


@ui_page("/monitors", template="monitors.html")
def monitors(caller: Scope, monitoring: Monitoring, page: str = "") -> Monitors:
    """All monitors, and the alerts that they raised."""
    found = monitoring.list(caller, after=page or None)
    alerts = monitoring.alerts(caller).items
    return Monitors(
        frame=Frame(title="Monitors", section="monitors"),
        rows=tuple(
            MonitorRow(
                monitor=one,
                open=sum(alert.monitor == one.name and alert.status != "resolved" for alert in alerts),
                aucs=aucs(monitoring.windows(caller, one.name).items),
            )
            for one in found.items
        ),
        alerts=tuple(alerts),
        next=found.next,
    )


@ui_page("/monitors/{name:str}", template="monitor.html")
def monitor(caller: Scope, database: Database, monitoring: Monitoring, name: str) -> MonitorPage:
    """One monitor, window by window."""
    found = monitoring.get(caller, name)
    windows = in_time(monitoring.windows(caller, name).items)
    alerts = monitoring.alerts(caller, monitor=name).items
    unresolved = any(alert.status != "resolved" for alert in alerts)
    return MonitorPage(
        frame=Frame(
            title=name,
            section="monitors",
            kind="monitor",
            state="problem" if found.problem else "open" if unresolved else "healthy" if windows else "pending",
            owner=found.created_by,
            at=found.created_at,
            crumbs=(Crumb("Monitors", "/monitors"),),
            rail=rail(database, caller, f"monitor:{name}", f"modelyard monitor evaluate {name}"),
        ),
        monitor=found,
        windows=windows,
        charts=charts(found, windows),
        alerts=tuple(alerts),
    )


@ui_page("/alerts/{alert_id:str}", template="alert.html")
def alert(
    caller: Scope, database: Database, monitoring: Monitoring, automation: Automation, alert_id: str
) -> AlertPage:
    """One alert, and what it set off."""
    found = monitoring.alert(caller, alert_id)
    return AlertPage(
        frame=Frame(
            title=title_of(found),
            section="monitors",
            kind="alert",
            state=found.status,
            at=found.raised_at,
            crumbs=(Crumb("Monitors", "/monitors"), Crumb(found.monitor, address_of(f"monitor:{found.monitor}"))),
            rail=rail(database, caller, f"alert:{alert_id}", f"modelyard monitor acknowledge {alert_id}"),
        ),
        alert=found,
        responses=tuple(automation.responses(caller, alert=alert_id).items),
    )


def title_of(alert: Alert) -> str:
    """An alert in a few words."""
    kind = "AUC" if alert.kind == "auc" else words(alert.kind).capitalize()
    return f"{kind} of {alert.endpoint}"


@post("/alerts/{alert_id:str}/acknowledge", requires=Action.WRITE, status_code=303)
def acknowledge(caller: Scope, monitoring: Monitoring, alert_id: str) -> Response[None]:
    """Say that one looks after an alert, and show it again."""
    monitoring.acknowledge(caller, alert_id)
    there = project_path(caller.project, address_of(f"alert:{alert_id}"))
    return Response(None, status_code=303, headers={"Location": there})


ROUTES: list[Any] = [monitors, monitor, alert, acknowledge]
