"""Checking a version that is there: a suite over one snapshot, going on from what was found of versions before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace

from modelyard.engines.tables.base import DataFile, FileSet, TableStore, file_set
from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database
from modelyard.kernel.errors import InvalidInput, NotFound
from modelyard.kernel.ids import new_id
from modelyard.planes.data import check_runs, store
from modelyard.planes.data.audit import columns_of
from modelyard.planes.data.checks import BASE, BATCH, DATASET, State, report_sent, states_of
from modelyard.planes.data.checks.facts import provided_of
from modelyard.planes.data.checks.running import Before, all_failing, run_suite
from modelyard.planes.data.checks.statements import Hints
from modelyard.planes.data.checks.states import key_of
from modelyard.planes.data.file_states import StateKeeper, Staying
from modelyard.planes.data.references import Referenced, TakeSnapshot, in_catalog, referenced
from modelyard.planes.data.refs import Ref, require_rows
from modelyard.planes.data.rewriting import OpenSession
from modelyard.planes.data.states import State as TableState
from modelyard.planes.data.states import States
from modelyard.types.data import Check, CheckReport, CheckResult, CheckRun

if TYPE_CHECKING:
    import pyarrow as pa

Find = Callable[[Scope, str, Ref], tuple[store.DatasetRow, store.VersionRow]]
_RUNS_LOOKED_AT = 10


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of an earlier version whose files are all in this one: states by key, and the files since."""

    states: Mapping[str, State]
    base: Sequence[DataFile]
    added: Sequence[DataFile]


