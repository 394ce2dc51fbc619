from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.kernel.errors import InvalidInput
from modelyard.planes.monitoring import drift, sketches
from modelyard.types.monitoring import Distance


def column(values: Sequence[Any] | np.ndarray[Any, Any], kind: pa.DataType | None = None) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values, kind)])


def distance(before: pa.ChunkedArray, after: pa.ChunkedArray, threshold: float = 0.1, rows_min: int = 1) -> Distance:
    grid = sketches.make_grid(before)
    assert grid is not None
    one, other = sketches.make_sketch(grid, before), sketches.make_sketch(grid, after)
    return drift.compare("x", grid, one, other, threshold=threshold, rows_min=rows_min)


def exact_area(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    """The 1-Wasserstein distance by its definition, over all the values."""
    places = np.sort(np.concatenate([one, other]))
    below_one = np.searchsorted(np.sort(one), places[:-1], side="right") / len(one)
    below_other = np.searchsorted(np.sort(other), places[:-1], side="right") / len(other)
    return float((np.abs(below_one - below_other) * np.diff(places)).sum())


def exact_jensen_shannon(one: dict[str, float], other: dict[str, float]) -> float:
    total = 0.0
    for name in one.keys() | other.keys():
        p, q = one.get(name, 0.0), other.get(name, 0.0)
        for share in (p, q):
            if share:
                total += share * math.log(2 * share / (p + q)) / 2
    return math.sqrt(max(total, 0.0))


numbers = st.lists(st.floats(-1e6, 1e6, width=32), min_size=6, max_size=400)


@settings(deadline=None, max_examples=150)
@given(numbers, numbers)
def test_wasserstein_is_the_exact_area_where_the_reference_has_few_values(
    before: list[float], after: list[float]
) -> None:
    # Every reference value is an edge of the grid when there are at most a hundred, so F has no step inside a cell.
    before = before[:100]
    one, other = np.array(before), np.array(after)
    grid = sketches.make_grid(column(one))
    if not isinstance(grid, sketches.NumericGrid):
        return
    measured = drift.wasserstein_normed(
        grid, sketches.make_sketch(grid, column(one)), sketches.make_sketch(grid, column(other))
    )
    exact = exact_area(one, other) / max(one.std(), 0.001)
    # The window's own curve may still cross inside a cell; it is never overestimated.
    assert measured <= exact + 1e-6 * (1 + exact)


@pytest.mark.parametrize("shift", [0.0, 0.05, 0.5, 3.0])
@pytest.mark.parametrize("name", ["normal", "exponential", "hours"])
def test_wasserstein_on_sketches_is_close_to_that_of_the_rows(name: str, shift: float) -> None:
    random = np.random.default_rng(3)
    make = {
        "normal": lambda n: random.normal(10, 2, n),
        "exponential": lambda n: random.exponential(1, n),
        "hours": lambda n: random.integers(0, 24, n).astype(float),
    }[name]
    before = make(20_000)
    moved = shift * before.std()
    after = make(5_000) + (round(moved) if name == "hours" else moved)
    found = distance(column(before), column(after))
    assert found.measure == "wasserstein_normed"
    assert found.value == pytest.approx(exact_area(before, after) / before.std(), abs=0.005)
    assert found.drifted == (shift > 0.1)


def test_values_far_outside_the_reference_count_with_their_whole_distance() -> None:
    before = np.arange(1000.0)
    assert distance(column(before), column(before + 1e6)).value == pytest.approx(1e6 / before.std())
    assert distance(column(before), column(before - 1e6)).value == pytest.approx(1e6 / before.std())


@settings(deadline=None)
@given(
    st.lists(st.sampled_from("abcde"), min_size=1, max_size=60),
    st.lists(st.sampled_from("cdefgh"), min_size=1, max_size=60),
)
def test_jensen_shannon_with_unseen_categories_is_that_of_the_rows(before: list[str], after: list[str]) -> None:
    found = distance(column(before), column(after))
    exact = exact_jensen_shannon(
        {name: before.count(name) / len(before) for name in before},
        {name: after.count(name) / len(after) for name in after},
    )
    assert found.value == pytest.approx(exact, abs=1e-7)
    strange = [name for name in after if name not in before]
    assert found.unseen_rate == pytest.approx(len(strange) / len(after))
    assert set(found.unseen) == set(strange)


def test_jensen_shannon_has_the_value_of_scipys() -> None:
    # scipy.spatial.distance.jensenshannon([0.5, 0.5, 0], [0.25, 0.25, 0.5]) == 0.3961...
    found = distance(column(["a", "b"] * 50), column(["a", "b", "c", "c"] * 25))
    assert found.value == pytest.approx(math.sqrt(0.5 * (math.log(4 / 3) + 0.5 * math.log(2 / 3) + 0.5 * math.log(2))))


@settings(deadline=None, max_examples=60)
@given(numbers, st.lists(numbers, min_size=1, max_size=4))
def test_a_window_in_pieces_is_the_window_as_a_whole(before: list[float], pieces: list[list[float]]) -> None:
    grid = sketches.make_grid(column(before, pa.float64()))
    assert grid is not None
    whole = sketches.make_sketch(grid, column([value for piece in pieces for value in piece], pa.float64()))
    merged = sketches.merge([sketches.make_sketch(grid, column(piece, pa.float64())) for piece in pieces])
    assert (merged.rows, merged.nulls, merged.counts) == (whole.rows, whole.nulls, whole.counts)
    assert merged.distances == pytest.approx(whole.distances, rel=1e-9, abs=1e-9)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.one_of(st.none(), st.floats(width=32)), min_size=0, max_size=100))
