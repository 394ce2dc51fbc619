"""Connections of the outbound client: to addresses that were judged, and over by a deadline. Loads httpcore."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterable, Sequence
from typing import Any

import httpcore

from modelyard.kernel.errors import Forbidden, Unavailable
from modelyard.kernel.http import Resolve, is_public


class VettedBackend(httpcore.NetworkBackend):
    """Connects to addresses that were judged, and lets no step outlast the deadline of the whole exchange."""

    def __init__(self, allowed: frozenset[str], resolver: Resolve, deadline: float) -> None:
        self._allowed = allowed
        self._resolver = resolver
        self._deadline = deadline
        self._plain = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002  the deadline rules
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        failure: httpcore.ConnectError | httpcore.ConnectTimeout | None = None
        for address in self._vetted(host, port):
            try:
                stream = self._plain.connect_tcp(address, port, _left(self._deadline), local_address, socket_options)
                return _TimedStream(stream, self._deadline)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure or httpcore.ConnectError(f"{host} has no address")

    def _vetted(self, host: str, port: int) -> Sequence[str]:
        try:
            addresses = self._resolver(host, port)
        except (OSError, UnicodeError) as error:
            raise Unavailable(
                f"{host[:200]!a} cannot be resolved: {error}",
                code="outbound.unresolved",
                hint="check the host's name",
            ) from error
        if f"{host.lower()}:{port}" in self._allowed or f"[{host.lower()}]:{port}" in self._allowed:
            return addresses
        # One inner address among several is enough to refuse: which of them is used is not the sender's choice.
        inner = [address for address in addresses if not is_public(address)]
        if inner:
            raise Forbidden(
                f"{host[:200]!a} is a private address, which the platform does not call for anybody",
                code="outbound.refused",
                hint=f"an operator can allow it: MODELYARD_OUTBOUND_ALLOW={host}:{port}",
            )
        return addresses


class _TimedStream(httpcore.NetworkStream):
    """A connection on which every read and write ends at the deadline, however slowly the peer drips."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: float) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002
        return self._stream.read(max_bytes, _left(self._deadline))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        self._stream.write(buffer, _left(self._deadline))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002
    ) -> httpcore.NetworkStream:
        wrapped = self._stream.start_tls(ssl_context, server_hostname, _left(self._deadline))
        return _TimedStream(wrapped, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout("the time for the whole exchange is over")
    return left
