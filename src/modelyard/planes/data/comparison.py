"""How two profiles differ, from their sketches alone: no row is read again. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from modelyard.planes.data.profile import QUANTILES
from modelyard.planes.data.sketches import Sketch, Unreadable, quantiles, share_at_most, unpacked
from modelyard.types.data import ColumnProfile, Profile
from modelyard.types.profiles import ColumnShift, ProfileDiff, QuantileShift, Verdict

PSI_NOTICEABLE = 0.1
NULL_RATE_NOTICEABLE = 0.02
MEAN_NOTICEABLE = 0.25
_BINS = 10
_SHARE_MIN = 1e-4
_VALUES_SHOWN = 20
_CATEGORIES_MAX = 50


def compare_profiles(before_of: str, before: Profile, after_of: str, after: Profile) -> ProfileDiff:
    """How the profile `after` differs from the one `before`; each comes with what it is of."""
    old = {column.name: column for column in before.columns}
    new = {column.name: column for column in after.columns}
    shifts = [
        _compare(old.get(name), new.get(name), before.rows, after.rows)
        for name in [*old, *(name for name in new if name not in old)]
    ]
    shifts.sort(key=lambda shift: (shift.verdict == "same", -(shift.psi or 0.0)))
    return ProfileDiff(before=before_of, after=after_of, rows_before=before.rows, rows_after=after.rows, columns=shifts)


def _compare(old: ColumnProfile | None, new: ColumnProfile | None, rows_old: int, rows_new: int) -> ColumnShift:
    if old is None or new is None:
        one = old or new
        assert one is not None
        verdict: Verdict = "added" if old is None else "removed"
        kinds = (None, one.type) if old is None else (one.type, None)
        reason = f"the column is {'new' if old is None else 'gone'}"
        return ColumnShift(name=one.name, verdict=verdict, type_before=kinds[0], type_after=kinds[1], reasons=[reason])
    sketches = _sketch(old), _sketch(new)
    rates = _missing_rate(old, rows_old), _missing_rate(new, rows_new)
    psi = _stability(old, new, *sketches)
    shift = _mean_shift(old, new)
    come, gone = _values(*sketches)
    changed = _changes(old, new, rates)
    moved = _moves(psi, (old.count, new.count), shift, come, gone, new.count)
    return ColumnShift(
        name=old.name,
        verdict="changed" if changed else "moved" if moved else "same",
        type_before=old.type,
        type_after=new.type,
        null_rate_before=rates[0],
        null_rate_after=rates[1],
        distinct_before=old.distinct,
        distinct_after=new.distinct,
        mean_before=old.mean,
        mean_after=new.mean,
        mean_shift=shift,
        psi=psi,
        quantiles=[
            QuantileShift(float(share), old.quantiles[share], new.quantiles[share])
            for share in QUANTILES
            if share in old.quantiles and share in new.quantiles
        ],
        new_values=[value for value, _ in come[:_VALUES_SHOWN]],
        gone_values=[value for value, _ in gone[:_VALUES_SHOWN]],
        reasons=[*changed, *moved],
    )


def _sketch(column: ColumnProfile) -> Sketch:
    try:
        return unpacked(column.sketch)
    except Unreadable:
        return Sketch()


def _missing_rate(column: ColumnProfile, rows: int) -> float:
    return (column.nulls + column.nans) / rows if rows else 0.0


def _changes(old: ColumnProfile, new: ColumnProfile, rates: tuple[float, float]) -> list[str]:
    said = [f"its type was {old.type} and is {new.type}"] if old.type != new.type else []
    if abs(rates[1] - rates[0]) >= NULL_RATE_NOTICEABLE:
        said.append(f"{rates[1]:.1%} of it is null, {rates[0]:.1%} was")
    return said


def _moves(
    psi: float | None,
    counts: tuple[int, int],
    shift: float | None,
    come: Sequence[tuple[Any, float]],
    gone: Sequence[tuple[Any, float]],
    rows: int,
) -> list[str]:
    said = []
    # Two samples of one distribution differ by chance: about so much for each bin.
    by_chance = 3 * _BINS * sum(1 / max(count, 1) for count in counts)
    if psi is not None and psi >= PSI_NOTICEABLE + by_chance:
        said.append(f"its values are distributed otherwise (PSI {psi:.2f})")
    if shift is not None and abs(shift) >= MEAN_NOTICEABLE + 3 / math.sqrt(max(min(counts), 1)):
        said.append(f"its mean moved by {shift:+.2f} standard deviations")
    if come:
        share = sum(count for _, count in come) / max(rows, 1)
        said.append(f"{len(come)} new values ({share:.1%} of it), such as {come[0][0]!r}")
    if gone:
        said.append(f"{len(gone)} values come no more, such as {gone[0][0]!r}")
    return said


def _mean_shift(old: ColumnProfile, new: ColumnProfile) -> float | None:
    if old.mean is None or new.mean is None:
        return None
    spread = old.std if old.std is not None else math.sqrt(max(old.mean * (1 - old.mean), 0.0))
    if spread:
        return (new.mean - old.mean) / spread
    return 0.0 if math.isclose(new.mean, old.mean, rel_tol=1e-9) else None


def _values(old: Sketch, new: Sketch) -> tuple[list[tuple[Any, float]], list[tuple[Any, float]]]:
    """Values that only the one or the other has, where both counted all of theirs and they are few."""
    if not (old.exact and new.exact and old.top and new.top):
        return [], []
    if max(len(old.top), len(new.top)) > _CATEGORIES_MAX:
        return [], []
    before, now = dict(old.top), dict(new.top)
    come = [entry for entry in new.top if entry[0] not in before]
    gone = [entry for entry in old.top if entry[0] not in now]
    return come, gone


def _stability(old: ColumnProfile, new: ColumnProfile, before: Sketch, now: Sketch) -> float | None:
    """The population stability index of the values that are there, or None where neither sketch can tell."""
    if before.means and now.means and not _is_category(before, now):
        return _numeric_stability(old, new, before, now)
    if before.top and now.top and before.exact and now.exact:
        return _index(_shares(dict(before.top)), _shares(dict(now.top)))
    return None


def _is_category(before: Sketch, now: Sketch) -> bool:
    return before.exact and now.exact and len(before.top) <= _BINS


def _numeric_stability(old: ColumnProfile, new: ColumnProfile, before: Sketch, now: Sketch) -> float:
    bounds = float(old.min), float(old.max)
    edges = sorted(set(quantiles(before, [place / _BINS for place in range(1, _BINS)], *bounds)))
    shares = []
    for sketch, low, high in ((before, *bounds), (now, float(new.min), float(new.max))):
        below = [0.0, *(share_at_most(sketch, edge, low, high) for edge in edges), 1.0]
        shares.append({str(place): b - a for place, (a, b) in enumerate(pairwise(below))})
    return _index(*shares)


def _shares(counts: Mapping[Any, float]) -> dict[Any, float]:
    total = sum(counts.values())
    return {value: count / total for value, count in counts.items()}


def _index(before: Mapping[Any, float], now: Mapping[Any, float]) -> float:
    total = 0.0
    for value in before.keys() | now.keys():
        was, is_now = max(before.get(value, 0.0), _SHARE_MIN), max(now.get(value, 0.0), _SHARE_MIN)
        total += (is_now - was) * math.log(is_now / was)
    return total
