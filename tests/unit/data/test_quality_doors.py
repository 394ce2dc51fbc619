"""Contracts, profiles, anomalies and SQL from outside: the SDK and the command line against a real server."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from modelyard.cli.main import app
from modelyard.kernel.errors import Conflict, InvalidInput
from modelyard.sdk.client import Client
from modelyard.sdk.data import dataset
from modelyard.server.run import Server
from modelyard.types.contracts import Contract, ContractColumn
from running import client_of, running_server

FLIGHTS = pa.table({"id": [1, 2, 3], "origin": ["JFK", "JFK", "LGA"], "dist": [5.0, 7.0, 9.0]})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("server") / "home") as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    """The admin's client in a project of the test's own, with a dataset and one made of it."""
    made = client_of(server, f"t-{uuid.uuid4().hex[:12]}")
    dataset("flights", made).write(FLIGHTS)
    dataset("by_origin", made).from_sql("SELECT origin, sum(dist) AS total FROM flights GROUP BY origin")
    yield made
    made.close()


def test_contracts_and_consumers_through_the_sdk(client: Client) -> None:
    flights = dataset("flights", client)
    held = flights.set_contract(Contract(owner="ops", columns=[ContractColumn(name="id", type="int64")]))
    assert (held.number, flights.contract().contract.owner, len(flights.contracts())) == (1, "ops", 1)
    flights.declare_consumer("model:delay", {"dist": "double"}, owner="ml")
    assert {one.consumer for one in flights.consumers()} == {"model:delay", "dataset:by_origin"}
    found = flights.check_contract({"id": "int64", "origin": "string", "dist": "string"})
    assert [(one.consumer, one.column) for one in found.breaks] == [
        ("dataset:by_origin", "dist"),
        ("model:delay", "dist"),
    ]
    with pytest.raises(Conflict) as caught:
        flights.overwrite(FLIGHTS.drop(["dist"]), replace_schema=True)
    assert "model:delay would break" in caught.value.message
    closed = Contract(columns=[ContractColumn(name="id")], closed=True)
    with pytest.raises(Conflict):
        flights.set_contract(closed)
    assert flights.set_contract(closed, breaking=True).number == 2
    flights.withdraw_consumer("model:delay")
    assert {one.consumer for one in flights.consumers()} == {"dataset:by_origin"}


def test_profiles_and_columns_through_the_sdk(client: Client) -> None:
    flights = dataset("flights", client)
    profile = flights.profile()
    assert {one.name: (one.min, one.max, one.distinct) for one in profile.columns}["dist"] == (5.0, 9.0, 3)
    assert all(not one.sketch for one in profile.columns)
    flights.overwrite(FLIGHTS.set_column(1, "origin", [["JFK", "EWR", "EWR"]]))
    [first, *_] = flights.profile_diff(1).columns
    assert (first.name, first.new_values, first.gone_values) == ("origin", ["EWR"], ["LGA"])
    found = dataset("by_origin", client).column_lineage("total")
    assert [(one.of_dataset, one.of_column) for one in found.up] == [("flights", "dist")]
    assert flights.anomalies() == []
    with pytest.raises(InvalidInput):
        dataset("made", client).from_sql("DELETE FROM flights")


def run(server: Server, client: Client, *words: object, code: int = 0) -> str:
    given = ["--home", str(server.yard.settings.home), "-p", client.project, *map(str, words)]
    done = CliRunner().invoke(app, given)
    assert done.exit_code == code or (code and done.exit_code), f"{done.output} {done.exception!r}"
    return done.output


@pytest.mark.slow
def test_all_of_it_on_the_command_line(server: Server, client: Client, tmp_path: Path) -> None:
    contract = tmp_path / "contract.yaml"
    contract.write_text("owner: ops\ncolumns:\n  - {name: id, type: int64, nullable: false}\n")
    assert "contract 1 of flights is in force" in run(
        server, client, "dataset", "contract", "set", "flights", str(contract)
    )
    assert "never null" in run(server, client, "dataset", "contract", "get", "flights")
    assert (
        json.loads(run(server, client, "dataset", "contract", "history", "flights", "--json"))["items"][0]["number"]
        == 1
    )
    run(server, client, "dataset", "consumer", "add", "flights", "model:delay", "--column", "dist=double")
    assert "by_origin" in run(server, client, "dataset", "consumer", "list", "flights")
    schema = tmp_path / "schema.yaml"
    schema.write_text("{id: int64, origin: string}")
    told = run(server, client, "dataset", "contract", "check", "flights", "--schema", str(schema), code=1)
    assert "model:delay" in told
    assert "column 'dist' is missing" in told
    pq.write_table(FLIGHTS, tmp_path / "same.parquet")
    assert "nobody breaks" in run(
        server, client, "dataset", "contract", "check", "flights", "--schema", str(tmp_path / "same.parquet")
    )
    run(server, client, "dataset", "consumer", "remove", "flights", "model:delay")
    columns = {
        one["name"]: one
        for one in json.loads(run(server, client, "dataset", "profile", "flights@1", "--json"))["columns"]
    }
    assert (columns["origin"]["top"], columns["origin"]["top_counts"]) == (["JFK", "LGA"], [2, 1])
    assert "origin" in run(server, client, "dataset", "profile", "flights")
    assert "flights@1" in run(server, client, "dataset", "profile-diff", "flights", "1")
    assert "nothing unusual" in run(server, client, "dataset", "anomalies")
    (tmp_path / "q.sql").write_text("SELECT origin, total FROM by_origin")
    assert "made is at version 1" in run(
        server, client, "dataset", "create-from-sql", "made", f"@{tmp_path / 'q.sql'}", "--at", "by_origin=1"
    )
    tree = run(server, client, "lineage", "columns", "made.total")
    assert "made@1.total <- by_origin@1.total" in tree
    assert "by_origin@1.total <- flights@1.dist" in tree
    contract.write_text("a: &x [1]\nb: *x\n")
    run(server, client, "dataset", "contract", "set", "flights", str(contract), code=1)
