"""Checks: what each asks, judged against plain Python over the same rows, and how each says that it cannot be asked."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections import Counter
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.engines.tables.sql import sandbox
from modelyard.planes.data.audit import columns_of, run_checks
from modelyard.planes.data.checks import judge, name_of
from modelyard.types.data import (
    Check,
    CheckResult,
    ColumnType,
    Finite,
    Freshness,
    InSet,
    Length,
    NotNull,
    Range,
    Regex,
    RowCount,
    Sql,
    Unique,
)

NOW = dt.datetime(2013, 3, 1, 12, tzinfo=dt.UTC)
SCHEMA = pa.schema(
    [
        ("i", pa.int64()),
        ("f", pa.float64()),
        ("s", pa.string()),
        ("b", pa.bool_()),
        ("t", pa.timestamp("us", tz="UTC")),
        ("d", pa.date32()),
        ("m", pa.decimal128(8, 2)),
        ("l", pa.list_(pa.int64())),
    ]
)


def audit(rows: list[dict[str, Any]], *checks: Check, dataset: list[dict[str, Any]] | None = None) -> list[CheckResult]:
    batch = pa.Table.from_pylist(rows, schema=SCHEMA)
    whole = batch if dataset is None else pa.Table.from_pylist(dataset, schema=SCHEMA)
    with sandbox({"batch": batch, "dataset": whole}) as session:
        return run_checks(session, checks, columns_of(SCHEMA), NOW)


def counts(result: CheckResult) -> tuple[str, int, int]:
    return result.status, result.evaluated, result.failing


numbers = st.one_of(st.none(), st.sampled_from([0.0, -0.0, 1.0, 2.5, -3.0, math.nan, math.inf, -math.inf]))
texts = st.one_of(st.none(), st.sampled_from(["", "a", "AA", "b6", "é", "a'b", "x\ny", "日本"]))
rows_of = st.lists(
    st.fixed_dictionaries({"i": st.one_of(st.none(), st.integers(-3, 3)), "f": numbers, "s": texts}), max_size=8
)


def in_python(check: Check, row: dict[str, Any]) -> bool | None:
    """Whether a row passes; None where the check does not look at it. The definition, in other words than SQL's."""
    value = row[check.column]  # type: ignore[union-attr]
    if isinstance(check, NotNull):
        return value is not None
    if value is None:
        return None
    match check:
        case InSet():
            return any(value == wanted for wanted in check.values)
        case Finite():
            return math.isfinite(value)
        case Regex():
            return re.search(check.pattern, value) is not None
        case Length():
            return check.min <= len(value) and (check.max is None or len(value) <= check.max)
        case Range(min=low, max=high, strict=strict):
            if isinstance(value, float) and math.isnan(value):
                return False
            above = low is None or (value > low if strict else value >= low)
            below = high is None or (value < high if strict else value <= high)
            return above and below
        case _:
            raise AssertionError(check)


ROW_WISE: list[Check] = [
    NotNull(column="i"),
    NotNull(column="f"),
    InSet(column="i", values=[1, 2]),
    InSet(column="s", values=["AA", "a'b"]),
    Finite(column="f"),
    Finite(column="i"),
    Regex(column="s", pattern="^[a-z]"),
    Regex(column="s", pattern="'"),
    Length(column="s", min=1, max=2),
    Length(column="s", min=2),
    Range(column="i", min=0),
    Range(column="i", min=-1, max=2, strict=True),
    Range(column="f", min=0),
    Range(column="f", max=1.0),
    Range(column="f", min=0, max=2.5, strict=True),
]


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(rows_of)
def test_row_wise_checks_count_what_python_counts(rows: list[dict[str, Any]]) -> None:
    for check, found in zip(ROW_WISE, audit(rows, *ROW_WISE), strict=True):
        verdicts = [verdict for row in rows if (verdict := in_python(check, row)) is not None]
        failing = verdicts.count(False)
        assert counts(found) == ("failed" if failing else "passed", len(verdicts), failing), name_of(check)
        assert len(found.sample) == failing


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(rows_of)
def test_uniqueness_counts_all_rows_that_share_their_values(rows: list[dict[str, Any]]) -> None:
    [one, two] = audit(rows, Unique(columns=["i"]), Unique(columns=["i", "s"]))
    for found, names in ((one, ["i"]), (two, ["i", "s"])):
        whole = [key for row in rows if None not in (key := tuple(row[name] for name in names))]
        shared = sum(count for count in Counter(whole).values() if count > 1)
        assert counts(found) == ("failed" if shared else "passed", len(whole), shared)


