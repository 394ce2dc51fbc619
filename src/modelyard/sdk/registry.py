"""Models in a program: `modelyard.model("delay").promote(3, "champion", reason="better on the held-out weeks")`."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from modelyard.kernel.errors import EngineError, Forbidden, InvalidInput, NotFound, Unavailable, UserCodeError
from modelyard.kernel.paths import make_private, open_inside
from modelyard.sdk.client import Client, connect
from modelyard.sdk.handle import Handle
from modelyard.sdk.signing import verify_directory
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
    Policy,
    PromoteVersion,
    Retention,
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

if TYPE_CHECKING:
    import pyarrow as pa

ARROW_STREAM = "application/vnd.apache.arrow.stream"
ROW_COLUMNS = ("row_id", "label", "score")
Ref = int | str


class VersionRecord:
    """What is on record about one version."""

    def __init__(self, client: Client, path: str) -> None:
        self._client = client
        self._path = path

    def files(self) -> list[ModelFile]:
        """The files, by path."""
        return self._client.get(f"{self._path}/files", list[ModelFile])

    def evaluations(self) -> list[Evaluation]:
        """Evaluations, newest first."""
        return self._client.get(f"{self._path}/evaluations", list[Evaluation])

    def latencies(self) -> list[Latency]:
        """Latency measurements, newest first."""
        return self._client.get(f"{self._path}/latency", list[Latency])

    def approvals(self) -> list[Approval]:
        """Approvals, oldest first, the revoked ones too."""
        return self._client.get(f"{self._path}/approvals", list[Approval])

    def revoke(self, approval: str, reason: str) -> list[Approval]:
        """Take an approval back: one's own, or as an admin anybody's."""
        path = f"{self._path}/approvals/{quote(approval, safe='')}/revoke"
        return self._client.post(path, StateReason(reason=reason), list[Approval])

    def attest(
        self, kind: str, summary: str, *, passed: bool = True, value: str = "", evidence: str = ""
    ) -> Attestation:
        """State that a check of some kind passed or failed on these bytes (`scan`, `license`, `features` …)."""
        body = AttestVersion(kind=kind, passed=passed, summary=summary, value=value, evidence=evidence)
        return self._client.post(f"{self._path}/attestations", body, Attestation)

    def attestations(self) -> list[Attestation]:
        """Attestations, newest first."""
        return self._client.get(f"{self._path}/attestations", list[Attestation])

    def sign(self, bundle: str, public_key: str) -> FileSignature:
        """Record a signature that `modelyard.sdk.signing` or OpenSSF's own tool made over all files."""
        return self._client.post(
            f"{self._path}/signatures", SignVersion(bundle=bundle, public_key=public_key), FileSignature
        )

    def signatures(self) -> list[FileSignature]:
        """Signatures over the files, newest first."""
        return self._client.get(f"{self._path}/signatures", list[FileSignature])

    def check_signatures(self) -> list[SignatureCheck]:
        """How each signature stands now: whether it is valid, and by a key that the policy trusts."""
        return self._client.get(f"{self._path}/signatures/check", list[SignatureCheck])

    def card(self) -> str:
        """The model card, in Markdown."""
        return self._client.get_bytes(f"{self._path}/card").decode()

    def bill_of_materials(self) -> dict[str, Any]:
        """The CycloneDX ML-BOM."""
        return self._client.get(f"{self._path}/bom", dict[str, Any])

    def trust(self, reason: str) -> ModelVersion:
        """Take responsibility, as an approver, for files of an unsafe format."""
        return self._client.post(f"{self._path}/trust", StateReason(reason=reason), ModelVersion)


