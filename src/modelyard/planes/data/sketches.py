"""Summaries of a column that can be merged: of an append only the appended rows need to be looked at. Pure.

Distinct values by HyperLogLog (1,024 registers: 3 % error), quantiles by a t-digest, moments by Chan's formula.
"""

from __future__ import annotations

import base64
import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

REGISTERS = 1024
HASH_BITS = 64
_BUCKET_BITS = 10
_ALPHA = 0.7213 / (1 + 1.079 / REGISTERS)
_COMPRESSION = 60.0
TOP_KEPT = 32


class Sketch(msgspec.Struct, frozen=True, kw_only=True):
    """What of a column can be merged beyond its counts. `hashed_by` names the hash function of the registers: two
    of different ones cannot be merged. `top` holds values with about how often they come."""

    finite: int = 0
    mean: float = 0.0
    m2: float = 0.0
    means: list[float] = []
    weights: list[float] = []
    registers: bytes = b""
    hashed_by: str = ""
    top: list[tuple[Any, float]] = []


def packed(sketch: Sketch) -> str:
    """The sketch as text."""
    return base64.b64encode(msgspec.msgpack.encode(sketch)).decode()


def unpacked(text: str) -> Sketch:
    """The sketch that a text holds. Raises msgspec.DecodeError, ValueError."""
    return msgspec.msgpack.decode(base64.b64decode(text, validate=True), type=Sketch)


def merged(one: Sketch, other: Sketch) -> Sketch:
    """The sketch of both columns' rows together."""
    finite = one.finite + other.finite
    delta = other.mean - one.mean
    share = other.finite / finite if finite else 0.0
    means, weights = compressed(
        [*zip(one.means, one.weights, strict=True), *zip(other.means, other.weights, strict=True)]
    )
    return Sketch(
        finite=finite,
        mean=one.mean + delta * share,
        m2=one.m2 + other.m2 + delta * delta * one.finite * share,
        means=means,
        weights=weights,
        registers=_merged_registers(one, other),
        hashed_by=one.hashed_by,
        top=_merged_top(one.top, other.top),
    )


# --- distinct values --------------------------------------------------------------------------------------------


def registers_of(least: Iterable[tuple[int, int]]) -> bytes:
    """Registers from (bucket, least value that is left of a hash in it, of 64 - 10 bits)."""
    found = bytearray(REGISTERS)
    for bucket, value in least:
        found[bucket] = HASH_BITS - _BUCKET_BITS - value.bit_length() + 1
    return bytes(found)


def distinct_count(registers: bytes) -> int | None:
    """About how many distinct values there were; None where that was not counted."""
    if not registers:
        return None
    empty = registers.count(0)
    raw = _ALPHA * REGISTERS * REGISTERS / sum(2.0**-rank for rank in registers)
    if raw <= 2.5 * REGISTERS and empty:
        return round(REGISTERS * math.log(REGISTERS / empty))
    return round(raw)


def _merged_registers(one: Sketch, other: Sketch) -> bytes:
    if not one.registers or not other.registers:
        return one.registers or other.registers
    if one.hashed_by != other.hashed_by:
        # Another hash function: the larger count is at least no more than the truth.
        counted = [distinct_count(sketch.registers) or 0 for sketch in (one, other)]
        return one.registers if counted[0] >= counted[1] else other.registers
    return bytes(map(max, one.registers, other.registers))


def _merged_top(one: Sequence[tuple[Any, float]], other: Sequence[tuple[Any, float]]) -> list[tuple[Any, float]]:
    counted: dict[Any, float] = {}
    for value, count in (*one, *other):
        counted[value] = counted.get(value, 0.0) + count
    return sorted(counted.items(), key=lambda entry: (-entry[1], str(entry[0])))[:TOP_KEPT]


# --- quantiles --------------------------------------------------------------------------------------------------


def compressed(centroids: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """Means and weights of at most some hundred centroids that stand for these; finest at both ends.

    Equal values stay one centroid however heavy, so that a value that comes often keeps its place.
    """
    means: list[float] = []
    weights: list[float] = []
    total = sum(weight for _, weight in centroids)
    done = 0.0
    for mean, weight in sorted(centroids):
        if weights:
            held = weights[-1]
            if mean == means[-1]:
                weights[-1] = held + weight
                continue
            if held + weight <= _allowance(done + (held + weight) / 2, total):
                means[-1] += (mean - means[-1]) * weight / (held + weight)
                weights[-1] = held + weight
                continue
            done += held
        means.append(mean)
        weights.append(weight)
    return means, weights


def _allowance(place: float, total: float) -> float:
    """The weight that a centroid may have whose middle is at this place."""
    share = place / total
    return max(1.0, 4 * total * share * (1 - share) / _COMPRESSION)


def quantile(sketch: Sketch, share: float, low: float, high: float) -> float | None:
    """About the value below which a share of the rows lies, within the exact least and greatest; None of no rows."""
    if not sketch.means:
        return None
    places = [0.0]
    values = [low]
    done = 0.0
    total = sum(sketch.weights)
    for mean, weight in zip(sketch.means, sketch.weights, strict=True):
        middle = done + weight / 2
        # Heavier than it may be: these are equal values, among which nothing is to be interpolated.
        ends = (done, done + weight) if weight > _allowance(middle, total) else (middle,)
        for place in ends:
            places.append(place / total)
            values.append(mean)
        done += weight
    places.append(1.0)
    values.append(high)
    after = min(max(bisect_right(places, share), 1), len(places) - 1)
    left, right = values[after - 1], values[after]
    width = places[after] - places[after - 1]
    part = (share - places[after - 1]) / width if width > 0 else 0.0
    # Halved, since the difference of two doubles may be too large for one.
    between = 2 * (left / 2 + (right / 2 - left / 2) * part)
    return min(max(between, left), right)
