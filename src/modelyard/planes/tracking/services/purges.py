"""The verb that ends what was deleted: runs and experiments with all their rows, and logged models.

Each batch of runs goes in one transaction: rows, metric segments, tags, names of files, and an event a run. The bytes
of files stay until a collection of storage finds that nothing names them: a model version made from a run has names of
its own. A purge that is cut off is continued by the next.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, and_, func, or_, select

from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database, Transaction
from modelyard.kernel.errors import Conflict, InvalidInput, Unavailable
from modelyard.kernel.ids import new_id
from modelyard.kernel.leases import release_lease, take_lease
from modelyard.kernel.portions import portions
from modelyard.planes.tracking import evaluation_store, rules, store, trace_store
from modelyard.planes.tracking.reconcile import COMPACTION_LEASE
from modelyard.planes.tracking.rows import run_row
from modelyard.planes.tracking.services import traces
from modelyard.planes.tracking.services.experiments import ExperimentRow, experiment_row, now_ms
from modelyard.planes.tracking.shown import ShownArtifacts
from modelyard.types.tracking import Purge, Purged

_RUNS, _EXPERIMENTS, _MODELS = store.runs, store.experiments, store.logged_models
_AT_ONCE = 200
_LEASE_S = 60.0
_PATIENCE_S = 90.0


class _Victim(NamedTuple):
    number: int
    id: str


class Purges:
    """Runs, experiments and logged models that were deleted, ended for good."""

    def __init__(self, database: Database, shown: ShownArtifacts | None = None) -> None:
        self._database = database
        self._shown = shown
        self._owner = f"purge:{new_id()}"

    def purge(self, scope: Scope, asked: Purge) -> Purged:
        """Remove what was deleted. Raises NotFound for a run or experiment that is not there, InvalidInput
        (`purge.not_deleted`, `purge.too_young`) for one that is not deleted, or not long enough: then all stay.
        """
        with self._database.reading(scope) as tx:
            before = now_ms(tx) - asked.older_than_s * 1_000
            ended = _experiments(tx, asked, before)
            runs = _runs(tx, asked, [one.number for one in ended], before)
            models = _models(tx, asked, [one.number for one in ended], before)
            artifacts = _artifacts(tx, runs, models)
        if not asked.dry_run:
            for some in portions(runs, _AT_ONCE):
                self._fenced(scope, lambda tx, some=some: _end_runs(tx, some))
            for names in portions(models, _AT_ONCE):
                with self._database.transaction(scope) as tx:
                    _end_models(tx, names)
            for one in ended:
                self._fenced(scope, lambda tx, one=one: _end_experiment(tx, one))
            if self._shown is not None:
                self._shown.look_again()
        return Purged(
            dry_run=asked.dry_run, runs=len(runs), experiments=len(ended), logged_models=len(models),
            artifacts=artifacts,
        )  # fmt: skip

    def _fenced(self, scope: Scope, work: Any) -> None:
        """Run in a transaction before which no compaction began that ends after it.

        Numbers of runs and segments are given anew on SQLite when the last ones go, so a compaction that read segments
        of a run must not swap those of the run that has its number afterwards.
        """
        give_up = time.monotonic() + _PATIENCE_S
        while time.monotonic() < give_up:
            with self._database.transaction(scope) as tx:
                lease = take_lease(tx.connection, COMPACTION_LEASE, self._owner, tx.now, _LEASE_S)
                if lease is not None:
                    work(tx)
                    release_lease(tx.connection, lease)
                    return
            time.sleep(0.2)
        raise Unavailable(
            "metric points have been compacted all the time", code="purge.busy", hint="repeat it; what is done is done"
        )


def _experiments(tx: Transaction, asked: Purge, before: int) -> list[ExperimentRow]:
    if asked.experiments:
        found = [experiment_row(tx, rules.experiment_number(one)) for one in dict.fromkeys(asked.experiments)]
        for one in found:
            _check(f"experiment {one.number}", one.stage, one.updated_ms, before)
    elif asked.runs:
        return []
    else:
        columns = [_EXPERIMENTS.c[name] for name in ExperimentRow._fields]
        old = (_EXPERIMENTS.c.stage == "deleted", _EXPERIMENTS.c.updated_ms <= before)
        rows = tx.all(select(*columns).where(_EXPERIMENTS.c.project == tx.project, *old))
        found = [ExperimentRow._make(row) for row in rows]
    # Experiment 0 is there from the start and always; what it holds goes, and it stays deleted.
    return [one for one in found if one.number != 0]


def _runs(tx: Transaction, asked: Purge, ended: Sequence[int], before: int) -> list[_Victim]:
    of_experiments = and_(_RUNS.c.experiment.in_(ended), _RUNS.c.stage == "deleted")
    mine = _RUNS.c.project == tx.project
    if asked.runs or asked.experiments:
        named = [run_row(tx, one) for one in dict.fromkeys(asked.runs)]
        times = tx.all(select(_RUNS.c.id, _deleted_ms().label("since")).where(mine, _RUNS.c.id.in_(asked.runs)))
        since = {row.id: row.since for row in times}
        for one in named:
            _check(f"run {one.id}", one.stage, since[one.id], before)
        more = tx.all(select(_RUNS.c.number, _RUNS.c.id).where(mine, of_experiments))
        found = [_Victim(one.number, one.id) for one in named] + [_Victim(row.number, row.id) for row in more]
        return list(dict.fromkeys(found))
    old = and_(_RUNS.c.stage == "deleted", _deleted_ms() <= before)
    rows = tx.all(select(_RUNS.c.number, _RUNS.c.id).where(mine, or_(old, of_experiments)).order_by(_RUNS.c.number))
    return [_Victim(row.number, row.id) for row in rows]


def _models(tx: Transaction, asked: Purge, ended: Sequence[int], before: int) -> list[str]:
    wanted: ColumnElement[bool] = _MODELS.c.experiment.in_(ended)
    if not asked.runs and not asked.experiments:
        wanted = or_(wanted, and_(_MODELS.c.stage == "deleted", _MODELS.c.updated_ms <= before))
    return [row.id for row in tx.all(select(_MODELS.c.id).where(_MODELS.c.project == tx.project, wanted))]


def _artifacts(tx: Transaction, runs: Sequence[_Victim], models: Sequence[str]) -> int:
    count = 0
    for kind, ids in (("run", [one.id for one in runs]), ("model", models)):
        for some in portions(ids, _AT_ONCE):
            count += tx.scalar(
                select(func.count()).select_from(store.artifacts).where(_of(tx, store.artifacts, kind, some))
            )
    return count


def _deleted_ms() -> ColumnElement[int]:
    return func.coalesce(_RUNS.c.deleted_ms, _RUNS.c.end_ms, _RUNS.c.start_ms)


def _check(what: str, stage: str, since_ms: int, before: int) -> None:
    if stage != "deleted":
        raise InvalidInput(f"{what} is not deleted", code="purge.not_deleted", hint="delete it first, or leave it out")
    if since_ms > before:
        raise InvalidInput(
            f"{what} has not been deleted for that long", code="purge.too_young", hint="wait, or lower the age"
        )


def _end_runs(tx: Transaction, victims: Sequence[_Victim]) -> None:
    # Restored in the meantime: it stays.
    rows = tx.all(
        select(_RUNS.c.number, _RUNS.c.id, _RUNS.c.name, _RUNS.c.experiment)
        .where(_RUNS.c.number.in_([one.number for one in victims]), _RUNS.c.stage == "deleted")
        .with_for_update()
    )
    still = [row for row in rows if _Victim(row.number, row.id) in victims]
    numbers, ids = [row.number for row in still], [row.id for row in still]
    segments = store.metric_segments
    held = select(segments.c.number).where(segments.c.run.in_(numbers))
    tx.execute(store.metric_sketches.delete().where(store.metric_sketches.c.segment.in_(held)))
    for table in (
        segments, store.latest_metrics, store.params, store.run_tags, store.compactions, store.run_inputs,
        store.run_models,
    ):  # fmt: skip
        tx.execute(table.delete().where(table.c.run.in_(numbers)))
    _forget_files(tx, "run", ids)
    links = trace_store.links
    tx.execute(links.delete().where(links.c.project == tx.project, links.c.kind == "run", links.c.target.in_(ids)))
    tx.execute(_RUNS.delete().where(_RUNS.c.number.in_(numbers)))
    for row in still:
        tx.event("run.purged", f"run:{row.id}", {"name": row.name, "experiment": str(row.experiment)})


def _end_models(tx: Transaction, ids: Sequence[str]) -> None:
    _forget_files(tx, "model", ids)
    for table in (store.model_params, store.model_tags, store.model_metrics):
        tx.execute(table.delete().where(table.c.project == tx.project, table.c.model_id.in_(ids)))
    tx.execute(_MODELS.delete().where(_MODELS.c.project == tx.project, _MODELS.c.id.in_(ids)))
    for one in ids:
        tx.event("logged_model.purged", f"logged-model:{one}")


def _end_experiment(tx: Transaction, ended: ExperimentRow) -> None:
    number = ended.number
    if experiment_row(tx, number).stage != "deleted":
        raise Conflict(f"experiment {number} was restored in the meantime", code="stale", hint="leave it out")
    left = select(_RUNS.c.id).where(_RUNS.c.project == tx.project, _RUNS.c.experiment == number)
    if tx.one(left.limit(1)) is not None:
        raise Conflict(
            f"experiment {number} has a run that is not deleted", code="purge.not_deleted", hint="delete its runs too"
        )
    of_it = select(trace_store.traces.c.id).where(
        trace_store.traces.c.project == tx.project, trace_store.traces.c.experiment == number
    )
    traces.forget(tx, [row.id for row in tx.all(of_it)])
    for table in (
        trace_store.issues, evaluation_store.dataset_experiments, store.input_datasets, store.experiment_tags,
    ):  # fmt: skip
        tx.execute(table.delete().where(table.c.project == tx.project, table.c.experiment == number))
    tx.execute(_EXPERIMENTS.delete().where(_EXPERIMENTS.c.project == tx.project, _EXPERIMENTS.c.number == number))
    tx.event("experiment.purged", f"experiment:{number}", {"name": ended.name})


def _forget_files(tx: Transaction, kind: str, ids: Sequence[str]) -> None:
    tx.execute(store.artifacts.delete().where(_of(tx, store.artifacts, kind, ids)))
    uploads, parts = store.artifact_uploads, store.artifact_parts
    begun = select(uploads.c.id).where(_of(tx, uploads, kind, ids))
    tx.execute(parts.delete().where(parts.c.project == tx.project, parts.c.upload.in_(begun)))
    tx.execute(uploads.delete().where(_of(tx, uploads, kind, ids)))


def _of(tx: Transaction, table: Any, kind: str, ids: Sequence[str]) -> ColumnElement[bool]:
    return and_(table.c.project == tx.project, table.c.owner_kind == kind, table.c.owner_id.in_(ids))
