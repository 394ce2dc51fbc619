"""What an alias's moves say: who was it at a time, and where one step back leads. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from modelyard.types.registry import AliasMove, Approval


def version_at(moves: Sequence[AliasMove], at: datetime) -> int | None:
    """The version that the alias pointed to at an instant; `moves` are oldest first."""
    found: int | None = None
    for move in moves:
        if move.at > at:
            break
        found = move.version
    return found


def step_back(moves: Sequence[AliasMove], usable: Collection[int]) -> int | None:
    """Where a rollback leads: the version before the present one that can still be used, or None.

    Rollbacks are steps back themselves, so that rolling back twice goes two versions back, not there and back again.
    """
    past: list[int | None] = []
    for move in moves:
        if move.kind == "rollback":
            past.pop()
            while past and past[-1] != move.version:
                past.pop()
        elif not past or past[-1] != move.version:
            past.append(move.version)
    present = past.pop() if past else None
    # A time in which the alias pointed nowhere, or to what it points to now, is nothing to go back to.
    while past and (past[-1] in (None, present) or past[-1] not in usable):
        past.pop()
    return past[-1] if past else None


def rollback_doubts(moves: Sequence[AliasMove], target: int, approvals: Sequence[Approval]) -> list[str]:
    """Why a guarded alias should not go back to a version just so; nothing where it passed the gates and still may."""
    reached = [move for move in moves if move.version == target and move.kind in ("promote", "override")]
    if not reached:
        return ["it never passed the gates"]
    last = reached[-1]
    if not last.guarded:
        return [f"it got there on {last.at:%Y-%m-%d}, when no gate guarded this alias"]
    standing = {one.by for one in approvals if one.revoked_at is None}
    return [f"{name} took the approval back" for name in last.approved_by if name not in standing]
