"""Histories of metrics as numpy columns: put together from segments, ordered, thinned for charts, packed for keeping.

numpy is imported late: writing metrics never needs it, and a server that nobody asks for a chart should stay small.
"""

from __future__ import annotations

import struct
import zlib
from array import array
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from modelyard.kernel.errors import EngineError
from modelyard.planes.tracking import points
from modelyard.planes.tracking.rules import FLOAT_MAX

if TYPE_CHECKING:
    import numpy as np

    Floats = np.ndarray[Any, np.dtype[np.float64]]
    Integers = np.ndarray[Any, np.dtype[np.int64]]

_PACKED = b"MYS2"
_COUNT = struct.Struct("<4sI")
PACKED_POINTS_MAX = 65_536


class History(NamedTuple):
    """The points of one metric of one run, ordered by time, step and value, without exact duplicates."""

    values: Floats
    steps: Integers
    times: Integers

    def __len__(self) -> int:
        return len(self.values)

    def at(self, index: Any) -> History:
        """The points that a slice or an index array picks."""
        return History(self.values[index], self.steps[index], self.times[index])


def assemble(bodies: Iterable[bytes], key: str) -> History:
    """The history of a key from all segments of its run, whichever form they have. Raises EngineError for damage."""
    import numpy as np  # heavy: imported late

    parts = [part for body in bodies if (part := _part(body, key)) is not None]
    if not parts:
        return History(np.empty(0, np.float64), np.empty(0, np.int64), np.empty(0, np.int64))
    columns = [np.concatenate(column) if len(parts) > 1 else column[0] for column in zip(*parts, strict=True)]
    return _ordered(History(*columns))


def by_step(history: History) -> History:
    """The same points by step, time and value."""
    import numpy as np  # heavy: imported late

    return history.at(np.lexsort((_rankable(history.values), history.times, history.steps)))


