"""The pipelines plane's tables, and its SQL."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy import BigInteger, Column, Index, Integer, String, Table, Text, UniqueConstraint, select

from modelyard.kernel.database import Instant, Json, Transaction, metadata
from modelyard.types.pipelines import (
    Code,
    Environment,
    Output,
    Pipeline,
    PipelineRun,
    Plan,
    RunState,
    StepError,
    StepRun,
    StepState,
)

code = Table(
    "pipeline_code",
    metadata,
    Column("project", String(64), primary_key=True),
    Column("digest", String(64), primary_key=True),
    Column("size_bytes", BigInteger, nullable=False),
    Column("created_by", String(255), nullable=False),
    Column("created_at", Instant, nullable=False),
)
pipelines = Table(
    "pipelines",
    metadata,
    Column("project", String(64), primary_key=True),
    Column("name", String(100), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("plan", Json, nullable=False),
    Column("code", Json, nullable=False),
    Column("created_by", String(255), nullable=False),
    Column("created_at", Instant, nullable=False),
    UniqueConstraint("project", "name", "digest"),
)
runs = Table(
    "pipeline_runs",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("project", String(64), nullable=False),
    Column("pipeline", String(100), nullable=False),
    Column("version", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("params", Json, nullable=False),
    Column("datasets", Json, nullable=False),
    Column("env", String(64), nullable=False),
    Column("cause", String(512)),
    Column("reason", Text, nullable=False),
    Column("idempotency_key", String(255)),
    Column("request_digest", String(64), nullable=False),
    Column("created_by", String(255), nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("ended_at", Instant),
    # When the run is to be looked at again; null once it has ended.
    Column("check_at", Instant),
    UniqueConstraint("project", "idempotency_key"),
    Index("pipeline_runs_by_check", "check_at"),
    Index("pipeline_runs_by_pipeline", "project", "pipeline", "id"),
)
steps = Table(
    "pipeline_steps",
    metadata,
    Column("run_id", String(32), primary_key=True),
    Column("name", String(128), primary_key=True),
    Column("project", String(64), nullable=False),
    Column("position", Integer, nullable=False),
    Column("task", String(512), nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("key", String(64), nullable=False),
    Column("round", Integer, nullable=False),
    Column("job_id", String(32)),
    Column("cached_from", String(32)),
    Column("output", Json),
    Column("error", Json),
    # The error that a worker reported, and in which attempt of its job: the job may be tried again after it.
    Column("reported", Json),
    Column("started_at", Instant),
    Column("ended_at", Instant),
    Index("pipeline_steps_by_job", "job_id"),
)
cache = Table(
    "pipeline_cache",
    metadata,
    Column("project", String(64), primary_key=True),
    Column("key", String(64), primary_key=True),
    Column("run_id", String(32), nullable=False),
    Column("step", String(128), nullable=False),
    Column("job_id", String(32)),
    Column("output", Json, nullable=False),
    Column("created_at", Instant, nullable=False),
)
environments = Table(
    "environments",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("python", String(64), nullable=False),
    Column("platform", String(255), nullable=False),
    Column("packages", Json, nullable=False),
    Column("created_at", Instant, nullable=False),
)


class Reported(msgspec.Struct, frozen=True):
    """What a worker said of a failed attempt."""

    attempt: int
    error: StepError


def pipeline_row(tx: Transaction, name: str, version: int | None) -> sa.Row[Any] | None:
    """A version of a pipeline, the newest for None."""
    statement = select(pipelines).where(pipelines.c.project == tx.project, pipelines.c.name == name)
    if version is not None:
        statement = statement.where(pipelines.c.version == version)
    return tx.one(statement.order_by(pipelines.c.version.desc()).limit(1))


def pipeline_by_digest(tx: Transaction, name: str, digest: str) -> sa.Row[Any] | None:
    """The version with this content."""
    t = pipelines
    return tx.one(select(t).where(t.c.project == tx.project, t.c.name == name, t.c.digest == digest))


def newest_pipelines(tx: Transaction, after: str | None, limit: int) -> Sequence[sa.Row[Any]]:
    """The newest version of every pipeline, by name."""
    newest = (
        select(pipelines.c.name, sa.func.max(pipelines.c.version).label("version"))
        .where(pipelines.c.project == tx.project)
        .group_by(pipelines.c.name)
        .subquery()
    )
    statement = (
        select(pipelines)
        .join(newest, sa.and_(newest.c.name == pipelines.c.name, newest.c.version == pipelines.c.version))
        .where(pipelines.c.project == tx.project)
        .order_by(pipelines.c.name)
        .limit(limit)
    )
    return tx.all(statement if after is None else statement.where(pipelines.c.name > after))


def code_row(tx: Transaction, digest: str) -> sa.Row[Any] | None:
    """A code snapshot of the project."""
    return tx.one(select(code).where(code.c.project == tx.project, code.c.digest == digest))


def run_row(tx: Transaction, run_id: str) -> sa.Row[Any] | None:
    """A run of the transaction's project, with its plan and code."""
    return tx.one(_runs_with_plan().where(runs.c.id == run_id, runs.c.project == tx.project))


def run_project(tx: Transaction, run_id: str) -> str | None:
    """In which project a run is; for the reconciler, which acts in all of them."""
    found = tx.scalar(select(runs.c.project).where(runs.c.id == run_id))
    return None if found is None else str(found)


def run_by_key(tx: Transaction, key: str) -> sa.Row[Any] | None:
    """The run that was started under an idempotency key."""
    return tx.one(select(runs).where(runs.c.project == tx.project, runs.c.idempotency_key == key))


