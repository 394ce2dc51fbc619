"""What a check becomes: SQL over one table, aggregates with the rule by which two parts of a table are put together."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from modelyard.engines.tables.sql import quoted
from modelyard.planes.data.checks.values import Unfit, is_float
from modelyard.types.checks import Check, IgnoreRow, Rule
from modelyard.types.data import CheckResult

BATCH = "batch"
DATASET = "dataset"
BASE = "base"
SAMPLE_ROWS_MAX = 20
SLICES_MAX = 10_000
VALUES_KEPT_MAX = 200

# How the values of an aggregate over two parts of a table become that over both. `union`: of lists of distinct values,
# null for more than are kept; then `overflow` says how many. `moments`: of n, mean and variance. `rescan`: not at all,
# both parts are looked at again.
Merge = Literal["sum", "min", "max", "union", "overflow", "moments", "first", "last", "rescan"]
Values = dict[str, Any]
OfTable = Callable[[str], str]
# What makes a condition depend on more than the row: other rows, columns that come later, the time, chance.
_NOT_OF_A_ROW = re.compile(
    r"\b(select|from|table|values|columns|pivot|current_\w+|localtime\w*)\b"
    r"|\b(age|\w*current_\w+|getvariable|nextval|currval|now|\w*random\w*|setseed|today|txid_\w+|transaction_\w+"
    r"|\w*uuid\w*)\s*\(",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Measure:
    """An aggregate over the rows of a source. `counts`: where it counts rows, the condition on them, empty for all."""

    sql: str
    merge: Merge = "sum"
    counts: str | None = None


@dataclass(frozen=True, slots=True)
class Append:
    """How a check that looks at pairs of rows is asked of an append: aggregates that are added to those before, from
    a source over the new rows (the first table) and those before them (the second). `clean`: aggregates over a table
    in which no pair fails, and none does with rows outside of it; empty where that takes the pairs."""

    source: Callable[[str, str], str]
    measures: Mapping[str, Measure]
    clean: Mapping[str, Measure] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TextTest:
    """A test of a text in Python, asked of each distinct value once."""

    column: str
    passes: Callable[[str], bool]
    present: str


@dataclass(frozen=True, slots=True)
class Quick:
    """Cheaper aggregates that are enough for most rows. `read`: what they say of the measures, None where it takes
    these to tell."""

    measures: Mapping[str, Measure]
    read: Callable[[Values], Values | None]


@dataclass(frozen=True, slots=True)
class Question:
    """One check as SQL over a table.

    `of`: the table. `source`: what follows FROM. `measures`: aggregates over it, and `plain` ones over the table; both
    are judged by `verdicts`. `alone`: in a statement of its own, since it would slow the common one down. `rows`:
    selects all failing rows; `fails`, in its place: the condition on a row that is one. `append`, `text`, `quick`:
    other ways to the same measures. `rising`: a column such that nothing fails if its values strictly rise from row to
    row, which costs a tenth to find out; `of_texts`: it holds texts. `median_of`: the column whose median is
    the measure `value`, and the count of whose numbers, NaN left out, is `present`. `verdict`: known without data.
    """

    check: Check
    of: str = BATCH
    source: OfTable = lambda table: table
    measures: Mapping[str, Measure] = field(default_factory=dict)
    plain: Mapping[str, Measure] = field(default_factory=dict)
    alone: bool = False
    rows: OfTable | None = None
    fails: str = ""
    append: Append | None = None
    rising: str = ""
    of_texts: bool = False
    median_of: str = ""
    text: TextTest | None = None
    quick: Quick | None = None
    facts: Values = field(default_factory=dict)
    verdict: CheckResult | None = None

    @property
    def merges(self) -> bool:
        """Whether answers over two parts of a table can be put together, or the part before be taken into account."""
        if not is_of_row(self.check):
            return False
        if self.append is not None or self.text is not None:
            return True
        asked = [*self.measures.values(), *self.plain.values()]
        return bool(asked) and all(one.merge != "rescan" for one in asked)


@dataclass(frozen=True, slots=True)
class Provided:
    """A table that a check refers to, under the name that the session knows it by. `version` names what it holds;
    `rows`: how many, None where that is not known."""

    table: str
    columns: Mapping[str, str]
    version: str
    rows: int | None = None


@dataclass(frozen=True, slots=True)
class Context:
    """What a check is compiled over: columns with Arrow types, and tables of references by `name` or `name@ref`.
    `without_nan`: columns of floats of which it is known that none is NaN. `rows`: how many rows there are at most,
    None where that is not known."""

    columns: Mapping[str, str]
    provided: Mapping[str, Provided] = field(default_factory=dict)
    facts: Mapping[str, Values] = field(default_factory=dict)
    without_nan: frozenset[str] = frozenset()
    rows: int | None = None

    def may_be_nan(self, column: str) -> bool:
        """Whether a column can hold NaN. Raises Unfit where it is missing."""
        return is_float(self.kind(column)) and column not in self.without_nan

    def kind(self, column: str) -> str:
        """The type of a column. Raises Unfit where it is missing."""
        found = self.columns.get(column)
        if found is None:
            raise Unfit(f"column '{column}' is missing; the columns are: {', '.join(self.columns)}")
        return found

    def table(self, dataset: str, ref: str) -> Provided:
        """The referenced table. Raises Unfit where it is not there."""
        found = self.provided.get(reference_key(dataset, ref))
        if found is None:
            raise Unfit(f"dataset '{reference_key(dataset, ref)}', which the check refers to, is not there")
        return found


def reference_key(dataset: str, ref: str) -> str:
    """How a reference to a version of a dataset is written."""
    return f"{dataset}@{ref}" if ref else dataset


def is_of_row(check: Rule) -> bool:
    """Whether the conditions in a check say the same of a row whenever it is looked at, and whatever is beside it."""
    texts = (str(getattr(check, name, "")) for name in ("where", "condition", "to_where"))
    return not any(_NOT_OF_A_ROW.search(re.sub(r"(?i)\bdistinct\s+from\b", "=", text)) for text in texts)


def condition(check: Rule) -> str:
    """The check's `where` as a term, empty where there is none."""
    return f"({check.where}\n)" if check.where else ""


