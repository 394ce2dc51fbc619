"""Imports: what a store holds comes over with its ids, twice is once, what cannot come is said, what differs shows."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.kernel.auth import Role
from modelyard.kernel.errors import Conflict, Forbidden, InvalidInput, NotFound
from modelyard.sdk.client import Client
from modelyard.sdk.imports import import_mlflow, importer, open_mlflow, sending
from modelyard.sdk.imports.digests import of_values, storable
from modelyard.sdk.imports.mlflow_files import owner_of
from modelyard.sdk.imports.source import Owner, Value
from modelyard.server.run import Server
from modelyard.types.imports import (
    FinishImportedRun,
    FinishImportedRuns,
    ImportedContents,
    ImportExperiment,
    ImportFilledRun,
    ImportPoints,
    ImportRun,
    ImportRuns,
)
from running import client_of, running_server, token_for

NOW = datetime(2020, 1, 1, tzinfo=UTC)
RUN_ID = "0123456789abcdef0123456789abcdef"
MODEL_ID = "m-0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("home") / "home") as running:
        yield running


@pytest.fixture
def client(server: Server, request: pytest.FixtureRequest) -> Client:
    """The admin in a project of the test's own."""
    return client_of(server, f"p{abs(hash(request.node.nodeid)) % 10**12}")


