"""Checks over appends: what a check says when it goes on from the rows before is what it says of all rows at once."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from modelyard.engines.tables.sql import sandbox
from modelyard.planes.data.audit import columns_of
from modelyard.planes.data.checks import Provided, states_of
from modelyard.planes.data.checks.running import Before, run_suite
from modelyard.planes.data.checks.states import State, packed, unpacked
from modelyard.types.checks import (
    AllEqual,
    Check,
    Compare,
    DistinctValues,
    Distribution,
    Divergence,
    Finite,
    Freshness,
    InSet,
    IsNull,
    Length,
    Like,
    Monotonic,
    MostCommon,
    NotNull,
    Outliers,
    Parses,
    Quantiles,
    Range,
    Reference,
    References,
    Regex,
    RowCount,
    RowCountMatches,
    Satisfies,
    Sql,
    Statistic,
    SumEquals,
    TuplesInSet,
    Unique,
    ZScore,
)
from modelyard.types.data import CheckResult

NOW = dt.datetime(2013, 3, 1, 12, tzinfo=dt.UTC)
SCHEMA = pa.schema(
    [
        ("i", pa.int64()),
        ("f", pa.float64()),
        ("s", pa.string()),
        ("g", pa.string()),
        ("t", pa.timestamp("us", tz="UTC")),
        ("m", pa.decimal128(8, 2)),
        ("b", pa.bool_()),
    ]
)
OTHER = pa.table({"i": [1, 2, 3, 4], "f": [0.0, 1.0, 2.0, 3.0], "s": ["a", "b", "a", "c"], "g": ["x", "y", "x", "x"]})
FIXED = Reference(dataset="other")

MERGED: list[Check] = [
    NotNull(column="i"),
    NotNull(column="f", semantics="pandas"),
    IsNull(column="s", by="g"),
    InSet(column="s", values=["a", "b"], where="i > 0"),
    Range(column="f", min=0, max=2),
    Regex(column="s", pattern="^a", by="g"),
    Like(column="s", pattern="%b"),
    Length(column="s", max=1),
    Finite(column="f"),
    Parses(column="s", form="json", by="g"),
    Compare(column="i", operator="<", other="f"),
    TuplesInSet(columns=["s", "g"], values=[["a", "x"]], ignore_row_if="never"),
    SumEquals(columns=["i", "f"], total=2),
    AllEqual(columns=["s", "g"]),
    Satisfies(condition="i % 2 = 0"),
    Unique(columns=["i"]),
    Unique(columns=["i", "s"], ignore_row_if="all_null"),
    Unique(columns=["f"], ignore_row_if="never", where="g = 'x'"),
    Unique(columns=["s"], by="g"),
    Monotonic(column="i"),
    Monotonic(column="t", direction="decreasing", strictly=True, where="i >= 0"),
    Monotonic(column="s", strictly=True),
    References(columns=["i"], dataset="other"),
    References(columns=["s", "g"], dataset="other", by="g"),
    RowCount(of="dataset", min=3),
    RowCount(by="g", max=2),
    RowCountMatches(dataset="other"),
    Freshness(column="t", max_age_s=3600),
    Statistic(column="i", measure="sum", max=3),
    Statistic(column="i", measure="min", min=0, by="g"),
    Statistic(column="f", measure="max", max=2),
    Statistic(column="m", measure="max", max=2),
    Statistic(column="m", measure="sum", max=2),
    Statistic(column="t", measure="max", max="2013-02-01T00:00:00Z"),
    Statistic(column="s", measure="min", min="a"),
    Statistic(column="i", measure="distinct", max=2),
    Statistic(column="s", measure="distinct_share", min=0.5, by="g"),
    Statistic(column="m", measure="distinct", max=2),
    Statistic(column="f", measure="not_null_share", min=0.5, semantics="pandas"),
    Statistic(column="s", measure="length_max", max=1),
    DistinctValues(column="s", values=["a", "b", "zz"], relation="equal"),
    DistinctValues(column="f", values=[0.0, 1.0], by="g"),
    Distribution(column="f", measure="psi", reference=FIXED, max=0.1, bins=4),
    Distribution(column="s", measure="chi_square", reference=FIXED, p_min=0.1),
    Distribution(column="i", measure="psi", reference=Reference(bins=[-5, 0, 5], weights=[1, 2]), max=0.1, by="g"),
    Divergence(column="f", partition=Reference(bins=[0, 1, 3], weights=[0.5, 0.5]), max=1, tail_weight_holdout=0.1),
]
ROUNDED: list[Check] = [
    Statistic(column="f", measure="mean", max=1),
    Statistic(column="f", measure="std", max=1),
    Statistic(column="i", measure="std", max=1, by="g"),
    Statistic(column="f", measure="sum", max=1),
    Distribution(column="f", measure="mean", reference=FIXED, max=0.5),
]
RESCANNED: list[Check] = [
    Statistic(column="f", measure="median", max=1),
    Quantiles(column="i", quantiles=[0.5], ranges=[(0, 1)]),
    Quantiles(column="i", quantiles=[0.3], ranges=[(0, 1)], method="nearest", by="g"),
    MostCommon(column="s", values=["a"]),
    Monotonic(column="i", order_by="t"),
    ZScore(column="i", threshold=1),
    Outliers(column="i"),
    Distribution(column="f", measure="ks", reference=FIXED, max=0.1),
    Divergence(column="s", partition=Reference(values=["a", "b"], weights=[0.5, 0.5]), max=1),
    Sql(query="SELECT * FROM dataset WHERE i > 1"),
]

rows_of = st.lists(
    st.fixed_dictionaries(
        {
            "i": st.one_of(st.none(), st.integers(-2, 3)),
            "f": st.one_of(st.none(), st.sampled_from([0.0, 1.0, 2.5, math.nan, math.inf, -math.inf])),
            "s": st.one_of(st.none(), st.sampled_from(["", "a", "b", "12", "日本", "[1]"])),
            "g": st.one_of(st.none(), st.sampled_from(["x", "y", "a"])),
            "t": st.one_of(st.none(), st.sampled_from([NOW, NOW - dt.timedelta(days=1), NOW - dt.timedelta(days=40)])),
            "m": st.one_of(st.none(), st.sampled_from([Decimal("1.00"), Decimal("-2.50"), Decimal("10.25")])),
            "b": st.one_of(st.none(), st.booleans()),
        }
    ),
    max_size=10,
)


def table(rows: Sequence[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=SCHEMA)


def run(
    checks: Sequence[Check], rows: Sequence[dict[str, Any]], added: Sequence[dict[str, Any]] = (), before: Any = None
) -> list[CheckResult]:
    """With `before`, `rows` were there and `added` are appended; else both are looked at as one."""
    whole = table([*rows, *added])
    tables = {"batch": table(added) if before else whole, "dataset": whole, "base": table(rows), "other": OTHER}
    provided = {"other": Provided("other", {field.name: str(field.type) for field in OTHER.schema}, "other@1")}
    with sandbox(tables) as session:
        return run_suite(session, checks, columns_of(SCHEMA), NOW, provided=provided, before=before)


def going_on(checks: Sequence[Check], parts: Sequence[Sequence[dict[str, Any]]]) -> list[CheckResult]:
    """The results after the parts were appended one after the other, each going on from the states before it."""
    found = run(checks, parts[0])
    held = list(parts[0])
    for part in parts[1:]:
        before = Before(states=states_of(found), appended=True, whole=True)
        found = run(checks, held, part, before)
        held += part
    return found


def verdict(found: CheckResult) -> tuple[Any, ...]:
    slices = sorted(
        (str(one.value), one.status, one.evaluated, one.failing, one.missing, str(one.observed)) for one in found.slices
    )
    counts = (found.evaluated, found.failing, found.missing)
    return (found.name, found.status, *counts, str(found.observed), slices)


# Not shrunk: one example asks several hundred statements.
FEW = settings(
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)


@pytest.mark.slow
@settings(FEW, max_examples=4)
@given(st.lists(rows_of, min_size=1, max_size=3))
def test_what_is_merged_over_appends_is_what_all_rows_say(parts: list[list[dict[str, Any]]]) -> None:
    same_over_parts(parts)


@pytest.mark.slow
@settings(FEW, max_examples=25)
@given(st.lists(rows_of, min_size=1, max_size=5))
def test_many_appends_too(parts: list[list[dict[str, Any]]]) -> None:
    same_over_parts(parts)


def same_over_parts(parts: list[list[dict[str, Any]]]) -> None:
    whole = run(MERGED, [row for part in parts for row in part])
    merged = going_on(MERGED, parts)
    for one, other in zip(whole, merged, strict=True):
        assert verdict(one) == verdict(other)
        assert one.status != "error", one.message
        assert other.merge == ("merged" if len(parts) > 1 else "scanned"), one.name


@settings(FEW, max_examples=5)
@given(rows_of, rows_of)
def test_means_and_deviations_are_merged_up_to_rounding(
    rows: list[dict[str, Any]], added: list[dict[str, Any]]
) -> None:
    for one, other in zip(run(ROUNDED, rows + added), going_on(ROUNDED, [rows, added]), strict=True):
        assert (one.evaluated, one.failing) == (other.evaluated, other.failing)
        for mine, theirs in [(one.observed, other.observed)]:
            assert (mine is None) == (theirs is None)
            if isinstance(mine, float):
                assert mine == pytest.approx(theirs, rel=1e-9, abs=1e-9)
            else:
                assert mine == theirs


@settings(FEW, max_examples=3)
@given(rows_of, rows_of)
def test_what_cannot_be_merged_says_so_and_looks_at_all_rows(
    rows: list[dict[str, Any]], added: list[dict[str, Any]]
) -> None:
    for one, other in zip(run(RESCANNED, rows + added), going_on(RESCANNED, [rows, added]), strict=True):
        assert verdict(one) == verdict(other)
        assert other.merge == "rescans"


def test_an_append_is_not_looked_at_beyond_its_own_rows() -> None:
    """The tables of the rows before are empty here; what is merged cannot tell."""
    rows = [{"i": n % 7, "f": float(n), "s": "a", "g": "x", "t": NOW} for n in range(20)]
    mergeable = [check for check in MERGED if not isinstance(check, (Unique, References, RowCountMatches))]
    first = run(mergeable, rows)
    before = Before(states=states_of(first), appended=True, whole=True)
    blind = {"batch": table(rows), "dataset": table([]), "base": table([]), "other": OTHER.slice(0, 0)}
    provided = {"other": Provided("other", {field.name: str(field.type) for field in OTHER.schema}, "other@1")}
    with sandbox(blind) as session:
        found = run_suite(session, mergeable, columns_of(SCHEMA), NOW, provided=provided, before=before)
    assert [verdict(one) for one in found] == [verdict(one) for one in run(mergeable, rows + rows)]


def test_too_many_distinct_values_to_keep_are_counted_again() -> None:
    check = Statistic(column="i", measure="distinct", max=1_000)
    rows = [{"i": n} for n in range(150)]
    found = going_on([check], [rows, [{"i": n} for n in range(100, 300)]])
    assert (found[0].observed, found[0].merge, found[0].state) == (300, "scanned", "")
    again = going_on([check], [rows, [{"i": n} for n in range(100, 300)], [{"i": 5}, {"i": 500}]])
    assert again[0].observed == 301


def test_another_check_or_another_version_of_its_reference_does_not_go_on_from_the_state() -> None:
    rows: list[dict[str, Any]] = [{"i": 1}, {"i": 2}]
    found = run([Range(column="i", min=0)], rows)
    before = Before(states=states_of(found), appended=True, whole=True)
    [other] = run([Range(column="i", min=2)], rows, [{"i": 1}], before)
    assert (other.evaluated, other.failing, other.merge) == (3, 2, "scanned")
    [same] = run([Range(column="i", min=0, mostly=0.5, severity="warn", name="named")], rows, [{"i": -1}], before)
    assert (same.evaluated, same.failing, same.merge, same.status) == (3, 1, "merged", "passed")


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    st.dictionaries(
        st.sampled_from("abc"),
        st.one_of(
            st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False), st.text(max_size=3),
            st.decimals(allow_nan=False, allow_infinity=False), st.dates(), st.lists(st.integers(), max_size=2),
        ),
    )
)  # fmt: skip
def test_states_travel_unchanged(values: dict[str, Any]) -> None:
    state = State([(None, values)], {"edges": [1.5]})
    assert unpacked(packed(state)) == state


def test_a_state_that_is_too_large_is_not_kept() -> None:
    assert packed(State([(None, {"values": ["x" * 1000] * 200})])) == ""
    assert unpacked("") is None
    assert unpacked("!") is None
