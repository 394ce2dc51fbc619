"""Checks as a suite of Great Expectations 1.x. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modelyard.planes.data.checks.verdicts import name_of
from modelyard.types.checks import (
    Check,
    ColumnCount,
    ColumnExists,
    Columns,
    Compare,
    DistinctValues,
    InSet,
    IsNull,
    Length,
    Like,
    Monotonic,
    MostCommon,
    NotInSet,
    NotNull,
    Parses,
    Range,
    Regex,
    RowCount,
    Statistic,
    SumEquals,
    Unique,
    ZScore,
)

_STATISTICS = {
    "min": "min", "max": "max", "mean": "mean", "median": "median", "sum": "sum", "std": "stdev",
    "distinct": "unique_value_count", "distinct_share": "proportion_of_unique_values",
    "not_null_share": "proportion_of_non_null_values",
}  # fmt: skip
_IGNORED = {"any_null": "any_value_is_missing", "all_null": "all_values_are_missing", "never": "never"}
_RELATIONS = {"within": "to_be_in_set", "contain": "to_contain_set", "equal": "to_equal_set"}
_TEXTS = {
    "json": "expect_column_values_to_be_json_parseable",
    "date": "expect_column_values_to_be_dateutil_parseable",
    "strftime": "expect_column_values_to_match_strftime_format",
}


def gx_suite(name: str, checks: Sequence[Check]) -> dict[str, Any]:
    """The suite; what it has no expectation for is listed by name in its `meta`."""
    written, left_out = [], []
    for check in checks:
        found = _expectation(check)
        if found is None or check.where or check.by or check.thresholds:
            left_out.append(name_of(check))
            continue
        kind, kwargs = found
        mostly = {"mostly": check.mostly} if check.mostly != 1.0 else {}
        severity = "critical" if check.severity == "block" else "warning"
        written.append({"type": kind, "kwargs": kwargs | mostly, "meta": {}, "severity": severity})
    return {"name": name, "expectations": written, "meta": {"modelyard": {"not_exported": left_out}}}


def _expectation(check: Check) -> tuple[str, dict[str, Any]] | None:
    match check:
        case NotNull(column=column):
            return "expect_column_values_to_not_be_null", {"column": column}
        case IsNull(column=column):
            return "expect_column_values_to_be_null", {"column": column}
        case InSet(column=column, values=values):
            return "expect_column_values_to_be_in_set", {"column": column, "value_set": values}
        case NotInSet(column=column, values=values):
            return "expect_column_values_to_not_be_in_set", {"column": column, "value_set": values}
        case Range(column=column):
            return "expect_column_values_to_be_between", {"column": column, **_bounds(check)}
        case Regex() | Like():
            return _pattern(check)
        case Length(column=column, min=low, max=high):
            return "expect_column_value_lengths_to_be_between", _kept(column=column, min_value=low, max_value=high)
        case Parses(column=column, form=form, format=given) if form in _TEXTS:
            return _TEXTS[form], _kept(column=column, strftime_format=given or None)
        case Monotonic(column=column, direction=direction, strictly=strictly, order_by=""):
            return f"expect_column_values_to_be_{direction}", {"column": column, "strictly": strictly}
        case ZScore(column=column, threshold=threshold, both_sides=both):
            kwargs = {"column": column, "threshold": threshold, "double_sided": both}
            return "expect_column_value_z_scores_to_be_less_than", kwargs
        case _:
            return _several(check) or _whole(check)


def _pattern(check: Regex | Like) -> tuple[str, dict[str, Any]]:
    what = "regex" if isinstance(check, Regex) else "like_pattern"
    verb = "not_match" if check.negate else "match"
    if isinstance(check.pattern, str):
        return f"expect_column_values_to_{verb}_{what}", {"column": check.column, what: check.pattern}
    match = {} if check.negate else {"match_on": check.match}
    kwargs = {"column": check.column, f"{what}_list": list(check.pattern), **match}
    return f"expect_column_values_to_{verb}_{what}_list", kwargs


def _several(check: Check) -> tuple[str, dict[str, Any]] | None:
    match check:
        case Unique(columns=[column], ignore_row_if="any_null" | "all_null"):
            return "expect_column_values_to_be_unique", {"column": column}
        case Unique(columns=columns, ignore_row_if=ignored):
            ignored_by = {"any_null": "any_value_is_missing", "all_null": "all_values_are_missing"}.get(
                ignored, "never"
            )
            return "expect_compound_columns_to_be_unique", {"column_list": list(columns), "ignore_row_if": ignored_by}
        case SumEquals(columns=columns, total=total):
            return "expect_multicolumn_sum_to_equal", {"column_list": list(columns), "sum_total": total}
        case Compare(column=column, operator="=", other=other):
            return "expect_column_pair_values_to_be_equal", {"column_A": column, "column_B": other}
        case Compare(column=column, operator=">" | ">=" as operator, other=other):
            kwargs = {"column_A": column, "column_B": other, "or_equal": operator == ">="}
            return "expect_column_pair_values_a_to_be_greater_than_b", kwargs
        case _:
            return None


def _whole(check: Check) -> tuple[str, dict[str, Any]] | None:
    match check:
        case Statistic(column=column, measure=measure) if measure in _STATISTICS:
            return f"expect_column_{_STATISTICS[measure]}_to_be_between", {"column": column, **_bounds(check)}
        case DistinctValues(column=column, values=values, relation=relation):
            return f"expect_column_distinct_values_{_RELATIONS[relation]}", {"column": column, "value_set": values}
        case MostCommon(column=column, values=values, ties=ties):
            kwargs = {"column": column, "value_set": values, "ties_okay": ties}
            return "expect_column_most_common_value_to_be_in_set", kwargs
        case RowCount(min=low, max=high):
            return "expect_table_row_count_to_be_between", _kept(min_value=low, max_value=high)
        case ColumnCount(min=low, max=high):
            return "expect_table_column_count_to_be_between", _kept(min_value=low, max_value=high)
        case ColumnExists(column=column, index=index):
            return "expect_column_to_exist", _kept(column=column, column_index=index)
        case Columns(columns=columns, ordered=True):
            return "expect_table_columns_to_match_ordered_list", {"column_list": columns}
        case Columns(columns=columns, exact=exact):
            return "expect_table_columns_to_match_set", {"column_set": columns, "exact_match": exact}
        case _:
            return None


def _bounds(check: Range | Statistic) -> dict[str, Any]:
    both = isinstance(check, Range) and check.strict
    strict = {"strict_min": True} if both or check.strict_min else {}
    strict |= {"strict_max": True} if both or check.strict_max else {}
    return _kept(min_value=check.min, max_value=check.max) | strict


def _kept(**kwargs: Any) -> dict[str, Any]:
    return {key: value for key, value in kwargs.items() if value is not None}
