"""httpx into an ASGI app of this process."""

from __future__ import annotations

import atexit
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import anyio
import httpx
from anyio.from_thread import BlockingPortal, start_blocking_portal

_CHUNKS_AHEAD = 8
_END = b""


class AsgiTransport(httpx.BaseTransport):
    """httpx over an ASGI app in a thread of its own; bodies stream both ways."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._manager = start_blocking_portal()
        self._portal: BlockingPortal = self._manager.__enter__()
        self._open = True
        # While the interpreter still stands: its own tidying up comes too late for a thread with an event loop.
        atexit.register(self.close)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        exchange = _Exchange(request)
        self._portal.start_task_soon(exchange.run, self._app)
        return exchange.response(self._portal)

    def close(self) -> None:
        if self._open:
            self._open = False
            atexit.unregister(self.close)
            self._manager.__exit__(None, None, None)


class _Exchange:
    """One request and its reply, between the caller's thread and the loop's."""

    def __init__(self, request: httpx.Request) -> None:
        self._request = request
        self._sent = iter(request.stream)  # type: ignore[arg-type]
        self._started = threading.Event()
        self._status = 500
        self._headers: list[tuple[bytes, bytes]] = []
        self._chunks: queue.Queue[bytes | BaseException] = queue.Queue(_CHUNKS_AHEAD)
        self._received = False
        self._left = False
        self._answered = anyio.Event()

    async def run(self, app: Any) -> None:
        url = self._request.url
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": self._request.method,
            "headers": [(name.lower(), value) for name, value in self._request.headers.raw],
            "path": url.path, "raw_path": url.raw_path, "query_string": url.query, "root_path": "",
            "scheme": url.scheme, "server": ("localhost", 80), "client": ("localhost", 0), "state": {},
        }  # fmt: skip
        try:
            await app(scope, self._receive, self._send)
        except Exception as error:  # noqa: BLE001  handed to the caller's thread, which raises it
            await self._put(error)
            self._started.set()
        if not self._answered.is_set():
            await self._put(httpx.RemoteProtocolError("the answer was not sent to its end", request=self._request))
        await self._put(_END)

    async def _receive(self) -> dict[str, Any]:
        if self._received:
            # As from a server: after the body there is no news before the client goes, once it has its answer.
            await self._answered.wait()
            return {"type": "http.disconnect"}
        chunk = await anyio.to_thread.run_sync(next, self._sent, None)
        self._received = chunk is None
        return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self._status, self._headers = message["status"], list(message.get("headers", []))
            self._started.set()
            return
        if message.get("body"):
            await self._put(message["body"])
        if not message.get("more_body"):
            self._answered.set()

    async def _put(self, chunk: bytes | BaseException) -> None:
        if not self._left:
            await anyio.to_thread.run_sync(self._chunks.put, chunk)

    def response(self, portal: BlockingPortal) -> httpx.Response:
        self._started.wait()
        body = _Body(self._chunks, partial(self._leave, portal))
        return httpx.Response(self._status, headers=self._headers, stream=body, request=self._request)

    def _leave(self, portal: BlockingPortal) -> None:
        """Nobody reads on: what waits to be taken is let go, and the app hears that the client has gone."""
        self._left = True
        with suppress(queue.Empty):
            while True:
                self._chunks.get_nowait()
        with suppress(RuntimeError):  # the loop may be over
            portal.start_task_soon(self._answered.set)


class _Body(httpx.SyncByteStream):
    def __init__(self, chunks: queue.Queue[bytes | BaseException], leave: Callable[[], None]) -> None:
        self._chunks = chunks
        self._leave = leave

    def __iter__(self) -> Iterator[bytes]:
        while (chunk := self._chunks.get()) is not _END:
            if isinstance(chunk, BaseException):
                raise chunk
            yield chunk

    def close(self) -> None:
        self._leave()
