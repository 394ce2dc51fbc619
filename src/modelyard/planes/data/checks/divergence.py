"""The Kullback-Leibler divergence of a column from a partition, counted as Great Expectations counts it. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from operator import mul

from modelyard.engines.tables.sql import quoted
from modelyard.planes.data.checks.question import (
    Context,
    Measure,
    Question,
    Values,
    condition,
    count_of,
    every,
    filtered,
    present,
    values_of,
)
from modelyard.planes.data.checks.values import Unfit, fitting, is_number
from modelyard.types.checks import Divergence


def divergence(check: Divergence, context: Context) -> Question:
    """Counts by bin, below and above them; or by value, and of each value that the partition does not have."""
    kind, name = context.kind(check.column), quoted(check.column)
    _need_partition(check)
    has_value = present(check.column, context, check)
    total = count_of(check, has_value)
    if check.partition.values:
        where = every(condition(check), f"({has_value})")
        listed = [fitting([value], kind, check.column) for value in check.partition.values]
        known = [one[0] for one in listed if one]
        measures = {
            f"at{place}": Measure(
                f"coalesce(sum(__n){filtered(f'__v = {one[0]}')}, 0)::BIGINT" if one else "0", "rescan"
            )
            for place, one in enumerate(listed)
        }
        others = filtered(f"__v NOT IN ({', '.join(known)})") if known else ""
        # How many values come how often: of many values there are few such numbers.
        measures["others"] = Measure(f"histogram(__n){others}", "rescan")
        source = values_of(check.column, check, where)
        return Question(check, check.of, source, measures, {"present": total}, alone=True)
    if not is_number(kind):
        raise Unfit(f"column '{check.column}' is {kind}, and the partition's bins are numbers")
    edges = check.partition.bins
    measures = {
        f"below{place}": count_of(check, every(has_value, f"{name} < {edge!r}::DOUBLE"))
        for place, edge in enumerate(edges)
    }
    measures["within"] = count_of(check, every(has_value, f"{name} <= {edges[-1]!r}::DOUBLE"))
    return Question(check, check.of, measures=measures | {"present": total})


def _need_partition(check: Divergence) -> None:
    partition = check.partition
    size = len(partition.values) if partition.values else len(partition.bins) - 1
    if size < 1 or size != len(partition.weights):
        raise Unfit("a partition has one weight for each value, or one for each interval between its bins")
    if abs(math.fsum(partition.weights) + math.fsum(check.tail_weights) - 1) > 1e-6:
        raise Unfit("the weights of a partition add up to 1")
    if any(low >= high for low, high in pairwise(partition.bins)) or not all(map(math.isfinite, partition.bins)):
        raise Unfit("bins are finite, and each is greater than the one before")
    if check.tail_weights and (check.tail_weight_holdout or len(check.tail_weights) != 2):
        raise Unfit("`tail_weights` are two, and exclude a `tail_weight_holdout`")
    if partition.values and check.internal_weight_holdout:
        raise Unfit("an internal weight holdout is for bins")


def observed_divergence(check: Divergence, values: Values) -> float:
    """The divergence, which may be infinite or NaN, from the counts."""
    total = int(values["present"] or 0)
    if not total:
        return math.nan
    if check.partition.values:
        found = [int(values[f"at{place}"] or 0) for place in range(len(check.partition.values))]
        others: dict[int, int] = values["others"] or {}
        held = check.tail_weight_holdout
        scale = 1 - held if others else 1.0
        each = held / sum(others.values()) if others else 0.0
        expected = [weight * scale for weight in check.partition.weights] + [each] * len(others)
        return entropy([*found, *others], expected, [1] * len(found) + list(others.values()))
    below = [int(values[f"below{place}"] or 0) for place in range(len(check.partition.bins))]
    within = int(values["within"] or 0)
    inner = [high - low for low, high in pairwise([*below[:-1], within])]
    scale = 1 - check.tail_weight_holdout - check.internal_weight_holdout
    weights = [weight * scale for weight in check.partition.weights]
    zeros = weights.count(0)
    if check.internal_weight_holdout and zeros:
        weights = [one or check.internal_weight_holdout / zeros for one in weights]
    tails = check.tail_weights or [check.tail_weight_holdout / 2] * 2
    return entropy([below[0], *inner, total - within], [tails[0], *weights, tails[1]])


def entropy(found: Sequence[float], expected: Sequence[float], times: Sequence[int] = ()) -> float:
    """The relative entropy of weights, each brought to a sum of 1. `times`: how often each comes, once without it."""
    often = times or [1] * len(found)
    sums = math.fsum(map(mul, found, often)), math.fsum(map(mul, expected, often))
    if not all(sums):
        return math.nan
    terms = []
    for one, other, count in zip(found, expected, often, strict=True):
        if one and not other:
            return math.inf
        if one:
            share = one / sums[0]
            terms.append(count * share * math.log(share / (other / sums[1])))
    return math.fsum(terms)
