"""Taking in what another system tracked: its experiments, runs and logged models, with their ids and times.

Every verb may be repeated: what an earlier, killed pass has brought is found by its source and completed. A run that
is not whole yet says so by a tag, and is RUNNING. The events have kinds of their own, so that a thousand old runs that
come in set nothing off as new ones would.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import msgspec
from sqlalchemy import select

from modelyard.kernel.auth import Scope
from modelyard.kernel.clock import to_us
from modelyard.kernel.database import Database, Transaction
from modelyard.kernel.errors import Conflict, InvalidInput, ModelyardError
from modelyard.kernel.ids import is_id
from modelyard.planes.tracking import reading, rules, store
from modelyard.planes.tracking.history import History
from modelyard.planes.tracking.points import Batch, PointColumns
from modelyard.planes.tracking.rows import COLUMNS, RunRow, run_row
from modelyard.planes.tracking.services import experiments, metrics, models, runs
from modelyard.planes.tracking.services import spans as of_spans
from modelyard.planes.tracking.services import traces as of_traces
from modelyard.types.imports import (
    FinishImportedRun,
    ImportedContents,
    ImportedExperiment,
    ImportedLoggedModel,
    ImportedRun,
    ImportedTrace,
    ImportExperiment,
    ImportFilledRun,
    ImportLoggedModel,
    ImportPoints,
    ImportRun,
    ImportTrace,
    ImportTraces,
    PointsOf,
)
from modelyard.types.tracking import Run, Stage

SOURCE_TAG = "modelyard.import.source"
STATE_TAG = "modelyard.import.state"
INCOMPLETE, COMPLETE = "incomplete", "complete"
NUMBER_MAX = 10**9
"""Up to here an imported number moves the counter on. MLflow's file store makes up numbers of 18 digits."""


class _Taken(NamedTuple):
    row: RunRow
    existed: bool
    complete: bool


