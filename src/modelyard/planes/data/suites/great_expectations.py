"""Suites of Great Expectations 1.x as checks. Pure.

An expectation becomes the check that says the same, with pandas' rules for what is missing, so that counts and verdicts
are those of the real one. What has no such check is listed as unsupported, by name and with the reason.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from modelyard.planes.data.suites.conditions import Unreadable, row_condition
from modelyard.planes.data.suites.making import made
from modelyard.planes.data.suites.types import arrow_types
from modelyard.types.checks import (
    AllEqual,
    Check,
    ColumnCount,
    ColumnExists,
    Columns,
    ColumnType,
    Compare,
    DistinctValues,
    DistinctWithinRow,
    Divergence,
    InSet,
    IsNull,
    Length,
    Like,
    Monotonic,
    MostCommon,
    NotInSet,
    NotNull,
    Outliers,
    Parses,
    Quantiles,
    Range,
    Reference,
    Regex,
    RowCount,
    RowCountMatches,
    Sql,
    Statistic,
    Suite,
    SumEquals,
    TuplesInSet,
    Unique,
    Unsupported,
    ZScore,
)

Kwargs = Mapping[str, Any]
Common = dict[str, Any]
Reader = Callable[[Kwargs, Common], Check]
_IGNORE = {
    "both_values_are_missing": "all_null",
    "either_value_is_missing": "any_null",
    "neither": "never",
    "all_values_are_missing": "all_null",
    "any_value_is_missing": "any_null",
    "never": "never",
}
_SHELLS = {
    "expect_column_bootstrapped_ks_test_p_value_to_be_greater_than",
    "expect_column_chisquare_test_p_value_to_be_greater_than",
    "expect_column_pair_cramers_phi_value_to_be_less_than",
    "expect_column_parameterized_distribution_ks_test_p_value_to_be_greater_than",
    "expect_multicolumn_values_to_be_unique",
}


class Refused(Exception):
    """This expectation is not supported; the message says why."""


def gx_suite_checks(document: Mapping[str, Any]) -> Suite:
    """The checks of a suite. `expectation_type` and `expectation_suite_name` of older files are read too."""
    name = str(document.get("name") or document.get("expectation_suite_name") or "")
    given = document.get("suite_parameters") or {}
    return Suite(
        name=name,
        format="great_expectations",
        checks=[expectation(one, given) for one in document.get("expectations") or []],
    )


def expectation(entry: Any, parameters: Kwargs = {}) -> Check:  # noqa: B006 - is never changed
    """One expectation of a suite as a check."""
    if not isinstance(entry, Mapping):
        return Unsupported(what=str(entry)[:80], reason="this is no expectation", severity="warn")
    kind = str(entry.get("type") or entry.get("expectation_type"))
    try:
        severity = "block" if entry.get("severity", "critical") == "critical" else "warn"
        kwargs = {key: _given(value, parameters) for key, value in (entry.get("kwargs") or {}).items()}
        return check_of(kind, kwargs, {"severity": severity, "semantics": "pandas", "origin": kind})
    except Refused as refused:
        return Unsupported(what=kind, reason=str(refused), severity="warn", origin=kind)


def check_of(kind: str, kwargs: Kwargs, common: Common, where: str | None = None) -> Check:
    """An expectation of this type as a check. `where` takes the place of a row condition. Raises Refused."""
    reader = _READERS.get(kind)
    if reader is None:
        raise Refused(_why_not(kind))
    try:
        asked = row_condition(kwargs.get("row_condition"), kwargs.get("condition_parser")) if where is None else where
    except Unreadable as unreadable:
        raise Refused(f"{unreadable} is not supported as a row condition") from None
    settled = dict(common)
    if asked:
        settled["where"] = asked
    if kwargs.get("mostly") is not None:
        settled["mostly"] = float(kwargs["mostly"])
    try:
        return reader(kwargs, settled)
    except KeyError as missing:
        raise Refused(f"{missing} is missing") from None
    except (msgspec.ValidationError, TypeError, ValueError) as error:
        raise Refused(f"its arguments cannot be read: {error}") from None


def _why_not(kind: str) -> str:
    if kind in _SHELLS:
        return "Great Expectations 1.x names this expectation and does not implement it"
    if kind == "expect_query_results_to_match_comparison":
        return "it queries a second data source"
    return "no such expectation is known here"


def _given(value: Any, parameters: Kwargs) -> Any:
    if isinstance(value, Mapping) and "$PARAMETER" in value:
        name = value["$PARAMETER"]
        if name not in parameters:
            raise Refused(f"the suite parameter {name!r} has no value")
        return parameters[name]
    return value


# --- arguments ----------------------------------------------------------------------------------------------------


def _bounds(kwargs: Kwargs) -> dict[str, Any]:
    low, high = kwargs.get("min_value"), kwargs.get("max_value")
    found: dict[str, Any] = {"min": low, "max": high}
    return found | {side: True for side in ("strict_min", "strict_max") if kwargs.get(side)}


def _values(kwargs: Kwargs, name: str = "value_set") -> list[Any]:
    values = kwargs.get(name)
    if values is None:
        raise Refused(f"without a {name} it asks for nothing")
    return [value for value in values if value is not None]


def _range(kwargs: Kwargs, common: Common) -> Check:
    if kwargs.get("min_value") is None and kwargs.get("max_value") is None:
        raise Refused("it needs min_value, max_value or both")
    return made(Range, column=kwargs["column"], **_bounds(kwargs), **common)


def _length(kwargs: Kwargs, common: Common) -> Check:
    if "value" in kwargs:
        return made(Length, column=kwargs["column"], min=int(kwargs["value"]), max=int(kwargs["value"]), **common)
    low, high = kwargs.get("min_value"), kwargs.get("max_value")
    if low is None and high is None:
        raise Refused("it needs min_value, max_value or both")
    least = 0 if low is None else int(low) + bool(kwargs.get("strict_min"))
    most = None if high is None else int(high) - bool(kwargs.get("strict_max"))
    if most is not None and most < 0:
        raise Refused("no text is shorter than nothing")
    return made(Length, column=kwargs["column"], min=max(least, 0), max=most, **common)


def _patterns(key: str, kind: type[Regex] | type[Like], negate: bool) -> Reader:
    def read(kwargs: Kwargs, common: Common) -> Check:
        match = kwargs.get("match_on") or "any"
        return made(kind, column=kwargs["column"], pattern=kwargs[key], match=match, negate=negate, **common)

    return read


def _typed(kwargs: Kwargs, common: Common) -> Check:
    names = kwargs["type_list"] if "type_list" in kwargs else [kwargs["type_"]]
    known = sorted({kind for name in names for kind in arrow_types(str(name))})
    if not known:
        raise Refused(f"no type here is called {', '.join(map(str, names))}")
    return made(ColumnType, column=kwargs["column"], type=known, **_without(common, "where", "mostly"))


def _monotonic(direction: str) -> Reader:
    def read(kwargs: Kwargs, common: Common) -> Check:
        strictly = bool(kwargs.get("strictly"))
        return made(Monotonic, column=kwargs["column"], direction=direction, strictly=strictly, **common)

    return read


def _statistic(measure: str) -> Reader:
    def read(kwargs: Kwargs, common: Common) -> Check:
        return made(Statistic, column=kwargs["column"], measure=measure, **_bounds(kwargs), **common)

    return read


def _quantiles(kwargs: Kwargs, common: Common) -> Check:
    asked = kwargs["quantile_ranges"]
    method = kwargs.get("allow_relative_error") or "nearest"
    ranges = [(low, high) for low, high in asked["value_ranges"]]
    return made(
        Quantiles,
        column=kwargs["column"],
        quantiles=asked["quantiles"],
        ranges=ranges,
        method=method if isinstance(method, str) else "nearest",
        **common,
    )


def _divergence(kwargs: Kwargs, common: Common) -> Check:
    asked = kwargs.get("partition_object")
    if asked is None:
        raise Refused("without a partition_object it compares the column with itself")
    if kwargs.get("bucketize_data") is False and "bins" in asked:
        raise Refused("a partition of bins needs bucketize_data")
    partition = Reference(bins=asked.get("bins", []), values=asked.get("values", []), weights=asked["weights"])
    return made(
        Divergence,
        column=kwargs["column"],
        partition=partition,
        tail_weights=asked.get("tail_weights") or [],
        max=kwargs.get("threshold"),
        tail_weight_holdout=kwargs.get("tail_weight_holdout") or 0.0,
        internal_weight_holdout=kwargs.get("internal_weight_holdout") or 0.0,
        **common,
    )


def _distinct(relation: str) -> Reader:
    def read(kwargs: Kwargs, common: Common) -> Check:
        return made(DistinctValues, column=kwargs["column"], values=_values(kwargs), relation=relation, **common)

    return read


def _pair(kwargs: Kwargs, common: Common, operator: str) -> Check:
    ignored = _IGNORE[kwargs.get("ignore_row_if") or "both_values_are_missing"]
    return made(
        Compare,
        column=kwargs["column_A"],
        operator=operator,
        other=kwargs["column_B"],
        ignore_row_if=ignored,
        **common,
    )


def _pairs_in_set(kwargs: Kwargs, common: Common) -> Check:
    ignored = _IGNORE[kwargs.get("ignore_row_if") or "both_values_are_missing"]
    pairs = [list(pair) for pair in _values(kwargs, "value_pairs_set")]
    columns = [kwargs["column_A"], kwargs["column_B"]]
    return made(TuplesInSet, columns=columns, values=pairs, ignore_row_if=ignored, **common)


def _several(kind: type[Unique] | type[DistinctWithinRow] | type[AllEqual]) -> Reader:
    def read(kwargs: Kwargs, common: Common) -> Check:
        ignored = _IGNORE[kwargs.get("ignore_row_if") or "all_values_are_missing"]
        return made(kind, columns=list(kwargs["column_list"]), ignore_row_if=ignored, **common)

    return read


def _sum(kwargs: Kwargs, common: Common) -> Check:
    ignored = _IGNORE[kwargs.get("ignore_row_if") or "all_values_are_missing"]
    return made(
        SumEquals,
        columns=list(kwargs["column_list"]),
        total=float(kwargs["sum_total"]),
        ignore_row_if=ignored,
        **common,
    )


def _rows(kwargs: Kwargs, common: Common) -> Check:
    low, high = _ends(kwargs)
    return made(RowCount, of="dataset", min=max(low, 0), max=high, **_without(common, "mostly"))


def _ends(kwargs: Kwargs) -> tuple[int, int | None]:
    if "value" in kwargs:
        return int(kwargs["value"]), int(kwargs["value"])
    low, high = kwargs.get("min_value"), kwargs.get("max_value")
    least = 0 if low is None else int(low) + bool(kwargs.get("strict_min"))
    most = None if high is None else int(high) - bool(kwargs.get("strict_max"))
    return least, most


def _column_count(kwargs: Kwargs, common: Common) -> Check:
    low, high = _ends(kwargs)
    return made(ColumnCount, min=low, max=high, **_without(common, "where", "mostly"))


def _column_set(kwargs: Kwargs, common: Common) -> Check:
    exact = kwargs.get("exact_match")
    columns = sorted(kwargs.get("column_set") or [])
    return made(Columns, columns=columns, exact=exact is None or bool(exact), **_without(common, "where", "mostly"))


def _column_list(kwargs: Kwargs, common: Common) -> Check:
    return made(
        Columns, columns=list(_values(kwargs, "column_list")), ordered=True, **_without(common, "where", "mostly")
    )


def _exists(kwargs: Kwargs, common: Common) -> Check:
    # As in the original, place 0 asks for nothing.
    index = kwargs.get("column_index") or None
    return made(ColumnExists, column=kwargs["column"], index=index, **_without(common, "where", "mostly"))


def _own_query(kwargs: Kwargs, common: Common) -> Check:
    query = str(kwargs["unexpected_rows_query"])
    if "{batch}" not in query:
        raise Refused("a query without {batch} reads another table")
    return made(Sql, query=query.replace("{batch}", "dataset").rstrip().rstrip(";"), **_without(common, "mostly"))


def _without(common: Common, *names: str) -> Common:
    for name in names:
        if name in common and name == "where":
            raise Refused("a row condition says nothing about columns")
    return {key: value for key, value in common.items() if key not in names}


def _text(form: str, **arguments: str) -> Reader:
    def read(kwargs: Kwargs, common: Common) -> Check:
        given = {name: kwargs[key] for name, key in arguments.items()}
        if "schema" in given and not isinstance(given["schema"], str):
            given["schema"] = json.dumps(given["schema"])
        return made(Parses, column=kwargs["column"], form=form, **given, **common)

    return read


_READERS: dict[str, Reader] = {
    "expect_column_values_to_not_be_null": lambda k, c: made(NotNull, column=k["column"], **c),
    "expect_column_values_to_be_null": lambda k, c: made(IsNull, column=k["column"], **c),
    "expect_column_values_to_be_in_set": lambda k, c: made(InSet, column=k["column"], values=_values(k), **c),
    "expect_column_values_to_not_be_in_set": lambda k, c: made(NotInSet, column=k["column"], values=_values(k), **c),
    "expect_column_values_to_be_between": _range,
    "expect_column_values_to_be_unique": lambda k, c: made(Unique, columns=[k["column"]], **c),
    "expect_column_values_to_be_of_type": _typed,
    "expect_column_values_to_be_in_type_list": _typed,
    "expect_column_type_to_be": _typed,
    "expect_column_value_lengths_to_be_between": _length,
    "expect_column_value_lengths_to_equal": _length,
    "expect_column_values_to_match_regex": _patterns("regex", Regex, negate=False),
    "expect_column_values_to_not_match_regex": _patterns("regex", Regex, negate=True),
    "expect_column_values_to_match_regex_list": _patterns("regex_list", Regex, negate=False),
    "expect_column_values_to_not_match_regex_list": _patterns("regex_list", Regex, negate=True),
    "expect_column_values_to_match_like_pattern": _patterns("like_pattern", Like, negate=False),
    "expect_column_values_to_not_match_like_pattern": _patterns("like_pattern", Like, negate=True),
    "expect_column_values_to_match_like_pattern_list": _patterns("like_pattern_list", Like, negate=False),
    "expect_column_values_to_not_match_like_pattern_list": _patterns("like_pattern_list", Like, negate=True),
    "expect_column_values_to_match_strftime_format": _text("strftime", format="strftime_format"),
    "expect_column_values_to_be_dateutil_parseable": _text("date"),
    "expect_column_values_to_be_json_parseable": _text("json"),
    "expect_column_values_to_match_json_schema": _text("json_schema", schema="json_schema"),
    "expect_column_values_to_be_increasing": _monotonic("increasing"),
    "expect_column_values_to_be_decreasing": _monotonic("decreasing"),
    "expect_column_value_z_scores_to_be_less_than": lambda k, c: made(
        ZScore, column=k["column"], threshold=float(k["threshold"]), both_sides=bool(k.get("double_sided", True)), **c
    ),
    "expect_column_values_to_not_be_outliers": lambda k, c: made(
        Outliers, column=k["column"], method=k.get("method") or "iqr", multiplier=float(k.get("multiplier") or 1.5), **c
    ),
    "expect_column_pair_values_to_be_equal": lambda k, c: _pair(k, c, "="),
    "expect_column_pair_values_a_to_be_greater_than_b": lambda k, c: _pair(k, c, ">=" if k.get("or_equal") else ">"),
    "expect_column_pair_values_to_be_in_set": _pairs_in_set,
    "expect_compound_columns_to_be_unique": _several(Unique),
    "expect_select_column_values_to_be_unique_within_record": _several(DistinctWithinRow),
    "expect_multicolumn_values_to_be_equal": _several(AllEqual),
    "expect_multicolumn_sum_to_equal": _sum,
    "expect_column_min_to_be_between": _statistic("min"),
    "expect_column_max_to_be_between": _statistic("max"),
    "expect_column_mean_to_be_between": _statistic("mean"),
    "expect_column_median_to_be_between": _statistic("median"),
    "expect_column_sum_to_be_between": _statistic("sum"),
    "expect_column_stdev_to_be_between": _statistic("std"),
    "expect_column_unique_value_count_to_be_between": _statistic("distinct"),
    "expect_column_proportion_of_unique_values_to_be_between": _statistic("distinct_share"),
    "expect_column_proportion_of_non_null_values_to_be_between": _statistic("not_null_share"),
    "expect_column_quantile_values_to_be_between": _quantiles,
    "expect_column_kl_divergence_to_be_less_than": _divergence,
    "expect_column_distinct_values_to_be_in_set": _distinct("within"),
    "expect_column_distinct_values_to_contain_set": _distinct("contain"),
    "expect_column_distinct_values_to_equal_set": _distinct("equal"),
    "expect_column_most_common_value_to_be_in_set": lambda k, c: made(
        MostCommon, column=k["column"], values=_values(k), ties=bool(k.get("ties_okay")), **c
    ),
    "expect_column_to_exist": _exists,
    "expect_table_column_count_to_be_between": _column_count,
    "expect_table_column_count_to_equal": _column_count,
    "expect_table_columns_to_match_set": _column_set,
    "expect_table_columns_to_match_ordered_list": _column_list,
    "expect_table_row_count_to_be_between": _rows,
    "expect_table_row_count_to_equal": _rows,
    "expect_table_row_count_to_equal_other_table": lambda k, c: made(
        RowCountMatches, dataset=k["other_table_name"], **_without(c, "mostly")
    ),
    "unexpected_rows_expectation": _own_query,
}
SUPPORTED = tuple(sorted(_READERS))
