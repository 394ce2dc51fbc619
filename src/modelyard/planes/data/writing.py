"""One write from its first byte to its verdict: stage, see what it does to the version before, audit, then publish or
quarantine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from modelyard.engines.tables.arrow import as_reader, scan
from modelyard.engines.tables.base import FileSet, Staged, StagedFile, TableStore, file_set
from modelyard.engines.tables.sql import Later
from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database
from modelyard.kernel.errors import Conflict, InvalidInput, NotFound
from modelyard.kernel.ids import new_id
from modelyard.planes.data import store
from modelyard.planes.data.anomaly_rules import Measure, measure_of
from modelyard.planes.data.audit import Audited, Auditor, Over, columns_of
from modelyard.planes.data.checks import DATASET, states_of
from modelyard.planes.data.checks.statements import Hints
from modelyard.planes.data.derivation import Derived
from modelyard.planes.data.file_profiles import FileProfile, Reprofiler, of_one_file
from modelyard.planes.data.file_states import FileStates, Staying
from modelyard.planes.data.file_states import of_one_file as states_of_one_file
from modelyard.planes.data.guards import Guard
from modelyard.planes.data.profile import merge_profiles
from modelyard.planes.data.profiling import Profiler, profile_of
from modelyard.planes.data.publish import Publisher, make_plan
from modelyard.planes.data.references import TakeSnapshot
from modelyard.planes.data.rewriting import REWRITTEN, Effect, OpenSession, Rewriter, check_key_columns
from modelyard.planes.data.schemas import Allowed, resulting_schema, schema_result
from modelyard.planes.data.states import State, States
from modelyard.types.data import (
    Check,
    CheckReport,
    DatasetVersion,
    Profile,
    VersionMode,
    WriteResult,
    WriteStatus,
)
from modelyard.types.profiles import Anomaly

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class WriteRequest:
    """What a writer asks for, besides the rows, and what it is held against.

    `where`: for `delete`, and for `overwrite` of a part, the condition on the rows that go. `on`: the key of a `merge`.
    """

    mode: VersionMode
    checks: tuple[Check, ...]
    source: str = ""
    evolve: bool = False
    replace_schema: bool = False
    idempotency_key: str | None = None
    branch: str = store.MAIN
    where: str | None = None
    on: tuple[str, ...] = ()
    guard: Guard = field(default_factory=Guard)
    derived: tuple[Derived, ...] = ()

    @property
    def replaces_all(self) -> bool:
        """Whether no row of the version before stays."""
        return self.mode == "overwrite" and self.where is None


@dataclass(frozen=True, slots=True)
class Judged:
    """A write over one state: what it does to it, and the verdict."""

    state: State
    effect: Effect
    schema: pa.Schema
    audited: Audited
    profiles: tuple[FileProfile, ...] = ()
    states: tuple[FileStates, ...] = ()


class Writer:
    """Carries writes through. `publisher` ends those that a crash cut off."""

    def __init__(
        self,
        database: Database,
        tables: TableStore,
        states: States,
        open_session: OpenSession,
        snapshot: TakeSnapshot,
    ) -> None:
        self._database = database
        self._tables = tables
        self._states = states
        self._open_session = open_session
        self._rewriter = Rewriter(tables, open_session)
        self._reprofiler = Reprofiler(database, tables)
        self._auditor = Auditor(database, tables, open_session, snapshot)
        self.publisher = Publisher(database, tables)

    def write(
        self, scope: Scope, dataset: store.DatasetRow, request: WriteRequest, batches: Any, *, hold: bool = True
    ) -> WriteResult:
        """Carry one write through; `batches` is None for a `delete`. See `Data.write`.

        `hold`: keep what does not pass in quarantine; else nothing is left of it.
        """
        require_writable(dataset, request.branch)
        earlier = self._earlier(scope, dataset, request)
        if earlier is not None:
            return earlier
        write_id = new_id()
        state = self._states.head_of(scope, dataset, request.branch)
        staged, profile = self._stage(dataset, request, write_id, state, batches)
        written: WriteResult | None = None
        try:
            judged = self._judge(scope, dataset, request, state, staged, profile)
            written = self._settle(scope, dataset, request, staged, judged, hold)
            return written
        finally:
            if not self._needs_staged(scope, write_id, written):
                self._tables.discard(dataset.location, write_id)

    def _stage(
        self, dataset: store.DatasetRow, request: WriteRequest, write_id: str, state: State, batches: Any
    ) -> tuple[Staged, Profile]:
        """The rows aside, and their profile, which is made while they pass."""
        if request.mode == "delete":
            if state.schema is None:
                raise NotFound(f"dataset '{dataset.noun.name}' has no version yet", code="dataset.empty")
            return Staged(write_id, state.schema, ()), Profile(rows=0, columns=[])
        with Profiler() as profiler:
            staged = self._tables.stage(
                dataset.location,
                write_id,
                as_reader(batches),
                # A schema that replaces another is taken as it is sent.
                None if request.replace_schema else state.schema,
                dataset.noun.partition_by,
                watch=profiler.add,
            )
            profile = profiler.finish()
        if staged.rows == 0:
            self._tables.discard(dataset.location, write_id)
            raise InvalidInput(
                f"the batch for dataset '{dataset.noun.name}' has no rows",
                code="dataset.batch_empty",
                hint="check what produced it; an empty batch is never a version",
            )
        return staged, profile

    def would_pass(self, scope: Scope, dataset: store.DatasetRow, request: WriteRequest, batches: Any) -> bool:
        """Whether a write would pass over the newest version, of which nothing is left."""
        write_id = new_id()
        state = self._states.head_of(scope, dataset, request.branch)
        try:
            staged, profile = self._stage(dataset, request, write_id, state, batches)
            return self._judge(scope, dataset, request, state, staged, profile).audited.report.passed
        finally:
            self._tables.discard(dataset.location, write_id)

    def audit_whole(
        self, scope: Scope, dataset: store.DatasetRow, table: FileSet, rows: int
    ) -> tuple[CheckReport, Profile | None]:
        """What the dataset's checks say of rows that lie somewhere, and their profile where they pass."""
        over = Over(table, table.schema, lambda: table, Hints(rows), one_table=True)
        results = self._auditor.findings(scope, dataset, dataset.noun.checks, over).results
        passed = all(one.status == "passed" or one.severity == "warn" for one in results)
        profile = profile_of(table.schema, scan(table, table.schema.names)) if passed else None
        return CheckReport(passed=passed, rows=rows, results=results), profile

    def _settle(
        self,
        scope: Scope,
        dataset: store.DatasetRow,
        request: WriteRequest,
        staged: Staged,
        judged: Judged,
        hold: bool,
    ) -> WriteResult:
        """Under the table's lock: make the verdict one over the newest version, and carry it out."""
        with self._tables.exclusive(dataset.location):
            self.publisher.recover(scope, dataset)
            earlier = self._earlier(scope, dataset, request)
            if earlier is not None:
                return earlier
            row, newest = self._states.newest(scope, dataset, request.branch)
            if request.branch == store.MAIN:
                require_own_head(self._tables, dataset, newest)
            if not newest.is_same(judged.state):
                judged = self._judge(scope, dataset, request, newest, staged, judged.audited.batch)
            if request.mode == "delete" and not judged.effect.rows_gone:
                return _result(dataset, "unchanged", 0, judged, version=newest.number)
            if judged.audited.report.passed:
                return self._publish(scope, row, request, staged, judged)
            if not hold:
                return _result(dataset, "quarantined", staged.rows, judged)
            self._tables.unstage(dataset.location, staged.write_id, REWRITTEN)
            self.publisher.quarantine(
                scope,
                dataset,
                staged.write_id,
                mode=request.mode,
                rows=staged.rows,
                columns=columns_of(staged.schema),
                report=judged.audited.report,
                source=request.source,
                idempotency_key=request.idempotency_key,
            )
        return _result(dataset, "quarantined", staged.rows, judged, quarantine_id=staged.write_id)

    def _publish(
        self, scope: Scope, dataset: store.DatasetRow, request: WriteRequest, staged: Staged, judged: Judged
    ) -> WriteResult:
        rewritten = () if judged.effect.rewritten is None else judged.effect.rewritten.files
        files = (*rewritten, *staged.files)
        gone = judged.effect.removed
        version = DatasetVersion(
            dataset=dataset.noun.name,
            version=dataset.last + 1,
            parent=judged.state.number,
            branch=request.branch,
            mode=request.mode,
            rows=judged.state.rows - judged.effect.rows_gone + staged.rows,
            rows_written=judged.effect.rows_gone if request.mode == "delete" else staged.rows,
            size_bytes=judged.state.size_bytes
            - sum(one.size_bytes for one in gone)
            + sum(one.size_bytes for one in files),
            columns=columns_of(judged.schema),
            created_at=self._database.clock.now(),
            created_by=scope.actor,
            source=request.source,
            report=judged.audited.report,
            profile=judged.audited.profile,
        )
        plan = make_plan(
            version,
            judged.state,
            judged.schema,
            files=files,
            removed=gone,
            dataset=dataset.noun,
            measure=_measure(request, judged.audited.batch),
            anomalies=judged.audited.anomalies,
            derived=request.derived,
            profiles=judged.profiles,
            states=judged.states,
        )
        number = self.publisher.publish(scope, dataset, staged.write_id, plan, request.idempotency_key)
        return _result(dataset, "published", version.rows_written, judged, version=number)

    # --- the verdict ------------------------------------------------------------------------------------------

    def _judge(
        self,
        scope: Scope,
        dataset: store.DatasetRow,
        request: WriteRequest,
        state: State,
        staged: Staged,
        profile: Profile,
    ) -> Judged:
        whole_goes = request.replaces_all
        allowed = Allowed(request.evolve, request.replace_schema, whole_goes)
        structure = schema_result(staged.schema, state.schema, allowed)
        schema = resulting_schema(staged.schema, state.schema, whole=whole_goes)
        batch = FileSet(staged.schema, self._tables.staged(dataset.location, staged.write_id), uniform=True)
        fits = structure.status == "passed"
        # Of another structure the two cannot be read as one table, so the dataset is looked at without the batch.
        effect = self._effect(dataset, request, state, staged, batch) if fits else Effect()
        over = Over(batch, staged.schema, lambda: batch, Hints.of_profile(profile.rows, profile), one_table=True)
        if fits:
            over = self._over(dataset, request, state, effect, schema, staged, batch, profile)
        found = self._auditor.findings(scope, dataset, request.checks, over)
        held = None if state.schema is None else columns_of(state.schema)
        knows_schema = whole_goes or fits
        contract = request.guard.schema_results(held, columns_of(schema)) if knows_schema else []
        anomalies = self._anomalies(request, profile) if fits else []
        unusual = request.guard.anomaly_results(anomalies)
        results = [structure, *contract, *found.results, *unusual]
        report = CheckReport(
            passed=all(one.status == "passed" or one.severity == "warn" for one in results),
            rows=staged.rows if staged.files else state.rows - effect.rows_gone,
            results=results,
        )
        becomes: Profile | None = None
        profiles: tuple[FileProfile, ...] = ()
        if report.passed:
            becomes, profiles = self._profile(scope, dataset, state, effect, staged, profile, schema, over.whole)
        audited = Audited(report, becomes, batch=profile, anomalies=anomalies)
        states = (*states_of_one_file(staged.files, found.seen, staged.schema), *found.told.new)
        return Judged(state, effect, schema, audited, profiles, states)

    def _over(
        self,
        dataset: store.DatasetRow,
        request: WriteRequest,
        state: State,
        effect: Effect,
        schema: pa.Schema,
        staged: Staged,
        batch: FileSet,
        profile: Profile,
    ) -> Over:
        """What is audited of a write whose rows have the structure of the dataset."""
        whole = cache(partial(self._whole, dataset, state, effect, schema, staged))
        gone = effect.removed_names
        kept = [one for one in state.files if one.name not in gone]
        nothing_stays = effect.is_all_of(state)
        stays = state.rows - effect.rows_gone
        beside, before = (stays, 0) if gone else (0, stays)
        report = None if state.version is None else state.version.noun.report
        key = request.on or tuple(dataset.noun.key)
        return Over(
            batch if staged.files else whole,
            staged.schema if staged.files else schema,
            whole,
            Hints.of_profile(profile.rows + beside, profile, before),
            one_table=nothing_stays or not staged.files,
            none_come=not staged.files,
            base=None if nothing_stays else partial(self._before, dataset, state, effect, schema, staged),
            before=states_of(report.results if report else []),
            staying=Staying(kept, effect.rewritten, schema) if gone and not nothing_stays else None,
            apart=frozenset(key if request.mode == "merge" else ()),
        )

    def _anomalies(self, request: WriteRequest, batch: Profile) -> list[Anomaly]:
        """What is unusual about the rows; a part that is replaced, or rows that are merged, are like no other write."""
        if request.mode not in ("append", "overwrite") or request.where is not None or request.branch != store.MAIN:
            return []
        return request.guard.anomalies(batch, self._database.clock.now())

    def _effect(
        self, dataset: store.DatasetRow, request: WriteRequest, state: State, staged: Staged, batch: FileSet
    ) -> Effect:
        """What the write does to the files that are there."""
        partition_by = dataset.noun.partition_by
        location, write_id = dataset.location, staged.write_id
        if request.mode == "merge":
            key = request.on or tuple(dataset.noun.key)
            check_key_columns(staged.schema, key)
            return self._rewriter.replace_by_key(location, write_id, state, batch, key, partition_by)
        if request.where is not None:
            if request.mode == "overwrite":
                self._require_all_match(batch, request.where)
            return self._rewriter.delete(location, write_id, state, request.where, partition_by)
        return self._rewriter.overwrite(state) if request.mode == "overwrite" else Effect()

    def _require_all_match(self, batch: FileSet, where: str) -> None:
        with self._open_session({DATASET: batch}) as session:
            session.check_condition(DATASET, where)
            outside = session.one(f"SELECT count(*) AS n FROM {DATASET} WHERE ({where}\n) IS NOT TRUE")["n"]
        if outside:
            raise InvalidInput(
                f"{outside} of the new rows do not meet the condition of the rows that they replace",
                code="dataset.overwrite_outside",
                hint="leave them out, or widen the condition",
            )

    def _whole(
        self, dataset: store.DatasetRow, state: State, effect: Effect, schema: pa.Schema, staged: Staged
    ) -> FileSet:
        """The dataset as it would become."""
        return self._table(dataset, state, effect, schema, staged, staged.files)

    def _before(
        self, dataset: store.DatasetRow, state: State, effect: Effect, schema: pa.Schema, staged: Staged
    ) -> FileSet:
        """The rows of it that are there already."""
        return self._table(dataset, state, effect, schema, staged, ())

    def _table(
        self,
        dataset: store.DatasetRow,
        state: State,
        effect: Effect,
        schema: pa.Schema,
        staged: Staged,
        come: Sequence[StagedFile],
    ) -> FileSet:
        gone = effect.removed_names
        kept = [one for one in state.files if one.name not in gone]
        again = () if effect.rewritten is None else effect.rewritten.files
        new = [one.as_held for one in (*again, *come)]
        aside = self._tables.staged_paths(dataset.location, staged.write_id, [one.name for one in new])
        files = (*self._tables.paths(dataset.location, kept), *aside)
        return file_set(schema, files, (*kept, *new), of=f"dataset '{dataset.noun.name}'")

    def _profile(
        self,
        scope: Scope,
        dataset: store.DatasetRow,
        state: State,
        effect: Effect,
        staged: Staged,
        batch: Profile,
        schema: pa.Schema,
        whole: Later,
    ) -> tuple[Profile, tuple[FileProfile, ...]]:
        """The profile of the dataset as it would become, from what both say of themselves where rows only come, and
        from the profiles of files where some go; with the profiles of new files that are to be kept."""
        new = of_one_file(staged.files, batch)
        if not state.count or (effect.is_all_of(state) and batch.rows):
            return batch, new
        found: Profile | None = None
        if effect.removed:
            kept = [one for one in state.files if one.name not in effect.removed_names]
            found, rewritten = self._reprofiler.after(scope, dataset, kept, effect.rewritten, batch, schema)
            new = (*new, *rewritten)
        elif state.version is not None and state.version.noun.profile is not None:
            found = merge_profiles(state.version.noun.profile, batch)
        return found or profile_of(schema, scan(whole(), schema.names)), new

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

    def _needs_staged(self, scope: Scope, write_id: str, written: WriteResult | None) -> bool:
        """Whether the files are still needed where they were staged: by a quarantine, or by a plan, where it failed."""
        if written is not None:
            return written.quarantine_id == write_id
        with self._database.reading(scope) as tx:
            return store.write_row(tx, write_id) is not None


