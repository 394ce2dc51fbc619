"""Monitoring over HTTP, in the SDK and on the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from modelyard.cli import monitor as cli
from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database
from modelyard.kernel.errors import Conflict, InvalidInput, NotFound
from modelyard.planes.monitoring import Monitoring
from modelyard.planes.monitoring.routes import ROUTES
from modelyard.sdk import monitoring as sdk
from modelyard.sdk.client import Client

from .http_app import client_over
from .test_monitoring import APRIL, JUNE, MAY, SPEC, Flights, data, flights, monitoring

__all__ = ["data", "flights", "monitoring"]


@pytest.fixture
def client(database: Database, monitoring: Monitoring) -> Iterator[Client]:
    made = client_over(database, ROUTES, monitoring=monitoring)
    yield made
    made.close()


def run(monkeypatch: pytest.MonkeyPatch, client: Client, *arguments: str) -> str:
    monkeypatch.setattr(cli, "client", lambda: client)
    monkeypatch.setenv("COLUMNS", "160")
    done = CliRunner().invoke(cli.app, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_a_program_watches_an_endpoint(client: Client, flights: Flights, scope: Scope) -> None:
    made = sdk.create_monitor(SPEC, client)
    assert made.spec == SPEC
    with pytest.raises(Conflict):
        sdk.create_monitor(SPEC, client)
    flights.predict(APRIL)
    flights.predict(MAY, wrong=0.4)
    handle = sdk.MonitorHandle("delay", client)
    assert handle.evaluate(complete_through=JUNE).raised
    assert [window.start for window in handle.windows()] == [APRIL, MAY], "oldest first"
    alert = handle.alerts("open")[-1]
    assert sdk.acknowledge_alert(alert.id, "looking", client).status == "acknowledged"
    assert sdk.resolve_alert(alert.id, "done", client).resolution == "done"
    assert handle.update(replace(SPEC, window="week")).spec.window == "week"
    handle.delete()
    with pytest.raises(NotFound):
        handle.get()


def test_what_cannot_be_meant_is_refused(client: Client) -> None:
    with pytest.raises(InvalidInput):
        client.post("/api/monitors", {"name": "x", "endpoint": "y", "window": "year"})
    with pytest.raises(InvalidInput):
        client.post("/api/monitors", {"name": "x", "endpoint": "y", "colour": "red"})
    with pytest.raises(InvalidInput):
        client.get("/api/alerts", params={"status": "lost"})


def test_the_command_line_says_the_same(client: Client, flights: Flights, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no monitors yet" in run(monkeypatch, client, "list")
    run(
        monkeypatch, client, "create", "delay", "--endpoint", "delay", "--reference", "training@1",
        "--labels", "arrivals", "--key", "flight", "--label", "arr_delay > 15",
        "--known-at", "known_at", "--baseline-auc", "0.83",
    )  # fmt: skip
    flights.predict(APRIL, wrong=0.4)
    done = json.loads(run(monkeypatch, client, "evaluate", "delay", "--complete-through", "2013-05-01", "--json"))
    assert done["raised"]
    assert "dataset:training@1" in run(monkeypatch, client, "get", "delay")
    assert "2013-04-01" in run(monkeypatch, client, "windows", "delay")
    (window,) = json.loads(run(monkeypatch, client, "windows", "delay", "--json"))["items"]
    assert window["performance"]["labelled"] == 2_000
    alert = json.loads(run(monkeypatch, client, "alerts", "--json"))["items"][0]
    run(monkeypatch, client, "acknowledge", alert["id"], "--note", "looking")
    assert "resolved" in run(monkeypatch, client, "resolve", alert["id"])
    assert json.loads(run(monkeypatch, client, "list", "--json"))["items"][0]["name"] == "delay"
    run(monkeypatch, client, "delete", "delay")
