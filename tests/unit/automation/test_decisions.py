from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from modelyard.kernel.errors import InvalidInput
from modelyard.planes.automation.decisions import Cause, Fire, Suppress, check_templates, decide, fill, judge, matches
from modelyard.types.automation import OnDataset, OnEvent, Promotion, Response, StartPipeline, TriggerSpec
from modelyard.types.registry import ApprovalCount, Comparison, Decision, GateResult

NOW = datetime(2013, 7, 1, tzinfo=UTC)
CAUSE = Cause(
    id="e1",
    kind="alert.raised",
    subject="alert:a1",
    at=NOW,
    data={"monitor": "delay", "kind": "auc", "window": "2013-06", "values": {"auc": 0.7, "sure": True}},
)
SPEC = TriggerSpec(
    name="retrain",
    on=OnEvent(kind="alert.raised", match={"monitor": "delay"}),
    start=StartPipeline(pipeline="train", params={"until": "{event.data.window}"}),
    then=Promotion(),
)


def response(number: int, state: str = "promoted", at: datetime = NOW - timedelta(days=30)) -> Response:
    return Response(
        id=f"r{number}", trigger="retrain", event=f"e{number}", event_kind="alert.raised", event_subject="alert:x",
        event_at=at, state=state, reason="", pipeline="train", created_at=at, updated_at=at,  # type: ignore[arg-type]
    )  # fmt: skip


def test_events_are_matched_by_kind_and_fields() -> None:
    def on(**match: Any) -> OnEvent:
        return OnEvent(kind="alert.raised", match={name.replace("__", "."): one for name, one in match.items()})

    assert matches(on(), CAUSE)
    assert matches(on(monitor="delay", kind=["auc", "calibration"], values__auc=0.7, values__sure=True), CAUSE)
    assert not matches(on(monitor="other"), CAUSE)
    assert not matches(on(kind=["calibration"]), CAUSE)
    assert not matches(on(values__auc__deeper=1), CAUSE)
    assert not matches(on(absent="x"), CAUSE)
    assert not matches(on(values__sure=1), CAUSE), "true is not 1"
    assert not matches(OnEvent(kind="alert.resolved"), CAUSE)


def test_a_dataset_is_matched_by_its_whole_name() -> None:
    cause = replace(CAUSE, kind="dataset.version_published", subject="dataset:flights@7")
    assert matches(OnDataset(dataset="flights"), cause)
    assert not matches(OnDataset(dataset="flight"), cause)
    assert not matches(OnDataset(dataset="flights"), replace(cause, kind="dataset.batch_quarantined"))


def test_it_fires_with_its_params_filled() -> None:
    fired = decide(SPEC, CAUSE, [], NOW)
    assert isinstance(fired, Fire)
    assert fired.params == {"until": "2013-06"}
    assert "alert:a1" in fired.reason


@pytest.mark.parametrize(
    ("spec", "history", "word"),
    [
        (replace(SPEC, enabled=False), [], "switched off"),
        (SPEC, [response(1, "running")], "not over yet"),
        (SPEC, [response(1, "judging")], "not over yet"),
        (replace(SPEC, cooldown_s=3600), [response(1, at=NOW - timedelta(minutes=20))], "2400 s to go"),
        (replace(SPEC, storm_runs_max=2), [response(n, at=NOW - timedelta(hours=n)) for n in (1, 2)], "2 runs"),
        (replace(SPEC, start=StartPipeline(pipeline="train", params={"x": "{event.data.no}"})), [], "'data.no'"),
    ],
)
def test_it_is_suppressed_for_a_reason(spec: TriggerSpec, history: list[Response], word: str) -> None:
    suppressed = decide(spec, CAUSE, history, NOW)
    assert isinstance(suppressed, Suppress)
    assert word in suppressed.reason


def test_what_was_suppressed_counts_for_nothing() -> None:
    spec = replace(SPEC, cooldown_s=3600, storm_runs_max=1)
    assert isinstance(decide(spec, CAUSE, [response(n, "suppressed", NOW) for n in range(9)], NOW), Fire)


def test_what_is_long_past_counts_no_more() -> None:
    spec = replace(SPEC, cooldown_s=3600, storm_runs_max=1)
    assert isinstance(decide(spec, CAUSE, [response(1, at=NOW - timedelta(days=2))], NOW), Fire)


def test_templates_are_looked_up_and_keep_their_type() -> None:
    params = {
        "whole": "{event.data.values}",
        "number": "{event.data.values.auc}",
        "text": "{event.kind} of {event.subject}: {event.data.values.auc}",
        "deep": [{"at": "{event.at}"}],
        "plain": 3,
    }
    assert fill(params, CAUSE) == {
        "whole": {"auc": 0.7, "sure": True},
        "number": 0.7,
        "text": "alert.raised of alert:a1: 0.7",
        "deep": [{"at": "2013-07-01T00:00:00+00:00"}],
        "plain": 3,
    }


def test_what_an_event_holds_is_never_a_template_itself() -> None:
    cause = replace(CAUSE, data={"a": "{event.data.b}", "b": "secret"})
    assert fill({"x": "{event.data.a}", "y": "<{event.data.a}>"}, cause) == {
        "x": "{event.data.b}",
        "y": "<{event.data.b}>",
    }


