"""The checks that a dataset can declare, one noun each. What they found is in `types/data`."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

Severity = Literal["block", "warn"]
Scalar = str | int | float | bool
Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[float, Meta(gt=0)]
Names = Annotated[list[str], Meta(min_length=1)]
Values = Annotated[list[Scalar], Meta(min_length=1)]
Scope = Literal["batch", "dataset"]
Semantics = Literal["sql", "pandas"]
IgnoreRow = Literal["any_null", "all_null", "never"]
Condition = Annotated[str, Meta(pattern=r"^\s*(=|==|!=|<>|<|<=|>|>=)\s*\d+\s*$")]


class Thresholds(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """From how many failing rows on a check blocks or warns, such as `> 10`; as dbt's `error_if` and `warn_if`.

    `count`: what is counted, for `unique` and `distinct_values` also distinct failing `values` in place of rows.
    """

    count: Literal["rows", "values"] = "rows"

    block_if: Condition = "!= 0"
    warn_if: Condition = "!= 0"


class Rule(Struct, frozen=True, kw_only=True, tag_field="check", omit_defaults=True, forbid_unknown_fields=True):
    """What all checks share.

    `where`: an SQL condition on the rows that the check looks at. `mostly`: the share of them that must pass.
    `severity`: whether a failure blocks the write or only warns. `by`: a column; each of its values is a slice of the
    rows that must pass alone. `semantics`: with `pandas` NaN counts as null, a value of another type than the
    column's equals none of it, and regular expressions mean what Python's do. `origin`: what a suite that was read
    in called it.
    """

    name: str = ""
    where: str = ""
    mostly: Share = 1.0
    severity: Severity = "block"
    by: str = ""
    thresholds: Thresholds | None = None
    semantics: Semantics = "sql"
    origin: str = ""


# --- one column, row by row ---------------------------------------------------------------------------------------


class NotNull(Rule, tag="not_null", frozen=True, kw_only=True):
    """No row of the batch has null here."""

    column: str


class IsNull(Rule, tag="is_null", frozen=True, kw_only=True):
    """Every row of the batch has null here."""

    column: str


class InSet(Rule, tag="in_set", frozen=True, kw_only=True):
    """Every value of the batch that is not null is one of these."""

    column: str
    values: list[Scalar]


class NotInSet(Rule, tag="not_in_set", frozen=True, kw_only=True):
    """No value of the batch is one of these."""

    column: str
    values: list[Scalar]


class Range(Rule, tag="range", frozen=True, kw_only=True):
    """Every value that is not null lies between these bounds, which belong to it unless `strict`. NaN lies nowhere.

    `strict_min` and `strict_max` leave out one bound alone.
    """

    column: str
    min: Scalar | None = None
    max: Scalar | None = None
    strict: bool = False
    strict_min: bool = False
    strict_max: bool = False


class Regex(Rule, tag="regex", frozen=True, kw_only=True):
    """Every value that is not null matches somewhere; anchor with ^ and $. The syntax is RE2: linear in time.

    Of several patterns `match` says whether `any` is enough or `all` must match. `negate`: no value may match.
    """

    column: str
    pattern: str | Names
    match: Literal["any", "all"] = "any"
    negate: bool = False


class Like(Rule, tag="like", frozen=True, kw_only=True):
    """Every value that is not null is like this SQL pattern (`%` any text, `_` one character). See `regex`."""

    column: str
    pattern: str | Names
    match: Literal["any", "all"] = "any"
    negate: bool = False


class Length(Rule, tag="length", frozen=True, kw_only=True):
    """Every text that is not null has so many characters."""

    column: str
    min: Count = 0
    max: Count | None = None


class Finite(Rule, tag="finite", frozen=True, kw_only=True):
    """No value is NaN or infinite."""

    column: str


class Parses(Rule, tag="parses", frozen=True, kw_only=True):
    """Every text that is not null can be read as JSON, as a date (python-dateutil), by a `strftime` format, or as JSON
    that fits a JSON schema (the package jsonschema). Asked of each distinct text once, in Python."""

    column: str
    form: Literal["json", "date", "strftime", "json_schema"]
    format: str = ""
    schema: str = ""


class Monotonic(Rule, tag="monotonic", frozen=True, kw_only=True):
    """Values that are not null rise (or fall) from row to row, in the order of `order_by`, else as they are stored."""

    column: str
    direction: Literal["increasing", "decreasing"] = "increasing"
    strictly: bool = False
    order_by: str = ""


class ZScore(Rule, tag="z_score", frozen=True, kw_only=True):
    """Every value is less than `threshold` standard deviations above the mean, or with `both_sides` away from it."""

    column: str
    threshold: float
    both_sides: bool = True


class Outliers(Rule, tag="outliers", frozen=True, kw_only=True):
    """No value is further than `multiplier` times the spread: from the quartiles (`iqr`), or from the mean (`std`)."""

    column: str
    method: Literal["iqr", "std"] = "iqr"
    multiplier: float = 1.5


# --- several columns, row by row ----------------------------------------------------------------------------------


class Compare(Rule, tag="compare", frozen=True, kw_only=True):
    """In every row the two columns compare so. `ignore_row_if`: which rows are left out for their nulls."""

    column: str
    operator: Literal["=", "!=", "<", "<=", ">", ">="]
    other: str
    ignore_row_if: IgnoreRow = "any_null"


class TuplesInSet(Rule, tag="tuples_in_set", frozen=True, kw_only=True):
    """In every row the values of these columns, taken together, are one of these tuples."""

    columns: Names
    values: Annotated[list[list[Scalar | None]], Meta(min_length=1)]
    ignore_row_if: IgnoreRow = "any_null"


class SumEquals(Rule, tag="sum_equals", frozen=True, kw_only=True):
    """In every row these columns add up to `total`."""

    columns: Names
    total: float
    ignore_row_if: IgnoreRow = "any_null"


class AllEqual(Rule, tag="all_equal", frozen=True, kw_only=True):
    """In every row these columns hold the same value, null counting as one."""

    columns: Names
    ignore_row_if: IgnoreRow = "all_null"


class DistinctWithinRow(Rule, tag="distinct_within_row", frozen=True, kw_only=True):
    """In every row these columns hold values that all differ, null counting as one."""

    columns: Names
    ignore_row_if: IgnoreRow = "all_null"


class Satisfies(Rule, tag="satisfies", frozen=True, kw_only=True):
    """Every row of the batch meets this SQL condition. A row for which it is null does not meet it."""

    condition: str
    column: str = ""


# --- rows against other rows --------------------------------------------------------------------------------------


class Unique(Rule, tag="unique", frozen=True, kw_only=True):
    """No two rows of the resulting dataset agree in all these columns; rows with a null in one of them are left out,
    or as `ignore_row_if` says; then two nulls agree."""

    columns: Names
    ignore_row_if: IgnoreRow = "any_null"


class References(Rule, tag="references", frozen=True, kw_only=True):
    """Every row's values in `columns` are those of some row of another dataset. `to`: its columns, by default of the
    same names. `ref`: its version, a number or a tag, by default the newest. Rows with a null are left out."""

    columns: Names
    dataset: str
    to: list[str] = []
    ref: str = ""
    to_where: str = ""


# --- the whole ----------------------------------------------------------------------------------------------------


class ColumnType(Rule, tag="column_type", frozen=True, kw_only=True):
    """The column is there with this type, written as Arrow writes it: `int64`, `string`, `timestamp[us, tz=UTC]`.
    Of several types one must be it."""

    column: str
    type: str | Names


class Columns(Rule, tag="columns", frozen=True, kw_only=True):
    """The table has these columns; unless `exact` is false no other ones, and with `ordered` in this order."""

    columns: list[str]
    exact: bool = True
    ordered: bool = False


class ColumnExists(Rule, tag="column_exists", frozen=True, kw_only=True):
    """The column is there, at this place (from 0) where one is given."""

    column: str
    index: Count | None = None


class ColumnCount(Rule, tag="column_count", frozen=True, kw_only=True):
    """The table has so many columns."""

    min: Count = 0
    max: Count | None = None


class RowCount(Rule, tag="row_count", frozen=True, kw_only=True):
    """The batch (`of: batch`) or the resulting dataset has so many rows."""

    of: Scope = "batch"
    min: Count = 0
    max: Count | None = None


class RowCountMatches(Rule, tag="row_count_matches", frozen=True, kw_only=True):
    """The resulting dataset has as many rows as another one; with an `operator`, fewer or more."""

    dataset: str
    ref: str = ""
    operator: Literal["=", "<", "<=", ">", ">="] = "="


class Freshness(Rule, tag="freshness", frozen=True, kw_only=True):
    """The latest instant in the resulting dataset is at most so many seconds ago, and not in the future."""

    column: str
    max_age_s: Positive


Measured = Literal[
    "min", "max", "mean", "median", "sum", "std", "distinct", "distinct_share", "not_null_share", "length_min",
    "length_max",
]  # fmt: skip


class Statistic(Rule, tag="statistic", frozen=True, kw_only=True):
    """A number of the column lies between these bounds. Nulls and NaN are left out of it. `std` is that of a sample."""

    column: str
    measure: Measured
    min: Scalar | None = None
    max: Scalar | None = None
    strict_min: bool = False
    strict_max: bool = False
    of: Scope = "dataset"


class Quantiles(Rule, tag="quantiles", frozen=True, kw_only=True):
    """Each quantile of the column lies in its range; null in a range leaves that side open."""

    column: str
    quantiles: Annotated[list[Share], Meta(min_length=1)]
    ranges: list[tuple[float | None, float | None]]
    method: Literal["linear", "lower", "higher", "midpoint", "nearest"] = "linear"
    of: Scope = "dataset"


class DistinctValues(Rule, tag="distinct_values", frozen=True, kw_only=True):
    """The distinct values of the column are all in the set (`within`), hold all of it (`contain`), or `equal` it."""

    column: str
    values: Values
    relation: Literal["within", "contain", "equal"] = "within"
    of: Scope = "dataset"


class MostCommon(Rule, tag="most_common", frozen=True, kw_only=True):
    """The most frequent value is one of these; with `ties` it is enough that one of the most frequent ones is."""

    column: str
    values: Values
    ties: bool = False
    of: Scope = "dataset"


class Reference(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What a distribution is compared with: a version of a dataset (`version`: number or tag; `dataset`: another one
    than this; `profile`: by its stored profile alone), or `weights` over `bins` (edges) or `values`."""

    dataset: str = ""
    version: str = ""
    profile: bool = False
    bins: list[float] = []
    values: list[Scalar] = []
    weights: list[float] = []


