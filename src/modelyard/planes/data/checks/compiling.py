"""Every check as a question over columns of given types. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from modelyard.planes.data.checks.distributions import distribution
from modelyard.planes.data.checks.divergence import divergence
from modelyard.planes.data.checks.pairs import monotonic, own_sql, references, spread, unique
from modelyard.planes.data.checks.question import Context, Question
from modelyard.planes.data.checks.rows import row_wise
from modelyard.planes.data.checks.texts import parses
from modelyard.planes.data.checks.values import Unfit, is_float
from modelyard.planes.data.checks.verdicts import name_of, result
from modelyard.planes.data.checks.wholes import (
    broken_structure,
    distinct_values,
    freshness,
    quantiles,
    row_count,
    statistic,
)
from modelyard.types.checks import (
    Check,
    ColumnCount,
    ColumnExists,
    Columns,
    ColumnType,
    DistinctValues,
    Distribution,
    Divergence,
    Finite,
    Freshness,
    Monotonic,
    MostCommon,
    NotNull,
    Outliers,
    Parses,
    Quantiles,
    References,
    RowCount,
    RowCountMatches,
    Sql,
    Statistic,
    Unique,
    Unsupported,
    ZScore,
)

_WITHOUT_SLICES = ColumnType | Columns | ColumnExists | ColumnCount | Sql | RowCountMatches | Unsupported


def compile_check(check: Check, context: Context) -> Question:
    """A check as SQL; one that does not fit the columns becomes an error verdict."""
    try:
        if check.by:
            if isinstance(check, _WITHOUT_SLICES) or (isinstance(check, Distribution) and check.measure == "ks"):
                raise Unfit(f"`by` cannot be used with {check.__struct_config__.tag}")
            context.kind(check.by)
        return _compile(check, context)
    except Unfit as unfit:
        return Question(check, verdict=result(check, "error", message=str(unfit)))


def _compile(check: Check, context: Context) -> Question:
    match check:
        case ColumnType() | Columns() | ColumnExists() | ColumnCount():
            observed, wrong = broken_structure(check, dict(context.columns))
            found = result(check, "failed" if wrong else "passed", message=wrong, observed=observed)
            return Question(check, verdict=found)
        case Unsupported():
            return Question(check, verdict=replace(result(check, "error", message=check.reason)))
        case RowCount() | RowCountMatches():
            return row_count(check, context)
        case Freshness():
            return freshness(check, context)
        case Statistic():
            return statistic(check, context)
        case Quantiles():
            return quantiles(check, context)
        case DistinctValues() | MostCommon():
            return distinct_values(check, context)
        case Distribution():
            return distribution(check, context)
        case Divergence():
            return divergence(check, context)
        case Parses():
            return parses(check, context)
        case Unique():
            return unique(check, context)
        case References():
            return references(check, context)
        case Monotonic():
            return monotonic(check, context)
        case ZScore() | Outliers():
            return spread(check, context)
        case Sql():
            return own_sql(check, context)
        case _:
            return row_wise(check, context)


def implied_by_key(key: Sequence[str], columns: Mapping[str, str]) -> list[Check]:
    """What holds of key columns without being said: no null, no NaN, no infinity."""
    floats = [column for column in key if is_float(columns.get(column, ""))]
    return [
        *(NotNull(name=f"key column '{column}' has no null", column=column) for column in key),
        *(Finite(name=f"key column '{column}' is finite", column=column) for column in floats),
    ]


__all__ = ["compile_check", "implied_by_key", "name_of"]