def test_every_row_of_a_sketch_is_counted_once(values: list[float | None]) -> None:
    grid = sketches.make_grid(column([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))
    assert grid is not None
    sketch = sketches.make_sketch(grid, column(values, pa.float64()))
    assert sketch.rows == len(values) == sketch.nulls + sketch.mismatched + sum(sketch.counts)
    assert sketch.nulls == sum(value is None or math.isnan(value) for value in values)
    assert sketch.mismatched == sum(value is not None and math.isinf(value) for value in values)


def test_the_same_rows_are_no_drift_and_distance_0() -> None:
    random = np.random.default_rng(0)
    for rows in (column(random.normal(size=500)), column(["a", "b", None] * 100), column([True, False] * 90)):
        found = distance(rows, rows)
        assert found.value == pytest.approx(0, abs=1e-9)
        assert found.psi == pytest.approx(0, abs=1e-9)
        assert not found.drifted


def test_a_small_window_of_the_same_distribution_is_rarely_called_drift() -> None:
    random = np.random.default_rng(11)
    called = 0
    for _ in range(200):
        before, after = random.normal(size=2_000), random.normal(size=60)
        called += distance(column(before), column(after)).drifted
    # The threshold alone would call about nine of ten of them drift: two such samples are 0.16 apart on average.
    assert called < 20


@pytest.mark.parametrize("rows", [column([], pa.float64()), column([1.0]), column([None] * 300, pa.float64())])
def test_an_empty_tiny_or_all_null_window_is_not_enough_data(rows: pa.ChunkedArray) -> None:
    found = distance(column(np.arange(1000.0)), rows, rows_min=100)
    assert found.value is None
    assert not found.drifted
    assert found.note is not None
    assert "not enough data" in found.note


def test_null_rates_are_compared_by_themselves() -> None:
    found = distance(column(np.arange(1000.0)), column([*np.arange(1000.0), *[None] * 1000]))
    assert found.value == pytest.approx(0, abs=1e-9)
    assert (found.null_rate, found.null_rate_reference) == (0.5, 0.0)


def test_a_constant_reference_sees_other_values_above_and_below() -> None:
    before = column([7.0] * 500)
    assert distance(before, column([7.0] * 300)).drifted is False
    for other in (6.0, 8.0):
        found = distance(before, column([other] * 300))
        assert found.drifted
        assert found.unseen_rate == 1.0


def test_a_column_that_changes_its_type_is_named_and_not_compared() -> None:
    found = distance(column(np.arange(1000.0)), column(["12"] * 300))
    assert found.value is None
    assert found.note is not None
    assert "another type" in found.note


def test_a_reference_without_values_gives_no_grid() -> None:
    assert sketches.make_grid(column([None, float("nan"), float("inf")], pa.float64())) is None
    assert sketches.make_grid(column([None], pa.string())) is None


def test_nested_columns_are_refused_with_advice() -> None:
    grid = sketches.make_grid(column(["a"]))
    assert grid is not None
    with pytest.raises(InvalidInput, match="cannot be compared"):
        sketches.make_sketch(grid, column([[1, 2]]))


def test_dictionary_columns_are_their_values() -> None:
    plain = column(["a", "b", "a", None])
    grid = sketches.make_grid(plain)
    assert grid is not None
    assert sketches.make_sketch(grid, plain.dictionary_encode()) == sketches.make_sketch(grid, plain)


def test_psi_over_deciles_is_the_textbook_sum() -> None:
    before = np.arange(1000.0)
    after = before[before < 500]
    found = distance(column(before), column(after))
    # Five deciles double their share, five fall to the floor of 1e-4.
    expected = 5 * ((0.2 - 0.1) * math.log(2)) + 5 * ((1e-4 - 0.1) * math.log(1e-4 / 0.1))
    assert found.psi == pytest.approx(expected, rel=1e-4)


def test_more_categories_than_are_kept_fall_into_one_cell() -> None:
    before = column([f"c{number}" for number in range(sketches.CATEGORIES_MAX + 500)])
    grid = sketches.make_grid(before)
    assert isinstance(grid, sketches.CategoryGrid)
    sketch = sketches.make_sketch(grid, before)
    assert sketch.counts[-1] == 500
    assert len(sketch.unseen) == sketches.UNSEEN_NAMED_MAX
