"""HTTP for what is promised and known of datasets: contracts, consumers, profiles, anomalies, SQL and columns."""

from __future__ import annotations

from modelyard.kernel.auth import Action, Scope
from modelyard.kernel.limits import PAGE_ITEMS_DEFAULT
from modelyard.kernel.lineage import Newest
from modelyard.kernel.routing import delete, get, post, put
from modelyard.planes.data.service import Data
from modelyard.types.contracts import (
    CheckContract,
    ColumnLineage,
    Consumer,
    Contract,
    ContractCheck,
    ContractVersion,
    CreateFromSql,
    DataBehind,
    DeclareConsumer,
)
from modelyard.types.data import Profile, WriteResult
from modelyard.types.page import Page
from modelyard.types.profiles import FoundAnomaly, FreshnessState, ProfileDiff, WriteVolume


@get("/api/datasets/{name:str}/profile", requires=Action.READ)
def get_profile(caller: Scope, datasets: Data, name: str, ref: str | None = None) -> Profile:
    """The profile of a version."""
    return datasets.profile(caller, name, ref)


@get("/api/datasets/{name:str}/profile-diff", requires=Action.READ)
def diff_profiles(
    caller: Scope, datasets: Data, name: str, before: str, after: str | None = None, other: str = ""
) -> ProfileDiff:
    """How the profiles of two versions differ; `other` names another dataset that `after` is a version of."""
    return datasets.profile_diff(caller, name, before, after, other)


@get("/api/dataset-anomalies", requires=Action.READ)
def list_anomalies(
    caller: Scope,
    datasets: Data,
    dataset: str | None = None,
    standing: bool = False,
    after: str | None = None,
    limit: int = PAGE_ITEMS_DEFAULT,
) -> Page[FoundAnomaly]:
    """What was unusual, newest first, of one dataset or all. `standing`: only what is about newest versions."""
    return datasets.anomalies.list(caller, dataset, standing=standing, after=after, limit=limit)


@get("/api/datasets/{name:str}/freshness", requires=Action.READ)
def get_freshness(caller: Scope, datasets: Data, name: str) -> FreshnessState:
    """When the last version came and by when the next should."""
    return datasets.anomalies.freshness(caller, name)


@get("/api/datasets/{name:str}/volumes", requires=Action.READ)
def list_volumes(caller: Scope, datasets: Data, name: str) -> Page[WriteVolume]:
    """What the latest writes brought, oldest first, each with what was usual then."""
    return Page(list(datasets.anomalies.volumes(caller, name)))


@get("/api/datasets/{name:str}/contract", requires=Action.READ)
def get_contract(caller: Scope, datasets: Data, name: str, number: int | None = None) -> ContractVersion:
    """The contract in force, or an earlier one by its number."""
    return datasets.contracts.get(caller, name, number)


@get("/api/datasets/{name:str}/contract/history", requires=Action.READ)
def list_contracts(caller: Scope, datasets: Data, name: str) -> Page[ContractVersion]:
    """All contracts that were set, newest first."""
    return Page(datasets.contracts.history(caller, name))


@put("/api/datasets/{name:str}/contract", requires=Action.WRITE)
def set_contract(caller: Scope, datasets: Data, name: str, data: Contract, breaking: bool = False) -> ContractVersion:
    """Put a contract in force."""
    return datasets.contracts.set(caller, name, data, breaking=breaking)


@post("/api/datasets/{name:str}/contract/check", requires=Action.READ, status_code=200)
def check_contract(caller: Scope, datasets: Data, name: str, data: CheckContract) -> ContractCheck:
    """Try a schema: whom would it break? Nothing is written."""
    return datasets.contracts.check(caller, name, data.columns)


@get("/api/datasets/{name:str}/consumers", requires=Action.READ)
def list_consumers(caller: Scope, datasets: Data, name: str) -> Page[Consumer]:
    """Who uses the dataset, and which columns."""
    return Page(datasets.contracts.consumers(caller, name))


@put("/api/datasets/{name:str}/consumers", requires=Action.WRITE)
def declare_consumer(caller: Scope, datasets: Data, name: str, data: DeclareConsumer) -> Consumer:
    """Say which columns somebody uses."""
    return datasets.contracts.declare(caller, name, data.consumer, data.columns, owner=data.owner)


@delete("/api/datasets/{name:str}/consumers", requires=Action.WRITE)
def withdraw_consumer(caller: Scope, datasets: Data, name: str, consumer: str) -> dict[str, str]:
    """Forget a consumer, by its URN."""
    datasets.contracts.withdraw(caller, name, consumer)
    return {"status": "withdrawn"}


@post("/api/datasets/{name:str}/from-sql", requires=Action.WRITE)
def create_from_sql(caller: Scope, datasets: Data, name: str, data: CreateFromSql) -> WriteResult:
    """Write what one SELECT over datasets gives, as the next version."""
    return datasets.derivations.create(caller, name, data)


@get("/api/datasets/{name:str}/columns/{column:str}/lineage", requires=Action.READ)
def get_column_lineage(
    caller: Scope, datasets: Data, name: str, column: str, version: int | None = None
) -> ColumnLineage:
    """Where a column comes from, and what came of it."""
    return datasets.derivations.columns(caller, name, column, version)


@get("/api/lineage/data", requires=Action.READ)
def get_data_behind(caller: Scope, datasets: Data, newest: Newest, urn: str) -> DataBehind:
    """Which data made a thing, such as `model:delay@3`, down to the columns that were read; without a version, its
    newest."""
    return datasets.derivations.behind(caller, newest.resolve(caller, urn))


ROUTES = [
    get_profile,
    diff_profiles,
    list_anomalies,
    get_freshness,
    list_volumes,
    get_contract,
    list_contracts,
    set_contract,
    check_contract,
    list_consumers,
    declare_consumer,
    withdraw_consumer,
    create_from_sql,
    get_column_lineage,
    get_data_behind,
]
