"""MLflow's own pages, as their wheel ships them, over our API: a view for whoever is used to them.

They are served at `/mlflow/` of each project. The files are those of an installed `mlflow`, or of the folder that the
setting `mlflow_pages` names; each is known by its name before anybody asks, so that no path is built from a request.
The pages may talk to this server, and to nothing else.
"""

from __future__ import annotations

import importlib.util
import mimetypes
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from litestar import Request, Response
from litestar.response import Redirect, Stream

from modelyard.kernel.auth import Action
from modelyard.kernel.errors import NotFound
from modelyard.kernel.paths import open_inside
from modelyard.kernel.routing import get
from modelyard.kernel.settings import Settings

INDEX = "index.html"
PIECE_BYTES = 256 * 1024
_BELOW = "/mlflow/static-files/"
_TYPES = {".js": "text/javascript", ".css": "text/css", ".json": "application/json", ".html": "text/html",
          ".svg": "image/svg+xml", ".wasm": "application/wasm", ".woff2": "font/woff2"}  # fmt: skip
# Names that hold a digest of their content may be kept for ever.
_FOREVER = "public, max-age=31536000, immutable"
HEADERS = {
    # Styles are made by script (emotion), images and workers from blobs; there is no inline script and no eval.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' blob:; font-src 'self' data:; connect-src 'self' blob:; "
    "worker-src 'self' blob:; frame-src 'self' blob:; manifest-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; object-src 'none'",
    "cache-control": "no-cache",
}


@get("/mlflow", requires=Action.READ)
def mlflow_index(settings: Settings, request: Request[Any, Any, Any]) -> Response[Any]:
    """The one page; all else is behind its `#`."""
    root = pages_root(settings)
    if not request.scope["raw_path"].endswith(b"/"):
        # Its addresses are relative, and so is this one.
        return Redirect("mlflow/", status_code=307)
    return Stream(_pieces(open_inside(root, INDEX)), media_type="text/html", headers=HEADERS)


@get(_BELOW + "{path:path}", requires=Action.READ)
def mlflow_static_file(settings: Settings, path: str) -> Response[Any]:
    """A script, a style, a font or an image of the pages."""
    root, name = pages_root(settings), path.lstrip("/")
    if name not in files_of(root):
        raise NotFound(f"MLflow's pages have no file '{name[:100]}'", code="asset.not_found")
    kind = _TYPES.get(Path(name).suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
    hashed = name.startswith("static/")
    headers = {**HEADERS, "cache-control": _FOREVER if hashed else "no-cache"}
    return Stream(_pieces(open_inside(root, name)), media_type=kind, headers=headers)


def pages_root(settings: Settings) -> Path:
    """The folder of the built pages. Raises NotFound where there is none."""
    root = Path(settings.mlflow_pages) if settings.mlflow_pages else _installed()
    if root is None or not (root / INDEX).is_file():
        raise NotFound(
            "MLflow's own pages are not here",
            code="mlflow_pages.missing",
            hint="install the `mlflow` wheel beside Modelyard, or set `mlflow_pages` to its mlflow/server/js/build",
        )
    return root


@cache
def files_of(root: Path) -> frozenset[str]:
    """The names of all files below the folder, looked up once."""
    return frozenset(one.relative_to(root).as_posix() for one in root.rglob("*") if one.is_file())


@cache
def _installed() -> Path | None:
    # Found, not imported: MLflow takes seconds.
    found = importlib.util.find_spec("mlflow")
    if found is None or not found.submodule_search_locations:
        return None
    return Path(next(iter(found.submodule_search_locations))) / "server" / "js" / "build"


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while piece := file.read(PIECE_BYTES):
            yield piece


ROUTES: list[Any] = [mlflow_index, mlflow_static_file]
