"""Nouns of contracts: what a dataset promises, who relies on what of it, and what would break whom."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

from modelyard.types.data import Check

ConsumerOrigin = Literal["declared", "lineage"]
Name = Annotated[str, Meta(min_length=1, max_length=255)]


class ContractColumn(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A column that a dataset promises. `type` is written as Arrow writes it; empty promises only that it is there."""

    name: Name
    type: str = ""
    nullable: bool = True
    description: str = ""


class Contract(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a dataset promises to those who use it. It holds for every write from the moment it is set.

    `closed`: there are no columns but these. `max_age_s`: a new version comes at least so often. `on_anomaly`: whether
    a write that is unusual for the dataset is only pointed out, or kept in quarantine.
    """

    owner: str = ""
    description: str = ""
    columns: Annotated[list[ContractColumn], Meta(max_length=5_000)] = []
    closed: bool = False
    max_age_s: Annotated[float, Meta(gt=0)] | None = None
    checks: list[Check] = []
    on_anomaly: Literal["warn", "block"] = "warn"


class ContractVersion(Struct, frozen=True, kw_only=True):
    """A contract as it was set. Numbers count 1, 2, 3, …; the highest is in force."""

    dataset: str
    number: int
    contract: Contract
    set_at: datetime
    set_by: str


class ConsumedColumn(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A column that a consumer uses; with a type, it needs that one or a narrower one."""

    name: Name
    type: str = ""


class Consumer(Struct, frozen=True, kw_only=True):
    """Who uses a dataset, by URN, and which columns. `origin`: it said so, or lineage shows it.

    `columns` is empty where only the use of the dataset as a whole is known. `whole`: lineage shows that it also read
    the dataset without naming columns, so that it may need others.
    """

    consumer: str
    columns: list[ConsumedColumn]
    origin: ConsumerOrigin
    whole: bool = False
    owner: str = ""
    at: datetime | None = None


class Break(Struct, frozen=True, kw_only=True):
    """What a change would take from a consumer, in words. `consumer` is a URN; `contract:<dataset>` is the dataset's
    own contract."""

    consumer: str
    column: str
    problem: str


class ContractCheck(Struct, frozen=True, kw_only=True):
    """Whether a schema keeps the contract and breaks no consumer.

    `affected`: consumers of which it is not known what columns they use, and who may break if the schema changes.
    """

    dataset: str
    passed: bool
    breaks: list[Break]
    consumers: list[Consumer] = []
    affected: list[str] = []


class DeclareConsumer(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A consumer that says what it uses. `consumer` is a URN, such as `model:delay` or `job:nightly-report`."""

    consumer: Name
    columns: Annotated[list[ConsumedColumn], Meta(max_length=5_000)] = []
    owner: str = ""


class SchemaColumn(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A column of a schema that one thinks of."""

    name: Name
    type: str


class CheckContract(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A schema to be tried; null tries that of the newest version."""

    columns: list[SchemaColumn] | None = None


# --- SQL and columns --------------------------------------------------------------------------------------------


class CreateFromSql(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A dataset, or its next version, to be made by one SELECT over other datasets.

    `inputs` says at which version (a number, tag or branch) a dataset is read; those not named are read at their
    newest.
    """

    statement: Annotated[str, Meta(min_length=1, max_length=100_000)]
    mode: Literal["append", "overwrite"] = "overwrite"
    inputs: dict[str, int | str] = {}
    evolve: bool = False
    replace_schema: bool = False
    key: str | None = None


class ColumnSource(Struct, frozen=True, kw_only=True):
    """A column that another comes from. `column` of the upper end empty: it decides which rows there are."""

    dataset: str
    version: int
    column: str
    of_dataset: str
    of_version: int
    of_column: str


class ColumnLineage(Struct, frozen=True, kw_only=True):
    """Where a column comes from (`up`) and what came of it (`down`), as far as SQL made it; `used_by` names all that
    read it and what came of those in turn: feature views, runs, jobs, models, endpoints, datasets.

    An edge reads: `dataset@version#column` derived from `of_dataset@of_version#of_column`. A `column` of `*` stands for
    the rows as such: the source was in a filter, a join or a grouping.
    """

    dataset: str
    version: int
    column: str
    up: list[ColumnSource]
    down: list[ColumnSource]
    used_by: list[str] = []


class DataUse(Struct, frozen=True, kw_only=True):
    """A dataset version that led to something, the columns of it that were read, and by whom. `whole`: also columns of
    which it is not known, since somebody read it without naming any."""

    dataset: str
    version: int
    columns: list[str]
    readers: list[str]
    whole: bool = False


class DataBehind(Struct, frozen=True, kw_only=True):
    """Which data made a thing, as far as lineage reaches. `truncated`: there was more than the limits allow."""

    urn: str
    data: list[DataUse]
    truncated: bool = False
