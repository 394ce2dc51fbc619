"""Nouns of the registry: models, their immutable versions, the evidence about them, and who let them through."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

Verdict = Literal["measured", "not enough data"]
GateStatus = Literal["passed", "failed", "missing"]
FormatSafety = Literal["safe", "unsafe", "unknown"]
MoveKind = Literal["promote", "override", "rollback", "delete", "drop"]
PROTECTED_TAG = "protected"
Metric = Literal["auc", "log_loss", "brier", "calibration_error", "accuracy"]

Kind = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Count = Annotated[int, Meta(ge=0)]


# --- evidence ---------------------------------------------------------------------------------------------------


class Scores(Struct, frozen=True, kw_only=True):
    """How good scores are on some rows. A metric that these rows cannot give is None, and `reason` says why."""

    rows: int
    positives: int
    verdict: Verdict
    reason: str = ""
    auc: float | None = None
    log_loss: float | None = None
    brier: float | None = None
    calibration_error: float | None = None
    accuracy: float | None = None


class SliceScores(Struct, frozen=True, kw_only=True):
    """The scores on the rows where `column` has `value`."""

    column: str
    value: str
    scores: Scores


class Evaluation(Struct, frozen=True, kw_only=True):
    """What the server measured on rows of (label, score), tied to the bytes of one version.

    `rows_digest` names the stored rows; two evaluations with the same `labels_digest` were made on the same rows
    with the same labels, and can be compared pair by pair. `made_by`: whether somebody sent the scores, or the platform
    let the model say them in a job of its own.
    """

    id: str
    model: str
    version: int
    version_digest: str
    dataset: str = ""
    at: datetime
    by: str
    threshold: float
    overall: Scores
    slices: list[SliceScores]
    rows_digest: str
    labels_digest: str
    made_by: Literal["client", "platform"] = "client"
    job: str = ""


class StartEvaluation(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An evaluation for the platform to make: the model says its scores for the rows of a dataset version, in a job.

    `dataset` is `name@version`. `label` holds 0 and 1; `row_id` names the rows (empty: their number), `slices` are
    columns to measure by. `output` is the model's score; `features` are columns in order, for a model that takes one
    matrix.
    """

    dataset: Annotated[str, Meta(min_length=1, max_length=500)]
    label: Annotated[str, Meta(min_length=1, max_length=255)]
    row_id: str = ""
    slices: Annotated[list[str], Meta(max_length=20)] = []
    output: str = ""
    features: Annotated[list[str], Meta(max_length=10_000)] = []
    threshold: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.5


class EvaluationJob(Struct, frozen=True, kw_only=True):
    """An evaluation that the platform makes. Once it has succeeded, `evaluation` is the id of what was measured."""

    id: str
    model: str
    version: int
    version_digest: str
    dataset: str
    state: Literal["preparing", "scoring", "succeeded", "failed"]
    asked: StartEvaluation
    by: str
    at: datetime
    job: str = ""
    evaluation: str = ""
    error: str = ""
    ended_at: datetime | None = None


class ScoringSpec(Struct, frozen=True, kw_only=True):
    """What the process that scores is told."""

    trusted: bool
    output: str
    features: list[str]


class Latency(Struct, frozen=True, kw_only=True):
    """Prediction latency of a version, measured somewhere by somebody; milliseconds per request."""

    id: str
    model: str
    version: int
    version_digest: str
    at: datetime
    by: str
    p50_ms: float
    p95_ms: float
    requests: int
    measured_on: str


class Comparison(Struct, frozen=True, kw_only=True):
    """Challenger against champion on the same rows. `difference` is in favour of the challenger, whatever the metric.

    `lower` and `upper` bound it with `confidence`; with the verdict "not enough data" they are None.
    """

    metric: Metric
    verdict: Verdict
    reason: str = ""
    method: str = ""
    rows: int = 0
    champion: float | None = None
    challenger: float | None = None
    difference: float | None = None
    lower: float | None = None
    upper: float | None = None
    p_value: float | None = None
    confidence: float = 0.95


