"""Tables as Delta Lake: Parquet files and a log, which any other Delta reader opens.

A write goes aside first, to `<table>/_staged/<write id>/`, where Delta readers do not look. Committing moves the files
beside the log and adds them to it in one log entry, without writing the data again. The entry carries the write's id,
so that after a crash it can be told whether the commit happened, and repeating it does nothing.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from modelyard.engines.tables.arrow import cast_batch, staged_schema
from modelyard.engines.tables.base import Commit, Snapshot, Staged, StagedFile, Watch
from modelyard.engines.tables.stats import file_stats
from modelyard.kernel.errors import EngineError, InvalidInput, NotFound, Unavailable
from modelyard.kernel.paths import make_private, safe_join, sync_directory

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import DeltaTable

WRITE_KEY = "modelyard.write"
_STAGED = "_staged"
_LOCK = "_lock"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_COMMIT_ATTEMPTS = 64
_FILE_BYTES = 256 * 1024 * 1024
_GROUP_BYTES = 32 * 1024 * 1024
_GROUP_ROWS = 512 * 1024
_SNAPSHOTS_KEPT = 256
# Versions are kept for as long as the catalog points at them, so the log must never clean itself by age.
_CONFIGURATION = {
    "delta.enableExpiredLogCleanup": "false",
    "delta.logRetentionDuration": "interval 36500 days",
    "delta.deletedFileRetentionDuration": "interval 36500 days",
}


class DeltaTables:
    """Delta tables below one directory of this machine. Safe for many threads and processes at once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._kept: OrderedDict[tuple[str, int], Snapshot] = OrderedDict()
        self._kept_lock = threading.Lock()

    @contextmanager
    def exclusive(self, location: str) -> Iterator[None]:
        table = make_private(self._table(location))
        # A lock of the kernel's: it is released when its holder dies, so no crash leaves it behind.
        with open(os.open(table / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600), "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def stage(
        self,
        location: str,
        write_id: str,
        source: pa.RecordBatchReader,
        target: pa.Schema | None,
        watch: Watch | None = None,
    ) -> Staged:
        schema = staged_schema(source.schema, target)
        directory = self._staged(location, write_id)
        finished = False
        try:
            with storage_errors():
                make_private(directory)
                names = _write_files(directory, write_id, _batches(source, schema, watch), schema)
                files = tuple(_describe(directory / name) for name in names)
                sync_directory(directory)
            finished = True
        finally:
            if not finished:
                shutil.rmtree(directory, ignore_errors=True)
        return Staged(write_id, schema, files)

    def staged(self, location: str, write_id: str) -> tuple[Path, ...]:
        return tuple(sorted(self._staged(location, write_id).glob("*.parquet")))

    def discard(self, location: str, write_id: str) -> None:
        shutil.rmtree(self._staged(location, write_id), ignore_errors=True)

    def withdraw(self, location: str, commit: Commit) -> None:
        self.discard(location, commit.write_id)
        for file in commit.files:
            (self._table(location) / file.name).unlink(missing_ok=True)

    def commit(self, location: str, commit: Commit) -> int:
        found = self.committed(location, commit.write_id, commit.base_version)
        if found is not None:
            return found
        with storage_errors():
            self._move_in(location, commit)
        for _ in range(_COMMIT_ATTEMPTS):
            version = self._attempt(location, commit)
            if version is not None:
                self._make_durable(location)
                return version
        raise Unavailable(
            f"table '{location}' is being written by something else all the time",
            code="table.contended",
            hint="repeat the write",
        )

    def committed(self, location: str, write_id: str, since: int | None) -> int | None:
        table = self._open(location)
        if table is None:
            return None
        for version in range(0 if since is None else since + 1, table.version() + 1):
            if self._writer_of(location, version) == write_id:
                return version
        return None

    def snapshot(self, location: str, version: int) -> Snapshot:
        key = (location, version)
        with self._kept_lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        found = self._read_snapshot(location, version)
        with self._kept_lock:
            self._kept[key] = found
            while len(self._kept) > _SNAPSHOTS_KEPT:
                self._kept.popitem(last=False)
        return found

    def sweep(self, location: str, keep: Sequence[str], older_than: datetime) -> int:
        kept = frozenset(keep)
        removed = 0
        for directory in (self._table(location) / _STAGED).glob("*"):
            if directory.name not in kept and directory.stat().st_mtime < older_than.timestamp():
                shutil.rmtree(directory, ignore_errors=True)
                removed += 1
        return removed

    def _table(self, location: str) -> Path:
        return safe_join(self._root, location)

    def _staged(self, location: str, write_id: str) -> Path:
        return safe_join(self._root, f"{location}/{_STAGED}/{write_id}")

    def _open(self, location: str, version: int | None = None) -> DeltaTable | None:
        from deltalake import DeltaTable  # heavy: imported late
        from deltalake.exceptions import DeltaError, TableNotFoundError  # heavy: imported late

        try:
            return DeltaTable(self._table(location), version=version)
        except TableNotFoundError:
            return None
        except (DeltaError, OSError, ValueError) as error:
            raise _damaged(location, error) from error

    def _writer_of(self, location: str, version: int) -> str | None:
        """The write that made a log entry, where it was one of ours.

        Read from the entry itself: `DeltaTable.history` numbers entries from the version that it had loaded, which is
        wrong once another writer has added one.
        """
        entry = self._table(location) / "_delta_log" / f"{version:020d}.json"
        try:
            lines = entry.read_text("utf-8").splitlines()
            found = [one["commitInfo"].get(WRITE_KEY) for one in map(json.loads, lines) if "commitInfo" in one]
        except FileNotFoundError:
            return None
        except (ValueError, AttributeError, TypeError) as error:
            raise _damaged(location, error) from error
        return next((str(one) for one in found if one is not None), None)

    def _move_in(self, location: str, commit: Commit) -> None:
        """Move staged files beside the log; what a run that was killed moved already is found there."""
        table, staged = self._table(location), self._staged(location, commit.write_id)
        for file in commit.files:
            if (staged / file.name).exists():
                (staged / file.name).rename(table / file.name)
            elif not (table / file.name).exists():
                raise EngineError(
                    f"file '{file.name}' of write {commit.write_id} is gone",
                    code="table.staged_missing",
                    hint="write the batch again",
                )
        sync_directory(table)
        shutil.rmtree(staged, ignore_errors=True)

    def _attempt(self, location: str, commit: Commit) -> int | None:
        """Try to be the next log entry. None where another writer came first; then it is tried again."""
        from deltalake.exceptions import CommitFailedError, DeltaError  # heavy: imported late

        try:
            return self._append_entry(location, commit)
        except CommitFailedError:
            pass
        except (DeltaError, OSError) as error:
            # The entry may be there although this failed afterwards: what the log says is true.
            found = self.committed(location, commit.write_id, commit.base_version)
            if found is None:
                raise _commit_error(location, error) from error
            return found
        return self.committed(location, commit.write_id, commit.base_version)

    def _append_entry(self, location: str, commit: Commit) -> int | None:
        from deltalake import CommitProperties, PostCommitHookProperties  # heavy: imported late
        from deltalake import Schema as DeltaSchema  # heavy: imported late
        from deltalake.transaction import create_table_with_add_actions  # heavy: imported late

        properties = CommitProperties(custom_metadata={WRITE_KEY: commit.write_id}, max_commit_retries=0)
        hooks = PostCommitHookProperties(create_checkpoint=True, cleanup_expired_logs=False)
        schema = DeltaSchema.from_arrow(commit.schema)
        table = self._open(location)
        actions = _actions(commit)
        if table is None:
            create_table_with_add_actions(
                str(self._table(location)), schema, actions, mode="error", configuration=_CONFIGURATION,
                commit_properties=properties, post_commithook_properties=hooks,
            )  # fmt: skip
        else:
            if commit.mode == "append" and _add_columns(table, commit.schema):
                return None
            table.create_write_transaction(
                actions, commit.mode, schema, commit_properties=properties, post_commithook_properties=hooks
            )
        return self.committed(location, commit.write_id, commit.base_version)

    def _make_durable(self, location: str) -> None:
        log = self._table(location) / "_delta_log"
        newest = max(log.glob("*.json"), default=None)
        if newest is not None:
            with newest.open("rb") as file:
                os.fsync(file.fileno())
        sync_directory(log)

    def _read_snapshot(self, location: str, version: int) -> Snapshot:
        import pyarrow as pa  # heavy: imported late

        table = self._open(location, version)
        if table is None:
            raise NotFound(f"there is no table '{location}'", code="table.not_found")
        adds = pa.table(table.get_add_actions(flatten=False))
        paths = tuple(self._table(location) / unquote(path) for path in adds["path"].to_pylist())
        rows = sum(count or 0 for count in adds["num_records"].to_pylist())
        size_bytes = sum(adds["size_bytes"].to_pylist())
        return Snapshot(version, pa.schema(table.schema().to_arrow()), tuple(sorted(paths)), size_bytes, rows)


