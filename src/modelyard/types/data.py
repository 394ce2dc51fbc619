"""Nouns of the data plane: datasets, their immutable versions, the checks that guard them, what the checks found."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

# isort: off
from modelyard.types.checks import (
    AllEqual as AllEqual,
    Check as Check,
    ColumnCount as ColumnCount,
    ColumnExists as ColumnExists,
    Columns as Columns,
    ColumnType as ColumnType,
    Compare as Compare,
    DistinctValues as DistinctValues,
    DistinctWithinRow as DistinctWithinRow,
    Distribution as Distribution,
    Divergence as Divergence,
    Finite as Finite,
    Freshness as Freshness,
    InSet as InSet,
    IsNull as IsNull,
    Length as Length,
    Like as Like,
    Monotonic as Monotonic,
    MostCommon as MostCommon,
    NotInSet as NotInSet,
    NotNull as NotNull,
    Outliers as Outliers,
    Parses as Parses,
    Quantiles as Quantiles,
    Range as Range,
    Reference as Reference,
    References as References,
    Regex as Regex,
    RowCount as RowCount,
    RowCountMatches as RowCountMatches,
    Satisfies as Satisfies,
    Scalar as Scalar,
    Severity as Severity,
    Sql as Sql,
    Statistic as Statistic,
    Suite as Suite,
    SumEquals as SumEquals,
    Thresholds as Thresholds,
    TuplesInSet as TuplesInSet,
    Unique as Unique,
    Unsupported as Unsupported,
    ZScore as ZScore,
)
# isort: on

READ_HEADER = "modelyard-read"
BROKEN_OFF = b"modelyard.problem"
"""Of the last batch of an Arrow stream that could not be sent to its end: its metadata's key for why, a Problem."""
WriteMode = Literal["append", "overwrite", "merge"]
VersionMode = Literal["append", "overwrite", "merge", "delete", "revert", "adopt", "commit"]
DatasetKind = Literal["table", "files"]
WriteStatus = Literal["published", "quarantined", "unchanged"]
CheckStatus = Literal["passed", "failed", "error"]


# --- what checks found -------------------------------------------------------------------------------------------


