"""Cost over HTTP, in the SDK and on the command line: decimals stay decimals all the way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from typer.testing import CliRunner

from modelyard.cli import cost as cli
from modelyard.kernel.errors import InvalidInput
from modelyard.planes.cost.routes import ROUTES
from modelyard.sdk import cost as sdk
from modelyard.sdk.client import Client

from ..monitoring.http_app import client_over
from .test_cost import House, house

__all__ = ["house"]


@pytest.fixture
def client(house: House) -> Iterator[Client]:
    made = client_over(house.database, ROUTES, cost=house.cost)
    yield made
    made.close()


def run(monkeypatch: pytest.MonkeyPatch, client: Client, *arguments: str) -> str:
    monkeypatch.setattr(cli, "client", lambda: client)
    done = CliRunner().invoke(cli.app, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_a_program_sets_prices_and_reads_costs(house: House, client: Client) -> None:
    since = datetime(2000, 1, 1, tzinfo=UTC)
    book = sdk.set_prices(
        {"cpu_h": Decimal("0.1"), "memory_gib_h": Decimal(0)}, effective_from=since, currency="EUR", client=client
    )
    assert sdk.get_prices(client) == book
    job = house.did(3, pipeline="train")
    found = sdk.cost_of(f"job:{job}", client)
    assert (found.amount, found.currency) == (Decimal("0.3"), "EUR")
    allocated = sdk.allocate_cost("pipeline", since=since, until=datetime(2020, 1, 1, tzinfo=UTC), client=client)
    assert allocated.parts[0].urn == "pipeline:train"
    assert allocated.total.amount == Decimal("0.3")


def test_the_command_line_says_the_same(house: House, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "(example)" in run(monkeypatch, client, "prices")
    run(
        monkeypatch, client, "prices", "--set", "cpu_h=0.1", "--set", "memory_gib_h=0", "--effective-from", "2000-01-01"
    )
    job = house.did(3, pipeline="train")
    assert "0.300000000 USD" in run(monkeypatch, client, "get", f"job:{job}")
    exact = json.loads(run(monkeypatch, client, "get", f"job:{job}", "--json"))
    assert Decimal(exact["amount"]) == Decimal("0.3")
    listed = run(monkeypatch, client, "list", "--since", "2000-01-01")
    assert "pipeline:train" in listed
    assert "total 0.300000000 USD" in listed
    assert "nothing ran" in run(monkeypatch, client, "list", "--since", "2000-01-01", "--until", "2000-01-02")


@pytest.mark.parametrize("text", ["cpu=1", "cpu_h", "cpu_h=cheap"])
def test_prices_that_say_nothing_are_named(client: Client, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    with pytest.raises(InvalidInput, match="RESOURCE=PRICE"):
        run(monkeypatch, client, "prices", "--set", text)
