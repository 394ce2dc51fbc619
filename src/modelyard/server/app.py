"""The ASGI app over a composed yard: every plane's routes, the dialects and the UI behind one gate."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence
from typing import Any

from litestar import Litestar, Request, Response
from litestar.connection import ASGIConnection
from litestar.di import Provide
from litestar.enums import ScopeType
from litestar.exceptions import LitestarException
from litestar.handlers import BaseRouteHandler, HTTPRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.plugins import PluginProtocol
from litestar.plugins.core import MsgspecDIPlugin
from litestar.types import ASGIApp

from modelyard.app import Yard
from modelyard.kernel import auth
from modelyard.kernel.auth import Action, Principal
from modelyard.kernel.errors import Forbidden
from modelyard.kernel.limits import REQUEST_BODY_BYTES_MAX
from modelyard.kernel.routing import REQUIRES
from modelyard.server import kernel_routes, routes
from modelyard.server.direct import Direct
from modelyard.server.gate import Gate
from modelyard.server.problems import PRINCIPAL, PROJECT, log_broken_off
from modelyard.server.refusals import HANDLERS
from modelyard.server.waiting import Waiting

SCHEMA = "/api/schema"
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
LOCAL = Principal("local", {auth.ALL_PROJECTS: auth.Role.ADMIN})
"""Who acts where there is no server: whoever may read the home directory may do everything in it."""
_SECURITY_HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'self'; object-src 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
}


def create_app(yard: Yard, *, hosts: Sequence[str] = LOOPBACK, embedded: bool = False) -> ASGIApp:
    """The app. `embedded`: it runs inside its caller's own process, who then is `LOCAL` without a token."""
    handlers = [*kernel_routes.ROUTES, *routes.all_routes()]
    app = App(
        handlers,
        guards=[enforce],
        dependencies=_dependencies(yard),
        exception_handlers=HANDLERS,
        request_max_body_size=REQUEST_BODY_BYTES_MAX,
        openapi_config=OpenAPIConfig(title="Modelyard", version="1", path=SCHEMA, render_plugins=[JsonRenderPlugin()]),
        after_request=_harden,
        logging_config=None,
        debug=False,
    )
    role = yard.settings.anonymous_role
    anonymous = Principal("anonymous", {auth.ALL_PROJECTS: auth.Role(role)}) if role else auth.ANONYMOUS
    direct = Direct(app, handlers, _provided(yard), _SECURITY_HEADERS)
    return Gate(direct, yard.database, frozenset(hosts), embedded=LOCAL if embedded else None, anonymous=anonymous)


class App(Litestar):
    """Registers a route when it is first asked for; knows nothing of pydantic and attrs, whose models no route has and
    whose loading takes a tenth of a second."""

    _registering = threading.Lock()
    """One for all apps of a process: a handler says whose it is while it is registered."""

    def __init__(self, handlers: Sequence[HTTPRouteHandler], **options: Any) -> None:
        self._waiting = Waiting(handlers)
        super().__init__(**options)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == ScopeType.HTTP:
            self._register(scope["path"])
        try:
            await super().__call__(scope, receive, send)
        except LitestarException as error:
            if error.__cause__ is None:
                raise
            # Nothing can be said in an answer that has begun: it is left without its end, and the server closes it.
            log_broken_off(error.__cause__, f"{scope['method']} {scope['path']}")

    def _register(self, path: str) -> None:
        if path.startswith(SCHEMA):
            self.register_all()
            return
        # The lock is held by none but who registers, so that the loop never waits long for it.
        with self._registering:
            for handler in self._waiting.take(path):
                self.register(handler)

    def register_all(self) -> None:
        """Register what nobody asked for yet: for whoever wants to see every route."""
        with self._registering:
            for handler in self._waiting.take_all():
                self.register(handler)

    @staticmethod
    def _get_default_plugins(plugins: list[PluginProtocol]) -> list[PluginProtocol]:
        return [*plugins, MsgspecDIPlugin()]


def enforce(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """The one guard: a route that does not declare what it requires is denied to all."""
    requires = handler.opt.get(REQUIRES)
    principal, project = connection.scope[PRINCIPAL], connection.scope[PROJECT]  # type: ignore[literal-required]
    if connection.scope["path"].startswith(SCHEMA):
        requires = Action.READ
    if requires is None:
        raise Forbidden("this route does not say whom it allows, so it allows nobody", code="route.undeclared")
    auth.check(principal, requires, project)


def _dependencies(yard: Yard) -> dict[str, Provide]:
    def provide(value: Any) -> Provide:
        return Provide(lambda: value, use_cache=True, sync_to_thread=False)

    named = {name: provide(value) for name, value in _provided(yard).items()}
    return {**named, "caller": Provide(_caller, sync_to_thread=False)}


def _provided(yard: Yard) -> dict[str, Any]:
    """What handlers may ask for by name. `data` is the body there, so that plane is called after its noun."""
    found = {field.name: getattr(yard, field.name) for field in dataclasses.fields(yard)}
    return {"datasets" if name == "data" else name: value for name, value in found.items()}


def _caller(request: Request[Any, Any, Any]) -> auth.Scope:
    return auth.Scope(request.scope[PROJECT], request.scope[PRINCIPAL])  # type: ignore[literal-required]


def _harden(response: Response[Any]) -> Response[Any]:
    for name, value in _SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
    return response
