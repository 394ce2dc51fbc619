"""Filters and orders over traces as SQL, on SQLite and PostgreSQL alike.

Two sorts of condition have no SQL that is alike on both and safe on each: regular expressions, which run in RE2 (linear
in the text, whatever the pattern), and attributes of spans. Those pick their traces among the few rows that SQL leaves,
and the page is then cut from what is in all the picks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy import ColumnElement, FromClause, and_, case, exists, func, or_, select

from modelyard.kernel.database import Transaction
from modelyard.kernel.errors import InvalidInput
from modelyard.planes.tracking import filters, trace_store
from modelyard.planes.tracking.search import compare
from modelyard.planes.tracking.trace_filters import ATTRIBUTES, RUN_KEY, TraceClause, TraceOrder

_TRACES = trace_store.traces
_SPANS = trace_store.spans
_ASSESSMENTS = trace_store.assessments
_LINKS = trace_store.links
_KEYED = {"tag": trace_store.trace_tags, "metadata": trace_store.trace_metadata}
SESSION_KEY = "mlflow.trace.session"
_END = _TRACES.c.request_ms + func.coalesce(_TRACES.c.duration_ms, 0)


class Found(NamedTuple):
    """What a filter is in SQL, and the picks that it leaves to be made outside."""

    conditions: list[ColumnElement[bool]]
    picks: list[frozenset[str]]


def ids(
    tx: Transaction,
    experiments: Sequence[int],
    clauses: Sequence[TraceClause],
    orders: Sequence[TraceOrder],
    limit: int,
    offset: int,
) -> list[str]:
    """The ids of the traces found, in order; ties by time, newest first, then by id."""
    found = conditions(tx, experiments, clauses)
    source, keys = _ordered(tx, orders)
    statement = select(_TRACES.c.id).select_from(source).where(*found.conditions).order_by(*keys)
    if not found.picks:
        return [row.id for row in tx.all(statement.limit(limit).offset(offset))]
    picked = frozenset.intersection(*found.picks)
    every = [row.id for row in tx.all(statement) if row.id in picked] if picked else []
    return every[offset : offset + limit]


def all_ids(tx: Transaction, experiments: Sequence[int], clauses: Sequence[TraceClause]) -> frozenset[str]:
    """The ids of all traces found, in no order."""
    found = conditions(tx, experiments, clauses)
    every = frozenset(row.id for row in tx.all(select(_TRACES.c.id).where(*found.conditions)))
    return every.intersection(*found.picks)


def conditions(tx: Transaction, experiments: Sequence[int], clauses: Sequence[TraceClause]) -> Found:
    """A filter over the traces of some experiments."""
    base: list[ColumnElement[bool]] = [_TRACES.c.project == tx.project, _TRACES.c.experiment.in_(experiments)]
    found, picks = list(base), []
    for clause in clauses:
        if clause.operator == "RLIKE" and clause.field != "span":
            picks.append(_matching(tx, base, clause))
        elif clause.field != "span":
            found.append(_condition(tx, clause))
    of_spans = [clause for clause in clauses if clause.field == "span"]
    outside = [clause for clause in of_spans if clause.operator == "RLIKE" or clause.key.startswith(ATTRIBUTES)]
    if outside:
        picks.append(_with_span(tx, base, [clause for clause in of_spans if clause not in outside], outside))
    elif of_spans:
        found.append(exists().where(_of(_SPANS), *(_span_condition(tx, clause) for clause in of_spans)))
    return Found(found, picks)


def _condition(tx: Transaction, clause: TraceClause) -> ColumnElement[bool]:
    if clause.field == "attribute":
        column = _END if clause.key == "end_ms" else _TRACES.c[clause.key]
        return _compared(tx, column, clause)
    if clause.field in ("tag", "metadata"):
        table = _KEYED[clause.field].alias()
        return _existing(tx, table, and_(_of(table), table.c.key == clause.key), clause, table.c.value)
    if clause.field == "run":
        metadata, links = trace_store.trace_metadata.alias(), _LINKS.alias()
        return or_(
            exists().where(_of(metadata), metadata.c.key == RUN_KEY, metadata.c.value == clause.value),
            exists().where(_of(links), links.c.kind == "run", links.c.target == clause.value),
        )
    if clause.field == "prompt":
        links = _LINKS.alias()
        return exists().where(_of(links), links.c.kind == "prompt", links.c.target == clause.value)
    if clause.field == "issue":
        table = _ASSESSMENTS.alias()
        return exists().where(_of(table), table.c.kind == "issue", table.c.name == clause.value)
    return _assessed(tx, clause)


def _existing(
    tx: Transaction, table: FromClause, here: ColumnElement[bool], clause: TraceClause, value: ColumnElement[str]
) -> ColumnElement[bool]:
    if clause.operator == "IS NULL":
        return ~exists().where(here)
    if clause.operator == "IS NOT NULL":
        return exists().where(here)
    return exists().select_from(table).where(here, _compared(tx, value, clause))


def _assessed(tx: Transaction, clause: TraceClause) -> ColumnElement[bool]:
    """Traces with such an assessment, or in a session that has one which speaks for the whole session."""
    table = _ASSESSMENTS.alias()
    wanted = [table.c.kind == clause.field, table.c.name == clause.key, table.c.valid.is_(True)]
    if clause.operator not in filters.NULLS:
        wanted.append(_compared(tx, table.c.text, clause))
    own, theirs = trace_store.trace_metadata.alias(), trace_store.trace_metadata.alias()
    sessions = (
        select(theirs.c.value)
        .join(table, and_(table.c.project == theirs.c.project, table.c.trace == theirs.c.trace))
        .where(theirs.c.project == tx.project, theirs.c.key == SESSION_KEY, table.c.session.is_not(None), *wanted)
    )
    direct = exists().where(_of(table), *wanted)
    in_session = exists().where(_of(own), own.c.key == SESSION_KEY, own.c.value.in_(sessions))
    found = or_(direct, in_session)
    return ~found if clause.operator == "IS NULL" else found


def _span_condition(tx: Transaction, clause: TraceClause) -> ColumnElement[bool]:
    return _compared(tx, _SPANS.c[clause.key], clause)


def _compared(tx: Transaction, column: ColumnElement[Any], clause: TraceClause) -> ColumnElement[bool]:
    return compare(tx, column, filters.Clause("attribute", clause.key, clause.operator, clause.value))


def _of(table: FromClause) -> ColumnElement[bool]:
    return and_(table.c.project == _TRACES.c.project, table.c.trace == _TRACES.c.id)


def _matching(tx: Transaction, base: Sequence[ColumnElement[bool]], clause: TraceClause) -> frozenset[str]:
    """The traces that a regular expression picks."""
    if clause.field == "attribute":
        texts = select(_TRACES.c.id, _TRACES.c[clause.key].label("text")).where(*base)
        return _picked(clause, tx.all(texts))
    if clause.field in ("tag", "metadata"):
        table, column = _KEYED[clause.field], _KEYED[clause.field].c.value
        here = table.c.key == clause.key
    else:
        table, column = _ASSESSMENTS, _ASSESSMENTS.c.text
        here = and_(table.c.kind == clause.field, table.c.name == clause.key, table.c.valid.is_(True))
    joined = select(_TRACES.c.id, column.label("text")).join(table, _of(table)).where(*base, here)
    return _picked(clause, tx.all(joined))


def _picked(clause: TraceClause, rows: Sequence[sa.Row[Any]]) -> frozenset[str]:
    fits = matches(str(clause.value), [row.text for row in rows])
    return frozenset(row.id for row, fit in zip(rows, fits, strict=True) if fit)


def _with_span(
    tx: Transaction,
    base: Sequence[ColumnElement[bool]],
    inside: Sequence[TraceClause],
    outside: Sequence[TraceClause],
) -> frozenset[str]:
    """The traces that have one span which meets all conditions: those that SQL can say and those that it cannot."""
    columns = [_SPANS.c.trace, _SPANS.c.name, _SPANS.c.type, _SPANS.c.status]
    statement = select(*columns, _SPANS.c.content).join(_TRACES, _of(_SPANS))
    statement = statement.where(*base, *(_span_condition(tx, clause) for clause in inside))
    for clause in outside:
        if clause.key.startswith(ATTRIBUTES):
            named = msgspec.json.encode(clause.key[len(ATTRIBUTES) :]).decode()
            statement = statement.where(_SPANS.c.content.contains(named, autoescape=True))
    rows: Sequence[Any] = tx.all(statement)
    for clause in outside:
        texts = [_text_of(row, clause.key) for row in rows]
        fits = _fits(clause, texts)
        rows = [row for row, fit in zip(rows, fits, strict=True) if fit]
    return frozenset(row.trace for row in rows)


def _text_of(row: Any, key: str) -> str | None:
    if not key.startswith(ATTRIBUTES):
        return str(getattr(row, key))
    value = msgspec.json.decode(row.content)["attributes"].get(key[len(ATTRIBUTES) :])
    return None if value is None else as_text(value)


def as_text(value: Any) -> str:
    """A value as search reads it: a text as it is, a whole number without a point, anything else in JSON."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _fits(clause: TraceClause, texts: Sequence[str | None]) -> list[bool]:
    value = clause.value
    if clause.operator in ("LIKE", "ILIKE"):
        return matches(_like(str(value), folding=clause.operator == "ILIKE"), texts)
    if clause.operator == "RLIKE":
        return matches(str(value), texts)
    tests: dict[str, Callable[[str], bool]] = {
        "=": lambda text: text == value,
        "!=": lambda text: text != value,
        "IN": lambda text: isinstance(value, list) and text in value,
        "NOT IN": lambda text: isinstance(value, list) and text not in value,
    }
    test = tests[clause.operator]
    return [text is not None and test(text) for text in texts]


