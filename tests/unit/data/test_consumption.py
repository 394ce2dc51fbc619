"""Columns that runs, jobs, feature views and models consume: known by themselves, followed, and guarded by name."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pyarrow as pa
import pytest
from msgspec import json
from typer.testing import CliRunner

import modelyard
from modelyard.cli.main import app
from modelyard.kernel.auth import Principal, Role, Scope
from modelyard.kernel.database import Database
from modelyard.kernel.lineage import Graph
from modelyard.planes.data.consumption import Upstream, tie_columns
from modelyard.sdk.client import Client
from modelyard.sdk.data import dataset
from modelyard.sdk.quality import data_behind
from modelyard.sdk.registry import ModelHandle
from modelyard.server.run import Server
from modelyard.types.features import Aggregate, DefineFeatureView, FeatureView
from modelyard.types.registry import CreateVersion
from running import client_of, running_server

FLIGHTS = pa.table(
    {
        "id": [1, 2, 3],
        "Origin": ["JFK", "JFK", "LGA"],
        "dist": [5.0, 7.0, 9.0],
        "late": [True, False, True],
        "note": ["", "x", ""],
        "at": pa.array([1_000, 2_000, 3_000], pa.timestamp("us", "UTC")),
    }
)


# --- the walk ---------------------------------------------------------------------------------------------------


def test_a_reader_that_names_columns_counts_by_them_and_the_way_up_goes_on(database: Database, scope: Scope) -> None:
    with database.transaction(scope) as tx:
        for version in range(2, 40):
            tx.link(f"dataset:raw@{version}", "derived", f"dataset:raw@{version - 1}")
        tx.link("dataset:daily@3#total", "derived", "dataset:raw@7#dist")
        tx.link("dataset:daily@3#*", "derived", "dataset:raw@7#late")
        tx.link("dataset:daily@3#other", "derived", "dataset:raw@7#note")
        tx.link("dataset:daily@3", "derived", "dataset:raw@7")
        for urn in ("run:a", "job:j"):
            tx.link(urn, "used", "dataset:daily@3")
        tie_columns(tx, "run:a", "used", "dataset:daily@3", ["total", "total"])
        tx.link("run:a", "produced", "model:m@1")
    with database.reading(scope) as tx:
        upstream = Upstream(tx, ["model:m@1", "job:j"], through=True)
        known = {key: (sorted(uses.columns), uses.is_whole) for key, uses in upstream.of("model:m@1").items()}
        assert known == {("daily", 3): (["total"], False), ("raw", 7): (["dist", "late"], False)}
        assert upstream.of("job:j")["daily", 3].is_whole
        near = Upstream(tx, ["model:m@1"], through=False).of("model:m@1")
        assert set(near) == {("daily", 3)}


def test_a_circle_and_a_stranger_end_the_walk(database: Database, scope: Scope) -> None:
    with database.transaction(scope) as tx:
        tx.link("model:a@1", "derived", "model:b@1")
        tx.link("model:b@1", "derived", "model:a@1")
    with database.reading(scope) as tx:
        upstream = Upstream(tx, ["model:a@1", "model:nobody@1"], through=True)
        assert not upstream.is_cut
        assert upstream.of("model:a@1") == upstream.of("model:nobody@1") == {}


def test_too_many_columns_are_a_use_of_the_whole(database: Database, scope: Scope) -> None:
    with database.transaction(scope) as tx:
        tx.link("run:a", "used", "dataset:wide@1")
        tie_columns(tx, "run:a", "used", "dataset:wide@1", [f"c{n}" for n in range(5_000)])
    with database.reading(scope) as tx:
        [uses] = Upstream(tx, ["run:a"], through=False).of("run:a").values()
    assert uses.is_whole
    assert uses.columns == set()


# --- from outside -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("server") / "home") as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    """The admin's client in a project of the test's own, with a dataset."""
    made = client_of(server, f"t-{uuid.uuid4().hex[:12]}")
    dataset("flights", made).write(FLIGHTS)
    yield made
    made.close()


def register(client: Client, run_id: str, name: str = "delay") -> None:
    client.send_bytes("PUT", f"/api/runs/{run_id}/artifacts/model/MLmodel", b"flavors:\n  python_function: {}\n")
    client.post("/api/models", {"name": name})
    client.post(f"/api/models/{name}/versions", CreateVersion(source=f"runs:/{run_id}/model", run=run_id))


def trained(client: Client) -> str:
    """A run that reads two columns, by a third, and makes a model."""
    with modelyard.start_run(client=client, capture=False, system_metrics=False) as run:
        assert dataset("flights", client).read(columns=["id", "dist"], filter="late").num_rows == 2
        run.flush()
    register(client, run.id)
    return run.id


def test_a_model_knows_the_columns_that_its_run_read(client: Client) -> None:
    run_id = trained(client)
    [use] = data_behind("model:delay@1", client).data
    assert (use.dataset, use.version, use.columns, use.whole) == ("flights", 1, ["dist", "id", "late"], False)
    assert use.readers == [f"run:{run_id}"]
    model = client.get("/api/models/delay/versions/1")
    assert model["provenance"]["data"] == ["dataset:flights@1"], "the registry names versions, not columns"


def test_an_input_that_is_declared_counts_for_more_than_one_that_was_noted(client: Client) -> None:
    with modelyard.start_run(client=client, capture=False, system_metrics=False) as run:
        dataset("flights", client).read(columns=["id"])
        run.flush()
        run.log_input("flights", 1, columns=["dist"], context="evaluation")
    [found] = client.get(f"/api/runs/{run.id}")["inputs"]
    assert found["tags"] == {"mlflow.data.context": "evaluation"}
    [use] = data_behind(f"run:{run.id}", client).data
    assert use.columns == ["dist", "id"]


def test_who_is_in_force_is_asked_before_a_column_goes_and_who_is_not_is_no_hindrance(client: Client) -> None:
    trained(client)
    flights = dataset("flights", client)
    without = FLIGHTS.drop(["late"])
    assert flights.check_contract({"id": "int64"}).passed, "no alias names the model: it is only told of"
    assert "model:delay" in flights.check_contract({"id": "int64"}).affected
    ModelHandle("delay", client).promote(1, "champion", reason="the first")
    [consumer] = flights.consumers()
    assert (consumer.consumer, consumer.origin) == ("model:delay", "lineage")
    assert {one.name: one.type for one in consumer.columns} == {"id": "int64", "dist": "double", "late": "bool"}
    turned_down = flights.write(without, mode="overwrite", replace_schema=True, on_reject="return")
    [failed] = [one for one in turned_down.report.failed if one.check == "contract"]
    assert failed.name == "consumer model:delay"
    assert failed.message == "model:delay would break: column 'late' is missing"
    assert flights.write(FLIGHTS.drop(["note"]), mode="overwrite", replace_schema=True).published
    assert flights.write(without, mode="overwrite", replace_schema=True, breaking=True).published


def test_who_read_the_whole_once_is_told_of_any_column_and_guarded_by_those_it_named(client: Client) -> None:
    flights = dataset("flights", client)
    with modelyard.start_run(client=client, capture=False, system_metrics=False) as run:
        flights.read(columns=["id"])
        flights.read()
        run.flush()
    register(client, run.id)
    ModelHandle("delay", client).promote(1, "champion", reason="the first")
    [use] = data_behind("model:delay@1", client).data
    assert (use.columns, use.whole) == (["id"], True)
    [consumer] = flights.consumers()
    assert ([one.name for one in consumer.columns], consumer.whole) == (["id"], True)
    without = {name: str(kind) for name, kind in zip(FLIGHTS.schema.names, FLIGHTS.schema.types, strict=True)}
    del without["note"]
    found = flights.check_contract(without)
    assert found.passed
    assert "model:delay" in found.affected
    del without["id"]
    assert [(one.consumer, one.column) for one in flights.check_contract(without).breaks] == [("model:delay", "id")]


def test_a_job_is_tied_to_the_columns_that_it_names(server: Server, client: Client) -> None:
    scope = Scope(client.project, Principal("job:one", {"*": Role.ADMIN}))
    data = server.yard.data
    data.read(scope, "flights", columns=["id"], filter="\"Origin\" = 'JFK' AND dist > 1")
    data.read(scope, "flights")
    data.read(Scope(client.project, Principal("job:two", {"*": Role.ADMIN})), "flights")
    [use] = data_behind("job:one", client).data
    assert (use.columns, use.whole) == (["Origin", "dist", "id"], True), "it may need what it did not name"
    [use] = data_behind("job:two", client).data
    assert (use.columns, use.whole) == ([], True)


def view(client: Client) -> FeatureView:
    return client.post(
        "/api/feature-views",
        DefineFeatureView(
            name="origin_delays",
            entities=["Origin"],
            source="flights",
            event_time="at",
            aggregates=[
                Aggregate(function="sum", column="far", window_s=3600),
                Aggregate(function="count", window_s=60),
            ],
            sql="SELECT *, dist * 2 AS far FROM flights WHERE late",
        ),
        FeatureView,
    )


def test_a_feature_view_is_tied_feature_by_feature_and_a_job_to_those_that_it_asked_for(
    server: Server, client: Client
) -> None:
    made = view(client)
    urn = made.urn
    [whole] = data_behind(urn, client).data
    assert (whole.columns, whole.whole) == (["Origin", "at", "dist", "late"], False)
    [use] = data_behind(f"{urn}#sum_far_1h", client).data
    assert use.columns == ["Origin", "at", "dist", "late"]
    [use] = data_behind(f"{urn}#count_1m", client).data
    assert use.columns == ["Origin", "at", "late"]
    scope = Scope(client.project, Principal("job:join", {"*": Role.ADMIN}))
    frame = pa.table({"Origin": ["JFK"], "t": pa.array([9_000], pa.timestamp("us", "UTC"))})
    server.yard.features.historical(scope, frame.to_reader(), ["origin_delays:count_1m"], timestamp="t")
    [use] = data_behind("job:join", client).data
    assert use.columns == ["Origin", "at", "late"]
    assert not use.whole
    used = dataset("flights", client).column_lineage("late").used_by
    assert used == [urn, "job:join"]


def test_a_thing_without_a_version_means_its_newest(server: Server, client: Client) -> None:
    trained(client)
    view = client.post(
        "/api/feature-views",
        DefineFeatureView(
            name="origin_delays", entities=["Origin"], source="flights", event_time="at",
            aggregates=[Aggregate(function="count", window_s=60)],
        ),
        FeatureView,
    )  # fmt: skip
    for urn, root in (
        ("model:delay", "model:delay@1"),
        ("dataset:flights", "dataset:flights@1"),
        ("dataset:flights#late", "dataset:flights@1#late"),
        ("feature-view:origin_delays", view.urn),
        ("model:delay@1", "model:delay@1"),
        ("dataset:nothing", "dataset:nothing"),
        ("job:x", "job:x"),
    ):
        graph = client.get("/api/lineage", Graph, {"urn": urn, "direction": "both"})
        assert graph.root == root
        assert bool(graph.edges) == ("@" in root), urn
    assert data_behind("model:delay", client) == data_behind("model:delay@1", client)
    assert data_behind("model:delay", client).data
    dataset("flights", client).append(FLIGHTS)
    assert client.get("/api/lineage", Graph, {"urn": "dataset:flights"}).root == "dataset:flights@2"
    other = client_of(server, "elsewhere")
    assert other.get("/api/lineage", Graph, {"urn": "dataset:flights"}).root == "dataset:flights"


# --- the command line -------------------------------------------------------------------------------------------


def test_the_command_line_answers_both_questions(
    server: Server, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = trained(client)
    ModelHandle("delay", client).promote(1, "champion", reason="the first")
    monkeypatch.setenv("MODELYARD_URL", server.url)
    monkeypatch.setenv("MODELYARD_TOKEN", server.token)
    flags = ["--project", client.project]
    ask = CliRunner()
    made = ask.invoke(app, [*flags, "lineage", "data", "model:delay@1"])
    assert made.exit_code == 0, made.output
    assert "flights@1" in made.output
    assert "dist, id, late" in made.output
    known = json.decode(ask.invoke(app, [*flags, "lineage", "data", "model:delay@1", "--json"]).output)
    assert known["data"][0]["columns"] == ["dist", "id", "late"]
    breaks = ask.invoke(app, [*flags, "dataset", "contract", "check", "flights", "--drop", "late"])
    assert breaks.exit_code == 1
    assert "model:delay" in breaks.output
    assert ask.invoke(app, [*flags, "dataset", "contract", "check", "flights", "--drop", "note"]).exit_code == 0
    assert ask.invoke(app, [*flags, "lineage", "get", "model:delay"]).output.startswith("model:delay@1\n")
    users = ask.invoke(app, [*flags, "lineage", "columns", "flights.late"]).output
    assert users.index("model:delay@1") < users.index(f"run:{run_id}")
