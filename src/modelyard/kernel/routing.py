"""How a route is declared: with the action that it requires, which is not optional. What no route allows is denied.

Thin over Litestar: handlers are plain functions that run in a thread, since they talk to the database. A route that is
called thousands of times a second says `direct=True`: it has no parameters in its path, takes `caller`, `body` or
`request` and what the yard holds, and returns a Response of bytes.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from anyio import to_thread
from litestar import HttpMethod
from litestar.handlers import HTTPRouteHandler

from modelyard.kernel.auth import Action

RESERVED = frozenset({"scope", "state"})
REQUIRES = "requires"
DIRECT = "direct"
"""The option that holds the plain function of a route which is served without Litestar's way to it."""
Handler = Callable[[Callable[..., Any]], HTTPRouteHandler]


class _Route(HTTPRouteHandler):
    """A route whose handler is given what is at hand: nothing of it waits, so each is taken in turn, where Litestar
    would make a task for each and wait for them all, a sixth of what a cheap request costs."""

    def create_kwargs_model(self, path_parameters: Any) -> Any:
        model = super().create_kwargs_model(path_parameters)
        model.dependency_batches = [{one} for batch in model.dependency_batches for one in batch]
        return model


def _declare(
    method: HttpMethod,
    path: str | list[str],
    requires: Action,
    status_code: int,
    direct: bool = False,
    **options: Any,
) -> Handler:
    def decorate(function: Callable[..., Any]) -> HTTPRouteHandler:
        taken = RESERVED.intersection(inspect.signature(function).parameters)
        if taken:
            raise TypeError(f"{function.__name__}: Litestar keeps {sorted(taken)}; rename (the Scope is `caller`)")
        handler = function if inspect.iscoroutinefunction(function) else _in_thread(function)
        opt = {REQUIRES: requires, **({DIRECT: function} if direct else {})}
        return _Route(path, http_method=method, status_code=status_code, opt=opt, **options)(handler)

    return decorate


def _in_thread(function: Callable[..., Any]) -> Callable[..., Any]:
    # Litestar's own `sync_to_thread` wraps a handler once more for every other method on its path (2.25).
    @functools.wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        return await to_thread.run_sync(functools.partial(function, *args, **kwargs))

    return call


def get(path: str | list[str], *, requires: Action, status_code: int = 200, **options: Any) -> Handler:
    """Declare a route that reads."""
    return _declare(HttpMethod.GET, path, requires, status_code, **options)


def post(path: str | list[str], *, requires: Action, status_code: int = 200, **options: Any) -> Handler:
    """Declare a route that creates or acts."""
    return _declare(HttpMethod.POST, path, requires, status_code, **options)


def put(path: str | list[str], *, requires: Action, status_code: int = 200, **options: Any) -> Handler:
    """Declare a route that sets."""
    return _declare(HttpMethod.PUT, path, requires, status_code, **options)


def patch(path: str | list[str], *, requires: Action, status_code: int = 200, **options: Any) -> Handler:
    """Declare a route that changes a part."""
    return _declare(HttpMethod.PATCH, path, requires, status_code, **options)


def delete(path: str | list[str], *, requires: Action, status_code: int = 200, **options: Any) -> Handler:
    """Declare a route that deletes."""
    return _declare(HttpMethod.DELETE, path, requires, status_code, **options)
