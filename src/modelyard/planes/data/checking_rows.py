"""Checking rows that are in no dataset: a table or frame in memory, or files. Nothing is written, and no catalog is
needed, unless a check refers to a dataset."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from modelyard.engines.tables.base import FileSet
from modelyard.engines.tables.foreign import ForeignRows, distinct_texts, row_count, text_columns
from modelyard.engines.tables.sql import SqlSession, quoted, sandbox
from modelyard.kernel.errors import InvalidInput, NotFound
from modelyard.planes.data.checks import BATCH, DATASET, report_sent
from modelyard.planes.data.checks.running import all_failing, run_suite
from modelyard.planes.data.checks.samples import Failing, in_one_look
from modelyard.planes.data.checks.statements import Hints
from modelyard.planes.data.references import Referenced, Take, referenced
from modelyard.types.checks import Sql
from modelyard.types.data import Check, CheckReport, Column, DatasetVersion

if TYPE_CHECKING:
    import pyarrow as pa


def check_rows(
    rows: ForeignRows, checks: Sequence[Check], now: datetime, *, take: Take | None = None, dataset: str = ""
) -> CheckReport:
    """The results of all checks over all rows, in their order; what fails comes with a sample of its rows.

    `take` finds the datasets that checks refer to; `dataset` is the one meant where a check names none.
    """
    others = referenced(take or _none, dataset, checks)
    hints = _hints(rows)
    with _session(rows, checks, others) as session:
        results = run_suite(
            session, checks, _columns(rows), now, provided=others.provided, profiles=others.profiles, one_table=True,
            hints=hints,
        )  # fmt: skip
        counted = hints.rows
        if counted is None:
            counted = session.one(f"SELECT count(*) AS rows FROM {DATASET}")["rows"]
    passed = all(one.status == "passed" or one.severity == "warn" for one in results)
    return report_sent(CheckReport(passed=passed, rows=counted, results=results))


def failing_rows(
    rows: ForeignRows,
    checks: Sequence[Check],
    *,
    columns: Sequence[str] | None = None,
    take: Take | None = None,
    dataset: str = "",
) -> list[pa.Table]:
    """All rows that fail each of the checks, or these columns of them. Raises InvalidInput for one that is not about
    rows, or cannot be asked."""
    for column in columns or ():
        if column not in rows.kinds:
            raise InvalidInput(
                f"column '{column}' is missing; the columns are: {', '.join(rows.kinds)}", code="dataset.column_unknown"
            )
    others: Referenced = referenced(take or _none, dataset, checks)
    known = Hints(row_count(rows), without_nan=rows.without_nan)
    with _session(rows, checks, others) as session:
        found = [all_failing(session, check, _columns(rows), others.provided, known) for check in checks]
        return _fetched(session, found, ", ".join(map(quoted, columns)) if columns else "*")


def _fetched(session: SqlSession, failing: Sequence[Failing], shown: str) -> list[pa.Table]:
    """The rows of each; those that conditions on a row tell in one look at all rows."""
    conditions = {place: f"({one.fails[1]}\n)" for place, one in enumerate(failing) if one.fails is not None}
    found: dict[int, pa.Table] = {}
    if len(conditions) > 1:
        found |= in_one_look(session, DATASET, conditions, shown=shown)
    apart = [place for place in range(len(failing)) if place not in found]
    statements = [f"SELECT {shown} FROM ({failing[place].select}\n)" for place in apart]
    tasks = [partial(SqlSession.table, statement=one) for one in statements]
    found |= dict(zip(apart, session.each(tasks), strict=True))
    return [found[place] for place in range(len(failing))]


@contextmanager
def _session(rows: ForeignRows, checks: Sequence[Check], others: Referenced) -> Iterator[SqlSession]:
    """Rows in files may be more than fits in memory. Only a text of a user's can speak of them as of a batch."""
    tables = {DATASET: rows, **others.tables}
    if any(isinstance(check, Sql) for check in checks):
        tables[BATCH] = rows
    with ExitStack() as held:
        spill = None
        if isinstance(rows.rows, FileSet):
            spill = Path(held.enter_context(TemporaryDirectory(prefix="modelyard-spill-", ignore_cleanup_errors=True)))
        yield held.enter_context(sandbox(tables, spill=spill))


def _hints(rows: ForeignRows) -> Hints:
    count = row_count(rows)
    few = Hints(count, without_nan=rows.without_nan)
    return replace(few, distinct=distinct_texts(rows, text_columns(rows))) if few.many else few


def _columns(rows: ForeignRows) -> list[Column]:
    return [Column(name, kind) for name, kind in rows.kinds.items()]


def _none(name: str, ref: int | str | None, *, rows: bool) -> tuple[DatasetVersion, None]:  # noqa: ARG001  as `Take`
    raise NotFound(f"there is no dataset {name!a} here", code="dataset.not_found")
