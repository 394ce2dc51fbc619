"""One evaluation of a monitor: read what is new, add it to the windows that it belongs to, judge those.

Only the files that a new version of the prediction log added are read in full. When labels change, four columns of the
log are read to match them; a window whose matched labels are the same as before is not judged again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from modelyard.engines.tables.base import Snapshot
from modelyard.kernel.auth import Scope
from modelyard.kernel.errors import InvalidInput, NotFound
from modelyard.planes.data import Data
from modelyard.planes.monitoring import drift, performance, prediction_log
from modelyard.planes.monitoring.decisions import findings
from modelyard.planes.monitoring.sketches import Grid, Sketch, is_comparable, make_grid, make_sketch, merge
from modelyard.planes.monitoring.state import Memory, Reference, StoredWindow, WindowKey, WindowMark, WindowState
from modelyard.planes.monitoring.store import MonitorRow
from modelyard.planes.monitoring.windows import WindowSize, parse_window, window_end
from modelyard.types.data import DatasetVersion
from modelyard.types.monitoring import Baseline, Distance, Labels, MonitorWindow

if TYPE_CHECKING:
    import pyarrow as pa

SETTLED_S = 3_600.0
"""A window that is over is complete once the log, which may lag behind, got nothing more for so long."""
REFERENCE_ROWS_MAX = 1_000_000


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What an evaluation found. `restart`: the log is no continuation of what was read before, all windows are new."""

    memory: Memory
    windows: list[StoredWindow]
    restart: bool
    predictions_version: int
    labels_version: int | None
    due_at: datetime | None
    problem: str | None = None


