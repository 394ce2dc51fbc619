"""The nouns of tracking: experiments, runs and what is logged to them, logged models, artifacts."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec

Stage = Literal["active", "deleted"]
RunStatus = Literal["SCHEDULED", "RUNNING", "FINISHED", "FAILED", "KILLED"]
ModelStatus = Literal["PENDING", "READY", "FAILED"]
View = Literal["active", "deleted", "all"]
OwnerKind = Literal["run", "model", "project"]

TERMINAL_STATUSES: frozenset[RunStatus] = frozenset({"FINISHED", "FAILED", "KILLED"})


class Experiment(msgspec.Struct, frozen=True, kw_only=True):
    """A named group of runs. `id` is a number in text, unique in its project; `0` is always there."""

    id: str
    name: str
    artifact_location: str
    stage: Stage
    created_at: datetime
    updated_at: datetime
    tags: dict[str, str] = {}


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """One value of a metric. `value` None is not-a-number: JSON has no NaN."""

    key: str
    value: float | None
    step: int = 0
    timestamp_ms: int = 0


class ModelMetric(msgspec.Struct, frozen=True, kw_only=True):
    """One value of a metric of a logged model: by which run, and on which dataset."""

    key: str
    value: float | None
    step: int
    timestamp_ms: int
    run_id: str
    dataset_name: str | None = None
    dataset_digest: str | None = None


class Dataset(msgspec.Struct, frozen=True, kw_only=True):
    """What a run read. `schema` and `profile` are texts of whatever form the client writes."""

    name: str
    digest: str
    source_type: str
    source: str
    schema: str | None = None
    profile: str | None = None


READ_CONTEXT = "read"
"""The context of an input that was noted by itself, when the run read it; what a program says of it counts for more."""


class DatasetInput(msgspec.Struct, frozen=True):
    """A dataset as an input of a run, with tags such as `mlflow.data.context`."""

    dataset: Dataset
    tags: dict[str, str] = {}


class ModelOutput(msgspec.Struct, frozen=True):
    """A logged model that a run made, at which step."""

    model_id: str
    step: int = 0


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One execution and what it logged. `metrics` holds the latest value of each."""

    id: str
    experiment_id: str
    name: str
    user: str
    status: RunStatus
    stage: Stage
    started_at: datetime
    ended_at: datetime | None
    artifact_uri: str
    params: dict[str, str] = {}
    tags: dict[str, str] = {}
    metrics: list[Metric] = []
    inputs: list[DatasetInput] = []
    model_inputs: list[str] = []
    model_outputs: list[ModelOutput] = []

    @property
    def latest(self) -> dict[str, float | None]:
        """The latest value of each metric by its key."""
        return {metric.key: metric.value for metric in self.metrics}


class LoggedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model that a run saved, before anybody registered it."""

    id: str
    experiment_id: str
    name: str
    artifact_location: str
    status: ModelStatus
    stage: Stage
    created_at: datetime
    updated_at: datetime
    model_type: str | None = None
    source_run_id: str | None = None
    params: dict[str, str] = {}
    tags: dict[str, str] = {}
    metrics: list[ModelMetric] = []


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """A file, or a directory of files (then without a digest), below its owner."""

    path: str
    is_dir: bool = False
    size_bytes: int | None = None
    digest: str | None = None


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """The history of a metric in columns, by time. `total` counts the points before any down-sampling."""

    run_id: str
    key: str
    steps: list[int]
    timestamps_ms: list[int]
    values: list[float | None]
    total: int


class DatasetSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A dataset that runs of an experiment read, and in which context."""

    experiment_id: str
    name: str
    digest: str
    context: str | None


class Point(msgspec.Struct, frozen=True, array_like=True):
    """One value to log, written `[key, value, step, timestamp_ms]`; a null value is not-a-number."""

    key: str
    value: float | None
    step: int = 0
    timestamp_ms: int = 0


class PointBlock(msgspec.Struct, frozen=True, array_like=True):
    """Points of the same keys at many steps: row `i` of `values` holds a value a key, logged at `steps[i]`."""

    keys: list[str]
    steps: list[int]
    timestamps_ms: list[int]
    values: list[list[float | None]]

    def __len__(self) -> int:
        return len(self.keys) * len(self.values)


class CreateExperiment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a new experiment is made of."""

    name: str
    artifact_location: str = ""
    tags: dict[str, str] = {}


class UpdateExperiment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new name, tags to set, or another stage."""

    name: str | None = None
    tags: dict[str, str] = {}
    stage: Stage | None = None


class CreateRun(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a new run starts with. Without a start the server's time counts."""

    experiment_id: str = "0"
    name: str = ""
    user: str = ""
    started_at: datetime | None = None
    tags: dict[str, str] = {}


class UpdateRun(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new status, end, name, or stage of a run."""

    status: RunStatus | None = None
    ended_at: datetime | None = None
    name: str | None = None
    stage: Stage | None = None


class LogBatch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is logged to a run in one transaction."""

    metrics: list[Point] = []
    blocks: list[PointBlock] = []
    params: dict[str, str] = {}
    tags: dict[str, str] = {}
    inputs: list[DatasetInput] = []


class SearchRuns(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which runs, in which order, with which metrics. No `experiments` are all; no `metrics` are all of a run's."""

    experiments: list[str] = []
    filter: str = ""
    order_by: list[str] = []
    view: View = "active"
    limit: int = 100
    page: str = ""
    metrics: list[str] | None = None


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """A name that runs logged under. `runs` counts those that have it, `values` (of a param or tag) how many differ;
    both among the runs that were looked at."""

    kind: Literal["metric", "param", "tag"]
    name: str
    runs: int
    values: int = 0


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """The latest values of a metric over some runs. Without a value, all but the count are null."""

    count: int
    mean: float | None
    least: float | None
    greatest: float | None


class RunGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Runs that have the same values of what they are grouped by; null is to have none."""

    values: tuple[str | None, ...]
    runs: int
    metrics: dict[str, Spread] = {}


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """A metric of a run as a chart draws it, thinned with its extremes kept. A null y is not-a-number or infinite."""

    run_id: str
    key: str
    xs: list[float]
    ys: list[float | None]
    total: int


class AskCurves(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which metrics of which runs to draw. `x`: the step, seconds since the run's start, or seconds since 1970."""

    runs: list[str]
    keys: list[str]
    x: Literal["step", "relative", "wall"] = "step"
    points: int = 2_000


class Purge(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which deleted runs and experiments go for good: those named, or, where none is, all that were deleted; of them
    those that have been deleted for `older_than_s` seconds. `dry_run` removes nothing."""

    runs: list[str] = []
    experiments: list[str] = []
    older_than_s: Annotated[int, msgspec.Meta(ge=0, le=100 * 366 * 86_400)] = 0
    dry_run: bool = False


class Purged(msgspec.Struct, frozen=True, kw_only=True):
    """What went for good, or would: how many runs, experiments, logged models and names of files. Their bytes
    go with the next collections of storage, where nothing else names them."""

    dry_run: bool
    runs: int
    experiments: int
    logged_models: int
    artifacts: int
