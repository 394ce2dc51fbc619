"""What the end of an attempt means for its job."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.engines.compute.base import Finished, Lost, Outcome
from modelyard.planes.jobs.attempts import LOSSES_MAX, AttemptEnd, Next, decide_next, judge
from modelyard.planes.jobs.log_text import neutralise, whole_lines
from modelyard.types.jobs import AttemptState, JobState, Usage


def finished(outcome: Outcome = Outcome.EXITED, exit_code: int | None = None, signal: int | None = None) -> Finished:
    return Finished(
        outcome=outcome, exit_code=exit_code, signal=signal, message="why", started_at=1, ended_at=2, usage=Usage()
    )


LOST = Lost(reason="gone", usage=Usage())


def follow(end: Finished | Lost, **counts: Any) -> Next:
    known: dict[str, Any] = {"failures": 1, "losses": 0, "max_attempts": 1, "cancel_requested": False, **counts}
    return decide_next(judge(end, known["cancel_requested"]), **known)


@pytest.mark.parametrize(
    ("end", "state", "reason"),
    [
        (finished(exit_code=0), AttemptState.SUCCEEDED, "ok"),
        (finished(exit_code=1), AttemptState.FAILED, "app_error"),
        (finished(exit_code=75), AttemptState.FAILED, "temporary"),
        (finished(signal=9), AttemptState.FAILED, "killed"),
        (finished(signal=64), AttemptState.FAILED, "killed"),
        (finished(Outcome.TIMED_OUT, signal=15), AttemptState.TIMED_OUT, "timed_out"),
        (finished(Outcome.TIMED_OUT, exit_code=0), AttemptState.TIMED_OUT, "timed_out"),
        (finished(Outcome.OUT_OF_MEMORY, signal=15), AttemptState.FAILED, "out_of_memory"),
        (finished(Outcome.NOT_STARTED), AttemptState.FAILED, "not_started"),
        (finished(Outcome.STOPPED, signal=15), AttemptState.LOST, "lost"),
        (LOST, AttemptState.LOST, "lost"),
    ],
)
def test_ends_have_names(end: Finished | Lost, state: AttemptState, reason: str) -> None:
    judged = judge(end, cancel_requested=False)
    assert (judged.state, judged.reason) == (state, reason)
    assert bool(judged.message) == (reason != "ok")


def test_a_stop_that_was_asked_for_is_a_cancellation_unless_it_had_succeeded_before() -> None:
    assert judge(finished(Outcome.STOPPED, exit_code=0), cancel_requested=True).state is AttemptState.CANCELLED
    assert follow(finished(Outcome.STOPPED, signal=15), cancel_requested=True).state is JobState.CANCELLED
    assert follow(finished(exit_code=0), cancel_requested=True).state is JobState.SUCCEEDED
    assert follow(LOST, cancel_requested=True, max_attempts=9).state is JobState.CANCELLED


def test_failures_spend_attempts_and_what_is_not_the_programs_fault_does_not() -> None:
    assert follow(finished(exit_code=1), failures=1, max_attempts=2).state is JobState.QUEUED
    assert follow(finished(exit_code=1), failures=2, max_attempts=2).state is JobState.FAILED
    assert follow(finished(Outcome.TIMED_OUT), failures=2, max_attempts=2).state is JobState.TIMED_OUT
    for end in (LOST, finished(exit_code=75)):
        assert follow(end, failures=0, losses=LOSSES_MAX).state is JobState.QUEUED
        assert follow(end, failures=0, losses=LOSSES_MAX + 1).state is JobState.FAILED
    assert follow(finished(Outcome.NOT_STARTED), failures=1, max_attempts=9).state is JobState.FAILED


def test_delays_double_up_to_a_minute() -> None:
    delays = [follow(finished(exit_code=1), failures=number, max_attempts=99).delay_s for number in range(1, 9)]
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60]


@given(
    st.sampled_from(AttemptState).filter(lambda state: state.final),
    st.integers(0, 200),
    st.integers(0, 200),
    st.integers(1, 100),
    st.booleans(),
)
def test_a_job_is_never_tried_for_ever(
    state: AttemptState, failures: int, losses: int, max_attempts: int, cancelled: bool
) -> None:
    reason = "lost" if state is AttemptState.LOST else state.value
    end = AttemptEnd(state=state, reason=reason, message="m")
    following = decide_next(
        end, failures=failures, losses=losses, max_attempts=max_attempts, cancel_requested=cancelled
    )
    assert following.state is not JobState.RUNNING
    if following.state is JobState.QUEUED:
        assert not cancelled
        assert failures < max_attempts or losses <= LOSSES_MAX
        assert following.delay_s > 0


@given(st.text())
def test_shown_text_has_no_character_that_drives_a_terminal(text: str) -> None:
    shown = neutralise(text)
    assert not any(ord(one) < 0x20 and one not in "\n\t" for one in shown)
    assert not any(0x7F <= ord(one) <= 0x9F for one in shown)
    assert not set(shown) & set("\u202e\u2066\u200b\ufeff\u2028")


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b]52;c;c2VjcmV0\x07x", "x"),
        ("\x1b]0;unfinished\nnext", "\nnext"),
        ("a\r\nb\rc", "a\nb\nc"),
        ("\x1b(B\x1b=ok\x9b31mok", "okok"),
        ("tab\tbell\x07del\x7f", "tab\tbell\u2407del\u2421"),
        ("back\x08space \x1b", "back\u2408space \u241b"),
    ],
)
def test_sequences_are_taken_out_and_other_controls_made_visible(raw: str, shown: str) -> None:
    assert neutralise(raw) == shown


def test_pieces_end_with_lines() -> None:
    assert whole_lines(b"one\ntw", end=False) == b"one\n"
    assert whole_lines(b"one\ntw", end=True) == b"one\ntw"
    assert whole_lines(b"one long", end=False) == b"one long"
