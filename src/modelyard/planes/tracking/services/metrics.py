"""The verbs of metrics: append a batch, read a history, keep the latest values, put small segments together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import bindparam, insert, select, tuple_

from modelyard.kernel import schema
from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database, Transaction
from modelyard.kernel.errors import InvalidInput, NotFound
from modelyard.kernel.prepared import Prepared
from modelyard.planes.tracking import points, reading, series, store
from modelyard.planes.tracking.history import History
from modelyard.planes.tracking.rows import run_row
from modelyard.types.tracking import AskCurves, Curve, Metric, ModelMetric, Series

_SEGMENTS = store.metric_segments
_LATEST = store.latest_metrics
_MODEL = store.model_metrics
# Each write is one in so many to ask for a look by the compactor, a large one always: no counter is on its path.
_COMPACTION_ODDS = 64
_COMPACTED_POINTS = 8_192
DRAWN_RUNS_MAX, DRAWN_KEYS_MAX, DRAWN_POINTS_MAX = 1_000, 50, 2_000
_MIX = 2_654_435_761
_INSERT_SEGMENT = Prepared(
    insert(_SEGMENTS)
    .values({name: bindparam(name) for name in ("project", "run", "first_key", "last_key", "level", "points", "body")})
    .returning(_SEGMENTS.c.number)
)


class OfModel(NamedTuple):
    """A point that belongs to a logged model too."""

    model_id: str
    key: str
    value: float
    step: int
    timestamp_ms: int
    dataset_name: str = ""
    dataset_digest: str = ""


class Metrics:
    """Histories of metrics: of one run, of many, whole or thinned."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def history(
        self,
        scope: Scope,
        run_id: str,
        key: str,
        *,
        points_max: int | None = None,
        offset: int = 0,
        limit: int | None = None,
    ) -> Series:
        """The points of a metric by time, from `offset` on, at most `limit`; or all, thinned to `points_max` with
        their extremes kept. No points for a metric that the run does not have. Raises NotFound."""
        thinned = points_max is not None and not offset and limit is None
        with self._database.reading(scope) as tx:
            bodies = reading.bodies_of(tx, run_row(tx, run_id).number, key, thinned=thinned)
        found = reading.assemble(bodies, key)
        total = found.total
        if offset or limit is not None:
            found = found.at(slice(offset, None if limit is None else offset + limit))
        if points_max is not None:
            found = series.thin(found, points_max)
        return _noun(run_id, key, found, total)

    def histories(self, scope: Scope, run_ids: Iterable[str], key: str, limit: int) -> list[Series]:
        """The points of a metric of several runs, by run id and time, together at most `limit`.

        Unknown runs are left out.
        """
        left, found = limit, []
        for run_id, history in sorted(self._assemble(scope, run_ids, key).items()):
            if left <= 0:
                break
            found.append(_noun(run_id, key, history.at(slice(left)), len(history)))
            left -= len(history)
        return found

    def sampled(
        self,
        scope: Scope,
        run_ids: Sequence[str],
        key: str,
        steps_max: int,
        start_step: int | None = None,
        end_step: int | None = None,
        limit: int = 25_000,
    ) -> list[Series]:
        """The points of a metric of several runs at the same, about `steps_max` steps, each run's by step."""
        # All of long histories can be sampled from their sketches; a window needs what lies between.
        histories = self._assemble(scope, run_ids, key, thinned=start_step is None and end_step is None)
        steps = series.sampled_steps(list(histories.values()), steps_max, start_step, end_step)
        return [
            _noun(run_id, key, series.at_steps(histories[run_id], steps).at(slice(limit)), histories[run_id].total)
            for run_id in run_ids
            if run_id in histories
        ]

    def curves(self, scope: Scope, asked: AskCurves) -> list[Curve]:
        """Metrics of many runs, thinned for drawing, in the order asked for; what a run does not have is left out.

        Raises InvalidInput for more than can be drawn.
        """
        if len(asked.runs) > DRAWN_RUNS_MAX or len(asked.keys) > DRAWN_KEYS_MAX:
            raise InvalidInput(
                f"{len(asked.runs)} runs with {len(asked.keys)} metrics are too many to draw at once",
                code="curves.too_many",
                hint=f"ask for at most {DRAWN_RUNS_MAX} runs and {DRAWN_KEYS_MAX} metrics",
            )
        points_max, runs, found = max(4, min(asked.points, DRAWN_POINTS_MAX)), store.runs, []
        wanted = select(runs.c.id, runs.c.number, runs.c.start_ms).where(runs.c.project == scope.project)
        with self._database.reading(scope) as tx:
            known = {row.id: row for row in tx.all(wanted.where(tx.among(runs.c.id, asked.runs)))}
        for run in [known[one] for one in dict.fromkeys(asked.runs) if one in known]:
            # Run by run: the whole histories of hundreds at once would not be small.
            with self._database.reading(scope) as tx:
                parts = reading.drawn_of(tx, run.number, asked.keys)
            for key, of_key in parts.items():
                history = series.merge(of_key)
                if len(history):
                    xs, ys = series.drawn(history, points_max, asked.x, run.start_ms)
                    found.append(Curve(run_id=run.id, key=key, xs=xs, ys=ys, total=history.total))
        return found

    def _assemble(self, scope: Scope, run_ids: Iterable[str], key: str, *, thinned: bool = False) -> dict[str, History]:
        runs = store.runs
        with self._database.reading(scope) as tx:
            known = tx.all(
                select(runs.c.id, runs.c.number).where(runs.c.project == tx.project, tx.among(runs.c.id, list(run_ids)))
            )
            bodies = {row.id: reading.bodies_of(tx, row.number, key, thinned=thinned) for row in known}
        return {run_id: reading.assemble(found, key) for run_id, found in bodies.items()}


