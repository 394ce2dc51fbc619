"""A real server in this process for tests that speak to it from outside."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from modelyard.kernel import auth, settings
from modelyard.kernel.auth import Role, system_scope
from modelyard.sdk.client import Client
from modelyard.server.run import Server, serve_in_thread


@contextmanager
def running_server(home: Path, **more: object) -> Iterator[Server]:
    """A server on a free loopback port over `home`, until the block ends."""
    chosen = settings.load({"home": home, "reconcile_interval_s": 0.1, **more}, environ={}, directory=home.parent)
    server = serve_in_thread(chosen)
    try:
        yield server
    finally:
        server.stop()


def client_of(server: Server, project: str = "default") -> Client:
    """The admin's client."""
    return Client(server.url, token=server.token, project=project)


def token_for(server: Server, principal: str, role: Role, project: str = "default") -> str:
    """A token of a principal with a role in a project."""
    with server.yard.database.transaction(system_scope(project)) as tx:
        return auth.issue_token(tx, principal, project, role)


def raw_client(server: Server, token: str = "") -> httpx.Client:
    """Plain HTTP, for requests that no client of ours would send."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx.Client(base_url=server.url, headers=headers, timeout=30)
