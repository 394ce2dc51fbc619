"""What must be known of other tables before a check can be asked: which it refers to, and what those hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from modelyard.kernel.errors import InvalidInput, LimitExceeded
from modelyard.planes.data.checks.distributions import (
    bin_counts,
    check_key,
    count_statement,
    fact_statement,
    facts_of,
    inline_facts,
)
from modelyard.planes.data.checks.question import Context, Provided, Values, reference_key
from modelyard.planes.data.checks.states import State
from modelyard.planes.data.checks.values import Unfit, is_number
from modelyard.types.checks import Check, Distribution, References, RowCountMatches, Sql


class OneRow(Protocol):
    """What is needed of SQL."""

    def one(self, statement: str) -> dict[str, Any]: ...


def tables_of(check: Check) -> list[tuple[str, str]]:
    """The datasets, each with its reference, whose rows a check reads besides its own; '' is the dataset itself."""
    match check:
        case References() | RowCountMatches():
            return [(check.dataset, check.ref)]
        case Sql():
            parted = (wanted.partition("@") for wanted in check.tables.values())
            return [(dataset, ref) for dataset, _, ref in parted]
        case Distribution(reference=reference) if not reference.weights and not reference.profile:
            return [(reference.dataset, reference.version)]
        case _:
            return []


def profiles_of(check: Check) -> list[tuple[str, str]]:
    """The datasets, each with its reference, of whose profile alone a check wants to know."""
    if isinstance(check, Distribution) and check.reference.profile:
        return [(check.reference.dataset, check.reference.version)]
    return []


def refers_to_fixed(check: Check) -> bool:
    """Whether a check refers to nothing that becomes another when a dataset gets a version."""
    return all(ref.isdecimal() for _, ref in (*tables_of(check), *profiles_of(check)))


def provided_of(check: Check, provided: Mapping[str, Provided]) -> list[Provided]:
    """Those of the tables that a check refers to."""
    named = (provided.get(reference_key(*one)) for one in (*tables_of(check), *profiles_of(check)))
    return [one for one in named if one is not None]


def gather_facts(
    session: OneRow,
    checks: Sequence[Check],
    keys: Sequence[str],
    context: Context,
    states: Mapping[str, State],
    profiles: Mapping[str, Values],
) -> dict[str, Values]:
    """What is known of references. What a state remembers of one is not asked again."""
    facts: dict[str, Values] = {}
    for check, key in zip(checks, keys, strict=True):
        try:
            if isinstance(check, RowCountMatches):
                table = context.table(check.dataset, check.ref).table
                facts[table] = session.one(f"SELECT count(*) AS rows FROM {table}")
            elif isinstance(check, Distribution):
                kept = states[key].facts if key in states else {}
                facts[check_key(check)] = kept or _distribution_facts(session, check, context, profiles)
        except (Unfit, InvalidInput, LimitExceeded) as error:
            facts[check_key(check) if isinstance(check, Distribution) else ""] = {"error": str(error)}
    return facts


def _distribution_facts(
    session: OneRow, check: Distribution, context: Context, profiles: Mapping[str, Values]
) -> Values:
    kind = context.kind(check.column)
    inline = inline_facts(check)
    if inline is not None:
        return inline
    reference = check.reference
    if reference.profile:
        return _profile_facts(check, profiles.get(reference_key(reference.dataset, reference.version)))
    provided = context.table(reference.dataset, reference.version)
    other = provided.columns.get(check.column)
    if other is None or is_number(other) != is_number(kind):
        raise Unfit(f"the reference has no column '{check.column}' that compares with {kind}")
    if check.measure == "ks":
        return {"table": provided.table}
    facts = facts_of(session.one(fact_statement(check, kind, provided)))
    if check.measure in ("mean", "quantiles"):
        return facts
    counts = bin_counts(session.one(count_statement(check, kind, facts, provided.table)), facts)
    total = sum(counts)
    if not total:
        raise Unfit(f"the reference has no values in column '{check.column}'")
    return {**facts, "expected": [count / total for count in counts], "rows": total}


def _profile_facts(check: Distribution, profile: Values | None) -> Values:
    if profile is None or check.column not in profile:
        raise Unfit(f"the profile of the reference has no column '{check.column}'")
    known = profile[check.column]
    if check.measure in ("chi_square", "ks"):
        raise Unfit(f"{check.measure} needs the rows of the reference, not its profile")
    quantiles = known.get("quantiles") or {}
    if check.measure in ("psi", "quantiles") and len(quantiles) < 2:
        raise Unfit(f"the profile of the reference has no quantiles of column '{check.column}'")
    shares = sorted(quantiles, key=float)
    edges: list[float] = []
    expected: list[float] = []
    below = 0.0
    for share in shares:
        if edges and quantiles[share] <= edges[-1]:
            # Two quantiles at one value make one edge, below which lies the greater share.
            expected[-1] += float(share) - below
        else:
            edges.append(quantiles[share])
            expected.append(float(share) - below)
        below = float(share)
    return {
        "edges": edges,
        "expected": [*expected, 1 - below],
        "quantiles": [quantiles[share] for share in shares],
        "mean": known.get("mean"),
        "std": known.get("std"),
    }
