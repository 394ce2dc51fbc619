"""Every route of the running app, from its own router: who may call it is what it declares, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from litestar import Litestar
from litestar.routes import HTTPRoute

from modelyard.kernel.auth import _ALLOWED, Action, Role
from modelyard.kernel.routing import REQUIRES
from modelyard.server.app import App, enforce
from modelyard.server.run import Server
from running import raw_client, running_server, token_for

PUBLIC_PATHS = {
    "/api/health", "/api/sign-in", "/sign-in", "/health", "/version", "/static/{path}",
    "/api/3.0/mlflow/server-info",
}  # fmt: skip
"""The named few that answer without a token."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("security") / "home") as made:
        yield made


def litestar_of(server: Server) -> Litestar:
    app: Any = server.app
    while not isinstance(app, App):
        app = app._app
    app.register_all()
    return app


def declared(server: Server) -> list[tuple[str, str, Action | None]]:
    found = []
    for route in litestar_of(server).routes:
        assert isinstance(route, HTTPRoute), f"{route.path}: only HTTP routes are served"
        for handler in route.route_handlers:
            for method in handler.http_methods:
                if method != "OPTIONS":
                    found.append((str(method), route.path_format, handler.opt.get(REQUIRES)))
    return found


def concrete(path: str) -> str:
    return re.sub(r"\{[^}]*\}", "1", path)


def call(client: httpx.Client, method: str, path: str) -> httpx.Response:
    return client.request(method, concrete(path), follow_redirects=False)


def test_every_route_declares_what_it_requires(server: Server) -> None:
    undeclared = [(m, p) for m, p, action in declared(server) if action is None and not p.startswith("/api/schema")]
    assert undeclared == []


def test_only_the_named_few_answer_without_a_token(server: Server) -> None:
    public = {path for _, path, action in declared(server) if action is Action.PUBLIC}
    assert public <= PUBLIC_PATHS
    with raw_client(server) as anonymous:
        for method, path, action in declared(server):
            if action is Action.PUBLIC:
                continue
            reply = call(anonymous, method, path)
            to_sign_in = reply.status_code == 303 and reply.headers["location"].startswith("/sign-in")
            assert reply.status_code == 401 or to_sign_in, f"{method} {path}: {reply.status_code}"


@pytest.mark.parametrize("role", list(Role))
def test_every_role_may_what_its_role_allows(server: Server, role: Role) -> None:
    token = token_for(server, f"someone-{role}", role)
    with raw_client(server, token) as client:
        for method, path, action in declared(server):
            if action is None or action is Action.PUBLIC or action in _ALLOWED[role]:
                continue
            reply = call(client, method, path)
            assert reply.status_code == 403, f"{role} {method} {path}: {reply.status_code} {reply.text[:200]}"


def test_what_is_allowed_is_not_refused_by_the_guard(server: Server) -> None:
    """The other half: the guard lets an allowed role through (reading routes only, which change nothing)."""
    token = token_for(server, "reader", Role.VIEWER)
    with raw_client(server, token) as client:
        for method, path, action in declared(server):
            if method == "GET" and action is Action.READ:
                reply = call(client, method, path)
                assert reply.status_code not in {401, 403}, f"{method} {path}: {reply.status_code}"
                assert reply.status_code < 500 or reply.status_code == 501, (
                    f"{method} {path}: {reply.status_code} {reply.text[:300]}"
                )


def test_a_role_elsewhere_is_none_here(server: Server) -> None:
    token = token_for(server, "stranger", Role.ADMIN, project="elsewhere")
    with raw_client(server, token) as client:
        assert client.get("/api/me").status_code == 403
        assert client.get("/p/elsewhere/api/me").json()["role"] == "admin"


def test_the_guard_denies_a_route_without_declaration(server: Server) -> None:
    guards = litestar_of(server).guards
    assert guards == [enforce]


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
    ],
)
def test_a_foreign_host_or_origin_is_refused_on_every_method(
    server: Server, method: str, headers: dict[str, str]
) -> None:
    with raw_client(server, server.token) as client:
        reply = client.request(method, "/api/me", headers=headers)
    assert reply.status_code == 403
    assert reply.json()["code"] in {"host.unknown", "origin.foreign"}


def test_a_form_of_another_site_is_refused(server: Server) -> None:
    with raw_client(server, server.token) as client:
        reply = client.post("/api/tokens", content="x", headers={"Sec-Fetch-Site": "cross-site"})
    assert reply.status_code == 403


def test_the_own_page_is_not_refused(server: Server) -> None:
    with raw_client(server, server.token) as client:
        assert client.get("/api/me", headers={"Origin": server.url}).status_code == 200


def test_pages_are_hardened(server: Server) -> None:
    with raw_client(server, server.token) as client:
        headers = client.get("/api/me").headers
    assert "default-src 'self'" in headers["content-security-policy"]
    assert "unsafe-inline" not in headers["content-security-policy"]
    assert headers["x-frame-options"] == "DENY"
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.slow
def test_guessing_tokens_is_slowed(tmp_path: Path) -> None:
    with running_server(tmp_path / "home") as own:
        codes = []
        for guess in range(40):
            with raw_client(own, f"myd_guess{guess}") as client:
                codes.append(client.get("/api/me").status_code)
        assert codes[0] == 401
        assert codes[-1] == 429


def test_a_token_is_nowhere_in_the_home_but_in_its_file(server: Server) -> None:
    secret = server.token.encode()
    holders = [f.name for f in server.settings.home.rglob("*") if f.is_file() and secret in f.read_bytes()]
    assert holders == ["token"]


def test_private_files_are_private(server: Server) -> None:
    home = server.settings.home
    assert home.stat().st_mode & 0o077 == 0
    for name in ("catalog.db", "token", "server.json", "server.lock"):
        assert (home / name).stat().st_mode & 0o077 == 0, name


@pytest.mark.parametrize(
    ("method", "path", "status", "said"),
    [
        ("GET", "/api/nothing", 404, "there is nothing at GET /api/nothing"),
        ("PATCH", "/api/tokens", 405, "PATCH /api/tokens is not a request that this path takes"),
    ],
)
def test_a_route_that_is_not_there_is_said_by_its_name(
    server: Server, method: str, path: str, status: int, said: str
) -> None:
    with raw_client(server, server.token) as client:
        reply = client.request(method, path)
    assert (reply.status_code, reply.json()["detail"]) == (status, said)
    assert "/api/schema" in reply.json()["hint"]


def test_what_a_handler_is_given_is_taken_in_turn(server: Server) -> None:
    """It is at hand: a task for each would cost a cheap request a sixth more."""
    seen = 0
    for route in litestar_of(server).routes:
        assert isinstance(route, HTTPRoute)
        for handler, model in route.route_handler_map.values():
            if REQUIRES in handler.opt:
                assert all(len(batch) == 1 for batch in model.dependency_batches), route.path
                seen = max(seen, len(model.dependency_batches))
    assert seen > 2, "there are routes that are given several"
