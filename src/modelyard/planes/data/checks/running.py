"""Running a suite of checks over one snapshot: few statements, each failing alone, samples of what fails."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from dataclasses import replace as replace_question
from datetime import datetime
from typing import Any

from msgspec.structs import replace

from modelyard.engines.tables.sql import literal
from modelyard.kernel.errors import InvalidInput
from modelyard.planes.data.checks.asking import Session, answer
from modelyard.planes.data.checks.compiling import compile_check
from modelyard.planes.data.checks.facts import gather_facts, provided_of
from modelyard.planes.data.checks.question import (
    BATCH,
    DATASET,
    Context,
    Provided,
    Question,
    Values,
    every,
)
from modelyard.planes.data.checks.samples import Failing, samples_of
from modelyard.planes.data.checks.statements import Asked, Hints
from modelyard.planes.data.checks.states import State, complete, key_of, merged, packed
from modelyard.planes.data.checks.texts import BAD_VALUES_MAX
from modelyard.planes.data.checks.values import Unfit
from modelyard.planes.data.checks.verdicts import name_of, result, verdict
from modelyard.types.checks import Check, References, Satisfies, Unique
from modelyard.types.data import CheckResult, Column, SliceResult

SLICES_SHOWN_MAX = 50
Seen = dict[str, tuple[Question, State]]


@dataclass(frozen=True, slots=True)
class Before:
    """What is known of the rows before those that come: states by key. `whole`: judge what is of a batch over all rows.

    `none_come`: there are no others. `apart`: columns in which no two rows that come agree, nor one with one before.
    """

    states: Mapping[str, State] = field(default_factory=dict)
    appended: bool = False
    whole: bool = False
    none_come: bool = False
    apart: frozenset[str] = frozenset()


def run_suite(
    session: Session,
    checks: Sequence[Check],
    columns: Sequence[Column],
    now: datetime,
    *,
    provided: Mapping[str, Provided] | None = None,
    profiles: Mapping[str, Values] | None = None,
    before: Before | None = None,
    one_table: bool = False,
    hints: Hints | None = None,
    seen: Seen | None = None,
) -> list[CheckResult]:
    """The results of all checks, in their order. One that cannot run gives an error result and disturbs no other.

    `provided`: the tables that checks refer to; `profiles`: what the profiles of references say. With `before`, what
    can go on from the states of the rows before does, and looks at the new rows only. `one_table`: `batch` is all of
    `dataset`, so that both are read at once. `hints`: what is known of the rows, for speed. `seen`: gets, by key, what
    was asked of the batch alone, and what it said.
    """
    known = before or Before(whole=one_table)
    tables = provided or {}
    keys = [key_of(check, provided_of(check, tables)) for check in checks]
    known_of_rows = hints or Hints(rows=0)
    context = _context(columns, tables, known_of_rows)
    facts = gather_facts(session, checks, keys, context, known.states, profiles or {})
    context = dataclasses.replace(context, facts=facts)
    asked = [_asked(compile_check(check, context), key, known) for check, key in zip(checks, keys, strict=True)]
    check_conditions(session, [one for one in asked if _is_open(one, known)], context)
    answer(session, [one for one in asked if not one.error and _is_open(one, known)], known_of_rows)
    if seen is not None:
        alone = [one for one in asked if (one_table or one.table == BATCH) and _is_open(one, known) and not one.error]
        seen |= {one.key: (one.question, _answers(one)) for one in alone}
    settled = [_settled(session, one, known, now) for one in asked]
    return _shown(session, settled)


def _context(columns: Sequence[Column], provided: Mapping[str, Provided], hints: Hints) -> Context:
    kinds = {column.name: column.type for column in columns}
    return Context(kinds, provided, without_nan=hints.without_nan, rows=hints.at_most)


def _is_open(one: Asked, known: Before) -> bool:
    return one.question.verdict is None and not (known.none_come and one.base is not None)


def _asked(question: Question, key: str, known: Before) -> Asked:
    base = known.states.get(key) if question.merges and known.appended else None
    if base is not None:
        return Asked(_without_pairs(question, known), BATCH, key, base)
    whole = question.of == DATASET or known.whole
    return Asked(question, DATASET if whole else BATCH, key)


def _without_pairs(question: Question, known: Before) -> Question:
    """The question as it is asked where no pair with a row that comes can fail."""
    check = question.check
    if isinstance(check, Unique) and known.apart and known.apart <= set(check.columns) and question.append is not None:
        clean = question.append.clean
        return replace_question(question, measures={}, plain=clean, append=None) if clean else question
    return question


def check_conditions(session: Session, asked: Sequence[Asked], context: Context) -> None:
    """Texts that stand inside of statements must each be one condition on rows."""
    verdicts: dict[tuple[str, str], str] = {}
    for one in asked:
        check = one.question.check
        if one.question.verdict is not None:
            continue
        texts = [("where", one.table, check.where)]
        if isinstance(check, Satisfies):
            texts.append(("condition", one.table, check.condition))
        if isinstance(check, References):
            texts.append(("to_where", context.table(check.dataset, check.ref).table, check.to_where))
        for what, table, text in texts:
            if not text or one.error:
                continue
            if (table, text) not in verdicts:
                verdicts[table, text] = _wrong_condition(session, table, text)
            if verdicts[table, text]:
                one.error = f"`{what}` cannot be used: {verdicts[table, text]}"


def _wrong_condition(session: Session, table: str, text: str) -> str:
    try:
        session.check_condition(table, text)
    except InvalidInput as error:
        return error.message
    return ""


# --- results ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Settled:
    """A result that is judged, where its failing rows are, and a SELECT of these that holds for the dataset."""

    found: CheckResult
    failing: Failing | None = None
    query: str = ""


def _settled(session: Session, one: Asked, known: Before, now: datetime) -> Settled:
    """The result of a check: judged, with its state."""
    question = one.question
    if question.verdict is not None:
        return Settled(question.verdict)
    if one.error:
        return Settled(result(question.check, "error", message=one.error))
    seen = _answers(one)
    total = seen if one.base is None else merged(_summing(one), one.base, seen)
    if one.base is not None and total is None:
        return _settled(session, _rescanned(session, one), known, now)
    over_batch = question.of == BATCH and not known.whole
    try:
        found = _judged(question, seen if over_batch or total is None else total, now)
    except Unfit as unfit:
        return Settled(result(question.check, "error", message=str(unfit)))
    if one.base is not None and question.text is not None and found.failing and not over_batch:
        # Which texts fail is not kept.
        one.bad_values = _rescanned(session, one).bad_values
    found = replace(found, merge=_how(one), key=one.key, state=_kept(one, total, known))
    return _looking_for_rows(one, found, BATCH if over_batch else DATASET)


def _answers(one: Asked) -> State:
    facts = {} if "table" in one.question.facts else dict(one.question.facts)
    return State(list(one.answers.items()), facts)


def _summing(one: Asked) -> Question:
    """The question by whose measures states are put together: increments are added."""
    if not one.is_delta:
        return one.question
    assert one.question.append is not None
    return Question(one.question.check, measures=one.question.append.measures)


def _rescanned(session: Session, one: Asked) -> Asked:
    """The question asked of all rows, since what was kept is not enough to go on from."""
    again = Asked(one.question, DATASET, one.key)
    answer(session, [again], Hints())
    return again


def _how(one: Asked) -> Any:
    if one.base is not None:
        return "merged"
    return "scanned" if one.question.merges else "rescans"


def _kept(one: Asked, total: State | None, known: Before) -> str:
    """The state over all rows, where that is what was looked at, or known from before."""
    if total is None or not one.question.merges:
        return ""
    if not complete(one.question, total):
        return ""
    covers_all = one.base is not None or one.table == DATASET or not known.appended
    return packed(total) if covers_all else ""


def _judged(question: Question, state: State, now: datetime) -> CheckResult:
    check = question.check
    if not check.by:
        return verdict(question, state.slices[0][1], now)
    judged = [(value, verdict(question, values, now)) for value, values in state.slices]
    failed = [(value, one) for value, one in judged if one.status != "passed"]
    blocking = any(one.severity == "block" for _, one in failed)
    counts = {name: sum(getattr(one, name) for _, one in judged) for name in ("evaluated", "failing", "missing")}
    message = ""
    if failed:
        value, first = failed[0]
        message = f"{len(failed)} of {len(judged)} slices fail; {check.by} = {value!r}: {first.message}"
    shown = [*failed, *((value, one) for value, one in judged if one.status == "passed")][:SLICES_SHOWN_MAX]
    base = result(check, "failed" if failed else "passed", message=message, **counts)
    return replace(
        base,
        severity=("block" if blocking else "warn") if failed else base.severity,
        slices=[_slice(value, one) for value, one in shown],
        slices_total=len(judged),
    )


def _slice(value: Any, found: CheckResult) -> SliceResult:
    return SliceResult(
        value=value,
        status=found.status,
        evaluated=found.evaluated,
        failing=found.failing,
        missing=found.missing,
        observed=found.observed,
        message=found.message,
    )


def _looking_for_rows(one: Asked, found: CheckResult, table: str) -> Settled:
    if found.status == "passed" and not found.failing:
        return Settled(found)
    select = failing_rows(one.question, table, one.bad_values)
    if not select:
        return Settled(found)
    query = "" if one.question.facts else failing_rows(one.question, DATASET, one.bad_values)
    fails = (table, one.question.fails) if one.question.fails else None
    return Settled(found, Failing(select, fails, found.failing), query)


def _shown(session: Session, settled: Sequence[Settled]) -> list[CheckResult]:
    """The results, in their order; those of rows that fail with some of these."""
    samples = samples_of(session, {place: one.failing for place, one in enumerate(settled) if one.failing is not None})
    return [
        replace(one.found, sample=samples[place], query=one.query) if place in samples else one.found
        for place, one in enumerate(settled)
    ]


def all_failing(
    session: Session,
    check: Check,
    columns: Sequence[Column],
    provided: Mapping[str, Provided],
    hints: Hints | None = None,
) -> Failing:
    """Where all rows of the dataset are that fail a check. Raises InvalidInput for one that is not about rows, or
    cannot be asked."""
    context = _context(columns, provided, hints or Hints())
    one = Asked(compile_check(check, context), DATASET, "")
    if one.question.verdict is None:
        check_conditions(session, [one], context)
        if one.question.text is not None and not one.error:
            answer(session, [one], Hints())
        select = "" if one.error else failing_rows(one.question, DATASET, one.bad_values)
        if select:
            return Failing(select, (DATASET, one.question.fails) if one.question.fails else None)
    raise InvalidInput(
        f"check '{name_of(check)}' has no failing rows to show",
        code="dataset.check_without_rows",
        hint="its report says what was observed",
    )


def failing_rows(question: Question, table: str, bad_values: Sequence[str] = ()) -> str:
    """A SELECT of all rows that fail a check; empty where it is not about rows."""
    check, test = question.check, question.text
    if test is not None:
        if not bad_values or len(bad_values) > BAD_VALUES_MAX:
            return ""
        where = every(
            f"({check.where}\n)" if check.where else "", f"{test.column} IN ({', '.join(map(literal, bad_values))})"
        )
        return f"SELECT * FROM {table} WHERE {where}"
    if question.fails:
        return f"SELECT * FROM {table} WHERE {question.fails}"
    return "" if question.rows is None else question.rows(table)
