"""HTTP of the registry: decode, call, encode."""

from __future__ import annotations

import tempfile
from datetime import datetime
from typing import Annotated, Any, BinaryIO, cast

import anyio.to_thread
import msgspec
from litestar import Request, Response
from litestar.params import Parameter
from litestar.response import Stream

from modelyard.kernel.auth import Action, Scope
from modelyard.kernel.errors import InvalidInput, TooLarge
from modelyard.kernel.limits import MIB, PAGE_ITEMS_DEFAULT, PAGE_ITEMS_MAX
from modelyard.kernel.routing import delete, get, post, put
from modelyard.kernel.spooling import spool_full
from modelyard.planes.registry import Registry
from modelyard.planes.registry.arrow_rows import BODY_BYTES_MAX
from modelyard.planes.registry.card import bill_of_materials, model_card
from modelyard.planes.registry.documents import read_policy
from modelyard.planes.registry.services.evaluation_jobs import EvaluationJobs
from modelyard.planes.registry.webhook_routes import ROUTES as WEBHOOK_ROUTES
from modelyard.types.imports import ImportedVersion, ImportModel, ImportVersion
from modelyard.types.page import Page
from modelyard.types.registry import (
    AliasMove,
    Approval,
    ApproveVersion,
    Attestation,
    AttestVersion,
    CreateModel,
    CreateVersion,
    Decision,
    Evaluation,
    EvaluationJob,
    FileSignature,
    Latency,
    LatencyReport,
    Model,
    ModelFile,
    ModelVersion,
    PromoteVersion,
    RetentionStep,
    RollbackAlias,
    SetPolicy,
    SetRetention,
    SignatureCheck,
    SignVersion,
    StartEvaluation,
    StateReason,
    VersionDiff,
)

SPOOL_MEMORY_BYTES = 8 * MIB
Orders = Annotated[list[str] | None, Parameter(query="order_by")]
Limit = Annotated[int, Parameter(ge=1, le=PAGE_ITEMS_MAX)]
_MODEL = "/api/models/{name:str}"
_VERSION = _MODEL + "/versions/{version:str}"


@get("/api/models", requires=Action.READ)
def list_models(
    caller: Scope,
    registry: Registry,
    filter: str = "",
    order_by: Orders = None,
    limit: Limit = PAGE_ITEMS_DEFAULT,
    page: str | None = None,
) -> Page[Model]:
    """Models that meet a filter, by name."""
    return registry.models.search(caller, filter, order_by or (), limit=limit, page=page)


@post("/api/models", requires=Action.WRITE, status_code=201)
def create_model(caller: Scope, registry: Registry, data: CreateModel) -> Model:
    """Register a name."""
    return registry.models.create(caller, data.name, description=data.description, tags=data.tags, policy=data.policy)


@get(_MODEL, requires=Action.READ)
def get_model(caller: Scope, registry: Registry, name: str) -> Model:
    """A model with its aliases, its policy and its newest versions."""
    return registry.models.get(caller, name)


@delete(_MODEL, requires=Action.WRITE)
def delete_model(caller: Scope, registry: Registry, name: str, reason: str = "") -> None:
    """Drop a model with all its versions. With a policy, only an admin may."""
    registry.models.delete(caller, name, reason)


@put(_MODEL + "/policy", requires=Action.WRITE)
def set_policy(caller: Scope, registry: Registry, name: str, data: SetPolicy) -> Model:
    """Declare the policy, as a structure or as YAML. To change or remove a declared one takes an admin."""
    if data.yaml and data.policy is not None:
        raise InvalidInput("the policy is given twice, as `policy` and as `yaml`", code="policy.invalid")
    policy = read_policy(data.yaml) if data.yaml else data.policy
    return registry.models.set_policy(caller, name, policy, data.reason)


@get(_MODEL + "/versions", requires=Action.READ)
def list_model_versions(caller: Scope, registry: Registry, name: str, dropped: bool = False) -> list[ModelVersion]:
    """All versions, newest first."""
    return list(registry.versions.list(caller, name, dropped=dropped))


