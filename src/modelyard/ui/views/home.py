"""Home: what needs somebody, then what happened."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from msgspec import Struct

from modelyard.kernel.events import Event
from modelyard.ui.frame import Screen

WINDOW_DAYS = 7
_URGENCY = ("alert", "endpoint", "monitor", "quarantine", "approval", "pipeline run", "job", "run")


class Need(Struct, frozen=True, kw_only=True):
    """Something that waits for a person, with the reason in words and the page where it is answered."""

    kind: str
    state: str
    title: str
    why: str
    href: str
    at: datetime


class Tally(Struct, frozen=True, kw_only=True):
    """How many of a noun there are. `more`: at least so many."""

    label: str
    count: int
    href: str
    note: str = ""
    more: bool = False


class Home(Screen, frozen=True, kw_only=True):
    """`fresh`: the project holds nothing yet. Failures count as needs for `window_days`."""

    needs: tuple[Need, ...]
    tallies: tuple[Tally, ...]
    events: tuple[Event, ...]
    fresh: bool
    window_days: int = WINDOW_DAYS


def ordered(needs: Iterable[Need]) -> tuple[Need, ...]:
    """What concerns production first, and of one kind the newest first."""
    return tuple(sorted(needs, key=lambda need: (_URGENCY.index(need.kind), -need.at.timestamp())))
