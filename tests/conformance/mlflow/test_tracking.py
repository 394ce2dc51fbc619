"""The unmodified MLflow client, plain HTTP and our SDK against tracking: what is logged comes back, errors fit."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from modelyard.kernel.errors import InvalidInput
from modelyard.sdk.active_run import start_run
from modelyard.server.run import Server
from running import client_of, raw_client, running_server

mlflow = pytest.importorskip("mlflow")
MLFLOW = "/api/2.0/mlflow"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server; each test has a project of its own."""
    with running_server(tmp_path_factory.mktemp("home") / "home") as running:
        yield running


@pytest.fixture
def project(request: pytest.FixtureRequest) -> str:
    """A project of the test's own."""
    return f"p{abs(hash(request.node.nodeid)) % 10**12}"


@pytest.fixture
def url(server: Server, project: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The tracking URI, set for this process's MLflow."""
    address = f"{server.url}/p/{project}"
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", server.token)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    mlflow.set_tracking_uri(address)
    mlflow.set_experiment(experiment_id="0")
    yield address
    while mlflow.active_run():
        mlflow.end_run()


@pytest.fixture
def http(server: Server, project: str) -> Iterator[httpx.Client]:
    """Plain HTTP in the test's project."""
    with raw_client(server, server.token) as made:
        made.base_url = httpx.URL(f"{server.url}/p/{project}")
        yield made


def _run(http: httpx.Client) -> str:
    made = http.post(f"{MLFLOW}/runs/create", json={"experiment_id": "0", "start_time": 1})
    assert made.status_code == 200, made.text
    return str(made.json()["run"]["info"]["run_id"])


@pytest.mark.usefixtures("url")
def test_a_run_of_the_fluent_client_comes_back(tmp_path: Path) -> None:
    mlflow.set_experiment("flights")
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "roc ü.txt").write_text("curve")
    with mlflow.start_run(run_name="first") as run:
        mlflow.log_params({"depth": 3, "lr": 0.1})
        for step in range(5):
            mlflow.log_metrics({"loss": 1 / (step + 1), "odd": math.nan}, step=step)
        mlflow.set_tag("team", "ops")
        mlflow.log_artifacts(str(tmp_path))
    found = mlflow.get_run(run.info.run_id)
    assert found.info.status == "FINISHED"
    assert found.data.params == {"depth": "3", "lr": "0.1"}
    assert found.data.metrics["loss"] == 0.2
    assert math.isnan(found.data.metrics["odd"])
    client = mlflow.MlflowClient()
    assert [one.value for one in client.get_metric_history(run.info.run_id, "loss")] == [1, 0.5, 1 / 3, 0.25, 0.2]
    assert [one.path for one in client.list_artifacts(run.info.run_id, "plots")] == ["plots/roc ü.txt"]
    local = Path(mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="plots/roc ü.txt"))
    assert local.read_text() == "curve"
    with pytest.raises(mlflow.MlflowException, match="Changing param values is not allowed"):
        client.log_param(run.info.run_id, "depth", 4)


@pytest.mark.usefixtures("url")
def test_runs_are_searched_with_mlflows_filters() -> None:
    for value in (1.0, 2.0, 3.0):
        with mlflow.start_run(run_name=f"r{value:.0f}"):
            mlflow.log_metric("auc", value)
            mlflow.log_param("kind", "x" if value > 1 else "y")
    names = [
        run.info.run_name
        for run in mlflow.search_runs(
            search_all_experiments=True, filter_string="metrics.auc > 1 AND params.kind = 'x'",
            order_by=["metrics.auc DESC"], output_format="list",
        )
    ]  # fmt: skip
    assert names == ["r3", "r2"]


