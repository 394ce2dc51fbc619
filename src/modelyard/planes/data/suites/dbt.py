"""dbt's `schema.yml` tests as checks: the generic ones, those of dbt_utils and dbt_expectations where a check means
the same. Pure.

Nulls are treated as dbt's SQL treats them. `where`, `severity`, `error_if` and `warn_if` mean what they mean in dbt;
where dbt counts distinct values (in `unique` and `accepted_values`) so do the thresholds here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from modelyard.engines.tables.sql import quoted
from modelyard.planes.data.suites import great_expectations as gx
from modelyard.planes.data.suites.making import made
from modelyard.types.checks import (
    Check,
    DistinctValues,
    Freshness,
    NotInSet,
    NotNull,
    Range,
    References,
    RowCountMatches,
    Satisfies,
    Sql,
    Statistic,
    Suite,
    Thresholds,
    Unique,
    Unsupported,
)

Kwargs = Mapping[str, Any]
Common = dict[str, Any]
_REF = re.compile(r"""\s*(?:ref|source)\(\s*(?:["'][\w.-]+["']\s*,\s*)?["']([\w.-]+)["']\s*\)\s*""")
_CONFIGURED = ("where", "severity", "error_if", "warn_if", "fail_calc", "limit", "enabled", "store_failures", "tags")
_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 604800}


def is_dbt(document: Mapping[str, Any]) -> bool:
    """Whether a document is a dbt properties file."""
    return any(isinstance(document.get(part), list) for part in ("models", "sources", "seeds", "snapshots"))


def dbt_suite(document: Mapping[str, Any], model: str) -> Suite:
    """The tests of one model (or source table, seed or snapshot) as checks. Raises gx.Refused where it is not there."""
    models = {str(one.get("name")): one for one in _models(document)}
    if model not in models and len(models) == 1:
        model = next(iter(models))
    if model not in models:
        raise gx.Refused(f"there is no model '{model}' in the file; it has {', '.join(models) or 'none'}")
    checks = [_check(test, column) for test, column in _tests(models[model])]
    return Suite(name=model, format="dbt", checks=[check for check in checks if check is not None])


def _models(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for part in ("models", "seeds", "snapshots"):
        yield from (one for one in document.get(part) or [] if isinstance(one, Mapping))
    for source in document.get("sources") or []:
        yield from (one for one in source.get("tables") or [] if isinstance(one, Mapping))


def _tests(model: Mapping[str, Any]) -> Iterator[tuple[Any, str]]:
    for key in ("tests", "data_tests"):
        yield from ((test, "") for test in model.get(key) or [])
    for column in model.get("columns") or []:
        for key in ("tests", "data_tests"):
            yield from ((test, str(column.get("name"))) for test in column.get(key) or [])


def _check(test: Any, column: str) -> Check | None:
    """One entry; None for one that is not enabled."""
    kind, given = _parted(test)
    config = {**{key: given.pop(key) for key in _CONFIGURED if key in given}, **(given.pop("config", None) or {})}
    named = str(given.pop("name", "") or "")
    given |= given.pop("arguments", None) or {}
    if config.get("enabled") is False:
        return None
    what = f"{kind}({column})" if column else kind
    try:
        common = _common(config, f"dbt:{kind}", named)
        return _known(kind, given, column, common)
    except gx.Refused as refused:
        reason = str(refused)
    except KeyError as missing:
        reason = f"{missing} is missing"
    except (msgspec.ValidationError, TypeError, ValueError) as error:
        reason = f"its arguments cannot be read: {error}"
    return Unsupported(what=what, reason=reason, severity="warn", origin=f"dbt:{kind}")


def _parted(test: Any) -> tuple[str, dict[str, Any]]:
    """The test's kind and its arguments, in either of dbt's two ways to write them."""
    if isinstance(test, str):
        return test, {}
    if not isinstance(test, Mapping) or not test:
        return str(test)[:80], {}
    if "test_name" in test:
        return str(test["test_name"]), {key: value for key, value in test.items() if key != "test_name"}
    kind = str(next(iter(test)))
    given = dict(test[kind] or {}) if isinstance(test[kind], Mapping) else {}
    return kind, given | {key: value for key, value in test.items() if key != kind}


def _common(config: Kwargs, origin: str, name: str) -> Common:
    if config.get("fail_calc") not in (None, "count(*)"):
        raise gx.Refused("fail_calc is not supported")
    common: Common = {"origin": origin}
    if name:
        common["name"] = name
    where = config.get("where")
    if where:
        if "{{" in str(where) or "{%" in str(where):
            raise gx.Refused("a `where` with a template is not supported")
        common["where"] = str(where)
    if str(config.get("severity", "error")).casefold() == "warn":
        common["severity"] = "warn"
    if config.get("error_if") or config.get("warn_if"):
        common["thresholds"] = Thresholds(
            count="values", block_if=config.get("error_if") or "!= 0", warn_if=config.get("warn_if") or "!= 0"
        )
    return common


def _known(kind: str, given: Kwargs, column: str, common: Common) -> Check:
    package, _, name = kind.rpartition(".")
    if package == "dbt_expectations":
        return _expectation(name, given, column, common)
    readers = _UTILS if package == "dbt_utils" else _GENERIC if not package else {}
    if name not in readers:
        raise gx.Refused("no such test is known here")
    return readers[name](given, str(given.get("column_name") or column), common)


def _expectation(name: str, given: Kwargs, column: str, common: Common) -> Check:
    kwargs = {"column": column, **given}
    where = str(kwargs.pop("row_condition", "") or "")
    if kwargs.pop("group_by", None) or kwargs.get("is_raw") or kwargs.get("flags"):
        raise gx.Refused("group_by, is_raw and flags are not supported")
    if kwargs.pop("strictly", False) and not name.endswith(("increasing", "decreasing")):
        kwargs |= {"strict_min": True, "strict_max": True}
    if kwargs.get("ignore_row_if") is None:
        kwargs.pop("ignore_row_if", None)
    both = " AND ".join(f"({one}\n)" for one in (common.get("where", ""), where) if one)
    ahead = {key: value for key, value in common.items() if key != "where"}
    return gx.check_of(name, kwargs, {"semantics": "sql", **ahead}, where=both)


# --- generic tests ------------------------------------------------------------------------------------------------


def dataset_of(text: Any) -> str:
    """The dataset that `ref('x')` or `source('a', 'x')` names."""
    found = _REF.fullmatch(str(text))
    if found is None:
        raise gx.Refused(f"{text!r} names no model")
    return found[1]


def _accepted(given: Kwargs, column: str, common: Common) -> Check:
    return made(DistinctValues, column=column, values=list(given["values"]), relation="within", **common)


def _relationships(given: Kwargs, column: str, common: Common) -> Check:
    return made(References, columns=[column], dataset=dataset_of(given["to"]), to=[str(given["field"])], **common)


def _relationships_where(given: Kwargs, column: str, common: Common) -> Check:
    own = [str(one) for one in (common.pop("where", ""), given.get("from_condition", "")) if one]
    return made(
        References,
        columns=[column],
        dataset=dataset_of(given["to"]),
        to=[str(given["field"])],
        to_where=str(given.get("to_condition") or ""),
        where=" AND ".join(f"({one})" for one in own),
        **common,
    )


def _combination(given: Kwargs, _: str, common: Common) -> Check:
    # dbt groups by the columns: nulls agree with nulls.
    return made(Unique, columns=list(given["combination_of_columns"]), ignore_row_if="never", **common)


def _accepted_range(given: Kwargs, column: str, common: Common) -> Check:
    bounds = {"min": given.get("min_value"), "max": given.get("max_value")}
    return made(Range, column=column, strict=not given.get("inclusive", True), **bounds, **common)


def _expression(given: Kwargs, column: str, common: Common) -> Check:
    text = str(given["expression"])
    if "{{" in text:
        raise gx.Refused("an expression with a template is not supported")
    return made(Satisfies, condition=f"{quoted(column)} {text}" if column else text, column=column, **common)


def _share(given: Kwargs, column: str, common: Common) -> Check:
    bounds = {"min": given.get("at_least", 0), "max": given.get("at_most", 1)}
    return made(Statistic, column=column, measure="not_null_share", **bounds, **common)


def _recency(given: Kwargs, _: str, common: Common) -> Check:
    part = str(given["datepart"]).casefold()
    if part not in _SECONDS:
        raise gx.Refused(f"the datepart {part!r} has no fixed length")
    return made(Freshness, column=str(given["field"]), max_age_s=_SECONDS[part] * float(given["interval"]), **common)


def _rows(operator: str) -> Reader:
    def read(given: Kwargs, _: str, common: Common) -> Check:
        other = dataset_of(given["compare_model"])
        return made(RowCountMatches, dataset=other, operator=operator, **common)

    return read


def _exclusive(given: Kwargs, _: str, common: Common) -> Check:
    low, high = quoted(given["lower_bound_column"]), quoted(given["upper_bound_column"])
    if given.get("gaps", "allowed") != "allowed" or given.get("partition_by") or given.get("zero_length_range_allowed"):
        raise gx.Refused("gaps, partition_by and zero_length_range_allowed are not supported")
    ahead = f"SELECT *, lead({low}) OVER (ORDER BY {low}, {high}) AS next_ FROM dataset"
    return made(Sql, query=f"SELECT * FROM ({ahead}) WHERE {low} >= {high} OR {high} > next_", **common)


Reader = Callable[[Kwargs, str, Common], Check]
_GENERIC: dict[str, Reader] = {
    "not_null": lambda _, column, common: made(NotNull, column=column, **common),
    "unique": lambda _, column, common: made(Unique, columns=[column], **common),
    "accepted_values": _accepted,
    "relationships": _relationships,
}
_UTILS: dict[str, Reader] = {
    "unique_combination_of_columns": _combination,
    "accepted_range": _accepted_range,
    "expression_is_true": _expression,
    "not_null_proportion": _share,
    "not_accepted_values": lambda given, column, common: made(
        NotInSet, column=column, values=list(given["values"]), **common
    ),
    "not_empty_string": lambda given, column, common: made(
        Satisfies,
        column=column,
        condition=f"{'trim' if given.get('trim_whitespace', True) else ''}({quoted(column)}) IS DISTINCT FROM ''",
        **common,
    ),
    "not_constant": lambda _, column, common: made(Statistic, column=column, measure="distinct", min=2, **common),
    "at_least_one": lambda _, column, common: made(Statistic, column=column, measure="distinct", min=1, **common),
    "equal_rowcount": _rows("="),
    "fewer_rows_than": _rows("<"),
    "relationships_where": _relationships_where,
    "recency": _recency,
    "mutually_exclusive_ranges": _exclusive,
}
SUPPORTED: Sequence[str] = (
    *sorted(_GENERIC),
    *sorted(f"dbt_utils.{name}" for name in _UTILS),
    "dbt_expectations.* of the names above",
)