class Checking:
    """Runs suites over versions and keeps what they found. `find` resolves a reference to a version."""

    def __init__(
        self,
        database: Database,
        tables: TableStore,
        states: States,
        find: Find,
        snapshot: TakeSnapshot,
        open_session: OpenSession,
    ) -> None:
        self._database = database
        self._tables = tables
        self._states = states
        self._find = find
        self._snapshot = snapshot
        self._open_session = open_session
        self._keeper = StateKeeper(database, tables, open_session)

    def run(
        self, scope: Scope, name: str, ref: Ref = None, checks: Sequence[Check] | None = None, suite: str = ""
    ) -> CheckRun:
        """Run checks, by default the dataset's own, over all rows of a version. Nothing of the dataset changes.

        What can be merged goes on from the newest version before it that was checked alike, and looks at the files
        that came since. Raises NotFound, InvalidInput where there are no checks.
        """
        row, version = self._find(scope, name, ref)
        asked = list(row.noun.checks if checks is None else checks)
        if not asked:
            raise InvalidInput(
                f"there are no checks to run over dataset '{name}'",
                code="dataset.checks_missing",
                hint="give a suite, or let checks guard the dataset with `modelyard dataset checks`",
            )
        report = self._report(scope, row, version, asked)
        found = CheckRun(
            id=new_id(),
            dataset=name,
            version=version.noun.version,
            suite=suite,
            checks=asked,
            report=report,
            created_at=self._database.clock.now(),
            created_by=scope.actor,
        )
        with self._database.transaction(scope) as tx:
            check_runs.insert(tx, row.id, found)
            failed = [one.name for one in report.failed][:50]
            tx.event(
                "dataset.checked",
                version.noun.urn,
                {"run": found.id, "suite": suite, "passed": report.passed, "failed_checks": failed},
            )
        return _sent(found)

    def runs(self, scope: Scope, name: str, *, limit: int = 50) -> list[CheckRun]:
        """The newest runs, newest first."""
        row, _ = self._find(scope, name, None)
        with self._database.reading(scope) as tx:
            return [_sent(run) for run in check_runs.recent(tx, row.id, name, limit)]

    def one(self, scope: Scope, name: str, run_id: str) -> CheckRun:
        """One run with its report. Raises NotFound."""
        return _sent(self._run(scope, name, run_id)[1])

    def failing(self, scope: Scope, name: str, run_id: str, check: int) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        """All rows that fail a check of a run, by its place in the report from 0, batch by batch. Raises NotFound, and
        InvalidInput for a check that is not about rows."""
        row, run = self._run(scope, name, run_id)
        if not 0 <= check < len(run.checks):
            raise NotFound(f"the run has no check {check}", code="dataset.check_not_found")
        _, version = self._find(scope, name, run.version)
        state = self._states.of(scope, row, version)
        assert state.schema is not None
        whole = self._files(row, state, state.files)
        others = referenced(in_catalog(self._snapshot, scope), name, run.checks)
        tables = {BATCH: whole, DATASET: whole, **others.tables}
        with self._open_session(tables) as session:
            failing = all_failing(
                session, run.checks[check], columns_of(state.schema), others.provided, Hints(state.rows)
            )
            schema = session.table(f"SELECT * FROM ({failing.select}\n) LIMIT 0").schema
        return schema, self._batches(tables, failing.select, schema)

    def _batches(
        self, tables: Mapping[str, FileSet | pa.Table], select: str, schema: pa.Schema
    ) -> Iterator[pa.RecordBatch]:
        with self._open_session(tables) as session:
            yield from session.batches(select, schema)

    def _run(self, scope: Scope, name: str, run_id: str) -> tuple[store.DatasetRow, CheckRun]:
        row, _ = self._find(scope, name, None)
        with self._database.reading(scope) as tx:
            run = check_runs.one(tx, row.id, name, run_id)
        if run is None:
            raise NotFound(
                f"dataset '{name}' has no check run {run_id[:64]!a}",
                code="dataset.check_run_not_found",
                hint=f"list them with `modelyard dataset check-runs {name}`",
            )
        return row, run

    # --- the report -------------------------------------------------------------------------------------------

    def _report(
        self, scope: Scope, row: store.DatasetRow, version: store.VersionRow, checks: Sequence[Check]
    ) -> CheckReport:
        require_rows(version.noun)
        state = self._states.of(scope, row, version)
        assert state.schema is not None
        others = referenced(in_catalog(self._snapshot, scope), row.noun.name, checks)
        keys = {key_of(check, provided_of(check, others.provided)) for check in checks}
        known = self._known(scope, row, version, state, keys)
        if known is None or (not known.added and not keys <= known.states.keys()):
            known = self._by_files(scope, row, state, checks, others, {} if known is None else known.states)
        results = self._results(row, state, checks, others, known)
        passed = all(one.status == "passed" or one.severity == "warn" for one in results)
        return CheckReport(passed=passed, rows=state.rows, results=results)

    def _by_files(
        self,
        scope: Scope,
        row: store.DatasetRow,
        state: TableState,
        checks: Sequence[Check],
        others: Referenced,
        states: Mapping[str, State],
    ) -> Known | None:
        """What is known of the version, and what is kept of its files. Nothing is kept of them here: the suite may be
        any, and theirs is that of the dataset."""
        assert state.schema is not None
        staying = Staying(state.files, None, state.schema)
        hints = self._hints(state)
        told = self._keeper.of_what_stays(
            scope, row, staying, checks, others, whole=True, before=states, hints=hints, looks=0
        )
        both = {**told.states, **states}
        return Known(both, state.files, ()) if both else None

    def _hints(self, state: TableState) -> Hints:
        return Hints.of_profile(state.rows, None if state.version is None else state.version.noun.profile)

    def _results(
        self,
        row: store.DatasetRow,
        state: TableState,
        checks: Sequence[Check],
        others: Referenced,
        known: Known | None,
    ) -> list[CheckResult]:
        whole = self._files(row, state, state.files)
        tables = {BATCH: whole, DATASET: whole, **others.tables}
        before = None
        if known is not None:
            tables |= {BATCH: self._files(row, state, known.added), BASE: self._files(row, state, known.base)}
            before = Before(known.states, appended=True, whole=True, none_come=not known.added)
        assert state.schema is not None
        with self._open_session(tables) as session:
            return run_suite(
                session,
                checks,
                columns_of(state.schema),
                self._database.clock.now(),
                provided=others.provided,
                profiles=others.profiles,
                before=before,
                one_table=before is None,
                hints=self._hints(state),
            )

    def _files(self, row: store.DatasetRow, state: TableState, files: Sequence[DataFile]) -> FileSet:
        assert state.schema is not None
        return file_set(state.schema, self._tables.paths(row.location, files), files)

    def _known(
        self, scope: Scope, row: store.DatasetRow, version: store.VersionRow, state: TableState, keys: set[str]
    ) -> Known | None:
        """What the newest version says that was checked alike before and whose files come first in this one."""
        for number, results in self._checked_before(scope, row, version):
            states = {key: one for key, one in states_of(results).items() if key in keys}
            if not states:
                continue
            if number == version.noun.version:
                return Known(states, state.files, ())
            with self._database.reading(scope) as tx:
                earlier = store.version_row(tx, row, number)
            if earlier is None:
                continue
            base = self._states.of(scope, row, earlier)
            size = len(base.files)
            same = [one.name for one in state.files[:size]] == [one.name for one in base.files]
            if size and same and base.schema == state.schema:
                return Known(states, base.files, state.files[size:])
        return None

    def _checked_before(
        self, scope: Scope, row: store.DatasetRow, version: store.VersionRow
    ) -> list[tuple[int, list[CheckResult]]]:
        """Versions with what was found of them: by runs, and when they were written. Newest version first."""
        number = version.noun.version
        with self._database.reading(scope) as tx:
            runs = check_runs.recent(tx, row.id, row.noun.name, _RUNS_LOOKED_AT, up_to=number)
            parent = version.noun.parent
            written = [version, *([store.version_row(tx, row, parent)] if parent else [])]
        found: dict[int, list[CheckResult]] = {}
        for run in runs:
            found.setdefault(run.version, []).extend(run.report.results)
        for one in written:
            if one is not None and one.noun.report is not None:
                found.setdefault(one.noun.version, []).extend(one.noun.report.results)
        return sorted(found.items(), reverse=True, key=lambda entry: entry[0])


def _sent(run: CheckRun) -> CheckRun:
    return replace(run, report=report_sent(run.report))
