"""The client: the same calls over the network and in process, errors rebuilt, bodies streamed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pytest

from modelyard.kernel import settings
from modelyard.kernel.errors import Forbidden, InvalidInput, NotFound, Unavailable
from modelyard.kernel.event import Event
from modelyard.sdk.client import Client, connect
from modelyard.sdk.data import dataset
from modelyard.types.kernel import IssuedToken, IssueToken, Me
from modelyard.types.page import Page
from running import client_of, running_server


@pytest.fixture(params=["network", "embedded"])
def client(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Client]:
    if request.param == "network":
        with running_server(tmp_path / "home") as server:
            yield client_of(server)
    else:
        made = connect(settings.load({"home": tmp_path / "home"}, environ={}, directory=tmp_path))
        yield made
        made.close()


def test_typed_calls(client: Client) -> None:
    assert client.get("/api/me", Me).role == "admin"
    issued = client.post("/api/tokens", IssueToken("bob", "viewer"), IssuedToken)
    assert issued.token.startswith("myd_")
    page = client.get("/api/events", Page[Event], {"kind": "token.issued", "subject": None, "limit": 1})
    assert [one.kind for one in page.items] == ["token.issued"]


def test_errors_come_back_as_they_were_raised(client: Client) -> None:
    with pytest.raises(InvalidInput) as caught:
        client.post("/api/tokens", IssueToken("bob", "boss"), IssuedToken)
    assert caught.value.code == "role.unknown"
    assert "viewer" in caught.value.hint
    with pytest.raises(NotFound):
        client.get("/api/nothing")


def test_who_reads_no_further_keeps_nothing_waiting(client: Client, tmp_path: Path) -> None:
    """A stream that is left half-way ends on both sides: the client closes, and serves others before."""
    numbers = dataset("numbers", client)
    numbers.append(pa.table({"x": range(3_000_000)}))
    for _ in range(3):
        with numbers.reader() as reader:
            assert reader.read_next_batch().num_rows > 0
    assert numbers.read(filter="x < 5").num_rows == 5
    closing = threading.Thread(target=client.close, daemon=True)
    closing.start()
    closing.join(30)
    assert not closing.is_alive()


@pytest.mark.slow
def test_a_home_is_found_by_its_running_server(tmp_path: Path) -> None:
    chosen = settings.load({"home": tmp_path / "home"}, environ={}, directory=tmp_path)
    embedded = connect(chosen)
    assert embedded.get("/api/me", Me).principal == "local"
    with running_server(tmp_path / "home") as server:
        assert connect(chosen).base_url == server.url
        assert connect(chosen).get("/api/me", Me).principal == "admin"


def test_a_viewer_elsewhere_is_refused(tmp_path: Path) -> None:
    with running_server(tmp_path / "home") as server:
        token = client_of(server).post("/api/tokens", IssueToken("vi", "viewer"), IssuedToken).token
        with pytest.raises(Forbidden):
            Client(server.url, token=token, project="other").get("/api/me")


def test_no_server_is_said_with_what_to_do() -> None:
    with pytest.raises(Unavailable, match="does not answer") as caught:
        Client("http://127.0.0.1:9").get("/api/me")
    assert "modelyard up" in caught.value.hint


@pytest.mark.slow
def test_a_program_without_a_server_ends_without_a_word(tmp_path: Path) -> None:
    code = "import modelyard; print(modelyard.dataset('x').exists())"
    environment = {**os.environ, "MODELYARD_HOME": str(tmp_path / "home")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_work_may_take_longer_than_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that accepts and says nothing for a while: a question is given up, work is waited for."""
    monkeypatch.setattr("modelyard.sdk.client.TIMEOUT_S", 0.2)
    asked, given_up = threading.Event(), threading.Event()

    class Slow(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.set()
            given_up.wait(10)
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            """Nothing is logged."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        client = Client(f"http://127.0.0.1:{server.server_port}")
        found: list[object] = []
        working = threading.Thread(target=lambda: found.append(client.patient.post("/api/x")))
        working.start()
        assert asked.wait(10)
        with pytest.raises(Unavailable, match="timed out"):
            client.post("/api/x")
        given_up.set()
        working.join(10)
        server.shutdown()
    assert found == [{}]
