"""The unmodified MLflow client against our registry: register, alias, load, copy, stages, and gates that hold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from modelyard.kernel import auth, settings
from modelyard.kernel.auth import Role, system_scope
from modelyard.server.run import Server

mlflow = pytest.importorskip("mlflow")
linear_model = pytest.importorskip("sklearn.linear_model")
np = pytest.importorskip("numpy")

pytestmark = pytest.mark.slow

ROWS = np.arange(20.0).reshape(10, 2)
LABELS = (ROWS[:, 0] > 8).astype(int)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server of its own, that the MLflow client of this process talks to as a contributor."""
    running = Server(settings.load({"home": str(tmp_path / "home"), "port": 0}, environ={}, directory=tmp_path))
    running.start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", running.url)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", token(running, "ann", Role.CONTRIBUTOR))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    mlflow.set_tracking_uri(running.url)
    mlflow.set_registry_uri(running.url)
    yield running
    running.stop()


@pytest.fixture
def client(server: Server) -> object:
    """MLflow's own client."""
    return mlflow.MlflowClient()


def token(server: Server, name: str, role: Role) -> str:
    with server.yard.database.transaction(system_scope("*")) as tx:
        return auth.issue_token(tx, name, "default", role)


def http(server: Server, name: str, role: Role) -> httpx.Client:
    return httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {token(server, name, role)}"})


def trained() -> object:
    return linear_model.LogisticRegression().fit(ROWS, LABELS)


def logged(name: str | None = None, with_signature: bool = True) -> SimpleNamespace:
    """A run that logs a model, registered as `name`."""
    signature = mlflow.models.infer_signature(ROWS, LABELS) if with_signature else None
    with mlflow.start_run() as run:
        info = mlflow.sklearn.log_model(
            trained(), name="model", signature=signature, registered_model_name=name, pip_requirements=["scikit-learn"]
        )
    return SimpleNamespace(run=run.info.run_id, uri=info.model_uri)


def test_log_register_and_load_by_version_and_alias(server: Server, client) -> None:
    made = logged("delay")
    assert client.get_model_version("delay", "1").run_id == made.run
    registered = mlflow.register_model(made.uri, "delay", tags={"team": "ops"})
    assert registered.version in (2, "2")
    client.set_registered_model_alias("delay", "champion", "2")
    assert str(client.get_model_version_by_alias("delay", "champion").version) == "2"
    for uri in ("models:/delay/1", "models:/delay@champion", "models:/delay/latest"):
        loaded = mlflow.pyfunc.load_model(uri)
        assert loaded.predict(ROWS).tolist() == trained().predict(ROWS).tolist()
    version = httpx.get(
        f"{server.url}/api/models/delay/versions/champion", headers={"Authorization": f"Bearer {server.token}"}
    ).json()
    assert version["digest"]
    assert version["files"] >= 3
    assert version["signature"]["inputs"]
    assert version["provenance"]["run"] == made.run


def test_a_model_of_a_run_is_registered_by_its_path(server: Server, client) -> None:
    made = logged()
    registered = mlflow.register_model(f"runs:/{made.run}/model", "delay")
    assert str(registered.version) == "1"
    assert mlflow.pyfunc.load_model("models:/delay/1").predict(ROWS).shape == (10,)


def test_copy_to_another_model(server: Server, client) -> None:
    logged("delay")
    copied = client.copy_model_version("models:/delay/1", "delay-production")
    assert copied.name == "delay-production"
    assert str(copied.version) == "1"
    assert mlflow.pyfunc.load_model("models:/delay-production/1").predict(ROWS).shape == (10,)


def test_search_tags_and_rename(server: Server, client) -> None:
    for name in ("delay-a", "delay-b", "other"):
        client.create_registered_model(name, tags={"team": name[-1]})
    assert [one.name for one in client.search_registered_models("name LIKE 'delay%'")] == ["delay-a", "delay-b"]
    assert [one.name for one in client.search_registered_models("tags.team = 'b'")] == ["delay-b"]
    client.set_registered_model_tag("other", "team", "x")
    client.delete_registered_model_tag("other", "team")
    assert client.get_registered_model("other").tags == {}
    client.rename_registered_model("other", "another")
    with pytest.raises(mlflow.exceptions.MlflowException, match="name=other not found"):
        client.get_registered_model("other")