def thin(history: History, points_max: int) -> History:
    """At most so many points, from as many stretches of equal length the first, lowest, highest and last of each (M4).

    A spike of a single point stays. Points that are not a number are kept only where a stretch has no other.
    """
    import numpy as np  # heavy: imported late

    total = len(history)
    if total <= points_max:
        return history
    stretches = max(1, points_max // 4)
    edges = np.linspace(0, total, stretches + 1).astype(np.int64)
    chosen: list[int] = []
    for start, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        part = history.values[start:end]
        if np.isnan(part).all():
            chosen += (start, end - 1)
        else:
            chosen += (start, start + int(np.nanargmin(part)), start + int(np.nanargmax(part)), end - 1)
    return history.at(np.unique(np.asarray(chosen, np.int64)))


def drawn(history: History, points_max: int, x: str, started_ms: int) -> tuple[list[float], list[float | None]]:
    """The points of a line: xs (steps, or seconds since the start or since 1970) and ys to seven digits, thinned.

    A metric logged without steps is drawn in the order of logging.
    """
    import numpy as np  # heavy: imported late

    total = len(history)
    if x == "step" and total > 1 and (history.steps == history.steps[0]).all():
        history = History(history.values, np.arange(total, dtype=np.int64), history.times)
    elif x == "step":
        history = by_step(history)
    kept = thin(history, points_max)
    if x == "step":
        xs: list[float] = kept.steps.tolist()
    else:
        xs = ((kept.times - (started_ms if x == "relative" else 0)) / 1_000).tolist()
    size = np.abs(kept.values)
    shown = np.isfinite(kept.values) & (size < FLOAT_MAX)
    with np.errstate(all="ignore"):
        digits = 10.0 ** (6 - np.floor(np.log10(size)))
        rounded = np.round(kept.values * digits) / digits
    # What is too small or too large to be scaled stays as it is.
    ys: list[float] = np.where(np.isfinite(rounded), rounded, kept.values).tolist()
    return xs, [y if ok else None for y, ok in zip(ys, shown.tolist(), strict=True)]


def sampled_steps(histories: Sequence[History], count: int, start: int | None, end: int | None) -> Integers:
    """About `count` steps spread over those that any of the runs has, with the first and last of each run.

    Without a window it is from step 0 to the last, as MLflow has it.
    """
    import numpy as np  # heavy: imported late

    present = [history.steps for history in histories if len(history)]
    if not present:
        return np.empty(0, np.int64)
    every = np.unique(np.concatenate(present))
    low, high = (0, int(every[-1])) if start is None or end is None else (start, end)
    ends = np.asarray([bound for steps in present for bound in (steps.min(), steps.max())], np.int64)
    inside = every[(every >= low) & (every <= high)]
    if len(inside) > count:
        picked = (np.arange(count) * (len(inside) / count)).astype(np.int64)
        inside = np.append(inside[picked], inside[-1])
    return np.unique(np.concatenate([inside, ends[(ends >= low) & (ends <= high)]]))


def at_steps(history: History, steps: Integers) -> History:
    """The points at the given steps, by step, time and value."""
    import numpy as np  # heavy: imported late

    return by_step(history.at(np.isin(history.steps, steps)))


def pack_long(history: History) -> list[tuple[int, bytes]]:
    """A long history of one key as segments of the small form (deltas, deflated), each with its count."""
    import numpy as np  # heavy: imported late

    packed = []
    for start in range(0, len(history), PACKED_POINTS_MAX):
        part = history.at(slice(start, start + PACKED_POINTS_MAX))
        columns = (
            part.values.astype("<f8").tobytes()
            + np.diff(part.steps, prepend=0).astype("<i8").tobytes()
            + np.diff(part.times, prepend=0).astype("<i8").tobytes()
        )
        packed.append((len(part), _COUNT.pack(_PACKED, len(part)) + zlib.compress(columns, 1)))
    return packed


def keys_of(body: bytes) -> list[str]:
    """The keys in a segment of the batch form."""
    return [key for key, _ in points.directory(body)]


def pack_short(histories: dict[str, History]) -> bytes:
    """Several short histories as one segment of the batch form."""
    columns: tuple[Any, Any, Any] = (array("d"), array("q"), array("q"))
    for history in histories.values():
        for column, source in zip(columns, history, strict=True):
            column.frombytes(source.tobytes())
    directory = [(key, len(history)) for key, history in histories.items()]
    return points.pack_columns(directory, *columns)


def _part(body: bytes, key: str) -> tuple[Floats, Integers, Integers] | None:
    import numpy as np  # heavy: imported late

    if body[:4] == _PACKED:
        return _unpack_long(body)
    found = points.unpack(body, key)
    if found is None:
        return None
    return (
        np.frombuffer(found.values, np.float64),
        np.frombuffer(found.steps, np.int64),
        np.frombuffer(found.times, np.int64),
    )


def _unpack_long(body: bytes) -> tuple[Floats, Integers, Integers]:
    import numpy as np  # heavy: imported late

    try:
        _, count = _COUNT.unpack_from(body)
        columns = zlib.decompress(body[_COUNT.size :])
        if len(columns) != 24 * count:
            raise ValueError("wrong length")
    except (zlib.error, struct.error, ValueError) as error:
        raise EngineError(
            "a packed segment of metric points is damaged",
            code="metric.segment_damaged",
            hint="restore it from a backup",
        ) from error
    return (
        np.frombuffer(columns, "<f8", count, 0).astype(np.float64, copy=False),
        np.cumsum(np.frombuffer(columns, "<i8", count, 8 * count)),
        np.cumsum(np.frombuffer(columns, "<i8", count, 16 * count)),
    )


def _ordered(history: History) -> History:
    import numpy as np  # heavy: imported late

    if len(history) < 2:
        return history
    times = history.times
    # Points usually arrive by time; then the expensive sort is not needed.
    if not (times[1:] > times[:-1]).all():
        nan = np.isnan(history.values)
        history = history.at(np.lexsort((nan, _rankable(history.values), history.steps, times)))
        same = (
            (history.times[1:] == history.times[:-1])
            & (history.steps[1:] == history.steps[:-1])
            & (history.values.view(np.int64)[1:] == history.values.view(np.int64)[:-1])
        )
        if same.any():
            history = history.at(np.concatenate(([True], ~same)))
    return history


def _rankable(values: Floats) -> Floats:
    import numpy as np  # heavy: imported late

    # As the latest value is chosen: not-a-number ranks as zero.
    return np.where(np.isnan(values), 0.0, values)
