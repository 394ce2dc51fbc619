"""The verbs of automation."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
from msgspec.structs import replace

from modelyard.kernel.auth import Action, Scope, check, system_scope
from modelyard.kernel.database import Database, Transaction
from modelyard.kernel.errors import Conflict, InvalidInput, NotFound
from modelyard.kernel.event import Event
from modelyard.kernel.events import EventReader
from modelyard.kernel.ids import is_id, new_id
from modelyard.kernel.limits import PAGE_ITEMS_DEFAULT, PAGE_ITEMS_MAX
from modelyard.kernel.nesting import check_nesting
from modelyard.kernel.reconcile import Lease, Reconciler
from modelyard.planes.automation import store
from modelyard.planes.automation.challenger import Judge, acting
from modelyard.planes.automation.decisions import DATASET_PUBLISHED, Cause, Fire, check_templates, decide, matches
from modelyard.planes.automation.reconcile import FireSchedules, FollowResponses, WatchEvents
from modelyard.planes.automation.schedules import next_due
from modelyard.planes.pipelines import Pipelines
from modelyard.planes.registry import Registry
from modelyard.types.automation import OnDataset, OnEvent, OnSchedule, Response, Trigger, TriggerSpec
from modelyard.types.page import Page
from modelyard.types.pipelines import PipelineRun, RunState

SCHEDULE_DUE = "schedule.due"
OWN_EVENTS = "trigger."
RUN_CHECKED_EVERY_S = 30.0
"""The end of a run is heard of as an event; this is for the one that came before we knew its run."""


class Automation:
    """Triggers, and responses: what they made of events."""

    def __init__(self, database: Database, pipelines: Pipelines, registry: Registry) -> None:
        self._database = database
        self._pipelines = pipelines
        self._judge = Judge(database, registry)

    # --- triggers ---------------------------------------------------------------------------------------------

    def create(self, scope: Scope, spec: TriggerSpec) -> Trigger:
        """A new trigger; it hears of what happens from now on. One that approves by itself needs an approver's role.

        Raises InvalidInput, Conflict, Forbidden.
        """
        self._check(scope, spec)
        with self._database.transaction(scope) as tx:
            if store.trigger_named(tx, spec.name) is not None:
                raise Conflict(
                    f"trigger '{spec.name}' exists already",
                    code="trigger.exists",
                    hint="delete it first, or choose another name",
                )
            values = {"id": new_id(), "name": spec.name, "created_at": tx.now, "created_by": tx.actor}
            store.insert_trigger(tx, values | _spec_values(tx, spec))
            tx.event("trigger.created", f"trigger:{spec.name}", {"pipeline": spec.start.pipeline})
        return self.get(scope, spec.name)

    def get(self, scope: Scope, name: str) -> Trigger:
        """A trigger. Raises NotFound."""
        with self._database.reading(scope) as tx:
            return _trigger(tx, name)

    def list(self, scope: Scope, *, after: str | None = None, limit: int = PAGE_ITEMS_DEFAULT) -> Page[Trigger]:
        """Triggers by name."""
        limit = _page_size(limit)
        with self._database.reading(scope) as tx:
            found = store.list_triggers(tx, after or "", limit + 1)
        return Page(found[:limit], found[limit - 1].name if len(found) > limit else None)

    def set_enabled(self, scope: Scope, name: str, enabled: bool) -> Trigger:
        """Switch a trigger on or off. A schedule goes on from now: what it missed is not caught up with."""
        with self._database.transaction(scope) as tx:
            trigger = _trigger(tx, name)
            if trigger.spec.enabled != enabled:
                store.update_trigger(tx, trigger.id, _spec_values(tx, replace(trigger.spec, enabled=enabled)))
                tx.event(f"trigger.{'enabled' if enabled else 'disabled'}", f"trigger:{name}")
        return self.get(scope, name)

    def delete(self, scope: Scope, name: str) -> None:
        """Remove a trigger. What it started goes on and ends as it would; the record stays."""
        with self._database.transaction(scope) as tx:
            store.delete_trigger(tx, _trigger(tx, name).id)
            tx.event("trigger.deleted", f"trigger:{name}")

    # --- responses --------------------------------------------------------------------------------------------

    def responses(
        self,
        scope: Scope,
        *,
        trigger: str | None = None,
        alert: str | None = None,
        before: str | None = None,
        limit: int = PAGE_ITEMS_DEFAULT,
    ) -> Page[Response]:
        """What triggers made of events, newest first."""
        limit = _page_size(limit)
        with self._database.reading(scope) as tx:
            found = store.list_responses(tx, trigger=trigger, alert=alert, before=before, limit=limit + 1)
        return Page(found[:limit], found[limit - 1].id if len(found) > limit else None)

    def response(self, scope: Scope, response_id: str) -> Response:
        """One response. Raises NotFound."""
        with self._database.reading(scope) as tx:
            return _response(tx, response_id).noun

    # --- what carries it on -----------------------------------------------------------------------------------

    def kinds(self) -> frozenset[str]:
        """The kinds of events that any trigger waits for."""
        with self._database.reading() as tx:
            return store.event_kinds(tx)

    def hear(self, event: Event) -> None:
        """Let the triggers that wait for an event make up their minds. Hearing it again changes nothing."""
        cause = Cause(id=event.id, kind=event.kind, subject=event.subject, at=event.at, data=event.data)
        with self._database.transaction(system_scope(event.project)) as tx:
            for trigger in store.triggers_for(tx, event.kind, event.at):
                on = trigger.spec.on
                if not isinstance(on, OnSchedule) and matches(on, cause):
                    _respond(tx, trigger, cause)

    def run_ended(self, project: str, pipeline_run: str) -> None:
        """A pipeline run is over: whoever waits for it goes on."""
        with self._database.transaction(system_scope(project)) as tx:
            store.mark_due(tx, pipeline_run)

    def due_schedules(self, now: datetime, limit: int) -> Sequence[tuple[str, str]]:
        """Project and name of the schedules that came due."""
        with self._database.reading() as tx:
            return store.due_triggers(tx, now, limit)

    def fire_schedule(self, project: str, name: str, lease: Lease) -> None:
        """Let a schedule that came due fire, once however often it was missed."""
        with self._database.transaction(system_scope(project), lease=lease) as tx:
            trigger = store.trigger_named(tx, name)
            if trigger is None or trigger.next_at is None or trigger.next_at > tx.now:
                return
            on = trigger.spec.on
            assert isinstance(on, OnSchedule)
            at = trigger.next_at
            cause = Cause(
                id=f"schedule:{trigger.id}:{at.isoformat()}",
                kind=SCHEDULE_DUE,
                subject=f"trigger:{name}",
                at=at,
                data={"scheduled_at": at.isoformat()},
            )
            _respond(tx, trigger, cause)
            store.update_trigger(tx, trigger.id, {"next_at": next_due(on.cron, on.every_s, tx.now)})

    def due_responses(self, now: datetime, limit: int) -> Sequence[tuple[str, str]]:
        """Project and id of the responses that need a look."""
        with self._database.reading() as tx:
            return store.due_responses(tx, now, limit)

    def follow(self, project: str, response_id: str, lease: Lease) -> None:
        """Take a response one step on: start its pipeline, or, once that has ended, judge the challenger."""
        with self._database.reading(system_scope(project)) as tx:
            row = store.response_of(tx, response_id)
        if row is None:
            return
        if row.noun.state == "starting":
            self._start(row, lease)
        elif row.noun.state == "running":
            self._look_at_run(row, lease)

    def reconcilers(self) -> Sequence[Reconciler]:
        """What fires schedules and carries responses on."""
        return [FireSchedules(self), FollowResponses(self)]

    def readers(self) -> Sequence[EventReader]:
        """What hears of events."""
        return [WatchEvents(self)]

    # --- within -----------------------------------------------------------------------------------------------

    def _check(self, scope: Scope, spec: TriggerSpec) -> None:
        check_nesting(spec.start.params, "what is given as params")
        check_templates(spec.start.params)
        match spec.on:
            case OnSchedule():
                next_due(spec.on.cron, spec.on.every_s, self._database.clock.now())
            case OnEvent() if not spec.on.kind or spec.on.kind.startswith(OWN_EVENTS):
                raise InvalidInput(
                    f"a trigger cannot wait for '{spec.on.kind[:80]}': what triggers do must not trigger",
                    code="trigger.kind_invalid",
                    hint="name a kind such as alert.raised; `modelyard audit list` shows what happens",
                )
            case _:
                pass
        if spec.then is not None and spec.then.approve:
            # Else somebody who may not approve could let a trigger do it for them.
            check(scope.principal, Action.APPROVE, scope.project)

    def _start(self, row: store.ResponseRow, lease: Lease) -> None:
        noun = row.noun
        scope = acting(row.project, noun.trigger)
        try:
            run = self._pipelines.start(
                scope, noun.pipeline, noun.params, cause=noun.event_subject, idempotency_key=f"response:{noun.id}"
            )
        except (InvalidInput, NotFound) as error:
            self._end(row, "failed", f"pipeline '{noun.pipeline}' could not be started: {error.message}", lease)
            return
        with self._database.transaction(scope, lease=lease) as tx:
            store.update_response(tx, noun, {"state": "running", "pipeline_run": run.id, "check_at": tx.now})

    def _look_at_run(self, row: store.ResponseRow, lease: Lease) -> None:
        noun = row.noun
        assert noun.pipeline_run is not None
        run = self._pipelines.get_run(acting(row.project, noun.trigger), noun.pipeline_run)
        if not run.state.final:
            with self._database.transaction(acting(row.project, noun.trigger), lease=lease) as tx:
                later = tx.now + timedelta(seconds=RUN_CHECKED_EVERY_S)
                store.update_response(tx, noun, {"check_at": later})
        elif run.state is not RunState.SUCCEEDED:
            self._end(row, "failed", f"pipeline run {run.id} {run.state.value}: {_why_failed(run)}", lease)
        elif row.promotion is None:
            self._end(row, "completed", f"pipeline run {run.id} succeeded", lease)
        else:
            self._judge.judge(row, row.promotion, run, lease)

    def _end(self, row: store.ResponseRow, state: str, verdict: str, lease: Lease) -> None:
        with self._database.transaction(acting(row.project, row.noun.trigger), lease=lease) as tx:
            store.update_response(tx, row.noun, {"state": state, "verdict": verdict, "check_at": None})
            data = {
                "response": row.noun.id,
                "alert": row.noun.alert,
                "pipeline_run": row.noun.pipeline_run,
                "state": state,
                "reason": verdict,
            }
            tx.event("trigger.ended", f"trigger:{row.noun.trigger}", data)


def _respond(tx: Transaction, trigger: Trigger, cause: Cause) -> None:
    if store.has_response(tx, trigger.id, cause.id):
        return
    spec = trigger.spec
    decision = decide(spec, cause, store.history(tx, trigger.id), tx.now)
    fires = isinstance(decision, Fire)
    alert = cause.subject.removeprefix("alert:") if cause.subject.startswith("alert:") else None
    response_id = new_id()
    store.insert_response(
        tx,
        {
            "id": response_id, "trigger_id": trigger.id, "trigger": spec.name, "event": cause.id,
            "event_kind": cause.kind, "event_subject": cause.subject, "event_at": cause.at, "alert": alert,
            "state": "starting" if fires else "suppressed", "reason": decision.reason,
            "pipeline": spec.start.pipeline, "params": decision.params if isinstance(decision, Fire) else {},
            "promotion": spec.then, "gates": [], "check_at": tx.now if fires else None,
            "created_at": tx.now, "updated_at": tx.now,
        },
    )  # fmt: skip
    data = {"response": response_id, "event": cause.id, "subject": cause.subject, "reason": decision.reason}
    tx.event("trigger.fired" if fires else "trigger.suppressed", f"trigger:{spec.name}", data)


def _spec_values(tx: Transaction, spec: TriggerSpec) -> dict[str, Any]:
    kind: str | None = None
    next_at: datetime | None = None
    match spec.on:
        case OnSchedule():
            next_at = next_due(spec.on.cron, spec.on.every_s, tx.now)
        case OnDataset():
            kind = DATASET_PUBLISHED
        case OnEvent():
            kind = spec.on.kind
    return {
        "spec": msgspec.to_builtins(spec),
        "enabled": spec.enabled,
        "event_kind": kind,
        "next_at": next_at,
        "updated_at": tx.now,
    }


def _why_failed(run: PipelineRun) -> str:
    errors = [f"step {step.name}: {step.error.message}" for step in run.steps if step.error is not None]
    return run.reason or "; ".join(errors) or "no reason is known"


def _trigger(tx: Transaction, name: str) -> Trigger:
    trigger = store.trigger_named(tx, name)
    if trigger is None:
        raise NotFound(
            f"trigger {name[:80]!a} does not exist in project '{tx.project}'",
            code="trigger.not_found",
            hint="list them with `modelyard trigger list`",
        )
    return trigger


def _response(tx: Transaction, response_id: str) -> store.ResponseRow:
    row = store.response_of(tx, response_id) if is_id(response_id) else None
    if row is None:
        raise NotFound(
            f"response {response_id[:40]!a} does not exist in project '{tx.project}'",
            code="response.not_found",
            hint="list them with `modelyard trigger history`",
        )
    return row


def _page_size(limit: int) -> int:
    return max(1, min(limit, PAGE_ITEMS_MAX))
