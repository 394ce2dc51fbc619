"""Metric points as packed columns. A segment holds all points of one batch, grouped by key, never a row per point.

A segment is `u32 length | directory | float64 values | int64 steps | int64 times`, little-endian; the directory is
msgpack, `[[key, count], ...]` in the order of the groups. (`series.py` has a second, smaller form for long histories of
one key.) Not-a-number is NaN; an infinity is the largest finite double of its sign, as MLflow's SQL stores keep it.
This module runs on every write, so it needs no numpy.
"""

from __future__ import annotations

import math
import struct
import sys
from array import array
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from modelyard.kernel.errors import EngineError
from modelyard.planes.tracking.rules import FLOAT_MAX

_LENGTH = struct.Struct("<I")
_NATIVE = sys.byteorder == "little"
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[tuple[str, int]]).decode


class Value(NamedTuple):
    """One value of a metric in the order that decides which is the latest: step, time, value."""

    step: int
    timestamp_ms: int
    value: float

    @property
    def rank(self) -> tuple[int, int, float]:
        """What is compared: not-a-number counts as zero, as MLflow's SQL stores count it."""
        return self.step, self.timestamp_ms, 0.0 if math.isnan(self.value) else self.value


class Columns(NamedTuple):
    """Points of one key."""

    values: array[float]
    steps: array[int]
    times: array[int]


def storable(value: float) -> float:
    """The value that is kept: an infinity becomes the largest finite double of its sign."""
    return math.copysign(FLOAT_MAX, value) if math.isinf(value) else value


def group(points: Iterable[tuple[str, float, int, int]]) -> dict[str, list[Value]]:
    """Points (key, value, step, time in ms) by key, in the order they came, exact duplicates dropped."""
    groups: dict[str, dict[Value, None]] = {}
    for key, value, step, timestamp_ms in points:
        # One NaN object for all, since a dict finds a NaN by identity only.
        kept = math.nan if value != value else storable(value)
        groups.setdefault(key, {})[Value(step, timestamp_ms, kept)] = None
    return {key: list(found) for key, found in groups.items()}


def latest(values: Sequence[Value]) -> Value:
    """The latest by (step, time, value), whenever it arrived."""
    best = max(values)
    # Among values that may be NaN the plain order says nothing; these are few.
    return best if not any(value.value != value.value for value in values) else max(values, key=lambda one: one.rank)


def pack(groups: dict[str, list[Value]]) -> bytes:
    """The segment of a batch."""
    steps, times, values = array("q"), array("q"), array("d")
    for found in groups.values():
        column_steps, column_times, column_values = zip(*found, strict=True)
        steps.extend(column_steps)
        times.extend(column_times)
        values.extend(column_values)
    return pack_columns([(key, len(found)) for key, found in groups.items()], values, steps, times)


def pack_columns(directory: list[tuple[str, int]], values: array[float], steps: array[int], times: array[int]) -> bytes:
    """A segment from columns that are grouped as the directory says."""
    head = _encode(directory)
    if not _NATIVE:
        for column in (values, steps, times):
            column.byteswap()
    return b"".join((_LENGTH.pack(len(head)), head, values.tobytes(), steps.tobytes(), times.tobytes()))


def directory(segment: bytes) -> list[tuple[str, int]]:
    """The keys of a segment and how many points each has. Raises EngineError for bytes that are no segment."""
    return _directory(segment)[0]


def unpack(segment: bytes, key: str) -> Columns | None:
    """The points of a key in a segment, None where it has none. Raises EngineError for bytes that are no segment."""
    found, offset = _directory(segment)
    total = sum(count for _, count in found)
    before = 0
    for name, count in found:
        if name == key:
            return Columns(
                _column("d", segment, offset + 8 * before, count),
                _column("q", segment, offset + 8 * (total + before), count),
                _column("q", segment, offset + 8 * (2 * total + before), count),
            )
        before += count
    return None


def _directory(segment: bytes) -> tuple[list[tuple[str, int]], int]:
    try:
        (length,) = _LENGTH.unpack_from(segment)
        offset = _LENGTH.size + length
        found = _decode(segment[_LENGTH.size : offset])
        sound = len(segment) == offset + 24 * sum(count for _, count in found) and all(c >= 0 for _, c in found)
    except (struct.error, msgspec.DecodeError) as error:
        raise _damaged() from error
    if not sound:
        raise _damaged()
    return found, offset


def _column(kind: str, segment: bytes, start: int, count: int) -> array:  # type: ignore[type-arg]
    column = array(kind)
    column.frombytes(segment[start : start + 8 * count])
    if not _NATIVE:
        column.byteswap()
    return column


def _damaged() -> EngineError:
    return EngineError(
        "a segment of metric points is damaged", code="metric.segment_damaged", hint="restore it from a backup"
    )
