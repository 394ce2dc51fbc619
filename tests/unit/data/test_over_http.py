"""Datasets from outside: the SDK, the command line and raw HTTP against a real server."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from modelyard.cli.main import app
from modelyard.kernel.auth import Role
from modelyard.kernel.errors import Conflict, InvalidInput, ModelyardError, NotFound
from modelyard.sdk.arrow_wire import ipc_stream
from modelyard.sdk.client import Client
from modelyard.sdk.data import dataset, list_datasets
from modelyard.server.run import Server
from modelyard.types.data import Range, WriteResult
from running import client_of, raw_client, running_server, token_for

TABLE = pa.table({"id": range(1_000), "x": [n / 2 for n in range(1_000)]})


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


def spooled(server: Server) -> list[Path]:
    return list((server.yard.settings.home / "spill").rglob("*"))


# --- the SDK ----------------------------------------------------------------------------------------------------


def test_rows_go_up_and_come_down_as_arrow(client: Client, server: Server) -> None:
    flights = dataset("flights", client)
    assert not flights.exists()
    assert flights.write(TABLE, source="test").version == 1
    assert flights.append(TABLE.slice(0, 10).to_batches()).version == 2
    assert flights.read(version=1).equals(TABLE)
    assert flights.read().num_rows == 1_010
    assert flights.read(["x"], "id = 7", 1).to_pylist() == [{"x": 3.5}]
    with flights.reader(version=1) as batches:
        assert sum(batch.num_rows for batch in batches) == 1_000
    assert [one.version for one in flights.versions()] == [2, 1]
    version = flights.version(1)
    assert version.source == "test"
    assert version.profile is not None
    assert version.profile.rows == 1_000
    assert [one.name for one in list_datasets(client).items] == ["flights"]
    assert flights.overwrite(TABLE.slice(0, 1)).version == 3
    assert flights.read().num_rows == 1
    assert spooled(server) == []


def test_data_frames_come_and_go(client: Client) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1, 2], "s": ["x", None]}, index=[5, 6])
    dataset("frames", client).write(frame)
    found = dataset("frames", client).to_pandas()
    assert list(found.columns) == ["a", "s"]
    assert found["a"].tolist() == [1, 2]


def test_a_batch_turned_down_cannot_be_overlooked(client: Client) -> None:
    flights = dataset("flights", client)
    flights.create(key=["id"], checks=[Range(column="x", min=0)])
    bad = pa.table({"id": [1, 2], "x": [1.0, -1.0]})
    with pytest.raises(Conflict) as caught:
        flights.write(bad)
    assert caught.value.code == "dataset.quarantined"
    assert "range(x)" in caught.value.message
    written = flights.write(bad, on_reject="return")
    assert not written.published
    assert len(flights.quarantine()) == 2
    assert flights.quarantined(written.quarantine_id or "").report.failed[0].sample == [{"id": 2, "x": -1.0}]
    assert flights.quarantined_rows(written.quarantine_id or "", filter="x < 0").rows == [{"id": 2, "x": -1.0}]
    for held in flights.quarantine():
        flights.discard(held.id)
    assert flights.quarantine() == []
    flights.checks([])
    assert flights.write(bad).published


def test_tags_and_writes_with_a_key(client: Client) -> None:
    flights = dataset("flights", client)
    assert flights.write(TABLE, key="monday").version == 1
    assert flights.write(TABLE, key="monday").version == 1
    assert flights.write(TABLE, checks=[Range(column="id", max=10**6)]).version == 2
    assert flights.tag("gold", 1).tags == ["gold"]
    assert flights.read(version="gold").num_rows == 1_000
    flights.untag("gold")
    with pytest.raises(NotFound):
        flights.read(version="gold")
    assert flights.rows(limit=1).rows == [{"id": 0, "x": 0.0}]


def test_versions_are_compared_over_http(client: Client) -> None:
    flights = dataset("flights", client)
    flights.create(key=["id"])
    flights.write(TABLE)
    flights.overwrite(TABLE.set_column(1, "x", pa.array([9.0] * 1_000)))
    found = flights.diff(1)
    assert (found.added, found.removed, found.changed) == (0, 0, 999), "9.0 was there once"
    assert len(found.samples["changed"]) == 20


def test_errors_are_those_of_the_platform(client: Client) -> None:
    flights = dataset("flights", client)
    with pytest.raises(NotFound):
        flights.read()
    with pytest.raises(NotFound):
        flights.write(TABLE, create=False)
    flights.write(TABLE)
    for act in (lambda: flights.read(["nope"]), lambda: flights.read(filter="nope = 1"), lambda: flights.write("text")):
        with pytest.raises(InvalidInput):
            act()
    with pytest.raises(Conflict):
        flights.create()


def test_another_project_does_not_see_it(client: Client, server: Server) -> None:
    dataset("flights", client).write(TABLE)
    with pytest.raises(NotFound):
        dataset("flights", client_of(server, "elsewhere")).read()


# --- raw HTTP ---------------------------------------------------------------------------------------------------


def as_file(kind: str, file: Path) -> tuple[bytes, str]:
    if kind == "parquet":
        pq.write_table(TABLE, file)
        return file.read_bytes(), "application/octet-stream"
    if kind == "csv":
        csv.write_csv(TABLE, file)
        return file.read_bytes(), "text/csv; charset=utf-8"
    if kind == "tsv":
        csv.write_csv(TABLE, file, csv.WriteOptions(delimiter="\t"))
        return file.read_bytes(), "Text/Tab-Separated-Values"
    if kind == "json lines":
        return b"\n".join(json.dumps(row).encode() for row in TABLE.to_pylist()), "application/x-ndjson"
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, TABLE.schema) as writer:
        writer.write_table(TABLE)
    return sink.getvalue().to_pybytes(), "application/vnd.apache.arrow.file"


@pytest.mark.parametrize("kind", ["parquet", "csv", "tsv", "json lines", "arrow"])
def test_files_are_taken_as_they_are(client: Client, tmp_path: Path, kind: str) -> None:
    body, media_type = as_file(kind, tmp_path / "file")
    path = "/api/datasets/flights/data?create=true"
    written = client.send_bytes("POST", path, body, media_type=media_type, type=WriteResult)
    assert (written.status, written.rows) == ("published", 1_000)
    assert dataset("flights", client).read().cast(TABLE.schema).equals(TABLE)


WHOLE = b"".join(ipc_stream(TABLE))


@pytest.mark.parametrize(
    ("body", "media_type"),
    [
        (b"", ""),
        (b"hello", ""),
        (b"{}", "application/json"),
        (b"PAR1 and nothing", ""),
        (b"ARROW1\x00\x00 and nothing", ""),
        (b"\xff\xff\xff\xff\x10\x00\x00\x00 and nothing", ""),
        (b"\xff\xff\xff\xff\xff\xff\xff\x7f", ""),
        (WHOLE[:200], ""),
        (WHOLE[: len(WHOLE) // 2], ""),
        (WHOLE[:300] + bytes(len(WHOLE) - 300), ""),
        (b"a,b\n1\n2,3\n", "text/csv"),
        (b"a,b\n", "text/csv"),
        (b"\xff\xfe\x00", "text/csv"),
        (b"a\tb\n1\n", "text/tab-separated-values"),
        (b'{"id": 1, "x": 1.0}\n{"id": ', "application/x-ndjson"),
        (b'{"id": 1, "x": 1.0}\n[1, 2]\n', "application/x-ndjson"),
        (b"id,x\n1,2\n", "application/x-ndjson"),
        (b"[" * 2_000, "application/x-ndjson"),
    ],
)
def test_what_is_no_table_is_refused_and_nothing_is_left(
    client: Client, server: Server, body: bytes, media_type: str
) -> None:
    dataset("flights", client).write(TABLE)
    with pytest.raises(InvalidInput):
        client.send_bytes("POST", "/api/datasets/flights/data", body, media_type=media_type or "application/x")
    assert dataset("flights", client).get().latest == 1
    assert spooled(server) == []
    staged = server.yard.settings.home / "tables" / client.project / "flights" / "_staged"
    assert list(staged.glob("*")) == []


def test_crafted_offsets_are_not_followed(client: Client) -> None:
    """A string column whose offsets point outside its bytes; reading it unchecked would read the server's memory."""
    whole = b"".join(ipc_stream(pa.table({"s": ["x" * 77]})))
    offsets = (77).to_bytes(4, "little")
    assert whole.count(offsets) >= 1
    place = whole.rindex(b"\0\0\0\0" + offsets)
    crafted = whole[: place + 4] + (2_000_000_000).to_bytes(4, "little") + whole[place + 8 :]
    with pytest.raises(InvalidInput):
        client.send_bytes("POST", "/api/datasets/crafted/data?create=true", crafted)


