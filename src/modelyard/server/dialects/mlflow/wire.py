"""How MLflow's REST API travels: lenient JSON in, its error bodies out.

A request is a msgspec Struct whose fields are in the order in which MLflow checks them; `REQUIRED` names those that
must be there. What is well formed is decoded in one pass. Only what is not is looked at field by field, to find the
words that MLflow has for it: numbers may come as texts, `null` means absent, an empty text is as good as none, unknown
fields are ignored.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, ClassVar, TypeVar, get_origin

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler
from msgspec import json as fast

from modelyard.kernel.clock import to_us
from modelyard.kernel.errors import (
    Conflict,
    EngineError,
    Forbidden,
    InvalidInput,
    LimitExceeded,
    ModelyardError,
    NotFound,
    TooLarge,
    Unauthenticated,
    Unavailable,
    too_deep,
)
from modelyard.kernel.ids import new_id
from modelyard.server.problems import problem_of

JSON = "application/json"
SEE_DOCS = " See the API docs for more information about request parameters."
_STATUS = {
    "INVALID_PARAMETER_VALUE": 400,
    "BAD_REQUEST": 400,
    "RESOURCE_ALREADY_EXISTS": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "RESOURCE_DOES_NOT_EXIST": 404,
    "ENDPOINT_NOT_FOUND": 404,
    "RESOURCE_CONFLICT": 409,
    "REQUEST_LIMIT_EXCEEDED": 429,
    "INTERNAL_ERROR": 500,
    "INVALID_STATE": 500,
    "NOT_IMPLEMENTED": 501,
    "TEMPORARILY_UNAVAILABLE": 503,
}
_CODES: tuple[tuple[type[ModelyardError], str], ...] = (
    (InvalidInput, "INVALID_PARAMETER_VALUE"),
    (Unauthenticated, "UNAUTHENTICATED"),
    (Forbidden, "PERMISSION_DENIED"),
    (NotFound, "RESOURCE_DOES_NOT_EXIST"),
    (Conflict, "RESOURCE_CONFLICT"),
    (TooLarge, "INVALID_PARAMETER_VALUE"),
    (LimitExceeded, "REQUEST_LIMIT_EXCEEDED"),
    (EngineError, "INTERNAL_ERROR"),
    (Unavailable, "TEMPORARILY_UNAVAILABLE"),
)


class Message(msgspec.Struct, kw_only=True):
    """Base of requests."""

    REQUIRED: ClassVar[tuple[str, ...]] = ()


_PLACE = re.compile(r"at `\$(.+)`$")
_STEP = re.compile(r"\[(\d+)\]|\.(\w+)")
M = TypeVar("M", bound=Message)
_decoders: dict[type[Message], msgspec.json.Decoder[Any]] = {}


def decode(body: bytes, kind: type[M]) -> M:
    """A request from its JSON body. Raises InvalidInput in MLflow's words."""
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind, strict=False)
    try:
        message: M = decoder.decode(body or b"{}")
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return _decode_leniently(body, kind)
    except RecursionError as error:
        raise too_deep() from error
    _check_required(message)
    return message


def _decode_leniently(body: bytes, kind: type[M]) -> M:
    try:
        return from_builtins(_lenient(body), kind)
    except RecursionError as error:
        raise too_deep() from error


def decode_query(request: Request[Any, Any, Any], kind: type[M]) -> M:
    """A request from a query, whose parameters may repeat. Raises InvalidInput in MLflow's words."""
    given: dict[str, Any] = {}
    query = request.query_params
    for field in _fields(kind):
        if field.encode_name not in query:
            continue
        value: Any = query.getall(field.encode_name)
        if not _is_list(field.type):
            value = value[0]
            if _is_kind(field.type, bool):
                value = _boolean(value)
        given[field.encode_name] = value
    return from_builtins(given, kind)