def _measure(request: WriteRequest, batch: Profile) -> Measure | None:
    """What later writes are compared with; None where they cannot be."""
    is_whole = request.mode in ("append", "overwrite") and request.where is None and request.branch == store.MAIN
    return measure_of(batch) if is_whole else None


def require_writable(dataset: store.DatasetRow, branch: str) -> None:
    """Raise Conflict for a dataset that is read from a folder of somebody else's, NotFound for a missing branch."""
    dataset.require("table")
    if dataset.noun.origin:
        raise Conflict(
            f"dataset '{dataset.noun.name}' is read in place from {dataset.noun.origin}, whose owner writes it",
            code="dataset.read_in_place",
            hint="take new versions over with `modelyard dataset sync`, or import the table to write to a copy",
        )
    if branch != store.MAIN and branch not in dataset.noun.branches:
        raise NotFound(
            f"dataset '{dataset.noun.name}' has no branch {branch[:128]!a}",
            code="dataset.branch_not_found",
            hint=f"make it with `modelyard dataset branch {dataset.noun.name} BRANCH`",
        )


def require_own_head(tables: TableStore, dataset: store.DatasetRow, newest: State) -> None:
    """Raise Conflict where something else added to the table's log after the newest version."""
    found = tables.head(dataset.location, newest.table_version)
    if found != newest.table_version:
        raise Conflict(
            f"the table of dataset '{dataset.noun.name}' was written to by something else: its log is at {found}",
            code="dataset.foreign_commits",
            hint=f"check and take over what was written with `modelyard dataset sync {dataset.noun.name}`",
        )


def _result(
    dataset: store.DatasetRow,
    status: WriteStatus,
    rows: int,
    judged: Judged,
    *,
    version: int | None = None,
    quarantine_id: str | None = None,
) -> WriteResult:
    report = judged.audited.report
    return WriteResult(
        dataset=dataset.noun.name,
        status=status,
        rows=rows,
        report=report,
        version=version,
        quarantine_id=quarantine_id,
    )