@pytest.mark.filterwarnings("ignore")
def test_stages_still_work(server: Server, client) -> None:
    logged("delay")
    logged("delay")
    client.transition_model_version_stage("delay", "1", "Production")
    client.transition_model_version_stage("delay", "2", "production", archive_existing_versions=True)
    assert client.get_model_version("delay", "1").current_stage == "Archived"
    assert mlflow.pyfunc.load_model("models:/delay/Production").metadata is not None


def test_errors_are_those_that_its_users_know(server: Server, client) -> None:
    client.create_registered_model("delay")
    for act, code in (
        (lambda: client.create_registered_model("delay"), "RESOURCE_ALREADY_EXISTS"),
        (lambda: client.get_registered_model("gone"), "RESOURCE_DOES_NOT_EXIST"),
        (lambda: client.get_model_version("delay", "7"), "RESOURCE_DOES_NOT_EXIST"),
        (lambda: client.get_model_version_by_alias("delay", "none"), "INVALID_PARAMETER_VALUE"),
        (lambda: client.set_registered_model_alias("delay", "v1", "1"), "INVALID_PARAMETER_VALUE"),
        (lambda: client.create_model_version("delay", "file:///etc/passwd"), "INVALID_PARAMETER_VALUE"),
        (lambda: client.search_registered_models("stage = 'x'"), "INVALID_PARAMETER_VALUE"),
    ):
        with pytest.raises(mlflow.exceptions.MlflowException) as caught:
            act()
        assert caught.value.error_code == code


def test_gates_hold_through_mlflows_api(server: Server, client) -> None:
    """Where a model declares a policy, MLflow's own client gets 403 with what is missing, until it is there."""
    logged("delay")
    with http(server, "admin", Role.ADMIN) as admin, http(server, "bob", Role.APPROVER) as bob:
        yaml = "signature: true\nprovenance: {run: true}\napprovals: {count: 1}"
        assert admin.put("/api/models/delay/policy", json={"yaml": yaml}).status_code == 200
        for move in (
            lambda: client.set_registered_model_alias("delay", "champion", "1"),
            lambda: client.transition_model_version_stage("delay", "1", "Production"),
        ):
            with pytest.raises(mlflow.exceptions.MlflowException, match="1 approvals are needed") as caught:
                move()
            assert caught.value.error_code == "PERMISSION_DENIED"
            assert caught.value.get_http_status_code() == 403
        approved = bob.post("/api/models/delay/versions/1/approvals", json={"reason": "read it"})
        assert approved.status_code == 201, approved.text
    client.set_registered_model_alias("delay", "champion", "1")
    assert str(client.get_model_version_by_alias("delay", "champion").version) == "1"
    for way_round in (
        lambda: client.delete_registered_model_alias("delay", "champion"),
        lambda: client.delete_model_version("delay", "1"),
        lambda: client.delete_registered_model("delay"),
        lambda: client.rename_registered_model("delay", "late"),
    ):
        with pytest.raises(mlflow.exceptions.MlflowException) as caught:
            way_round()
        assert caught.value.error_code == "PERMISSION_DENIED"
    assert str(client.get_model_version_by_alias("delay", "champion").version) == "1"


def test_a_version_stays_what_it_was(server: Server, client) -> None:
    """Its own snapshot is served, whatever is done to the run's artifacts later."""
    made = logged("delay")
    client.log_artifact(made.run, __file__, "later")
    found = client.get_model_version("delay", "1")
    with http(server, "vera", Role.VIEWER) as viewer:
        before = viewer.get("/model-versions/get-artifact", params={"name": "delay", "version": "1", "path": "MLmodel"})
        assert before.status_code == 200
        assert found.run_id in before.text
        for path in ("../MLmodel", "/etc/passwd", "MLmodel%2f..", "nothing"):
            refused = viewer.get("/model-versions/get-artifact", params={"name": "delay", "version": "1", "path": path})
            assert refused.status_code in (400, 404), path


