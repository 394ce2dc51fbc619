"""Checks of the table as a whole and of one number of a column. Pure."""

from __future__ import annotations

from typing import Literal

from modelyard.engines.tables.sql import quoted
from modelyard.planes.data.checks.question import (
    DATASET,
    Context,
    Measure,
    OfTable,
    Question,
    Quick,
    Values,
    by_value,
    can_be_by_value,
    condition,
    count_of,
    count_present,
    every,
    filtered,
    kept_values,
    least,
    present,
    values_of,
)
from modelyard.planes.data.checks.ranks import Numbers, linear, places
from modelyard.planes.data.checks.values import Unfit, fitting, is_float, is_number, is_ordered, is_time, sql_value
from modelyard.types.checks import (
    ColumnCount,
    ColumnExists,
    Columns,
    ColumnType,
    DistinctValues,
    Freshness,
    MostCommon,
    Quantiles,
    RowCount,
    RowCountMatches,
    Scalar,
    Statistic,
)

Structural = ColumnType | Columns | ColumnExists | ColumnCount


def broken_structure(check: Structural, columns: dict[str, str]) -> tuple[object, str]:
    """What was found of the table's structure, and what is wrong with it (empty where nothing is)."""
    names = list(columns)
    match check:
        case ColumnType():
            wanted = [check.type] if isinstance(check.type, str) else check.type
            found = columns.get(check.column)
            if found is None:
                raise Unfit(f"column '{check.column}' is missing; the columns are: {', '.join(names)}")
            return found, "" if found in wanted else f"column '{check.column}' is {found}, not {' or '.join(wanted)}"
        case ColumnExists():
            if check.column not in columns:
                return None, f"column '{check.column}' is missing; the columns are: {', '.join(names)}"
            place = names.index(check.column)
            wrong = check.index is not None and place != check.index
            return place, f"column '{check.column}' is at {place}, not {check.index}" if wrong else ""
        case ColumnCount():
            fits = check.min <= len(names) and (check.max is None or len(names) <= check.max)
            return len(names), "" if fits else f"{len(names)} columns, {_wanted(check.min, check.max)} are asked for"
        case Columns():
            return names, _unlike(check, names)


def _unlike(check: Columns, names: list[str]) -> str:
    if check.ordered:
        return "" if names == check.columns else f"the columns are {', '.join(names)}"
    missing = [one for one in check.columns if one not in names]
    more = [one for one in names if one not in check.columns] if check.exact else []
    parts = [f"missing: {', '.join(missing)}"] if missing else []
    return "; ".join(parts + ([f"not asked for: {', '.join(more)}"] if more else []))


def _wanted(low: int, high: int | None) -> str:
    return f"at least {low}" if high is None else f"{low} to {high}"


def row_count(check: RowCount | RowCountMatches, context: Context) -> Question:
    """How many rows there are, and in the table to compare with."""
    measures = {"rows": count_of(check, "")}
    if isinstance(check, RowCount):
        return Question(check, check.of, measures=measures)
    other = context.table(check.dataset, check.ref)
    facts = {"other": context.facts.get(other.table, {}).get("rows", 0)}
    return Question(check, DATASET, measures=measures, facts=facts)


def freshness(check: Freshness, context: Context) -> Question:
    """The latest instant."""
    kind = context.kind(check.column)
    if not is_time(kind):
        raise Unfit(f"column '{check.column}' is {kind}, not a time")
    latest = f"max({quoted(check.column)}){filtered(condition(check))}"
    measures = {"latest": Measure(f"epoch_us(CAST({latest} AS TIMESTAMP))", "max")}
    return Question(check, DATASET, measures=measures)


