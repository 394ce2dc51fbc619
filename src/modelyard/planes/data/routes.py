"""HTTP for datasets: nouns as JSON, rows as Arrow IPC streams (up also as Parquet or CSV)."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import anyio
import anyio.to_thread
import msgspec
from litestar import Request
from litestar.params import Parameter
from litestar.response import Stream

from modelyard.engines.tables.ingest import ARROW_STREAM, ipc_chunks, open_tabular
from modelyard.kernel.auth import Action, Scope
from modelyard.kernel.errors import InvalidInput, TooLarge
from modelyard.kernel.limits import DATASET_BODY_BYTES_MAX, PAGE_ITEMS_DEFAULT
from modelyard.kernel.routing import delete, get, patch, post, put
from modelyard.kernel.spooling import spooled
from modelyard.planes.data import branch_routes, quality_routes
from modelyard.planes.data.service import Data
from modelyard.planes.data.store import MAIN
from modelyard.types.data import (
    READ_HEADER,
    Check,
    CreateDataset,
    Dataset,
    DatasetVersion,
    Quarantined,
    ReadNote,
    Rows,
    TagVersion,
    UpdateDataset,
    VersionDiff,
    WriteMode,
    WriteResult,
)
from modelyard.types.page import Page

Named = Annotated[list[str] | None, Parameter(query="column")]


@get("/api/datasets", requires=Action.READ)
def list_datasets(
    caller: Scope, datasets: Data, after: str | None = None, limit: int = PAGE_ITEMS_DEFAULT
) -> Page[Dataset]:
    """Datasets by name."""
    return datasets.list(caller, after=after, limit=limit)


@post("/api/datasets", requires=Action.WRITE, status_code=201)
def create_dataset(caller: Scope, datasets: Data, data: CreateDataset) -> Dataset:
    """A new dataset without versions."""
    return datasets.create(
        caller,
        data.name,
        description=data.description,
        key=data.key,
        checks=data.checks,
        partition_by=data.partition_by,
        kind=data.kind,
    )


@get("/api/datasets/{name:str}", requires=Action.READ)
def get_dataset(caller: Scope, datasets: Data, name: str) -> Dataset:
    """One dataset."""
    return datasets.get(caller, name)


@patch("/api/datasets/{name:str}", requires=Action.WRITE)
def update_dataset(caller: Scope, datasets: Data, name: str, data: UpdateDataset) -> Dataset:
    """Change its description, key or checks."""
    return datasets.update(
        caller, name, description=data.description, key=data.key, checks=data.checks, retention=data.retention
    )


@get("/api/datasets/{name:str}/versions", requires=Action.READ)
def list_versions(
    caller: Scope, datasets: Data, name: str, after: str | None = None, limit: int = PAGE_ITEMS_DEFAULT
) -> Page[DatasetVersion]:
    """Versions, newest first, without report and profile."""
    return datasets.versions(caller, name, after=after, limit=limit)


@get("/api/datasets/{name:str}/versions/{ref:str}", requires=Action.READ)
def get_version(caller: Scope, datasets: Data, name: str, ref: str) -> DatasetVersion:
    """One version, by number, tag, branch, instant, `main` or `latest`, with its report and profile."""
    return datasets.resolve(caller, name, ref)


@post("/api/datasets/{name:str}/data", requires=Action.WRITE, request_max_body_size=None)
async def write_data(
    request: Request[Any, Any, Any],
    caller: Scope,
    datasets: Data,
    name: str,
    mode: WriteMode = "append",
    key: str | None = None,
    source: str = "",
    evolve: bool = False,
    replace_schema: bool = False,
    create: bool = False,
    checks: str | None = None,
    breaking: bool = False,
    branch: str = MAIN,
    where: str | None = None,
    keys: Annotated[list[str] | None, Parameter(query="on")] = None,
) -> WriteResult:
    """Write a batch: checked, then published as the next version or kept in quarantine.

    The body is an Arrow stream, an Arrow file or Parquet, told by how it begins, or a text by its content type: CSV
    (`text/csv`), TSV (`text/tab-separated-values`) or JSON lines (`application/x-ndjson`). `key` is an idempotency
    key; `on`, which may be given several times, the key of a merge; `where` the rows that an overwrite replaces, by
    default all. `evolve`: it may add columns; `replace_schema`: an overwrite of all rows may bring any schema;
    `breaking`: consumers may break by that.
    """
    async with received(request, datasets) as file:
        write = partial(
            _write_file, file, request.headers.get("content-type", ""), datasets, caller, name,
            mode=mode, idempotency_key=key, checks=_checks(checks), source=source, evolve=evolve, create=create,
            replace_schema=replace_schema, breaking=breaking,
            branch=branch, where=where, on=keys or (),
        )  # fmt: skip
        return await anyio.to_thread.run_sync(write)


@get("/api/datasets/{name:str}/data", requires=Action.READ)
def read_data(
    caller: Scope,
    datasets: Data,
    name: str,
    ref: str | None = None,
    columns: Named = None,
    filter: str | None = None,
    noted: bool = False,
) -> Stream:
    """Rows of a version as an Arrow stream. `column` may be given several times; `filter` is an SQL condition. `noted`
    asks for a header that says which version and columns that is (a ReadNote, percent-encoded)."""
    found = datasets.reader.stream(caller, name, ref, columns, filter)
    headers = {}
    if noted:
        named = found.columns()
        note = ReadNote(version=found.version.version, columns=None if named is None else list(named))
        headers[READ_HEADER] = quote(msgspec.json.encode(note))
    return Stream(ipc_chunks(found.schema, found.batches), media_type=ARROW_STREAM, headers=headers)


@get("/api/datasets/{name:str}/rows", requires=Action.READ)
def list_rows(
    caller: Scope, datasets: Data, name: str, ref: str | None = None, filter: str | None = None, limit: int = 100
) -> Rows:
    """Some rows of a version as JSON, for looking at."""
    return datasets.rows(caller, name, ref, filter=filter, limit=limit)


@get("/api/datasets/{name:str}/diff", requires=Action.READ)
def diff_versions(
    caller: Scope,
    datasets: Data,
    name: str,
    before: str,
    after: str | None = None,
    keys: Annotated[list[str] | None, Parameter(query="key")] = None,
) -> VersionDiff:
    """What differs between two versions. `key` may be given several times; without it the dataset's own is taken."""
    key = keys if keys is not None else datasets.get(caller, name).key
    return datasets.diffs.between(caller, name, before, after, key)


