"""Compaction in the background: many small segments of a run become few, long series become packed ones."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, select

from modelyard.kernel.auth import system_scope
from modelyard.kernel.database import Database
from modelyard.kernel.reconcile import Lease
from modelyard.planes.tracking import series, store

LOOSE_SEGMENTS_MIN = 16
"""Fewer loose segments than this are left as they are."""
LOOSE_POINTS_MAX = 32_768
"""A segment of this many points is large enough to be left alone."""
LONG_POINTS_MIN = 4_096
"""A series that has this many points in the segments at hand gets segments of its own."""
_POINTS_AT_ONCE = 2_000_000
_RUNS_AT_ONCE = 100
_SEGMENTS = store.metric_segments
_QUEUE = store.compactions


class Compactor:
    """Puts the segments of one run together. Points that arrive meanwhile are in new segments, which it leaves."""

    name = "metric-compaction"

    def __init__(self, database: Database) -> None:
        self._database = database

    def due(self, now: datetime) -> Sequence[str]:  # noqa: ARG002
        """The runs that a writer asked to look at."""
        with self._database.reading() as tx:
            rows = tx.all(select(_QUEUE.c.project, _QUEUE.c.run).limit(_RUNS_AT_ONCE))
        return [f"{row.project}/{row.run}" for row in rows]

    def act(self, key: str, lease: Lease) -> None:
        """Compact one run, and take it from the queue. Running twice is harmless: the second finds little."""
        project, _, number = key.rpartition("/")
        scope, run = system_scope(project), int(number)
        with self._database.reading(scope) as tx:
            every = tx.all(
                select(_SEGMENTS)
                .where(
                    _SEGMENTS.c.project == project,
                    _SEGMENTS.c.run == run,
                    _SEGMENTS.c.key.is_(None),
                    _SEGMENTS.c.points < LOOSE_POINTS_MAX,
                )
                .order_by(_SEGMENTS.c.number)
            )
        loose = _bounded(every)
        made = _compacted(loose) if len(loose) >= LOOSE_SEGMENTS_MIN else []
        with self._database.transaction(scope, lease=lease) as tx:
            if made:
                tx.execute(_SEGMENTS.delete().where(_SEGMENTS.c.number.in_([row.number for row in loose])))
                tx.execute(_SEGMENTS.insert(), [{"project": project, "run": run, **one} for one in made])
            if len(loose) == len(every):
                tx.execute(_QUEUE.delete().where(_QUEUE.c.project == project, _QUEUE.c.run == run))


def _bounded(rows: Sequence[Row[Any]]) -> list[Row[Any]]:
    taken: list[Row[Any]] = []
    total = 0
    for row in rows:
        total += row.points
        if total > _POINTS_AT_ONCE and taken:
            break
        taken.append(row)
    return taken


def _compacted(loose: Sequence[Row[Any]]) -> list[dict[str, Any]]:
    """The rows that hold the same points as the loose ones."""
    bodies_of: dict[str, list[bytes]] = {}
    for row in loose:
        for key in series.keys_of(row.body):
            bodies_of.setdefault(key, []).append(row.body)
    made: list[dict[str, Any]] = []
    short: dict[str, series.History] = {}
    for key, bodies in bodies_of.items():
        history = series.assemble(bodies, key)
        if len(history) >= LONG_POINTS_MIN:
            made += [{"key": key, "points": count, "body": body} for count, body in series.pack_long(history)]
            continue
        short[key] = history
        if sum(map(len, short.values())) >= LOOSE_POINTS_MAX:
            made.append(_short(short))
            short = {}
    if short:
        made.append(_short(short))
    return made


def _short(histories: dict[str, series.History]) -> dict[str, Any]:
    return {"key": None, "points": sum(map(len, histories.values())), "body": series.pack_short(histories)}
