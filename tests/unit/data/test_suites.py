# ruff: noqa: E501 - suites are written as they are
"""Suites of other tools: what becomes of each part, what is refused by name, and that what is written reads back."""

from __future__ import annotations

import datetime as dt
import math
import re
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from modelyard.engines.tables.sql import sandbox
from modelyard.kernel.errors import InvalidInput
from modelyard.planes.data.audit import columns_of
from modelyard.planes.data.checks import Provided
from modelyard.planes.data.checks.patterns import to_re2
from modelyard.planes.data.checks.running import run_suite
from modelyard.planes.data.checks.values import Unfit
from modelyard.planes.data.suites import SUPPORTED, gx_suite, read_suite
from modelyard.planes.data.suites.conditions import Unreadable, row_condition
from modelyard.types.checks import Check, DistinctValues, NotNull, Range, References, Regex, Unique, Unsupported
from modelyard.types.data import CheckResult

NOW = dt.datetime(2024, 3, 1, tzinfo=dt.UTC)
ORDERS = pa.table(
    {
        "id": [1, 2, 2, 3, 3, 3, None],
        "status": ["new", "paid", "lost", None, "new", "odd", "odd"],
        "customer": [10, 11, 99, None, 10, 98, 10],
        "amount": [1.5, 0.0, -1.0, None, 4.0, math.nan, 7.0],
    }
)
CUSTOMERS = pa.table({"id": [10, 11, 12]})


def judged(checks: list[Check]) -> list[CheckResult]:
    provided = {"customers": Provided("reference_0", {"id": "int64"}, "customers@1")}
    with sandbox({"batch": ORDERS, "dataset": ORDERS, "reference_0": CUSTOMERS}) as session:
        return run_suite(session, checks, columns_of(ORDERS.schema), NOW, provided=provided)


DBT: dict[str, Any] = {
    "version": 2,
    "models": [
        {
            "name": "orders",
            "tests": [{"dbt_utils.unique_combination_of_columns": {"combination_of_columns": ["id", "status"]}}],
            "columns": [
                {"name": "id", "data_tests": ["unique", "not_null"]},
                {
                    "name": "status",
                    "tests": [
                        {"accepted_values": {"values": ["new", "paid"], "config": {"severity": "warn"}}},
                        {"accepted_values": {"arguments": {"values": ["new"]}, "config": {"error_if": ">3", "warn_if": ">= 1"}}},
                        {"not_null": {"where": "id > 2", "name": "late ones have a status"}},
                        "dbt_utils.not_empty_string",
                    ],
                },
                {
                    "name": "customer",
                    "tests": [
                        {"relationships": {"to": "ref('customers')", "field": "id"}},
                        {"relationships": {"to": "source('crm', 'customers')", "field": "id", "config": {"where": "id < 2"}}},
                    ],
                },
                {
                    "name": "amount",
                    "tests": [
                        {"dbt_utils.accepted_range": {"min_value": 0, "inclusive": False}},
                        {"dbt_expectations.expect_column_values_to_be_between": {"min_value": 0, "row_condition": "id = 2"}},
                        {"dbt_utils.expression_is_true": {"expression": ">= 0"}},
                        "our_own_test",
                        {"not_null": {"config": {"where": "{{ var('x') }}"}}},
                        {"not_null": {"config": {"enabled": False}}},
                    ],
                },
            ],
        },
        {"name": "other", "columns": []},
    ],
}  # fmt: skip


def test_a_dbt_file_runs_as_it_is() -> None:
    suite = read_suite(DBT, "orders")
    assert (suite.name, suite.format, len(suite.checks)) == ("orders", "dbt", 14)
    assert [(one.what, one.reason) for one in suite.unsupported] == [
        ("our_own_test(amount)", "no such test is known here"),
        ("not_null(amount)", "a `where` with a template is not supported"),
    ]
    found = judged(suite.checks)
    assert [(one.origin.removeprefix("dbt:"), one.status, one.severity, one.failing) for one in found] == [
        ("dbt_utils.unique_combination_of_columns", "passed", "block", 0),
        ("unique", "failed", "block", 5),
        ("not_null", "failed", "block", 1),
        ("accepted_values", "failed", "warn", 0),
        ("accepted_values", "failed", "warn", 0),  # 3 values: more than 1, not more than 3
        ("not_null", "failed", "block", 1),
        ("dbt_utils.not_empty_string", "passed", "block", 0),
        ("relationships", "failed", "block", 2),
        ("relationships", "passed", "block", 0),
        ("dbt_utils.accepted_range", "failed", "block", 3),
        ("dbt_expectations.expect_column_values_to_be_between", "failed", "block", 1),
        ("dbt_utils.expression_is_true", "failed", "block", 2),
        ("our_own_test", "error", "warn", 0),
        ("not_null", "error", "warn", 0),
    ]
    assert found[5].name == "late ones have a status"


