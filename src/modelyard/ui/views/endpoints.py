"""Endpoints: what is served, to whom, since when, and how well."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct

from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database
from modelyard.kernel.errors import NotFound
from modelyard.planes.data import Data
from modelyard.planes.monitoring import Monitoring
from modelyard.planes.serving import Serving
from modelyard.types.data import DatasetVersion
from modelyard.types.monitoring import Alert, MonitorWindow
from modelyard.types.serving import Endpoint, PredictionRows, Switch, Variant
from modelyard.ui.format import duration, number
from modelyard.ui.frame import Crumb, Frame, Screen, rail, tabs
from modelyard.ui.page import page as ui_page
from modelyard.ui.series import Chart, series
from modelyard.ui.timeline import Span, Timeline, timeline
from modelyard.ui.urns import address_of
from modelyard.ui.views import monitors


class EndpointRow(Struct, frozen=True, kw_only=True):
    """An endpoint and how many alerts about it are not resolved."""

    endpoint: Endpoint
    alerts: int


class Endpoints(Screen, frozen=True, kw_only=True):
    rows: tuple[EndpointRow, ...]
    next: str | None = None


class Tally(Struct, frozen=True, kw_only=True):
    label: str
    value: str
    note: str = ""
    tone: str = ""


class VariantRow(Struct, frozen=True, kw_only=True):
    """A variant and its share of the traffic, of one."""

    variant: Variant
    share: float


class EndpointPage(Screen, frozen=True, kw_only=True):
    """One endpoint in its part `tab`: overview, quality or predictions."""

    endpoint: Endpoint
    tab: str
    variants: tuple[VariantRow, ...] = ()
    switches: tuple[Switch, ...] = ()
    reigns: Timeline = Timeline()
    tallies: tuple[Tally, ...] = ()
    traffic: Chart | None = None
    alerts: tuple[Alert, ...] = ()
    charts: tuple[Chart, ...] = ()
    windows: tuple[MonitorWindow, ...] = ()
    columns: tuple[str, ...] = ()
    predictions: tuple[dict[str, Any], ...] = ()
    log_dataset: str = ""
    example: str = ""


def shares(variants: Sequence[Variant]) -> tuple[VariantRow, ...]:
    """Variants with their share of the whole weight."""
    whole = sum(variant.weight for variant in variants)
    return tuple(VariantRow(variant=v, share=v.weight / whole if whole else 0.0) for v in variants)


def reigns(switches: Sequence[Switch], now: datetime) -> Timeline:
    """Which version was served when, one row per version in the order in which they first served."""
    ordered = sorted(switches, key=lambda switch: (switch.at, switch.revision))
    spans: list[Span] = []
    for place, switch in enumerate(ordered):
        end = ordered[place + 1].at if place + 1 < len(ordered) else None
        for variant in switch.variants:
            previous = next((span for span in reversed(spans) if span.label == _label(variant)), None)
            if previous is not None and previous.ended_at == switch.at:
                # The same version served on, under another revision: one bar.
                spans[spans.index(previous)] = _span(variant, previous.started_at, end)
            else:
                spans.append(_span(variant, switch.at, end))
    return timeline(spans, now, clock=True)


def _label(variant: Variant) -> str:
    return f"{variant.model} {variant.version}"


def _span(variant: Variant, start: datetime | None, end: datetime | None) -> Span:
    return Span(
        label=_label(variant),
        started_at=start,
        ended_at=end,
        state="ready" if end is None else "served before",
        href=f"/models/{variant.model}/versions/{variant.version}",
    )


PREDICTIONS_LOOKED_AT = 200
PREDICTIONS_SHOWN = 50
LOG_VERSIONS_LOOKED_AT = 500
BUCKETS_S = (5, 10, 60, 600, 3600, 86_400)
BUCKETS_MAX = 150
_FIRST_COLUMNS = ("event_time", "id")
_LATER_COLUMNS = ("version", "variant", "latency_us")
_INPUTS_SHOWN = 8


def traffic(log: Sequence[DatasetVersion]) -> Chart | None:
    """Rows taken into the prediction log over time, from the versions of that log; zero where nothing came.

    The bucket is the smallest round one that gives at most so many points.
    """
    written = sorted((int(version.created_at.timestamp()), version.rows_written) for version in log)
    if not written:
        return None
    span = written[-1][0] - written[0][0]
    bucket = next((size for size in BUCKETS_S if span / size <= BUCKETS_MAX), BUCKETS_S[-1])
    counts: dict[int, int] = {}
    for at, rows in written:
        counts[at // bucket] = counts.get(at // bucket, 0) + rows
    first, last = min(counts), max(counts)
    if first == last:
        return None
    points = [(float(place * bucket), float(counts.get(place, 0))) for place in range(first, last + 1)]
    return Chart(title=f"Rows logged every {duration(bucket)}", x="time", series=(series("rows", points),))


def latency(rows: Sequence[dict[str, Any]]) -> Tally | None:
    """The 95th percentile of the latencies of the newest predictions."""
    known = sorted(float(row["latency_us"]) for row in rows if isinstance(row.get("latency_us"), int | float))
    if not known:
        return None
    p95 = known[min(len(known) - 1, math.ceil(len(known) * 0.95) - 1)]
    return Tally(label="p95 latency", value=duration(p95 / 1e6), note=f"of the newest {len(known)}")


def columns_shown(rows: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """Of the log's columns those that a reader wants: what is common to all, the outputs, and some inputs."""
    names = list(rows[0]) if rows else []
    outputs = [name for name in names if name.startswith("output.")]
    inputs = [name for name in names if name.startswith("input.")]
    first = [name for name in _FIRST_COLUMNS if name in names]
    later = [name for name in _LATER_COLUMNS if name in names]
    return (*first, *outputs, *later, *inputs[:_INPUTS_SHOWN])


