"""The verbs of issues: create, get, search, update. Traces show an issue by an assessment that names it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Row, func, select

from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database, Transaction
from modelyard.kernel.errors import InvalidInput, NotFound
from modelyard.kernel.ids import new_id
from modelyard.planes.tracking import filters, rules, trace_store
from modelyard.planes.tracking.operands import check_left, check_operator, text_of
from modelyard.planes.tracking.rows import run_row
from modelyard.planes.tracking.services import experiments
from modelyard.types.page import Page
from modelyard.types.tracing import CreateIssue, Issue, UpdateIssue

TEXT_CHARACTERS_MAX = 10_000
_TABLE = trace_store.issues
_ASSESSMENTS = trace_store.assessments
_SEARCHABLE = ("status", "source_run_id")


class Issues:
    """Issues of the experiments of a project."""

    def __init__(self, database: Database, of_experiments: experiments.Experiments) -> None:
        self._database = database
        self._experiments = of_experiments

    def create(self, scope: Scope, asked: CreateIssue) -> Issue:
        """A new issue of an active experiment. Raises NotFound for it or for its run, InvalidInput."""
        number = rules.experiment_number(asked.experiment_id)
        for what in ("name", "description"):
            rules.check_length(what, TEXT_CHARACTERS_MAX, getattr(asked, what))
        self._experiments.make_ready(scope.project)
        with self._database.transaction(scope) as tx:
            experiments.active(tx, number)
            if asked.source_run_id is not None:
                run_row(tx, asked.source_run_id)
            now, said = experiments.now_ms(tx), msgspec.structs.asdict(asked)
            del said["experiment_id"]
            row = {
                "project": tx.project, "id": f"iss-{new_id()}", "experiment": number, "created_ms": now,
                "updated_ms": now, **said,
            }  # fmt: skip
            tx.execute(_TABLE.insert().values(**row))
            tx.event("issue.created", f"issue:{row['id']}", {"experiment": str(number), "name": asked.name[:200]})
            return _noun(_row(tx, str(row["id"])))

    def get(self, scope: Scope, issue_id: str) -> Issue:
        """An issue. Raises NotFound."""
        with self._database.reading(scope) as tx:
            return _noun(_row(tx, issue_id))

    def update(self, scope: Scope, issue_id: str, asked: UpdateIssue) -> Issue:
        """Change what is asked. Raises NotFound."""
        changes = {name: value for name, value in msgspec.structs.asdict(asked).items() if value is not None}
        with self._database.transaction(scope) as tx:
            row = _row(tx, issue_id)
            now = max(experiments.now_ms(tx), row.updated_ms)
            here = (_TABLE.c.project == tx.project) & (_TABLE.c.id == issue_id)
            tx.execute(_TABLE.update().where(here).values(updated_ms=now, **changes))
            if asked.status is not None and asked.status != row.status:
                tx.event("issue.changed", f"issue:{issue_id}", {"status": asked.status, "was": row.status})
            return _noun(_row(tx, issue_id))

    def search(
        self,
        scope: Scope,
        experiment_id: str = "",
        filter: str = "",
        limit: int = 1_000,
        page: str | None = None,
        *,
        counting: bool = False,
    ) -> Page[Issue]:
        """The issues of an experiment, or of all, newest first; `counting` the traces that show each. Raises
        InvalidInput."""
        clauses = parse_issues(filter)
        offset = filters.page_offset(page)
        with self._database.reading(scope) as tx:
            wanted: list[ColumnElement[bool]] = [_TABLE.c.project == tx.project]
            if experiment_id:
                wanted.append(_TABLE.c.experiment == rules.experiment_number(experiment_id))
            for key, operator, value in clauses:
                column = _TABLE.c[key]
                wanted.append(column == value if operator == "=" else column != value)
            found = select(_TABLE).where(*wanted).order_by(_TABLE.c.created_ms.desc(), _TABLE.c.id.desc())
            rows = tx.all(found.limit(limit + 1).offset(offset))
            counts = _counts(tx, [row.id for row in rows[:limit]]) if counting else None
            more = filters.page_token(offset + limit) if len(rows) > limit else None
            return Page([_noun(row, counts) for row in rows[:limit]], more)


def parse_issues(text: str) -> list[tuple[str, str, str]]:
    """The clauses (key, operator, value) of a filter over issues. Raises InvalidInput."""
    found = []
    for one in filters.valid_comparisons(text, quoted=False):
        check_left(one)
        key = one.left.text.strip("`")
        if key not in _SEARCHABLE:
            raise InvalidInput(
                f"Invalid attribute key '{key}' specified. Valid keys are '{sorted(_SEARCHABLE)}'",
                code="filter.invalid",
            )
        check_operator(one.operator, frozenset({"=", "!="}))
        assert one.right is not None
        found.append((key, one.operator, text_of(one.right, "Expected a quoted string value for attributes.")))
    return found


def _row(tx: Transaction, issue_id: str) -> Row[Any]:
    row = tx.one(select(_TABLE).where(_TABLE.c.project == tx.project, _TABLE.c.id == issue_id))
    if row is None:
        raise NotFound(f"Issue with ID '{issue_id[:80]}' not found", code="issue.not_found")
    return row


def _counts(tx: Transaction, issue_ids: Sequence[str]) -> dict[str, int]:
    table = _ASSESSMENTS
    counted = (
        select(table.c.name, func.count(table.c.trace.distinct()).label("traces"))
        .where(table.c.project == tx.project, table.c.kind == "issue", table.c.name.in_(issue_ids))
        .group_by(table.c.name)
    )
    return {row.name: row.traces for row in tx.all(counted)}


def _noun(row: Row[Any], counts: Mapping[str, int] | None = None) -> Issue:
    return Issue(
        id=row.id, experiment_id=str(row.experiment), name=row.name, description=row.description, status=row.status,
        severity=row.severity, root_causes=row.root_causes, categories=row.categories,
        source_run_id=row.source_run_id, created_by=row.created_by, created_ms=row.created_ms,
        updated_ms=row.updated_ms, traces=None if counts is None else counts.get(row.id, 0),
    )  # fmt: skip
