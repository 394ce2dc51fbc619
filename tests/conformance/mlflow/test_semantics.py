"""What is easily got wrong of MLflow's REST API, each as a stock server does it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from modelyard.server.run import Server
from running import raw_client, running_server

API = "/api/2.0/mlflow"
LARGEST = 1.7976931348623157e308


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("home") / "home") as running:
        yield running


@pytest.fixture
def http(server: Server, request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    """Plain HTTP in a project of the test's own."""
    with raw_client(server, server.token) as made:
        made.base_url = httpx.URL(f"{server.url}/p/{request.node.name.replace('_', '-')[:40].strip('-')}")
        yield made


def post(http: httpx.Client, path: str, body: Any = None, *, version: str = "2.0") -> dict[str, Any]:
    reply = http.post(f"/api/{version}/mlflow/{path}", json={} if body is None else body)
    assert reply.status_code == 200, (path, reply.text)
    found: dict[str, Any] = reply.json()
    return found


def get(http: httpx.Client, path: str, **asked: Any) -> dict[str, Any]:
    reply = http.get(f"{API}/{path}", params=asked)
    assert reply.status_code == 200, (path, reply.text)
    found: dict[str, Any] = reply.json()
    return found


def refused(reply: httpx.Response) -> tuple[int, str]:
    return reply.status_code, reply.json()["error_code"]


def new_run(http: httpx.Client, **more: Any) -> str:
    made = post(http, "runs/create", {"experiment_id": "0", "start_time": 1, **more})
    return str(made["run"]["info"]["run_id"])


def test_errors_have_mlflows_codes(http: httpx.Client) -> None:
    post(http, "experiments/create", {"name": "e"})
    post(http, "registered-models/create", {"name": "m"})
    run_id = new_run(http)
    bad = "INVALID_PARAMETER_VALUE"
    for reply, expected in (
        (http.post(f"{API}/experiments/create", json={"name": "e"}), (400, "RESOURCE_ALREADY_EXISTS")),
        (http.post(f"{API}/registered-models/create", json={"name": "m"}), (400, "RESOURCE_ALREADY_EXISTS")),
        (http.post(f"{API}/experiments/create", json={"name": 123}), (400, bad)),
        (http.post(f"{API}/experiments/create", json={}), (400, bad)),
        (http.get(f"{API}/experiments/get", params={"experiment_id": "77"}), (404, "RESOURCE_DOES_NOT_EXIST")),
        (http.get(f"{API}/runs/get", params={"run_id": "f" * 32}), (404, "RESOURCE_DOES_NOT_EXIST")),
        (http.get(f"{API}/registered-models/alias", params={"name": "m", "alias": "a"}), (400, bad)),
        (http.get(f"{API}/model-versions/get", params={"name": "m", "version": "1"}), (404, "RESOURCE_DOES_NOT_EXIST")),
        (
            http.post(f"{API}/registered-models/alias", json={"name": "m", "alias": "latest", "version": "1"}),
            (400, bad),
        ),
        (http.post(f"{API}/nothing/here", json={}), (404, "ENDPOINT_NOT_FOUND")),
        (http.post(f"{API}/runs/search", json={"experiment_ids": ["0"], "filter": "a = 1 OR b = 2"}), (400, bad)),
        (http.post(f"{API}/runs/log-metric", json={"run_id": run_id, "key": "k", "timestamp": 1}), (400, bad)),
    ):
        assert refused(reply) == expected, reply.request.url
        assert set(reply.json()) <= {"error_code", "message", "hint", "request_id"}
    named = http.post(f"{API}/experiments/create", json={"name": 123}).json()["message"]
    assert "Invalid value 123 for parameter 'name' supplied" in named
    assert "Missing value for required parameter 'name'." in http.post(f"{API}/experiments/create").json()["message"]


def test_json_is_lenient_in_and_sparse_out(http: httpx.Client) -> None:
    run_id = new_run(http, unknown="field", start_time="7")
    assert post(http, "runs/log-metric", {"run_uuid": run_id, "key": "k", "value": "1.5", "timestamp": "3"}) == {}
    assert post(http, "runs/set-tag", {"run_id": run_id, "key": "t", "value": None}) == {}
    run = get(http, "runs/get", run_uuid=run_id)["run"]
    assert (run["info"]["run_id"], run["info"]["run_uuid"], run["info"]["start_time"]) == (run_id, run_id, 7)
    assert "end_time" not in run["info"]
    assert run["data"]["metrics"] == [{"key": "k", "value": 1.5, "timestamp": 3, "step": 0}]
    assert (run["inputs"], run["outputs"], run["info"]["experiment_id"]) == ({}, {}, "0")
    assert get(http, "metrics/get-history", run_id=run_id, metric_key="none") == {}
    twice = http.post(f"{API}/experiments/create", content=json.dumps(json.dumps({"name": "twice"})))
    assert twice.status_code == 200