@pytest.mark.parametrize(
    "query", ["mode=upsert", "checks=nope", 'checks=[{"check":"nope"}]', "mode=append&checks={}", "evolve=perhaps"]
)
def test_odd_parameters_are_refused(client: Client, query: str) -> None:
    dataset("flights", client).write(TABLE)
    with pytest.raises(InvalidInput):
        client.send_bytes("POST", f"/api/datasets/flights/data?{query}", WHOLE)


@pytest.mark.parametrize("name", ["..", "%2e%2e", "a%2fb", "%00", "x" * 300])
def test_names_never_become_paths(server: Server, name: str) -> None:
    with raw_client(server, server.token) as raw:
        for reply in (
            raw.get(f"/api/datasets/{name}"),
            raw.post(f"/api/datasets/{name}/data?create=true", content=WHOLE),
        ):
            assert 400 <= reply.status_code < 500, reply.text


def test_viewers_read_and_do_not_write(server: Server, client: Client) -> None:
    dataset("flights", client).write(TABLE)
    base = f"/p/{client.project}/api/datasets/flights"
    with raw_client(server, token_for(server, "eve", Role.VIEWER, client.project)) as raw:
        assert raw.get(f"{base}/data").status_code == 200
        for reply in (
            raw.post(f"{base}/data", content=WHOLE),
            raw.patch(base, json={"description": "x"}),
            raw.put(f"{base}/tags/gold", json={"version": 1}),
        ):
            assert reply.status_code == 403
    with raw_client(server) as anonymous:
        assert anonymous.get(f"{base}/data").status_code == 401


