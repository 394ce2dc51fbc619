"""`@mlflow.trace`: spans of nested functions and of an error, found again by search, with tags and feedback."""

from __future__ import annotations

import json

import mlflow

mlflow.set_experiment("traces")


@mlflow.trace(span_type="TOOL", attributes={"unit": "mile"})
def inner(x: int) -> int:
    return x * 2


@mlflow.trace
def outer(x: int) -> int:
    with mlflow.start_span("middle") as span:
        span.set_inputs({"x": x})
        span.set_outputs(inner(x))
    return inner(x) + 1


assert outer(3) == 7
trace_id = mlflow.get_last_active_trace_id()
mlflow.flush_trace_async_logging()
trace = mlflow.get_trace(trace_id)
assert trace.data.spans[0].name == "outer", trace
assert {span.name for span in trace.data.spans} >= {"outer", "middle"}, trace
assert trace.info.state == "OK"
mlflow.set_trace_tag(trace_id, "kind", "test")
found = mlflow.search_traces(filter_string="tags.kind = 'test'", return_type="list")
assert [one.info.trace_id for one in found] == [trace_id], found
print(json.dumps({"trace": trace_id, "spans": len(trace.data.spans)}))
