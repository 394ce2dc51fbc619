"""The verbs of datasets."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from modelyard.engines.blobs.base import BlobStore
from modelyard.engines.tables.base import FileSet, Snapshot, TableStore
from modelyard.engines.tables.sql import GIB, Later, SqlLimits, SqlSession, sandbox
from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database
from modelyard.kernel.errors import Conflict, InvalidInput, NotFound
from modelyard.kernel.ids import new_id
from modelyard.kernel.limits import PAGE_ITEMS_DEFAULT
from modelyard.kernel.reconcile import Reconciler
from modelyard.planes.data import store
from modelyard.planes.data.anomalies import Anomalies, FreshnessWatch
from modelyard.planes.data.audit import columns_of
from modelyard.planes.data.branches import Branches, dataset_row
from modelyard.planes.data.buffers import Buffers
from modelyard.planes.data.checking import Checking
from modelyard.planes.data.checks import DATASET, report_sent
from modelyard.planes.data.comparison import compare_profiles
from modelyard.planes.data.consumers import Consumers
from modelyard.planes.data.contracts import Contracts
from modelyard.planes.data.derivation import Derivations, Derived, source_text
from modelyard.planes.data.diff import Diffs
from modelyard.planes.data.file_branches import FileBranches
from modelyard.planes.data.file_vacuum import FileVacuum
from modelyard.planes.data.guards import Guards
from modelyard.planes.data.layout import Layout
from modelyard.planes.data.paging import page_size, page_token
from modelyard.planes.data.profile import wire_row
from modelyard.planes.data.quarantine import Quarantine
from modelyard.planes.data.reading import Reader
from modelyard.planes.data.reconcile import BufferFlush, PublicationRecovery, RetentionVacuum, StagedSweep
from modelyard.planes.data.refs import Ref, check_ref_name, resolve_number
from modelyard.planes.data.sources import Sources
from modelyard.planes.data.states import States
from modelyard.planes.data.upkeep import Upkeep
from modelyard.planes.data.writing import Writer, WriteRequest
from modelyard.types.contracts import CreateFromSql
from modelyard.types.data import (
    Check,
    Dataset,
    DatasetKind,
    DatasetVersion,
    Profile,
    Retention,
    Rows,
    WriteMode,
    WriteResult,
)
from modelyard.types.data_branches import DatasetFiles
from modelyard.types.page import Page
from modelyard.types.profiles import ProfileDiff

if TYPE_CHECKING:
    import pyarrow as pa

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
ROWS_SHOWN_MAX = 1_000


class Data:
    """Datasets with immutable versions; writing is write-audit-publish.

    `tables` holds the rows, the catalog everything else. `spill` is where SQL may put what does not fit in memory,
    `buffers` where small appends wait.
    `spool()` names a new file for a body that is being received.
    """

    def __init__(
        self,
        database: Database,
        tables: TableStore,
        spill: Path | None = None,
        limits: SqlLimits | None = None,
        buffers: Path | None = None,
        blobs: BlobStore | None = None,
    ) -> None:
        self._database = database
        self._tables = tables
        self._spill = spill
        self._limits = limits or SqlLimits(memory_bytes=GIB)
        self._states = States(database, tables)
        self.reader = Reader(database, self._states, self._find, self._session)
        self._writer = Writer(database, tables, self._states, self._session, self.snapshot)
        self.checking = Checking(database, tables, self._states, self._find, self.snapshot, self._session)
        users = Consumers()
        self._guards = Guards(database, users)
        self.contracts = Contracts(database, partial(dataset_row, database), users)
        self.anomalies = Anomalies(database)
        self.derivations = Derivations(database, self.snapshot, self._session, self._write_derived)
        self.diffs = Diffs(database, self.snapshot, self._session)
        self.quarantine = Quarantine(database, tables, self._rows)
        self.upkeep = Upkeep(database, tables, self._writer.publisher, spill)
        of_files = None if blobs is None else FileBranches(database, blobs)
        self.branches = Branches(database, tables, self._states, self._writer.publisher, self._session, of_files)
        of_trees = None if blobs is None else FileVacuum(database, blobs)
        self.layout = Layout(database, tables, self._states, self._writer.publisher, of_trees)
        self.sources = Sources(self.create, database, tables, self._states, self._writer)
        kept = buffers or (spill or Path(gettempdir()) / "modelyard" / "spill").parent / "buffers"
        self.buffers = Buffers(database, self._states, self._writer, kept)
        self.spool: Callable[[], Path] = self.upkeep.spool

    # --- datasets ---------------------------------------------------------------------------------------------

    def create(
        self,
        scope: Scope,
        name: str,
        *,
        description: str = "",
        key: Sequence[str] = (),
        checks: Sequence[Check] = (),
        partition_by: Sequence[str] = (),
        location: str = "",
        kind: DatasetKind = "table",
    ) -> Dataset:
        """A new dataset without versions. Raises InvalidInput for its name, Conflict where there is one.

        `location` is for tables of somebody else's that are read in place.
        """
        if not _NAME.fullmatch(name):
            raise InvalidInput(
                f"{name[:130]!a} cannot name a dataset",
                code="dataset.name_invalid",
                hint="use letters, digits, '.', '_' or '-', beginning with a letter or digit, at most 128",
            )
        with self._database.transaction(scope) as tx:
            taken = store.dataset_folded(tx, name.casefold())
            if taken is not None:
                same = "" if taken == name else "; names are compared without case"
                raise Conflict(f"dataset '{taken}' exists already{same}", code="dataset.exists")
            values = {
                "id": new_id(), "name": name, "name_folded": name.casefold(), "kind": kind,
                "location": location or f"{tx.project}/{name}", "description": description, "key": list(key),
                "checks": list(checks), "latest": 0, "last": 0, "rows": 0, "size_bytes": 0,
                "partition_by": list(partition_by), "created_at": tx.now, "created_by": tx.actor, "updated_at": tx.now,
            }  # fmt: skip
            store.insert_dataset(tx, values)
            tx.event("dataset.created", f"dataset:{name}", {"description": description})
        return self.get(scope, name)

    def get(self, scope: Scope, name: str) -> Dataset:
        """A dataset. Raises NotFound."""
        return dataset_row(self._database, scope, name).noun

    def list(self, scope: Scope, *, after: str | None = None, limit: int = PAGE_ITEMS_DEFAULT) -> Page[Dataset]:
        """Datasets by name."""
        limit = page_size(limit)
        with self._database.reading(scope) as tx:
            found = store.list_datasets(tx, after or "", limit + 1)
        return Page(found[:limit], found[limit - 1].name if len(found) > limit else None)

    def update(
        self,
        scope: Scope,
        name: str,
        *,
        description: str | None = None,
        key: Sequence[str] | None = None,
        checks: Sequence[Check] | None = None,
        retention: Retention | None = None,
    ) -> Dataset:
        """Change what is not None. Checks hold for writes from now on."""
        wanted = {"description": description, "key": key, "checks": checks, "retention": retention}
        changed = {field: value for field, value in wanted.items() if value is not None}
        row = dataset_row(self._database, scope, name)
        if changed:
            with self._database.transaction(scope) as tx:
                store.update_dataset(tx, row.id, changed)
                tx.event("dataset.updated", f"dataset:{name}", {"fields": sorted(changed)})
        return self.get(scope, name)

    # --- writing ----------------------------------------------------------------------------------------------

    def write(
        self,
        scope: Scope,
        name: str,
        batches: Any,
        *,
        mode: WriteMode = "append",
        idempotency_key: str | None = None,
        checks: Sequence[Check] | None = None,
        source: str = "",
        evolve: bool = False,
        replace_schema: bool = False,
        create: bool = False,
        branch: str = store.MAIN,
        where: str | None = None,
        on: Sequence[str] = (),
        breaking: bool = False,
        derived: Sequence[Derived] = (),
    ) -> WriteResult:
        """Write a batch aside, check it, and publish it as the next version, or keep it in quarantine.

        `batches`: an Arrow table, reader or iterable of batches, or a frame with the Arrow stream interface. A `merge`
        replaces the rows that have a key of the batch and adds the others; the key is `on`, or the dataset's. With
        `where` an `overwrite` replaces the rows that meet that condition, which the new ones must meet too. `checks`
        come on top of the dataset's own. `evolve` lets a write add columns, and an overwrite of all widen them;
        `replace_schema` lets that bring any other schema. Who would break by it is named in the report, and the batch
        kept aside, unless `breaking`. `derived`: what SQL made the rows of. A write repeated with its
        `idempotency_key` has the result of the first. Raises NotFound (unless `create`), InvalidInput for an empty
        batch, values that no table can hold or keys that are null or there twice, Unavailable on a full disk: then the
        dataset is as it was.
        """
        if mode not in ("append", "overwrite", "merge"):
            raise InvalidInput(
                f"{str(mode)[:40]!a} is no way to write",
                code="dataset.mode_invalid",
                hint="use append, overwrite or merge",
            )
        if where is not None and mode != "overwrite":
            raise InvalidInput(
                f"a condition says which rows an overwrite replaces; it means nothing for {mode}",
                code="dataset.mode_invalid",
            )
        if replace_schema and (mode != "overwrite" or where is not None):
            raise InvalidInput(
                "only an overwrite of all rows can replace the schema, since rows that stay have the one that there is",
                code="dataset.mode_invalid",
                hint="overwrite without a condition, or add columns with `evolve`",
            )
        row = self._row_or_new(scope, name) if create else dataset_row(self._database, scope, name)
        row.require("table")
        guard = self._guards.of(scope, row, mode, breaking=breaking)
        request = WriteRequest(
            mode=mode,
            checks=(*row.noun.checks, *guard.checks, *(checks or ())),
            source=source,
            evolve=evolve,
            replace_schema=replace_schema,
            idempotency_key=idempotency_key,
            branch=branch,
            where=where,
            on=tuple(on),
            guard=guard,
            derived=tuple(derived),
        )
        return _result_sent(self._writer.write(scope, row, request, batches))

    def delete_rows(
        self,
        scope: Scope,
        name: str,
        where: str,
        *,
        branch: str = store.MAIN,
        source: str = "",
        idempotency_key: str | None = None,
    ) -> WriteResult:
        """Make a version without the rows that meet an SQL condition; the dataset's checks run over what is left.

        `unchanged` where no row meets it. Raises InvalidInput for what is no condition on the rows.
        """
        row = dataset_row(self._database, scope, name)
        guard = self._guards.of(scope, row, "delete")
        request = WriteRequest(
            mode="delete", checks=(*row.noun.checks, *guard.checks), source=source, where=where, branch=branch,
            idempotency_key=idempotency_key, guard=guard,
        )  # fmt: skip
        return _result_sent(self._writer.write(scope, row, request, None))

    def append(self, scope: Scope, name: str, batches: Any, *, source: str = "", **options: Any) -> DatasetVersion:
        """Append and return the new version. Raises Conflict (`dataset.quarantined`) where a check turned it down."""
        written = self.write(scope, name, batches, mode="append", source=source, **options)
        if written.version is None:
            reasons = "; ".join(f"{one.name}: {one.message}" for one in written.report.failed[:3])
            raise Conflict(
                f"the batch was not added to dataset '{name}': {reasons}",
                code="dataset.quarantined",
                hint=f"look at it with `modelyard dataset quarantine get {name} {written.quarantine_id}`",
                details={"quarantine_id": written.quarantine_id},
            )
        return self.resolve(scope, name, written.version)

    # --- reading ----------------------------------------------------------------------------------------------

    def resolve(self, scope: Scope, name: str, ref: Ref = None) -> DatasetVersion:
        """The version that a reference names: a number, a tag, a branch, an instant (`2013-04-01T00:00Z`: what `main`
        was then), or None, `main` or `latest` for the newest."""
        return _as_sent(self._resolve(scope, dataset_row(self._database, scope, name), ref).noun)

    def versions(
        self, scope: Scope, name: str, *, after: str | None = None, limit: int = PAGE_ITEMS_DEFAULT
    ) -> Page[DatasetVersion]:
        """Versions, newest first, without their reports and profiles."""
        limit = page_size(limit)
        row = dataset_row(self._database, scope, name)
        with self._database.reading(scope) as tx:
            found = store.list_versions(tx, row, page_token(after), limit + 1)
        return Page(found[:limit], str(found[limit - 1].version) if len(found) > limit else None)

    def read(
        self, scope: Scope, name: str, ref: Ref = None, columns: Sequence[str] | None = None, filter: str | None = None
    ) -> pa.Table:
        """Rows of a version as an Arrow table. `filter` is an SQL condition over its columns.

        A job that reads gets the edge `job:… used dataset:…@v`. Raises NotFound, InvalidInput.
        """
        import pyarrow as pa  # heavy: imported late

        schema, batches = self.stream(scope, name, ref, columns, filter)
        return pa.Table.from_batches(batches, schema=schema)

    def stream(
        self, scope: Scope, name: str, ref: Ref = None, columns: Sequence[str] | None = None, filter: str | None = None
    ) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        """As `read`, but in batches, for more than fits in memory. What is wrong with the request is raised at once."""
        found = self.reader.stream(scope, name, ref, columns, filter)
        return found.schema, found.batches

    def snapshot(self, scope: Scope, name: str, ref: Ref = None) -> tuple[DatasetVersion, Snapshot]:
        """A version with the files that hold it, for engines that read Parquet themselves. Counts as reading."""
        version, snapshot = self.reader.snapshot(scope, name, ref)
        return _as_sent(version), snapshot

    def _whole(self, scope: Scope, name: str, ref: Ref) -> tuple[DatasetVersion, Snapshot]:
        version, snapshot = self.reader.snapshot(scope, name, ref, whole=True)
        return _as_sent(version), snapshot

    def query(self, scope: Scope, statement: str, datasets: Mapping[str, Ref]) -> pa.Table:
        """Run one SELECT over the named datasets, each at its reference, in a sandbox that can read nothing else."""
        tables = {name: self._whole(scope, name, ref)[1].file_set for name, ref in datasets.items()}
        with self._session(tables) as session:
            return session.table(statement)

    def files(self, scope: Scope, name: str, ref: Ref = None) -> DatasetFiles:
        """The Parquet files of a version, for engines on this machine. Counts as reading."""
        version, snapshot = self._whole(scope, name, ref)
        table = snapshot.file_set
        return DatasetFiles(
            dataset=name,
            version=version.version,
            columns=version.columns,
            files=[str(file) for file in table.files],
            uniform=table.uniform,
            partitions=[dict(one) for one in table.partitions],
        )

    def rows(self, scope: Scope, name: str, ref: Ref = None, *, filter: str | None = None, limit: int = 100) -> Rows:
        """Some rows of a version as JSON can carry them, for looking at; at most 1,000."""
        return self._rows(self.snapshot(scope, name, ref)[1].file_set, filter, limit)

    def profile(self, scope: Scope, name: str, ref: Ref = None) -> Profile:
        """What the rows of a version look like. Raises NotFound where that was not looked at."""
        found = self._profiled(scope, name, ref)[1]
        return replace(found, columns=[replace(column, sketch="") for column in found.columns])

    def profile_diff(self, scope: Scope, name: str, before: Ref, after: Ref = None, other: str = "") -> ProfileDiff:
        """How the profiles of two versions differ, or those of a version and of one of the dataset `other`."""
        old, new = self._profiled(scope, name, before), self._profiled(scope, other or name, after)
        return compare_profiles(*old, *new)

    def _profiled(self, scope: Scope, name: str, ref: Ref) -> tuple[str, Profile]:
        found = self._resolve(scope, dataset_row(self._database, scope, name), ref).noun
        if found.profile is None:
            raise NotFound(f"version {found.version} of dataset '{name}' has no profile", code="dataset.no_profile")
        return found.urn, found.profile

    def _write_derived(
        self, scope: Scope, name: str, batches: Any, *, request: CreateFromSql, derived: Sequence[Derived]
    ) -> WriteResult:
        return self.write(
            scope, name, batches, mode=request.mode, source=source_text(request.statement), evolve=request.evolve,
            replace_schema=request.replace_schema, idempotency_key=request.key, create=True, derived=derived,
        )  # fmt: skip

    # --- tags -------------------------------------------------------------------------------------------------

    def tag(self, scope: Scope, name: str, tag: str, version: int) -> DatasetVersion:
        """Let a tag name a version; a tag that exists moves."""
        row = dataset_row(self._database, scope, name)
        check_ref_name(row.noun, tag, "tag")
        found = self._resolve(scope, row, version).noun
        with self._database.transaction(scope) as tx:
            store.set_tag(tx, row.id, tag, version)
            tx.event("dataset.tagged", found.urn, {"tag": tag})
        return self.resolve(scope, name, version)

    def untag(self, scope: Scope, name: str, tag: str) -> None:
        """Remove a tag. Raises NotFound."""
        row = dataset_row(self._database, scope, name)
        with self._database.transaction(scope) as tx:
            if not store.delete_tag(tx, row.id, tag):
                raise NotFound(f"dataset '{name}' has no tag '{tag}'", code="dataset.tag_not_found")
            tx.event("dataset.untagged", f"dataset:{name}", {"tag": tag})

    # --- within -----------------------------------------------------------------------------------------------

    def reconcilers(self) -> Sequence[Reconciler]:
        """What the reconcile loop runs for this plane."""
        return [
            PublicationRecovery(self.upkeep),
            StagedSweep(self.upkeep, self._database.clock),
            BufferFlush(self.buffers),
            RetentionVacuum(self.upkeep, self.layout, self._database.clock),
            FreshnessWatch(self._database),
        ]

    def _row_or_new(self, scope: Scope, name: str) -> store.DatasetRow:
        try:
            return dataset_row(self._database, scope, name)
        except NotFound:
            # Another writer may be making it at this moment; then it is there, which is what is wanted.
            with suppress(Conflict):
                self.create(scope, name)
            return dataset_row(self._database, scope, name)

    def _find(self, scope: Scope, name: str, ref: Ref) -> tuple[store.DatasetRow, store.VersionRow]:
        row = dataset_row(self._database, scope, name)
        row.require("table")
        return row, self._resolve(scope, row, ref)

    def _resolve(self, scope: Scope, row: store.DatasetRow, ref: Ref) -> store.VersionRow:
        name = row.noun.name
        with self._database.reading(scope) as tx:
            number = resolve_number(tx, row, ref)
            found = None if not number else store.version_row(tx, row, number)
        if number == 0:
            raise NotFound(
                f"dataset '{name}' has no version yet", code="dataset.empty", hint="write a first batch to it"
            )
        if found is None:
            raise NotFound(
                f"dataset '{name}' has no version {str(ref)[:128]!a}",
                code="dataset.version_not_found",
                hint=f"its newest is {row.noun.latest}; list them with `modelyard dataset versions {name}`",
            )
        return found

    def _rows(self, table: FileSet, filter: str | None, limit: int) -> Rows:
        with self._session({DATASET: table}) as session:
            if filter:
                session.check_condition(DATASET, filter)
            where = f" WHERE ({filter}\n)" if filter else ""
            rows = session.rows(f"SELECT * FROM {DATASET}{where} LIMIT {min(max(limit, 0), ROWS_SHOWN_MAX)}")
        return Rows(columns=columns_of(table.schema), rows=[wire_row(row) for row in rows])

    @contextmanager
    def _session(self, tables: Mapping[str, FileSet | pa.Table | Later]) -> Iterator[SqlSession]:
        with sandbox(tables, spill=self._spill, limits=self._limits) as session:
            yield session


def _result_sent(written: WriteResult) -> WriteResult:
    return replace(written, report=report_sent(written.report))


def _as_sent(version: DatasetVersion) -> DatasetVersion:
    """The version without the sketches and states, which only this plane can use."""
    if version.report is not None:
        version = replace(version, report=report_sent(version.report))
    if version.profile is None:
        return version
    columns = [replace(column, sketch="") for column in version.profile.columns]
    return replace(version, profile=replace(version.profile, columns=columns))
