"""Quantiles of a column of numbers: the values at given places among all of them in order. Pure.

DuckDB's own quantiles hold every value in memory and never spill, so they are asked of few rows only. Of many, a sample
gives edges, all rows are counted by them, and then the values of those bins alone are held in which a quantile lies:
exact whatever the sample, in three looks at the column, with about 1/256 of the values for each quantile. Slices, each
of which would need edges of its own, are put in order instead, which spills.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modelyard.engines.tables.sql import quoted
from modelyard.planes.data.checks.question import OfTable, filtered

# Up to so many rows every value can be held, several times over and by two checks at once.
ROWS_HELD_MAX = 4_000_000
_EDGES = 255
_SAMPLE_ROWS = 20_000


@dataclass(frozen=True, slots=True)
class Numbers:
    """The numbers that are looked at. `value`: a double by row; `where`: which rows, none of them with null; `by`: the
    column of the slices, empty for none. `rows`: how many there are at most, None where that is not known."""

    value: str
    where: str
    by: str
    rows: int | None

    @property
    def many(self) -> bool:
        """Whether they may be more than can be held."""
        return self.rows is None or self.rows > ROWS_HELD_MAX


@dataclass(frozen=True, slots=True)
class Ranked:
    """Aggregates over a source. `count`: of the numbers; `linear`: the list of their quantiles, null of no numbers."""

    source: OfTable
    count: str
    linear: str


@dataclass(frozen=True, slots=True)
class Places:
    """Aggregates over a source. `last`: the place of the last of the numbers, counted from 0. `low`, `high`: for each
    share the number at `last` times that share, rounded down and up."""

    source: OfTable
    last: str
    low: Sequence[str]
    high: Sequence[str]


def linear(numbers: Numbers, shares: Sequence[float]) -> Ranked:
    """Quantiles as numpy and pandas have them, on the line between the two numbers next to their place."""
    if not numbers.many:
        only = filtered(numbers.where)
        listed = ", ".join(repr(float(share)) for share in shares)
        return Ranked(
            lambda table: table, f"count({numbers.value}){only}", f"quantile_cont({numbers.value}, [{listed}]){only}"
        )
    between = ", ".join(_between(place, share) for place, share in enumerate(shares))
    found = f"CASE WHEN max(__last) >= 0 THEN [{between}] END"
    return Ranked(_source(numbers, shares), "coalesce(max(__last) + 1, 0)", found)


def places(numbers: Numbers, shares: Sequence[float]) -> Places:
    """The two numbers next to the place of each quantile."""
    sides = ([f"max(__{side}{place})" for place in range(len(shares))] for side in ("low", "high"))
    return Places(_source(numbers, shares), "max(__last)", *sides)


def _between(place: int, share: float) -> str:
    low, high, at = f"max(__low{place})", f"max(__high{place})", _at(share, "max(__last)")
    part = f"({at} - floor({at}))"
    return f"CASE WHEN {part} = 0 THEN {low} ELSE {low} * (1.0::DOUBLE - {part}) + {high} * {part} END"


def _at(share: float, last: str = "__last") -> str:
    return f"({last} * {float(share)!r}::DOUBLE)"


def _source(numbers: Numbers, shares: Sequence[float]) -> OfTable:
    """A row for each slice: `__last`, and `__low` and `__high` of each share."""
    if numbers.by or not numbers.many:
        return lambda table: _by_order(numbers, shares, table)
    return lambda table: _by_bins(numbers, shares, table)


# --- in order -----------------------------------------------------------------------------------------------------


def _by_order(numbers: Numbers, shares: Sequence[float], table: str) -> str:
    """Of all slices, those without numbers too: only their count is kept of each, beside the numbers in order."""
    by = f"{quoted(numbers.by)}, " if numbers.by else ""
    part = f"PARTITION BY {quoted(numbers.by)} " if numbers.by else ""
    alike = f"n.{quoted(numbers.by)} IS NOT DISTINCT FROM o.{quoted(numbers.by)}" if numbers.by else "true"
    counted = f"SELECT {by}count(*){filtered(numbers.where)} - 1 AS __last FROM {table}" + (
        f" GROUP BY {quoted(numbers.by)}" if numbers.by else ""
    )
    values = f"SELECT {by}{numbers.value} AS __v FROM {table} WHERE {numbers.where}"
    ordered = f"SELECT *, row_number() OVER ({part}ORDER BY __v) - 1 AS __i FROM ({values})"
    found = [
        f"max(__v) FILTER (WHERE __i = {side}({_at(share)})) AS __{name}{place}"
        for place, share in enumerate(shares)
        for name, side in (("low", "floor"), ("high", "ceil"))
    ]
    shown = f"{f'n.{by}' if by else ''}__last, {', '.join(found)}"
    return f"(SELECT {shown} FROM ({counted}) n LEFT JOIN ({ordered}) o ON {alike} GROUP BY ALL)"


# --- by bins ------------------------------------------------------------------------------------------------------


def _by_bins(numbers: Numbers, shares: Sequence[float], table: str) -> str:
    """Which bin holds the place of each quantile is counted; what is held are the values between its edges. The others
    of a bin equal its upper edge, and NaN, which is above all, lies in no bin."""
    rows = f"(SELECT {numbers.value} AS __v FROM {table} WHERE {numbers.where})"
    bins = (
        f"__counted AS MATERIALIZED (SELECT count(*) - 1 AS __last, histogram(__v, __edges) "
        f"FILTER (WHERE NOT isnan(__v)) AS __bins FROM {rows}, {_edges(rows)})"
    )
    of_share, held, found = [], [], []
    for place, share in enumerate(shares):
        inside = f"FILTER (WHERE __before <= floor({_at(share)}) AND floor({_at(share)}) < __before + __n)"
        of_share += [f"any_value({one}) {inside} AS {one}{place}" for one in ("__from", "__to", "__before", "__n")]
        held.append(f"list_sort(list(__v) FILTER (WHERE __v > __from{place} AND __v < __to{place})) AS __held{place}")
        held.append(f"min(__v) FILTER (WHERE __v > __to{place}) AS __above{place}")
        at = f"(floor({_at(share)})::BIGINT - __before{place})"
        found += [f"{_value(place, at)} AS __low{place}", f"{_value(place, f'({at} + 1)')} AS __next{place}"]
    chosen = f"__chosen AS MATERIALIZED (SELECT {', '.join(of_share)} FROM {_CUMULATED})"
    kept = f"(SELECT {', '.join(held)} FROM {rows}, __chosen)"
    shown = [
        f"__low{place}, CASE WHEN {_at(share)} = floor({_at(share)}) THEN __low{place} ELSE __next{place} END "
        f"AS __high{place}"
        for place, share in enumerate(shares)
    ]
    each = f"SELECT __last, {', '.join(found)} FROM {kept}, __chosen, __counted"
    return f"(WITH {bins}, {chosen} SELECT __last, {', '.join(shown)} FROM ({each}))"


def _edges(rows: str) -> str:
    """Edges between which lie about as many values; infinities are edges, so that of them none is held."""
    shares = ", ".join(repr(place / (_EDGES + 1)) for place in range(1, _EDGES + 1))
    sample = f"(SELECT * FROM (SELECT * FROM {rows} WHERE isfinite(__v)) USING SAMPLE reservoir({_SAMPLE_ROWS} ROWS))"
    listed = f"list_concat(['-inf'::DOUBLE, 'inf'::DOUBLE], quantile_disc(__v, [{shares}]))"
    return f"(SELECT {listed} AS __edges FROM {sample})"


_CUMULATED = (
    "(SELECT __last, __to, __n, (sum(__n) OVER w)::BIGINT - __n AS __before, "
    "coalesce(lag(__to) OVER w, '-inf'::DOUBLE) AS __from "
    "FROM (SELECT __last, unnest(map_keys(__bins)) AS __to, unnest(map_values(__bins))::BIGINT AS __n FROM __counted) "
    "WHERE __n > 0 WINDOW w AS (ORDER BY __to))"
)


def _value(place: int, at: str) -> str:
    """The value at a place within the bin of a share, or the next above the bin."""
    return (
        f"CASE WHEN __last < 0 THEN NULL WHEN __n{place} IS NULL THEN 'nan'::DOUBLE "
        f"ELSE coalesce(__held{place}[{at} + 1], CASE WHEN {at} < __n{place} THEN __to{place} END, __above{place}) END"
    )
