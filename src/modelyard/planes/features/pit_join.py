"""The point-in-time join as SQL: a pure function from bound feature views to one DuckDB SELECT.

The rule, for an entity at instant `t`: a row counts if `event_time <= t`, `known_at <= t`, `event_time > t - window`.
So a row counts for exactly the instants of one half-open interval, `[max(event_time, known_at), event_time + window)`,
and rows that became known later than `window` after they happened never count. Sums and counts over the counting rows
are therefore a step function of `t` that rises where an interval starts and falls where it ends: one running sum per
view and window, and one ASOF join to look it up. Nothing is counted twice, nothing is approximated, and the cost does
not depend on how many rows a window holds. Minimum and maximum have no inverse, so they join the rows themselves, in
tiles of time as long as the window.

Sums are taken in integers, so that they are exact and the same in every order of rows: a float is split into a whole
number of 2^-20 and a rest in 2^-100, which loses nothing of a double between 1e-14 and 1e23.

Ties: the latest row is the greatest by (event_time, known_at, then the columns in their order, null first).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from modelyard.types.features import Aggregate

Kind = Literal["integer", "float", "boolean", "instant", "date", "text", "other"]

ENTITIES = "__entities"
"""The table that the statement joins to: `nth` 0, 1, 2, …; `t`, microseconds since 1970; and `e0`, `e1`, … the keys."""

_SECOND_US = 1_000_000
_FLOAT_MAX = "1e22"
SUMMING = frozenset({"count", "sum", "mean", "rate"})


@dataclass(frozen=True, slots=True)
class JoinView:
    """One view, bound to a relation whose columns are known to exist with these kinds.

    `relation` is SQL that stands in a FROM; `keys` pairs the view's entity columns with columns of the entity table.
    """

    relation: str
    keys: tuple[tuple[str, str], ...]
    event_time: str
    known_at: str
    columns: tuple[str, ...]
    ttl_s: int | None
    aggregates: tuple[Aggregate, ...]
    kinds: Mapping[str, Kind]
    outputs: Mapping[str, str]
    """The output column of each feature that is wanted, by the feature's name."""


def compile_join(views: Sequence[JoinView]) -> str:
    """One SELECT that gives, for each row of `__entities` in its order, the wanted features of all views."""
    ctes: list[str] = []
    features: list[str] = []
    joins: list[str] = []
    for number, view in enumerate(views):
        part = _ViewCompiler(number, view)
        part.compile()
        ctes += part.ctes
        features += part.features
        joins += part.joins
    body = (
        f"SELECT {', '.join(features)}\nFROM {ENTITIES} AS s\n"
        + "\n".join(f"JOIN {name} USING (nth)" for name in joins)
        + "\nORDER BY nth"
    )
    return "WITH " + ",\n".join(ctes) + "\n" + body


