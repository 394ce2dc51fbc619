"""What a monitor remembers between evaluations: its grids and references, and per window the sketches that add up."""

from __future__ import annotations

from datetime import datetime

import msgspec

from modelyard.planes.monitoring.sketches import Grid, Sketch
from modelyard.types.monitoring import Baseline, MonitorWindow, Performance


class WindowKey(msgspec.Struct, frozen=True, order=True):
    """A window of one model version."""

    start: datetime
    model_version: str


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """What inputs are compared with. `source` is the dataset version, or the window, that it was made from."""

    source: str
    rows: int
    sketches: dict[str, Sketch]


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """All that is kept of a monitor apart from its windows.

    `scores` and `baselines` are by model version. `complete_through`: somebody said that no more is to come until then.
    """

    grids: dict[str, Grid] = {}
    score_grid: Grid | None = None
    reference: Reference | None = None
    scores: dict[str, Sketch] = {}
    baselines: dict[str, Baseline] = {}
    complete_through: datetime | None = None
    newest_event_at: datetime | None = None


class WindowState(msgspec.Struct, frozen=True, kw_only=True):
    """What adds up over the rows of a window, and the performance by the labels seen so far.

    `labels_digest` is over the matched labels: the same labels need not be judged again.
    """

    model: str | None = None
    rows: int = 0
    inputs: dict[str, Sketch] = {}
    score: Sketch | None = None
    performance: Performance | None = None
    labels_digest: str = ""


class StoredWindow(msgspec.Struct, frozen=True, kw_only=True):
    """A window as it is kept."""

    key: WindowKey
    state: WindowState
    result: MonitorWindow


class WindowMark(msgspec.Struct, frozen=True, kw_only=True):
    """The little of a kept window that says whether it needs another look."""

    key: WindowKey
    complete: bool
    labels_digest: str
