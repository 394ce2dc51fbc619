"""What an import reads: another system's experiments, runs and models as plain nouns, and where their files are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from msgspec import Struct

from modelyard.types.tracing import Span, Trace
from modelyard.types.tracking import DatasetInput, ModelMetric, ModelOutput, ModelStatus, RunStatus, Stage


class Value(NamedTuple):
    """One value of a metric, in the order in which a history is read: by time, step, value."""

    timestamp_ms: int
    step: int
    value: float


class SourceExperiment(Struct, frozen=True, kw_only=True):
    """An experiment there."""

    id: str
    name: str
    stage: Stage = "active"
    created_at: datetime | None = None
    updated_at: datetime | None = None
    tags: dict[str, str] = {}


class SourceRun(Struct, frozen=True, kw_only=True):
    """A run there, without its points and files. `notes`: what is not quite as it was there."""

    id: str
    name: str
    started_at: datetime
    ended_at: datetime | None = None
    user: str = ""
    status: RunStatus = "FINISHED"
    stage: Stage = "active"
    params: dict[str, str] = {}
    tags: dict[str, str] = {}
    metrics: tuple[str, ...] = ()
    inputs: list[DatasetInput] = []
    model_inputs: list[str] = []
    model_outputs: list[ModelOutput] = []
    notes: tuple[str, ...] = ()


class SourceTrace(Struct, frozen=True, kw_only=True):
    """A trace there, with its spans and the runs that it is tied to. `notes`: what could not be read of it."""

    trace: Trace
    spans: list[Span]
    runs: list[str] = []
    notes: tuple[str, ...] = ()


class SourceModel(Struct, frozen=True, kw_only=True):
    """A logged model there."""

    id: str
    name: str
    status: ModelStatus
    created_at: datetime
    updated_at: datetime
    model_type: str = ""
    source_run_id: str = ""
    params: dict[str, str] = {}
    tags: dict[str, str] = {}
    metrics: list[ModelMetric] = []


class SourceRegistered(Struct, frozen=True, kw_only=True):
    """A registered model there."""

    name: str
    description: str = ""
    tags: dict[str, str] = {}
    aliases: dict[str, int] = {}
    created_at: datetime | None = None
    updated_at: datetime | None = None


class SourceVersion(Struct, frozen=True, kw_only=True):
    """A version of a registered model there. `location` says where its files are, where that is not its `source`."""

    version: int
    source: str
    created_at: datetime
    updated_at: datetime
    location: str = ""
    run: str = ""
    logged_model: str = ""
    description: str = ""
    stage: str = "None"
    tags: dict[str, str] = {}


class Owner(NamedTuple):
    """Whose files: a run's, a logged model's, or those of a version (`model/number`) at a place of their own."""

    kind: Literal["run", "model", "version"]
    id: str


class SourceFile(Struct, frozen=True):
    """A file there, by its path below its owner; `size_bytes` where it is known."""

    path: str
    size_bytes: int | None = None


class Unreachable(Exception):
    """Files that this source cannot read, and why."""


class CutOff(Exception):
    """A log ends, or is damaged, in the middle: what came before was read. Says where."""


class Source(Protocol):
    """Another system, open for reading. `uri` is its name: the same one again continues the same import. `unreadable`
    says what could not be read at all. `one_at_a_time`: the history and files of
    a run are there until the next one is asked for."""

    uri: str
    unreadable: Sequence[str]
    one_at_a_time: bool

    def experiments(self) -> Iterable[SourceExperiment]:
        """All experiments, deleted ones too."""

    def runs(self, experiment_id: str) -> Iterable[SourceRun]:
        """All runs of an experiment, deleted ones too."""

    def history(self, run_id: str, key: str) -> Sequence[Value]:
        """All values of a metric of a run, in any order."""

    def models(self, experiment_id: str) -> Iterable[SourceModel]:
        """All logged models of an experiment."""

    def registered(self) -> Iterable[SourceRegistered]:
        """All registered models."""

    def versions(self, name: str) -> Iterable[SourceVersion]:
        """All versions of a registered model."""

    def files(self, owner: Owner) -> Sequence[SourceFile]:
        """All files of an owner. Raises Unreachable."""

    def open(self, owner: Owner, path: str) -> AbstractContextManager[Iterator[bytes]]:
        """A file's bytes in pieces. Raises Unreachable."""

    def close(self) -> None:
        """Give back what is open."""


class RunsOnly:
    """The part of a source that keeps no models."""

    def models(self, experiment_id: str) -> Iterable[SourceModel]:  # noqa: ARG002
        """None."""
        return ()

    def registered(self) -> Iterable[SourceRegistered]:
        """None."""
        return ()

    def versions(self, name: str) -> Iterable[SourceVersion]:  # noqa: ARG002
        """None."""
        return ()


@runtime_checkable
class TraceSource(Protocol):
    """A source that has traces too."""

    def traces(self, experiment_id: str) -> Iterable[SourceTrace]:
        """All traces of an experiment."""


def instant(milliseconds: int | float | None) -> datetime:
    """An instant from milliseconds; none is the epoch."""
    return datetime.fromtimestamp((milliseconds or 0) / 1_000, UTC)
