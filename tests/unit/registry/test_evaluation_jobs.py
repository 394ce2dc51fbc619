"""Evaluations that the platform makes: the model itself says the scores, and a policy can ask for that."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pytest
import yaml
from typer.testing import CliRunner

from modelyard.cli.main import app
from modelyard.endpoint import scoring
from modelyard.kernel import lineage
from modelyard.kernel.auth import system_scope
from modelyard.kernel.errors import Forbidden, InvalidInput, NotFound, UserCodeError
from modelyard.planes.tracking import Owner
from modelyard.sdk.registry import ModelHandle
from modelyard.server.run import Server
from modelyard.types.registry import ChampionGate, MetricGate, Policy, ScoringSpec, StartEvaluation
from modelyard.types.tracking import CreateRun
from running import client_of, running_server
from unit.endpoint.living import linear

ADA = system_scope("default")
ROWS = 400
ON = StartEvaluation(dataset="held_out@1", label="late", row_id="flight", slices=["carrier"], threshold=0.4)
INPUTS = json.dumps([{"name": "distance", "type": "float", "required": True}])


def held_out() -> pa.Table:
    draw = np.random.default_rng(7)
    distance = draw.uniform(size=ROWS).astype("float32")
    late = (distance + 0.2 * draw.normal(size=ROWS) > 0.5).astype("int64")
    carrier = draw.choice(["UA", "B6"], size=ROWS)
    return pa.table({"flight": np.arange(ROWS), "distance": distance, "late": late, "carrier": carrier})


@dataclass
class Yard:
    server: Server
    rows: pa.Table

    def version(self, weight: float, *, inputs: str = INPUTS, name: str = "delay") -> int:
        yard = self.server.yard
        described = {
            "flavors": {"onnx": {"data": "model.onnx"}},
            "signature": {"inputs": inputs, "outputs": json.dumps([{"name": "y", "type": "float"}])},
        }
        if not yard.registry.models.search(ADA, f"name = '{name}'").items:
            yard.registry.models.create(ADA, name)
        run = yard.tracking.runs.create(ADA, CreateRun(experiment_id="0")).id
        model = yard.tracking.models.create(ADA, "0", name, source_run_id=run)
        files = {"MLmodel": yaml.safe_dump(described).encode(), "model.onnx": linear([weight], 0.5 - weight / 2)}
        for path, content in files.items():
            yard.tracking.artifacts.put(ADA, Owner("model", model.id), path, io.BytesIO(content))
        yard.tracking.models.finish(ADA, model.id, "READY")
        return yard.registry.versions.create(ADA, name, f"models:/{model.id}").version

    def handle(self, name: str = "delay") -> ModelHandle:
        return ModelHandle(name, client_of(self.server))


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    with running_server(tmp_path_factory.mktemp("evaluations") / "home") as server:
        made = Yard(server, held_out())
        server.yard.data.create(ADA, "held_out")
        server.yard.data.write(ADA, "held_out", made.rows)
        yield made


def test_the_platform_lets_the_model_say_the_scores_and_measures_them(yard: Yard) -> None:
    version = yard.version(0.9)
    made = yard.handle().evaluate_on(version, ON, timeout_s=90)
    sent = yard.handle().evaluate(
        version,
        {
            "row_id": yard.rows["flight"],
            "label": yard.rows["late"],
            "score": 0.9 * yard.rows["distance"].to_numpy().astype("float32") + np.float32(0.05),
            "carrier": yard.rows["carrier"],
        },
        dataset="dataset:held_out@1",
        threshold=0.4,
    )
    assert (made.made_by, sent.made_by) == ("platform", "client")
    assert made.overall.auc == pytest.approx(sent.overall.auc)
    assert made.overall.log_loss == pytest.approx(sent.overall.log_loss, rel=1e-5)
    assert made.labels_digest == sent.labels_digest, "the same rows, whoever scored them"
    assert [one.value for one in made.slices] == [one.value for one in sent.slices]
    assert (made.dataset, made.threshold) == ("dataset:held_out@1", 0.4)
    registry = yard.server.yard.registry
    assert made.version_digest == registry.resolve(ADA, "delay", version).digest
    with yard.server.yard.database.reading(ADA) as tx:
        graph = lineage.walk(tx, f"evaluation:{made.id}", "up")
    assert {f"job:{made.job}", f"model:delay@{version}", "dataset:held_out@1"} <= set(graph.nodes)
    job = yard.server.yard.jobs.get_job(ADA, made.job)
    (asked,) = yard.server.yard.registry.evaluation_jobs.list(ADA, "delay", version)
    assert (job.name, job.submitted_by) == (f"evaluate delay@{version}", asked.by)
    assert asked.by != ADA.actor
    assert list((yard.server.yard.settings.home / "evaluations").iterdir()) == []
    card = client_of(yard.server).get_bytes(f"/api/models/delay/versions/{version}/card").decode()
    assert "ada sent" not in card
    [job] = registry.evaluation_jobs.list(ADA, "delay", version)  # type: ignore[union-attr]
    assert (job.state, job.evaluation) == ("succeeded", made.id)


@pytest.mark.slow
def test_a_policy_that_asks_for_it_takes_no_scores_that_were_sent(yard: Yard) -> None:
    registry = yard.server.yard.registry
    first, second = yard.version(0.3, name="strict"), yard.version(0.9, name="strict")
    policy = Policy(
        dataset="dataset:held_out@1", evidence="platform", metrics=[MetricGate(metric="auc", min=0.8)],
        champion=ChampionGate(metric="log_loss"),
    )  # fmt: skip
    registry.models.set_policy(ADA, "strict", policy, "")
    perfect = {"row_id": yard.rows["flight"], "label": yard.rows["late"], "score": yard.rows["late"]}
    yard.handle("strict").evaluate(second, perfect, dataset="dataset:held_out@1")
    with pytest.raises(Forbidden) as caught:
        registry.promote(ADA, "strict", second, "champion", "")
    assert "the policy asks for an evaluation that the platform made" in caught.value.message
    yard.handle("strict").evaluate_on(second, ON, timeout_s=90)
    yard.handle("strict").evaluate(second, perfect, dataset="dataset:held_out@1")
    decision = registry.decide(ADA, "strict", second)
    assert decision.promotable, decision.reasons
    registry.promote(ADA, "strict", second, "champion", "")
    yard.handle("strict").evaluate_on(first, ON, timeout_s=90)
    assert not registry.decide(ADA, "strict", first).promotable, (
        "worse than the champion, by the platform's evaluations"
    )


def test_what_goes_wrong_is_said(yard: Yard) -> None:
    version = yard.version(
        0.5, name="odd", inputs=json.dumps([{"name": "altitude", "type": "float", "required": True}])
    )
    handle = yard.handle("odd")
    with pytest.raises(UserCodeError, match="altitude"):
        handle.evaluate_on(version, ON, timeout_s=90)
    with pytest.raises(InvalidInput, match="no column 'nothing'"):
        handle.start_evaluation(version, StartEvaluation(dataset="held_out@1", label="nothing"))
    with pytest.raises(NotFound):
        handle.start_evaluation(version, StartEvaluation(dataset="held_out@9", label="late"))
    with pytest.raises(NotFound):
        handle.start_evaluation(99, ON)
    jobs = yard.server.yard.registry.evaluation_jobs
    assert jobs is not None
    assert jobs.list(ADA, "odd", version)[0].state == "failed"
    assert yard.server.yard.registry.evidence.evaluations(ADA, "odd", version) == []


def test_the_command_line_waits_for_what_was_measured(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    version = yard.version(0.7, name="shell")
    monkeypatch.setenv("MODELYARD_URL", yard.server.url)
    monkeypatch.setenv("MODELYARD_TOKEN", yard.server.token)
    words = ["model", "evaluate", "shell", str(version), "--on", "held_out@1", "--label", "late", "--json"]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["made_by"] == "platform"


def _folder(tmp_path: Path, rows: pa.Table, **spec: object) -> Path:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.onnx").write_bytes(linear([0.5, 0.25]))
    with pa.OSFile(str(tmp_path / "features.arrow"), "wb") as sink, pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows, max_chunksize=7)
    chosen = ScoringSpec(**{"trusted": False, "output": "", "features": ["b", "a"], **spec})  # type: ignore[arg-type]
    (tmp_path / "spec.json").write_bytes(msgspec.json.encode(chosen))
    return tmp_path


def test_a_model_of_one_matrix_gets_the_features_in_their_order(tmp_path: Path) -> None:
    rows = pa.table({"a": np.arange(20.0), "b": np.ones(20), "note": ["x"] * 20})
    assert scoring.score(_folder(tmp_path, rows)) == 20
    with pa.OSFile(str(tmp_path / "scores.arrow")) as source:
        scores = pa.ipc.open_stream(source).read_all()["score"].to_pylist()
    assert scores == pytest.approx([0.5 + 0.25 * at for at in range(20)])


@pytest.mark.parametrize(
    ("spec", "word"),
    [({"features": ["a"]}, "matrix"), ({"features": ["a", "c"]}, "no such column"), ({"output": "z"}, "gives no 'z'")],
)
def test_what_does_not_fit_the_model_is_said(tmp_path: Path, spec: dict[str, object], word: str) -> None:
    rows = pa.table({"a": np.arange(20.0), "b": np.ones(20)})
    with pytest.raises(InvalidInput, match=word):
        scoring.score(_folder(tmp_path, rows, **spec))
    assert not (tmp_path / "scores.arrow").exists()
