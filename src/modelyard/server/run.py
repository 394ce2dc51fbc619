"""Running the app: `Server` binds, serves and reconciles, in the foreground or in a thread of its own."""

from __future__ import annotations

import gc
import ipaddress
import socket
import threading
from collections.abc import Callable
from typing import Any

import msgspec
import uvicorn
from litestar.types import ASGIApp

from modelyard.app import Yard, compose
from modelyard.kernel import auth, home
from modelyard.kernel.auth import Role, system_scope
from modelyard.kernel.errors import Forbidden, InvalidInput, Unavailable
from modelyard.kernel.settings import Settings
from modelyard.server.app import LOOPBACK, create_app

SIGN_IN_TTL_S = 15 * 60.0
LOCAL_ADMIN = "admin"


class Server:
    """One server over one home directory. Use `start` … `stop`, or `run` to serve until the process is told to end."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        _check_exposure(settings)
        self._lock = home.HomeLock(settings.home)
        try:
            self._socket = _bind(settings)
        except BaseException:
            self._lock.release()
            raise
        port = self._socket.getsockname()[1]
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        self.url = settings.public_url or f"http://{host}:{port}"
        self.yard: Yard = compose(msgspec.structs.replace(settings, port=port, public_url=self.url))
        self.token = _owner_token(self.yard)
        self.app = create_app(self.yard, hosts=_hosts(settings, port))
        self._uvicorn = uvicorn.Server(_config(self.app))
        self._thread: threading.Thread | None = None

    def sign_in_link(self) -> str:
        """A link that signs the local admin in, once, within a quarter of an hour."""
        with self.yard.database.transaction(system_scope("*")) as tx:
            token = auth.issue_token(tx, LOCAL_ADMIN, auth.ALL_PROJECTS, Role.ADMIN, SIGN_IN_TTL_S, single_use=True)
        return f"{self.url}/sign-in?token={token}"

    def run(self, ready: Callable[[], None] | None = None) -> None:
        """Serve until SIGINT or SIGTERM."""
        self._open(ready)
        # What is loaded by now stays as long as this process, so no collection need walk over it again.
        gc.freeze()
        gc.enable()
        try:
            self._uvicorn.run(sockets=[self._socket])
        finally:
            self._close()

    def start(self) -> None:
        """Serve in a thread; returns once requests are answered."""
        ready = threading.Event()
        self._open(ready.set)
        # uvicorn puts its signal handlers in the main thread only, so here it has none.
        self._thread = threading.Thread(target=self._uvicorn.run, kwargs={"sockets": [self._socket]}, daemon=True)
        self._thread.start()
        if not ready.wait(30):
            raise Unavailable("the server did not come up within 30 s")

    def stop(self) -> None:
        """Stop serving and reconciling; what jobs and endpoints run goes on."""
        self._uvicorn.should_exit = True
        if self._thread is not None:
            self._thread.join(30)
        self._close()

    def _open(self, ready: Callable[[], None] | None) -> None:
        started = self._uvicorn.startup

        async def startup(sockets: list[socket.socket] | None = None) -> None:
            await started(sockets=sockets)
            self._lock.announce(self.url)
            self.yard.loop.start()
            if ready is not None:
                ready()

        self._uvicorn.startup = startup  # type: ignore[method-assign]

    def _close(self) -> None:
        self.yard.close()
        self._lock.release()


def _config(app: ASGIApp) -> uvicorn.Config:
    options: dict[str, Any] = {"access_log": False, "log_level": "warning", "server_header": False}
    return uvicorn.Config(
        app,
        http="httptools",
        loop="uvloop",
        lifespan="on",
        timeout_graceful_shutdown=5,
        **options,
    )


def _hosts(settings: Settings, port: int) -> list[str]:
    named = [one.strip().lower() for one in settings.allowed_hosts.split(",") if one.strip()]
    bound = [] if is_loopback(settings.host) else [settings.host.lower()]
    return [*(f"{host}:{port}" for host in (*LOOPBACK, *bound)), *named]


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_exposure(settings: Settings) -> None:
    if settings.anonymous_role and settings.anonymous_role not in set(Role):
        raise InvalidInput(f"'{settings.anonymous_role}' is no role", hint=f"use one of {', '.join(Role)}")
    if is_loopback(settings.host):
        return
    if settings.anonymous_role:
        raise Forbidden("a server that others can reach does not serve requests without a token",
                        hint="unset `anonymous_role`")  # fmt: skip
    if not settings.token:
        raise Forbidden(
            f"refusing to bind {settings.host} without auth: others could reach this server",
            code="bind.without_auth",
            hint="set MODELYARD_TOKEN to a secret of at least 32 characters (it becomes the admin's token), "
            "or bind 127.0.0.1",
        )
    if len(settings.token) < 32:
        raise InvalidInput("the admin's token is too short to be a secret", hint="use at least 32 random characters")


def _bind(settings: Settings) -> socket.socket:
    # The protocol is named because asyncio sets TCP_NODELAY only on sockets that say they are TCP (uvicorn#3149).
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((settings.host, settings.port))
        bound.listen(2048)
    except OSError as error:
        bound.close()
        raise Unavailable(
            f"cannot bind {settings.host}:{settings.port}: {error.strerror}",
            code="bind.failed",
            hint="something else may listen there; choose another port with `--port` (0 takes a free one)",
        ) from error
    bound.set_inheritable(False)
    return bound


def _owner_token(yard: Yard) -> str:
    """The admin's token: the one that was set, the one kept in the home directory, or a new one, kept there."""
    configured, kept = yard.settings.token, home.read_token(yard.settings.home)
    token = configured or kept
    with yard.database.transaction(system_scope("*")) as tx:
        if token:
            auth.adopt_token(tx, LOCAL_ADMIN, auth.ALL_PROJECTS, Role.ADMIN, token)
        else:
            token = auth.issue_token(tx, LOCAL_ADMIN, auth.ALL_PROJECTS, Role.ADMIN)
    if token != kept:
        home.write_private(yard.settings.home / home.TOKEN, token.encode())
    return token


def serve_in_thread(settings: Settings) -> Server:
    """A server on a free loopback port, started."""
    server = Server(msgspec.structs.replace(settings, host="127.0.0.1", port=0, public_url=""))
    server.start()
    return server
