"""What one column looks like so far, by its type. Every step is on whole arrays; values come without nulls."""

from __future__ import annotations

import math
from collections import Counter
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Protocol

from modelyard.planes.data.hashing import (
    HASHED_BY,
    Registers,
    hash_decimals,
    hash_numbers,
    hash_texts,
)
from modelyard.planes.data.sketches import COUNTED_MAX, TOP_KEPT, Lengths, Sketch, compressed, most_frequent

if TYPE_CHECKING:
    import pyarrow as pa

TEXT_CHARACTERS_MAX = 200
SAMPLED_ONE_IN = 16
_COUNTED_APPROXIMATELY_MAX = 16 * TOP_KEPT
_CELLS_A_BLOCK = 256
_CENTROIDS_HELD_MAX = 8 * 1024
_CENTROIDS_KEPT = 1_000
_SQUARED_MAX = 1e150
_SAMPLE_SEED = 1


class ColumnSummary(Protocol):
    """A column so far. `nans` counts what is no number in a column of numbers."""

    nans: int

    def add(self, values: pa.Array) -> None:
        """Look at further values, at least one, none of them null."""
        ...

    def bounds(self) -> tuple[Any, Any]:
        """The least and the greatest value, None where there is none or the type has no order."""
        ...

    def sketch(self) -> Sketch:
        """What can be merged."""
        ...


def summary_of(kind: pa.DataType) -> ColumnSummary:
    """An empty summary for a column of this type."""
    import pyarrow.types as at  # heavy: imported late

    if at.is_integer(kind) or at.is_floating(kind):
        return _Numbers()
    if at.is_decimal(kind):
        return _Decimals()
    if at.is_string(kind):
        return _Texts()
    if at.is_boolean(kind):
        return _Flags()
    if at.is_timestamp(kind) or at.is_date32(kind):
        return _Times(kind)
    if at.is_binary(kind) or at.is_list(kind) or at.is_map(kind):
        return _Sized()
    return _Other()


