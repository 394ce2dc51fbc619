"""Verdicts from the values of measures. Pure."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from msgspec.structs import replace

from modelyard.planes.data.checks.distributions import SHARES, bin_counts, chi_square, ks_tail, psi
from modelyard.planes.data.checks.divergence import observed_divergence
from modelyard.planes.data.checks.question import Question, Values
from modelyard.types.checks import (
    Check,
    DistinctValues,
    Distribution,
    Divergence,
    Freshness,
    IsNull,
    MostCommon,
    NotNull,
    Quantiles,
    RowCount,
    RowCountMatches,
    Scalar,
    Sql,
    Statistic,
    Unique,
    Unsupported,
)
from modelyard.types.data import CheckResult, CheckStatus

FUTURE_TOLERANCE = timedelta(seconds=60)
_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq, "==": operator.eq, "!=": operator.ne, "<>": operator.ne, "<": operator.lt, "<=": operator.le,
    ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


def verdict(question: Question, values: Values, now: datetime) -> CheckResult:
    """The result of a check from the values of its measures."""
    check = question.check
    match check:
        case RowCount() | RowCountMatches():
            return _row_count(check, int(values["rows"] or 0), question.facts)
        case Freshness():
            return _freshness(check, values["latest"], now)
        case Statistic():
            return _statistic(check, values)
        case Quantiles():
            return _quantiles(check, values)
        case DistinctValues():
            return _distinct_values(check, values, question.facts)
        case MostCommon():
            return _most_common(check, values)
        case Distribution():
            return _distribution(check, values, question.facts)
        case Divergence():
            return _divergence(check, values)
        case _:
            return _counted(check, values)


def _counted(check: Check, values: Values) -> CheckResult:
    """A check that counts failing rows. Nulls count as evaluated where the check is about them."""
    present = int(values.get("present") or 0)
    if isinstance(check, Sql):
        return judge(check, 0, int(values["failing"]))
    elements = int(values["elements"] or 0)
    if isinstance(check, (NotNull, IsNull)):
        return judge(check, elements, elements - present if isinstance(check, NotNull) else present)
    evaluated = present if "present" in values else elements
    groups = int(values["groups"] or 0) if isinstance(check, Unique) else None
    return judge(check, evaluated, int(values["failing"] or 0), elements - evaluated, groups)


def judge(check: Check, evaluated: int, failing: int, missing: int = 0, groups: int | None = None) -> CheckResult:
    """The result of a check that counts failing rows. A share is met when it is reached exactly. `groups`: how many
    distinct values the failing rows have."""
    good = evaluated - failing
    passed = failing == 0 or (evaluated > 0 and good / evaluated >= check.mostly)
    message = ""
    if failing:
        of = f" of {evaluated}" if evaluated else ""
        message = f"{failing}{of} rows fail"
        if check.mostly < 1.0 and evaluated:
            message += f"; {good / evaluated:.4%} pass, {check.mostly:.4%} are asked for"
    status: CheckStatus = "passed" if passed else "failed"
    found = result(check, status, message=message, evaluated=evaluated, failing=failing, missing=missing)
    if groups is not None:
        found = replace(found, details={"values": groups})
    return _by_thresholds(check, found, failing if groups is None else groups)


def _by_thresholds(check: Check, found: CheckResult, values: int) -> CheckResult:
    """Where the check has thresholds of failing rows or values, they decide, and whether it blocks or warns."""
    if check.thresholds is None:
        return found
    counted = values if check.thresholds.count == "values" else found.failing
    if check.severity == "block" and _meets(check.thresholds.block_if, counted):
        return replace(found, status="failed", message=f"{found.message}; blocks if {check.thresholds.block_if}")
    if _meets(check.thresholds.warn_if, counted):
        message = f"{found.message}; warns if {check.thresholds.warn_if}"
        return replace(found, status="failed", severity="warn", message=message)
    return replace(found, status="passed")


def _meets(condition: str, failing: int) -> bool:
    parts = re.match(r"\s*(\D+?)\s*(\d+)", condition)
    assert parts is not None, "the noun allows no other form"
    return _OPERATORS[parts[1]](failing, int(parts[2]))


def _row_count(check: RowCount | RowCountMatches, rows: int, facts: Values) -> CheckResult:
    if isinstance(check, RowCountMatches):
        other = int(facts["other"])
        passed = _OPERATORS[check.operator](rows, other)
        message = "" if passed else f"{rows} rows, and {check.dataset} has {other}"
        found = {"self": rows, "other": other}
        return result(check, "passed" if passed else "failed", message=message, observed=found)
    passed = check.min <= rows and (check.max is None or rows <= check.max)
    wanted = f"at least {check.min}" if check.max is None else f"{check.min} to {check.max}"
    message = "" if passed else f"{rows} rows, {wanted} are asked for"
    return result(check, "passed" if passed else "failed", message=message, observed=rows)


def _freshness(check: Freshness, observed_us: int | None, now: datetime) -> CheckResult:
    if observed_us is None:
        return result(check, "failed", message="there is no instant to judge by")
    try:
        latest = datetime.fromtimestamp(0, now.tzinfo) + timedelta(microseconds=observed_us)
    except OverflowError:
        when = "after the year 9999" if observed_us > 0 else "before the year 1"
        return result(check, "failed", message=f"the latest instant is {when}")
    age = now - latest
    if age < -FUTURE_TOLERANCE:
        return result(check, "failed", message=f"the latest instant, {latest.isoformat()}, is in the future")
    late = age.total_seconds() > check.max_age_s
    message = f"the latest instant, {latest.isoformat()}, is {age.total_seconds():.0f} s ago" if late else ""
    return result(check, "failed" if late else "passed", message=message, observed=latest.isoformat())


# --- numbers of a column ------------------------------------------------------------------------------------------


def observed_statistic(check: Statistic, values: Values) -> Any:
    """The number that a statistic stands for; None where there is none."""
    present = int(values.get("present") or 0)
    match check.measure:
        case "not_null_share":
            elements = int(values["elements"] or 0)
            return present / elements if elements else 0.0
        case "distinct" | "distinct_share":
            kept = values["values"]
            distinct = int(values["distinct"] or 0) if kept is None else len(kept)
            if check.measure == "distinct":
                return distinct
            return distinct / present if present else 0.0
        case "mean" | "std":
            return _of_moments(check, values, present)
        case "sum":
            return _sum(values, present)
        case _:
            return values["value"]


def _sum(values: Values, present: int) -> Any:
    above, below = int(values.get("above") or 0), int(values.get("below") or 0)
    if above or below:
        return math.nan if above and below else math.inf if above else -math.inf
    return values["value"] if present and values["value"] is not None else 0


def _of_moments(check: Statistic, values: Values, present: int) -> float | None:
    above, below = int(values.get("above") or 0), int(values.get("below") or 0)
    if above or below:
        if check.measure == "std" or (above and below):
            return None
        return math.inf if above else -math.inf
    if not present:
        return None
    moments = values["moments"]
    if check.measure == "mean":
        return float(moments["mean"])
    count = int(moments["n"])
    if count < 2 or moments["variance"] is None:
        return None
    return math.sqrt(max(float(moments["variance"]), 0.0) * count / (count - 1))


def _statistic(check: Statistic, values: Values) -> CheckResult:
    observed = observed_statistic(check, values)
    if observed is None or (isinstance(observed, float) and math.isnan(observed)):
        return result(check, "failed", message=f"there is no {check.measure} of no values")
    low, high = _comparable(check.min, observed), _comparable(check.max, observed)
    above = low is None or (observed > low if check.strict_min else observed >= low)
    below = high is None or (observed < high if check.strict_max else observed <= high)
    bounds = " and ".join(
        [f"{'more than' if check.strict_min else 'at least'} {check.min}"] * (low is not None)
        + [f"{'less than' if check.strict_max else 'at most'} {check.max}"] * (high is not None)
    )
    shown = sendable(observed)
    message = "" if above and below else f"{check.measure} is {shown}; {bounds} is asked for"
    return result(check, "passed" if above and below else "failed", message=message, observed=shown)


def _comparable(bound: Scalar | None, observed: Any) -> Any:
    """A bound as a value of the column's type, which compiling has made sure that it can be."""
    if bound is None or not isinstance(bound, str) or isinstance(observed, str):
        return Decimal(str(bound)) if isinstance(observed, Decimal) and bound is not None else bound
    if isinstance(observed, datetime):
        parsed = datetime.fromisoformat(bound)
        return parsed if parsed.tzinfo or observed.tzinfo is None else parsed.replace(tzinfo=observed.tzinfo)
    return date.fromisoformat(bound)


