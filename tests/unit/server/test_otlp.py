"""OTLP: what OpenTelemetry's own library writes is read as it was meant; anything else is refused, and soon."""

from __future__ import annotations

import contextlib
import gzip
import json
import math
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.kernel.errors import InvalidInput, ModelyardError, TooLarge
from modelyard.kernel.limits import NESTING_MAX
from modelyard.server.dialects.otlp import decode
from modelyard.types.tracing import Span

trace_service_pb2 = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
json_format = pytest.importorskip("google.protobuf.json_format")

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | TEXTS | st.floats(allow_nan=False, width=64),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


def set_value(target: Any, value: Any) -> None:
    if value is None:
        return
    if isinstance(value, bool):
        target.bool_value = value
    elif isinstance(value, int):
        target.int_value = value
    elif isinstance(value, float):
        target.double_value = value
    elif isinstance(value, str):
        target.string_value = value
    elif isinstance(value, list):
        target.array_value.SetInParent()
        for one in value:
            set_value(target.array_value.values.add(), one)
    else:
        target.kvlist_value.SetInParent()
        for key, one in value.items():
            pair = target.kvlist_value.values.add(key=key)
            set_value(pair.value, one)


def request_of(attributes: dict[str, Any], name: str = "call", *, end: int = 9, parent: bytes = b"") -> Any:
    request = trace_service_pb2.ExportTraceServiceRequest()
    span = request.resource_spans.add().scope_spans.add().spans.add(
        trace_id=b"\x01" * 16, span_id=b"\x02" * 8, parent_span_id=parent, name=name, start_time_unix_nano=5,
        end_time_unix_nano=end,
    )  # fmt: skip
    span.status.code, span.status.message = 2, "lost"
    for key, value in attributes.items():
        set_value(span.attributes.add(key=key).value, value)
    event = span.events.add(name="boom", time_unix_nano=7)
    set_value(event.attributes.add(key="n").value, 1)
    return request


def plain(value: Any) -> Any:
    """What JSON can hold of a value."""
    if isinstance(value, float) and math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, list):
        return [plain(one) for one in value]
    return {key: plain(one) for key, one in value.items()} if isinstance(value, dict) else value


@given(attributes=st.dictionaries(TEXTS, VALUES, max_size=4), name=TEXTS)
def test_what_opentelemetry_writes_is_read_as_it_was_meant(attributes: dict[str, Any], name: str) -> None:
    (span,) = decode.from_protobuf(request_of(attributes, name).SerializeToString())
    assert span.attributes == plain(attributes)
    assert (span.trace_id, span.id, span.parent_id, span.name) == ("01" * 16, "02" * 8, None, name)
    assert (span.start_ns, span.end_ns, span.status, span.status_message) == (5, 9, "ERROR", "lost")
    assert [(event.name, event.at_ns, event.attributes) for event in span.events] == [("boom", 7, {"n": 1})]


@given(attributes=st.dictionaries(TEXTS, VALUES, max_size=4))
def test_json_says_the_same_as_protobuf(attributes: dict[str, Any]) -> None:
    request = request_of(attributes, parent=b"\x03" * 8)
    said = json_format.MessageToDict(request)
    for span in said["resourceSpans"][0]["scopeSpans"][0]["spans"]:
        # In OTLP's JSON ids are hex, not base64.
        span.update(traceId="01" * 16, spanId="02" * 8, parentSpanId="03" * 8)
    assert decode.from_json(json.dumps(said).encode()) == decode.from_protobuf(request.SerializeToString())


@given(body=st.binary(max_size=200))
def test_any_bytes_are_spans_or_refused(body: bytes) -> None:
    for read in (decode.from_protobuf, decode.from_json):
        with contextlib.suppress(InvalidInput):
            assert all(isinstance(span, Span) for span in read(body))


@given(at=st.integers(0, 10**6), byte=st.integers(0, 255), cut=st.booleans())
def test_a_damaged_request_is_read_or_refused(at: int, byte: int, cut: bool) -> None:
    body = bytearray(request_of({"a": [1, {"b": "c"}]}).SerializeToString())
    at %= len(body)
    if cut:
        del body[at:]
    else:
        body[at] = byte
    with contextlib.suppress(InvalidInput):
        decode.from_protobuf(bytes(body))


@settings(max_examples=10)
@given(depth=st.integers(NESTING_MAX + 1, 3_000))
def test_what_is_nested_too_deep_is_refused(depth: int) -> None:
    value = b"\x0a\x01x"
    for _ in range(depth):
        # An array of one value: the fields `values` (1) of ArrayValue and `array_value` (5) of AnyValue.
        for tag in (b"\x0a", b"\x2a"):
            value = tag + _varint(len(value)) + value
    body = value
    for tag in (b"\x12", b"\x4a", b"\x12", b"\x12", b"\x0a"):
        body = tag + _varint(len(body)) + body
    with pytest.raises(InvalidInput, match="nested"):
        decode.from_protobuf(body)
    nested: Any = '{"stringValue":"x"}'
    nested = '{"arrayValue":{"values":[' * depth + nested + "]}}" * depth
    with pytest.raises(InvalidInput):
        decode.from_json(
            b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"01","spanId":"02","attributes":[{"key":"a","value":'
            + nested.encode()
            + b"}]}]}]}]}"
        )


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_packed_bodies_are_unpacked_up_to_the_cap(pack: Any) -> None:
    encoding = "gzip" if pack is gzip.compress else "deflate"
    assert decode.decompressed(pack(b"x" * 100), encoding, 100) == b"x" * 100
    for body, limit in ((pack(b"x" * 10**7), 100), (pack(b"x" * 101), 100)):
        with pytest.raises(TooLarge):
            decode.decompressed(body, encoding, limit)
    for body in (b"no", pack(b"x" * 100)[:-2], b""):
        with pytest.raises(ModelyardError):
            decode.decompressed(body, encoding, 100)
