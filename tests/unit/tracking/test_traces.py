"""Traces: written from two sides, found by what they are, what their spans are and what people say of them."""

from __future__ import annotations

from typing import Any

import pytest

from modelyard.kernel.auth import Scope
from modelyard.kernel.errors import InvalidInput, NotFound
from modelyard.planes.tracking import Tracking
from modelyard.types.tracing import (
    Assessment,
    AssessmentKind,
    CreateAssessment,
    Span,
    Trace,
    TraceState,
    UpdateAssessment,
)
from modelyard.types.tracking import CreateExperiment, CreateRun

MS = 1_000_000


def span(name: str = "call", number: int = 1, parent: int | None = None, **more: Any) -> Span:
    known: dict[str, Any] = {"start_ns": 2_000 * MS, "end_ns": 5_000 * MS, "status": "OK", **more}
    return Span(trace_id=f"{7:032x}", id=f"{number:016x}", name=name, parent_id=parent and f"{parent:016x}", **known)


def trace(trace_id: str, state: TraceState = "OK", **more: Any) -> Trace:
    return Trace(id=trace_id, experiment_id="0", **{"request_ms": 1_000, "duration_ms": 50, "state": state, **more})


def found(tracking: Tracking, scope: Scope, filter: str = "", *order_by: str) -> list[str]:
    return [one.id for one in tracking.traces.search(scope, ["0"], filter, order_by).items]


def test_what_is_said_of_the_whole_counts_before_what_spans_add_up_to(tracking: Tracking, scope: Scope) -> None:
    usage = {"mlflow.chat.tokenUsage": {"input_tokens": 3, "output_tokens": 4}}
    tracking.traces.start(scope, trace("first", metadata={"mlflow.trace.tokenUsage": '{"input_tokens": 1}'}))
    for trace_id in ("first", "second"):
        tracking.spans.log(scope, "0", {trace_id: [span(attributes=usage), span("child", 2, 1, attributes=usage)]})
    told, added = tracking.traces.get(scope, "first"), tracking.traces.get(scope, "second")
    assert (told.request_ms, told.duration_ms, told.metadata["mlflow.trace.tokenUsage"]) == (
        1_000, 50, '{"input_tokens": 1}',
    )  # fmt: skip
    assert (added.request_ms, added.duration_ms, added.state) == (2_000, 3_000, "OK")
    assert added.metadata["mlflow.trace.tokenUsage"] == '{"input_tokens":6,"output_tokens":8}'


def test_spans_first_and_the_whole_later_keeps_both(tracking: Tracking, scope: Scope) -> None:
    tracking.spans.log(
        scope, "0", {"t": [span(attributes={"mlflow.spanInputs": {"q": 1}, "mlflow.spanOutputs": "fine"})]}
    )
    started = tracking.traces.start(scope, trace("t", tags={"team": "ops"}))
    assert started == tracking.traces.get(scope, "t")
    assert (started.request_preview, started.response_preview) == ('{"q":1}', "fine")
    assert started.tags["team"] == "ops"
    assert started.tags["mlflow.trace.spansLocation"] == "TRACKING_STORE"
    assert started.tags["mlflow.artifactLocation"] == "mlflow-artifacts:/0/traces/t/artifacts"


def test_a_span_sent_twice_counts_once(tracking: Tracking, scope: Scope) -> None:
    for tokens in (5, 9):
        one = span(attributes={"gen_ai.usage.input_tokens": tokens})
        tracking.spans.log(scope, "0", {"t": [one]})
    assert tracking.traces.get(scope, "t").metadata["mlflow.trace.tokenUsage"] == '{"input_tokens":9,"total_tokens":9}'
    assert tracking.spans.of(scope, ["t"])["t"] == [one]


def test_a_trace_without_its_root_goes_on_until_the_root_comes(tracking: Tracking, scope: Scope) -> None:
    tracking.spans.log(scope, "0", {"t": [span("child", 2, 1)]})
    assert tracking.traces.get(scope, "t").state == "IN_PROGRESS"
    tracking.spans.log(scope, "0", {"t": [span("root", 1, status="ERROR", start_ns=1_000 * MS)]})
    whole = tracking.traces.get(scope, "t")
    assert (whole.state, whole.request_ms, whole.duration_ms) == ("ERROR", 1_000, 4_000)
    assert [one.name for one in tracking.spans.of(scope, ["t"])["t"]] == ["root", "child"]


