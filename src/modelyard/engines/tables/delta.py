"""Tables as Delta Lake: Parquet files and a log, which any other Delta reader opens.

A write goes aside first, to `<table>/_staged/<write id>/`, where Delta readers do not look. Committing moves the files
beside the log and adds them to it in one log entry, without writing the data again. The entry carries the write's id,
so that after a crash it can be told whether the commit happened, and repeating it does nothing.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from modelyard.engines.tables.arrow import cast_batch, staged_schema
from modelyard.engines.tables.base import ELSEWHERE, Commit, DataFile, Snapshot, Staged, StagedFile, Watch
from modelyard.engines.tables.delta_log import (
    CHECKPOINT_EVERY,
    LOG,
    damaged,
    versions_after,
    write_entry,
    writer_of,
)
from modelyard.engines.tables.folders import require_as_it_was
from modelyard.engines.tables.parquet import check_partition_columns, write_files
from modelyard.kernel.disk import full_disk
from modelyard.kernel.errors import EngineError, InvalidInput, NotFound
from modelyard.kernel.paths import make_private, safe_join, sync_directory

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import DeltaTable

_STAGED = "_staged"
_LOCK = "_lock"


class DeltaTables:
    """Delta tables below one directory of this machine. Safe for many threads and processes at once."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @contextmanager
    def exclusive(self, location: str) -> Iterator[None]:
        # A lock of the kernel's: it is released when its holder dies, so no crash leaves it behind.
        with open(os.open(self._lock_file(location), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600), "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def stage(
        self,
        location: str,
        write_id: str,
        source: pa.RecordBatchReader,
        target: pa.Schema | None,
        partition_by: Sequence[str] = (),
        part: str = "",
        watch: Watch | None = None,
    ) -> Staged:
        schema = staged_schema(source.schema, target)
        check_partition_columns(schema, partition_by)
        directory = self._staged(location, write_id)
        self.unstage(location, write_id, part)
        finished = False
        try:
            with storage_errors():
                make_private(directory)
                files = write_files(directory, write_id + part, _batches(source, schema, watch), schema, partition_by)
                sync_directory(directory)
            finished = True
        finally:
            if not finished:
                self.unstage(location, write_id, part)
        return Staged(write_id, schema, files)

    def unstage(self, location: str, write_id: str, part: str) -> None:
        directory = self._staged(location, write_id)
        for file in directory.glob(f"{write_id}{part}-*.parquet"):
            file.unlink(missing_ok=True)
        with suppress(OSError):
            directory.rmdir()

    def staged(self, location: str, write_id: str) -> tuple[Path, ...]:
        return tuple(sorted(self._staged(location, write_id).glob(f"{write_id}-*.parquet")))

    def staged_paths(self, location: str, write_id: str, names: Sequence[str]) -> tuple[Path, ...]:
        directory = self._staged(location, write_id)
        return tuple(directory / name for name in names)

    def discard(self, location: str, write_id: str) -> None:
        directory = self._staged(location, write_id)
        if directory.exists():
            shutil.rmtree(directory, ignore_errors=True)

    def withdraw(self, location: str, commit: Commit) -> None:
        self.discard(location, commit.write_id)
        for file in commit.files:
            (self._table(location) / file.name).unlink(missing_ok=True)

    def place(self, location: str, write_id: str, files: Sequence[StagedFile]) -> None:
        with storage_errors():
            self._move_in(location, write_id, files)
        self.discard(location, write_id)

    def commit(self, location: str, commit: Commit) -> int:
        found = self.committed(location, commit.write_id, commit.base_version)
        if found is not None:
            return found
        with storage_errors():
            self._move_in(location, commit.write_id, commit.files)
            version = self._append_entry(location, commit)
        self.discard(location, commit.write_id)
        if version % CHECKPOINT_EVERY == CHECKPOINT_EVERY - 1:
            self._checkpoint(location)
        return version

    def committed(self, location: str, write_id: str, since: int | None) -> int | None:
        table = self._table(location)
        return next((one for one in versions_after(table, since) if writer_of(table, one) == write_id), None)

    def head(self, location: str, since: int | None) -> int | None:
        return max(versions_after(self._table(location), since), default=since)

    def paths(self, location: str, files: Sequence[DataFile]) -> tuple[Path, ...]:
        table = self._table(location)
        return tuple(table / file.name for file in files)

    def require_unchanged(self, location: str, files: Sequence[DataFile]) -> None:
        for path, file in zip(self.paths(location, files), files, strict=True):
            require_as_it_was(path, file)

    def snapshot(self, location: str, version: int) -> Snapshot:
        import pyarrow as pa  # heavy: imported late

        table = self._open(location, version)
        if table is None:
            raise NotFound(f"there is no table '{location}'", code="table.not_found")
        held = tuple(sorted(_held(table, self._table(location), location), key=lambda one: one.name))
        return Snapshot(
            version=version,
            schema=pa.schema(table.schema().to_arrow()),
            files=self.paths(location, held),
            size_bytes=sum(one.size_bytes for one in held),
            rows=sum(one.rows for one in held),
            held=held,
        )

    def remove(self, location: str, keep: frozenset[str], age_s_min: float) -> tuple[int, int]:
        table = self._table(location)
        count = size_bytes = 0
        before = time.time() - age_s_min
        for file in table.rglob("*.parquet"):
            name = file.relative_to(table).as_posix()
            if name.startswith("_") or name in keep:
                continue
            with suppress(FileNotFoundError):
                found = file.stat()
                if found.st_mtime <= before:
                    file.unlink()
                    count, size_bytes = count + 1, size_bytes + found.st_size
        return count, size_bytes

    def sweep(self, location: str, keep: Sequence[str], older_than: datetime) -> int:
        kept = frozenset(keep)
        removed = 0
        for directory in (self._table(location) / _STAGED).glob("*"):
            if directory.name not in kept and directory.stat().st_mtime < older_than.timestamp():
                shutil.rmtree(directory, ignore_errors=True)
                removed += 1
        return removed

    def _table(self, location: str) -> Path:
        if location.startswith(ELSEWHERE):
            return Path(location.removeprefix(ELSEWHERE))
        return safe_join(self._root, location)

    def _lock_file(self, location: str) -> Path:
        if location.startswith(ELSEWHERE):
            named = hashlib.sha256(location.encode()).hexdigest()
            return make_private(self._root / "_locks") / named
        return make_private(self._table(location)) / _LOCK

    def _staged(self, location: str, write_id: str) -> Path:
        if location.startswith(ELSEWHERE):
            return self._root / "_locks" / _STAGED / write_id
        return safe_join(self._root, f"{location}/{_STAGED}/{write_id}")

    def _open(self, location: str, version: int | None = None) -> DeltaTable | None:
        from deltalake import DeltaTable  # heavy: imported late
        from deltalake.exceptions import DeltaError, TableNotFoundError  # heavy: imported late

        table = self._table(location)
        try:
            return DeltaTable(table, version=version)
        except TableNotFoundError:
            return None
        except (DeltaError, OSError, ValueError) as error:
            raise damaged(table, error) from error

    def _move_in(self, location: str, write_id: str, files: Sequence[StagedFile]) -> None:
        """Move staged files beside the log; what a run that was killed moved already is found there."""
        if not files:
            return
        table, staged = self._table(location), self._staged(location, write_id)
        for file in files:
            if (staged / file.name).exists():
                (staged / file.name).rename(table / file.name)
            elif not (table / file.name).exists():
                raise EngineError(
                    f"file '{file.name}' of write {write_id} is gone",
                    code="table.staged_missing",
                    hint="write the batch again",
                )
        sync_directory(table)

    def _append_entry(self, location: str, commit: Commit) -> int:
        version = 0 if commit.base_version is None else commit.base_version + 1
        write_entry(self._table(location), version, commit, self._staged(location, commit.write_id) / "entry.json")
        return version

    def _checkpoint(self, location: str) -> None:
        """Let readers of the log begin here. Without one they only read longer, so its failure is no failure."""
        from deltalake.exceptions import DeltaError  # heavy: imported late

        with suppress(DeltaError, OSError, EngineError):
            table = self._open(location)
            if table is not None:
                table.create_checkpoint()


