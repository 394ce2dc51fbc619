"""What is written in options: NAME=VALUE, instants, sizes. Each is read in one way, and refused in one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec

from modelyard.kernel.clock import as_utc
from modelyard.kernel.errors import InvalidInput, too_deep

_SIZE = re.compile(r"(?P<number>\d+(\.\d+)?)\s*(?P<unit>[KMGT]?)(?P<binary>i?)B?", re.IGNORECASE)
_SHOWN_CHARACTERS = 80


def pair(text: str, form: str = "NAME=VALUE", *, may_be_empty: bool = True) -> tuple[str, str]:
    """What is before the first `=`, and what is after it. `form` says what the two are. Raises InvalidInput."""
    name, equals, value = text.partition("=")
    if not equals or not name or not (value or may_be_empty):
        raise InvalidInput(
            f"{text[:_SHOWN_CHARACTERS]!a} is not {form}",
            code="cli.pair_invalid",
            hint=f"write {form}; what stands before the first = is the name",
        )
    return name, value


def pairs(texts: Iterable[str] | None, form: str = "NAME=VALUE", *, may_be_empty: bool = True) -> dict[str, str]:
    """Several pairs; of a name that is given twice the last one counts. Raises InvalidInput."""
    return dict(pair(text, form, may_be_empty=may_be_empty) for text in texts or ())


def json_or_text(text: str) -> Any:
    """A JSON number, truth value, list or object as such; all else is text. Raises InvalidInput for a nest of them."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
    except RecursionError as error:
        raise too_deep(f"{text[:_SHOWN_CHARACTERS]!a}") from error


def instant(text: str) -> datetime:
    """An instant in ISO 8601; without a time zone it is UTC. Raises InvalidInput."""
    try:
        return as_utc(datetime.fromisoformat(text))
    except ValueError as error:
        raise InvalidInput(
            f"{text[:_SHOWN_CHARACTERS]!a} is no time",
            code="time.invalid",
            hint="write 2013-06-01 or 2013-06-01T12:00, which are in UTC, or 2013-06-01T12:00+02:00",
        ) from error


def size_bytes(text: str) -> int:
    """`512MiB`, `4GB`, `1000000` in bytes. Raises InvalidInput."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise InvalidInput(
            f"{text[:_SHOWN_CHARACTERS]!a} is not a size",
            code="cli.size_invalid",
            hint="write 512MiB, 4GiB or bytes",
        )
    base = 1024 if match["binary"] or not match["unit"] else 1000
    power = " KMGT".index(match["unit"].upper() or " ")
    return int(float(match["number"]) * base**power)
