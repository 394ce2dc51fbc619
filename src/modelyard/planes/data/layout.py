"""How the files of a table lie: fewer and larger ones by compaction, and none that nothing names by vacuum."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from msgspec.structs import replace

from modelyard.engines.tables.arrow import scan
from modelyard.engines.tables.base import DataFile, StagedFile, TableStore, file_set
from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database
from modelyard.kernel.errors import Conflict
from modelyard.kernel.ids import new_id
from modelyard.planes.data import file_profiles, file_states, kept_diffs, manifests, retention_store, store
from modelyard.planes.data.branches import dataset_row
from modelyard.planes.data.file_vacuum import FileVacuum
from modelyard.planes.data.publish import Publisher, make_plan
from modelyard.planes.data.retention import decide
from modelyard.planes.data.states import State, States
from modelyard.planes.data.writing import require_own_head, require_writable
from modelyard.types.data import Retention
from modelyard.types.data_branches import Compaction, Vacuum, VacuumReport

if TYPE_CHECKING:
    import pyarrow as pa

SMALL_BYTES = 64 * 1024 * 1024
_SHOWN_MAX = 100


class Layout:
    """Compaction and vacuum of one dataset. Neither changes the rows of a version that something points at."""

    def __init__(
        self,
        database: Database,
        tables: TableStore,
        states: States,
        publisher: Publisher,
        of_files: FileVacuum | None = None,
    ) -> None:
        self._of_files = of_files
        self._database = database
        self._tables = tables
        self._states = states
        self._publisher = publisher

    # --- compaction -------------------------------------------------------------------------------------------

    def compact(self, scope: Scope, name: str, branch: str = store.MAIN) -> Compaction:
        """Let the newest version of a branch lie in fewer files: small ones that follow each other become one.

        It stays the same version, with the same rows in the same order; older versions keep the files that they have.
        """
        row = dataset_row(self._database, scope, name)
        require_writable(row, branch)
        state = self._states.head(scope, name, branch)
        runs = _runs(state.files, bool(row.noun.partition_by))
        if not runs or state.schema is None:
            return _compaction(name, state, state.files)
        write_id = new_id()
        try:
            schema = state.schema
            written = {run[0].name: self._rewritten(row, write_id, schema, at, run) for at, run in enumerate(runs)}
            with self._tables.exclusive(row.location):
                return self._settle(scope, row, branch, write_id, runs, written)
        finally:
            self._tables.discard(row.location, write_id)

    def _rewritten(
        self, row: store.DatasetRow, write_id: str, schema: pa.Schema, at: int, run: Sequence[DataFile]
    ) -> tuple[StagedFile, ...]:
        import pyarrow as pa  # heavy: imported late

        table = file_set(schema, self._tables.paths(row.location, run), run)
        reader = pa.RecordBatchReader.from_batches(schema, scan(table, schema.names))
        partition_by = row.noun.partition_by
        return self._tables.stage(row.location, write_id, reader, schema, partition_by, f"c{at}").files

    def _settle(
        self,
        scope: Scope,
        row: store.DatasetRow,
        branch: str,
        write_id: str,
        runs: Sequence[Sequence[DataFile]],
        written: dict[str, tuple[StagedFile, ...]],
    ) -> Compaction:
        self._publisher.recover(scope, row)
        row = dataset_row(self._database, scope, row.noun.name)
        newest = self._states.head(scope, row.noun.name, branch)
        if row.noun.latest == newest.number:
            require_own_head(self._tables, row, newest)
        gone = {one.name: one for run in runs for one in run}
        if not gone.keys() <= {one.name for one in newest.files}:
            raise Conflict(
                f"dataset '{row.noun.name}' was rewritten while it was compacted",
                code="dataset.compaction_overtaken",
                hint="repeat it; nothing was changed",
            )
        assert newest.version is not None
        assert newest.schema is not None
        files = tuple(_in_place(newest.files, gone, written))
        size_bytes = sum(one.size_bytes for one in files)
        plan = make_plan(
            replace(newest.version.noun, report=None, profile=None, size_bytes=size_bytes),
            newest,
            newest.schema,
            dataset=row.noun,
            files=[one for some in written.values() for one in some],
            removed=list(gone.values()),
            makes="layout",
        )
        arranged = manifests.appended((), files, lambda _: ())
        plan = replace(plan, parts=arranged.parts, manifests=arranged.new)
        self._publisher.publish(scope, row, write_id, plan, None)
        return _compaction(row.noun.name, newest, files)

    # --- vacuum -----------------------------------------------------------------------------------------------

    def vacuum(
        self, scope: Scope, name: str, asked: Vacuum | None = None, *, ahead: timedelta = timedelta()
    ) -> VacuumReport:
        """Give up versions that the retention does not keep and nothing points at, then remove files that none names.

        What a branch, tag, run, model or another dataset points at stays, whatever its age. Files go only when nothing
        has named them for the grace, so that whoever reads them now can end. Of a dataset of files, what it holds for
        no version is given up: see `FileVacuum`. By a clock that may be `ahead` all is taken for so much younger.
        """
        wanted = asked or Vacuum()
        row = dataset_row(self._database, scope, name)
        if row.noun.kind == "files" and self._of_files is not None:
            return self._of_files.vacuum(scope, row, wanted, ahead)
        require_writable(row, store.MAIN)
        with self._tables.exclusive(row.location):
            self._publisher.recover(scope, row)
            row = dataset_row(self._database, scope, name)
            require_own_head(self._tables, row, self._states.head(scope, name, store.MAIN))
            retention = wanted.retention or row.noun.retention or Retention()
            now = self._database.clock.now() - ahead
            with self._database.reading(scope) as tx:
                marks, pins = retention_store.version_marks(tx, row), retention_store.pins(tx, row)
            decisions = decide(marks, retention, now, pins)
            expired = [one.version for one in decisions if not one.keep]
            kept = {one.version: one.reason for one in decisions if one.keep and one.reason}
            removed = (0, 0)
            if not wanted.dry_run:
                removed = self._remove(scope, row, expired, timedelta(seconds=wanted.grace_s) + ahead)
        return VacuumReport(
            dataset=name,
            dry_run=wanted.dry_run,
            expired=expired,
            kept=dict(list(kept.items())[:_SHOWN_MAX]),
            files_removed=removed[0],
            bytes_removed=removed[1],
        )

    def _remove(self, scope: Scope, row: store.DatasetRow, expired: Sequence[int], grace: timedelta) -> tuple[int, int]:
        with self._database.transaction(scope) as tx:
            retention_store.expire(tx, row.id, expired)
            kept_diffs.forget(tx, row.id, expired)
            manifests.mark_unneeded(tx, row.id, retention_store.parts_needed(tx, row.id))
            if expired:
                tx.event("dataset.vacuumed", f"dataset:{row.noun.name}", {"versions": list(expired)[:_SHOWN_MAX]})
            before = tx.now - grace
        with self._database.reading(scope) as tx:
            live = manifests.names_live(tx, row.id, before)
            unlisted = retention_store.unlisted_versions(tx, row)
        for version in unlisted:
            live |= {one.name for one in self._states.of(scope, row, version).files}
        removed = self._tables.remove(row.location, frozenset(live), grace.total_seconds())
        with self._database.transaction(scope) as tx:
            manifests.delete_unneeded(tx, row.id, before)
            for of_files in (file_profiles.profiles, file_states.states):
                file_profiles.forget(tx, row.id, live, of=of_files)
        return removed


def _runs(files: Sequence[DataFile], partitioned: bool) -> list[list[DataFile]]:
    """Runs of small files that follow each other, of at least two each; for a partitioned table all small ones, where
    a partition has two."""
    small = [one.size_bytes < SMALL_BYTES for one in files]
    if partitioned:
        seen: dict[tuple[tuple[str, str | None], ...], list[DataFile]] = {}
        for one, is_small in zip(files, small, strict=True):
            if is_small:
                seen.setdefault(tuple(sorted(one.partition.items())), []).append(one)
        chosen = [one for held in seen.values() if len(held) > 1 for one in held]
        return [chosen] if chosen else []
    runs: list[list[DataFile]] = [[]]
    for one, is_small in zip(files, small, strict=True):
        if is_small:
            runs[-1].append(one)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if len(run) > 1]


def _in_place(
    files: Sequence[DataFile], gone: dict[str, DataFile], written: dict[str, tuple[StagedFile, ...]]
) -> Iterator[DataFile]:
    """The files with each run replaced, where it began, by what was written of it."""
    for one in files:
        if one.name in written:
            yield from (new.as_held for new in written[one.name])
        elif one.name not in gone:
            yield one


def _compaction(name: str, state: State, files: Sequence[DataFile]) -> Compaction:
    return Compaction(
        dataset=name,
        version=state.number,
        files_before=len(state.files),
        files_after=len(files),
        size_bytes=sum(one.size_bytes for one in files),
    )
