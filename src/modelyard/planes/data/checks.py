"""Checks compiled to SQL: pure, text in and text out. Whoever runs it is `audit.py`.

What can be counted in one pass over the batch becomes one statement of aggregates, so that a batch is read once;
what needs grouping (unique) or is the user's own SQL is a statement of its own. Samples of failing rows are asked
for only where a check failed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from modelyard.engines.tables.sql import literal, quoted
from modelyard.types.data import (
    Check,
    CheckResult,
    CheckStatus,
    ColumnType,
    Finite,
    Freshness,
    InSet,
    Length,
    NotNull,
    Range,
    Regex,
    RowCount,
    Scalar,
    Sql,
    Unique,
)

BATCH = "batch"
DATASET = "dataset"
SAMPLE_ROWS_MAX = 20
FUTURE_TOLERANCE = timedelta(seconds=60)


class Unfit(Exception):
    """This check cannot be asked of these columns; the message says why."""


@dataclass(frozen=True, slots=True)
class Question:
    """One check as SQL.

    Exactly one of these is set: `failing` with `evaluated` (aggregates over `table`), `observed` (an aggregate to
    be judged in Python), `statement` (a SELECT giving `evaluated` and `failing`), or `verdict` (known without data).
    `sample` selects failing rows.
    """

    check: Check
    table: str = BATCH
    evaluated: str = ""
    failing: str = ""
    observed: str = ""
    statement: str = ""
    sample: str = ""
    verdict: CheckResult | None = None


def compile_check(check: Check, columns: Mapping[str, str]) -> Question:
    """A check as SQL over columns of these Arrow types; a check that does not fit them becomes an error verdict."""
    try:
        return _compile(check, columns)
    except Unfit as unfit:
        return Question(check, verdict=result(check, "error", message=str(unfit)))


def _compile(check: Check, columns: Mapping[str, str]) -> Question:
    for column in columns_of(check):
        if column not in columns:
            known = ", ".join(columns)
            raise Unfit(f"column '{column}' is missing; the columns are: {known}")
    match check:
        case ColumnType():
            found = columns[check.column]
            same = found == check.type
            message = "" if same else f"column '{check.column}' is {found}, not {check.type}"
            status: CheckStatus = "passed" if same else "failed"
            return Question(check, verdict=result(check, status, message=message, observed=found))
        case RowCount():
            table = BATCH if check.of == "batch" else DATASET
            return Question(check, table=table, observed=f"count(*){_filter(check)}")
        case Freshness():
            if not is_time(columns[check.column]):
                raise Unfit(f"column '{check.column}' is {columns[check.column]}, not a time")
            latest = f"max({quoted(check.column)}){_filter(check)}"
            return Question(check, table=DATASET, observed=f"epoch_us(CAST({latest} AS TIMESTAMP))")
        case Unique():
            return _unique(check)
        case Sql():
            return Question(
                check,
                table=DATASET,
                statement=f"SELECT 0 AS evaluated, count(*) AS failing FROM ({check.query}\n)",
                sample=f"SELECT * FROM ({check.query}\n) LIMIT {SAMPLE_ROWS_MAX}",
            )
        case _:
            return _row_wise(check, columns[check.column])


def _row_wise(check: NotNull | InSet | Range | Regex | Length | Finite, kind: str) -> Question:
    column = quoted(check.column)
    bad = f"({_violation(check, column, kind)})"
    looked_at = [] if isinstance(check, NotNull) else [f"{column} IS NOT NULL"]
    if check.where:
        looked_at.append(f"({check.where})")
    failing = " AND ".join([*looked_at, bad])
    return Question(
        check,
        evaluated=f"count_if({' AND '.join(looked_at) or 'true'})",
        failing=f"count_if({failing})",
        sample=f"SELECT * FROM {BATCH} WHERE {failing} LIMIT {SAMPLE_ROWS_MAX}",
    )


def _violation(check: NotNull | InSet | Range | Regex | Length | Finite, column: str, kind: str) -> str:
    """The SQL condition that a row breaks the check, for rows that it looks at."""
    match check:
        case NotNull():
            return f"{column} IS NULL"
        case Finite():
            if not is_number(kind):
                raise Unfit(f"column '{check.column}' is {kind}, not a number")
            return f"NOT isfinite({column})" if is_float(kind) else "false"
        case InSet():
            listed = ", ".join(sql_value(value, kind, check.column) for value in check.values)
            return f"{column} NOT IN ({listed})"
        case Range():
            return _outside(check, column, kind)
        case Regex():
            _need_text(check.column, kind)
            return f"NOT regexp_matches({column}, {literal(check.pattern)})"
        case Length():
            _need_text(check.column, kind)
            above = "" if check.max is None else f" OR length({column}) > {check.max}"
            return f"length({column}) < {check.min}{above}"


def _outside(check: Range, column: str, kind: str) -> str:
    below, above = ("<=", ">=") if check.strict else ("<", ">")
    parts = [f"isnan({column})"] if is_float(kind) else []
    if check.min is not None:
        parts.append(f"{column} {below} {sql_value(check.min, kind, check.column)}")
    if check.max is not None:
        parts.append(f"{column} {above} {sql_value(check.max, kind, check.column)}")
    if check.min is None and check.max is None:
        raise Unfit("a range needs `min`, `max` or both")
    return " OR ".join(parts)


def _unique(check: Unique) -> Question:
    names = [quoted(column) for column in check.columns]
    whole = [f"{name} IS NOT NULL" for name in names] + ([f"({check.where})"] if check.where else [])
    groups = f"SELECT {', '.join(names)}, count(*) AS n FROM {DATASET} WHERE {' AND '.join(whole)} GROUP BY ALL"
    return Question(
        check,
        table=DATASET,
        statement=(
            "SELECT coalesce(sum(n), 0)::BIGINT AS evaluated, "
            f"coalesce(sum(n) FILTER (WHERE n > 1), 0)::BIGINT AS failing FROM ({groups})"
        ),
        sample=(
            f"SELECT {', '.join(names)}, n AS rows FROM ({groups}) WHERE n > 1 ORDER BY ALL LIMIT {SAMPLE_ROWS_MAX}"
        ),
    )


def aggregate(questions: Sequence[Question], table: str) -> str:
    """The one statement that answers all questions of aggregates over a table; empty where there is none.

    Its columns are named `e<i>`, `f<i>` and `o<i>` by the question's place.
    """
    terms = []
    for index, question in enumerate(questions):
        if question.table != table:
            continue
        if question.failing:
            terms += [f"{question.evaluated} AS e{index}", f"{question.failing} AS f{index}"]
        elif question.observed:
            terms.append(f"{question.observed} AS o{index}")
    return f"SELECT {', '.join(terms)} FROM {table}" if terms else ""


def judge(check: Check, evaluated: int, failing: int) -> CheckResult:
    """The result of a check that counts failing rows."""
    good = evaluated - failing
    passed = failing == 0 or (evaluated > 0 and good >= check.mostly * evaluated)
    message = ""
    if failing:
        of = f" of {evaluated}" if evaluated else ""
        message = f"{failing}{of} rows fail"
        if check.mostly < 1.0 and evaluated:
            message += f"; {good / evaluated:.4%} pass, {check.mostly:.4%} are asked for"
    return result(check, "passed" if passed else "failed", message=message, evaluated=evaluated, failing=failing)


def judge_observed(check: Check, observed: int | None, now: datetime) -> CheckResult:
    """The result of a check on one number: a row count, or the latest instant in microseconds since the epoch."""
    match check:
        case RowCount():
            count = observed or 0
            passed = check.min <= count and (check.max is None or count <= check.max)
            wanted = f"at least {check.min}" if check.max is None else f"{check.min} to {check.max}"
            message = "" if passed else f"{count} rows, {wanted} are asked for"
            return result(check, "passed" if passed else "failed", message=message, observed=count)
        case Freshness():
            return _judge_freshness(check, observed, now)
        case _:
            raise TypeError(f"{type(check).__name__} is not judged by one number")


def _judge_freshness(check: Freshness, observed_us: int | None, now: datetime) -> CheckResult:
    if observed_us is None:
        return result(check, "failed", message="there is no instant to judge by")
    latest = datetime.fromtimestamp(0, now.tzinfo) + timedelta(microseconds=observed_us)
    age = now - latest
    if age < -FUTURE_TOLERANCE:
        return result(check, "failed", message=f"the latest instant, {latest.isoformat()}, is in the future")
    late = age.total_seconds() > check.max_age_s
    message = f"the latest instant, {latest.isoformat()}, is {age.total_seconds():.0f} s ago" if late else ""
    return result(check, "failed" if late else "passed", message=message, observed=latest.isoformat())


def result(
    check: Check,
    status: CheckStatus,
    *,
    message: str = "",
    evaluated: int = 0,
    failing: int = 0,
    observed: object = None,
) -> CheckResult:
    """The result of a check, under its name."""
    return CheckResult(
        name=name_of(check),
        check=check.__struct_config__.tag or type(check).__name__,  # type: ignore[arg-type]
        status=status,
        severity=check.severity,
        columns=columns_of(check),
        evaluated=evaluated,
        failing=failing,
        observed=observed,
        message=message,
    )


def columns_of(check: Check) -> list[str]:
    """The columns that a check names."""
    match check:
        case Unique():
            return list(check.columns)
        case RowCount() | Sql():
            return []
        case _:
            return [check.column]


def name_of(check: Check) -> str:
    """The check's own name, or one made of its kind and columns."""
    if check.name:
        return check.name
    where = f" where {check.where}" if check.where else ""
    columns = ", ".join(columns_of(check))
    return f"{check.__struct_config__.tag}({columns}){where}"