_SPECIAL = frozenset(r"\.+*?()|[]{}^$")


def _like(pattern: str, *, folding: bool) -> str:
    parts = {"%": ".*", "_": "."}
    body = "".join(parts.get(one) or (f"\\{one}" if one in _SPECIAL else one) for one in pattern)
    return f"(?s{'i' if folding else ''})^{body}$"


def matches(pattern: str, texts: Sequence[str | None]) -> list[bool]:
    """In which of the texts a regular expression (RE2) finds something. Raises InvalidInput for what is none."""
    import pyarrow  # heavy, and few searches have such a condition
    import pyarrow.compute

    try:
        found = pyarrow.compute.match_substring_regex(pyarrow.array(texts, type=pyarrow.string()), pattern)
    except pyarrow.ArrowInvalid as error:
        raise InvalidInput(
            f"'{pattern[:200]}' is no regular expression: {str(error)[:200]}",
            code="filter.pattern_invalid",
            hint="RLIKE takes RE2 patterns, which know neither look-around nor back-references",
        ) from error
    return [bool(one) for one in found.to_pylist()]


def _ordered(tx: Transaction, orders: Sequence[TraceOrder]) -> tuple[FromClause, list[ColumnElement[Any]]]:
    source: FromClause = _TRACES
    keys: list[ColumnElement[Any]] = []
    for order in orders:
        if order.field == "attribute":
            column: ColumnElement[Any] = _END if order.key == "end_ms" else _TRACES.c[order.key]
        else:
            table = _KEYED[order.field].alias()
            here = and_(table.c.project == tx.project, table.c.trace == _TRACES.c.id, table.c.key == order.key)
            source, column = source.outerjoin(table, here), table.c.value
        keys += [case((column.is_(None), 1), else_=0), column.asc() if order.ascending else column.desc()]
    named = {order.key for order in orders if order.field == "attribute"}
    if "request_ms" not in named:
        keys.append(_TRACES.c.request_ms.desc())
    return source, keys if "id" in named else [*keys, _TRACES.c.id]
