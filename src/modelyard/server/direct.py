"""The short way to the few routes that are called thousands of times a second.

Litestar's way from a path to its handler and back costs more than logging a metric does. A route that is declared
`direct` is found by its path alone, and its function is called in a thread as it is. All else about it is the same: the
action that it requires, the cap on its body, the form of its errors, the headers of its reply. What is not plain about
a request (another content encoding, a body without its length) goes the long way.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from litestar import Litestar, Request, Response
from litestar.enums import ScopeType
from litestar.handlers import HTTPRouteHandler
from litestar.types import Empty, Receive, Scope, Send

from modelyard.kernel import auth
from modelyard.kernel.auth import Action
from modelyard.kernel.routing import DIRECT, REQUIRES
from modelyard.server.problems import PRINCIPAL, PROJECT
from modelyard.server.threads import Threads

THREADS = 40


@dataclass(frozen=True)
class _Route:
    function: Callable[..., Any]
    requires: Action
    names: tuple[str, ...]
    body_bytes_max: int
    fail: Callable[[Any, Exception], Response[Any]]


class Direct:
    """ASGI around the app, inside the gate. `provided`: what handlers may ask for by name."""

    def __init__(
        self,
        app: Litestar,
        handlers: Iterable[HTTPRouteHandler],
        provided: Mapping[str, Any],
        headers: Mapping[str, str],
    ) -> None:
        self._app = app
        self._provided = provided
        self._headers = [(name.encode(), value.encode()) for name, value in headers.items()]
        self._routes = {
            (str(method), path): _declared(handler, app)
            for handler in handlers
            if DIRECT in handler.opt
            for path in handler.paths
            for method in handler.http_methods
        }
        self._threads = Threads("direct", THREADS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = None
        if scope["type"] == ScopeType.HTTP:
            route = self._routes.get((scope["method"], scope["path"]))
        length = -1 if route is None else _length(scope)
        if route is None or length < 0 or length > route.body_bytes_max:
            await self._app(scope, receive, send)
            return
        try:
            auth.check(scope[PRINCIPAL], route.requires, scope[PROJECT])  # type: ignore[literal-required]
            body = await _body(receive, length)
            if body is None:
                return
            response = await self._threads.run(self._call, route, scope, body)
        except Exception as error:  # noqa: BLE001  the boundary: every fault becomes a reply, in the route's own form
            response = route.fail(None, error)
        await self._reply(response, send)

    def _call(self, route: _Route, scope: Scope, body: bytes) -> Response[Any]:
        given: dict[str, Any] = {}
        for name in route.names:
            if name == "caller":
                given[name] = auth.Scope(scope[PROJECT], scope[PRINCIPAL])  # type: ignore[literal-required]
            elif name == "body":
                given[name] = body
            elif name == "request":
                given[name] = Request(scope)
            else:
                given[name] = self._provided[name]
        response: Response[Any] = route.function(**given)
        return response

    async def _reply(self, response: Response[Any], send: Send) -> None:
        content: bytes = response.content
        headers = [
            (b"content-type", str(response.media_type).encode()),
            (b"content-length", str(len(content)).encode()),
            *((name.lower().encode(), value.encode()) for name, value in response.headers.items()),
            *self._headers,
        ]
        status: int = response.status_code or 200
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content, "more_body": False})


def _declared(handler: HTTPRouteHandler, app: Litestar) -> _Route:
    function = handler.opt[DIRECT]
    own: Any = handler.request_max_body_size
    cap: Any = app.request_max_body_size if own is Empty else own
    failing: Any = {**app.exception_handlers, **(handler.exception_handlers or {})}[Exception]
    names = tuple(inspect.signature(function).parameters)
    return _Route(function, handler.opt[REQUIRES], names, cap, failing)


def _length(scope: Scope) -> int:
    """How long the body is by its header; -1 where that is not plain to see."""
    length = 0
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            length = int(value)
        elif name in (b"content-length", b"transfer-encoding", b"content-encoding", b"expect"):
            return -1
    return length


async def _body(receive: Receive, length: int) -> bytes | None:
    """The whole body; None where the client went away before that."""
    if length == 0:
        return b""
    pieces = []
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return None
        pieces.append(message["body"])
        more = message["more_body"]
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
