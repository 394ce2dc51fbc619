"""Traces that the real MLflow wrote come over with their ids, and its own client reads the same of them from here."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from foreign_python import foreign_python
from modelyard.sdk.imports import import_mlflow
from modelyard.server.run import Server
from running import client_of, running_server

PROGRAM = """
import sys
import mlflow
from mlflow.entities import AssessmentSource

mlflow.set_tracking_uri(sys.argv[1])

@mlflow.trace(name="child", attributes={"k": [1, 2]})
def child(x):
    return {"twice": 2 * x, "text": "sp\\u00e4t"}

@mlflow.trace(span_type="AGENT")
def ask(x):
    if x == 2:
        raise ValueError("no twos")
    mlflow.update_current_trace(metadata={"mlflow.trace.session": f"s{x}"})
    counted = {"input_tokens": x, "output_tokens": 2, "total_tokens": x + 2}
    mlflow.get_current_active_span().set_attribute("mlflow.chat.tokenUsage", counted)
    return child(x)

if sys.argv[2] == "write":
    mlflow.set_experiment("agents")
    with mlflow.start_run():
        for x in range(4):
            try:
                ask(x)
            except ValueError:
                pass
    mlflow.flush_trace_async_logging()
    first = mlflow.search_traces(return_type="list")[0].info.trace_id
    mlflow.set_trace_tag(first, "team", "a")
    mlflow.log_feedback(
        trace_id=first, name="right", value=True, rationale="it is", source=AssessmentSource("HUMAN", "ann")
    )
    mlflow.log_expectation(trace_id=first, name="answer", value={"twice": 6})

experiment = mlflow.get_experiment_by_name("agents").experiment_id
for one in mlflow.search_traces(locations=[experiment], return_type="list"):
    trace = mlflow.get_trace(one.info.trace_id)
    info = trace.info
    tags = {key: value for key, value in info.tags.items() if not key.startswith(("mlflow.artifact", "modelyard."))}
    print("TRACE", info.trace_id, info.request_time, info.execution_duration, info.state, sorted(tags.items()))
    print("DATA", info.request_preview, info.response_preview, sorted(info.trace_metadata),
          info.trace_metadata.get("mlflow.trace.session"), trace.info.token_usage)
    for span in sorted(trace.data.spans, key=lambda span: span.span_id):
        print("SPAN", span.span_id, span.parent_id, span.name, span.span_type, span.status, span.start_time_ns,
              span.end_time_ns, sorted(span.attributes.items(), key=str), [event.name for event in span.events])
    for said in sorted(info.assessments, key=lambda one: one.name):
        print("SAID", said.assessment_id, said.name, said.value, said.rationale, said.source)
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with running_server(tmp_path / "home") as running:
        yield running


@pytest.mark.slow
def test_traces_come_over_and_mlflow_reads_the_same_of_them(server: Server, tmp_path: Path) -> None:
    python = foreign_python("mlflow3")
    (tmp_path / "program.py").write_text(PROGRAM)

    def lines(uri: str, what: str, **more: str) -> list[str]:
        done = subprocess.run(
            [python, tmp_path / "program.py", uri, what], cwd=tmp_path, env={**os.environ, **more},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3_000:]
        wanted = ("TRACE", "DATA", "SPAN", "SAID")
        return [line for line in done.stdout.splitlines() if line.startswith(wanted)]

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    there = lines(uri, "write")
    assert sum(line.startswith("TRACE") for line in there) == 4
    assert sum(line.startswith("SAID") for line in there) == 2
    first = import_mlflow(uri, client=client_of(server))
    assert first.verified, first.problems
    counts = {noun: (count.there, count.here, count.new) for noun, count in first.counts.items()}
    assert (counts["traces"], counts["spans"]) == ((4, 4, 4), (7, 7, 7))
    assert lines(server.url, "read", MLFLOW_TRACKING_TOKEN=server.token) == there
    second = import_mlflow(uri, client=client_of(server))
    assert second.verified, second.problems
    assert (second.counts["traces"].new, second.counts["spans"].new) == (0, 0)
    other = import_mlflow(uri, client=client_of(server, "other"))
    assert other.counts["traces"].here == 4, "ids of traces are a project's own"
