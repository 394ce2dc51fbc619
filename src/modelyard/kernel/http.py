"""The only outbound client: whatever address a user names, the platform calls no host inside the walls for them.

A name is resolved once, every address that it has is judged, and the connection goes to an address that was judged, so
that a DNS answer which changes between the check and the connection changes nothing. TLS still verifies the name.
Redirects are not followed unless asked for, and each hop is judged like the first. No proxy, no cookie, no `.netrc`.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import urljoin, urlsplit

from modelyard.kernel.errors import EngineError, InvalidInput, ModelyardError, TooLarge, Unavailable
from modelyard.kernel.limits import MIB

TIMEOUT_S = 10.0
REPLY_BYTES_MAX = 16 * MIB
REDIRECTS_ALLOWED_MAX = 5
_PORTS = {"http": 80, "https": 443}
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_SITE_LOCAL = ipaddress.IPv6Network("fec0::/10")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back. Header names are in lower case; of one that came several times the last is kept."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str


def resolve(host: str, port: int) -> Sequence[str]:
    """All addresses of a host, as the system's resolver gives them."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def is_public(address: str) -> bool:
    """Whether an address is one of the open internet, and none that stands for another that is not."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return all(_is_global(one) for one in (parsed, *_embedded(parsed)))


def _is_global(address: Address) -> bool:
    if address in _SITE_LOCAL or address.is_multicast or address.is_reserved or address.is_unspecified:
        return False
    return address.is_global


def _embedded(address: Address) -> list[Address]:
    """The IPv4 addresses that an IPv6 address leads to by some translation; NAT64 ones are reserved as a whole."""
    if not isinstance(address, ipaddress.IPv6Address):
        return []
    found: list[Address | None] = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    return [one for one in found if one is not None]


class OutboundClient:
    """Calls hosts of the open internet, and those `host:port` that the operator allows by name.

    `allow` is the setting `outbound_allow`: a comma-separated text, or a collection of `host:port`.
    """

    def __init__(
        self, allow: str | Collection[str] = (), *, timeout_s: float = TIMEOUT_S, resolver: Resolve = resolve
    ) -> None:
        listed = allow.split(",") if isinstance(allow, str) else allow
        self._allowed = frozenset(entry.strip().lower() for entry in listed if entry.strip())
        self._timeout_s = timeout_s
        self._resolver = resolver

    def get(self, url: str, **options: Any) -> Reply:
        """GET. See `request`."""
        return self.request("GET", url, **options)

    def post(self, url: str, content: bytes, **options: Any) -> Reply:
        """POST. See `request`."""
        return self.request("POST", url, content=content, **options)

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes = b"",
        reply_bytes_max: int = REPLY_BYTES_MAX,
        redirects_max: int = 0,
    ) -> Reply:
        """One exchange, whole within the client's timeout. An answer of any status is a Reply.

        Raises InvalidInput for the URL, Forbidden (`outbound.refused`) for where it leads, TooLarge, and Unavailable
        where there is no answer in time.
        """
        if method not in _METHODS:
            raise InvalidInput(f"{method[:40]!a} is no method that is sent", code="outbound.method_invalid")
        deadline = time.monotonic() + self._timeout_s
        given = dict(headers or {})
        for _ in range(min(redirects_max, REDIRECTS_ALLOWED_MAX) + 1):
            reply = self._exchange(method, url, given, content, reply_bytes_max, deadline)
            target = reply.headers.get("location", "")
            if redirects_max == 0 or reply.status not in _REDIRECTS or not target:
                return reply
            following = urljoin(url, target)
            if urlsplit(following)[:2] != urlsplit(url)[:2]:
                # What was meant for one host is not shown to another.
                given = {name: value for name, value in given.items() if name.lower() not in _PRIVATE_HEADERS}
            if reply.status in (301, 302, 303) and method != "HEAD":
                method, content = "GET", b""
            url = following
        raise EngineError(
            f"{url[:200]!a} redirects more than {redirects_max} times", code="outbound.too_many_redirects"
        )

    def _exchange(
        self, method: str, url: str, headers: Mapping[str, str], content: bytes, bytes_max: int, deadline: float
    ) -> Reply:
        _check_url(url)
        # Late: a server that calls nobody comes up without it, a tenth of a second sooner.
        import httpcore

        from modelyard.kernel.vetting import VettedBackend

        sent = [(name.encode(), value.encode()) for name, value in _checked_headers(headers).items()]
        backend = VettedBackend(self._allowed, self._resolver, deadline)
        step_s = {
            "connect": self._timeout_s,
            "read": self._timeout_s,
            "write": self._timeout_s,
            "pool": self._timeout_s,
        }
        try:
            with (
                httpcore.ConnectionPool(ssl_context=_ssl_context(), network_backend=backend) as pool,
                pool.stream(
                    method, url, headers=_with_defaults(sent), content=content or None, extensions={"timeout": step_s}
                ) as reply,
            ):
                body = _read(reply.iter_stream(), bytes_max)
                found = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in reply.headers}
                return Reply(reply.status, found, body, url)
        except ModelyardError:
            raise
        except httpcore.TimeoutException as error:
            raise _too_slow(url) from error
        except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
            raise Unavailable(
                f"{url[:200]!a} does not answer: {error}",
                code="outbound.unreachable",
                hint="check the address, and that the service runs",
            ) from error


_PRIVATE_HEADERS = frozenset({"authorization", "cookie", "proxy-authorization"})


def _read(chunks: Iterable[bytes], bytes_max: int) -> bytes:
    held = bytearray()
    for chunk in chunks:
        held += chunk
        if len(held) > bytes_max:
            raise TooLarge(f"the answer is larger than {bytes_max} bytes", code="outbound.reply_too_large")
    return bytes(held)


def _check_url(url: str) -> None:
    """Raise InvalidInput unless this is an absolute http(s) URL with a host and without a password in it."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise _bad_url(url, str(error)) from error
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise _bad_url(url, "it holds a character that no URL has")
    if parts.scheme not in _PORTS:
        raise _bad_url(url, "only http and https are called")
    if not parts.hostname:
        raise _bad_url(url, "it names no host")
    if parts.username is not None or parts.password is not None:
        raise _bad_url(url, "it carries a user name, which may mislead about the host")
    if port == 0:
        raise _bad_url(url, "port 0 is none")


def _bad_url(url: str, why: str) -> InvalidInput:
    return InvalidInput(
        f"{url[:200]!a} cannot be called: {why}",
        code="outbound.url_invalid",
        hint="use a URL such as https://example.org/hook",
    )


def _checked_headers(headers: Mapping[str, str]) -> Mapping[str, str]:
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name) or not value.isascii() or not value.isprintable():
            raise InvalidInput(f"the header {name[:80]!a} cannot be sent", code="outbound.header_invalid")
        if name.lower() in ("host", "content-length", "transfer-encoding", "connection"):
            raise InvalidInput(f"the header '{name}' is not the sender's to set", code="outbound.header_invalid")
    return headers


def _with_defaults(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    # Asked for plain, so that no small answer unpacks into a large one.
    return [*headers, (b"User-Agent", b"modelyard"), (b"Accept-Encoding", b"identity"), (b"Connection", b"close")]


def _too_slow(url: str) -> Unavailable:
    return Unavailable(f"{url[:200]!a} did not answer in time", code="outbound.timeout", hint="try again later")


@cache
def _ssl_context() -> ssl.SSLContext:
    import httpcore

    return httpcore.default_ssl_context()
