"""Comparison of profiles: equal data do not differ, planted changes are found and told in words."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.planes.data.comparison import compare_profiles
from modelyard.planes.data.profiling import profile_of
from modelyard.planes.data.sketches import quantiles, share_at_most, unpacked
from modelyard.types.data import Profile
from modelyard.types.profiles import ColumnShift

COUNT = 20_000


def profile(**columns: object) -> Profile:
    table = pa.table(columns)
    return profile_of(table.schema, table.to_batches())


def shift(before: object, after: object) -> ColumnShift:
    found = compare_profiles("d@1", profile(x=before), "d@2", profile(x=after))
    assert (found.before, found.after) == ("d@1", "d@2")
    [column] = found.columns
    return column


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["normal", "lognormal", "exponential", "integers", "texts", "flags"]))
def test_two_samples_of_one_distribution_do_not_differ(seed: int, shape: str) -> None:
    draw = np.random.default_rng(seed)
    sample = {
        "normal": lambda: draw.normal(5, 2, COUNT),
        "lognormal": lambda: draw.lognormal(0, 2, COUNT),
        "exponential": lambda: draw.exponential(3, COUNT),
        "integers": lambda: draw.integers(0, 30, COUNT),
        "texts": lambda: pa.array(["a", "b", "c"]).take(pa.array(draw.integers(0, 3, COUNT))),
        "flags": lambda: draw.random(COUNT) < 0.3,
    }[shape]
    found = shift(sample(), sample())
    assert (found.verdict, found.reasons) == ("same", [])
    assert found.psi is not None
    assert found.psi < 0.02


def test_a_moved_distribution_is_found_with_its_size() -> None:
    draw = np.random.default_rng(3)
    before, after = draw.normal(0, 1, COUNT), draw.normal(1, 1, COUNT)
    found = shift(before, after)
    edges = np.quantile(before, np.arange(1, 10) / 10)
    shares = [np.diff([0, *(np.searchsorted(np.sort(one), edges) / COUNT), 1]) for one in (before, after)]
    truth = float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())
    assert found.verdict == "moved"
    assert found.psi == pytest.approx(truth, rel=0.1)
    assert found.mean_shift == pytest.approx(1.0, abs=0.05)
    assert [one.share for one in found.quantiles] == [0.05, 0.25, 0.5, 0.75, 0.95]
    assert all(one.after - one.before == pytest.approx(1, abs=0.15) for one in found.quantiles)


def test_new_and_gone_values_are_named() -> None:
    found = shift(["a"] * 50 + ["b"] * 50, ["a"] * 50 + ["c"] * 50)
    assert (found.verdict, found.new_values, found.gone_values) == ("moved", ["c"], ["b"])
    assert "1 new values (50.0% of it), such as 'c'" in found.reasons


def test_types_nulls_and_columns_that_come_and_go_are_told() -> None:
    found = compare_profiles(
        "d@1",
        profile(a=[1, 2], b=["x", "y"], c=[1.0, 2.0]),
        "d@2",
        profile(a=[1.5, 2.5], c=[None, 1.0], e=[True, True]),
    )
    told = {column.name: (column.verdict, column.reasons) for column in found.columns}
    assert told["a"][0] == "changed"
    assert told["a"][1][0] == "its type was int64 and is double"
    assert told["b"] == ("removed", ["the column is gone"])
    assert told["c"][1][0] == "50.0% of it is null, 0.0% was"
    assert told["e"] == ("added", ["the column is new"])


def test_profiles_of_nothing_and_of_nested_columns_compare() -> None:
    empty = pa.table({"x": pa.array([], pa.float64()), "s": pa.array([], pa.string())})
    nothing = profile_of(empty.schema, [])
    assert [one.verdict for one in compare_profiles("a", nothing, "b", nothing).columns] == ["same", "same"]
    nested = profile(x=[[1], [2]])
    assert [one.verdict for one in compare_profiles("a", nested, "b", nested).columns] == ["same"]


@settings(deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=400), st.floats(-2e6, 2e6))
def test_the_share_below_a_value_grows_and_is_the_quantile_turned_round(values: list[float], value: float) -> None:
    [column] = profile(x=values).columns
    sketch = unpacked(column.sketch)
    low, high = column.min, column.max
    share = share_at_most(sketch, value, low, high)
    truth = sum(one <= value for one in values) / len(values)
    assert share == pytest.approx(truth, abs=0.011 + 1 / len(values))
    assert share <= share_at_most(sketch, value + 1, low, high) + 1e-12
    [middle] = quantiles(sketch, [0.5], low, high)
    assert middle is not None
    assert share_at_most(sketch, middle, low, high) >= 0.5 - 0.011 - 1 / len(values)
