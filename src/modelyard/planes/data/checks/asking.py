"""Questions put to a session: statements side by side, each failing alone, and quick ways before thorough ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from modelyard.engines.tables.sql import quoted
from modelyard.kernel.errors import InvalidInput, LimitExceeded
from modelyard.planes.data.checks.question import SLICES_MAX, Measure, Values, every
from modelyard.planes.data.checks.statements import Asked, Hints, Part, Statement, statements
from modelyard.planes.data.checks.texts import BAD_VALUES_MAX
from modelyard.planes.data.profile import wire_value

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")
# A text that several slices have is tested once for all of them.
_TEXTS_REMEMBERED = 100_000


class Session(Protocol):
    """What a suite needs of SQL over the tables `batch` and `dataset`, and `base` where rows are appended to it."""

    def table(self, statement: str) -> pa.Table: ...
    def one(self, statement: str) -> dict[str, Any]: ...
    def rows(self, statement: str) -> list[dict[str, Any]]: ...
    def answers(self, statement: str) -> list[dict[str, Any]]: ...
    def batches(self, statement: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]: ...
    def check_condition(self, table: str, condition: str) -> None: ...
    def value_counts(self, table: str, column: str) -> AbstractContextManager[str | None]: ...
    def median(self, table: str, column: str) -> tuple[float | None, int] | None: ...
    def is_in_memory(self, table: str) -> bool: ...
    def places(self, table: str, condition: str, limit: int) -> list[int]: ...
    def rows_at(self, table: str, places: Iterable[int]) -> pa.Table: ...
    def each(self, tasks: Sequence[Callable[[Session], T]]) -> list[T]: ...


@dataclass(frozen=True, slots=True)
class Answered:
    """A statement with its rows."""

    statement: Statement
    rows: list[dict[str, Any]]


def answer(session: Session, asked: Sequence[Asked], hints: Hints) -> None:
    """Give every question the values of its measures, or its error."""
    rising = [one for one in asked if one.question.rising and not one.is_delta]
    medians = [one for one in asked if one.question.median_of]
    asked_of_all = [one for one in asked if one not in rising and one not in medians]
    tasks: list[Callable[[Session], list[Answered]]] = [partial(_ask_rising, one=one) for one in rising]
    tasks += [partial(_ask_median, one=one) for one in medians]
    tasks += [partial(_ask, statement=one) for one in statements(asked_of_all, hints)]
    for answers in session.each(tasks):
        for one in answers:
            _take(one)
    session.each([partial(_test_texts, one=one) for one in asked if one.question.text is not None and not one.error])


def wire_key(value: Any) -> Any:
    """A slice's value as it can be a key, kept and sent."""
    sent = wire_value(value)
    return str(sent) if isinstance(sent, (list, dict)) else sent


def _take(answered: Answered) -> None:
    terms = answered.statement.terms
    for part in answered.statement.parts:
        for row in answered.rows:
            told = _told(part, row, terms)
            if told is not None:
                part.asked.answers.setdefault(wire_key(row.get("slice_")), {}).update(told)


def _told(part: Part, row: dict[str, Any], terms: dict[str, str]) -> Values | None:
    values = {name: row[terms[measure.sql]] for name, measure in part.measures.items()}
    return values if part.read is None else part.read(values)


def _ask(session: Session, statement: Statement) -> list[Answered]:
    try:
        rows = _rows(session, statement)
    except (InvalidInput, LimitExceeded):
        return _ask_again(session, statement)
    unclear = [part for part in statement.parts if any(_told(part, row, statement.terms) is None for row in rows)]
    thorough = _ask(session, _thorough(statement, unclear)) if unclear else []
    return [Answered(statement, rows), *thorough]


def _rows(session: Session, statement: Statement) -> list[dict[str, Any]]:
    with session.value_counts(*statement.values_of) if statement.values_of else nullcontext() as counted:
        rows = session.answers(statement.text(counted))
    if len(rows) > SLICES_MAX:
        raise InvalidInput(
            f"column '{statement.by}' has more than {SLICES_MAX} values, too many for slices",
            code="dataset.check_slices",
        )
    return rows