def every(*terms: str) -> str:
    """The terms joined by AND; `true` of none."""
    return " AND ".join(term for term in terms if term) or "true"


def filtered(*terms: str) -> str:
    """An aggregate's FILTER by these terms, empty where there are none."""
    whole = every(*terms)
    return "" if whole == "true" else f" FILTER (WHERE {whole})"


def kept_values(name: str, which: str) -> str:
    """The aggregate of distinct values, those that meet a condition, none of them null, as long as they are few; else
    null."""
    kept = f"coalesce({least(name, VALUES_KEPT_MAX, which)}, [])"
    return f"CASE WHEN coalesce(count_if({which}), 0) <= {VALUES_KEPT_MAX} THEN {kept} END"


def least(name: str, count: int, which: str) -> str:
    """The aggregate of the first values in order, among those that meet a condition; null of none. A list of all of
    them, to be cut, would hold them all."""
    return f"min({name}, {count}){filtered(which)}"


def by_value(column: str) -> OfTable:
    """The source of a column's distinct values, under its own name and as `__v`, each with its count `__n`."""
    name = quoted(column)
    return lambda table: of_values(column, f"(SELECT {name} AS __v, count(*) AS __n FROM {table} GROUP BY 1)")


def of_values(column: str, counted: str) -> str:
    """The source of a column's distinct values, from where they are counted."""
    return f"(SELECT __v, __v AS {quoted(column)}, __n FROM {counted})"


def can_be_by_value(column: str) -> bool:
    """Whether a column's name is none of those that the source of its values has itself."""
    return column.casefold() not in ("__v", "__n")


def values_of(column: str, check: Rule, where: str) -> OfTable:
    """The source of a column's distinct values `__v`, each with its count `__n`, by slices where there are any."""
    by = f", {quoted(check.by)}" if check.by else ""

    def source(table: str) -> str:
        return f"(SELECT {quoted(column)} AS __v{by}, count(*) AS __n FROM {table} WHERE {where} GROUP BY ALL)"

    return source


def present(column: str, context: Context, check: Rule) -> str:
    """That a column has a value in a row: under pandas' rules NaN is none. Raises Unfit where it is missing."""
    name, may_be_nan = quoted(column), context.may_be_nan(column)
    if check.semantics == "pandas" and may_be_nan:
        return f"{name} IS NOT NULL AND NOT isnan({name})"
    return f"{name} IS NOT NULL"


def count_present(column: str, context: Context, check: Rule) -> Measure:
    """The count of the rows that the check looks at and in which a column has a value."""
    has_value = present(column, context, check)
    if check.where or "isnan" in has_value:
        return count_of(check, has_value)
    return Measure(f"count({quoted(column)})", counts=has_value)


def count_of(check: Rule, terms: str) -> Measure:
    """The count of rows that the check looks at and that meet the terms, which may be empty."""
    whole = every(condition(check), terms)
    return Measure("count(*)", counts="") if whole == "true" else Measure(f"count_if({whole})", counts=whole)


def regarded(rule: IgnoreRow, has_value: list[str]) -> str:
    """That a row is regarded, by which of its columns have a value; empty where every row is."""
    if rule == "never":
        return ""
    joined = (" AND " if rule == "any_null" else " OR ").join(f"({one})" for one in has_value)
    return f"({joined})"
