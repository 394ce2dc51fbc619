"""Filters and orders as SQL, on SQLite and PostgreSQL alike.

Order is values, then not-a-number, then what lacks the key, ascending or descending; ties by start, newest first,
then by id.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import (
    ColumnElement,
    FromClause,
    Select,
    String,
    and_,
    case,
    exists,
    func,
    literal,
    literal_column,
    or_,
    select,
    text,
    type_coerce,
)

from modelyard.kernel.database import Transaction
from modelyard.kernel.errors import InvalidInput
from modelyard.planes.tracking import store
from modelyard.planes.tracking.filters import Clause, ModelOrder, Order
from modelyard.planes.tracking.narrowing import candidates, of_texts, together
from modelyard.types.tracking import View

STAGES: dict[View, tuple[str, ...]] = {
    "active": ("active",),
    "deleted": ("deleted",),
    "all": ("active", "deleted"),
}
BEST_LOOKED_AT = 5_000
"""Among how many runs of the first values a filtered and ordered page is looked for, before all are."""
PATTERN_CHARACTERS_MAX = 8_000
JOINED_MAX = 30
"""So many conditions join a table each; those after look for a row. SQLite joins 64 tables at most."""
_RUN_COLUMNS = {
    "run_id": "id", "run_name": "name", "user_id": "user", "status": "status",
    "artifact_uri": "artifact_uri", "start_time": "start_ms", "end_time": "end_ms",
}  # fmt: skip
_EXPERIMENT_COLUMNS = {
    "name": "name", "experiment_id": "number", "creation_time": "created_ms", "last_update_time": "updated_ms",
}  # fmt: skip
_MODEL_COLUMNS = {
    "name": "name", "model_id": "id", "model_type": "model_type", "status": "status",
    "source_run_id": "source_run_id", "created_ms": "created_ms", "updated_ms": "updated_ms",
    "experiment_id": "experiment",
}  # fmt: skip
_COMPARE: dict[str, Callable[[Any, Any], ColumnElement[bool]]] = {
    "=": lambda column, value: column == value,
    "!=": lambda column, value: column != value,
    "<": lambda column, value: column < value,
    "<=": lambda column, value: column <= value,
    ">": lambda column, value: column > value,
    ">=": lambda column, value: column >= value,
    "IN": lambda column, value: column.in_(value),
    "NOT IN": lambda column, value: column.not_in(value),
}


@dataclass(frozen=True, slots=True)
class _Asked:
    """A page of runs that is asked for. `experiments` None is all of the project."""

    tx: Transaction
    experiments: Sequence[int] | None
    clauses: Sequence[Clause]
    orders: Sequence[Order]
    view: View
    limit: int
    offset: int

    def page(self, statement: Select[Any]) -> list[int]:
        """The numbers of the runs on the page."""
        return [row.number for row in self.tx.all(statement.limit(self.limit).offset(self.offset))]

    def page_among(self, numbers: Sequence[int]) -> list[int]:
        """The page, where it is known that it lies among these runs."""
        return self.page(self.runs(among=numbers)) if numbers else []

    def runs(self, valued: FromClause | None = None, among: Sequence[int] | None = None) -> Select[Any]:
        """The runs found, in order; with `valued`, a relation of latest metrics, only those that it has a value of."""
        runs = store.runs
        source, conditions = _where(self.tx, self.experiments, self.clauses, self.view, among)
        if valued is not None:
            # Where the first order is by a metric that a condition bounds, the walk begins at that bound.
            conditions += [
                compare(self.tx, valued.c.value, clause)
                for clause in self.clauses
                if clause.field == "metric" and clause.key == self.orders[0].key
            ]
        keys: list[ColumnElement[Any]] = []
        for place, order in enumerate(self.orders):
            source, found = _run_order(self.tx, source, order, valued if place == 0 else None)
            keys += found
        if not any(order.field == "attribute" and order.key == "start_time" for order in self.orders):
            keys.append(runs.c.start_ms.desc())
        return select(runs.c.number).select_from(source).where(*conditions).order_by(*keys, runs.c.id)


def run_numbers(
    tx: Transaction,
    experiments: Sequence[int] | None,
    clauses: Sequence[Clause],
    orders: Sequence[Order],
    view: View,
    limit: int,
    offset: int,
) -> list[int]:
    """The numbers of the runs found, in order. `experiments` None is all of the project."""
    asked = _Asked(tx, experiments, clauses, orders, view, limit, offset)
    if clauses or any(order.field != "attribute" for order in orders):
        among = candidates(tx, experiments, clauses, STAGES[view])
        if among is not None:
            return asked.page_among(among)
    if orders and orders[0].field == "metric":
        if clauses:
            best = _among_the_best(asked)
            if best is not None:
                return best
            # So seldom met together that a walk would be long: perhaps so seldom that all can be named.
            texts = of_texts(tx, clauses)
            named = together(tx, texts) if len(texts) > 1 else None
            if named is not None:
                return asked.page_among(named)
        # Whoever has a value comes first, and those an index has in order: mostly that is the whole page.
        found = asked.page(asked.runs(valued=store.latest_metrics.alias()))
        if len(found) == limit:
            return found
    if orders and orders[0].field in ("parameter", "tag") and tx.dialect == "sqlite":
        first = _of_the_first_texts(asked)
        if first is not None:
            return first
    return asked.page(asked.runs())


def _of_the_first_texts(asked: _Asked) -> list[int] | None:
    """The page, where it lies among the runs of the first values of the param or tag that is ordered by.

    None where that cannot be said. Only where texts are ordered by their bytes, so that their beginnings, which are in
    the index, are in the order of the whole.
    """
    tx, first = asked.tx, asked.orders[0]
    table = store.params if first.field == "parameter" else store.run_tags
    value = store.beginning(table.c.value)
    of_key = select(table.c.run).where(table.c.project == tx.project, table.c.key == first.key)
    for looked_at in (BEST_LOOKED_AT, 20 * BEST_LOOKED_AT):
        values = of_key.with_only_columns(value).order_by(value.asc() if first.ascending else value.desc())
        cut = tx.scalar(values.limit(1).offset(looked_at))
        within = of_key if cut is None else of_key.where(value <= cut if first.ascending else value >= cut)
        named = together(tx, [within, *of_texts(tx, asked.clauses)])
        if named is None:
            return None
        numbers = asked.page_among(named)
        if len(numbers) == asked.limit:
            return numbers
        if cut is None:
            return None
    return None


def _among_the_best(asked: _Asked) -> list[int] | None:
    """The page, where it lies among the runs of the first values: then no filter has to look at all runs.

    None where that cannot be said: too few of them match, or the page reaches the value at which they were cut off,
    where others of the same value might come before.
    """
    tx, table, first = asked.tx, store.latest_metrics, asked.orders[0]
    direction = table.c.value.asc() if first.ascending else table.c.value.desc()
    bounds = [compare(tx, table.c.value, one) for one in asked.clauses if (one.field, one.key) == ("metric", first.key)]
    best = (
        select(table.c.run, table.c.key, table.c.project, table.c.is_nan, table.c.value)
        .where(table.c.project == tx.project, table.c.key == first.key, table.c.is_nan.is_(False), *bounds)
        .order_by(direction)
        .limit(BEST_LOOKED_AT)
        .cte("best")
    )
    cut = select(func.max(best.c.value) if first.ascending else func.min(best.c.value)).scalar_subquery()
    statement = asked.runs(valued=best).add_columns(best.c.value.label("value"), cut.label("cut"))
    rows = tx.all(statement.limit(asked.limit).offset(asked.offset))
    if len(rows) < asked.limit or rows[-1].value == rows[-1].cut:
        return None
    return [row.number for row in rows]


def picked(
    tx: Transaction,
    experiments: Sequence[int] | None,
    clauses: Sequence[Clause],
    view: View,
    *columns: ColumnElement[Any],
) -> Select[Any]:
    """The numbers of the runs found, in no order, with further columns of theirs."""
    source, conditions = _where(tx, experiments, clauses, view)
    return select(store.runs.c.number, *columns).select_from(source).where(*conditions)


def _where(
    tx: Transaction,
    experiments: Sequence[int] | None,
    clauses: Sequence[Clause],
    view: View,
    among: Sequence[int] | None = None,
) -> tuple[FromClause, list[Any]]:
    runs = store.runs
    source: FromClause = runs
    project: ColumnElement[Any] = runs.c.project
    conditions: list[Any] = [runs.c.stage.in_(STAGES[view])]
    if among is not None:
        # Written into the text: they are integers of ours, and so many parameters would cost more than the search.
        conditions.append(text(f"runs.number IN ({','.join(map(str, among))})"))
        if tx.dialect == "sqlite":
            # A plus keeps SQLite from taking the index by project for better than the numbers.
            project = type_coerce(literal_column("+runs.project"), String)
    conditions.append(project == tx.project)
    if experiments is not None:
        conditions.append(runs.c.experiment.in_(experiments))
    for place, clause in enumerate(clauses):
        joining = place < JOINED_MAX
        source, condition = _run_condition(tx, source, clause, joining=joining)
        conditions.append(condition)
    return source, conditions


def _run_condition(
    tx: Transaction, source: FromClause, clause: Clause, *, joining: bool
) -> tuple[FromClause, ColumnElement[bool]]:
    runs = store.runs
    if clause.field == "attribute":
        return source, compare(tx, runs.c[_RUN_COLUMNS[clause.key]], clause)
    if clause.field == "dataset":
        return source, _dataset_condition(tx, clause)
    if clause.field == "metric":
        latest = store.latest_metrics.alias()
        of_key = and_(latest.c.run == runs.c.number, latest.c.key == clause.key)
        fits = and_(latest.c.is_nan.is_(False), compare(tx, latest.c.value, clause))
        # Without the project, which the run has shown already: with it, SQLite would begin with the index by value and
        # half of all runs, where a walk in the order asked for is soon over. Few matches are `narrowing`'s to find.
        return (source.join(latest, of_key), fits) if joining else (source, exists().where(of_key, fits))
    table = (store.params if clause.field == "parameter" else store.run_tags).alias()
    here = and_(table.c.run == runs.c.number, table.c.key == clause.key)
    if clause.operator == "IS NULL":
        return source, ~exists().where(here)
    if clause.operator == "IS NOT NULL":
        return source, exists().where(here)
    fits = compare(tx, table.c.value, clause)
    return (source.join(table, here), fits) if joining else (source, exists().where(here, fits))


def _dataset_condition(tx: Transaction, clause: Clause) -> ColumnElement[bool]:
    inputs = store.run_inputs.alias()
    return exists().where(
        inputs.c.run == store.runs.c.number,
        inputs.c.project == tx.project,
        compare(tx, inputs.c[clause.key], clause),
    )


def _run_order(
    tx: Transaction, source: FromClause, order: Order, valued: FromClause | None
) -> tuple[FromClause, list[ColumnElement[Any]]]:
    runs = store.runs
    if order.field == "attribute":
        return source, _directed(runs.c[_RUN_COLUMNS[order.key]], order.ascending)
    if valued is not None:
        here = and_(valued.c.run == runs.c.number, valued.c.key == order.key)
        here = and_(here, valued.c.project == tx.project, valued.c.is_nan.is_(False))
        return source.join(valued, here), [valued.c.value.asc() if order.ascending else valued.c.value.desc()]
    table = {"metric": store.latest_metrics, "parameter": store.params, "tag": store.run_tags}[order.field].alias()
    here = and_(table.c.run == runs.c.number, table.c.key == order.key)
    joined = source.outerjoin(table, here)
    if order.field != "metric":
        return joined, _directed(table.c.value, order.ascending)
    rank = case((table.c.is_nan.is_(True), 1), (table.c.value.is_(None), 2), else_=0)
    return joined, [rank, table.c.value.asc() if order.ascending else table.c.value.desc()]


def experiment_rows(
    tx: Transaction, clauses: Sequence[Clause], orders: Sequence[Order], view: View, limit: int, offset: int
) -> Sequence[sa.Row[Any]]:
    """The experiments found, in order."""
    table = store.experiments
    conditions: list[ColumnElement[bool]] = [table.c.project == tx.project, table.c.stage.in_(STAGES[view])]
    for clause in clauses:
        if clause.field == "attribute":
            conditions.append(compare(tx, table.c[_EXPERIMENT_COLUMNS[clause.key]], clause))
            continue
        tags = store.experiment_tags.alias()
        here = and_(tags.c.project == tx.project, tags.c.experiment == table.c.number, tags.c.key == clause.key)
        conditions.append(_tagged(tx, tags.c.value, here, clause))
    keys = [
        column.asc() if order.ascending else column.desc()
        for order in orders
        for column in (table.c[_EXPERIMENT_COLUMNS[order.key]],)
    ]
    if not any(order.key == "experiment_id" for order in orders):
        keys.append(table.c.number.desc())
    return tx.all(select(table).where(*conditions).order_by(*keys).limit(limit).offset(offset))


def model_rows(
    tx: Transaction,
    experiments: Sequence[int] | None,
    clauses: Sequence[Clause],
    orders: Sequence[ModelOrder],
    datasets: Sequence[tuple[str, str | None]],
    limit: int,
    offset: int,
) -> Sequence[sa.Row[Any]]:
    """The logged models found, in order. `datasets` (name, digest) narrow which values of metrics count."""
    table = store.logged_models
    conditions: list[ColumnElement[bool]] = [table.c.project == tx.project, table.c.stage == "active"]
    if experiments is not None:
        conditions.append(table.c.experiment.in_(experiments))
    conditions += [_model_condition(tx, clause, datasets) for clause in clauses]
    if datasets and not any(clause.field == "metric" for clause in clauses):
        metrics = store.model_metrics.alias()
        conditions.append(exists().where(_of_model(metrics), _on_datasets(metrics, datasets)))
    keys: list[ColumnElement[Any]] = []
    for order in orders:
        keys += _model_order(order)
    if not any(order.key == "created_ms" for order in orders):
        keys.append(table.c.created_ms.desc())
    statement = select(table).where(*conditions).order_by(*keys, table.c.id)
    return tx.all(statement.limit(limit).offset(offset))


def _model_condition(
    tx: Transaction, clause: Clause, datasets: Sequence[tuple[str, str | None]]
) -> ColumnElement[bool]:
    if clause.field == "attribute":
        return compare(tx, store.logged_models.c[_MODEL_COLUMNS[clause.key]], clause)
    table = {"metric": store.model_metrics, "parameter": store.model_params, "tag": store.model_tags}[
        clause.field
    ].alias()
    here = [_of_model(table), table.c.key == clause.key, compare(tx, table.c.value, clause)]
    if clause.field == "metric":
        here.append(table.c.is_nan.is_(False))
        if datasets:
            here.append(_on_datasets(table, datasets))
    return exists().where(*here)


def _model_order(order: ModelOrder) -> list[ColumnElement[Any]]:
    if order.field == "attribute":
        return _directed(store.logged_models.c[_MODEL_COLUMNS[order.key]], order.ascending)
    metrics = store.model_metrics.alias()
    wanted = [_of_model(metrics), metrics.c.key == order.key, metrics.c.is_nan.is_(False)]
    if order.dataset_name:
        wanted.append(metrics.c.dataset_name == order.dataset_name)
    if order.dataset_digest:
        wanted.append(metrics.c.dataset_digest == order.dataset_digest)
    newest = (
        select(metrics.c.value)
        .where(*wanted)
        .order_by(metrics.c.timestamp_ms.desc(), metrics.c.step.desc())
        .limit(1)
        .correlate(store.logged_models)
        .scalar_subquery()
    )
    return _directed(newest, order.ascending)


def _of_model(table: FromClause) -> ColumnElement[bool]:
    models = store.logged_models
    return and_(table.c.project == models.c.project, table.c.model_id == models.c.id)


def _on_datasets(table: FromClause, datasets: Sequence[tuple[str, str | None]]) -> ColumnElement[bool]:
    return or_(
        *(
            and_(table.c.dataset_name == name, literal(True) if digest is None else table.c.dataset_digest == digest)
            for name, digest in datasets
        )
    )


def _tagged(
    tx: Transaction, value: ColumnElement[str], here: ColumnElement[bool], clause: Clause
) -> ColumnElement[bool]:
    if clause.operator == "IS NULL":
        return ~exists().where(here)
    if clause.operator == "IS NOT NULL":
        return exists().where(here)
    return exists().where(here, compare(tx, value, clause))


def _directed(column: ColumnElement[Any], ascending: bool) -> list[ColumnElement[Any]]:
    # Written out, since the two databases put NULL at opposite ends by default.
    return [case((column.is_(None), 1), else_=0), column.asc() if ascending else column.desc()]


def compare(tx: Transaction, column: ColumnElement[Any], clause: Clause) -> ColumnElement[bool]:
    """A comparison of a clause as SQL. LIKE minds the case, ILIKE does not; a backslash is a backslash."""
    value = clause.value
    if clause.operator not in ("LIKE", "ILIKE"):
        return _COMPARE[clause.operator](column, value)
    assert isinstance(value, str)
    check_pattern(value)
    if tx.dialect == "postgresql":
        pattern = value.replace("\\", "\\\\")
        return column.like(pattern) if clause.operator == "LIKE" else column.ilike(pattern)
    # SQLite's LIKE folds ASCII case, its GLOB does not.
    if clause.operator == "ILIKE":
        return column.op("LIKE", is_comparison=True)(value)
    return column.op("GLOB", is_comparison=True)(_glob(value))


def check_pattern(pattern: str) -> None:
    """Raise InvalidInput for a pattern longer than any text that it could be meant for."""
    if len(pattern) > PATTERN_CHARACTERS_MAX:
        raise InvalidInput(
            f"a pattern may have {PATTERN_CHARACTERS_MAX} characters, not {len(pattern)}", code="filter.too_long"
        )


def _glob(pattern: str) -> str:
    replaced = {"%": "*", "_": "?", "*": "[*]", "?": "[?]", "[": "[[]"}
    return "".join(replaced.get(character, character) for character in pattern)


def count_runs(tx: Transaction, experiment: int) -> int:
    """How many active runs an experiment has."""
    runs = store.runs
    statement = (
        select(func.count())
        .select_from(runs)
        .where(runs.c.project == tx.project, runs.c.experiment == experiment, runs.c.stage == "active")
    )
    return int(tx.scalar(statement))
