"""Arrow types by name, and values of a check as SQL literals. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import date, datetime

from modelyard.engines.tables.sql import literal
from modelyard.types.checks import Scalar


class Unfit(Exception):
    """This check cannot be asked of these columns; the message says why."""


def is_float(kind: str) -> bool:
    """Whether an Arrow type, by name, is a floating one."""
    return kind in ("float", "double", "halffloat")


def is_number(kind: str) -> bool:
    """Whether an Arrow type, by name, is a number."""
    return is_float(kind) or re.match(r"u?int\d+$|decimal", kind) is not None


def is_time(kind: str) -> bool:
    """Whether an Arrow type, by name, is a date or an instant."""
    return kind.startswith(("timestamp", "date"))


def is_ordered(kind: str) -> bool:
    """Whether values of an Arrow type, by name, have a least and a greatest."""
    return is_number(kind) or is_time(kind) or kind == "string"


def sql_value(value: Scalar, kind: str, column: str) -> str:
    """A value of a check as an SQL literal of the column's type. Raises Unfit where it is of another type."""
    wrong = Unfit(f"{value!r} is not a value of column '{column}', which is {kind}")
    if kind == "bool":
        if not isinstance(value, bool):
            raise wrong
        return "true" if value else "false"
    if is_number(kind):
        if isinstance(value, (bool, str)) or not math.isfinite(value):
            raise wrong
        return repr(value)
    if not isinstance(value, str):
        raise wrong
    if kind == "string":
        return literal(value)
    if is_time(kind):
        return _time_value(value, kind, wrong)
    raise wrong


def fitting(values: Sequence[Scalar], kind: str, column: str) -> list[str]:
    """Those of the values that the column can hold, as SQL; the others equal none of it."""
    found = []
    for value in values:
        try:
            found.append(sql_value(value, kind, column))
        except Unfit:
            continue
    return found


def _time_value(value: str, kind: str, wrong: Unfit) -> str:
    try:
        if kind.startswith("date"):
            return f"DATE {literal(date.fromisoformat(value).isoformat())}"
        return f"TIMESTAMPTZ {literal(datetime.fromisoformat(value).isoformat())}"
    except ValueError:
        raise wrong from None
