"""The verbs of spans: log some of one or many traces, read those of a trace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Row, case, select

from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database, Transaction
from modelyard.kernel.errors import InvalidInput
from modelyard.planes.tracking import rules, span_facts, store, trace_store
from modelyard.planes.tracking.services import experiments
from modelyard.planes.tracking.services import traces as of_traces
from modelyard.planes.tracking.trace_search import SESSION_KEY
from modelyard.types.tracing import Span

USAGE_KEY = "mlflow.trace.tokenUsage"
COST_KEY = "mlflow.trace.cost"
USER_KEY = "mlflow.trace.user"
STATS_KEY = "mlflow.trace.sizeStats"
WHERE_TAG = "mlflow.trace.spansLocation"
HERE = "TRACKING_STORE"
_TABLE = trace_store.spans
_TRACES = trace_store.traces
_METADATA = trace_store.trace_metadata
_OPEN = frozenset({"IN_PROGRESS", "STATE_UNSPECIFIED"})
_COLUMNS = ("parent", "name", "type", "status", "start_ns", "end_ns", "content")


class Spans:
    """Spans of the traces of a project."""

    def __init__(self, database: Database, of_experiments: experiments.Experiments) -> None:
        self._database = database
        self._experiments = of_experiments

    def log(self, scope: Scope, experiment_id: str, spans: Mapping[str, Sequence[Span]]) -> None:
        """Add spans by the ids of their traces, all or none; one that is there already is replaced. Raises NotFound,
        InvalidInput."""
        number = rules.experiment_number(experiment_id)
        for trace_id, found in spans.items():
            of_traces.check_id(trace_id)
            for span in found:
                _check(span)
        self._experiments.make_ready(scope.project)
        with self._database.transaction(scope) as tx:
            for trace_id in sorted(spans):
                if spans[trace_id]:
                    _log(tx, number, trace_id, spans[trace_id])

    def of(self, scope: Scope, trace_ids: Sequence[str]) -> dict[str, list[Span]]:
        """The spans of some traces, by their ids: roots first, then by start."""
        found: dict[str, list[Span]] = {}
        root_first = case((_TABLE.c.parent.is_(None), 0), else_=1)
        statement = (
            select(_TABLE.c.trace, _TABLE.c.content)
            .where(_TABLE.c.project == scope.project, _TABLE.c.trace.in_(trace_ids))
            .order_by(_TABLE.c.trace, root_first, _TABLE.c.start_ns, _TABLE.c.id)
        )
        with self._database.reading(scope) as tx:
            for row in tx.all(statement):
                found.setdefault(row.trace, []).append(msgspec.json.decode(row.content, type=Span))
        return found


def bring(tx: Transaction, number: int, trace_id: str, spans: Sequence[Span]) -> None:
    """Add spans of a trace that came from elsewhere. Raises InvalidInput."""
    for span in spans:
        _check(span)
    if spans:
        _log(tx, number, trace_id, spans)


def stored(tx: Transaction, trace_id: str) -> Sequence[str]:
    """The spans of a trace as the JSON that is kept, by id."""
    mine = (_TABLE.c.project == tx.project, _TABLE.c.trace == trace_id)
    return [row.content for row in tx.all(select(_TABLE.c.content).where(*mine).order_by(_TABLE.c.id))]


def expected(metadata: Mapping[str, str]) -> int:
    """How many spans a trace has, by what its client said of it; 0 where it said nothing."""
    count = span_facts.numbers(metadata.get(STATS_KEY, "")).get("num_spans", 0)
    return int(count) if 0 < count < 2**31 else 0


def _check(span: Span) -> None:
    times = [span.start_ns, *([] if span.end_ns is None else [span.end_ns]), *(one.at_ns for one in span.events)]
    if any(not 0 <= one <= rules.INT64_MAX for one in times):
        raise InvalidInput(
            f"a time of the span '{span.name[:80]}' is not within 64 bits of nanoseconds", code="span.time_invalid"
        )
    rules.check_time_ms("start_time_unix_nano", span.start_ns // 1_000_000)


def _log(tx: Transaction, number: int, trace_id: str, spans: Sequence[Span]) -> None:
    facts = span_facts.facts(spans)
    row = _ensured(tx, number, trace_id, facts)
    former = _stored(tx, trace_id, [span.id for span in spans])
    rows = {
        span.id: {
            "project": tx.project,
            "trace": trace_id,
            "id": span.id,
            "parent": span.parent_id,
            "name": span.name,
            "type": span_facts.type_of(span),
            "status": span.status,
            "start_ns": span.start_ns,
            "end_ns": span.end_ns,
            "content": msgspec.json.encode(span).decode(),
        }
        for span in spans
    }
    store.put_rows(tx, _TABLE, [rows[one] for one in sorted(rows)], _COLUMNS)
    known = _known_metadata(tx, trace_id)
    finalized = of_traces.FINALIZED in known
    _update(tx, row, facts, finalized=finalized)
    of_traces.put_texts(tx, _METADATA, trace_id, _new_metadata(known, facts, former))
    of_traces.put_texts(tx, trace_store.trace_tags, trace_id, {WHERE_TAG: HERE})


def _ensured(tx: Transaction, number: int, trace_id: str, facts: span_facts.Facts) -> Row[Any]:
    """The row of the trace, locked; made if it is not there yet."""
    wanted = select(_TRACES).where(_TRACES.c.project == tx.project, _TRACES.c.id == trace_id).with_for_update()
    row = tx.one(wanted)
    if row is not None:
        return row
    experiment = experiments.active(tx, number)
    values = {
        "project": tx.project, "id": trace_id, "experiment": number, "request_ms": facts.start_ms,
        "duration_ms": None, "state": "IN_PROGRESS",
    }  # fmt: skip
    tx.execute(store.inserting(tx, _TRACES).on_conflict_do_nothing(), [values])
    of_traces.put_texts(
        tx,
        trace_store.trace_tags,
        trace_id,
        {of_traces.LOCATION_TAG: of_traces.location(experiment.artifact_location, trace_id)},
    )
    row = tx.one(wanted)
    assert row is not None
    return row


def _stored(tx: Transaction, trace_id: str, span_ids: Sequence[str]) -> list[Span]:
    statement = select(_TABLE.c.content).where(of_traces.of_trace(tx, _TABLE, trace_id), _TABLE.c.id.in_(span_ids))
    return [msgspec.json.decode(row.content, type=Span) for row in tx.all(statement)]


def _known_metadata(tx: Transaction, trace_id: str) -> dict[str, str]:
    keys = (of_traces.FINALIZED, USAGE_KEY, COST_KEY, SESSION_KEY, USER_KEY)
    rows = tx.all(select(_METADATA).where(of_traces.of_trace(tx, _METADATA, trace_id), _METADATA.c.key.in_(keys)))
    return {row.key: row.value for row in rows}


def _update(tx: Transaction, row: Row[Any], facts: span_facts.Facts, *, finalized: bool) -> None:
    changes: dict[str, Any] = {}
    if not finalized:
        start = min(row.request_ms, facts.start_ms)
        ends = [row.request_ms + row.duration_ms] if row.duration_ms is not None else []
        ends += [facts.end_ms] if facts.end_ms is not None else []
        changes = {"request_ms": start, "duration_ms": max(max(ends) - start, 0) if ends else None}
    if facts.state is not None and row.state in _OPEN:
        changes["state"] = facts.state
    for name in ("request_preview", "response_preview"):
        said = getattr(facts, name)
        if said is not None and getattr(row, name) is None:
            changes[name] = said
    if changes:
        of_traces.change(tx, row.id, **changes)


def _new_metadata(known: Mapping[str, str], facts: span_facts.Facts, former: Sequence[Span]) -> dict[str, str]:
    """What the spans add to the metadata: sums, less what the spans had added that they replace, and who it was for."""
    finalized = of_traces.FINALIZED in known
    new: dict[str, str] = {}
    for key, attribute, sums in ((USAGE_KEY, span_facts.USAGE, facts.usage), (COST_KEY, span_facts.COST, facts.cost)):
        if not sums or (finalized and key in known):
            continue
        before, gone = span_facts.numbers(known.get(key)), span_facts.total(former, attribute)
        names = dict.fromkeys([*before, *sums])
        new[key] = msgspec.json.encode(
            {name: before.get(name, 0) + sums.get(name, 0) - gone.get(name, 0) for name in names}
        ).decode()
    if facts.session and SESSION_KEY not in known and not finalized:
        new[SESSION_KEY] = facts.session
    if facts.user and USER_KEY not in known:
        new[USER_KEY] = facts.user
    return new
