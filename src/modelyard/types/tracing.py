"""The nouns of tracing: traces of programs, the spans that they are made of, and assessments of them."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

TraceState = Literal["STATE_UNSPECIFIED", "IN_PROGRESS", "OK", "ERROR"]
SpanStatus = Literal["UNSET", "OK", "ERROR"]
AssessmentKind = Literal["feedback", "expectation", "issue"]
IssueStatus = Literal["pending", "rejected", "resolved"]
IssueSeverity = Literal["not_an_issue", "low", "medium", "high"]


class AssessmentError(msgspec.Struct, frozen=True, kw_only=True):
    """Why an assessment could not be made."""

    code: str
    message: str = ""
    stack_trace: str = ""


class Assessment(msgspec.Struct, frozen=True, kw_only=True):
    """A judgement of a trace, or of one span of it: feedback, what would have been right, or an issue it shows.

    One that another overrides is no longer `valid`.
    """

    id: str
    trace_id: str
    name: str
    kind: AssessmentKind
    value: Any = None
    error: AssessmentError | None = None
    source_type: str = ""
    source_id: str = ""
    created_ms: int = 0
    updated_ms: int = 0
    rationale: str | None = None
    metadata: dict[str, str] = {}
    span_id: str | None = None
    overrides: str | None = None
    valid: bool = True


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """One traced call of a program, without its spans. Previews are beginnings of what went in and came out."""

    id: str
    experiment_id: str
    request_ms: int
    duration_ms: int | None = None
    state: TraceState = "STATE_UNSPECIFIED"
    client_request_id: str | None = None
    request_preview: str | None = None
    response_preview: str | None = None
    tags: dict[str, str] = {}
    metadata: dict[str, str] = {}
    assessments: list[Assessment] = []


class SpanEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened at one moment of a span."""

    name: str
    at_ns: int
    attributes: dict[str, Any] = {}


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """One operation within a trace. Ids are OpenTelemetry's, in hex; a root has no parent."""

    trace_id: str
    id: str
    name: str
    start_ns: int
    parent_id: str | None = None
    end_ns: int | None = None
    status: SpanStatus = "UNSET"
    status_message: str = ""
    attributes: dict[str, Any] = {}
    events: list[SpanEvent] = []


class CreateAssessment(msgspec.Struct, frozen=True, kw_only=True):
    """What a new assessment is made of. Without an id it gets one, without times the server's count."""

    name: str
    kind: AssessmentKind
    value: Any = None
    error: AssessmentError | None = None
    id: str = ""
    source_type: str = ""
    source_id: str = ""
    created_ms: int | None = None
    updated_ms: int | None = None
    rationale: str | None = None
    metadata: dict[str, str] = {}
    span_id: str | None = None
    overrides: str | None = None
    valid: bool = True


class UpdateAssessment(msgspec.Struct, frozen=True, kw_only=True):
    """What changes of an assessment; what is None stays. `kind` says what the new value is, where there is one."""

    name: str | None = None
    kind: AssessmentKind | None = None
    value: Any = None
    error: AssessmentError | None = None
    rationale: str | None = None
    metadata: dict[str, str] | None = None


class FilterCounts(msgspec.Struct, frozen=True, kw_only=True):
    """How many traces two filters pick, each and together, of how many."""

    first: int
    second: int
    both: int
    total: int


class EvaluationDataset(msgspec.Struct, frozen=True, kw_only=True):
    """Examples that generative models are judged by. `digest` changes with whatever is in it; `fields` says which keys
    its inputs, outputs and expectations have, and of which type."""

    id: str
    name: str
    digest: str
    created_ms: int
    updated_ms: int
    created_by: str | None = None
    updated_by: str | None = None
    tags: dict[str, str] = {}
    fields: dict[str, Any] | None = None
    records: int = 0
    experiment_ids: list[str] = []


class EvaluationRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One example: what goes in, what came out, what would be right, and where it is from."""

    id: str
    dataset_id: str
    inputs: dict[str, Any]
    outputs: Any = None
    expectations: dict[str, Any] | None = None
    tags: dict[str, str] = {}
    source_type: str | None = None
    source: dict[str, Any] | None = None
    created_ms: int = 0
    updated_ms: int = 0
    created_by: str | None = None
    updated_by: str | None = None


class PutRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An example to add. One with the same inputs is the same example: what else is said of it is merged."""

    inputs: dict[str, Any]
    outputs: Any = msgspec.UNSET
    expectations: dict[str, Any] | None = None
    tags: dict[str, str] = {}
    source_type: str | None = None
    source: dict[str, Any] | None = None


class Issue(msgspec.Struct, frozen=True, kw_only=True):
    """Something that goes wrong in traces of an experiment. Assessments of the kind `issue` name it by its id."""

    id: str
    experiment_id: str
    name: str
    description: str
    status: IssueStatus
    severity: IssueSeverity | None = None
    root_causes: list[str] = []
    categories: list[str] = []
    source_run_id: str | None = None
    created_by: str | None = None
    created_ms: int = 0
    updated_ms: int = 0
    traces: int | None = None


class Scorer(msgspec.Struct, frozen=True, kw_only=True):
    """A version of a scorer of an experiment. `definition`: what it does, as the client that made it writes that."""

    id: str
    experiment_id: str
    name: str
    version: int
    definition: str
    created_ms: int


class CreateIssue(msgspec.Struct, frozen=True, kw_only=True):
    """What a new issue is made of."""

    experiment_id: str
    name: str
    description: str
    status: IssueStatus = "pending"
    severity: IssueSeverity | None = None
    root_causes: list[str] = []
    categories: list[str] = []
    source_run_id: str | None = None
    created_by: str | None = None


class UpdateIssue(msgspec.Struct, frozen=True, kw_only=True):
    """What changes of an issue; what is None stays."""

    name: str | None = None
    description: str | None = None
    status: IssueStatus | None = None
    severity: IssueSeverity | None = None
