"""When a schedule comes due: five cron fields in UTC, or an interval. Pure.

UTC has no daylight saving, so no run is skipped or doubled. What was missed while nothing ran comes due once, not as
often as it was missed.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec

from modelyard.kernel.errors import InvalidInput

INTERVAL_S_MIN = 60.0
# 29 February on a Sunday comes every 28 years, and once in 40 over the year 2100.
YEARS_SEARCHED = 41
_FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("weekday", 0, 7))


class Cron(msgspec.Struct, frozen=True):
    """The values that each field allows. `any_day`, `any_weekday`: that field was `*`."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    any_day: bool
    any_weekday: bool


def parse_cron(text: str) -> Cron:
    """Read five fields: numbers, `*`, ranges, lists and steps; weekday 0 and 7 are Sunday. Raises InvalidInput."""
    parts = text.split()
    if len(parts) != len(_FIELDS):
        raise _invalid(text, f"it has {len(parts)} fields, and five are needed")
    fields = [_field(text, part, *bounds) for part, bounds in zip(parts, _FIELDS, strict=True)]
    cron = Cron(
        fields[0],
        fields[1],
        fields[2],
        fields[3],
        frozenset(day % 7 for day in fields[4]),
        parts[2].startswith("*"),
        parts[4].startswith("*"),
    )
    if next_cron(cron, datetime(2000, 1, 1, tzinfo=UTC)) is None:
        raise _invalid(text, "there is no such day")
    return cron


def next_cron(cron: Cron, after: datetime) -> datetime | None:
    """The first minute after an instant that the fields allow; None where no day ever does."""
    at = after.astimezone(UTC).replace(second=0, microsecond=0) + timedelta(minutes=1)
    last_year = min(at.year + YEARS_SEARCHED, datetime.max.year - 1)
    while at.year <= last_year:
        if at.month not in cron.months:
            at = (at.replace(day=1, hour=0, minute=0) + timedelta(days=32)).replace(day=1)
        elif not _is_day(cron, at):
            at = at.replace(hour=0, minute=0) + timedelta(days=1)
        elif at.hour not in cron.hours:
            at = at.replace(minute=0) + timedelta(hours=1)
        elif at.minute not in cron.minutes:
            at += timedelta(minutes=1)
        else:
            return at
    return None


def next_due(cron: str, every_s: float, after: datetime) -> datetime:
    """When a schedule comes due after an instant. Raises InvalidInput where the schedule is none."""
    if bool(cron) == bool(every_s):
        raise InvalidInput(
            "a schedule needs either `cron` or `every_s`",
            code="trigger.schedule_invalid",
            hint="such as cron '0 6 * * 1' (Mondays at 6 UTC), or every_s 3600",
        )
    if every_s:
        if every_s < INTERVAL_S_MIN:
            raise InvalidInput(
                f"an interval of {every_s:g} s is too short, the least is {INTERVAL_S_MIN:g} s",
                code="trigger.schedule_invalid",
                hint="give every_s in seconds",
            )
        return after + timedelta(seconds=every_s)
    due = next_cron(parse_cron(cron), after)
    if due is None:
        raise _invalid(cron, "it never comes due")
    return due


def _is_day(cron: Cron, at: datetime) -> bool:
    # As every cron does: with both fields restricted a day is right by either, else by the restricted one.
    by_day = at.day in cron.days
    by_weekday = at.isoweekday() % 7 in cron.weekdays
    if cron.any_day or cron.any_weekday:
        return by_day and by_weekday
    return by_day or by_weekday


def _field(text: str, part: str, name: str, low: int, high: int) -> frozenset[int]:
    values: set[int] = set()
    for item in part.split(","):
        span, slash, step_text = item.partition("/")
        step = _number(text, step_text, name) if slash else 1
        if span == "*":
            first, last = low, high
        else:
            first_text, dash, last_text = span.partition("-")
            first = _number(text, first_text, name)
            last = _number(text, last_text, name) if dash else (high if slash else first)
        if not low <= first <= last <= high or step < 1:
            raise _invalid(text, f"'{item}' is no {name} ({low} to {high})")
        values.update(range(first, last + 1, step))
    return frozenset(values)


def _number(text: str, digits: str, name: str) -> int:
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 4):
        raise _invalid(text, f"'{digits}' is no number for the {name}")
    return int(digits)


def _invalid(text: str, why: str) -> InvalidInput:
    return InvalidInput(
        f"'{text[:80]}' is no schedule: {why}",
        code="trigger.schedule_invalid",
        hint="write five fields, minute hour day month weekday, such as '0 6 * * 1' for Mondays at 6 UTC",
    )
