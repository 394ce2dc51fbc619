"""MLflow's endpoints of assessments of traces."""

from __future__ import annotations

import re
from typing import Any, ClassVar

import msgspec
from litestar import Response

from modelyard.kernel.auth import Action, Scope
from modelyard.kernel.errors import InvalidInput
from modelyard.kernel.routing import delete, get, patch, post
from modelyard.planes.tracking import Tracking
from modelyard.server.dialects.mlflow import trace_views, wire
from modelyard.server.dialects.mlflow.wire import Message, endpoint
from modelyard.types.tracing import (
    Assessment,
    AssessmentError,
    AssessmentKind,
    CreateAssessment,
    UpdateAssessment,
)

_ONE = "/traces/{trace_id:str}/assessments/{assessment_id:str}"
_CAMEL = re.compile(r"(?<=[a-z])([A-Z])")
_SOURCES = ("SOURCE_TYPE_UNSPECIFIED", "HUMAN", "LLM_JUDGE", "CODE")


class Source(msgspec.Struct, kw_only=True):
    source_type: str | int = ""
    source_id: str = ""


class Failure(msgspec.Struct, kw_only=True):
    error_code: str = ""
    error_message: str = ""
    stack_trace: str = ""


class FeedbackValue(msgspec.Struct, kw_only=True):
    value: Any = None
    error: Failure | None = None


class Serialized(msgspec.Struct, kw_only=True):
    serialization_format: str = ""
    value: str = ""


class ExpectationValue(msgspec.Struct, kw_only=True):
    value: Any = None
    serialized_value: Serialized | None = None


class IssueValue(msgspec.Struct, kw_only=True):
    issue_name: str = ""


class Said(msgspec.Struct, kw_only=True):
    """An assessment as MLflow's clients write it."""

    assessment_id: str = ""
    assessment_name: str = ""
    trace_id: str = ""
    span_id: str | None = None
    source: Source = msgspec.field(default_factory=Source)
    create_time: str | None = None
    last_update_time: str | None = None
    feedback: FeedbackValue | None = None
    expectation: ExpectationValue | None = None
    issue: IssueValue | None = None
    rationale: str | None = None
    metadata: dict[str, str] = {}
    overrides: str | None = None
    valid: bool = True


class Create(Message):
    REQUIRED: ClassVar = ("assessment",)
    assessment: Said | None = None


class Update(Message):
    REQUIRED: ClassVar = ("assessment", "update_mask")
    assessment: Said | None = None
    update_mask: str = ""


@post(endpoint("/traces/{trace_id:str}/assessments", "3.0"), requires=Action.WRITE)
def create_assessment(caller: Scope, tracking: Tracking, trace_id: str, body: bytes) -> Response[bytes]:
    said = wire.decode(body, Create).assessment
    assert said is not None
    return _one(tracking.assessments.create(caller, trace_id, _asked(said)))


@get(endpoint(_ONE, "3.0"), requires=Action.READ)
def get_assessment(caller: Scope, tracking: Tracking, trace_id: str, assessment_id: str) -> Response[bytes]:
    return _one(tracking.assessments.get(caller, trace_id, assessment_id))


@patch(endpoint(_ONE, "3.0"), requires=Action.WRITE)
def update_assessment(
    caller: Scope, tracking: Tracking, trace_id: str, assessment_id: str, body: bytes
) -> Response[bytes]:
    asked = wire.decode(body, Update)
    said = asked.assessment
    assert said is not None
    named = {_CAMEL.sub(r"_\1", path).lower() for path in asked.update_mask.split(",")}
    kind, value, error = None, None, None
    if named & {"feedback", "expectation", "issue"}:
        kind, value, error = _value(said)
    changes = UpdateAssessment(
        name=said.assessment_name if "assessment_name" in named else None,
        kind=kind,
        value=value,
        error=error,
        rationale=said.rationale if "rationale" in named else None,
        metadata=said.metadata if "metadata" in named else None,
    )
    return _one(tracking.assessments.update(caller, trace_id, assessment_id, changes))


@delete(endpoint(_ONE, "3.0"), requires=Action.WRITE)
def delete_assessment(caller: Scope, tracking: Tracking, trace_id: str, assessment_id: str) -> Response[bytes]:
    tracking.assessments.delete(caller, trace_id, assessment_id)
    return wire.reply()


def noun(said: Said, trace_id: str) -> Assessment:
    """An assessment that comes along with its trace. Raises InvalidInput."""
    asked = _asked(said)
    return Assessment(
        id=asked.id,
        trace_id=trace_id,
        name=asked.name,
        kind=asked.kind,
        value=asked.value,
        error=asked.error,
        source_type=asked.source_type,
        source_id=asked.source_id,
        created_ms=asked.created_ms or 0,
        updated_ms=asked.updated_ms or 0,
        rationale=asked.rationale,
        metadata=asked.metadata,
        span_id=asked.span_id,
        overrides=asked.overrides,
        valid=asked.valid,
    )


def _asked(said: Said) -> CreateAssessment:
    kind, value, error = _value(said)
    created, updated = said.create_time, said.last_update_time
    return CreateAssessment(
        name=said.assessment_name,
        kind=kind,
        value=value,
        error=error,
        id=said.assessment_id,
        source_type=_source_type(said.source.source_type),
        source_id=said.source.source_id,
        created_ms=None if created is None else trace_views.instant_ms(created, "assessment.create_time"),
        updated_ms=None if updated is None else trace_views.instant_ms(updated, "assessment.last_update_time"),
        rationale=said.rationale or None,
        metadata=said.metadata,
        span_id=said.span_id or None,
        overrides=said.overrides or None,
        valid=said.valid,
    )


def _source_type(said: str | int) -> str:
    if isinstance(said, int) or said.isdecimal():
        return _SOURCES[int(said)] if int(said) < len(_SOURCES) else _SOURCES[0]
    return said


def _value(said: Said) -> tuple[AssessmentKind, Any, AssessmentError | None]:
    if said.feedback is not None:
        failure = said.feedback.error
        error = None
        if failure is not None:
            error = AssessmentError(
                code=failure.error_code, message=failure.error_message, stack_trace=failure.stack_trace
            )
        return "feedback", said.feedback.value, error
    if said.expectation is not None:
        return "expectation", _expected(said.expectation), None
    if said.issue is not None:
        return "issue", said.issue.issue_name, None
    raise InvalidInput("An assessment must have a feedback, an expectation or an issue.", code="assessment.no_value")


def _expected(said: ExpectationValue) -> Any:
    if said.serialized_value is None:
        return said.value
    try:
        return msgspec.json.decode(said.serialized_value.value)
    except msgspec.DecodeError as error:
        raise wire.invalid("assessment.expectation.serialized_value", said.serialized_value.value) from error


def _one(found: Assessment) -> Response[bytes]:
    return wire.reply({"assessment": trace_views.assessment(found)})


HANDLERS = [create_assessment, get_assessment, update_assessment, delete_assessment]
