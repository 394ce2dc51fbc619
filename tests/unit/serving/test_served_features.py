"""Features that a real endpoint was given, verified by what its prediction log says."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

import msgspec
import pyarrow as pa
import pytest
import yaml
from typer.testing import CliRunner

from modelyard.cli.main import app
from modelyard.kernel.auth import Role
from modelyard.kernel.errors import Forbidden, InvalidInput, NotFound
from modelyard.sdk import features
from modelyard.sdk.client import Client
from modelyard.sdk.data import dataset
from modelyard.sdk.serving import endpoint
from modelyard.server.run import Server
from modelyard.types.features import FeatureVerification, VerifyLogged
from modelyard.types.serving import CreateEndpoint, EndpointOptions
from running import client_of, running_server, token_for
from unit.endpoint.living import linear
from unit.features.delays import ADA, INSTANTS, MEAN, NOON, WEEK, guard_by_features

ASKED = VerifyLogged(features=["origin_delays"], inputs={WEEK: "flights_in_a_week"}, entities="flights", key="flight")
FLIGHTS = [(f"UA{number}", ["JFK", "LGA", "SFO"][number % 3], NOON + timedelta(hours=number)) for number in range(6)]
pytestmark = pytest.mark.slow


def model_files() -> dict[str, bytes]:
    """A model of two features, of which one goes by another name."""
    columns = [{"name": one, "type": "float", "required": False} for one in (MEAN, "flights_in_a_week")]
    described = {
        "flavors": {"onnx": {"data": "model.onnx"}},
        "signature": {"inputs": json.dumps(columns), "outputs": json.dumps([{"name": "y", "type": "float"}])},
    }
    return {"MLmodel": yaml.safe_dump(described).encode(), "model.onnx": linear([1.0, 1.0])}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a view, a model with the feature gate, and an endpoint `late` that serves version 1."""
    with running_server(tmp_path_factory.mktemp("served") / "home") as server:
        client = client_of(server)
        guard_by_features(server, model_files())
        dataset("flights", client).write(
            pa.table({"flight": [one[0] for one in FLIGHTS], "origin": [one[1] for one in FLIGHTS]})
        )
        options = EndpointOptions(segment_age_s_max=0.05, nan_outputs="allow")
        server.yard.serving.create(ADA, CreateEndpoint(name="late", model="delay", version=1, options=options))
        endpoint("late", client).wait_ready()
        yield server
        server.yard.serving.delete(ADA, "late", "")


@pytest.fixture
def client(server: Server) -> Client:
    return client_of(server)


def ask(client: Client, flights: Sequence[tuple[str, str, datetime]], off: float = 0.0) -> None:
    """Predict for some flights with the features that are right at their instants, or so far off, and wait for the
    log."""
    frame = pa.table({"origin": [one[1] for one in flights], "t": pa.array([one[2] for one in flights], INSTANTS)})
    right = features.historical(frame, ["origin_delays"], timestamp="t", client=client)
    served = {
        MEAN: [float("nan") if one is None else one for one in right.column(MEAN).to_pylist()],
        "flights_in_a_week": [one + off for one in right.column(WEEK).to_pylist()],
    }
    late = endpoint("late", client)
    wanted = late.get().rows_logged + len(flights)
    # One id for all requests, as callers may have it.
    late.predict(served, ids=[one[0] for one in flights], event_times=[one[2] for one in flights], request_id="same")
    give_up = time.monotonic() + 60
    while late.get().rows_logged < wanted:
        assert time.monotonic() < give_up, "the log does not come in"
        time.sleep(0.05)


def verify(client: Client, **changed: object) -> FeatureVerification:
    return features.verify_logged("late", msgspec.structs.replace(ASKED, **changed), client)


