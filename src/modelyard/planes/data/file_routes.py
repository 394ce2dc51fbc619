"""HTTP for datasets of files: bytes framed, many in a body; everything else as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from mimetypes import guess_type
from pathlib import Path
from posixpath import basename
from typing import Any, BinaryIO
from urllib.parse import quote

import anyio.to_thread
from litestar import Request
from litestar.response import Stream

from modelyard.kernel.auth import Action, Scope
from modelyard.kernel.frames import MEDIA_TYPE, PIECE_BYTES
from modelyard.kernel.limits import DATASET_COMMIT_BYTES_MAX
from modelyard.kernel.routing import get, post
from modelyard.planes.data.files import Files
from modelyard.planes.data.routes import received
from modelyard.planes.data.service import Data
from modelyard.types.files import (
    Adopted,
    CommitFiles,
    Dropbox,
    FetchFiles,
    FileEntry,
    FilesDiff,
    FilesResult,
    MissingBlobs,
    Verified,
)
from modelyard.types.page import Page


@post("/api/datasets/{name:str}/files/missing", requires=Action.WRITE, status_code=200)
def list_missing(caller: Scope, files: Files, name: str, data: MissingBlobs) -> MissingBlobs:
    """Of which of these digests the dataset does not hold the bytes."""
    return MissingBlobs(files.missing(caller, name, data.digests))


@post("/api/datasets/{name:str}/files/blobs", requires=Action.WRITE, status_code=200, request_max_body_size=None)
async def send_blobs(
    request: Request[Any, Any, Any], caller: Scope, files: Files, datasets: Data, name: str
) -> Adopted:
    """Take the bytes of many files, each after its digest and length."""
    async with received(request, datasets) as file:
        return await anyio.to_thread.run_sync(_receive, files, caller, name, file)


@post("/api/datasets/{name:str}/files/dropbox", requires=Action.READ, status_code=200)
def make_dropbox(files: Files, name: str) -> Dropbox | None:  # noqa: ARG001
    """A folder for programs of the server's own user on the server's own disk; null where there is none."""
    return files.dropbox()


@post("/api/datasets/{name:str}/files/dropbox/{box:str}/adopt", requires=Action.WRITE, status_code=200)
def adopt_dropbox(caller: Scope, files: Files, name: str, box: str) -> Adopted:
    """Take what lies in a dropbox."""
    return Adopted(files.adopt(caller, name, box))


@post(
    "/api/datasets/{name:str}/files/commits",
    requires=Action.WRITE,
    status_code=200,
    request_max_body_size=DATASET_COMMIT_BYTES_MAX,
)
def commit_files(caller: Scope, files: Files, name: str, data: CommitFiles) -> FilesResult:
    """Make the next version of a branch."""
    return files.commit(caller, name, data)


@get("/api/datasets/{name:str}/files", requires=Action.READ)
def list_files(
    caller: Scope,
    files: Files,
    name: str,
    ref: str | None = None,
    prefix: str = "",
    after: str = "",
    limit: int = 1_000,
) -> Page[FileEntry]:
    """The files of a version by path, those below a prefix."""
    return files.list(caller, name, ref, prefix=prefix, after=after, limit=limit)


@get("/api/datasets/{name:str}/files/content/{path:path}", requires=Action.READ)
def get_file(request: Request[Any, Any, Any], caller: Scope, files: Files, name: str, ref: str | None = None) -> Stream:
    """The bytes of one file, to be saved and never to be shown by a browser as a page of ours."""
    path = str(request.scope["path"]).split("/files/content/", 1)[1]
    entry, content = files.open(caller, name, path, ref)
    headers = {
        "content-disposition": f"attachment; filename*=UTF-8''{quote(basename(entry.path), safe='')}",
        "content-length": str(entry.size_bytes),
        "etag": f'"{entry.digest}"',
    }
    media_type = guess_type(entry.path)[0] or "application/octet-stream"
    return Stream(_pieces(content), media_type=media_type, headers=headers)


@post("/api/datasets/{name:str}/files/fetch", requires=Action.READ, status_code=200)
def fetch_files(caller: Scope, files: Files, name: str, data: FetchFiles) -> Stream:
    """The bytes of many files of a version, each after its digest and length; equal ones once."""
    return Stream(files.fetch(caller, name, data.version, data.paths), media_type=MEDIA_TYPE)


@get("/api/datasets/{name:str}/files/diff", requires=Action.READ)
def diff_files(caller: Scope, files: Files, name: str, before: str, after: str | None = None) -> FilesDiff:
    """What differs between two versions, by path."""
    return files.diff(caller, name, before, after)


@post("/api/datasets/{name:str}/files/verify", requires=Action.READ, status_code=200)
def verify_files(caller: Scope, files: Files, name: str, ref: str | None = None) -> Verified:
    """Read every byte of a version and say which files are no longer what they were."""
    return files.verify(caller, name, ref)


def _receive(files: Files, caller: Scope, name: str, file: Path) -> Adopted:
    with file.open("rb") as source:
        return Adopted(files.receive(caller, name, source))


def _pieces(content: BinaryIO) -> Iterator[bytes]:
    with content:
        while piece := content.read(PIECE_BYTES):
            yield piece


ROUTES = [
    list_missing,
    send_blobs,
    make_dropbox,
    adopt_dropbox,
    commit_files,
    list_files,
    get_file,
    fetch_files,
    diff_files,
    verify_files,
]