class ModelRules(Handle):
    """What is declared about a model: when its aliases move, and what is let go."""

    _NOUN = "model"
    _AT = "/api/models"

    def set_policy(self, policy: Policy | str | None, reason: str = "") -> Model:
        """Declare the policy, as a structure or as YAML; None takes it away. Changing a declared one takes an admin."""
        body = (
            SetPolicy(yaml=policy, reason=reason)
            if isinstance(policy, str)
            else SetPolicy(policy=policy, reason=reason)
        )
        return msgspec.convert(self._client.put(f"{self._path}/policy", body), Model)

    def set_retention(self, retention: Retention | None, reason: str = "") -> Model:
        """Declare which versions are dropped by themselves; None takes that away."""
        body = SetRetention(retention=retention, reason=reason)
        return msgspec.convert(self._client.put(f"{self._path}/retention", body), Model)

    def retention_plan(self) -> list[RetentionStep]:
        """What the declared retention would do to each version now."""
        return self._client.get(f"{self._path}/retention", list[RetentionStep])

    def unset_alias(self, alias: str, reason: str = "") -> None:
        """Let an alias point nowhere. One that a policy guards takes an admin."""
        self._client.delete(f"{self._path}/aliases/{quote(alias, safe='')}", params={"reason": reason})


class ModelHandle(ModelRules):
    """A registered model by its name. Versions are named by number, by alias, or as `latest`."""

    def _version(self, version: Ref) -> str:
        return f"{self._path}/versions/{quote(str(version), safe='')}"

    # --- the model ------------------------------------------------------------------------------------------------

    def create(
        self, *, description: str = "", tags: Mapping[str, str] | None = None, policy: Policy | None = None
    ) -> Model:
        """Register the name. Raises Conflict (`model.exists`)."""
        body = CreateModel(name=self.name, description=description, tags=dict(tags or {}), policy=policy)
        return self._client.post("/api/models", body, Model)

    def get(self) -> Model:
        """Aliases, policy and newest versions. Raises NotFound."""
        return self._client.get(self._path, Model)

    def exists(self) -> bool:
        """Whether the name is registered."""
        try:
            self.get()
        except NotFound:
            return False
        return True

    def delete(self, reason: str = "") -> None:
        """Drop the model with all its versions."""
        self._client.delete(self._path, params={"reason": reason})

    # --- versions -------------------------------------------------------------------------------------------------

    def register(
        self,
        source: str,
        *,
        run: str = "",
        description: str = "",
        tags: Mapping[str, str] | None = None,
        create: bool = True,
    ) -> ModelVersion:
        """Take a version in from `models:/m-…`, `runs:/<run>/<path>` or another version; with `create` the name too."""
        if create and not self.exists():
            self.create()
        body = CreateVersion(source=source, run=run, description=description, tags=dict(tags or {}))
        return self._client.post(f"{self._path}/versions", body, ModelVersion)

    def versions(self, *, dropped: bool = False) -> list[ModelVersion]:
        """All versions, newest first."""
        return self._client.get(f"{self._path}/versions", list[ModelVersion], {"dropped": dropped})

    def resolve(self, version: Ref) -> ModelVersion:
        """The version that a number, an alias or `latest` names. Raises NotFound."""
        return self._client.get(self._version(version), ModelVersion)

    def record(self, version: Ref) -> VersionRecord:
        """What is on record about one version: its files, evidence and approvals."""
        number = self._number(version)
        return VersionRecord(self._client, self._version(number))

    def download(self, version: Ref, into: Path, *, public_key: Path | None = None) -> ModelVersion:
        """Write the files of a version below an empty directory, each checked against its digest.

        With `public_key` the files must be signed with that key: what was written is verified here, on this machine.
        Without it, a policy that requires signatures is asked of the server. Raises EngineError where bytes arrive
        damaged (that file is not left behind), Forbidden where a signature is wanted and there is none that counts.
        """
        found = self.resolve(version)
        if public_key is None:
            self._check_signed(found)
        self.write_files(found.version, into)
        if public_key is not None:
            self.verify(found.version, into, public_key)
        return found

    def verify(self, version: Ref, directory: Path, public_key: Path) -> None:
        """Raise Forbidden unless a signature of the version, by that key, is over exactly the files in a directory."""
        signatures = self.record(version).signatures()
        if not signatures:
            raise Forbidden(f"nobody has signed the files of {self.name}@{version}", code="signing.missing")
        failure: Forbidden | None = None
        for one in signatures:
            try:
                verify_directory(directory, one.bundle, public_key)
            except Forbidden as error:
                failure = failure or error
            else:
                return
        assert failure is not None
        raise failure

    def _check_signed(self, found: ModelVersion) -> None:
        policy = self.get().policy
        if policy is None or policy.require_signature is None:
            return
        checks = self.record(found.version).check_signatures()
        if not any(one.trusted for one in checks):
            why = "; ".join(one.reason for one in checks) or "nobody has signed them"
            raise Forbidden(
                f"the policy wants the files of {found.urn} signed with a trusted key: {why}",
                code="signing.required",
                hint=f"sign them with `modelyard model sign {self.name} {found.version} --key private.pem`",
            )

    def write_files(self, version: Ref, into: Path) -> None:
        """Write the files of a version, each checked against its digest, whoever signed them: to sign them, too."""
        found = self.resolve(version)
        make_private(into)
        for one in self.record(found.version).files():
            digest = hashlib.sha256()
            content = f"{self._version(found.version)}/content"
            with (
                self._client.stream(content, {"path": one.path}) as pieces,
                open_inside(into, one.path, "xb") as sink,
            ):
                for piece in pieces:
                    digest.update(piece)
                    sink.write(piece)
            if digest.hexdigest() != one.digest:
                (into / one.path).unlink()
                raise EngineError(f"'{one.path}' of {found.urn} arrived damaged", code="version.damaged")

    def drop(self, version: Ref, reason: str) -> ModelVersion:
        """Take a version out of use for ever."""
        return self._client.post(
            f"{self._version(self._number(version))}/drop", StateReason(reason=reason), ModelVersion
        )

    def diff(self, before: Ref, after: Ref) -> VersionDiff:
        """In what two versions differ."""
        return self._client.get(f"{self._path}/diff", VersionDiff, {"before": before, "after": after})

    # --- evidence -------------------------------------------------------------------------------------------------

    def evaluate(
        self, version: Ref, rows: pa.Table | Mapping[str, Sequence[Any]], *, dataset: str = "", threshold: float = 0.5
    ) -> Evaluation:
        """Send scored rows (row_id, label, score, and slice columns) for the server to measure and keep.

        `dataset` is the URN of the version that the rows come from, such as `dataset:held_out@3`.
        """
        return self._client.send_bytes(  # type: ignore[no-any-return]
            "POST",
            f"{self._version(self._number(version))}/evaluations",
            _to_arrow(rows),
            media_type=ARROW_STREAM,
            type=Evaluation,
            params={"dataset": dataset, "threshold": threshold},
        )

    def start_evaluation(self, version: Ref, asked: StartEvaluation) -> EvaluationJob:
        """Let the platform make an evaluation in a job: the model says its scores for the rows of a dataset version."""
        return self._client.post(f"{self._version(self._number(version))}/evaluation-jobs", asked, EvaluationJob)

    def evaluate_on(self, version: Ref, asked: StartEvaluation, *, timeout_s: float = 3_600.0) -> Evaluation:
        """As `start_evaluation`, and wait for what was measured. Raises UserCodeError where the model failed,
        Unavailable after the timeout; the evaluation goes on then."""
        job = self.start_evaluation(version, asked)
        give_up = time.monotonic() + timeout_s
        while job.state in ("preparing", "scoring"):
            if time.monotonic() > give_up:
                raise Unavailable(
                    f"evaluation {job.id} has not ended after {timeout_s:g} s",
                    code="evaluation.timeout",
                    hint=f"see `modelyard job get {job.job}`" if job.job else "is the server up?",
                )
            time.sleep(0.2)
            job = self._client.get(f"/api/evaluation-jobs/{job.id}", EvaluationJob)
        if job.state == "failed":
            raise UserCodeError(f"the evaluation failed: {job.error}", code="evaluation.failed")
        found = self._client.get(f"{self._version(job.version)}/evaluations", list[Evaluation])
        return next(one for one in found if one.id == job.evaluation)

    def record_latency(self, version: Ref, *, p50_ms: float, p95_ms: float, requests: int, measured_on: str) -> Latency:
        """Keep a latency measurement, in milliseconds."""
        body = LatencyReport(p50_ms=p50_ms, p95_ms=p95_ms, requests=requests, measured_on=measured_on)
        return self._client.post(f"{self._version(self._number(version))}/latency", body, Latency)

    def approve(self, version: Ref, reason: str) -> Approval:
        """Say yes to the bytes of a version, as they are when this is called."""
        found = self.resolve(version)
        body = ApproveVersion(reason=reason, digest=found.digest)
        return self._client.post(f"{self._version(found.version)}/approvals", body, Approval)

    # --- promotion ------------------------------------------------------------------------------------------------

    def gates(self, version: Ref, alias: str = "") -> Decision:
        """Whether a version may be promoted now, with every gate's reason."""
        return self._client.get(f"{self._version(self._number(version))}/gates", Decision, {"alias": alias})

    def promote(
        self, version: Ref, alias: str, reason: str = "", *, override: bool = False, expected: int | None = None
    ) -> ModelVersion:
        """Let the alias point to the version. Raises Forbidden (`promotion.refused`) naming what is missing."""
        body = PromoteVersion(
            alias=alias, version=self._number(version), reason=reason, override=override, expected=expected
        )
        return self._client.post(f"{self._path}/promote", body, ModelVersion)

    def rollback(self, alias: str, reason: str = "") -> ModelVersion:
        """Let the alias point to the version before the present one."""
        return self._client.post(f"{self._path}/rollback", RollbackAlias(alias=alias, reason=reason), ModelVersion)

    def history(self, alias: str | None = None) -> list[AliasMove]:
        """All moves of the aliases, oldest first."""
        return self._client.get(f"{self._path}/history", list[AliasMove], {"alias": alias})

    def at(self, alias: str, instant: datetime) -> ModelVersion:
        """The version that the alias pointed to at an instant. Raises NotFound where it pointed to none."""
        if instant.tzinfo is None:
            raise InvalidInput("the instant has no time zone", code="time.naive")
        path = f"{self._path}/aliases/{quote(alias, safe='')}"
        return self._client.get(path, ModelVersion, {"at": instant.isoformat()})

    def _number(self, version: Ref) -> int:
        return version if isinstance(version, int) else self.resolve(version).version


def list_models(
    client: Client | None = None, *, filter: str = "", limit: int = 100, page: str | None = None
) -> Page[Model]:
    """Models that meet a filter, by name."""
    params = {"filter": filter or None, "limit": limit, "page": page}
    return (client or connect()).get("/api/models", Page[Model], params)


def _to_arrow(rows: pa.Table | Mapping[str, Sequence[Any]]) -> bytes:
    import pyarrow as pa  # heavy: imported late

    try:
        table = pa.table(dict(rows)) if isinstance(rows, Mapping) else rows
        lacking = [name for name in ROW_COLUMNS if name not in table.column_names]
    except (pa.ArrowException, AttributeError, TypeError) as error:
        raise InvalidInput(
            f"the rows are no table: {error}",
            code="evaluation.columns",
            hint="give a pyarrow.Table, or a mapping of column names to values",
        ) from error
    if lacking:
        raise InvalidInput(
            f"the rows lack {', '.join(lacking)}",
            code="evaluation.columns",
            hint="name them row_id (unique), label (0 or 1) and score; all further columns are slices",
        )
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()
