"""Routes that are registered when they are asked for: what is found is what would be found if all had been there."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from litestar import Litestar
from litestar.exceptions import HTTPException, ImproperlyConfiguredException
from litestar.handlers import HTTPRouteHandler

from modelyard.kernel.auth import Action
from modelyard.kernel.routing import get, post
from modelyard.server import kernel_routes, routes
from modelyard.server.app import App
from modelyard.server.waiting import Waiting

DECLARED = [*kernel_routes.ROUTES, *routes.all_routes()]


def declare(path: str, method: Any) -> HTTPRouteHandler:
    async def answer() -> str:
        return ""

    answer.__qualname__ = f"{method.__name__} {path}"
    made: HTTPRouteHandler = method(path, requires=Action.READ)(answer)
    return made


parts = st.sampled_from(["runs", "models", "search", "{name:str}", "{version:int}"])
paths = st.lists(parts, max_size=3).map(lambda found: "/" + "/".join(found))
handlers = st.lists(st.tuples(paths, st.booleans(), st.sampled_from([get, post])), min_size=1, max_size=8, unique=True)
asked = st.lists(
    st.tuples(
        st.lists(st.sampled_from(["runs", "models", "search", "x", "7", ""]), max_size=4).map("/".join),
        st.sampled_from(["GET", "POST", "DELETE"]),
    ),
    min_size=1,
    max_size=6,
)


def found(app: Litestar, path: str, method: str) -> str:
    try:
        _, handler, _, given_, _ = app.asgi_router.handle_routing(path=f"/{path.strip('/')}", method=method)
    except HTTPException as error:
        return f"{type(error).__name__} {sorted((error.headers or {}).get('allow', '').split(', '))}"
    return f"{handler} {given_}"


def declared_of(drawn: Sequence[tuple[str, bool, Any]]) -> list[HTTPRouteHandler]:
    return [declare(f"{path}/{{rest:path}}" if rest else path, method) for path, rest, method in drawn]


async def _nothing(*_: Any) -> Any:
    return {"type": "http.request", "body": b"", "more_body": False}


@given(drawn=handlers, asked=asked)
def test_what_is_found_is_what_would_be_found_if_all_were_registered(
    drawn: list[tuple[str, bool, Any]], asked: list[tuple[str, str]]
) -> None:
    try:
        whole = Litestar(declared_of(drawn), openapi_config=None)
    except ImproperlyConfiguredException:
        assume(False)
    lazy = App(declared_of(drawn), openapi_config=None)
    for path, method in asked:
        clean = "/" + "/".join(part for part in path.split("/") if part)
        scope = {
            "type": "http", "path": clean, "raw_path": clean.encode(), "method": method, "headers": [],
            "query_string": b"", "root_path": "", "client": None, "server": None, "scheme": "http",
        }  # fmt: skip
        asyncio.run(lazy(scope, _nothing, _nothing))
        assert found(lazy, clean, method) == found(whole, clean, method)


def test_each_declared_route_is_given_out_once_by_its_own_address() -> None:
    waiting = Waiting(DECLARED)
    for handler in DECLARED:
        for path in handler.paths:
            taken = waiting.take(path)
            assert len(set(map(id, taken))) == len(taken)
    assert waiting.take_all() == []


def test_all_declared_routes_can_be_registered() -> None:
    app = App(DECLARED, openapi_config=None)
    assert app.routes == []
    app.register_all()
    assert {route.path for route in app.routes} >= {path for handler in DECLARED for path in handler.paths}


@pytest.mark.parametrize("path", ["/api/health", "/api/runs/x", "/runs"])
def test_an_address_costs_the_start_of_few_routes(path: str) -> None:
    assert 1 <= len(Waiting(DECLARED).take(path)) <= 4
