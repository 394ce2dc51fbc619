"""The small drawing of a column: bars lie in their box, and their areas are the shares of the rows."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from modelyard.types.data import ColumnProfile
from modelyard.ui.distribution import HEIGHT, WIDTH, spread

VALUES = st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), min_size=7, max_size=7).map(sorted)
SHARES = ("0.05", "0.25", "0.5", "0.75", "0.95")


def _numeric(values: list[float]) -> ColumnProfile:
    low, *inner, high = values
    return ColumnProfile(
        name="x", type="double", count=100, nulls=0, min=low, max=high, quantiles=dict(zip(SHARES, inner, strict=True))
    )


@given(VALUES)
def test_bars_lie_in_their_box(values: list[float]) -> None:
    found = spread(_numeric(values))
    assert found
    for bar in found:
        assert all(math.isfinite(one) for one in (bar.x, bar.y, bar.width, bar.height))
        assert bar.x >= 0
        assert bar.x + bar.width <= WIDTH + 1.1
        assert bar.y + bar.height <= HEIGHT + 0.1


def test_an_even_spread_has_even_bars() -> None:
    assert {bar.height for bar in spread(_numeric([0, 5, 25, 50, 75, 95, 100]))} == {HEIGHT}


def test_far_values_leave_room_for_the_others() -> None:
    found = spread(_numeric([0, 5, 25, 50, 75, 95, 1e6]))
    assert sum(bar.width for bar in found if bar.height > HEIGHT / 2) > WIDTH / 2


def test_one_value_and_no_value() -> None:
    assert [bar.title for bar in spread(_numeric([3.0] * 7))] == ["all 3"]
    assert spread(ColumnProfile(name="x", type="string", count=0, nulls=0)) == ()


def test_most_frequent_values_stand_beside_each_other() -> None:
    column = ColumnProfile(name="c", type="string", count=10, nulls=0, top=["de", "fr"], top_counts=[6, 3])
    first, second = spread(column)
    assert first.height == 2 * second.height
    assert first.title == "de: 60.0%"