class Evaluator:
    """One evaluation of one monitor at one moment. `load` gives the kept states of windows."""

    def __init__(
        self,
        data: Data,
        scope: Scope,
        row: MonitorRow,
        marks: Sequence[WindowMark],
        load: Callable[[Sequence[WindowKey]], Mapping[WindowKey, WindowState]],
        now: datetime,
    ) -> None:
        self._data = data
        self._scope = scope
        self._row = row
        self._spec = row.noun.spec
        self._size: WindowSize = parse_window(self._spec.window)
        self._marks = {mark.key: mark for mark in marks}
        self._load = load
        self._now = now
        self._memory = row.memory

    def run(self) -> Outcome:
        """Evaluate. Raises NotFound where a dataset or its first version is not there, InvalidInput where one does not
        fit the monitor."""
        version, log = self._data.snapshot(self._scope, self._row.predictions, self._spec.predictions_ref)
        prediction_log.check_schema(log.schema, self._row.predictions)
        files, restart = self._new_files(log)
        if restart:
            self._marks, self._memory = {}, replace(self._memory, scores={}, baselines={}, newest_event_at=None)
        if not self._has_grids(log):
            rows_min = self._spec.thresholds.rows_min
            why = f"{log.rows} predictions so far, {rows_min} are needed to begin with"
            return self._nothing(version, why)
        fresh = self._fold(log, files)
        touched = set(fresh)
        states = {key: _merged(state, fresh.get(key)) for key, state in self._load_kept(touched, restart).items()}
        states |= {key: state for key, state in fresh.items() if key not in states}
        labels_version = self._judge_labels(log, states, touched, restart)
        complete = {key for key in touched | set(self._marks) if self._is_complete(key, version)}
        now_complete = {key for key in complete - set(states) if not self._marks[key].complete}
        states |= self._load_kept(now_complete, restart)
        self._remember_references(states, complete)
        windows = [self._window(key, states[key], key in complete, version, labels_version) for key in sorted(states)]
        return Outcome(
            memory=self._memory,
            windows=windows,
            restart=restart,
            predictions_version=version.version,
            labels_version=labels_version,
            due_at=self._due_at(version, (touched | set(self._marks)) - complete),
        )

    # --- what is new ------------------------------------------------------------------------------------------

    def _new_files(self, log: Snapshot) -> tuple[Sequence[Path], bool]:
        seen = self._row.noun.predictions_version
        if seen is None:
            return log.files, False
        try:
            old = self._data.snapshot(self._scope, self._row.predictions, seen)[1]
        except NotFound:
            # A vacuum gave up the version that was seen last, so what is new since then cannot be told.
            return log.files, True
        added = prediction_log.added_files(old, log)
        return (log.files, True) if added is None else (added, False)

    def _load_kept(self, keys: set[WindowKey], restart: bool) -> dict[WindowKey, WindowState]:
        return {} if restart or not keys else dict(self._load(sorted(keys)))

    def _fold(self, log: Snapshot, files: Sequence[Path]) -> dict[WindowKey, WindowState]:
        """The states of the new rows alone."""
        if not files:
            return {}
        score = prediction_log.score_column(log.schema, self._spec.score)
        inputs = [name for name in self._memory.grids if prediction_log.INPUT + name in log.schema.names]
        columns = [
            prediction_log.EVENT_TIME,
            prediction_log.MODEL_VERSION,
            *([prediction_log.MODEL] if prediction_log.MODEL in log.schema.names else []),
            *(prediction_log.INPUT + name for name in inputs),
            *([score] if score else []),
        ]
        fresh: dict[WindowKey, WindowState] = {}
        newest = self._memory.newest_event_at
        for table in prediction_log.read_files(log, files, columns):
            newest = max(filter(None, (newest, prediction_log.newest_instant(table))), default=None)
            for key, rows in prediction_log.by_window(table, self._size):
                fresh[key] = _merged(self._sketched(rows, inputs, score), fresh.get(key))
        self._memory = replace(self._memory, newest_event_at=newest)
        return fresh

    def _sketched(self, rows: pa.Table, inputs: Sequence[str], score: str | None) -> WindowState:
        grids, score_grid = self._memory.grids, self._memory.score_grid
        model = rows[prediction_log.MODEL][0].as_py() if prediction_log.MODEL in rows.column_names else None
        return WindowState(
            model=model,
            rows=rows.num_rows,
            inputs={name: make_sketch(grids[name], rows[prediction_log.INPUT + name]) for name in inputs},
            score=make_sketch(score_grid, rows[score]) if score is not None and score_grid is not None else None,
        )

    # --- references -------------------------------------------------------------------------------------------

    def _has_grids(self, log: Snapshot) -> bool:
        """Make the grids where there are none. False while there are too few rows to make them from."""
        memory = self._memory
        score = prediction_log.score_column(log.schema, self._spec.score)
        if memory.grids and (memory.score_grid is not None or score is None):
            return True
        if log.rows < self._spec.thresholds.rows_min:
            return False
        inputs = prediction_log.input_columns(log.schema, self._spec.inputs)
        if self._spec.reference.dataset is not None and memory.reference is None:
            memory = self._with_dataset(memory, self._spec.reference.dataset, inputs)
        own = [] if memory.grids else [prediction_log.INPUT + name for name in inputs]
        columns = list(dict.fromkeys([*own, *([score] if score else [])]))
        first = next(prediction_log.read_files(log, log.files, columns), None) if columns else None
        if first is not None:
            grids = _grids({name.removeprefix(prediction_log.INPUT): first[name] for name in own})
            score_grid = make_grid(first[score]) if score is not None else None
            memory = replace(memory, grids=memory.grids or grids, score_grid=memory.score_grid or score_grid)
        self._memory = memory
        return True

    def _with_dataset(self, memory: Memory, dataset: str, inputs: Sequence[str]) -> Memory:
        version = self._data.resolve(self._scope, dataset, self._spec.reference.ref)
        there = {column.name for column in version.columns}
        shared = [name for name in inputs if name in there]
        missing = [name for name in self._spec.inputs or () if name not in there]
        if missing or not shared:
            raise InvalidInput(
                f"the reference dataset '{dataset}' has no column '{(missing or list(inputs) or ['?'])[0]}'",
                code="monitor.reference_invalid",
                hint=f"its columns are: {', '.join(sorted(there))}; the model's inputs are: {', '.join(inputs)}",
            )
        if version.rows > REFERENCE_ROWS_MAX:
            raise InvalidInput(
                f"the reference dataset '{dataset}' has {version.rows:,} rows, at most {REFERENCE_ROWS_MAX:,} are read",
                code="monitor.reference_too_large",
                hint="write a sample of it to a dataset of its own",
            )
        table = self._data.read(self._scope, dataset, version.version, shared)
        grids = _grids({name: table[name] for name in shared if is_comparable(table[name].type)})
        sketches = {name: make_sketch(grid, table[name]) for name, grid in grids.items()}
        return replace(
            memory, grids=grids, reference=Reference(source=version.urn, rows=table.num_rows, sketches=sketches)
        )

    def _remember_references(self, states: Mapping[WindowKey, WindowState], complete: set[WindowKey]) -> None:
        """The first complete window of a version is what its later ones are compared with."""
        thresholds = self._spec.thresholds
        memory = self._memory
        for key in sorted(complete & set(states)):
            state = states[key]
            if state.rows < thresholds.rows_min:
                continue
            if memory.reference is None and self._spec.reference.dataset is None:
                source = f"window {key.start:%Y-%m-%d %H:%M} of version {key.model_version}"
                memory = replace(memory, reference=Reference(source=source, rows=state.rows, sketches=state.inputs))
            if state.score is not None and key.model_version not in memory.scores:
                memory = replace(memory, scores={**memory.scores, key.model_version: state.score})
            baseline = _baseline(state, thresholds.label_coverage_min)
            if baseline is not None and key.model_version not in memory.baselines:
                memory = replace(memory, baselines={**memory.baselines, key.model_version: baseline})
        self._memory = memory

    # --- labels -----------------------------------------------------------------------------------------------

    def _judge_labels(
        self, log: Snapshot, states: dict[WindowKey, WindowState], touched: set[WindowKey], restart: bool
    ) -> int | None:
        """Put the performance of all windows whose labels changed into `states`. Returns the labels' version."""
        spec = self._spec.labels
        if spec is None:
            return None
        try:
            version = self._data.resolve(self._scope, spec.dataset, spec.ref)
        except NotFound:
            # Labels come later than predictions; that there are none yet is the usual beginning.
            return None
        again = version.version != self._row.noun.labels_version or restart
        score = prediction_log.score_column(log.schema, self._spec.score)
        if score is None or not (again or touched):
            return version.version
        labels = self._labels(spec, version)
        since = None if again else min(key.start for key in touched)
        scored = self._scored(log, spec, score, labels, since)
        wanted = {
            key: found
            for key, found in scored.items()
            if key in touched or (key in self._marks and self._marks[key].labels_digest != found.digest)
        }
        for key, state in self._load_kept(set(wanted) - set(states), restart).items():
            states[key] = state
        rows_min = self._spec.thresholds.rows_min
        for key, found in wanted.items():
            judged = performance.evaluate(found.labels, found.scores, rows=states[key].rows, rows_min=rows_min)
            states[key] = replace(states[key], performance=judged, labels_digest=found.digest)
        return version.version

    def _labels(self, spec: Labels, version: DatasetVersion) -> prediction_log.LabelTable:
        table = self._data.read(self._scope, spec.dataset, version.version, prediction_log.label_columns(spec))
        return prediction_log.read_labels(table, spec, self._now)

    def _scored(
        self, log: Snapshot, spec: Labels, score: str, labels: prediction_log.LabelTable, since: datetime | None
    ) -> dict[WindowKey, prediction_log.Scored]:
        if spec.prediction_key not in log.schema.names:
            raise InvalidInput(
                f"the prediction log has no column '{spec.prediction_key}' to match labels by",
                code="monitor.prediction_key_unknown",
                hint=f"its columns are: {', '.join(log.schema.names)}",
            )
        columns = [prediction_log.EVENT_TIME, prediction_log.MODEL_VERSION, spec.prediction_key, score]
        parts: dict[WindowKey, list[pa.Table]] = {}
        for table in prediction_log.read_files(log, log.files, list(dict.fromkeys(columns)), since):
            for key, rows in prediction_log.by_window(table, self._size):
                if since is None or key.start >= since:
                    parts.setdefault(key, []).append(rows)
        return {
            key: prediction_log.match(_concatenated(tables), score, spec.prediction_key, labels)
            for key, tables in parts.items()
        }

    # --- results ----------------------------------------------------------------------------------------------

    def _is_complete(self, key: WindowKey, version: DatasetVersion) -> bool:
        """Whether no more is to come for a window."""
        end = window_end(self._size, key.start)
        said, newest = self._memory.complete_through, self._memory.newest_event_at
        if (said is not None and end <= said) or (newest is not None and end <= newest):
            return True
        return self._now >= _settled_at(end, version)

    def _due_at(self, version: DatasetVersion, incomplete: set[WindowKey]) -> datetime | None:
        return min((_settled_at(window_end(self._size, key.start), version) for key in incomplete), default=None)

    def _window(
        self, key: WindowKey, state: WindowState, complete: bool, version: DatasetVersion, labels_version: int | None
    ) -> StoredWindow:
        reference = self._memory.reference
        inputs = () if reference is None else self._input_distances(state, reference)
        result = MonitorWindow(
            monitor=self._spec.name,
            start=key.start,
            end=window_end(self._size, key.start),
            model_version=key.model_version,
            rows=state.rows,
            complete=complete,
            inputs=inputs,
            prediction=self._prediction_distance(key, state),
            drift_share=drift.drift_share(inputs),
            performance=state.performance,
            predictions_version=version.version,
            labels_version=labels_version,
            evaluated_at=self._now,
            note="the inputs are compared once the first window is complete" if reference is None else None,
        )
        found = findings(self._spec.thresholds, result, baseline_of(self._row, self._memory, key.model_version))
        return StoredWindow(key=key, state=state, result=replace(result, findings=found))

    def _input_distances(self, state: WindowState, reference: Reference) -> tuple[Distance, ...]:
        thresholds = self._spec.thresholds
        return tuple(
            drift.compare(
                name,
                self._memory.grids[name],
                reference.sketches[name],
                state.inputs[name],
                threshold=thresholds.input_drift,
                rows_min=thresholds.rows_min,
            )
            for name in reference.sketches
            if name in state.inputs
        )

    def _prediction_distance(self, key: WindowKey, state: WindowState) -> Distance | None:
        grid, before = self._memory.score_grid, self._memory.scores.get(key.model_version)
        if grid is None or before is None or state.score is None:
            return None
        thresholds = self._spec.thresholds
        return drift.compare(
            "score", grid, before, state.score, threshold=thresholds.input_drift, rows_min=thresholds.rows_min
        )

    def _nothing(self, version: DatasetVersion, problem: str) -> Outcome:
        return Outcome(
            memory=self._memory,
            windows=[],
            restart=False,
            predictions_version=version.version,
            labels_version=None,
            due_at=None,
            problem=problem,
        )


