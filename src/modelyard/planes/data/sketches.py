"""Summaries of a column that can be merged: of an append only the appended rows need to be looked at. Pure.

Distinct values by HyperLogLog (2,048 registers: 2.3 % standard error), quantiles by a t-digest (1 % of the rows in its
widest cell), moments by Chan's formula, values counted one by one for as long as they are few.
"""

from __future__ import annotations

import base64
import math
import zlib
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

import msgspec

_COMPRESSION = 100.0
_SKETCH_BYTES_MAX = 4 * 1024 * 1024
COUNTED_MAX = 512
"""As many different values are counted one by one; of columns with more, only those that come often are kept."""
TOP_KEPT = 32


class Lengths(msgspec.Struct, frozen=True):
    """How long the values of a column are, over all of them: characters of texts, bytes, items of lists."""

    least: int
    greatest: int
    total: int


class Sketch(msgspec.Struct, frozen=True, kw_only=True):
    """What of a column can be merged beyond its counts. `hashed_by` names the hash function of the registers: two
    of different ones cannot be merged. `top` holds values with about how often they come; with `exact` it holds all
    of them, each with its true count."""

    finite: int = 0
    mean: float = 0.0
    m2: float = 0.0
    means: list[float] = []
    weights: list[float] = []
    registers: bytes = b""
    hashed_by: str = ""
    top: list[tuple[Any, float]] = []
    exact: bool = False
    lengths: Lengths | None = None


class Unreadable(ValueError):
    """A text that is no sketch of this kind."""


def packed(sketch: Sketch) -> str:
    """The sketch as text."""
    return base64.b64encode(zlib.compress(msgspec.msgpack.encode(sketch), 6)).decode()


def unpacked(text: str) -> Sketch:
    """The sketch that a text holds. Raises Unreadable."""
    try:
        unpacker = zlib.decompressobj()
        held = unpacker.decompress(base64.b64decode(text, validate=True), _SKETCH_BYTES_MAX)
        return msgspec.msgpack.decode(held, type=Sketch)
    except (ValueError, zlib.error, msgspec.MsgspecError) as error:
        raise Unreadable(f"this is no sketch: {error}") from error


def merged(*parts: Sketch) -> Sketch:
    """The sketch of the rows of all columns together."""
    finite, mean, m2 = 0, 0.0, 0.0
    for one in parts:
        before, finite = finite, finite + one.finite
        delta = one.mean - mean
        share = one.finite / finite if finite else 0.0
        mean += delta * share
        m2 += one.m2 + delta * delta * before * share
    means, weights = compressed([pair for one in parts for pair in zip(one.means, one.weights, strict=True)])
    counted, exact = _merged_counts(parts)
    return Sketch(
        finite=finite,
        mean=mean,
        m2=m2,
        means=means,
        weights=weights,
        registers=_merged_registers(parts),
        hashed_by=next((one.hashed_by for one in parts if one.hashed_by), ""),
        top=counted,
        exact=exact,
        lengths=_merged_lengths([one.lengths for one in parts if one.lengths is not None]),
    )


# --- distinct values --------------------------------------------------------------------------------------------


def distinct_count(registers: bytes) -> int | None:
    """About how many distinct values there were; None where that was not counted.

    The estimator is Ertl's, which has no bias at either end and needs no tables (arXiv 1702.01284, algorithm 6).
    """
    if not registers:
        return None
    count = len(registers)
    ranks = 64 - count.bit_length() + 1
    of_rank = [registers.count(rank) for rank in range(ranks + 2)]
    raw = count * _tau(1 - of_rank[ranks + 1] / count)
    for rank in range(ranks, 0, -1):
        raw = 0.5 * (raw + of_rank[rank])
    raw += count * _sigma(of_rank[0] / count)
    return 0 if math.isinf(raw) else round(count * count / (2 * math.log(2) * raw))


def _sigma(share: float) -> float:
    if share == 1.0:
        return math.inf
    power, found, before = 1.0, share, -1.0
    while found != before:
        share *= share
        before = found
        found += share * power
        power += power
    return found


def _tau(share: float) -> float:
    if share in (0.0, 1.0):
        return 0.0
    power, found, before = 1.0, 1 - share, -1.0
    while found != before:
        share = math.sqrt(share)
        before = found
        power *= 0.5
        found -= (1 - share) ** 2 * power
    return found / 3


