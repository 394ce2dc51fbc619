"""What the end of an attempt means for its job: a pure function, with the reason in words."""

from __future__ import annotations

import signal

import msgspec

from modelyard.engines.compute.base import Finished, Lost, Outcome
from modelyard.types.jobs import AttemptState, JobState

LOSSES_MAX = 3
"""How often a job is started again after the platform failed it, whatever its `max_attempts`."""

TRY_AGAIN = 75
"""The exit code (EX_TEMPFAIL) by which a program says that not it, but something that it needs, has failed."""

BACKOFF_S_MAX = 60.0


class AttemptEnd(msgspec.Struct, frozen=True, kw_only=True):
    """How an attempt ended.

    `reason` is one of `ok`, `app_error` (non-zero exit), `temporary` (exit code 75), `killed` (a signal that was not
    ours), `out_of_memory`, `timed_out`, `cancelled`, `not_started` (no such program), `lost` (the platform's fault).
    """

    state: AttemptState
    reason: str
    message: str

    @property
    def spends(self) -> bool:
        """Whether it counts against `max_attempts`: what was not the program's fault does not."""
        return self.reason not in ("lost", "temporary", "ok", "cancelled")


class Next(msgspec.Struct, frozen=True, kw_only=True):
    """Where the job goes from here; `delay_s` until it may be tried again, where it goes back to the queue."""

    state: JobState
    reason: str
    delay_s: float = 0.0


def judge(end: Finished | Lost, cancel_requested: bool) -> AttemptEnd:
    """Name the end of an attempt."""
    if isinstance(end, Lost):
        return AttemptEnd(state=AttemptState.LOST, reason="lost", message=end.reason)
    match end.outcome:
        case Outcome.TIMED_OUT:
            return AttemptEnd(state=AttemptState.TIMED_OUT, reason="timed_out", message=end.message)
        case Outcome.OUT_OF_MEMORY:
            return AttemptEnd(state=AttemptState.FAILED, reason="out_of_memory", message=end.message)
        case Outcome.NOT_STARTED:
            return AttemptEnd(state=AttemptState.FAILED, reason="not_started", message=end.message)
        case Outcome.STOPPED if cancel_requested:
            return AttemptEnd(state=AttemptState.CANCELLED, reason="cancelled", message="ended on request")
        case Outcome.STOPPED:
            # Somebody else ended its supervisor in good order, as a machine does that shuts down.
            return AttemptEnd(state=AttemptState.LOST, reason="lost", message="ended by the machine, not by a request")
        case Outcome.EXITED:
            return _judge_exit(end)


def _judge_exit(end: Finished) -> AttemptEnd:
    if end.signal is not None:
        message = f"ended by signal {end.signal} ({_signal_name(end.signal)})"
        if end.signal == signal.SIGKILL:
            message += ": killed from outside, perhaps by the kernel for want of memory"
        return AttemptEnd(state=AttemptState.FAILED, reason="killed", message=message)
    if end.exit_code == 0:
        return AttemptEnd(state=AttemptState.SUCCEEDED, reason="ok", message="")
    if end.exit_code == TRY_AGAIN:
        message = f"asked to be tried again (exit code {TRY_AGAIN})"
        return AttemptEnd(state=AttemptState.FAILED, reason="temporary", message=message)
    message = f"ended with exit code {end.exit_code}"
    return AttemptEnd(state=AttemptState.FAILED, reason="app_error", message=message)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"


def decide_next(end: AttemptEnd, *, failures: int, losses: int, max_attempts: int, cancel_requested: bool) -> Next:
    """What follows an attempt's end. `failures` and `losses` count it already."""
    if end.state is AttemptState.SUCCEEDED:
        return Next(state=JobState.SUCCEEDED, reason="")
    if end.state is AttemptState.CANCELLED or cancel_requested:
        return Next(state=JobState.CANCELLED, reason="cancelled on request")
    if not end.spends:
        if losses <= LOSSES_MAX:
            return Next(state=JobState.QUEUED, reason=f"{end.reason}: {end.message}", delay_s=_backoff_s(losses))
        return Next(state=JobState.FAILED, reason=f"lost {losses} times, the last time: {end.message}")
    if end.reason != "not_started" and failures < max_attempts:
        return Next(state=JobState.QUEUED, reason=f"{end.message}; tried again", delay_s=_backoff_s(failures))
    times = f" in the last of {failures} attempts" if failures > 1 else ""
    state = JobState.TIMED_OUT if end.state is AttemptState.TIMED_OUT else JobState.FAILED
    return Next(state=state, reason=f"{end.message}{times}")


def _backoff_s(times: int) -> float:
    return float(min(2.0 ** (times - 1), BACKOFF_S_MAX))
