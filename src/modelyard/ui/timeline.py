"""What a Gantt timeline is drawn from: bars as shares of the whole span, and ticks at round times."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from msgspec import Struct

_ROUND_S = (
    1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800,
)  # fmt: skip
_TICKS_MAX = 6
_BAR_MIN = 0.004


class Span(Struct, frozen=True, kw_only=True):
    """One bar to draw. No `ended_at`: still going; no `started_at`: not begun, drawn without a bar."""

    label: str
    started_at: datetime | None
    ended_at: datetime | None
    state: str = ""
    href: str = ""
    note: str = ""


class Bar(Struct, frozen=True):
    """A span with its bar's begin and length, both in per cent of the timeline; width 0 is no bar."""

    span: Span
    left: float
    width: float
    duration_s: float | None


class Tick(Struct, frozen=True):
    """A mark of the time axis: its place in per cent and its text."""

    left: float
    label: str


class Timeline(Struct, frozen=True):
    """Bars over one time axis."""

    bars: tuple[Bar, ...] = ()
    ticks: tuple[Tick, ...] = ()
    duration_s: float = 0.0


def timeline(spans: Sequence[Span], now: datetime, *, clock: bool = False) -> Timeline:
    """Bars in the order given, from the first start to the last end (or now, if one still goes).

    Ticks say how much time has gone since the first start, or with `clock` the time of day or the date, in UTC.
    """
    starts = [span.started_at for span in spans if span.started_at]
    if not starts:
        return Timeline(tuple(Bar(span, 0.0, 0.0, None) for span in spans))
    first = min(starts)
    last = max(span.ended_at or now for span in spans if span.started_at)
    whole = max((last - first).total_seconds(), 0.001)
    bars = []
    for span in spans:
        if span.started_at is None:
            bars.append(Bar(span, 0.0, 0.0, None))
            continue
        took = max(((span.ended_at or now) - span.started_at).total_seconds(), 0.0)
        width = max(took / whole, _BAR_MIN)
        left = min((span.started_at - first).total_seconds() / whole, 1 - width)
        bars.append(Bar(span, round(left * 100, 2), round(width * 100, 2), took))
    ticks = _clock_ticks(first, whole) if clock else _ticks(whole)
    return Timeline(tuple(bars), ticks, whole)


def _ticks(whole_s: float) -> tuple[Tick, ...]:
    step = next((s for s in _ROUND_S if whole_s / s <= _TICKS_MAX), whole_s / _TICKS_MAX)
    ticks = []
    at = 0.0
    while at <= whole_s:
        ticks.append(Tick(round(at / whole_s * 100, 2), _elapsed(at)))
        at += step
    return tuple(ticks)


def _clock_ticks(first: datetime, whole_s: float) -> tuple[Tick, ...]:
    step = next((s for s in _ROUND_S if whole_s / s <= _TICKS_MAX), whole_s / _TICKS_MAX)
    begin = first.timestamp()
    ticks = []
    at = math.ceil(begin / step) * step
    while at <= begin + whole_s:
        instant = datetime.fromtimestamp(at, UTC)
        label = f"{instant:%-d %b}" if step >= 86400 or at % 86400 == 0 else f"{instant:%H:%M}"
        ticks.append(Tick(round((at - begin) / whole_s * 100, 2), f"{instant:%H:%M:%S}" if step < 60 else label))
        at += step
    return tuple(ticks)


def _elapsed(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:g} s"
    span = timedelta(seconds=round(seconds))
    if span.days:
        return f"{span.days} d {span.seconds // 3600} h" if span.seconds >= 3600 else f"{span.days} d"
    hours, minutes, rest = span.seconds // 3600, span.seconds // 60 % 60, span.seconds % 60
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
