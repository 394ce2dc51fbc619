"""Folders that others wrote: whether they can be read as they are, and which files of them make up the table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from modelyard.engines.tables.arrow import normalised_schema
from modelyard.engines.tables.base import DataFile, Snapshot
from modelyard.kernel.errors import EngineError, InvalidInput
from modelyard.kernel.paths import collision_key

if TYPE_CHECKING:
    import pyarrow as pa

NO_LOG = -1
"""The version of a folder without a log."""
_ENTRY = re.compile(r"(\d{20})\.json")
_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint.*\.parquet")
_NULL = "__HIVE_DEFAULT_PARTITION__"
# Features that change nothing in how the files of a version are read.
_HARMLESS = frozenset({"v2Checkpoint", "vacuumProtocolCheck"})


def require_plain_delta(folder: Path) -> int:
    """The newest version of a Delta table whose files alone say what its rows are.

    Raises EngineError for a damaged log, with the place; InvalidInput where deletion vectors, mapped columns or other
    features of the table mean that its files must not be read as they are.
    """
    from deltalake import DeltaTable  # heavy: imported late
    from deltalake.exceptions import DeltaError  # heavy: imported late

    _require_no_gap(folder)
    try:
        table = DeltaTable(folder)
        protocol, configuration = table.protocol(), table.metadata().configuration
    except (DeltaError, OSError, ValueError) as error:
        raise EngineError(
            f"the Delta log of {folder} cannot be read: {error}",
            code="table.log_damaged",
            hint="restore its `_delta_log` from a backup",
        ) from error
    features = set(protocol.reader_features or ()) - _HARMLESS
    if protocol.min_reader_version == 2 or configuration.get("delta.columnMapping.mode", "none") != "none":
        features.add("columnMapping")
    if features:
        raise InvalidInput(
            f"the table in {folder} uses {', '.join(sorted(features))}: its files cannot be read as they are",
            code="dataset.not_in_place",
            hint="import it with `modelyard dataset import`, which reads it through its log",
        )
    version: int = table.version()
    return version


def _require_no_gap(folder: Path) -> None:
    log = folder / "_delta_log"
    entries = {int(found[1]) for file in log.iterdir() if (found := _ENTRY.fullmatch(file.name))}
    checkpoints = {int(found[1]) for file in log.iterdir() if (found := _CHECKPOINT.fullmatch(file.name))}
    if not entries and not checkpoints:
        raise EngineError(f"the Delta log of {folder} has no entry", code="table.log_damaged")
    newest = max(entries | checkpoints)
    since = max(checkpoints, default=-1)
    missing = [version for version in range(since + 1, newest + 1) if version not in entries]
    if missing:
        raise EngineError(
            f"the Delta log of {folder} has a gap: entry {missing[0]:020d}.json is missing",
            code="table.log_damaged",
            hint="restore it from a backup; without it the table's rows cannot be known",
        )


def parquet_folder(folder: Path) -> Snapshot:
    """The Parquet files below a folder as one table. Names such as `month=3` in their paths are columns.

    Raises EngineError naming a file that is damaged, InvalidInput naming one that does not fit the others.
    """

    names = _parquet_names(folder)
    if not names:
        raise InvalidInput(
            f"there is neither a Delta table nor a Parquet file in {folder}",
            code="dataset.nothing_to_register",
            hint="import CSV and JSON lines with `modelyard dataset import`",
        )
    partitions = [_partition_of(name) for name in names]
    outside = _partition_schema(names, partitions)
    held: list[DataFile] = []
    schema: pa.Schema | None = None
    for name, partition in zip(names, partitions, strict=True):
        found, rows = _footer(folder / name)
        schema = _joined(schema, _readable_in_place(found, name), name)
        found_at = (folder / name).stat()
        modified_us = found_at.st_mtime_ns // 1_000
        held.append(DataFile(name, found_at.st_size, rows, 0, partition, not outside, modified_us))
    assert schema is not None
    for field in outside:
        schema = schema if field.name in schema.names else schema.append(field)
    return Snapshot(
        version=NO_LOG,
        schema=schema,
        files=tuple(folder / name for name in names),
        size_bytes=sum(one.size_bytes for one in held),
        rows=sum(one.rows for one in held),
        held=tuple(held),
    )


def require_as_it_was(path: Path, file: DataFile) -> None:
    """Raise EngineError where a file is not the one that was taken over."""
    try:
        found = path.stat()
    except FileNotFoundError:
        found = None
    if found is None or found.st_size != file.size_bytes or found.st_mtime_ns // 1_000 != file.modified_us:
        raise EngineError(
            f"{path} was {'removed' if found is None else 'changed'} since it was taken over: the version is gone",
            code="table.file_changed",
            hint="take the folder over as it is now with `modelyard dataset sync`; import what must stay",
        )


def _parquet_names(folder: Path) -> list[str]:
    names: list[str] = []
    seen: dict[str, str] = {}
    for file in sorted(folder.rglob("*.parquet")):
        name = file.relative_to(folder).as_posix()
        if any(part.startswith(("_", ".")) for part in name.split("/")):
            continue
        if file.is_symlink() or not file.is_file():
            raise InvalidInput(
                f"'{name}' in {folder} is no plain file", code="dataset.not_in_place", hint="links are never followed"
            )
        other = seen.setdefault(collision_key(name), name)
        if other != name:
            raise InvalidInput(
                f"'{other}' and '{name}' in {folder} differ in case only",
                code="dataset.names_collide",
                hint="rename one: on other disks they would be one file",
            )
        names.append(name)
    return names


def _footer(file: Path) -> tuple[pa.Schema, int]:
    import pyarrow as pa  # heavy: imported late
    import pyarrow.parquet as pq  # heavy: imported late

    try:
        with pq.ParquetFile(file) as opened:
            return opened.schema_arrow, int(opened.metadata.num_rows)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise EngineError(
            f"{file} is no readable Parquet file: {str(error).splitlines()[0]}",
            code="table.file_damaged",
            hint="it may be truncated; produce it again",
        ) from error


def _readable_in_place(schema: pa.Schema, name: str) -> pa.Schema:
    """The schema under which a file is read as it is. Raises InvalidInput for a type that would have to be changed."""
    import pyarrow as pa  # heavy: imported late

    kept = normalised_schema(schema)
    for before, after in zip(schema, kept, strict=True):
        texts = (pa.string(), pa.binary())
        if before.type != after.type and after.type not in texts:
            raise InvalidInput(
                f"column '{before.name}' of '{name}' is {before.type}, which is kept as {after.type}",
                code="dataset.not_in_place",
                hint="import the folder with `modelyard dataset import`, which converts it",
            )
    return kept


def _joined(known: pa.Schema | None, found: pa.Schema, name: str) -> pa.Schema:
    if known is None:
        return found
    for field in found:
        if field.name not in known.names:
            known = known.append(field)
        elif known.field(field.name).type != field.type:
            raise InvalidInput(
                f"column '{field.name}' is {field.type} in '{name}' and {known.field(field.name).type} before it",
                code="dataset.files_differ",
                hint="bring the files to one type, or import them one by one",
            )
    return known


def _partition_of(name: str) -> dict[str, str | None]:
    parts = [part.partition("=") for part in name.split("/")[:-1]]
    return {key: None if value == _NULL else unquote(value) for key, sign, value in parts if sign and key}


def _partition_schema(names: Sequence[str], partitions: Sequence[dict[str, str | None]]) -> pa.Schema:
    import pyarrow as pa  # heavy: imported late

    first = list(partitions[0])
    for name, partition in zip(names, partitions, strict=True):
        if list(partition) != first:
            raise InvalidInput(
                f"'{name}' is not partitioned as '{names[0]}' is",
                code="dataset.files_differ",
                hint="give every file a path of the same `column=value` parts",
            )
    kinds = []
    for column in first:
        values = [one[column] for one in partitions]
        whole = all(value is None or re.fullmatch(r"-?(0|[1-9]\d{0,17})", value) for value in values)
        kinds.append(pa.field(column, pa.int64() if whole else pa.string()))
    return pa.schema(kinds)
