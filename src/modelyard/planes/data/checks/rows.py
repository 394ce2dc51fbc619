"""Checks that look at each row alone: one condition, counted. Pure."""

from __future__ import annotations

from itertools import combinations, pairwise

from modelyard.engines.tables.sql import literal, quoted
from modelyard.planes.data.checks.patterns import to_re2
from modelyard.planes.data.checks.question import (
    BATCH,
    Context,
    Question,
    condition,
    count_of,
    count_present,
    every,
    present,
    regarded,
)
from modelyard.planes.data.checks.values import Unfit, fitting, is_float, is_number, sql_value
from modelyard.types.checks import (
    AllEqual,
    Compare,
    DistinctWithinRow,
    Finite,
    InSet,
    IsNull,
    Length,
    Like,
    NotInSet,
    NotNull,
    Range,
    Regex,
    RowWise,
    Satisfies,
    SumEquals,
    TuplesInSet,
)

# Values of one column: what a check of it is about.
OneColumn = InSet | NotInSet | Range | Regex | Like | Length | Finite


def row_wise(check: RowWise, context: Context) -> Question:
    """A check of each row as counts of rows looked at, of those with a value, and of those that break it."""
    match check:
        case NotNull() | IsNull():
            return _nulls(check, context)
        case Satisfies():
            return counting(check, "", f"(({check.condition}\n) IS NOT TRUE)")
        case Compare():
            return _compare(check, context)
        case TuplesInSet() | SumEquals() | AllEqual() | DistinctWithinRow():
            return _several(check, context)
        case _:
            kind = context.kind(check.column)
            # A condition on null is null, which does not count: only NaN must be left out.
            no_nan = (
                f"NOT isnan({quoted(check.column)})"
                if check.semantics == "pandas" and context.may_be_nan(check.column)
                else ""
            )
            bad = every(no_nan, f"({_violation(check, kind)})")
            counts = {
                "elements": count_of(check, ""),
                "present": count_present(check.column, context, check),
                "failing": count_of(check, bad),
            }
            failing = every(condition(check), bad)
            return Question(check, BATCH, measures=counts, fails=failing)


def counting(check: RowWise, looked_at: str, bad: str) -> Question:
    """Rows of the batch that are looked at and bad. `looked_at` is empty where every row is."""
    measures = {"elements": count_of(check, ""), "failing": count_of(check, every(looked_at, bad))}
    if looked_at:
        measures["present"] = count_of(check, looked_at)
    failing = every(condition(check), looked_at, bad)
    return Question(check, BATCH, measures=measures, fails=failing)


def _nulls(check: NotNull | IsNull, context: Context) -> Question:
    has_value = present(check.column, context, check)
    bad = has_value if isinstance(check, IsNull) else f"NOT ({has_value})"
    measures = {"elements": count_of(check, ""), "present": count_present(check.column, context, check)}
    failing = every(condition(check), f"({bad})")
    return Question(check, BATCH, measures=measures, fails=failing)


def _violation(check: OneColumn, kind: str) -> str:
    """The SQL condition that a row breaks the check, for rows that have a value."""
    column = quoted(check.column)
    match check:
        case Finite():
            if not is_number(kind):
                raise Unfit(f"column '{check.column}' is {kind}, not a number")
            return f"NOT isfinite({column})" if is_float(kind) else "false"
        case InSet() | NotInSet():
            return _membership(check, column, kind)
        case Range():
            return _outside(check, column, kind)
        case Regex():
            return _unmatched(check, column, kind)
        case Like():
            _need_text(check.column, kind)
            listed = [check.pattern] if isinstance(check.pattern, str) else check.pattern
            return _combined(check, [f"{column} LIKE {literal(one)}" for one in listed])
        case Length():
            return _length(check, column, kind)


def _membership(check: InSet | NotInSet, column: str, kind: str) -> str:
    if check.semantics == "pandas":
        listed = fitting(check.values, kind, check.column)
    else:
        listed = [sql_value(value, kind, check.column) for value in check.values]
    if not listed:
        return f"{column} IS NOT NULL" if isinstance(check, InSet) else "false"
    return f"{column} {'NOT IN' if isinstance(check, InSet) else 'IN'} ({', '.join(listed)})"


def _outside(check: Range, column: str, kind: str) -> str:
    if check.min is None and check.max is None:
        raise Unfit("a range needs `min`, `max` or both")
    below = "<=" if check.strict or check.strict_min else "<"
    above = ">=" if check.strict or check.strict_max else ">"
    parts = [f"isnan({column})"] if is_float(kind) and check.semantics == "sql" else []
    if check.min is not None:
        parts.append(f"{column} {below} {sql_value(check.min, kind, check.column)}")
    if check.max is not None:
        parts.append(f"{column} {above} {sql_value(check.max, kind, check.column)}")
    return " OR ".join(parts)


