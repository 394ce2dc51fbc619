"""The registry as programs and people reach it: the SDK and the command line over a running server."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from modelyard.cli.model import app
from modelyard.kernel import auth, settings
from modelyard.kernel.auth import Principal, Role, Scope, system_scope
from modelyard.kernel.errors import Conflict, Forbidden, InvalidInput, ModelyardError, NotFound
from modelyard.planes.tracking import Owner
from modelyard.sdk.client import Client
from modelyard.sdk.registry import ModelHandle, list_models
from modelyard.server.run import Server
from modelyard.types.registry import ApprovalRule, Policy
from modelyard.types.tracking import CreateRun

from .conftest import LIGHTGBM, MLMODEL, PICKLE

ROWS = {
    "row_id": [f"r{n}" for n in range(400)],
    "label": [int(n % 3 == 0) for n in range(400)],
    "score": [0.9 - 0.002 * n if n % 3 == 0 else 0.1 + 0.001 * n for n in range(400)],
    "origin": ["JFK" if n % 2 else "EWR" for n in range(400)],
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    running = Server(settings.load({"home": str(tmp_path / "home"), "port": 0}, environ={}, directory=tmp_path))
    running.start()
    yield running
    running.stop()


def client_of(server: Server, name: str, role: Role) -> Client:
    with server.yard.database.transaction(system_scope("*")) as tx:
        token = auth.issue_token(tx, name, "default", role)
    return Client(server.url, token=token)


def logged(server: Server, files: dict[str, bytes]) -> str:
    tracking = server.yard.tracking
    scope = Scope("default", Principal("ann", {"default": Role.CONTRIBUTOR}))
    run = tracking.runs.create(scope, CreateRun(experiment_id="0"))
    model = tracking.models.create(scope, "0", "delay", source_run_id=run.id)
    for path, content in files.items():
        tracking.artifacts.put(scope, Owner("model", model.id), path, io.BytesIO(content))
    return f"models:/{model.id}"


@pytest.fixture
def ann(server: Server) -> ModelHandle:
    return ModelHandle("delay", client_of(server, "ann", Role.CONTRIBUTOR))


@pytest.fixture
def bob(server: Server) -> ModelHandle:
    return ModelHandle("delay", client_of(server, "bob", Role.APPROVER))


@pytest.fixture
def one(server: Server, ann: ModelHandle) -> int:
    return ann.register(logged(server, {"MLmodel": MLMODEL, "model.txt": LIGHTGBM})).version


def test_the_whole_way_through_the_sdk(server: Server, ann: ModelHandle, bob: ModelHandle, one: int, tmp_path) -> None:
    began = datetime.now(UTC)
    ann.set_policy("metrics: [{metric: auc, min: 0.5}]\nlatency: {p95_ms: 20}\napprovals: {count: 1}")
    with pytest.raises(Forbidden) as caught:
        ann.promote(one, "champion", "please")
    assert len(caught.value.details["unmet"]) == 3
    made = ann.evaluate(one, ROWS)
    assert made.overall.rows == 400
    assert {cut.value for cut in made.slices} == {"JFK", "EWR"}
    assert ann.record(one).evaluations()[0] == made
    ann.record_latency(one, p50_ms=1.0, p95_ms=2.0, requests=100, measured_on="here")
    assert bob.approve(one, "fine").by == "bob"
    assert ann.gates(one).promotable
    assert ann.promote(one, "champion", "first").aliases == ["champion"]
    assert ann.resolve("champion").version == one
    assert ann.at("champion", datetime.now(UTC)).version == one
    with pytest.raises(NotFound):
        ann.at("champion", began - timedelta(days=1))
    assert [move.reason for move in ann.history()] == ["first"]
    found = ann.download("champion", tmp_path / "out")
    assert found.version == one
    assert (tmp_path / "out" / "model.txt").read_bytes() == LIGHTGBM
    with pytest.raises(FileExistsError):
        ann.download("champion", tmp_path / "out")
    assert [model.name for model in list_models(ann._client).items] == ["delay"]


def test_errors_come_back_as_they_were_raised(server: Server, ann: ModelHandle, one: int) -> None:
    for act, kind in (
        (lambda: ann.create(), Conflict),
        (lambda: ann.resolve("nobody"), NotFound),
        (lambda: ann.evaluate(one, {"row_id": [1]}), InvalidInput),
        (lambda: ann.evaluate(one, 7), InvalidInput),
        (lambda: ann.set_policy("metrics: 7"), InvalidInput),
        (lambda: ann.approve(one, "mine"), Forbidden),
        (lambda: ann.record(one).trust("mine"), Forbidden),
        (lambda: ann.rollback("champion"), Conflict),
    ):
        with pytest.raises(kind):
            act()


def test_a_policy_as_a_structure_and_gone_again(server: Server, ann: ModelHandle, one: int) -> None:
    policy = Policy(signature=True, approvals=ApprovalRule(count=2))
    assert ann.set_policy(policy).policy == policy
    with pytest.raises(Forbidden):
        ann.set_policy(None)
    admin = ModelHandle("delay", client_of(server, "root", Role.ADMIN))
    assert admin.set_policy(None, "no need").policy is None


def test_viewers_read_and_nothing_else(server: Server, ann: ModelHandle, one: int) -> None:
    viewer = ModelHandle("delay", client_of(server, "vera", Role.VIEWER))
    assert viewer.resolve(one).version == one
    for act in (
        lambda: viewer.promote(one, "champion"),
        lambda: viewer.evaluate(one, ROWS),
        lambda: viewer.drop(one, "no"),
        lambda: viewer.register("models:/delay/1"),
        lambda: viewer.delete(),
    ):
        with pytest.raises(Forbidden):
            act()


@pytest.fixture
def cli(server: Server, one: int, monkeypatch: pytest.MonkeyPatch):
    """Runs a command as somebody."""
    tokens = {
        name: client_of(server, name, role).token
        for name, role in (("ann", Role.CONTRIBUTOR), ("bob", Role.APPROVER), ("root", Role.ADMIN))
    }

    def run(*words: str, who: str = "ann") -> tuple[int, str]:
        monkeypatch.setenv("MODELYARD_URL", server.url)
        monkeypatch.setenv("MODELYARD_TOKEN", tokens[who])
        result = CliRunner().invoke(app, list(words))
        if isinstance(result.exception, ModelyardError):
            return 1, str(result.exception)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.output

    return run


def test_the_whole_way_through_the_command_line(server: Server, cli, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    policy = tmp_path / "policy.yaml"
    policy.write_text("signature: true\nmetrics: [{metric: auc, min: 0.5}]\napprovals: {count: 1}\n")
    assert cli("policy", "delay", str(policy))[0] == 0
    code, shown = cli("gates", "delay", "1")
    assert code == 3
    assert "may NOT become champion" in shown
    rows = tmp_path / "rows.parquet"
    parquet.write_table(pa.table(ROWS), rows)
    assert "400" in cli("evaluate", "delay", "1", str(rows))[1]
    assert "bob approved delay@1" in cli("approve", "delay", "1", "-m", "read it", who="bob")[1]
    assert cli("gates", "delay", "1")[0] == 0
    assert "version 1 now" in cli("promote", "delay", "1", "-m", "first")[1]
    assert "champion" in cli("versions", "delay")[1]
    assert "first" in cli("history", "delay")[1]
    assert "was version 1" in cli("history", "delay", "--at", datetime.now(UTC).isoformat())[1]
    assert "delay@1" in cli("get", "delay", "champion")[1]
    assert "declared" in cli("get", "delay")[1]
    assert "delay" in cli("list")[1]
    assert "# delay, version 1" in cli("card", "delay")[1]
    assert json.loads(cli("bom", "delay", "champion")[1])["bomFormat"] == "CycloneDX"
    assert cli("download", "delay", "1", str(tmp_path / "out"))[0] == 0


def test_a_second_version_diff_override_rollback_and_drop(server: Server, cli) -> None:
    cli("promote", "delay", "1")
    source = logged(server, {"MLmodel": MLMODEL, "model.pkl": PICKLE})
    assert "unsafe" in cli("register", "delay", source)[1]
    assert "model.pkl" in cli("diff", "delay", "1", "2")[1]
    assert "trusted by bob" in cli("trust", "delay", "2", "-m", "mine", who="bob")[1]
    code, shown = cli("drop", "delay", "1", "-m", "old")
    assert code == 1
    assert "champion" in shown
    cli("promote", "delay", "2")
    assert "version 1 again" in cli("rollback", "delay", "-m", "worse")[1]
    assert "dropped" in cli("drop", "delay", "2", "-m", "worse")[1]


def test_json_for_programs(server: Server, cli) -> None:
    for words in (
        ("list",),
        ("get", "delay"),
        ("get", "delay", "1"),
        ("versions", "delay"),
        ("gates", "delay", "1"),
        ("history", "delay"),
        ("policy", "delay"),
        ("diff", "delay", "1", "1"),
    ):
        json.loads(cli(*words, "--json")[1])


def test_signing_and_verifying_from_the_command_line(server: Server, cli, tmp_path: Path) -> None:
    pytest.importorskip("model_signing")
    from cryptography.hazmat.primitives import serialization as out
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"
    private.write_bytes(key.private_bytes(out.Encoding.PEM, out.PrivateFormat.PKCS8, out.NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(out.Encoding.PEM, out.PublicFormat.SubjectPublicKeyInfo))
    assert cli("verify", "delay", "1", "--key", str(public)) == (1, "nobody has signed the files of delay@1")
    assert cli("verify", "delay", "1")[0] == 3
    assert "is signed with the key" in cli("sign", "delay", "1", "--key", str(private))[1]
    assert "are those that were signed" in cli("verify", "delay", "1", "--key", str(public))[1]
    status, said = cli("verify", "delay", "1", "--json")
    assert status == 3, "valid, but no policy trusts the key"
    assert json.loads(said)["items"][0]["valid"]
    policy = tmp_path / "policy.json"
    policy.write_text(json.dumps({"require_signature": {"keys": [public.read_text()]}}))
    assert cli("policy", "delay", str(policy))[0] == 0
    assert cli("verify", "delay", "1")[0] == 0
    files = tmp_path / "files"
    assert cli("download", "delay", "1", str(files), "--key", str(public))[0] == 0
    assert cli("verify", "delay", "1", "--key", str(public), "--directory", str(files))[0] == 0
    (files / "extra.txt").write_text("not signed")
    status, said = cli("verify", "delay", "1", "--key", str(public), "--directory", str(files))
    assert status == 1
    assert "do not match" in said
    bundle = tmp_path / "model.sig"
    assert cli("signatures", "delay", "1", "--into", str(bundle))[0] == 0
    assert json.loads(bundle.read_text())["mediaType"].startswith("application/vnd.dev.sigstore.bundle")


def test_an_unsigned_version_is_not_downloaded_where_the_policy_wants_signatures(
    server: Server, cli, tmp_path: Path
) -> None:
    pytest.importorskip("cryptography")
    from cryptography.hazmat.primitives import serialization as out
    from cryptography.hazmat.primitives.asymmetric import ec

    shown = ec.generate_private_key(ec.SECP256R1()).public_key()
    pem = shown.public_bytes(out.Encoding.PEM, out.PublicFormat.SubjectPublicKeyInfo).decode()
    policy = tmp_path / "policy.json"
    policy.write_text(json.dumps({"require_signature": {"keys": [pem]}}))
    cli("policy", "delay", str(policy))
    status, said = cli("download", "delay", "1", str(tmp_path / "out"))
    assert status == 1
    assert "nobody has signed" in said
    assert not (tmp_path / "out").exists()


def test_statements_approvals_and_retention_from_the_command_line(server: Server, cli) -> None:
    assert "attests scan" in cli("attest", "delay", "1", "scan", "-m", "nothing found")[1]
    cli("attest", "delay", "1", "license", "-m", "as its author says", "--value", "MIT")
    kinds = [one["kind"] for one in json.loads(cli("attestations", "delay", "1", "--json")[1])["items"]]
    assert kinds == ["license", "scan"]
    assert cli("attest", "delay", "1", "No Such Kind!", "-m", "x")[0] == 1
    cli("approve", "delay", "1", "-m", "fine", who="bob")
    given = json.loads(cli("approvals", "delay", "1", "--json")[1])["items"][0]
    assert given["by"] == "bob"
    assert cli("revoke", "delay", "1", given["id"], "-m", "not mine", who="ann")[0] == 1
    assert cli("revoke", "delay", "1", given["id"], "-m", "saw a leak", who="bob")[0] == 0
    revoked = json.loads(cli("approvals", "delay", "1", "--json")[1])["items"][0]
    assert revoked["revoked_reason"] == "saw a leak"
    assert cli("latency", "delay", "1", "--p50-ms", "1", "--p95-ms", "2", "--measured-on", "laptop")[0] == 0
    assert json.loads(cli("latency", "delay", "1", "--json")[1])["items"][0]["p95_ms"] == 2.0
    assert json.loads(cli("evaluations", "delay", "1", "--json")[1])["items"] == []
    assert "everything is kept" in cli("retention", "delay")[1]
    plan = json.loads(cli("retention", "delay", "--keep-last", "2", "--json")[1])["items"]
    assert [(one["version"], one["action"]) for one in plan] == [(1, "keep")]
    assert "everything is kept" in cli("retention", "delay", "--remove")[1]
    cli("promote", "delay", "1", "--alias", "shadow")
    assert cli("unset-alias", "delay", "shadow")[0] == 0
    assert cli("delete", "delay", "-m", "project over")[0] == 0
    assert cli("get", "delay")[0] == 1
    assert json.loads(cli("history", "delay", "--json")[1])["items"], "what was stays known"


def test_webhooks_by_our_own_api_and_command_line(server: Server, cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from modelyard.cli.webhook import app as hooks

    monkeypatch.setenv("MODELYARD_URL", server.url)
    monkeypatch.setenv("MODELYARD_TOKEN", client_of(server, "root", Role.ADMIN).token or "")

    def run(*words: str) -> tuple[int, str]:
        result = CliRunner().invoke(hooks, list(words))
        return (
            (1, str(result.exception))
            if isinstance(result.exception, ModelyardError)
            else (result.exit_code, result.output)
        )

    status, said = run("create", "release", "https://hooks.invalid/x", "-e", "model_version.created", "--json")
    assert status == 0, said
    made = json.loads(said)
    assert "secret" not in made
    assert [one["id"] for one in json.loads(run("list", "--json")[1])["items"]] == [made["id"]]
    assert run("test", made["id"])[0] == 3, "there is no such host"
    assert json.loads(run("deliveries", made["id"], "--json")[1])["items"] == []
    for inside in (
        "http://127.0.0.1/x",
        "http://2130706433/x",
        "http://0x7f.1/",
        "http://[::ffff:10.0.0.1]/",
        "http://a.internal/",
    ):
        status, said = run("create", "inside", inside, "-e", "model_version.created")
        assert status == 1, inside
        assert "non-public" in said
    assert run("delete", made["id"])[0] == 0
    monkeypatch.setenv("MODELYARD_TOKEN", client_of(server, "carl", Role.CONTRIBUTOR).token or "")
    assert run("create", "x", "https://example.org/x", "-e", "model_version.created")[0] == 1
