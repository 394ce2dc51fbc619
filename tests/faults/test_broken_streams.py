"""Rows that cannot be sent to their end: who reads them is told which file is damaged, never left with a part."""

from __future__ import annotations

import hashlib
import io
import logging
import random
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.engines.tables.ingest import ipc_chunks
from modelyard.kernel import settings
from modelyard.kernel.errors import EngineError, ModelyardError, NotFound, Unavailable
from modelyard.sdk.arrow_wire import ipc_stream, received
from modelyard.sdk.asgi import AsgiTransport
from modelyard.sdk.client import Client
from modelyard.sdk.data import dataset
from modelyard.sdk.embedded import embedded_transport
from modelyard.sdk.files import transfer
from modelyard.sdk.files.handle import FilesHandle
from modelyard.types.data import BROKEN_OFF
from running import client_of, raw_client, running_server

ROWS = 600_000
END = 8


@pytest.fixture(params=["network", "embedded"])
def client(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Client]:
    home = tmp_path / "home"
    if request.param == "network":
        with running_server(home) as server:
            yield client_of(server)
        return
    transport = embedded_transport(settings.load({"home": home}, environ={}, directory=tmp_path))
    yield Client("http://localhost", transport=transport)
    transport.close()


def damaged_in_the_middle(client: Client, home: Path) -> str:
    """A dataset of three files, the second damaged towards its end. Returns that file's name."""
    draw = random.Random(7)
    handle = dataset("readings", client)
    before: set[Path] = set()
    for rows in (1_000, ROWS, 1_000):
        handle.append(pa.table({"x": [draw.random() for _ in range(rows)]}))
        new = set(home.rglob("tables/**/*.parquet")) - before
        before |= new
        if rows == ROWS:
            [file] = new
    content = bytearray(file.read_bytes())
    for at in range(len(content) * 8 // 10, len(content) * 8 // 10 + 1_000):
        content[at] ^= 0xFF
    file.chmod(0o600)
    file.write_bytes(content)
    return file.name


def test_a_damaged_file_is_named_to_whoever_reads_and_in_the_log(
    client: Client, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = damaged_in_the_middle(client, tmp_path / "home")
    handle = dataset("readings", client)
    seen = 0
    with caplog.at_level(logging.ERROR), pytest.raises(EngineError) as caught, handle.reader() as reader:
        for batch in reader:
            seen += batch.num_rows
    assert 0 < seen < ROWS + 2_000
    assert caught.value.code == "table.file_damaged"
    assert f"version 3 of dataset 'readings' has a file that cannot be read: {name}" in caught.value.message
    assert str(tmp_path) not in caught.value.message
    request_id = caught.value.details["request_id"]
    (said,) = [one.getMessage() for one in caplog.records if "broke off" in one.getMessage()]
    assert f"request {request_id}: the rows broke off: version 3 of dataset 'readings'" in said
    assert "[table.file_damaged]" in said
    with pytest.raises(EngineError, match=name):
        handle.read()
    with pytest.raises(EngineError, match=name), handle.reader() as reader:
        reader.read_all()
    assert handle.read(version=1).num_rows == 1_000


def test_a_foreign_reader_sees_that_the_answer_is_cut_off(tmp_path: Path) -> None:
    with running_server(tmp_path / "home") as server:
        damaged_in_the_middle(client_of(server), tmp_path / "home")
        with (
            raw_client(server, server.token) as http,
            http.stream("GET", "/api/datasets/readings/data") as reply,
            pytest.raises(httpx.RemoteProtocolError),
        ):
            assert reply.status_code == 200
            reply.read()


def test_a_file_that_is_gone_breaks_the_download_off_and_the_log_says_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(transfer.Shared, "proven", False)
    monkeypatch.setenv("MODELYARD_HOME", str(tmp_path / "own"))
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.bin").write_bytes(random.Random(number).randbytes(3_000_000))
    gone = hashlib.sha256((folder / "2.bin").read_bytes()).hexdigest()
    with running_server(tmp_path / "home") as server:
        pictures = FilesHandle("pictures", client_of(server))
        pictures.add(folder)
        [blob] = [one for one in (tmp_path / "home" / "blobs").rglob("*") if one.is_file() and gone[4:] in one.name]
        blob.unlink()
        with caplog.at_level(logging.ERROR), pytest.raises(Unavailable, match="files/fetch") as caught:
            pictures.checkout(tmp_path / "here")
    assert caught.value.code == "server.broke_off"
    (said,) = [one.getMessage() for one in caplog.records if one.name == "modelyard.server"]
    assert "the answer to POST /api/datasets/pictures/files/fetch broke off: " in said
    assert gone in said
    assert said.endswith("[blob.not_found]")


@pytest.fixture
def cut_off() -> Iterator[str]:
    """A server that begins an answer of pieces and hangs up. Gives its address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    with connection:
                        connection.recv(65_536)
                        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n1234\r\n")

        Thread(target=answer, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize("how", ["stream", "get_bytes"])
def test_a_body_that_breaks_off_is_no_body(cut_off: str, how: str) -> None:
    client = Client(cut_off)
    with pytest.raises(
        Unavailable, match=r"broke off its answer to GET http://127.0.0.1:\d+/p/default/api/it"
    ) as caught:
        if how == "get_bytes":
            client.get_bytes("/api/it")
        with client.stream("/api/it") as pieces:
            assert next(pieces) == b"1234"
            next(pieces)
    assert caught.value.code == "server.broke_off"
    client.close()


def test_an_app_in_this_process_that_breaks_off_is_noticed_too() -> None:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"1234", "more_body": True})

    transport = AsgiTransport(app)
    client = Client("http://localhost", transport=transport)
    with pytest.raises(Unavailable, match="broke off its answer to GET"):
        client.get_bytes("/api/it")
    transport.close()


@given(st.lists(st.integers(0, 300), min_size=1, max_size=5), st.data())
def test_a_stream_without_its_end_is_never_taken_for_whole(sizes: list[int], data: st.DataObject) -> None:
    schema = pa.schema({"x": pa.int64(), "s": pa.string()})
    batches = [pa.record_batch([range(n), ["é" * (i % 7) for i in range(n)]], schema=schema) for n in sizes]
    whole = b"".join(ipc_stream(iter(batches)))
    rows = pa.Table.from_batches(batches)
    piece = data.draw(st.integers(1, 64))
    pieces = [whole[at : at + piece] for at in range(0, len(whole), piece)]
    assert received(iter(pieces)).read_all().equals(rows)
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises((ModelyardError, pa.ArrowInvalid, OSError)):
        received(iter([whole[:cut]])).read_all()


def test_what_lacks_only_its_end_is_told_so() -> None:
    whole = b"".join(ipc_stream(pa.table({"x": [1, 2]})))
    with pytest.raises(Unavailable) as caught:
        received(iter([whole[:-END]])).read_all()
    assert caught.value.code == "server.broke_off"


TYPES = [
    pa.int64(), pa.string(), pa.list_(pa.float32()), pa.struct({"a": pa.int8()}), pa.decimal128(9, 2),
    pa.dictionary(pa.int32(), pa.string()), pa.timestamp("us", "UTC"), pa.binary(4), pa.map_(pa.string(), pa.int8()),
]  # fmt: skip


@pytest.mark.parametrize("type_", TYPES, ids=str)
def test_why_rows_broke_off_travels_beside_rows_of_any_type(type_: pa.DataType) -> None:
    schema = pa.schema({"x": type_})
    batch = pa.record_batch([pa.nulls(3, type_)], schema=schema)

    def failing() -> Iterator[pa.RecordBatch]:
        yield batch
        raise EngineError("file 7 is damaged", code="table.file_damaged", hint="restore it")

    chunks = ipc_chunks(schema, failing())
    sent = [next(chunks), next(chunks)]
    with pytest.raises(EngineError):
        next(chunks)
    reader = received(iter(sent))
    assert reader.read_next_batch().equals(batch)
    with pytest.raises(EngineError, match="file 7 is damaged") as caught:
        reader.read_next_batch()
    assert (caught.value.code, caught.value.hint) == ("table.file_damaged", "restore it")
    plain = pa.ipc.open_stream(io.BytesIO(b"".join(sent)))
    assert plain.read_next_batch().equals(batch)
    _, metadata = plain.read_next_batch_with_custom_metadata()
    assert BROKEN_OFF in metadata


def test_what_fails_before_the_first_row_is_no_stream() -> None:
    def failing() -> Iterator[pa.RecordBatch]:
        raise NotFound("it is gone", code="gone")
        yield

    with pytest.raises(NotFound):
        ipc_chunks(pa.schema({"x": pa.int8()}), failing())
