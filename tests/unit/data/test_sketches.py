"""Sketches: what is merged must be what one look at all rows would have found, within the stated error."""

from __future__ import annotations

import itertools
import math
import random
import statistics

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.planes.data import profiling
from modelyard.planes.data.profile import merge_profiles
from modelyard.planes.data.sketches import (
    Sketch,
    Unreadable,
    compressed,
    distinct_count,
    merged,
    packed,
    quantiles,
    unpacked,
)
from modelyard.types.data import ColumnProfile, Profile


def profile_of(table: pa.Table) -> Profile:
    return profiling.profile_of(table.schema, table.to_batches())


def merged_over(table: pa.Table, *cuts: int) -> Profile:
    bounds = [0, *sorted(cuts), table.num_rows]
    parts = [table.slice(low, high - low) for low, high in itertools.pairwise(bounds) if high > low]
    found = profile_of(parts[0])
    for part in parts[1:]:
        joined = merge_profiles(found, profile_of(part))
        assert joined is not None
        found = joined
    return found


def rank_of(values: list[float], value: float) -> tuple[float, float]:
    below = sum(one < value for one in values) / len(values)
    at_most = sum(one <= value for one in values) / len(values)
    return below, at_most


def assert_like(found: ColumnProfile, values: list[float]) -> None:
    assert found.count == len(values)
    assert (found.min, found.max) == (min(values), max(values))
    assert found.mean == pytest.approx(statistics.fmean(values), rel=1e-9, abs=1e-9)
    assert found.std == pytest.approx(statistics.pstdev(values), rel=1e-6, abs=1e-6)
    for share, value in found.quantiles.items():
        below, at_most = rank_of(values, value)
        assert below - 0.03 <= float(share) <= at_most + 0.03, (share, value)


@pytest.mark.parametrize("parts", [1, 2, 7, 60])
@pytest.mark.parametrize("shape", ["uniform", "normal", "heavy", "few", "sorted"])
def test_merging_many_batches_is_like_one_look(parts: int, shape: str) -> None:
    draw = random.Random(7)
    values = {
        "uniform": [draw.random() for _ in range(6_000)],
        "normal": [draw.gauss(100, 3) for _ in range(6_000)],
        "heavy": [draw.paretovariate(1.1) for _ in range(6_000)],
        "few": [float(draw.choice([1, 2, 2, 2, 9])) for _ in range(6_000)],
        "sorted": [float(n) for n in range(6_000)],
    }[shape]
    cuts = [len(values) * n // parts for n in range(1, parts)]
    [column] = merged_over(pa.table({"x": values}), *cuts).columns
    assert_like(column, values)
    assert column.distinct == pytest.approx(len(set(values)), rel=0.1)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.one_of(st.none(), st.integers(-5, 5)), min_size=1, max_size=40), st.integers(0, 40))
def test_counts_and_bounds_merge_exactly(values: list[int | None], cut: int) -> None:
    column = pa.table(
        {"x": pa.array(values, pa.int64()), "s": pa.array([None if v is None else str(v) for v in values], pa.string())}
    )
    whole, found = profile_of(column), merged_over(column, min(cut, len(values)))
    for one, other in zip(found.columns, whole.columns, strict=True):
        assert (one.count, one.nulls, one.min, one.max, one.distinct) == (
            other.count,
            other.nulls,
            other.min,
            other.max,
            other.distinct,
        )
    assert set(found.columns[1].top) == set(whole.columns[1].top) or len({v for v in values if v is not None}) > 5


@given(st.lists(st.floats(-1e300, 1e300), max_size=300))
def test_a_digest_keeps_all_weight_and_its_order(values: list[float]) -> None:
    means, weights = compressed([(value, 1.0) for value in values])
    assert sum(weights) == pytest.approx(len(values))
    assert means == sorted(means)
    if values:
        sketch = Sketch(means=means, weights=weights)
        asked = quantiles(sketch, [share / 20 for share in range(21)], min(values), max(values))
        assert all(one is not None and min(values) <= one <= max(values) for one in asked)
        assert asked == sorted(asked, key=lambda one: one or 0.0)


def test_a_digest_stays_small_however_often_it_is_merged() -> None:
    draw = random.Random(3)
    sketch = Sketch()
    for _ in range(300):
        means, weights = compressed([(draw.gauss(0, 1), 1.0) for _ in range(50)])
        sketch = merged(sketch, Sketch(means=means, weights=weights, finite=50))
    assert len(sketch.means) < 800
    [middle] = quantiles(sketch, [0.5], -9, 9)
    assert middle is not None
    assert abs(middle) < 0.05


def test_registers_of_other_hash_functions_are_not_mixed() -> None:
    one = profile_of(pa.table({"x": range(500)})).columns[0]
    other = unpacked(profile_of(pa.table({"x": range(500)})).columns[0].sketch)
    foreign = Sketch(registers=other.registers[::-1], hashed_by="another")
    joined = merged(unpacked(one.sketch), foreign)
    assert distinct_count(joined.registers) == distinct_count(unpacked(one.sketch).registers)


def test_sketches_travel_unchanged_and_a_profile_without_them_is_not_merged() -> None:
    found = profile_of(pa.table({"x": [1.5, math.nan, None]}))
    sketch = unpacked(found.columns[0].sketch)
    assert unpacked(packed(sketch)) == sketch
    bare = Profile(rows=1, columns=[ColumnProfile(name="x", type="double", count=1, nulls=0)])
    assert merge_profiles(bare, found) is None
    foreign = msgspec.structs.replace(found.columns[0], sketch=packed(msgspec.structs.replace(sketch, hashed_by="x")))
    assert merge_profiles(Profile(rows=3, columns=[foreign]), found) is None


@pytest.mark.parametrize("text", ["", "no base64!", "aGVsbG8=", packed(Sketch())[:-8]])
def test_what_is_no_sketch_says_so(text: str) -> None:
    with pytest.raises(Unreadable):
        unpacked(text)


def test_a_column_that_came_later_is_null_before() -> None:
    before, batch = profile_of(pa.table({"a": [1, 2]})), profile_of(pa.table({"a": [3], "b": ["x"]}))
    joined = merge_profiles(before, batch)
    assert joined is not None
    assert [(one.name, one.count, one.nulls) for one in joined.columns] == [("a", 3, 0), ("b", 1, 2)]