def statistic(check: Statistic, context: Context) -> Question:
    """One number of a column: from sums where they tell, else from all of it."""
    kind, name = context.kind(check.column), quoted(check.column)
    for bound in (check.min, check.max):
        if bound is not None:
            _need_bound(check, bound, kind)
    numbers = _not_nan(check.column, context)
    only = filtered(condition(check), numbers)
    values = Measure(f"count({name}){only}")
    match check.measure:
        case "min" | "max":
            if not is_ordered(kind):
                raise Unfit(f"column '{check.column}' is {kind}, which has no order")
            extreme = Measure(f"{check.measure}({name}){only}", check.measure)
            return Question(check, check.of, measures={"value": extreme, "present": values})
        case "length_min" | "length_max":
            if kind != "string":
                raise Unfit(f"column '{check.column}' is {kind}, not text")
            side: Literal["min", "max"] = "min" if check.measure == "length_min" else "max"
            extreme = Measure(f"{side}(length({name})){only}", side)
            return Question(check, check.of, measures={"value": extreme, "present": values})
        case "distinct" | "distinct_share":
            return _distinct(check, kind, every(condition(check), f"{name} IS NOT NULL", numbers))
        case "not_null_share":
            whole = count_of(check, "")
            has_value = count_present(check.column, context, check)
            return Question(check, check.of, measures={"elements": whole, "present": has_value})
        case _:
            if not is_number(kind):
                raise Unfit(f"column '{check.column}' is {kind}, not a number")
            return _of_numbers(check, name, kind, values, context)


def _not_nan(column: str, context: Context) -> str:
    return f"NOT isnan({quoted(column)})" if context.may_be_nan(column) else ""


def _numbers(check: Statistic | Quantiles, context: Context) -> Numbers:
    """The numbers of which there are quantiles."""
    name = quoted(check.column)
    where = every(condition(check), f"{name} IS NOT NULL", _not_nan(check.column, context))
    return Numbers(f"{name}::DOUBLE", where, check.by, context.rows)


def _need_bound(check: Statistic, bound: Scalar, kind: str) -> None:
    if check.measure in ("min", "max"):
        sql_value(bound, kind, check.column)
    elif isinstance(bound, (str, bool)):
        raise Unfit(f"{bound!r} is no number, and {check.measure} is one")


def _of_numbers(check: Statistic, name: str, kind: str, values: Measure, context: Context) -> Question:
    number = f"{name}::DOUBLE"
    if check.measure == "median":
        found = linear(_numbers(check, context), [0.5])
        median = {"value": Measure(f"({found.linear})[1]", "rescan"), "present": Measure(found.count)}
        whole = "" if check.where or check.by else check.column
        return Question(check, check.of, found.source, median, alone=True, median_of=whole)
    finite = filtered(condition(check), f"isfinite({name})" if is_float(kind) else "")
    measures = {"present": values}
    quick = _quick_moments(check, number) if kind in ("double", "float") and check.measure != "sum" else None
    if is_float(kind):
        measures["above"] = count_of(check, f"{name} = 'inf'::DOUBLE")
        measures["below"] = count_of(check, f"{name} = '-inf'::DOUBLE")
    if check.measure == "sum":
        return Question(check, check.of, measures=measures | {"value": Measure(f"sum({name}){finite}")})
    # The square of a double beyond 1e150 overflows, and DuckDB makes an error of that.
    squared = f"CASE WHEN abs({name}) < 1e150 THEN {number} END" if kind == "double" else number
    spread = f"var_pop({squared}){finite}" if check.measure == "std" else "0.0::DOUBLE"
    moments = f"struct_pack(n := count({name}){finite}, mean := avg({number}){finite}, variance := {spread})"
    return Question(check, check.of, measures=measures | {"moments": Measure(moments, "moments")}, quick=quick)


def _quick_moments(check: Statistic, number: str) -> Quick:
    """Moments without a look at each value for NaN, infinity and what has no square: any of them shows in the whole."""
    only = filtered(condition(check))
    wanted = {"n": Measure(f"count({number}){only}"), "mean": Measure(f"avg({number}){only}")}
    if check.measure == "std":
        wanted["variance"] = Measure(f"var_pop({number}){only}")

    def read(values: Values) -> Values | None:
        n, mean, variance = values["n"], values["mean"], values.get("variance", 0.0)
        if not n or mean is None or variance is None:
            return None
        # A value beyond 1e150 among fewer than 1e12 rows would make one of the two larger than this.
        if not (abs(mean) < 1e100 and variance < 1e200):
            return None
        moments = {"n": n, "mean": mean, "variance": variance}
        return {"present": n, "above": 0, "below": 0, "moments": moments}

    return Quick(wanted, read)


