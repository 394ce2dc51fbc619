"""Files of a run: served by range, and shown in place without ever acting in this origin."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, BinaryIO
from urllib.parse import quote

from litestar import Request
from litestar.background_tasks import BackgroundTask
from litestar.response import Stream

from modelyard.kernel.auth import Action, Scope
from modelyard.kernel.errors import InvalidInput
from modelyard.kernel.routing import get
from modelyard.planes.tracking import Owner, Tracking
from modelyard.ui.previews import MEDIA_TYPES, kind_of, suffix

PIECE_BYTES = 256 * 1024
_BYTES = "application/octet-stream"
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
# `sandbox` without `allow-same-origin` gives a document an origin of its own: no cookies, no storage, no reading of
# our pages. `default-src 'none'` keeps it from sending anything anywhere.
STILL = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:; frame-ancestors 'self'"
ACTING = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'unsafe-inline'; img-src data: blob:; font-src data:; media-src data: blob:; worker-src blob:; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'self'"
)


@get("/runs/{run_id:str}/artifacts/{path:path}", requires=Action.READ)
def artifact(
    request: Request[Any, Any, Any], caller: Scope, tracking: Tracking, run_id: str, path: str, show: str = ""
) -> Stream:
    """A file of a run, or the range of it that is asked for: to be saved, or with `show` to be seen in a sandbox."""
    found, content = tracking.artifacts.open(caller, Owner("run", run_id), path.lstrip("/"))
    return served(request, found.path, found.size_bytes or 0, content, show=bool(show))


def served(request: Request[Any, Any, Any], path: str, size: int, content: BinaryIO, *, show: bool) -> Stream:
    """A file that somebody else wrote, or the range of it that is asked for. Raises InvalidInput for a bad range."""
    try:
        first, last = byte_range(request.headers.get("range", ""), size)
    except InvalidInput:
        content.close()
        raise
    whole = first == 0 and last == size - 1
    content.seek(first)
    return Stream(
        _pieces(content, last - first + 1),
        status_code=200 if whole else 206,
        media_type=MEDIA_TYPES.get(suffix(path), _BYTES) if show else _BYTES,
        headers={
            **_headers(path, show),
            "accept-ranges": "bytes",
            "content-length": str(last - first + 1),
            **({} if whole else {"content-range": f"bytes {first}-{last}/{size}"}),
        },
        background=BackgroundTask(content.close),
    )


def byte_range(header: str, size: int) -> tuple[int, int]:
    """The first and last byte that a Range header asks for; all of them for none, or one of another form.

    Raises InvalidInput for a range that begins after the end.
    """
    match = _RANGE.fullmatch(header.strip())
    if match is None or match.groups() == ("", "") or size == 0:
        return 0, size - 1
    start, end = match.groups()
    if not start:
        return max(size - int(end), 0), size - 1
    if int(start) >= size or (end and int(end) < int(start)):
        raise InvalidInput(f"the file has {size} bytes, none of them in '{header[:60]}'", code="artifact.range_invalid")
    return int(start), min(int(end), size - 1) if end else size - 1


def _headers(path: str, show: bool) -> dict[str, str]:
    name = quote(path.rsplit("/", 1)[-1], safe="")
    shown = show and suffix(path) in MEDIA_TYPES
    return {
        "content-disposition": f"{'inline' if shown else 'attachment'}; filename*=UTF-8''{name}",
        "content-security-policy": ACTING if shown and kind_of(path) == "html" else STILL,
        "x-frame-options": "SAMEORIGIN",
        "cross-origin-resource-policy": "same-origin",
        "referrer-policy": "no-referrer",
        "cache-control": "private, no-cache",
    }


def _pieces(content: BinaryIO, left: int) -> Iterator[bytes]:
    while left > 0 and (piece := content.read(min(PIECE_BYTES, left))):
        left -= len(piece)
        yield piece


ROUTES: list[Any] = [artifact]
