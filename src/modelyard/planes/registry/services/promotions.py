"""The verbs of promotion: decide, promote, roll back, and the history that none of them alters.

A decision is made on what the catalog says at one moment; the move then happens only if nothing that it rests on has
changed since (the model's revision), so that of two promotions at once one wins and the other is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from modelyard.kernel.auth import Action, Scope, check
from modelyard.kernel.database import Database, Transaction
from modelyard.kernel.errors import Conflict, EngineError, Forbidden, InvalidInput, NotFound
from modelyard.kernel.ids import new_id
from modelyard.kernel.lineage import neighbours
from modelyard.planes.registry import evidence_store, statement_store, store
from modelyard.planes.registry.gates import (
    Champion,
    VersionFacts,
    count_approvals,
    files_known,
    judge,
    same_dataset,
    unmet,
)
from modelyard.planes.registry.gates import Evidence as GateEvidence
from modelyard.planes.registry.history import rollback_doubts, step_back, version_at
from modelyard.planes.registry.rows import (
    data_behind,
    locked_model,
    may_approve,
    model_and_version,
    model_row,
    number_for,
    past_model,
    submitters_of,
    version_noun,
    version_row,
)
from modelyard.planes.registry.rules import (
    ACTIVE_STAGES,
    canonical_stage,
    check_alias,
    check_reason,
    check_settable_alias,
    guards,
)
from modelyard.planes.registry.services.evidence import Evidence, same_rows
from modelyard.planes.registry.services.models import announce_move
from modelyard.planes.registry.signing import check_signatures
from modelyard.planes.registry.verdicts import DataVerdicts
from modelyard.types.registry import (
    AliasMove,
    Approval,
    ApprovalCount,
    Attestation,
    Comparison,
    Decision,
    Evaluation,
    FileSignature,
    Latency,
    ModelFile,
    ModelVersion,
    MoveKind,
    Policy,
)

DEFAULT_ALIAS = "champion"
GUARDED_STAGE = "Production"


@dataclass(frozen=True)
class _State:
    """All that a decision rests on, read in one transaction. `other` is the champion's evaluation on the same rows."""

    revision: int
    policy: Policy
    declared: bool
    guarded: bool
    alias: str
    facts: VersionFacts
    submitters: frozenset[str]
    evaluation: Evaluation | None
    latency: Latency | None
    approvals: Sequence[Approval]
    approvers: frozenset[str]
    admins: frozenset[str]
    attestations: Sequence[Attestation]
    signatures: Sequence[FileSignature]
    files: Sequence[ModelFile]
    champion: int | None
    champion_evaluated: bool
    other: Evaluation | None
    now: datetime


