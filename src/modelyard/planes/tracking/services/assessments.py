"""The verbs of assessments of traces: create, get, update, delete."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Row, select

from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database, Transaction
from modelyard.kernel.errors import InvalidInput, NotFound
from modelyard.kernel.ids import new_id
from modelyard.planes.tracking import rules, store, trace_store
from modelyard.planes.tracking.services import experiments
from modelyard.planes.tracking.trace_search import SESSION_KEY, as_text
from modelyard.types.tracing import Assessment, AssessmentError, CreateAssessment, UpdateAssessment

NAME_CHARACTERS_MAX = 250
ID_CHARACTERS_MAX = 64
_TABLE = trace_store.assessments
_TRACES = trace_store.traces


class Assessments:
    """Assessments of the traces of a project."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, scope: Scope, trace_id: str, asked: CreateAssessment) -> Assessment:
        """A new assessment; the one that it overrides is valid no longer. Raises NotFound, InvalidInput."""
        with self._database.transaction(scope) as tx:
            _check_trace(tx, trace_id)
            made = _made(tx, trace_id, asked)
            if asked.overrides:
                overridden = tx.execute(_TABLE.update().where(_one(tx, trace_id, asked.overrides)).values(valid=False))
                if overridden.rowcount == 0:
                    raise _missing(trace_id, asked.overrides)
            put(tx, trace_id, [made])
        return made

    def get(self, scope: Scope, trace_id: str, assessment_id: str) -> Assessment:
        """An assessment. Raises NotFound."""
        with self._database.reading(scope) as tx:
            return _noun(_row(tx, trace_id, assessment_id))

    def update(self, scope: Scope, trace_id: str, assessment_id: str, asked: UpdateAssessment) -> Assessment:
        """Change what is asked; metadata is merged. Raises NotFound, or InvalidInput for a value of another kind."""
        with self._database.transaction(scope) as tx:
            known = _noun(_row(tx, trace_id, assessment_id))
            if asked.kind is not None and asked.kind != known.kind:
                raise InvalidInput(
                    f"Cannot update {asked.kind} value on {_ARTICLES[known.kind]} assessment.",
                    code="assessment.kind_differs",
                )
            changed = msgspec.structs.replace(
                known,
                name=known.name if asked.name is None else asked.name,
                value=known.value if asked.kind is None else asked.value,
                error=known.error if asked.kind is None else asked.error,
                rationale=known.rationale if asked.rationale is None else asked.rationale,
                metadata={**known.metadata, **(asked.metadata or {})},
                updated_ms=max(experiments.now_ms(tx), known.updated_ms + 1),
            )
            _check_name(changed.name)
            put(tx, trace_id, [changed])
        return changed

    def delete(self, scope: Scope, trace_id: str, assessment_id: str) -> None:
        """Remove an assessment, if it is there; what it overrode is valid again. Raises NotFound for the trace."""
        with self._database.transaction(scope) as tx:
            _check_trace(tx, trace_id)
            row = tx.one(select(_TABLE).where(_one(tx, trace_id, assessment_id)))
            if row is None:
                return
            if row.overrides:
                tx.execute(_TABLE.update().where(_one(tx, trace_id, row.overrides)).values(valid=True))
            tx.execute(_TABLE.delete().where(_one(tx, trace_id, assessment_id)))


_ARTICLES = {"feedback": "a Feedback", "expectation": "an Expectation", "issue": "an Issue"}


def put(tx: Transaction, trace_id: str, found: Sequence[Assessment]) -> None:
    """Write assessments of a trace."""
    rows = [
        {
            "project": tx.project, "trace": trace_id, "id": one.id or f"a-{new_id()}", "name": one.name,
            "kind": one.kind, "value": msgspec.json.encode(one.value).decode(), "text": as_text(one.value),
            "error": one.error, "source_type": one.source_type, "source_id": one.source_id,
            "created_ms": one.created_ms, "updated_ms": one.updated_ms, "rationale": one.rationale,
            "metadata": one.metadata, "session": one.metadata.get(SESSION_KEY), "span": one.span_id,
            "overrides": one.overrides, "valid": one.valid,
        }
        for one in found
    ]  # fmt: skip
    kept = {"project", "trace", "id"}
    store.put_rows(tx, _TABLE, rows, [column.name for column in _TABLE.columns if column.name not in kept])


