"""Histories out of their segments: only the segments that a key may be in, and sketches where a chart is enough."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import and_, bindparam, func, or_, select

from modelyard.kernel.database import Transaction
from modelyard.kernel.prepared import Prepared
from modelyard.planes.tracking import packing, series, store
from modelyard.planes.tracking.compaction import SETTLED
from modelyard.planes.tracking.history import History
from modelyard.planes.tracking.rows import naming_segment

READ_AT_ONCE_MAX = 2_000_000
SKETCHED_SEGMENTS_MIN = 4
"""A series of fewer settled segments than this is read whole, also for a chart."""
_SEGMENTS = store.metric_segments
_SKETCHES = store.metric_sketches
_RUN: Any = bindparam("run")
_KEY: Any = bindparam("key")


def _covers(key: Any) -> sa.ColumnElement[bool]:
    return and_(_SEGMENTS.c.run == _RUN, _SEGMENTS.c.first_key <= key, _SEGMENTS.c.last_key >= key)


def _bodies(condition: Any, *, thinned: bool) -> sa.Select[Any]:
    if not thinned:
        return select(_SEGMENTS.c.number, _SEGMENTS.c.body).where(condition).order_by(_SEGMENTS.c.number)
    # The body is not even read where there is a sketch.
    body = func.coalesce(_SKETCHES.c.body, _SEGMENTS.c.body)
    joined = _SEGMENTS.outerjoin(_SKETCHES, _SKETCHES.c.segment == _SEGMENTS.c.number)
    return select(_SEGMENTS.c.number, body).select_from(joined).where(condition).order_by(_SEGMENTS.c.number)


_OF_KEY = {thinned: Prepared(_bodies(_covers(_KEY), thinned=thinned)) for thinned in (False, True)}
_SETTLED_OF_KEY = Prepared(
    select(func.count())
    .select_from(_SEGMENTS)
    .where(
        _SEGMENTS.c.run == _RUN, _SEGMENTS.c.first_key == _KEY, _SEGMENTS.c.last_key == _KEY,
        _SEGMENTS.c.level == SETTLED,
    )
)  # fmt: skip


def bodies_of(tx: Transaction, run: int, key: str, *, thinned: bool = False) -> list[tuple[int, bytes]]:
    """The numbers and bodies of the segments of a run that a key may be in; `thinned`, sketches of what is long."""
    wanted = {"run": run, "key": key}
    sketched = thinned and tx.run(_SETTLED_OF_KEY, wanted)[0][0] >= SKETCHED_SEGMENTS_MIN
    return [(number, bytes(body)) for number, body in tx.run(_OF_KEY[sketched], wanted)]


def assemble(bodies: Iterable[tuple[int, bytes]], key: str) -> History:
    """The history of a key from its bodies. Raises EngineError, naming the segment that is damaged."""
    parts = []
    for number, body in bodies:
        with naming_segment(number):
            parts.append(packing.unpack(body, key))
    return series.merge(parts)


def every(tx: Transaction, run: int, keys: Sequence[str]) -> Iterator[tuple[str, History]]:
    """The histories of a run, one after the other; of a run of moderate size all segments are read once."""
    points = tx.scalar(select(func.sum(_SEGMENTS.c.points)).where(_SEGMENTS.c.run == run)) or 0
    if points > READ_AT_ONCE_MAX:
        yield from ((key, assemble(bodies_of(tx, run, key), key)) for key in keys)
        return
    gathered: dict[str, list[History]] = {key: [] for key in keys}
    for row in tx.all(select(_SEGMENTS.c.number, _SEGMENTS.c.body).where(_SEGMENTS.c.run == run)):
        with naming_segment(row.number):
            for key, history in packing.unpack_all(row.body).items():
                gathered.setdefault(key, []).append(history)
    yield from ((key, series.merge(parts)) for key, parts in gathered.items())


def drawn_of(tx: Transaction, run: int, keys: Sequence[str]) -> dict[str, list[History]]:
    """What charts of some keys of a run are made of, by key: parts to merge. Raises EngineError for damage."""
    wanted = dict.fromkeys(keys)
    if len(wanted) == 1:
        return {key: [assemble(bodies_of(tx, run, key, thinned=True), key)] for key in wanted}
    found: dict[str, list[History]] = {key: [] for key in wanted}
    condition = or_(*(and_(_SEGMENTS.c.first_key <= key, _SEGMENTS.c.last_key >= key) for key in wanted))
    every = _bodies(and_(_SEGMENTS.c.run == run, condition), thinned=True)
    whole = _bodies(and_(_SEGMENTS.c.run == run, condition), thinned=False)
    settled = select(func.count().label("settled")).where(
        _SEGMENTS.c.run == run, _SEGMENTS.c.level == SETTLED, _SEGMENTS.c.first_key.in_(list(wanted))
    )
    long = any(row.settled >= SKETCHED_SEGMENTS_MIN for row in tx.all(settled.group_by(_SEGMENTS.c.first_key)))
    columns = _SEGMENTS.c.first_key, _SEGMENTS.c.last_key
    rows: Any = tx.execute((every if long else whole).add_columns(*columns))
    for number, body, first, last in rows:
        with naming_segment(number):
            if first == last:
                part = packing.unpack(body, first)
                parts = {first: part} if part is not None else {}
            else:
                parts = packing.unpack_all(body)
        for key in parts.keys() & wanted.keys():
            found[key].append(parts[key])
    return found
