"""Automation over HTTP, in the SDK and on the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from modelyard.cli import trigger as cli
from modelyard.kernel.errors import Conflict, InvalidInput, NotFound
from modelyard.planes.automation.routes import ROUTES
from modelyard.sdk import automation as sdk
from modelyard.sdk.client import Client
from modelyard.types.automation import OnEvent, OnSchedule, Promotion, StartPipeline, TriggerSpec

from ..monitoring.http_app import client_over
from .conftest import House

SPEC = TriggerSpec(
    name="retrain",
    on=OnEvent(kind="alert.raised", match={"kind": ["auc", "calibration"]}),
    start=StartPipeline(pipeline="train", params={"until": "{event.data.window}"}),
    then=Promotion(model="delay"),
)


@pytest.fixture
def client(house: House) -> Iterator[Client]:
    made = client_over(house.database, ROUTES, automation=house.automation)
    yield made
    made.close()


def run(monkeypatch: pytest.MonkeyPatch, client: Client, *arguments: str) -> str:
    monkeypatch.setattr(cli, "client", lambda: client)
    done = CliRunner().invoke(cli.app, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_a_program_makes_a_trigger_and_reads_what_it_did(house: House, client: Client) -> None:
    made = sdk.create_trigger(SPEC, client)
    assert made.spec == SPEC
    with pytest.raises(Conflict):
        sdk.create_trigger(SPEC, client)
    handle = sdk.TriggerHandle("retrain", client)
    assert handle.get() == made
    assert handle.set_enabled(False).spec.enabled is False
    subject = house.say({"kind": "auc", "window": "2013-06"})
    house.loop.settle()
    (response,) = handle.responses()
    assert (response.state, response.event_subject) == ("suppressed", subject)
    assert sdk.list_responses(alert=response.alert, client=client) == [response]
    assert client.get(f"/api/responses/{response.id}")["id"] == response.id
    handle.delete()
    with pytest.raises(NotFound, match="'retrain'"):
        handle.get()


def test_what_cannot_be_meant_is_refused_with_its_place(client: Client) -> None:
    with pytest.raises(InvalidInput) as caught:
        client.post("/api/triggers", {"name": "x", "on": {"on": "moon"}, "start": {"pipeline": "train"}})
    assert "on" in str(caught.value)
    with pytest.raises(InvalidInput):
        client.post(
            "/api/triggers", {"name": "../x", "on": {"on": "dataset", "dataset": "d"}, "start": {"pipeline": "p"}}
        )


def test_the_command_line_says_the_same(house: House, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no triggers yet" in run(monkeypatch, client, "list")
    made = run(
        monkeypatch, client, "create", "retrain", "--on-event", "alert.raised", "--match", "kind=auc,calibration",
        "--pipeline", "train", "--param", "until={event.data.window}", "--promote", "delay", "--json",
    )  # fmt: skip
    assert json.loads(made)["name"] == "retrain"
    assert sdk.TriggerHandle("retrain", client).get().spec == SPEC
    assert "promote delay to champion if better" in run(monkeypatch, client, "get", "retrain")
    house.say({"kind": "auc", "window": "2013-06"})
    house.loop.settle()
    (one,) = json.loads(run(monkeypatch, client, "history", "retrain", "--json"))["items"]
    assert (one["state"], one["params"]) == ("running", {"until": "2013-06"})
    assert "alert.raised" in run(monkeypatch, client, "history")
    run(monkeypatch, client, "disable", "retrain")
    assert sdk.TriggerHandle("retrain", client).get().spec.enabled is False
    run(monkeypatch, client, "enable", "retrain")
    run(monkeypatch, client, "delete", "retrain")
    run(monkeypatch, client, "create", "nightly", "--cron", "0 3 * * *", "--pipeline", "train")
    assert sdk.TriggerHandle("nightly", client).get().spec.on == OnSchedule(cron="0 3 * * *")
    run(monkeypatch, client, "create", "news", "--on-dataset", "flights", "--pipeline", "train", "--param", "n=3")
    assert sdk.TriggerHandle("news", client).get().spec.start.params == {"n": 3}


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--on-event", "a.b", "--cron", "* * * * *"],
        ["--on-dataset", "d", "--match", "a=b"],
        ["--on-event", "a.b", "--match", "novalue"],
        ["--on-event", "a.b", "--param", "=x"],
    ],
)
def test_contradictions_are_named(client: Client, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    with pytest.raises(InvalidInput):
        run(monkeypatch, client, "create", "x", "--pipeline", "train", *arguments)
