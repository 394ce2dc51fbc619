"""Ids sort by time; instants keep their microseconds."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.kernel.clock import BELIEVED_AFTER_S, FixedClock, Moves, as_utc, from_us, to_us
from modelyard.kernel.ids import is_id, new_id


def test_ids_are_unique_and_sorted_also_over_threads() -> None:
    made: list[list[str]] = [[] for _ in range(4)]
    threads = [threading.Thread(target=lambda out=out: out.extend(new_id() for _ in range(5000))) for out in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({one for out in made for one in out}) == 20_000
    assert all(out == sorted(out) for out in made)


def test_an_id_is_a_version_7_uuid() -> None:
    one = new_id()
    assert is_id(one)
    assert one[12] == "7"
    assert one[16] in "89ab"
    assert abs(int(one[:12], 16) / 1000 - datetime.now(UTC).timestamp()) < 5


@given(st.datetimes(min_value=datetime(1900, 1, 1), max_value=datetime(9999, 1, 1)))
def test_instants_survive_exactly(naive: datetime) -> None:
    at = naive.replace(tzinfo=UTC)
    assert from_us(to_us(at)) == at


def test_a_naive_datetime_is_no_instant() -> None:
    with pytest.raises(ValueError, match="time zone"):
        to_us(datetime(2013, 1, 1))
    assert to_us(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=1)) == 1


@given(st.datetimes(), st.integers(-14, 14).map(lambda hours: timezone(timedelta(hours=hours))))
def test_what_was_written_without_a_zone_is_utc_and_what_has_one_keeps_it(naive: datetime, zone: timezone) -> None:
    assert as_utc(naive) == naive.replace(tzinfo=UTC)
    assert as_utc(naive.replace(tzinfo=zone)).tzinfo is zone
    assert to_us(as_utc(naive)) - to_us(naive.replace(tzinfo=zone)) == zone.utcoffset(None) // timedelta(microseconds=1)


MOVED = st.one_of(
    st.tuples(st.just("advance"), st.floats(0, 200_000)), st.tuples(st.just("jump"), st.floats(-(10**8), 10**8))
)


@given(st.lists(MOVED, max_size=30))
def test_a_clock_is_ahead_by_no_more_than_it_was_moved_forward(moves: list[tuple[str, float]]) -> None:
    """And it is believed in the end, wherever it stands."""
    clock = FixedClock(datetime(2013, 3, 1, tzinfo=UTC))
    noticed, forward = Moves(clock), timedelta()
    for how, seconds in moves:
        getattr(clock, how)(seconds)
        if how == "jump" and seconds > 0:
            forward += timedelta(seconds=seconds)
        assert timedelta() <= noticed.ahead() <= forward + timedelta(seconds=1)
    noticed.ahead()
    clock.advance(BELIEVED_AFTER_S + 1)
    assert noticed.ahead() == timedelta()


def test_a_clock_that_runs_a_little_fast_is_not_moved() -> None:
    clock = FixedClock(datetime(2013, 3, 1, tzinfo=UTC))
    noticed = Moves(clock)
    for _ in range(1_000):
        clock.advance(3_600)
        clock.jump(10)
        assert noticed.ahead() == timedelta()
    clock.jump(7_200)
    assert noticed.ahead() == timedelta(hours=2)
    clock.jump(-7_200)
    assert noticed.ahead() == timedelta()
