"""Files over HTTP in bounded memory: a request's body as an iterable for a thread, a file as a reply in pieces."""

from __future__ import annotations

import mimetypes
import re
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import PurePosixPath
from typing import Any, BinaryIO, TypeVar
from urllib.parse import quote

from anyio import from_thread, to_thread
from litestar import Request
from litestar.response import Stream

from modelyard.types.tracking import Artifact

T = TypeVar("T")
PIECE_BYTES = 1024 * 1024
_TEXT = frozenset(
    {"txt", "log", "err", "cfg", "conf", "cnf", "cf", "ini", "properties", "prop", "hocon", "toml", "yaml", "yml"}
    | {"xml", "json", "js", "py", "py3", "csv", "tsv", "md", "rst", "MLmodel", "MLproject", "mlproject"}
)
_PLAIN_NAME = re.compile(r"[\w.+\-]+", re.ASCII)


async def receive(request: Request[Any, Any, Any], store: Callable[[Iterator[bytes]], T]) -> T:
    """Hand the body of a request, piece by piece as it arrives, to a function that runs in a thread."""
    arriving = request.stream()
    return await to_thread.run_sync(lambda: store(_pieces(arriving)))


def _pieces(arriving: AsyncIterator[bytes]) -> Iterator[bytes]:
    buffered = bytearray()
    while True:
        piece = from_thread.run(_next, arriving)
        if piece is None:
            break
        buffered += piece
        if len(buffered) >= PIECE_BYTES:
            yield bytes(buffered)
            buffered.clear()
    if buffered:
        yield bytes(buffered)


async def _next(arriving: AsyncIterator[bytes]) -> bytes | None:
    return await anext(arriving, None)


def attachment(artifact: Artifact, file: BinaryIO) -> Stream:
    """A file as a download. Never shown in place: what users store must not run as a page of this server."""
    name = PurePosixPath(artifact.path).name
    headers = {
        # Named here, since by itself a text would get a charset that nobody looked for.
        "content-type": media_type(name),
        "content-disposition": f"attachment; {_filename(name)}",
        "content-length": str(artifact.size_bytes),
        "x-content-type-options": "nosniff",
        "etag": f'"{artifact.digest}"',
    }
    return Stream(_read(file), media_type=media_type(name), headers=headers)


def media_type(name: str) -> str:
    """The media type of a file by its name; all that is text is plain text."""
    extension = name.rpartition(".")[2]
    if extension in _TEXT:
        return "text/plain"
    return mimetypes.guess_type(name)[0] or "application/octet-stream"


def _read(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while piece := file.read(PIECE_BYTES):
            yield piece


def _filename(name: str) -> str:
    if _PLAIN_NAME.fullmatch(name):
        return f"filename={name}"
    return f"filename*=UTF-8''{quote(name, safe='')}"