def list_run_rows(
    tx: Transaction, pipeline: str | None, state: RunState | None, before_id: str | None, limit: int
) -> Sequence[sa.Row[Any]]:
    """Runs of the project, newest first."""
    statement = _runs_with_plan().where(runs.c.project == tx.project).order_by(runs.c.id.desc()).limit(limit)
    if pipeline is not None:
        statement = statement.where(runs.c.pipeline == pipeline)
    if state is not None:
        statement = statement.where(runs.c.state == state.value)
    if before_id is not None:
        statement = statement.where(runs.c.id < before_id)
    return tx.all(statement)


def _runs_with_plan() -> sa.Select[Any]:
    same = sa.and_(
        pipelines.c.project == runs.c.project,
        pipelines.c.name == runs.c.pipeline,
        pipelines.c.version == runs.c.version,
    )
    return select(runs, pipelines.c.plan, pipelines.c.code).join(pipelines, same)


def due_runs(tx: Transaction, now: datetime, limit: int) -> list[str]:
    """Runs of all projects that are to be looked at."""
    statement = select(runs.c.id).where(runs.c.check_at <= now).order_by(runs.c.check_at).limit(limit)
    return [row.id for row in tx.all(statement)]


def jobs_of_last_successes(tx: Transaction) -> list[tuple[str, str]]:
    """Pipeline and job of every step of the last run of each pipeline that succeeded; of a cached step the job that
    made its output."""
    last = (
        select(sa.func.max(runs.c.id))
        .where(runs.c.project == tx.project, runs.c.state == RunState.SUCCEEDED.value)
        .group_by(runs.c.pipeline)
    )
    job = sa.func.coalesce(steps.c.job_id, cache.c.job_id)
    statement = (
        select(runs.c.pipeline, job.label("job"))
        .join(steps, steps.c.run_id == runs.c.id)
        .outerjoin(cache, sa.and_(cache.c.project == steps.c.project, cache.c.key == steps.c.key))
        .where(runs.c.id.in_(last), job.is_not(None))
    )
    return [(row.pipeline, row.job) for row in tx.all(statement.order_by(runs.c.pipeline, job))]


def steps_of(tx: Transaction, run_ids: Iterable[str]) -> dict[str, list[sa.Row[Any]]]:
    """The steps of some runs, in the plan's order."""
    found: dict[str, list[sa.Row[Any]]] = {run_id: [] for run_id in run_ids}
    for row in tx.all(select(steps).where(steps.c.run_id.in_(list(found))).order_by(steps.c.position)):
        found[row.run_id].append(row)
    return found


def step_row(tx: Transaction, run_id: str, name: str) -> sa.Row[Any] | None:
    """One step of a run of the project."""
    return tx.one(select(steps).where(steps.c.run_id == run_id, steps.c.name == name, steps.c.project == tx.project))


def run_of_job(tx: Transaction, job_id: str) -> str | None:
    """The run that a job works for."""
    found = tx.scalar(select(steps.c.run_id).where(steps.c.job_id == job_id))
    return None if found is None else str(found)


def cached_row(tx: Transaction, key: str) -> sa.Row[Any] | None:
    """What the cache holds under a key."""
    return tx.one(select(cache).where(cache.c.project == tx.project, cache.c.key == key))


def set_check(tx: Transaction, run_id: str, at: datetime | None) -> None:
    """Say when an unfinished run is to be looked at again."""
    tx.execute(runs.update().where(runs.c.id == run_id, runs.c.check_at.is_not(None)).values(check_at=at))


def environment_row(tx: Transaction, env_hash: str) -> sa.Row[Any] | None:
    """An environment by its hash."""
    return tx.one(select(environments).where(environments.c.hash == env_hash))


def kept_blobs(tx: Transaction) -> Iterator[str]:
    """Every blob that the cache, a step's output or a code snapshot of any project names; some more than once."""
    # The cache before the steps, which take their outputs from it.
    for table in (cache, steps):
        for row in tx.stream(select(table.c.output).where(table.c.output.is_not(None))):
            if row.output and not row.output.get("inline"):
                yield row.output["digest"]
    yield from (row.digest for row in tx.stream(select(code.c.digest)))


# --- rows to nouns ------------------------------------------------------------------------------------------------


def to_pipeline(row: sa.Row[Any]) -> Pipeline:
    """The noun for a pipeline's row."""
    return Pipeline(
        name=row.name,
        version=row.version,
        plan=msgspec.convert(row.plan, Plan),
        code=msgspec.convert(row.code, Code),
        created_by=row.created_by,
        created_at=row.created_at,
    )


def to_step(row: sa.Row[Any]) -> StepRun:
    """The noun for a step's row."""
    return StepRun(
        name=row.name,
        task=row.task,
        state=StepState(row.state),
        reason=row.reason,
        key=row.key,
        job_id=row.job_id,
        cached_from=row.cached_from,
        output=None if row.output is None else msgspec.convert(row.output, Output),
        error=None if row.error is None else msgspec.convert(row.error, StepError),
        started_at=row.started_at,
        ended_at=row.ended_at,
    )


def to_run(row: sa.Row[Any], step_rows: Sequence[sa.Row[Any]], result: Any = None) -> PipelineRun:
    """The noun for a run's row."""
    return PipelineRun(
        id=row.id,
        pipeline=row.pipeline,
        version=row.version,
        state=RunState(row.state),
        params=row.params,
        datasets=row.datasets,
        code=row.code["digest"],
        env=row.env,
        cause=row.cause,
        reason=row.reason,
        steps=[to_step(one) for one in step_rows],
        result=result,
        created_by=row.created_by,
        created_at=row.created_at,
        ended_at=row.ended_at,
    )


def to_environment(row: sa.Row[Any]) -> Environment:
    """The noun for an environment's row."""
    return Environment(hash=row.hash, python=row.python, platform=row.platform, packages=row.packages)