class Promotions:
    """Aliases of models, and what lets them move."""

    def __init__(self, database: Database, evidence: Evidence, data: DataVerdicts) -> None:
        self._database = database
        self._evidence = evidence
        self._data = data

    def decide(self, scope: Scope, name: str, version: str | int, alias: str = "") -> Decision:
        """Whether the version may get the alias now, with every gate's reason. Without a policy it always may."""
        return self._decide(scope, name, version, alias)[0]

    def promote(
        self,
        scope: Scope,
        name: str,
        version: str | int,
        alias: str,
        reason: str = "",
        *,
        override: bool = False,
        expected: int | None = None,
    ) -> ModelVersion:
        """Let the alias point to the version.

        Raises Forbidden (`promotion.refused`) naming what is missing, unless an admin overrides with a reason, which
        stays on record; Conflict where something changed in between, or the alias is not at `expected` (0: nowhere).
        """
        check_settable_alias(alias)
        decision, state = self._decide(scope, name, version, alias)
        overriding = override and state.guarded and not decision.promotable
        if overriding:
            check(scope.principal, Action.ADMIN, scope.project)
            check_reason(reason, "an override")
        elif state.guarded and not decision.promotable:
            raise _refused(decision)
        with self._database.transaction(scope) as tx:
            model = _guarded_model(tx, name, state.revision) if state.guarded else locked_model(tx, name, revised=True)
            if state.guarded and not overriding:
                _check_approvers(tx, decision)
            row = version_row(tx, model, version)
            previous = store.alias_version(tx, model.id, alias)
            _check_expected(name, alias, previous, expected)
            if previous != row.version:
                kind: MoveKind = "override" if overriding else "promote"
                over = decision.reasons if overriding else []
                rested_on = decision if state.guarded else None
                _move(tx, model, alias, row.version, previous, kind, reason, over, rested_on)
            return version_noun(tx, model, row.version)

    def rollback(self, scope: Scope, name: str, alias: str, reason: str = "") -> ModelVersion:
        """Let the alias point to the version before the present one. Raises Conflict where there is none to go to.

        A guarded alias goes back to what had passed its gates; to a version that never did, or whose approval was
        taken back since, only an admin lets it go, with a reason, and that stays on record as for an override.
        """
        check_alias(alias)
        with self._database.transaction(scope) as tx:
            model = locked_model(tx, name, revised=True)
            moves = store.moves_of(tx, model.id, name, alias)
            target = step_back(moves, store.usable_versions(tx, model.id))
            if target is None:
                raise Conflict(
                    f"alias '{alias}' of {name} has no earlier version to go back to",
                    code="alias.no_earlier",
                    hint=f"see `modelyard model history {name}`",
                )
            policy = store.policy_of(model)
            doubts: list[str] = []
            if policy is not None and guards(policy, alias):
                doubts = rollback_doubts(moves, target, evidence_store.approvals_of(tx, model.id, target))
            if doubts and not scope.principal.may(Action.ADMIN, scope.project):
                raise Forbidden(
                    f"{name}@{target} may not become {alias} again: {'; '.join(doubts)}",
                    code="promotion.refused",
                    hint="an admin can roll back to it with a reason, or promote another version",
                    details={"unmet": doubts},
                )
            if doubts:
                check_reason(reason, "a rollback to a version that is in doubt")
            previous = store.alias_version(tx, model.id, alias)
            _move(tx, model, alias, target, previous, "rollback", reason, doubts)
            return version_noun(tx, model, target)

    def unset(self, scope: Scope, name: str, alias: str, reason: str = "") -> None:
        """Let the alias point nowhere; that it does not exist is no error. A guarded one needs an admin."""
        check_alias(alias)
        with self._database.transaction(scope) as tx:
            model = locked_model(tx, name, revised=True)
            previous = store.alias_version(tx, model.id, alias)
            if previous is None:
                return
            policy = store.policy_of(model)
            if policy is not None and guards(policy, alias):
                check(scope.principal, Action.ADMIN, scope.project)
            _move(tx, model, alias, None, previous, "delete", reason, [])

    def transition(
        self, scope: Scope, name: str, version: str | int, stage: str, *, archive_existing: bool = False
    ) -> ModelVersion:
        """Move a version to one of MLflow's stages. Where there is a policy, Production needs what a promotion does."""
        to = canonical_stage(stage)
        if archive_existing and to not in ACTIVE_STAGES:
            raise InvalidInput(
                "Model version transition cannot archive existing model versions because "
                f"'{stage}' is not an Active stage. Valid stages are {list(ACTIVE_STAGES)}",
                code="stage.not_active",
            )
        decision, state = self._decide(scope, name, version, "")
        policy = state.policy if state.guarded else None
        checked = policy is not None and to in (GUARDED_STAGE, *policy.aliases)
        if checked and not decision.promotable:
            raise _refused(decision)
        with self._database.transaction(scope) as tx:
            model = _guarded_model(tx, name, state.revision) if checked else locked_model(tx, name, revised=True)
            if checked:
                _check_approvers(tx, decision)
            row = version_row(tx, model, version)
            if row.stage == GUARDED_STAGE != to and store.policy_of(model) is not None:
                # As with an alias: what the gates let in is not taken out by whoever may write.
                check(scope.principal, Action.ADMIN, scope.project)
            table = store.versions
            if archive_existing:
                tx.execute(
                    table.update()
                    .where(table.c.model_id == model.id, table.c.stage == to, table.c.version != row.version)
                    .values(stage="Archived", updated_at=tx.now)
                )
            tx.execute(
                table.update()
                .where(table.c.model_id == model.id, table.c.version == row.version)
                .values(stage=to, updated_at=tx.now)
            )
            tx.event(
                "model.stage_changed",
                f"model:{name}@{row.version}",
                {"model": name, "version": row.version, "stage": to, "previous": row.stage},
            )
            return version_noun(tx, model, row.version)

    def aliased(self, scope: Scope, name: str, alias: str) -> ModelVersion:
        """The version under an alias, or the newest for `latest`. Raises NotFound; a number is no alias here."""
        check_alias(alias)
        with self._database.reading(scope) as tx:
            model = model_row(tx, name)
            number = None if alias.lower() == "latest" else store.alias_version(tx, model.id, alias)
            if number is None and alias.lower() != "latest":
                raise NotFound(
                    f"Registered model alias {alias} not found.",
                    code="alias.not_found",
                    hint=f"see the aliases with `modelyard model get {name}`",
                )
            return version_noun(tx, model, number_for(tx, model, "latest") if number is None else number)

    def history(self, scope: Scope, name: str, alias: str | None = None) -> list[AliasMove]:
        """All moves of an alias, or of all aliases, oldest first; also of a model that was deleted since."""
        with self._database.reading(scope) as tx:
            return store.moves_of(tx, past_model(tx, name).id, name, alias)

    def at(self, scope: Scope, name: str, alias: str, instant: datetime) -> ModelVersion:
        """The version that the alias pointed to at an instant. Raises NotFound where it pointed to none."""
        check_alias(alias)
        with self._database.reading(scope) as tx:
            model = past_model(tx, name)
            found = version_at(store.moves_of(tx, model.id, name, alias), instant)
            if found is None:
                raise NotFound(
                    f"no version of {name} was {alias} at {instant:%Y-%m-%d %H:%M:%S %Z}", code="alias.not_found"
                )
            return version_noun(tx, model, found)

    # --- deciding -------------------------------------------------------------------------------------------------

    def _decide(self, scope: Scope, name: str, version: str | int, alias: str) -> tuple[Decision, _State]:
        with self._database.reading(scope) as tx:
            state = _gather(tx, name, version, alias)
        policy = state.policy
        if policy.data_checks:
            verdicts = {urn: self._data.verdict(scope, urn) for urn in state.facts.data}
            state = replace(state, facts=replace(state.facts, data_checks=verdicts))
        comparison = self._comparison(scope, state)
        champion = (
            None
            if state.champion is None
            else Champion(
                state.champion, comparison, state.other.id if state.other else "", evaluated=state.champion_evaluated
            )
        )
        checks = check_signatures(state.signatures, state.files, state.facts.digest, policy.require_signature)
        evidence = GateEvidence(state.evaluation, state.latency, state.attestations, checks)
        gates = judge(policy, state.facts, evidence, champion, state.now)
        gates = [*(files_known(state.facts) if state.declared else []), *gates]
        counted = count_approvals(
            policy.approvals,
            state.submitters,
            state.facts.digest,
            state.approvals,
            state.approvers,
            state.now,
            state.admins,
        )
        reasons = unmet(policy, gates, counted)
        decision = Decision(
            model=name,
            version=state.facts.version,
            alias=state.alias,
            guarded=state.guarded,
            promotable=not reasons or not state.guarded,
            reasons=reasons,
            gates=gates,
            approvals=counted if state.guarded else ApprovalCount(required=0, by=counted.by, refused=[]),
            comparison=comparison,
            champion=state.champion,
            at=state.now,
        )
        return decision, state

    def _comparison(self, scope: Scope, state: _State) -> Comparison | None:
        gate = state.policy.champion
        if gate is None or state.evaluation is None or state.other is None:
            return None
        if state.champion == state.facts.version:
            return None
        try:
            return self._evidence.compared(scope, state.evaluation, state.other, gate.metric, gate.confidence)
        except (EngineError, NotFound, InvalidInput) as error:
            # Rows that cannot be read any more are no evidence: that is a gate's answer, not an end of the page.
            return Comparison(
                metric=gate.metric,
                verdict="not enough data",
                reason=f"the rows cannot be read: {error.message}",
                confidence=gate.confidence,
            )


