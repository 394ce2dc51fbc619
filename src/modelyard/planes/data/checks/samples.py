"""Samples of the rows that fail the checks of a suite, found with few looks at the rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from modelyard.engines.tables.sql import as_dictionaries
from modelyard.kernel.errors import InvalidInput, LimitExceeded
from modelyard.planes.data.checks.asking import Session
from modelyard.planes.data.checks.question import SAMPLE_ROWS_MAX
from modelyard.planes.data.profile import wire_row

if TYPE_CHECKING:
    import pyarrow as pa

Rows = list[dict[str, Any]]
_ROWS_AT_ONCE = 4 * SAMPLE_ROWS_MAX


@dataclass(frozen=True, slots=True)
class Failing:
    """Rows that fail a check: a SELECT of them, and the table and the condition on its rows where it takes no more than
    that. `count`: how many, where that is known."""

    select: str
    fails: tuple[str, str] | None = None
    count: int = 0


def samples_of(session: Session, failing: Mapping[int, Failing]) -> dict[int, Rows]:
    """The first of the rows, under the key of each. None where they cannot be had: a verdict stands without them."""
    conditions: dict[str, dict[int, str]] = {}
    for key, one in failing.items():
        if one.fails is not None:
            table, condition = one.fails
            conditions.setdefault(table, {})[key] = f"({condition}\n)"
    found: dict[int, Rows] = {}
    for table, by_key in conditions.items():
        try:
            if session.is_in_memory(table):
                found |= _in_memory(session, table, by_key)
            elif len(by_key) > 1:
                enough = {key: min(SAMPLE_ROWS_MAX, failing[key].count) for key in by_key}
                found |= _first_that_fail(session, table, by_key, enough)
        except (InvalidInput, LimitExceeded):
            continue
    apart = [key for key in failing if key not in found]
    return found | dict(zip(apart, session.each([partial(_sample, one=failing[key]) for key in apart]), strict=True))


def _in_memory(session: Session, table: str, conditions: Mapping[int, str]) -> dict[int, Rows]:
    places = session.each([partial(_places, table=table, condition=one) for one in conditions.values()])
    rows = _wired(session.rows_at(table, [place for some in places for place in some]))
    found = {}
    for key, some in zip(conditions, places, strict=True):
        found[key], rows = rows[: len(some)], rows[len(some) :]
    return found


def _places(session: Session, table: str, condition: str) -> list[int]:
    return session.places(table, condition, SAMPLE_ROWS_MAX)


def _first_that_fail(
    session: Session, table: str, conditions: Mapping[int, str], enough: Mapping[int, int]
) -> dict[int, Rows]:
    """Samples from the first rows that fail any of the conditions; none of one that fails too seldom among them. Where
    few rows of many fail, each look at them costs more than all that was counted."""
    first = in_one_look(session, table, conditions, limit=len(conditions) * _ROWS_AT_ONCE)
    samples = {key: failing.slice(0, SAMPLE_ROWS_MAX) for key, failing in first.items()}
    return {key: _wired(some) for key, some in samples.items() if some.num_rows >= enough[key]}


def in_one_look(
    session: Session, table: str, conditions: Mapping[int, str], *, shown: str = "*", limit: int | None = None
) -> dict[int, pa.Table]:
    """The rows of a table that meet each of the conditions, by its key, with what of them is shown; among the first so
    many that meet any, where there is a limit."""
    flags = ", ".join(f"{condition} IS TRUE AS __fails{key}" for key, condition in conditions.items())
    upto = "" if limit is None else f" LIMIT {limit}"
    found = session.table(f"SELECT {shown}, {flags} FROM {table} WHERE {' OR '.join(conditions.values())}{upto}")
    width = found.num_columns - len(conditions)
    rows = found.select(range(width))
    return {key: rows.filter(found.column(width + number)) for number, key in enumerate(conditions)}


def _sample(session: Session, one: Failing) -> Rows:
    try:
        return _wired(session.table(f"SELECT * FROM ({one.select}\n) LIMIT {SAMPLE_ROWS_MAX}"))
    except (InvalidInput, LimitExceeded):
        return []


def _wired(table: Any) -> Rows:
    return [wire_row(row) for row in as_dictionaries(table)]
