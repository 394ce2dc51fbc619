from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.kernel.errors import InvalidInput
from modelyard.planes.automation.schedules import next_cron, next_due, parse_cron

NOON = datetime(2013, 6, 1, 12, tzinfo=UTC)  # a Saturday


@pytest.mark.parametrize(
    ("cron", "due"),
    [
        ("* * * * *", datetime(2013, 6, 1, 12, 1, tzinfo=UTC)),
        ("0 6 * * 1", datetime(2013, 6, 3, 6, tzinfo=UTC)),
        ("0 6 * * 7", datetime(2013, 6, 2, 6, tzinfo=UTC)),
        ("0 6 * * 0", datetime(2013, 6, 2, 6, tzinfo=UTC)),
        ("*/20 9-17 * * 1-5", datetime(2013, 6, 3, 9, tzinfo=UTC)),
        ("0 0 29 2 *", datetime(2016, 2, 29, tzinfo=UTC)),
        ("0 0 13 * 5", datetime(2013, 6, 7, tzinfo=UTC)),
        ("30 12 1 6 *", datetime(2013, 6, 1, 12, 30, tzinfo=UTC)),
        ("0 12 1 6 *", datetime(2014, 6, 1, 12, tzinfo=UTC)),
        ("5/25 * * * *", datetime(2013, 6, 1, 12, 5, tzinfo=UTC)),
    ],
)
def test_a_cron_schedule_comes_due(cron: str, due: datetime) -> None:
    assert next_due(cron, 0, NOON) == due


def test_cron_is_utc_whatever_zone_it_is_asked_in() -> None:
    here = NOON.astimezone(timezone(timedelta(hours=9)))
    assert next_due("0 13 * * *", 0, here) == NOON + timedelta(hours=1)


@pytest.mark.parametrize(
    "cron",
    ["", "* * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8", "5-1 * * * *", "*/0 * * * *",
     "a * * * *", "-1 * * * *", "1,,2 * * * *", "0 0 30 2 *", "٣ * * * *", "99999999999 * * * *"],
)  # fmt: skip
def test_other_schedules_are_refused(cron: str) -> None:
    with pytest.raises(InvalidInput):
        next_due(cron, 0, NOON)


def test_an_interval_is_added() -> None:
    assert next_due("", 3600, NOON) == NOON + timedelta(hours=1)


@pytest.mark.parametrize(("cron", "every_s"), [("* * * * *", 60), ("", 0), ("", 59.0)])
def test_a_schedule_is_one_of_both(cron: str, every_s: float) -> None:
    with pytest.raises(InvalidInput):
        next_due(cron, every_s, NOON)


def field(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    item = st.one_of(
        number.map(str),
        st.tuples(number, number).map(lambda pair: f"{min(pair)}-{max(pair)}"),
        st.integers(1, 10).map(lambda step: f"*/{step}"),
    )
    return st.one_of(st.just("*"), st.lists(item, min_size=1, max_size=3).map(",".join))


@settings(deadline=None, max_examples=100)
@given(
    field(0, 59), field(0, 23), field(1, 28), field(1, 12), field(0, 6),
    st.datetimes(datetime(2000, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC)),
)  # fmt: skip
def test_the_next_minute_is_the_first_that_fits(
    minute: str, hour: str, day: str, month: str, weekday: str, at: datetime
) -> None:
    cron = parse_cron(f"{minute} {hour} {day} {month} {weekday}")
    due = next_cron(cron, at)
    assert due is not None
    assert due > at
    assert due.minute in cron.minutes
    assert due.hour in cron.hours
    assert due.month in cron.months
    assert due.day in cron.days or due.isoweekday() % 7 in cron.weekdays
    if due - timedelta(minutes=1) > at:
        assert next_cron(cron, due - timedelta(minutes=1)) == due
        middle = at + (due - at) / 2
        assert next_cron(cron, middle) == due, "nothing fits in between"
