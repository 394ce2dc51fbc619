"""The HTTP face of storage."""

from __future__ import annotations

from typing import Any

from modelyard.kernel.auth import Action, Scope
from modelyard.kernel.routing import get, post
from modelyard.planes.storage.service import Storage
from modelyard.types.storage import Collect, Collection


@post("/api/storage/collect", requires=Action.ADMIN)
def collect_blobs(caller: Scope, storage: Storage, data: Collect) -> Collection:
    """Remove the blobs that nothing has named for the grace. Takes an admin of all projects."""
    return storage.collect(caller, data)


@get("/api/storage/collections", requires=Action.ADMIN)
def list_collections(caller: Scope, storage: Storage) -> list[Collection]:
    """The collections that were made, newest first. Takes an admin of all projects."""
    return storage.collections(caller)


ROUTES: list[Any] = [collect_blobs, list_collections]
