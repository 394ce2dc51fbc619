"""HTTP of imports: what another system tracked comes in under its own ids and with its own times, by an admin."""

from __future__ import annotations

from typing import Any

from modelyard.kernel.auth import Action, Scope
from modelyard.kernel.routing import get, post
from modelyard.planes.tracking.plane import Tracking
from modelyard.types.imports import (
    FinishImportedRun,
    FinishImportedRuns,
    ImportedContents,
    ImportedExperiment,
    ImportedLoggedModel,
    ImportedRun,
    ImportedTrace,
    ImportExperiment,
    ImportLoggedModel,
    ImportRun,
    ImportRuns,
    ImportTraces,
)
from modelyard.types.tracking import Run


@post("/api/import/experiments", requires=Action.ADMIN)
def import_experiment(caller: Scope, tracking: Tracking, data: ImportExperiment) -> ImportedExperiment:
    """Take in an experiment of another system; again, the one that it became."""
    return tracking.imports.experiment(caller, data)


@post("/api/import/runs", requires=Action.ADMIN)
def import_run(caller: Scope, tracking: Tracking, data: ImportRun) -> ImportedRun:
    """Take in a run of another system under its own id; its points and files are logged to it, then it is finished."""
    return tracking.imports.run(caller, data)


@post("/api/import/filled-runs", requires=Action.ADMIN)
def import_filled_runs(caller: Scope, tracking: Tracking, data: ImportRuns) -> list[ImportedContents]:
    """Take in runs of another system with all their points, all or none, and read them back; their files are put to
    them, then they are finished."""
    return tracking.imports.filled_runs(caller, data.runs)


@post("/api/import/finished-runs", requires=Action.ADMIN, status_code=204)
def finish_imported_runs(caller: Scope, tracking: Tracking, data: FinishImportedRuns) -> None:
    """Say of some imported runs that they are here whole, of all or of none."""
    tracking.imports.finish_runs(caller, data.runs)


@get("/api/import/runs/{run_id:str}", requires=Action.READ)
def get_imported_contents(caller: Scope, tracking: Tracking, run_id: str) -> ImportedContents:
    """What came of a run, with a digest of each metric's points, to be compared with what is there."""
    return tracking.imports.contents(caller, run_id)


@post("/api/import/runs/{run_id:str}/finish", requires=Action.ADMIN)
def finish_imported_run(caller: Scope, tracking: Tracking, run_id: str, data: FinishImportedRun) -> Run:
    """Say that an imported run is here whole."""
    return tracking.imports.finish_run(caller, run_id, data)


@post("/api/import/traces", requires=Action.ADMIN)
def import_traces(caller: Scope, tracking: Tracking, data: ImportTraces) -> list[ImportedTrace]:
    """Take in traces of another system under their own ids, with their spans, all or none."""
    return tracking.imports.traces(caller, data)


@post("/api/import/logged-models", requires=Action.ADMIN)
def import_logged_model(caller: Scope, tracking: Tracking, data: ImportLoggedModel) -> ImportedLoggedModel:
    """Take in a logged model of another system under its own id; its files follow."""
    return tracking.imports.logged_model(caller, data)


ROUTES: list[Any] = [
    import_experiment,
    import_run,
    import_filled_runs,
    finish_imported_runs,
    import_traces,
    get_imported_contents,
    finish_imported_run,
    import_logged_model,
]