def _held(table: DeltaTable, table_root: Path, location: str) -> Iterator[DataFile]:
    import pyarrow as pa  # heavy: imported late

    adds = pa.table(table.get_add_actions(flatten=False))
    names = [unquote(path) for path in adds["path"].to_pylist()]
    partitioned = table.metadata().partition_columns
    partitions = _partitions(adds, partitioned)
    columns = (names, adds["size_bytes"].to_pylist(), adds["num_records"].to_pylist(), partitions)
    for name, size_bytes, rows, partition in zip(*columns, strict=True):
        if name.startswith("/") or ".." in name.split("/") or "://" in name:
            raise EngineError(
                f"the log of table '{location}' names a file outside of the table: {name[:200]!a}",
                code="table.path_outside",
                hint="such a table can be imported by a reader that follows it, but not be read in place",
            )
        if rows is None:
            rows = _rows_in(table_root / name)
        yield DataFile(name, size_bytes, rows, 0, partition, not partitioned)


def _rows_in(file: Path) -> int:
    import pyarrow as pa  # heavy: imported late
    import pyarrow.parquet as pq  # heavy: imported late

    try:
        return int(pq.read_metadata(file).num_rows)
    except (pa.ArrowInvalid, OSError) as error:
        raise EngineError(
            f"file '{file.name}' of the table cannot be read: {str(error).replace(str(file), file.name)}",
            code="table.file_damaged",
            hint="restore the file from a backup",
        ) from error


def _partitions(adds: pa.Table, partitioned: Sequence[str]) -> list[dict[str, str | None]]:
    if not partitioned:
        return [{}] * adds.num_rows
    found = adds["partition"].combine_chunks().to_pylist()
    return [{name: _text(values.get(name)) for name in partitioned} for values in found]


def _text(value: object) -> str | None:
    if value is None:
        return None
    return str(value).lower() if isinstance(value, bool) else str(value)


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


def storage_errors() -> AbstractContextManager[None]:
    """Turn a full disk into Unavailable (`table.disk_full`)."""
    return full_disk(
        "the disk of the tables is full; the dataset is unchanged",
        code="table.disk_full",
        hint="free some space and write the batch again",
    )


__all__ = ["LOG", "DeltaTables", "storage_errors"]
