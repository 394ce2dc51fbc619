"""Which versions retention lets go, and why. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from modelyard.types.registry import ModelVersion, Retention, RetentionStep


def protection(version: ModelVersion, tags: Sequence[str], uses: Sequence[str]) -> str:
    """Why a version must not be dropped; nothing where it may be."""
    if version.aliases:
        return f"it is {', '.join(version.aliases)}"
    if version.stage in ("Staging", "Production"):
        return f"it is in the stage {version.stage}"
    if uses:
        return f"it is served by {', '.join(uses)}"
    held = [tag for tag in tags if version.tags.get(tag, "false").lower() != "false"]
    return f"it is tagged {', '.join(held)}" if held else ""


def plan(
    versions: Sequence[ModelVersion],
    retention: Retention,
    uses: Mapping[int, Sequence[str]],
    now: datetime,
) -> list[RetentionStep]:
    """What happens to each version now, newest first. `versions` are all of a model, the dropped ones too."""
    newest = sorted(versions, key=lambda one: one.version, reverse=True)
    live = [one for one in newest if one.dropped_at is None]
    kept = {one.version for one in live[: retention.keep_last]}
    return [
        _live(one, retention, one.version in kept, uses.get(one.version, ()), now)
        if one.dropped_at is None
        else _dropped(one, one.dropped_at, retention, now)
        for one in newest
    ]


def _live(one: ModelVersion, retention: Retention, newest: bool, uses: Sequence[str], now: datetime) -> RetentionStep:
    guard = protection(one, retention.protected_tags, uses)
    if guard:
        return RetentionStep(version=one.version, action="keep", reason=guard)
    if newest:
        return RetentionStep(version=one.version, action="keep", reason=f"it is among the newest {retention.keep_last}")
    age = now - one.created_at
    if age <= timedelta(days=retention.keep_days):
        return RetentionStep(
            version=one.version,
            action="keep",
            reason=f"it is {age.total_seconds() / 86_400:.1f} days old, younger than {retention.keep_days:g}",
        )
    reason = f"older than {retention.keep_days:g} days, and not among the newest {retention.keep_last}"
    return RetentionStep(version=one.version, action="drop", reason=reason)


def _dropped(one: ModelVersion, at: datetime, retention: Retention, now: datetime) -> RetentionStep:
    if one.purged_at is not None:
        return RetentionStep(version=one.version, action="keep", reason="its files are gone, its record stays")
    if now - at < timedelta(days=retention.grace_days):
        reason = f"dropped, its files stay for {retention.grace_days:g} days"
        return RetentionStep(version=one.version, action="keep", reason=reason)
    reason = f"it was dropped more than {retention.grace_days:g} days ago"
    return RetentionStep(version=one.version, action="purge", reason=reason)
