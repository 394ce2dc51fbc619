"""Windows of event time: calendar months, weeks from Monday, days, or so many hours of a day; all in UTC."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from modelyard.kernel.errors import InvalidInput

if TYPE_CHECKING:
    import pyarrow as pa

_HOURS = re.compile(r"([1-9][0-9]?)h")


class WindowSize(msgspec.Struct, frozen=True):
    """A window's unit, and for hours how many of them (a divisor of 24, so that windows never straddle midnight)."""

    unit: str
    hours: int = 24


def parse_window(text: str) -> WindowSize:
    """Read `month`, `week`, `day` or hours as `6h`. Raises InvalidInput."""
    if text in ("month", "week", "day"):
        return WindowSize(text)
    found = _HOURS.fullmatch(text)
    if found and 24 % int(found[1]) == 0:
        return WindowSize("hour", int(found[1]))
    raise InvalidInput(
        f"'{text[:40]}' is no window",
        code="monitor.window_invalid",
        hint="use month, week, day, or hours that divide a day: 1h, 2h, 3h, 4h, 6h, 8h or 12h",
    )


def window_start(size: WindowSize, at: datetime) -> datetime:
    """The start of the window that an instant falls into."""
    day = at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    match size.unit:
        case "month":
            return day.replace(day=1)
        case "week":
            return day - timedelta(days=day.weekday())
        case "day":
            return day
        case _:
            hour = at.astimezone(UTC).hour
            return day + timedelta(hours=hour - hour % size.hours)


def window_end(size: WindowSize, start: datetime) -> datetime:
    """The first instant after the window that starts there."""
    match size.unit:
        case "month":
            return (start + timedelta(days=32)).replace(day=1)
        case "week":
            return start + timedelta(days=7)
        case "day":
            return start + timedelta(days=1)
        case _:
            return start + timedelta(hours=size.hours)


def window_starts(size: WindowSize, instants: pa.ChunkedArray) -> pa.ChunkedArray:
    """`window_start` over a column of timestamps in UTC."""
    import pyarrow.compute as pc  # heavy: imported late

    if size.unit == "hour":
        return pc.floor_temporal(instants, size.hours, "hour", calendar_based_origin=True)
    return pc.floor_temporal(instants, 1, size.unit, week_starts_monday=True)
