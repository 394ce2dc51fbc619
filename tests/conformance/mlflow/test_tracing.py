"""Tracing by the unmodified MLflow client and by plain OpenTelemetry: what was traced comes back, and can be judged."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from modelyard.server.run import Server
from running import raw_client, running_server

mlflow = pytest.importorskip("mlflow")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("home") / "home") as running:
        yield running


@pytest.fixture
def http(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    """Plain HTTP in the project `traced`, which this process's MLflow writes to as well."""
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", server.token)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    address = f"{server.url}/p/traced"
    mlflow.set_tracking_uri(address)
    with raw_client(server, server.token) as made:
        made.base_url = httpx.URL(address)
        yield made


def test_what_the_client_traces_comes_back(http: httpx.Client) -> None:
    experiment_id = mlflow.set_experiment("traced").experiment_id

    @mlflow.trace(span_type="TOOL", attributes={"depth": 2})
    def look_up(word: str) -> dict[str, object]:
        return {"word": word, "found": [1, 2.5, None, True]}

    @mlflow.trace
    def answer(question: str) -> str:
        look_up("ünïcode")
        return f"to {question}"

    with mlflow.start_run() as run:
        answer("why?")
    with pytest.raises(ZeroDivisionError), mlflow.start_span("fails"):
        1 / 0  # noqa: B018
    mlflow.flush_trace_async_logging()

    traces = mlflow.search_traces(locations=[experiment_id], return_type="list", order_by=["timestamp_ms ASC"])
    assert [(one.info.state.value, len(one.data.spans)) for one in traces] == [("OK", 2), ("ERROR", 1)]
    whole = mlflow.get_trace(traces[0].info.trace_id)
    root, tool = whole.data.spans
    assert (root.name, root.inputs, root.outputs) == ("answer", {"question": "why?"}, "to why?")
    assert (tool.name, tool.span_type, tool.parent_id) == ("look_up", "TOOL", root.span_id)
    assert tool.inputs == {"word": "ünïcode"}
    assert tool.outputs == {"word": "ünïcode", "found": [1, 2.5, None, True]}
    assert tool.get_attribute("depth") == 2
    assert [event.name for event in traces[1].data.spans[0].events] == ["exception"]
    of_run = mlflow.search_traces(locations=[experiment_id], run_id=run.info.run_id, return_type="list")
    assert [one.info.trace_id for one in of_run] == [whole.info.trace_id]
    fails = mlflow.search_traces(locations=[experiment_id], filter_string="span.name = 'fails'", return_type="list")
    assert [one.info.trace_id for one in fails] == [traces[1].info.trace_id]
    file = http.get("/ajax-api/2.0/mlflow/get-trace-artifact", params={"request_id": whole.info.trace_id})
    assert [span["name"] for span in file.json()["spans"]] == ["answer", "look_up"]
    assert "attachment" in file.headers["content-disposition"]


@pytest.mark.usefixtures("http")
def test_a_trace_is_tagged_judged_and_deleted() -> None:
    experiment_id = mlflow.set_experiment("judged").experiment_id
    with mlflow.start_span("one") as span:
        span.set_inputs({"q": 1})
    mlflow.flush_trace_async_logging()
    mlflow.set_trace_tag(span.trace_id, "team", "ops")
    made = mlflow.log_feedback(trace_id=span.trace_id, name="right", value=0.5, rationale="half of it")
    mlflow.log_expectation(trace_id=span.trace_id, name="answer", value={"of": ["life", 42]})
    found = mlflow.get_trace(span.trace_id)
    assert found.info.tags["team"] == "ops"
    assert {one.name: one.value for one in found.info.assessments} == {"right": 0.5, "answer": {"of": ["life", 42]}}
    mlflow.update_assessment(
        trace_id=span.trace_id,
        assessment_id=made.assessment_id,
        assessment=mlflow.entities.Feedback(name="right", value=1.0),
    )
    assert mlflow.get_assessment(span.trace_id, made.assessment_id).value == 1.0
    mlflow.delete_assessment(trace_id=span.trace_id, assessment_id=made.assessment_id)
    assert [one.name for one in mlflow.get_trace(span.trace_id).info.assessments] == ["answer"]
    assert mlflow.MlflowClient().delete_traces(experiment_id, trace_ids=[span.trace_id]) == 1
    assert mlflow.search_traces(locations=[experiment_id], return_type="list") == []


def test_plain_opentelemetry_needs_no_mlflow(http: httpx.Client) -> None:
    span = {
        "traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": "b7ad6b7169203331", "name": "chat",
        "startTimeUnixNano": "1000000000", "endTimeUnixNano": "3000000000", "status": {"code": 1},
        "attributes": [
            {"key": "gen_ai.operation.name", "value": {"stringValue": "chat"}},
            {"key": "gen_ai.usage.input_tokens", "value": {"intValue": "12"}},
        ],
    }  # fmt: skip
    sent = http.post("/v1/traces", json={"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]})
    assert (sent.status_code, sent.text) == (200, "{}")
    found = http.get("/api/3.0/mlflow/traces/tr-0af7651916cd43dd8448eb211c80319c").json()["trace"]["trace_info"]
    assert (found["state"], found["request_time"], found["execution_duration"]) == (
        "OK", "1970-01-01T00:00:01.000Z", "2.000s",
    )  # fmt: skip
    assert '"input_tokens":12' in found["trace_metadata"]["mlflow.trace.tokenUsage"]
    picked = http.post(
        "/api/3.0/mlflow/traces/search",
        json={"locations": [{"mlflow_experiment": {"experiment_id": "0"}}], "filter": "span.type = 'chat'"},
    )
    assert [one["trace_id"] for one in picked.json()["traces"]] == [found["trace_id"]]


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"Content-Type": "text/plain"}, b"x"),
        ({"Content-Type": "application/x-protobuf"}, b""),
        ({"Content-Type": "application/x-protobuf"}, b"\xff" * 40),
        ({"Content-Type": "application/json"}, b"[]"),
        ({"Content-Type": "application/json"}, b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"name": "x"}]}]}]}'),
        ({"Content-Type": "application/json", "Content-Encoding": "gzip"}, b"{}"),
        ({"Content-Type": "application/json", "Content-Encoding": "br"}, b"{}"),
    ],
)
def test_what_is_no_export_is_400(http: httpx.Client, headers: dict[str, str], body: bytes) -> None:
    reply = http.post("/v1/traces", content=body, headers=headers)
    assert reply.status_code == 400, reply.text
    assert reply.json()["error_code"] == "INVALID_PARAMETER_VALUE"
