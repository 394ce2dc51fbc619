"""Running a suite of checks over one snapshot: few statements, each failing alone, samples of what fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from msgspec.structs import replace

from modelyard.engines.tables.sql import literal, quoted
from modelyard.kernel.errors import InvalidInput, LimitExceeded
from modelyard.planes.data.checks.compiling import compile_check
from modelyard.planes.data.checks.facts import gather_facts, provided_of
from modelyard.planes.data.checks.question import (
    BASE,
    BATCH,
    DATASET,
    SAMPLE_ROWS_MAX,
    SLICES_MAX,
    Context,
    Measure,
    Provided,
    Question,
    Values,
    every,
)
from modelyard.planes.data.checks.states import State, key_of, merged, packed
from modelyard.planes.data.checks.texts import BAD_VALUES_MAX
from modelyard.planes.data.checks.values import Unfit
from modelyard.planes.data.checks.verdicts import result, verdict
from modelyard.planes.data.profile import wire_row, wire_value
from modelyard.types.checks import Check, References, Satisfies
from modelyard.types.data import CheckResult, Column, SliceResult

if TYPE_CHECKING:
    import pyarrow as pa

SLICES_SHOWN_MAX = 50
Failure = InvalidInput | LimitExceeded


class Session(Protocol):
    """What a suite needs of SQL over the tables `batch` and `dataset`, and `base` where rows are appended to it."""

    def table(self, statement: str) -> pa.Table: ...
    def one(self, statement: str) -> dict[str, Any]: ...
    def rows(self, statement: str) -> list[dict[str, Any]]: ...
    def check_condition(self, table: str, condition: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Before:
    """What is known of the rows before an append: states by key. `whole`: judge what is of a batch over all rows."""

    states: Mapping[str, State] = field(default_factory=dict)
    appended: bool = False
    whole: bool = False


@dataclass(slots=True)
class Asked:
    """A question on its way to its answer: over which table, by which measures, going on from which state."""

    question: Question
    table: str
    key: str
    base: State | None = None
    error: str = ""
    answers: dict[Any, Values] = field(default_factory=dict)
    bad_values: list[str] = field(default_factory=list)

    @property
    def is_delta(self) -> bool:
        """Whether the increments of an append are asked for, instead of the measures."""
        return self.base is not None and self.question.append is not None

    @property
    def source(self) -> str:
        """What follows FROM for its measures."""
        if self.base is not None and self.question.append is not None:
            return self.question.append.source(BATCH, BASE)
        return self.question.source(self.table)

    @property
    def measures(self) -> Mapping[str, Measure]:
        """The aggregates over its source."""
        if self.base is not None and self.question.append is not None:
            return self.question.append.measures
        return self.question.measures


@dataclass(slots=True)
class Statement:
    """One SELECT that answers many questions: aggregates over one source, by slices or not."""

    source: str
    by: str
    terms: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[Asked, Mapping[str, Measure]]] = field(default_factory=list)

    def add(self, asked: Asked, measures: Mapping[str, Measure]) -> None:
        """Ask for these aggregates too; one that is asked for already is computed once."""
        for measure in measures.values():
            self.terms.setdefault(measure.sql, f"c{len(self.terms)}")
        self.asked.append((asked, measures))

    @property
    def text(self) -> str:
        """The SELECT."""
        terms = ", ".join(f"{sql} AS {name}" for sql, name in self.terms.items())
        if not self.by:
            return f"SELECT {terms} FROM {self.source}"
        by = quoted(self.by)
        return f"SELECT {by} AS slice_, {terms} FROM {self.source} GROUP BY {by} LIMIT {SLICES_MAX + 1}"


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
) -> list[CheckResult]:
    """The results of all checks, in their order. One that cannot run gives an error result and disturbs no other.

    `provided`: the tables that checks refer to; `profiles`: what the profiles of references say. With `before`, what
    can go on from the states of the rows before does, and looks at the new rows only. `one_table`: `batch` is all of
    `dataset`, so that both are read at once.
    """
    known = before or Before(whole=one_table)
    tables = provided or {}
    keys = [key_of(check, provided_of(check, tables)) for check in checks]
    context = Context({column.name: column.type for column in columns}, tables)
    facts = gather_facts(session, checks, keys, context, known.states, profiles or {})
    context = replace_facts(context, facts)
    asked = [_asked(compile_check(check, context), key, known) for check, key in zip(checks, keys, strict=True)]
    _check_conditions(session, asked, context)
    _answer(session, [one for one in asked if not one.error and one.question.verdict is None])
    return [_settled(session, one, known, now) for one in asked]


def replace_facts(context: Context, facts: Mapping[str, Values]) -> Context:
    """The context with what was found of the references."""
    return Context(context.columns, context.provided, facts)


def _asked(question: Question, key: str, known: Before) -> Asked:
    base = known.states.get(key) if question.merges and known.appended else None
    if base is not None:
        return Asked(question, BATCH, key, base)
    whole = question.of == DATASET or known.whole
    return Asked(question, DATASET if whole else BATCH, key)


def _check_conditions(session: Session, asked: Sequence[Asked], context: Context) -> None:
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


# --- answers ------------------------------------------------------------------------------------------------------


def _answer(session: Session, asked: Sequence[Asked]) -> None:
    left = [one for one in asked if not (one.question.rising and not one.is_delta and _rises(session, one))]
    for statement in _statements(left):
        try:
            _run(session, statement)
        except (InvalidInput, LimitExceeded):
            # One of them broke the common statement: asked one by one, only that one fails.
            _run_one_by_one(session, statement)
    for one in asked:
        if one.question.text is not None and not one.error:
            _test_texts(session, one)


def _rises(session: Session, one: Asked) -> bool:
    """Answer a question of uniqueness if the values strictly rise as they are stored, as those of ids often do."""
    name = quoted(one.question.rising)
    ahead = f"SELECT {name} AS v, lag({name}) OVER () AS p FROM {one.table} WHERE {name} IS NOT NULL"
    whole = f"(SELECT count(*) FROM {one.table}) AS elements"
    try:
        found = session.one(f"SELECT count(*) AS n, count_if(v <= p) AS falls, {whole} FROM ({ahead})")
    except (InvalidInput, LimitExceeded):
        return False
    if found["falls"]:
        return False
    one.answers = {None: {"elements": found["elements"], "present": found["n"], "failing": 0, "groups": 0}}
    return True


def _statements(asked: Sequence[Asked]) -> list[Statement]:
    """As few statements as is fast: aggregates over one source together, those that would slow it down apart."""
    found: dict[tuple[str, str, int], Statement] = {}
    for number, one in enumerate(asked):
        by = one.question.check.by
        apart = number + 1 if one.question.alone else 0
        if one.measures:
            found.setdefault((one.source, by, apart), Statement(one.source, by)).add(one, one.measures)
        if one.question.plain:
            found.setdefault((one.table, by, 0), Statement(one.table, by)).add(one, one.question.plain)
    return list(found.values())


def _run(session: Session, statement: Statement) -> None:
    rows = session.rows(statement.text)
    if len(rows) > SLICES_MAX:
        raise InvalidInput(
            f"column '{statement.by}' has more than {SLICES_MAX} values, too many for slices",
            code="dataset.check_slices",
        )
    for one, measures in statement.asked:
        for row in rows:
            values = one.answers.setdefault(wire_key(row.get("slice_")), {})
            values |= {name: row[statement.terms[measure.sql]] for name, measure in measures.items()}


def wire_key(value: Any) -> Any:
    """A slice's value as it can be a key, kept and sent."""
    sent = wire_value(value)
    return str(sent) if isinstance(sent, (list, dict)) else sent


