"""How a page is declared: a view gives a screen, and this makes HTML of it, or with `.json` after the path, JSON."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.handlers import HTTPRouteHandler

from modelyard.kernel.auth import Action, Scope
from modelyard.kernel.clock import SystemClock
from modelyard.kernel.routing import get
from modelyard.ui.frame import Screen
from modelyard.ui.render import Visit, render

JSON_SUFFIX = ".json"
_REQUEST = "request"  # the name by which Litestar gives it


def page(
    path: str, *, template: str, requires: Action = Action.READ
) -> Callable[[Callable[..., Screen]], HTTPRouteHandler]:
    """Declare a page. The view takes `caller`, planes by name, path and query parameters, and returns its screen.

    The same view answers under `path` with HTML and under `path` + `.json` with the screen itself.
    """
    last = path.rsplit("/", 1)[-1]
    parameter = last[1:-1].partition(":")[0] if last.startswith("{") else ""

    def decorate(view: Callable[..., Screen]) -> HTTPRouteHandler:
        def handler(**given: Any) -> Response[bytes]:
            request: Request[Any, Any, Any] = given.pop(_REQUEST)
            as_json = request.url.path.endswith(JSON_SUFFIX)
            if as_json and parameter:
                given[parameter] = given[parameter].removesuffix(JSON_SUFFIX)
            screen = view(**given)
            if as_json:
                body = msgspec.json.format(msgspec.json.encode(screen), indent=2)
                return _private(Response(body, media_type="application/json"))
            return _private(html(template, screen, visit_of(request, given["caller"])))

        _take_signature(handler, view)
        paths = path if parameter else [path, f"{path.rstrip('/') or '/home'}{JSON_SUFFIX}"]
        return get(paths, requires=requires)(handler)

    return decorate


def html(template: str, screen: Screen, visit: Visit, status: int = 200) -> Response[bytes]:
    """A rendered page as a response."""
    body = render(template, screen, visit).encode()
    return Response(body, media_type="text/html", status_code=status)


def visit_of(request: Request[Any, Any, Any], caller: Scope) -> Visit:
    """Who looks at which address, and when."""
    return Visit(
        project=caller.project,
        who=caller.actor,
        path=request.url.path,
        query=tuple(request.query_params.multi_items()),
        now=SystemClock().now(),
        actions=frozenset(action for action in Action if caller.principal.may(action, caller.project)),
    )


def _private(response: Response[bytes]) -> Response[bytes]:
    response.headers["Cache-Control"] = "private, no-cache"
    return response


def _take_signature(handler: Callable[..., Any], view: Callable[..., Screen]) -> None:
    """Let Litestar see the view's own parameters on the handler, with the request added."""
    hints = typing.get_type_hints(view, include_extras=True)
    parameters = [
        parameter.replace(annotation=hints[parameter.name], kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in inspect.signature(view).parameters.values()
    ]
    request = inspect.Parameter(_REQUEST, inspect.Parameter.KEYWORD_ONLY, annotation=Request)
    for attribute in ("__name__", "__qualname__", "__doc__", "__module__"):
        setattr(handler, attribute, getattr(view, attribute))
    shown = inspect.Signature([request, *parameters], return_annotation=Response)
    setattr(handler, "__signature__", shown)  # noqa: B010 - functions have no declared __signature__
    handler.__annotations__ = {p.name: p.annotation for p in shown.parameters.values()} | {"return": Response}
