"""The verbs of traces: start, search, get, tag, link, delete. Their spans come by `spans.py`, at any time.

A trace is written from two sides that do not wait for each other: its client says what it was as a whole (`start`,
which comes at its end, for all its name), and its spans arrive in batches. Whichever is first makes the trace; what was
said of the whole then counts before what the spans add up to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Row, Table, func, select

from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database, Transaction
from modelyard.kernel.errors import InvalidInput, NotFound
from modelyard.kernel.ids import new_id
from modelyard.kernel.portions import portions
from modelyard.planes.tracking import filters, rules, store, trace_filters, trace_search, trace_store
from modelyard.planes.tracking.rows import run_row
from modelyard.planes.tracking.services import assessments, experiments
from modelyard.types.page import Page
from modelyard.types.tracing import FilterCounts, Trace, TraceState

FINALIZED = "mlflow.trace.infoFinalized"
LOCATION_TAG = "mlflow.artifactLocation"
LINKS_MAX = 100
SEARCH_DEFAULT = 100
_TABLE = trace_store.traces
_TAGS = trace_store.trace_tags
_METADATA = trace_store.trace_metadata
_CHUNK = 500
_OWNED = (_TAGS, _METADATA, trace_store.spans, trace_store.assessments, trace_store.links)


class Traces:
    """Traces of a project."""

    def __init__(self, database: Database, of_experiments: experiments.Experiments) -> None:
        self._database = database
        self._experiments = of_experiments

    def start(self, scope: Scope, trace: Trace) -> Trace:
        """Say what a trace is as a whole: a new one, or one whose spans came first. Raises NotFound, InvalidInput."""
        check_id(trace.id)
        number = rules.experiment_number(trace.experiment_id)
        rules.check_time_ms("request_time", trace.request_ms)
        tags, metadata = checked_tags(trace.tags), checked_metadata(trace.metadata)
        self._experiments.make_ready(scope.project)
        with self._database.transaction(scope) as tx:
            experiment = experiments.active(tx, number)
            _put(tx, number, trace)
            put_texts(tx, _TAGS, trace.id, {**tags, LOCATION_TAG: location(experiment.artifact_location, trace.id)})
            put_texts(tx, _METADATA, trace.id, {**metadata, FINALIZED: "true"})
            assessments.put(tx, trace.id, trace.assessments)
            return nouns(tx, [trace.id])[0]

    def begin(
        self, scope: Scope, experiment_id: str, request_ms: int, tags: Mapping[str, str], metadata: Mapping[str, str]
    ) -> Trace:
        """A trace that goes on, with an id of ours, as clients before 3.0 make one. Raises NotFound, InvalidInput."""
        number = rules.experiment_number(experiment_id or experiments.DEFAULT)
        rules.check_time_ms("timestamp_ms", request_ms)
        tags, metadata = checked_tags(tags), checked_metadata(metadata)
        trace_id = new_id()
        self._experiments.make_ready(scope.project)
        with self._database.transaction(scope) as tx:
            experiment = experiments.active(tx, number)
            _put(tx, number, Trace(id=trace_id, experiment_id="", request_ms=request_ms, state="IN_PROGRESS"))
            put_texts(tx, _TAGS, trace_id, {**tags, LOCATION_TAG: location(experiment.artifact_location, trace_id)})
            put_texts(tx, _METADATA, trace_id, metadata)
            return nouns(tx, [trace_id])[0]

    def end(
        self,
        scope: Scope,
        trace_id: str,
        at_ms: int,
        state: TraceState,
        tags: Mapping[str, str],
        metadata: Mapping[str, str],
    ) -> Trace:
        """End a trace that was begun. Raises NotFound, InvalidInput."""
        rules.check_time_ms("timestamp_ms", at_ms)
        tags, metadata = checked_tags(tags), checked_metadata(metadata)
        with self._database.transaction(scope) as tx:
            row = trace_row(tx, trace_id)
            change(tx, trace_id, duration_ms=max(at_ms - row.request_ms, 0), state=state)
            put_texts(tx, _TAGS, trace_id, tags)
            put_texts(tx, _METADATA, trace_id, metadata)
            return nouns(tx, [trace_id])[0]

    def get(self, scope: Scope, trace_id: str) -> Trace:
        """A trace without its spans. Raises NotFound."""
        with self._database.reading(scope) as tx:
            trace_row(tx, trace_id)
            return nouns(tx, [trace_id])[0]

    def several(self, scope: Scope, trace_ids: Sequence[str]) -> list[Trace]:
        """Traces by their ids, in this order; unknown ones are left out."""
        with self._database.reading(scope) as tx:
            return nouns(tx, trace_ids)

    def search(
        self,
        scope: Scope,
        experiment_ids: Sequence[str],
        filter: str = "",
        order_by: Sequence[str] = (),
        limit: int = SEARCH_DEFAULT,
        page: str | None = None,
    ) -> Page[Trace]:
        """The traces of some experiments that a filter picks, newest first unless ordered otherwise. Raises
        InvalidInput."""
        clauses, orders = trace_filters.parse_traces(filter), trace_filters.order_traces(order_by)
        numbers = [rules.experiment_number(one) for one in experiment_ids]
        offset = filters.page_offset(page)
        with self._database.reading(scope) as tx:
            found = trace_search.ids(tx, numbers, clauses, orders, limit + 1, offset)
            more = filters.page_token(offset + limit) if len(found) > limit else None
            return Page(nouns(tx, found[:limit]), more)

    def counts(
        self, scope: Scope, experiment_ids: Sequence[str], first: str, second: str, base: str = ""
    ) -> FilterCounts:
        """How many traces two filters pick, each and together, of all or of those that `base` picks. Raises
        InvalidInput."""
        numbers = [rules.experiment_number(one) for one in experiment_ids]
        parsed = [trace_filters.parse_traces(one) for one in (base, first, second)]
        with self._database.reading(scope) as tx:
            every, one, other = (trace_search.all_ids(tx, numbers, clauses) for clauses in parsed)
        one, other = one & every, other & every
        return FilterCounts(first=len(one), second=len(other), both=len(one & other), total=len(every))

    def set_tag(self, scope: Scope, trace_id: str, key: str, value: str) -> None:
        """Set a tag of a trace. Raises NotFound, InvalidInput."""
        tags = {key: rules.tag_value(key, value)}
        with self._database.transaction(scope) as tx:
            trace_row(tx, trace_id)
            put_texts(tx, _TAGS, trace_id, tags)

    def delete_tag(self, scope: Scope, trace_id: str, key: str) -> None:
        """Remove a tag of a trace. Raises NotFound where there is none."""
        with self._database.transaction(scope) as tx:
            trace_row(tx, trace_id)
            gone = tx.execute(_TAGS.delete().where(of_trace(tx, _TAGS, trace_id), _TAGS.c.key == key))
            if gone.rowcount == 0:
                raise NotFound(
                    f"No trace tag with key '{key}' for trace with ID '{trace_id}'", code="trace.tag_not_found"
                )

    def link_to_run(self, scope: Scope, trace_ids: Sequence[str], run_id: str) -> None:
        """Tie traces to a run, so that a search for the run's traces finds them. Raises NotFound, InvalidInput.

        A trace need not be there yet: clients send it in the background.
        """
        if len(trace_ids) > LINKS_MAX:
            raise InvalidInput(
                f"Cannot link more than {LINKS_MAX} traces to a run in a single request. "
                f"Provided {len(trace_ids)} traces.",
                code="trace.links_too_many",
                hint="send them in several requests",
            )
        for trace_id in trace_ids:
            check_id(trace_id)
        with self._database.transaction(scope) as tx:
            run_row(tx, run_id)
            _link(tx, ((trace_id, "run", run_id) for trace_id in trace_ids))

    def link_prompts(self, scope: Scope, trace_id: str, prompts: Iterable[tuple[str, str]]) -> None:
        """Note which prompts (name, version) a trace used. Raises NotFound."""
        with self._database.transaction(scope) as tx:
            trace_row(tx, trace_id)
            _link(tx, ((trace_id, "prompt", f"{name}/{version}") for name, version in prompts))

    def delete(
        self,
        scope: Scope,
        experiment_id: str,
        *,
        until_ms: int | None = None,
        at_most: int | None = None,
        trace_ids: Sequence[str] | None = None,
    ) -> int:
        """Delete traces of an experiment for good: those named, or those until a time, at most so many, oldest first.
        Returns how many."""
        number = rules.experiment_number(experiment_id)
        wanted = select(_TABLE.c.id).where(_TABLE.c.project == scope.project, _TABLE.c.experiment == number)
        if until_ms is not None:
            wanted = wanted.where(_TABLE.c.request_ms <= until_ms)
        if trace_ids:
            wanted = wanted.where(_TABLE.c.id.in_(trace_ids))
        wanted = wanted.order_by(_TABLE.c.request_ms, _TABLE.c.id)
        with self._database.transaction(scope) as tx:
            gone = [row.id for row in tx.all(wanted if at_most is None else wanted.limit(at_most))]
            forget(tx, gone)
            if gone:
                tx.event("trace.deleted", f"experiment:{number}", {"traces": len(gone)})
        return len(gone)


def forget(tx: Transaction, trace_ids: Sequence[str]) -> None:
    """Delete traces with all that belongs to them."""
    for some in portions(trace_ids, _CHUNK):
        for table in _OWNED:
            tx.execute(table.delete().where(table.c.project == tx.project, table.c.trace.in_(some)))
        tx.execute(_TABLE.delete().where(_TABLE.c.project == tx.project, _TABLE.c.id.in_(some)))


def bring(tx: Transaction, number: int, trace: Trace, root: str, runs: Sequence[str]) -> None:
    """Write down a trace that came from elsewhere, in an experiment of whichever stage. Raises InvalidInput."""
    check_id(trace.id)
    rules.check_time_ms("request_time", trace.request_ms)
    _put(tx, number, trace)
    put_texts(tx, _TAGS, trace.id, {**checked_tags(trace.tags), LOCATION_TAG: location(root, trace.id)})
    put_texts(tx, _METADATA, trace.id, {**checked_metadata(trace.metadata), FINALIZED: "true"})
    assessments.put(tx, trace.id, trace.assessments)
    _link(tx, ((trace.id, "run", one) for one in runs))


def trace_row(tx: Transaction, trace_id: str) -> Row[Any]:
    """The row of a trace. Raises NotFound."""
    row = tx.one(select(_TABLE).where(_TABLE.c.project == tx.project, _TABLE.c.id == trace_id))
    if row is None:
        raise NotFound(f"Trace with ID '{trace_id[:250]}' not found.", code="trace.not_found")
    return row


def change(tx: Transaction, trace_id: str, **values: Any) -> None:
    """Set columns of a trace."""
    tx.execute(_TABLE.update().where(_TABLE.c.project == tx.project, _TABLE.c.id == trace_id).values(**values))


def of_trace(tx: Transaction, table: Table, trace_id: str) -> Any:
    """The condition that a row belongs to a trace."""
    return (table.c.project == tx.project) & (table.c.trace == trace_id)


def put_texts(tx: Transaction, table: Table, trace_id: str, texts: Mapping[str, str]) -> None:
    """Set tags or metadata of a trace."""
    rows = [{"project": tx.project, "trace": trace_id, "key": key, "value": texts[key]} for key in sorted(texts)]
    store.put_rows(tx, table, rows, ["value"])


def checked_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags that come with a trace, as they are stored. Raises InvalidInput for a key that is too long."""
    for key in tags:
        rules.check_length("key", rules.KEY_CHARACTERS_MAX, key)
    return {key: value[: rules.TAG_CHARACTERS_MAX] for key, value in tags.items()}


