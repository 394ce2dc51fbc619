"""Nouns of what data looks like over time: how two profiles differ, and what is unusual for a dataset."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from msgspec import Struct

Verdict = Literal["same", "moved", "changed", "added", "removed"]
AnomalyKind = Literal["volume", "schema", "null_rate", "distinct", "mean", "freshness"]


class QuantileShift(Struct, frozen=True):
    """One quantile in both profiles; `share` of the rows lie below it."""

    share: float
    before: float
    after: float


class ColumnShift(Struct, frozen=True, kw_only=True):
    """What became of a column. Rates are shares of the rows; `mean_shift` is in standard deviations of before.

    `psi` is the population stability index over the deciles, or the values, of before: 0.1 is noticeable, 0.25 much.
    `new_values` and `gone_values` are known where both sides counted all their values. `reasons` says in words what
    speaks for the verdict: `moved` (its values are distributed otherwise) or `changed` (its type or nulls differ too).
    """

    name: str
    verdict: Verdict
    type_before: str | None = None
    type_after: str | None = None
    null_rate_before: float | None = None
    null_rate_after: float | None = None
    distinct_before: int | None = None
    distinct_after: int | None = None
    mean_before: float | None = None
    mean_after: float | None = None
    mean_shift: float | None = None
    psi: float | None = None
    quantiles: list[QuantileShift] = []
    new_values: list[Any] = []
    gone_values: list[Any] = []
    reasons: list[str] = []


class ProfileDiff(Struct, frozen=True, kw_only=True):
    """How the profiles of two versions differ; columns that moved most come first."""

    before: str
    after: str
    rows_before: int
    rows_after: int
    columns: list[ColumnShift]


class Anomaly(Struct, frozen=True, kw_only=True):
    """Something that is unusual for a dataset, judged against its own history; `reason` says why, in words.

    `expected_low` and `expected_high` bound what would have been usual, in the unit of `observed`: rows, a share, a
    count, a value, or seconds. What is about a column names it.
    """

    kind: AnomalyKind
    reason: str
    column: str = ""
    observed: float | None = None
    expected_low: float | None = None
    expected_high: float | None = None


class FoundAnomaly(Struct, frozen=True, kw_only=True):
    """An anomaly as it is kept. `version` is null for freshness, which is about a version that did not come.

    `ended_at`: when the next version came, which speaks for itself; null while the anomaly stands.
    """

    id: str
    dataset: str
    version: int | None
    anomaly: Anomaly
    found_at: datetime
    ended_at: datetime | None = None


class FreshnessState(Struct, frozen=True, kw_only=True):
    """When the last version of a dataset came, by when the next should, and why one thinks so; `due_at` is null where
    nobody can tell."""

    last_at: datetime | None
    due_at: datetime | None
    overdue: bool
    reason: str


class WriteVolume(Struct, frozen=True, kw_only=True):
    """How many rows a write brought, and how many would have been usual in view of those before it; null where they
    were too few to tell."""

    version: int
    at: datetime
    rows: int
    expected_low: float | None = None
    expected_high: float | None = None