@pytest.mark.slow
@pytest.mark.usefixtures("url")
def test_autologging_of_scikit_learn_logs_model_inputs_and_metrics() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    np = pytest.importorskip("numpy")
    mlflow.sklearn.autolog(silent=True)
    rows = np.arange(40.0).reshape(20, 2)
    try:
        with mlflow.start_run() as run:
            linear_model.LogisticRegression(max_iter=50).fit(rows, rows[:, 0] > 20)
    finally:
        mlflow.sklearn.autolog(disable=True)
    found = mlflow.get_run(run.info.run_id)
    assert found.data.params["max_iter"] == "50"
    assert "training_accuracy_score" in found.data.metrics
    assert found.inputs.dataset_inputs
    (output,) = found.outputs.model_outputs
    loaded = mlflow.sklearn.load_model(f"models:/{output.model_id}")
    assert loaded.predict(rows).shape == (20,)


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "words"),
    [
        ("runs/log-metric", {"key": "m", "value": 1, "timestamp": 1}, 400, "INVALID_PARAMETER_VALUE",
         "Missing value for required parameter 'run_id'"),
        ("runs/log-metric", {"run_id": 31, "key": "m", "value": 1, "timestamp": 1}, 400, "INVALID_PARAMETER_VALUE",
         "Invalid value 31 for parameter 'run_id' supplied"),
        ("runs/log-metric", {"run_id": "RUN", "key": "m", "value": "x", "timestamp": 1}, 400,
         "INVALID_PARAMETER_VALUE", "Invalid value \"x\" for parameter 'value' supplied"),
        ("runs/log-metric", {"run_id": "RUN", "key": "m", "value": 1, "timestamp": 1.5}, 400,
         "INVALID_PARAMETER_VALUE", "Invalid value 1.5 for parameter 'timestamp' supplied"),
        ("runs/log-metric", {"run_id": "0" * 32, "key": "m", "value": 1, "timestamp": 1}, 404,
         "RESOURCE_DOES_NOT_EXIST", "not found"),
        ("runs/log-batch", {"run_id": "RUN", "metrics": [{"key": "m", "value": 1}]}, 400,
         "INVALID_PARAMETER_VALUE", "Missing value for required parameter 'metrics[0].timestamp'"),
        ("runs/log-batch", {"run_id": "RUN", "metrics": [{"key": "m", "value": "x", "timestamp": 1}]}, 400,
         "INVALID_PARAMETER_VALUE", "Invalid value \"x\" for parameter 'metrics[0].value' supplied"),
        ("runs/log-batch", {"run_id": "RUN", "params": [{"key": "a", "value": "1"}, {"key": "a", "value": "1"}]}, 400,
         "INVALID_PARAMETER_VALUE", "Duplicate parameter keys"),
        ("runs/log-batch", {"run_id": "RUN", "metrics": [{"key": "m", "value": 1, "timestamp": 1}] * 1001}, 400,
         "INVALID_PARAMETER_VALUE", "at most 1000 metrics"),
        ("runs/search", {"experiment_ids": ["0"], "max_results": 123456789}, 400, "INVALID_PARAMETER_VALUE",
         "Invalid value 123456789 for parameter 'max_results' supplied"),
        ("experiments/create", {"name": "Default"}, 400, "RESOURCE_ALREADY_EXISTS", "already exists"),
        ("experiments/create", {"name": "x", "artifact_location": "runs:/x"}, 400, "INVALID_PARAMETER_VALUE", "runs:/"),
        ("experiments/delete", {"experiment_id": "77"}, 404, "RESOURCE_DOES_NOT_EXIST", "No Experiment with id=77"),
    ],
)  # fmt: skip
def test_errors_are_worded_as_mlflow_words_them(
    http: httpx.Client, path: str, body: dict[str, Any], status: int, code: str, words: str
) -> None:
    http.get(f"{MLFLOW}/experiments/get", params={"experiment_id": "0"})
    run_id = _run(http)
    reply = http.post(f"{MLFLOW}/{path}", content=json.dumps(body).replace("RUN", run_id))
    assert (reply.status_code, reply.json()["error_code"]) == (status, code)
    assert words in reply.json()["message"]


@pytest.mark.parametrize(
    ("asked", "kept"),
    [("mine", f"{Path.cwd()}/mine"), ("/data/mine", "/data/mine"), ("s3://bucket/mine", "s3://bucket/mine")],
)
def test_a_location_that_is_a_path_is_the_servers(http: httpx.Client, asked: str, kept: str) -> None:
    body = {"name": f"at {asked}", "artifact_location": asked}
    made = http.post(f"{MLFLOW}/experiments/create", json=body).json()
    found = http.get(f"{MLFLOW}/experiments/get", params=made).json()["experiment"]
    assert found["artifact_location"] == kept