@post(_MODEL + "/versions", requires=Action.WRITE, status_code=201)
def create_model_version(caller: Scope, registry: Registry, name: str, data: CreateVersion) -> ModelVersion:
    """Take a version in from a source: its files as they are now."""
    return registry.versions.create(
        caller,
        name,
        data.source,
        run=data.run,
        logged_model=data.logged_model,
        description=data.description,
        tags=data.tags,
    )


@get(_VERSION, requires=Action.READ)
def get_model_version(caller: Scope, registry: Registry, name: str, version: str) -> ModelVersion:
    """The version that a number, an alias or `latest` names."""
    return registry.resolve(caller, name, version)


@get(_VERSION + "/files", requires=Action.READ)
def list_version_files(caller: Scope, registry: Registry, name: str, version: str) -> list[ModelFile]:
    """The files of a version."""
    return list(registry.versions.files(caller, name, version))


@get(_VERSION + "/content", requires=Action.READ)
def get_version_file(caller: Scope, registry: Registry, name: str, version: str, path: str) -> Stream:
    """One file of a version."""
    file, content = registry.versions.open(caller, name, version, path)
    headers = {"content-disposition": "attachment", "content-length": str(file.size_bytes)}
    return Stream(registry.versions.pieces(content), media_type="application/octet-stream", headers=headers)


@get(_VERSION + "/card", requires=Action.READ)
def get_card(caller: Scope, registry: Registry, name: str, version: str) -> Response[bytes]:
    """The model card of a version, in Markdown."""
    card = model_card(registry.record(caller, name, version))
    return Response(card.encode(), media_type="text/markdown; charset=utf-8")


@get(_VERSION + "/bom", requires=Action.READ)
def get_bill_of_materials(caller: Scope, registry: Registry, name: str, version: str) -> Response[bytes]:
    """The CycloneDX ML-BOM of a version."""
    bill = bill_of_materials(registry.record(caller, name, version))
    return Response(msgspec.json.encode(bill), media_type="application/vnd.cyclonedx+json")


@get(_VERSION + "/gates", requires=Action.READ)
def get_gates(caller: Scope, registry: Registry, name: str, version: str, alias: str = "") -> Decision:
    """Whether the version may be promoted now, with every gate's reason."""
    return registry.promotions.decide(caller, name, version, alias)


@post(_VERSION + "/evaluations", requires=Action.WRITE, status_code=201)
async def evaluate_version(
    request: Request[Any, Any, Any],
    caller: Scope,
    registry: Registry,
    name: str,
    version: str,
    dataset: str = "",
    threshold: float = 0.5,
) -> Evaluation:
    """Measure scored rows. The body is an Arrow IPC stream of row_id, label, score and slice columns."""
    with tempfile.SpooledTemporaryFile(max_size=SPOOL_MEMORY_BYTES) as spool:
        received = 0
        with spool_full():
            async for chunk in request.stream():
                received += len(chunk)
                if received > BODY_BYTES_MAX:
                    raise TooLarge(f"at most {BODY_BYTES_MAX:,} bytes of rows are taken", code="evaluation.too_large")
                spool.write(chunk)
            spool.seek(0)
        return await anyio.to_thread.run_sync(
            lambda: registry.evidence.evaluate(
                caller, name, version, cast(BinaryIO, spool), dataset=dataset, threshold=threshold
            )
        )


@post(_VERSION + "/evaluation-jobs", requires=Action.WRITE, status_code=201)
def start_evaluation(
    caller: Scope, registry: Registry, name: str, version: str, data: StartEvaluation
) -> EvaluationJob:
    """Let the platform make an evaluation: the model says its scores for the rows of a dataset version, in a job."""
    return _evaluation_jobs(registry).start(caller, name, version, data)


@get(_VERSION + "/evaluation-jobs", requires=Action.READ)
def list_evaluation_jobs(caller: Scope, registry: Registry, name: str, version: str) -> list[EvaluationJob]:
    """The evaluations that the platform makes or made, newest first."""
    return list(_evaluation_jobs(registry).list(caller, name, version))


