"""What moves and what is cleared away, from outside: the SDK, the command line and raw HTTP against a real server."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import deltalake
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from modelyard.cli.main import app
from modelyard.kernel.auth import Role
from modelyard.kernel.errors import Conflict, Forbidden, InvalidInput, NotFound
from modelyard.sdk.client import Client
from modelyard.sdk.data import dataset
from modelyard.server.run import Server
from modelyard.types.data import Range, Retention
from running import client_of, running_server, token_for

TABLE = pa.table({"id": range(100), "x": [n / 2 for n in range(100)]})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("server") / "home") as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    """The admin's client in a project of the test's own."""
    made = client_of(server, f"t-{uuid.uuid4().hex[:12]}")
    yield made
    made.close()


def test_rows_are_merged_deleted_and_put_back(client: Client) -> None:
    flights = dataset("flights", client)
    flights.create(key=["id"])
    flights.write(TABLE)
    assert flights.merge_rows(pa.table({"id": [1, 200], "x": [-1.0, -2.0]})).version == 2
    assert flights.read(filter="x < 0").sort_by("id")["id"].to_pylist() == [1, 200]
    assert flights.delete_rows("x < 0").rows == 2
    assert flights.delete_rows("x < 0").status == "unchanged"
    assert flights.write(TABLE.slice(0, 10), mode="overwrite", where="id < 10").version == 4
    assert flights.version().rows == 99 + 1
    assert flights.revert(1).version == 5
    assert flights.read().num_rows == 100
    with pytest.raises(InvalidInput) as caught:
        flights.merge_rows(pa.table({"id": [1, 1], "x": [0.0, 0.0]}))
    assert caught.value.details["examples"] == [{"id": 1, "rows": 2}]


def test_branches_go_round(client: Client) -> None:
    flights = dataset("flights", client)
    flights.write(TABLE)
    assert flights.branch("try/1".replace("/", "-")).head == 1
    flights.append(TABLE.slice(0, 5), branch="try-1")
    assert (flights.read().num_rows, flights.read(version="try-1").num_rows) == (100, 105)
    assert [one.head for one in flights.branches()] == [2]
    assert flights.diff("main", "try-1").added == 5
    assert flights.merge("try-1").moved
    assert flights.get().latest == 2
    flights.append(TABLE.slice(0, 1))
    flights.append(TABLE.slice(0, 2), branch="try-1")
    with pytest.raises(Conflict) as caught:
        flights.merge("try-1")
    assert caught.value.details["versions"] == {"main": [3], "try-1": [4]}
    flights.delete_branch("try-1")
    with pytest.raises(NotFound):
        flights.read(version="try-1")


def test_small_appends_are_flushed_on_demand(client: Client) -> None:
    flights = dataset("flights", client)
    for number in range(5):
        assert flights.append_buffered(TABLE.slice(number, 2), source="feed").rows == 2
    flights.flush()
    assert flights.read().num_rows == 10
    assert flights.buffer().appends == 0
    flights.checks([Range(column="x", min=0)])
    flights.append_buffered(pa.table({"id": [1], "x": [-1.0]}))
    # The server may have flushed before; then it is done when this returns.
    flights.flush()
    assert [one.rows for one in flights.quarantine()] == [1]
    assert flights.read().num_rows == 10


def test_files_lie_better_and_old_ones_go(client: Client) -> None:
    flights = dataset("flights", client)
    for number in range(4):
        flights.append(TABLE.slice(number, 1))
    assert flights.compact().files_after == 1
    keep = Retention(versions=1)
    assert flights.vacuum(retention=keep, dry_run=True).expired == [1, 2, 3]
    done = flights.vacuum(retention=keep, grace_s=0)
    assert (done.expired, done.files_removed) == ([1, 2, 3], 4)
    assert flights.read().num_rows == 4
    assert flights.update(retention=keep).retention == keep


def test_other_engines_read_a_version_with_filter_and_projection(client: Client) -> None:
    flights = dataset("flights", client)
    flights.write(TABLE)
    flights.append(TABLE)
    relation = flights.to_duckdb(version=1)
    assert relation.filter("id < 3").project("x").fetchall() == [(0.0,), (0.5,), (1.0,)]
    connection = duckdb.connect()
    flights.to_duckdb(connection).create_view("flights")
    assert connection.sql("SELECT count(*), sum(x) FROM flights").fetchall() == [(200, 4950.0)]
    assert flights.to_pandas(["x"], "id = 4", 1)["x"].tolist() == [2.0]


def test_registering_is_for_admins_and_importing_for_writers(client: Client, server: Server, tmp_path: Path) -> None:
    deltalake.write_deltalake(tmp_path / "theirs", TABLE)
    made = dataset("theirs", client).register(tmp_path / "theirs")
    assert (made.version, made.rows) == (1, 100)
    deltalake.write_deltalake(tmp_path / "theirs", TABLE, mode="append")
    assert dataset("theirs", client).sync().version == 2
    assert dataset("theirs", client).read().num_rows == 200
    token = token_for(server, "writer", Role.CONTRIBUTOR, client.project)
    writer = Client(client.base_url, project=client.project, token=token)
    for act in (
        lambda: dataset("other", writer).register(tmp_path / "theirs"),
        lambda: dataset("theirs", writer).vacuum(),
    ):
        with pytest.raises(Forbidden):
            act()
    writer.close()


@pytest.mark.slow
def test_the_command_line_does_all_of_it(
    client: Client, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELYARD_URL", server.url)
    monkeypatch.setenv("MODELYARD_TOKEN", client.token)
    monkeypatch.setenv("MODELYARD_PROJECT", client.project)

    def run(*words: str, code: int = 0) -> str:
        done = CliRunner().invoke(app, ["dataset", *words])
        assert done.exit_code == code, done.output
        return done.output

    pq.write_table(TABLE, tmp_path / "a.parquet")
    (tmp_path / "b.csv").write_text("id,x\n1,-1\n500,-5\n")
    run("create", "flights", "--key", "id", "--partition-by", "id", code=0)
    run("create", "trips", "--key", "id")
    assert "trips has version 1" in run("import", "trips", str(tmp_path / "a.parquet"))
    assert json.loads(run("merge-rows", "trips", str(tmp_path / "b.csv"), "--json"))["version"] == 2
    assert "try" in run("branch", "trips", "try")
    assert json.loads(run("branch", "trips", "--json"))["items"][0]["name"] == "try"
    assert "version 3" in run("delete-rows", "trips", "--where", "x < 0", "--branch", "try")
    assert "nothing to do" in run("delete-rows", "trips", "--where", "x < 0", "--branch", "try")
    assert "from version 2 to 3" in run("merge", "trips", "try")
    assert "has version 4" in run("revert", "trips", "1")
    assert len(json.loads(run("read", "trips", "--at", "1", "--limit", "3", "--json"))) == 3
    assert json.loads(run("compact", "trips", "--json"))["version"] == 4
    shown = json.loads(run("vacuum", "trips", "--keep-versions", "1", "--dry-run", "--json"))
    assert shown["expired"] == [1, 2]
    assert "none" in run("vacuum", "trips")
    assert "nothing waits" in run("flush", "trips")
    deltalake.write_deltalake(tmp_path / "theirs", TABLE)
    assert "version 1" in run("register", "theirs", str(tmp_path / "theirs"))
    assert "nothing to do" in run("sync", "theirs")
    run("import", "trips", str(tmp_path / "nope"), code=1)
