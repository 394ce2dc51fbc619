"""Histories of metrics as numpy columns: put together, ordered, thinned for charts.

numpy is imported late: writing metrics never needs it, and a server that nobody asks for a chart should stay small.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from modelyard.planes.tracking.history import History
from modelyard.planes.tracking.rules import FLOAT_MAX

if TYPE_CHECKING:
    from modelyard.planes.tracking.history import Floats, Integers


def merge(parts: Iterable[History | None]) -> History:
    """One history of the parts that there are, in order, without exact duplicates."""
    import numpy as np  # heavy: imported late

    found = [part for part in parts if part is not None]
    if not found:
        return History(np.empty(0, np.float64), np.empty(0, np.int64), np.empty(0, np.int64))
    if len(found) > 1:
        weights = None
        if any(part.weights is not None for part in found):
            weights = np.concatenate(
                [np.ones(len(part), np.int64) if part.weights is None else part.weights for part in found]
            )
        values, steps, times = (np.concatenate([part[place] for part in found]) for place in range(3))
        return _ordered(History(values, steps, times, weights))
    return _ordered(found[0])


def by_step(history: History) -> History:
    """The same points by step, time and value."""
    import numpy as np  # heavy: imported late

    return history.at(np.lexsort((_rankable(history.values), history.times, history.steps)))


def thin(history: History, points_max: int) -> History:
    """At most so many points, from as many stretches of equal length the first, lowest, highest and last of each (M4).

    A spike of a single point stays. Points that are not a number are kept only where a stretch has no other.
    """
    if len(history) <= points_max:
        return history
    return history.at(_chosen(history, max(1, points_max // 4))).weighing(None)


def sketch(history: History, points_max: int) -> History:
    """A history thinned so that it can be thinned again: each point kept knows for how many it stands."""
    import numpy as np  # heavy: imported late

    chosen = _chosen(history, max(1, points_max // 4))
    return history.at(chosen).weighing(np.diff(np.append(chosen, len(history))))


def _chosen(history: History, stretches: int) -> Integers:
    import numpy as np  # heavy: imported late

    total, values = len(history), history.values
    if history.weights is None:
        starts = np.arange(stretches) * total // stretches
    else:
        # The stretches are of the points that were, of which these were chosen.
        places = np.cumsum(history.weights)
        starts = np.searchsorted(places, np.arange(stretches) * int(places[-1]) // stretches, side="right")
    starts = np.unique(starts)
    stretch = np.zeros(total, np.int64)
    stretch[starts[1:]] = 1
    stretch = np.cumsum(stretch)
    extremes = []
    for reduced in (np.fmin, np.fmax):
        here = np.flatnonzero(values == reduced.reduceat(values, starts)[stretch])
        # Written backwards, so that the first of each stretch is what stays.
        first = np.full(len(starts), -1)
        first[stretch[here[::-1]]] = here[::-1]
        extremes.append(first[first >= 0])
    ends = np.append(starts[1:], total) - 1
    return np.unique(np.concatenate([starts, ends, *extremes]))


def drawn(history: History, points_max: int, x: str, started_ms: int) -> tuple[list[float], list[float | None]]:
    """The points of a line: xs (steps, or seconds since the start or since 1970) and ys to seven digits, thinned.

    A metric logged without steps is drawn in the order of logging.
    """
    import numpy as np  # heavy: imported late

    total = len(history)
    if x == "step" and total > 1 and (history.steps == history.steps[0]).all():
        history = _counted(history)
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


def _counted(history: History) -> History:
    import numpy as np  # heavy: imported late

    if history.weights is None:
        steps = np.arange(len(history), dtype=np.int64)
    else:
        steps = np.cumsum(history.weights) - history.weights
    return History(history.values, steps, history.times, history.weights)


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