class _ViewCompiler:
    def __init__(self, number: int, view: JoinView) -> None:
        self.view = view
        self.source = f"__source{number}"
        self.number = number
        self.ctes: list[str] = []
        self.features: list[str] = []
        self.joins: list[str] = []
        self.wanted = tuple(item for item in view.aggregates if item.feature in view.outputs)
        self.latest = tuple(name for name in view.columns if name in view.outputs)
        used = {item.column for item in self.wanted if item.column} | set(self.latest)
        self.slots = {name: f"c{index}" for index, name in enumerate(sorted(used))}
        self.keys = ", ".join(f"k{index}" for index in range(len(view.keys)))

    def compile(self) -> None:
        self._source()
        if self.latest:
            self._latest()
        windows = sorted({item.window_s for item in self.wanted})
        for window_s in windows:
            inside = [item for item in self.wanted if item.window_s == window_s]
            summing = [item for item in inside if item.function in SUMMING]
            extreme = [item for item in inside if item.function not in SUMMING]
            if summing:
                self._running_sums(window_s, summing)
            if extreme:
                self._extremes(window_s, extreme)

    def _source(self) -> None:
        """The rows that may count for somebody, with times as microseconds."""
        view = self.view
        keys = [f"{_name(column)} AS k{index}" for index, (column, _) in enumerate(view.keys)]
        values = [f"{_name(column)} AS {slot}" for column, slot in self.slots.items()]
        times = [
            f"epoch_us({_name(view.event_time)}) AS event",
            f"epoch_us({_name(view.known_at)}) AS known",
        ]
        present = [f"k{index} IS NOT NULL" for index in range(len(view.keys))]
        self.ctes.append(
            f"{self.source} AS MATERIALIZED (\n"
            f"  SELECT *, greatest(event, known) AS starts\n"
            f"  FROM (SELECT {', '.join([*keys, *times, *values])} FROM {view.relation})\n"
            f"  WHERE {' AND '.join([*present, 'event IS NOT NULL', 'known IS NOT NULL'])}\n"
            f"    AND greatest(event, known) <= (SELECT max(t) FROM {ENTITIES})\n)"
        )

    def _latest(self) -> None:
        """Values of the latest row: a row is looked up only if it was the latest at the moment that it came in."""
        slots = [self.slots[name] for name in self.latest]
        order = ", ".join(["event", "known", *(f"{slot} NULLS FIRST" for slot in slots)])
        records, part = f"__records{self.number}", f"__latest{self.number}"
        self.ctes.append(
            f"{records} AS (\n"
            f"  SELECT {self.keys}, starts, event, {', '.join(slots)} FROM (\n"
            f"    SELECT *, max(place) OVER (PARTITION BY {self.keys} ORDER BY starts) AS best FROM (\n"
            f"      SELECT *, row_number() OVER (PARTITION BY {self.keys} ORDER BY {order}) AS place\n"
            f"      FROM {self.source}\n"
            f"    )\n  ) WHERE place = best\n)"
        )
        fresh = "true" if self.view.ttl_s is None else f"r.event > s.t - {self.view.ttl_s * _SECOND_US}"
        values = ", ".join(f"CASE WHEN {fresh} THEN r.{slot} END AS {slot}" for slot in slots)
        self._look_up(part, records, values, "starts")
        for name, slot in zip(self.latest, slots, strict=True):
            self._feature(name, f"{part}.{slot}")

    def _running_sums(self, window_s: int, aggregates: Sequence[Aggregate]) -> None:
        sums = _Sums(self.view.kinds, self.slots)
        features = [(item.feature, sums.feature(item)) for item in aggregates]
        names = [f"a{index}" for index in range(len(sums.terms))]
        active, running, part = (f"__{word}{self.number}_{window_s}" for word in ("active", "running", "sums"))
        terms = ", ".join(f"{term} AS {name}" for term, name in zip(sums.terms, names, strict=True))
        self.ctes.append(
            f"{active} AS (\n"
            f"  SELECT {self.keys}, starts, event + {window_s * _SECOND_US} AS ends, {terms}\n"
            f"  FROM {self.source} WHERE starts < event + {window_s * _SECOND_US}\n)"
        )
        rises, falls = ", ".join(names), ", ".join(f"-{name}" for name in names)
        steps = ", ".join(f"sum({name}) AS {name}" for name in names)
        totals = ", ".join(f"sum({name}) OVER so_far AS {name}" for name in names)
        self.ctes.append(
            f"{running} AS (\n"
            f"  SELECT {self.keys}, moment, {totals} FROM (\n"
            f"    SELECT {self.keys}, moment, {steps} FROM (\n"
            f"      SELECT {self.keys}, starts AS moment, {rises} FROM {active}\n"
            f"      UNION ALL SELECT {self.keys}, ends, {falls} FROM {active}\n"
            f"    ) GROUP BY {self.keys}, moment\n"
            f"  ) WINDOW so_far AS (PARTITION BY {self.keys} ORDER BY moment ROWS UNBOUNDED PRECEDING)\n)"
        )
        self._look_up(part, running, ", ".join(f"coalesce(r.{name}, 0) AS {name}" for name in names), "moment")
        for feature, expression in features:
            self._feature(feature, expression.replace("@", f"{part}.a"))

    def _extremes(self, window_s: int, aggregates: Sequence[Aggregate]) -> None:
        window_us = window_s * _SECOND_US
        tiles, part = f"__tiles{self.number}_{window_s}", f"__extremes{self.number}_{window_s}"
        slots = sorted({self.slots[item.column] for item in aggregates})
        self.ctes.append(
            f"{tiles} AS (\n"
            f"  SELECT {self.keys}, starts, event + {window_us} AS ends, {', '.join(slots)},\n"
            f"    unnest(range(starts // {window_us}, (event + {window_us} - 1) // {window_us} + 1)) AS tile\n"
            f"  FROM {self.source} WHERE starts < event + {window_us}\n)"
        )
        finite = {self.slots[item.column]: self.view.kinds[item.column] == "float" for item in aggregates}
        values = ", ".join(
            f"{item.function}({_finite(f'r.{slot}') if finite[slot] else f'r.{slot}'}) AS x{index}"
            for index, item in enumerate(aggregates)
            for slot in [self.slots[item.column]]
        )
        on = " AND ".join([self._on(), f"s.t // {window_us} = r.tile", "r.starts <= s.t", "s.t < r.ends"])
        self.ctes.append(
            f"{part} AS (\n  SELECT s.nth, {values}\n"
            f"  FROM {ENTITIES} AS s LEFT JOIN {tiles} AS r ON {on}\n  GROUP BY s.nth\n)"
        )
        self.joins.append(part)
        for index, item in enumerate(aggregates):
            self._feature(item.feature, f"{part}.x{index}")

    def _look_up(self, part: str, steps: str, values: str, moment: str) -> None:
        self.ctes.append(
            f"{part} AS (\n  SELECT s.nth, {values}\n"
            f"  FROM {ENTITIES} AS s ASOF LEFT JOIN {steps} AS r ON {self._on()} AND s.t >= r.{moment}\n)"
        )
        self.joins.append(part)

    def _on(self) -> str:
        return " AND ".join(f"s.{entity} = r.k{index}" for index, (_, entity) in enumerate(self.view.keys))

    def _feature(self, name: str, expression: str) -> None:
        self.features.append(f"{expression} AS {_name(self.view.outputs[name])}")


