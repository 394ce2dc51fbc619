"""How values read on a page: pure functions from a value to its short text."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from decimal import Decimal

NOTHING = "\u2013"
_MINUS = "\u2212"
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_THIN = "\u202f"  # a narrow space that does not break: between digits and their unit


def relative(at: datetime | None, now: datetime) -> str:
    """How long ago, or until when, in the largest unit that says it: `just now`, `4 min ago`, `in 2 h`."""
    if at is None:
        return NOTHING
    seconds = (now - at).total_seconds()
    if abs(seconds) < 10:
        return "just now"
    span = _span(abs(seconds))
    return f"{span} ago" if seconds > 0 else f"in {span}"


def _span(seconds: float) -> str:
    for limit, size, unit in (
        (_MINUTE, 1, "s"),
        (_HOUR, _MINUTE, "min"),
        (_DAY, _HOUR, "h"),
        (60 * _DAY, _DAY, "d"),
        (730 * _DAY, 30 * _DAY, "mo"),
    ):
        if seconds < limit:
            return f"{int(seconds // size)}{_THIN}{unit}"
    return f"{int(seconds // (365 * _DAY))}{_THIN}y"


def exact(at: datetime | None) -> str:
    """The instant to the second, in UTC."""
    return NOTHING if at is None else at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def day(at: datetime | None) -> str:
    """The date in UTC."""
    return NOTHING if at is None else at.astimezone(UTC).strftime("%Y-%m-%d")


def duration(seconds: float | None) -> str:
    """A length of time with two units at most: `820 ms`, `4.2 s`, `3 min 12 s`, `2 h 5 min`, `3 d 4 h`."""
    if seconds is None or not math.isfinite(seconds):
        return NOTHING
    if seconds < 0:
        return _MINUS + duration(-seconds)
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f}{_THIN}ms"
    if seconds < 59.95:
        return f"{seconds:.1f}{_THIN}s"
    whole = round(seconds)
    for size, unit, smaller, smaller_unit in (
        (_DAY, "d", _HOUR, "h"),
        (_HOUR, "h", _MINUTE, "min"),
        (_MINUTE, "min", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // smaller
            tail = f" {rest}{_THIN}{smaller_unit}" if rest else ""
            return f"{whole // size}{_THIN}{unit}{tail}"
    return f"{whole}{_THIN}s"


def size(size_bytes: int | None) -> str:
    """A number of bytes in binary units: `512 B`, `1.5 MiB`."""
    if size_bytes is None:
        return NOTHING
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1023.95 or unit == "TiB":
            return f"{value:.0f}{_THIN}B" if unit == "B" else f"{value:.1f}{_THIN}{unit}"
        value /= 1024
    raise AssertionError("unreachable")


def count(number: int | None) -> str:
    """A whole number with thousands set apart: `336,776`."""
    return NOTHING if number is None else f"{number:,}"


def number(value: float | int | str | bool | None) -> str:
    """A measured value to four significant digits; text and booleans as they are."""
    if value is None:
        return NOTHING
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, int):
        return count(value) if abs(value) < 10**15 else f"{value:.3e}"
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else f"{_MINUS}∞"
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e9:
        return f"{value:.3e}"
    if abs(value) >= 1000:
        return f"{value:,.0f}" if abs(value) >= 10_000 or value == int(value) else f"{value:,.1f}"
    digits = max(0, 3 - math.floor(math.log10(abs(value))))
    text = f"{value:.{digits}f}"
    # An exact short decimal such as 0.5 reads better without the zeros that four digits would add.
    return f"{value:g}" if float(f"{value:g}") == value and len(f"{value:g}") < len(text) else text


def measure(value: float | int | str | bool | None) -> str:
    """A measured value for a column of such: as `number`, but always with its zeros, so that digits line up."""
    if not isinstance(value, float) or not math.isfinite(value) or not 1e-4 <= abs(value) < 1000:
        return number(value)
    return f"{value:.{max(0, 3 - math.floor(math.log10(abs(value))))}f}"


def actor(name: str) -> str:
    """Who did something, ids shortened: `job:0193…` to `job e5f60ab1`."""
    kind, separator, rest = name.partition(":")
    return f"{kind} {short_id(rest)}" if separator and len(rest) == 32 else name


def money(amount: Decimal) -> str:
    """An exact amount, to two places, or where it is small to as many as show two digits of it."""
    if amount == 0:
        return "0"
    places = max(2, 1 - amount.copy_abs().adjusted())
    return f"{amount:,.{places}f}"


def cell(value: object) -> str:
    """A value of a table of data: an instant to the second in UTC, else its text."""
    if isinstance(value, datetime):
        return exact(value).removesuffix(" UTC")
    return str(value)


def numeric(text: str) -> bool:
    """Whether a text is a plain number, so that a column of such lines up on the right."""
    try:
        return len(text) < 32 and math.isfinite(float(text))
    except ValueError:
        return False


def percent(share: float | None, digits: int = 1) -> str:
    """A share of one as per cent: `12.5 %`."""
    if share is None or not math.isfinite(share):
        return NOTHING
    return f"{share * 100:.{digits}f}{_THIN}%"


def short_id(text: str) -> str:
    """The part of an id that tells it apart: of a UUIDv7 the end, since it begins with the time."""
    if len(text) == 32:
        return text[-8:]
    return text[:8] if len(text) > 16 else text


def truncated(text: str, characters: int) -> str:
    """The text, its middle left out where it is too long, since both ends of a name tell things apart."""
    if len(text) <= characters:
        return text
    head = (characters - 1) * 2 // 3
    return f"{text[:head]}…{text[len(text) - (characters - 1 - head) :]}"


def plural(number_of: int, noun: str) -> str:
    """`1 run`, `2 runs`, `3 batches`."""
    if number_of == 1:
        return f"1 {noun}"
    ending = "es" if noun.endswith(("s", "x", "ch", "sh")) else "s"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        noun, ending = noun[:-1], "ies"
    return f"{number_of:,} {noun}{ending}"


STATE_TONES: dict[str, str] = {
    **dict.fromkeys(
        ("ok", "finished", "succeeded", "passed", "ready", "running_ok", "published", "approved", "healthy",
         "resolved", "promoted", "completed", "unchanged", "active", "champion", "main", "cached", "kept",
         "fresh"), "good"),
    **dict.fromkeys(("running", "starting", "scheduled_now", "updating", "training", "canary"), "live"),
    **dict.fromkeys(
        ("waiting", "queued", "pending", "scheduled", "warning", "warn", "stale", "degraded", "acknowledged",
         "unknown", "not_enough_data", "quarantined", "drifted", "paused", "dropped", "suppressed",
         "preempted", "missing", "overdue", "stands"), "warn"),
    **dict.fromkeys(
        ("failed", "error", "rejected", "killed", "lost", "timed_out", "firing", "open", "critical",
         "unhealthy", "broken", "crashed", "timeout"), "bad"),
}  # fmt: skip


def tone(state: str) -> str:
    """The colour family of a state: good, live, warn, bad or quiet. Its word is always shown beside it."""
    return STATE_TONES.get(state.lower().replace("-", "_").replace(" ", "_"), "quiet")


def words(name: str) -> str:
    """A wire word as a reader's: `not_enough_data` to `not enough data`."""
    return name.replace("_", " ").replace("-", " ")
