"""The verbs of jobs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa

from modelyard.engines.compute.base import ComputeEngine, Handle
from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database, Transaction
from modelyard.kernel.errors import Conflict, InvalidInput, NotFound
from modelyard.kernel.ids import is_id, new_id
from modelyard.kernel.limits import PAGE_ITEMS_DEFAULT, PAGE_ITEMS_MAX
from modelyard.kernel.reconcile import Reconciler
from modelyard.planes.jobs import lifecycle, scheduler, store
from modelyard.planes.jobs.log_text import neutralise, whole_lines
from modelyard.planes.jobs.reconcile import FollowAttempts, ScheduleJobs
from modelyard.planes.jobs.scheduler import Decision, Policy
from modelyard.planes.jobs.spec import check_spec, masked
from modelyard.types.jobs import (
    Attempt,
    AttemptState,
    AttemptUsage,
    Job,
    JobLog,
    JobState,
    Resources,
    SubmitJob,
)
from modelyard.types.page import Page

LOG_PIECE_BYTES_MAX = 1024 * 1024
JOB_PREFIX = "job:"


class Jobs:
    """Jobs of all projects on one compute engine.

    `directory` holds a folder per job. `server_url` is where a job's process reaches the API; while it is empty nothing
    is started, since no job could report. `wake` is called when there is something to do at once.
    """

    def __init__(
        self,
        database: Database,
        engine: ComputeEngine,
        directory: Path,
        *,
        server_url: str = "",
        policy: Policy | None = None,
    ) -> None:
        self.database = database
        self.engine = engine
        self.directory = directory
        self.server_url = server_url
        self.policy = policy or Policy()
        self.wake: Callable[[], None] = lambda: None

    def submit_job(self, scope: Scope, spec: SubmitJob) -> Job:
        """Put a job into the queue. Raises InvalidInput; Conflict for a key that was used for something else."""
        try:
            with self.database.transaction(scope) as tx:
                job = self.submit(tx, spec)
        except Conflict as error:
            if error.code != "catalog.integrity":
                raise
            # Somebody submitted the same key at the same moment: theirs is the job.
            with self.database.transaction(scope) as tx:
                job = self.submit(tx, spec)
        self.wake()
        return job

    def submit(self, tx: Transaction, spec: SubmitJob, *, asked_by: str = "") -> Job:
        """As `submit_job`, within the caller's transaction. `asked_by` is who asked for what the platform submits."""
        check_spec(spec, self.engine.capacity())
        digest = hashlib.sha256(msgspec.json.encode(spec, order="sorted")).hexdigest()
        if spec.idempotency_key is not None:
            existing = store.job_by_key(tx, spec.idempotency_key)
            if existing is not None:
                return self._same(tx, existing, digest)
        job_id = new_id()
        name = spec.name or Path(spec.command[0]).name
        submitted_by = _answerable(tx, asked_by or tx.actor)
        tx.execute(
            store.jobs.insert().values(
                id=job_id,
                project=tx.project,
                name=name,
                command=spec.command,
                cpus=spec.resources.cpus,
                memory_bytes=spec.resources.memory_bytes,
                cwd=spec.cwd,
                env=spec.env,
                priority=spec.priority,
                timeout_s=spec.timeout_s,
                grace_s=spec.grace_s,
                max_attempts=spec.max_attempts,
                labels=spec.labels,
                idempotency_key=spec.idempotency_key,
                spec_digest=digest,
                state=JobState.QUEUED.value,
                reason="waiting: just submitted",
                submitted_by=submitted_by,
                submitted_at=tx.now,
                cancel_requested=False,
                attempt=0,
                failures=0,
                losses=0,
            )
        )
        data = {"name": name, "resources": spec.resources, "priority": spec.priority, "labels": spec.labels}
        data |= {"submitted_by": submitted_by}
        tx.event("job.submitted", f"job:{job_id}", msgspec.to_builtins(data))
        return self._noun(tx, job_id)

    def get_job(self, scope: Scope, job_id: str) -> Job:
        """A job, with live usage while it runs and the reason why it waits. Raises NotFound."""
        with self.database.reading(scope) as tx:
            job = self.get(tx, job_id)
            decisions = self.decide(tx) if job.state is JobState.QUEUED else []
            tried = store.attempts_of(tx, [job_id])[job_id]
        return self._with_reason(self._with_live_usage(job, tried), scheduler.reasons(decisions).get(job_id))

    def get(self, tx: Transaction, job_id: str) -> Job:
        """As recorded, within the caller's transaction. Raises NotFound."""
        return self._noun(tx, job_id)

    def names(self, scope: Scope, job_ids: Sequence[str]) -> dict[str, str]:
        """The names of jobs by id; those that have none, or do not exist, are left out."""
        with self.database.reading(scope) as tx:
            return store.names_of(tx, job_ids)

    def list_jobs(
        self, scope: Scope, *, state: JobState | None = None, after: str | None = None, limit: int = PAGE_ITEMS_DEFAULT
    ) -> Page[Job]:
        """Jobs of the project, newest first."""
        limit = max(1, min(limit, PAGE_ITEMS_MAX))
        with self.database.reading(scope) as tx:
            rows = store.list_rows(tx, state, after, limit)
            tried = store.attempts_of(tx, [row.id for row in rows])
            waits = any(row.state == JobState.QUEUED.value for row in rows)
            reasons = scheduler.reasons(self.decide(tx)) if waits else {}
        nouns = [self._from_rows(row, tried[row.id]) for row in rows]
        items = [self._with_reason(job, reasons.get(job.id)) for job in nouns]
        return Page(items, rows[-1].id if len(rows) == limit else None)

    def cancel_job(self, scope: Scope, job_id: str) -> Job:
        """Ask a job to end. Raises NotFound; Conflict (`job.ended`) for one that has ended otherwise."""
        with self.database.transaction(scope) as tx:
            job = self.cancel(tx, job_id)
        self.wake()
        return job

    def cancel(self, tx: Transaction, job_id: str) -> Job:
        """As `cancel_job`, within the caller's transaction. A job that is cancelled already stays so."""
        row = lifecycle.job_row(tx, job_id)
        state = JobState(row.state)
        if state.final and state is not JobState.CANCELLED:
            raise Conflict(f"job '{job_id}' has {_in_words(state)} already", code="job.ended")
        if state is JobState.QUEUED:
            lifecycle.end_job(tx, row, JobState.CANCELLED, "cancelled on request before it started")
        elif state is JobState.RUNNING and not row.cancel_requested:
            table = store.jobs
            tx.execute(table.update().where(table.c.id == job_id).values(cancel_requested=True))
            tx.event("job.cancel_requested", f"job:{job_id}", {"attempt": row.attempt})
        return self._noun(tx, job_id)

    def usage(self, scope: Scope, *, since: datetime, until: datetime) -> list[AttemptUsage]:
        """The ledger of attempts that ran at some time within [since, until)."""
        with self.database.reading(scope) as tx:
            rows = store.usage_rows(tx, since, until)
            handles = {(row.job_id, row.number): row for row in store.live_attempts(tx) if row.project == tx.project}
        return [self._live(row, handles.get((row.job_id, row.attempt))) for row in rows]

    def read_log(
        self, scope: Scope, job_id: str, *, attempt: int | None = None, offset: int = 0, limit_bytes: int = 65_536
    ) -> JobLog:
        """A piece of what an attempt (the latest by default) wrote; a negative `offset` counts from the end."""
        with self.database.reading(scope) as tx:
            row = lifecycle.job_row(tx, job_id)
            number = row.attempt if attempt is None else attempt
            tried = store.attempt_row(tx, job_id, number) if number else None
        if tried is None:
            if number:
                raise NotFound(f"job '{job_id}' has no attempt {number}", code="job.attempt_not_found")
            return JobLog(attempt=0, text="", next=0, complete=JobState(row.state).final)
        handle = _handle(tried) or self.engine.find(str(self.attempt_directory(job_id, number)))
        if handle is None:
            return JobLog(attempt=number, text="", next=0, complete=AttemptState(tried.state).final)
        piece = self.engine.read_log(handle, offset, max(1, min(limit_bytes, LOG_PIECE_BYTES_MAX)))
        content = whole_lines(piece.content, piece.end)
        return JobLog(
            attempt=number,
            text=neutralise(content.decode("utf-8", "replace")),
            next=piece.offset + len(content),
            skipped_bytes=piece.skipped_bytes,
            complete=piece.end and AttemptState(tried.state).final,
        )

    def capacity(self) -> Resources:
        """What all jobs together may use."""
        return self.engine.capacity()

    def decide(self, tx: Transaction) -> list[Decision]:
        """What the scheduler says to the queue of all projects at this moment."""
        if not self.server_url:
            return []
        queue = store.queue(tx, self.policy.point_s)
        return scheduler.decide(queue, store.holding(tx), self.capacity(), self.policy, tx.now)

    def reconcilers(self) -> list[Reconciler]:
        """What has to run for jobs to run."""
        return [ScheduleJobs(self), FollowAttempts(self)]

    def attempt_directory(self, job_id: str, number: int) -> Path:
        """The folder of an attempt."""
        if not is_id(job_id):
            raise InvalidInput(f"{job_id[:40]!r} is not the id of a job", code="job.id_invalid")
        return self.directory / job_id / str(number)

    def _same(self, tx: Transaction, row: sa.Row[Any], digest: str) -> Job:
        if row.spec_digest != digest:
            raise Conflict(
                f"the idempotency key '{row.idempotency_key}' was used for another job ({row.id})",
                code="job.idempotency_conflict",
                hint="use a new key for what is not the same job",
            )
        return self._noun(tx, row.id)

    def _noun(self, tx: Transaction, job_id: str) -> Job:
        return self._from_rows(lifecycle.job_row(tx, job_id), store.attempts_of(tx, [job_id])[job_id])

    def _from_rows(self, row: sa.Row[Any], tried: Sequence[sa.Row[Any]]) -> Job:
        return store.to_job(row, [store.to_attempt(one) for one in tried], masked(row.env))

    def _with_live_usage(self, job: Job, tried: Sequence[sa.Row[Any]]) -> Job:
        shown: list[Attempt] = []
        for attempt, row in zip(job.attempts, tried, strict=True):
            handle = _handle(row)
            live = handle is not None and attempt.state is AttemptState.RUNNING
            usage = self.engine.poll(handle).usage if live and handle is not None else attempt.usage
            shown.append(msgspec.structs.replace(attempt, usage=usage))
        return msgspec.structs.replace(job, attempts=shown)

    def _live(self, row: AttemptUsage, attempt: sa.Row[Any] | None) -> AttemptUsage:
        handle = None if attempt is None else _handle(attempt)
        return row if handle is None else msgspec.structs.replace(row, usage=self.engine.poll(handle).usage)

    def _with_reason(self, job: Job, reason: str | None) -> Job:
        if job.state is not JobState.QUEUED:
            return job
        if not self.server_url:
            reason = "waiting: no server runs that could start it; `modelyard up` does"
        return msgspec.structs.replace(job, reason=reason or "waiting: behind others of its project")


def _handle(row: sa.Row[Any]) -> Handle | None:
    return None if row.handle is None else msgspec.convert(row.handle, Handle)


def _in_words(state: JobState) -> str:
    return "timed out" if state is JobState.TIMED_OUT else state.value


def _answerable(tx: Transaction, actor: str) -> str:
    """Whom a job is counted for: whoever asked, and where a job asked, whoever that one is counted for."""
    row = store.job_row(tx, actor.removeprefix(JOB_PREFIX)) if actor.startswith(JOB_PREFIX) else None
    return actor if row is None else str(row.submitted_by)