@pytest.fixture
def mlruns(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A folder as MLflow's file store writes it, its run's id the test's own."""
    root = tmp_path / "mlruns"
    run_id = f"{abs(hash(request.node.nodeid)):032x}"
    write(root / "0/meta.yaml", "experiment_id: '0'\nname: Default\nlifecycle_stage: active\n")
    experiment = root / "414243444546474849"
    write(
        experiment / "meta.yaml",
        "experiment_id: '414243444546474849'\nname: flights\nlifecycle_stage: active\ncreation_time: 1000\n",
    )
    run = experiment / run_id
    write(
        run / "meta.yaml",
        f"run_id: {run_id}\nrun_name: first\nstatus: 3\nlifecycle_stage: active\nstart_time: 2000\nend_time: 3000\n"
        "artifact_uri: file:///gone\nuser_id: ann\n",
    )
    write(run / "metrics/loss", "".join(f"{1000 + n} {1 / (n + 1)!r} {n}\n" for n in range(100)))
    write(run / "metrics/val/odd", "5 nan 0\n6 inf 1\n6 inf 1\n7 -inf 2\n")
    write(run / "params/depth", "3")
    write(run / "tags/mlflow.runName", "first")
    write(run / "artifacts/notes/a.txt", "hello")
    return root


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def run_of(mlruns: Path) -> Path:
    return next(one for one in (mlruns / "414243444546474849").iterdir() if one.is_dir())


def test_a_folder_comes_over_with_its_ids_and_twice_is_once(client: Client, mlruns: Path) -> None:
    first = import_mlflow(str(mlruns), client=client)
    assert first.verified, first.problems
    run_id = run_of(mlruns).name
    run = client.get(f"/api/runs/{run_id}")
    assert (run["experiment_id"], run["name"], run["user"]) == ("414243444546474849", "first", "ann")
    assert (run["started_at"], run["ended_at"]) == ("1970-01-01T00:00:02Z", "1970-01-01T00:00:03Z")
    odd = client.get(f"/api/runs/{run_id}/metrics/val/odd")
    assert odd["values"] == [None, 1.7976931348623157e308, -1.7976931348623157e308]
    assert client.get_bytes(f"/api/runs/{run_id}/artifacts/notes/a.txt") == b"hello"
    second = import_mlflow(str(mlruns), client=client)
    assert second.verified
    assert {noun: count.new for noun, count in second.counts.items() if count.new} == {}


def test_a_later_pass_brings_what_came_to_be_since_and_rechecks(client: Client, mlruns: Path) -> None:
    import_mlflow(str(mlruns), client=client)
    run = run_of(mlruns)
    (run / "artifacts/notes/a.txt").write_text("other")
    (run / "params/depth").write_text("4")
    report = import_mlflow(str(mlruns), client=client, recheck=True)
    assert not report.verified
    assert sorted(one.why for one in report.problems) == ["'notes/a.txt' differs", "its params differ: depth"]


def test_what_cannot_be_stored_is_left_out_and_said(client: Client, mlruns: Path) -> None:
    write(run_of(mlruns) / "artifacts/a;..;b.txt", "x")
    report = import_mlflow(str(mlruns), client=client)
    (problem,) = report.problems
    assert (problem.kind, "a;..;b.txt" in problem.why) == ("left out", True)
    assert "a;..;b.txt" in client.get(f"/api/runs/{run_of(mlruns).name}")["tags"]["modelyard.import.left_out"]


def test_an_id_that_is_taken_is_not_taken_over(server: Server, client: Client, mlruns: Path) -> None:
    import_mlflow(str(mlruns), client=client)
    other = import_mlflow(str(mlruns), client=client_of(server, "other"))
    assert not other.verified
    assert "in another project" in other.problems[0].why


def many(mlruns: Path, count: int) -> list[str]:
    """Copies of the folder's run under ids of their own; their ids."""
    run = run_of(mlruns)
    made = []
    for number in range(count):
        run_id = f"{int(run.name, 16) + number + 1:032x}"
        shutil.copytree(run, run.parent / run_id)
        meta = (run / "meta.yaml").read_text().replace(run.name, run_id)
        (run.parent / run_id / "meta.yaml").write_text(meta)
        made.append(run_id)
    return made


def test_many_runs_take_few_requests_and_one_that_is_refused_keeps_none_back(
    server: Server, client: Client, mlruns: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = many(mlruns, 45)
    taken = ids[7]
    client_of(server, "elsewhere").post(
        "/api/import/runs", ImportRun(source="x", id=taken, experiment_id="0", name="r", started_at=NOW)
    )
    asked: list[str] = []
    post = Client.post

    def posting(self: Client, path: str, *more: Any, **named: Any) -> Any:
        asked.append(path)
        return post(self, path, *more, **named)

    monkeypatch.setattr(Client, "post", posting)
    report = import_mlflow(str(mlruns), client=client)
    assert [one.what for one in report.problems] == [f"run {taken} (first)"]
    assert (report.counts["runs"].there, report.counts["runs"].here) == (46, 45)
    assert (report.counts["files"].here, report.counts["points"].here) == (45, 45 * 103)
    # Three portions, and the runs of the refused one alone; nothing else for each run but its file.
    assert asked.count("/api/import/filled-runs") == 3 + 20
    assert len(asked) < 50
    assert import_mlflow(str(mlruns), client=client).counts["runs"].new == 0


def test_a_run_of_many_points_and_a_large_file_go_alone(
    client: Client, mlruns: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many(mlruns, 3)
    write(run_of(mlruns) / "artifacts/large.txt", "x" * 2_000)
    monkeypatch.setattr(importer, "BYTES_AT_ONCE", 4_000)
    monkeypatch.setattr(sending, "HELD_BYTES_MAX", 1_000)
    report = import_mlflow(str(mlruns), client=client, recheck=True)
    assert report.verified, report.problems
    assert (report.counts["runs"].new, report.counts["files"].here, report.counts["points"].here) == (4, 5, 4 * 103)


def test_what_was_imported_goes_on_to_another_server_of_ours(client: Client, mlruns: Path, tmp_path: Path) -> None:
    write(run_of(mlruns) / "artifacts/a;..;b.txt", "left out")
    import_mlflow(str(mlruns), client=client)
    with running_server(tmp_path / "second") as second:
        there = f"{client.base_url}/p/{client.project}"
        for new in (1, 0):
            report = import_mlflow(there, token=client.token, client=client_of(second))
            assert report.verified, report.problems
            assert report.counts["runs"].new == new
        run = client_of(second).get(f"/api/runs/{run_of(mlruns).name}")
    assert run["tags"]["modelyard.import.source"] == f"mlflow:{there}"
    assert "modelyard.import.left_out" not in run["tags"]


def test_of_filled_runs_all_come_or_none(client: Client) -> None:
    runs = [
        ImportFilledRun(
            run=ImportRun(source="x", id=f"ab{number:030x}", experiment_id="0", name="r", started_at=NOW),
            metrics={"m": ImportPoints([1, 2], [0, 1], [None, 2.0] if number == 0 else [1.0])},
        )
        for number in range(2)
    ]
    with pytest.raises(InvalidInput, match="differ in length") as refused:
        client.post("/api/import/filled-runs", ImportRuns(runs=runs))
    assert refused.value.details["run"] == runs[1].run.id
    with pytest.raises(NotFound):
        client.get(f"/api/runs/{runs[0].run.id}")
    [found] = client.post("/api/import/filled-runs", ImportRuns(runs=runs[:1]), list[ImportedContents])
    assert (found.existed, found.points["m"].count) == (False, 2)
    [again] = client.post("/api/import/filled-runs", ImportRuns(runs=runs[:1]), list[ImportedContents])
    assert (again.existed, again.points) == (True, found.points)
    end = FinishImportedRun(source="x", status="FINISHED")
    with pytest.raises(NotFound):
        client.post("/api/import/finished-runs", FinishImportedRuns(runs={runs[0].run.id: end, runs[1].run.id: end}))
    assert client.get(f"/api/runs/{runs[0].run.id}")["status"] == "RUNNING"


def test_experiments_keep_what_is_free(client: Client) -> None:
    def bring(id: str, name: str, source: str = "mlflow:x") -> tuple[str, str]:
        asked = ImportExperiment(source=source, id=id, name=name)
        made = client.post("/api/import/experiments", asked)["experiment"]
        return made["id"], made["name"]

    assert bring("0", "Default") == ("0", "Default")
    assert bring("7", "flights") == ("7", "flights")
    assert bring("7", "flights") == ("7", "flights")
    taken_id, name = bring("7", "trains", "mlflow:y")
    assert (taken_id != "7", name) == (True, "trains")
    assert bring("9", "flights", "mlflow:y")[1] == "flights (imported 1)"
    made = client.post("/api/experiments", {"name": "new"})
    assert int(made["id"]) > 9, "numbers go on after what was imported"


def test_only_an_admin_imports(server: Server) -> None:
    ben = Client(server.url, token=token_for(server, "ben", Role.APPROVER))
    with pytest.raises(Forbidden):
        ben.post("/api/import/experiments", ImportExperiment(source="mlflow:x", id="3", name="x"))


def test_a_run_that_came_from_nowhere_is_not_continued(client: Client) -> None:
    native = client.post("/api/runs", {"name": "native"})
    started = "2026-01-01T00:00:00Z"
    asked = {"source": "mlflow:x", "id": native["id"], "experiment_id": "0", "name": "n", "started_at": started}
    with pytest.raises(Conflict, match="does not come from"):
        client.post("/api/import/runs", asked)
    with pytest.raises(InvalidInput, match="no run id"):
        client.post("/api/import/runs", {**asked, "id": "../x"})
    assert ImportRun.__struct_config__.forbid_unknown_fields


@pytest.mark.parametrize(
    ("uri", "owner", "below"),
    [
        (f"runs:/{RUN_ID}/model", Owner("run", RUN_ID), "model"),
        (f"mlflow-artifacts:/3/{RUN_ID}/artifacts/a/b", Owner("run", RUN_ID), "a/b"),
        (f"file:///mlruns/3/{RUN_ID}/artifacts", Owner("run", RUN_ID), ""),
        (f"models:/{MODEL_ID}", Owner("model", MODEL_ID), ""),
        (f"mlflow-artifacts:/3/models/{MODEL_ID}/artifacts/x", Owner("model", MODEL_ID), "x"),
    ],
)
def test_the_owner_of_a_versions_files_is_read_from_their_uri(uri: str, owner: Owner, below: str) -> None:
    assert owner_of(uri) == (owner, below)


def test_other_uris_have_no_owner_here() -> None:
    assert [owner_of(uri) for uri in ("s3://bucket/model", "models:/other/3", "file:///tmp/x", "")] == [None] * 4


@pytest.mark.parametrize("uri", ["mysql://x/y", "s3://bucket", "/nowhere", "sqlite:////nowhere.db"])
def test_what_is_no_store_of_mlflow_is_refused(uri: str) -> None:
    with pytest.raises(InvalidInput):
        open_mlflow(uri)


VALUES = st.lists(
    st.tuples(st.integers(0, 2**40), st.integers(-(2**40), 2**40), st.floats()).map(lambda one: Value(*one)),
    max_size=30,
)


@given(VALUES, st.randoms())
def test_the_digest_of_a_history_knows_no_order_and_no_repetition(values: list[Value], random) -> None:
    shuffled = [*values, *values[: len(values) // 2]]
    random.shuffle(shuffled)
    assert of_values(shuffled) == of_values(values)
    assert all(math.isfinite(one.value) or math.isnan(one.value) for one in storable(values))
    if values:
        changed = [values[0]._replace(step=values[0].step + 1), *values[1:]]
        assert (of_values(changed) == of_values(values)) == ({*map(repr, changed)} == {*map(repr, values)})