def test_metrics_keep_nan_and_infinity_and_drop_exact_twins(http: httpx.Client) -> None:
    run_id = new_run(http)
    for value in ('"NaN"', "NaN", "Infinity", "-Infinity", "true", "2", "2", "3"):
        body = f'{{"run_id": "{run_id}", "key": "m", "value": {value}, "timestamp": 5, "step": 1}}'
        assert http.post(f"{API}/runs/log-metric", content=body).status_code == 200, value
    found = [one["value"] for one in get(http, "metrics/get-history", run_id=run_id, metric_key="m")["metrics"]]
    assert sorted(map(str, found)) == sorted(map(str, ["NaN", LARGEST, -LARGEST, 1.0, 2.0, 3.0]))
    for value in ("null", '"x"', "1e400", "{}"):
        body = f'{{"run_id": "{run_id}", "key": "m", "value": {value}, "timestamp": 5}}'
        assert http.post(f"{API}/runs/log-metric", content=body).status_code == 400, value


def test_the_latest_is_by_step_then_time_then_value_and_history_is_by_time(http: httpx.Client) -> None:
    run_id = new_run(http)
    points = [(1, 9, 5), (2, 1, 5), (2, 3, 4), (2, 3, 7), (0, 99, 1)]
    for step, timestamp, value in points:
        post(
            http,
            "runs/log-metric",
            {"run_id": run_id, "key": "m", "value": value, "timestamp": timestamp, "step": step},
        )
    (latest,) = get(http, "runs/get", run_id=run_id)["run"]["data"]["metrics"]
    assert (latest["step"], latest["timestamp"], latest["value"]) == (2, 3, 7)
    history = get(http, "metrics/get-history", run_id=run_id, metric_key="m")["metrics"]
    assert [(one["timestamp"], one["step"], one["value"]) for one in history] == [
        (1, 2, 5), (3, 2, 4), (3, 2, 7), (9, 1, 5), (99, 0, 1),
    ]  # fmt: skip
    token, seen = None, []
    while True:
        page = get(
            http,
            "metrics/get-history",
            run_id=run_id,
            metric_key="m",
            max_results=1,
            **({"page_token": token} if token else {}),
        )
        seen += page["metrics"]
        token = page.get("next_page_token")
        if not token:
            break
        assert json.loads(base64.b64decode(token)) == {"offset": len(seen)}
    assert seen == history


def test_params_are_set_once_and_a_batch_is_whole(http: httpx.Client) -> None:
    run_id = new_run(http)
    for _ in range(2):
        post(http, "runs/log-parameter", {"run_id": run_id, "key": "p", "value": "1"})
    assert refused(http.post(f"{API}/runs/log-parameter", json={"run_id": run_id, "key": "p", "value": "2"}))[0] == 400
    for params in ([{"key": "p", "value": "2"}], [{"key": "q", "value": "1"}, {"key": "q", "value": "1"}]):
        batch = {"run_id": run_id, "metrics": [{"key": "m", "value": 1, "timestamp": 1}], "params": params}
        assert http.post(f"{API}/runs/log-batch", json=batch).status_code == 400
    long = {"params": [{"key": "long", "value": "x" * 7_000}], "tags": [{"key": "long", "value": "x" * 9_000}]}
    post(http, "runs/log-batch", {"run_id": run_id, **long})
    data = get(http, "runs/get", run_id=run_id)["run"]["data"]
    assert {one["key"]: len(one["value"]) for one in data["params"]} == {"p": 1, "long": 6_000}
    assert [len(one["value"]) for one in data["tags"] if one["key"] == "long"] == [8_000]
    assert "metrics" not in data


