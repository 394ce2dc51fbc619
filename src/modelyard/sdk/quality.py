"""What is promised and known of a dataset, in a program: contract, consumers, profile, anomalies, SQL and columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

from modelyard.sdk.handle import Handle
from modelyard.types.contracts import (
    CheckContract,
    ColumnLineage,
    ConsumedColumn,
    Consumer,
    Contract,
    ContractCheck,
    ContractVersion,
    CreateFromSql,
    DataBehind,
    DeclareConsumer,
    SchemaColumn,
)
from modelyard.types.data import Profile, WriteResult
from modelyard.types.page import Page
from modelyard.types.profiles import FoundAnomaly, FreshnessState, ProfileDiff, WriteVolume

if TYPE_CHECKING:
    from modelyard.sdk.client import Client

Ref = int | str | None


class Quality(Handle):
    """The part of a dataset's handle that is about trust in it."""

    def profile(self, version: Ref = None) -> Profile:
        """What the rows of a version look like."""
        return self._client.get(f"{self._path}/profile", Profile, {"ref": version})

    def profile_diff(self, before: int | str, after: Ref = None, *, other: str | None = None) -> ProfileDiff:
        """How the profiles of two versions differ; `other` names another dataset that `after` is a version of."""
        params = {"before": before, "after": after, "other": other}
        return self._client.get(f"{self._path}/profile-diff", ProfileDiff, params)

    def anomalies(self, *, standing: bool = False, limit: int = 100) -> list[FoundAnomaly]:
        """What was unusual about it, newest first. `standing`: only what is about its newest version."""
        return list_anomalies(self._client, self.name, standing=standing, limit=limit).items

    def freshness(self) -> FreshnessState:
        """When its last version came and by when the next should."""
        return self._client.get(f"{self._path}/freshness", FreshnessState)

    def volumes(self) -> list[WriteVolume]:
        """What its latest writes brought, oldest first, each with what was usual then."""
        return self._client.get(f"{self._path}/volumes", Page[WriteVolume]).items

    def contract(self, number: int | None = None) -> ContractVersion:
        """The contract in force, or an earlier one. Raises NotFound."""
        return self._client.get(f"{self._path}/contract", ContractVersion, {"number": number})

    def contracts(self) -> list[ContractVersion]:
        """All contracts that were set, newest first."""
        return self._client.get(f"{self._path}/contract/history", Page[ContractVersion]).items

    def set_contract(self, contract: Contract, *, breaking: bool = False) -> ContractVersion:
        """Put a contract in force. Raises Conflict (`contract.breaks_consumers`) unless `breaking`."""
        path = f"{self._path}/contract" + ("?breaking=true" if breaking else "")
        made: ContractVersion = self._client.put(path, contract, ContractVersion)
        return made

    def check_contract(self, schema: Mapping[str, str] | None = None) -> ContractCheck:
        """Whom a schema (names and Arrow types; None: that of the newest version) would break. Nothing is written."""
        columns = None if schema is None else [SchemaColumn(name=name, type=kind) for name, kind in schema.items()]
        body = CheckContract(columns=columns)
        return self._client.post(f"{self._path}/contract/check", body, ContractCheck)

    def consumers(self) -> list[Consumer]:
        """Who uses it, and which columns."""
        return self._client.get(f"{self._path}/consumers", Page[Consumer]).items

    def declare_consumer(
        self, consumer: str, columns: Sequence[str] | Mapping[str, str], *, owner: str = ""
    ) -> Consumer:
        """Say which columns a consumer (a URN such as `model:delay`) uses; with types, which ones it needs."""
        typed = columns if isinstance(columns, Mapping) else dict.fromkeys(columns, "")
        uses = [ConsumedColumn(name=name, type=kind) for name, kind in typed.items()]
        body = DeclareConsumer(consumer=consumer, columns=uses, owner=owner)
        declared: Consumer = self._client.put(f"{self._path}/consumers", body, Consumer)
        return declared

    def withdraw_consumer(self, consumer: str) -> None:
        """Forget a consumer. Raises NotFound."""
        self._client.delete(f"{self._path}/consumers", params={"consumer": consumer})

    def from_sql(
        self,
        statement: str,
        *,
        mode: Literal["append", "overwrite"] = "overwrite",
        inputs: Mapping[str, int | str] | None = None,
        evolve: bool = False,
        replace_schema: bool = False,
        key: str | None = None,
    ) -> WriteResult:
        """Write what one SELECT over datasets gives, as the next version. `inputs`: at which version one is read.

        The result says where checks turned it down.
        """
        body = CreateFromSql(
            statement=statement, mode=mode, inputs=dict(inputs or {}), evolve=evolve, replace_schema=replace_schema,
            key=key,
        )  # fmt: skip
        return self._client.patient.post(f"{self._path}/from-sql", body, WriteResult)

    def column_lineage(self, column: str, version: int | None = None) -> ColumnLineage:
        """Where a column comes from and what came of it, as far as SQL made it, and who used it."""
        path = f"{self._path}/columns/{quote(column, safe='')}/lineage"
        return self._client.get(path, ColumnLineage, {"version": version})


def data_behind(urn: str, client: Client) -> DataBehind:
    """Which data made a thing, such as `model:delay@3`, down to the columns that were read."""
    return client.get("/api/lineage/data", DataBehind, {"urn": urn})


def list_anomalies(
    client: Client, dataset: str | None = None, *, standing: bool = False, after: str | None = None, limit: int = 100
) -> Page[FoundAnomaly]:
    """What was unusual about one dataset, or about all of the project, newest first."""
    params = {"dataset": dataset, "standing": standing or None, "after": after, "limit": limit}
    return client.get("/api/dataset-anomalies", Page[FoundAnomaly], params)