def test_what_is_loaded_is_what_was_registered(server: Server, client, tmp_path: Path) -> None:
    """Whoever overwrites the logged model after it was registered changes nothing that its version loads."""
    made = logged("delay")
    client.set_registered_model_alias("delay", "champion", "1")
    before = mlflow.artifacts.download_artifacts("models:/delay@champion", dst_path=str(tmp_path / "before"))
    here = sorted(file.relative_to(before) for file in Path(before).rglob("*") if file.is_file())
    data = next(str(file) for file in here if file.name.startswith("model."))
    evil = tmp_path / data
    evil.write_bytes(b"not a model any more")
    client.log_model_artifact(made.uri.removeprefix("models:/"), str(evil))
    kept = mlflow.artifacts.download_artifacts("models:/delay@champion", dst_path=str(tmp_path / "after"))
    assert sorted(file.relative_to(kept) for file in Path(kept).rglob("*") if file.is_file()) == here
    assert (Path(kept) / data).read_bytes() == (Path(before) / data).read_bytes() != evil.read_bytes()
    assert list(mlflow.sklearn.load_model("models:/delay@champion").predict(ROWS)) == list(trained().predict(ROWS))
    place = client.get_model_version_download_uri("delay", "1").removeprefix("mlflow-artifacts:/")
    with http(server, "ann", Role.ADMIN) as admin:
        address = f"/api/2.0/mlflow-artifacts/artifacts/{place}/{data}"
        assert admin.put(address, content=b"evil").json()["error_code"] == "PERMISSION_DENIED"
        assert admin.delete(address).status_code == 403
        assert admin.get(address + "/../../../../secret").status_code in (400, 404)
    client.delete_model_version("delay", "1")
    with http(server, "vera", Role.VIEWER) as viewer:
        assert viewer.get(address).status_code == 404


def test_unsigned_files_are_not_loaded_where_signatures_are_wanted(server: Server, client, tmp_path: Path) -> None:
    signing = pytest.importorskip("modelyard.sdk.signing")
    pytest.importorskip("model_signing")
    from cryptography.hazmat.primitives import serialization as out
    from cryptography.hazmat.primitives.asymmetric import ec

    logged("delay")
    key = ec.generate_private_key(ec.SECP256R1())
    private = tmp_path / "private.pem"
    private.write_bytes(key.private_bytes(out.Encoding.PEM, out.PrivateFormat.PKCS8, out.NoEncryption()))
    public = key.public_key().public_bytes(out.Encoding.PEM, out.PublicFormat.SubjectPublicKeyInfo).decode()
    with http(server, "admin", Role.ADMIN) as admin:
        policy = {"policy": {"require_signature": {"keys": [public]}}}
        assert admin.put("/api/models/delay/policy", json=policy).status_code == 200
        with pytest.raises(mlflow.exceptions.MlflowException, match="nobody has signed") as caught:
            mlflow.sklearn.load_model("models:/delay/1")
        assert caught.value.error_code == "PERMISSION_DENIED"
        files = tmp_path / "files"
        server.yard.registry.versions.materialize(system_scope("default"), "delay", 1, files)
        bundle, _ = signing.sign_directory(files, private)
        sent = admin.post("/api/models/delay/versions/1/signatures", json={"bundle": bundle, "public_key": public})
        assert sent.status_code == 201, sent.text
    assert list(mlflow.sklearn.load_model("models:/delay/1").predict(ROWS)) == list(trained().predict(ROWS))


def test_prompts_are_kept_apart(server: Server, client) -> None:
    prompt = mlflow.genai.register_prompt("greeting", "Hello {{name}}") if hasattr(mlflow, "genai") else None
    if prompt is None:
        pytest.skip("this client has no prompts")
    assert prompt.version == 1
    assert client.search_registered_models() == []
    assert mlflow.genai.load_prompt("prompts:/greeting/1").template == "Hello {{name}}"