def _run_one_by_one(session: Session, statement: Statement) -> None:
    for one, measures in statement.asked:
        alone = Statement(statement.source, statement.by)
        alone.add(one, measures)
        try:
            _run(session, alone)
        except (InvalidInput, LimitExceeded) as error:
            one.error = error.message


def _test_texts(session: Session, one: Asked) -> None:
    """Ask a test in Python of each distinct text, and count the rows that have a failing one."""
    test, check = one.question.text, one.question.check
    assert test is not None
    by = f", {quoted(check.by)} AS slice_" if check.by else ", NULL AS slice_"
    where = every(f"({check.where}\n)" if check.where else "", f"({test.present})")
    statement = f"SELECT {test.column} AS v{by}, count(*) AS n FROM {one.table} WHERE {where} GROUP BY ALL"
    verdicts: dict[str, bool] = {}
    for values in one.answers.values():
        values["failing"] = 0
    try:
        for batch in session.table(statement).to_batches(10_000):
            for row in batch.to_pylist():
                text = row["v"]
                if text not in verdicts:
                    verdicts[text] = test.passes(text)
                if not verdicts[text]:
                    one.answers[wire_key(row["slice_"])]["failing"] += row["n"]
    except (InvalidInput, LimitExceeded) as error:
        one.error = error.message
    one.bad_values = [text for text, passes in verdicts.items() if not passes]