class SliceResult(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a check found of the rows that have one value in its `by` column."""

    value: Any
    status: CheckStatus
    evaluated: int = 0
    failing: int = 0
    missing: int = 0
    observed: Any = None
    message: str = ""


class CheckResult(Struct, frozen=True, kw_only=True):
    """What one check found. `evaluated`, `failing` and `missing` (left out for a null) count rows; `sample` holds some
    of the failing ones, and `query` selects all of them from the table `dataset`.

    `error`: the check itself could not run, as where its column is missing; that counts as a failure. `slices`: of a
    check with `by`, the first that fail. `merge`: how the verdict came about and can go on: `merged` from that over
    the rows before and the new ones, `scanned` whole (the next append will be merged), `rescans` whole every time.
    `key` and `state` are what the platform merges; they are not sent.
    """

    name: str
    check: str
    status: CheckStatus
    severity: Severity
    columns: list[str] = []
    evaluated: int = 0
    failing: int = 0
    missing: int = 0
    observed: Any = None
    message: str = ""
    sample: list[dict[str, Any]] = []
    query: str = ""
    origin: str = ""
    merge: Literal["", "merged", "scanned", "rescans"] = ""
    slices: list[SliceResult] = []
    slices_total: int = 0
    details: dict[str, Any] = {}
    key: str = ""
    state: str = ""


class CheckReport(Struct, frozen=True, kw_only=True):
    """All results over one snapshot. `passed`: no blocking check failed."""

    passed: bool
    rows: int
    results: list[CheckResult]

    @property
    def failed(self) -> list[CheckResult]:
        """The results that are not `passed`, blocking or not."""
        return [result for result in self.results if result.status != "passed"]


class CheckRun(Struct, frozen=True, kw_only=True):
    """A suite that ran over a version that was there. Result `i` of the report is that of check `i`."""

    id: str
    dataset: str
    version: int
    suite: str = ""
    checks: list[Check]
    report: CheckReport
    created_at: datetime
    created_by: str


# --- datasets ---------------------------------------------------------------------------------------------------


class Column(Struct, frozen=True):
    """Name and Arrow type."""

    name: str
    type: str


class LengthProfile(Struct, frozen=True, kw_only=True):
    """How long the values of a column are: texts in characters, bytes in bytes, lists in items."""

    min: int
    max: int
    mean: float


class ColumnProfile(Struct, frozen=True, kw_only=True):
    """What the values of one column look like. Counts, bounds, mean, std and lengths are exact.

    `quantiles` (keyed `0.05` to `0.95`) are right within 1 % of the rows and `distinct` within some percent, unless
    `exact`: then all values of the column were counted one by one. `top` are the most frequent values, `top_counts`
    how often each comes (about so often, where not `exact`). `mean`, `std` and `quantiles` are those of the finite
    numbers, a truth value counting as 1 or 0; times are in text. `sketch` is what the platform merges of the column
    when rows are appended; it is not sent.
    """

    name: str
    type: str
    count: int
    nulls: int
    nans: int = 0
    distinct: int | None = None
    min: Any = None
    max: Any = None
    mean: float | None = None
    std: float | None = None
    quantiles: dict[str, float] = {}
    top: list[Any] = []
    top_counts: list[int] = []
    exact: bool = False
    lengths: LengthProfile | None = None
    sketch: str = ""


class Profile(Struct, frozen=True, kw_only=True):
    """What the rows of a version look like."""

    rows: int
    columns: list[ColumnProfile]


class Retention(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which versions a vacuum keeps, besides those that something points at: the newest so many, and those of the last
    so many days; with neither, all."""

    versions: Annotated[int, Meta(ge=1)] | None = None
    days: Annotated[float, Meta(ge=0)] | None = None


class Dataset(Struct, frozen=True, kw_only=True):
    """A named table, or tree of files, with versions. `latest` is the number of the version that `main` names, 0 before
    the first.

    `key`: columns that identify what a row is about; in them null, NaN and infinity are refused. `partition_by`:
    columns by whose values its files are split. `branches`: the version that each branch besides `main` names.
    `origin`: the folder of somebody else's that it is read from; empty where the platform keeps the rows.
    """

    name: str
    kind: DatasetKind = "table"
    description: str = ""
    key: list[str] = []
    checks: list[Check] = []
    latest: int = 0
    rows: int = 0
    size_bytes: int = 0
    tags: dict[str, int] = {}
    branches: dict[str, int] = {}
    partition_by: list[str] = []
    retention: Retention | None = None
    origin: str = ""
    created_at: datetime
    created_by: str
    updated_at: datetime

    @property
    def urn(self) -> str:
        """The dataset in the lineage graph, at its newest version."""
        return f"dataset:{self.name}@{self.latest}"


class DatasetVersion(Struct, frozen=True, kw_only=True):
    """One immutable state of a dataset. Versions count 1, 2, 3, … without gaps, over all branches.

    `parent`: the version that it was made from, 0 for none; `branch`: where it was written. `source`: where the rows
    came from, in the writer's words or as a URN. `rows_written`: rows of the write that made it. `table_version`: the
    version of the Delta table with these rows, null where they were never on `main`. `tree`: what names the content of
    a dataset of files; equal trees hold equal files, and `rows` counts files. `expired_at`: when its rows were
    given up by a vacuum.
    """

    dataset: str
    version: int
    mode: VersionMode
    rows: int
    rows_written: int
    size_bytes: int
    columns: list[Column]
    created_at: datetime
    created_by: str
    source: str = ""
    parent: int = 0
    branch: str = "main"
    table_version: int | None = None
    tree: str | None = None
    expired_at: datetime | None = None
    tags: list[str] = []
    report: CheckReport | None = None
    profile: Profile | None = None

    @property
    def urn(self) -> str:
        """The version in the lineage graph."""
        return f"dataset:{self.dataset}@{self.version}"


class Quarantined(Struct, frozen=True, kw_only=True):
    """A batch that its checks turned down. It is in no version; its rows can be read until it is discarded."""

    id: str
    dataset: str
    mode: VersionMode
    rows: int
    columns: list[Column]
    created_at: datetime
    created_by: str
    source: str = ""
    report: CheckReport


class WriteResult(Struct, frozen=True, kw_only=True):
    """How a write ended. `published`: `version` is the new state. `quarantined`: `main` did not move, `quarantine_id`
    names the batch, and `report` says why. `unchanged`: there was nothing to do, and `version` is as it was."""

    dataset: str
    status: WriteStatus
    rows: int
    report: CheckReport
    version: int | None = None
    quarantine_id: str | None = None

    @property
    def published(self) -> bool:
        """Whether a new version was made."""
        return self.status == "published"


class ColumnChange(Struct, frozen=True):
    """A column whose type changed; null on the side where it is not there."""

    name: str
    before: str | None
    after: str | None


class ProfileChange(Struct, frozen=True):
    """What of a column's profile differs: `measure` is the name of a field of `ColumnProfile`."""

    column: str
    measure: str
    before: Any
    after: Any


class VersionDiff(Struct, frozen=True, kw_only=True):
    """What differs between two versions: columns, their profiles, and rows over the columns that both have alike.

    With a `key`, rows are matched by it; without one, a row that changed counts as removed and as added. `samples`
    holds some rows of each kind: `added`, `removed`, `changed` (its values as `<column> before` and `<column> after`).
    """

    dataset: str
    before: int
    after: int
    rows_before: int
    rows_after: int
    key: list[str] = []
    columns: list[ColumnChange] = []
    profile: list[ProfileChange] = []
    added: int = 0
    removed: int = 0
    changed: int = 0
    samples: dict[str, list[dict[str, Any]]] = {}


# --- requests ---------------------------------------------------------------------------------------------------


class CreateDataset(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A dataset to be made."""

    name: str
    kind: DatasetKind = "table"
    description: str = ""
    key: list[str] = []
    checks: list[Check] = []
    partition_by: list[str] = []


class UpdateDataset(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What shall change; what is null stays."""

    description: str | None = None
    key: list[str] | None = None
    checks: list[Check] | None = None
    retention: Retention | None = None


class RunChecks(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Checks to run over a version; null: the dataset's own. `suite`: what they are called."""

    checks: list[Check] | None = None
    suite: Annotated[str, Meta(max_length=255)] = ""
    ref: str | None = None


class ReadSuite(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A document that declares checks. `model`: which part of a dbt file is meant."""

    document: Any
    model: str = ""


class ReadNote(Struct, frozen=True, kw_only=True):
    """What a read was of: the version, and the columns that it named in its projection or condition; null for all."""

    version: int
    columns: list[str] | None = None


class TagVersion(Struct, frozen=True, kw_only=True):
    """The version that a tag shall name."""

    version: Annotated[int, Meta(ge=1)]


class Rows(Struct, frozen=True, kw_only=True):
    """Some rows as JSON, for looking at; data itself travels as Arrow."""

    columns: list[Column]
    rows: list[dict[str, Any]] = field(default_factory=list)
