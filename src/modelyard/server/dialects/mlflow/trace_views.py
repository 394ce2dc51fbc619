"""Traces, spans and assessments as MLflow writes them, in protobuf's JSON; and its instants and durations read."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

from modelyard.kernel.clock import as_utc, from_us, to_us
from modelyard.server.dialects.mlflow import wire
from modelyard.types.tracing import Assessment, Span, Trace

_DURATION = re.compile(r"-?\d{1,12}(?:\.\d{1,9})?s")
_STATUS_CODES = {"UNSET": "STATUS_CODE_UNSET", "OK": "STATUS_CODE_OK", "ERROR": "STATUS_CODE_ERROR"}
_V2_STATUS = {"STATE_UNSPECIFIED": "TRACE_STATUS_UNSPECIFIED"}
_JSON_FORMAT = "JSON_FORMAT"


def info(trace: Trace) -> dict[str, Any]:
    """A trace without its spans, as MLflow 3 writes it."""
    seen: dict[str, Any] = {
        "trace_id": trace.id,
        "trace_location": {
            "type": "MLFLOW_EXPERIMENT",
            "mlflow_experiment": {"experiment_id": trace.experiment_id},
        },
        "request_time": instant(trace.request_ms),
        "state": trace.state,
        "trace_metadata": trace.metadata,
        "tags": trace.tags,
    }
    if trace.duration_ms is not None:
        seen["execution_duration"] = _duration(trace.duration_ms)
    for name in ("client_request_id", "request_preview", "response_preview"):
        if (text := getattr(trace, name)) is not None:
            seen[name] = text
    if trace.assessments:
        seen["assessments"] = [assessment(one) for one in trace.assessments]
    return seen


def info_before_3(trace: Trace) -> dict[str, Any]:
    """A trace as clients before 3.0 know it."""
    seen: dict[str, Any] = {
        "request_id": trace.id,
        "experiment_id": trace.experiment_id,
        "timestamp_ms": trace.request_ms,
        "status": _V2_STATUS.get(trace.state, trace.state),
    }
    if trace.duration_ms is not None:
        seen["execution_time_ms"] = trace.duration_ms
    if trace.metadata:
        seen["request_metadata"] = wire.pairs(trace.metadata)
    if trace.tags:
        seen["tags"] = wire.pairs(trace.tags)
    return seen


def assessment(one: Assessment) -> dict[str, Any]:
    """An assessment as MLflow writes it."""
    seen: dict[str, Any] = {
        "assessment_id": one.id,
        "assessment_name": one.name,
        "trace_id": one.trace_id,
        "source": {"source_type": one.source_type, "source_id": one.source_id},
        "create_time": instant(one.created_ms),
        "last_update_time": instant(one.updated_ms),
        one.kind: _value(one),
        "valid": one.valid,
    }
    for name in ("span_id", "rationale", "overrides"):
        if text := getattr(one, name):
            seen[name] = text
    if one.metadata:
        seen["metadata"] = one.metadata
    return seen


def _value(one: Assessment) -> dict[str, Any]:
    if one.kind == "issue":
        return {"issue_name": one.value}
    if one.kind == "expectation" and isinstance(one.value, dict | list):
        text = msgspec.json.encode(one.value).decode()
        return {"serialized_value": {"serialization_format": _JSON_FORMAT, "value": text}}
    seen: dict[str, Any] = {"value": one.value}
    if one.error is not None:
        error = {"error_code": one.error.code, "error_message": one.error.message, "stack_trace": one.error.stack_trace}
        seen["error"] = {name: text for name, text in error.items() if text}
    return seen


def span(one: Span) -> dict[str, Any]:
    """A span as OpenTelemetry's protobuf has it, in JSON."""
    seen: dict[str, Any] = {
        "trace_id": _id(one.trace_id),
        "span_id": _id(one.id),
        "name": one.name,
        "start_time_unix_nano": one.start_ns,
        "attributes": _attributes(one.attributes),
        "status": {"code": _STATUS_CODES[one.status]} | ({"message": one.status_message} if one.status_message else {}),
    }
    if one.parent_id is not None:
        seen["parent_span_id"] = _id(one.parent_id)
    if one.end_ns is not None:
        seen["end_time_unix_nano"] = one.end_ns
    if one.events:
        seen["events"] = [
            {"time_unix_nano": event.at_ns, "name": event.name, "attributes": _attributes(event.attributes)}
            for event in one.events
        ]
    return seen


def span_in_file(one: Span) -> dict[str, Any]:
    """A span as MLflow writes it into a file of a trace: each attribute is a text of JSON."""
    return {
        "trace_id": _id(one.trace_id),
        "span_id": _id(one.id),
        "parent_span_id": None if one.parent_id is None else _id(one.parent_id),
        "name": one.name,
        "start_time_unix_nano": one.start_ns,
        "end_time_unix_nano": one.end_ns,
        "events": [
            {"name": event.name, "time_unix_nano": event.at_ns, "attributes": event.attributes} for event in one.events
        ],
        "status": {"code": _STATUS_CODES[one.status], "message": one.status_message},
        "attributes": {key: msgspec.json.encode(value).decode() for key, value in one.attributes.items()},
    }


def _id(text: str) -> str:
    return base64.b64encode(bytes.fromhex(text)).decode()


def _attributes(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _any(value)} for key, value in found.items()]


def _any(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if isinstance(value, bool):
        return {"bool_value": value}
    if isinstance(value, str):
        return {"string_value": value}
    if isinstance(value, int):
        return {"int_value": value}
    if isinstance(value, float):
        return {"double_value": value}
    if isinstance(value, list):
        return {"array_value": {"values": [_any(one) for one in value]}}
    return {"kvlist_value": {"values": _attributes(value)}}


def instant(at_ms: int) -> str:
    """Milliseconds since the epoch as protobuf's JSON writes an instant."""
    at = from_us(at_ms * 1_000)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at_ms % 1_000:03d}Z"


def instant_ms(text: str, path: str) -> int:
    """The milliseconds since the epoch of an instant in text. Raises InvalidInput."""
    try:
        # Nanoseconds are more than Python's reader takes.
        at = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text))
        return to_us(as_utc(at)) // 1_000
    except (ValueError, OverflowError) as error:
        raise wire.invalid(path, text) from error


def duration_ms(text: str, path: str) -> int:
    """The milliseconds of a duration such as `1.5s`. Raises InvalidInput."""
    if _DURATION.fullmatch(text) is None:
        raise wire.invalid(path, text)
    try:
        return int(Decimal(text[:-1]) * 1_000)
    except InvalidOperation as error:
        raise wire.invalid(path, text) from error


def _duration(ms: int) -> str:
    sign, ms = ("-", -ms) if ms < 0 else ("", ms)
    return f"{sign}{ms // 1_000}.{ms % 1_000:03d}s"
