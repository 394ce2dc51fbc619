"""The one tree of errors, and its form on the wire (RFC 9457, problem+json).

ModelyardError
 ├─ InvalidInput     400   what was sent cannot be meant
 ├─ Unauthenticated  401   who is asking is not known
 ├─ Forbidden        403   known, but not allowed
 ├─ NotFound         404
 ├─ Conflict         409   another state than the request assumes
 ├─ TooLarge         413
 ├─ LimitExceeded    429
 ├─ EngineError      502   an engine below us failed
 ├─ Unavailable      503   cannot now, try again
 └─ UserCodeError    422   the user's own program failed, not the platform

The message says what and why, the hint what to do next. `code` is a stable string `noun.reason`: clients decide by
it, and the SDK rebuilds the exception from it by table, never by import of a name that the peer sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import msgspec


class ModelyardError(Exception):
    """Base of all errors that the platform raises on purpose."""

    status: ClassVar[int] = 500
    default_code: ClassVar[str] = "internal"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        hint: str = "",
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.hint = hint
        self.details: dict[str, Any] = dict(details or {})

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class InvalidInput(ModelyardError):
    """What was sent cannot be meant."""

    status = 400
    default_code = "invalid_input"


class Unauthenticated(ModelyardError):
    """Who is asking is not known."""

    status = 401
    default_code = "unauthenticated"


class Forbidden(ModelyardError):
    """Who is asking may not do this."""

    status = 403
    default_code = "forbidden"


class NotFound(ModelyardError):
    """What was named does not exist, or not for who is asking."""

    status = 404
    default_code = "not_found"


class Conflict(ModelyardError):
    """The request assumes another state than there is."""

    status = 409
    default_code = "conflict"


class TooLarge(ModelyardError):
    """What was sent is over a limit."""

    status = 413
    default_code = "too_large"


class LimitExceeded(ModelyardError):
    """There were too many requests, or a quota is used up."""

    status = 429
    default_code = "limit_exceeded"


class EngineError(ModelyardError):
    """An engine below the platform failed."""

    status = 502
    default_code = "engine_failed"


class Unavailable(ModelyardError):
    """It cannot be done now; trying again may help."""

    status = 503
    default_code = "unavailable"


class UserCodeError(ModelyardError):
    """The user's own program failed, not the platform."""

    status = 422
    default_code = "user_code_failed"


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An error as it travels: RFC 9457 problem details with our `code`, `hint` and `details` as extensions."""

    status: int
    title: str
    detail: str
    code: str
    type: str = "about:blank"
    hint: str = ""
    details: dict[str, Any] = {}
    request_id: str = ""


_BY_STATUS: dict[int, type[ModelyardError]] = {
    kind.status: kind
    for kind in (
        InvalidInput, Unauthenticated, Forbidden, NotFound, Conflict,
        TooLarge, LimitExceeded, EngineError, Unavailable, UserCodeError,
    )
}  # fmt: skip


def too_deep(what: str = "what was sent") -> InvalidInput:
    """The error for data on which a decoder, or whoever looks at it, ran out of depth."""
    return InvalidInput(f"{what} is nested too deeply", code="body.too_deep", hint="flatten it, or send it as a file")


def to_problem(error: ModelyardError, request_id: str = "") -> Problem:
    """The wire form of an error."""
    return Problem(
        status=error.status,
        title=type(error).__name__,
        detail=error.message,
        code=error.code,
        type=f"https://modelyard.dev/errors/{error.code}" if error.code else "about:blank",
        hint=error.hint,
        details=error.details,
        request_id=request_id,
    )


def from_problem(problem: Problem) -> ModelyardError:
    """The exception that a peer's problem stands for, by its status; unknown statuses give the base class."""
    kind = _BY_STATUS.get(problem.status, ModelyardError)
    details = {**problem.details, **({"request_id": problem.request_id} if problem.request_id else {})}
    return kind(problem.detail, code=problem.code, hint=problem.hint, details=details)