def _unmatched(check: Regex, column: str, kind: str) -> str:
    listed = [check.pattern] if isinstance(check.pattern, str) else check.pattern
    text = _as_text(check, column, kind)
    if check.semantics == "pandas":
        listed = [to_re2(one) for one in listed]
    return _combined(check, [f"regexp_matches({text}, {literal(one)})" for one in listed])


def _combined(check: Regex | Like, matches: list[str]) -> str:
    """What breaks a check of patterns. Negated, no value may match any (or, with `all`, all) of them."""
    joined = (" OR " if check.match == "any" else " AND ").join(matches)
    return f"({joined})" if check.negate else f"NOT ({joined})"


def _length(check: Length, column: str, kind: str) -> str:
    length = f"length({_as_text(check, column, kind)})"
    above = "" if check.max is None else f" OR {length} > {check.max}"
    return f"{length} < {check.min}{above}"


def _as_text(check: Regex | Length, column: str, kind: str) -> str:
    if check.semantics == "pandas" and (kind.startswith("int") or kind == "bool"):
        # Python writes True and False.
        return f"CAST({column} AS VARCHAR)" if kind != "bool" else f"CASE WHEN {column} THEN 'True' ELSE 'False' END"
    _need_text(check.column, kind)
    return column


def _need_text(column: str, kind: str) -> None:
    if kind != "string":
        raise Unfit(f"column '{column}' is {kind}, not text")


# --- several columns ----------------------------------------------------------------------------------------------


def _compare(check: Compare, context: Context) -> Question:
    kinds = [context.kind(check.column), context.kind(check.other)]
    if kinds[0] != kinds[1] and not all(is_number(kind) for kind in kinds):
        both_times = all(kind.startswith(("timestamp", "date")) for kind in kinds)
        if not both_times:
            raise Unfit(f"column '{check.column}' is {kinds[0]} and '{check.other}' is {kinds[1]}")
    has_value = [present(one, context, check) for one in (check.column, check.other)]
    holds = f"{quoted(check.column)} {check.operator} {quoted(check.other)}"
    good = every(*(f"({one})" for one in has_value), f"({holds})")
    # `!=` holds in Python where one side is missing.
    bad = f"NOT (({holds}) OR NOT ({has_value[0]} AND {has_value[1]}))" if check.operator == "!=" else f"NOT ({good})"
    return counting(check, regarded(check.ignore_row_if, has_value), f"({bad})")


def _several(check: TuplesInSet | SumEquals | AllEqual | DistinctWithinRow, context: Context) -> Question:
    kinds = [context.kind(column) for column in check.columns]
    has_value = [present(column, context, check) for column in check.columns]
    looked_at = regarded(check.ignore_row_if, has_value)
    # What is missing under pandas' rules is null from here on.
    values = [
        f"CASE WHEN {has} THEN {quoted(column)} END" if "isnan" in has else quoted(column)
        for column, has in zip(check.columns, has_value, strict=True)
    ]
    match check:
        case SumEquals():
            for column, kind in zip(check.columns, kinds, strict=True):
                if not is_number(kind):
                    raise Unfit(f"column '{column}' is {kind}, not a number")
            summed = " + ".join(f"CAST({one} AS DOUBLE)" for one in values)
            return counting(check, looked_at, f"(({summed} = {check.total!r}) IS NOT TRUE)")
        case TuplesInSet():
            return counting(check, looked_at, f"NOT ({_is_listed(check, values, kinds)})")
        case AllEqual():
            _need_alike(check.columns, kinds)
            good = every(*(f"{one} IS NOT DISTINCT FROM {other}" for one, other in pairwise(values)))
            return counting(check, looked_at, f"NOT ({good})")
        case DistinctWithinRow():
            _need_alike(check.columns, kinds)
            good = every(*(f"{one} IS DISTINCT FROM {other}" for one, other in combinations(values, 2)))
            return counting(check, looked_at, f"NOT ({good})")


def _need_alike(columns: list[str], kinds: list[str]) -> None:
    if len(set(kinds)) > 1 and not all(is_number(kind) for kind in kinds):
        named = ", ".join(f"'{column}' is {kind}" for column, kind in zip(columns, kinds, strict=True))
        raise Unfit(f"values of these columns cannot be compared: {named}")


def _is_listed(check: TuplesInSet, values: list[str], kinds: list[str]) -> str:
    listed = []
    for row in check.values:
        if len(row) != len(check.columns):
            raise Unfit(f"{row!r} has {len(row)} values for {len(check.columns)} columns")
        try:
            terms = [
                f"{value} IS NULL"
                if wanted is None
                else f"{value} IS NOT DISTINCT FROM {sql_value(wanted, kind, name)}"
                for value, wanted, kind, name in zip(values, row, kinds, check.columns, strict=True)
            ]
        except Unfit:
            if check.semantics == "sql":
                raise
            continue
        listed.append(f"({' AND '.join(terms)})")
    return " OR ".join(listed) or "false"