@get("/api/evaluation-jobs/{evaluation:str}", requires=Action.READ)
def get_evaluation_job(caller: Scope, registry: Registry, evaluation: str) -> EvaluationJob:
    """How far one is."""
    return _evaluation_jobs(registry).get(caller, evaluation)


@get(_VERSION + "/evaluations", requires=Action.READ)
def list_evaluations(caller: Scope, registry: Registry, name: str, version: str) -> list[Evaluation]:
    """Evaluations, newest first."""
    return registry.evidence.evaluations(caller, name, version)


@post(_VERSION + "/latency", requires=Action.WRITE, status_code=201)
def record_latency(caller: Scope, registry: Registry, name: str, version: str, data: LatencyReport) -> Latency:
    """Keep a latency measurement."""
    return registry.evidence.record_latency(caller, name, version, data)


@get(_VERSION + "/latency", requires=Action.READ)
def list_latencies(caller: Scope, registry: Registry, name: str, version: str) -> list[Latency]:
    """Latency measurements, newest first."""
    return registry.evidence.latencies(caller, name, version)


@post(_VERSION + "/attestations", requires=Action.WRITE, status_code=201)
def attest_version(caller: Scope, registry: Registry, name: str, version: str, data: AttestVersion) -> Attestation:
    """State that a check of some kind passed or failed on these bytes: a scan, a licence, features."""
    return registry.statements.attest(caller, name, version, data)


@get(_VERSION + "/attestations", requires=Action.READ)
def list_attestations(caller: Scope, registry: Registry, name: str, version: str) -> list[Attestation]:
    """Attestations, newest first."""
    return registry.statements.attestations(caller, name, version)


@post(_VERSION + "/signatures", requires=Action.WRITE, status_code=201)
def sign_version(caller: Scope, registry: Registry, name: str, version: str, data: SignVersion) -> FileSignature:
    """Record a signature over all files, made by OpenSSF model signing."""
    return registry.statements.sign(caller, name, version, data)


@get(_VERSION + "/signatures", requires=Action.READ)
def list_signatures(caller: Scope, registry: Registry, name: str, version: str) -> list[FileSignature]:
    """Signatures with their bundles, newest first."""
    return registry.statements.signatures(caller, name, version)


@get(_VERSION + "/signatures/check", requires=Action.READ)
def check_version_signatures(caller: Scope, registry: Registry, name: str, version: str) -> list[SignatureCheck]:
    """How each signature stands now: whether it is valid, and by a key that the policy trusts."""
    return registry.statements.check(caller, name, version)


@post(_VERSION + "/approvals", requires=Action.APPROVE, status_code=201)
def approve_version(caller: Scope, registry: Registry, name: str, version: str, data: ApproveVersion) -> Approval:
    """Say yes to the bytes of a version."""
    return registry.evidence.approve(caller, name, version, data.reason, digest=data.digest)


@get(_VERSION + "/approvals", requires=Action.READ)
def list_approvals(caller: Scope, registry: Registry, name: str, version: str) -> list[Approval]:
    """Approvals, the revoked ones too."""
    return registry.evidence.approvals(caller, name, version)


@post(_VERSION + "/approvals/{approval:str}/revoke", requires=Action.APPROVE)
def revoke_approval(
    caller: Scope, registry: Registry, name: str, version: str, approval: str, data: StateReason
) -> list[Approval]:
    """Take an approval back."""
    registry.evidence.revoke(caller, name, version, approval, data.reason)
    return registry.evidence.approvals(caller, name, version)


@post(_VERSION + "/trust", requires=Action.APPROVE)
def trust_version(caller: Scope, registry: Registry, name: str, version: str, data: StateReason) -> ModelVersion:
    """Take responsibility for files that are not of a safe format."""
    return registry.versions.trust(caller, name, version, data.reason)


@post(_VERSION + "/drop", requires=Action.WRITE)
def drop_version(caller: Scope, registry: Registry, name: str, version: str, data: StateReason) -> ModelVersion:
    """Take a version out of use for ever."""
    return registry.versions.drop(caller, name, version, data.reason)


