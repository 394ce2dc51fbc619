"""Datasets of files: their folders and files in place, and what differs between two versions."""

from __future__ import annotations

from typing import Any

from litestar import Request
from litestar.response import Stream
from msgspec import Struct

from modelyard.kernel.auth import Action, Scope
from modelyard.kernel.errors import NotFound
from modelyard.kernel.routing import get
from modelyard.planes.data import Files
from modelyard.types.files import FolderEntry
from modelyard.types.tracking import Artifact
from modelyard.ui.previews import Gallery, Picture, Preview, Spreads, kind_of, preview
from modelyard.ui.urns import address_of
from modelyard.ui.views.artifacts import served

PICTURES_MAX = 60
ENTRIES_SHOWN = 200


class Browsed(Struct, frozen=True, kw_only=True):
    """A directory of a version, or a file of it. `download` is the path that a file's own path is added to; `next` is
    where the next page of the directory begins."""

    artifacts: tuple[FolderEntry, ...] = ()
    folder: str = ""
    shown: Preview | None = None
    galleries: tuple[Gallery, ...] = ()
    spreads: tuple[Spreads, ...] = ()
    download: str = ""
    next: str = ""


def browsed(caller: Scope, files: Files, name: str, version: int, path: str, past: str = "") -> Browsed:
    """What stands at a path of a version, a page at a time; a directory of pictures shows them."""
    download = f"{address_of(f'dataset:{name}')}/versions/{version}/files/"
    listed, more = _page(caller, files, name, version, path, past)
    if listed or not path:
        pictures = [one.path for one in listed if not one.is_dir and kind_of(one.path) == "image"]
        shown = tuple(Picture(step=at, path=one, thumbnail=one) for at, one in enumerate(pictures[:PICTURES_MAX]))
        gallery = Gallery(key=path or "pictures", pictures=shown, left_out=max(len(pictures) - PICTURES_MAX, 0))
        return Browsed(
            artifacts=listed, folder=path, galleries=(gallery,) if shown else (), download=download, next=more
        )
    folder = path.rpartition("/")[0]
    found, content = files.open(caller, name, path, version)
    with content:
        seen = preview(Artifact(path=found.path, size_bytes=found.size_bytes, digest=found.digest), content)
    beside, more = _page(caller, files, name, version, folder, past)
    return Browsed(artifacts=beside, folder=folder, shown=seen, download=download, next=more)


def _page(
    caller: Scope, files: Files, name: str, version: int, directory: str, past: str
) -> tuple[tuple[FolderEntry, ...], str]:
    """A page of a directory, and where the next begins; empty at the end."""
    found = tuple(files.folder(caller, name, version, directory, ENTRIES_SHOWN + 1, past))
    if len(found) <= ENTRIES_SHOWN:
        return found, ""
    last = found[ENTRIES_SHOWN - 1]
    return found[:ENTRIES_SHOWN], f"{last.path}/" if last.is_dir else last.path


@get("/datasets/{name:str}/versions/{version:int}/files/{path:path}", requires=Action.READ)
def dataset_file(
    request: Request[Any, Any, Any], caller: Scope, files: Files, name: str, version: int, path: str, show: str = ""
) -> Stream:
    """A file of a version: to be saved, or with `show` to be seen in a sandbox."""
    wanted = path.lstrip("/")
    if not wanted:
        raise NotFound("there is no file without a name", code="files.not_there")
    found, content = files.open(caller, name, wanted, version)
    return served(request, found.path, found.size_bytes, content, show=bool(show))


ROUTES: list[Any] = [dataset_file]
