"""The nouns of imports: what another system knows about experiments, runs and models, with its ids and times."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

from modelyard.types.registry import ModelVersion
from modelyard.types.tracing import Span, Trace
from modelyard.types.tracking import (
    DatasetInput,
    Experiment,
    LoggedModel,
    ModelMetric,
    ModelOutput,
    ModelStatus,
    Run,
    RunStatus,
    Stage,
)

SourceUri = Annotated[str, Meta(min_length=1, max_length=400)]
"""What is imported from, as `mlflow:http://tracking:5000`: the same text again continues the same import."""


class ImportExperiment(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An experiment of another system. Its id and its name are kept where they are free."""

    source: SourceUri
    id: str
    name: str
    stage: Stage = "active"
    created_at: datetime | None = None
    updated_at: datetime | None = None
    tags: dict[str, str] = {}


class ImportRun(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A run of another system with all but its points and files, which follow. Its id is kept.

    `experiment_id` is the experiment's id here.
    """

    source: SourceUri
    id: str
    experiment_id: str
    name: str
    user: str = ""
    started_at: datetime
    params: dict[str, str] = {}
    tags: dict[str, str] = {}
    inputs: list[DatasetInput] = []
    model_inputs: list[str] = []
    model_outputs: list[ModelOutput] = []


class ImportPoints(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The points of one metric, column by column; no value stands for not-a-number."""

    times_ms: list[int]
    steps: list[int]
    values: list[float | None]


class ImportFilledRun(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A run of another system with all its points, by metric; only its files follow."""

    run: ImportRun
    metrics: dict[str, ImportPoints] = {}


class ImportRuns(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Runs of another system, all or none."""

    runs: Annotated[list[ImportFilledRun], Meta(min_length=1, max_length=500)]


class PointsOf(Struct, frozen=True):
    """The points of one metric: how many, and a SHA-256 over (time, step, value) of each, in this order, each as two
    64-bit integers and a double, little-endian; not-a-number comes first, and the zeros are one."""

    count: int
    digest: str


class ImportedContents(Struct, frozen=True, kw_only=True):
    """What came of a run, to be compared with what is there: the run, and the points of each metric. `existed`: it was
    here before it was sent."""

    run: Run
    points: dict[str, PointsOf]
    existed: bool = False


class ImportTrace(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A trace of another system under its own id, with all its spans. `runs`: those that it is tied to."""

    trace: Trace
    spans: Annotated[list[Span], Meta(max_length=100_000)]
    runs: Annotated[list[str], Meta(max_length=1_000)] = []


class ImportTraces(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Traces of an experiment, all or none. `experiment_id` is the experiment's id here."""

    source: SourceUri
    experiment_id: str
    traces: Annotated[list[ImportTrace], Meta(min_length=1, max_length=500)]


class ImportedTrace(Struct, frozen=True, kw_only=True):
    """A trace as it came: how many spans are here, and a SHA-256 over their JSON, by id. `existed`: it was here."""

    id: str
    spans: int
    digest: str
    existed: bool


class FinishImportedRun(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the run ended there, sent once all that belongs to it is here. `tags`: what there is to say of the import."""

    source: SourceUri
    status: RunStatus
    stage: Stage = "active"
    ended_at: datetime | None = None
    tags: dict[str, str] = {}


class FinishImportedRuns(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How some runs ended there, by id, all or none."""

    runs: Annotated[dict[str, FinishImportedRun], Meta(min_length=1, max_length=500)]


class ImportLoggedModel(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A logged model of another system, but for its files, which follow. Its id is kept."""

    source: SourceUri
    id: str
    experiment_id: str
    name: str
    status: ModelStatus
    created_at: datetime
    updated_at: datetime
    model_type: str = ""
    source_run_id: str = ""
    params: dict[str, str] = {}
    tags: dict[str, str] = {}
    metrics: list[ModelMetric] = []


class ImportModel(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A registered model of another system."""

    source: SourceUri
    name: str
    description: str = ""
    tags: dict[str, str] = {}
    created_at: datetime | None = None
    updated_at: datetime | None = None


class ImportVersion(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A version of a registered model of another system. Its number is kept; `files` is where its files are here."""

    source: SourceUri
    model: str
    version: Annotated[int, Meta(ge=1, le=2**31 - 1)]
    files: str
    run: str = ""
    logged_model: str = ""
    description: str = ""
    tags: dict[str, str] = {}
    stage: str = "None"
    created_at: datetime
    updated_at: datetime


class ImportedExperiment(Struct, frozen=True, kw_only=True):
    """The experiment here that stands for one there."""

    experiment: Experiment
    existed: bool


class ImportedRun(Struct, frozen=True, kw_only=True):
    """The run here; `complete` where an earlier pass brought it whole."""

    run: Run
    complete: bool


class ImportedLoggedModel(Struct, frozen=True, kw_only=True):
    """The logged model here."""

    model: LoggedModel
    existed: bool


class ImportedVersion(Struct, frozen=True, kw_only=True):
    """The version here."""

    version: ModelVersion
    existed: bool


ProblemKind = Literal["failed", "changed", "left out"]


class ImportCount(Struct, kw_only=True):
    """Of one noun: how many there are in the source, are here now, came in this pass."""

    there: int = 0
    here: int = 0
    new: int = 0


class ImportProblem(Struct, frozen=True, kw_only=True):
    """One thing that could not be brought, or not as it was."""

    what: str
    why: str
    kind: ProblemKind = "failed"


class ImportReport(Struct, kw_only=True):
    """What an import did. `verified`: everything that came was read back, and equals what the source has."""

    source: str
    verified: bool = False
    counts: dict[str, ImportCount] = {}
    bytes: int = 0
    seconds: float = 0.0
    problems: list[ImportProblem] = []

    def count(self, noun: str) -> ImportCount:
        """The counts of a noun, made where it is new."""
        return self.counts.setdefault(noun, ImportCount())

    def say(self, what: str, why: str, kind: ProblemKind = "failed") -> None:
        """Note what did not come as it is there."""
        self.problems.append(ImportProblem(what=what, why=why, kind=kind))