def _gather(tx: Transaction, name: str, version: str | int, alias: str) -> _State:
    model, row = model_and_version(tx, name, version)
    declared = store.policy_of(model)
    policy = declared or Policy()
    asked = alias or next(iter(policy.aliases), policy.champion.alias if policy.champion else DEFAULT_ALIAS)
    facts = _facts(tx, model, row)
    mine = evidence_store.evaluations_of(tx, model, row.version)
    evaluation = _chosen(mine, policy, facts.digest)
    champion = store.alias_version(tx, model.id, policy.champion.alias) if policy.champion else None
    theirs = evidence_store.evaluations_of(tx, model, champion) if champion is not None else []
    other = None
    if champion is not None and evaluation is not None:
        holder = store.version_row(tx, model.id, champion)
        counting = [one for one in theirs if _counts(policy, one)]
        other = same_rows(counting, evaluation, holder.digest) if holder is not None else None
    given = evidence_store.approvals_of(tx, model.id, row.version)
    return _State(
        revision=model.revision,
        policy=policy,
        declared=declared is not None,
        guarded=declared is not None and guards(declared, asked),
        alias=asked,
        facts=facts,
        submitters=submitters_of(tx, name, row),
        evaluation=evaluation,
        latency=next(iter(evidence_store.latencies_of(tx, model, row.version, limit=1)), None),
        approvals=given,
        approvers=frozenset(one.by for one in given if may_approve(tx, one.by)),
        admins=frozenset(one.by for one in given if may_approve(tx, one.by, Action.ADMIN)),
        attestations=statement_store.attestations_of(tx, model, row.version),
        signatures=statement_store.signatures_of(tx, model, row.version) if policy.require_signature else (),
        files=store.files_of(tx, model.id, row.version) if policy.require_signature else (),
        champion=champion,
        champion_evaluated=bool(theirs),
        other=other,
        now=tx.now,
    )


