"""Events: the whole log of the project, with its place in the hash chain."""

from __future__ import annotations

from typing import Any

from modelyard.kernel import events as log
from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database
from modelyard.kernel.event import Event
from modelyard.ui.frame import Frame, Screen
from modelyard.ui.page import page as ui_page

SHOWN = 100


class Events(Screen, frozen=True, kw_only=True):
    """Events, newest first, of one subject or kind where these are given."""

    events: tuple[Event, ...]
    subject: str = ""
    kind: str = ""
    next: str | None = None


@ui_page("/events", template="events.html")
def events(caller: Scope, database: Database, subject: str = "", kind: str = "", page: str = "") -> Events:
    """What happened in the project, newest first."""
    kinds = frozenset(one.strip() for one in kind.split(",")) if kind.strip() else None
    with database.reading(caller) as tx:
        found = log.recent(tx, subject=subject.strip() or None, kinds=kinds, before_id=page or None, limit=SHOWN + 1)
    return Events(
        frame=Frame(title="Events", section="events"),
        events=tuple(found[:SHOWN]),
        subject=subject,
        kind=kind,
        next=found[SHOWN - 1].id if len(found) > SHOWN else None,
    )


ROUTES: list[Any] = [events]
