"""Distances of a column from a reference distribution. Pure: SQL out, numbers in.

A column of numbers is cut at edges at which the reference has equal weight; the rows at or below each edge are counted,
so that counts add up over parts of a table. A column of texts is counted by the reference's own values, and the rest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import msgspec

from modelyard.engines.tables.sql import literal, quoted
from modelyard.planes.data.checks.question import (
    Context,
    Measure,
    Provided,
    Question,
    Values,
    condition,
    every,
    filtered,
)
from modelyard.planes.data.checks.ranks import Numbers, linear
from modelyard.planes.data.checks.values import Unfit, is_float, is_number
from modelyard.types.checks import Distribution

SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)
CATEGORIES_MAX = 100
# A share of no rows at all would make the index infinite.
_SHARE_MIN = 1e-4


def fact_statement(check: Distribution, column_kind: str, provided: Provided) -> str:
    """The SELECT over the reference's table of what must be known before its own rows are counted."""
    table = provided.table
    name = quoted(check.column)
    if not is_number(column_kind):
        return (
            f"SELECT list(v) AS categories FROM (SELECT {name}::VARCHAR AS v, count(*) AS n FROM {table} "
            f"WHERE {name} IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {CATEGORIES_MAX})"
        )
    finite = f"isfinite({name})" if is_float(column_kind) else f"{name} IS NOT NULL"
    edges = [place / check.bins for place in range(1, check.bins)]
    found = linear(Numbers(f"{name}::DOUBLE", finite, "", provided.rows), [*SHARES, *edges])
    moments = f"avg({name}::DOUBLE){filtered(finite)} AS mean, stddev_pop({name}::DOUBLE){filtered(finite)} AS std"
    return (
        f"SELECT q[{len(SHARES) + 1}:] AS edges, q[:{len(SHARES)}] AS quantiles, mean, std "
        f"FROM (SELECT {found.linear} AS q FROM {found.source(table)}), (SELECT {moments} FROM {table})"
    )


def facts_of(found: Values) -> Values:
    """What the reference's SELECT, its profile or the check itself says, in one form."""
    edges = sorted({one for one in found.get("edges") or [] if one is not None and math.isfinite(one)})
    return {**found, "edges": edges}


def count_statement(check: Distribution, kind: str, facts: Values, table: str) -> str:
    """The SELECT over the reference's table of how many of its rows lie in each bin."""
    terms = [f"{measure.sql} AS {name}" for name, measure in _bins(check, kind, facts, "").items()]
    return f"SELECT {', '.join(terms)} FROM {table}"


def inline_facts(check: Distribution) -> Values | None:
    """The reference that the check itself holds; None where it names a table or profile."""
    reference = check.reference
    if not reference.weights:
        return None
    total = math.fsum(reference.weights)
    if total <= 0 or any(weight < 0 or not math.isfinite(weight) for weight in reference.weights):
        raise Unfit("the weights of the reference must not be negative, and some must be positive")
    if check.measure not in ("psi", "chi_square"):
        raise Unfit(f"{check.measure} needs a version as reference; weights are enough for psi and chi_square only")
    if reference.values:
        if len(reference.values) != len(reference.weights):
            raise Unfit("the reference has another number of weights than of values")
        texts = [str(one) if not isinstance(one, bool) else str(one).lower() for one in reference.values]
        return {"categories": texts, "expected": [*(one / total for one in reference.weights), 0.0], "edges": []}
    edges = reference.bins
    if len(edges) != len(reference.weights) + 1 or any(a >= b for a, b in pairwise(edges)):
        raise Unfit("a reference of n weights has n + 1 bins, each greater than the one before")
    inner = edges[1:-1]
    return {"edges": inner, "expected": [one / total for one in reference.weights]}


def distribution(check: Distribution, context: Context) -> Question:
    """The column's counts by bin, beside the reference's."""
    kind = context.kind(check.column)
    facts = context.facts.get(check_key(check))
    if facts is None:
        raise Unfit("the reference of the distribution is not there")
    if "error" in facts:
        raise Unfit(str(facts["error"]))
    if check.max is None and check.p_min is None:
        raise Unfit("a distribution needs `max` or, for ks and chi_square, `p_min`")
    if check.p_min is not None and check.measure not in ("ks", "chi_square"):
        raise Unfit(f"{check.measure} has no p-value; give `max`")
    if check.measure in ("ks", "mean", "quantiles") and not is_number(kind):
        raise Unfit(f"column '{check.column}' is {kind}, not a number")
    name = quoted(check.column)
    finite = filtered(condition(check), f"isfinite({name})" if is_float(kind) else "")
    match check.measure:
        case "psi" | "chi_square":
            return Question(check, check.of, measures=_bins(check, kind, facts, condition(check)), facts=facts)
        case "mean":
            moments = (
                f"struct_pack(n := count({name}){finite}, mean := avg({name}::DOUBLE){finite}, variance := 0.0::DOUBLE)"
            )
            return Question(check, check.of, measures={"moments": Measure(moments, "moments")}, facts=facts)
        case "quantiles":
            numbers = every(condition(check), f"isfinite({name})" if is_float(kind) else f"{name} IS NOT NULL")
            found = linear(Numbers(f"{name}::DOUBLE", numbers, check.by, context.rows), SHARES)
            quantiles = {"quantiles": Measure(found.linear, "rescan")}
            return Question(check, check.of, found.source, quantiles, alone=True, facts=facts)
        case "ks":
            return _ks(check, kind, facts)


def check_key(check: Distribution) -> str:
    """Under which name a context holds what is known of the reference of a check."""
    return msgspec.json.encode(check).decode()


