"""Endpoints: what is served, to whom, since when, and how well."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct

from modelyard.types.monitoring import Alert, MonitorWindow
from modelyard.types.serving import Endpoint, Switch, Variant
from modelyard.ui.frame import Screen
from modelyard.ui.series import Chart
from modelyard.ui.timeline import Span, Timeline, timeline


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
