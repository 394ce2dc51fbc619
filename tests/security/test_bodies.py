"""Bodies that nobody would send by mistake: refused with a clear status, the server none the worse."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest

from modelyard.kernel.limits import REQUEST_BODY_BYTES_MAX
from modelyard.server.run import Server
from running import raw_client, running_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("bodies") / "home") as made:
        yield made


def send(server: Server, content: bytes, media_type: str = "application/json") -> httpx.Response:
    with raw_client(server, server.token) as client:
        return client.post("/api/tokens", content=content, headers={"Content-Type": media_type})


def healthy(server: Server) -> bool:
    with raw_client(server) as client:
        return client.get("/api/health").status_code == 200


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"[1,2]",
        b'{"principal": 1, "role": "admin"}',
        b'{"principal": "a"}',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"principal": "a", "role": "admin", "ttl_s": 1e400}',
        b'{"principal": "a", "role": "admin", "ttl_s": NaN}',
    ],
)
def test_what_is_not_meant_is_400(server: Server, content: bytes) -> None:
    reply = send(server, content)
    assert reply.status_code == 400, reply.text[:300]
    assert reply.headers["content-type"].startswith("application/problem+json")
    assert "Traceback" not in reply.text
    assert healthy(server)


def test_a_body_over_the_limit_is_413(server: Server) -> None:
    reply = send(server, b'"' + b"x" * (REQUEST_BODY_BYTES_MAX + 1) + b'"')
    assert reply.status_code == 413
    assert healthy(server)


def test_a_multipart_body_with_a_monstrous_boundary_is_refused(server: Server) -> None:
    reply = send(server, b"x" * 1000, "multipart/form-data; boundary=" + "b" * 60_000)
    assert reply.status_code in {400, 413, 431}
    assert healthy(server)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /api/health HTTP/1.1\r\n\r\n",
        b"GET http://evil.example/api/health HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        b"POST /api/sign-in HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"\x00\x01\x02\r\n\r\n",
    ],
)
def test_odd_requests_are_refused_and_harmless(server: Server, request_bytes: bytes) -> None:
    place = urlsplit(server.url)
    assert place.hostname is not None
    with socket.create_connection((place.hostname, place.port or 0), timeout=10) as connection:
        connection.sendall(request_bytes.replace(b"{host}", place.netloc.encode()))
        connection.shutdown(socket.SHUT_WR)
        answer = connection.recv(65536)
    assert answer == b"" or answer.split()[1] in {b"400", b"403", b"401"}
    assert healthy(server)
