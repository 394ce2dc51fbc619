# ruff: noqa: E501 - the cases are a table
"""Suites of Great Expectations, run by the real package and by us over the same rows: verdicts and counts are equal."""

from __future__ import annotations

import datetime as dt
import json
import math
import subprocess
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from foreign_python import foreign_python
from modelyard.engines.tables.sql import sandbox
from modelyard.planes.data.audit import columns_of, run_checks
from modelyard.planes.data.suites import SUPPORTED, read_suite
from modelyard.types.data import CheckResult

pytestmark = pytest.mark.slow
NOW = dt.datetime(2024, 3, 1, tzinfo=dt.UTC)


def day(number: int) -> dt.datetime:
    return dt.datetime(2024, 1, number, 12, tzinfo=dt.UTC)


MIXED = pa.table(
    {
        "n": pa.array([1, 2, 2, 3, 5, 8, 13, 21, 34, 55], pa.int64()),
        "i": pa.array([1, None, 3, 3, None, 6, 7, 2, 9, 10], pa.int64()),
        "f": pa.array([0.5, math.nan, 2.5, None, 100.0, 1.5, 1.5, -3.0, 0.0, 7.25], pa.float64()),
        "s": pa.array(["a", "ab", None, "", "héllo", "日本", "a", "x\n", "AB1", "12"], pa.string()),
        "d": pa.array([day(n) for n in range(1, 11)], pa.timestamp("us", tz="UTC")),
        "e": pa.array([day(2), None, day(1), day(4), day(4), day(6), None, day(8), day(3), day(9)], pa.timestamp("us", tz="UTC")),
        "m": pa.array([Decimal("1.50"), None, Decimal("2.50"), Decimal("-1.00"), *[Decimal("3.25")] * 6], pa.decimal128(8, 2)),
        "p": pa.array([Decimal("1.25")] * 10, pa.decimal128(8, 2)),
        "j": pa.array(['{"a": 1}', "[1, 2]", "nope", None, "1", '"x"', "{}", "NaN", "{", "null"], pa.string()),
        "t": pa.array(["2024-01-01", "01/02/2024", None, "yesterday", "2024-13-01", "12", "Jan 5", "", "2024-02-30", "2024-02-29"], pa.string()),
        "b": pa.array([True, False, None, True, True, False, True, True, None, True], pa.bool_()),
        "g": pa.array(["x", "x", "y", "y", "y", None, "x", "y", "z", "z"], pa.string()),
    }
)  # fmt: skip
EMPTY = MIXED.slice(0, 0)
NULLS = pa.table(
    {"i": pa.array([None] * 4, pa.int64()), "f": pa.array([None, math.nan, None, None], pa.float64()), "s": pa.array([None] * 4, pa.string())}
)  # fmt: skip
NUMBERS = pa.table(
    {
        "x": pa.array([float(n % 37) + 0.25 for n in range(1000)]),
        "k": pa.array([n % 10 for n in range(1000)], pa.int64()),
        "c": pa.array([chr(97 + n % 3) for n in range(1000)]),
        "one": pa.array([7] * 1000, pa.int64()),
        "y": pa.array([float((n * 7919) % 101) for n in range(1000)]),
    }
)


def e(kind: str, **kwargs: Any) -> dict[str, Any]:
    return {"type": f"expect_{kind}" if not kind.startswith("unexpected") else kind, "kwargs": kwargs}


def row_wise(column: str) -> list[dict[str, Any]]:
    return [
        e("column_values_to_not_be_null", column=column),
        e("column_values_to_be_null", column=column),
        e("column_values_to_not_be_null", column=column, mostly=0.8),
        e("column_values_to_be_unique", column=column),
        e("column_values_to_be_unique", column=column, mostly=0.5),
    ]


