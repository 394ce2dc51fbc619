"""The jobs plane's tables, and its SQL."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import BigInteger, Boolean, Column, Float, Index, Integer, String, Table, Text, UniqueConstraint, select

from modelyard.kernel.database import Instant, Json, Transaction, metadata
from modelyard.planes.jobs.scheduler import Holding, Waiting
from modelyard.types.jobs import Attempt, AttemptState, AttemptUsage, Job, JobState, Resources, Usage

QUEUE_PER_PROJECT_MAX = 500
"""How many waiting jobs of a project one look of the scheduler considers: those of the best rank."""

jobs = Table(
    "jobs",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("project", String(64), nullable=False),
    Column("name", String(255), nullable=False),
    Column("command", Json, nullable=False),
    Column("cpus", Float, nullable=False),
    Column("memory_bytes", BigInteger, nullable=False),
    Column("cwd", Text),
    Column("env", Json, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("timeout_s", Float, nullable=False),
    Column("grace_s", Float, nullable=False),
    Column("max_attempts", Integer, nullable=False),
    Column("labels", Json, nullable=False),
    Column("idempotency_key", String(255)),
    Column("spec_digest", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("submitted_by", String(255), nullable=False),
    Column("submitted_at", Instant, nullable=False),
    Column("started_at", Instant),
    Column("ended_at", Instant),
    Column("not_before", Instant),
    Column("cancel_requested", Boolean, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("losses", Integer, nullable=False),
    UniqueConstraint("project", "idempotency_key"),
    Index("jobs_by_state", "state", "submitted_at"),
    Index("jobs_by_project", "project", "id"),
)
attempts = Table(
    "job_attempts",
    metadata,
    Column("job_id", String(32), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("project", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("handle", Json),
    Column("stop_sent", Boolean, nullable=False),
    Column("started_at", Instant, nullable=False),
    Column("ended_at", Instant),
    Column("exit_code", Integer),
    Column("signal", Integer),
    Column("reason", String(32), nullable=False),
    Column("message", Text, nullable=False),
    Column("cpu_s", Float, nullable=False),
    Column("wall_s", Float, nullable=False),
    Column("peak_rss_bytes", BigInteger, nullable=False),
    Index("job_attempts_by_state", "state"),
    Index("job_attempts_by_time", "project", "started_at"),
)
_LIVE = (AttemptState.STARTING.value, AttemptState.RUNNING.value)


def job_row(tx: Transaction, job_id: str) -> sa.Row[Any] | None:
    """A job of the transaction's project."""
    return tx.one(select(jobs).where(jobs.c.id == job_id, jobs.c.project == tx.project))


def job_row_anywhere(tx: Transaction, job_id: str) -> sa.Row[Any] | None:
    """A job of any project; for the reconcilers, which act in all of them."""
    return tx.one(select(jobs).where(jobs.c.id == job_id))


def job_by_key(tx: Transaction, key: str) -> sa.Row[Any] | None:
    """The job that was submitted under an idempotency key."""
    return tx.one(select(jobs).where(jobs.c.project == tx.project, jobs.c.idempotency_key == key))


def list_rows(tx: Transaction, state: JobState | None, before_id: str | None, limit: int) -> Sequence[sa.Row[Any]]:
    """Jobs of the project, newest first."""
    statement = select(jobs).where(jobs.c.project == tx.project).order_by(jobs.c.id.desc()).limit(limit)
    if state is not None:
        statement = statement.where(jobs.c.state == state.value)
    if before_id is not None:
        statement = statement.where(jobs.c.id < before_id)
    return tx.all(statement)


def attempts_of(tx: Transaction, job_ids: Iterable[str]) -> dict[str, list[sa.Row[Any]]]:
    """The attempts of some jobs, in order."""
    found: dict[str, list[sa.Row[Any]]] = {job_id: [] for job_id in job_ids}
    rows = tx.all(select(attempts).where(attempts.c.job_id.in_(list(found))).order_by(attempts.c.number))
    for row in rows:
        found[row.job_id].append(row)
    return found


def queue(tx: Transaction, point_s: float) -> list[Waiting]:
    """The waiting jobs of every project that come first there (see `scheduler.rank`)."""
    virtual = jobs.c.submitted_at.cast(BigInteger) - sa.cast(jobs.c.priority * int(point_s), BigInteger) * 1_000_000
    place = sa.func.row_number().over(partition_by=jobs.c.project, order_by=(virtual, jobs.c.id)).label("place")
    ranked = select(jobs.c.id, place).where(jobs.c.state == JobState.QUEUED.value).subquery()
    statement = select(jobs).join(ranked, ranked.c.id == jobs.c.id).where(ranked.c.place <= QUEUE_PER_PROJECT_MAX)
    return [
        Waiting(
            id=row.id,
            project=row.project,
            priority=row.priority,
            submitted_at=row.submitted_at,
            resources=Resources(cpus=row.cpus, memory_bytes=row.memory_bytes),
            timeout_s=row.timeout_s,
            not_before=row.not_before,
        )
        for row in tx.all(statement)
    ]