class Distribution(Rule, tag="distribution", frozen=True, kw_only=True):
    """The column is distributed as in the reference.

    `psi`: the population stability index over `bins` of equal reference weight is at most `max`. `ks`: the greatest
    distance of the two distribution functions. `chi_square`: over the same bins, or over categories. `mean`: by how
    many of the reference's standard deviations the mean may have moved; `quantiles`: by how many of its interquartile
    ranges the 5, 25, 50, 75 and 95 % quantiles may have. For `ks` and `chi_square`, `p_min` is the least p-value.
    """

    column: str
    measure: Literal["psi", "ks", "chi_square", "mean", "quantiles"]
    reference: Reference
    max: Annotated[float, Meta(ge=0)] | None = None
    p_min: Share | None = None
    bins: Annotated[int, Meta(ge=2, le=200)] = 10
    of: Scope = "dataset"


class Divergence(Rule, tag="divergence", frozen=True, kw_only=True):
    """The Kullback-Leibler divergence of the column from a partition is at most `max`, as Great Expectations counts it.

    `partition`: weights over `bins` or `values`. With no `max` every divergence passes and is only observed.
    """

    column: str
    partition: Reference
    tail_weights: list[float] = []
    max: Annotated[float, Meta(ge=0)] | None = None
    tail_weight_holdout: Share = 0.0
    internal_weight_holdout: Share = 0.0
    of: Scope = "dataset"