TEXTS = [
    *[e("column_values_to_match_regex", column="s", regex=one) for one in
      ["^a", "a$", r"\w+", r"^\w+$", r"\d", "^$", "[A-Z]{2}", "(?i)^A", r"^.$", "é|本", r"\s", "x$", r"\bab\b", "^[^a-z]*$"]],
    e("column_values_to_match_regex", column="s", regex="^a", mostly=0.3),
    e("column_values_to_not_match_regex", column="s", regex="^a"),
    e("column_values_to_match_regex_list", column="s", regex_list=["^a", "b"], match_on="any"),
    e("column_values_to_match_regex_list", column="s", regex_list=["^a", "b"], match_on="all"),
    e("column_values_to_not_match_regex_list", column="s", regex_list=["^a", "b"]),
    e("column_value_lengths_to_be_between", column="s", min_value=1, max_value=3),
    e("column_value_lengths_to_be_between", column="s", min_value=1, strict_min=True),
    e("column_value_lengths_to_be_between", column="s", max_value=2, strict_max=True, mostly=0.5),
    e("column_value_lengths_to_equal", column="s", value=2),
    e("column_values_to_be_json_parseable", column="j"),
    e("column_values_to_match_strftime_format", column="t", strftime_format="%Y-%m-%d"),
    e("column_values_to_be_dateutil_parseable", column="t"),
    e("column_values_to_be_in_set", column="s", value_set=["a", "ab", "日本"]),
    e("column_values_to_be_in_set", column="s", value_set=["a", 1, None]),
    e("column_values_to_be_in_set", column="s", value_set=[]),
    e("column_values_to_not_be_in_set", column="s", value_set=["a", "zz"]),
    e("column_values_to_be_between", column="s", min_value="a", max_value="b"),
    e("column_values_to_be_of_type", column="n", type_="int64"),
    e("column_values_to_be_of_type", column="f", type_="float64"),
    e("column_values_to_be_in_type_list", column="n", type_list=["int64", "float64"]),
    e("column_type_to_be", column="n", type_="int64"),
    e("column_type_to_be", column="f", type_="int64"),
]  # fmt: skip
NUMERIC = [
    e("column_values_to_be_between", column="f", min_value=0, max_value=10),
    e("column_values_to_be_between", column="f", min_value=0, strict_min=True),
    e("column_values_to_be_between", column="f", max_value=1.5, strict_max=True, mostly=0.375),
    e("column_values_to_be_between", column="i", min_value=2, max_value=9, strict_min=True, strict_max=True),
    e("column_values_to_be_between", column="m", min_value=0, max_value=3),
    e("column_values_to_be_between", column="d", min_value="2024-01-03T00:00:00", max_value="2024-01-08T12:00:00"),
    e("column_values_to_be_in_set", column="i", value_set=[1, 3, 6.0]),
    e("column_values_to_be_in_set", column="f", value_set=[1.5, 0]),
    e("column_values_to_not_be_in_set", column="n", value_set=[2, 100]),
    *[e("column_values_to_be_increasing", column=one) for one in ("n", "i", "f", "d", "e")],
    *[e("column_values_to_be_decreasing", column=one) for one in ("n", "i", "f")],
    e("column_values_to_be_increasing", column="n", strictly=True),
    e("column_values_to_be_increasing", column="d", strictly=True),
    e("column_value_z_scores_to_be_less_than", column="f", threshold=1.5, double_sided=True),
    e("column_value_z_scores_to_be_less_than", column="n", threshold=1, double_sided=False),
    e("column_value_z_scores_to_be_less_than", column="n", threshold=-0.5, double_sided=False, mostly=0.2),
    e("column_values_to_not_be_outliers", column="n", method="iqr", multiplier=1.5),
    e("column_values_to_not_be_outliers", column="f", method="std", multiplier=1.0),
    *[
        e(f"column_{one}_to_be_between", column=column, min_value=0, max_value=bound)
        for one in ("min", "max", "mean", "median", "sum", "stdev", "unique_value_count")
        for column, bound in (("n", 3), ("n", 1000), ("f", 20), ("i", 5))
    ],
    e("column_mean_to_be_between", column="p", min_value=1, max_value=3),
    e("column_sum_to_be_between", column="p", min_value=12.5, max_value=12.5),
    e("column_min_to_be_between", column="n", min_value=1, strict_min=True),
    e("column_max_to_be_between", column="n", max_value=55, strict_max=True),
    e("column_max_to_be_between", column="s", min_value="a"),
    e("column_max_to_be_between", column="d", min_value="2024-01-01T00:00:00", max_value="2024-02-01T00:00:00"),
    e("column_proportion_of_unique_values_to_be_between", column="i", min_value=0.5, max_value=0.9),
    e("column_proportion_of_non_null_values_to_be_between", column="i", min_value=0.8, max_value=0.8),
    e("column_proportion_of_non_null_values_to_be_between", column="f", min_value=0.9),
]
RANGES = [[1, 3], [None, 6], [5, None], [0, 100]]
SEVERAL = [
    e("column_pair_values_a_to_be_greater_than_b", column_A="n", column_B="i"),
    e("column_pair_values_a_to_be_greater_than_b", column_A="n", column_B="i", or_equal=True),
    e("column_pair_values_a_to_be_greater_than_b", column_A="n", column_B="i", ignore_row_if="either_value_is_missing"),
    e("column_pair_values_a_to_be_greater_than_b", column_A="d", column_B="e", ignore_row_if="neither"),
    e("column_pair_values_a_to_be_greater_than_b", column_A="i", column_B="f", ignore_row_if="neither", mostly=0.5),
    e("column_pair_values_to_be_equal", column_A="i", column_B="n"),
    e("column_pair_values_to_be_equal", column_A="i", column_B="f", ignore_row_if="both_values_are_missing"),
    e("column_pair_values_to_be_equal", column_A="s", column_B="g", ignore_row_if="either_value_is_missing"),
    e("column_pair_values_to_be_in_set", column_A="g", column_B="n", value_pairs_set=[["x", 1], ["y", 2], [None, 8]]),
    e("column_pair_values_to_be_in_set", column_A="g", column_B="n", value_pairs_set=[["x", 1]], ignore_row_if="neither"),
    e("compound_columns_to_be_unique", column_list=["g", "i"]),
    e("compound_columns_to_be_unique", column_list=["g", "b"]),
    e("compound_columns_to_be_unique", column_list=["g", "i"], ignore_row_if="any_value_is_missing"),
    e("compound_columns_to_be_unique", column_list=["g", "b"], ignore_row_if="never"),
    e("select_column_values_to_be_unique_within_record", column_list=["n", "i"]),
    e("select_column_values_to_be_unique_within_record", column_list=["n", "i", "f"], ignore_row_if="any_value_is_missing"),
    e("select_column_values_to_be_unique_within_record", column_list=["i", "f"], ignore_row_if="never"),
    e("multicolumn_values_to_be_equal", column_list=["n", "i"]),
    e("multicolumn_values_to_be_equal", column_list=["i", "f"], ignore_row_if="never"),
    e("multicolumn_sum_to_equal", column_list=["n", "i"], sum_total=2),
    e("multicolumn_sum_to_equal", column_list=["n", "i"], sum_total=5, ignore_row_if="any_value_is_missing"),
    e("multicolumn_sum_to_equal", column_list=["f", "i"], sum_total=1.5, ignore_row_if="never"),
]  # fmt: skip
SETS = [
    e("column_distinct_values_to_be_in_set", column="g", value_set=["x", "y", "z"]),
    e("column_distinct_values_to_be_in_set", column="g", value_set=["x", "q"]),
    e("column_distinct_values_to_contain_set", column="g", value_set=["x", "q", "r"]),
    e("column_distinct_values_to_contain_set", column="n", value_set=[1, 2]),
    e("column_distinct_values_to_equal_set", column="g", value_set=["x", "y", "z"]),
    e("column_distinct_values_to_equal_set", column="n", value_set=[1, 2, 4]),
    e("column_most_common_value_to_be_in_set", column="g", value_set=["y"]),
    e("column_most_common_value_to_be_in_set", column="n", value_set=[2]),
    e("column_most_common_value_to_be_in_set", column="d", value_set=["y"], ties_okay=True),
    e("column_most_common_value_to_be_in_set", column="s", value_set=["a", "b"], ties_okay=True),
]
TABLE = [
    e("table_row_count_to_equal", value=10),
    e("table_row_count_to_equal", value=3),
    e("table_row_count_to_be_between", min_value=1, max_value=10),
    e("table_row_count_to_be_between", min_value=11),
    e("table_column_count_to_equal", value=12),
    e("table_column_count_to_be_between", min_value=1, max_value=5),
    e("table_columns_to_match_set", column_set=["n", "i"], exact_match=False),
    e("table_columns_to_match_set", column_set=["n", "i"]),
    e("table_columns_to_match_ordered_list", column_list=list(MIXED.column_names)),
    e("table_columns_to_match_ordered_list", column_list=["i", "n"]),
    e("column_to_exist", column="n"),
    e("column_to_exist", column="i", column_index=1),
    e("column_to_exist", column="i", column_index=2),
    e("column_to_exist", column="nope"),
]
CONDITIONED = [
    e("column_values_to_be_between", column="n", min_value=2, row_condition=condition, condition_parser=parser)
    for condition, parser in [
        ("i > 2", "pandas"),
        ("g == 'x'", "pandas"),
        ("g != 'x'", "pandas"),
        ("g in ['x', 'z'] and n >= 2", "pandas"),
        ("not (f > 1) | g == 'y'", "pandas"),
        ("i.isnull()", "pandas"),
        ("`n` < 20 and f.notnull()", "pandas"),
        ("n != i", "pandas"),
        ('col("i") > 2', "great_expectations"),
    ]
] + [
    e("column_values_to_not_be_null", column="i", row_condition=condition)
    for condition in [
        {"type": "comparison", "column": {"name": "n"}, "operator": ">", "parameter": 4},
        {"type": "comparison", "column": {"name": "g"}, "operator": "!=", "parameter": "x"},
        {"type": "comparison", "column": {"name": "g"}, "operator": "NOT_IN", "parameter": ["x", "y"]},
        {"type": "nullity", "column": {"name": "f"}, "is_null": True},
        {"type": "and", "conditions": [
            {"type": "comparison", "column": {"name": "n"}, "operator": ">=", "parameter": 2},
            {"type": "nullity", "column": {"name": "g"}, "is_null": False}]},
        {"type": "or", "conditions": [
            {"type": "comparison", "column": {"name": "f"}, "operator": ">", "parameter": 2},
            {"type": "comparison", "column": {"name": "s"}, "operator": "IN", "parameter": ["a"]}]},
    ]
] + [
    e("table_row_count_to_equal", value=5, row_condition="g == 'x'", condition_parser="pandas"),
    e("column_mean_to_be_between", column="n", max_value=5, row_condition="g == 'x'", condition_parser="pandas"),
    e("column_values_to_be_unique", column="g", row_condition="n > 20", condition_parser="pandas"),
    e("compound_columns_to_be_unique", column_list=["g", "b"], row_condition="n > 20", condition_parser="pandas"),
]  # fmt: skip
MANY = [
    e("column_quantile_values_to_be_between", column="x", quantile_ranges={"quantiles": [0.05, 0.25, 0.5, 0.999], "value_ranges": RANGES}),
    *[
        e("column_quantile_values_to_be_between", column="y", allow_relative_error=method,
          quantile_ranges={"quantiles": [0.1, 0.333, 0.5, 0.9], "value_ranges": [[0, 20], [0, 50], [0, 60], [None, None]]})
        for method in ("linear", "lower", "higher", "midpoint", "nearest")
    ],
    e("column_kl_divergence_to_be_less_than", column="c", threshold=0.1, partition_object={"values": ["a", "b", "c"], "weights": [0.2, 0.3, 0.5]}),
    e("column_kl_divergence_to_be_less_than", column="c", threshold=0.01, partition_object={"values": ["a", "b", "c"], "weights": [0.2, 0.3, 0.5]}),
    e("column_kl_divergence_to_be_less_than", column="c", threshold=0.5, tail_weight_holdout=0.1, partition_object={"values": ["a", "b"], "weights": [0.5, 0.5]}),
    e("column_kl_divergence_to_be_less_than", column="c", threshold=0.5, partition_object={"values": ["a", "b"], "weights": [0.5, 0.5]}),
    e("column_kl_divergence_to_be_less_than", column="x", threshold=0.5, tail_weight_holdout=0.02, internal_weight_holdout=0.02,
      partition_object={"bins": [0, 10, 20, 30], "weights": [0.5, 0.0, 0.5]}),
    e("column_kl_divergence_to_be_less_than", column="x", threshold=0.5, partition_object={"bins": [0, 10, 20, 30], "weights": [0.3, 0.3, 0.3], "tail_weights": [0.05, 0.05]}),
    e("column_value_z_scores_to_be_less_than", column="one", threshold=1, double_sided=True),
    e("column_values_to_not_be_outliers", column="one", method="std", multiplier=1.0),
    e("column_values_to_not_be_outliers", column="y", method="std", multiplier=1.5, mostly=0.8),
    e("column_stdev_to_be_between", column="y", min_value=1),
    *[e("column_values_to_be_between", column="k", min_value=1, mostly=share) for share in (0.9, 0.9000001, 0.8999999)],
    *[e("column_values_to_be_between", column="k", max_value=n, mostly=(n + 1) / 10) for n in range(10)],
    *[e("column_values_to_be_in_set", column="k", value_set=list(range(n)), mostly=n * 0.1) for n in (1, 3, 6, 7)],
]  # fmt: skip
BARE = [
    *row_wise("f"),
    *row_wise("s"),
    e("column_values_to_be_between", column="f", min_value=0),
    e("column_values_to_match_regex", column="s", regex="a"),
    e("column_values_to_be_in_set", column="s", value_set=["a"]),
    e("column_mean_to_be_between", column="f", min_value=0),
    e("column_max_to_be_between", column="f", min_value=0),
    e("column_stdev_to_be_between", column="f", min_value=0),
    e("column_median_to_be_between", column="f", min_value=0),
    e("column_unique_value_count_to_be_between", column="f", min_value=0),
    e("column_proportion_of_unique_values_to_be_between", column="f", min_value=0),
    e("column_proportion_of_non_null_values_to_be_between", column="f", max_value=0),
    e("column_distinct_values_to_be_in_set", column="s", value_set=["a"]),
    e("column_distinct_values_to_contain_set", column="s", value_set=["a"]),
    e("table_row_count_to_equal", value=0),
    e("column_pair_values_to_be_equal", column_A="i", column_B="f"),
    e("compound_columns_to_be_unique", column_list=["i", "s"]),
]
LIKES = [
    e("column_values_to_match_like_pattern", column="s", like_pattern="a%"),
    e("column_values_to_not_match_like_pattern", column="s", like_pattern="_b%"),
    e("column_values_to_match_like_pattern_list", column="s", like_pattern_list=["a%", "%2"], match_on="any"),
    e("column_values_to_match_like_pattern_list", column="s", like_pattern_list=["a%", "%b"], match_on="all"),
    e("column_values_to_not_match_like_pattern_list", column="s", like_pattern_list=["1%", "%q"]),
    e("unexpected_rows_expectation", unexpected_rows_query="SELECT * FROM {batch} WHERE n > 5"),
]
# Without the text that holds lower and upper case of one letter: SQLite's LIKE does not tell them apart.
CASELESS = MIXED.select(["n", "s"]).filter(pa.compute.is_in(MIXED["s"], pa.array(["a", "ab", "12", "", "日本"])))
JSON_SCHEMA = pa.table({"j": ['{"a": 1}', '{"a": "x"}', "{}", None]})
CASES: dict[str, tuple[pa.Table, list[dict[str, Any]], bool]] = {
    "each column": (MIXED, [one for column in MIXED.column_names for one in row_wise(column)], False),
    "texts": (MIXED, TEXTS, False),
    "numbers": (MIXED, NUMERIC, False),
    "several columns": (MIXED, SEVERAL, False),
    "sets": (MIXED, SETS, False),
    "table": (MIXED, TABLE, False),
    "row conditions": (MIXED, CONDITIONED, False),
    "many rows": (NUMBERS, MANY, False),
    "only nulls": (NULLS, BARE, False),
    "no rows": (EMPTY, BARE, False),
    "json schema": (JSON_SCHEMA, [e("column_values_to_match_json_schema", column="j", json_schema={"type": "object", "properties": {"a": {"type": "integer"}}})], False),
    "like, in SQL": (CASELESS, LIKES, True),
}  # fmt: skip


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """What the real one says of every case."""
    folder = tmp_path_factory.mktemp("gx")
    cases = []
    for number, (table, expectations, sql) in enumerate(CASES.values()):
        pq.write_table(table, folder / f"{number}.parquet")
        cases.append({"parquet": str(folder / f"{number}.parquet"), "expectations": expectations, "sql": sql})
    (folder / "cases.json").write_text(json.dumps(cases))
    script = Path(__file__).parent / "run_gx.py"
    ran = subprocess.run(
        [str(foreign_python("gx")), str(script), str(folder / "cases.json")],
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-2000:]
    listed = iter(json.loads(ran.stdout.rpartition("ANSWERS")[2]))
    return {name: [next(listed) for _ in expectations] for name, (_, expectations, _) in CASES.items()}


