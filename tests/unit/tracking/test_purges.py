"""What was deleted goes for good, with every row of it and nothing of others; what is not deleted stays."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from sqlalchemy import func, select
from typer.testing import CliRunner

from modelyard.cli.main import app
from modelyard.engines.blobs.local import LocalBlobs
from modelyard.engines.tables.delta import DeltaTables
from modelyard.kernel import events
from modelyard.kernel.auth import Scope, system_scope
from modelyard.kernel.clock import FixedClock
from modelyard.kernel.database import Database, metadata
from modelyard.kernel.errors import InvalidInput, NotFound
from modelyard.kernel.leases import take_lease
from modelyard.kernel.reconcile import ReconcileLoop
from modelyard.planes.data import Data
from modelyard.planes.registry import Registry
from modelyard.planes.tracking import Owner, Tracking
from modelyard.planes.tracking.reconcile import COMPACTION_LEASE
from modelyard.types.tracking import CreateExperiment, CreateRun, Dataset, DatasetInput, ModelOutput, Purge, Run
from running import client_of, raw_client, running_server

# What stays of a run: what was said and tied, and what belongs to no run.
OF_OTHERS = {"events", "event_chain_head", "lineage", "tracking_counters", "experiments", "leases"}
DAY = 86_400


def _rows(database: Database) -> dict[str, int]:
    with database.reading() as tx:
        counts = {one.name: tx.scalar(select(func.count()).select_from(one)) for one in metadata.sorted_tables}
    return {name: count for name, count in counts.items() if count and name not in OF_OTHERS}


def _filled(tracking: Tracking, scope: Scope, experiment: str) -> str:
    """A run with something in every table that runs have rows in."""
    run = tracking.runs.create(scope, CreateRun(experiment_id=experiment, tags={"team": "a"})).id
    for step in range(40):
        points = [("loss", step + at / 100, step * 100 + at, step) for at in range(100)]
        tracking.runs.log(scope, run, points, params={"p": "1"} if step == 0 else None)
    model = tracking.models.create(scope, experiment, "m", source_run_id=run)
    tracking.runs.log_models(scope, run, outputs=[ModelOutput(model.id, 1)])
    data = Dataset(name="d", digest="1234567", source_type="x", source="y")
    tracking.runs.log(scope, run, inputs=[DatasetInput(data, {})])
    tracking.artifacts.put(scope, Owner("run", run), "a/b.txt", io.BytesIO(b"a file"))
    upload = tracking.uploads.begin(scope, Owner("run", run), "big.bin", 2)
    tracking.uploads.put_part(scope, upload, 1, io.BytesIO(b"a part"))
    tracking.artifacts.put(scope, Owner("model", model.id), "MLmodel", io.BytesIO(b"flavors: {}"))
    tracking.models.log_params(scope, model.id, {"k": "v"})
    tracking.models.set_tags(scope, model.id, {"k": "v"})
    return run


def test_an_experiment_that_was_deleted_goes_with_all_that_it_had(
    tracking: Tracking, database: Database, scope: Scope
) -> None:
    tracking.experiments.make_ready(scope.project)
    before = _rows(database)
    made = tracking.experiments.create(scope, CreateExperiment(name="gone", tags={"a": "b"}))
    run = _filled(tracking, scope, made.id)
    ReconcileLoop(database, tracking.reconcilers()).settle()
    tracking.experiments.delete(scope, made.id)
    seen = tracking.purges.purge(scope, Purge(dry_run=True))
    assert (seen.runs, seen.experiments, seen.logged_models, seen.artifacts) == (1, 1, 1, 2)
    assert tracking.runs.get(scope, run).stage == "deleted"
    done = tracking.purges.purge(scope, Purge(experiments=[made.id]))
    assert (done.runs, done.experiments, done.logged_models, done.artifacts) == (1, 1, 1, 2)
    assert _rows(database) == before
    with pytest.raises(NotFound):
        tracking.runs.get(scope, run)
    with database.reading(scope) as tx:
        said = events.recent(tx, kinds=frozenset({"run.purged", "experiment.purged", "logged_model.purged"}))
    assert len(said) == 3
    assert tracking.experiments.create(scope, CreateExperiment(name="gone")).id != made.id


def test_a_run_goes_and_its_neighbours_stay_whole(tracking: Tracking, database: Database, scope: Scope) -> None:
    stays = _filled(tracking, scope, "0")
    alone, before = tracking.runs.get(scope, stays), _rows(database)
    for _ in range(2):
        run = tracking.runs.create(scope, CreateRun(experiment_id="0")).id
        tracking.runs.log(scope, run, [("loss", 1.0, 1, 1)], params={"q": "2"}, tags={"t": "x"})
        tracking.artifacts.put(scope, Owner("run", run), "f", io.BytesIO(b"a file"))
        tracking.runs.delete(scope, run)
        assert tracking.purges.purge(scope, Purge(runs=[run])).runs == 1
        ReconcileLoop(database, tracking.reconcilers()).settle()
    after = _rows(database)
    assert {name: after[name] for name in after if "metric" not in name} == {
        name: before[name] for name in before if "metric" not in name
    }
    assert tracking.runs.get(scope, stays) == alone
    assert tracking.metrics.history(scope, stays, "loss", points_max=10_000).total == 4_000


def test_what_is_not_deleted_or_not_long_enough_stays(tracking: Tracking, scope: Scope, clock: FixedClock) -> None:
    active = tracking.runs.create(scope, CreateRun(experiment_id="0")).id
    old, young = (tracking.runs.create(scope, CreateRun(experiment_id="0")).id for _ in range(2))
    tracking.runs.delete(scope, old)
    clock.advance(2 * DAY)
    tracking.runs.delete(scope, young)
    clock.advance(60)
    with pytest.raises(InvalidInput) as caught:
        tracking.purges.purge(scope, Purge(runs=[old, active]))
    assert caught.value.code == "purge.not_deleted"
    with pytest.raises(InvalidInput) as caught:
        tracking.purges.purge(scope, Purge(runs=[old, young], older_than_s=DAY))
    assert caught.value.code == "purge.too_young"
    with pytest.raises(NotFound):
        tracking.purges.purge(scope, Purge(runs=["0" * 32]))
    with pytest.raises(NotFound):
        tracking.purges.purge(scope, Purge(experiments=["77"]))
    assert tracking.purges.purge(scope, Purge(older_than_s=DAY)).runs == 1
    assert tracking.runs.get(scope, young).stage == "deleted"
    tracking.runs.restore(scope, young)
    tracking.runs.delete(scope, young)
    assert tracking.purges.purge(scope, Purge(older_than_s=60)).runs == 0, "the count began anew"
    assert tracking.runs.get(scope, active).stage == "active"


def test_other_projects_keep_theirs(tracking: Tracking, scope: Scope) -> None:
    theirs = system_scope("theirs")
    run = tracking.runs.create(theirs, CreateRun(experiment_id="0")).id
    tracking.runs.delete(theirs, run)
    assert tracking.purges.purge(scope, Purge()).runs == 0
    with pytest.raises(NotFound):
        tracking.purges.purge(scope, Purge(runs=[run]))
    assert tracking.runs.get(theirs, run).stage == "deleted"


def test_a_compaction_that_began_before_cannot_end_after(tracking: Tracking, database: Database, scope: Scope) -> None:
    """Its run's number may be another run's by then."""
    run = tracking.runs.create(scope, CreateRun(experiment_id="0")).id
    for step in range(40):
        tracking.runs.log(scope, run, [("loss", float(step), step, step)])
    tracking.runs.delete(scope, run)
    [compactor] = tracking.reconcilers()
    with database.transaction(system_scope("*")) as tx:
        lease = take_lease(tx.connection, COMPACTION_LEASE, "a compactor", tx.now, -1.0)
    assert lease is not None
    assert tracking.purges.purge(scope, Purge(runs=[run])).runs == 1
    with database.transaction(system_scope("*")) as tx:
        after = take_lease(tx.connection, COMPACTION_LEASE, "another", tx.now, 60.0)
    assert after is not None
    assert after.token >= lease.token + 2, "the purge fenced off who held it before"
    assert compactor.name == COMPACTION_LEASE.partition(":")[0]


def test_a_version_made_from_the_run_keeps_its_files(database: Database, scope: Scope, tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path / "blobs")
    tracking = Tracking(database, blobs)
    registry = Registry(database, blobs, tracking, Data(database, DeltaTables(tmp_path / "tables")))
    run = tracking.runs.create(scope, CreateRun(experiment_id="0")).id
    tracking.artifacts.put(scope, Owner("run", run), "model/model.txt", io.BytesIO(b"tree\nversion=v4\n"))
    registry.models.create(scope, "m")
    version = registry.versions.create(scope, "m", f"runs:/{run}/model")
    tracking.runs.delete(scope, run)
    tracking.purges.purge(scope, Purge())
    assert set(tracking.kept_blobs()) == set()
    assert len(set(registry.kept_blobs())) == 1
    (tmp_path / "loaded").mkdir()
    registry.materialize(scope, "m", version.version, tmp_path / "loaded")
    assert (tmp_path / "loaded" / "model.txt").read_bytes() == b"tree\nversion=v4\n"
    assert registry.record(scope, "m", 1).version.provenance.run == run


def test_the_command_line_ends_what_was_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_HOME", str(tmp_path))
    import modelyard

    with modelyard.start_run(system_metrics=False) as run:
        run.log_metric("loss", 1.0)
    for words in (["delete", run.id], ["purge", "--older-than", "1d", "--json"], ["purge", "--json"]):
        done = CliRunner().invoke(app, ["run", *words], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        expected = {"1d": 0}.get(words[-2], 1)
        if words[0] == "purge":
            assert json.loads(done.output)["runs"] == expected
    done = CliRunner().invoke(app, ["run", "purge", "--dry-run"], catch_exceptions=False)
    assert "would go: runs" in done.output


def test_an_archived_run_ends_from_its_page_once_that_is_ticked(tmp_path: Path) -> None:
    with running_server(tmp_path / "home") as server:
        run = client_of(server).post("/api/runs", CreateRun(), Run).id
        client_of(server).delete(f"/api/runs/{run}", Run)
        with raw_client(server, server.token) as http:
            assert "Delete for good" in http.get(f"/runs/{run}").text
            assert http.post(f"/runs/{run}/purge", data={"sure": ""}).status_code == 400
            assert http.get(f"/api/runs/{run}").status_code == 200
            assert http.post(f"/runs/{run}/purge", data={"sure": "yes"}).status_code == 303
            assert http.get(f"/api/runs/{run}").status_code == 404