def _quantiles(check: Quantiles, values: Values) -> CheckResult:
    found = [_quantile(check, values, place, share) for place, share in enumerate(check.quantiles)]
    wrong = []
    for share, value, (low, high) in zip(check.quantiles, found, check.ranges, strict=True):
        fits = value is not None and (low is None or value >= low) and (high is None or value <= high)
        if not fits:
            wrong.append(f"the {share:g} quantile is {value}, not in [{low}, {high}]")
    observed = {"quantiles": check.quantiles, "values": list(map(sendable, found))}
    return result(check, "failed" if wrong else "passed", message="; ".join(wrong), observed=observed)


def _quantile(check: Quantiles, values: Values, place: int, share: float) -> float | None:
    if check.method == "linear":
        listed = values["quantiles"]
        return None if listed is None else float(listed[place])
    low, high = values[f"floor{place}"], values[f"ceil{place}"]
    if low is None or high is None:
        return None
    at = int(values["last"]) * share
    match check.method:
        case "lower":
            return float(low)
        case "higher":
            return float(high)
        case "midpoint":
            return float(low + high) / 2
        case _:
            # Half-way goes to the even place, as numpy does.
            return float(low if round(at) == math.floor(at) else high)


def _distinct_values(check: DistinctValues, values: Values, facts: Values) -> CheckResult:
    unexpected_values, found_values = values["unexpected_values"], values["found_values"]
    unexpected = int(values["unexpected"] or 0) if unexpected_values is None else len(unexpected_values)
    found = int(values["found"] or 0) if found_values is None else len(found_values)
    lacking = int(facts["wanted"]) - found
    wrong = []
    if check.relation != "contain" and unexpected:
        shown = [sendable(value) for value in (unexpected_values or values["sample"] or [])[:5]]
        wrong.append(f"{unexpected} distinct values are not in the set, such as {', '.join(map(repr, shown))}")
    if check.relation != "within" and lacking:
        wrong.append(f"{lacking} values of the set do not occur")
    observed = {"unexpected": unexpected, "lacking": lacking}
    judged = result(check, "failed" if wrong else "passed", message="; ".join(wrong), observed=observed)
    return _by_thresholds(check, judged, unexpected + (lacking if check.relation != "within" else 0))


