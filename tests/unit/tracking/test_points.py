"""Segments hold what was logged, bit for bit; the latest value; histories in order; charts that keep their spikes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.kernel.errors import EngineError
from modelyard.planes.tracking import points, series
from modelyard.planes.tracking.points import Value

INT64 = st.integers(min_value=-(2**63), max_value=2**63 - 1)
POINTS = st.lists(
    st.tuples(st.sampled_from(["a", "b/c", "ü"]), st.floats(), INT64, st.integers(0, 2**63 - 1)),
    min_size=1,
    max_size=60,
)


def _history(logged: list[tuple[str, float, int, int]], key: str) -> series.History:
    return series.assemble([points.pack(points.group(logged))], key)


@given(POINTS)
def test_a_segment_gives_back_what_was_put_in(logged: list[tuple[str, float, int, int]]) -> None:
    groups = points.group(logged)
    body = points.pack(groups)
    assert points.directory(body) == [(key, len(values)) for key, values in groups.items()]
    for key, values in groups.items():
        columns = points.unpack(body, key)
        assert columns is not None
        assert list(columns.steps) == [value.step for value in values]
        assert list(columns.times) == [value.timestamp_ms for value in values]
        assert np.array_equal(np.array(columns.values), np.array([value.value for value in values]), equal_nan=True)
    assert points.unpack(body, "absent") is None


@given(POINTS)
def test_exact_duplicates_are_one_point(logged: list[tuple[str, float, int, int]]) -> None:
    once = {key: len(values) for key, values in points.group(logged).items()}
    twice = {key: len(values) for key, values in points.group(logged + logged).items()}
    assert once == twice


@given(POINTS)
def test_two_segments_of_the_same_points_are_one_history(logged: list[tuple[str, float, int, int]]) -> None:
    body = points.pack(points.group(logged))
    assert len(series.assemble([body, body], "a")) == len(series.assemble([body], "a"))


def test_the_latest_is_by_step_then_time_then_value() -> None:
    assert points.latest([Value(2, 1, 5.0), Value(1, 9, 9.0), Value(2, 1, 7.0)]) == Value(2, 1, 7.0)
    # Not-a-number ranks as zero.
    assert points.latest([Value(0, 0, -1.0), Value(0, 0, math.nan)]).value != points.latest([Value(0, 0, -1.0)]).value


def test_an_infinity_is_kept_as_the_largest_double() -> None:
    found = _history([("a", math.inf, 0, 1), ("a", -math.inf, 0, 2)], "a")
    assert found.values.tolist() == [1.7976931348623157e308, -1.7976931348623157e308]


def test_a_history_is_by_time_then_step_then_value() -> None:
    found = _history([("a", 3.0, 1, 20), ("a", 2.0, 9, 10), ("a", 1.0, 1, 20), ("a", 0.0, 0, 20)], "a")
    assert list(zip(found.times.tolist(), found.steps.tolist(), found.values.tolist(), strict=True)) == [
        (10, 9, 2.0), (20, 0, 0.0), (20, 1, 1.0), (20, 1, 3.0),
    ]  # fmt: skip


@given(POINTS)
def test_the_packed_form_gives_back_the_same_history(logged: list[tuple[str, float, int, int]]) -> None:
    history = _history(logged, "a")
    if not len(history):
        return
    again = series.assemble([body for _, body in series.pack_long(history)], "a")
    assert np.array_equal(again.steps, history.steps)
    assert np.array_equal(again.times, history.times)
    assert np.array_equal(again.values, history.values, equal_nan=True)


@given(st.lists(st.floats(allow_nan=True, allow_infinity=False), min_size=50, max_size=400), st.integers(4, 40))
def test_a_thinned_history_keeps_its_extremes_and_ends(values: list[float], points_max: int) -> None:
    history = _history([("a", value, at, at) for at, value in enumerate(values)], "a")
    thinned = series.thin(history, points_max)
    assert len(thinned) <= max(points_max, 4)
    assert thinned.steps[0] == 0
    assert thinned.steps[-1] == len(values) - 1
    finite = [value for value in values if not math.isnan(value)]
    if finite:
        assert np.nanmax(thinned.values) == max(finite)
        assert np.nanmin(thinned.values) == min(finite)


def test_sampled_steps_keep_the_first_and_last_of_each_run() -> None:
    long = _history([("a", 0.0, step, step) for step in range(1_000)], "a")
    short = _history([("a", 0.0, step, step) for step in (3, 401)], "a")
    steps = series.sampled_steps([long, short], 10, None, None).tolist()
    assert {0, 3, 401, 999} <= set(steps)
    assert len(steps) <= 10 + 1 + 4
    assert series.sampled_steps([long], 5, 100, 110).tolist() == [100, 102, 104, 106, 108, 110]


@given(st.binary(max_size=80))
def test_bytes_that_are_no_segment_are_found_out(body: bytes) -> None:
    try:
        found = points.directory(body)
    except EngineError:
        return
    assert len(body) >= 24 * sum(count for _, count in found)


def test_a_flipped_bit_in_a_packed_segment_is_found_out() -> None:
    _, body = series.pack_long(_history([("a", 0.5, step, step) for step in range(500)], "a"))[0]
    damaged = body[:-3] + bytes([body[-3] ^ 0xFF]) + body[-2:]
    with pytest.raises(EngineError):
        series.assemble([damaged], "a")