class Imports:
    """Imports into a project: experiments, runs, logged models."""

    def __init__(self, database: Database, of_experiments: experiments.Experiments, of_runs: runs.Runs) -> None:
        self._database = database
        self._experiments = of_experiments
        self._runs = of_runs

    def experiment(self, scope: Scope, asked: ImportExperiment) -> ImportedExperiment:
        """The experiment here for one there: what came before, one of the same id and name, or a new one, with its id
        and name where they are free. Raises InvalidInput."""
        rules.check_experiment_name(asked.name)
        tags = {key: rules.experiment_tag(key, value) for key, value in asked.tags.items()}
        origin = f"{asked.source}#{asked.id}"
        self._experiments.make_ready(scope.project)
        with self._database.transaction(scope) as tx:
            number = _imported_before(tx, origin)
            if number is not None:
                return ImportedExperiment(experiment=experiments.label(tx, number, {}), existed=True)
            known = _same(tx, asked)
            number = _insert_experiment(tx, asked) if known is None else known
            found = experiments.label(tx, number, {**tags, SOURCE_TAG: origin})
            data = {"name": found.name, "source": asked.source, "id": asked.id, "was": asked.name}
            tx.event("experiment.imported", f"experiment:{number}", data)
            return ImportedExperiment(experiment=found, existed=known is not None)

    def run(self, scope: Scope, asked: ImportRun) -> ImportedRun:
        """A run with its id, to be filled and then finished. Raises Conflict (`run.exists`) for an id that belongs to
        a run that did not come from there, InvalidInput."""
        _check(asked)
        self._experiments.make_ready(scope.project)
        with self._database.transaction(scope) as tx:
            complete = self._take(tx, asked).complete
        return ImportedRun(run=self._runs.get(scope, asked.id), complete=complete)

    def filled_runs(self, scope: Scope, asked: Sequence[ImportFilledRun]) -> list[ImportedContents]:
        """Runs with all their points, all or none, read back as `contents` does. Raises as `run`, naming the run."""
        batches = []
        for one in asked:
            with _of_run(one.run.id):
                _check(one.run)
                batches.append(_batch_of(one.metrics))
        self._experiments.make_ready(scope.project)
        existed = []
        with self._database.transaction(scope) as tx:
            for one, batch in zip(asked, batches, strict=True):
                with _of_run(one.run.id):
                    taken = self._take(tx, one.run)
                    if batch.points and not taken.complete:
                        metrics.append(tx, taken.row.number, batch)
                existed.append(taken.existed)
        return [
            msgspec.structs.replace(self.contents(scope, one.run.id), existed=before)
            for one, before in zip(asked, existed, strict=True)
        ]

    def _take(self, tx: Transaction, asked: ImportRun) -> _Taken:
        known = _imported_run(tx, asked)
        start_ms = to_us(asked.started_at) // 1_000
        row = known or self._insert_run(tx, asked, rules.experiment_number(asked.experiment_id), start_ms)
        complete = known is not None and _tag(tx, row.number, STATE_TAG) == COMPLETE
        if not complete:
            # Last, since a run that was imported there says so by the same tags.
            mine = {SOURCE_TAG: asked.source, STATE_TAG: INCOMPLETE}
            runs.fill(
                tx,
                row,
                params=asked.params,
                tags={**asked.tags, runs.NAME_TAG: asked.name, **mine},
                inputs=asked.inputs,
                models=(asked.model_inputs, asked.model_outputs),
            )
        return _Taken(row, known is not None, complete)

    def contents(self, scope: Scope, run_id: str) -> ImportedContents:
        """A run with a digest of each metric's points. Raises NotFound, EngineError for a damaged segment."""
        run = self._runs.get(scope, run_id)
        with self._database.reading(scope) as tx:
            number = run_row(tx, run_id).number
            found = reading.every(tx, number, [one.key for one in run.metrics])
            points = {key: PointsOf(len(history), _digest(history)) for key, history in found}
        return ImportedContents(run=run, points=points)

    def finish_run(self, scope: Scope, run_id: str, asked: FinishImportedRun) -> Run:
        """Say that a run is here whole, and how it ended there. Raises NotFound, Conflict (`run.exists`)."""
        self.finish_runs(scope, {run_id: asked})
        return self._runs.get(scope, run_id)

    def finish_runs(self, scope: Scope, asked: Mapping[str, FinishImportedRun]) -> None:
        """Say of some runs that they are here whole, of all or of none. Raises as `finish_run`."""
        for one in asked.values():
            if one.ended_at is not None:
                rules.check_time_ms("ended_at", to_us(one.ended_at) // 1_000)
        with self._database.transaction(scope) as tx:
            for run_id, one in asked.items():
                _finish(tx, run_id, one)

    def traces(self, scope: Scope, asked: ImportTraces) -> list[ImportedTrace]:
        """Traces with their ids and spans; again, they are as they are there now. Raises Conflict (`trace.exists`) for
        an id that belongs to a trace that did not come from there, InvalidInput."""
        number = rules.experiment_number(asked.experiment_id)
        self._experiments.make_ready(scope.project)
        with self._database.transaction(scope) as tx:
            root = experiments.location_of(tx, number)
            return [_bring_trace(tx, number, root, asked.source, one) for one in asked.traces]

    def logged_model(self, scope: Scope, asked: ImportLoggedModel) -> ImportedLoggedModel:
        """A logged model with its id; its files follow. Raises Conflict (`logged_model.exists`), InvalidInput."""
        rules.check_model_id(asked.id)
        rules.check_model_name(asked.name)
        number = rules.experiment_number(asked.experiment_id)
        self._experiments.make_ready(scope.project)
        with self._database.transaction(scope) as tx:
            existed = models.known(tx, asked.id)
            if not existed:
                _insert_model(tx, asked, number)
            elif models.tag(tx, asked.id, SOURCE_TAG) != asked.source:
                raise Conflict(
                    f"there is a logged model '{asked.id}' that does not come from {asked.source}",
                    code="logged_model.exists",
                    hint="import into another project",
                )
            models.put_texts(tx, asked.id, asked.params, {**asked.tags, SOURCE_TAG: asked.source})
            _put_values(tx, asked)
            if not existed:
                data = {"name": asked.name, "run": asked.source_run_id, "source": asked.source}
                tx.event("logged_model.imported", f"logged-model:{asked.id}", data)
            return ImportedLoggedModel(model=models.noun_of(tx, asked.id), existed=existed)

    def _insert_run(self, tx: Transaction, asked: ImportRun, experiment: int, start_ms: int) -> RunRow:
        location = experiments.location_of(tx, experiment)
        tx.execute(
            store.runs.insert().values(
                project=tx.project,
                id=asked.id,
                experiment=experiment,
                name=rules.tag_value(runs.NAME_TAG, asked.name),
                user=asked.user[:255],
                status="RUNNING",
                stage="active",
                start_ms=start_ms,
                end_ms=None,
                artifact_uri=f"{location.rstrip('/')}/{asked.id}/artifacts",
                has_links=False,
            )
        )
        return run_row(tx, asked.id)


def _check(asked: ImportRun) -> None:
    if not is_id(asked.id):
        raise InvalidInput(
            f"'{asked.id[:80]}' is no run id", code="run.id_invalid", hint="use 32 lower-case hex digits"
        )
    rules.check_time_ms("started_at", to_us(asked.started_at) // 1_000)
    rules.check_inputs(asked.inputs)
    rules.experiment_number(asked.experiment_id)


@contextmanager
def _of_run(run_id: str) -> Iterator[None]:
    """Says of an error which of many runs it is about."""
    try:
        yield
    except ModelyardError as error:
        error.details = {**error.details, "run": run_id[:80]}
        raise


def _batch_of(asked: Mapping[str, ImportPoints]) -> Batch:
    keys: list[str] = []
    values: list[float] = []
    steps: list[int] = []
    times: list[int] = []
    for key, points in asked.items():
        if not len(points.times_ms) == len(points.steps) == len(points.values):
            raise InvalidInput(f"the columns of metric '{key[:80]}' differ in length", code="batch.ragged")
        keys += [key] * len(points.values)
        values += [math.nan if one is None else one for one in points.values]
        steps += points.steps
        times += points.times_ms
    return Batch.of(PointColumns(keys, values, steps, times))


def _finish(tx: Transaction, run_id: str, asked: FinishImportedRun) -> None:
    end_ms = None if asked.ended_at is None else to_us(asked.ended_at) // 1_000
    row = run_row(tx, run_id)
    _check_origin(tx, row, asked.source)
    ended = store.runs.update().where(store.runs.c.number == row.number)
    tx.execute(ended.values(status=asked.status, end_ms=end_ms, stage=asked.stage))
    runs.fill(tx, row, tags={**asked.tags, STATE_TAG: COMPLETE})
    data = {"status": asked.status, "experiment": str(row.experiment), "name": row.name, "source": asked.source}
    tx.event("run.imported", f"run:{run_id}", data)


def _imported_before(tx: Transaction, origin: str) -> int | None:
    table = store.experiment_tags
    found = tx.scalar(
        select(table.c.experiment).where(
            table.c.project == tx.project, table.c.key == SOURCE_TAG, table.c.value == origin
        )
    )
    return None if found is None else int(found)


def _same(tx: Transaction, asked: ImportExperiment) -> int | None:
    """The number of an experiment that has the id and the name, and came from nowhere else: `Default` is in both."""
    if not asked.id.isdecimal() or len(asked.id) > 18:
        return None
    table, tags = store.experiments, store.experiment_tags
    number = int(asked.id)
    found = tx.one(
        select(table.c.number).where(
            table.c.project == tx.project, table.c.number == number, table.c.name == asked.name
        )
    )
    elsewhere = tx.one(
        select(tags.c.value).where(tags.c.project == tx.project, tags.c.experiment == number, tags.c.key == SOURCE_TAG)
    )
    return number if found is not None and elsewhere is None else None


def _insert_experiment(tx: Transaction, asked: ImportExperiment) -> int:
    table = store.experiments
    number = _free_number(tx, asked.id)
    created_ms = experiments.now_ms(tx) if asked.created_at is None else to_us(asked.created_at) // 1_000
    updated_ms = created_ms if asked.updated_at is None else to_us(asked.updated_at) // 1_000
    for what, time_ms in (("created_at", created_ms), ("updated_at", updated_ms)):
        rules.check_time_ms(what, time_ms)
    tx.execute(
        table.insert().values(
            project=tx.project, number=number, name=_free_name(tx, asked.name),
            artifact_location=f"{experiments.ARTIFACT_ROOT}/{number}", stage=asked.stage,
            created_ms=created_ms, updated_ms=updated_ms,
        )
    )  # fmt: skip
    return number


def _free_number(tx: Transaction, wanted: str) -> int:
    table = store.experiments
    if wanted.isdecimal() and len(wanted) <= 18:
        number = int(wanted)
        taken = select(table.c.number).where(table.c.project == tx.project, table.c.number == number)
        if tx.one(taken) is None:
            if number <= NUMBER_MAX:
                store.raise_counter(tx, "experiment", number)
            return number
    return experiments.next_free_number(tx)


def _free_name(tx: Transaction, wanted: str) -> str:
    table = store.experiments
    for attempt in range(1, 1_000):
        suffix = "" if attempt == 1 else f" (imported {attempt - 1})"
        name = wanted[: rules.EXPERIMENT_NAME_CHARACTERS_MAX - len(suffix)] + suffix
        if tx.one(select(table.c.number).where(table.c.project == tx.project, table.c.name == name)) is None:
            return name
    raise Conflict(f"there are a thousand experiments called '{wanted}'", code="experiment.exists")


def _imported_run(tx: Transaction, asked: ImportRun) -> RunRow | None:
    # Ids are unique over all projects, so the look goes beyond this one.
    found = tx.one(select(*COLUMNS).where(store.runs.c.id == asked.id))
    if found is None:
        return None
    row = RunRow._make(found)
    _check_origin(tx, row, asked.source)
    return row


def _check_origin(tx: Transaction, row: RunRow, source: str) -> None:
    if row.project == tx.project and _tag(tx, row.number, SOURCE_TAG) == source:
        return
    elsewhere = "" if row.project == tx.project else " in another project"
    raise Conflict(
        f"there is a run '{row.id}'{elsewhere} that does not come from {source}",
        code="run.exists",
        hint="it may have been imported from another address of the same server: then give that address again",
    )


def _tag(tx: Transaction, number: int, key: str) -> str | None:
    tags = store.run_tags
    found = tx.scalar(select(tags.c.value).where(tags.c.run == number, tags.c.key == key))
    return None if found is None else str(found)


def _insert_model(tx: Transaction, asked: ImportLoggedModel, number: int) -> None:
    location = experiments.location_of(tx, number)
    stage: Stage = "active"
    tx.execute(
        store.logged_models.insert().values(
            project=tx.project, id=asked.id, experiment=number, name=asked.name,
            artifact_location=f"{location.rstrip('/')}/models/{asked.id}/artifacts",
            status=asked.status, stage=stage, created_ms=to_us(asked.created_at) // 1_000,
            updated_ms=to_us(asked.updated_at) // 1_000, model_type=asked.model_type or None,
            source_run_id=asked.source_run_id or None,
        )
    )  # fmt: skip


def _put_values(tx: Transaction, asked: ImportLoggedModel) -> None:
    by_run: dict[str, list[metrics.OfModel]] = {}
    for one in asked.metrics:
        rules.check_point(one.key, one.value or 0.0, one.timestamp_ms, one.step)
        by_run.setdefault(one.run_id, []).append(
            metrics.OfModel(
                asked.id, one.key, math.nan if one.value is None else one.value, one.step, one.timestamp_ms,
                one.dataset_name or "", one.dataset_digest or "",
            )
        )  # fmt: skip
    for run_id, values in by_run.items():
        metrics.append_of_models(tx, run_id, values)


def _bring_trace(tx: Transaction, number: int, root: str, source: str, asked: ImportTrace) -> ImportedTrace:
    trace_id = asked.trace.id
    known = next(iter(of_traces.nouns(tx, [trace_id])), None)
    if known is not None and known.tags.get(SOURCE_TAG) != source:
        raise Conflict(
            f"there is a trace '{trace_id[:250]}' that does not come from {source}",
            code="trace.exists",
            hint="import into another project",
        )
    tagged = msgspec.structs.replace(asked.trace, tags={**asked.trace.tags, SOURCE_TAG: source})
    of_traces.bring(tx, number, tagged, root, asked.runs)
    of_spans.bring(tx, number, trace_id, asked.spans)
    kept = of_spans.stored(tx, trace_id)
    digest = hashlib.sha256("\n".join(kept).encode()).hexdigest()
    return ImportedTrace(id=trace_id, spans=len(kept), digest=digest, existed=known is not None)


def _digest(history: History) -> str:
    import numpy as np  # heavy: imported late

    nothing = np.isnan(history.values)
    values = np.where(nothing, np.nan, history.values + 0.0)
    order = np.lexsort((np.where(nothing, 0.0, values), ~nothing, history.steps, history.times))
    packed = np.empty(len(history), [("time", "<i8"), ("step", "<i8"), ("value", "<f8")])
    packed["time"], packed["step"], packed["value"] = history.times[order], history.steps[order], values[order]
    return hashlib.sha256(packed.tobytes()).hexdigest()
