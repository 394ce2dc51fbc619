"""What carries pipeline runs on: level-triggered, so that a missed event costs a moment and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec

from modelyard.engines.blobs.base import BlobStore
from modelyard.kernel.auth import Scope, system_scope
from modelyard.kernel.database import Database, Transaction
from modelyard.kernel.errors import InvalidInput
from modelyard.kernel.event import Event
from modelyard.kernel.reconcile import Lease
from modelyard.planes.jobs import Jobs
from modelyard.planes.pipelines import store
from modelyard.planes.pipelines.advance import (
    Cancel,
    Decision,
    Fail,
    Finish,
    Hit,
    RunView,
    Skip,
    Submit,
    UseCache,
    decide,
    step_job,
)
from modelyard.planes.pipelines.keys import needs
from modelyard.types.pipelines import DatasetRef, Output, Plan, RunState, StepError, StepState, leaves

CHECK_EVERY_S = 2.0
DUE_MAX = 200


class AdvanceRuns:
    """Brings each unfinished run a move further: steps from the cache, steps as jobs, its end."""

    name = "pipelines.advance"

    def __init__(self, database: Database, jobs: Jobs, blobs: BlobStore) -> None:
        self._database = database
        self._jobs = jobs
        self._blobs = blobs

    def due(self, now: datetime) -> Sequence[str]:
        with self._database.reading(system_scope("*")) as tx:
            return store.due_runs(tx, now, DUE_MAX)

    def act(self, key: str, lease: Lease) -> None:
        with self._database.reading(system_scope("*")) as tx:
            project = store.run_project(tx, key)
        if project is None:
            return
        scope = system_scope(project)
        view = self._view(scope, key)
        decisions = decide(view, lambda step_key: self._lookup(scope, step_key))
        with self._database.transaction(scope, lease=lease) as tx:
            store.set_check(tx, key, tx.now + timedelta(seconds=CHECK_EVERY_S))
            for decision in decisions:
                self._apply(tx, key, view, decision)
        if decisions:
            self._jobs.wake()

    def _view(self, scope: Scope, run_id: str) -> RunView:
        with self._database.reading(scope) as tx:
            row = store.run_row(tx, run_id)
            assert row is not None
            step_rows = store.steps_of(tx, [run_id])[run_id]
            started = [one for one in step_rows if one.job_id is not None]
            jobs = {one.job_id: self._jobs.get(tx, one.job_id) for one in started}
        reported: dict[str, StepError] = {}
        for one in started:
            said = None if one.reported is None else msgspec.convert(one.reported, store.Reported)
            attempts = jobs[one.job_id].attempts
            # An error of an earlier attempt says nothing about how the last one ended.
            if said is not None and attempts and said.attempt == attempts[-1].number:
                reported[one.name] = said.error
        return RunView(
            plan=msgspec.convert(row.plan, Plan),
            state=RunState(row.state),
            params=row.params,
            datasets=row.datasets,
            env=row.env,
            steps={one.name: store.to_step(one) for one in step_rows},
            jobs=jobs,
            reported=reported,
        )

    def _lookup(self, scope: Scope, key: str) -> Hit | None:
        with self._database.reading(scope) as tx:
            row = store.cached_row(tx, key)
        if row is None:
            return None
        output = msgspec.convert(row.output, Output)
        # An output whose bytes are gone is as good as none: the step runs again and puts them back.
        if not output.inline and not self._blobs.exists(output.digest):
            return None
        return Hit(output, row.run_id, row.job_id)

    def _apply(self, tx: Transaction, run_id: str, view: RunView, decision: Decision) -> None:
        match decision:
            case UseCache():
                self._use_cache(tx, run_id, decision)
            case Submit():
                self._submit(tx, run_id, view, decision)
            case Fail():
                values = {"state": decision.state.value, "error": decision.error, "ended_at": tx.now}
                _change(tx, run_id, decision.step, StepState.RUNNING, **values)
                data = {"step": decision.step, "kind": decision.error.kind, "message": decision.error.message[:2000]}
                tx.event(f"step.{decision.state.value}", f"pipeline-run:{run_id}", data)
            case Skip():
                values = {"state": StepState.SKIPPED.value, "reason": decision.reason}
                _change(tx, run_id, decision.step, StepState.PENDING, **values)
            case Cancel():
                if not self._jobs.get(tx, decision.job_id).state.final:
                    self._jobs.cancel(tx, decision.job_id)
            case Finish():
                _finish(tx, run_id, view, decision)

    def _use_cache(self, tx: Transaction, run_id: str, decision: UseCache) -> None:
        name, hit = decision.step.name, decision.hit
        _change(
            tx,
            run_id,
            name,
            StepState.PENDING,
            state=StepState.CACHED.value,
            reason=decision.reason,
            key=decision.key,
            cached_from=hit.run_id,
            output=hit.output,
            started_at=tx.now,
            ended_at=tx.now,
        )
        tx.event("step.cached", f"pipeline-run:{run_id}", {"step": name, "key": decision.key, "from": hit.run_id})
        if hit.job_id is not None:
            tx.link(f"pipeline-run:{run_id}", "used", f"job:{hit.job_id}")

    def _submit(self, tx: Transaction, run_id: str, view: RunView, decision: Submit) -> None:
        step = decision.step
        row = store.step_row(tx, run_id, step.name)
        run = store.run_row(tx, run_id)
        assert row is not None
        assert run is not None
        try:
            job = self._jobs.submit(tx, step_job(view.plan, run_id, step, row.round), asked_by=run.created_by)
        except InvalidInput as error:
            # The machine has become smaller since the pipeline was registered.
            values = {
                "state": StepState.FAILED.value,
                "error": StepError(kind="platform", message=error.message),
                "ended_at": tx.now,
            }
            _change(tx, run_id, step.name, StepState.PENDING, **values)
            store.set_check(tx, run_id, tx.now)
            return
        _change(
            tx,
            run_id,
            step.name,
            StepState.PENDING,
            state=StepState.RUNNING.value,
            reason=decision.reason,
            key=decision.key,
            job_id=job.id,
            started_at=tx.now,
        )
        urn = f"job:{job.id}"
        tx.link(f"pipeline-run:{run_id}", "triggered", urn)
        tx.link(urn, "used", f"code:{run.code['digest']}")
        tx.link(urn, "used", f"env:{run.env}")
        for given in decision.inputs.values():
            for leaf in leaves(given):
                if isinstance(leaf, DatasetRef):
                    tx.link(urn, "used", f"dataset:{leaf.name}@{leaf.ref}")
        for need in needs(step):
            maker = _maker(tx, run_id, need)
            if maker is not None:
                tx.link(urn, "used", f"job:{maker}")
        tx.event("step.started", f"pipeline-run:{run_id}", {"step": step.name, "job": job.id})


class JobsEnded:
    """Hears that a job has ended and has its run looked at, if it works for one."""

    name = "pipelines.jobs-ended"
    kinds = frozenset({"job.succeeded", "job.failed", "job.cancelled"})

    def __init__(self, database: Database, jobs: Jobs) -> None:
        self._database = database
        self._jobs = jobs

    def handle(self, event: Event) -> None:
        scope = system_scope(event.project)
        with self._database.reading(scope) as tx:
            run_id = store.run_of_job(tx, event.subject.removeprefix("job:"))
        if run_id is None:
            return
        with self._database.transaction(scope) as tx:
            store.set_check(tx, run_id, tx.now)
        self._jobs.wake()


def _change(tx: Transaction, run_id: str, step: str, expected: StepState, **values: object) -> None:
    table = store.steps
    tx.update_guarded(
        table.update()
        .where(table.c.run_id == run_id, table.c.name == step, table.c.state == expected.value)
        .values(**values),
        what=f"step '{step}' of pipeline run '{run_id}'",
    )


def _finish(tx: Transaction, run_id: str, view: RunView, decision: Finish) -> None:
    table = store.runs
    tx.update_guarded(
        table.update()
        .where(table.c.id == run_id, table.c.state == view.state.value)
        .values(state=decision.state.value, reason=decision.reason, ended_at=tx.now, check_at=None),
        what=f"pipeline run '{run_id}'",
    )
    data = {"pipeline": view.plan.name, "reason": decision.reason}
    tx.event(f"pipeline-run.{decision.state.value}", f"pipeline-run:{run_id}", data)


def _maker(tx: Transaction, run_id: str, step: str) -> str | None:
    """The job that made a step's output, here or in the run that it was cached from."""
    row = store.step_row(tx, run_id, step)
    if row is None or row.state != StepState.CACHED.value:
        return None if row is None else row.job_id
    cached = store.cached_row(tx, row.key)
    return None if cached is None else cached.job_id
