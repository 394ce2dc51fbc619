"""The one way to the API: over the network, or over the same app inside this process where no server runs."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from typing import Any, TypeVar, overload

import httpx
import msgspec

from modelyard.kernel import home, settings
from modelyard.kernel.errors import ModelyardError, Problem, Unavailable, from_problem

T = TypeVar("T")
TIMEOUT_S = 120.0
WORK_TIMEOUT_S = 6 * 3600.0
_KEPT_ALIVE = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), 60)
        for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL")
        if hasattr(socket, name)
    ),
]
EMBEDDED_URL = "http://localhost"


class Client:
    """Typed HTTP. Raises the errors of `kernel.errors`, rebuilt from what the server says."""

    def __init__(
        self, base_url: str, *, token: str = "", project: str = "default", transport: httpx.BaseTransport | None = None
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.project = project
        self.token = token
        self._http = httpx.Client(
            base_url=f"{self.base_url}/p/{project}",
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=TIMEOUT_S,
            transport=transport or httpx.HTTPTransport(socket_options=_KEPT_ALIVE),
        )
        self._read_timeout_s = TIMEOUT_S

    @property
    def patient(self) -> Client:
        """This client, waiting for hours for the answer to work that may take so long: to write, check or compact
        gigabytes. That the server's machine is gone is noticed all the same."""
        waiting = copy(self)
        waiting._read_timeout_s = WORK_TIMEOUT_S
        return waiting

    @overload
    def get(self, path: str, type: type[T], params: Mapping[str, Any] | None = None) -> T: ...
    @overload
    def get(self, path: str, type: None = None, params: Mapping[str, Any] | None = None) -> Any: ...
    def get(self, path: str, type: Any = None, params: Mapping[str, Any] | None = None) -> Any:
        """GET, decoded as `type` (plain builtins without one). Parameters that are None are left out."""
        return self._decode(self._send("GET", path, params=params), type)

    @overload
    def post(self, path: str, body: Any, type: type[T], params: Mapping[str, Any] | None = None) -> T: ...
    @overload
    def post(self, path: str, body: Any = None, type: None = None, params: Mapping[str, Any] | None = None) -> Any: ...
    def post(self, path: str, body: Any = None, type: Any = None, params: Mapping[str, Any] | None = None) -> Any:
        """POST a Struct or builtins as JSON."""
        return self._decode(self._send_json("POST", path, body, params), type)

    def put(self, path: str, body: Any = None, type: Any = None, params: Mapping[str, Any] | None = None) -> Any:
        """PUT as JSON."""
        return self._decode(self._send_json("PUT", path, body, params), type)

    def patch(self, path: str, body: Any = None, type: Any = None, params: Mapping[str, Any] | None = None) -> Any:
        """PATCH as JSON."""
        return self._decode(self._send_json("PATCH", path, body, params), type)

    def delete(self, path: str, type: Any = None, params: Mapping[str, Any] | None = None) -> Any:
        """DELETE."""
        return self._decode(self._send("DELETE", path, params=params), type)

    def send_bytes(
        self,
        method: str,
        path: str,
        content: bytes | Iterable[bytes],
        *,
        media_type: str = "application/octet-stream",
        type: Any = None,
        params: Mapping[str, Any] | None = None,
    ) -> Any:
        """Send a body that is not JSON, streamed where it is an iterable. `type` bytes gives the reply as it is."""
        headers = {"Content-Type": media_type}
        return self._decode(self._send(method, path, content=content, headers=headers, params=params), type)

    def get_bytes(self, path: str, params: Mapping[str, Any] | None = None) -> bytes:
        """GET a whole body."""
        return self._send("GET", path, params=params).content

    @contextmanager
    def stream(
        self,
        path: str,
        params: Mapping[str, Any] | None = None,
        told: Callable[[Mapping[str, str]], None] | None = None,
    ) -> Iterator[Iterator[bytes]]:
        """GET a body in chunks: `with client.stream(path) as chunks: …`. `told` gets the headers of the reply."""
        with self._streamed("GET", path, told, params=_given(params)) as chunks:
            yield chunks

    @contextmanager
    def stream_post(self, path: str, body: Any) -> Iterator[Iterator[bytes]]:
        """POST as JSON, and read the reply in chunks."""
        headers = {"Content-Type": "application/json"}
        with self._streamed("POST", path, content=msgspec.json.encode(body), headers=headers) as chunks:
            yield chunks

    @contextmanager
    def _streamed(
        self, method: str, path: str, told: Callable[[Mapping[str, str]], None] | None = None, **options: Any
    ) -> Iterator[Iterator[bytes]]:
        with self._reaching(), self._http.stream(method, path, **options) as reply:
            if reply.status_code >= 400:
                reply.read()
                raise _error(reply)
            if told is not None:
                told(reply.headers)
            yield _pieces(reply)

    def _send_json(self, method: str, path: str, body: Any, params: Mapping[str, Any] | None) -> httpx.Response:
        if body is None:
            return self._send(method, path, params=params)
        headers = {"Content-Type": "application/json"}
        return self._send(method, path, content=msgspec.json.encode(body), headers=headers, params=params)

    def _send(
        self,
        method: str,
        path: str,
        *,
        content: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> httpx.Response:
        timeout = httpx.Timeout(TIMEOUT_S, read=self._read_timeout_s)
        with self._reaching():
            reply = self._http.request(
                method, path, content=content, headers=headers, params=_given(params), timeout=timeout
            )
        if reply.status_code >= 400:
            raise _error(reply)
        return reply

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except httpx.RemoteProtocolError as error:
            raise _broken_off(error) from error
        except httpx.TransportError as error:
            raise Unavailable(
                f"the server at {self.base_url} does not answer: {error}",
                code="server.unreachable",
                hint="start it with `modelyard up`, or check MODELYARD_URL",
            ) from error

    @staticmethod
    def _decode(reply: httpx.Response, type: Any) -> Any:
        if type is bytes:
            return reply.content
        if type is None:
            return msgspec.json.decode(reply.content) if reply.content else None
        return msgspec.json.decode(reply.content, type=type)

    def close(self) -> None:
        """Give back the connections."""
        self._http.close()


def _given(params: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if params is None:
        return None
    return {key: value for key, value in params.items() if value is not None}


def _pieces(reply: httpx.Response) -> Iterator[bytes]:
    """The pieces of a body. Raises Unavailable where it ends before its end."""
    try:
        yield from reply.iter_bytes()
    except httpx.TransportError as error:
        raise _broken_off(error) from error


def _broken_off(error: httpx.TransportError) -> Unavailable:
    asked = f"{error.request.method} {error.request.url}"
    return Unavailable(
        f"the server broke off its answer to {asked}: {str(error) or type(error).__name__}",
        code="server.broke_off",
        hint="its log says why, if it still runs; then repeat",
    )


def _error(reply: httpx.Response) -> ModelyardError:
    try:
        return from_problem(msgspec.json.decode(reply.content, type=Problem))
    except msgspec.DecodeError:
        text = reply.text.strip()[:300]
        return from_problem(
            Problem(status=reply.status_code, title="", detail=text or reply.reason_phrase, code="http_error")
        )


_lock = threading.Lock()
_connected: dict[tuple[str, str, str, str], Client] = {}


def connect(given: settings.Settings | None = None) -> Client:
    """The client for the settings in force: the server at `url`, else the one that has `home` open, else in process."""
    chosen = given or settings.load()
    key = (chosen.url, str(chosen.home), chosen.project, chosen.token)
    with _lock:
        if key not in _connected or not _is_current(_connected[key], chosen):
            _connected[key] = _open(chosen)
        return _connected[key]


def _is_current(client: Client, chosen: settings.Settings) -> bool:
    """A client in process gives way to a server that came up on the same home in the meantime."""
    if chosen.url or client.base_url != EMBEDDED_URL:
        return True
    return home.find_serving(chosen.home) is None


def _open(chosen: settings.Settings) -> Client:
    if chosen.url:
        return Client(chosen.url, token=chosen.token or home.read_token(chosen.home), project=chosen.project)
    serving = home.find_serving(chosen.home)
    if serving is not None:
        return Client(serving.url, token=home.read_token(chosen.home), project=chosen.project)
    from modelyard.sdk.embedded import embedded_transport  # the one named place; loads the whole app

    return Client(EMBEDDED_URL, project=chosen.project, transport=embedded_transport(chosen))