@pytest.mark.parametrize(
    "template",
    ["{}", "{x}", "{event}", "{event.}", "{event.actor}", "{event.kind.x}", "{event.data.__class__ }",
     "{event.data[0]}", "{event.data.a!r}", "{event.data.a:>9}", "{__import__('os')}"],
)  # fmt: skip
def test_other_templates_are_refused_when_the_trigger_is_made(template: str) -> None:
    with pytest.raises(InvalidInput, match="names no field"):
        check_templates({"deep": [{"x": f"a {template}"}]})


@settings(deadline=None)
@given(st.text(max_size=40))
def test_a_template_reads_plain_data_or_is_refused(text: str) -> None:
    try:
        filled = fill({"x": "{event.data." + text + "}"}, replace(CAUSE, data={"a": 1}))["x"]
    except InvalidInput:
        return
    assert filled in (1, "{event.data." + text + "}") or isinstance(filled, str)


# --- the verdict ------------------------------------------------------------------------------------------------

PASSED = GateResult(name="champion", status="passed", reason="better")
BETTER = Comparison(
    metric="auc",
    verdict="measured",
    rows=9_000,
    champion=0.73,
    challenger=0.76,
    difference=0.03,
    lower=0.02,
    upper=0.04,
)
YES = Decision(
    model="delay", version=4, alias="champion", guarded=True, promotable=True, reasons=[], gates=[PASSED],
    approvals=ApprovalCount(required=0, by=[], refused=[]), comparison=BETTER, champion=3, at=NOW,
)  # fmt: skip
NEEDS_ONE = replace(YES, promotable=False, approvals=ApprovalCount(required=1, by=[], refused=[]))


def action(
    decision: Decision, policy: Promotion | None = None, automation_counts: bool = True, champion: int | None = 3
) -> str:
    return judge(policy or Promotion(), decision, champion, automation_counts).action


def test_a_better_challenger_is_promoted_and_says_by_how_much() -> None:
    verdict = judge(Promotion(), YES, 3, True)
    assert verdict.action == "promote"
    assert "0.0300" in verdict.reason
    assert "9,000 rows" in verdict.reason


@pytest.mark.parametrize("status", ["failed", "missing"])
def test_a_gate_that_failed_or_lacks_evidence_drops(status: str) -> None:
    gate = GateResult(name="floor", status=status, reason="AUC 0.61 is under 0.65")  # type: ignore[arg-type]
    verdict = judge(Promotion(), replace(YES, gates=[PASSED, gate], promotable=False), 3, True)
    assert verdict.action == "drop"
    assert verdict.reason == "floor: AUC 0.61 is under 0.65"


@pytest.mark.parametrize("comparison", [None, replace(BETTER, lower=None), replace(BETTER, lower=0.0)])
def test_a_tie_or_no_comparison_is_no_promotion(comparison: Comparison | None) -> None:
    assert action(replace(YES, comparison=comparison)) == "drop"
    first = replace(YES, comparison=comparison, champion=None)
    assert action(first, champion=None) == "promote", "there is nobody to be better than"
    assert action(first) == "drop", "there is somebody, whom the policy does not look at"


def test_being_better_than_another_than_the_champion_is_no_promotion() -> None:
    assert action(YES, champion=2) == "drop"


def test_without_gates_a_person_decides() -> None:
    assert action(replace(YES, guarded=False, gates=[])) == "wait"


def test_the_champion_itself_is_left_alone() -> None:
    # A retraining whose steps were all cached gives the version that serves already: dropping it would drop production.
    assert action(replace(YES, version=3, promotable=False, comparison=None)) == "keep"


def test_approvals() -> None:
    assert action(NEEDS_ONE) == "approve"
    assert action(NEEDS_ONE, Promotion(approve=False)) == "wait"
    assert action(NEEDS_ONE, automation_counts=False) == "wait"
    two = replace(NEEDS_ONE, approvals=ApprovalCount(required=2, by=[], refused=[]))
    assert action(two) == "wait", "one more would not be enough"
    assert action(replace(two, approvals=ApprovalCount(required=2, by=["ada"], refused=[]))) == "approve"


gates = st.lists(
    st.builds(
        GateResult, name=st.just("g"), status=st.sampled_from(["passed", "failed", "missing"]), reason=st.just("r")
    ),
    max_size=4,
)
decisions = st.builds(
    Decision,
    model=st.just("delay"),
    version=st.integers(1, 4),
    alias=st.just("champion"),
    guarded=st.booleans(),
    promotable=st.booleans(),
    reasons=st.just([]),
    gates=gates,
    approvals=st.builds(
        ApprovalCount, required=st.integers(0, 3), by=st.lists(st.just("ada"), max_size=3), refused=st.just([])
    ),
    comparison=st.one_of(
        st.none(), st.floats(-0.1, 0.1).map(lambda lower: replace(BETTER, lower=lower, difference=lower + 0.01))
    ),
    champion=st.one_of(st.none(), st.integers(1, 4)),
    at=st.just(NOW),
)


@settings(deadline=None, max_examples=300)
@given(decisions, st.one_of(st.none(), st.integers(1, 4)), st.booleans(), st.booleans())
def test_no_promotion_on_doubt(
    decision: Decision, champion: int | None, approve: bool, automation_counts: bool
) -> None:
    verdict = judge(Promotion(approve=approve), decision, champion, automation_counts)
    if verdict.action == "promote":
        assert decision.guarded
        assert decision.promotable
        assert decision.approvals.enough
        assert all(gate.status == "passed" for gate in decision.gates)
        if champion is not None:
            assert decision.champion == champion
            assert decision.comparison is not None
            assert (decision.comparison.lower or 0.0) > 0
    if verdict.action == "drop":
        assert decision.version != champion
