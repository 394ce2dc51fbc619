"""Charts and timelines: thinning keeps peaks, gaps stay gaps, bars stay within their axis."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.ui.series import POINTS_MAX, series, sparkline, thin
from modelyard.ui.timeline import Span, timeline

START = datetime(2013, 4, 1, tzinfo=UTC)
values = st.floats(-1e6, 1e6)


@given(st.lists(values, min_size=1, max_size=400), st.integers(6, 60))
@settings(deadline=None)
def test_thinning_keeps_order_ends_and_extremes(ys: list[float], at_most: int) -> None:
    points = [(float(x), y) for x, y in enumerate(ys)]
    kept = thin(points, at_most)
    assert len(kept) <= max(at_most, 2)
    assert kept == sorted(kept)
    assert set(kept) <= set(points)
    assert kept[0] == points[0]
    assert kept[-1] == points[-1]
    assert max(y for _, y in kept) == max(ys)
    assert min(y for _, y in kept) == min(ys)


def test_a_peak_of_one_point_in_a_million_is_seen() -> None:
    points = [(float(x), 0.0) for x in range(200_000)]
    points[123_457] = (123_457.0, 9.0)
    line = series("loss", points)
    assert len(line.xs) <= POINTS_MAX
    assert max(y for y in line.ys if y is not None) == 9.0


def test_what_is_not_finite_is_a_gap_and_counted() -> None:
    line = series("loss", [(2, math.inf), (0, 1.0), (1, math.nan), (3, None)])
    assert line.xs == (0, 1, 2, 3)
    assert line.ys == (1.0, None, None, None)
    assert line.dropped == 2


def test_a_sparkline_needs_two_values() -> None:
    assert sparkline([1.0]) == ""
    assert sparkline([1.0, math.nan]) == ""
    assert sparkline([1.0, 2.0, None, 3.0]).count(",") == 3


spans = st.lists(
    st.tuples(st.integers(0, 10_000), st.none() | st.integers(0, 5_000)).map(
        lambda pair: Span(
            label="s",
            started_at=START + timedelta(seconds=pair[0]),
            ended_at=None if pair[1] is None else START + timedelta(seconds=pair[0] + pair[1]),
        )
    ),
    min_size=1,
    max_size=12,
)


@given(spans, st.booleans())
@settings(deadline=None)
def test_bars_and_ticks_stay_within_the_axis(given_spans: list[Span], clock: bool) -> None:
    drawn = timeline(given_spans, START + timedelta(seconds=20_000), clock=clock)
    assert [bar.span for bar in drawn.bars] == given_spans
    for bar in drawn.bars:
        assert bar.left >= 0
        assert bar.left + bar.width <= 100.1
        assert bar.width > 0
    assert all(0 <= tick.left <= 100 for tick in drawn.ticks)


def test_bars_are_in_proportion() -> None:
    first = Span(label="a", started_at=START, ended_at=START + timedelta(seconds=30))
    second = Span(label="b", started_at=START + timedelta(seconds=30), ended_at=None)
    drawn = timeline([first, second], START + timedelta(seconds=120))
    assert [(bar.left, bar.width, bar.duration_s) for bar in drawn.bars] == [(0, 25, 30), (25, 75, 90)]


def test_what_has_not_begun_has_no_bar() -> None:
    waiting = Span(label="a", started_at=None, ended_at=None, state="pending")
    drawn = timeline([waiting], START)
    assert drawn.bars[0].width == 0
    assert drawn.ticks == ()


def test_a_clock_axis_shows_times_of_day() -> None:
    whole = Span(label="a", started_at=START + timedelta(minutes=7), ended_at=START + timedelta(minutes=67))
    labels = [tick.label for tick in timeline([whole], START, clock=True).ticks]
    assert labels == ["00:10", "00:20", "00:30", "00:40", "00:50", "01:00"]
