"""The HTTP face of jobs."""

from __future__ import annotations

from typing import Annotated, Any

from litestar.params import Parameter

from modelyard.kernel.auth import Action, Scope
from modelyard.kernel.limits import PAGE_ITEMS_DEFAULT, PAGE_ITEMS_MAX
from modelyard.kernel.routing import get, post
from modelyard.planes.jobs.service import LOG_PIECE_BYTES_MAX, Jobs
from modelyard.types.jobs import Job, JobLog, JobState, SubmitJob
from modelyard.types.page import Page


@post("/api/jobs", requires=Action.WRITE, status_code=201)
def submit_job(caller: Scope, jobs: Jobs, data: SubmitJob) -> Job:
    """Put a job into the queue."""
    return jobs.submit_job(caller, data)


@get("/api/jobs", requires=Action.READ)
def list_jobs(
    caller: Scope,
    jobs: Jobs,
    in_state: Annotated[JobState | None, Parameter(query="state")] = None,
    after: str | None = None,
    limit: Annotated[int, Parameter(ge=1, le=PAGE_ITEMS_MAX)] = PAGE_ITEMS_DEFAULT,
) -> Page[Job]:
    """Jobs of the project, newest first."""
    return jobs.list_jobs(caller, state=in_state, after=after, limit=limit)


@get("/api/jobs/{job_id:str}", requires=Action.READ)
def get_job(caller: Scope, jobs: Jobs, job_id: str) -> Job:
    """A job: its attempts, what it uses, why it waits."""
    return jobs.get_job(caller, job_id)


@post("/api/jobs/{job_id:str}/cancel", requires=Action.WRITE)
def cancel_job(caller: Scope, jobs: Jobs, job_id: str) -> Job:
    """Ask a job to end."""
    return jobs.cancel_job(caller, job_id)


@get("/api/jobs/{job_id:str}/log", requires=Action.READ)
def read_log(
    caller: Scope,
    jobs: Jobs,
    job_id: str,
    attempt: Annotated[int | None, Parameter(ge=1)] = None,
    offset: int = 0,
    limit: Annotated[int, Parameter(ge=1, le=LOG_PIECE_BYTES_MAX)] = 65_536,
) -> JobLog:
    """A piece of what an attempt wrote, safe to show; a negative offset counts from the end."""
    return jobs.read_log(caller, job_id, attempt=attempt, offset=offset, limit_bytes=limit)


ROUTES: list[Any] = [submit_job, list_jobs, get_job, cancel_job, read_log]
