"""Starting and stopping: one server a home, safe addresses only, signing in once."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from modelyard.kernel import home, settings
from modelyard.kernel.errors import Conflict, Forbidden, InvalidInput, Unavailable
from modelyard.kernel.event import Verdict
from modelyard.server.run import Server, is_loopback
from running import client_of, raw_client, running_server


def chosen(tmp_path: Path, **flags: object) -> settings.Settings:
    return settings.load({"home": tmp_path / "home", "port": 0, **flags}, environ={}, directory=tmp_path)


@pytest.mark.slow
def test_a_second_server_on_the_same_home_is_refused_and_told_where_the_first_is(tmp_path: Path) -> None:
    with running_server(tmp_path / "home") as first:
        with pytest.raises(Conflict) as caught:
            Server(chosen(tmp_path))
        assert first.url in caught.value.message
    with running_server(tmp_path / "home"):
        pass


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.com"])
def test_another_address_than_loopback_needs_auth(tmp_path: Path, host: str) -> None:
    with pytest.raises(Forbidden, match="without auth"):
        Server(chosen(tmp_path, host=host))


def test_a_weak_token_or_anonymous_access_does_not_go_outside(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="too short"):
        Server(chosen(tmp_path, host="0.0.0.0", token="admin"))
    with pytest.raises(Forbidden):
        Server(chosen(tmp_path, host="0.0.0.0", token="x" * 40, anonymous_role="viewer"))


def test_a_taken_port_is_said_and_frees_the_home(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(Unavailable, match="cannot bind"):
            Server(chosen(tmp_path, port=taken.getsockname()[1]))
    with running_server(tmp_path / "home"):
        pass


def test_a_home_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    with pytest.raises(Unavailable, match="cannot be used"):
        Server(chosen(tmp_path))


@pytest.mark.slow
def test_the_sign_in_link_works_once(tmp_path: Path) -> None:
    with running_server(tmp_path / "home") as server, raw_client(server) as browser:
        token = server.sign_in_link().partition("token=")[2]
        assert browser.post("/api/sign-in", json={"token": token}).status_code == 200
        cookie = browser.cookies.get("modelyard_session")
        assert cookie
        assert browser.get("/api/me").json()["principal"] == "admin"
        with raw_client(server) as other:
            assert other.post("/api/sign-in", json={"token": token}).status_code == 401


def test_the_session_cookie_cannot_be_read_by_pages(tmp_path: Path) -> None:
    with running_server(tmp_path / "home") as server, raw_client(server) as browser:
        token = server.sign_in_link().partition("token=")[2]
        set_cookie = browser.post("/api/sign-in", json={"token": token}).headers["set-cookie"].lower()
    assert "httponly" in set_cookie
    assert "samesite=strict" in set_cookie


def test_anonymous_access_is_a_choice(tmp_path: Path) -> None:
    with running_server(tmp_path / "home", anonymous_role="viewer") as server, raw_client(server) as client:
        assert client.get("/api/me").json()["role"] == "viewer"
        assert client.post("/api/tokens", json={"principal": "a", "role": "admin"}).status_code == 403


@pytest.mark.slow
def test_the_schema_describes_every_route(tmp_path: Path) -> None:
    with running_server(tmp_path / "home") as server, raw_client(server, server.token) as client:
        schema = client.get("/api/schema/openapi.json").json()
    assert schema["openapi"].startswith("3.1")
    assert len(schema["paths"]) > 100


def test_repeating_one_bad_token_locks_nobody_out(tmp_path: Path) -> None:
    with running_server(tmp_path / "home") as server:
        with raw_client(server, "myd_expired") as client:
            assert {client.get("/api/me").status_code for _ in range(60)} == {401}
        with raw_client(server, server.token) as client:
            assert client.get("/api/me").status_code == 200


@pytest.mark.slow
def test_a_token_given_as_a_password_is_good_too(tmp_path: Path) -> None:
    with running_server(tmp_path / "home") as server, raw_client(server) as client:
        assert client.get("/api/me", auth=("anything", server.token)).status_code == 200
        assert client.get("/api/me", headers={"Authorization": "Basic %%%"}).status_code == 400


@pytest.mark.slow
def test_a_server_goes_on_where_the_last_one_was(tmp_path: Path) -> None:
    with running_server(tmp_path / "home") as first:
        token = first.token
        events = client_of(first).get("/api/audit", Verdict).events
    with running_server(tmp_path / "home") as second:
        assert second.token == token
        verdict = client_of(second).get("/api/audit", Verdict)
        assert verdict.ok
        assert verdict.events >= events


@pytest.mark.slow
def test_the_home_names_its_server_only_while_it_runs(tmp_path: Path) -> None:
    with running_server(tmp_path / "home") as server:
        found = home.find_serving(tmp_path / "home")
        assert found is not None
        assert found.url == server.url
    assert home.find_serving(tmp_path / "home") is None


@pytest.mark.parametrize(
    ("host", "inside"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("x", False)],
)
def test_what_loopback_is(host: str, inside: bool) -> None:
    assert is_loopback(host) is inside
