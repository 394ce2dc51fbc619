"""Jobs in a program: `modelyard.submit_job(["python", "train.py"])`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import quote

from modelyard.kernel import settings
from modelyard.kernel.errors import Unavailable
from modelyard.kernel.settings import Settings
from modelyard.sdk.client import EMBEDDED_URL, Client, connect
from modelyard.types.jobs import Job, JobLog, JobState, Resources, SubmitJob
from modelyard.types.page import Page

T = TypeVar("T")
POLL_S_MIN, POLL_S_MAX = 0.05, 1.0
OUTAGE_S_MAX = 60.0


@contextmanager
def serving_client(given: Settings | None = None) -> Iterator[Client]:
    """A client of a server that runs jobs: the one that there is, else one of this program's own for the block."""
    chosen = given or settings.load()
    client = connect(chosen)
    if client.base_url != EMBEDDED_URL:
        yield client
        return
    from modelyard.sdk.embedded import serving_here  # loads the whole app

    with serving_here(chosen):
        yield connect(chosen)


def submit_job(
    command: Sequence[str],
    *,
    name: str = "",
    cpus: float = 1.0,
    memory_bytes: int = 0,
    env: Mapping[str, str] | None = None,
    client: Client | None = None,
    **options: Any,
) -> Job:
    """Put a command into the queue. `options` are the further fields of `SubmitJob`."""
    spec = SubmitJob(
        command=list(command),
        name=name,
        resources=Resources(cpus=cpus, memory_bytes=memory_bytes),
        env=dict(env or {}),
        **options,
    )
    return (client or connect()).post("/api/jobs", spec, Job)


def get_job(job_id: str, client: Client | None = None) -> Job:
    """A job: its attempts, what it uses, why it waits."""
    return (client or connect()).get(_path(job_id), Job)


def list_jobs(
    *, state: JobState | None = None, after: str | None = None, limit: int = 100, client: Client | None = None
) -> Page[Job]:
    """Jobs of the project, newest first."""
    params = {"state": state, "after": after, "limit": limit}
    return (client or connect()).get("/api/jobs", Page[Job], params)


def cancel_job(job_id: str, client: Client | None = None) -> Job:
    """Ask a job to end."""
    return (client or connect()).post(f"{_path(job_id)}/cancel", None, Job)


def read_job_log(
    job_id: str, *, attempt: int | None = None, offset: int = 0, limit: int = 65_536, client: Client | None = None
) -> JobLog:
    """A piece of what a job wrote; a negative offset counts from the end."""
    params = {"attempt": attempt, "offset": offset, "limit": limit}
    return (client or connect()).get(f"{_path(job_id)}/log", JobLog, params)


def wait_job(
    job_id: str,
    *,
    timeout_s: float | None = None,
    on_change: Callable[[Job], None] | None = None,
    client: Client | None = None,
) -> Job:
    """Wait until a job has ended. `on_change` sees each new state or reason. Raises Unavailable past the timeout."""
    chosen = client or connect()
    return wait_until(
        lambda: chosen.get(_path(job_id), Job),
        lambda job: job.state.final,
        lambda job: (job.state, job.reason, len(job.attempts)),
        on_change,
        timeout_s,
        f"job '{job_id}'",
    )


def follow_job_log(job_id: str, *, client: Client | None = None) -> Iterator[str]:
    """What a job writes, as it writes it, until it has ended; attempts after each other."""
    chosen = client or connect()
    attempt, offset, delay_s = 1, 0, POLL_S_MIN
    while True:
        job = chosen.get(_path(job_id), Job)
        if len(job.attempts) < attempt:
            if job.state.final:
                return
            delay_s = _pause(delay_s)
            continue
        piece = chosen.get(f"{_path(job_id)}/log", JobLog, {"attempt": attempt, "offset": offset, "limit": 262_144})
        if piece.text:
            yield piece.text
            delay_s = POLL_S_MIN
        if piece.complete:
            attempt, offset = attempt + 1, 0
            continue
        if piece.next == offset:
            delay_s = _pause(delay_s)
        offset = piece.next


def wait_until(
    look: Callable[[], T],
    done: Callable[[T], bool],
    shown: Callable[[T], Any],
    on_change: Callable[[T], None] | None,
    timeout_s: float | None,
    what: str,
) -> T:
    """Look again and again until it is done. A server that is away for a while is waited for."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    before: Any = None
    delay_s, away_since = POLL_S_MIN, None
    while True:
        try:
            found = look()
        except Unavailable:
            away_since = away_since or time.monotonic()
            if time.monotonic() - away_since > OUTAGE_S_MAX:
                raise
            delay_s = _pause(delay_s)
            continue
        away_since = None
        if on_change is not None and shown(found) != before:
            before = shown(found)
            delay_s = POLL_S_MIN
            on_change(found)
        if done(found):
            return found
        if deadline is not None and time.monotonic() > deadline:
            raise Unavailable(
                f"{what} has not ended within {timeout_s:g} s",
                code="wait.timed_out",
                hint="it goes on; look at it later, or cancel it",
            )
        delay_s = _pause(delay_s)


def _pause(delay_s: float) -> float:
    time.sleep(delay_s)
    return min(delay_s * 1.3, POLL_S_MAX)


def _path(job_id: str) -> str:
    return f"/api/jobs/{quote(job_id, safe='')}"