class _Sums:
    """The integer terms that running sums are kept of, shared between aggregates. In a feature's SQL `@3` is term 3."""

    def __init__(self, kinds: Mapping[str, Kind], slots: Mapping[str, str]) -> None:
        self.kinds = kinds
        self.slots = slots
        self.terms: list[str] = []

    def feature(self, item: Aggregate) -> str:
        """The SQL of an aggregate over terms."""
        count = self._count(item.column)
        if item.function == "count":
            return f"CAST({count} AS BIGINT)"
        total = self._total(item.column)
        if item.function == "sum":
            if self.kinds[item.column] in ("integer", "boolean"):
                total = f"CAST({total} AS BIGINT)"
            return f"CASE WHEN {count} > 0 THEN {total} END"
        return f"CASE WHEN {count} > 0 THEN CAST({total} AS DOUBLE) / CAST({count} AS DOUBLE) END"

    def _count(self, column: str) -> str:
        if not column:
            return self._term("CAST(1 AS BIGINT)")
        slot = self.slots[column]
        present = _finite(slot) if self.kinds[column] == "float" else slot
        return self._term(f"CAST({present} IS NOT NULL AS BIGINT)")

    def _total(self, column: str) -> str:
        slot = self.slots[column]
        if self.kinds[column] == "boolean":
            return self._term(f"CAST(coalesce({slot}, false) AS BIGINT)")
        if self.kinds[column] == "integer":
            return self._term(f"CAST(coalesce({slot}, 0) AS HUGEINT)")
        value = f"coalesce({_finite(slot)}, 0.0::DOUBLE)"
        whole = f"round({value} * 1048576.0)"
        high = self._term(
            f"CASE WHEN abs({value}) <= {_FLOAT_MAX} THEN CAST({whole} AS HUGEINT)"
            f" ELSE CAST(error('a value beyond {_FLOAT_MAX} cannot be summed exactly') AS HUGEINT) END"
        )
        low = self._term(
            f"CAST(CASE WHEN abs({value}) < 8e9 THEN round(({value} - {whole} / 1048576.0) * pow(2.0, 100)) ELSE 0 END"
            " AS HUGEINT)"
        )
        return f"(CAST({high} AS DOUBLE) / 1048576.0 + CAST({low} AS DOUBLE) / pow(2.0, 100))"

    def _term(self, expression: str) -> str:
        if expression not in self.terms:
            self.terms.append(expression)
        return f"@{self.terms.index(expression)}"


def _finite(expression: str) -> str:
    """The float as a double, or null where it is NaN or infinite."""
    return f"(CASE WHEN isfinite(CAST({expression} AS DOUBLE)) THEN CAST({expression} AS DOUBLE) END)"


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
