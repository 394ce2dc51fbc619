"""Which state of a job and its attempts may follow which. Everything here runs within the caller's transaction."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from modelyard.engines.compute.base import Finished, Handle, Lost
from modelyard.kernel import auth
from modelyard.kernel.auth import Role
from modelyard.kernel.database import Transaction
from modelyard.kernel.errors import NotFound
from modelyard.planes.jobs import store
from modelyard.planes.jobs.attempts import AttemptEnd, decide_next, judge
from modelyard.types.jobs import AttemptState, JobState, Usage

TOKEN_SLACK_S = 600.0
_THREAD_NAMES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LOKY_MAX_CPU_COUNT")


def job_row(tx: Transaction, job_id: str) -> sa.Row[Any]:
    """The row of a job of the transaction's project. Raises NotFound."""
    row = store.job_row(tx, job_id)
    if row is None:
        raise NotFound(
            f"job '{job_id[:40]}' does not exist in project '{tx.project}'",
            code="job.not_found",
            hint="list them with `modelyard job list`",
        )
    return row


def begin_attempt(tx: Transaction, job_id: str, reason: str) -> None:
    """Take a job out of the queue. Its process is started after the commit. Raises Conflict if it is not queued."""
    row = job_row(tx, job_id)
    table = store.jobs
    tx.update_guarded(
        table.update()
        .where(table.c.id == job_id, table.c.state == JobState.QUEUED.value, table.c.attempt == row.attempt)
        .values(state=JobState.RUNNING.value, reason=reason, attempt=row.attempt + 1),
        what=f"job '{job_id}'",
    )
    tx.execute(
        store.attempts.insert().values(
            job_id=job_id,
            number=row.attempt + 1,
            project=tx.project,
            state=AttemptState.STARTING.value,
            stop_sent=False,
            started_at=tx.now,
            reason="",
            message="",
            cpu_s=0.0,
            wall_s=0.0,
            peak_rss_bytes=0,
        )
    )


def refuse(tx: Transaction, job_id: str, reason: str) -> None:
    """End a job that can never run here."""
    end_job(tx, job_row(tx, job_id), JobState.FAILED, reason)


def issue_token(tx: Transaction, job_id: str) -> str:
    """The token of the attempt that starts. It ends with the attempt, or soon after the job's timeout."""
    row = job_row(tx, job_id)
    ttl_s = row.timeout_s + row.grace_s + TOKEN_SLACK_S
    return auth.issue_token(tx, f"job:{job_id}", tx.project, Role.CONTRIBUTOR, ttl_s)


def process_env(row: sa.Row[Any], number: int, server_url: str, token: str) -> dict[str, str]:
    """The environment of an attempt: the job's own, and how to reach the platform as this job."""
    threads = str(max(1, math.ceil(row.cpus)))
    return {
        "PYTHONUNBUFFERED": "1",
        **dict.fromkeys(_THREAD_NAMES, threads),
        **row.env,
        "MODELYARD_URL": server_url,
        "MODELYARD_TOKEN": token,
        "MODELYARD_PROJECT": row.project,
        "MLFLOW_TRACKING_URI": f"{server_url}/p/{row.project}",
        "MLFLOW_TRACKING_TOKEN": token,
        "MYD_JOB": row.id,
        "MYD_ATTEMPT": str(number),
    }


def record_started(tx: Transaction, job_id: str, number: int, handle: Handle) -> None:
    """The process of an attempt is there."""
    table = store.attempts
    tx.update_guarded(
        table.update()
        .where(table.c.job_id == job_id, table.c.number == number, table.c.state == AttemptState.STARTING.value)
        .values(state=AttemptState.RUNNING.value, handle=handle, started_at=tx.now),
        what=f"attempt {number} of job '{job_id}'",
    )
    jobs = store.jobs
    tx.execute(jobs.update().where(jobs.c.id == job_id, jobs.c.started_at.is_(None)).values(started_at=tx.now))
    row = job_row(tx, job_id)
    tx.event("job.started", f"job:{job_id}", {"attempt": number, "name": row.name, "labels": row.labels})


def record_stop_sent(tx: Transaction, job_id: str, number: int) -> None:
    """The process was asked to end."""
    table = store.attempts
    tx.execute(table.update().where(table.c.job_id == job_id, table.c.number == number).values(stop_sent=True))


def record_end(tx: Transaction, job_id: str, number: int, end: Finished | Lost) -> None:
    """An attempt is over: record it with its usage, shut its token out, and move the job on."""
    row = job_row(tx, job_id)
    finish_attempt(tx, row, number, judge(end, row.cancel_requested), end)


def finish_attempt(
    tx: Transaction, row: sa.Row[Any], number: int, judged: AttemptEnd, end: Finished | Lost | None
) -> None:
    """As `record_end`, for an end that is named already; `end` None: its process never was."""
    table = store.attempts
    usage = end.usage if end is not None else Usage()
    tx.update_guarded(
        table.update()
        .where(
            table.c.job_id == row.id,
            table.c.number == number,
            table.c.state.in_([AttemptState.STARTING.value, AttemptState.RUNNING.value]),
        )
        .values(
            state=judged.state.value,
            ended_at=tx.now,
            exit_code=end.exit_code if isinstance(end, Finished) else None,
            signal=end.signal if isinstance(end, Finished) else None,
            reason=judged.reason,
            message=judged.message,
            cpu_s=usage.cpu_s,
            wall_s=usage.wall_s,
            peak_rss_bytes=usage.peak_rss_bytes,
        ),
        what=f"attempt {number} of job '{row.id}'",
    )
    auth.revoke_tokens(tx, f"job:{row.id}")
    failures = row.failures + judged.spends
    losses = row.losses + (judged.reason in ("lost", "temporary"))
    following = decide_next(
        judged,
        failures=failures,
        losses=losses,
        max_attempts=row.max_attempts,
        cancel_requested=row.cancel_requested,
    )
    tx.execute(store.jobs.update().where(store.jobs.c.id == row.id).values(failures=failures, losses=losses))
    if following.state is JobState.QUEUED:
        _requeue(tx, row, following.reason, following.delay_s)
    else:
        end_job(tx, row, following.state, following.reason, attempt=number, reason_word=judged.reason)


def _requeue(tx: Transaction, row: sa.Row[Any], reason: str, delay_s: float) -> None:
    table = store.jobs
    tx.update_guarded(
        table.update()
        .where(table.c.id == row.id, table.c.state == JobState.RUNNING.value)
        .values(state=JobState.QUEUED.value, reason=reason, not_before=tx.now + timedelta(seconds=delay_s)),
        what=f"job '{row.id}'",
    )
    data = {"attempt": row.attempt, "reason": reason, "labels": row.labels}
    tx.event("job.requeued", f"job:{row.id}", data)


def end_job(
    tx: Transaction, row: sa.Row[Any], state: JobState, reason: str, attempt: int = 0, reason_word: str = ""
) -> None:
    """Put a job into a final state, with its event."""
    table = store.jobs
    tx.update_guarded(
        table.update()
        .where(table.c.id == row.id, table.c.state == row.state)
        .values(state=state.value, reason=reason, ended_at=tx.now, not_before=None),
        what=f"job '{row.id}'",
    )
    kind = "failed" if state is JobState.TIMED_OUT else state.value
    data = {"name": row.name, "state": state.value, "attempt": attempt, "labels": row.labels}
    if reason:
        data |= {"reason": reason_word or state.value, "message": reason[:2000]}
    tx.event(f"job.{kind}", f"job:{row.id}", data)
