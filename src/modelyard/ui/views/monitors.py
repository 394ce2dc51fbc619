"""Monitors and alerts: drift and quality window by window, and what somebody has to answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from msgspec import Struct

from modelyard.kernel.events import Event
from modelyard.types.monitoring import Alert, Monitor, MonitorWindow
from modelyard.ui.frame import Screen
from modelyard.ui.series import Chart, Series, series

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
    """An alert, and the events that it set off."""

    alert: Alert
    answers: tuple[Event, ...] = ()


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
