"""The nouns of jobs: a job is a command with resources, tried in attempts, each metered."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec

DAY_S = 86_400.0


class JobState(StrEnum):
    """Where a job is. The last four are final."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"

    @property
    def final(self) -> bool:
        """Whether nothing follows."""
        return self not in (JobState.QUEUED, JobState.RUNNING)


class AttemptState(StrEnum):
    """Where one attempt is. `starting`: decided, but its process may not be there yet."""

    STARTING = "starting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    LOST = "lost"

    @property
    def final(self) -> bool:
        """Whether nothing follows."""
        return self not in (AttemptState.STARTING, AttemptState.RUNNING)


class Resources(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a job may use at most. `memory_bytes` 0: neither counted nor enforced; else using more ends the attempt."""

    cpus: float = 1.0
    memory_bytes: int = 0


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What was really used: CPU seconds of all processes, wall seconds, the highest memory of all together."""

    cpu_s: float = 0.0
    wall_s: float = 0.0
    peak_rss_bytes: int = 0


class SubmitJob(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to run. The same `idempotency_key` with the same content gives the job that exists.

    `priority` is worth waiting time, see the scheduler: one point outranks ten minutes of waiting. `env` values under
    a name that sounds like a secret are never shown, and are struck out of the log. `labels` say what the job is for
    (`{"pipeline": "train", "step": "fit"}`); cost is allocated by them. `max_attempts` counts failures of the program;
    an attempt that the platform lost is repeated without spending one. `cwd`: an absolute path on the machine where it
    runs; by default each attempt gets an empty folder of its own.
    """

    command: list[str]
    name: str = ""
    resources: Resources = Resources()
    cwd: str | None = None
    env: dict[str, str] = {}
    priority: int = 0
    timeout_s: float = DAY_S
    grace_s: float = 5.0
    max_attempts: int = 1
    idempotency_key: str | None = None
    labels: dict[str, str] = {}


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One try. `reason` is a word of a closed set (see `AttemptEnd`), `message` says it in words."""

    number: int
    state: AttemptState
    started_at: datetime
    ended_at: datetime | None = None
    exit_code: int | None = None
    signal: int | None = None
    reason: str = ""
    message: str = ""
    usage: Usage = Usage()


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A job. `reason` says in words why it waits, or how it ended. Values of secret-sounding `env` names read `***`."""

    id: str
    name: str
    command: list[str]
    resources: Resources
    env: dict[str, str]
    priority: int
    timeout_s: float
    grace_s: float
    max_attempts: int
    labels: dict[str, str]
    state: JobState
    reason: str
    submitted_by: str
    submitted_at: datetime
    cwd: str | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    cancel_requested: bool = False
    idempotency_key: str | None = None
    attempts: list[Attempt] = []

    @property
    def usage(self) -> Usage:
        """Over all attempts: seconds add up, the peak is the highest."""
        return Usage(
            cpu_s=sum(attempt.usage.cpu_s for attempt in self.attempts),
            wall_s=sum(attempt.usage.wall_s for attempt in self.attempts),
            peak_rss_bytes=max((attempt.usage.peak_rss_bytes for attempt in self.attempts), default=0),
        )


class AttemptUsage(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the ledger that cost is computed from: who asked for what, for how long, and what was used of it.

    `wall_s` is the time between start and end (now, for an attempt that still runs).
    """

    job_id: str
    attempt: int
    name: str
    labels: dict[str, str]
    submitted_by: str
    resources: Resources
    state: AttemptState
    started_at: datetime
    ended_at: datetime | None
    usage: Usage


class JobLog(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of what an attempt wrote, made safe to show. `next` is where to read on.

    `skipped_bytes` were written before this piece but not kept. `complete`: the attempt is over and this was the last.
    """

    attempt: int
    text: str
    next: int
    skipped_bytes: int = 0
    complete: bool = False
