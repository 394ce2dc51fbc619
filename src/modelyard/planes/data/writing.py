"""One write from its first byte to its verdict: stage, audit, then publish or quarantine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelyard.engines.tables.arrow import as_reader, scan
from modelyard.engines.tables.base import FileSet, Snapshot, Staged, TableStore
from modelyard.engines.tables.sql import SqlSession
from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database
from modelyard.kernel.errors import InvalidInput
from modelyard.kernel.ids import new_id
from modelyard.planes.data import store
from modelyard.planes.data.audit import Audited, columns_of, run_checks
from modelyard.planes.data.checks import BATCH, DATASET, implied_by_key
from modelyard.planes.data.profile import merge_profiles
from modelyard.planes.data.profiling import Profiler, profile_of
from modelyard.planes.data.publish import Publisher, make_plan
from modelyard.planes.data.schemas import resulting_schema, schema_result
from modelyard.types.data import Check, CheckReport, DatasetVersion, Profile, WriteMode, WriteResult

if TYPE_CHECKING:
    import pyarrow as pa

OpenSession = Callable[[Mapping[str, FileSet]], AbstractContextManager[SqlSession]]


@dataclass(frozen=True, slots=True)
class WriteRequest:
    """What a writer asks for, besides the rows."""

    mode: WriteMode
    checks: tuple[Check, ...]
    source: str
    evolve: bool
    idempotency_key: str | None


@dataclass(frozen=True, slots=True)
class Base:
    """The newest version at some moment, which a verdict is made over; both None before the first."""

    version: store.VersionRow | None = None
    snapshot: Snapshot | None = None

    @property
    def number(self) -> int:
        """Its number, 0 before the first."""
        return 0 if self.version is None else self.version.noun.version

    @property
    def schema(self) -> pa.Schema | None:
        """Its schema, None before the first."""
        return None if self.snapshot is None else self.snapshot.schema


class Writer:
    """Carries writes through. `publisher` ends those that a crash cut off."""

    def __init__(self, database: Database, tables: TableStore, open_session: OpenSession) -> None:
        self._database = database
        self._tables = tables
        self._open_session = open_session
        self.publisher = Publisher(database, tables)

    def write(self, scope: Scope, dataset: store.DatasetRow, request: WriteRequest, batches: Any) -> WriteResult:
        """Carry one write through. See `Data.write`."""
        earlier = self._earlier(scope, dataset, request)
        if earlier is not None:
            return earlier
        write_id = new_id()
        base = self._base(scope, dataset)
        with Profiler() as profiler:
            staged = self._tables.stage(dataset.location, write_id, as_reader(batches), base.schema, watch=profiler.add)
            profile = profiler.finish()
        try:
            if staged.rows == 0:
                raise InvalidInput(
                    f"the batch for dataset '{dataset.noun.name}' has no rows",
                    code="dataset.batch_empty",
                    hint="check what produced it; an empty batch is never a version",
                )
            audited = self._audit(dataset, request, base, staged, profile)
            return self._settle(scope, dataset, request, base, staged, audited)
        finally:
            if not self._is_recorded(scope, write_id):
                self._tables.discard(dataset.location, write_id)

    def _settle(
        self,
        scope: Scope,
        dataset: store.DatasetRow,
        request: WriteRequest,
        base: Base,
        staged: Staged,
        audited: Audited,
    ) -> WriteResult:
        """Under the table's lock: make the verdict one over the newest version, and carry it out."""
        with self._tables.exclusive(dataset.location):
            self.publisher.recover(scope, dataset)
            earlier = self._earlier(scope, dataset, request)
            if earlier is not None:
                return earlier
            newest = self._base(scope, dataset)
            if newest.number != base.number:
                base, audited = newest, self._audit(dataset, request, newest, staged, audited.batch)
            if audited.report.passed:
                return self._publish(scope, dataset, request, base, staged, audited)
            self.publisher.quarantine(
                scope,
                dataset,
                staged.write_id,
                mode=request.mode,
                rows=staged.rows,
                columns=columns_of(staged.schema),
                report=audited.report,
                source=request.source,
                idempotency_key=request.idempotency_key,
            )
        return WriteResult(
            dataset=dataset.noun.name,
            status="quarantined",
            rows=staged.rows,
            report=audited.report,
            quarantine_id=staged.write_id,
        )

    def _publish(
        self,
        scope: Scope,
        dataset: store.DatasetRow,
        request: WriteRequest,
        base: Base,
        staged: Staged,
        audited: Audited,
    ) -> WriteResult:
        schema = resulting_schema(staged.schema, base.schema, request.mode)
        before = base.snapshot if request.mode == "append" else None
        version = DatasetVersion(
            dataset=dataset.noun.name,
            version=base.number + 1,
            mode=request.mode,
            rows=staged.rows + (0 if before is None else before.rows),
            rows_written=staged.rows,
            size_bytes=staged.size_bytes + (0 if before is None else before.size_bytes),
            columns=columns_of(schema),
            created_at=self._database.clock.now(),
            created_by=scope.actor,
            source=request.source,
            report=audited.report,
            profile=audited.profile,
        )
        plan = make_plan(version, staged, schema, None if base.version is None else base.version.table_version)
        number = self.publisher.publish(scope, dataset, staged.write_id, plan, request.idempotency_key)
        return WriteResult(
            dataset=dataset.noun.name, status="published", rows=staged.rows, report=audited.report, version=number
        )

    def _audit(
        self, dataset: store.DatasetRow, request: WriteRequest, base: Base, staged: Staged, profile: Profile
    ) -> Audited:
        """Run all checks over the batch and the dataset as it would become; where they pass, merge their profiles."""
        now = self._database.clock.now()
        structure = schema_result(staged.schema, base.schema, request.mode, evolve=request.evolve)
        schema = resulting_schema(staged.schema, base.schema, request.mode)
        batch = FileSet(staged.schema, self._tables.staged(dataset.location, staged.write_id))
        keep = base.snapshot.files if base.snapshot is not None and request.mode == "append" else ()
        whole = FileSet(schema, (*keep, *batch.files))
        # Of another structure the two cannot be read as one table, so the dataset is looked at without the batch.
        tables = {BATCH: batch, DATASET: whole if structure.status == "passed" else batch}
        columns = columns_of(staged.schema)
        checks = [*implied_by_key(dataset.noun.key, {one.name: one.type for one in columns}), *request.checks]
        with self._open_session(tables) as session:
            results = [structure, *run_checks(session, checks, columns, now)]
        passed = all(one.status == "passed" or one.severity == "warn" for one in results)
        report = CheckReport(passed=passed, rows=staged.rows, results=results)
        merged = self._merged(base, profile, whole) if passed and keep else profile
        return Audited(report, merged if passed else None, batch=profile)

    def _merged(self, base: Base, batch: Profile, whole: FileSet) -> Profile:
        """The profile of the dataset with the batch in it, from what both say of themselves."""
        before = None if base.version is None else base.version.noun.profile
        merged = None if before is None else merge_profiles(before, batch)
        return merged or profile_of(whole.schema, scan(whole, whole.schema.names))

    def _base(self, scope: Scope, dataset: store.DatasetRow) -> Base:
        with self._database.reading(scope) as tx:
            row = store.dataset_named(tx, dataset.noun.name)
            newest = None if row is None or row.noun.latest == 0 else store.version_row(tx, row, row.noun.latest)
        if newest is None:
            return Base()
        return Base(newest, self._tables.snapshot(dataset.location, newest.table_version))

    def _earlier(self, scope: Scope, dataset: store.DatasetRow, request: WriteRequest) -> WriteResult | None:
        """The result of the write that had this idempotency key before."""
        if request.idempotency_key is None:
            return None
        with self._database.reading(scope) as tx:
            write = store.write_by_key(tx, dataset.id, request.idempotency_key)
        if write is None or write.status == store.PUBLISHING:
            return None
        published = write.status == store.PUBLISHED
        return WriteResult(
            dataset=dataset.noun.name,
            status="published" if published else "quarantined",
            rows=write.rows,
            report=write.report,
            version=write.version,
            quarantine_id=None if published else write.id,
        )

    def _is_recorded(self, scope: Scope, write_id: str) -> bool:
        with self._database.reading(scope) as tx:
            return store.write_row(tx, write_id) is not None