@pytest.mark.parametrize(
    ("sent", "kept"),
    [("NaN", "NaN"), ('"NaN"', "NaN"), ("true", 1.0), ('"2.5"', 2.5), ('"Infinity"', 1.7976931348623157e308)],
)
def test_numbers_of_every_spelling_are_kept(http: httpx.Client, sent: str, kept: object) -> None:
    run_id = _run(http)
    body = f'{{"run_id": "{run_id}", "key": "m", "value": {sent}, "timestamp": "7", "step": null}}'
    assert http.post(f"{MLFLOW}/runs/log-metric", content=body).status_code == 200
    history = http.get(f"{MLFLOW}/metrics/get-history", params={"run_id": run_id, "metric_key": "m"}).json()
    assert history == {"metrics": [{"key": "m", "value": kept, "timestamp": 7, "step": 0}]}


@pytest.mark.parametrize("sent", ["1e400", "null", '"x"', "[]", "{}"])
def test_a_value_that_is_no_number_is_refused_not_swallowed(http: httpx.Client, sent: str) -> None:
    run_id = _run(http)
    body = f'{{"run_id": "{run_id}", "key": "m", "value": {sent}, "timestamp": 7}}'
    reply = http.post(f"{MLFLOW}/runs/log-metric", content=body)
    found = http.get(f"{MLFLOW}/runs/get", params={"run_id": run_id}).json()["run"]["data"]
    if sent == "1e400":
        # Python's decoder reads it as an infinity, which is kept as the largest double; never as zero.
        assert reply.status_code == 400 or found["metrics"][0]["value"] == 1.7976931348623157e308
        return
    assert reply.status_code == 400, reply.text
    assert "metrics" not in found


@pytest.mark.parametrize(
    "path", ["../x", "..%2fx", "%2e%2e/x", "%252e%252e/x", "a/..%5c..%5cx", "a/./x", "a%00b", "~/x", "..;/x"]
)
def test_artifact_paths_that_climb_are_refused_in_every_encoding(
    server: Server, http: httpx.Client, project: str, path: str
) -> None:
    run_id = _run(http)
    for prefix in ("", f"0/{run_id}/artifacts/"):
        for method in ("PUT", "GET", "DELETE"):
            # Sent as it stands: httpx would tidy up the path before it leaves.
            plain = HTTPConnection("127.0.0.1", urlsplit(server.url).port or 0, timeout=30)
            address = f"/p/{project}/api/2.0/mlflow-artifacts/artifacts/{prefix}{path}"
            plain.request(method, address, b"x", {"Authorization": f"Bearer {server.token}"})
            assert plain.getresponse().status in (400, 404), (method, address)
            plain.close()
    assert "files" not in http.get(f"{MLFLOW}/artifacts/list", params={"run_id": run_id}).json()


def test_a_large_artifact_streams_through(http: httpx.Client) -> None:
    run_id, piece = _run(http), b"0123456789abcdef" * 65_536
    address = f"/api/2.0/mlflow-artifacts/artifacts/0/{run_id}/artifacts/big.bin"
    assert http.put(address, content=(piece for _ in range(20))).status_code == 200
    with http.stream("GET", address) as reply:
        assert reply.headers["content-length"] == str(20 * len(piece))
        assert sum(len(one) for one in reply.iter_bytes()) == 20 * len(piece)


def test_what_is_not_offered_says_so_and_clients_fall_back(http: httpx.Client) -> None:
    for method, path in (
        ("GET", "/api/2.0/mlflow-artifacts/presigned/0/x"),
        ("POST", "/api/2.0/mlflow/artifacts/presigned-upload-url"),
    ):
        reply = http.request(method, path, json={"path": "x"} if method == "POST" else None)
        assert (reply.status_code, reply.json()["error_code"]) == (501, "NOT_IMPLEMENTED")