def checked_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """Metadata as it is stored. Raises InvalidInput for a key that is too long."""
    for key in metadata:
        rules.check_length("key", rules.KEY_CHARACTERS_MAX, key)
    return dict(metadata)


def check_id(trace_id: str) -> None:
    """Raise InvalidInput for a text that no trace can be called."""
    if not 0 < len(trace_id) <= trace_store.ID_CHARACTERS_MAX or not trace_id.isprintable():
        raise InvalidInput(
            rules.invalid_value("trace_id", trace_id[:300], "it must be 1 to 250 printable characters"),
            code="trace.id_invalid",
        )


def location(root: str, trace_id: str) -> str:
    """Where clients put files of a trace, below the location of its experiment."""
    return f"{root.rstrip('/')}/traces/{trace_id}/artifacts"


def nouns(tx: Transaction, trace_ids: Sequence[str]) -> list[Trace]:
    """Traces by their ids, in this order; unknown ones are left out."""
    found: dict[str, Trace] = {}
    for some in portions(trace_ids, _CHUNK):
        tags, metadata = _texts(tx, _TAGS, some), _texts(tx, _METADATA, some)
        assessed = assessments.of(tx, some)
        for row in tx.all(select(_TABLE).where(_TABLE.c.project == tx.project, _TABLE.c.id.in_(some))):
            found[row.id] = Trace(
                id=row.id,
                experiment_id=str(row.experiment),
                request_ms=row.request_ms,
                duration_ms=row.duration_ms,
                state=row.state,
                client_request_id=row.client_request_id,
                request_preview=row.request_preview,
                response_preview=row.response_preview,
                tags=tags.get(row.id, {}),
                metadata=metadata.get(row.id, {}),
                assessments=assessed.get(row.id, []),
            )
    return [found[one] for one in dict.fromkeys(trace_ids) if one in found]


