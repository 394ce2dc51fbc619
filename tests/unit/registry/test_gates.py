"""Gates let through what is proven, and nothing else."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.planes.registry.gates import (
    Champion,
    Evidence,
    VersionFacts,
    count_approvals,
    judge,
    unmet,
)
from modelyard.types.registry import (
    Approval,
    ApprovalRule,
    ChampionGate,
    Comparison,
    Evaluation,
    GateResult,
    Latency,
    LatencyGate,
    MetricGate,
    Policy,
    ProvenanceGate,
    Scores,
    SliceGate,
    SliceScores,
)

NOW = datetime(2026, 3, 1, tzinfo=UTC)
DIGEST = "sha256:aa"
ANN = frozenset({"ann"})
FACTS = VersionFacts(
    model="delay",
    version=2,
    digest=DIGEST,
    has_signature=True,
    format="safe",
    size_bytes=1000,
    run="r1",
    data=("dataset:flights@3",),
    data_checks={"dataset:flights@3": "passed"},
)


def scores(auc: float | None = 0.7, rows: int = 1000, **more: object) -> Scores:
    verdict = "measured" if auc is not None else "not enough data"
    return Scores(rows=rows, positives=rows // 2, verdict=verdict, auc=auc, **more)


def evaluation(overall: Scores | None = None, slices: list[SliceScores] | None = None, **more: object) -> Evaluation:
    made = Evaluation(
        id="e2",
        model="delay",
        version=2,
        version_digest=DIGEST,
        dataset="dataset:held_out@1",
        at=NOW - timedelta(days=1),
        by="ann",
        threshold=0.5,
        overall=overall or scores(),
        slices=slices or [],
        rows_digest="sha256:rows",
        labels_digest="l",
    )
    return msgspec.structs.replace(made, **more)


def latency(p95_ms: float = 5.0, **more: object) -> Latency:
    made = Latency(
        id="l1", model="delay", version=2, version_digest=DIGEST, at=NOW, by="ann",
        p50_ms=1.0, p95_ms=p95_ms, requests=500, measured_on="laptop",
    )  # fmt: skip
    return msgspec.structs.replace(made, **more)


def compared(lower: float | None = 0.01, difference: float | None = 0.02, upper: float | None = 0.03) -> Comparison:
    return Comparison(
        metric="auc", verdict="measured", method="DeLong", rows=1000,
        champion=0.7, challenger=0.72, difference=difference, lower=lower, upper=upper, p_value=0.01,
    )  # fmt: skip


def one(policy: Policy, facts: VersionFacts = FACTS, evidence: Evidence | None = None, champion=None) -> GateResult:
    results = judge(policy, facts, evidence or Evidence(evaluation(), latency()), champion, NOW)
    assert len(results) == 1
    assert results[0].reason
    return results[0]


AUC_FLOOR = Policy(metrics=[MetricGate(metric="auc", min=0.65)])


@pytest.mark.parametrize(
    ("measured", "status"),
    [
        (evaluation(scores(0.7)), "passed"),
        (evaluation(scores(0.65)), "passed"),
        (evaluation(scores(0.6499)), "failed"),
        (evaluation(scores(math.nan)), "missing"),
        (evaluation(scores(None)), "missing"),
        (evaluation(version_digest="sha256:other"), "missing"),
        (None, "missing"),
    ],
)
def test_a_metric_floor(measured: Evaluation | None, status: str) -> None:
    assert one(AUC_FLOOR, evidence=Evidence(measured)).status == status


def test_a_metric_ceiling_and_too_few_rows() -> None:
    policy = Policy(metrics=[MetricGate(metric="log_loss", max=0.5)])
    assert one(policy, evidence=Evidence(evaluation(scores(log_loss=0.5)))).status == "passed"
    assert one(policy, evidence=Evidence(evaluation(scores(log_loss=0.51)))).status == "failed"
    few = Policy(metrics=[MetricGate(metric="auc", min=0.5, min_rows=2000)])
    assert one(few).status == "missing"


@pytest.mark.parametrize(
    ("wanted", "found", "status"),
    [
        ("dataset:held_out", "dataset:held_out@1", "passed"),
        ("dataset:held_out@1", "dataset:held_out@1", "passed"),
        ("dataset:held_out@2", "dataset:held_out@1", "missing"),
        ("dataset:held", "dataset:held_out@1", "missing"),
        ("dataset:held_out", "", "missing"),
    ],
)
def test_only_the_policys_dataset_counts(wanted: str, found: str, status: str) -> None:
    policy = msgspec.structs.replace(AUC_FLOOR, dataset=wanted)
    assert one(policy, evidence=Evidence(evaluation(dataset=found))).status == status


def test_old_evidence_is_no_evidence() -> None:
    policy = msgspec.structs.replace(AUC_FLOOR, evidence_valid_days=7.0)
    assert one(policy).status == "passed"
    assert one(policy, evidence=Evidence(evaluation(at=NOW - timedelta(days=8)))).status == "missing"


def cut(value: str, auc: float | None, rows: int = 500) -> SliceScores:
    return SliceScores(column="carrier", value=value, scores=scores(auc, rows))


@pytest.mark.parametrize(
    ("slices", "status", "word"),
    [
        ([cut("UA", 0.69), cut("B6", 0.66)], "passed", "carrier=B6"),
        ([cut("UA", 0.69), cut("HA", 0.5)], "failed", "carrier=HA"),
        ([cut("UA", 0.69), cut("HA", 0.5, rows=199)], "passed", "too small"),
        ([cut("UA", 0.69), cut("HA", None)], "passed", "one class"),
        ([cut("HA", 0.9, rows=10)], "missing", "no slice"),
        ([], "missing", "no slices by carrier"),
        ([cut("UA", 0.61)], "failed", "below 0.62"),
        ([cut("UA", 0.63)], "failed", "more than 0.05"),
    ],
)
def test_slices(slices: list[SliceScores], status: str, word: str) -> None:
    policy = Policy(slices=[SliceGate(columns=["carrier"], limit=0.62, max_gap=0.05)])
    found = one(policy, evidence=Evidence(evaluation(slices=slices)))
    assert found.status == status
    assert word in found.reason


BETTER = Policy(champion=ChampionGate(margin=0.0))


@pytest.mark.parametrize(
    ("champion", "status", "word"),
    [
        (None, "passed", "no version is champion"),
        (Champion(2), "passed", "already"),
        (Champion(1, compared(), "e1", True), "passed", "+0.02"),
        (Champion(1, compared(lower=0.0), "e1", True), "failed", "must exceed"),
        (Champion(1, compared(lower=-0.01), "e1", True), "failed", "must exceed"),
        (Champion(1, compared(lower=math.nan), "e1", True), "missing", "no number"),
        (Champion(1, compared(lower=None), "e1", True), "missing", "no number"),
        (Champion(1, None, "", False), "missing", "has not been evaluated"),
        (Champion(1, None, "", True), "missing", "other rows"),
        (
            Champion(1, Comparison(metric="auc", verdict="not enough data", reason="12 rows"), "e1", True),
            "missing",
            "12 rows",
        ),
    ],
)
def test_better_than_champion(champion: Champion | None, status: str, word: str) -> None:
    found = one(BETTER, champion=champion)
    assert found.status == status
    assert word in found.reason


def test_equal_to_the_champion_is_not_better() -> None:
    tie = compared(lower=0.0, difference=0.0, upper=0.0)
    assert one(BETTER, champion=Champion(1, tie, "e1", True)).status == "failed"


@pytest.mark.parametrize(
    ("measured", "status"),
    [
        (latency(20.0), "passed"),
        (latency(20.01), "failed"),
        (latency(math.inf), "failed"),
        (latency(math.nan), "failed"),
        (latency(1.0, version_digest="sha256:other"), "missing"),
        (None, "missing"),
    ],
)
def test_latency(measured: Latency | None, status: str) -> None:
    assert one(Policy(latency=LatencyGate(p95_ms=20.0)), evidence=Evidence(None, measured)).status == status


@pytest.mark.parametrize(
    ("policy", "change", "status"),
    [
        (Policy(signature=True), {}, "passed"),
        (Policy(signature=True), {"has_signature": False}, "missing"),
        (Policy(safe_format=True), {}, "passed"),
        (Policy(safe_format=True), {"format": "unsafe"}, "failed"),
        (Policy(safe_format=True), {"format": "unknown"}, "missing"),
        (Policy(safe_format=True), {"format": "unsafe", "trusted": True}, "passed"),
        (Policy(size_bytes_max=1000), {}, "passed"),
        (Policy(size_bytes_max=999), {}, "failed"),
        (Policy(size_bytes_max=999), {"digest": "", "size_bytes": 0}, "missing"),
        (Policy(provenance=ProvenanceGate()), {}, "passed"),
        (Policy(provenance=ProvenanceGate()), {"run": ""}, "missing"),
        (Policy(provenance=ProvenanceGate()), {"digest": ""}, "missing"),
        (Policy(provenance=ProvenanceGate(data=True)), {"data": ()}, "missing"),
        (Policy(data_checks=True), {}, "passed"),
        (Policy(data_checks=True), {"data": ()}, "missing"),
        (Policy(data_checks=True), {"data_checks": {}}, "missing"),
        (Policy(data_checks=True), {"data_checks": {"dataset:flights@3": "failed"}}, "failed"),
        (Policy(data_checks=True), {"data_checks": {"dataset:flights@3": "unknown"}}, "missing"),
    ],
)
def test_facts_of_the_version(policy: Policy, change: dict[str, object], status: str) -> None:
    facts = VersionFacts(**{**FACTS.__dict__, **change})
    assert one(policy, facts).status == status


numbers = st.none() | st.floats(allow_nan=True, allow_infinity=True)
full_policy = Policy(
    metrics=[MetricGate(metric="auc", min=0.65), MetricGate(metric="log_loss", max=0.6)],
    slices=[SliceGate(columns=["carrier"], limit=0.6)],
    champion=ChampionGate(),
    latency=LatencyGate(p95_ms=20.0),
    signature=True,
    safe_format=True,
    provenance=ProvenanceGate(data=True),
    data_checks=True,
    size_bytes_max=10_000,
)


@settings(deadline=None)
@given(auc=numbers, log_loss=numbers, slice_auc=numbers, lower=numbers, p95=numbers, blank=st.sets(st.integers(0, 4)))
def test_doubt_never_promotes(auc, log_loss, slice_auc, lower, p95, blank) -> None:
    """Whatever the numbers are: promotable only if each gate was met by a real number of the right side."""
    overall = Scores(rows=900, positives=400, verdict="measured", auc=auc, log_loss=log_loss)
    measured = evaluation(overall, [cut("UA", slice_auc)])
    evidence = Evidence(
        None if 0 in blank else measured,
        None if 1 in blank or p95 is None else latency(p95),
    )
    champion = Champion(1, None if 2 in blank else compared(lower=lower), "e1", True)
    facts = FACTS if 3 not in blank else VersionFacts(**{**FACTS.__dict__, "digest": ""})
    gates = judge(full_policy, facts, evidence, champion, NOW)
    promotable = not unmet(full_policy, gates, count_approvals(ApprovalRule(), ANN, DIGEST, [], frozenset(), NOW))
    proven = (
        not blank & {0, 1, 2, 3}
        and auc is not None and math.isfinite(auc) and auc >= 0.65
        and log_loss is not None and math.isfinite(log_loss) and log_loss <= 0.6
        and slice_auc is not None and math.isfinite(slice_auc) and slice_auc >= 0.6
        and lower is not None and math.isfinite(lower) and lower > 0
        and p95 is not None and p95 <= 20.0
    )  # fmt: skip
    assert promotable == proven
    assert all(gate.reason for gate in gates)


def approval(by: str, **more: object) -> Approval:
    made = Approval(id="a", version=2, version_digest=DIGEST, by=by, at=NOW - timedelta(days=3), reason="looks right")
    return msgspec.structs.replace(made, **more)


APPROVERS = frozenset({"ann", "bob", "cleo", "automation:drift"})


@pytest.mark.parametrize(
    ("rule", "given_", "counted", "word"),
    [
        (ApprovalRule(count=1), approval("bob"), True, ""),
        (ApprovalRule(count=1), approval("ann"), False, "nobody approves their own"),
        (ApprovalRule(count=1), approval("dan"), False, "no approver"),
        (ApprovalRule(count=1), approval("bob", version_digest="sha256:old"), False, "other bytes"),
        (
            ApprovalRule(count=1),
            approval("bob", revoked_at=NOW, revoked_by="bob", revoked_reason="slip"),
            False,
            "revoked by bob: slip",
        ),
        (ApprovalRule(count=1, valid_days=2), approval("bob"), False, "more than 2 days ago"),
        (ApprovalRule(count=1, valid_days=4), approval("bob"), True, ""),
        (ApprovalRule(count=1), approval("automation:drift"), False, "wants people"),
        (ApprovalRule(count=1, automation=True), approval("automation:drift"), True, ""),
    ],
)
def test_who_may_approve(rule: ApprovalRule, given_: Approval, counted: bool, word: str) -> None:
    found = count_approvals(rule, ANN, DIGEST, [given_], APPROVERS, NOW)
    assert found.enough is counted
    if word:
        assert word in found.refused[0]


def test_the_same_person_twice_is_one_person() -> None:
    rule = ApprovalRule(count=2)
    twice = count_approvals(rule, ANN, DIGEST, [approval("bob"), approval("bob", id="b")], APPROVERS, NOW)
    assert (twice.by, twice.enough) == (["bob"], False)
    both = count_approvals(rule, ANN, DIGEST, [approval("bob"), approval("cleo")], APPROVERS, NOW)
    assert both.enough


def test_no_digest_no_approval() -> None:
    """A version whose bytes the registry does not know cannot be approved by anybody."""
    blind = approval("bob", version_digest="")
    assert not count_approvals(ApprovalRule(count=1), ANN, "", [blind], APPROVERS, NOW).enough


def test_what_is_unmet_names_gate_and_approvals() -> None:
    policy = Policy(signature=True, approvals=ApprovalRule(count=1))
    facts = VersionFacts(**{**FACTS.__dict__, "has_signature": False})
    gates = judge(policy, facts, Evidence(), None, NOW)
    reasons = unmet(policy, gates, count_approvals(policy.approvals, ANN, DIGEST, [], APPROVERS, NOW))
    assert len(reasons) == 2
    assert "signature missing" in reasons[0]
    assert "1 approvals are needed, there are 0" in reasons[1]