@pytest.mark.usefixtures("url")
def test_a_large_file_goes_up_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, http: httpx.Client) -> None:
    monkeypatch.setenv("MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD", "true")
    monkeypatch.setenv("MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE", "1")
    monkeypatch.setenv("MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE", "100000")
    content = bytes(range(256)) * 2_000
    (tmp_path / "big.bin").write_bytes(content)
    with mlflow.start_run() as run:
        mlflow.log_artifact(str(tmp_path / "big.bin"), "deep/er")
    back = mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="deep/er/big.bin")
    assert Path(back).read_bytes() == content
    # Nothing of an upload shows before it is complete, and nothing is left of one that was given up.
    root = f"/api/2.0/mlflow-artifacts/mpu/{{}}/0/{run.info.run_id}/artifacts"
    begun = http.post(root.format("create"), json={"path": "/home/me/x.bin", "num_parts": 2}).json()
    put = [http.put(one["url"], content=b"ab", headers=one["headers"]) for one in begun["credentials"]]
    listed = {"run_id": run.info.run_id}
    assert [one["path"] for one in http.get(f"{MLFLOW}/artifacts/list", params=listed).json()["files"]] == ["deep"]
    parts = [{"part_number": at + 1, "etag": one.headers["etag"]} for at, one in enumerate(put)]
    asked = {"path": "x.bin", "upload_id": begun["upload_id"]}
    wrong = [{**parts[0], "etag": "other"}, parts[1]]
    assert http.post(root.format("complete"), json={**asked, "parts": wrong}).status_code == 400
    assert http.post(root.format("complete"), json={**asked, "parts": parts}).status_code == 200
    assert http.post(root.format("complete"), json={**asked, "parts": parts}).status_code == 404
    assert http.post(root.format("abort"), json=asked).status_code == 200
    again = http.post(root.format("create"), json={"path": "y.bin", "num_parts": 1}).json()
    assert http.post(root.format("abort"), json={"path": "y", "upload_id": again["upload_id"]}).status_code == 200
    assert http.put(again["credentials"][0]["url"], content=b"x").status_code == 404
    files = http.get(f"{MLFLOW}/artifacts/list", params=listed).json()["files"]
    assert [(one["path"], one.get("file_size")) for one in files] == [("deep", None), ("x.bin", 4)]
    for path in ("../x", "a/..", "..", "/", "."):
        refused = http.post(root.format("create"), json={"path": path if path == "/" else f"/x/{path}", "num_parts": 1})
        assert refused.status_code == 400 or path == "../x", path


@pytest.mark.slow
def test_many_clients_write_at_once_and_nothing_is_lost(server: Server, http: httpx.Client, project: str) -> None:
    run_id, failures = _run(http), []

    def write(writer: int) -> None:
        with raw_client(server, server.token) as mine:
            for batch in range(4):
                points = [
                    {"key": f"w{writer}", "value": step, "timestamp": step, "step": step}
                    for step in range(batch * 50, batch * 50 + 50)
                ]
                reply = mine.post(f"/p/{project}{MLFLOW}/runs/log-batch", json={"run_id": run_id, "metrics": points})
                if reply.status_code != 200:
                    failures.append(reply.text)

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    for writer in range(32):
        asked = {"run_id": run_id, "metric_key": f"w{writer}"}
        found = http.get(f"{MLFLOW}/metrics/get-history", params=asked).json()["metrics"]
        assert [point["step"] for point in found] == list(range(200))


def test_our_own_sdk_logs_in_the_background_and_flushes(
    server: Server, project: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELYARD_HOME", str(tmp_path))
    client = client_of(server, project)
    with start_run("mine", experiment="sdk", params={"lr": 0.1}, client=client) as run:
        for step in range(2_000):
            run.log_metrics({"loss": 1.0 / (step + 1), "bad": math.nan}, step=step)
        run.flush()
        series = client.get(f"/api/runs/{run.id}/metrics/loss", params={"points_max": 100_000})
        assert series["steps"] == list(range(2_000))
        run.log_text("hello", "notes/a.txt")
        run.log_params({"lr": 0.2})
        with pytest.raises(InvalidInput, match="Changing param values"):
            run.flush()
        run.log_input("flights", 7)
    found = client.get(f"/api/runs/{run.id}")
    assert (found["status"], found["params"]) == ("FINISHED", {"lr": "0.1"})
    assert found["inputs"][0]["dataset"]["source"] == "dataset:flights@7"
    assert client.get_bytes(f"/api/runs/{run.id}/artifacts/notes/a.txt") == b"hello"
