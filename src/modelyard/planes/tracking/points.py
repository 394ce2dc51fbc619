"""Metric points as packed columns. A segment holds all points of one batch, by key, never a row per point.

A segment is `MYS3 | u32 crc | u32 length | directory | float64 values | int64 steps | int64 times`, little-endian; the
directory is msgpack, `[[key, count], ...]` in the order of the keys, and the crc is over all that follows it. (The form
before had neither the name nor the crc; it is still read. `series.py` has one more, smaller, for long histories of
one key.) Not-a-number is NaN; an infinity is the largest finite double of its sign, as MLflow's SQL stores keep it.
This module runs on every write, so it needs no numpy, and goes over the points in C wherever it can.
"""

from __future__ import annotations

import math
import struct
import sys
import zlib
from array import array
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import msgspec

from modelyard.kernel.errors import EngineError
from modelyard.planes.tracking import rules
from modelyard.planes.tracking.rules import FLOAT_MAX

Point = tuple[str, float, int, int]
"""Key, value, step, time in milliseconds."""
_MAGIC = b"MYS3"
_HEAD = struct.Struct("<4sII")
_OLD_HEAD = struct.Struct("<I")
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


class PointColumns(NamedTuple):
    """Points column by column, in the order in which they came."""

    keys: Sequence[str]
    values: Sequence[float]
    steps: Sequence[int]
    times: Sequence[int]

    @classmethod
    def of(cls, points: Iterable[Point]) -> PointColumns:
        """The columns of some points."""
        columns: list[Any] = list(zip(*points, strict=True))
        return cls(*columns) if columns else cls((), (), (), ())


class Batch(NamedTuple):
    """The points of one write, checked and packed: what is done before the catalog is asked for its write lock."""

    points: int
    body: bytes
    latest: dict[str, Value]
    """The latest value of each key, in the order of the keys."""

    @classmethod
    def of(cls, points: PointColumns) -> Batch:
        """Raises InvalidInput, naming the first point that cannot be."""
        keys, raw, steps, times = points
        if not keys:
            return cls(0, b"", {})
        distinct = sorted(set(keys))
        rules.check_metric_keys(distinct)
        try:
            if min(times) < 0:
                raise OverflowError
            columns = Columns(array("d", _storable(raw)), array("q", steps), array("q", times))
        except OverflowError:
            _name_the_bad_one(points)
            raise
        directory = [(distinct[0], len(keys))]
        if len(distinct) > 1:
            # Stable, so that what came first stays first.
            order = sorted(range(len(keys)), key=keys.__getitem__)
            picked: list[Any] = [array(column.typecode, [column[at] for at in order]) for column in columns]
            columns = Columns(*picked)
            directory = [(key, sum(1 for _ in same)) for key, same in groupby(keys[at] for at in order)]
        latest_of = {key: latest(part) for key, part in _split(directory, columns)}
        return cls(len(keys), pack_columns(directory, *columns), latest_of)


def _split(directory: Sequence[tuple[str, int]], columns: Columns) -> Iterable[tuple[str, Columns]]:
    before = 0
    for key, count in directory:
        yield key, Columns(*(column[before : before + count] for column in columns))  # type: ignore[arg-type]
        before += count


def storable(value: float) -> float:
    """The value that is kept: an infinity becomes the largest finite double of its sign."""
    return math.copysign(FLOAT_MAX, value) if math.isinf(value) else value


def _storable(values: Sequence[float]) -> Sequence[float]:
    # A sum is finite only if all of its terms are; that it may overflow costs no more than the long way.
    if math.isfinite(sum(values)):
        return values
    # One NaN for all, whose bits are compared where exact duplicates are left out.
    return [math.nan if value != value else storable(value) for value in values]


def latest(columns: Columns) -> Value:
    """The latest by (step, time, value), whenever it arrived."""
    values, steps, times = columns
    last = len(steps) - 1
    top = max(steps) if last else steps[0]
    if steps[last] == top and (not last or steps.count(top) == 1):
        return Value(top, times[last], values[last])
    return max(
        (Value(top, times[at], values[at]) for at in range(last + 1) if steps[at] == top), key=lambda one: one.rank
    )


def pack_columns(directory: list[tuple[str, int]], values: array[float], steps: array[int], times: array[int]) -> bytes:
    """A segment from columns that are grouped as the directory says."""
    head = _encode(directory)
    if not _NATIVE:
        for column in (values, steps, times):
            column.byteswap()
    content = b"".join((head, values.tobytes(), steps.tobytes(), times.tobytes()))
    return _HEAD.pack(_MAGIC, zlib.crc32(content), len(head)) + content


def directory(segment: bytes) -> list[tuple[str, int]]:
    """The keys of a segment and how many points each has. Raises EngineError for bytes that are no segment."""
    return opened(segment)[0]


def unpack(segment: bytes, key: str) -> Columns | None:
    """The points of a key in a segment, None where it has none. Raises EngineError for bytes that are no segment."""
    found, offset = opened(segment)
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


def opened(segment: bytes) -> tuple[list[tuple[str, int]], int]:
    """The directory of a segment, and where its columns begin. Raises EngineError for bytes that are no segment."""
    try:
        if segment[:4] == _MAGIC:
            _, crc, length = _HEAD.unpack_from(segment)
            start = _HEAD.size
            if zlib.crc32(memoryview(segment)[start:]) != crc:
                raise damaged()
        else:
            (length,), start = _OLD_HEAD.unpack_from(segment), _OLD_HEAD.size
        offset = start + length
        found = _decode(segment[start:offset])
    except (struct.error, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise damaged() from error
    if len(segment) != offset + 24 * sum(count for _, count in found) or any(count < 0 for _, count in found):
        raise damaged()
    return found, offset


def _column(kind: str, segment: bytes, start: int, count: int) -> array:  # type: ignore[type-arg]
    column = array(kind)
    column.frombytes(segment[start : start + 8 * count])
    if not _NATIVE:
        column.byteswap()
    return column


def damaged() -> EngineError:
    """What is raised for bytes that are no segment; who knows which segment it is says so."""
    return EngineError(
        "a segment of metric points is damaged", code="metric.segment_damaged", hint="restore it from a backup"
    )


def _name_the_bad_one(points: PointColumns) -> None:
    for at, (key, value, step, timestamp_ms) in enumerate(zip(*points, strict=True)):
        rules.check_point(key, value, timestamp_ms, step, f"metrics[{at}]" if len(points.keys) > 1 else "")
