"""An export request of OTLP, in protobuf or JSON, as our spans. Pure.

Values that JSON cannot hold are written as protobuf's JSON writes them: bytes in base64, not-a-number and infinities by
their names.
"""

from __future__ import annotations

import base64
import binascii
import math
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import msgspec

from modelyard.kernel.errors import InvalidInput, TooLarge
from modelyard.kernel.limits import NESTING_MAX
from modelyard.server.dialects.otlp import protobuf
from modelyard.types.tracing import Span, SpanEvent, SpanStatus

_STATUS: dict[int, SpanStatus] = {0: "UNSET", 1: "OK", 2: "ERROR"}
_STATUS_NAMES: dict[str, SpanStatus] = {"STATUS_CODE_OK": "OK", "STATUS_CODE_ERROR": "ERROR"}


def decompressed(body: bytes, encoding: str, size_bytes_max: int) -> bytes:
    """A body without its content encoding. Raises InvalidInput, or TooLarge for what would grow beyond the cap."""
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "deflate"):
        raise InvalidInput(
            f"Unsupported Content-Encoding: {encoding[:40]}", code="body.encoding", hint="send gzip, deflate or plain"
        )
    inflate = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    try:
        found = inflate.decompress(body, size_bytes_max + 1)
    except zlib.error as error:
        raise InvalidInput(f"the body is not {encoding}: {error}", code="body.encoding") from error
    if len(found) > size_bytes_max:
        raise TooLarge(f"the body unpacks to more than {size_bytes_max} bytes", code="body.too_large")
    if not inflate.eof:
        raise InvalidInput(f"the body is cut off: its {encoding} stream does not end", code="body.encoding")
    return found


def from_protobuf(body: bytes) -> list[Span]:
    """The spans of an ExportTraceServiceRequest. Raises InvalidInput."""
    return [
        _span(span)
        for resource in _messages(body, 1)
        for scope in _messages(resource, 2)
        for span in _messages(scope, 2)
    ]


def from_json(body: bytes) -> list[Span]:
    """The spans of an ExportTraceServiceRequest in JSON, whose ids are hex. Raises InvalidInput."""
    try:
        request = msgspec.json.decode(body)
        return [
            _json_span(span)
            for resource in request.get("resourceSpans") or []
            for scope in resource.get("scopeSpans") or []
            for span in scope.get("spans") or []
        ]
    except (msgspec.DecodeError, AttributeError, TypeError, ValueError, KeyError, RecursionError) as error:
        raise InvalidInput(f"Invalid OpenTelemetry format: {error}", code="otlp.invalid") from error


def _messages(message: bytes, wanted: int) -> Iterator[bytes]:
    for number, _, value in protobuf.fields(message):
        if number == wanted:
            yield protobuf.raw(value)


def _span(message: bytes) -> Span:
    found: dict[str, Any] = {"trace_id": "", "id": "", "name": "", "start_ns": 0}
    attributes: dict[str, Any] = {}
    events: list[SpanEvent] = []
    for number, _, value in protobuf.fields(message):
        if number == 1:
            found["trace_id"] = _id(protobuf.raw(value), 16)
        elif number == 2:
            found["id"] = _id(protobuf.raw(value), 8)
        elif number == 4:
            found["parent_id"] = _id(protobuf.raw(value), 8) or None
        elif number == 5:
            found["name"] = protobuf.text(value)
        elif number == 7:
            found["start_ns"] = protobuf.number(value)
        elif number == 8:
            found["end_ns"] = protobuf.number(value) or None
        elif number == 9:
            attributes.update([_pair(protobuf.raw(value), 0)])
        elif number == 11:
            events.append(_event(protobuf.raw(value)))
        elif number == 15:
            found["status_message"], found["status"] = _status(protobuf.raw(value))
    return _checked(Span(**found, attributes=attributes, events=events))


def _checked(span: Span) -> Span:
    if not span.trace_id or not span.id:
        raise InvalidInput("a span has no trace_id or no span_id", code="otlp.invalid")
    return span


def _id(raw: bytes, size: int) -> str:
    if len(raw) > size:
        raise InvalidInput(f"an id has {len(raw)} bytes, not {size}", code="otlp.invalid")
    return raw.rjust(size, b"\0").hex() if raw else ""