def _merged_registers(parts: Sequence[Sketch]) -> bytes:
    counted = [one for one in parts if one.registers]
    if len(counted) < 2:
        return counted[0].registers if counted else b""
    if len({one.hashed_by for one in counted}) > 1:
        # Another hash function: the largest count is at least no more than the truth.
        return max(counted, key=lambda one: distinct_count(one.registers) or 0).registers
    import numpy as np  # heavy: imported late

    found = np.frombuffer(counted[0].registers, np.uint8)
    for one in counted[1:]:
        found = np.maximum(found, np.frombuffer(one.registers, np.uint8))
    return found.tobytes()


def _merged_counts(parts: Sequence[Sketch]) -> tuple[list[tuple[Any, float]], bool]:
    counted: dict[Any, float] = {}
    for one in parts:
        for value, count in one.top:
            counted[value] = counted.get(value, 0.0) + count
    exact = all(one.exact for one in parts) and len(counted) <= COUNTED_MAX
    return most_frequent(counted, COUNTED_MAX if exact else TOP_KEPT), exact


def most_frequent(counted: dict[Any, float], kept: int) -> list[tuple[Any, float]]:
    """So many of the values, those that come most often first."""
    return sorted(counted.items(), key=lambda entry: (-entry[1], str(entry[0])))[:kept]


def _merged_lengths(parts: Sequence[Lengths]) -> Lengths | None:
    if not parts:
        return None
    return Lengths(min(one.least for one in parts), max(one.greatest for one in parts), sum(one.total for one in parts))


# --- quantiles --------------------------------------------------------------------------------------------------


def compressed(centroids: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """Means and weights of at most some hundred centroids that stand for these; finest at both ends.

    Equal values stay one centroid however heavy, so that a value that comes often keeps its place.
    """
    means: list[float] = []
    weights: list[float] = []
    total = sum(weight for _, weight in centroids)
    # The allowance is written out here: the profiles of a hundred files bring a hundred thousand centroids.
    per_place = 4 / (_COMPRESSION * total) if total else 0.0
    done, last, held = 0.0, math.nan, 0.0
    for mean, weight in sorted(centroids):
        if mean == last:
            held += weight
            continue
        both = held + weight
        place = done + both / 2
        if held and (both <= 1.0 or both <= per_place * place * (total - place)):
            last += (mean - last) * weight / both
            held = both
            continue
        if held:
            means.append(last)
            weights.append(held)
            done += held
        last, held = mean, weight
    if held:
        means.append(last)
        weights.append(held)
    return means, weights


def _allowance(place: float, total: float) -> float:
    """The weight that a centroid may have whose middle is at this place."""
    share = place / total
    return max(1.0, 4 * total * share * (1 - share) / _COMPRESSION)


def quantiles(sketch: Sketch, shares: Sequence[float], low: float, high: float) -> list[float]:
    """About the values below which these shares of the rows lie, within the exact least and greatest; none of no
    rows."""
    if not sketch.means:
        return []
    places, values = _line(sketch, low, high)
    return [_at(share, places, values) for share in shares]


def _at(share: float, places: list[float], values: list[float]) -> float:
    after = min(max(bisect_right(places, share), 1), len(places) - 1)
    left, right = values[after - 1], values[after]
    width = places[after] - places[after - 1]
    part = (share - places[after - 1]) / width if width > 0 else 0.0
    # Halved, since the difference of two doubles may be too large for one.
    between = 2 * (left / 2 + (right / 2 - left / 2) * part)
    return min(max(between, left), right)


def share_at_most(sketch: Sketch, value: float, low: float, high: float) -> float:
    """About the share of the rows that are at most a value; the other way round than `quantile`."""
    if value < low:
        return 0.0
    if value >= high or not sketch.means:
        return 1.0
    if sketch.exact:
        return sum(count for one, count in sketch.top if one <= value) / sum(count for _, count in sketch.top)
    places, values = _line(sketch, low, high)
    after = min(max(bisect_right(values, value), 1), len(values) - 1)
    left, right = values[after - 1], values[after]
    part = (value / 2 - left / 2) / (right / 2 - left / 2) if right > left else 1.0
    return places[after - 1] + (places[after] - places[after - 1]) * min(max(part, 0.0), 1.0)


def _line(sketch: Sketch, low: float, high: float) -> tuple[list[float], list[float]]:
    """The shares of the rows, and the values that they lie below: corners of the distribution function."""
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
    return places, values