def _facts(tx: Transaction, model: Any, row: Any) -> VersionFacts:
    urn = f"model:{model.name}@{row.version}"
    # The run is taken from the lineage, not from what a client said of itself.
    runs = [
        edge.subject.removeprefix("run:")
        for edge in neighbours(tx, urn)
        if edge.relation == "produced" and edge.object == urn and edge.subject.startswith("run:")
    ]
    run = runs[0] if runs else ""
    data = sorted({*row.data, *data_behind(tx, run)[0]})
    return VersionFacts(
        model=model.name,
        version=row.version,
        digest=row.digest,
        has_signature=row.signature is not None,
        format=row.format,
        format_reason=row.format_reason,
        trusted=row.trusted,
        size_bytes=row.size_bytes,
        run=run,
        data=tuple(data),
        code=row.code,
        environment=row.environment,
        license=row.license,
        input_example=row.input_example,
    )


def _chosen(evaluations: Sequence[Evaluation], policy: Policy, digest: str) -> Evaluation | None:
    """The newest evaluation of these bytes on the policy's data; without one the newest at all, to be named."""
    for one in evaluations:
        on_data = not policy.dataset or same_dataset(policy.dataset, one.dataset)
        if one.version_digest == digest and on_data and _counts(policy, one):
            return one
    return next(iter(evaluations), None)


def _counts(policy: Policy, evaluation: Evaluation) -> bool:
    return policy.evidence == "any" or evaluation.made_by == "platform"


def _guarded_model(tx: Transaction, name: str, revision: int) -> Any:
    """The model's row, if nothing that the decision rests on changed since; its revision is counted on."""
    row = model_row(tx, name)
    tx.update_guarded(
        store.models.update()
        .where(store.models.c.id == row.id, store.models.c.revision == revision)
        .values(revision=revision + 1, updated_at=tx.now),
        what=f"model '{name}'",
    )
    return row


def _check_approvers(tx: Transaction, decision: Decision) -> None:
    # Who may approve is no part of the model, so its revision does not show that somebody was shut out just now.
    gone = [name for name in decision.approvals.by if not may_approve(tx, name)]
    if gone:
        raise Conflict(f"{', '.join(gone)} may not approve any more", code="stale", hint="decide anew")


def _check_expected(name: str, alias: str, previous: int | None, expected: int | None) -> None:
    if expected is not None and (previous or 0) != expected:
        raise Conflict(
            f"alias '{alias}' of {name} points to {previous or 'nothing'}, not to {expected or 'nothing'}",
            code="alias.moved",
            hint="read it again and decide anew",
        )


def _move(
    tx: Transaction,
    model: Any,
    alias: str,
    version: int | None,
    previous: int | None,
    kind: MoveKind,
    reason: str,
    over: Sequence[str],
    decision: Decision | None = None,
) -> None:
    store.point_alias(tx, model.id, alias, version)
    move = AliasMove(
        id=new_id(),
        model=model.name,
        alias=alias,
        kind=kind,
        version=version,
        previous=previous,
        at=tx.now,
        by=tx.actor,
        reason=reason,
        unmet=list(over),
        guarded=decision is not None,
        gates=decision.gates if decision else [],
        approved_by=decision.approvals.by if decision else [],
    )
    store.add_move(tx, model.id, move)
    announce_move(tx, move)


def _refused(decision: Decision) -> Forbidden:
    return Forbidden(
        f"{decision.model}@{decision.version} may not become {decision.alias}: {'; '.join(decision.reasons)}",
        code="promotion.refused",
        hint=f"see `modelyard model gates {decision.model} {decision.version}`",
        details={"unmet": decision.reasons},
    )
