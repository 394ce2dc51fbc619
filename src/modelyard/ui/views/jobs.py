"""Jobs: what runs, what waits and why, and what one job did."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

from litestar.params import Parameter
from msgspec import Struct

from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database
from modelyard.planes.jobs import Jobs as JobsPlane
from modelyard.planes.tracking import Tracking
from modelyard.types.jobs import Attempt, Job, JobLog, JobState
from modelyard.ui.format import number, size
from modelyard.ui.frame import Crumb, Frame, Screen, rail
from modelyard.ui.names import names
from modelyard.ui.page import page as ui_page
from modelyard.ui.timeline import Span, Timeline, timeline

LOG_SHOWN_BYTES = 64 * 1024
LOOKED_AT = 200
STATES = ("", *(state.value for state in JobState))


class Capacity(Struct, frozen=True, kw_only=True):
    """A figure of the queue."""

    label: str
    value: str
    note: str = ""


class JobRow(Struct, frozen=True, kw_only=True):
    job: Job
    duration_s: float | None


class Jobs(Screen, frozen=True, kw_only=True):
    """Jobs, newest first, of one state or of all."""

    rows: tuple[JobRow, ...]
    states: tuple[str, ...]
    state: str = ""
    capacity: tuple[Capacity, ...] = ()
    next: str | None = None


class JobPage(Screen, frozen=True, kw_only=True):
    """One job. `log_cut`: the log is longer than what is shown."""

    job: Job
    command: str
    duration_s: float | None
    timeline: Timeline
    log: JobLog | None = None
    log_cut: bool = False


def row(job: Job, now: datetime) -> JobRow:
    """A job as a row of the table."""
    return JobRow(job=job, duration_s=duration_of(job, now))


def duration_of(job: Job, now: datetime) -> float | None:
    """Seconds from the first start to the end, or to now while it runs."""
    return None if job.started_at is None else ((job.ended_at or now) - job.started_at).total_seconds()


def attempts_timeline(attempts: Sequence[Attempt], now: datetime) -> Timeline:
    """The attempts of a job as bars."""
    spans = [
        Span(
            label=f"Attempt {attempt.number}",
            started_at=attempt.started_at,
            ended_at=attempt.ended_at,
            state=attempt.state.value,
            note=attempt.reason,
        )
        for attempt in attempts
    ]
    return timeline(spans, now)


def command_of(job: Job) -> str:
    """The command as one would type it."""
    return shlex.join(job.command)


@ui_page("/jobs", template="jobs.html")
def jobs(
    caller: Scope,
    database: Database,
    jobs: JobsPlane,
    only: Annotated[JobState | None, Parameter(query="state")] = None,
    page: str = "",
) -> Jobs:
    """Jobs, newest first, each that waits with the reason."""
    now = database.clock.now()
    found = jobs.list_jobs(caller, state=only, after=page or None)
    running = jobs.list_jobs(caller, state=JobState.RUNNING, limit=LOOKED_AT).items
    waiting = jobs.list_jobs(caller, state=JobState.QUEUED, limit=LOOKED_AT).items
    return Jobs(
        frame=Frame(title="Jobs", section="jobs", refresh_s=5 if running or waiting else 0),
        rows=tuple(row(job, now) for job in found.items),
        states=STATES,
        state=only.value if only else "",
        capacity=_capacity(jobs, running, waiting) if found.items else (),
        next=found.next,
    )


def _capacity(plane: JobsPlane, running: Sequence[Job], waiting: Sequence[Job]) -> tuple[Capacity, ...]:
    whole = plane.capacity()
    cpus = sum(job.resources.cpus for job in running)
    memory = sum(job.resources.memory_bytes for job in running)
    return (
        Capacity(label="Running", value=str(len(running))),
        Capacity(label="Waiting", value=str(len(waiting))),
        Capacity(label="CPUs given", value=number(cpus), note=f"of {number(whole.cpus)}"),
        Capacity(label="Memory given", value=size(memory), note=f"of {size(whole.memory_bytes)}"),
    )


@ui_page("/jobs/{job_id:str}", template="job.html")
def job(caller: Scope, database: Database, jobs: JobsPlane, tracking: Tracking, job_id: str) -> JobPage:
    """One job with its attempts and the end of its log."""
    found = jobs.get_job(caller, job_id)
    now = database.clock.now()
    log = jobs.read_log(caller, job_id, offset=-LOG_SHOWN_BYTES, limit_bytes=LOG_SHOWN_BYTES)
    return JobPage(
        frame=Frame(
            title=found.name or command_of(found),
            section="jobs",
            kind="job",
            state=found.state.value,
            owner=found.submitted_by,
            at=found.submitted_at,
            crumbs=(Crumb("Jobs", "/jobs"),),
            rail=rail(
                database,
                caller,
                f"job:{job_id}",
                f"modelyard job get {job_id}",
                name_them=names(caller, jobs, tracking),
            ),
            refresh_s=0 if found.state.final else 3,
        ),
        job=found,
        command=command_of(found),
        duration_s=duration_of(found, now),
        timeline=attempts_timeline(found.attempts, now),
        log=log,
        log_cut=log.next - len(log.text.encode()) > 0,
    )


ROUTES: list[Any] = [jobs, job]