@put(_MODEL + "/retention", requires=Action.WRITE)
def set_retention(caller: Scope, registry: Registry, name: str, data: SetRetention) -> Model:
    """Declare which versions are dropped by themselves. On a model with a policy this takes an admin."""
    return registry.retention.declare(caller, name, data.retention, data.reason)


@get(_MODEL + "/retention", requires=Action.READ)
def preview_retention(caller: Scope, registry: Registry, name: str) -> list[RetentionStep]:
    """What the declared retention would do to each version now."""
    return registry.retention.preview(caller, name)


@post(_MODEL + "/promote", requires=Action.WRITE)
def promote_model(caller: Scope, registry: Registry, name: str, data: PromoteVersion) -> ModelVersion:
    """Let an alias point to a version, where gates and approvals allow it or an admin overrides."""
    return registry.promote(
        caller,
        name,
        data.version,
        data.alias,
        data.reason,
        override=data.override,
        expected=data.expected,
    )


@post(_MODEL + "/rollback", requires=Action.WRITE)
def rollback_model(caller: Scope, registry: Registry, name: str, data: RollbackAlias) -> ModelVersion:
    """Let an alias point to the version before the present one."""
    return registry.rollback(caller, name, data.alias, data.reason)


@get(_MODEL + "/aliases/{alias:str}", requires=Action.READ)
def get_alias(caller: Scope, registry: Registry, name: str, alias: str, at: datetime | None = None) -> ModelVersion:
    """The version that an alias points to, or pointed to at an instant."""
    if at is None:
        return registry.resolve(caller, name, alias)
    if at.tzinfo is None:
        raise InvalidInput("`at` has no time zone", code="time.naive", hint="write it as 2026-01-31T12:00:00Z")
    return registry.at(caller, name, alias, at)


@delete(_MODEL + "/aliases/{alias:str}", requires=Action.WRITE)
def delete_alias(caller: Scope, registry: Registry, name: str, alias: str, reason: str = "") -> None:
    """Let an alias point nowhere. A guarded one takes an admin."""
    registry.promotions.unset(caller, name, alias, reason)


@get(_MODEL + "/history", requires=Action.READ)
def get_history(caller: Scope, registry: Registry, name: str, alias: str | None = None) -> list[AliasMove]:
    """All moves of the aliases, oldest first."""
    return registry.history(caller, name, alias)


@get(_MODEL + "/diff", requires=Action.READ)
def diff_versions(caller: Scope, registry: Registry, name: str, before: str, after: str) -> VersionDiff:
    """In what two versions (by number or alias) differ."""
    return registry.diff(caller, name, before, after)


@post("/api/import/models", requires=Action.ADMIN)
def import_model(caller: Scope, registry: Registry, data: ImportModel) -> Model:
    """Take in a registered model of another registry; again, the one that it became."""
    return registry.imports.model(caller, data)


@post("/api/import/model-versions", requires=Action.ADMIN)
def import_model_version(caller: Scope, registry: Registry, data: ImportVersion) -> ImportedVersion:
    """Take in a version of another registry under its own number."""
    return registry.imports.version(caller, data)


def _evaluation_jobs(registry: Registry) -> EvaluationJobs:
    assert registry.evaluation_jobs is not None, "the app composes the registry with jobs"
    return registry.evaluation_jobs


ROUTES = [
    list_models,
    create_model,
    get_model,
    delete_model,
    set_policy,
    list_model_versions,
    create_model_version,
    get_model_version,
    list_version_files,
    get_version_file,
    get_card,
    get_bill_of_materials,
    get_gates,
    evaluate_version,
    start_evaluation,
    list_evaluation_jobs,
    get_evaluation_job,
    list_evaluations,
    record_latency,
    list_latencies,
    attest_version,
    list_attestations,
    sign_version,
    list_signatures,
    check_version_signatures,
    approve_version,
    list_approvals,
    revoke_approval,
    trust_version,
    drop_version,
    set_retention,
    preview_retention,
    promote_model,
    rollback_model,
    get_alias,
    delete_alias,
    get_history,
    diff_versions,
    import_model,
    import_model_version,
    *WEBHOOK_ROUTES,
]
