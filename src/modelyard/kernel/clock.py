"""Time, as a thing that one is given: tests set it, durations never come from the wall clock."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """A source of time."""

    def now(self) -> datetime:
        """The instant, aware, in UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back, for durations."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()


class FixedClock:
    """A clock that moves only when told to."""

    def __init__(self, at: datetime) -> None:
        self._at = at
        self._elapsed = 0.0

    def now(self) -> datetime:
        return self._at

    def monotonic(self) -> float:
        return self._elapsed

    def advance(self, seconds: float) -> None:
        """Move both the instant and the monotonic seconds."""
        self._at += timedelta(seconds=seconds)
        self._elapsed += seconds

    def jump(self, seconds: float) -> None:
        """Move the instant only, as a corrected wall clock does."""
        self._at += timedelta(seconds=seconds)


class Moves:
    """Notices that a wall clock was moved forward, which makes everything look older than it is.

    What removes by age asks how far `ahead` the clock may be, and takes things for so much younger. A clock that has
    stood for a day as it was moved is believed: it may have been wrong before.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._apart = self._look()[0]
        self._since: float | None = None

    def ahead(self) -> timedelta:
        """How far the clock was moved forward of late; to be asked now and then, from when on it is to be noticed."""
        apart, seconds = self._look()
        moved = apart - self._apart
        self._since = seconds if self._since is None else self._since
        if moved > _SLEWED and seconds - self._since < BELIEVED_AFTER_S:
            return moved
        self._apart, self._since = apart, None
        return timedelta()

    def _look(self) -> tuple[timedelta, float]:
        """How far the instant and the seconds are apart, and the seconds."""
        seconds = self._clock.monotonic()
        return self._clock.now() - EPOCH - timedelta(seconds=seconds), seconds


BELIEVED_AFTER_S = 86_400.0
_SLEWED = timedelta(minutes=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_us(at: datetime) -> int:
    """Microseconds since the epoch, exactly. Raises ValueError for a naive datetime."""
    if at.tzinfo is None:
        raise ValueError("a datetime without a time zone is not an instant")
    return (at - EPOCH) // _MICROSECOND


def as_utc(at: datetime) -> datetime:
    """The instant that somebody wrote: without a time zone it is UTC, whatever zone the machine stands in."""
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def from_us(us: int) -> datetime:
    """The instant of so many microseconds since the epoch."""
    return EPOCH + timedelta(microseconds=us)