def quality(windows: Sequence[MonitorWindow], alerts: Sequence[Alert]) -> Tally | None:
    """The newest AUC that labels allow."""
    known = [window for window in windows if window.performance and window.performance.auc is not None]
    if not known or known[-1].performance is None:
        return None
    bad = any(alert.kind == "auc" for alert in alerts)
    return Tally(
        label="Latest AUC",
        value=number(round(known[-1].performance.auc or 0.0, 4)),
        note=f"from {known[-1].start:%d %b %Y}",
        tone="bad" if bad else "",
    )


@ui_page("/endpoints", template="endpoints.html")
def endpoints(caller: Scope, serving: Serving, monitoring: Monitoring, page: str = "") -> Endpoints:
    """All endpoints."""
    found = serving.list(caller, after=page or None)
    alerts = [alert for alert in monitoring.alerts(caller).items if alert.status != "resolved"]
    return Endpoints(
        frame=Frame(title="Endpoints", section="endpoints"),
        rows=tuple(
            EndpointRow(endpoint=one, alerts=sum(alert.endpoint == one.name for alert in alerts)) for one in found.items
        ),
        next=found.next,
    )


@ui_page("/endpoints/{name:str}", template="endpoint.html")
def endpoint(
    caller: Scope,
    database: Database,
    datasets: Data,
    serving: Serving,
    monitoring: Monitoring,
    name: str,
    tab: str = "",
) -> EndpointPage:
    """One endpoint: what it serves, how well, and what it predicted last."""
    found = serving.get(caller, name)
    watching = [one for one in monitoring.list(caller).items if one.spec.endpoint == name]
    windows = [monitors.in_time(monitoring.windows(caller, one.name).items) for one in watching]
    alerts = [a for a in monitoring.alerts(caller).items if a.endpoint == name and a.status != "resolved"]
    shown = [
        ("overview", "Overview", None),
        ("quality", "Drift and quality", None),
        ("predictions", "Predictions", None),
    ]
    parts = tabs(address_of(f"endpoint:{name}"), tab, shown)
    current = next(key for (key, _, _), part in zip(shown, parts, strict=True) if part.current)
    logged = _predictions(caller, serving, name)
    switches = list(serving.switches(caller, name))
    log = datasets.versions(caller, logged.dataset, limit=LOG_VERSIONS_LOOKED_AT).items if logged.rows else []
    every_window = [window for group in windows for window in group]
    tallies = [one for one in (latency(logged.rows), quality(every_window, alerts)) if one is not None]
    return EndpointPage(
        frame=Frame(
            title=name,
            section="endpoints",
            kind="endpoint",
            state=found.state,
            owner=found.created_by,
            at=found.created_at,
            crumbs=(Crumb("Endpoints", "/endpoints"),),
            tabs=parts,
            rail=rail(database, caller, f"endpoint:{name}", f"modelyard endpoint get {name}"),
            refresh_s=10 if current == "overview" else 0,
        ),
        endpoint=found,
        tab=current,
        variants=shares(found.variants),
        switches=tuple(switches),
        reigns=reigns(switches, database.clock.now()),
        tallies=tuple(tallies),
        traffic=traffic(log),
        alerts=tuple(alerts),
        charts=tuple(
            chart for one, group in zip(watching, windows, strict=True) for chart in monitors.charts(one, group)
        ),
        windows=tuple(every_window),
        columns=columns_shown(logged.rows),
        predictions=tuple(logged.rows[:PREDICTIONS_SHOWN]) if current == "predictions" else (),
        log_dataset=logged.dataset,
        example=f"curl {found.url or 'URL'}/v2/models/{name}/infer --json '{{\"inputs\": []}}'",
    )


def _predictions(caller: Scope, serving: Serving, name: str) -> PredictionRows:
    try:
        return serving.predictions(caller, name, limit=PREDICTIONS_LOOKED_AT)
    except NotFound:
        # Nothing was logged yet, which for a new endpoint is no error.
        return PredictionRows(dataset="", rows=[])


ROUTES: list[Any] = [endpoints, endpoint]