def from_builtins(given: Any, kind: type[M]) -> M:
    """A request from plain data, looked at field by field. Raises InvalidInput in MLflow's words."""
    if not isinstance(given, dict):
        raise InvalidInput(f"The request must be a JSON object, not {type(given).__name__}.")
    values: dict[str, Any] = {}
    for field in _fields(kind):
        value = given.get(field.encode_name)
        if value is None and field.encode_name == "run_id":
            value = given.get("run_uuid")
        if value is None:
            if field.name in kind.REQUIRED:
                raise missing(field.encode_name)
            continue
        values[field.name] = _convert(value, field.type, field.encode_name)
        if field.name in kind.REQUIRED and values[field.name] in ("", []):
            raise missing(field.encode_name)
    return kind(**values)


@functools.cache
def _fields(kind: type[Message]) -> tuple[msgspec.structs.FieldInfo, ...]:
    # Read from the annotations anew at each call, they would cost more than the catalog does.
    return msgspec.structs.fields(kind)


def missing(path: str) -> InvalidInput:
    """MLflow's words for a parameter that is not there."""
    return InvalidInput(f"Missing value for required parameter '{path}'.{SEE_DOCS}", code="parameter.missing")


def invalid(path: str, value: Any) -> InvalidInput:
    """MLflow's words for a parameter of a wrong type."""
    shown = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return InvalidInput(
        f"Invalid value {shown[:1_000]} for parameter '{path}' supplied:  Hint: Value was of type "
        f"'{type(value).__name__}'.{SEE_DOCS}",
        code="parameter.invalid",
    )


def reply(content: Any = None) -> Response[bytes]:
    """A reply in JSON; nothing is an empty object."""
    return Response(b"{}" if content is None else fast.encode(content), media_type=JSON, status_code=200)


def number(value: float | None) -> float | str:
    """A metric's value as MLflow writes it: not-a-number is a text, since JSON has none."""
    return "NaN" if value is None or math.isnan(value) else value


def endpoint(path: str, version: str = "2.0") -> str:
    """The path of an endpoint. MLflow's own pages call it below `/ajax-api`, which the gate makes `/api` of."""
    return f"/api/{version}/mlflow{path}"


def error_of(error: ModelyardError) -> tuple[int, str, str]:
    """The status, code and message of an error as MLflow's clients know them."""
    message = "Invalid path" if error.code == "path.unsafe" else error.message
    code = next((code for kind, code in _CODES if isinstance(error, kind)), "INTERNAL_ERROR")
    if error.code == "endpoint.not_found":
        code = "ENDPOINT_NOT_FOUND"
    if error.code == "endpoint.not_implemented":
        code = "NOT_IMPLEMENTED"
    if isinstance(error, Conflict):
        reason = error.code.rpartition(".")[2]
        code = {"exists": "RESOURCE_ALREADY_EXISTS", "deleted": "INVALID_STATE"}.get(reason, code)
    status = 413 if isinstance(error, TooLarge) else _STATUS[code]
    return status, code, message


def told(error: ModelyardError) -> tuple[int, bytes, dict[str, str]]:
    """The status, body and headers of a reply that tells of an error."""
    status, code, message = error_of(error)
    body = {"error_code": code, "message": message}
    if error.hint:
        body["hint"] = error.hint
    return status, fast.encode(body), {"WWW-Authenticate": "Bearer"} if status == 401 else {}