def append(tx: Transaction, run: int, batch: points.Batch) -> None:
    """Add a batch to a run: one segment, and the latest value of each key where it is later."""
    keys = list(batch.latest)
    ((number,),) = tx.run(
        _INSERT_SEGMENT,
        {
            "project": tx.project, "run": run, "first_key": keys[0], "last_key": keys[-1], "level": 0,
            "points": batch.points, "body": batch.body,
        },
    )  # fmt: skip
    # Mixed, so that runs which write in turn do not always hit, or always miss.
    odds = max(1 / _COMPACTION_ODDS, batch.points / _COMPACTED_POINTS)
    if number * _MIX % 2**32 < 2**32 * odds:
        tx.execute(
            store.inserting(tx, store.compactions).on_conflict_do_nothing(), [{"run": run, "project": tx.project}]
        )
    rows = []
    for key, value in batch.latest.items():
        nan = math.isnan(value.value)
        rows.append(
            {
                "run": run, "key": key, "project": tx.project, "is_nan": nan,
                "value": 0.0 if nan else value.value, "step": value.step, "timestamp_ms": value.timestamp_ms,
            }
        )  # fmt: skip
    tx.run_many(_UPSERT, rows)


def append_of_models(tx: Transaction, run_id: str, found: Sequence[OfModel]) -> None:
    """Add points to the logged models that they are of. Raises NotFound for a model that is not there."""
    if not found:
        return
    models = store.logged_models
    wanted = {one.model_id for one in found}
    known = {
        row.id
        for row in tx.all(select(models.c.id).where(models.c.project == tx.project, tx.among(models.c.id, wanted)))
    }
    for missing in sorted(wanted - known):
        raise NotFound(f"Logged model with ID '{missing[:80]}' not found.", code="logged_model.not_found")
    rows = {}
    for one in found:
        nan = math.isnan(one.value)
        rows[one[:2] + one[3:4] + one[5:]] = {
            "project": tx.project, "model_id": one.model_id, "key": one.key, "run_id": run_id,
            "dataset_name": one.dataset_name, "dataset_digest": one.dataset_digest, "step": one.step,
            "timestamp_ms": one.timestamp_ms, "is_nan": nan, "value": 0.0 if nan else points.storable(one.value),
        }  # fmt: skip
    store.put_rows(tx, _MODEL, list(rows.values()), ["timestamp_ms", "is_nan", "value"])


def latest_of(tx: Transaction, numbers: Sequence[int], keys: Sequence[str] | None = None) -> dict[int, list[Metric]]:
    """The latest values of some runs, all or those of the keys."""
    statement = select(
        _LATEST.c.run, _LATEST.c.key, _LATEST.c.value, _LATEST.c.is_nan, _LATEST.c.step, _LATEST.c.timestamp_ms
    ).where(tx.among(_LATEST.c.run, numbers))
    if keys is not None:
        statement = statement.where(tx.among(_LATEST.c.key, keys))
    found: dict[int, list[Metric]] = {}
    for run, key, value, nan, step, timestamp_ms in _plain(tx.execute(statement)):
        metric = Metric(key=key, value=None if nan else value, step=step, timestamp_ms=timestamp_ms)
        found.setdefault(run, []).append(metric)
    return found


def of_models(tx: Transaction, model_ids: Sequence[str]) -> dict[str, list[ModelMetric]]:
    """The values of some logged models, oldest first."""
    found: dict[str, list[ModelMetric]] = {}
    statement = select(_MODEL).where(_MODEL.c.project == tx.project, tx.among(_MODEL.c.model_id, model_ids))
    for row in tx.all(statement.order_by(_MODEL.c.model_id, _MODEL.c.timestamp_ms, _MODEL.c.step, _MODEL.c.key)):
        found.setdefault(row.model_id, []).append(
            ModelMetric(
                key=row.key, value=None if row.is_nan else row.value, step=row.step, timestamp_ms=row.timestamp_ms,
                run_id=row.run_id, dataset_name=row.dataset_name or None, dataset_digest=row.dataset_digest or None,
            )
        )  # fmt: skip
    return found


def _upsert(tx_dialect: str) -> Any:
    statement = schema.inserting(tx_dialect, _LATEST)
    new = statement.excluded
    return statement.on_conflict_do_update(
        index_elements=[_LATEST.c.run, _LATEST.c.key],
        set_={name: new[name] for name in ("is_nan", "value", "step", "timestamp_ms")},
        where=tuple_(new.step, new.timestamp_ms, new.value)
        > tuple_(_LATEST.c.step, _LATEST.c.timestamp_ms, _LATEST.c.value),
    )


_UPSERT = Prepared(_upsert)


def _noun(run_id: str, key: str, history: History, total: int) -> Series:
    values: list[float | None] = history.values.tolist()
    return Series(
        run_id=run_id,
        key=key,
        steps=history.steps.tolist(),
        timestamps_ms=history.times.tolist(),
        values=[None if value != value else value for value in values],
        total=total,
    )


def _plain(found: Iterable[Any]) -> Iterable[tuple[Any, ...]]:
    # Unpacking a row is several times faster than reading it by name, and these come by the ten thousand.
    return found
