"""The front: bare ASGI that speaks the Open Inference Protocol v2 over REST, and shows metrics."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

import modelyard
from modelyard.endpoint import metrics as metrics_module
from modelyard.endpoint import tensors
from modelyard.endpoint.metrics import Metrics
from modelyard.endpoint.runner import Pending, Runner
from modelyard.endpoint.variants import Serving
from modelyard.kernel.errors import (
    EngineError,
    Forbidden,
    InvalidInput,
    ModelyardError,
    NotFound,
    TooLarge,
    Unauthenticated,
    Unavailable,
    UserCodeError,
)
from modelyard.kernel.ids import new_id
from modelyard.types.serving import EVENT_TIME, ROW_ID, EndpointOptions, TensorSpec

if TYPE_CHECKING:
    from modelyard.engines.models.base import Array

    Scope = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
    Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

EXTENSIONS = ["binary_tensor_data"]
JSON = b"application/json"
BINARY = b"application/octet-stream"
HEADER_LENGTH = b"inference-header-content-length"
DECODE_IN_THREAD_BYTES = 1024 * 1024
BODY_TIMEOUT_S = 60.0
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_encode = msgspec.json.Encoder().encode
_OPTIONAL = {"parameters": {"optional": True}}


class Answer(NamedTuple):
    """A reply, ready to send."""

    status: int
    body: bytes
    content_type: bytes = JSON
    header_length: int = 0
    allow: bytes = b""


class Call(NamedTuple):
    """A request to the model. `version` is None where the request names none."""

    method: str
    version: str | None
    headers: Mapping[bytes, bytes]
    receive: Receive


class Access(msgspec.Struct, frozen=True):
    """Who may speak to this process."""

    host: str = "127.0.0.1"
    token_sha256: str = ""


class Front:
    """The ASGI application. `serving` is None until the first model is loaded; the process swaps it."""

    def __init__(self, metrics: Metrics, access: Access, name: str, options: EndpointOptions) -> None:
        self.serving: Serving | None = None
        self.access = access
        self.options = options
        self.problem = ""
        self._metrics = metrics
        self._name = name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        headers = dict(scope["headers"])
        try:
            answer = await self._route(scope["method"], scope["path"], headers, receive)
        except ModelyardError as error:
            answer = failure(error)
        except ClientGone:
            return
        reply = [(b"content-type", answer.content_type), (b"content-length", str(len(answer.body)).encode())]
        if answer.header_length:
            reply.append((HEADER_LENGTH, str(answer.header_length).encode()))
        if answer.allow:
            reply.append((b"allow", answer.allow))
        await send({"type": "http.response.start", "status": answer.status, "headers": reply})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else answer.body})

    async def _route(self, method: str, path: str, headers: Mapping[bytes, bytes], receive: Receive) -> Answer:
        parts = path.strip("/").split("/")
        self._check_origin(headers)
        match parts:
            case ["v2", "health", "live"]:
                return only(method, Answer(200, b'{"live":true}'))
            case ["v2", "health", "ready"]:
                return only(method, self._ready({"live": True}))
        self._check_token(headers)
        match parts:
            case ["v2"]:
                about = {"name": "modelyard", "version": modelyard.__version__, "extensions": EXTENSIONS}
                return only(method, Answer(200, _encode(about)))
            case ["metrics"]:
                return only(method, Answer(200, self._metrics.text(), metrics_module.CONTENT_TYPE.encode()))
            case ["v2", "models", name, *rest]:
                self._check_name(name)
                version = rest[1] if len(rest) >= 2 and rest[0] == "versions" else None
                tail = rest if version is None else rest[2:]
                return await self._model(tail, Call(method, version, headers, receive))
        raise NotFound(f"there is nothing at {path[:200]!a}", code="endpoint.path_not_found", hint="start at /v2")

    async def _model(self, tail: list[str], call: Call) -> Answer:
        method, version = call.method, call.version
        match tail:
            case []:
                return only(method, Answer(200, _encode(self._metadata(version))))
            case ["ready"]:
                if version is not None and self.serving is not None:
                    self.serving.by_version(version)
                return only(method, self._ready({"name": self._name}))
            case ["infer"]:
                return await self._infer_counted(call) if method == "POST" else refuse_method(b"POST")
        raise NotFound("there is nothing at this path", code="endpoint.path_not_found", hint="start at /v2")

    # --- what is asked rarely -----------------------------------------------------------------------------------

    def _check_name(self, name: str) -> None:
        if name != self._name:
            raise NotFound(
                f"model '{name[:80]}' is not served here",
                code="endpoint.model_not_found",
                hint=f"this endpoint's name is '{self._name}'",
            )

    def _check_token(self, headers: Mapping[bytes, bytes]) -> None:
        if not self.access.token_sha256:
            return
        kind, _, token = headers.get(b"authorization", b"").partition(b" ")
        given = hashlib.sha256(token.strip()).hexdigest()
        if kind.lower() != b"bearer" or not hmac.compare_digest(given, self.access.token_sha256):
            raise Unauthenticated("this endpoint needs a token", hint="send `Authorization: Bearer <token>`")

    def _check_origin(self, headers: Mapping[bytes, bytes]) -> None:
        """Shut out web pages: a page that the user visits can reach loopback, and a rebound name looks like it."""
        if self.access.token_sha256:
            return
        if b"origin" in headers:
            raise Forbidden("requests from web pages are not answered", hint="call it from a program")
        host = urlsplit("//" + headers.get(b"host", b"").decode("latin-1")).hostname
        if host is not None and host not in _LOOPBACK and host != self.access.host:
            raise Forbidden(f"this process is not '{host[:80]}'", hint="use the URL that the platform shows")

    def _ready(self, about: dict[str, object]) -> Answer:
        broken = self.serving is None or any(one.broken for one in self.serving.runners.values())
        return Answer(503 if broken else 200, _encode({**about, "ready": not broken}))

    def _metadata(self, version: str | None) -> dict[str, object]:
        serving = self._serving()
        runner = serving.runners[serving.first] if version is None else serving.by_version(version)
        model = runner.model
        reserved = [
            {"name": ROW_ID, "datatype": "BYTES", "shape": [-1], **_OPTIONAL},
            {"name": EVENT_TIME, "datatype": "INT64", "shape": [-1], **_OPTIONAL},
        ]
        return {
            "name": self._name,
            "versions": serving.versions,
            "platform": model.platform,
            "inputs": [describe(one) for one in model.inputs] + reserved,
            "outputs": [describe(one) for one in model.outputs],
        }

    def _serving(self) -> Serving:
        if self.serving is None:
            raise Unavailable(
                f"no model is loaded: {self.problem or 'it is still being loaded'}", code="endpoint.not_ready"
            )
        return self.serving

    # --- what is asked all the time -----------------------------------------------------------------------------

    async def _infer_counted(self, call: Call) -> Answer:
        chosen: list[Runner] = []
        arrived_ns = time.perf_counter_ns()
        code = 500
        try:
            answer = await self._infer(call, arrived_ns, chosen)
            code = answer.status
            return answer
        except ModelyardError as error:
            code = status_of(error)
            raise
        except ClientGone:
            code = 499
            raise
        finally:
            variant = chosen[0].variant.name if chosen else ""
            self._metrics.count(self._name, variant, code)
            if chosen:
                chosen[0].metrics.latency.observe((time.perf_counter_ns() - arrived_ns) / 1e9)

    async def _infer(self, call: Call, arrived_ns: int, chosen: list[Runner]) -> Answer:
        body = await self._body(call.headers, call.receive)
        serving = self._serving()
        request, binary = tensors.parse(body, _header_length(call.headers))
        request_id = request.id or new_id()
        key = tensors.row_key(request, binary) or request_id
        while True:
            runner = serving.pick(key, call.version)
            chosen[:] = [runner]
            decoded = await self._decode(len(body), request, binary, runner)
            tensors.check_outputs(request, runner.model.outputs)
            if not runner.closing:
                break
            # The variants were swapped while a large body was being decoded.
            serving = self._serving()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[dict[str, Array]] = loop.create_future()
        pending = Pending(request_id, decoded, future, arrived_ns)
        runner.submit(pending)
        timer = loop.call_later(self.options.predict_timeout_s, _expire, pending, self.options.predict_timeout_s)
        try:
            outputs = await future
        finally:
            timer.cancel()
            pending.abandoned = not future.done() or future.cancelled()
        variant = runner.variant
        reply = tensors.encode(request, request_id, self._name, str(variant.version), variant.name, outputs)
        runner.metrics.rows.inc(decoded.rows)
        return Answer(200, reply.body, BINARY if reply.header_length else JSON, reply.header_length)

    async def _decode(
        self, size: int, request: tensors.InferRequest, binary: memoryview, runner: Runner
    ) -> tensors.Decoded:
        arguments = (request, binary, runner.model.inputs, self.options.nan_inputs)
        if size < DECODE_IN_THREAD_BYTES:
            return tensors.decode(*arguments)
        return await asyncio.get_running_loop().run_in_executor(None, tensors.decode, *arguments)

    async def _body(self, headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
        encoding = headers.get(b"content-encoding", b"identity")
        if encoding != b"identity":
            raise InvalidInput(f"Content-Encoding {encoding.decode('latin-1')!a} is not taken", hint="send it plain")
        limit = self.options.body_bytes_max
        declared = headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > limit:
            raise _too_large(limit)
        message = await receive()
        if not message.get("more_body"):
            return _chunk(message, limit)
        async with _deadline():
            parts = [_chunk(message, limit)]
            size = len(parts[0])
            while message.get("more_body"):
                message = await receive()
                parts.append(_chunk(message, limit - size))
                size += len(parts[-1])
        return b"".join(parts)


class ClientGone(Exception):
    """The client went away before its request was whole: there is nobody to answer."""


class _deadline:
    """A limit on how slowly a body may drip in."""

    def __init__(self) -> None:
        self._timeout = asyncio.timeout(BODY_TIMEOUT_S)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(self, *raised: Any) -> None:
        try:
            await self._timeout.__aexit__(*raised)
        except TimeoutError as error:
            raise InvalidInput(f"the body did not arrive within {BODY_TIMEOUT_S:g} s") from error


def _chunk(message: Mapping[str, Any], room: int) -> bytes:
    if message["type"] == "http.disconnect":
        raise ClientGone
    body: bytes = message.get("body", b"")
    if len(body) > room:
        raise _too_large(room)
    return body


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"the body is larger than {limit:,} bytes", hint="send fewer rows at a time")


def _header_length(headers: Mapping[bytes, bytes]) -> int | None:
    value = headers.get(HEADER_LENGTH)
    if value is None:
        return None
    if not value.isdigit() or len(value) > 15:
        raise InvalidInput(f"Inference-Header-Content-Length is {value.decode('latin-1')[:40]!a}, not a number")
    return int(value)


def _expire(pending: Pending, timeout_s: float) -> None:
    if not pending.future.done():
        pending.abandoned = True
        pending.future.set_exception(
            Unavailable(f"the model gave no answer within {timeout_s:g} s", code="prediction.timeout")
        )


def describe(spec: TensorSpec) -> dict[str, object]:
    """A tensor as the protocol's metadata shows it."""
    about: dict[str, object] = {"name": spec.name, "datatype": spec.datatype, "shape": spec.shape}
    return about if spec.required else about | _OPTIONAL


def only(method: str, answer: Answer) -> Answer:
    """The answer, where the method only reads."""
    return answer if method in ("GET", "HEAD") else refuse_method(b"GET, HEAD")


def refuse_method(allow: bytes) -> Answer:
    """405, naming what is allowed."""
    return Answer(405, _encode({"error": f"use {allow.decode()} here"}), allow=allow)


def status_of(error: ModelyardError) -> int:
    """The status for an error: a failing model is the server's fault here, not the request's."""
    return 500 if isinstance(error, UserCodeError | EngineError) else error.status


def failure(error: ModelyardError) -> Answer:
    """An error in the protocol's form."""
    return Answer(status_of(error), _encode({"error": str(error)}))
