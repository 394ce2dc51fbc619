"""Segments hold what was logged, bit for bit; the latest value; histories in order; charts that keep their spikes."""

from __future__ import annotations

import math
import struct

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.kernel.errors import EngineError, InvalidInput
from modelyard.planes.tracking import packing, points, series
from modelyard.planes.tracking.history import History
from modelyard.planes.tracking.points import Batch, PointColumns

INT64 = st.integers(min_value=-(2**63), max_value=2**63 - 1)
POINTS = st.lists(
    st.tuples(st.sampled_from(["a", "b/c", "ü"]), st.floats(), INT64, st.integers(0, 2**63 - 1)),
    min_size=1,
    max_size=60,
)


def _merged(bodies: list[bytes], key: str) -> History:
    return series.merge(packing.unpack(body, key) for body in bodies)


def _history(logged: list[tuple[str, float, int, int]], key: str) -> History:
    return _merged([Batch.of(PointColumns.of(logged)).body], key)


def _kept(value: float) -> float:
    return math.copysign(1.7976931348623157e308, value) if math.isinf(value) else value


@settings(deadline=None)
@given(POINTS)
def test_a_segment_gives_back_what_was_put_in(logged: list[tuple[str, float, int, int]]) -> None:
    batch = Batch.of(PointColumns.of(logged))
    keys = sorted({key for key, _, _, _ in logged})
    assert batch.points == len(logged)
    assert points.directory(batch.body) == [(key, sum(one[0] == key for one in logged)) for key in keys]
    for key in keys:
        columns = points.unpack(batch.body, key)
        assert columns is not None
        mine = [one for one in logged if one[0] == key]
        assert list(columns.steps) == [step for _, _, step, _ in mine]
        assert list(columns.times) == [time for _, _, _, time in mine]
        assert np.array_equal(columns.values, [_kept(value) for _, value, _, _ in mine], equal_nan=True)
    assert points.unpack(batch.body, "absent") is None


@settings(deadline=None)
@given(POINTS)
def test_exact_duplicates_are_one_point(logged: list[tuple[str, float, int, int]]) -> None:
    once, twice = _history(logged, "a"), _history(logged + logged, "a")
    assert len(once) == len(twice)
    distinct = {(step, time, struct.pack("d", _kept(value))) for key, value, step, time in logged if key == "a"}
    nan = {(step, time) for key, value, step, time in logged if key == "a" and math.isnan(value)}
    assert len(once) == len({one for one in distinct if not math.isnan(struct.unpack("d", one[2])[0])}) + len(nan)


@settings(deadline=None)
@given(POINTS)
def test_two_segments_of_the_same_points_are_one_history(logged: list[tuple[str, float, int, int]]) -> None:
    body = Batch.of(PointColumns.of(logged)).body
    assert len(_merged([body, body], "a")) == len(_merged([body], "a"))


@settings(deadline=None)
@given(POINTS)
def test_the_latest_is_by_step_then_time_then_value(logged: list[tuple[str, float, int, int]]) -> None:
    latest = Batch.of(PointColumns.of(logged)).latest
    assert list(latest) == sorted(latest)
    for key, found in latest.items():
        ranks = [
            (step, time, 0.0 if math.isnan(value) else _kept(value)) for k, value, step, time in logged if k == key
        ]
        # Not-a-number ranks as zero.
        assert found.rank == max(ranks)


def test_what_no_column_holds_is_refused_by_its_place() -> None:
    good = ("a", 1.0, 0, 0)
    for bad in (("a", 1.0, 0, -1), ("a", 1.0, 0, 2**63), ("a", 1.0, 2**63, 0), ("a", 1.0, -(2**63) - 1, 0)):
        with pytest.raises(InvalidInput, match=r"metrics\[1\]"):
            Batch.of(PointColumns.of([good, bad]))
    with pytest.raises(InvalidInput):
        Batch.of(PointColumns.of([("../up", 1.0, 0, 0)]))


def test_an_infinity_is_kept_as_the_largest_double() -> None:
    found = _history([("a", math.inf, 0, 1), ("a", -math.inf, 0, 2)], "a")
    assert found.values.tolist() == [1.7976931348623157e308, -1.7976931348623157e308]


def test_a_history_is_by_time_then_step_then_value() -> None:
    found = _history([("a", 3.0, 1, 20), ("a", 2.0, 9, 10), ("a", 1.0, 1, 20), ("a", 0.0, 0, 20)], "a")
    assert list(zip(found.times.tolist(), found.steps.tolist(), found.values.tolist(), strict=True)) == [
        (10, 9, 2.0), (20, 0, 0.0), (20, 1, 1.0), (20, 1, 3.0),
    ]  # fmt: skip


@settings(deadline=None)
@given(POINTS)
def test_the_packed_form_gives_back_the_same_history(logged: list[tuple[str, float, int, int]]) -> None:
    history = _history(logged, "a")
    if not len(history):
        return
    again = packing.unpack(packing.pack(history), "a")
    assert again is not None
    assert np.array_equal(again.steps, history.steps)
    assert np.array_equal(again.times, history.times)
    assert np.array_equal(again.values, history.values, equal_nan=True)


@settings(deadline=None)
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


@settings(deadline=None)
@given(POINTS, st.data())
def test_a_flipped_bit_in_a_segment_is_found_out(
    logged: list[tuple[str, float, int, int]], data: st.DataObject
) -> None:
    body = bytearray(Batch.of(PointColumns.of(logged)).body)
    at = data.draw(st.integers(4, len(body) - 1))
    body[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(EngineError):
        points.directory(bytes(body))


def test_the_form_of_earlier_catalogs_is_still_read() -> None:
    head = msgspec.msgpack.encode([("a", 2)])
    body = struct.pack("<I", len(head)) + head + struct.pack("<2d2q2q", 0.5, 1.5, 1, 2, 10, 20)
    assert _read(_merged([body], "a")) == [(10, 1, 0.5), (20, 2, 1.5)]


def _read(found: History) -> list[tuple[int, int, float]]:
    return list(zip(found.times.tolist(), found.steps.tolist(), found.values.tolist(), strict=True))


@settings(deadline=None)
@given(st.binary(max_size=80))
def test_bytes_that_are_no_segment_are_found_out(body: bytes) -> None:
    try:
        found = points.directory(body)
    except EngineError:
        return
    assert len(body) >= 24 * sum(count for _, count in found)


def test_a_flipped_bit_in_a_packed_segment_is_found_out() -> None:
    body = packing.pack(_history([("a", 0.5, step, step) for step in range(500)], "a"))
    damaged = body[:-3] + bytes([body[-3] ^ 0xFF]) + body[-2:]
    with pytest.raises(EngineError):
        _merged([damaged], "a")