def test_where_narrows_what_a_check_looks_at() -> None:
    rows = [{"i": 1, "s": "x"}, {"i": -1, "s": "y"}, {"i": -2, "s": "x"}, {"i": None, "s": "x"}]
    checks: list[Check] = [
        Range(column="i", min=0, where="s = 'x'"),
        NotNull(column="i", where="s = 'x'"),
        Unique(columns=["s"], where="i > 0"),
        RowCount(min=3, max=3, where="s = 'x'"),
        Range(column="i", min=0, where="s = 'x' OR s = 'y'"),
    ]
    assert [counts(found) for found in audit(rows, *checks)] == [
        ("failed", 2, 1),
        ("failed", 3, 1),
        ("passed", 1, 0),
        ("passed", 0, 0),
        ("failed", 3, 2),
    ]


@pytest.mark.parametrize(
    ("mostly", "status"), [(1.0, "failed"), (0.91, "failed"), (0.9, "passed"), (0.5, "passed"), (0.0, "passed")]
)
def test_mostly_is_the_share_that_must_pass(mostly: float, status: str) -> None:
    rows = [{"i": n} for n in range(10)]
    [found] = audit(rows, Range(column="i", max=8, mostly=mostly))
    assert counts(found) == (status, 10, 1)


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.floats(0, 1))
def test_more_failures_never_make_a_better_verdict(evaluated: int, failing: int, mostly: float) -> None:
    failing = min(evaluated, failing)
    worse = judge(Range(column="i", min=0, mostly=mostly), evaluated, failing)
    better = judge(Range(column="i", min=0, mostly=mostly), evaluated, failing // 2)
    assert not (worse.status == "passed" and better.status == "failed")


@pytest.mark.parametrize(
    ("check", "row", "passes"),
    [
        (Range(column="t", min="2013-01-01T00:00:00Z"), {"t": NOW}, True),
        (Range(column="t", max="2013-01-01"), {"t": NOW}, False),
        (Range(column="t", min="2013-03-01T14:00:00+02:00"), {"t": NOW}, True),
        (Range(column="d", min="2013-03-01", max="2013-03-01"), {"d": dt.date(2013, 3, 1)}, True),
        (InSet(column="d", values=["2013-03-02"]), {"d": dt.date(2013, 3, 1)}, False),
        (InSet(column="b", values=[True]), {"b": False}, False),
        (Range(column="m", min=1.5), {"m": 2}, True),
        (InSet(column="f", values=[1]), {"f": 1.0}, True),
        (ColumnType(column="t", type="timestamp[us, tz=UTC]"), {}, True),
        (ColumnType(column="i", type="string"), {}, False),
        (NotNull(column="l"), {"l": []}, True),
    ],
)
def test_values_are_compared_as_their_column_holds_them(check: Check, row: dict[str, Any], passes: bool) -> None:
    [found] = audit([row], check)
    assert found.status == ("passed" if passes else "failed")


@pytest.mark.parametrize(
    "check",
    [
        Range(column="nope", min=0),
        Unique(columns=["i", "nope"]),
        ColumnType(column="nope", type="int64"),
        Freshness(column="i", max_age_s=1),
        Range(column="i", min="zero"),
        Range(column="i", max=math.inf),
        Range(column="i"),
        Range(column="t", min="yesterday"),
        Range(column="t", min=5),
        Range(column="b", min=0),
        InSet(column="i", values=[True]),
        InSet(column="s", values=[1]),
        InSet(column="l", values=["x"]),
        Regex(column="i", pattern="x"),
        Regex(column="s", pattern="("),
        Regex(column="s", pattern="(?=x)"),
        Length(column="i", min=1),
        Finite(column="s"),
        NotNull(column="i", where="nope = 1"),
        NotNull(column="i", where="i = 1; DROP VIEW batch"),
        NotNull(column="i", where="true) OR (true"),
        Sql(query="SELECT * FROM elsewhere"),
        Sql(query="DELETE FROM batch"),
        Sql(query="SELECT 1; SELECT 2"),
        Sql(query="SELECT * FROM read_csv('/etc/passwd')"),
        Sql(query=""),
    ],
)
def test_a_check_that_cannot_be_asked_is_an_error_and_disturbs_no_other(check: Check) -> None:
    rows = [{"i": 1, "f": 1.0, "s": "x", "t": NOW}]
    good: list[Check] = [NotNull(column="i"), Range(column="i", min=5)]
    before, found, after = audit(rows, good[0], check, good[1])
    assert found.status == "error"
    assert found.message
    assert (before.status, after.status) == ("passed", "failed")


def test_a_regex_that_would_run_for_ever_elsewhere_is_linear_here() -> None:
    [found] = audit([{"s": "a" * 50_000 + "!"}], Regex(column="s", pattern="^(a+)+$"))
    assert found.status == "failed"


def test_own_sql_sees_the_batch_and_the_dataset_as_it_would_become() -> None:
    rows, whole = [{"i": 1}], [{"i": 1}, {"i": 2}, {"i": 3}]
    checks: list[Check] = [
        Sql(name="all", query="SELECT * FROM dataset WHERE i > 1 -- two of them"),
        Sql(query="SELECT * FROM batch WHERE i > 1"),
        RowCount(of="dataset", min=3, max=3),
        RowCount(of="batch", max=0),
    ]
    found = audit(rows, *checks, dataset=whole)
    assert [one.status for one in found] == ["failed", "passed", "passed", "failed"]
    assert (found[0].failing, [row["i"] for row in found[0].sample]) == (2, [2, 3])
    assert found[3].observed == 1


def test_an_empty_set_holds_no_value_and_null_is_none() -> None:
    [found] = audit([{"i": 1}, {"i": None}, {"i": 2}], InSet(column="i", values=[]))
    assert (found.status, found.evaluated, found.missing, found.failing) == ("failed", 2, 1, 2)


def test_ids_that_rise_are_unique_and_others_are_counted() -> None:
    check = Unique(columns=["i"])
    for values, failing in (([1, 2, None, 7], 0), ([2, 1], 0), ([1, 1, 2], 2), ([None, None], 0), ([], 0)):
        [found] = audit([{"i": value} for value in values], check)
        assert (found.failing, found.evaluated) == (failing, sum(value is not None for value in values))
        assert found.missing == values.count(None)


def test_samples_are_bounded() -> None:
    [found] = audit([{"i": -1}] * 500, Range(column="i", min=0))
    assert found.failing == 500
    assert len(found.sample) == 20


def test_no_rows_is_a_verdict_and_not_a_crash() -> None:
    checks = [*ROW_WISE, Unique(columns=["i"]), Freshness(column="t", max_age_s=1), RowCount(min=0)]
    statuses = [found.status for found in audit([], *checks)]
    assert statuses.count("failed") == 1, "only freshness has nothing to go by"
    assert "error" not in statuses


@pytest.mark.parametrize(
    "text",
    [
        '{"check": "nope", "column": "i"}',
        '{"check": "range", "column": "i", "mni": 0}',
        '{"check": "range"}',
        '{"check": "not_null", "column": "i", "mostly": 1.5}',
        '{"check": "not_null", "column": "i", "severity": "fatal"}',
        '{"check": "unique", "columns": []}',
        '{"check": "freshness", "column": "t", "max_age_s": 0}',
    ],
)
def test_declarations_are_checked_when_they_are_read(text: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(text, type=Check)


@pytest.mark.parametrize("check", [*ROW_WISE, Unique(columns=["i", "s"], where="i > 0"), Sql(query="SELECT 1")])
def test_declarations_travel_unchanged(check: Check) -> None:
    assert msgspec.json.decode(msgspec.json.encode(check), type=Check) == check