def test_spans_are_logged_all_or_none(tracking: Tracking, scope: Scope) -> None:
    with pytest.raises(InvalidInput):
        tracking.spans.log(scope, "0", {"good": [span()], "bad": [span(start_ns=2**63)]})
    with pytest.raises(NotFound):
        tracking.spans.log(scope, "77", {"good": [span()]})
    assert tracking.traces.several(scope, ["good", "bad"]) == []


@pytest.fixture
def many(tracking: Tracking, scope: Scope) -> None:
    """Three traces."""
    run = tracking.runs.create(scope, CreateRun(name="r"))
    tracking.traces.start(
        scope, trace("a", tags={"mlflow.traceName": "Answer", "env": "prod"}, client_request_id="C-1", duration_ms=None)
    )
    tracking.traces.start(
        scope, trace("b", "ERROR", request_ms=2_000, tags={"mlflow.traceName": "answer_2", "env": "dev"})
    )
    tracking.traces.start(scope, trace("c", request_ms=3_000, duration_ms=9, metadata={"mlflow.sourceRun": run.id}))
    tracking.traces.link_to_run(scope, ["b", "late"], run.id)
    tracking.traces.link_prompts(scope, "a", [("greeting", "1")])
    tracking.spans.log(
        scope,
        "0",
        {
            "a": [
                span("load", 1, attributes={"mlflow.spanType": "TOOL", "llm.model": "gpt-4", "t": 0.7}),
                span("ask", 2, 1, status="ERROR", attributes={"note": "it's 90% sure"}),
            ],
            "b": [span("ask", 1, status="OK", attributes={"llm.model": "claude"})],
        },
    )
    for trace_id, value in (("a", True), ("b", "so so")):
        tracking.assessments.create(scope, trace_id, CreateAssessment(name="good", kind="feedback", value=value))


FILTERS: list[tuple[str, list[str]]] = [
    ("", ["c", "b", "a"]),
    ("status = 'OK'", ["c", "a"]),
    ("trace.status IN ('ERROR', 'IN_PROGRESS')", ["b"]),
    ("timestamp_ms >= 2000 AND execution_time < 50", ["c"]),
    ("attributes.end_time <= 2050", ["b", "a"]),
    ("name = 'Answer'", ["a"]),
    ("name LIKE 'Answer%'", ["a"]),
    ("name ILIKE 'ANSWER%'", ["b", "a"]),
    ("name RLIKE '^answer_[0-9]$'", ["b"]),
    ('client_request_id = "C-1"', ["a"]),
    ("client_request_id RLIKE 'C'", ["a"]),
    ("tags.env != 'prod'", ["b"]),
    ("tag.env IS NULL", ["c"]),
    ("metadata.`mlflow.sourceRun` IS NOT NULL", ["c"]),
    ("prompt = 'greeting/1'", ["a"]),
    ("span.name = 'ask'", ["b", "a"]),
    ("span.name = 'ask' AND span.status = 'ERROR'", ["a"]),
    ("span.name = 'load' AND span.status = 'ERROR'", []),
    ("span.name RLIKE '^a' AND span.status = 'ERROR'", ["a"]),
    ("span.name RLIKE '^l' AND span.status = 'ERROR'", []),
    ("span.type IN ('TOOL')", ["a"]),
    ("span.attributes.llm.model LIKE '%gpt%'", ["a"]),
    ("span.attributes.`llm.model` = 'claude'", ["b"]),
    ("span.attributes.t = '0.7'", ["a"]),
    ("span.attributes.absent != 'x'", []),
    ('text LIKE "%it\'s 90% sure%"', ["a"]),
    ("feedback.good = 'true'", ["a"]),
    ("feedback.good LIKE 'so%'", ["b"]),
    ("feedback.good RLIKE 'so$'", ["b"]),
    ("feedback.good IS NULL", ["c"]),
    ("expectation.good IS NOT NULL", []),
]


