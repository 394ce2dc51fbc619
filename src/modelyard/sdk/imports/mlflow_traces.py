"""Traces out of MLflow's SQLite file: infos, tags, metadata, assessments, and spans, of which older lie in files."""

from __future__ import annotations

import base64
import binascii
import json
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from modelyard.sdk.imports.source import SourceTrace, Unreachable
from modelyard.types.tracing import Assessment, AssessmentError, AssessmentKind, Span, SpanEvent, Trace, TraceState

LOCATION_TAG = "mlflow.artifactLocation"
_SPANS_FILE = "traces.json"
_TIED = "source_type = 'trace' AND source_id = ? AND destination_type = 'run'"
_STATES: dict[str, TraceState] = {"OK": "OK", "ERROR": "ERROR", "IN_PROGRESS": "IN_PROGRESS"}
_KINDS: dict[str, AssessmentKind] = {"feedback": "feedback", "expectation": "expectation", "issue": "issue"}
_TOKENS = (
    "input_tokens", "output_tokens", "total_tokens", "cache_read_input_tokens", "cache_creation_input_tokens",
)  # fmt: skip
_COSTS = ("input_cost", "output_cost", "total_cost")
_HEX = re.compile(r"[0-9a-f]{16}|[0-9a-f]{32}")
_UNREADABLE = (KeyError, TypeError, ValueError, AttributeError, msgspec.ValidationError, binascii.Error)
Rows = Callable[..., Iterator[sqlite3.Row]]
OpenFile = Callable[[str, str], bytes]


def traces_of(rows: Rows, open_file: OpenFile, experiment_id: str) -> Iterator[SourceTrace]:
    """The traces of an experiment, oldest first. `rows` gives those of a table; `open_file` the bytes of a file at a
    location, or raises Unreachable."""
    for row in list(rows("trace_info", "experiment_id = ? ORDER BY timestamp_ms, request_id", experiment_id)):
        trace_id = row["request_id"]
        tags = {one["key"]: one["value"] or "" for one in rows("trace_tags", "request_id = ?", trace_id)}
        metadata = {
            one["key"]: one["value"] or "" for one in rows("trace_request_metadata", "request_id = ?", trace_id)
        }
        _add_columns(row, tags, metadata)
        notes: list[str] = []
        spans = _spans(rows, open_file, trace_id, tags, notes)
        known = row.keys()
        yield SourceTrace(
            trace=Trace(
                id=trace_id,
                experiment_id="",
                request_ms=row["timestamp_ms"],
                duration_ms=row["execution_time_ms"],
                state=_STATES.get(row["status"], "STATE_UNSPECIFIED"),
                client_request_id=row["client_request_id"] if "client_request_id" in known else None,
                request_preview=row["request_preview"] if "request_preview" in known else None,
                response_preview=row["response_preview"] if "response_preview" in known else None,
                tags={key: value for key, value in tags.items() if key != LOCATION_TAG},
                metadata=metadata,
                assessments=[_assessment(one) for one in rows("assessments", "trace_id = ?", trace_id)],
            ),
            spans=spans,
            runs=[one["destination_id"] for one in rows("entity_associations", _TIED, trace_id)],
            notes=tuple(notes),
        )


def _spans(rows: Rows, open_file: OpenFile, trace_id: str, tags: Mapping[str, str], notes: list[str]) -> list[Span]:
    contents = [one["content"] for one in rows("spans", "trace_id = ? ORDER BY span_id", trace_id)]
    found: Sequence[Any] = [text for text in contents if text]
    if not found and LOCATION_TAG in tags:
        try:
            found = json.loads(open_file(tags[LOCATION_TAG], _SPANS_FILE))["spans"]
        except (Unreachable, OSError) as error:
            notes.append(f"its spans: {error}")
        except _UNREADABLE:
            notes.append("its spans: their file is damaged")
    spans = []
    for one in found:
        try:
            spans.append(span_of(json.loads(one) if isinstance(one, str) else one))
        except _UNREADABLE as error:
            notes.append(f"a span that cannot be read: {type(error).__name__} {error}"[:200])
    return spans


def _add_columns(row: sqlite3.Row, tags: dict[str, str], metadata: dict[str, str]) -> None:
    """What newer releases keep in columns of their own, where older ones have a tag or metadata."""
    known = {name: row[name] for name in row.keys() if row[name] is not None}  # noqa: SIM118  a Row is no mapping
    if "trace_name" in known:
        tags["mlflow.traceName"] = known["trace_name"]
    if "session_id" in known:
        metadata["mlflow.trace.session"] = known["session_id"]
    for key, names in (("mlflow.trace.tokenUsage", _TOKENS), ("mlflow.trace.cost", _COSTS)):
        if counted := {name: known[name] for name in names if name in known}:
            metadata[key] = json.dumps(counted)


def span_of(found: Mapping[str, Any]) -> Span:
    """A span as MLflow's JSON has it, of 3.x or 2.x. Raises KeyError, TypeError, ValueError for another form."""
    if "context" in found:
        status, message, parent = found["status_code"], found["status_message"], found["parent_id"]
        trace, own = found["context"]["trace_id"], found["context"]["span_id"]
        start, end, when = found["start_time"], found["end_time"], "timestamp"
    else:
        status, message, parent = found["status"]["code"], found["status"].get("message"), found["parent_span_id"]
        trace, own = found["trace_id"], found["span_id"]
        start, end, when = found["start_time_unix_nano"], found["end_time_unix_nano"], "time_unix_nano"
    return msgspec.convert(
        {
            "trace_id": _hex(trace),
            "id": _hex(own),
            "name": found["name"],
            "start_ns": start,
            "parent_id": _hex(parent) if parent else None,
            "end_ns": end,
            "status": str(status).removeprefix("STATUS_CODE_"),
            "status_message": message or "",
            "attributes": {key: _value(text) for key, text in (found.get("attributes") or {}).items()},
            "events": [
                SpanEvent(name=one["name"], at_ns=one[when], attributes=one.get("attributes") or {})
                for one in found.get("events") or []
            ],
        },
        Span,
    )


def _value(text: Any) -> Any:
    """An attribute, which MLflow keeps as JSON in a text; one that is no JSON is a text."""
    if not isinstance(text, str):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def _hex(text: str) -> str:
    plain = text.removeprefix("tr-").removeprefix("0x")
    return plain if _HEX.fullmatch(plain) else base64.b64decode(text, validate=True).hex()


def _assessment(row: sqlite3.Row) -> Assessment:
    error = json.loads(row["error"]) if row["error"] else None
    return Assessment(
        id=row["assessment_id"],
        trace_id=row["trace_id"],
        name=row["name"],
        kind=_KINDS.get(row["assessment_type"], "feedback"),
        value=json.loads(row["value"]) if row["value"] else None,
        error=None
        if not isinstance(error, dict)
        else AssessmentError(
            code=str(error.get("error_code", "")),
            message=str(error.get("error_message") or ""),
            stack_trace=str(error.get("stack_trace") or ""),
        ),
        source_type=row["source_type"],
        source_id=row["source_id"] or "",
        created_ms=row["created_timestamp"],
        updated_ms=row["last_updated_timestamp"],
        rationale=row["rationale"],
        metadata=json.loads(row["assessment_metadata"]) if row["assessment_metadata"] else {},
        span_id=row["span_id"],
        overrides=row["overrides"],
        valid=bool(row["valid"]),
    )
