"""Compaction in the background: reads what is to be put together, and swaps it in one commit under a lease.

Killed at any moment, the catalog has the old segments or the new ones. Points that arrive meanwhile are in segments of
their own, which are left alone.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import bindparam, insert, select

from modelyard.kernel.auth import system_scope
from modelyard.kernel.database import Database, Transaction
from modelyard.kernel.errors import EngineError
from modelyard.kernel.prepared import Prepared
from modelyard.kernel.reconcile import Lease
from modelyard.planes.tracking import packing, store
from modelyard.planes.tracking.compaction import MERGED_POINTS_MAX, Made, Segment, merge, plan
from modelyard.planes.tracking.history import History
from modelyard.planes.tracking.rows import naming_segment

_RUNS_AT_ONCE = 100
_SEGMENTS = store.metric_segments
_SKETCHES = store.metric_sketches
_QUEUE = store.compactions
_OF_RUN = Prepared(select(*(_SEGMENTS.c[name] for name in Segment._fields)).where(_SEGMENTS.c.run == bindparam("run")))
_BODY = Prepared(select(_SEGMENTS.c.body).where(_SEGMENTS.c.number == bindparam("number")))
_INSERT = Prepared(
    insert(_SEGMENTS)
    .values({one.name: bindparam(one.name) for one in _SEGMENTS.c if one.name != "number"})
    .returning(_SEGMENTS.c.number)
)
_INSERT_SKETCH = Prepared(insert(_SKETCHES).values({one.name: bindparam(one.name) for one in _SKETCHES.c}))
_log = logging.getLogger("modelyard.tracking")


class _Swap(NamedTuple):
    """What becomes of one run: these segments are replaced by those. Neither: it needs no further look."""

    project: str
    run: int
    old: list[int]
    new: list[Made]


_NAME, _KEY = "metric-compaction", "queue"
COMPACTION_LEASE = f"{_NAME}:{_KEY}"
"""Who holds this may change the segments that are there; all others only add some."""


class Compactor:
    """Puts small segments together, for the runs that a writer asked to look at."""

    name = _NAME

    def __init__(self, database: Database) -> None:
        self._database = database

    def due(self, now: datetime) -> Sequence[str]:  # noqa: ARG002
        """One key for all, so that many runs share a lease and a commit."""
        with self._database.reading() as tx:
            return [_KEY] if tx.one(select(_QUEUE.c.run).limit(1)) else []

    def act(self, key: str, lease: Lease) -> None:  # noqa: ARG002
        """Look at some of the runs in the queue, and at each until all is well. Running twice is harmless."""
        with self._database.reading() as tx:
            queued = tx.all(select(_QUEUE.c.project, _QUEUE.c.run).limit(_RUNS_AT_ONCE))
        swaps: list[_Swap] = []
        for row in queued:
            swaps.append(self._look_at(row.project, row.run))
            if sum(made.points for swap in swaps for made in swap.new) >= MERGED_POINTS_MAX:
                self._write(swaps, lease)
                swaps = []
        self._write(swaps, lease)

    def _look_at(self, project: str, run: int) -> _Swap:
        try:
            with self._database.reading(system_scope(project)) as tx:
                chosen = plan([Segment._make(row) for row in tx.run(_OF_RUN, {"run": run})])
                parts = _parts(tx, [one.number for one in chosen])
            if not chosen:
                return _Swap(project, run, [], [])
            return _Swap(project, run, [one.number for one in chosen], merge(parts, chosen[0].level + 1))
        except EngineError as error:
            # Left as it is, for whoever can repair it; whoever reads it is told the same.
            _log.error("segments of run number %d of project '%s' stay as they are: %s", run, project, error)
            return _Swap(project, run, [], [])

    def _write(self, swaps: Sequence[_Swap], lease: Lease) -> None:
        if not swaps:
            return
        with self._database.transaction(system_scope("*"), lease=lease) as tx:
            for swap in swaps:
                if swap.new:
                    _swap(tx, swap)
                else:
                    tx.execute(_QUEUE.delete().where(_QUEUE.c.run == swap.run))


def _parts(tx: Transaction, numbers: Sequence[int]) -> list[dict[str, History]]:
    # One after the other and not all bodies at once: they are in the memory once only.
    parts = []
    for number in numbers:
        ((body,),) = tx.run(_BODY, {"number": number})
        with naming_segment(number):
            parts.append(packing.unpack_all(body))
    return parts


def _swap(tx: Transaction, swap: _Swap) -> None:
    tx.execute(_SEGMENTS.delete().where(_SEGMENTS.c.number.in_(swap.old)))
    for made in swap.new:
        ((number,),) = tx.run(
            _INSERT,
            {
                "project": swap.project, "run": swap.run, "first_key": made.first_key, "last_key": made.last_key,
                "level": made.level, "points": made.points, "body": made.body,
            },
        )  # fmt: skip
        if made.sketch is not None:
            tx.run(_INSERT_SKETCH, {"segment": number, "project": swap.project, "body": made.sketch})
