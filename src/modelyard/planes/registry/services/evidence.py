"""The verbs of evidence: evaluations that the server computes, latency, approvals, and comparisons on the same rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, BinaryIO, NamedTuple

from modelyard.engines.blobs.base import BlobStore
from modelyard.kernel.auth import Action, Scope, check
from modelyard.kernel.database import Database, Transaction
from modelyard.kernel.errors import Conflict, Forbidden, InvalidInput, NotFound
from modelyard.kernel.ids import new_id
from modelyard.planes.registry import evidence_store, store
from modelyard.planes.registry.arrow_rows import BODY_BYTES_MAX, in_order_of_ids, labels_digest, read_rows
from modelyard.planes.registry.evaluation import compare, measure, measure_slices
from modelyard.planes.registry.gates import AUTOMATION_PREFIX
from modelyard.planes.registry.rows import (
    known_digest,
    locked_model,
    model_and_version,
    submitters_of,
    version_row,
)
from modelyard.planes.registry.rules import check_reason
from modelyard.types.registry import (
    Approval,
    Comparison,
    Evaluation,
    Latency,
    LatencyReport,
    Metric,
    ModelVersion,
    Policy,
)

DATASET_CHARACTERS_MAX = 512


class Made(NamedTuple):
    """How the platform made an evaluation: under which id, in which job, of which bytes, and who asked for it."""

    id: str
    job: str
    version_digest: str
    by: str


class Evidence:
    """What is known of how good versions are, and who vouches for them."""

    def __init__(self, database: Database, blobs: BlobStore) -> None:
        self._database = database
        self._blobs = blobs

    def evaluate(
        self,
        scope: Scope,
        name: str,
        version: str | int,
        body: BinaryIO | Iterable[bytes],
        *,
        dataset: str = "",
        threshold: float = 0.5,
        made: Made | None = None,
    ) -> Evaluation:
        """Measure scored rows (an Arrow IPC stream of row_id, label, score and slice columns) and keep both.

        `made` is given where the platform let the model say the scores, of the bytes that it names. Raises InvalidInput
        for rows that cannot be read, Conflict where the version's files are not known.
        """
        _check_dataset(dataset)
        if not 0.0 <= threshold <= 1.0:
            raise InvalidInput(f"a threshold of {threshold} is not between 0 and 1", code="evaluation.threshold")
        with self._database.reading(scope) as tx:
            _, row = model_and_version(tx, name, version)
            digest = known_digest(row, name)
        if made is not None and made.version_digest != digest:
            raise Conflict(
                f"{name}@{version} has other bytes than those that were scored", code="evaluation.other_digest"
            )
        blob = self._blobs.put(body, size_bytes_max=BODY_BYTES_MAX)
        with self._blobs.open(blob.digest) as stream:
            rows = read_rows(stream)
        overall = measure(rows.labels, rows.scores, threshold)
        slices = measure_slices(rows, threshold)
        with self._database.transaction(scope) as tx:
            model = locked_model(tx, name, revised=True, updated=False)
            row = version_row(tx, model, version)
            kept = Evaluation(
                id=made.id if made else new_id(),
                model=name,
                version=row.version,
                version_digest=digest,
                dataset=dataset,
                at=tx.now,
                by=made.by if made else tx.actor,
                made_by="platform" if made else "client",
                job=made.job if made else "",
                threshold=threshold,
                overall=overall,
                slices=slices,
                rows_digest=blob.digest,
                labels_digest=labels_digest(rows),
            )
            evidence_store.add_evaluation(tx, model.id, kept)
            _tell_evaluated(tx, kept)
            return kept

    def evaluations(self, scope: Scope, name: str, version: str | int) -> list[Evaluation]:
        """Evaluations of a version, newest first."""
        with self._database.reading(scope) as tx:
            model, row = model_and_version(tx, name, version)
            return evidence_store.evaluations_of(tx, model, row.version)

    def record_latency(self, scope: Scope, name: str, version: str | int, report: LatencyReport) -> Latency:
        """Keep a latency measurement."""
        if report.p95_ms < report.p50_ms:
            raise InvalidInput(
                f"p95 ({report.p95_ms:g} ms) cannot be below p50 ({report.p50_ms:g} ms)", code="latency.invalid"
            )
        with self._database.transaction(scope) as tx:
            model = locked_model(tx, name, revised=True, updated=False)
            row = version_row(tx, model, version)
            made = Latency(
                id=new_id(),
                model=name,
                version=row.version,
                version_digest=known_digest(row, name),
                at=tx.now,
                by=tx.actor,
                p50_ms=report.p50_ms,
                p95_ms=report.p95_ms,
                requests=report.requests,
                measured_on=report.measured_on,
            )
            evidence_store.add_latency(tx, model.id, made)
            tx.event(
                "model.latency_measured",
                f"model:{name}@{row.version}",
                {"model": name, "version": row.version, "p95_ms": report.p95_ms},
            )
            return made

    def latencies(self, scope: Scope, name: str, version: str | int) -> list[Latency]:
        """Latency measurements of a version, newest first."""
        with self._database.reading(scope) as tx:
            model, row = model_and_version(tx, name, version)
            return evidence_store.latencies_of(tx, model, row.version)

    def approve(self, scope: Scope, name: str, version: str | int, reason: str, *, digest: str = "") -> Approval:
        """Say yes to the bytes of a version, by name and with a reason. Raises Forbidden for its submitter.

        An automation may approve what it submitted, where the policy lets automations approve at all.
        """
        check(scope.principal, Action.APPROVE, scope.project)
        check_reason(reason, "an approval")
        with self._database.transaction(scope) as tx:
            model = locked_model(tx, name, revised=True, updated=False)
            row = version_row(tx, model, version)
            known = known_digest(row, name)
            if digest and digest != known:
                raise Conflict(
                    f"{name}@{row.version} has the digest {known}, not {digest[:80]}",
                    code="approval.other_digest",
                    hint="look at the version again before you approve it",
                )
            _check_approver(store.policy_of(model), scope.actor, submitters_of(tx, name, row), f"{name}@{row.version}")
            standing = [
                one
                for one in evidence_store.approvals_of(tx, model.id, row.version)
                if one.by == scope.actor and one.revoked_at is None and one.version_digest == known
            ]
            for one in standing:
                _revoke(tx, one.id, "approved anew")
            made = Approval(
                id=new_id(), version=row.version, version_digest=known, by=tx.actor, at=tx.now, reason=reason
            )
            evidence_store.add_approval(tx, model.id, made)
            tx.event(
                "model.approved",
                f"model:{name}@{row.version}",
                {"model": name, "version": row.version, "approval": made.id, "digest": known, "reason": reason},
            )
            return made

    def approvals(self, scope: Scope, name: str, version: str | int) -> list[Approval]:
        """Approvals of a version, oldest first, the revoked ones too."""
        with self._database.reading(scope) as tx:
            model, row = model_and_version(tx, name, version)
            return evidence_store.approvals_of(tx, model.id, row.version)

    def revoke(self, scope: Scope, name: str, version: str | int, approval: str, reason: str) -> None:
        """Take an approval back: one's own, or as an admin anybody's. Raises NotFound where it does not stand."""
        check_reason(reason, "revoking an approval")
        with self._database.transaction(scope) as tx:
            model = locked_model(tx, name, revised=True, updated=False)
            row = version_row(tx, model, version)
            found = [one for one in evidence_store.approvals_of(tx, model.id, row.version) if one.id == approval]
            if not found or found[0].revoked_at is not None:
                raise NotFound(
                    f"{name}@{row.version} has no standing approval '{approval[:80]}'", code="approval.not_found"
                )
            if found[0].by != scope.actor:
                check(scope.principal, Action.ADMIN, scope.project)
            _revoke(tx, approval, reason)
            tx.event(
                "model.approval_revoked",
                f"model:{name}@{row.version}",
                {"model": name, "version": row.version, "approval": approval, "reason": reason},
            )

    def compared(
        self, scope: Scope, challenger: Evaluation, champion: Evaluation, metric: Metric, confidence: float
    ) -> Comparison:
        """Challenger against champion, on the rows that both were evaluated on. Computed once, then kept."""
        with self._database.reading(scope) as tx:
            known = evidence_store.comparison_of(tx, challenger.id, champion.id, metric, confidence)
        if known is not None:
            return known
        labels, old = self._scores(champion)
        _, new = self._scores(challenger)
        made = compare(metric, labels, old, new, confidence=confidence, threshold=challenger.threshold)
        with self._database.transaction(scope) as tx:
            evidence_store.keep_comparison(tx, challenger.id, champion.id, made)
        return made

    def common(self, scope: Scope, before: ModelVersion, after: ModelVersion) -> tuple[Evaluation, Evaluation] | None:
        """The newest evaluations of two versions on the same rows."""
        theirs = self.evaluations(scope, before.model, before.version)
        for mine in self.evaluations(scope, after.model, after.version):
            other = same_rows(theirs, mine, before.digest)
            if other is not None and mine.version_digest == after.digest:
                return other, mine
        return None

    def _scores(self, evaluation: Evaluation) -> tuple[Any, Any]:
        with self._blobs.open(evaluation.rows_digest, verify=True) as stream:
            return in_order_of_ids(read_rows(stream))


def _tell_evaluated(tx: Transaction, kept: Evaluation) -> None:
    urn, own = f"model:{kept.model}@{kept.version}", f"evaluation:{kept.id}"
    tx.link(own, "used", urn)
    if kept.dataset:
        tx.link(own, "used", kept.dataset)
    if kept.job:
        tx.link(f"job:{kept.job}", "produced", own)
    said = {
        "model": kept.model, "version": kept.version, "evaluation": kept.id, "made_by": kept.made_by,
        "dataset": kept.dataset, "rows": kept.overall.rows, "verdict": kept.overall.verdict, "auc": kept.overall.auc,
    }  # fmt: skip
    tx.event("model.evaluated", urn, said)


def same_rows(evaluations: Sequence[Evaluation], other: Evaluation, digest: str) -> Evaluation | None:
    """The newest of the evaluations that was made on the same rows as another, on the bytes of that digest."""
    return next(
        (
            one
            for one in evaluations
            if one.labels_digest == other.labels_digest and one.version_digest == digest and digest
        ),
        None,
    )


def _check_dataset(dataset: str) -> None:
    if not dataset:
        return
    name, at, number = dataset.removeprefix("dataset:").rpartition("@")
    shaped = dataset.startswith("dataset:") and at and name and number.isdecimal()
    if not shaped or len(dataset) > DATASET_CHARACTERS_MAX:
        raise InvalidInput(
            f"'{dataset[:200]}' does not name a dataset version",
            code="evaluation.dataset",
            hint="write dataset:name@version",
        )


def _check_approver(policy: Policy | None, actor: str, submitters: frozenset[str], what: str) -> None:
    machine = actor.startswith(AUTOMATION_PREFIX)
    if machine and policy is not None and not policy.approvals.automation:
        raise Forbidden(
            f"the policy of this model wants people to approve, and '{actor}' is an automation",
            code="approval.automation",
            hint="set approvals.automation in the policy if gates and reasons are enough",
        )
    if actor in submitters and not machine:
        raise Forbidden(
            f"'{actor}' submitted {what}, and nobody approves their own",
            code="approval.own",
            hint="ask another approver of the project",
        )


def _revoke(tx: Transaction, approval: str, reason: str) -> None:
    tx.execute(
        evidence_store.approvals.update()
        .where(evidence_store.approvals.c.id == approval)
        .values(revoked_at=tx.now, revoked_by=tx.actor, revoked_reason=reason)
    )
