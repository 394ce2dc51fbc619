"""Finding the row of a run, which everything that is logged starts with."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row, bindparam, select

from modelyard.kernel.database import Transaction
from modelyard.kernel.errors import InvalidInput, NotFound
from modelyard.planes.tracking.store import runs

_BY_ID = select(runs).where(runs.c.project == bindparam("project"), runs.c.id == bindparam("id"))


def run_row(tx: Transaction, run_id: str) -> Row[Any]:
    """The row of a run of whichever stage. Raises NotFound."""
    row = tx.execute(_BY_ID, {"project": tx.project, "id": run_id}).first()
    if row is None:
        raise NotFound(
            f"Run with id={run_id[:80]} not found",
            code="run.not_found",
            hint="list runs with `modelyard run list`; a run of another project is not shown",
        )
    return row


def active_run_row(tx: Transaction, run_id: str) -> Row[Any]:
    """The row of a run that can be logged to. Raises NotFound, or InvalidInput (`run.deleted`)."""
    row = run_row(tx, run_id)
    if row.stage != "active":
        raise InvalidInput(
            f"The run {run_id} must be in the 'active' state. Current state is {row.stage}.",
            code="run.deleted",
            hint=f"restore it first: `modelyard run restore {run_id}`",
        )
    return row
