"""The files that a browser loads: read once, served from memory by exact name, so that no path is ever built."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from litestar import Request, Response
from msgspec import Struct

from modelyard.kernel.auth import Action
from modelyard.kernel.errors import NotFound
from modelyard.kernel.routing import get

ROOT = Path(__file__).parent / "static"
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml", ".txt": "text/plain"}
_FOREVER = "public, max-age=31536000, immutable"


class Asset(Struct, frozen=True):
    """A file with the digest of its bytes."""

    body: bytes
    media_type: str
    digest: str


@cache
def assets() -> dict[str, Asset]:
    """All assets by their path below /static."""
    found = {}
    for file in sorted(ROOT.rglob("*")):
        if file.suffix in _TYPES:
            body = file.read_bytes()
            found[file.relative_to(ROOT).as_posix()] = Asset(
                body, _TYPES[file.suffix], hashlib.sha256(body).hexdigest()[:16]
            )
    return found


def asset_url(name: str) -> str:
    """The address of an asset, with its digest, so that a browser may keep it for ever. Raises KeyError."""
    return f"/static/{name}?v={assets()[name].digest}"


@get("/static/{path:path}", requires=Action.PUBLIC)
def static_asset(request: Request, path: str, v: str = "") -> Response[bytes]:  # type: ignore[type-arg]
    """One asset. An address with the right digest may be kept for ever, any other is asked for again."""
    asset = assets().get(path.lstrip("/"))
    if asset is None:
        raise NotFound(f"there is no asset '{path[:100]}'", code="asset.not_found")
    headers = {
        "ETag": f'"{asset.digest}"',
        "Cache-Control": _FOREVER if v == asset.digest else "no-cache",
        "X-Content-Type-Options": "nosniff",
    }
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(b"", status_code=304, headers=headers, media_type=asset.media_type)
    return Response(asset.body, headers=headers, media_type=asset.media_type)


ROUTES = [static_asset]