def _batches(source: pa.RecordBatchReader, schema: pa.Schema, watch: Watch | None) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa  # heavy: imported late

    try:
        for batch in source:
            if batch.num_rows:
                fit = cast_batch(batch, schema)
                if watch is not None:
                    watch(fit)
                yield fit
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        raise InvalidInput(
            f"the data cannot be read to its end: {error}",
            code="dataset.data_corrupt",
            hint="it may be truncated; produce it again",
        ) from error


def _write_files(directory: Path, write_id: str, batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> list[str]:
    """Write Parquet files of bounded size from row groups of bounded size, and make them durable."""
    names: list[str] = []
    groups = _row_groups(batches)
    group = next(groups, None)
    while group is not None:
        name = f"{write_id}-{len(names):05d}.parquet"
        group = _write_file(directory / name, group, groups, schema)
        names.append(name)
    return names


def _write_file(file: Path, group: pa.Table | None, groups: Iterator[pa.Table], schema: pa.Schema) -> pa.Table | None:
    """Write one file from `group` on until it is large enough. Returns the group that the next file starts with."""
    import pyarrow as pa  # heavy: imported late
    import pyarrow.parquet as pq  # heavy: imported late

    # Bounds of floats leave NaN out, so a reader that skips by them loses rows: `x > 2` is true of NaN in SQL.
    bounded = [field.name for field in schema if not pa.types.is_floating(field.type) and not field.type.num_fields]
    options: dict[str, Any] = {
        "compression": "zstd",
        "compression_level": 1,
        "write_statistics": bounded,
        # Without it a damaged page decodes to other numbers, and nobody notices.
        "write_page_checksum": True,
    }
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as sink:
        with pq.ParquetWriter(sink, schema, **options) as writer:
            while group is not None and sink.tell() < _FILE_BYTES:
                writer.write_table(group, row_group_size=_GROUP_ROWS)
                group = next(groups, None)
        sink.flush()
        os.fsync(sink.fileno())
    return group


def _row_groups(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    import pyarrow as pa  # heavy: imported late

    held: list[pa.RecordBatch] = []
    rows = size_bytes = 0
    for batch in batches:
        held.append(batch)
        rows += batch.num_rows
        size_bytes += batch.nbytes
        if rows >= _GROUP_ROWS or size_bytes >= _GROUP_BYTES:
            yield pa.Table.from_batches(held)
            held, rows, size_bytes = [], 0, 0
    if held:
        yield pa.Table.from_batches(held)


def _describe(file: Path) -> StagedFile:
    import pyarrow.parquet as pq  # heavy: imported late

    metadata = pq.read_metadata(file)
    return StagedFile(file.name, file.stat().st_size, metadata.num_rows, json.dumps(file_stats(metadata)))


def _actions(commit: Commit) -> list[Any]:
    from deltalake.transaction import AddAction, RemoveAction  # heavy: imported late

    now_ms = int(time.time() * 1000)
    added = [AddAction(file.name, file.size_bytes, {}, now_ms, True, file.stats) for file in commit.files]
    return [*added, *(RemoveAction(name, True, now_ms) for name in commit.remove)]


def _add_columns(table: DeltaTable, wanted: pa.Schema) -> bool:
    """Give the table the columns of `wanted` that it lacks, in an entry of its own that changes no rows."""
    import pyarrow as pa  # heavy: imported late
    from deltalake import CommitProperties  # heavy: imported late
    from deltalake import Schema as DeltaSchema  # heavy: imported late

    known = set(pa.schema(table.schema().to_arrow()).names)
    missing = [field for field in wanted if field.name not in known]
    if missing:
        fields = DeltaSchema.from_arrow(pa.schema(missing)).fields
        table.alter.add_columns(fields, commit_properties=CommitProperties(max_commit_retries=0))
    return bool(missing)


@contextmanager
def storage_errors() -> Iterator[None]:
    """Turn a full disk into Unavailable (`table.disk_full`)."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise _disk_full() from error
        raise


def _damaged(location: str, error: Exception) -> EngineError:
    return EngineError(
        f"the log of table '{location}' cannot be read: {error}",
        code="table.log_damaged",
        hint="restore the table's `_delta_log` from a backup",
    )


def _disk_full() -> Unavailable:
    return Unavailable(
        "the disk of the tables is full; the dataset is unchanged",
        code="table.disk_full",
        hint="free some space and write the batch again",
    )


def _commit_error(location: str, error: Exception) -> Exception:
    if "No space left" in str(error) or "os error 28" in str(error) or "File too large" in str(error):
        return _disk_full()
    return EngineError(f"table '{location}' could not be committed: {error}", code="table.commit_failed")
