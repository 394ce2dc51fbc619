"""What is unusual about a write, or about none having come, judged against the dataset's own history. Pure.

Usual is the median of what came before, give or take five times the spread that a median absolute deviation stands
for, which a few odd days do not move; and never less than a floor below which nobody would call a change unusual.
Where there is enough of the same weekday, only that is compared: a Sunday is measured by Sundays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from statistics import median

from msgspec import Struct

from modelyard.types.data import ColumnProfile, Profile
from modelyard.types.profiles import Anomaly

HISTORY_MIN = 6
HISTORY_KEPT = 60
WEEKDAY_MIN = 4
COLUMNS_MEASURED_MAX = 200
SPREADS = 5.0
_MAD_TO_SPREAD = 1.4826
_VOLUME_FLOOR = 0.25
_NULL_RATE_FLOOR = 0.02
_DISTINCT_FLOOR = 0.3
_MEAN_FLOOR = 0.25
_GAP_FLOOR = 0.5
_LATE_S = 300.0
"""Nobody waits for what comes every few seconds: that it is a few seconds late is not worth a word."""
_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


class ColumnMeasure(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What of a column is compared from write to write. `distinct` only where its values are few or repeat."""

    type: str
    null_rate: float = 0.0
    distinct: int | None = None
    mean: float | None = None
    std: float | None = None


class Measure(Struct, frozen=True, kw_only=True):
    """What of a write is compared with other writes: its own rows alone."""

    rows: int
    columns: dict[str, ColumnMeasure]


class Earlier(Struct, frozen=True, kw_only=True):
    """A write that became a version before."""

    version: int
    at: datetime
    measure: Measure


def measure_of(profile: Profile) -> Measure:
    """What is kept of a batch's profile; of very wide tables only the first columns."""
    columns = {one.name: _measured(one, profile.rows) for one in profile.columns[:COLUMNS_MEASURED_MAX]}
    return Measure(rows=profile.rows, columns=columns)


def _measured(column: ColumnProfile, rows: int) -> ColumnMeasure:
    repeats = column.distinct is not None and (column.exact or column.distinct < column.count / 2)
    return ColumnMeasure(
        type=column.type,
        null_rate=(column.nulls + column.nans) / rows if rows else 0.0,
        distinct=column.distinct if repeats else None,
        mean=column.mean,
        std=column.std,
    )


def judge(history: Sequence[Earlier], found: Measure, at: datetime) -> list[Anomaly]:
    """What is unusual about a write, in view of those before it; nothing while they are too few to tell.

    A changed schema needs no history but the write before. Order of the history does not matter but for that.
    """
    unusual = _schema(history, found)
    if len(history) < HISTORY_MIN:
        return unusual
    peers, among = _peers(history, at)
    volume = _volume([float(one.measure.rows) for one in peers], float(found.rows), among)
    unusual += volume
    for name, column in found.columns.items():
        before = [one.measure.columns[name] for one in history if name in one.measure.columns]
        if len(before) < HISTORY_MIN or before[-1].type != column.type:
            continue
        unusual += _null_rate(name, [one.null_rate for one in before], column.null_rate, found.rows)
        unusual += _mean(name, before, column, found.rows)
        if not volume:  # of twice the rows there may well be more values
            unusual += _distinct(name, before, column)
    return unusual


def _peers(history: Sequence[Earlier], at: datetime) -> tuple[Sequence[Earlier], str]:
    """Whom to compare with: writes of the same weekday where there are enough of other weekdays too, else all."""
    same = [one for one in history if one.at.weekday() == at.weekday()]
    days = {one.at.date() for one in same}
    if len(days) >= WEEKDAY_MIN and len({one.at.weekday() for one in history}) > 1:
        return same, f"the {len(same)} writes on a {_WEEKDAYS[at.weekday()]} before it"
    return history, f"the {len(history)} writes before it"


def band(values: Sequence[float], floor: float) -> tuple[float, float]:
    """What is usual: the median of the values, give or take `SPREADS` spreads, and at least the floor."""
    middle = median(values)
    spread = _MAD_TO_SPREAD * median(abs(value - middle) for value in values)
    width = max(SPREADS * spread, floor)
    return middle - width, middle + width


def usual_rows(history: Sequence[Earlier], at: datetime) -> tuple[float, float] | None:
    """How many rows would be usual for a write, in view of those before it; None while they are too few to tell."""
    if len(history) < HISTORY_MIN:
        return None
    before = [float(one.measure.rows) for one in _peers(history, at)[0]]
    low, high = band(before, _VOLUME_FLOOR * median(before))
    return max(low, 0.0), high


def _volume(before: Sequence[float], rows: float, among: str) -> list[Anomaly]:
    middle = median(before)
    low, high = band(before, _VOLUME_FLOOR * middle)
    if low <= rows <= high:
        return []
    side = "few" if rows < low else "many"
    reason = (
        f"{rows:,.0f} rows are unusually {side}: {among} had {middle:,.0f} in the middle, and {max(low, 0):,.0f} "
        f"to {high:,.0f} would be usual"
    )
    return [Anomaly(kind="volume", reason=reason, observed=rows, expected_low=max(low, 0.0), expected_high=high)]


def _schema(history: Sequence[Earlier], found: Measure) -> list[Anomaly]:
    if not history:
        return []
    before = max(history, key=lambda one: one.version).measure.columns
    now = found.columns
    # Of very wide tables not all columns are known, so none of them is called new or gone.
    is_whole = max(len(before), len(now)) < COLUMNS_MEASURED_MAX
    said = [(name, f"column '{name}' is gone") for name in before if is_whole and name not in now]
    said += [(name, f"column '{name}' ({now[name].type}) is new") for name in now if is_whole and name not in before]
    said += [
        (name, f"column '{name}' was {before[name].type} and is {now[name].type}")
        for name in now
        if name in before and before[name].type != now[name].type
    ]
    return [Anomaly(kind="schema", column=name, reason=reason) for name, reason in said]