class _Counts:
    """How often each value comes: of all values while they are few, then of those that come often."""

    def __init__(self) -> None:
        self.exact = True
        self._counted: Counter[Any] = Counter()

    def add(self, values: list[Any], counts: list[float]) -> None:
        for value, count in zip(values, counts, strict=True):
            self._counted[value] += count  # type: ignore[assignment]
        limit = COUNTED_MAX if self.exact else _COUNTED_APPROXIMATELY_MAX
        if len(self._counted) > limit:
            self.exact = False
            self._counted = Counter(dict(self._counted.most_common(_COUNTED_APPROXIMATELY_MAX // 2)))

    def top(self) -> list[tuple[Any, float]]:
        kept = COUNTED_MAX if self.exact else TOP_KEPT
        return [(value, float(count)) for value, count in most_frequent(self._counted, kept)]  # type: ignore[arg-type]


class _Moments:
    """Mean and spread of numbers that come in blocks, and a digest of their order."""

    def __init__(self) -> None:
        self.finite = 0
        self.mean = 0.0
        self.m2 = 0.0
        self._means: list[Any] = []
        self._weights: list[Any] = []
        self._held = 0

    def add(self, ordered: Any) -> None:
        """Take finite doubles in their order."""
        import numpy as np  # heavy: imported late

        count = len(ordered)
        largest = max(abs(ordered[0]), abs(ordered[-1]))
        if largest < _SQUARED_MAX:
            mean = float(ordered.mean())
            m2 = float(ordered.var()) * count
        else:
            # The sum of large numbers, and a square of one, may be too large for a double.
            mean = float((ordered / count).sum())
            small = ordered[np.abs(ordered) < _SQUARED_MAX]
            m2 = float(small.var()) * count if len(small) else 0.0
        total = self.finite + count
        delta = mean / 2 - self.mean / 2
        self.m2 += m2 + (4 * delta * delta * self.finite * (count / total) if abs(delta) < _SQUARED_MAX else 0.0)
        self.mean += 2 * (delta * (count / total))
        self.finite = total

    def place(self, means: Any, weights: Any) -> None:
        """Take centroids of the digest."""
        self._means.append(means)
        self._weights.append(weights)
        self._held += len(means)
        if self._held > _CENTROIDS_HELD_MAX:
            self._condense()

    def digest(self) -> tuple[list[float], list[float]]:
        if self._held > _CENTROIDS_KEPT:
            self._condense()
        pairs = [
            pair
            for means, weights in zip(self._means, self._weights, strict=True)
            for pair in zip(means.tolist(), weights.tolist(), strict=True)
        ]
        return compressed(pairs)

    def _condense(self) -> None:
        """Bring the centroids to a thousand: cells of the t-digest's scale, which are narrow at both ends."""
        import numpy as np  # heavy: imported late

        means, weights = np.concatenate(self._means), np.concatenate(self._weights)
        order = np.argsort(means, kind="stable")
        means, weights = means[order], weights[order]
        middle = (np.cumsum(weights) - weights / 2) / weights.sum()
        cells = np.floor(np.arcsin(np.clip(2 * middle - 1, -1, 1)) / math.pi * _CENTROIDS_KEPT)
        starts = np.flatnonzero(np.concatenate(([True], cells[1:] != cells[:-1])))
        sums = np.add.reduceat(weights, starts)
        shares = weights / np.repeat(sums, np.diff(np.append(starts, len(weights))))
        ends = np.append(starts[1:], len(means)) - 1
        joined = np.clip(np.add.reduceat(means * shares, starts), means[starts], means[ends])
        self._means, self._weights, self._held = [joined], [sums], len(joined)


class _Numbers:
    """Integers and floats; not-a-number is counted apart, and infinities are in no bound, moment or digest."""

    def __init__(self) -> None:
        self.nans = 0
        self._low: Any = None
        self._high: Any = None
        self._counts = _Counts()
        self._registers = Registers()
        self._moments = _Moments()

    def add(self, values: pa.Array) -> None:
        import numpy as np  # heavy: imported late

        ordered = np.sort(values.to_numpy(zero_copy_only=False))
        if ordered.dtype.kind == "f":
            ordered = self._finite(ordered)
        if not len(ordered):
            return
        low, high = ordered[0].item(), ordered[-1].item()
        self._low = low if self._low is None else min(self._low, low)
        self._high = high if self._high is None else max(self._high, high)
        wide = ordered.astype(np.float64, copy=False)
        self._moments.add(wide)
        if self._counts.exact and self._add_few(ordered):
            return
        self._registers.add(hash_numbers(ordered))
        self._add_frequent(ordered)
        self._moments.place(*_cells(wide))

    def bounds(self) -> tuple[Any, Any]:
        return self._low, self._high

    def sketch(self) -> Sketch:
        return _numeric_sketch(self._moments, self._registers, self._counts)

    def _finite(self, ordered: Any) -> Any:
        import numpy as np  # heavy: imported late

        if np.isfinite(ordered[0]) and np.isfinite(ordered[-1]):
            return ordered
        last = int(np.searchsorted(ordered, np.nan, "left"))
        self.nans += len(ordered) - last
        first = int(np.searchsorted(ordered[:last], -np.inf, "right"))
        return ordered[first : int(np.searchsorted(ordered[:last], np.inf, "left"))]

    def _add_few(self, ordered: Any) -> bool:
        """Count every value, where they are few. Whether they were."""
        import numpy as np  # heavy: imported late

        starts = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1
        if len(starts) >= COUNTED_MAX:
            self._counts.exact = False
            return False
        starts = np.concatenate(([0], starts))
        values, counts = ordered[starts], np.diff(np.append(starts, len(ordered)))
        self._registers.add(hash_numbers(values))
        self._counts.add((values + 0).tolist(), counts.tolist())
        self._moments.place(values.astype(np.float64), counts.astype(np.float64))
        return True

    def _add_frequent(self, ordered: Any) -> None:
        """Count the values that make up a five-hundredth of the block or more."""
        import numpy as np  # heavy: imported late

        run = max(1, len(ordered) // 512)
        frequent = np.unique(ordered[:-run][ordered[run:] == ordered[:-run]])
        counts = np.searchsorted(ordered, frequent, "right") - np.searchsorted(ordered, frequent, "left")
        self._counts.add((frequent + 0).tolist(), counts.tolist())


class _Decimals:
    """Decimals: bounds of full precision, moments and digest of doubles."""

    nans = 0

    def __init__(self) -> None:
        self._bounds = _Bounds()
        self._registers = Registers()
        self._moments = _Moments()

    def add(self, values: pa.Array) -> None:
        import numpy as np  # heavy: imported late
        import pyarrow as pa  # heavy: imported late

        self._bounds.add(values)
        self._registers.add(hash_decimals(values))
        ordered = np.sort(values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False))
        self._moments.add(ordered)
        self._moments.place(*_cells(ordered))

    def bounds(self) -> tuple[Any, Any]:
        return self._bounds.low, self._bounds.high

    def sketch(self) -> Sketch:
        return _numeric_sketch(self._moments, self._registers, None)


class _Times:
    """Instants and days."""

    nans = 0

    def __init__(self, kind: pa.DataType) -> None:
        self._kind = kind
        self._low: int | None = None
        self._high: int | None = None
        self._registers = Registers()

    def add(self, values: pa.Array) -> None:
        import pyarrow as pa  # heavy: imported late

        width = pa.int64() if values.type.bit_width == 64 else pa.int32()
        numbers = values.view(width).to_numpy(zero_copy_only=False)
        low, high = int(numbers.min()), int(numbers.max())
        self._low = low if self._low is None else min(self._low, low)
        self._high = high if self._high is None else max(self._high, high)
        self._registers.add(hash_numbers(numbers))

    def bounds(self) -> tuple[Any, Any]:
        return self._shown(self._low), self._shown(self._high)

    def sketch(self) -> Sketch:
        return Sketch(registers=self._registers.to_bytes(), hashed_by=HASHED_BY)

    def _shown(self, number: int | None) -> date | datetime | None:
        import pyarrow as pa  # heavy: imported late

        if number is None:
            return None
        try:
            found: date | datetime = pa.scalar(number, self._kind).as_py()
        except (ValueError, OverflowError):
            # Years that Python does not know: the nearest that it does.
            edge = datetime.max if number > 0 else datetime.min
            is_day = pa.types.is_date(self._kind)
            found = edge.date() if is_day else pa.scalar(edge, pa.timestamp("us")).cast(self._kind).as_py()
        return found


class _Texts:
    """Texts: while they are few each is counted; later they are hashed, and a sixteenth of them counted."""

    nans = 0

    def __init__(self) -> None:
        self._bounds = _Bounds()
        self._counts = _Counts()
        self._registers = Registers()
        self._lengths = _Lengths()
        self._drawn = 0

    def add(self, values: pa.Array) -> None:
        import pyarrow.compute as pc  # heavy: imported late

        if self._counts.exact and self._add_few(values):
            return
        hashes, first = hash_texts(values)
        self._registers.add(hashes)
        self._bounds.add(_text_extremes(values, first))
        self._lengths.add(_text_lengths(values))
        sample = values.take(_jittered(len(values), self._drawn))
        self._drawn += 1
        counted = pc.value_counts(sample)
        scale = len(values) / len(sample)
        # What came once in the sample is as likely rare as not: it would only crowd out what is frequent.
        often = counted.filter(pc.greater(counted.field("counts"), 1))
        self._count(often, scale)

    def bounds(self) -> tuple[Any, Any]:
        return _cut(self._bounds.low), _cut(self._bounds.high)

    def sketch(self) -> Sketch:
        return Sketch(
            registers=self._registers.to_bytes(),
            hashed_by=HASHED_BY,
            top=self._counts.top(),
            exact=self._counts.exact,
            lengths=self._lengths.found(),
        )

    def _add_few(self, values: pa.Array) -> bool:
        import pyarrow.compute as pc  # heavy: imported late

        counted = pc.value_counts(values)
        if len(counted) > COUNTED_MAX:
            self._counts.exact = False
            return False
        distinct = counted.field("values")
        self._registers.add(hash_texts(distinct)[0])
        self._bounds.add(distinct)
        self._lengths.add(_text_lengths(distinct), counted.field("counts"))
        self._count(counted, 1)
        return True

    def _count(self, counted: pa.StructArray, scale: float) -> None:
        import pyarrow.compute as pc  # heavy: imported late

        values = pc.utf8_slice_codeunits(counted.field("values"), 0, TEXT_CHARACTERS_MAX).to_pylist()
        self._counts.add(values, [count * scale for count in counted.field("counts").to_pylist()])


class _Flags:
    """Truth values."""

    nans = 0

    def __init__(self) -> None:
        self._true = 0
        self._count = 0

    def add(self, values: pa.Array) -> None:
        self._true += values.true_count
        self._count += len(values)

    def bounds(self) -> tuple[Any, Any]:
        return None, None

    def sketch(self) -> Sketch:
        counted = {True: float(self._true), False: float(self._count - self._true)}
        seen = {value: count for value, count in counted.items() if count}
        mean = self._true / self._count if self._count else 0.0
        return Sketch(finite=self._count, mean=mean, top=most_frequent(seen, 2), exact=True)


class _Sized:
    """Bytes and lists, of which the lengths are looked at, and bytes also counted."""

    nans = 0

    def __init__(self) -> None:
        self._lengths = _Lengths()
        self._registers: Registers | None = None

    def add(self, values: pa.Array) -> None:
        import numpy as np  # heavy: imported late
        import pyarrow.types as at  # heavy: imported late

        offsets = np.frombuffer(values.buffers()[1], dtype=np.int32)[values.offset : values.offset + len(values) + 1]
        self._lengths.add(np.diff(offsets))
        if at.is_binary(values.type):
            self._registers = self._registers or Registers()
            self._registers.add(hash_texts(values)[0])

    def bounds(self) -> tuple[Any, Any]:
        return None, None

    def sketch(self) -> Sketch:
        registers = b"" if self._registers is None else self._registers.to_bytes()
        return Sketch(registers=registers, hashed_by=HASHED_BY if registers else "", lengths=self._lengths.found())


class _Other:
    """A type of which only values and nulls are counted."""

    nans = 0

    def add(self, values: pa.Array) -> None:
        """Whoever gives the values has counted them."""

    def bounds(self) -> tuple[Any, Any]:
        return None, None

    def sketch(self) -> Sketch:
        return Sketch()


class _Bounds:
    """The least and the greatest of values that Arrow can compare."""

    def __init__(self) -> None:
        self.low: Any = None
        self.high: Any = None

    def add(self, values: pa.Array) -> None:
        import pyarrow.compute as pc  # heavy: imported late

        found = pc.min_max(values).as_py()
        if found["min"] is not None:
            self.low = found["min"] if self.low is None else min(self.low, found["min"])
            self.high = found["max"] if self.high is None else max(self.high, found["max"])


class _Lengths:
    def __init__(self) -> None:
        self._found: Lengths | None = None

    def add(self, lengths: Any, counts: pa.Array | None = None) -> None:
        if not len(lengths):
            return
        total = int(lengths.sum()) if counts is None else int((lengths * counts.to_numpy()).sum())
        least, greatest = int(lengths.min()), int(lengths.max())
        held = self._found
        if held is not None:
            least, greatest, total = min(held.least, least), max(held.greatest, greatest), held.total + total
        self._found = Lengths(least, greatest, total)

    def found(self) -> Lengths | None:
        return self._found


def _numeric_sketch(moments: _Moments, registers: Registers, counts: _Counts | None) -> Sketch:
    means, weights = moments.digest()
    return Sketch(
        finite=moments.finite,
        mean=moments.mean,
        m2=moments.m2,
        means=means,
        weights=weights,
        registers=registers.to_bytes(),
        hashed_by=HASHED_BY,
        top=[] if counts is None else counts.top(),
        exact=counts is not None and counts.exact,
    )


def _cells(ordered: Any) -> tuple[Any, Any]:
    """Means and weights of neighbouring values, at most some hundred."""
    import numpy as np  # heavy: imported late

    if len(ordered) <= _CELLS_A_BLOCK:
        return ordered, np.ones(len(ordered))
    # The outermost values stand alone: tails are where a digest is looked at most closely.
    inner = np.linspace(8, len(ordered) - 8, _CELLS_A_BLOCK - 16, endpoint=False).astype(np.int64)
    starts = np.unique(np.concatenate((np.arange(8), inner, np.arange(len(ordered) - 8, len(ordered)))))
    sizes = np.diff(np.append(starts, len(ordered)))
    if max(abs(ordered[0]), abs(ordered[-1])) < _SQUARED_MAX:
        means = np.add.reduceat(ordered, starts) / sizes
    else:
        means = np.add.reduceat(ordered / np.repeat(sizes, sizes), starts)
    return np.clip(means, ordered[starts], ordered[starts + sizes - 1]), sizes.astype(np.float64)


def _text_extremes(values: pa.Array, first: Any) -> pa.Array:
    """Texts among which the least and the greatest are: those whose `first` eight bytes are the least or greatest."""
    import numpy as np  # heavy: imported late

    compared = first.byteswap()
    places = np.flatnonzero((compared == compared.min()) | (compared == compared.max()))
    return values.take(places) if len(places) < len(values) // 2 else values


def _text_lengths(values: pa.Array) -> Any:
    import numpy as np  # heavy: imported late
    import pyarrow.compute as pc  # heavy: imported late

    offsets = np.frombuffer(values.buffers()[1], dtype=np.int32)[values.offset : values.offset + len(values) + 1]
    content = values.buffers()[2]
    if offsets[-1] > offsets[0]:
        count = int(offsets[-1] - offsets[0])
        held = np.frombuffer(content, dtype=np.uint8, count=count, offset=int(offsets[0]))
        if held.max() >= 0x80:
            return pc.utf8_length(values).to_numpy(zero_copy_only=False)
    return np.diff(offsets)


def _jittered(count: int, seed: int) -> Any:
    """One place of every sixteen, each drawn by chance, so that no rhythm in the rows is mistaken for the whole."""
    import numpy as np  # heavy: imported late

    if count < SAMPLED_ONE_IN * SAMPLED_ONE_IN:
        return np.arange(count)
    starts = np.arange(0, count - SAMPLED_ONE_IN + 1, SAMPLED_ONE_IN)
    return starts + np.random.default_rng((_SAMPLE_SEED, seed)).integers(0, SAMPLED_ONE_IN, len(starts))


def _cut(text: str | None) -> str | None:
    return None if text is None else text[:TEXT_CHARACTERS_MAX]
