"""HTTP for what moves and what is cleared away: branches, deletion, compaction, vacuum, buffers, tables of others."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import anyio.to_thread
from litestar import Request

from modelyard.engines.tables.ingest import table_of_bytes
from modelyard.kernel.auth import Action, Scope
from modelyard.kernel.errors import Conflict, NotFound
from modelyard.kernel.routing import delete, get, post, put
from modelyard.planes.data.service import Data
from modelyard.types.data import WriteResult
from modelyard.types.data_branches import (
    Branch,
    BranchMerge,
    Buffered,
    BufferState,
    Compact,
    Compaction,
    CreateBranch,
    DatasetFiles,
    DeleteRows,
    MergeBranch,
    Register,
    RevertTo,
    Vacuum,
    VacuumReport,
)


@post("/api/datasets/{name:str}/delete-rows", requires=Action.WRITE, status_code=200)
def delete_rows(caller: Scope, datasets: Data, name: str, data: DeleteRows) -> WriteResult:
    """Make a version without the rows that meet a condition."""
    return datasets.delete_rows(
        caller, name, data.where, branch=data.branch, source=data.source, idempotency_key=data.key
    )


@get("/api/datasets/{name:str}/branches", requires=Action.READ)
def list_branches(caller: Scope, datasets: Data, name: str) -> list[Branch]:
    """The branches besides `main`, by name."""
    return datasets.branches.list(caller, name)


@put("/api/datasets/{name:str}/branches/{branch:str}", requires=Action.WRITE, status_code=201)
def create_branch(caller: Scope, datasets: Data, name: str, branch: str, data: CreateBranch) -> Branch:
    """A branch that names a version. It copies nothing."""
    return datasets.branches.create(caller, name, branch, data.at)


@delete("/api/datasets/{name:str}/branches/{branch:str}", requires=Action.WRITE)
def delete_branch(caller: Scope, datasets: Data, name: str, branch: str) -> dict[str, str]:
    """Remove a branch."""
    datasets.branches.delete(caller, name, branch)
    return {"status": "removed"}


@post("/api/datasets/{name:str}/branches/{branch:str}/merge", requires=Action.WRITE, status_code=200)
def merge_branch(caller: Scope, datasets: Data, name: str, branch: str, data: MergeBranch) -> BranchMerge:
    """Let another branch, by default `main`, name what this one names; refused where both moved."""
    return datasets.branches.merge(caller, name, branch, data.into)


@post("/api/datasets/{name:str}/revert", requires=Action.WRITE, status_code=200)
def revert(caller: Scope, datasets: Data, name: str, data: RevertTo) -> WriteResult:
    """Make a version with the rows of an older one."""
    return datasets.branches.revert(caller, name, data.to, data.branch)


@post("/api/datasets/{name:str}/compact", requires=Action.WRITE, status_code=200)
def compact(caller: Scope, datasets: Data, name: str, data: Compact) -> Compaction:
    """Let the newest version lie in fewer files."""
    return datasets.layout.compact(caller, name, data.branch)


@post("/api/datasets/{name:str}/vacuum", requires=Action.ADMIN, status_code=200)
def vacuum(caller: Scope, datasets: Data, name: str, data: Vacuum) -> VacuumReport:
    """Give up versions that the retention does not keep and nothing points at, and files that none names."""
    return datasets.layout.vacuum(caller, name, data)


@post("/api/datasets/{name:str}/buffer", requires=Action.WRITE, status_code=202)
async def append_buffered(
    request: Request[Any, Any, Any], caller: Scope, datasets: Data, name: str, source: str = "", create: bool = False
) -> Buffered:
    """Take rows for the next flush: durable when this answers, in a version after the flush."""
    body = await request.body()
    kind = request.headers.get("content-type", "")

    def append() -> Buffered:
        table = table_of_bytes(body, kind)
        try:
            return datasets.buffers.append(caller, name, table, source=source)
        except NotFound:
            if not create:
                raise
        # Another appender may be making it at this moment; then it is there, which is what is wanted.
        with suppress(Conflict):
            datasets.create(caller, name)
        return datasets.buffers.append(caller, name, table, source=source)

    return await anyio.to_thread.run_sync(append)


@get("/api/datasets/{name:str}/buffer", requires=Action.READ)
def get_buffer(caller: Scope, datasets: Data, name: str) -> BufferState:
    """What waits for the next flush."""
    return datasets.buffers.state(caller, name)


@post("/api/datasets/{name:str}/flush", requires=Action.WRITE, status_code=200)
def flush(caller: Scope, datasets: Data, name: str) -> list[WriteResult]:
    """Make what waits a version."""
    return datasets.buffers.flush(caller, name)


@post("/api/datasets/{name:str}/register", requires=Action.ADMIN, status_code=201)
def register(caller: Scope, datasets: Data, name: str, data: Register) -> WriteResult:
    """A dataset that reads a folder on the server's machine where it lies."""
    return datasets.sources.register(caller, name, data.path, data.description)


@post("/api/datasets/{name:str}/sync", requires=Action.WRITE, status_code=200)
def sync(caller: Scope, datasets: Data, name: str) -> WriteResult:
    """Check what others wrote to the table since its newest version, and make it one."""
    return datasets.sources.sync(caller, name)


@get("/api/datasets/{name:str}/parquet", requires=Action.READ)
def list_parquet(caller: Scope, datasets: Data, name: str, ref: str | None = None) -> DatasetFiles:
    """The Parquet files of a version, for engines on the same machine that read them themselves."""
    return datasets.files(caller, name, ref)


ROUTES = [
    delete_rows,
    list_branches,
    create_branch,
    delete_branch,
    merge_branch,
    revert,
    compact,
    vacuum,
    append_buffered,
    get_buffer,
    flush,
    register,
    sync,
    list_parquet,
]
