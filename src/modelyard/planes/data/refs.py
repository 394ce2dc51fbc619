"""What names a version: its number, a tag, a branch, an instant."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from modelyard.kernel.clock import as_utc
from modelyard.kernel.database import Transaction
from modelyard.kernel.errors import Conflict, InvalidInput, NotFound
from modelyard.planes.data import store
from modelyard.types.data import Dataset, DatasetVersion

Ref = int | str | None
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_INSTANT = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\S+)?")
_NEWEST = frozenset({store.MAIN, "latest"})


def resolve_number(tx: Transaction, row: store.DatasetRow, ref: Ref) -> int | None:
    """The number that a reference stands for, None where it stands for none; 0 for `main` before the first version."""
    if ref is None or ref in _NEWEST:
        return row.noun.latest
    if isinstance(ref, int) and not isinstance(ref, bool):
        return ref if ref > 0 else None
    text = str(ref)
    if text.isascii() and text.isdecimal() and len(text) < 10:
        return int(text) or None
    named = row.noun.tags.get(text) or row.noun.branches.get(text)
    if named is not None or not _INSTANT.fullmatch(text):
        return named
    return store.version_at(tx, row.id, store.MAIN, instant_from(text))


def instant_from(text: str) -> datetime:
    """The instant of a text in ISO 8601; without a zone it is UTC. Raises InvalidInput."""
    try:
        return as_utc(datetime.fromisoformat(text)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidInput(
            f"{text[:60]!a} is no instant", code="dataset.instant_invalid", hint="write it as 2013-04-01T00:00Z"
        ) from error


def check_ref_name(dataset: Dataset, name: str, what: str) -> None:
    """Raise InvalidInput where the text cannot name a tag or branch, Conflict where it names the other of them."""
    if not _NAME.fullmatch(name) or name.isdigit() or name in _NEWEST or _INSTANT.fullmatch(name):
        raise InvalidInput(
            f"{name[:130]!a} cannot be a {what}",
            code="dataset.tag_invalid" if what == "tag" else "dataset.branch_invalid",
            hint="use letters, digits, '.', '_' or '-', but not a number, a date, 'main' or 'latest'",
        )
    other, held = ("branch", dataset.branches) if what == "tag" else ("tag", dataset.tags)
    if name in held:
        raise Conflict(
            f"dataset '{dataset.name}' has a {other} '{name}': one name cannot mean two things",
            code="dataset.ref_taken",
            hint="choose another name",
        )


def require_rows(version: DatasetVersion) -> None:
    """Raise NotFound where the rows of a version were given up by a vacuum."""
    if version.expired_at is not None:
        raise NotFound(
            f"the rows of dataset '{version.dataset}' version {version.version} were given up by a vacuum "
            f"on {version.expired_at:%Y-%m-%d %H:%M} UTC",
            code="dataset.version_expired",
            hint="tag versions that must stay readable; what is known of them stays",
        )
