"""Nouns of the features plane: feature views, their declared aggregates, and what a point-in-time join gives back."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

Function = Literal["count", "sum", "mean", "rate", "min", "max"]
Seconds = Annotated[int, Meta(ge=1, le=100 * 366 * 86_400)]
Name = Annotated[str, Meta(min_length=1, max_length=128)]

NAME_SEPARATOR = "__"
"""Between a view's name and a feature's in the columns of a joined frame: `origin_delays__mean_dep_delay_3h`."""

_UNITS = (("d", 86_400), ("h", 3_600), ("m", 60))


def duration_text(seconds: int) -> str:
    """Seconds as people write them, in the largest unit that divides them: `3h`, `24h`, `7d`, `90m`, `45s`."""
    for unit, length in _UNITS:
        if seconds % length == 0 and (unit, seconds) != ("d", 86_400):
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


class Aggregate(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One windowed aggregate of an entity's rows.

    At an instant `t` it covers the rows with `event_time <= t`, `known_at <= t` and `event_time > t - window_s`.
    Nulls, NaN and infinities are left out. Over no rows `count` is 0 and the others are null. `rate` is the share of
    true in a boolean column; `count` without a column counts rows. `name` is made of the rest where it is empty.
    """

    function: Function
    window_s: Seconds
    column: str = ""
    name: str = ""

    @property
    def feature(self) -> str:
        """The feature's name within its view."""
        of = f"_{self.column}" if self.column else ""
        return self.name or f"{self.function}{of}_{duration_text(self.window_s)}"


class DefineFeatureView(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A feature view as its author writes it.

    `entities`: the columns of `source` that say whom a row is about; an entity frame joins on columns of these names.
    `event_time`, `known_at`: columns of instants; a row counts only from when it had happened *and* was known. Without
    `known_at` it was known as it happened. `columns`: features that are the values of the entity's latest such row,
    null once it is `ttl_s` old. `sql`: one row-wise SELECT over the source, for derived columns and a filter
    (`SELECT *, arr_delay > 15 AS late FROM arrivals`).
    """

    name: Name
    entities: Annotated[list[str], Meta(min_length=1, max_length=16)]
    source: Name
    event_time: str
    known_at: str = ""
    ttl_s: Seconds | None = None
    columns: list[str] = []
    aggregates: Annotated[list[Aggregate], Meta(max_length=500)] = []
    sql: str = ""
    description: str = ""


class Feature(Struct, frozen=True):
    """A feature's name within its view, and its Arrow type."""

    name: str
    type: str


class FeatureView(Struct, frozen=True, kw_only=True):
    """One immutable version of a feature view. `version` is the hash of its meaning.

    `current`: whether the view's bare name stands for this version.
    """

    name: str
    version: str
    definition: DefineFeatureView
    features: list[Feature]
    current: bool
    created_at: datetime
    created_by: str

    @property
    def urn(self) -> str:
        """The version in the lineage graph."""
        return f"feature-view:{self.name}@{self.version}"


class DatasetPin(Struct, frozen=True):
    """A dataset version that a join read."""

    dataset: str
    version: int


class JoinRecord(Struct, frozen=True, kw_only=True):
    """What a point-in-time join was made of; it travels in the schema metadata of its result, under `modelyard`."""

    views: list[str]
    datasets: list[DatasetPin]
    features: list[str]
    rows: int


class SkewExample(Struct, frozen=True, kw_only=True):
    """One row of which the served value is not the offline one; `row` counts from 0. `id`: the row's own, in a log."""

    row: int
    served: str
    offline: str
    id: str = ""


class FeatureSkew(Struct, frozen=True, kw_only=True):
    """How one feature was served, beside what the point-in-time join gives for the same rows."""

    feature: str
    rows: int
    different: int
    largest: float
    examples: list[SkewExample]


class FeatureVerification(Struct, frozen=True, kw_only=True):
    """Whether served features are those that training sees. `attestation`: its id, where a model version was named.

    `log`: the prediction log that the served values were read from, where they were, and `unmatched`, how many of its
    rows were left out because nothing says whom they are about.
    """

    passed: bool
    rows: int
    different: int
    tolerance: float
    features: list[FeatureSkew]
    views: list[str]
    datasets: list[DatasetPin]
    attestation: str = ""
    log: DatasetPin | None = None
    unmatched: int = 0


class VerifyLogged(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Features that an endpoint was given, to be recomputed as of the instant of each logged row.

    `features`: views or `view:feature`. A value that was served is looked for in the model's input of the feature's
    name (`<view>__<feature>`), an entity in that of its column; `inputs` says where a name is another. What the model
    is not told of an entity is taken from the dataset `entities`, whose column `key` holds the rows' own ids.
    `timestamp`: `event_time` (when the row happened, as its caller said) or `at` (when it was asked for).

    The newest `rows` rows are read, of those `since` (inclusive) and `until` (exclusive). With `model`
    (`name@number`) only those that this version answered, and the outcome is attested of it.
    """

    features: Annotated[list[str], Meta(min_length=1, max_length=500)]
    inputs: dict[str, str] = {}
    entities: str = ""
    key: str = ""
    timestamp: Literal["event_time", "at"] = "event_time"
    since: datetime | None = None
    until: datetime | None = None
    rows: Annotated[int, Meta(ge=1, le=10_000_000)] = 100_000
    pins: dict[str, str] = {}
    tolerance: Annotated[float, Meta(ge=0.0)] = 1e-6
    model: str = ""
