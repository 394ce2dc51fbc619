"""The outbound client: it calls no address inside the walls, whatever form that address takes."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.kernel.errors import EngineError, Forbidden, InvalidInput, TooLarge, Unavailable
from modelyard.kernel.http import OutboundClient, is_public


class Handler(BaseHTTPRequestHandler):
    seen: list[tuple[str, str, dict[str, str], bytes]]

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        self.server.seen.append((self.command, self.path, dict(self.headers), body))  # type: ignore[attr-defined]
        if self.path.startswith("/to?"):
            self.send_response(302)
            self.send_header("Location", self.path[4:])
            self.end_headers()
            return
        self.send_response(404 if self.path == "/missing" else 200)
        self.end_headers()
        self.wfile.write(b"x" * 5_000 if self.path == "/large" else b"hello")

    do_GET = do_POST = _answer

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.seen = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()


def allowed(server: ThreadingHTTPServer, host: str = "127.0.0.1", **options: object) -> OutboundClient:
    return OutboundClient(f"{host}:{server.server_port}", **options)  # type: ignore[arg-type]


def test_an_allowed_host_is_called_under_its_name(server: ThreadingHTTPServer) -> None:
    resolved = []

    def resolver(host: str, port: int) -> list[str]:
        resolved.append((host, port))
        return ["127.0.0.1"]

    port = server.server_port
    client = OutboundClient(f"hooks.example.org:{port}", resolver=resolver)
    reply = client.post(f"http://hooks.example.org:{port}/x?y=1", b"body", headers={"X-Signature": "s"})
    assert (reply.status, reply.body) == (200, b"hello")
    method, path, headers, body = server.seen[0]  # type: ignore[attr-defined]
    assert (method, path, body) == ("POST", "/x?y=1", b"body")
    assert headers["Host"] == f"hooks.example.org:{port}"
    assert headers["X-Signature"] == "s"
    assert resolved == [("hooks.example.org", port)], "a name is resolved once"


def test_any_status_is_an_answer(server: ThreadingHTTPServer) -> None:
    assert allowed(server).get(f"http://127.0.0.1:{server.server_port}/missing").status == 404


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0", "[::1]", "[::ffff:127.0.0.1]"],
)
def test_loopback_is_refused_in_every_spelling(server: ThreadingHTTPServer, host: str) -> None:
    # Unresolvable spellings are refused as well, only by the resolver.
    with pytest.raises((Forbidden, Unavailable)):
        OutboundClient(timeout_s=2).get(f"http://{host}:{server.server_port}/")
    assert server.seen == []  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.255.255.254",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "192.0.2.1",
        "198.18.0.1",
        "::",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "fec0::1",
        "ff02::1",
        "2001:db8::1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
        "2002:c0a8:101::1",
        "::127.0.0.1",
        "not an address",
    ],
)
def test_inner_addresses_are_not_public(address: str) -> None:
    assert not is_public(address)
    with pytest.raises(Forbidden):
        OutboundClient(resolver=lambda _host, _port: [address]).get("http://example.org/")


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111"])
def test_addresses_of_the_open_internet_are_public(address: str) -> None:
    assert is_public(address)


@given(st.ip_addresses(v=4))
def test_an_ipv6_address_is_judged_by_the_ipv4_address_that_it_carries(address: object) -> None:
    assert is_public(f"::ffff:{address}") <= is_public(str(address))
    assert not is_public(f"64:ff9b::{address}")


def test_one_inner_address_among_several_refuses_them_all() -> None:
    client = OutboundClient(resolver=lambda _host, _port: ["93.184.216.34", "10.0.0.7"])
    with pytest.raises(Forbidden):
        client.get("http://example.org/")


def test_an_answer_that_changes_between_check_and_connection_changes_nothing(server: ThreadingHTTPServer) -> None:
    """DNS rebinding: the second answer would lead inside, but it is never asked for."""
    answers = iter([["203.0.114.1"], ["127.0.0.1"]])
    client = OutboundClient(timeout_s=0.3, resolver=lambda _host, _port: next(answers))
    with pytest.raises(Unavailable):
        client.get(f"http://rebind.example.org:{server.server_port}/")
    assert server.seen == []  # type: ignore[attr-defined]
    assert next(answers) == ["127.0.0.1"]


def test_redirects_are_answers_unless_asked_for(server: ThreadingHTTPServer) -> None:
    url = f"http://127.0.0.1:{server.server_port}/to?/next"
    assert allowed(server).get(url).status == 302
    assert allowed(server).get(url, redirects_max=1).body == b"hello"


@pytest.mark.parametrize("target", ["http://169.254.169.254/latest/meta-data", "http://127.0.0.1:1/", "http://[::1]/"])
def test_a_redirect_inside_is_refused(server: ThreadingHTTPServer, target: str) -> None:
    with pytest.raises(Forbidden):
        allowed(server).get(f"http://127.0.0.1:{server.server_port}/to?{target}", redirects_max=3)


def test_a_redirect_to_a_file_is_refused(server: ThreadingHTTPServer) -> None:
    with pytest.raises(InvalidInput):
        allowed(server).get(f"http://127.0.0.1:{server.server_port}/to?file:///etc/passwd", redirects_max=3)


def test_a_circle_of_redirects_ends(server: ThreadingHTTPServer) -> None:
    with pytest.raises(EngineError):
        here = f"http://127.0.0.1:{server.server_port}/to?"
        allowed(server).get(here + here + here + here + "/x", redirects_max=2)


def test_a_redirect_to_another_host_does_not_take_the_token_along(server: ThreadingHTTPServer) -> None:
    port = server.server_port
    client = OutboundClient([f"a.test:{port}", f"b.test:{port}"], resolver=lambda _host, _port: ["127.0.0.1"])
    client.get(
        f"http://a.test:{port}/to?http://b.test:{port}/x",
        headers={"Authorization": "Bearer secret", "X-Trace": "1"},
        redirects_max=1,
    )
    first, second = server.seen  # type: ignore[attr-defined]
    assert first[2]["Authorization"] == "Bearer secret"
    assert "Authorization" not in second[2]
    assert second[2]["X-Trace"] == "1"


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://example.org/",
        "gopher://example.org/",
        "//example.org/",
        "example.org",
        "http://",
        "http:///x",
        "http://user@example.org/",
        "http://user:pw@example.org/",
        "http://example.org:99999/",
        "http://example.org:0/",
        "http://exa mple.org/",
        "http://example.org/a\r\nHost: inner",
        "http://example.org\\@inner/",
        "http://ex\u0430mple.org/",
        "",
    ],
)
def test_urls_that_mislead_are_refused(url: str) -> None:
    with pytest.raises(InvalidInput):
        OutboundClient(resolver=lambda _host, _port: ["127.0.0.1"]).get(url)


@pytest.mark.parametrize("headers", [{"Host": "inner"}, {"X": "a\r\nY: b"}, {"X Y": "a"}, {"Transfer-Encoding": "x"}])
def test_headers_that_smuggle_are_refused(headers: dict[str, str]) -> None:
    with pytest.raises(InvalidInput):
        OutboundClient().get("http://example.org/", headers=headers)


def test_an_answer_has_a_largest_size(server: ThreadingHTTPServer) -> None:
    url = f"http://127.0.0.1:{server.server_port}/large"
    assert len(allowed(server).get(url, reply_bytes_max=5_000).body) == 5_000
    with pytest.raises(TooLarge):
        allowed(server).get(url, reply_bytes_max=4_999)


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_a_peer_that_drips_is_cut_off_in_time(start: bytes) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()

    def drip() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(start)
            while not stop.wait(0.02):
                try:
                    connection.sendall(b"H")
                except OSError:
                    return

    thread = threading.Thread(target=drip, daemon=True)
    thread.start()
    port = listener.getsockname()[1]
    began = time.monotonic()
    with pytest.raises(Unavailable):
        OutboundClient(f"127.0.0.1:{port}", timeout_s=0.4).get(f"http://127.0.0.1:{port}/")
    assert time.monotonic() - began < 5
    stop.set()
    thread.join()
    listener.close()


def test_a_peer_that_talks_nonsense_or_is_not_there_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        thread = threading.Thread(target=lambda: listener.accept()[0].sendall(b"nonsense\r\n\r\n"), daemon=True)
        thread.start()
        with pytest.raises(Unavailable):
            OutboundClient(f"127.0.0.1:{port}", timeout_s=2).get(f"http://127.0.0.1:{port}/")
    with pytest.raises(Unavailable):
        OutboundClient(f"127.0.0.1:{port}", timeout_s=2).get(f"http://127.0.0.1:{port}/")
    with pytest.raises(Unavailable):
        OutboundClient(timeout_s=2).get("http://no-such-host.invalid/")