def ours(table: pa.Table, expectations: list[dict[str, Any]]) -> list[CheckResult]:
    suite = read_suite({"name": "s", "expectations": expectations})
    assert not suite.unsupported, [(one.what, one.reason) for one in suite.unsupported]
    with sandbox({"batch": table, "dataset": table}) as session:
        return run_checks(session, suite.checks, columns_of(table.schema), NOW)


def as_real(found: CheckResult, real: dict[str, Any]) -> dict[str, Any]:
    """Our result in the words of the real one, of what that one says."""
    mine: dict[str, Any] = {"success": found.status == "passed"}
    result = real.get("result", {})
    if "element_count" in result:
        mine |= {"element_count": found.evaluated + found.missing, "unexpected_count": found.failing}
        if result.get("missing_count") is not None:
            mine["missing_count"] = found.missing
    elif isinstance(found.observed, dict) and "unexpected" in found.observed:
        mine |= {name: found.observed[key] for name, key in _SET_COUNTS if name in result}
    elif "observed_value" in result and found.check == "sql":
        mine["observed_value"] = found.failing
    elif "observed_value" in result and found.check not in _OTHER_OBSERVED:
        mine["observed_value"] = found.observed
    return mine


_SET_COUNTS = (("unexpected_count", "unexpected"), ("missing_count", "lacking"))
# Types have other names here; columns are the same whatever their order.
_OTHER_OBSERVED = ("column_type", "columns", "column_exists")


