"""What carries jobs on: one reconciler takes them out of the queue, one follows their attempts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec
import sqlalchemy as sa

from modelyard.engines.compute.base import CommandSpec, Handle, Running
from modelyard.kernel.auth import system_scope
from modelyard.kernel.errors import Conflict, EngineError
from modelyard.kernel.reconcile import Lease
from modelyard.planes.jobs import lifecycle, store
from modelyard.planes.jobs.attempts import AttemptEnd
from modelyard.planes.jobs.scheduler import Refuse, Start, Wait
from modelyard.planes.jobs.spec import SECRET_NAME
from modelyard.types.jobs import AttemptState

if TYPE_CHECKING:
    from modelyard.planes.jobs.service import Jobs

QUEUE = "queue"
TOKEN_NAMES = ("MODELYARD_TOKEN", "MLFLOW_TRACKING_TOKEN")


class ScheduleJobs:
    """Starts what the scheduler says, under one lease: two of these would give the same CPU away twice."""

    name = "jobs.schedule"

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    def due(self, now: datetime) -> Sequence[str]:  # noqa: ARG002  the catalog's clock decides
        with self._jobs.database.reading(system_scope("*")) as tx:
            decisions = self._jobs.decide(tx)
        return [] if all(isinstance(decision, Wait) for decision in decisions) else [QUEUE]

    def act(self, key: str, lease: Lease) -> None:  # noqa: ARG002  there is one queue
        with self._jobs.database.reading(system_scope("*")) as tx:
            decisions = self._jobs.decide(tx)
            projects = {job.id: job.project for job in store.queue(tx, self._jobs.policy.point_s)}
        for decision in decisions:
            if isinstance(decision, Wait) or decision.job not in projects:
                continue
            try:
                with self._jobs.database.transaction(system_scope(projects[decision.job]), lease=lease) as tx:
                    self._apply(tx, decision)
            except Conflict as error:
                # Cancelled since it was read; the rest of the decisions stand, for it only holds less now.
                if error.code != "stale":
                    raise
        self._jobs.wake()

    def _apply(self, tx: Any, decision: Start | Refuse) -> None:
        if isinstance(decision, Start):
            lifecycle.begin_attempt(tx, decision.job, decision.reason)
        else:
            lifecycle.refuse(tx, decision.job, decision.reason)


class FollowAttempts:
    """Brings each live attempt from what its process is to what is recorded of it."""

    name = "jobs.follow"

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._watched: set[str] = set()

    def due(self, now: datetime) -> Sequence[str]:  # noqa: ARG002
        with self._jobs.database.reading(system_scope("*")) as tx:
            rows = store.live_attempts(tx)
        return [row.job_id for row in rows if self._needs_act(row)]

    def _needs_act(self, row: sa.Row[Any]) -> bool:
        if row.state == AttemptState.STARTING.value:
            return bool(self._jobs.server_url)
        handle = msgspec.convert(row.handle, Handle)
        self._watch(handle)
        if row.cancel_requested and not row.stop_sent:
            return True
        return not isinstance(self._jobs.engine.poll(handle), Running)

    def _watch(self, handle: Handle) -> None:
        if handle.directory not in self._watched:
            self._watched.add(handle.directory)
            self._jobs.engine.watch(handle, self._jobs.wake)

    def act(self, key: str, lease: Lease) -> None:
        with self._jobs.database.reading(system_scope("*")) as tx:
            job = store.job_row_anywhere(tx, key)
            attempt = store.attempt_row(tx, key, job.attempt) if job is not None else None
        if job is None or attempt is None:
            return
        if attempt.state == AttemptState.STARTING.value:
            self._start(job, attempt, lease)
        elif attempt.state == AttemptState.RUNNING.value:
            self._follow(job, attempt, lease)

    def _start(self, job: sa.Row[Any], attempt: sa.Row[Any], lease: Lease) -> None:
        jobs, database = self._jobs, self._jobs.database
        directory = str(jobs.attempt_directory(job.id, attempt.number))
        handle = jobs.engine.find(directory)
        if handle is None and job.cancel_requested:
            judged = AttemptEnd(state=AttemptState.CANCELLED, reason="cancelled", message="cancelled before it started")
            with database.transaction(system_scope(job.project), lease=lease) as tx:
                lifecycle.finish_attempt(tx, job, attempt.number, judged, None)
            return
        if handle is None:
            with database.transaction(system_scope(job.project), lease=lease) as tx:
                token = lifecycle.issue_token(tx, job.id)
            try:
                handle = jobs.engine.start(self._spec(job, attempt.number, directory, token))
            except EngineError as error:
                judged = AttemptEnd(state=AttemptState.LOST, reason="lost", message=error.message)
                with database.transaction(system_scope(job.project), lease=lease) as tx:
                    lifecycle.finish_attempt(tx, job, attempt.number, judged, None)
                return
        with database.transaction(system_scope(job.project), lease=lease) as tx:
            lifecycle.record_started(tx, job.id, attempt.number, handle)
        self._watch(handle)

    def _spec(self, job: sa.Row[Any], number: int, directory: str, token: str) -> CommandSpec:
        env = lifecycle.process_env(job, number, self._jobs.server_url, token)
        return CommandSpec(
            directory=directory,
            argv=job.command,
            env=env,
            cwd=job.cwd,
            timeout_s=job.timeout_s,
            grace_s=job.grace_s,
            memory_bytes=job.memory_bytes,
            secret_env=[*TOKEN_NAMES, *(name for name in job.env if SECRET_NAME.search(name))],
        )

    def _follow(self, job: sa.Row[Any], attempt: sa.Row[Any], lease: Lease) -> None:
        jobs = self._jobs
        handle = msgspec.convert(attempt.handle, Handle)
        found = jobs.engine.poll(handle)
        if not isinstance(found, Running):
            with jobs.database.transaction(system_scope(job.project), lease=lease) as tx:
                lifecycle.record_end(tx, job.id, attempt.number, found)
            self._watched.discard(handle.directory)
            jobs.wake()
        elif job.cancel_requested and not attempt.stop_sent:
            jobs.engine.stop(handle, job.grace_s)
            with jobs.database.transaction(system_scope(job.project), lease=lease) as tx:
                lifecycle.record_stop_sent(tx, job.id, attempt.number)
