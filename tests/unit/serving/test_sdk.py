"""Endpoints as users have them: the SDK and the command line against a running server, over models of MLflow's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelyard.kernel.auth import Scope, system_scope
from modelyard.kernel.errors import Conflict, InvalidInput, NotFound, Unavailable
from modelyard.planes.tracking import Owner
from modelyard.sdk.client import Client
from modelyard.sdk.serving import EndpointHandle, endpoint, list_endpoints
from modelyard.server.run import Server
from modelyard.types.serving import EndpointOptions, VariantSpec
from modelyard.types.tracking import CreateRun
from running import client_of, running_server

pytestmark = pytest.mark.slow

mlflow_onnx = pytest.importorskip("mlflow.onnx")
skl2onnx = pytest.importorskip("skl2onnx")
COLUMNS = ["distance", "hour", "wind"]


def saved_model(directory: Path, seed: int) -> Any:
    """A gradient boosting classifier on a frame with gaps, saved by MLflow as ONNX. Returns the estimator."""
    import mlflow
    import pandas as pd
    from sklearn.ensemble import HistGradientBoostingClassifier

    random = np.random.default_rng(seed)
    inputs = random.normal(size=(400, 3)).astype(np.float32)
    inputs[::5, 2] = np.nan
    estimator = HistGradientBoostingClassifier(max_iter=10).fit(inputs, (inputs[:, 0] > 0.2 * seed).astype(int))
    converted = skl2onnx.to_onnx(estimator, inputs[:1], options={"zipmap": False}, target_opset=18)
    frame = pd.DataFrame(inputs.astype(np.float64), columns=COLUMNS)
    mlflow_onnx.save_model(converted, str(directory), signature=mlflow.models.infer_signature(frame))
    return estimator


def register(server: Server, scope: Scope, directory: Path) -> int:
    yard = server.yard
    if not yard.registry.models.search(scope, "name = 'delay'").items:
        yard.registry.models.create(scope, "delay")
    run = yard.tracking.runs.create(scope, CreateRun(experiment_id="0", tags={}))
    model = yard.tracking.models.create(scope, "0", "delay", source_run_id=run.id)
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            with path.open("rb") as content:
                yard.tracking.artifacts.put(
                    scope, Owner("model", model.id), path.relative_to(directory).as_posix(), content
                )
    yard.tracking.models.finish(scope, model.id, "READY")
    return yard.registry.versions.create(scope, "delay", f"models:/{model.id}").version


class World:
    """A server with two versions of a model, the first of them champion."""

    def __init__(self, server: Server, estimators: dict[int, Any]) -> None:
        self.server = server
        self.estimators = estimators
        self.client: Client = client_of(server)

    def handle(self, name: str) -> EndpointHandle:
        return endpoint(name, self.client)

    def expected(self, version: int, inputs: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        found: np.ndarray[Any, Any] = self.estimators[version].predict_proba(inputs.astype(np.float32))
        return found

    def cli(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("MODELYARD_")}
        return subprocess.run(
            [sys.executable, "-m", "modelyard", "endpoint", *arguments],
            capture_output=True, text=True, check=False, input=stdin, timeout=120,
            env={**inherited, "MODELYARD_URL": self.server.url, "MODELYARD_TOKEN": self.server.token},
        )  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home = tmp_path_factory.mktemp("serving") / "home"
    with running_server(home) as server:
        scope = system_scope("default")
        estimators = {}
        for seed in (1, 2):
            directory = home.parent / f"model-{seed}"
            estimator = saved_model(directory, seed)
            estimators[register(server, scope, directory)] = estimator
        server.yard.registry.promote(scope, "delay", 1, "champion", "the first")
        made = World(server, estimators)
        yield made
        for one in list_endpoints(made.client).items:
            made.handle(one.name).delete()
        made.server.yard.loop.wake()
        wait_gone(made)


def wait_gone(world: World) -> None:
    deadline = time.monotonic() + 30
    while list_endpoints(world.client).items and time.monotonic() < deadline:
        time.sleep(0.05)


INPUTS = np.array([[1.0, -0.5, 0.25], [-1.0, 0.5, np.nan], [0.3, 0.0, 1.0]])


def test_create_wait_and_predict_in_every_form(world: World) -> None:
    pa = pytest.importorskip("pyarrow")
    pd = pytest.importorskip("pandas")
    late = world.handle("late")
    late.create("delay", options=EndpointOptions(segment_age_s_max=0.1))
    found = late.wait_ready()
    assert (found.state, [one.version for one in found.serving]) == ("ready", [1])
    by_column = {name: INPUTS[:, at] for at, name in enumerate(COLUMNS)}
    lists = {name: values.tolist() for name, values in by_column.items()}
    forms: list[Any] = [by_column, lists, pd.DataFrame(by_column), pa.table(by_column)]
    for form in forms:
        for binary in (False, True):
            said = late.predict(form, binary=binary)
            assert (said.model_version, said.variant) == ("1", "main")
            np.testing.assert_allclose(said.outputs["probabilities"], world.expected(1, INPUTS), atol=1e-6)
            assert list(said.outputs["label"]) == world.estimators[1].predict(INPUTS.astype(np.float32)).tolist()


def test_predictions_are_found_in_the_dataset(world: World) -> None:
    late = world.handle("logged")
    late.create("delay", options=EndpointOptions(segment_age_s_max=0.1))
    late.wait_ready()
    at = datetime(2013, 4, 1, 6, tzinfo=UTC)
    one = {name: [INPUTS[0, n]] for n, name in enumerate(COLUMNS)}
    late.predict(one, ids=["UA-1"], event_times=[at], request_id="r-1")
    deadline = time.monotonic() + 30
    while late.get().rows_logged < 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    (row,) = late.logs().rows
    assert (row["id"], row["request_id"], row["version"], row["model"]) == ("UA-1", "r-1", 1, "delay")
    assert str(row["event_time"]).startswith("2013-04-01T06:00:00")
    assert row["input.distance"] == 1.0
    assert row["output.probabilities.1"] == pytest.approx(world.expected(1, INPUTS)[0, 1], abs=1e-6)


def test_bad_inputs_say_what_is_wrong(world: World) -> None:
    late = world.handle("strict")
    late.create("delay")
    late.wait_ready()
    good = {name: [1.0] for name in COLUMNS}
    # Its column had gaps in training, so MLflow's signature says that it may be left out.
    assert len(late.predict({name: [1.0] for name in COLUMNS[:2]}).outputs["label"]) == 1
    for bad, said in (
        ({name: [1.0] for name in COLUMNS[1:]}, "'distance' .* is missing"),
        ({**good, "moon": [1.0]}, "'moon' is not one of the model's"),
        ({**good, "wind": ["strong"]}, "Expected `float|got `str`"),
        ({**good, "wind": [1.0, 2.0]}, "2 rows"),
        ("text", "cannot be a str"),
    ):
        with pytest.raises(InvalidInput, match=said):
            late.predict(bad)
    with pytest.raises(InvalidInput, match="cannot be sent as FP64"):
        late.predict({**good, "wind": ["strong"]}, binary=True)
    with pytest.raises(Conflict, match="exists already"):
        late.create("delay")
    with pytest.raises(NotFound):
        world.handle("nobody").get()
    with pytest.raises(NotFound):
        world.handle("nobody").predict(good)


def test_a_switch_and_what_was_served_when(world: World) -> None:
    late = world.handle("switching")
    late.create("delay", version=1)
    late.wait_ready()
    before = datetime.now(UTC)
    changed = late.update(version=2, reason="a better one", expected=1)
    assert changed.revision == 2
    assert [one.version for one in late.wait_ready().serving] == [2]
    columns = {name: INPUTS[:, at] for at, name in enumerate(COLUMNS)}
    np.testing.assert_allclose(late.predict(columns).outputs["probabilities"], world.expected(2, INPUTS), atol=1e-6)
    assert [one.revision for one in late.switches()] == [2, 1]
    assert [one.version for one in late.served_at(before).variants] == [1]
    assert late.served_at(datetime.now(UTC)).reason == "a better one"
    split = [VariantSpec(name="a", version=1, weight=1.0), VariantSpec(name="b", alias="champion", weight=0.0)]
    late.update(variants=split)
    assert late.wait_ready().serving[1].alias == "champion"


def test_the_command_line(world: World) -> None:
    made = world.cli("create", "shell", "--model", "delay", "--json")
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["state"] == "ready"
    assert [one["name"] for one in json.loads(world.cli("list", "--json").stdout)["items"] if one["name"] == "shell"]
    columns = json.dumps({name: [1.0, 2.0] for name in COLUMNS})
    asked = world.cli("predict", "shell", "--json", stdin=columns)
    assert len(json.loads(asked.stdout)["outputs"]["label"]) == 2, asked.stderr
    assert "label" in world.cli("predict", "shell", stdin=columns).stdout
    updated = world.cli("update", "shell", "--variant", "a=champion:9", "--variant", "b=2:1", "--json")
    assert [one["weight"] for one in json.loads(updated.stdout)["serving"]] == [9.0, 1.0], updated.stderr
    shown = world.cli("get", "shell").stdout
    assert "delay@1 90%, delay@2 10%" in shown
    assert len(json.loads(world.cli("history", "shell", "--json").stdout)["items"]) == 2
    refused = world.cli("update", "shell", "--variant", "nonsense")
    assert refused.returncode == 1
    assert "NAME=ALIAS_OR_VERSION:WEIGHT" in refused.stderr
    assert "no column" not in refused.stderr
    broken = world.cli("predict", "shell", stdin="not json")
    assert (broken.returncode, "the inputs are not columns" in broken.stderr) == (1, True)
    assert json.loads(world.cli("delete", "shell", "--json").stdout)["state"] == "deleting"


def test_an_endpoint_that_is_stopped_cannot_be_reached(world: World) -> None:
    late = world.handle("resting")
    late.create("delay")
    late.wait_ready()
    late.predict({name: [1.0] for name in COLUMNS})
    late.update(running=False)
    deadline = time.monotonic() + 30
    while late.get().state != "stopped" and time.monotonic() < deadline:
        time.sleep(0.05)
    with pytest.raises(Unavailable, match="cannot be reached"):
        late.predict({name: [1.0] for name in COLUMNS})
