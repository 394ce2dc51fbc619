"""OpenTelemetry's OTLP over HTTP: programs that are traced send their spans here.

The experiment is named in the header `x-mlflow-experiment-id`; without it the spans go to experiment 0.
"""

from __future__ import annotations

from typing import Any

from anyio import to_thread
from litestar import Request, Response

from modelyard.kernel.auth import Action, Scope
from modelyard.kernel.errors import InvalidInput
from modelyard.kernel.limits import MIB
from modelyard.kernel.routing import post
from modelyard.planes.tracking import Tracking
from modelyard.server.dialects.mlflow import wire
from modelyard.server.dialects.otlp import decode
from modelyard.types.tracing import Span

PROTOBUF, JSON = "application/x-protobuf", "application/json"
EXPORT_BYTES_MAX = 64 * MIB
EXPERIMENT_HEADER = "x-mlflow-experiment-id"
TRACE_ID = "mlflow.traceRequestId"
"""The attribute in which MLflow's clients name the trace; others have only OpenTelemetry's id."""


@post("/v1/traces", requires=Action.WRITE, request_max_body_size=EXPORT_BYTES_MAX)
async def export_traces(caller: Scope, tracking: Tracking, request: Request[Any, Any, Any]) -> Response[bytes]:
    media = request.headers.get("content-type", "").partition(";")[0].strip()
    if media not in (PROTOBUF, JSON):
        raise InvalidInput(
            f"Invalid Content-Type: {media[:80]}. Expected: {PROTOBUF} or {JSON}", code="body.content_type"
        )
    encoding = request.headers.get("content-encoding", "").strip().lower()
    experiment = request.headers.get(EXPERIMENT_HEADER, "0")
    body = await request.body()
    await to_thread.run_sync(lambda: _log(caller, tracking, experiment, body, encoding, media))
    # An empty ExportTraceServiceResponse: all was taken.
    return Response(b"" if media == PROTOBUF else b"{}", media_type=media, status_code=200)


def _log(caller: Scope, tracking: Tracking, experiment: str, body: bytes, encoding: str, media: str) -> None:
    plain = decode.decompressed(body, encoding, EXPORT_BYTES_MAX)
    spans = decode.from_json(plain) if media == JSON else decode.from_protobuf(plain)
    if not spans:
        raise InvalidInput("Invalid OpenTelemetry format - no spans found", code="otlp.empty")
    by_trace: dict[str, list[Span]] = {}
    for span in spans:
        named = span.attributes.get(TRACE_ID)
        by_trace.setdefault(named if isinstance(named, str) and named else f"tr-{span.trace_id}", []).append(span)
    tracking.spans.log(caller, experiment, by_trace)


ROUTES = wire.telling([export_traces])