def handle(_request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Litestar's exception handler for all routes of the dialect."""
    if isinstance(error, ModelyardError):
        status, content, headers = told(error)
        return Response(content, status_code=status, media_type=JSON, headers=headers)
    problem = problem_of(error)
    code = "INVALID_PARAMETER_VALUE" if problem.status in (400, 413) else "INTERNAL_ERROR"
    if problem.status in (404, 405):
        code = "ENDPOINT_NOT_FOUND"
    body = {"error_code": code, "message": problem.detail, "request_id": problem.request_id or new_id()}
    return Response(fast.encode(body), status_code=problem.status, media_type=JSON)


HANDLERS: dict[Any, Callable[[Request[Any, Any, Any], Any], Response[Any]]] = {
    HTTPException: handle,
    ModelyardError: handle,
    Exception: handle,
}


def telling(handlers: Iterable[HTTPRouteHandler]) -> list[HTTPRouteHandler]:
    """The handlers, with their errors in MLflow's form."""
    told = list(handlers)
    for handler in told:
        handler.exception_handlers = HANDLERS
    return told


def _check_required(message: Message) -> None:
    for name in message.REQUIRED:
        if getattr(message, name) in ("", None, []):
            # Clients before 1.0 say `run_uuid`.
            former: Any = getattr(message, "run_uuid", None)
            if name == "run_id" and former:
                message.run_id = former  # type: ignore[attr-defined]
                continue
            raise missing(name)


def _lenient(body: bytes) -> Any:
    try:
        # Python's own decoder knows bare NaN, which MLflow's clients send.
        found = json.loads(body, parse_float=_finite)
        # Older clients encode their JSON twice.
        found = json.loads(found, parse_float=_finite) if isinstance(found, str) else found
        # Half a surrogate pair is text to that decoder, and to nothing that it would be handed on to.
        json.dumps(found, ensure_ascii=False).encode()
        return found
    except ValueError as error:
        raise InvalidInput(f"The request's body is not JSON: {error}", code="body.not_json") from error


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text[:40]} is beyond the range of a double")
    return value


def _convert(value: Any, kind: Any, path: str) -> Any:
    if _is_kind(kind, str) and not isinstance(value, str):
        raise invalid(path, value)
    if _is_list(kind) and not isinstance(value, list):
        raise invalid(path, value)
    if _is_kind(kind, float) and isinstance(value, bool):
        return float(value)
    try:
        return msgspec.convert(_prepared(value), kind, strict=False)
    except (msgspec.ValidationError, OverflowError) as error:
        place = _PLACE.search(str(error))
        inner = place[1] if place else ""
        raise invalid(path + inner, _at(_prepared(value), inner)) from error


def _at(value: Any, place: str) -> Any:
    """What is at a place such as `[0].value` of some plain data."""
    for index, key in _STEP.findall(place):
        try:
            value = value[int(index)] if index else value[key]
        except (LookupError, TypeError):
            return value
    return value


def _prepared(value: Any) -> Any:
    """Nulls left out, at every depth, as protobuf reads JSON."""
    if isinstance(value, dict):
        return {key: _prepared(one) for key, one in value.items() if one is not None}
    if isinstance(value, list):
        return [_prepared(one) for one in value]
    return value


def _boolean(value: str) -> bool:
    if value.lower() not in ("true", "false"):
        raise InvalidInput(f"Invalid boolean value: {value}, must be 'true' or 'false'.", code="parameter.invalid")
    return value.lower() == "true"


def _is_list(kind: Any) -> bool:
    return get_origin(kind) is list


def _is_kind(kind: Any, wanted: type) -> bool:
    return kind is wanted or (wanted in getattr(kind, "__args__", ()) and not _is_list(kind))


def pairs(found: Mapping[str, str]) -> list[dict[str, str]]:
    """A mapping as MLflow writes params and tags."""
    return [{"key": key, "value": value} for key, value in found.items()]


class Pair(msgspec.Struct, kw_only=True, gc=False):
    """A param or a tag as MLflow writes it."""

    key: str = ""
    value: str = ""


def mapping(found: Iterable[Pair]) -> dict[str, str]:
    """Params or tags as a mapping; of two with one key the last counts."""
    return {pair.key: pair.value for pair in found}


VIEWS: dict[str, Any] = {
    "ACTIVE_ONLY": "active", "1": "active", "DELETED_ONLY": "deleted", "2": "deleted", "ALL": "all", "3": "all",
}  # fmt: skip


def view_of(value: str | int | None, path: str) -> Any:
    """Which stages a view type means, by its name or number. Raises InvalidInput."""
    if value in (None, "", 0):
        return "active"
    if str(value) not in VIEWS:
        raise invalid(path, value)
    return VIEWS[str(value)]


def ms(at: datetime) -> int:
    """An instant in milliseconds since the epoch."""
    return to_us(at) // 1_000
