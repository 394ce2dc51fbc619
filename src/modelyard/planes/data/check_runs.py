"""The table of check runs and all SQL on it: what suites found of versions, after those were there."""

from __future__ import annotations

from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy import Boolean, Column, Index, Integer, String, Table, select

from modelyard.kernel.database import Instant, Json, Transaction, metadata
from modelyard.types.data import Check, CheckReport, CheckRun

check_runs = Table(
    "dataset_check_runs",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("project", String(64), nullable=False),
    Column("dataset_id", String(32), nullable=False),
    Column("version", Integer, nullable=False),
    Column("suite", String(255), nullable=False),
    Column("passed", Boolean, nullable=False),
    Column("checks", Json, nullable=False),
    Column("report", Json, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("created_by", String(255), nullable=False),
    Index("dataset_check_runs_by_dataset", "dataset_id", "id"),
)
# Newer runs take the place of older ones; a report is large, and the events say what there was.
RUNS_KEPT = 100


def insert(tx: Transaction, dataset_id: str, run: CheckRun) -> None:
    """Keep a run, and let go of those beyond what is kept of a dataset."""
    tx.execute(
        check_runs.insert().values(
            id=run.id,
            project=tx.project,
            dataset_id=dataset_id,
            version=run.version,
            suite=run.suite,
            passed=run.report.passed,
            checks=run.checks,
            report=run.report,
            created_at=run.created_at,
            created_by=run.created_by,
        )
    )
    kept = select(check_runs.c.id).where(check_runs.c.dataset_id == dataset_id).order_by(check_runs.c.id.desc())
    oldest = tx.scalar(kept.limit(1).offset(RUNS_KEPT - 1))
    if oldest is not None:
        tx.execute(
            check_runs.delete().where(
                check_runs.c.project == tx.project, check_runs.c.dataset_id == dataset_id, check_runs.c.id < oldest
            )
        )


def recent(tx: Transaction, dataset_id: str, name: str, limit: int, *, up_to: int | None = None) -> list[CheckRun]:
    """The newest runs, newest first; of versions up to one."""
    statement = select(check_runs).where(check_runs.c.project == tx.project, check_runs.c.dataset_id == dataset_id)
    if up_to is not None:
        statement = statement.where(check_runs.c.version <= up_to)
    return [_run(row, name) for row in tx.all(statement.order_by(check_runs.c.id.desc()).limit(limit))]


def one(tx: Transaction, dataset_id: str, name: str, run_id: str) -> CheckRun | None:
    """One run."""
    row = tx.one(
        select(check_runs).where(
            check_runs.c.project == tx.project, check_runs.c.dataset_id == dataset_id, check_runs.c.id == run_id
        )
    )
    return None if row is None else _run(row, name)


def _run(row: sa.Row[Any], name: str) -> CheckRun:
    return CheckRun(
        id=row.id,
        dataset=name,
        version=row.version,
        suite=row.suite,
        checks=msgspec.convert(row.checks, list[Check]),
        report=msgspec.convert(row.report, CheckReport),
        created_at=row.created_at,
        created_by=row.created_by,
    )
