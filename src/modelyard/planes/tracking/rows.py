"""Finding the row of a run, which everything that is logged starts with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from sqlalchemy import bindparam, select

from modelyard.kernel.database import Transaction
from modelyard.kernel.errors import EngineError, InvalidInput, NotFound
from modelyard.kernel.prepared import Prepared
from modelyard.planes.tracking.store import runs


class RunRow(NamedTuple):
    """A row of `runs`, in the order of its columns."""

    number: int
    project: str
    id: str
    experiment: int
    name: str
    user: str
    status: str
    stage: str
    start_ms: int
    end_ms: int | None
    artifact_uri: str
    has_links: bool


COLUMNS = [runs.c[name] for name in RunRow._fields]
_BY_ID = Prepared(select(*COLUMNS).where(runs.c.project == bindparam("project"), runs.c.id == bindparam("id")))


def run_row(tx: Transaction, run_id: str) -> RunRow:
    """The row of a run of whichever stage. Raises NotFound."""
    rows = tx.run(_BY_ID, {"project": tx.project, "id": run_id})
    if not rows:
        raise NotFound(
            f"Run with id={run_id[:80]} not found",
            code="run.not_found",
            hint="list runs with `modelyard run list`; a run of another project is not shown",
        )
    return RunRow._make(rows[0])


def active_run_row(tx: Transaction, run_id: str) -> RunRow:
    """The row of a run that can be logged to. Raises NotFound, or InvalidInput (`run.deleted`)."""
    row = run_row(tx, run_id)
    if row.stage != "active":
        raise InvalidInput(
            f"The run {run_id} must be in the 'active' state. Current state is {row.stage}.",
            code="run.deleted",
            hint=f"restore it first: `modelyard run restore {run_id}`",
        )
    return row


@contextmanager
def naming_segment(number: int) -> Iterator[None]:
    """Let damage that is found in a segment say in which one."""
    try:
        yield
    except EngineError as error:
        raise EngineError(
            f"segment {number} of the metric points is damaged",
            code=error.code,
            hint="restore the row of this number in `metric_segments` from a backup; all other segments can be read",
        ) from error
