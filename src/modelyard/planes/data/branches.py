"""Branches: names that move over versions. Making one copies nothing; merging one moves another name.

The table's log holds `main` alone, so that the table stays a plain one for every other reader. What is written to
another branch lies beside it in files that only the catalog names, until a merge brings them into `main` by one entry.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from modelyard.engines.tables.base import FileSet, TableStore, file_set
from modelyard.engines.tables.sql import SqlSession, quoted
from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database
from modelyard.kernel.errors import Conflict, InvalidInput, NotFound
from modelyard.kernel.ids import new_id
from modelyard.planes.data import store
from modelyard.planes.data.file_branches import FileBranches
from modelyard.planes.data.profile import wire_row
from modelyard.planes.data.publish import NO_REPORT, Plan, Publisher, make_plan
from modelyard.planes.data.refs import Ref, check_ref_name, require_rows, resolve_number
from modelyard.planes.data.rewriting import OpenSession
from modelyard.planes.data.states import State, States, schema_text
from modelyard.planes.data.writing import require_own_head, require_writable
from modelyard.types.data import WriteResult
from modelyard.types.data_branches import Branch, BranchMerge, KeyConflict

_EXAMPLES = 5
_NAMED_MAX = 10


class Branches:
    """The verbs of branches of one dataset."""

    def __init__(
        self,
        database: Database,
        tables: TableStore,
        states: States,
        publisher: Publisher,
        open_session: OpenSession,
        of_files: FileBranches | None,
    ) -> None:
        self._database = database
        self._tables = tables
        self._states = states
        self._publisher = publisher
        self._open_session = open_session
        self._of_files = of_files

    def create(self, scope: Scope, name: str, branch: str, at: Ref = None) -> Branch:
        """A branch that names a version, by default the newest of `main`. Raises Conflict where there is one."""
        with self._database.transaction(scope) as tx:
            row = require_dataset(store.dataset_named(tx, name), scope, name)
            check_ref_name(row.noun, branch, "branch")
            if branch in row.noun.branches:
                raise Conflict(f"dataset '{name}' has a branch '{branch}' already", code="dataset.branch_exists")
            number = resolve_number(tx, row, at)
            version = store.version_row(tx, row, number) if number else None
            if number is None or (number and version is None):
                raise NotFound(
                    f"dataset '{name}' has no version {str(at)[:128]!a}",
                    code="dataset.version_not_found",
                    hint=f"list them with `modelyard dataset versions {name}`",
                )
            if version is not None:
                require_rows(version.noun)
            store.insert_branch(tx, row.id, branch, number)
            store.note_move(tx, row.id, branch, number, "branch")
            tx.event("dataset.branch_created", f"dataset:{name}", {"branch": branch, "at": number})
        return self.get(scope, name, branch)

    def get(self, scope: Scope, name: str, branch: str) -> Branch:
        """One branch. Raises NotFound."""
        found = [one for one in self.list(scope, name) if one.name == branch]
        if not found:
            raise _no_branch(name, branch)
        return found[0]

    def list(self, scope: Scope, name: str) -> list[Branch]:
        """All branches besides `main`, by name."""
        with self._database.reading(scope) as tx:
            row = require_dataset(store.dataset_named(tx, name), scope, name)
            return store.branches_of(tx, row)

    def delete(self, scope: Scope, name: str, branch: str) -> None:
        """Remove the name. What only it led to stays readable by number until a vacuum."""
        with self._database.transaction(scope) as tx:
            row = require_dataset(store.dataset_named(tx, name), scope, name)
            if not store.delete_branch(tx, row.id, branch):
                raise _no_branch(name, branch)
            head = row.noun.branches.get(branch, 0)
            tx.event("dataset.branch_deleted", f"dataset:{name}", {"branch": branch, "head": head})

    # --- merge ------------------------------------------------------------------------------------------------

    def merge(self, scope: Scope, name: str, branch: str, into: str = store.MAIN) -> BranchMerge:
        """Let `into` name what `branch` names, where that was made from what `into` names.

        Where both moved, Conflict (`dataset.merge_conflict`) says from which version on, and which keys both changed.
        """
        row = dataset_row(self._database, scope, name)
        if branch == into:
            raise InvalidInput(f"'{branch}' cannot be merged into itself", code="dataset.merge_itself")
        if row.noun.kind == "files":
            return self._file_branches(row).merge(scope, row, branch, into)
        with self._tables.exclusive(row.location):
            self._publisher.recover(scope, row)
            row = dataset_row(self._database, scope, name)
            for one in (branch, into):
                require_writable(row, one)
            source, target = (self._states.head(scope, name, one) for one in (branch, into))
            ended = BranchMerge(
                dataset=name, branch=branch, into=into, before=target.number, version=source.number, moved=True
            )
            with self._database.reading(scope) as tx:
                parents = store.parents(tx, row.id)
            if source.number in store.line(parents, target.number):
                return replace(ended, version=target.number, moved=False)
            if target.number not in store.line(parents, source.number):
                raise self._conflict(scope, row, (branch, source), (into, target), parents)
            if into == store.MAIN:
                require_own_head(self._tables, row, target)
            self._publisher.publish(scope, row, new_id(), _merge_plan(row, source, target, into), None)
        return ended

    def _conflict(
        self,
        scope: Scope,
        row: store.DatasetRow,
        theirs: tuple[str, State],
        ours: tuple[str, State],
        parents: Mapping[int, int],
    ) -> Conflict:
        lines = {name: store.line(parents, state.number) for name, state in (theirs, ours)}
        common = max(set(lines[theirs[0]]) & set(lines[ours[0]]), default=0)
        since = {name: sorted(one for one in line if one > common) for name, line in lines.items()}
        said = "; ".join(f"'{name}' has {_shown(numbers)}" for name, numbers in since.items())
        found = self._key_conflict(scope, row, common, theirs[1], ours[1])
        keys = ""
        if found is not None:
            keys = f"; {found.keys} keys changed in both" + (f", such as {found.examples[0]}" if found.examples else "")
        name = row.noun.name
        return Conflict(
            f"'{theirs[0]}' cannot be merged into '{ours[0]}' of dataset '{name}': both moved since version {common}: "
            f"{said}{keys}",
            code="dataset.merge_conflict",
            hint=f"see what `modelyard dataset diff {name} {common} {theirs[0]}` shows, and write it to a new branch",
            details={"base": common, "versions": since, "key_conflicts": found},
        )

    def _key_conflict(
        self, scope: Scope, row: store.DatasetRow, common: int, theirs: State, ours: State
    ) -> KeyConflict | None:
        """The keys whose rows differ from the common version on both sides; None where the dataset has no key."""
        key = row.noun.key
        with self._database.reading(scope) as tx:
            version = store.version_row(tx, row, common) if common else None
        if not key or version is None or version.noun.expired_at is not None:
            return None
        states = {"base": self._states.of(scope, row, version), "theirs": theirs, "ours": ours}
        schemas = [state.schema for state in states.values() if state.schema is not None]
        shared = [field.name for field in schemas[0] if all(field in schema for schema in schemas)]
        if not set(key) <= set(shared):
            return None
        with self._open_session({name: self._file_set(row, state) for name, state in states.items()}) as session:
            return _changed_in_both(session, key, shared)

    def _file_set(self, row: store.DatasetRow, state: State) -> FileSet:
        assert state.schema is not None
        return file_set(state.schema, self._tables.paths(row.location, state.files), state.files)

    # --- revert -----------------------------------------------------------------------------------------------

    def revert(self, scope: Scope, name: str, to: Ref, branch: str = store.MAIN) -> WriteResult:
        """Make a version with the rows of an older one, in its files. What came between stays readable."""
        row = dataset_row(self._database, scope, name)
        if row.noun.kind == "files":
            return self._file_branches(row).revert(scope, row, to, branch)
        with self._tables.exclusive(row.location):
            self._publisher.recover(scope, row)
            row = dataset_row(self._database, scope, name)
            require_writable(row, branch)
            head = self._states.head(scope, name, branch)
            with self._database.reading(scope) as tx:
                number = resolve_number(tx, row, to)
                wanted = store.version_row(tx, row, number) if number else None
            if wanted is None:
                raise NotFound(
                    f"dataset '{name}' has no version {str(to)[:128]!a}",
                    code="dataset.version_not_found",
                    hint=f"list them with `modelyard dataset versions {name}`",
                )
            require_rows(wanted.noun)
            report = wanted.noun.report or NO_REPORT
            if wanted.noun.version == head.number:
                return WriteResult(dataset=name, status="unchanged", rows=0, report=report, version=head.number)
            if branch == store.MAIN:
                require_own_head(self._tables, row, head)
            plan = self._revert_plan(scope, row, head, self._states.of(scope, row, wanted), branch)
            number = self._publisher.publish(scope, row, new_id(), plan, None)
        return WriteResult(dataset=name, status="published", rows=plan.version.rows, report=report, version=number)

    def _revert_plan(self, scope: Scope, row: store.DatasetRow, head: State, wanted: State, branch: str) -> Plan:
        assert wanted.version is not None
        assert wanted.schema is not None
        old = wanted.version.noun
        version = replace(
            old,
            version=row.last + 1,
            parent=head.number,
            branch=branch,
            mode="revert",
            rows_written=0,
            created_at=self._database.clock.now(),
            created_by=scope.actor,
            source=old.urn,
            table_version=None,
            tags=[],
        )
        before, after = {one.name for one in head.files}, {one.name for one in wanted.files}
        plan = make_plan(
            version,
            head,
            wanted.schema,
            dataset=row.noun,
            removed=[one for one in head.files if one.name not in after],
            added=[one for one in wanted.files if one.name not in before],
        )
        # The order of the rows is that of the older version, so its manifests are taken as they are.
        return replace(plan, parts=[part for part, _ in wanted.held], manifests=[]) if wanted.listed else plan

    def _file_branches(self, row: store.DatasetRow) -> FileBranches:
        if self._of_files is None:
            row.require("table")
            raise AssertionError("a dataset of files is no table")
        return self._of_files


def dataset_row(database: Database, scope: Scope, name: str) -> store.DatasetRow:
    """A dataset, read by itself. Raises NotFound."""
    with database.reading(scope) as tx:
        return require_dataset(store.dataset_named(tx, name), scope, name)


def require_dataset(row: store.DatasetRow | None, scope: Scope, name: str) -> store.DatasetRow:
    """The row, or NotFound."""
    if row is None:
        raise NotFound(
            f"dataset {name[:128]!a} does not exist in project '{scope.project}'",
            code="dataset.not_found",
            hint="list them with `modelyard dataset list`, or create it with `modelyard dataset create`",
        )
    return row


def _no_branch(name: str, branch: str) -> NotFound:
    return NotFound(
        f"dataset '{name}' has no branch {branch[:128]!a}",
        code="dataset.branch_not_found",
        hint=f"list them with `modelyard dataset branch {name}`",
    )


def _merge_plan(row: store.DatasetRow, source: State, target: State, into: str) -> Plan:
    assert source.version is not None
    assert source.schema is not None
    before, after = {one.name for one in target.files}, {one.name for one in source.files}
    return Plan(
        version=replace(source.version.noun, report=None, profile=None),
        base_table_version=target.table_version,
        schema=schema_text(source.schema),
        remove=[one for one in target.files if one.name not in after],
        add=[one for one in source.files if one.name not in before],
        partition_by=row.noun.partition_by,
        schema_changed=target.schema is not None and target.schema != source.schema,
        logged=into == store.MAIN,
        makes="merge",
        into=into,
        into_before=target.number,
    )


def _changed_in_both(session: SqlSession, key: Sequence[str], shared: Sequence[str]) -> KeyConflict:
    names, columns = (", ".join(quoted(one) for one in some) for some in (key, shared))

    def changed(side: str) -> str:
        here, there = (f"(SELECT {columns} FROM {one})" for one in (side, "base"))
        return f"SELECT DISTINCT {names} FROM (({here} EXCEPT {there}) UNION ALL ({there} EXCEPT {here}))"

    both = f"(({changed('theirs')}) INTERSECT ({changed('ours')}))"
    counted = session.one(f"SELECT count(*) AS n FROM {both}")["n"]
    rows = session.rows(f"SELECT * FROM {both} ORDER BY ALL LIMIT {_EXAMPLES}")
    return KeyConflict(keys=counted, examples=[wire_row(one) for one in rows])


def _shown(numbers: Sequence[int]) -> str:
    shown = ", ".join(str(one) for one in numbers[:_NAMED_MAX])
    return shown + (f" and {len(numbers) - _NAMED_MAX} more" if len(numbers) > _NAMED_MAX else "")