def _bins(check: Distribution, kind: str, facts: Values, where: str) -> dict[str, Measure]:
    name = quoted(check.column)
    if "categories" in facts and not (is_number(kind) and facts.get("edges")):
        text = f"{name}::VARCHAR"
        counts = {
            f"at{place}": Measure(f"count_if({every(where, f'{text} = {literal(value)}')})")
            for place, value in enumerate(facts["categories"])
        }
        return counts | {"present": Measure(f"count_if({every(where, f'{name} IS NOT NULL')})")}
    if not is_number(kind):
        raise Unfit(f"column '{check.column}' is {kind}, and the reference's bins are numbers")
    numbers = f"{name} IS NOT NULL" + (f" AND NOT isnan({name})" if is_float(kind) else "")
    counts = {
        f"to{place}": Measure(f"count_if({every(where, f'{name} <= {edge!r}::DOUBLE')})")
        for place, edge in enumerate(facts["edges"])
    }
    return counts | {"present": Measure(f"count_if({every(where, numbers)})")}


def bin_counts(values: Values, facts: Values) -> list[int]:
    """Rows in each bin, from the counts that `_bins` asked for."""
    if "at0" in values or ("categories" in facts and "to0" not in values):
        listed = [int(values[f"at{place}"] or 0) for place in range(len(facts["categories"]))]
        return [*listed, int(values["present"] or 0) - sum(listed)]
    up_to = [int(values[f"to{place}"] or 0) for place in range(len(facts["edges"]))]
    bounds = [0, *up_to, int(values["present"] or 0)]
    return [high - low for low, high in pairwise(bounds)]


def _ks(check: Distribution, kind: str, facts: Values) -> Question:
    name, reference = quoted(check.column), facts["table"]
    finite = f"isfinite({name})" if is_float(kind) else f"{name} IS NOT NULL"
    own = every(condition(check), finite)

    def source(table: str) -> str:
        both = (
            f"SELECT {name}::DOUBLE AS v, 1 AS a, 0 AS b FROM {table} WHERE {own} UNION ALL "
            f"SELECT {name}::DOUBLE, 0, 1 FROM {reference} WHERE {finite}"
        )
        grouped = f"SELECT v, sum(a) AS a, sum(b) AS b FROM ({both}) GROUP BY v"
        running = (
            "SELECT sum(a) OVER (ORDER BY v) AS a, sum(b) OVER (ORDER BY v) AS b, "
            "sum(a) OVER () AS na, sum(b) OVER () AS nb"
        )
        return f"({running} FROM ({grouped}))"

    measures = {
        "distance": Measure("max(abs(a / na - b / nb))", "rescan"),
        "present": Measure("coalesce(max(na), 0)::BIGINT", "rescan"),
        "reference": Measure("coalesce(max(nb), 0)::BIGINT", "rescan"),
    }
    return Question(check, check.of, source, measures, alone=True, facts=facts)


# --- numbers ------------------------------------------------------------------------------------------------------


def psi(found: Sequence[int], expected: Sequence[float]) -> float | None:
    """The population stability index of counts against shares; None of no rows."""
    total = sum(found)
    if not total:
        return None
    pairs = [
        (max(count / total, _SHARE_MIN), max(share, _SHARE_MIN))
        for count, share in zip(found, expected, strict=True)
        if count or share
    ]
    return math.fsum((a - b) * math.log(a / b) for a, b in pairs)


def chi_square(found: Sequence[int], expected: Sequence[float], rows: int | None) -> tuple[float, float] | None:
    """The statistic and its p-value: of counts against shares, or where the shares are those of a sample of `rows`
    against that sample; None of no rows. A bin that neither has is left out."""
    total = sum(found)
    if not total:
        return None
    kept = [(count, share) for count, share in zip(found, expected, strict=True) if count or share]
    if rows is None:
        if any(share == 0 for _, share in kept):
            return math.inf, 0.0
        statistic = math.fsum((count - total * share) ** 2 / (total * share) for count, share in kept)
    else:
        statistic = 0.0
        for count, share in kept:
            both = count + share * rows
            for seen, size in ((count, total), (share * rows, rows)):
                wanted = both * size / (total + rows)
                statistic += (seen - wanted) ** 2 / wanted
    return statistic, chi_square_tail(statistic, len(kept) - 1)


def chi_square_tail(statistic: float, degrees: int) -> float:
    """The probability of a greater chi-square statistic: the upper regularized incomplete gamma function."""
    if degrees < 1 or statistic <= 0:
        return 1.0
    a, x = degrees / 2, statistic / 2
    if not math.isfinite(x):
        return 0.0
    scale = math.exp(a * math.log(x) - x - math.lgamma(a))
    if x < a + 1:
        term = total = 1 / a
        step = a
        while abs(term) > abs(total) * 1e-16:
            step += 1
            term *= x / step
            total += term
        return min(max(1 - total * scale, 0.0), 1.0)
    b = x + 1 - a
    c, d = 1 / 1e-300, 1 / b
    fraction = d
    for step in range(1, 10_000):
        factor = -step * (step - a)
        b += 2
        d = 1 / (factor * d + b or 1e-300)
        c = b + factor / c or 1e-300
        change = d * c
        fraction *= change
        if abs(change - 1) < 1e-15:
            break
    return min(max(fraction * scale, 0.0), 1.0)


def ks_tail(distance: float, rows: int, other: int) -> float:
    """The probability of a greater distance between two samples of one distribution, by Kolmogorov's limit."""
    if not rows or not other:
        return 1.0
    root = math.sqrt(rows * other / (rows + other))
    x = (root + 0.12 + 0.11 / root) * distance
    if x < 0.2:
        return 1.0
    terms = (2 * (-1) ** (k - 1) * math.exp(-2 * k * k * x * x) for k in range(1, 101))
    return min(max(math.fsum(terms), 0.0), 1.0)
