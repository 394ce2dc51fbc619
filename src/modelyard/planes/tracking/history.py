"""The points of one metric of one run as numpy columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np

    Floats = np.ndarray[Any, np.dtype[np.float64]]
    Integers = np.ndarray[Any, np.dtype[np.int64]]


class History(NamedTuple):
    """The points of one metric of one run, ordered by time, step and value, without exact duplicates."""

    values: Floats
    steps: Integers
    times: Integers
    weights: Integers | None = None
    """Where these are points chosen from more: how many each stands for."""

    def __len__(self) -> int:
        return len(self.values)

    def at(self, index: Any) -> History:
        """The points that a slice or an index array picks."""
        weights = None if self.weights is None else self.weights[index]
        return History(self.values[index], self.steps[index], self.times[index], weights)

    def weighing(self, weights: Integers | None) -> History:
        """The same points with these weights."""
        return History(self.values, self.steps, self.times, weights)

    @property
    def total(self) -> int:
        """How many points these were chosen from."""
        return len(self.values) if self.weights is None else int(self.weights.sum())