def test_what_really_was_served_is_verified_and_opens_and_shuts_the_gate(server: Server, client: Client) -> None:
    with pytest.raises(NotFound) as refused:
        verify(client)
    assert refused.value.code == "endpoint.no_predictions"
    ask(client, FLIGHTS)
    found = verify(client, model="delay@1")
    assert (found.passed, found.rows, found.unmatched) == (True, 6, 0)
    assert found.log is not None
    assert found.log.dataset == "predictions.late"
    registry = server.yard.registry
    [gate] = registry.decide(ADA, "delay", 1).gates
    assert (gate.status, gate.evidence) == ("passed", f"attestation:{found.attestation}")
    [said, *_] = registry.statements.attestations(ADA, "delay", 1)
    assert f"endpoint:late dataset:predictions.late@{found.log.version} " in said.evidence

    # The serving side counts one flight too many from now on: what is served shows it, whoever calls.
    ask(client, [("UA9", "JFK", NOON + timedelta(hours=9))], off=1.0)
    with pytest.raises(InvalidInput, match="of 1 it is not known"):
        verify(client, since=NOON + timedelta(hours=8))
    dataset("flights", client).append(pa.table({"flight": ["UA9"], "origin": ["JFK"]}))
    worse = verify(client, model="delay@1")
    assert (worse.passed, worse.rows, worse.different) == (False, 7, 1)
    [example] = next(one for one in worse.features if one.feature == WEEK).examples
    assert (example.id, float(example.served) - float(example.offline)) == ("UA9", 1.0)
    [gate] = registry.decide(ADA, "delay", 1).gates
    assert gate.status == "failed"
    assert verify(client, until=NOON + timedelta(hours=9)).passed
    assert not verify(client, rows=1).passed


def test_only_what_a_version_answered_is_said_of_it(client: Client) -> None:
    with pytest.raises(InvalidInput) as refused:
        verify(client, model="delay@2")
    assert refused.value.code == "features.no_rows"
    for wrong in ("delay", "delay@champion", "@1"):
        with pytest.raises(InvalidInput) as refused:
            verify(client, model=wrong)
        assert refused.value.code == "features.model"


def test_what_the_log_does_not_hold_is_said(server: Server, client: Client) -> None:
    for changed, code in (
        ({"inputs": {}}, "features.served_missing"),
        ({"entities": ""}, "features.entity_missing"),
        ({"key": "nothing"}, "features.entity_missing"),
        ({"features": ["origin_delays:nothing"]}, "features.feature_unknown"),
        ({"since": NOON + timedelta(days=900)}, "features.no_rows"),
    ):
        with pytest.raises(InvalidInput) as refused:
            verify(client, **changed)
        assert refused.value.code == code
    dataset("twice", client).write(pa.table({"flight": ["UA0", "UA0"], "origin": ["JFK", "LGA"]}))
    with pytest.raises(InvalidInput) as refused:
        verify(client, entities="twice")
    assert refused.value.code == "features.entity_ambiguous"
    with pytest.raises(NotFound):
        features.verify_logged("nobody", ASKED, client)
    viewer = Client(server.url, token=token_for(server, "vera", Role.VIEWER))
    assert verify(viewer, until=NOON + timedelta(hours=9)).attestation == ""
    with pytest.raises(Forbidden):
        verify(viewer, model="delay@1")


def test_the_command_line_reads_the_log(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_URL", server.url)
    monkeypatch.setenv("MODELYARD_TOKEN", server.token)
    words = ["feature", "verify", "--endpoint", "late", "-f", "origin_delays", "--entities", "flights:flight"]
    words += ["--input", f"{WEEK}=flights_in_a_week"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 3, done.output
    assert "row UA9: " in done.output
    assert "served values are those of predictions.late@" in done.output
    done = CliRunner().invoke(app, [*words, "--until", "2013-01-01T21:00:00", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["log"]["dataset"] == "predictions.late"
    done = CliRunner().invoke(app, ["feature", "verify", "-f", "origin_delays"])
    assert done.exit_code != 0