# --- results ------------------------------------------------------------------------------------------------------


def _settled(session: Session, one: Asked, known: Before, now: datetime) -> CheckResult:
    """The result of a check: judged, with its state and some of the failing rows."""
    question = one.question
    if question.verdict is not None:
        return question.verdict
    if one.error:
        return result(question.check, "error", message=one.error)
    facts = {} if "table" in question.facts else dict(question.facts)
    seen = State(list(one.answers.items()), facts)
    total = seen if one.base is None else merged(_summing(one), one.base, seen)
    if one.base is not None and total is None:
        return _settled(session, _rescanned(session, one), known, now)
    over_batch = question.of == BATCH and not known.whole
    try:
        found = _judged(question, seen if over_batch or total is None else total, now)
    except Unfit as unfit:
        return result(question.check, "error", message=str(unfit))
    found = replace(found, merge=_how(one), key=one.key, state=_kept(one, total, known))
    table = BATCH if over_batch else DATASET
    return _with_rows(session, one, found, table)


def _summing(one: Asked) -> Question:
    """The question by whose measures states are put together: increments are added."""
    if not one.is_delta:
        return one.question
    assert one.question.append is not None
    return Question(one.question.check, measures=one.question.append.measures)


def _rescanned(session: Session, one: Asked) -> Asked:
    """The question asked of all rows, since what was kept is not enough to go on from."""
    again = Asked(one.question, DATASET, one.key)
    _answer(session, [again])
    return again


def _how(one: Asked) -> Any:
    if one.base is not None:
        return "merged"
    return "scanned" if one.question.merges else "rescans"


def _kept(one: Asked, total: State | None, known: Before) -> str:
    """The state over all rows, where that is what was looked at, or known from before."""
    if total is None or not one.question.merges:
        return ""
    if any(
        measure.merge == "union" and values.get(name) is None
        for name, measure in one.question.measures.items()
        for _, values in total.slices
    ):
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


def _with_rows(session: Session, one: Asked, found: CheckResult, table: str) -> CheckResult:
    """The result with a sample of its failing rows and the query for all of them."""
    if found.status == "passed" and not found.failing:
        return found
    select = failing_rows(one.question, table, one.bad_values)
    if not select or (one.base is not None and one.question.text is not None and table == DATASET):
        return found
    try:
        rows = session.rows(f"SELECT * FROM ({select}\n) LIMIT {SAMPLE_ROWS_MAX}")
    except (InvalidInput, LimitExceeded):
        # The verdict stands; a sample is more than was asked for.
        rows = []
    query = failing_rows(one.question, DATASET, one.bad_values)
    return replace(found, sample=[wire_row(row) for row in rows], query="" if one.question.facts else query)


def failing_select(session: Session, check: Check, columns: Sequence[Column], provided: Mapping[str, Provided]) -> str:
    """A SELECT of all rows of the dataset that fail a check; empty where the check is not about rows."""
    context = Context({column.name: column.type for column in columns}, provided)
    one = Asked(compile_check(check, context), DATASET, "")
    if one.question.verdict is not None:
        return ""
    _check_conditions(session, [one], context)
    if one.error:
        return ""
    if one.question.text is not None:
        _answer(session, [one])
    return failing_rows(one.question, DATASET, one.bad_values)


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
    return "" if question.rows is None else question.rows(table)