def holding(tx: Transaction) -> list[Holding]:
    """The running jobs of all projects."""
    statement = (
        select(jobs, attempts.c.started_at.label("attempt_started_at"))
        .join(attempts, sa.and_(attempts.c.job_id == jobs.c.id, attempts.c.number == jobs.c.attempt))
        .where(jobs.c.state == JobState.RUNNING.value)
        .order_by(jobs.c.id)
    )
    return [
        Holding(
            id=row.id,
            project=row.project,
            priority=row.priority,
            resources=Resources(cpus=row.cpus, memory_bytes=row.memory_bytes),
            ends_by=row.attempt_started_at + timedelta(seconds=row.timeout_s + row.grace_s),
        )
        for row in tx.all(statement)
    ]


def live_attempts(tx: Transaction) -> Sequence[sa.Row[Any]]:
    """The attempts of all projects that start or run, with whether their job shall be cancelled."""
    return tx.all(
        select(attempts, jobs.c.cancel_requested)
        .join(jobs, jobs.c.id == attempts.c.job_id)
        .where(attempts.c.state.in_(_LIVE))
        .order_by(attempts.c.job_id)
    )


def attempt_row(tx: Transaction, job_id: str, number: int) -> sa.Row[Any] | None:
    """One attempt."""
    return tx.one(select(attempts).where(attempts.c.job_id == job_id, attempts.c.number == number))


def usage_rows(tx: Transaction, since: datetime, until: datetime) -> list[AttemptUsage]:
    """Attempts of the project that ran at some time within [since, until), oldest first."""
    statement = (
        select(attempts, jobs.c.name, jobs.c.labels, jobs.c.submitted_by, jobs.c.cpus, jobs.c.memory_bytes)
        .join(jobs, jobs.c.id == attempts.c.job_id)
        .where(
            attempts.c.project == tx.project,
            attempts.c.started_at < until,
            sa.or_(attempts.c.ended_at.is_(None), attempts.c.ended_at >= since),
        )
        .order_by(attempts.c.started_at, attempts.c.job_id, attempts.c.number)
    )
    return [
        AttemptUsage(
            job_id=row.job_id,
            attempt=row.number,
            name=row.name,
            labels=row.labels,
            submitted_by=row.submitted_by,
            resources=Resources(cpus=row.cpus, memory_bytes=row.memory_bytes),
            state=AttemptState(row.state),
            started_at=row.started_at,
            ended_at=row.ended_at,
            usage=_usage(row),
        )
        for row in tx.all(statement)
    ]


def _usage(row: sa.Row[Any]) -> Usage:
    return Usage(cpu_s=row.cpu_s, wall_s=row.wall_s, peak_rss_bytes=row.peak_rss_bytes)


def to_attempt(row: sa.Row[Any]) -> Attempt:
    """The noun for an attempt's row."""
    return Attempt(
        number=row.number,
        state=AttemptState(row.state),
        started_at=row.started_at,
        ended_at=row.ended_at,
        exit_code=row.exit_code,
        signal=row.signal,
        reason=row.reason,
        message=row.message,
        usage=_usage(row),
    )


def to_job(row: sa.Row[Any], tried: Sequence[Attempt], env: dict[str, str], reason: str | None = None) -> Job:
    """The noun for a job's row; `env` is what of it may be shown."""
    return Job(
        id=row.id,
        name=row.name,
        command=row.command,
        resources=Resources(cpus=row.cpus, memory_bytes=row.memory_bytes),
        env=env,
        priority=row.priority,
        timeout_s=row.timeout_s,
        grace_s=row.grace_s,
        max_attempts=row.max_attempts,
        labels=row.labels,
        state=JobState(row.state),
        reason=row.reason if reason is None else reason,
        submitted_by=row.submitted_by,
        submitted_at=row.submitted_at,
        cwd=row.cwd,
        started_at=row.started_at,
        ended_at=row.ended_at,
        cancel_requested=row.cancel_requested,
        idempotency_key=row.idempotency_key,
        attempts=list(tried),
    )


def names_of(tx: Transaction, job_ids: Sequence[str]) -> dict[str, str]:
    """The names of jobs of the project by id; those without one are left out."""
    statement = select(jobs.c.id, jobs.c.name).where(jobs.c.project == tx.project, jobs.c.id.in_(job_ids))
    return {row.id: row.name for row in tx.all(statement) if row.name}
