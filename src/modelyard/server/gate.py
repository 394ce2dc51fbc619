"""The gate in front of every route: which host was meant, which page sent it, which project, and who asks.

It is plain ASGI around the app, so that nothing that is mounted can be reached past it.
"""

from __future__ import annotations

import base64
import binascii
import time
from collections import deque
from urllib.parse import urlsplit

from anyio import to_thread
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

from modelyard.kernel.auth import (
    ANONYMOUS,
    TOKEN_PREFIX,
    Principal,
    authenticate,
    check_project_name,
    digest_of,
    system_scope,
)
from modelyard.kernel.database import Database
from modelyard.kernel.errors import Forbidden, InvalidInput, LimitExceeded, ModelyardError, Unauthenticated
from modelyard.kernel.limits import SIGN_IN_ATTEMPTS_PER_MINUTE_MAX
from modelyard.kernel.settings import DEFAULT_PROJECT
from modelyard.server import refusals
from modelyard.server.problems import PRINCIPAL, PROJECT

COOKIE = "modelyard_session"
TRUSTED_FOR_S = 1.0
"""How long a token that was good is taken for good without asking the catalog: so long a revocation may take."""
KNOWN_MAX = 10_000
# MLflow's pages, which stand at /mlflow/, ask relative to where they stand.
_MLFLOW_CALLS = ("/mlflow/ajax-api/", "/mlflow/graphql", "/mlflow/get-artifact", "/mlflow/model-versions/get-artifact",
                 "/mlflow/version", "/mlflow/health")  # fmt: skip
# They know each endpoint below this instead of `/api/`.
_MLFLOW_PAGES = "/ajax-api/"
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class Gate:
    """ASGI around the app.

    `hosts`: the Host header values (host or host:port) that this server answers to. `embedded`: who every request is
    by, where the app runs in its caller's own process. `anonymous`: who a request without a token is by.
    """

    def __init__(
        self,
        app: ASGIApp,
        database: Database,
        hosts: frozenset[str],
        *,
        embedded: Principal | None = None,
        anonymous: Principal = ANONYMOUS,
    ) -> None:
        self._app = app
        self._database = database
        self._hosts = hosts
        self._embedded = embedded
        self._anonymous = anonymous
        self._known: dict[str, tuple[float, Principal]] = {}
        self._failures: dict[str, deque[tuple[float, str]]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            if self._embedded is None:
                self._check_host(headers)
                self._check_origin(scope["method"], headers)
            inner = _enter_project(scope)
            inner[PRINCIPAL] = self._embedded or await self._authenticate(scope, headers)  # type: ignore[literal-required]
        except ModelyardError as error:
            await refusals.send(error, scope["path"], send)
            return
        await self._app(inner, receive, send)

    def _check_host(self, headers: dict[bytes, str]) -> None:
        host = headers.get(b"host", "").lower()
        if host not in self._hosts and host.rsplit(":", 1)[0] not in self._hosts:
            raise Forbidden(
                f"this server does not answer to the host '{host[:80]}'",
                code="host.unknown",
                hint="set `allowed_hosts` (MODELYARD_ALLOWED_HOSTS) if the name is right",
            )

    def _check_origin(self, method: str, headers: dict[bytes, str]) -> None:
        origin = headers.get(b"origin")
        if origin is None:
            # Browsers send Sec-Fetch-Site even where they leave Origin out.
            site = headers.get(b"sec-fetch-site", "none")
            if site == "cross-site" and method not in _SAFE:
                raise Forbidden("another site's page may not send this request", code="origin.foreign")
            return
        if urlsplit(origin).netloc.lower() != headers.get(b"host", "").lower():
            raise Forbidden(
                f"a page of '{origin[:80]}' may not send requests here",
                code="origin.foreign",
                hint="open the page from the server's own address",
            )

    async def _authenticate(self, scope: Scope, headers: dict[bytes, str]) -> Principal:
        token = _sent_token(headers)
        if token is None:
            return await self._of_session(headers)
        client = scope.get("client")
        address = client[0] if client else "local"
        self._check_failures(address)
        try:
            return await self._principal_of(token)
        except Unauthenticated:
            self._note_failure(address, digest_of(token))
            raise

    async def _of_session(self, headers: dict[bytes, str]) -> Principal:
        """Who a browser's cookie stands for. One that is no longer good is as none: the page asks to sign in."""
        token = _cookie(headers)
        if token is None:
            return self._anonymous
        try:
            return await self._principal_of(token)
        except Unauthenticated:
            return self._anonymous

    async def _principal_of(self, token: str) -> Principal:
        digest = digest_of(token)
        good_until, principal = self._known.get(digest, (0.0, ANONYMOUS))
        if time.monotonic() >= good_until:
            principal = await to_thread.run_sync(self._look_up, token)
            if len(self._known) > KNOWN_MAX:
                self._known.clear()
            self._known[digest] = (time.monotonic() + TRUSTED_FOR_S, principal)
        return principal

    def _look_up(self, token: str) -> Principal:
        with self._database.reading(system_scope("*")) as tx:
            return authenticate(tx, token)

    def _note_failure(self, address: str, digest: str) -> None:
        # A program that repeats one expired token guesses nothing, and must not lock its neighbours out.
        failures = self._failures.setdefault(address, deque())
        if all(known != digest for _, known in failures):
            failures.append((time.monotonic(), digest))

    def _check_failures(self, address: str) -> None:
        failures = self._failures.get(address)
        if failures is None:
            return
        while failures and failures[0][0] < time.monotonic() - 60:
            failures.popleft()
        if len(failures) >= SIGN_IN_ATTEMPTS_PER_MINUTE_MAX:
            raise LimitExceeded("too many tokens were refused", code="token.too_many", hint="wait a minute")


def _enter_project(scope: Scope) -> Scope:
    """The scope with the prefix `/p/<project>` taken off its path and kept beside it."""
    path = scope["path"]
    project = DEFAULT_PROJECT
    if path.startswith("/p/"):
        name, _, rest = path[3:].partition("/")
        project, path = check_project_name(name), "/" + rest
    if path.startswith(_MLFLOW_CALLS):
        path = path.removeprefix("/mlflow")
    if path.startswith(_MLFLOW_PAGES):
        path = "/api/" + path.removeprefix(_MLFLOW_PAGES)
    inner: Scope = {**scope, "path": path, "raw_path": path.encode()}  # type: ignore[assignment]
    inner[PROJECT] = project  # type: ignore[literal-required]
    return inner


def _sent_token(headers: dict[bytes, str]) -> str | None:
    kind, _, value = headers.get(b"authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return value.strip()
    if kind.lower() == "basic":
        # Clients that only know user and password send the token as the password.
        try:
            _, _, password = base64.b64decode(value, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError) as error:
            raise InvalidInput("the Authorization header is not valid base64", code="token.malformed") from error
        return password
    return None


def _cookie(headers: dict[bytes, str]) -> str | None:
    for part in headers.get(b"cookie", "").split(";"):
        name, _, value = part.strip().partition("=")
        if name == COOKIE and value.startswith(TOKEN_PREFIX):
            return value
    return None