def _distinct(check: Statistic, kind: str, where: str) -> Question:
    """Distinct values are kept while they are few, so that those of an append can be added to them."""
    measures = {
        "distinct": Measure("count(__v)", "overflow"),
        "values": Measure(kept_values("__v", "__v IS NOT NULL"), "union"),
        "present": Measure("coalesce(sum(__n) FILTER (WHERE __v IS NOT NULL), 0)::BIGINT"),
    }
    return Question(check, check.of, _distinct_source(check, where, kind), measures)


def _distinct_source(check: Statistic | DistinctValues, where: str, kind: str) -> OfTable:
    """The distinct values, null among them where nothing else is left out: other checks of the column may ask of the
    same."""
    if kind == "string" and not check.where and not check.by and can_be_by_value(check.column):
        return by_value(check.column)
    return values_of(check.column, check, where)


def quantiles(check: Quantiles, context: Context) -> Question:
    """Quantiles of a column of numbers: the two values between which each lies, of which the method makes one."""
    kind = context.kind(check.column)
    if not is_number(kind):
        raise Unfit(f"column '{check.column}' is {kind}, not a number")
    if len(check.quantiles) != len(check.ranges):
        raise Unfit(f"{len(check.quantiles)} quantiles and {len(check.ranges)} ranges")
    numbers = _numbers(check, context)
    if check.method == "linear":
        found = linear(numbers, check.quantiles)
        measures = {"quantiles": Measure(found.linear, "rescan")}
        return Question(check, check.of, found.source, measures, alone=True)
    around = places(numbers, check.quantiles)
    measures = {"last": Measure(around.last, "rescan")}
    for place, (low, high) in enumerate(zip(around.low, around.high, strict=True)):
        measures |= {f"floor{place}": Measure(low, "rescan"), f"ceil{place}": Measure(high, "rescan")}
    return Question(check, check.of, around.source, measures, alone=True)


def distinct_values(check: DistinctValues | MostCommon, context: Context) -> Question:
    """The distinct values of a column with how often each comes, against a set."""
    kind = context.kind(check.column)
    where = every(condition(check), f"({present(check.column, context, check)})")
    if check.semantics == "pandas":
        listed = fitting(check.values, kind, check.column)
    else:
        listed = [sql_value(value, kind, check.column) for value in check.values]
    inside = f"__v IN ({', '.join(listed)})" if listed else "false"
    values = values_of(check.column, check, where)
    if isinstance(check, MostCommon):
        by = f"PARTITION BY {quoted(check.by)}" if check.by else ""
        common = {
            "common": Measure(least("__v", 20, "__n = __most"), "rescan"),
            "commons": Measure("count_if(__n = __most)", "rescan"),
            "hits": Measure(f"count_if(__n = __most AND {inside})", "rescan"),
        }

        def ranked(table: str) -> str:
            return f"(SELECT *, max(__n) OVER ({by}) AS __most FROM {values(table)})"

        return Question(check, check.of, ranked, common, alone=True)
    outside = f"__v IS NOT NULL AND NOT {inside}"
    measures = {
        "found": Measure(f"count_if({inside})", "overflow"),
        "unexpected": Measure(f"count_if({outside})", "overflow"),
        "found_values": Measure(kept_values("__v", inside), "union"),
        "unexpected_values": Measure(kept_values("__v", outside), "union"),
        "sample": Measure(least("__v", 20, outside), "overflow"),
    }
    distinct_wanted = len(set(listed)) + len(check.values) - len(listed)
    rows = None if check.relation == "contain" else _outside_rows(check, where, listed)
    source = _distinct_source(check, where, kind)
    return Question(check, check.of, source, measures, rows=rows, facts={"wanted": distinct_wanted})


def _outside_rows(check: DistinctValues, where: str, listed: list[str]) -> OfTable:
    inside = f"{quoted(check.column)} IN ({', '.join(listed)})" if listed else "false"
    return lambda table: f"SELECT * FROM {table} WHERE {where} AND NOT {inside}"