class Sql(Rule, tag="sql", frozen=True, kw_only=True):
    """A SELECT that returns the failing rows. It sees the tables `batch` and `dataset`, that as it would become.

    `tables`: further tables that it may read, by the name that it uses, each a dataset (`planes` or `planes@3`).
    """

    query: str
    tables: dict[str, str] = {}


class Unsupported(Rule, tag="unsupported", frozen=True, kw_only=True):
    """A check of a foreign suite that is not supported: it is listed, and never passes in silence.

    Its result is an error; unless it blocks, as a warning.
    """

    what: str
    reason: str


RowWise = (
    NotNull | IsNull | InSet | NotInSet | Range | Regex | Like | Length | Finite | Compare | TuplesInSet | SumEquals
    | AllEqual | DistinctWithinRow | Satisfies
)  # fmt: skip
Check = (
    ColumnType | NotNull | IsNull | Unique | InSet | NotInSet | Range | Regex | Like | Length | Finite | Parses
    | Monotonic | ZScore | Outliers | Compare | TuplesInSet | SumEquals | AllEqual | DistinctWithinRow | Satisfies
    | References | Columns | ColumnExists | ColumnCount | RowCount | RowCountMatches | Freshness | Statistic
    | Quantiles | DistinctValues | MostCommon | Distribution | Divergence | Sql | Unsupported
)  # fmt: skip


class Suite(Struct, frozen=True, kw_only=True):
    """Checks that belong together, as a file declares them. `format`: which tool the file is of."""

    name: str
    format: Literal["modelyard", "great_expectations", "dbt"]
    checks: list[Check]

    @property
    def unsupported(self) -> list[Unsupported]:
        """What the file asks for and is not supported."""
        return [check for check in self.checks if isinstance(check, Unsupported)]