def test_a_job_is_named_in_the_lineage_of_what_it_reads(server: Server, client: Client) -> None:
    dataset("flights", client).write(TABLE)
    job = Client(
        server.url, token=token_for(server, "job:j1", Role.CONTRIBUTOR, client.project), project=client.project
    )
    dataset("flights", job).read()
    dataset("derived", job).write(TABLE)
    graph = client.get("/api/lineage", params={"urn": "dataset:derived@1", "direction": "up"})
    assert {"dataset:derived@1", "job:j1", "dataset:flights@1"} <= set(graph["nodes"])
    job.close()


def test_an_error_after_the_first_rows_is_not_an_end(client: Client, server: Server) -> None:
    """A file that is damaged behind its first row groups must not look like a short dataset."""
    flights = dataset("flights", client)
    flights.write(pa.table({"x": range(2_000_000)}))
    [file] = (server.yard.settings.home / "tables" / client.project / "flights").glob("*.parquet")
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4_000] = b"\xee" * 4_000
    file.write_bytes(content)
    with pytest.raises((ModelyardError, httpx.HTTPError, pa.ArrowInvalid, OSError)):
        flights.read()


# --- the command line -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_line_does_the_same(server: Server, tmp_path: Path) -> None:
    runner = CliRunner()
    (tmp_path / "good.csv").write_text("id,x\n1,2\n2,3\n")
    (tmp_path / "bad.csv").write_text("id,x\n1,-2\n3,3\n")
    (tmp_path / "checks.yaml").write_text("checks:\n  - {check: range, column: x, min: 0}\n")
    (tmp_path / "odd.yaml").write_text("checks:\n  - {check: range, colum: x}\n")
    (tmp_path / "bomb.yaml").write_text("a: &a [x, x]\nb: &b [*a, *a]\nchecks: [*b, *b]\n")

    def run(*words: object, fails: bool = False) -> str:
        words_given = ["--home", str(server.yard.settings.home), "-p", "cli", "dataset", *map(str, words)]
        done = runner.invoke(app, words_given)
        assert (done.exit_code != 0) == fails, f"{done.output} {done.exception!r}"
        return done.output

    run("create", "flights", "--key", "id", "--checks", tmp_path / "checks.yaml")
    assert "version 1" in run("write", "flights", tmp_path / "good.csv")
    assert "quarantine" in run("write", "flights", tmp_path / "bad.csv", fails=True)
    shown = json.loads(run("get", "flights", "--json"))
    assert (shown["dataset"]["latest"], shown["version"]["rows"]) == (1, 2)
    assert json.loads(run("read", "flights", "--filter", "id = 2", "--json")) == [{"id": 2, "x": 3}]
    assert "2 rows" in run("read", "flights", "-o", tmp_path / "out.parquet")
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 2
    [held] = json.loads(run("quarantine", "list", "flights", "--json"))["items"]
    assert "range(x)" in run("quarantine", "get", "flights", held["id"])
    assert len(json.loads(run("quarantine", "rows", "flights", held["id"], "--json"))) == 2
    run("quarantine", "discard", "flights", held["id"])
    run("tag", "flights", "gold")
    assert json.loads(run("versions", "flights", "--json"))["items"][0]["tags"] == ["gold"]
    (tmp_path / "more.csv").write_text("id,x\n3,4\n")
    run("write", "flights", tmp_path / "more.csv")
    assert json.loads(run("diff", "flights", "1", "--json"))["added"] == 1
    assert "added" in run("diff", "flights", "gold", "2", "--key", "id")
    for name, text in (
        ("more.tsv", "id\tx\n4\t5\n"),
        ("m.jsonl", '{"id": 5, "x": 6}\n'),
        ("m.ndjson", '{"id": 6, "x": 7}'),
    ):
        (tmp_path / name).write_text(text)
        run("write", "flights", tmp_path / name)
    assert json.loads(run("read", "flights", "--filter", "id = 6", "--json")) == [{"id": 6, "x": 7}]
    assert "range(x)" in run("checks", "flights")
    for file in ("odd.yaml", "bomb.yaml", "good.csv", "nope.yaml"):
        run("checks", "flights", tmp_path / file, fails=True)
    assert [one["name"] for one in json.loads(run("list", "--json"))["items"]] == ["flights"]
    run("get", "nope", fails=True)
