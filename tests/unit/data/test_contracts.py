"""Contracts: what is promised holds for every write, and whoever a change would break is named before anything is."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.engines.tables.delta import DeltaTables
from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database
from modelyard.kernel.errors import Conflict, InvalidInput, NotFound
from modelyard.planes.data import Data
from modelyard.planes.data.contract_rules import breaks_of_consumers, breaks_of_contract, is_readable_as
from modelyard.types.contracts import ConsumedColumn, Consumer, Contract, ContractColumn, CreateFromSql, SchemaColumn
from modelyard.types.data import Check, Column, InSet, NotNull


@pytest.fixture
def data(database: Database, tmp_path: Path) -> Data:
    return Data(database, DeltaTables(tmp_path / "tables"), tmp_path / "spill")


def flights(count: int = 3) -> pa.Table:
    return pa.table({"id": range(count), "origin": ["JFK"] * count, "distance": [1.5] * count})


def contract(*columns: tuple[str, str], closed: bool = False, checks: list[Check] | None = None) -> Contract:
    promised = [ContractColumn(name=name, type=kind) for name, kind in columns]
    return Contract(owner="ops", columns=promised, closed=closed, checks=checks or [])


# --- rules ------------------------------------------------------------------------------------------------------

KINDS = ["int8", "int32", "int64", "float", "double", "string", "bool", "decimal128(10, 2)", "date32[day]"]


@given(st.sampled_from(KINDS), st.sampled_from(KINDS), st.sampled_from(KINDS))
def test_what_can_be_read_as_another_type_is_an_order(one: str, other: str, third: str) -> None:
    assert is_readable_as(one, one)
    if is_readable_as(one, other) and is_readable_as(other, third):
        assert is_readable_as(one, third)
    if one != other and is_readable_as(one, other):
        assert not is_readable_as(other, one)


@given(st.lists(st.sampled_from("abcdef"), unique=True), st.lists(st.sampled_from("abcdef"), unique=True))
def test_a_consumer_breaks_exactly_by_what_it_uses_and_is_not_there(there: list[str], used: list[str]) -> None:
    consumer = Consumer(
        consumer="model:x", columns=[ConsumedColumn(name=one, type="int64") for one in used], origin="declared"
    )
    broken = breaks_of_consumers([consumer], [Column(one, "int32") for one in there])
    assert [one.column for one in broken] == [one for one in used if one not in there]
    wide = breaks_of_consumers([consumer], [Column(one, "string") for one in there])
    assert [one.column for one in wide] == used


def test_a_contract_says_what_is_missing_of_another_type_or_too_much() -> None:
    promised = contract(("id", "int64"), ("Origin", ""), ("distance", "double"), closed=True)
    found = breaks_of_contract("flights", promised, [Column("id", "int32"), Column("origin", "string")])
    assert [one.problem for one in found] == [
        "column 'id' is int32, not int64",
        "column 'Origin' is missing; it is written 'origin'",
        "column 'distance' is missing",
        "column 'origin' is not in the contract, which is closed",
    ]


# --- through the plane --------------------------------------------------------------------------------------------


def test_a_contract_holds_for_every_write_and_keeps_its_history(data: Data, scope: Scope) -> None:
    data.create(scope, "flights")
    with pytest.raises(NotFound):
        data.contracts.get(scope, "flights")
    first = data.contracts.set(scope, "flights", contract(("id", "int64")))
    assert (first.number, first.set_by, first.contract.owner) == (1, "ada", "ops")
    only_jfk: list[Check] = [InSet(column="origin", values=["JFK"])]
    second = contract(("id", "int64"), ("origin", "string"), checks=only_jfk)
    assert data.contracts.set(scope, "flights", second).number == 2
    assert [one.number for one in data.contracts.history(scope, "flights")] == [2, 1]
    assert data.contracts.get(scope, "flights", 1).contract == first.contract

    lacking = data.write(scope, "flights", flights().drop(["origin"]))
    assert lacking.status == "quarantined"
    assert "column 'origin' is missing" in next(one.message for one in lacking.report.failed if one.check == "contract")
    other = data.write(scope, "flights", flights().set_column(1, "origin", [["LGA"] * 3]))
    assert [one.check for one in other.report.failed] == ["in_set"]
    kept = data.write(scope, "flights", flights())
    assert kept.published
    assert "contract:flights" in {one.name for one in kept.report.results if one.status == "passed"}


def test_columns_that_may_not_be_null_are_checked(data: Data, scope: Scope) -> None:
    data.create(scope, "flights")
    promised = Contract(columns=[ContractColumn(name="origin", type="string", nullable=False)])
    data.contracts.set(scope, "flights", promised)
    written = data.write(scope, "flights", pa.table({"origin": ["JFK", None]}))
    assert written.status == "quarantined"
    assert written.report.failed[0].name == "contract: 'origin' has no null"


@pytest.mark.parametrize(
    "bad",
    [
        contract(("id", "int64"), ("id", "string")),
        Contract(closed=True),
        contract(("id", "int64"), closed=True, checks=[NotNull(column="nowhere")]),
    ],
)
def test_a_contract_that_contradicts_itself_is_refused(data: Data, scope: Scope, bad: Contract) -> None:
    data.create(scope, "flights")
    with pytest.raises(InvalidInput) as caught:
        data.contracts.set(scope, "flights", bad)
    assert caught.value.code == "contract.invalid"
    assert data.contracts.history(scope, "flights") == []


def test_a_producer_is_told_whom_it_would_break_before_anything_is_published(data: Data, scope: Scope) -> None:
    data.write(scope, "flights", flights(), create=True)
    uses = [ConsumedColumn(name="distance", type="double")]
    data.contracts.declare(scope, "flights", "model:delay", uses, owner="ml")
    data.derivations.create(
        scope, "by_origin", CreateFromSql(statement="SELECT origin, count(*) AS n FROM flights WHERE id > 0 GROUP BY 1")
    )
    tried = [SchemaColumn(name="id", type="int64"), SchemaColumn(name="distance", type="string")]
    found = data.contracts.check(scope, "flights", tried)
    assert not found.passed
    assert {(one.consumer, one.column) for one in found.breaks} == {
        ("model:delay", "distance"),
        ("dataset:by_origin", "origin"),
    }
    assert data.contracts.check(scope, "flights").passed

    without = flights().drop(["distance"])
    told = data.write(scope, "flights", without, mode="overwrite", replace_schema=True)
    assert told.status == "quarantined"
    [failed] = told.report.failed
    assert failed.message == "model:delay would break: column 'distance' is missing"
    assert data.get(scope, "flights").latest == 1

    knowing = data.write(scope, "flights", without, mode="overwrite", replace_schema=True, breaking=True)
    assert knowing.published
    assert [(one.name, one.severity) for one in knowing.report.failed] == [("consumer model:delay", "warn")]
    added = flights().drop(["distance"]).append_column("more", [[1, 2, 3]])
    assert not data.write(scope, "flights", added, evolve=True).published
    data.contracts.withdraw(scope, "flights", "model:delay")
    assert data.write(scope, "flights", added, evolve=True).published


def test_a_contract_does_not_take_from_consumers_in_silence(data: Data, scope: Scope) -> None:
    data.write(scope, "flights", flights(), create=True)
    data.contracts.declare(scope, "flights", "model:delay", [ConsumedColumn(name="distance")])
    narrower = contract(("id", "int64"), closed=True)
    with pytest.raises(Conflict) as caught:
        data.contracts.set(scope, "flights", narrower)
    assert caught.value.code == "contract.breaks_consumers"
    assert "model:delay" in caught.value.message
    assert data.contracts.set(scope, "flights", contract(("id", "int64"))).number == 1
    assert data.contracts.set(scope, "flights", narrower, breaking=True).number == 2


def test_consumers_say_what_there_is_and_are_replaced_and_withdrawn(data: Data, scope: Scope) -> None:
    data.write(scope, "flights", flights(), create=True)
    with pytest.raises(InvalidInput):
        data.contracts.declare(scope, "flights", "no urn", [])
    with pytest.raises(Conflict) as caught:
        data.contracts.declare(scope, "flights", "model:x", [ConsumedColumn(name="nowhere")])
    assert caught.value.code == "contract.consumer_unmet"
    data.contracts.declare(scope, "flights", "model:x", [ConsumedColumn(name="id")])
    data.contracts.declare(scope, "flights", "model:x", [ConsumedColumn(name="origin")])
    [found] = data.contracts.consumers(scope, "flights")
    assert [one.name for one in found.columns] == ["origin"]
    data.contracts.withdraw(scope, "flights", "model:x")
    with pytest.raises(NotFound):
        data.contracts.withdraw(scope, "flights", "model:x")
