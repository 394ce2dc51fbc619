"""Spans as MLflow's releases wrote them: all are the same spans here, and what is none is left out with its reason."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from modelyard.sdk.imports.mlflow_sqlite import MlflowSqlite
from modelyard.sdk.imports.mlflow_traces import span_of

NEW = {
    "trace_id": "AYFkSUpQevinGrx0oibLrQ==", "span_id": "cX5IpiK0Hrg=", "parent_span_id": "Geqh8RFCzk4=", "name": "ask",
    "start_time_unix_nano": 5, "end_time_unix_nano": 9, "status": {"code": "STATUS_CODE_ERROR", "message": "no"},
    "attributes": {"mlflow.spanType": '"AGENT"', "k": "[1, 2]", "plain": "not json"},
    "events": [{"name": "exception", "time_unix_nano": 7, "attributes": {"exception.message": "no"}}],
}  # fmt: skip
OLD = {
    "name": "ask", "context": {"trace_id": "0x018164494a507af8a71abc74a226cbad", "span_id": "0x717e48a622b41eb8"},
    "parent_id": "0x19eaa1f11142ce4e", "start_time": 5, "end_time": 9, "status_code": "ERROR", "status_message": "no",
    "attributes": NEW["attributes"],
    "events": [{"name": "exception", "timestamp": 7, "attributes": {"exception.message": "no"}}],
}  # fmt: skip


def test_both_forms_are_the_same_span() -> None:
    span = span_of(NEW)
    assert span_of(OLD) == span
    assert span_of({**NEW, "trace_id": "tr-018164494a507af8a71abc74a226cbad", "span_id": "717e48a622b41eb8"}) == span
    assert (span.id, span.parent_id, span.status) == ("717e48a622b41eb8", "19eaa1f11142ce4e", "ERROR")
    assert span.attributes == {"mlflow.spanType": "AGENT", "k": [1, 2], "plain": "not json"}
    assert span_of({**NEW, "parent_span_id": None}).parent_id is None


@pytest.mark.parametrize("change", [{"span_id": "?"}, {"name": 3}, {"start_time_unix_nano": "x"}, {"status": None}])
def test_what_is_no_span_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        span_of({**NEW, **change})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "mlflow.db"
    with sqlite3.connect(file) as db:
        for table in ("experiments (experiment_id)", "runs (run_uuid)", "metrics (key)"):
            db.execute(f"CREATE TABLE {table}")
        db.execute(
            "CREATE TABLE trace_info (request_id, experiment_id INTEGER, timestamp_ms, execution_time_ms, status)"
        )
        db.execute("CREATE TABLE trace_tags (key, value, request_id)")
        db.execute("CREATE TABLE spans (trace_id, span_id, content)")
        db.executemany(
            "INSERT INTO trace_info VALUES (?, 1, ?, 4, ?)", [("tr-1", 10, "OK"), ("tr-2", 20, "?"), ("tr-3", 30, "OK")]
        )
        folder = tmp_path / "traces" / "tr-2"
        folder.mkdir(parents=True)
        (folder / "traces.json").write_text(json.dumps({"spans": [OLD]}))
        db.executemany(
            "INSERT INTO trace_tags VALUES ('mlflow.artifactLocation', ?, ?)",
            [(str(folder), "tr-2"), (str(tmp_path / "gone"), "tr-3")],
        )
        db.executemany(
            "INSERT INTO spans VALUES ('tr-1', ?, ?)", [("a", json.dumps(NEW)), ("b", "{}"), ("c", "not json")]
        )
    return file


def test_spans_of_rows_and_of_files_are_read_and_others_are_told(file: Path) -> None:
    source = MlflowSqlite(file)
    first, second, third = source.traces("1")
    assert (first.spans, len(first.notes)) == ([span_of(NEW)], 2)
    assert (second.spans, second.notes, second.trace.state) == ([span_of(OLD)], (), "STATE_UNSPECIFIED")
    assert third.spans == []
    assert "its spans" in third.notes[0]
    assert second.trace.tags == {}
    source.close()
