"""The verbs of statements: attest a check, record a signature over the files, and say how the signatures stand now."""

from __future__ import annotations

from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database
from modelyard.kernel.errors import Conflict, Forbidden
from modelyard.kernel.ids import new_id
from modelyard.planes.registry import statement_store, store
from modelyard.planes.registry.rows import known_digest, locked_model, model_and_version, version_row
from modelyard.planes.registry.signing import check_public_key, check_signatures, trouble
from modelyard.types.registry import Attestation, AttestVersion, FileSignature, SignatureCheck, SignVersion


class Statements:
    """What people, jobs and scanners state about the bytes of versions."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def attest(self, scope: Scope, name: str, version: str | int, stated: AttestVersion) -> Attestation:
        """Keep an attestation. The newest of a kind is what counts; none is ever changed."""
        with self._database.transaction(scope) as tx:
            model = locked_model(tx, name, revised=True, updated=False)
            row = version_row(tx, model, version)
            made = Attestation(
                id=new_id(), model=name, version=row.version, version_digest=known_digest(row, name),
                kind=stated.kind, passed=stated.passed, summary=stated.summary, value=stated.value,
                evidence=stated.evidence, at=tx.now, by=tx.actor,
            )  # fmt: skip
            statement_store.add_attestation(tx, model.id, made)
            tx.event(
                "model.attested",
                f"model:{name}@{row.version}",
                {"model": name, "version": row.version, "kind": made.kind, "passed": made.passed, "id": made.id},
            )
            return made

    def attestations(self, scope: Scope, name: str, version: str | int) -> list[Attestation]:
        """Attestations of a version, newest first."""
        with self._database.reading(scope) as tx:
            model, row = model_and_version(tx, name, version)
            return statement_store.attestations_of(tx, model, row.version)

    def sign(self, scope: Scope, name: str, version: str | int, given: SignVersion) -> FileSignature:
        """Record a signature. Raises Conflict where it is none over exactly the files of this version."""
        key = check_public_key(given.public_key)
        with self._database.reading(scope) as tx:
            model, row = model_and_version(tx, name, version)
            digest = known_digest(row, name)
            files = store.files_of(tx, model.id, row.version)
        why = trouble(given.bundle, given.public_key, files)
        if why:
            raise Conflict(
                f"this is no signature over the files of {name}@{row.version}: {why}",
                code="signing.invalid",
                hint=f"sign them with `modelyard model sign {name} {row.version} --key private.pem`",
            )
        with self._database.transaction(scope) as tx:
            model = locked_model(tx, name, revised=True, updated=False)
            row = version_row(tx, model, row.version)
            made = FileSignature(
                id=new_id(), model=name, version=row.version, version_digest=digest, key=key,
                public_key=given.public_key, bundle=given.bundle, at=tx.now, by=tx.actor,
            )  # fmt: skip
            statement_store.add_signature(tx, model.id, made)
            tx.event(
                "model.version_signed",
                f"model:{name}@{row.version}",
                {"model": name, "version": row.version, "key": key, "digest": digest, "id": made.id},
            )
            return made

    def signatures(self, scope: Scope, name: str, version: str | int) -> list[FileSignature]:
        """Signatures of a version, newest first."""
        with self._database.reading(scope) as tx:
            model, row = model_and_version(tx, name, version)
            return statement_store.signatures_of(tx, model, row.version)

    def check(self, scope: Scope, name: str, version: str | int) -> list[SignatureCheck]:
        """How each signature of a version stands now, newest first."""
        with self._database.reading(scope) as tx:
            model, row = model_and_version(tx, name, version)
            given = statement_store.signatures_of(tx, model, row.version)
            files = store.files_of(tx, model.id, row.version)
            policy = store.policy_of(model)
        return check_signatures(given, files, row.digest, policy.require_signature if policy else None)

    def check_loadable(self, scope: Scope, name: str, version: str | int) -> None:
        """Raise Forbidden where the policy wants signed files and no trusted key signed these."""
        with self._database.reading(scope) as tx:
            model, _ = model_and_version(tx, name, version)
            policy = store.policy_of(model)
        if policy is None or policy.require_signature is None:
            return
        checks = self.check(scope, name, version)
        if any(one.trusted for one in checks):
            return
        found = "; ".join(f"that of {one.by}: {one.reason}" for one in checks) or "nobody has signed them"
        raise Forbidden(
            f"the files of {name}@{version} are not loaded without a signature that its policy trusts ({found})",
            code="signing.required",
            hint=f"sign them with `modelyard model sign {name} {version} --key private.pem`",
        )
