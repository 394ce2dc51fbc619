"""MLflow's own pages over our API: files by exact name, a policy that lets them talk to us only, and their GraphQL."""

from __future__ import annotations

from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from modelyard.server.run import Server
from running import client_of, raw_client, running_server

RUN_QUERY = """query GetRun($data: MlflowGetRunInput!) @component(name: "MLflow.ExperimentRunTracking") {
  mlflowGetRun(input: $data) {
    __typename
    apiError { helpUrl code message }
    run {
      info { runName status runUuid experimentId startTime endTime lifecycleStage }
      experiment { experimentId name tags { key value } lastUpdateTime }
      modelVersions { status version name source }
      data { metrics { key value step timestamp } params { key value } tags { key value } }
      inputs { datasetInputs { dataset { name } tags { key } } modelInputs { modelId } }
      outputs { modelOutputs { modelId step } }
    }
  }
}"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("pages")
    (root / "secret.txt").write_text("secret")
    (root / "build/static/js").mkdir(parents=True)
    (root / "build/index.html").write_text("<script src='static-files/static/js/main.js'></script>")
    (root / "build/static/js/main.js").write_text("1")
    with running_server(root / "home", mlflow_pages=str(root / "build")) as running:
        yield running


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    with raw_client(server, server.token) as made:
        yield made


@pytest.fixture(scope="module")
def run_id(server: Server) -> str:
    client = client_of(server)
    run = client.post("/api/runs", {"name": "first"})
    points = [["loss", 0.5, 1, 1_000], ["loss", 0.25, 2, 2_000], ["odd", None, 0, 0]]
    client.post(f"/api/runs/{run['id']}/log", {"metrics": points, "params": {"depth": "3"}})
    client.send_bytes("PUT", f"/api/runs/{run['id']}/artifacts/model/MLmodel", b"flavors: {}\n")
    client.post("/api/models", {"name": "delay"})
    client.post("/api/models/delay/versions", {"source": f"runs:/{run['id']}/model", "run": run["id"]})
    return str(run["id"])


def ask(http: httpx.Client, query: str, **variables: Any) -> Any:
    reply = http.post("/mlflow/graphql", json={"query": query, "variables": variables})
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_the_page_and_its_files_stand_below_each_project(http: httpx.Client) -> None:
    for prefix in ("", "/p/flights"):
        moved = http.get(f"{prefix}/mlflow")
        assert (moved.status_code, moved.headers["location"]) == (307, "mlflow/")
        page = http.get(f"{prefix}/mlflow/")
        assert page.headers["content-type"].startswith("text/html")
        assert "static-files/static/js/main.js" in page.text
        script = http.get(f"{prefix}/mlflow/static-files/static/js/main.js")
        assert (script.text, script.headers["content-type"].split(";")[0]) == ("1", "text/javascript")
        assert http.get(f"{prefix}/mlflow/ajax-api/2.0/mlflow/experiments/search?max_results=5").status_code == 200
        assert http.get(f"{prefix}/mlflow/ajax-api/3.0/mlflow/server-info").status_code == 200


def test_the_pages_talk_to_this_server_only_and_run_no_script_but_theirs(http: httpx.Client) -> None:
    policy = http.get("/mlflow/").headers["content-security-policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert (rules["default-src"], rules["script-src"]) == ("'none'", "'self'")
    assert set(rules["connect-src"].split()) == {"'self'", "blob:"}
    assert "http" not in policy
    assert "unsafe-eval" not in policy
    assert rules["frame-ancestors"] == "'none'"


def test_nobody_sees_them_without_a_token(server: Server) -> None:
    with raw_client(server) as anonymous:
        for path in ("/mlflow/", "/mlflow/static-files/static/js/main.js", "/mlflow/ajax-api/2.0/mlflow/runs/get"):
            assert anonymous.get(path).status_code == 401, path
        assert anonymous.post("/mlflow/graphql", json={"query": "{ a }"}).status_code == 401


@pytest.mark.parametrize("path", ["../secret.txt", "..%2fsecret.txt", "%2e%2e/secret.txt", "%252e%252e/secret.txt",
                                  "static/../../secret.txt", "/etc/passwd", "static", "nothing.js"])  # fmt: skip
def test_no_other_file_is_served(server: Server, path: str) -> None:
    plain = HTTPConnection("127.0.0.1", urlsplit(server.url).port or 0, timeout=30)
    plain.request("GET", f"/mlflow/static-files/{path}", headers={"Authorization": f"Bearer {server.token}"})
    reply = plain.getresponse()
    assert reply.status in (400, 404)
    assert b"secret" not in reply.read().replace(b"secret.txt", b"")
    plain.close()


@pytest.mark.slow
def test_where_there_are_no_pages_it_says_how_to_get_them(tmp_path: Path) -> None:
    with running_server(tmp_path / "home", mlflow_pages=str(tmp_path)) as bare, raw_client(bare, bare.token) as http:
        problem = http.get("/mlflow/").json()
        assert (problem["code"], "mlflow_pages" in problem["hint"]) == ("mlflow_pages.missing", True)


def test_graphql_gives_a_run_as_the_run_page_asks(http: httpx.Client, run_id: str) -> None:
    answer = ask(http, RUN_QUERY, data={"runId": run_id})
    assert answer["errors"] is None
    found = answer["data"]["mlflowGetRun"]
    assert (found["__typename"], found["apiError"]) == ("MlflowGetRunResponse", None)
    run = found["run"]
    assert (run["info"]["runUuid"], run["info"]["endTime"]) == (run_id, None)
    assert run["info"]["startTime"].isdecimal(), "what is long is a text"
    assert {one["key"]: (one["value"], one["step"]) for one in run["data"]["metrics"]} == {
        "loss": (0.25, "2"), "odd": (None, "0"),
    }  # fmt: skip
    assert run["experiment"] == {"experimentId": "0", "name": "Default", "tags": []} | {
        "lastUpdateTime": run["experiment"]["lastUpdateTime"]
    }
    assert [(one["name"], one["version"], one["status"]) for one in run["modelVersions"]] == [("delay", "1", "READY")]
    assert run["inputs"] == {"datasetInputs": [], "modelInputs": []}


def test_graphql_answers_each_of_the_other_operations(http: httpx.Client, run_id: str) -> None:
    runs = ask(
        http, "query Q($d: I!) { mlflowSearchRuns(input: $d) { runs { info { runUuid } modelVersions { name } } } }",
        d={"experimentIds": ["0"], "filter": "metrics.loss < 1", "runViewType": "ACTIVE_ONLY", "maxResults": 5},
    )  # fmt: skip
    assert runs["data"]["mlflowSearchRuns"]["runs"] == [
        {"info": {"runUuid": run_id}, "modelVersions": [{"name": "delay"}]}
    ]
    history = ask(
        http, "query Q($d: I!) { mlflowGetMetricHistoryBulkInterval(input: $d) { metrics { runId value step } } }",
        d={"runIds": [run_id], "metricKey": "loss", "maxResults": 320},
    )  # fmt: skip
    assert history["data"]["mlflowGetMetricHistoryBulkInterval"]["metrics"] == [
        {"runId": run_id, "value": 0.5, "step": "1"}, {"runId": run_id, "value": 0.25, "step": "2"},
    ]  # fmt: skip
    files = ask(
        http, "query Q($d: I!) { mlflowListArtifacts(input: $d) { files { path isDir fileSize } } }",
        d={"runId": run_id, "path": "model"},
    )  # fmt: skip
    assert files["data"]["mlflowListArtifacts"]["files"] == [
        {"path": "model/MLmodel", "isDir": False, "fileSize": "12"}
    ]
    versions = ask(
        http, "query Q($d: I!) { mlflowSearchModelVersions(input: $d) { modelVersions { name version } } }",
        d={"filter": "name='delay'"},
    )  # fmt: skip
    assert versions["data"]["mlflowSearchModelVersions"]["modelVersions"] == [{"name": "delay", "version": "1"}]
    datasets = ask(
        http, "mutation Q($d: I!) { mlflowSearchDatasets(input: $d) { datasetSummaries { name } } }",
        d={"experimentIds": ["0"]},
    )  # fmt: skip
    assert datasets["data"]["mlflowSearchDatasets"]["datasetSummaries"] == []
    experiment = ask(http, '{ mlflowGetExperiment(input: {experimentId: "0"}) { experiment { name } } }')
    assert experiment["data"]["mlflowGetExperiment"]["experiment"] == {"name": "Default"}


def test_graphql_says_what_is_wrong(http: httpx.Client) -> None:
    missing = ask(http, RUN_QUERY, data={"runId": "0" * 32})["data"]["mlflowGetRun"]
    assert (missing["run"], missing["apiError"]["code"]) == (None, "RESOURCE_DOES_NOT_EXIST")
    for query in ("{ other { a } }", '{ mlflowGetExperiment(input: {experimentId: "0"}) { secret } }', "{ a"):
        answer = ask(http, query)
        assert (answer["data"], len(answer["errors"])) == (None, 1)
