"""What travels of the event log: an event, and what a look at the whole chain found. Loads nothing of the catalog."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec


class Event(msgspec.Struct, frozen=True):
    """A state change. `seq` and `hash` are None until it is sealed."""

    id: str
    at: datetime
    project: str
    kind: str
    subject: str
    actor: str
    data: dict[str, Any]
    seq: int | None = None
    hash: str | None = None


class Verdict(msgspec.Struct, frozen=True):
    """What `verify` found. `reason` is empty when the chain is whole."""

    ok: bool
    events: int
    head: str
    broken_at: int | None = None
    reason: str = ""