def _most_common(check: MostCommon, values: Values) -> CheckResult:
    common, hits = values["common"] or [], int(values["hits"] or 0)
    passed = hits > 0 if check.ties else int(values["commons"] or 0) == 1 and hits == 1
    shown = [sendable(value) for value in common]
    message = "" if passed else f"the most common is {', '.join(map(repr, shown)) or 'nothing'}"
    return result(check, "passed" if passed else "failed", message=message, observed=shown)


# --- distributions ------------------------------------------------------------------------------------------------


def _distribution(check: Distribution, values: Values, facts: Values) -> CheckResult:
    observed, p_value = _distance(check, values, facts)
    if observed is None:
        return result(check, "failed", message="there are no values to compare")
    wrong = []
    if check.max is not None and not observed <= check.max:
        wrong.append(f"{check.measure} is {observed:.4g}, at most {check.max:g} is asked for")
    if check.p_min is not None and p_value is not None and p_value < check.p_min:
        wrong.append(f"p is {p_value:.3g}, at least {check.p_min:g} is asked for")
    found = result(check, "failed" if wrong else "passed", message="; ".join(wrong), observed=sendable(observed))
    return found if p_value is None else replace(found, details={"p_value": p_value})


def _distance(check: Distribution, values: Values, facts: Values) -> tuple[float | None, float | None]:
    match check.measure:
        case "psi":
            return psi(bin_counts(values, facts), facts["expected"]), None
        case "chi_square":
            tested = chi_square(bin_counts(values, facts), facts["expected"], facts.get("rows"))
            return (None, None) if tested is None else tested
        case "ks":
            if not values["present"] or not values["reference"]:
                return None, None
            distance = float(values["distance"])
            return distance, ks_tail(distance, int(values["present"]), int(values["reference"]))
        case "mean":
            moments = values["moments"]
            if not moments["n"] or facts.get("mean") is None:
                return None, None
            return _steps(float(moments["mean"]) - facts["mean"], facts.get("std")), None
        case "quantiles":
            own, other = values["quantiles"], facts.get("quantiles")
            if not own or not other:
                return None, None
            width = other[SHARES.index(0.75)] - other[SHARES.index(0.25)]
            return max(_steps(a - b, width) for a, b in zip(own, other, strict=True)), None


def _steps(moved: float, width: float | None) -> float:
    """A distance in units of a width; of none, any distance is infinite."""
    if moved == 0:
        return 0.0
    return abs(moved) / width if width else math.inf


def _divergence(check: Divergence, values: Values) -> CheckResult:
    observed = observed_divergence(check, values)
    passed = check.max is None or observed <= check.max
    shown = observed if math.isfinite(observed) else None
    message = "" if passed else f"the divergence is {observed:.4g}, at most {check.max:g} is asked for"
    return result(check, "passed" if passed else "failed", message=message, observed=shown)


# --- results ------------------------------------------------------------------------------------------------------


def result(
    check: Check,
    status: CheckStatus,
    *,
    message: str = "",
    evaluated: int = 0,
    failing: int = 0,
    missing: int = 0,
    observed: object = None,
) -> CheckResult:
    """The result of a check, under its name."""
    return CheckResult(
        name=name_of(check),
        check=check.__struct_config__.tag or type(check).__name__,  # type: ignore[arg-type]
        status=status,
        severity=check.severity,
        columns=columns_of(check),
        evaluated=evaluated,
        failing=failing,
        missing=missing,
        observed=observed,
        message=message,
        origin=check.origin,
    )


def columns_of(check: Check) -> list[str]:
    """The columns that a check is about."""
    listed: list[str] = list(getattr(check, "columns", ()))
    column: str = getattr(check, "column", "")
    other: str = getattr(check, "other", "")
    return listed or [one for one in (column, other) if one]


def name_of(check: Check) -> str:
    """The check's own name, or one made of its kind and columns."""
    if check.name:
        return check.name
    if isinstance(check, Unsupported):
        return check.what
    kind = str(check.__struct_config__.tag)
    if isinstance(check, (Statistic, Distribution)):
        kind = f"{kind} {check.measure}"
    where = f" where {check.where}" if check.where else ""
    by = f" by {check.by}" if check.by else ""
    columns = ", ".join(columns_of(check)) if not isinstance(check, Unique) else ", ".join(check.columns)
    return f"{kind}({columns}){where}{by}"


def sendable(value: Any) -> Any:
    """A value as JSON can carry it, numbers as numbers."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return value
