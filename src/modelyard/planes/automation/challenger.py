"""What becomes of the model version that a retraining made: asked of the registry, done, and recorded with its reason.

Each step is planned in the catalog before it is done, so that after a crash it is known what was meant, and nothing is
done twice or forgotten.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from modelyard.kernel.auth import Principal, Role, Scope
from modelyard.kernel.database import Database
from modelyard.kernel.errors import Conflict, Forbidden, InvalidInput, NotFound
from modelyard.kernel.reconcile import Lease
from modelyard.planes.automation import store
from modelyard.planes.automation.decisions import Verdict, judge
from modelyard.planes.registry import Registry
from modelyard.types.automation import Promotion
from modelyard.types.pipelines import PipelineRun
from modelyard.types.registry import Decision, ModelVersion

PRINCIPAL_PREFIX = "automation:"
PASSING = frozenset({"stale", "alias.moved", "lease.stale", "promotion.refused"})
"""Conflicts with what others do at the same moment: asked again, the answer may be another."""


class Challenger(msgspec.Struct, frozen=True):
    """The version to judge."""

    model: str
    version: int


def acting(project: str, trigger: str) -> Scope:
    """A trigger acting by itself: its promotions and approvals carry its name."""
    name = PRINCIPAL_PREFIX + trigger
    return Scope(project, Principal(name, {project: Role.APPROVER}))


def challenger_of(run: PipelineRun, policy: Promotion) -> Challenger:
    """The version that a run says it made. Raises InvalidInput where it says none, or one of another model."""
    outputs = [run.result, *(step.output.value for step in reversed(run.steps) if step.output is not None)]
    for output in outputs:
        if isinstance(output, Mapping) and "model" in output and "version" in output:
            return _checked(output, policy)
    raise InvalidInput(
        "the run made no challenger: none of its outputs has the fields 'model' and 'version'",
        code="trigger.no_challenger",
        hint="let the last step return {'model': name, 'version': number}",
    )


def _checked(output: Mapping[str, Any], policy: Promotion) -> Challenger:
    model, version = output["model"], output["version"]
    if isinstance(version, str) and version.isascii() and version.isdigit() and len(version) < 10:
        version = int(version)
    if not isinstance(model, str) or not isinstance(version, int) or isinstance(version, bool):
        raise InvalidInput(
            f"the run's output names no challenger: model {model!r:.80}, version {version!r:.80}",
            code="trigger.no_challenger",
            hint="'model' is a name, 'version' a number",
        )
    if policy.model is not None and policy.model != model:
        raise InvalidInput(
            f"the run made a version of model '{model[:80]}', and the trigger promotes only '{policy.model}'",
            code="trigger.other_model",
            hint="correct the pipeline, or the trigger",
        )
    return Challenger(model, version)


class Judge:
    """Carries verdicts out, for one response at a time and under its lease."""

    def __init__(self, database: Database, registry: Registry) -> None:
        self._database = database
        self._registry = registry

    def judge(self, row: store.ResponseRow, policy: Promotion, run: PipelineRun, lease: Lease) -> None:
        """Promote, drop, or leave to a person; ends the response. Raises what may be mended by trying again."""
        try:
            self._judge(row, policy, run, lease)
        except (Forbidden, InvalidInput, NotFound, Conflict) as error:
            if error.code in PASSING:
                raise
            # What the registry refuses it will refuse again: that is doubt, and a person has to look.
            self._end(row, "waiting", f"the registry refused: {error.message}", lease)

    def _judge(self, row: store.ResponseRow, policy: Promotion, run: PipelineRun, lease: Lease) -> None:
        scope = acting(row.project, row.noun.trigger)
        try:
            challenger = challenger_of(run, policy)
            version = self._version(scope, challenger)
        except (InvalidInput, NotFound) as error:
            self._end(row, "failed", error.message, lease)
            return
        row = replace(row, noun=replace(row.noun, model=challenger.model, challenger=challenger.version))
        champion = self._champion(scope, challenger.model, policy.alias)
        done = _done_before(row, version, champion)
        if done is not None:
            self._end(row, "promoted" if done.action == "promote" else "dropped", done.reason, lease)
            return
        if version.dropped_at is not None:
            self._end(row, "dropped", f"it was dropped by {version.dropped_by}: {version.dropped_reason}", lease)
            return
        decision, verdict = self._verdict(scope, policy, challenger, champion)
        if verdict.action == "approve":
            self._registry.approve(
                scope, challenger.model, challenger.version, f"automated: {verdict.reason}", digest=version.digest
            )
            decision, verdict = self._verdict(scope, replace(policy, approve=False), challenger, champion)
        row = replace(row, noun=replace(row.noun, champion=champion, gates=tuple(decision.gates)))
        self._carry_out(row, policy, challenger, champion, verdict, lease)

    def _verdict(
        self, scope: Scope, policy: Promotion, challenger: Challenger, champion: int | None
    ) -> tuple[Decision, Verdict]:
        declared = self._registry.models.get(scope, challenger.model).policy
        automation_counts = declared is not None and declared.approvals.automation
        decision = self._registry.decide(scope, challenger.model, challenger.version, policy.alias)
        return decision, judge(policy, decision, champion, automation_counts)

    def _carry_out(
        self,
        row: store.ResponseRow,
        policy: Promotion,
        challenger: Challenger,
        champion: int | None,
        verdict: Verdict,
        lease: Lease,
    ) -> None:
        scope = acting(row.project, row.noun.trigger)
        model, version, why = challenger.model, challenger.version, f"{row.noun.event_subject}: {verdict.reason}"
        match verdict.action:
            case "promote":
                self._plan(row, verdict, lease)
                self._registry.promote(scope, model, version, policy.alias, why, expected=champion or 0)
                self._end(row, "promoted", verdict.reason, lease)
            case "drop":
                self._plan(row, verdict, lease)
                self._registry.drop(scope, model, version, why)
                self._end(row, "dropped", verdict.reason, lease)
            case "keep":
                self._end(row, "unchanged", verdict.reason, lease)
            case "wait" | "approve":
                self._end(row, "waiting", verdict.reason, lease)

    def _version(self, scope: Scope, challenger: Challenger) -> ModelVersion:
        """The version, also one that is dropped already. Raises NotFound."""
        for version in self._registry.versions.list(scope, challenger.model, dropped=True):
            if version.version == challenger.version:
                return version
        raise NotFound(
            f"the run says that it made version {challenger.version} of model '{challenger.model}', which there is not",
            code="trigger.challenger_not_found",
            hint="register the model in the pipeline, and return the version that this gives",
        )

    def _champion(self, scope: Scope, model: str, alias: str) -> int | None:
        return self._registry.models.get(scope, model).aliases.get(alias)

    def _plan(self, row: store.ResponseRow, verdict: Verdict, lease: Lease) -> None:
        with self._database.transaction(acting(row.project, row.noun.trigger), lease=lease) as tx:
            store.update_response(tx, row.noun, {**_facts(row), "planned": verdict})

    def _end(self, row: store.ResponseRow, state: str, verdict: str, lease: Lease) -> None:
        with self._database.transaction(acting(row.project, row.noun.trigger), lease=lease) as tx:
            noun = row.noun
            store.update_response(tx, noun, {**_facts(row), "state": state, "verdict": verdict, "check_at": None})
            data = {
                "trigger": noun.trigger,
                "response": noun.id,
                "alert": noun.alert,
                "pipeline_run": noun.pipeline_run,
                "champion": noun.champion,
                "reason": verdict,
            }
            if state in ("promoted", "dropped"):
                tx.event(f"challenger.{state}", f"model:{noun.model}@{noun.challenger}", data)
            tx.event("trigger.ended", f"trigger:{noun.trigger}", {**data, "state": state})


def _facts(row: store.ResponseRow) -> dict[str, Any]:
    noun = row.noun
    return {
        "model": noun.model,
        "challenger": noun.challenger,
        "champion": noun.champion,
        "gates": list(noun.gates),
    }


def _done_before(row: store.ResponseRow, version: ModelVersion, champion: int | None) -> Verdict | None:
    """What was planned and done before a crash, if it was."""
    planned = row.planned
    if planned is None:
        return None
    if planned.action == "promote" and champion == version.version:
        return planned
    if planned.action == "drop" and version.dropped_by == PRINCIPAL_PREFIX + row.noun.trigger:
        return planned
    return None