def _texts(tx: Transaction, table: Table, trace_ids: Sequence[str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for row in tx.all(select(table).where(table.c.project == tx.project, table.c.trace.in_(trace_ids))):
        found.setdefault(row.trace, {})[row.key] = row.value
    return found


def _put(tx: Transaction, number: int, trace: Trace) -> None:
    previews = ("request_preview", "response_preview")
    statement = store.inserting(tx, _TABLE).values(
        project=tx.project,
        id=trace.id,
        experiment=number,
        request_ms=trace.request_ms,
        duration_ms=trace.duration_ms,
        state=trace.state,
        client_request_id=trace.client_request_id,
        request_preview=trace.request_preview,
        response_preview=trace.response_preview,
    )
    said = {name: statement.excluded[name] for name in ("request_ms", "duration_ms", "state", "client_request_id")}
    kept = {name: func.coalesce(statement.excluded[name], _TABLE.c[name]) for name in previews}
    tx.execute(statement.on_conflict_do_update(index_elements=[_TABLE.c.project, _TABLE.c.id], set_={**said, **kept}))


def _link(tx: Transaction, wanted: Iterable[tuple[str, str, str]]) -> None:
    rows = [
        {"project": tx.project, "trace": trace, "kind": kind, "target": target}
        for trace, kind, target in sorted(set(wanted))
    ]
    if rows:
        tx.execute(store.inserting(tx, trace_store.links).on_conflict_do_nothing(), rows)