@pytest.mark.usefixtures("many")
def test_filters(tracking: Tracking, scope: Scope) -> None:
    # In one test, since making a catalog costs more than all of them.
    assert [(filter, found(tracking, scope, filter)) for filter, _ in FILTERS] == FILTERS


@pytest.mark.usefixtures("many")
def test_orders_put_what_is_missing_last_both_ways(tracking: Tracking, scope: Scope) -> None:
    assert found(tracking, scope, "", "execution_time ASC") == ["c", "b", "a"]
    assert found(tracking, scope, "", "execution_time DESC") == ["b", "c", "a"]
    assert found(tracking, scope, "", "tag.env") == ["b", "a", "c"]
    assert found(tracking, scope, "", "name DESC", "timestamp") == ["b", "a", "c"]


@pytest.mark.usefixtures("many")
def test_a_run_has_the_traces_that_it_made_and_those_tied_to_it(tracking: Tracking, scope: Scope) -> None:
    run_id = tracking.traces.get(scope, "c").metadata["mlflow.sourceRun"]
    assert found(tracking, scope, f"run_id = '{run_id}'") == ["c", "b"]
    # A trace may be tied before it arrives.
    tracking.traces.start(scope, trace("late"))
    assert found(tracking, scope, f"attributes.run_id = '{run_id}'") == ["c", "b", "late"]


@pytest.mark.usefixtures("many")
def test_pages_have_no_gap_and_an_end(tracking: Tracking, scope: Scope) -> None:
    for filter in ("", "span.name RLIKE '' AND timestamp > 0"):
        seen, page, every = [], None, found(tracking, scope, filter)
        while True:
            one = tracking.traces.search(scope, ["0"], filter, (), 1, page)
            seen += [found.id for found in one.items]
            page = one.next
            if page is None:
                break
        assert seen == every


REFUSED = [
    "invalid", "nope = 'x'", "foo.bar = 'x'", "status < 'OK'", "name IN ('a')", "span.duration = '1'",
    "span.content = 'x'", "issue.title = 'x'", "status IS NULL", "timestamp = 'x'", "name = 3", "prompt = 'a'",
    "prompt LIKE 'a/1'", "status = 'OK' OR status = 'ERROR'", "name RLIKE '('", "name RLIKE '(a)\\1'",
]  # fmt: skip


def test_what_a_filter_cannot_say_is_refused(tracking: Tracking, scope: Scope) -> None:
    tracking.traces.start(scope, trace("a", tags={"mlflow.traceName": "x"}))
    for filter in REFUSED:
        with pytest.raises(InvalidInput):
            found(tracking, scope, filter)


def test_tags_change_and_are_cut_like_those_of_runs(tracking: Tracking, scope: Scope) -> None:
    tracking.traces.start(scope, trace("t"))
    tracking.traces.set_tag(scope, "t", "k", "v" * 9_000)
    assert len(tracking.traces.get(scope, "t").tags["k"]) == 8_000
    tracking.traces.delete_tag(scope, "t", "k")
    with pytest.raises(NotFound):
        tracking.traces.delete_tag(scope, "t", "k")
    with pytest.raises(NotFound):
        tracking.traces.set_tag(scope, "none", "k", "v")


@pytest.mark.usefixtures("many")
def test_deleting_takes_all_that_belongs_to_a_trace(tracking: Tracking, scope: Scope) -> None:
    assert tracking.traces.delete(scope, "0", until_ms=2_000, at_most=1) == 1
    assert found(tracking, scope) == ["c", "b"]
    assert tracking.spans.of(scope, ["a"]) == {}
    assert tracking.traces.delete(scope, "0", trace_ids=["b", "unknown"]) == 1
    tracking.traces.start(scope, trace("b"))
    assert tracking.traces.get(scope, "b").assessments == []


@pytest.mark.usefixtures("many")
def test_another_project_sees_nothing(tracking: Tracking, scope: Scope) -> None:
    other = Scope("other", scope.principal)
    assert tracking.traces.search(other, ["0"]).items == []
    with pytest.raises(NotFound):
        tracking.traces.get(other, "a")
    tracking.traces.start(other, trace("a"))
    assert tracking.traces.get(other, "a").tags.keys() == {"mlflow.artifactLocation"}