@put("/api/datasets/{name:str}/tags/{tag:str}", requires=Action.WRITE)
def tag_version(caller: Scope, datasets: Data, name: str, tag: str, data: TagVersion) -> DatasetVersion:
    """Let a tag name a version."""
    return datasets.tag(caller, name, tag, data.version)


@delete("/api/datasets/{name:str}/tags/{tag:str}", requires=Action.WRITE)
def untag_version(caller: Scope, datasets: Data, name: str, tag: str) -> dict[str, str]:
    """Remove a tag."""
    datasets.untag(caller, name, tag)
    return {"status": "removed"}


@get("/api/datasets/{name:str}/quarantine", requires=Action.READ)
def list_quarantine(caller: Scope, datasets: Data, name: str, limit: int = PAGE_ITEMS_DEFAULT) -> Page[Quarantined]:
    """Batches that were turned down, newest first."""
    return datasets.quarantine.list(caller, name, limit=limit)


@get("/api/datasets/{name:str}/quarantine/{quarantine_id:str}", requires=Action.READ)
def get_quarantined(caller: Scope, datasets: Data, name: str, quarantine_id: str) -> Quarantined:
    """One such batch with its report."""
    return datasets.quarantine.get(caller, name, quarantine_id)


@get("/api/datasets/{name:str}/quarantine/{quarantine_id:str}/rows", requires=Action.READ)
def list_quarantined_rows(
    caller: Scope, datasets: Data, name: str, quarantine_id: str, filter: str | None = None, limit: int = 100
) -> Rows:
    """Rows of such a batch."""
    return datasets.quarantine.rows(caller, name, quarantine_id, filter=filter, limit=limit)


@delete("/api/datasets/{name:str}/quarantine/{quarantine_id:str}", requires=Action.WRITE)
def discard_quarantined(caller: Scope, datasets: Data, name: str, quarantine_id: str) -> dict[str, str]:
    """Remove such a batch with its files."""
    datasets.quarantine.discard(caller, name, quarantine_id)
    return {"status": "discarded"}


def _checks(text: str | None) -> list[Check] | None:
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=list[Check])
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise InvalidInput(f"`checks` is no list of checks: {error}", code="dataset.checks_invalid") from error


def received(request: Request[Any, Any, Any], datasets: Data) -> AbstractAsyncContextManager[Path]:
    """The body in a private file, which is gone afterwards."""
    too_large = TooLarge(
        f"a batch has at most {DATASET_BODY_BYTES_MAX} bytes",
        code="dataset.batch_too_large",
        hint="write it in several appends",
    )
    return spooled(request.stream(), datasets.spool(), DATASET_BODY_BYTES_MAX, too_large)


def _write_file(file: Path, media_type: str, datasets: Data, caller: Scope, name: str, **options: Any) -> WriteResult:
    with open_tabular(file, media_type) as reader:
        return datasets.write(caller, name, reader, **options)


ROUTES = [
    list_datasets,
    create_dataset,
    get_dataset,
    update_dataset,
    list_versions,
    get_version,
    write_data,
    read_data,
    list_rows,
    diff_versions,
    tag_version,
    untag_version,
    list_quarantine,
    get_quarantined,
    list_quarantined_rows,
    discard_quarantined,
    *quality_routes.ROUTES,
    *branch_routes.ROUTES,
]
