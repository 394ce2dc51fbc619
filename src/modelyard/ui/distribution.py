"""How the values of a column are spread, as the bars of a small drawing: from quantiles, or from the top values."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from msgspec import Struct

from modelyard.types.data import ColumnProfile

WIDTH, HEIGHT = 132.0, 26.0
_GAP = 1.0


class Bar(Struct, frozen=True, kw_only=True):
    """A bar of the drawing, from its left upper corner, and what a pointer is told over it."""

    x: float
    y: float
    width: float
    height: float
    title: str


def spread(column: ColumnProfile) -> tuple[Bar, ...]:
    """The bars of a column: its density between quantiles, or how often its most frequent values come."""
    if column.quantiles and isinstance(column.min, int | float) and isinstance(column.max, int | float):
        return _density(column.quantiles, float(column.min), float(column.max))
    return _top(column)


def _density(quantiles: dict[str, float], low: float, high: float) -> tuple[Bar, ...]:
    known = sorted((float(share), value) for share, value in quantiles.items())
    edges = [(0.0, low), *known, (1.0, high)]
    first, last = _window(known, low, high)
    if last <= first:
        return (Bar(x=WIDTH / 2 - 2, y=0, width=4, height=HEIGHT, title=f"all {low:g}"),)
    found = []
    for (share, start), (next_share, end) in pairwise(edges):
        inside = min(end, last) - max(start, first)
        if end > start and inside > 0:
            found.append((max(start, first), inside, (next_share - share) / (end - start), next_share - share))
    tallest = max((density for _, _, density, _ in found), default=1.0)
    scale = WIDTH / (last - first)
    return tuple(
        _bar(
            (start - first) * scale,
            inside * scale,
            density / tallest,
            f"{share:.0%} from {start:g} to {start + inside:g}",
        )
        for start, inside, density, share in found
    )


def _window(known: Sequence[tuple[float, float]], low: float, high: float) -> tuple[float, float]:
    """What is drawn: a few far values would leave no room for all others."""
    inner_low, inner_high = known[0][1], known[-1][1]
    room = (inner_high - inner_low) / 4
    return max(low, inner_low - room), min(high, inner_high + room)


def _top(column: ColumnProfile) -> tuple[Bar, ...]:
    shown = list(zip(column.top, column.top_counts, strict=False))[:10]
    if not shown or not column.count:
        return ()
    width, tallest = WIDTH / max(len(shown), 4), max(count for _, count in shown)
    return tuple(
        _bar(at * width, width, count / tallest, f"{value}: {count / column.count:.1%}")
        for at, (value, count) in enumerate(shown)
    )


def _bar(x: float, width: float, share: float, title: str) -> Bar:
    height = max(share * HEIGHT, 1.0)
    return Bar(
        x=round(x, 1), y=round(HEIGHT - height, 1), width=round(max(width - _GAP, 1.0), 1), height=round(height, 1),
        title=title,
    )  # fmt: skip