@pytest.mark.parametrize(("error_if", "status", "severity"), [
    (">1", "failed", "block"), (">2", "failed", "warn"), ("> 5", "failed", "warn"), ("=2", "failed", "block"),
])  # fmt: skip
def test_thresholds_of_dbt_count_distinct_values_as_dbt_does(error_if: str, status: str, severity: str) -> None:
    tests = [{"unique": {"config": {"error_if": error_if, "warn_if": ">0"}}}]
    suite = read_suite({"models": [{"name": "m", "columns": [{"name": "id", "tests": tests}]}]}, "m")
    [found] = judged(suite.checks)
    assert (found.status, found.severity, found.failing, found.details) == (status, severity, 5, {"values": 2})


def test_warn_if_alone_lets_fewer_pass() -> None:
    tests = [{"not_null": {"config": {"severity": "warn", "warn_if": "> 1"}}}]
    [found] = judged(read_suite({"models": [{"name": "m", "columns": [{"name": "id", "tests": tests}]}]}, "m").checks)
    assert (found.status, found.failing) == ("passed", 1)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"type": "expect_column_values_to_rhyme", "kwargs": {}}, "no such expectation"),
        (
            {"type": "expect_column_chisquare_test_p_value_to_be_greater_than", "kwargs": {"column": "a"}},
            "does not impl",
        ),
        ({"type": "expect_column_values_to_be_between", "kwargs": {"column": "a"}}, "min_value"),
        ({"type": "expect_column_values_to_be_between", "kwargs": {"min_value": 1}}, "'column' is missing"),
        ({"type": "expect_column_values_to_not_be_null", "kwargs": {"column": 5}}, "cannot be read"),
        ({"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "a", "mostly": 7}}, "cannot be read"),
        (
            {"type": "expect_column_max_to_be_between", "kwargs": {"column": "a", "max_value": {"$PARAMETER": "x"}}},
            "'x'",
        ),
        ({"type": "expect_column_values_to_be_of_type", "kwargs": {"column": "a", "type_": "Quaternion"}}, "no type"),
        (
            {
                "type": "expect_column_values_to_not_be_null",
                "kwargs": {"column": "a", "row_condition": "a.str.len() > 1"},
            },
            "row condition",
        ),
        ("not even a mapping", "no expectation"),
    ],
)
def test_what_is_not_supported_is_listed_with_the_reason(entry: Any, reason: str) -> None:
    suite = read_suite({"name": "s", "expectations": [entry]})
    [unsupported] = suite.unsupported
    assert reason in unsupported.reason
    assert judged(list(suite.checks))[0].status == "error"


def test_more_than_35_expectations_are_supported() -> None:
    assert len(SUPPORTED) >= 35


def test_suites_of_before_version_1_and_severities_and_parameters_are_read() -> None:
    suite = read_suite(
        {
            "expectation_suite_name": "old",
            "suite_parameters": {"least": 3},
            "expectations": [
                {"expectation_type": "expect_column_values_to_not_be_null", "kwargs": {"column": "a"}},
                {
                    "type": "expect_column_values_to_be_between",
                    "kwargs": {"column": "a", "min_value": {"$PARAMETER": "least"}},
                    "severity": "info",
                },
            ],
        }
    )
    assert suite.name == "old"
    [null, between] = suite.checks
    assert isinstance(null, NotNull) and null.severity == "block"
    assert isinstance(between, Range) and (between.min, between.severity) == (3, "warn")


EXPORTED: list[Check] = [
    NotNull(column="a"),
    Range(column="a", min=1, max=2, strict_max=True, mostly=0.9, severity="warn"),
    Unique(columns=["a"]),
    Unique(columns=["a", "b"]),
    Regex(column="s", pattern=["^a", "b"], match="all"),
    DistinctValues(column="s", values=["x"], relation="contain"),
    References(columns=["a"], dataset="others"),
    NotNull(column="b", where="a > 1"),
]


