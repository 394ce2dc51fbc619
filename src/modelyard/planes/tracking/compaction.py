"""Which segments of a run to put together, and how: a merge tree by key. Pure.

What a batch wrote has level 0. Once so many segments of one level overlap at a key, those of that level become segments
of the next, sorted by key, so that each point is written again once a level, and reading a key of a run with a thousand
keys touches few segments. A series that has grown long gets segments of its own, settled for good, each with a sketch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from modelyard.planes.tracking import packing, series
from modelyard.planes.tracking.history import History

FANOUT = 16
"""So many segments of one level that overlap are put together."""
SETTLED = 99
"""The level of segments that are left alone from then on."""
SETTLED_POINTS_MIN, SETTLED_POINTS_MAX = 32_768, 65_536
"""How many points of one key make a settled segment, and how many it has at most."""
MIXED_POINTS_MAX = 65_536
SKETCH_POINTS = 1_024
MERGED_POINTS_MAX = 1_000_000
"""So many points are put together at once, and no more, to bound time and memory."""


class Segment(NamedTuple):
    """What the catalog's index knows of a segment."""

    number: int
    level: int
    first_key: str
    last_key: str
    points: int


class Made(NamedTuple):
    """A segment to write, with its sketch if it is settled."""

    level: int
    first_key: str
    last_key: str
    points: int
    body: bytes
    sketch: bytes | None


def plan(segments: Sequence[Segment]) -> list[Segment]:
    """Which segments of a run to put together next; none where it is well as it is."""
    levels: dict[int, list[Segment]] = {}
    for one in segments:
        if one.level < SETTLED:
            levels.setdefault(one.level, []).append(one)
    for _, found in sorted(levels.items()):
        if _depth(found) >= FANOUT:
            return _bounded(sorted(found))
    return []


def _depth(segments: Sequence[Segment]) -> int:
    """At how many segments one has to look for a key, at most."""
    edges = sorted([(one.first_key, 0) for one in segments] + [(one.last_key, 1) for one in segments])
    deepest = depth = 0
    for _, ends in edges:
        depth += -1 if ends else 1
        deepest = max(deepest, depth)
    return deepest


def _bounded(segments: Sequence[Segment]) -> list[Segment]:
    taken: list[Segment] = []
    total = 0
    for one in segments:
        total += one.points
        if total > MERGED_POINTS_MAX and len(taken) > 1:
            break
        taken.append(one)
    return taken


def merge(parts: Iterable[dict[str, History]], level: int) -> list[Made]:
    """The segments of a level that hold the same points as the parts."""
    gathered: dict[str, list[History]] = {}
    for part in parts:
        for key, history in part.items():
            gathered.setdefault(key, []).append(history)
    made: list[Made] = []
    mixed: dict[str, History] = {}
    size = 0
    for key in sorted(gathered):
        history, settled = _settle(key, series.merge(gathered[key]))
        made += settled
        if not len(history):
            continue
        if mixed and size + len(history) > MIXED_POINTS_MAX:
            made.append(_mixed(mixed, level))
            mixed, size = {}, 0
        mixed[key] = history
        size += len(history)
    return [*made, _mixed(mixed, level)] if mixed else made


def _settle(key: str, history: History) -> tuple[History, list[Made]]:
    """Settled segments of the beginning of a long history, and the rest of it."""
    made, start = [], 0
    while len(history) - start >= SETTLED_POINTS_MIN:
        part = history.at(slice(start, start + SETTLED_POINTS_MAX))
        thinned = packing.pack(series.sketch(part, SKETCH_POINTS))
        made.append(Made(SETTLED, key, key, len(part), packing.pack(part), thinned))
        start += len(part)
    return history.at(slice(start, None)), made


def _mixed(histories: dict[str, History], level: int) -> Made:
    keys = list(histories)
    points = sum(len(one) for one in histories.values())
    return Made(level, keys[0], keys[-1], points, packing.pack_short(histories), None)
