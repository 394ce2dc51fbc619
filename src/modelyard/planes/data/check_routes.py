"""HTTP for checks of versions that are there: runs, their failing rows, and suites of other tools."""

from __future__ import annotations

from typing import Any

from litestar.response import Stream

from modelyard.engines.tables.ingest import ARROW_STREAM, ipc_chunks
from modelyard.kernel.auth import Action, Scope
from modelyard.kernel.routing import get, post
from modelyard.planes.data.service import Data
from modelyard.planes.data.suites import gx_suite, read_suite
from modelyard.types.data import CheckRun, ReadSuite, RunChecks, Suite


@post("/api/check-suites/read", requires=Action.READ)
def read_check_suite(data: ReadSuite) -> Suite:
    """The checks that a document declares: of ours, of Great Expectations 1.x or of dbt. What is not supported is there
    too, as `unsupported`."""
    return read_suite(data.document, data.model)


@get("/api/datasets/{name:str}/suite", requires=Action.READ)
def export_suite(caller: Scope, datasets: Data, name: str) -> dict[str, Any]:
    """The dataset's checks as a suite of Great Expectations 1.x."""
    return gx_suite(name, datasets.get(caller, name).checks)


@post("/api/datasets/{name:str}/check-runs", requires=Action.WRITE, status_code=201)
def run_checks(caller: Scope, datasets: Data, name: str, data: RunChecks) -> CheckRun:
    """Run checks, by default the dataset's own, over a version."""
    return datasets.checking.run(caller, name, data.ref, data.checks, data.suite)


@get("/api/datasets/{name:str}/check-runs", requires=Action.READ)
def list_check_runs(caller: Scope, datasets: Data, name: str, limit: int = 50) -> list[CheckRun]:
    """The newest runs, newest first."""
    return datasets.checking.runs(caller, name, limit=min(max(limit, 1), 100))


@get("/api/datasets/{name:str}/check-runs/{run_id:str}", requires=Action.READ)
def get_check_run(caller: Scope, datasets: Data, name: str, run_id: str) -> CheckRun:
    """One run with its report."""
    return datasets.checking.one(caller, name, run_id)


@get("/api/datasets/{name:str}/check-runs/{run_id:str}/failing/{check:int}", requires=Action.READ)
def read_failing_rows(caller: Scope, datasets: Data, name: str, run_id: str, check: int) -> Stream:
    """All rows that fail a check of a run, by its place in the report from 0, as an Arrow stream."""
    schema, batches = datasets.checking.failing(caller, name, run_id, check)
    return Stream(ipc_chunks(schema, batches), media_type=ARROW_STREAM)


ROUTES = [read_check_suite, export_suite, run_checks, list_check_runs, get_check_run, read_failing_rows]
