"""Errors that no route of a dialect gives itself: unknown addresses, and what the gate refuses.

Where a foreign client asked, they are told in its own form, so that it can fall back, or say what is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from litestar import Request, Response
from litestar.exceptions import HTTPException
from litestar.types import Send

from modelyard.kernel.errors import ModelyardError
from modelyard.server import problems
from modelyard.server.dialects.mlflow import wire

_OF_MLFLOW = re.compile(r"(?:/p/[^/]+)?/(?:ajax-)?api/\d\.\d/mlflow(?:-artifacts)?(?:/|$)|(?:/p/[^/]+)?/v1/traces$")


def handle(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
    """Litestar's exception handler for all that no dialect handles itself."""
    if _OF_MLFLOW.match(request.scope["path"]):
        return wire.handle(request, error)
    return problems.handle(request, error)


async def send(error: ModelyardError, path: str, send: Send) -> None:
    """Reply with an error from plain ASGI."""
    if not _OF_MLFLOW.match(path):
        await problems.send_problem(error, send)
        return
    status, body, headers = wire.told(error)
    found = [(b"content-type", wire.JSON.encode()), (b"content-length", str(len(body)).encode())]
    found += [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": found})
    await send({"type": "http.response.body", "body": body, "more_body": False})


HANDLERS: dict[Any, Callable[[Request[Any, Any, Any], Any], Response[Any]]] = {
    HTTPException: handle,
    ModelyardError: handle,
    Exception: handle,
}