def of(tx: Transaction, trace_ids: Sequence[str]) -> dict[str, list[Assessment]]:
    """The assessments of some traces by their ids, oldest first."""
    found: dict[str, list[Assessment]] = {}
    statement = select(_TABLE).where(_TABLE.c.project == tx.project, _TABLE.c.trace.in_(trace_ids))
    for row in tx.all(statement.order_by(_TABLE.c.created_ms, _TABLE.c.id)):
        found.setdefault(row.trace, []).append(_noun(row))
    return found


def _made(tx: Transaction, trace_id: str, asked: CreateAssessment) -> Assessment:
    _check_name(asked.name)
    if len(asked.id) > ID_CHARACTERS_MAX or (asked.overrides and len(asked.overrides) > ID_CHARACTERS_MAX):
        raise InvalidInput(
            rules.invalid_value("assessment_id", asked.id[:100], f"it may have {ID_CHARACTERS_MAX} characters"),
            code="assessment.id_invalid",
        )
    now = experiments.now_ms(tx)
    return Assessment(
        id=asked.id or f"a-{new_id()}",
        trace_id=trace_id,
        name=asked.name,
        kind=asked.kind,
        value=asked.value,
        error=asked.error,
        source_type=asked.source_type,
        source_id=asked.source_id,
        created_ms=now if asked.created_ms is None else asked.created_ms,
        updated_ms=now if asked.updated_ms is None else asked.updated_ms,
        rationale=asked.rationale,
        metadata=asked.metadata,
        span_id=asked.span_id,
        overrides=asked.overrides,
        valid=asked.valid,
    )


def _check_name(name: str) -> None:
    if not name:
        raise InvalidInput(rules.missing_value("assessment_name"), code="assessment.name_invalid")
    rules.check_length("assessment_name", NAME_CHARACTERS_MAX, name)


def _check_trace(tx: Transaction, trace_id: str) -> None:
    if tx.one(select(_TRACES.c.id).where(_TRACES.c.project == tx.project, _TRACES.c.id == trace_id)) is None:
        raise NotFound(f"Trace with ID '{trace_id[:250]}' not found.", code="trace.not_found")


def _one(tx: Transaction, trace_id: str, assessment_id: str) -> Any:
    return (_TABLE.c.project == tx.project) & (_TABLE.c.trace == trace_id) & (_TABLE.c.id == assessment_id)


def _row(tx: Transaction, trace_id: str, assessment_id: str) -> Row[Any]:
    row = tx.one(select(_TABLE).where(_one(tx, trace_id, assessment_id)))
    if row is not None:
        return row
    known = tx.one(select(_TRACES.c.id).where(_TRACES.c.project == tx.project, _TRACES.c.id == trace_id))
    if known is None:
        raise NotFound(f"Trace with request_id '{trace_id[:250]}' not found", code="trace.not_found")
    raise _missing(trace_id, assessment_id)


def _missing(trace_id: str, assessment_id: str) -> NotFound:
    return NotFound(
        f"Assessment with ID '{assessment_id[:250]}' not found for trace '{trace_id[:250]}'",
        code="assessment.not_found",
    )


def _noun(row: Row[Any]) -> Assessment:
    return Assessment(
        id=row.id,
        trace_id=row.trace,
        name=row.name,
        kind=row.kind,
        value=msgspec.json.decode(row.value),
        error=None if row.error is None else msgspec.convert(row.error, AssessmentError),
        source_type=row.source_type,
        source_id=row.source_id,
        created_ms=row.created_ms,
        updated_ms=row.updated_ms,
        rationale=row.rationale,
        metadata=row.metadata,
        span_id=row.span,
        overrides=row.overrides,
        valid=row.valid,
    )
