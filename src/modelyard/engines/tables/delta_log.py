"""Entries of a Delta log: what they say, and adding one so that it is there whole or not at all.

Entries are written here and not by the `deltalake` package because the catalog knows the files of the state before:
nothing has to be replayed, a schema may change in the entry that brings its first rows, and an entry either is the next
one or is refused. The protocol is the first of Delta (reader 1, writer 2), which every reader knows.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from modelyard.engines.tables.base import Commit
from modelyard.kernel.errors import Conflict, EngineError
from modelyard.kernel.paths import make_private, sync_directory

if TYPE_CHECKING:
    import pyarrow as pa

WRITE_KEY = "modelyard.write"
LOG = "_delta_log"
CHECKPOINT_EVERY = 100
# Versions are kept for as long as the catalog points at them, so the log must never clean itself by age.
_CONFIGURATION = {
    "delta.enableExpiredLogCleanup": "false",
    "delta.logRetentionDuration": "interval 36500 days",
    "delta.deletedFileRetentionDuration": "interval 36500 days",
    "delta.checkpointInterval": str(CHECKPOINT_EVERY),
}


def entry_file(table: Path, version: int) -> Path:
    """The file of one entry."""
    return table / LOG / f"{version:020d}.json"


def write_entry(table: Path, version: int, commit: Commit, scratch: Path) -> None:
    """Add the entry, durable, if there is none of that number. Raises Conflict (`table.moved`)."""
    make_private(table / LOG)
    make_private(scratch.parent)
    text = "\n".join(json.dumps(action, separators=(",", ":")) for action in _actions(table, commit))
    scratch.unlink(missing_ok=True)
    try:
        with open(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as sink:
            sink.write(text + "\n")
            sink.flush()
            os.fsync(sink.fileno())
        # A link is made only where its name is free, and then the entry is there whole.
        os.link(scratch, entry_file(table, version))
    except FileExistsError as error:
        raise Conflict(
            f"the log of table '{table.name}' has an entry {version} that is not ours",
            code="table.moved",
            hint="take it over with `modelyard dataset sync`, then repeat",
        ) from error
    finally:
        scratch.unlink(missing_ok=True)
    sync_directory(table / LOG)


def _actions(table: Path, commit: Commit) -> Iterator[dict[str, Any]]:
    now_ms = int(time.time() * 1000)
    yield {
        "commitInfo": {
            "timestamp": now_ms,
            "operation": commit.mode.upper(),
            "operationParameters": {},
            "isBlindAppend": not commit.remove,
            "engineInfo": "modelyard",
            WRITE_KEY: commit.write_id,
        }
    }
    if commit.base_version is None:
        yield {"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}
    if commit.base_version is None or commit.schema_changed:
        yield {"metaData": _metadata(table, commit, now_ms)}
    for gone in commit.remove:
        yield {
            "remove": {
                "path": quote(gone.name),
                "deletionTimestamp": now_ms,
                "dataChange": commit.changes_rows,
                "extendedFileMetadata": True,
                "partitionValues": gone.partition,
                "size": gone.size_bytes,
            }
        }
    for again in commit.add:
        stats = json.dumps({"numRecords": again.rows})
        yield _add(again.name, dict(again.partition), again.size_bytes, stats, now_ms, commit.changes_rows)
    for file in commit.files:
        yield _add(file.name, dict(file.partition), file.size_bytes, file.stats, now_ms, commit.changes_rows)


def _add(
    name: str, partition: dict[str, str | None], size_bytes: int, stats: str, now_ms: int, changes: bool
) -> dict[str, Any]:
    return {
        "add": {
            "path": quote(name),
            "partitionValues": partition,
            "size": size_bytes,
            "modificationTime": now_ms,
            "dataChange": changes,
            "stats": stats,
        }
    }


def _metadata(table: Path, commit: Commit, now_ms: int) -> dict[str, Any]:
    return {
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"modelyard:{table.parent.name}/{table.name}")),
        "format": {"provider": "parquet", "options": {}},
        "schemaString": _schema_text(commit.schema),
        "partitionColumns": list(commit.partition_by),
        "configuration": _CONFIGURATION,
        "createdTime": now_ms,
    }


def _schema_text(schema: pa.Schema) -> str:
    from deltalake import Schema as DeltaSchema  # heavy: imported late

    return str(DeltaSchema.from_arrow(schema).to_json())


def writer_of(table: Path, version: int) -> str | None:
    """The write that made a log entry, where it was one of ours."""
    try:
        lines = entry_file(table, version).read_text("utf-8").splitlines()
        found = [one["commitInfo"].get(WRITE_KEY) for one in map(json.loads, lines) if "commitInfo" in one]
    except FileNotFoundError:
        return None
    except (ValueError, AttributeError, TypeError) as error:
        raise damaged(table, error) from error
    return next((str(one) for one in found if one is not None), None)


def versions_after(table: Path, since: int | None) -> Iterator[int]:
    """The versions of the log after one, for as long as they follow each other."""
    version = 0 if since is None else since + 1
    while entry_file(table, version).exists():
        yield version
        version += 1


def damaged(table: Path, error: object) -> EngineError:
    """The error for a log that cannot be read."""
    return EngineError(
        f"the log of table '{table.parent.name}/{table.name}' cannot be read: {error}",
        code="table.log_damaged",
        hint="restore the table's `_delta_log` from a backup",
    )
