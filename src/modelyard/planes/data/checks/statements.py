"""Which statements answer a suite: few where rows are few, else as many as keep all threads busy. Pure.

Aggregates over one source stand in one SELECT. Over many rows it is cut by columns into as many as run at once: no
column is read twice then, and a file of one row group is else read by one thread. Conditions on a text that repeats
itself are asked of its distinct values, each with its count: a regular expression costs more than a group.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from modelyard.engines.tables.sql import quoted
from modelyard.planes.data.checks.question import (
    BATCH,
    SLICES_MAX,
    Measure,
    Question,
    Values,
    by_value,
    can_be_by_value,
    filtered,
    of_values,
)
from modelyard.planes.data.checks.states import State
from modelyard.types.checks import InSet, Length, Like, NotInSet, NotNull, Regex
from modelyard.types.data import Profile

ROWS_FEW = 100_000
REPEATS_MIN = 16
_ON_TEXTS = (Regex, InSet, NotInSet, Like, Length)
_LANES = 2


@dataclass(frozen=True, slots=True)
class Hints:
    """What is known of the rows beforehand; it decides how they are asked, never what is answered. `rows`: how many,
    None where that is not known. `distinct`: about how many different values a column has. `without_nan`: columns of
    floats in which there is none. `before`: how many rows stand before these, which some checks look at too."""

    rows: int | None = None
    distinct: Mapping[str, int] = field(default_factory=dict)
    without_nan: frozenset[str] = frozenset()
    before: int = 0

    @classmethod
    def of_profile(cls, rows: int, profile: Profile | None, before: int = 0) -> Hints:
        """What a profile says of the texts among so many rows."""
        columns = [] if profile is None else profile.columns
        found = {one.name: one.distinct for one in columns if one.type == "string" and one.distinct is not None}
        return cls(rows, found, before=before)

    @property
    def at_most(self) -> int | None:
        """How many rows a check may look at."""
        return None if self.rows is None else self.rows + self.before

    @property
    def many(self) -> bool:
        """Whether more statements are worth their planning."""
        return self.rows is None or self.rows >= ROWS_FEW

    def repeats(self, column: str) -> bool:
        """Whether the values of a column come so often that it is cheaper to look at each once."""
        distinct = self.distinct.get(column)
        return self.many and distinct is not None and self.rows is not None and distinct * REPEATS_MIN <= self.rows

    @property
    def repeating(self) -> list[str]:
        """The columns of which that is so."""
        return [column for column in self.distinct if self.repeats(column)]


@dataclass(slots=True)
class Asked:
    """A question on its way to its answer: over which table, by which measures, going on from which state."""

    question: Question
    table: str
    key: str
    base: State | None = None
    error: str = ""
    answers: dict[object, Values] = field(default_factory=dict)
    bad_values: list[str] = field(default_factory=list)

    @property
    def is_delta(self) -> bool:
        """Whether the increments of an append are asked for, instead of the measures."""
        return self.base is not None and self.question.append is not None

    @property
    def source(self) -> str:
        """What follows FROM for its measures."""
        if self.base is not None and self.question.append is not None:
            return self.question.append.source(BATCH, "base")
        return self.question.source(self.table)

    @property
    def measures(self) -> Mapping[str, Measure]:
        """The aggregates over its source."""
        if self.base is not None and self.question.append is not None:
            return self.question.append.measures
        return self.question.measures


@dataclass(frozen=True, slots=True)
class Part:
    """Some measures of a question, as a statement asks for them. `read`: what the values say of the measures, None
    where they do not tell; then the measures themselves are asked for."""

    asked: Asked
    measures: Mapping[str, Measure]
    read: Callable[[Values], Values | None] | None = None


@dataclass(slots=True)
class Statement:
    """One SELECT that answers many questions: aggregates over one source, by slices or not. `values_of`: the table and
    its column whose values, which repeat themselves, are the source."""

    source: str
    by: str
    terms: dict[str, str] = field(default_factory=dict)
    parts: list[Part] = field(default_factory=list)
    values_of: tuple[str, str] | None = None

    def add(self, part: Part) -> None:
        """Ask for these aggregates too; one that is asked for already is computed once."""
        for measure in part.measures.values():
            self.terms.setdefault(measure.sql, f"c{len(self.terms)}")
        self.parts.append(part)

    def text(self, counted: str | None = None) -> str:
        """The SELECT. `counted`: a table in which the values of `values_of` are counted already."""
        terms = ", ".join(f"{sql} AS {name}" for sql, name in self.terms.items())
        if not self.by:
            source = of_values(self.values_of[1], counted) if self.values_of and counted else self.source
            return f"SELECT {terms} FROM {source}"
        by = quoted(self.by)
        return f"SELECT {by} AS slice_, {terms} FROM {self.source} GROUP BY {by} ORDER BY 1 LIMIT {SLICES_MAX + 1}"


def statements(asked: Sequence[Asked], hints: Hints) -> list[Statement]:
    """The statements that answer the questions, those first that take longest."""
    found: dict[tuple[str, str, int], Statement] = {}
    together: dict[tuple[str, str], list[Part]] = {}
    grouped = _grouped(asked, hints)
    for number, one in enumerate(asked):
        by, column = one.question.check.by, _column(one)
        if column in grouped and one.measures and _counts_texts(one):
            source = by_value(column)(one.table)
            found.setdefault((source, "", 0), Statement(source, "")).add(Part(one, _weighed(one.measures)))
        elif one.measures and one.question.quick is not None and not one.is_delta:
            together.setdefault((one.source, by), []).append(
                Part(one, one.question.quick.measures, one.question.quick.read)
            )
        elif one.measures and (one.question.alone or one.source != one.table):
            apart = number + 1 if one.question.alone else 0
            found.setdefault((one.source, by, apart), Statement(one.source, by)).add(Part(one, one.measures))
        elif one.measures:
            together.setdefault((one.source, by), []).append(Part(one, one.measures))
        if one.question.plain:
            together.setdefault((one.table, by), []).append(Part(one, one.question.plain))
    repeating = {by_value(column)(one.table): (one.table, column) for one in asked for column in hints.repeating}
    for statement in found.values():
        statement.values_of = repeating.get(statement.source)
    cut = [each for (source, by), parts in together.items() for each in _cut(source, by, parts, hints)]
    return [*found.values(), *cut]


def _grouped(asked: Sequence[Asked], hints: Hints) -> set[str]:
    """The columns of texts of which the distinct values are looked at."""
    return {
        _column(one)
        for one in asked
        if isinstance(one.question.check, _ON_TEXTS) and _counts_texts(one) and hints.repeats(_column(one))
    }


def _counts_texts(one: Asked) -> bool:
    check = one.question.check
    return (
        isinstance(check, (*_ON_TEXTS, NotNull))
        and one.question.plain == {}
        and not check.where
        and not check.by
        and one.source == one.table
        and can_be_by_value(check.column)
        and all(measure.counts is not None for measure in one.measures.values())
    )


def _weighed(measures: Mapping[str, Measure]) -> dict[str, Measure]:
    """Counts of rows as sums over distinct values."""
    return {
        name: Measure(f"coalesce(sum(__n){filtered(measure.counts or '')}, 0)::BIGINT", measure.merge, measure.counts)
        for name, measure in measures.items()
    }


def _column(one: Asked) -> str:
    """The one column that a question reads, empty where there are more."""
    check = one.question.check
    return "" if check.where else getattr(check, "column", "")


def _cut(source: str, by: str, parts: Sequence[Part], hints: Hints) -> list[Statement]:
    """The parts in as many statements as run at once, each column in one of them."""
    if by or not hints.many:
        return [_joined(source, by, parts)]
    columns: dict[str, list[Part]] = {}
    for part in parts:
        columns.setdefault(_column(part.asked), []).append(part)
    lanes: list[list[Part]] = [[] for _ in range(_LANES)]
    for of_column in sorted(columns.values(), key=_weight, reverse=True):
        min(lanes, key=_weight).extend(of_column)
    return [_joined(source, by, lane) for lane in lanes if lane]


def _weight(parts: Sequence[Part]) -> int:
    return sum(10 if isinstance(part.asked.question.check, Regex) else len(part.measures) for part in parts)


def _joined(source: str, by: str, parts: Sequence[Part]) -> Statement:
    made = Statement(source, by)
    for part in parts:
        made.add(part)
    return made