def test_checks_are_written_as_a_suite_that_reads_back() -> None:
    written = gx_suite("mine", EXPORTED)
    assert written["meta"]["modelyard"]["not_exported"] == ["references(a)", "not_null(b) where a > 1"]
    again = read_suite(written)
    assert not again.unsupported
    kept = [check for check in EXPORTED if not isinstance(check, References) and not check.where]
    bare = [gx_suite("mine", [check])["expectations"] for check in again.checks]
    assert bare == [gx_suite("mine", [check])["expectations"] for check in kept]


@pytest.mark.parametrize(
    "document",
    [5, None, "text", {"checks": 5}, [{"check": "nope"}], {"models": [{"name": "a"}, {"name": "b"}]}, {"x": []}],
)
def test_a_document_that_is_no_suite_is_refused(document: Any) -> None:
    with pytest.raises(InvalidInput):
        read_suite(document, "c")


@pytest.mark.parametrize(
    "text",
    [
        "a.str.len() > 1",
        "__import__('os')",
        "a > b > ",
        "a + 1 > 2",
        "f(a)",
        "a == [1]",
        "(" * 300,
        "lambda: 1",
        "a > @x",
    ],
)
def test_a_row_condition_that_cannot_be_said_in_sql_is_refused(text: str) -> None:
    with pytest.raises(Unreadable):
        row_condition(text, "pandas")


# --- regular expressions ------------------------------------------------------------------------------------------

ATOMS = st.sampled_from(
    ["a", "b", "Z", "é", "ß", "日", "0", "٣", "_", " ", "\\.", "-", ".", "^", "$", "\\d", "\\D", "\\w", "\\W", "\\s", "\\S",
     "[a-c]", "[^a-c]", "[\\d_]", "[^\\w]", "[\\W]", "\\n", "(?:ab|b)", "(a)", "\\A", "\\Z", "[é日]"]
)  # fmt: skip
PIECES = st.tuples(ATOMS, st.sampled_from(["", "", "", "*", "+", "?", "{2}", "{1,2}", "*?"])).map("".join)
PATTERNS = st.lists(PIECES, min_size=1, max_size=5).map("".join)
TEXTS = st.lists(st.sampled_from([*"abcZéß日0٣_ .-\n\t"]), max_size=6).map("".join)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(PATTERNS, st.lists(TEXTS, min_size=1, max_size=30))
def test_a_translated_pattern_matches_what_python_matches(pattern: str, texts: list[str]) -> None:
    try:
        wanted = [re.search(pattern, text) is not None for text in texts]
        translated = to_re2(pattern)
    except (re.error, Unfit):
        assume(False)
    table = pa.table({"s": texts})
    check = Regex(column="s", pattern=pattern, semantics="pandas")
    with sandbox({"batch": table, "dataset": table}) as session:
        [found] = run_suite(session, [check], columns_of(table.schema), NOW)
    assert found.status != "error", (translated, found.message)
    assert found.failing == wanted.count(False), translated


@pytest.mark.parametrize(
    "pattern", [r"(?=a)b", r"(?<!a)b", r"(a)\1", "(?P<x>a)(?P=x)", "a{2000}", "(", "(?L)a", "(?>a)"]
)
def test_what_re2_cannot_say_is_refused_by_name(pattern: str) -> None:
    with pytest.raises(Unfit):
        to_re2(pattern)


@pytest.mark.parametrize("pattern", [r"^(a+)+$", r"^(a|a)*$", r"(.*a){20}", r"^(\w+\s?)*$", r"(x+x+)+y"])
def test_catastrophic_patterns_run_in_linear_time(pattern: str) -> None:
    table = pa.table({"s": ["a" * 30_000 + "!", "x" * 30_000]})
    checks: list[Check] = [Regex(column="s", pattern=pattern), Regex(column="s", pattern=pattern, semantics="pandas")]
    with sandbox({"batch": table, "dataset": table}) as session:
        found = run_suite(session, checks, columns_of(table.schema), NOW)
    assert all(one.status in ("passed", "failed") for one in found)


def test_unsupported_names_what_it_stands_for() -> None:
    [found] = judged([Unsupported(what="expect_x", reason="because")])
    assert (found.name, found.status, found.message) == ("expect_x", "error", "because")