def test_a_deleted_experiment_takes_no_traces(tracking: Tracking, scope: Scope) -> None:
    made = tracking.experiments.create(scope, CreateExperiment(name="gone"))
    tracking.experiments.delete(scope, made.id)
    with pytest.raises(InvalidInput):
        tracking.traces.start(scope, Trace(id="t", experiment_id=made.id, request_ms=0))
    with pytest.raises(InvalidInput):
        tracking.spans.log(scope, made.id, {"t": [span()]})


def test_an_assessment_overrides_another_until_it_is_deleted(tracking: Tracking, scope: Scope) -> None:
    tracking.traces.start(scope, trace("t"))
    first = tracking.assessments.create(scope, "t", CreateAssessment(name="good", kind="feedback", value="no"))
    second = tracking.assessments.create(
        scope, "t", CreateAssessment(name="good", kind="feedback", value="yes", overrides=first.id)
    )
    assert not tracking.assessments.get(scope, "t", first.id).valid
    assert found(tracking, scope, "feedback.good = 'no'") == []
    tracking.assessments.delete(scope, "t", second.id)
    tracking.assessments.delete(scope, "t", second.id)
    assert tracking.assessments.get(scope, "t", first.id).valid
    with pytest.raises(NotFound):
        tracking.assessments.create(
            scope, "t", CreateAssessment(name="good", kind="feedback", value="?", overrides="a-none")
        )
    assert [one.id for one in tracking.traces.get(scope, "t").assessments] == [first.id]


@pytest.mark.parametrize("kind", ["feedback", "expectation"])
def test_an_assessment_keeps_its_kind(tracking: Tracking, scope: Scope, kind: AssessmentKind) -> None:
    tracking.traces.start(scope, trace("t"))
    made = tracking.assessments.create(
        scope, "t", CreateAssessment(name="n", kind=kind, value={"a": [1, None]}, metadata={"x": "1", "y": "1"})
    )
    changed = tracking.assessments.update(
        scope, "t", made.id, UpdateAssessment(kind=kind, value=2.5, metadata={"y": "2"}, rationale="why")
    )
    assert (changed.value, changed.metadata, changed.rationale) == (2.5, {"x": "1", "y": "2"}, "why")
    assert changed.updated_ms > made.updated_ms
    assert tracking.assessments.get(scope, "t", made.id) == changed
    other: AssessmentKind = "expectation" if kind == "feedback" else "feedback"
    with pytest.raises(InvalidInput):
        tracking.assessments.update(scope, "t", made.id, UpdateAssessment(kind=other, value=1))
    with pytest.raises(NotFound):
        tracking.assessments.update(scope, "none", made.id, UpdateAssessment(name="x"))


def test_what_is_said_of_one_trace_of_a_session_for_the_session_counts_for_all_of_it(
    tracking: Tracking, scope: Scope
) -> None:
    session = {"mlflow.trace.session": "s"}
    said = Assessment(
        id="a-1",
        trace_id="a",
        name="polite",
        kind="feedback",
        value="yes",
        created_ms=1,
        updated_ms=1,
        metadata=session,
    )
    tracking.traces.start(scope, trace("a", metadata=session, assessments=[said]))
    tracking.traces.start(scope, trace("b", metadata=session))
    tracking.traces.start(scope, trace("c"))
    assert found(tracking, scope, "feedback.polite = 'yes'") == ["a", "b"]
    assert found(tracking, scope, "feedback.polite IS NULL") == ["c"]


def test_counts_of_two_filters(tracking: Tracking, scope: Scope, many: None) -> None:
    counts = tracking.traces.counts(scope, ["0"], "span.name = 'ask'", "status = 'OK'")
    assert (counts.first, counts.second, counts.both, counts.total) == (2, 2, 1, 3)
    counts = tracking.traces.counts(scope, ["0"], "span.name = 'ask'", "status = 'OK'", "tags.env RLIKE 'prod'")
    assert (counts.first, counts.second, counts.both, counts.total) == (1, 1, 1, 1)
