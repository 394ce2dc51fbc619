"""Runs and experiments: their life, what is logged to them, all or nothing, each project for itself."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

import pytest

from modelyard.kernel import events, lineage
from modelyard.kernel.auth import Principal, Role, Scope
from modelyard.kernel.clock import FixedClock
from modelyard.kernel.database import Database
from modelyard.kernel.errors import Conflict, InvalidInput, ModelyardError, NotFound
from modelyard.kernel.ids import new_id
from modelyard.kernel.leases import take_lease
from modelyard.planes.tracking import OfModel, Tracking
from modelyard.types.tracking import (
    CreateExperiment,
    CreateRun,
    Dataset,
    DatasetInput,
    ModelOutput,
    UpdateExperiment,
    UpdateRun,
)


def test_experiment_zero_is_there_in_every_project(tracking: Tracking) -> None:
    for project in ("default", "another"):
        scope = Scope(project, Principal("ada", {"*": Role.ADMIN}))
        assert [one.id for one in tracking.experiments.search(scope).items] == ["0"]
        assert tracking.experiments.get(scope, "0").name == "Default"
        assert tracking.experiments.create(scope, CreateExperiment(name="first")).id == "1"


def test_an_experiment_is_created_renamed_tagged_deleted_and_restored(tracking: Tracking, scope: Scope) -> None:
    made = tracking.experiments.create(scope, CreateExperiment(name="a", tags={"team": "ops"}))
    run = tracking.runs.create(scope, CreateRun(experiment_id=made.id))
    tracking.experiments.update(scope, made.id, UpdateExperiment(name="b", tags={"k": "v"}, stage="deleted"))
    gone = tracking.experiments.get(scope, made.id)
    assert (gone.name, gone.stage, gone.tags) == ("b", "deleted", {"team": "ops", "k": "v"})
    assert tracking.runs.get(scope, run.id).stage == "deleted"
    with pytest.raises(Conflict) as taken:
        tracking.experiments.create(scope, CreateExperiment(name="b"))
    assert taken.value.code == "experiment.exists"
    with pytest.raises(InvalidInput, match="must be in the 'active' state"):
        tracking.runs.create(scope, CreateRun(experiment_id=made.id))
    tracking.experiments.restore(scope, made.id)
    assert tracking.runs.get(scope, run.id).stage == "active"
    with pytest.raises(NotFound, match="No Experiment with id=99 exists"):
        tracking.experiments.get(scope, "99")
    with pytest.raises(InvalidInput, match="must be a valid integer"):
        tracking.experiments.get(scope, "x")


def test_a_run_gives_back_what_was_logged(tracking: Tracking, scope: Scope, run_id: str) -> None:
    tracking.runs.log(
        scope, run_id, [("loss", 0.5, 1, 10), ("loss", 0.25, 2, 20), ("nan", math.nan, 0, 5)],
        {"lr": "0.1"}, {"note": "ü" * 9_000},
    )  # fmt: skip
    found = tracking.runs.get(scope, run_id)
    assert found.params == {"lr": "0.1"}
    assert found.tags["note"] == "ü" * 8_000
    assert found.tags["mlflow.runName"] == found.name == "one"
    assert found.latest == {"loss": 0.25, "nan": None}
    history = tracking.metrics.history(scope, run_id, "loss")
    assert (history.steps, history.timestamps_ms, history.values) == ([1, 2], [10, 20], [0.5, 0.25])


def test_the_latest_metric_is_by_step_whenever_it_arrives(tracking: Tracking, scope: Scope, run_id: str) -> None:
    tracking.runs.log(scope, run_id, [("m", 1.0, 5, 1)])
    tracking.runs.log(scope, run_id, [("m", 2.0, 4, 99)])
    assert tracking.runs.get(scope, run_id).latest == {"m": 1.0}
    tracking.runs.log(scope, run_id, [("m", 0.5, 5, 1)])
    assert tracking.runs.get(scope, run_id).latest == {"m": 1.0}
    tracking.runs.log(scope, run_id, [("m", 3.0, 5, 2)])
    assert tracking.runs.get(scope, run_id).latest == {"m": 3.0}


def test_a_param_never_changes_and_takes_its_whole_batch_with_it(tracking: Tracking, scope: Scope, run_id: str) -> None:
    tracking.runs.log(scope, run_id, params={"lr": "0.1"})
    tracking.runs.log(scope, run_id, params={"lr": "0.1"})
    with pytest.raises(InvalidInput, match="Changing param values is not allowed"):
        tracking.runs.log(scope, run_id, [("m", 1.0, 0, 0)], {"lr": "0.2", "other": "x"}, {"t": "v"})
    found = tracking.runs.get(scope, run_id)
    assert found.params == {"lr": "0.1"}
    assert found.metrics == []
    assert "t" not in found.tags


@pytest.mark.parametrize(
    "points",
    [
        [("../up", 1.0, 0, 0)],
        [("k" * 251, 1.0, 0, 0)],
        [("bad\n", 1.0, 0, 0)],
        [("m", 1.0, 0, -1)],
        [("fine", 1.0, 0, 0), ("m", 1.0, 2**63, 0)],
        [("", 1.0, 0, 0)],
    ],
)
def test_a_point_that_cannot_be_is_refused_with_its_batch(
    tracking: Tracking, scope: Scope, run_id: str, points: list[tuple[str, float, int, int]]
) -> None:
    with pytest.raises(InvalidInput):
        tracking.runs.log(scope, run_id, points)
    assert tracking.runs.get(scope, run_id).metrics == []


def test_a_deleted_run_takes_nothing_until_it_is_restored(tracking: Tracking, scope: Scope, run_id: str) -> None:
    tracking.runs.delete(scope, run_id)
    tracking.runs.delete(scope, run_id)
    with pytest.raises(InvalidInput, match="must be in the 'active' state"):
        tracking.runs.log(scope, run_id, [("m", 1.0, 0, 0)])
    tracking.runs.restore(scope, run_id)
    tracking.runs.log(scope, run_id, [("m", 1.0, 0, 0)])


def test_another_projects_run_is_not_found(tracking: Tracking, scope: Scope, run_id: str) -> None:
    other = Scope("other", scope.principal)
    actions: list[Callable[[], object]] = [
        lambda: tracking.runs.get(other, run_id),
        lambda: tracking.runs.log(other, run_id, [("m", 1.0, 0, 0)]),
        lambda: tracking.runs.delete(other, run_id),
        lambda: tracking.metrics.history(other, run_id, "m"),
        lambda: tracking.runs.update(other, run_id, UpdateRun(name="mine")),
    ]
    for act in actions:
        with pytest.raises(NotFound):
            act()
    assert tracking.metrics.histories(other, [run_id], "m", 10) == []
    assert tracking.runs.search(other).items == []


def test_changes_are_events_and_a_jobs_run_is_tied_to_it(tracking: Tracking, database: Database, scope: Scope) -> None:
    job = Scope("default", Principal("job:abc", {"*": Role.CONTRIBUTOR}))
    run = tracking.runs.create(job, CreateRun())
    source = Dataset(name="flights", digest="7", source_type="modelyard", source="dataset:flights@7")
    tracking.runs.log(job, run.id, [("m", 1.0, 0, 0)], inputs=[DatasetInput(source)])
    tracking.runs.finish(job, run.id, "FAILED")
    with database.transaction(scope) as tx:
        events.seal(tx)
    with database.reading(scope) as tx:
        kinds = frozenset({"run.created", "run.finished"})
        said = [(one.kind, one.subject, one.data.get("status")) for one in events.after(tx, 0, kinds, 100)]
        edges = {(one.subject, one.relation, one.object) for one in lineage.walk(tx, f"run:{run.id}").edges}
    assert said == [("run.created", f"run:{run.id}", None), ("run.finished", f"run:{run.id}", "FAILED")]
    assert edges == {
        ("job:abc", "produced", f"run:{run.id}"),
        (f"run:{run.id}", "used", "dataset:flights@7"),
        (f"run:{run.id}", "used", "dataset:flights@7#**"),
    }


def test_inputs_and_outputs_come_back_and_the_first_word_on_a_dataset_counts(
    tracking: Tracking, scope: Scope, run_id: str
) -> None:
    first = Dataset(name="d", digest="1", source_type="local", source="a", profile="p")
    second = Dataset(name="d", digest="1", source_type="local", source="b")
    tracking.runs.log(scope, run_id, inputs=[DatasetInput(first, {"mlflow.data.context": "train"})])
    tracking.runs.log(scope, run_id, inputs=[DatasetInput(second, {"x": "y"})])
    model = tracking.models.create(scope, "0", "m")
    tracking.runs.log_models(scope, run_id, [model.id], [ModelOutput(model.id, 3)])
    found = tracking.runs.get(scope, run_id)
    assert found.inputs == [DatasetInput(first, {"mlflow.data.context": "train"})]
    assert found.model_inputs == [model.id]
    assert found.model_outputs == [ModelOutput(model.id, 3)]
    assert [one.context for one in tracking.runs.datasets(scope, ["0"])] == ["train"]
    assert tracking.runs.search(scope, filter="dataset.context = 'train'").items == [found]


def test_logged_models_carry_their_metrics_by_dataset(tracking: Tracking, scope: Scope, run_id: str) -> None:
    better, worse = (tracking.models.create(scope, "0", name, params={"p": name}) for name in ("better", "worse"))
    of = [OfModel(one.id, "auc", value, 0, 1, "d", "1") for one, value in ((better, 0.9), (worse, 0.7))]
    tracking.runs.log(scope, run_id, [("auc", 0.9, 0, 1)], of_models=of)
    assert [one.name for one in tracking.models.search(scope, ["0"], "metrics.auc > 0.8").items] == ["better"]
    assert tracking.models.get(scope, worse.id).metrics[0].dataset_name == "d"
    with pytest.raises(InvalidInput, match="Changing param values"):
        tracking.models.log_params(scope, better.id, {"p": "x"})
    tracking.models.delete(scope, worse.id)
    with pytest.raises(NotFound):
        tracking.models.get(scope, worse.id)
    with pytest.raises(NotFound):
        tracking.runs.log(scope, run_id, [("auc", 1.0, 0, 1)], of_models=[OfModel("m-none", "auc", 1.0, 0, 1)])


def test_many_writers_at_once_lose_nothing(tracking: Tracking, scope: Scope, run_id: str) -> None:
    writers, batches, size = 32, 5, 20
    failed: list[BaseException] = []

    def write(writer: int) -> None:
        try:
            for batch in range(batches):
                steps = range(batch * size, (batch + 1) * size)
                tracking.runs.log(
                    scope, run_id, [(f"w{writer}", float(step), step, step) for step in steps]
                    + [("shared", float(writer), writer * 1_000 + batch, batch)],
                    {f"p{writer}": "v"}, {"same": str(writer)},
                )  # fmt: skip
        except ModelyardError as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    found = tracking.runs.get(scope, run_id)
    assert len(found.params) == writers
    assert found.latest["shared"] == writers - 1
    for writer in range(writers):
        history = tracking.metrics.history(scope, run_id, f"w{writer}")
        assert history.steps == list(range(batches * size))
    assert tracking.metrics.history(scope, run_id, "shared").total == writers * batches


def test_compaction_changes_nothing_that_can_be_read(
    tracking: Tracking, database: Database, scope: Scope, run_id: str, clock: FixedClock
) -> None:
    for batch in range(600):
        at = batch * 10
        points = [("long", float(step), step, step) for step in range(at, at + 10)]
        tracking.runs.log(scope, run_id, [*points, (f"short{batch % 3}", float(batch), batch, batch)])
    before = {
        key: tracking.metrics.history(scope, run_id, key) for key in ("long", "short0", "short1", "short2", "none")
    }
    (compactor,) = tracking.reconcilers()
    due = list(compactor.due(clock.now()))
    assert len(due) == 1
    for _ in range(2):
        with database.transaction(scope) as tx:
            lease = take_lease(tx.connection, f"test-{new_id()}", "test", tx.now, 60)
        assert lease is not None
        compactor.act(due[0], lease)
    assert list(compactor.due(clock.now())) == []
    assert {key: tracking.metrics.history(scope, run_id, key) for key in before} == before
    with database.reading(scope) as tx:
        assert tx.scalar(_count_segments()) <= 3
    tracking.runs.log(scope, run_id, [("long", -1.0, 6_000, 6_000)])
    assert tracking.metrics.history(scope, run_id, "long").total == 6_001


def _count_segments() -> object:
    from sqlalchemy import func, select

    from modelyard.planes.tracking.store import metric_segments

    return select(func.count()).select_from(metric_segments)