def _null_rate(name: str, before: Sequence[float], rate: float, rows: int) -> list[Anomaly]:
    middle = median(before)
    by_chance = SPREADS * math.sqrt(max(middle * (1 - middle), 1 / max(rows, 1)) / max(rows, 1))
    low, high = band(before, max(_NULL_RATE_FLOOR, by_chance))
    low, high = max(low, 0.0), min(high, 1.0)
    if low <= rate <= high:
        return []
    reason = f"{rate:.1%} of column '{name}' is null, where {middle:.1%} is usual ({low:.1%} to {high:.1%})"
    return [Anomaly(kind="null_rate", column=name, reason=reason, observed=rate, expected_low=low, expected_high=high)]


def _distinct(name: str, before: Sequence[ColumnMeasure], column: ColumnMeasure) -> list[Anomaly]:
    counts = [float(one.distinct) for one in before if one.distinct is not None]
    if len(counts) < HISTORY_MIN or column.distinct is None:
        return []
    middle = median(counts)
    low, high = band(counts, max(_DISTINCT_FLOOR * middle, 1.0))
    if low <= column.distinct <= high:
        return []
    reason = (
        f"column '{name}' has {column.distinct:,} different values, where {middle:,.0f} are usual "
        f"({max(low, 0):,.0f} to {high:,.0f})"
    )
    return [
        Anomaly(
            kind="distinct",
            column=name,
            reason=reason,
            observed=float(column.distinct),
            expected_low=max(low, 0.0),
            expected_high=high,
        )
    ]


def _mean(name: str, before: Sequence[ColumnMeasure], column: ColumnMeasure, rows: int) -> list[Anomaly]:
    means = [one.mean for one in before if one.mean is not None]
    if len(means) < HISTORY_MIN or column.mean is None:
        return []
    deviations = [one.std for one in before if one.std is not None]
    deviation = median(deviations) if deviations else math.sqrt(max(median(means) * (1 - median(means)), 0.0))
    by_chance = SPREADS * deviation / math.sqrt(max(rows, 1))
    # Doubles round: a mean of equal values may differ from them in its last digits.
    rounding = 1e-9 * max(abs(median(means)), abs(column.mean))
    low, high = band(means, max(_MEAN_FLOOR * deviation, by_chance, rounding))
    if low <= column.mean <= high:
        return []
    middle = median(means)
    reason = f"column '{name}' is {column.mean:.6g} on average, where {middle:.6g} is usual ({low:.6g} to {high:.6g})"
    return [
        Anomaly(kind="mean", column=name, reason=reason, observed=column.mean, expected_low=low, expected_high=high)
    ]


# --- freshness --------------------------------------------------------------------------------------------------


class Expected(Struct, frozen=True, kw_only=True):
    """By when the next version should be there, and why one thinks so."""

    by: datetime
    gap_s: float
    reason: str


def expected_by(instants: Sequence[datetime], promised_s: float | None = None) -> Expected | None:
    """By when the next version of a dataset should come, from when those before came; None where nobody can tell.

    `promised_s`: what its contract promises, which counts for more than what was usual. Where versions came after
    the same weekday often enough, the gaps after that weekday are taken: a feed that rests on Sundays is not late then.
    """
    if not instants:
        return None
    ordered = sorted(instants)
    last = ordered[-1]
    if promised_s is not None:
        reason = f"its contract promises a version every {spoken(promised_s)}"
        return Expected(by=last + timedelta(seconds=promised_s), gap_s=promised_s, reason=reason)
    gaps = [((b - a).total_seconds(), a.date()) for a, b in pairwise(ordered)]
    if len(gaps) < HISTORY_MIN:
        return None
    same = [(gap, day) for gap, day in gaps if day.weekday() == last.weekday()]
    by_weekday = len({day for _, day in same}) >= WEEKDAY_MIN and len({day.weekday() for _, day in gaps}) > 1
    after = f" after a {_WEEKDAYS[last.weekday()]}" if by_weekday else ""
    chosen = [gap for gap, _ in (same if by_weekday else gaps)]
    usual = median(chosen)
    _, longest = band(chosen, _GAP_FLOOR * usual)
    longest = max(longest, max(chosen), _LATE_S)
    reason = f"versions usually come {spoken(usual)} after the one before{after}, at the latest {spoken(longest)}"
    return Expected(by=last + timedelta(seconds=longest), gap_s=longest, reason=reason)


def overdue(expected: Expected, last: datetime, now: datetime) -> Anomaly | None:
    """The anomaly that nothing came, once it is time."""
    if now <= expected.by:
        return None
    age = (now - last).total_seconds()
    return Anomaly(
        kind="freshness",
        reason=f"no version for {spoken(age)}: {expected.reason}",
        observed=age,
        expected_low=0.0,
        expected_high=expected.gap_s,
    )


_UNITS: tuple[tuple[str, float], ...] = (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1))


def spoken(seconds: float) -> str:
    """A duration in the largest unit of which it has two, with one digit: `26 hours`, `3.5 days`."""
    for unit, size in _UNITS:
        if seconds >= 2 * size or unit == "second":
            count = round(seconds / size, 1)
            return f"{count:g} {unit}{'' if count == 1 else 's'}"
    return f"{seconds:g} seconds"