def baseline_of(row: MonitorRow, memory: Memory, model_version: str) -> Baseline | None:
    """What the performance of a version is compared with: what the monitor says, else its own first window."""
    return row.noun.spec.baseline or memory.baselines.get(model_version)


def _baseline(state: WindowState, coverage_min: float) -> Baseline | None:
    found = state.performance
    if found is None or found.base_rate is None or found.coverage < coverage_min:
        return None
    return Baseline(auc=found.auc, auc_se=found.auc_se or 0.0, base_rate=found.base_rate, rows=found.labelled)


def _settled_at(end: datetime, version: DatasetVersion) -> datetime:
    return max(end, version.created_at) + timedelta(seconds=SETTLED_S)


def _merged(state: WindowState, more: WindowState | None) -> WindowState:
    """Two parts of a window as one. What was judged of the first part is judged anew where labels are looked at."""
    if more is None:
        return state
    return replace(
        state,
        model=more.model or state.model,
        rows=state.rows + more.rows,
        inputs={
            name: sketch
            for name in {**state.inputs, **more.inputs}
            if (sketch := _merged_sketch(state.inputs.get(name), more.inputs.get(name))) is not None
        },
        score=_merged_sketch(state.score, more.score),
    )


def _merged_sketch(one: Sketch | None, other: Sketch | None) -> Sketch | None:
    return merge([one, other]) if one is not None and other is not None else one or other


def _grids(columns: Mapping[str, pa.ChunkedArray]) -> dict[str, Grid]:
    made = {name: make_grid(column) for name, column in columns.items()}
    return {name: grid for name, grid in made.items() if grid is not None}


def _concatenated(tables: Sequence[pa.Table]) -> pa.Table:
    import pyarrow as pa  # heavy: imported late

    return pa.concat_tables(tables)
