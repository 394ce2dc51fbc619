"""Which versions a vacuum gives up. Pure: marks of versions, policy, time -> decisions, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from modelyard.types.data import Retention


@dataclass(frozen=True, slots=True)
class VersionMark:
    """What a decision needs of a version."""

    version: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a version is kept; `reason` says why where its age alone would not keep it."""

    version: int
    keep: bool
    reason: str = ""


def decide(
    versions: Sequence[VersionMark], retention: Retention, now: datetime, pins: Mapping[int, str]
) -> list[Decision]:
    """A decision for each version, in their order. `pins` names versions that something points at, with what that is.

    A version is given up only if every rule that was set would give it up.
    """
    if retention.versions is None and retention.days is None:
        return [Decision(one.version, keep=True) for one in versions]
    newest = sorted((one.version for one in versions), reverse=True)
    recent = frozenset(newest if retention.versions is None else newest[: retention.versions])
    if retention.versions is None:
        recent = frozenset()
    since = None if retention.days is None else now - timedelta(days=retention.days)
    decisions = []
    for one in versions:
        young = since is not None and one.created_at >= since
        if one.version in recent or young:
            decisions.append(Decision(one.version, keep=True))
        elif one.version in pins:
            decisions.append(Decision(one.version, keep=True, reason=pins[one.version]))
        else:
            decisions.append(Decision(one.version, keep=False))
    return decisions
