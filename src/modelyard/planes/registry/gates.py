"""Gates: whether what is known about a version lets it through. Pure, each answer with its reason in words.

Doubt never promotes: evidence that is absent, of other bytes, too old, a tie or not a number is "missing" or "failed",
never "passed".
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from modelyard.planes.registry.metrics import LARGER_IS_BETTER, metric_of
from modelyard.types.registry import (
    Approval,
    ApprovalCount,
    ApprovalRule,
    Attestation,
    AttestationGate,
    ChampionGate,
    Comparison,
    Evaluation,
    GateResult,
    GateStatus,
    Latency,
    LatencyGate,
    MetricGate,
    Policy,
    ProvenanceGate,
    SignatureCheck,
    SliceGate,
    SliceScores,
)

AUTOMATION_PREFIX = "automation:"
FEATURES = "features"
LICENSE = "license"
_SHOWN_MAX = 5
HASH_CHARACTERS_SHOWN = 12


@dataclass(frozen=True)
class VersionFacts:
    """What the registry knows of a version itself. `data_checks` has a verdict for every data version behind it."""

    model: str
    version: int
    digest: str = ""
    has_signature: bool = False
    format: str = "unknown"
    format_reason: str = ""
    trusted: bool = False
    size_bytes: int = 0
    run: str = ""
    code: str = ""
    environment: str = ""
    license: str = ""
    input_example: str = ""
    data: tuple[str, ...] = ()
    data_checks: Mapping[str, str] = field(default_factory=dict)

    @property
    def urn(self) -> str:
        return f"model:{self.model}@{self.version}"


@dataclass(frozen=True)
class Evidence:
    """What was measured of a version, newest first choice made by the caller; None is not measured."""

    evaluation: Evaluation | None = None
    latency: Latency | None = None
    attestations: Sequence[Attestation] = ()
    signatures: Sequence[SignatureCheck] = ()


@dataclass(frozen=True)
class Champion:
    """The version under the guarded alias, and how the challenger compares with it on the same rows, if known."""

    version: int
    comparison: Comparison | None = None
    evaluation: str = ""
    evaluated: bool = False


def judge(
    policy: Policy,
    facts: VersionFacts,
    evidence: Evidence,
    champion: Champion | None,
    now: datetime,
) -> list[GateResult]:
    """All gates of the policy, in a fixed order."""
    return list(_judged(policy, facts, evidence, champion, now))


def _judged(
    policy: Policy, facts: VersionFacts, evidence: Evidence, champion: Champion | None, now: datetime
) -> Iterator[GateResult]:
    evaluation = evidence.evaluation
    trouble = _evidence_trouble(policy, facts, evaluation, now)
    for metric_gate in policy.metrics:
        yield _metric(metric_gate, evaluation, trouble)
    for slice_gate in policy.slices:
        yield _slices(slice_gate, evaluation, trouble)
    if policy.champion is not None:
        yield _champion(policy.champion, facts, evaluation, champion, trouble)
    if policy.latency is not None:
        yield _latency(policy.latency, facts, evidence.latency, _oldest(policy, now))
    if policy.signature:
        yield _signature(facts)
    if policy.input_example:
        yield _input_example(facts)
    if policy.require_signature is not None:
        yield _signed(evidence.signatures, facts)
    if policy.safe_format:
        yield _format(facts)
    if policy.licenses:
        yield _license(policy.licenses, facts, evidence.attestations)
    if policy.size_bytes_max is not None:
        yield _size(policy.size_bytes_max, facts)
    if policy.provenance is not None:
        yield _provenance(policy.provenance, facts)
    if policy.data_checks:
        yield _data_checks(facts)
    if policy.features:
        yield _attested("features", AttestationGate(kind=FEATURES), facts, evidence.attestations, _oldest(policy, now))
    for stated in policy.attestations:
        name = f"attestation:{stated.kind}"
        yield _attested(name, stated, facts, evidence.attestations, _oldest(policy, now))


def files_known(facts: VersionFacts) -> list[GateResult]:
    """The gate that stands before all others where there is a policy: nothing is known of bytes that are elsewhere."""
    if facts.digest:
        return []
    return [_result("files", "missing", "the files lie outside this platform, so nothing is known of them", facts.urn)]


def _result(name: str, status: GateStatus, reason: str, evidence: str = "") -> GateResult:
    return GateResult(name=name, status=status, reason=reason, evidence=evidence)


def _oldest(policy: Policy, now: datetime) -> datetime | None:
    return None if policy.evidence_valid_days is None else now - timedelta(days=policy.evidence_valid_days)


def _evidence_trouble(policy: Policy, facts: VersionFacts, evaluation: Evaluation | None, now: datetime) -> str:
    """Why the evaluation cannot be used, or nothing."""
    if evaluation is None:
        where = f" on {policy.dataset}" if policy.dataset else ""
        return f"{facts.urn} has not been evaluated{where}"
    if not facts.digest or evaluation.version_digest != facts.digest:
        return "the evaluation is of other bytes than this version's"
    if policy.dataset and not same_dataset(policy.dataset, evaluation.dataset):
        return f"the evaluation is on {evaluation.dataset or 'unnamed rows'}, the policy asks for {policy.dataset}"
    oldest = _oldest(policy, now)
    if oldest is not None and evaluation.at < oldest:
        return f"the evaluation is of {evaluation.at:%Y-%m-%d}, older than {policy.evidence_valid_days:g} days"
    if policy.evidence == "platform" and evaluation.made_by != "platform":
        return f"the scores were sent by {evaluation.by}, and the policy asks for an evaluation that the platform made"
    if evaluation.overall.verdict != "measured":
        return f"not enough data: {evaluation.overall.reason}"
    return ""


def same_dataset(wanted: str, found: str) -> bool:
    """A policy that names a dataset without a version takes any version of it."""
    return found == wanted or ("@" not in wanted and found.rpartition("@")[0] == wanted)


def _metric(gate: MetricGate, evaluation: Evaluation | None, trouble: str) -> GateResult:
    name = f"metric:{gate.metric}"
    if trouble or evaluation is None:
        return _result(name, "missing", trouble)
    reference = f"evaluation:{evaluation.id}"
    value = metric_of(evaluation.overall, gate.metric)
    if value is None or not math.isfinite(value):
        return _result(name, "missing", f"{gate.metric} could not be measured", reference)
    rows = evaluation.overall.rows
    if rows < gate.min_rows:
        return _result(name, "missing", f"{rows} rows are fewer than the {gate.min_rows} asked for", reference)
    found = f"{gate.metric} is {value:.4f} on {rows} rows"
    if gate.min is not None and not value >= gate.min:
        return _result(name, "failed", f"{found}, below {gate.min:g}", reference)
    if gate.max is not None and not value <= gate.max:
        return _result(name, "failed", f"{found}, above {gate.max:g}", reference)
    limits = [f"at least {gate.min:g}" if gate.min is not None else ""]
    limits.append(f"at most {gate.max:g}" if gate.max is not None else "")
    return _result(name, "passed", f"{found} ({' and '.join(filter(None, limits)) or 'no limit'})", reference)


def _slices(gate: SliceGate, evaluation: Evaluation | None, trouble: str) -> GateResult:
    name = f"slices:{gate.metric}:{'+'.join(gate.columns)}"
    if trouble or evaluation is None:
        return _result(name, "missing", trouble)
    reference = f"evaluation:{evaluation.id}"
    absent = sorted(set(gate.columns) - {cut.column for cut in evaluation.slices})
    if absent:
        return _result(name, "missing", f"the evaluation has no slices by {', '.join(absent)}", reference)
    overall = metric_of(evaluation.overall, gate.metric)
    if overall is None:
        return _result(name, "missing", f"{gate.metric} could not be measured on all rows", reference)
    members = [cut for cut in evaluation.slices if cut.column in gate.columns]
    large = [cut for cut in members if cut.scores.rows >= gate.min_rows]
    judged = [cut for cut in large if metric_of(cut.scores, gate.metric) is not None]
    if not judged:
        return _result(name, "missing", f"no slice has {gate.min_rows} rows and a {gate.metric}", reference)
    bad = [text for cut in judged if (text := _slice_trouble(gate, cut, overall))]
    if bad:
        return _result(name, "failed", _listed(bad), reference)
    worst = min(judged, key=lambda cut: _goodness(gate, cut))
    left_out = len(members) - len(judged)
    note = f"; {left_out} are too small or of one class to judge" if left_out else ""
    value = metric_of(worst.scores, gate.metric)
    return _result(
        name,
        "passed",
        f"the worst of {len(judged)} slices is {worst.column}={worst.value} with {value:.4f}{note}",
        reference,
    )


def _goodness(gate: SliceGate, cut: SliceScores) -> float:
    value = metric_of(cut.scores, gate.metric)
    if value is None:
        return math.inf
    return value if LARGER_IS_BETTER[gate.metric] else -value


def _slice_trouble(gate: SliceGate, cut: SliceScores, overall: float) -> str:
    value = metric_of(cut.scores, gate.metric)
    if value is None:
        return ""
    upward = LARGER_IS_BETTER[gate.metric]
    where = f"{cut.column}={cut.value}: {gate.metric} {value:.4f} on {cut.scores.rows} rows"
    if not math.isfinite(value):
        return f"{where} is no number"
    if gate.limit is not None and not (value >= gate.limit if upward else value <= gate.limit):
        return f"{where} is {'below' if upward else 'above'} {gate.limit:g}"
    gap = overall - value if upward else value - overall
    if gate.max_gap is not None and not gap <= gate.max_gap:
        return f"{where} is worse than the overall {overall:.4f} by more than {gate.max_gap:g}"
    return ""


def _listed(texts: Sequence[str]) -> str:
    more = f"; and {len(texts) - _SHOWN_MAX} more" if len(texts) > _SHOWN_MAX else ""
    return "; ".join(texts[:_SHOWN_MAX]) + more


def _champion(
    gate: ChampionGate,
    facts: VersionFacts,
    evaluation: Evaluation | None,
    champion: Champion | None,
    trouble: str,
) -> GateResult:
    name = f"better-than:{gate.alias}"
    if champion is None:
        return _result(name, "passed", f"no version is {gate.alias} yet, so there is nothing to be better than")
    if champion.version == facts.version:
        return _result(name, "passed", f"this version is {gate.alias} already")
    if trouble or evaluation is None:
        return _result(name, "missing", trouble)
    other = f"{gate.alias} model:{facts.model}@{champion.version}"
    reference = f"evaluation:{evaluation.id}"
    comparison = champion.comparison
    if comparison is None:
        said = "has been evaluated, but on other rows" if champion.evaluated else "has not been evaluated"
        return _result(name, "missing", f"{other} {said}: evaluate it on the same rows", reference)
    reference = f"{reference} evaluation:{champion.evaluation}"
    if comparison.verdict != "measured":
        return _result(name, "missing", f"not enough data to compare with {other}: {comparison.reason}", reference)
    numbers = (comparison.difference, comparison.lower, comparison.upper)
    if any(number is None or not math.isfinite(number) for number in numbers):
        return _result(name, "missing", f"the comparison with {other} gave no number", reference)
    difference, lower, upper = (number for number in numbers if number is not None)
    found = (
        f"{comparison.metric} gains {difference:+.4f} on {other}, "
        f"{comparison.confidence:.0%} sure between {lower:+.4f} and {upper:+.4f} ({comparison.method})"
    )
    if lower > gate.margin:
        return _result(name, "passed", found, reference)
    return _result(name, "failed", f"{found}; the lower end must exceed {gate.margin:g}", reference)


def _latency(gate: LatencyGate, facts: VersionFacts, latency: Latency | None, oldest: datetime | None) -> GateResult:
    name = "latency:p95"
    if latency is None:
        return _result(name, "missing", f"the latency of {facts.urn} has not been measured")
    reference = f"latency:{latency.id}"
    if latency.version_digest != facts.digest:
        return _result(name, "missing", "the latency was measured on other bytes than this version's", reference)
    if oldest is not None and latency.at < oldest:
        return _result(name, "missing", f"the latency was measured on {latency.at:%Y-%m-%d}, too long ago", reference)
    found = f"p95 is {latency.p95_ms:.2f} ms over {latency.requests} requests on {latency.measured_on}"
    if math.isfinite(latency.p95_ms) and latency.p95_ms <= gate.p95_ms:
        return _result(name, "passed", f"{found} (at most {gate.p95_ms:g} ms)", reference)
    return _result(name, "failed", f"{found}, above {gate.p95_ms:g} ms", reference)


def _signature(facts: VersionFacts) -> GateResult:
    if facts.has_signature:
        return _result("signature", "passed", "the model declares its inputs and outputs", facts.urn)
    return _result("signature", "missing", "the model declares no signature of inputs and outputs", facts.urn)


def _format(facts: VersionFacts) -> GateResult:
    detail = f": {facts.format_reason}" if facts.format_reason else ""
    if facts.format == "safe":
        return _result("format", "passed", f"the files cannot carry code{detail}", facts.urn)
    if facts.trusted:
        return _result("format", "passed", f"the files are {facts.format}, but trusted explicitly{detail}", facts.urn)
    status: GateStatus = "failed" if facts.format == "unsafe" else "missing"
    return _result("format", status, f"the files are {facts.format}{detail}", facts.urn)


def _input_example(facts: VersionFacts) -> GateResult:
    if facts.input_example:
        return _result("input-example", "passed", f"the model comes with {facts.input_example}", facts.urn)
    return _result("input-example", "missing", "the model comes with no example of its input", facts.urn)


def _signed(checks: Sequence[SignatureCheck], facts: VersionFacts) -> GateResult:
    good = next((one for one in checks if one.trusted), None)
    if good is not None:
        found = f"all files are signed with the trusted key {good.key[:12]}, recorded by {good.by}"
        return _result("signed", "passed", found, f"signature:{good.signature}")
    if not checks:
        return _result("signed", "missing", "nobody has signed the files", facts.urn)
    reasons = [f"the signature of {one.by} does not count: {one.reason}" for one in checks]
    return _result("signed", "failed", _listed(reasons), f"signature:{checks[0].signature}")


def _license(allowed: Sequence[str], facts: VersionFacts, attestations: Sequence[Attestation]) -> GateResult:
    """What the files declare and what was attested must both be allowed: where they differ there is doubt."""
    stated = _newest(attestations, AttestationGate(kind=LICENSE), facts)
    declared = [facts.license] if facts.license else []
    evidence = facts.urn
    if stated is not None:
        evidence = f"attestation:{stated.id}"
        if not stated.passed:
            return _result("license", "failed", f"{stated.by} objects: {stated.summary}", evidence)
        declared += [stated.value] if stated.value else []
    if not declared:
        return _result("license", "missing", "no licence is declared in the files, and none was attested", evidence)
    fine = {one.lower() for one in allowed}
    bad = sorted({one for one in declared if one.lower() not in fine})
    if bad:
        return _result("license", "failed", f"{_listed(bad)} is none of {', '.join(allowed)}", evidence)
    return _result("license", "passed", f"{declared[-1]} is allowed", evidence)


def _newest(attestations: Sequence[Attestation], gate: AttestationGate, facts: VersionFacts) -> Attestation | None:
    fitting = (one for one in attestations if one.kind == gate.kind and (not gate.by or one.by in gate.by))
    return next((one for one in fitting if facts.digest and one.version_digest == facts.digest), None)


def _attested(
    name: str,
    gate: AttestationGate,
    facts: VersionFacts,
    attestations: Sequence[Attestation],
    oldest: datetime | None,
) -> GateResult:
    found = _newest(attestations, gate, facts)
    if found is None:
        whose = f" by {' or '.join(gate.by)}" if gate.by else ""
        return _result(name, "missing", f"no evidence: there is no attestation of {gate.kind}{whose}", facts.urn)
    reference = f"attestation:{found.id}"
    if oldest is not None and found.at < oldest:
        return _result(name, "missing", f"the attestation is of {found.at:%Y-%m-%d}, too long ago", reference)
    said = f"{found.by} attests: {found.summary}"
    return _result(name, "passed" if found.passed else "failed", said, reference)


def _size(limit: int, facts: VersionFacts) -> GateResult:
    if not facts.digest:
        return _result("size", "missing", "the files are not known to the registry", facts.urn)
    status: GateStatus = "passed" if facts.size_bytes <= limit else "failed"
    return _result("size", status, f"{facts.size_bytes:,} bytes, at most {limit:,} are allowed", facts.urn)


def _provenance(gate: ProvenanceGate, facts: VersionFacts) -> GateResult:
    lacking = ["the files" if not facts.digest else ""]
    lacking.append("the run" if gate.run and not facts.run else "")
    lacking.append("the data versions" if gate.data and not facts.data else "")
    lacking.append("the code" if gate.code and not facts.code else "")
    lacking.append("the environment" if gate.environment and not facts.environment else "")
    unknown = [what for what in lacking if what]
    if unknown:
        return _result("provenance", "missing", f"not known: {', '.join(unknown)}", facts.urn)
    shown = [urn[: urn.find(":") + 1 + HASH_CHARACTERS_SHOWN] for urn in (facts.code, facts.environment)]
    known = [f"run:{facts.run}" if facts.run else "", *facts.data, *shown]
    return _result("provenance", "passed", f"made by {', '.join(filter(None, known)) or 'known files'}", facts.urn)


def _data_checks(facts: VersionFacts) -> GateResult:
    if not facts.data:
        return _result("data-checks", "missing", "the data versions behind this version are not known", facts.urn)
    verdicts = {urn: facts.data_checks.get(urn, "unknown") for urn in facts.data}
    failed = sorted(urn for urn, verdict in verdicts.items() if verdict == "failed")
    if failed:
        return _result("data-checks", "failed", f"checks failed on {_listed(failed)}", " ".join(failed))
    unknown = sorted(urn for urn, verdict in verdicts.items() if verdict != "passed")
    if unknown:
        return _result("data-checks", "missing", f"no check results for {_listed(unknown)}", " ".join(unknown))
    return _result("data-checks", "passed", f"all checks passed on {_listed(sorted(verdicts))}", " ".join(verdicts))


def count_approvals(
    rule: ApprovalRule,
    submitters: frozenset[str],
    digest: str,
    approvals: Sequence[Approval],
    approvers: frozenset[str],
    now: datetime,
    admins: frozenset[str] = frozenset(),
) -> ApprovalCount:
    """Which approvals count now. `approvers` are those principals who may still approve, `admins` those of them who
    are admins."""
    counted: list[str] = []
    refused: list[str] = []
    for approval in approvals:
        why = _approval_trouble(rule, submitters, digest, approval, approvers, now)
        why = why or _not_asked(rule, approval.by, admins)
        if why:
            refused.append(f"{approval.by}: {why}")
        elif approval.by not in counted:
            counted.append(approval.by)
    return ApprovalCount(required=rule.count, by=counted, refused=refused)


def _approval_trouble(
    rule: ApprovalRule,
    submitters: frozenset[str],
    digest: str,
    approval: Approval,
    approvers: frozenset[str],
    now: datetime,
) -> str:
    if approval.revoked_at is not None:
        return f"revoked by {approval.revoked_by}: {approval.revoked_reason}"
    if not digest or approval.version_digest != digest:
        return "approved other bytes"
    if approval.by not in approvers:
        return "is no approver of this project any more"
    if rule.valid_days is not None and approval.at < now - timedelta(days=rule.valid_days):
        return f"approved more than {rule.valid_days:g} days ago"
    machine = approval.by.startswith(AUTOMATION_PREFIX)
    if machine and not rule.automation:
        return "is an automation, and the policy wants people"
    if approval.by in submitters and not machine:
        return "submitted this version, and nobody approves their own"
    return ""


def _not_asked(rule: ApprovalRule, name: str, admins: frozenset[str]) -> str:
    if rule.role == "admin" and name not in admins:
        return "is no admin, and the policy wants admins"
    if rule.people and name not in rule.people:
        return "is none of the people that the policy names"
    return ""


def unmet(policy: Policy, gates: Sequence[GateResult], approvals: ApprovalCount) -> list[str]:
    """In words, what still stands in the way; nothing means that the version may be promoted."""
    reasons = [f"{gate.name} {gate.status}: {gate.reason}" for gate in gates if gate.status != "passed"]
    if not approvals.enough:
        having = f" (by {', '.join(approvals.by)})" if approvals.by else ""
        reasons.append(f"{policy.approvals.count} approvals are needed, there are {len(approvals.by)}{having}")
    return reasons
