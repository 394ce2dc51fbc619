"""A disk that fills while a body comes in over HTTP: the client is told, nothing half is left, and it works again."""

from __future__ import annotations

import io
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from modelyard.sdk.arrow_wire import ARROW_STREAM
from modelyard.sdk.client import Client
from modelyard.sdk.data import dataset
from modelyard.server.run import Server
from running import client_of, raw_client, running_server

pytestmark = pytest.mark.slow
MIB = 1024 * 1024
ROWS = pa.table({"x": range(400_000), "at": pa.array(range(400_000), pa.timestamp("us", "UTC")), "k": ["a"] * 400_000})
PROXY = "/api/2.0/mlflow-artifacts/artifacts"


@pytest.fixture
def mounts() -> Iterator[list[Path]]:
    """What is mounted meanwhile."""
    made: list[Path] = []
    yield made
    for place in made:
        subprocess.run(["umount", "-l", place], check=True)


@pytest.fixture
def server(tmp_path: Path, mounts: list[Path]) -> Iterator[Server]:
    """A server of which the folders of blobs and of bodies that are received are file systems of 2 MB each."""
    for name in ("blobs", "spill"):
        place = tmp_path / "home" / name
        place.mkdir(parents=True)
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=2m", "modelyard-test", place], capture_output=True, check=False
        )
        if done.returncode != 0:
            pytest.skip("a small file system cannot be mounted without root")
        mounts.append(place)
    with running_server(tmp_path / "home") as running:
        yield running


@pytest.fixture
def client(server: Server) -> Client:
    return client_of(server)


def arrow(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def held(home: Path, *, blobs: int = 0) -> None:
    """Nothing is left in the folders but so many blobs."""
    files = [one for one in home.joinpath("blobs").rglob("*") if one.is_file() and one.name != "lock"]
    assert len(files) == blobs, files
    assert [one for one in home.joinpath("spill").rglob("*") if one.is_file()] == []


def test_artifacts(server: Server, client: Client, tmp_path: Path) -> None:
    run = client.post("/api/runs", {"name": "r"})["id"]
    big, small = os.urandom(3 * MIB), os.urandom(MIB + MIB // 4)
    with raw_client(server, server.token) as plain:
        for path in (f"/api/runs/{run}/artifacts/big.bin", f"{PROXY}/big.bin"):
            reply = plain.put(path, content=big)
            assert reply.status_code == 503, reply.text
            assert "disk" in reply.text
            assert str(tmp_path) not in reply.text
            held(tmp_path / "home")
        begun = plain.post("/api/2.0/mlflow-artifacts/mpu/create", json={"path": "p.bin", "num_parts": 2}).json()
        assert plain.put(f"/api/2.0/mlflow-artifacts/mpu/part/{begun['upload_id']}/1", content=small).status_code == 200
        reply = plain.put(f"/api/2.0/mlflow-artifacts/mpu/part/{begun['upload_id']}/2", content=small)
        assert reply.status_code == 503, "the second part does not fit beside the first"
        held(tmp_path / "home", blobs=1)
        assert plain.get(PROXY).json() == {}
        assert client.get(f"/api/runs/{run}/artifacts") == []
        assert plain.put(f"{PROXY}/small.bin", content=small[:1000]).status_code == 200
        assert plain.get(f"{PROXY}/small.bin").content == small[:1000]


def test_datasets(server: Server, client: Client, tmp_path: Path) -> None:
    flights = dataset("flights", client)
    flights.write(ROWS.slice(0, 10))
    body = arrow(ROWS)
    assert len(body) > 4 * MIB
    with raw_client(server, server.token) as plain:
        for path in ("/api/datasets/flights/data", "/api/datasets/flights/files/blobs", "/api/datasets/none/data"):
            reply = plain.post(path, content=body, headers={"Content-Type": ARROW_STREAM})
            assert (reply.status_code, reply.json()["code"]) == (503, "spool.disk_full"), reply.text
            assert str(tmp_path) not in reply.text
            held(tmp_path / "home")
    assert [one["name"] for one in client.get("/api/datasets")["items"]] == ["flights"]
    assert client.get("/api/datasets/flights")["latest"] == 1
    assert flights.append(ROWS.slice(10, 10)).version == 2
    held(tmp_path / "home")


def test_entity_frames(server: Server, client: Client, tmp_path: Path) -> None:
    with raw_client(server, server.token) as plain:
        for path in ("historical", "verify"):
            asked = f"/api/features/{path}?feature=x&timestamp=at"
            reply = plain.post(
                asked,
                content=arrow(ROWS),
                headers={"Content-Type": ARROW_STREAM},
            )
            assert (reply.status_code, reply.json()["code"]) == (503, "spool.disk_full"), reply.text
    held(tmp_path / "home")


def test_scored_rows(
    server: Server, client: Client, tmp_path: Path, mounts: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "home" / "spill"))
    client.post("/api/models", {"name": "delay"})
    monkeypatch.setattr("modelyard.planes.registry.routes.SPOOL_MEMORY_BYTES", 1000)
    with raw_client(server, server.token) as plain:
        reply = plain.post("/api/models/delay/versions/1/evaluations", content=arrow(ROWS))
    assert (reply.status_code, reply.json()["code"]) == (503, "spool.disk_full"), reply.text
    held(tmp_path / "home")