def without_zones(value: Any) -> Any:
    """Times without their zone, which pandas was not given."""
    if isinstance(value, str) and value[:2] == "20" and "T" in value:
        return value.removesuffix("Z").removesuffix("+00:00")
    if isinstance(value, dict):
        return {key: without_zones(inner) for key, inner in value.items()}
    return [without_zones(inner) for inner in value] if isinstance(value, list) else value


def near(value: Any) -> Any:
    """What a value of ours must equal: numbers up to rounding."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return pytest.approx(value, rel=1e-9, abs=1e-12)
    if isinstance(value, dict):
        return {key: near(inner) for key, inner in value.items()}
    return [near(inner) for inner in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", CASES)
def test_verdicts_and_counts_are_those_of_great_expectations(
    name: str, answers: dict[str, list[dict[str, Any]]]
) -> None:
    table, expectations, _ = CASES[name]
    wrong, unjudged = [], []
    for entry, real, found in zip(expectations, answers[name], ours(table, expectations), strict=True):
        if "error" in real:
            unjudged.append(entry)
            continue
        mine = as_real(found, real)
        theirs = {key: real["success"] if key == "success" else real["result"].get(key) for key in mine}
        if near(theirs) != without_zones(mine):
            wrong.append((entry, theirs, mine, found.message))
    assert not wrong, "\n".join(map(str, wrong))
    assert len(unjudged) <= len(expectations) // 4, "the real one cannot judge these, so that nothing is compared"


def test_every_supported_expectation_is_compared() -> None:
    compared = {entry["type"] for _, expectations, _ in CASES.values() for entry in expectations}
    assert set(SUPPORTED) - compared == {"expect_table_row_count_to_equal_other_table"}, (
        "needs two tables; in test_suites"
    )
    assert len(compared) >= 50
