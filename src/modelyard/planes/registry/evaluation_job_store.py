"""The table of evaluations that the platform makes."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Column, ForeignKey, Index, Integer, String, Table, Text, select

from modelyard.kernel.database import Instant, Json, Transaction, metadata
from modelyard.planes.registry import store
from modelyard.types.registry import EvaluationJob, StartEvaluation

evaluation_jobs = Table(
    "registry_evaluation_jobs",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("project", String(64), nullable=False),
    Column("model_id", String(32), ForeignKey("registry_models.id"), nullable=False),
    Column("version", Integer, nullable=False),
    Column("version_digest", String(64), nullable=False),
    Column("dataset", String(512), nullable=False),
    Column("asked", Json, nullable=False),
    Column("state", String(16), nullable=False),
    Column("job", String(32), nullable=False),
    Column("error", Text, nullable=False),
    Column("by", String(255), nullable=False),
    Column("at", Instant, nullable=False),
    Column("ended_at", Instant),
    Index("registry_evaluation_jobs_by_version", "model_id", "version", "id"),
    Index("registry_evaluation_jobs_by_state", "state"),
)
_TABLE = evaluation_jobs
UNFINISHED = ("preparing", "scoring")


def add(tx: Transaction, model_id: str, made: EvaluationJob) -> None:
    """Record one that is asked for."""
    values = msgspec.structs.asdict(made)
    del values["model"], values["evaluation"]
    tx.execute(_TABLE.insert().values(project=tx.project, model_id=model_id, **values))


def of_version(tx: Transaction, model: Any, version: int, limit: int = 100) -> list[EvaluationJob]:
    """Those of a version, newest first."""
    mine = (_TABLE.c.model_id == model.id, _TABLE.c.version == version)
    rows = tx.all(select(_TABLE).where(*mine).order_by(_TABLE.c.id.desc()).limit(limit))
    return [_noun(row, model.name) for row in rows]


def unfinished(tx: Transaction, limit: int = 100) -> list[tuple[str, str, str, str]]:
    """Project, id, state and job of those that have not ended, oldest first."""
    rows = tx.all(select(_TABLE).where(_TABLE.c.state.in_(UNFINISHED)).order_by(_TABLE.c.id).limit(limit))
    return [(row.project, row.id, row.state, row.job) for row in rows]


def find(tx: Transaction, job_id: str) -> EvaluationJob | None:
    """One of the project, by its id."""
    row = tx.one(select(_TABLE).where(_TABLE.c.project == tx.project, _TABLE.c.id == job_id))
    if row is None:
        return None
    name = tx.scalar(select(store.models.c.name).where(store.models.c.id == row.model_id))
    return _noun(row, name)


def change(tx: Transaction, job_id: str, was: str, **values: Any) -> None:
    """Set columns of one that is in the state. Raises Conflict (`stale`) where it is not any more."""
    mine = (_TABLE.c.id == job_id, _TABLE.c.state == was)
    tx.update_guarded(_TABLE.update().where(*mine).values(**values), what=f"evaluation {job_id}")


def _noun(row: Any, name: str) -> EvaluationJob:
    return EvaluationJob(
        id=row.id, model=name, version=row.version, version_digest=row.version_digest, dataset=row.dataset,
        state=row.state, asked=msgspec.convert(row.asked, StartEvaluation), by=row.by, at=row.at, job=row.job,
        evaluation=row.id if row.state == "succeeded" else "", error=row.error, ended_at=row.ended_at,
    )  # fmt: skip