def _status(message: bytes) -> tuple[str, SpanStatus]:
    said, status = "", _STATUS[0]
    for number, _, value in protobuf.fields(message):
        if number == 2:
            said = protobuf.text(value)
        elif number == 3:
            status = _STATUS.get(protobuf.number(value), "UNSET")
    return said, status


def _event(message: bytes) -> SpanEvent:
    name, at_ns = "", 0
    attributes: dict[str, Any] = {}
    for number, _, value in protobuf.fields(message):
        if number == 1:
            at_ns = protobuf.number(value)
        elif number == 2:
            name = protobuf.text(value)
        elif number == 3:
            attributes.update([_pair(protobuf.raw(value), 0)])
    return SpanEvent(name=name, at_ns=at_ns, attributes=attributes)


def _pair(message: bytes, depth: int) -> tuple[str, Any]:
    key, found = "", None
    for number, _, value in protobuf.fields(message):
        if number == 1:
            key = protobuf.text(value)
        elif number == 2:
            found = _value(protobuf.raw(value), depth + 1)
    return key, found


def _value(message: bytes, depth: int) -> Any:
    if depth > NESTING_MAX:
        _too_deep()
    found: Any = None
    for number, _, value in protobuf.fields(message):
        if number == 1:
            found = protobuf.text(value)
        elif number == 2:
            found = protobuf.number(value) != 0
        elif number == 3:
            found = protobuf.signed(value)
        elif number == 4:
            found = _plain_number(protobuf.double(value))
        elif number == 5:
            found = [_value(one, depth + 1) for one in _messages(protobuf.raw(value), 1)]
        elif number == 6:
            found = dict(_pair(one, depth + 1) for one in _messages(protobuf.raw(value), 1))
        elif number == 7:
            found = base64.b64encode(protobuf.raw(value)).decode()
    return found


def _plain_number(value: float) -> float | str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value


def _json_span(span: Mapping[str, Any]) -> Span:
    status = span.get("status") or {}
    code = status.get("code", 0)
    return _checked(
        Span(
            trace_id=_id(_hex(span.get("traceId")), 16),
            id=_id(_hex(span.get("spanId")), 8),
            parent_id=_id(_hex(span.get("parentSpanId")), 8) or None,
            name=str(span.get("name") or ""),
            start_ns=int(span.get("startTimeUnixNano") or 0),
            end_ns=int(span.get("endTimeUnixNano") or 0) or None,
            status=_STATUS_NAMES.get(code, "UNSET") if isinstance(code, str) else _STATUS.get(code, "UNSET"),
            status_message=str(status.get("message") or ""),
            attributes=_json_pairs(span.get("attributes"), 0),
            events=[
                SpanEvent(
                    name=str(event.get("name") or ""),
                    at_ns=int(event.get("timeUnixNano") or 0),
                    attributes=_json_pairs(event.get("attributes"), 0),
                )
                for event in span.get("events") or []
            ],
        )
    )


def _hex(value: Any) -> bytes:
    try:
        return binascii.unhexlify(value or "")
    except (binascii.Error, TypeError, ValueError) as error:
        raise InvalidInput(f"an id is not hex: {str(value)[:80]}", code="otlp.invalid") from error


def _json_pairs(pairs: Any, depth: int) -> dict[str, Any]:
    return {str(pair.get("key") or ""): _json_value(pair.get("value") or {}, depth + 1) for pair in pairs or []}


def _json_value(value: Mapping[str, Any], depth: int) -> Any:
    if depth > NESTING_MAX:
        _too_deep()
    for kind, found in value.items():
        if kind in ("stringValue", "boolValue", "bytesValue"):
            return found
        if kind == "intValue":
            return int(found)
        if kind == "doubleValue":
            return _plain_number(float(found))
        if kind == "arrayValue":
            return [_json_value(one or {}, depth + 1) for one in found.get("values") or []]
        if kind == "kvlistValue":
            return _json_pairs(found.get("values"), depth + 1)
    return None


def _too_deep() -> NoReturn:
    raise InvalidInput(f"an attribute is nested more than {NESTING_MAX} deep", code="otlp.too_deep")