def _ask_again(session: Session, statement: Statement) -> list[Answered]:
    """One of the questions broke the common statement: perhaps its quick way did, which has another; else, asked one by
    one, only that one fails."""
    if any(part.read is not None for part in statement.parts):
        return _ask(session, _thorough(statement, statement.parts))
    found = []
    for part in statement.parts:
        alone = Statement(statement.source, statement.by)
        alone.add(part)
        try:
            found.append(Answered(alone, _rows(session, alone)))
        except (InvalidInput, LimitExceeded) as error:
            part.asked.error = error.message
    return found


def _thorough(statement: Statement, parts: Sequence[Part]) -> Statement:
    """The statement of these parts without quick ways."""
    source = next((part.asked.source for part in parts if part.read is not None), statement.source)
    made = Statement(source, statement.by)
    for part in parts:
        made.add(part if part.read is None else Part(part.asked, part.asked.measures))
    return made


def _ask_rising(session: Session, one: Asked) -> list[Answered]:
    """Answer a question of uniqueness by the order of the values, if they strictly rise as they are stored, as those of
    ids often do; of texts by what they hash to, which takes less memory than they do, if that differs; else by its
    measures."""
    for quick in [_by_order(one), *([_by_hash(one)] if one.question.of_texts else [])]:
        try:
            rows = _rows(session, quick)
        except (InvalidInput, LimitExceeded):
            continue
        if all(_told(part, row, quick.terms) is not None for part in quick.parts for row in rows):
            return [Answered(quick, rows)]
    thorough = Statement(one.source, "")
    thorough.add(Part(one, one.measures))
    return _ask(session, thorough)


def _ask_median(session: Session, one: Asked) -> list[Answered]:
    """Answer a question of a median where the numbers lie, if they are in memory; else by its measures."""
    statement = Statement(one.source, "")
    statement.add(Part(one, one.measures))
    found = session.median(one.table, one.question.median_of)
    if found is None:
        return _ask(session, statement)
    values = dict(zip(("value", "present"), found, strict=True))
    return [Answered(statement, [{statement.terms[one.measures[name].sql]: value for name, value in values.items()}])]


def _by_order(one: Asked) -> Statement:
    name = quoted(one.question.rising)
    ahead = f"SELECT {name} AS v, lag({name}) OVER () AS p FROM {one.table} WHERE {name} IS NOT NULL"
    return _unless_failing(one, f"({ahead})", "count(*)", "count_if(v <= p)")


def _by_hash(one: Asked) -> Statement:
    name = quoted(one.question.rising)
    hashed = f"SELECT count(*) AS n FROM {one.table} WHERE {name} IS NOT NULL GROUP BY hash({name})"
    return _unless_failing(one, f"({hashed})", "coalesce(sum(n), 0)::BIGINT", "count_if(n > 1)")


def _unless_failing(one: Asked, source: str, present: str, doubtful: str) -> Statement:
    """A statement that tells how many values there are where none is doubtful, and else nothing."""
    terms = {
        "elements": Measure(f"(SELECT count(*) FROM {one.table})"),
        "present": Measure(present),
        "failing": Measure(doubtful),
        "groups": Measure(doubtful),
    }
    statement = Statement(source, "")
    statement.add(Part(one, terms, lambda values: None if values["failing"] else values))
    return statement


def _test_texts(session: Session, one: Asked) -> None:
    """Ask a test in Python of each distinct text, and count the rows that have a failing one."""
    test, check = one.question.text, one.question.check
    assert test is not None
    by = f", {quoted(check.by)} AS slice_" if check.by else ", NULL AS slice_"
    where = every(f"({check.where}\n)" if check.where else "", f"({test.present})")
    statement = f"SELECT {test.column} AS v{by}, count(*) AS n FROM {one.table} WHERE {where} GROUP BY ALL"
    passes = lru_cache(_TEXTS_REMEMBERED)(test.passes) if check.by else test.passes
    # One more than can be asked for again shows that there are more.
    bad: dict[str, None] = {}
    for values in one.answers.values():
        values["failing"] = 0
    try:
        schema = session.table(f"{statement} LIMIT 0").schema
        for batch in session.batches(statement, schema):
            for row in batch.to_pylist():
                if not passes(row["v"]):
                    one.answers[wire_key(row["slice_"])]["failing"] += row["n"]
                    if len(bad) <= BAD_VALUES_MAX:
                        bad[row["v"]] = None
    except (InvalidInput, LimitExceeded) as error:
        one.error = error.message
    one.bad_values = list(bad)