def test_order_puts_values_then_nan_then_nothing_either_way(http: httpx.Client) -> None:
    runs = {}
    for start, (name, value) in enumerate((("low", 1), ("nan", "NaN"), ("none", None), ("high", 2), ("again", 2))):
        run_id = runs[name] = new_run(http, start_time=start)
        if value is not None:
            post(http, "runs/log-metric", {"run_id": run_id, "key": "m", "value": value, "timestamp": 1})
    names = {run_id: name for name, run_id in runs.items()}

    def found(*order_by: str, **more: Any) -> list[str]:
        asked = {"experiment_ids": ["0"], "order_by": list(order_by), **more}
        return [names[run["info"]["run_id"]] for run in post(http, "runs/search", asked).get("runs", [])]

    assert found("metrics.m ASC") == ["low", "again", "high", "nan", "none"]
    assert found("metrics.m DESC") == ["again", "high", "low", "nan", "none"]
    assert found() == ["again", "high", "none", "nan", "low"]
    assert found(filter="metrics.m > 0") == ["again", "high", "low"]
    assert found(filter="params.p IS NULL and") == found()
    assert found(filter="tags.absent != 'x'") == []
    assert post(http, "runs/search", {"experiment_ids": []}) == {}
    page = post(http, "runs/search", {"experiment_ids": ["0"], "max_results": 5})
    assert "next_page_token" not in page


def test_what_is_deleted_stays_in_the_way_until_it_is_restored(http: httpx.Client) -> None:
    experiment = post(http, "experiments/create", {"name": "e"})["experiment_id"]
    run_id = new_run(http, experiment_id=experiment)
    post(http, "runs/update", {"run_id": run_id, "status": "FINISHED", "end_time": 5})
    post(http, "runs/log-metric", {"run_id": run_id, "key": "late", "value": 1, "timestamp": 1})
    for _ in range(2):
        post(http, "runs/delete", {"run_id": run_id})
    late = http.post(f"{API}/runs/set-tag", json={"run_id": run_id, "key": "k", "value": "v"})
    assert refused(late) == (400, "INVALID_PARAMETER_VALUE")
    post(http, "runs/restore", {"run_id": run_id})
    post(http, "experiments/delete", {"experiment_id": experiment})
    taken = http.post(f"{API}/experiments/create", json={"name": "e"})
    assert refused(taken) == (400, "RESOURCE_ALREADY_EXISTS")
    assert get(http, "experiments/get-by-name", experiment_name="e")["experiment"]["lifecycle_stage"] == "deleted"
    post(http, "experiments/restore", {"experiment_id": experiment})
    assert get(http, "runs/get", run_id=run_id)["run"]["info"]["lifecycle_stage"] == "active"
    post(http, "runs/set-tag", {"run_id": run_id, "key": "mlflow.runName", "value": "renamed"})
    assert get(http, "runs/get", run_id=run_id)["run"]["info"]["run_name"] == "renamed"


def test_aliases_move_and_versions_are_never_numbered_again(http: httpx.Client) -> None:
    post(http, "registered-models/create", {"name": "m"})
    made = [post(http, "model-versions/create", {"name": "m", "source": "s3://b/x"})["model_version"] for _ in range(2)]
    assert [one["version"] for one in made] == ["1", "2"]
    for alias in ("A", "a", "7", "with-dash_1"):
        post(http, "registered-models/alias", {"name": "m", "alias": alias, "version": "1"})
    post(http, "registered-models/alias", {"name": "m", "alias": "a", "version": "2"})
    assert get(http, "registered-models/alias", name="m", alias="a")["model_version"]["version"] == "2"
    assert get(http, "registered-models/alias", name="m", alias="A")["model_version"]["version"] == "1"
    for alias in ("latest", "LATEST", "v1", "V22", "a b", "a/b", "", "x" * 256):
        reply = http.post(f"{API}/registered-models/alias", json={"name": "m", "alias": alias, "version": "1"})
        assert refused(reply) == (400, "INVALID_PARAMETER_VALUE"), alias
    missing = http.post(f"{API}/registered-models/alias", json={"name": "m", "alias": "b", "version": "9"})
    assert refused(missing) == (404, "RESOURCE_DOES_NOT_EXIST")
    gone = http.request("DELETE", f"{API}/model-versions/delete", json={"name": "m", "version": "2"})
    assert gone.status_code == 200
    assert refused(http.get(f"{API}/registered-models/alias", params={"name": "m", "alias": "a"}))[0] == 400
    assert post(http, "model-versions/create", {"name": "m", "source": "s3://b/x"})["model_version"]["version"] == "3"
    move = {"name": "m", "version": "3", "stage": "production", "archive_existing_versions": True}
    assert post(http, "model-versions/transition-stage", move)["model_version"]["current_stage"] == "Production"
    bogus = http.post(f"{API}/model-versions/transition-stage", json={**move, "stage": "nearly"})
    assert refused(bogus) == (400, "INVALID_PARAMETER_VALUE")
    for name in ("a/b", "a:b", ""):
        assert http.post(f"{API}/registered-models/create", json={"name": name}).status_code == 400, name