def needs_dataset(checks: Sequence[Check]) -> bool:
    """Whether a verdict depends on rows beyond the batch, so that it is only good for the state it was made over."""
    return any(
        isinstance(check, (Unique, Sql, Freshness)) or (isinstance(check, RowCount) and check.of == "dataset")
        for check in checks
    )


def implied_by_key(key: Sequence[str], columns: Mapping[str, str]) -> list[Check]:
    """What holds of key columns without being said: no null, no NaN, no infinity."""
    floats = [column for column in key if is_float(columns.get(column, ""))]
    return [
        *(NotNull(name=f"key column '{column}' has no null", column=column) for column in key),
        *(Finite(name=f"key column '{column}' is finite", column=column) for column in floats),
    ]


def sql_value(value: Scalar, kind: str, column: str) -> str:
    """A value of a check as an SQL literal of the column's type. Raises Unfit where it is of another type."""
    wrong = Unfit(f"{value!r} is not a value of column '{column}', which is {kind}")
    if kind == "bool":
        if not isinstance(value, bool):
            raise wrong
        return "true" if value else "false"
    if is_number(kind):
        if isinstance(value, (bool, str)) or not math.isfinite(value):
            raise wrong
        return repr(value)
    if not isinstance(value, str):
        raise wrong
    if kind == "string":
        return literal(value)
    if is_time(kind):
        return _time_value(value, kind, wrong)
    raise wrong


def _time_value(value: str, kind: str, wrong: Unfit) -> str:
    try:
        if kind.startswith("date"):
            return f"DATE {literal(date.fromisoformat(value).isoformat())}"
        return f"TIMESTAMPTZ {literal(datetime.fromisoformat(value).isoformat())}"
    except ValueError:
        raise wrong from None


def _filter(check: Check) -> str:
    return f" FILTER (WHERE {check.where})" if check.where else ""


def _need_text(column: str, kind: str) -> None:
    if kind != "string":
        raise Unfit(f"column '{column}' is {kind}, not text")


def is_float(kind: str) -> bool:
    """Whether an Arrow type, by name, is a floating one."""
    return kind in ("float", "double", "halffloat")


def is_number(kind: str) -> bool:
    """Whether an Arrow type, by name, is a number."""
    return is_float(kind) or re.match(r"u?int\d+$|decimal", kind) is not None


def is_time(kind: str) -> bool:
    """Whether an Arrow type, by name, is a date or an instant."""
    return kind.startswith(("timestamp", "date"))
