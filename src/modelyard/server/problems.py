"""How errors leave the server: problem+json for programs, a page for people, each foreign dialect in its own form."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import msgspec
from litestar import MediaType, Request, Response
from litestar.exceptions import HTTPException, InternalServerException, ValidationException
from litestar.response import Redirect
from litestar.types import Send

from modelyard.kernel.errors import ModelyardError, Problem, to_problem, too_deep
from modelyard.kernel.ids import new_id
from modelyard.kernel.settings import DEFAULT_PROJECT
from modelyard.ui.problems import problem_page, wants_page

PRINCIPAL = "modelyard.principal"
PROJECT = "modelyard.project"
MEDIA_TYPE = "application/problem+json"
_log = logging.getLogger("modelyard.server")
_BODY_FAULT = re.compile(r"(?P<message>.*) - at `\$\.data\.(?P<key>.*)`", re.DOTALL)
_NO_ROUTE = {404: "there is nothing at {asked}", 405: "{asked} is not a request that this path takes"}
_CODES = {400: "invalid_input", 401: "unauthenticated", 403: "forbidden", 404: "route.not_found",
          405: "route.method_not_allowed", 413: "too_large"}  # fmt: skip


def to_response(problem: Problem) -> Response[Any]:
    """The reply for a problem."""
    headers = {"WWW-Authenticate": "Bearer"} if problem.status == 401 else {}
    return Response(msgspec.to_builtins(problem), status_code=problem.status, media_type=MEDIA_TYPE, headers=headers)


def problem_of(error: Exception, asked: str = "") -> Problem:
    """The problem that an exception stands for. What is not ours to explain becomes a 500 without its text.

    `asked` is the request by method and path, to say what is not there.
    """
    request_id = new_id()
    if isinstance(error, ModelyardError):
        return to_problem(error, request_id)
    if isinstance(error, RecursionError):
        # The decoder's own guard: a body nested some thousand levels deep.
        return to_problem(too_deep(), request_id)
    if isinstance(error, InternalServerException):
        error = _of_body(error)
    if isinstance(error, HTTPException):
        extra = error.extra if isinstance(error.extra, dict) else {"errors": error.extra} if error.extra else {}
        no_route = error.status_code in _NO_ROUTE and asked != ""
        return Problem(
            status=error.status_code,
            title=HTTPStatus(error.status_code).phrase,
            detail=_NO_ROUTE[error.status_code].format(asked=asked) if no_route else error.detail,
            code=_CODES.get(error.status_code, "http_error"),
            hint="GET /api/schema describes every route" if no_route and " /api/" in asked else "",
            details=extra,
            request_id=request_id,
        )
    _log.error("request %s failed", request_id, exc_info=error)
    return Problem(
        status=500, title="Bug", code="internal", request_id=request_id,
        detail="the server met a fault of its own",
        hint=f"please report it, with the lines of the server's log about request {request_id}",
    )  # fmt: skip


def _of_body(error: InternalServerException) -> HTTPException:
    """Litestar takes a fault at `$.data.features` for one of the dependency `features`, and so for the server's own."""
    told = _BODY_FAULT.fullmatch(str(error.__cause__)) if isinstance(error.__cause__, msgspec.ValidationError) else None
    if told is None:
        return error
    where = {"message": told["message"], "key": told["key"], "source": "body"}
    return ValidationException(detail=f"the body does not fit: {told['message']}, at {told['key']}", extra=[where])


def handle(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
    """Litestar's exception handler for all that no dialect handles itself."""
    problem = problem_of(error, f"{request.method} {request.scope['path']}")
    if not wants_page(request.headers.get("accept", ""), request.scope["path"]):
        return to_response(problem)
    if problem.status == 401:
        project = request.scope[PROJECT]  # type: ignore[literal-required]
        prefix = "" if project == DEFAULT_PROJECT else f"/p/{project}"
        query = request.scope["query_string"].decode("latin-1")
        there = f"{prefix}{request.scope['path']}{'?' if query else ''}{query}"
        return Redirect(f"{prefix}/sign-in?next={quote(there)}", status_code=303)
    return Response(problem_page(problem), status_code=problem.status, media_type=MediaType.HTML)


def log_broken_off(error: BaseException, asked: str) -> None:
    """Log why an answer that had begun could not be sent to its end. Whoever asked sees that it is cut off.

    An error that has a request's id by now was logged where it happened.
    """
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, ModelyardError):
        if "request_id" not in error.details:
            _log.error("request %s: the answer to %s broke off: %s [%s]", new_id(), asked, error, error.code)
    else:
        _log.error("request %s: the answer to %s broke off", new_id(), asked, exc_info=error)


HANDLERS: dict[Any, Callable[[Request[Any, Any, Any], Any], Response[Any]]] = {
    HTTPException: handle,
    ModelyardError: handle,
    Exception: handle,
}


async def send_problem(error: ModelyardError, send: Send) -> None:
    """Reply with a problem from plain ASGI."""
    problem = to_problem(error, new_id())
    body = msgspec.json.encode(problem)
    headers = [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", str(len(body)).encode())]
    if problem.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