class Attestation(Struct, frozen=True, kw_only=True):
    """What somebody (a person, a job, a scanner) states about the bytes of one version: that a check of this kind
    passed or not, with a `value` where the kind has one (the licence, for `license`), and where the evidence lies."""

    id: str
    model: str
    version: int
    version_digest: str
    kind: str
    passed: bool
    summary: str
    value: str = ""
    evidence: str = ""
    at: datetime
    by: str


class AttestVersion(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An attestation as one gives it. `evidence` is a URN or a URL, kept as it is and never called."""

    kind: Kind
    passed: bool
    summary: Annotated[str, Meta(min_length=1, max_length=2000)]
    value: Annotated[str, Meta(max_length=255)] = ""
    evidence: Annotated[str, Meta(max_length=1000)] = ""


class FileSignature(Struct, frozen=True, kw_only=True):
    """A signature over all files of a version, as OpenSSF model signing makes it: a Sigstore bundle by an EC key.

    `key` is the fingerprint of the public key. That it verifies with that key is checked when it is taken in and each
    time that it is asked for; whether the key is to be trusted is for the policy to say.
    """

    id: str
    model: str
    version: int
    version_digest: str
    key: str
    public_key: str
    bundle: str
    at: datetime
    by: str


class SignVersion(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A signature to record: the bundle, and the public key (PEM) that it verifies with."""

    bundle: Annotated[str, Meta(min_length=2, max_length=8_000_000)]
    public_key: Annotated[str, Meta(min_length=1, max_length=10_000)]


class SignatureCheck(Struct, frozen=True, kw_only=True):
    """How one signature stands now. `trusted`: it is valid, and by a key that the policy names."""

    signature: str
    key: str
    by: str
    valid: bool
    trusted: bool
    reason: str


class LatencyReport(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A latency measurement as one reports it."""

    p50_ms: Annotated[float, Meta(ge=0.0)]
    p95_ms: Annotated[float, Meta(ge=0.0)]
    requests: Annotated[int, Meta(ge=1)]
    measured_on: Annotated[str, Meta(min_length=1, max_length=1000)]


# --- policy -----------------------------------------------------------------------------------------------------


class MetricGate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The metric must reach `min` and must not pass `max`, on at least `min_rows` rows."""

    metric: Metric
    min: float | None = None
    max: float | None = None
    min_rows: Count = 1


class SliceGate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """No slice of `columns` with at least `min_rows` rows may be worse than `limit`, nor worse than the overall
    value by more than `max_gap`. Smaller slices, and those of one class only, are named but not judged."""

    columns: Annotated[list[str], Meta(min_length=1, max_length=20)]
    metric: Metric = "auc"
    min_rows: Annotated[int, Meta(ge=1)] = 200
    limit: float | None = None
    max_gap: Annotated[float, Meta(ge=0.0)] | None = None


class ChampionGate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The lower bound of the difference from the version under `alias`, on the same rows, must exceed `margin`."""

    alias: str = "champion"
    metric: Metric = "auc"
    margin: float = 0.0
    confidence: Annotated[float, Meta(gt=0.5, lt=1.0)] = 0.95


class LatencyGate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The 95th percentile must stay within the limit, in milliseconds."""

    p95_ms: Annotated[float, Meta(gt=0.0)]


class ProvenanceGate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What must be known about where a version comes from."""

    run: bool = True
    data: bool = False
    code: bool = False
    environment: bool = False


class AttestationGate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The newest attestation of this kind must say yes; with `by` only one of those principals' counts."""

    kind: Kind
    by: Annotated[list[str], Meta(max_length=100)] = []


class TrustedKeys(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose signature over the files counts: public keys (EC, PEM). One valid signature by one of them is enough."""

    keys: Annotated[list[str], Meta(min_length=1, max_length=20)]


class ApprovalRule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many people must approve, and who counts: with `people` only those, with `role: admin` only admins. With
    `automation`, a principal `automation:<trigger>` counts as one of them, also
    for a version that it submitted itself: the policy's author has said that gates and their reason are enough."""

    count: Annotated[int, Meta(ge=0, le=20)] = 0
    automation: bool = False
    valid_days: Annotated[float, Meta(gt=0.0)] | None = None
    people: Annotated[list[str], Meta(max_length=100)] = []
    role: Literal["approver", "admin"] = "approver"


class Policy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When an alias of a model may move. Empty `aliases` means all of them.

    `dataset` (`dataset:name` or `dataset:name@version`) names the frozen evaluation data: only evaluations on it count.
    `signature` asks for declared inputs and outputs, `require_signature` for files signed by a trusted key.
    `features` asks for the attestation that served and training features agree; `licenses` lists what is allowed.
    `evidence: platform` lets only evaluations count that the platform made itself, of whatever model.
    """

    aliases: Annotated[list[str], Meta(max_length=100)] = []
    dataset: str = ""
    metrics: Annotated[list[MetricGate], Meta(max_length=50)] = []
    slices: Annotated[list[SliceGate], Meta(max_length=20)] = []
    champion: ChampionGate | None = None
    latency: LatencyGate | None = None
    provenance: ProvenanceGate | None = None
    signature: bool = False
    input_example: bool = False
    safe_format: bool = False
    data_checks: bool = False
    features: bool = False
    attestations: Annotated[list[AttestationGate], Meta(max_length=20)] = []
    licenses: Annotated[list[str], Meta(max_length=100)] = []
    require_signature: TrustedKeys | None = None
    size_bytes_max: Annotated[int, Meta(gt=0)] | None = None
    evidence_valid_days: Annotated[float, Meta(gt=0.0)] | None = None
    evidence: Literal["any", "platform"] = "any"
    approvals: ApprovalRule = field(default_factory=ApprovalRule)


class SetPolicy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A policy to declare, as a structure or as its YAML text; both empty takes the policy away."""

    policy: Policy | None = None
    yaml: str = ""
    reason: str = ""


# --- decisions --------------------------------------------------------------------------------------------------


class GateResult(Struct, frozen=True, kw_only=True):
    """One gate's answer, with its reason in words and the evidence that it stands on (such as `evaluation:<id>`)."""

    name: str
    status: GateStatus
    reason: str
    evidence: str = ""


class Approval(Struct, frozen=True, kw_only=True):
    """One person's yes to the bytes of one version."""

    id: str
    version: int
    version_digest: str
    by: str
    at: datetime
    reason: str
    revoked_at: datetime | None = None
    revoked_by: str = ""
    revoked_reason: str = ""


class ApprovalCount(Struct, frozen=True, kw_only=True):
    """Approvals that count now, and for each other why it does not."""

    required: int
    by: list[str]
    refused: list[str]

    @property
    def enough(self) -> bool:
        return len(self.by) >= self.required


class Decision(Struct, frozen=True, kw_only=True):
    """Whether a version may be promoted now, and everything that this rests on."""

    model: str
    version: int
    alias: str
    guarded: bool
    promotable: bool
    reasons: list[str]
    gates: list[GateResult]
    approvals: ApprovalCount
    comparison: Comparison | None = None
    champion: int | None = None
    at: datetime


# --- retention --------------------------------------------------------------------------------------------------


class Retention(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which versions are dropped by themselves: those that are not among the newest `keep_last` *and* are older than
    `keep_days`. Never one that an alias points to, that an endpoint serves, or that has one of `protected_tags`.

    The files of a dropped version are given up `grace_days` after it was dropped; what is on record about it stays.
    """

    keep_last: Annotated[int, Meta(ge=1)] = 10
    keep_days: Annotated[float, Meta(ge=0.0)] = 30.0
    protected_tags: Annotated[list[str], Meta(max_length=50)] = field(default_factory=lambda: [PROTECTED_TAG])
    grace_days: Annotated[float, Meta(ge=0.0)] = 7.0


class RetentionStep(Struct, frozen=True, kw_only=True):
    """What retention does with one version, and why."""

    version: int
    action: Literal["keep", "drop", "purge"]
    reason: str


class SetRetention(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A retention to declare; None takes it away."""

    retention: Retention | None = None
    reason: str = ""


# --- models and versions ----------------------------------------------------------------------------------------


class ModelFile(Struct, frozen=True):
    """One file of a version: its path inside the model, the SHA-256 of its bytes, its size, and what the server took it
    for when it came in. `safety` is empty where nobody looked."""

    path: str
    digest: str
    size_bytes: int
    format: str = ""
    safety: str = ""
    reason: str = ""


class Provenance(Struct, frozen=True, kw_only=True):
    """Where a version comes from; what is empty is not known."""

    source: str = ""
    run: str = ""
    logged_model: str = ""
    data: list[str] = []
    code: str = ""
    environment: str = ""


class ModelVersion(Struct, frozen=True, kw_only=True):
    """An immutable version. `digest` is over all files; it is empty where the source lies outside this platform."""

    model: str
    version: int
    created_at: datetime
    created_by: str
    updated_at: datetime
    description: str = ""
    source: str = ""
    location: str = ""
    run_link: str = ""
    stage: str = "None"
    digest: str = ""
    size_bytes: int = 0
    files: int = 0
    format: FormatSafety = "unknown"
    format_reason: str = ""
    trusted: bool = False
    trusted_by: str = ""
    trusted_reason: str = ""
    signature: dict[str, Any] | None = None
    flavors: dict[str, Any] = {}
    provenance: Provenance = field(default_factory=Provenance)
    tags: dict[str, str] = {}
    aliases: list[str] = []
    dropped_at: datetime | None = None
    dropped_by: str = ""
    dropped_reason: str = ""
    purged_at: datetime | None = None
    license: str = ""
    input_example: str = ""

    @property
    def urn(self) -> str:
        return f"model:{self.model}@{self.version}"


class Model(Struct, frozen=True, kw_only=True):
    """A registered model: a name under which versions are counted and aliases move."""

    id: str
    name: str
    created_at: datetime
    created_by: str
    updated_at: datetime
    description: str = ""
    tags: dict[str, str] = {}
    aliases: dict[str, int] = {}
    latest: list[ModelVersion] = []
    policy: Policy | None = None
    retention: Retention | None = None
    versions: int = 0


class AliasMove(Struct, frozen=True, kw_only=True):
    """One step of an alias: never altered, never removed. `guarded`: a policy had its say, and `gates` and
    `approved_by` are what the move rested on then; `unmet` is what an override (or a rollback) went over."""

    id: str
    model: str
    alias: str
    kind: MoveKind
    version: int | None
    previous: int | None
    at: datetime
    by: str
    reason: str
    unmet: list[str] = []
    guarded: bool = False
    gates: list[GateResult] = []
    approved_by: list[str] = []


class VersionChange(Struct, frozen=True, kw_only=True):
    """One thing in which two versions differ."""

    plane: str
    name: str
    before: str
    after: str


class VersionDiff(Struct, frozen=True, kw_only=True):
    """All in which `after` differs from `before`, and their comparison on the same rows where there is one."""

    model: str
    before: int
    after: int
    changes: list[VersionChange]
    comparison: Comparison | None = None


# --- requests ---------------------------------------------------------------------------------------------------


class CreateModel(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model to register."""

    name: str
    description: str = ""
    tags: dict[str, str] = {}
    policy: Policy | None = None


class CreateVersion(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A version to take in from a `models:/m-…`, `models:/name/version`, `runs:/…` or `mlflow-artifacts:/…` source."""

    source: str
    run: str = ""
    logged_model: str = ""
    description: str = ""
    tags: dict[str, str] = {}


class ApproveVersion(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An approval. `digest`, where given, must be that of the version: nobody approves other bytes than they saw."""

    reason: str
    digest: str = ""


class PromoteVersion(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A promotion. With `expected` it is refused where the alias no longer points to that version (0: to none)."""

    alias: str
    version: int
    reason: str = ""
    override: bool = False
    expected: int | None = None


class RollbackAlias(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One step back, to the version that the alias pointed to before."""

    alias: str
    reason: str = ""


class StateReason(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why something is done (trust, drop)."""

    reason: str
