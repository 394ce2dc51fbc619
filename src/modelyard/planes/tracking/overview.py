"""What many runs have in common, as SQL: which keys they have, how many there are, what groups they fall into.

Nothing here loads runs, so a table over a million of them costs what it shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import ColumnElement, FromClause, Table, and_, case, func, literal, select

from modelyard.kernel.database import Transaction
from modelyard.kernel.errors import InvalidInput
from modelyard.planes.tracking import search, store
from modelyard.planes.tracking.filters import Clause
from modelyard.types.tracking import Key, RunGroup, Spread, View

LOOKED_AT = 300
"""Among how many of the first runs keys are looked for."""
ROWS_LOOKED_AT = 400_000
PARENT_TAG = "mlflow.parentRunId"
GROUPED_BY_MAX = 3
_ATTRIBUTES = {"status": "status", "user": "user", "experiment": "experiment", "name": "name"}


class By(NamedTuple):
    """What runs are grouped by: the kind (`params`, `tags`, `attributes`) and the key."""

    kind: str
    key: str


def parse_by(text: str) -> By:
    """`params.depth`, `tags.team` or `attributes.user`. Raises InvalidInput."""
    kind, _, key = text.partition(".")
    if kind not in {"params", "tags", "attributes"} or not key or (kind == "attributes" and key not in _ATTRIBUTES):
        raise InvalidInput(
            f"runs cannot be grouped by '{text[:80]}'",
            code="group.invalid",
            hint="group by `params.<key>`, `tags.<key>`, or one of: "
            + ", ".join(f"`attributes.{name}`" for name in _ATTRIBUTES),
        )
    return By(kind, key)


def count(tx: Transaction, experiments: Sequence[int] | None, clauses: Sequence[Clause], view: View, most: int) -> int:
    """How many runs a filter picks, counted up to `most`."""
    picked = search.picked(tx, experiments, clauses, view).limit(most).subquery()
    return int(tx.scalar(select(func.count()).select_from(picked)))


def keys(tx: Transaction, numbers: Sequence[int], find: str) -> list[Key]:
    """The keys that some runs have and that contain a text in any case, those that most have first."""
    found: list[Key] = []
    tables: tuple[tuple[Any, Table], ...] = (
        ("metric", store.latest_metrics), ("param", store.params), ("tag", store.run_tags),
    )  # fmt: skip
    for kind, table in tables:
        valued = kind != "metric"
        looked = select(table.c.key, *([table.c.value] if valued else [])).where(tx.among(table.c.run, numbers))
        if find:
            looked = looked.where(func.lower(table.c.key).contains(find.lower(), autoescape=True))
        rows = looked.limit(ROWS_LOOKED_AT).subquery()
        distinct = func.count(rows.c.value.distinct()) if valued else literal(0)
        statement = select(rows.c.key, func.count().label("runs"), distinct.label("differ")).group_by(rows.c.key)
        found += [Key(kind=kind, name=row.key, runs=row.runs, values=row.differ) for row in tx.all(statement)]
    return sorted(found, key=lambda key: (-key.runs, key.name))


def groups(
    tx: Transaction,
    experiments: Sequence[int] | None,
    clauses: Sequence[Clause],
    view: View,
    by: Sequence[By],
    metrics: Sequence[str],
    order: str,
    limit: int,
    offset: int,
) -> list[RunGroup]:
    """The groups that a filter's runs fall into. `order`: `runs`, `by` or a metric, whose mean counts, with ASC or
    DESC after it; the largest group first by default."""
    runs = store.runs
    base = search.picked(tx, experiments, clauses, view, runs.c.status, runs.c.user, runs.c.experiment, runs.c.name)
    picked = base.subquery("picked")
    source: FromClause = picked
    values: list[ColumnElement[Any]] = []
    for place, one in enumerate(by):
        if one.kind == "attributes":
            values.append(sa.cast(picked.c[_ATTRIBUTES[one.key]], sa.Text).label(f"by{place}"))
            continue
        table = (store.params if one.kind == "params" else store.run_tags).alias()
        source = source.outerjoin(table, and_(table.c.run == picked.c.number, table.c.key == one.key))
        values.append(table.c.value.label(f"by{place}"))
    spreads: list[ColumnElement[Any]] = []
    for place, key in enumerate(metrics):
        table = store.latest_metrics.alias()
        source = source.outerjoin(table, and_(table.c.run == picked.c.number, table.c.key == key))
        value = case((table.c.is_nan.is_(False), table.c.value), else_=None)
        spreads += [
            func.count(value).label(f"n{place}"),
            func.avg(value).label(f"mean{place}"),
            func.min(value).label(f"least{place}"),
            func.max(value).label(f"most{place}"),
        ]
    runs_in = func.count().label("runs")
    statement = select(*values, runs_in, *spreads).select_from(source).group_by(*values)
    ordered = _group_order(order, metrics, values, runs_in, spreads)
    rows = tx.all(statement.order_by(*ordered, *values).limit(limit).offset(offset))
    return [_group(row._mapping, len(by), metrics) for row in rows]


def _group_order(
    order: str,
    metrics: Sequence[str],
    values: Sequence[ColumnElement[Any]],
    runs_in: ColumnElement[Any],
    spreads: Sequence[ColumnElement[Any]],
) -> list[ColumnElement[Any]]:
    name, _, direction = order.rpartition(" ")
    name, up = (name, direction.upper() != "DESC") if direction.upper() in {"ASC", "DESC"} else (order, True)
    key = name.removeprefix("metrics.").strip('`"')
    if name == "by":
        return [one.asc() if up else one.desc() for one in values]
    if name.startswith("metrics.") and key in metrics:
        mean = spreads[list(metrics).index(key) * 4 + 1]
        return [case((mean.is_(None), 1), else_=0), mean.asc() if up else mean.desc()]
    return [runs_in.asc() if name == "runs" and up else runs_in.desc()]


def _group(row: Any, width: int, metrics: Sequence[str]) -> RunGroup:
    return RunGroup(
        values=tuple(row[f"by{place}"] for place in range(width)),
        runs=row["runs"],
        metrics={
            key: Spread(
                count=row[f"n{place}"], mean=row[f"mean{place}"], least=row[f"least{place}"],
                greatest=row[f"most{place}"],
            )
            for place, key in enumerate(metrics)
        },
    )  # fmt: skip


def children(tx: Transaction, run_ids: Sequence[str]) -> dict[str, int]:
    """How many active runs name each of some runs as their parent; those without are left out."""
    tags, runs = store.run_tags, store.runs
    statement = (
        select(tags.c.value, func.count().label("runs"))
        .join(runs, runs.c.number == tags.c.run)
        .where(tags.c.project == tx.project, tags.c.key == PARENT_TAG, tx.among(tags.c.value, run_ids))
        .where(store.beginning(tags.c.value).in_([store.beginning_of(one) for one in run_ids]))
        .where(runs.c.stage == "active")
        .group_by(tags.c.value)
    )
    return {row.value: row.runs for row in tx.all(statement)}


def names(tx: Transaction, run_ids: Sequence[str]) -> dict[str, str]:
    """The names of runs of the project by id."""
    runs = store.runs
    statement = select(runs.c.id, runs.c.name).where(runs.c.project == tx.project, tx.among(runs.c.id, run_ids))
    return {row.id: row.name for row in tx.all(statement)}
