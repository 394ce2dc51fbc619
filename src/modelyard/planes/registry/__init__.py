"""The registry: models, their immutable versions, the evidence about them, and the gates that aliases pass.

`Registry` is the face: `.models`, `.versions`, `.evidence`, `.evaluation_jobs` (where there are jobs), `.statements`,
`.promotions`, `.retention`, `.webhooks`, `.imports`; on itself are the verbs that other planes use.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from modelyard.engines.blobs.base import BlobStore
from modelyard.kernel.auth import Scope, system_scope
from modelyard.kernel.database import Database, Transaction
from modelyard.kernel.events import EventReader
from modelyard.kernel.reconcile import Reconciler
from modelyard.kernel.sealing import Sealer
from modelyard.planes.data import Data
from modelyard.planes.jobs import Jobs
from modelyard.planes.registry import evidence_store, store
from modelyard.planes.registry.card import Record, bill_of_materials, model_card
from modelyard.planes.registry.diff import changes, packages_of
from modelyard.planes.registry.evaluation import CALIBRATION_BINS, measure
from modelyard.planes.registry.history import step_back
from modelyard.planes.registry.ports import Uses
from modelyard.planes.registry.reconcile import EvaluationsCarriedOn, RetentionKeeper, WebhookDeliveries, WebhookReader
from modelyard.planes.registry.services.evaluation_jobs import EvaluationJobs
from modelyard.planes.registry.services.evidence import Evidence
from modelyard.planes.registry.services.imports import Imports
from modelyard.planes.registry.services.models import Models
from modelyard.planes.registry.services.promotions import Promotions
from modelyard.planes.registry.services.retention import Retentions
from modelyard.planes.registry.services.statements import Statements
from modelyard.planes.registry.services.versions import VERSION_ROOT, StoredVersion, Versions
from modelyard.planes.registry.services.webhooks import Webhooks
from modelyard.planes.registry.snapshot import Sources
from modelyard.planes.registry.sources import check_not_climbing
from modelyard.planes.registry.verdicts import DataVerdicts
from modelyard.planes.tracking import Tracking
from modelyard.types.registry import AliasMove, Approval, Decision, ModelVersion, VersionDiff

REQUIREMENTS = "requirements.txt"
__all__ = [
    "CALIBRATION_BINS",
    "VERSION_ROOT",
    "Evidence",
    "Models",
    "Promotions",
    "Registry",
    "StoredVersion",
    "Versions",
    "bill_of_materials",
    "check_not_climbing",
    "measure",
    "model_card",
    "step_back",
]


class Registry:
    """The registry plane over a catalog, a store of blobs, and the planes below it."""

    def __init__(
        self,
        database: Database,
        blobs: BlobStore,
        tracking: Tracking,
        data: Data,
        *,
        outbound_allow: str = "",
        sealer: Sealer | None = None,
        jobs: Jobs | None = None,
        folders: Path = Path("evaluations"),
    ) -> None:
        self._database = database
        self._uses: list[Uses] = []
        self.models = Models(database, self._uses)
        self._sources = Sources(tracking)
        self.versions = Versions(database, blobs, self._sources, self._uses)
        self.statements = Statements(database)
        self.retention = Retentions(database, self.versions, self._uses)
        self.imports = Imports(database, self.models, self.versions)
        self.evidence = Evidence(database, blobs)
        self.evaluation_jobs = (
            None if jobs is None else EvaluationJobs(database, data, jobs, self.evidence, self.materialize, folders)
        )
        self.promotions = Promotions(database, self.evidence, DataVerdicts(data))
        self.webhooks = Webhooks(database, outbound_allow, sealer)

    def used_by(self, uses: Uses) -> None:
        """Ask this function, too, which versions are in use: those are not dropped."""
        self._uses.append(uses)

    def in_force(self, tx: Transaction) -> Mapping[str, Sequence[str]]:
        """The versions that an alias names or that stand in production, each with its model: whose data must stay."""
        return {f"model:{name}@{number}": [f"model:{name}"] for name, number in store.versions_in_force(tx)}

    def resolve(self, scope: Scope, name: str, reference: str | int) -> ModelVersion:
        """The version that a number, an alias or `latest` names. Raises NotFound."""
        return self.versions.resolve(scope, name, reference)

    def materialize(self, scope: Scope, name: str, version: int, into: Path) -> ModelVersion:
        """Write all files of a version below an empty directory, each checked against its digest, to be loaded.

        Raises Forbidden (`signing.required`) where the policy wants a trusted signature and there is none.
        """
        self.statements.check_loadable(scope, name, version)
        return self.versions.materialize(scope, name, version, into)

    def decide(self, scope: Scope, name: str, version: int, alias: str = "") -> Decision:
        """Whether the version may get the alias now, with every gate's reason."""
        return self.promotions.decide(scope, name, version, alias)

    def approve(self, scope: Scope, name: str, version: int, reason: str, *, digest: str = "") -> Approval:
        """Say yes to the bytes of a version, by name and with a reason."""
        return self.evidence.approve(scope, name, version, reason, digest=digest)

    def promote(
        self,
        scope: Scope,
        name: str,
        version: int,
        alias: str,
        reason: str,
        *,
        override: bool = False,
        expected: int | None = None,
    ) -> ModelVersion:
        """Let the alias point to the version. Raises Forbidden (`promotion.refused`), Conflict."""
        return self.promotions.promote(scope, name, version, alias, reason, override=override, expected=expected)

    def rollback(self, scope: Scope, name: str, alias: str, reason: str) -> ModelVersion:
        """Let the alias point to the version before the present one."""
        return self.promotions.rollback(scope, name, alias, reason)

    def drop(self, scope: Scope, name: str, version: int, reason: str) -> ModelVersion:
        """Take a version out of use for ever. Raises Conflict for a protected one."""
        return self.versions.drop(scope, name, version, reason)

    def history(self, scope: Scope, name: str, alias: str | None = None) -> list[AliasMove]:
        """All moves of an alias, or of all aliases, oldest first."""
        return self.promotions.history(scope, name, alias)

    def at(self, scope: Scope, name: str, alias: str, instant: datetime) -> ModelVersion:
        """The version that the alias pointed to at an instant."""
        return self.promotions.at(scope, name, alias, instant)

    def diff(self, scope: Scope, name: str, before: str | int, after: str | int) -> VersionDiff:
        """In what two versions differ, and how they compare on the newest rows that both were evaluated on."""
        old, new = self.resolve(scope, name, before), self.resolve(scope, name, after)
        pair = self.evidence.common(scope, old, new)
        found = changes(
            old,
            new,
            (self.versions.files(scope, name, old.version), self.versions.files(scope, name, new.version)),
            pair or (None, None),
            (self._sources.params(scope, old.provenance.run), self._sources.params(scope, new.provenance.run)),
            (self._packages(scope, old), self._packages(scope, new)),
        )
        comparison = None if pair is None else self.evidence.compared(scope, pair[1], pair[0], "auc", 0.95)
        return VersionDiff(model=name, before=old.version, after=new.version, changes=found, comparison=comparison)

    def _packages(self, scope: Scope, version: ModelVersion) -> dict[str, str]:
        return packages_of(self.versions.text(scope, version.model, version.version, REQUIREMENTS))

    def record(self, scope: Scope, name: str, reference: str | int) -> Record:
        """All that is known about a version, for its card and its bill of materials."""
        version = self.resolve(scope, name, reference)
        number = version.version
        return Record(
            model=self.models.get(scope, name),
            version=version,
            files=self.versions.files(scope, name, number),
            evaluations=self.evidence.evaluations(scope, name, number),
            latencies=self.evidence.latencies(scope, name, number),
            attestations=self.statements.attestations(scope, name, number),
            signatures=self.statements.check(scope, name, number),
            approvals=self.evidence.approvals(scope, name, number),
            moves=self.history(scope, name),
            decision=self.decide(scope, name, number),
        )

    def reconcilers(self) -> Sequence[Reconciler]:
        """What runs in the background: deliveries to webhooks, retention, and evaluations that the platform makes."""
        evaluating = [] if self.evaluation_jobs is None else [EvaluationsCarriedOn(self.evaluation_jobs)]
        return [WebhookDeliveries(self.webhooks), RetentionKeeper(self.retention), *evaluating]

    def readers(self) -> Sequence[EventReader]:
        """Who follows the event log: what turns events into deliveries."""
        return [WebhookReader(self.webhooks)]

    def kept_blobs(self) -> Iterator[str]:
        """The digests of all blobs that versions and evaluations of any project name; some more than once."""
        with self._database.reading(system_scope("*")) as tx:
            yield from evidence_store.kept_blobs(tx)
