"""Which runs a search has to look at: few, wherever one of its conditions is met by few.

No planner knows how many runs have `params.seed = '4711'` or are in experiment 12, and a wrong guess costs a walk over
all runs. So the indices are asked, each for at most `PROBED_MAX` numbers: conditions that fewer meet are intersected,
and the search looks at those only. Where every condition is met by many, a walk in the order asked for is soon over.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, func, intersect, select

from modelyard.kernel.database import Transaction
from modelyard.planes.tracking import store
from modelyard.planes.tracking.filters import Clause

PROBED_MAX = 20_000
"""A condition that more runs meet than this says too little."""
NAMED_MAX = 50_000
"""So many runs are looked at by name where several conditions, each met by many, are met together by no more."""
FEW = 200
"""With so few runs left no further condition is probed."""


def candidates(
    tx: Transaction, experiments: Sequence[int] | None, clauses: Sequence[Clause], stages: Sequence[str]
) -> list[int] | None:
    """The numbers of the runs that may be found; a superset of those that are. None: too many to name."""
    left: set[int] | None = None
    for probe in _probes(tx, experiments, clauses, stages):
        # Counted first: what is too many is known without its numbers coming here.
        if tx.scalar(select(func.count()).select_from(probe.limit(PROBED_MAX + 1).subquery())) > PROBED_MAX:
            continue
        found = set(tx.execute(probe).scalars())
        left = found if left is None else left & found
        if len(left) <= FEW:
            break
    return None if left is None else sorted(left)


def together(tx: Transaction, probes: Sequence[Select[Any]]) -> list[int] | None:
    """The numbers that all of the probes find. None: too many to name."""
    found = tx.execute(intersect(*probes).limit(NAMED_MAX + 1)).scalars().all()
    return None if len(found) > NAMED_MAX else sorted(found)


def of_texts(tx: Transaction, clauses: Sequence[Clause]) -> list[Select[Any]]:
    """What the indices of params and tags can be asked: each says which runs have a value, in the order of numbers."""
    found = []
    for clause in clauses:
        if clause.field in ("parameter", "tag") and clause.operator == "=":
            table = store.params if clause.field == "parameter" else store.run_tags
            same = store.beginning(table.c.value) == store.beginning_of(str(clause.value))
            found.append(select(table.c.run).where(table.c.project == tx.project, table.c.key == clause.key, same))
    return found


def _probes(
    tx: Transaction, experiments: Sequence[int] | None, clauses: Sequence[Clause], stages: Sequence[str]
) -> list[Select[Any]]:
    """What the indices can be asked, the most telling first."""
    runs = store.runs
    ranked: list[tuple[int, Select[Any]]] = []
    if experiments is not None:
        of_experiments = select(runs.c.number).where(
            runs.c.project == tx.project, runs.c.experiment.in_(experiments), runs.c.stage.in_(stages)
        )
        ranked.append((2, of_experiments))
    ranked += [(1, probe) for probe in of_texts(tx, clauses)]
    for clause in clauses:
        if clause.field == "metric" and clause.operator != "!=":
            ranked.append((3, _metric(tx, clause)))
        elif clause.field == "attribute" and clause.key == "run_id" and clause.operator in ("=", "IN"):
            wanted = clause.value if isinstance(clause.value, list) else [clause.value]
            ranked.append((0, select(runs.c.number).where(runs.c.id.in_(wanted))))
    return [probe for _, probe in sorted(ranked, key=lambda one: one[0])]


def _metric(tx: Transaction, clause: Clause) -> Select[Any]:
    table = store.latest_metrics
    compared: dict[str, ColumnElement[bool]] = {
        "=": table.c.value == clause.value, "<": table.c.value < clause.value, "<=": table.c.value <= clause.value,
        ">": table.c.value > clause.value, ">=": table.c.value >= clause.value,
    }  # fmt: skip
    here = (table.c.project == tx.project, table.c.key == clause.key, table.c.is_nan.is_(False))
    return select(table.c.run).where(*here, compared[clause.operator])
