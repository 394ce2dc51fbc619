"""What a check keeps of the rows that it has seen, and how it goes on from there when rows are appended. Pure.

A state holds the values of a check's measures, by slice where it has any. Counts, bounds, kept distinct values and the
ends of an order are put together exactly; means, deviations and sums of floating columns up to rounding.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import msgspec
from msgspec.structs import replace

from modelyard.planes.data.checks.question import SLICES_MAX, VALUES_KEPT_MAX, Measure, Provided, Question, Values
from modelyard.types.checks import Check, Monotonic
from modelyard.types.data import CheckReport, CheckResult

STATE_BYTES_MAX = 64 * 1024
_INT64 = 2**63


class State(msgspec.Struct, frozen=True):
    """Values by slice (None where the check has no slices), and what was known of the reference."""

    slices: list[tuple[Any, Values]]
    facts: Values = {}


def key_of(check: Check, provided: Sequence[Provided] = ()) -> str:
    """What a state is known by: all of the check that its measures depend on, and the versions that it refers to."""
    asked = replace(check, name="", mostly=1.0, severity="block", thresholds=None, origin="")
    # 2: a state that an older program kept of a merge may be that of its batch alone.
    text = b"2" + msgspec.json.encode(asked) + "".join(f"\n{one.version}" for one in provided).encode()
    return hashlib.sha256(text).hexdigest()[:32]


def merged(question: Question, before: State, after: State) -> State | None:
    """The state over both parts, the first of which came before; None where it cannot be known from them."""
    ahead = {_hashable(value): values for value, values in before.slices}
    both: list[tuple[Any, Values]] = []
    for value, values in after.slices:
        earlier = ahead.pop(_hashable(value), None)
        joined = values if earlier is None else _joined(question, earlier, values)
        if joined is None:
            return None
        both.append((value, joined))
    left = [(value, values) for value, values in before.slices if _hashable(value) in ahead]
    if len(left) + len(both) > SLICES_MAX:
        return None
    return State([*left, *both], before.facts)


def complete(question: Question, state: State) -> bool:
    """Whether a state says all that is put together: not where distinct values are more than are kept."""
    return all(
        values.get(name) is not None
        for name, measure in question.measures.items()
        if measure.merge == "union"
        for _, values in state.slices
    )


def _joined(question: Question, before: Values, after: Values) -> Values | None:
    measures: dict[str, Measure] = {**question.plain, **question.measures}
    names = measures or {name: Measure("") for name in before}
    joined: Values = {}
    for name in {**names, **before}:
        measure = names.get(name, Measure(""))
        joined[name] = _one(measure, before.get(name), after.get(name))
        if measure.merge == "union" and joined[name] is None:
            return None
    if isinstance(question.check, Monotonic):
        seam = _seam(question.check, before.get("last"), after.get("first"))
        joined["failing"] = (joined["failing"] or 0) + seam
    return joined


def _one(measure: Measure, before: Any, after: Any) -> Any:
    match measure.merge:
        case "union":
            return _union(before, after)
        case "overflow" | "rescan":
            return None
        case "moments":
            return _moments(before, after)
    if before is None or after is None:
        return after if before is None else before
    match measure.merge:
        case "min":
            return min(before, after)
        case "max":
            return max(before, after)
        case "first":
            return before
        case "last":
            return after
        case _:
            return before + after if type(before) is type(after) else _number(before) + _number(after)


def _number(value: Any) -> Any:
    return value if isinstance(value, float) else Decimal(value)


def _union(before: list[Any] | None, after: list[Any] | None) -> list[Any] | None:
    if before is None or after is None:
        return None
    distinct = list({_hashable(value): value for value in (*before, *after)}.values())
    if len(distinct) > VALUES_KEPT_MAX:
        return None
    return sorted(distinct, key=_ordered)


def _ordered(value: Any) -> Any:
    # NaN is after every number, as in SQL.
    return (1, 0) if isinstance(value, float) and math.isnan(value) else (0, value)


def _hashable(value: Any) -> Any:
    if isinstance(value, float) and math.isnan(value):
        return "NaN", "is not equal to itself"
    return type(value) is bool, value if not isinstance(value, (list, dict)) else str(value)


def _moments(before: Values | None, after: Values | None) -> Values | None:
    if not before or not before["n"]:
        return after
    if not after or not after["n"]:
        return before
    n, m = before["n"], after["n"]
    moved = after["mean"] - before["mean"]
    mean = before["mean"] + moved * (m / (n + m))
    if before["variance"] is None or after["variance"] is None:
        return {"n": n + m, "mean": mean, "variance": None}
    variance = (before["variance"] * n + after["variance"] * m + moved * moved * n * m / (n + m)) / (n + m)
    return {"n": n + m, "mean": mean, "variance": variance}


def _seam(check: Monotonic, last: Any, first: Any) -> int:
    """Whether the first value that is new stands wrongly after the last one before it."""
    if last is None or first is None:
        return 0
    if check.strictly and first == last:
        return 1
    return int(first < last if check.direction == "increasing" else first > last)


# --- as text ------------------------------------------------------------------------------------------------------


def packed(state: State) -> str:
    """The state as text; empty where it is too large to be kept."""
    plain = [[_out(value), _out(values)] for value, values in state.slices]
    data = msgspec.msgpack.encode([plain, _out(state.facts)])
    return "" if len(data) > STATE_BYTES_MAX else base64.b64encode(data).decode()


def unpacked(text: str) -> State | None:
    """The state that a text holds; None where it holds none."""
    if not text:
        return None
    try:
        slices, facts = msgspec.msgpack.decode(base64.b64decode(text, validate=True))
    except (ValueError, msgspec.DecodeError):
        return None
    return State([(_in(value), _in(values)) for value, values in slices], _in(facts))


def states_of(results: Sequence[CheckResult]) -> Mapping[str, State]:
    """The states that results carry, by key."""
    found = {one.key: unpacked(one.state) for one in results if one.key and one.state}
    return {key: state for key, state in found.items() if state is not None}


def _out(value: Any) -> Any:
    if isinstance(value, bool) or value is None or isinstance(value, (str, float)):
        return value
    if isinstance(value, int):
        return value if -_INT64 <= value < _INT64 else {"$int": str(value)}
    if isinstance(value, Decimal):
        return {"$decimal": str(value)}
    if isinstance(value, datetime):
        return {"$at": value.isoformat()}
    if isinstance(value, date):
        return {"$on": value.isoformat()}
    if isinstance(value, dict):
        return {key: _out(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_out(inner) for inner in value]
    raise TypeError(f"{type(value).__name__} is no value of a measure")


def _in(value: Any) -> Any:
    if isinstance(value, list):
        return [_in(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        [(tag, text)] = value.items()
        match tag:
            case "$int":
                return int(text)
            case "$decimal":
                return Decimal(text)
            case "$at":
                return datetime.fromisoformat(text)
            case "$on":
                return date.fromisoformat(text)
    return {key: _in(inner) for key, inner in value.items()}


def report_sent(report: CheckReport) -> CheckReport:
    """A report as it is sent: without the states, which only this plane can use."""
    return replace(report, results=[replace(one, key="", state="") for one in report.results])
