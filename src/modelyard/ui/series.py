"""What a line chart is drawn from. Thinning keeps the least and greatest of each stretch, so peaks stay."""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct

POINTS_MAX = 1_000


class Series(Struct, frozen=True, kw_only=True):
    """One line: equally long xs and ys; a null y is a gap. `dropped` counts values that no chart can show."""

    name: str
    xs: tuple[float, ...]
    ys: tuple[float | None, ...]
    dropped: int = 0
    href: str = ""


class Band(Struct, frozen=True, kw_only=True):
    """What is usual at each x, from low to high, drawn behind the lines."""

    name: str
    xs: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


class Chart(Struct, frozen=True, kw_only=True):
    """A line chart. `x` is `step`, `time` (seconds since the epoch) or `window` (number of a tick)."""

    title: str
    series: tuple[Series, ...]
    x: str = "step"
    unit: str = ""
    ticks: tuple[str, ...] = ()
    threshold: float | None = None
    threshold_label: str = ""
    note: str = ""
    band: Band | None = None


def series(name: str, points: Sequence[tuple[float, float | None]], *, href: str = "") -> Series:
    """A drawable series from (x, y) points in any order; NaN and infinities become gaps and are counted."""
    ordered = sorted(points, key=lambda point: point[0])
    clean = [(x, y if y is not None and math.isfinite(y) else None) for x, y in ordered if math.isfinite(x)]
    dropped = sum(1 for _, y in points if y is not None and not math.isfinite(y))
    kept = thin(clean, POINTS_MAX)
    return Series(name=name, xs=tuple(x for x, _ in kept), ys=tuple(y for _, y in kept), dropped=dropped, href=href)


def thin(points: Sequence[tuple[float, float | None]], at_most: int) -> list[tuple[float, float | None]]:
    """At most so many points: first, last, and the least and greatest of equal stretches between."""
    if len(points) <= at_most:
        return list(points)
    stretches = (at_most - 2) // 2
    inner = points[1:-1]
    kept: list[tuple[float, float | None]] = [points[0]]
    for number in range(stretches):
        start, stop = number * len(inner) // stretches, (number + 1) * len(inner) // stretches
        known = [(y, position) for position in range(start, stop) if (y := inner[position][1]) is not None]
        if not known:
            kept.append(inner[start])
            continue
        kept.extend(inner[position] for position in sorted({min(known)[1], max(known)[1]}))
    kept.append(points[-1])
    return kept


def sparkline(values: Sequence[float | None], width: float = 96, height: float = 22) -> str:
    """The points of an SVG polyline in a box of that size; gaps are bridged. Empty under two values."""
    known = [(n, v) for n, v in enumerate(values) if v is not None and math.isfinite(v)]
    if len(known) < 2:
        return ""
    low, high = min(v for _, v in known), max(v for _, v in known)
    spread = high - low
    last = len(values) - 1
    return " ".join(
        f"{1 + n / last * (width - 2):.1f},"
        f"{height / 2 if spread == 0 else height - 2 - (v - low) / spread * (height - 4):.1f}"
        for n, v in known
    )
