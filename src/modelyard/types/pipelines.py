"""The nouns of pipelines: the compiled plan, its registered versions, its runs and their steps.

A plan is what a pipeline function yields when it is called symbolically: no code, only names, hashes and how the steps
feed each other. The code is a snapshot of the project's source tree, addressed by its content.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

import msgspec

from modelyard.types.jobs import Resources

# --- the plan ---------------------------------------------------------------------------------------------------


class Value(msgspec.Struct, frozen=True, tag_field="from", tag="value"):
    """A plain JSON value, written in the pipeline function."""

    value: Any


class ParamRef(msgspec.Struct, frozen=True, tag_field="from", tag="param"):
    """A parameter of the pipeline, known when a run starts."""

    name: str


class OutputRef(msgspec.Struct, frozen=True, tag_field="from", tag="output"):
    """What a step returned, or a part of it: `path` are the keys and indices that lead there."""

    step: str
    path: list[str | int] = []


class DatasetRef(msgspec.Struct, frozen=True, tag_field="from", tag="dataset"):
    """A version of a dataset: a number, a tag, or None for the newest. Pinned to a number when a run starts."""

    name: str
    ref: int | str | None = None

    @property
    def label(self) -> str:
        """How a run's record calls it: by name, and by what was asked for where that is not the newest."""
        return self.name if self.ref is None else f"{self.name}@{self.ref}"


class ListOf(msgspec.Struct, frozen=True, tag_field="from", tag="list"):
    """Several inputs in order."""

    items: list[Value | ParamRef | OutputRef | DatasetRef | ListOf | MapOf]


class MapOf(msgspec.Struct, frozen=True, tag_field="from", tag="map"):
    """Several inputs by name."""

    items: dict[str, Value | ParamRef | OutputRef | DatasetRef | ListOf | MapOf]


Input = Value | ParamRef | OutputRef | DatasetRef | ListOf | MapOf


def leaves(given: Input) -> Iterator[Input]:
    """The inputs within an input."""
    if isinstance(given, ListOf):
        for item in given.items:
            yield from leaves(item)
    elif isinstance(given, MapOf):
        for item in given.items.values():
            yield from leaves(item)
    else:
        yield given


ParamKind = Literal["any", "bool", "int", "float", "str", "dataset"]


class Param(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A parameter of a pipeline. A dataset is given as `name`, `name@7` or `name@tag`."""

    name: str
    kind: ParamKind = "any"
    required: bool = False
    default: Any = None


class Step(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One call of a task. `task` is `module:function` within the code snapshot; `code_hash` covers all it refers to."""

    name: str
    task: str
    code_hash: str
    inputs: dict[str, Input] = {}
    resources: Resources = Resources()
    timeout_s: float = 3600.0
    retries: int = 0
    cache: bool = True


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A compiled pipeline. Steps are in an order in which they could run; `result` is what the function returns."""

    name: str
    params: list[Param] = []
    steps: list[Step] = []
    result: Input = Value(None)
    description: str = ""

    def dataset_of(self, leaf: Input, params: Mapping[str, Any]) -> DatasetRef | None:
        """The dataset that an input stands for, itself or by its param; None where it is something else."""
        if isinstance(leaf, DatasetRef):
            return leaf
        if not isinstance(leaf, ParamRef) or params.get(leaf.name) is None:
            return None
        is_dataset = any(param.kind == "dataset" for param in self.params if param.name == leaf.name)
        return msgspec.convert(params[leaf.name], DatasetRef) if is_dataset else None


class Code(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A source tree: the digest of its archive, the folders to import from, and the commit that it was taken at."""

    digest: str
    size_bytes: int
    import_paths: list[str] = msgspec.field(default_factory=lambda: [""])
    commit: str = ""
    dirty: bool = False


class RegisterPipeline(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A plan and the code that it was compiled from."""

    plan: Plan
    code: Code


class Pipeline(msgspec.Struct, frozen=True, kw_only=True):
    """A version of a pipeline. The same plan and code are the same version."""

    name: str
    version: int
    plan: Plan
    code: Code
    created_by: str
    created_at: datetime


# --- runs -------------------------------------------------------------------------------------------------------


class RunState(StrEnum):
    """Where a pipeline run is. The last three are final, but for `resume`."""

    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether nothing follows."""
        return self not in (RunState.RUNNING, RunState.CANCELLING)


class StepState(StrEnum):
    """Where a step is. `cached`: its outputs are those of an earlier run. `skipped`: not run, since the run ended."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    CACHED = "cached"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"

    @property
    def final(self) -> bool:
        """Whether nothing follows."""
        return self not in (StepState.PENDING, StepState.RUNNING)

    @property
    def done(self) -> bool:
        """Whether it has outputs."""
        return self in (StepState.SUCCEEDED, StepState.CACHED)


OutputFormat = Literal["json", "arrow", "pickle"]


class Output(msgspec.Struct, frozen=True, kw_only=True):
    """What a step returned: a blob, or for small plain values the value itself."""

    digest: str
    format: OutputFormat
    size_bytes: int
    inline: bool = False
    value: Any = None


ErrorKind = Literal["user_code", "timed_out", "killed", "out_of_memory", "lost", "cancelled", "platform"]


class StepError(msgspec.Struct, frozen=True, kw_only=True):
    """Why a step failed. `user_code`: the task raised; `platform`: not the task's fault. `traceback` is its end."""

    kind: ErrorKind
    message: str
    type: str = ""
    traceback: str = ""


class StepRun(msgspec.Struct, frozen=True, kw_only=True):
    """A step within a run. `key` is what the cache knows it by; `cached_from` the run that made the outputs."""

    name: str
    task: str
    state: StepState
    reason: str = ""
    key: str = ""
    job_id: str | None = None
    cached_from: str | None = None
    output: Output | None = None
    error: StepError | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None


class PipelineRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run. `params` are complete; `datasets` are the versions that it is pinned to. `result` where it is plain."""

    id: str
    pipeline: str
    version: int
    state: RunState
    params: dict[str, Any]
    datasets: dict[str, int]
    code: str
    env: str
    cause: str | None
    reason: str
    steps: list[StepRun]
    result: Any = None
    created_by: str
    created_at: datetime
    ended_at: datetime | None = None


class StartRun(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to start. `version` None: the newest. The same `idempotency_key` gives the run that exists.

    `cause` is the URN of what triggered it.
    """

    params: dict[str, Any] = {}
    version: int | None = None
    cause: str | None = None
    idempotency_key: str | None = None


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """What steps run in: the interpreter and every installed package. `hash` covers all of it."""

    hash: str
    python: str
    platform: str
    packages: dict[str, str]


# --- what a worker asks and says ----------------------------------------------------------------------------------


class StepWork(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker has to do. `inputs` are bound: their params and datasets are filled in; `outputs` by step."""

    run_id: str
    step: str
    task: str
    code: Code
    inputs: dict[str, Input]
    outputs: dict[str, Output]


class StepReport(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How it went: exactly one of the two."""

    output: Output | None = None
    error: StepError | None = None
