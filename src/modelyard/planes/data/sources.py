"""Tables of somebody else's: read in place, and what other writers added to ours.

A folder that is read in place is never written to. What is new in it becomes a version only when `sync` took it over,
which runs the dataset's checks over it first: so the rule that only what passes is `main` holds for them too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from modelyard.engines.tables.base import ELSEWHERE, DataFile, Snapshot, TableStore, file_set
from modelyard.engines.tables.folders import parquet_folder, require_plain_delta
from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database
from modelyard.kernel.errors import Conflict, InvalidInput
from modelyard.kernel.ids import new_id
from modelyard.planes.data import store
from modelyard.planes.data.audit import columns_of
from modelyard.planes.data.branches import dataset_row
from modelyard.planes.data.publish import NO_REPORT, make_plan
from modelyard.planes.data.states import State, States
from modelyard.planes.data.writing import Writer
from modelyard.types.data import DatasetVersion, WriteResult

DELTA_LOG = "_delta_log"


class Sources:
    """Registering folders, and taking over what others wrote."""

    def __init__(
        self, create: Callable[..., object], database: Database, tables: TableStore, states: States, writer: Writer
    ) -> None:
        self._create = create
        self._database = database
        self._tables = tables
        self._states = states
        self._writer = writer

    def register(self, scope: Scope, name: str, path: str, description: str = "") -> WriteResult:
        """A dataset that reads a Delta table, or a folder of Parquet files, where it lies, and its first version.

        Raises InvalidInput for what cannot be read in place, EngineError for what is damaged; then there is no dataset.
        """
        folder = _folder(path)
        found = self._look(folder, None)
        if found is None:
            raise InvalidInput(f"there are no rows in {folder}", code="dataset.nothing_to_register")
        self._create(scope, name, description=description, location=f"{ELSEWHERE}{folder}")
        return self._take_over(scope, name, found)

    def sync(self, scope: Scope, name: str) -> WriteResult:
        """Check what others wrote since the newest version, and make it one. `unchanged` where there is nothing new."""
        row = dataset_row(self._database, scope, name)
        state = self._states.head(scope, name, store.MAIN)
        if row.noun.origin:
            found = self._look(Path(row.noun.origin), state)
        else:
            head = self._tables.head(row.location, state.table_version)
            changed = head is not None and head != state.table_version
            found = self._tables.snapshot(row.location, head) if changed and head is not None else None
        if found is None:
            return WriteResult(dataset=name, status="unchanged", rows=0, report=NO_REPORT, version=state.number)
        return self._take_over(scope, name, found)

    def _look(self, folder: Path, state: State | None) -> Snapshot | None:
        """What lies in a folder, None where that is what the state has."""
        if (folder / DELTA_LOG).is_dir():
            known = None if state is None else state.table_version
            version = require_plain_delta(folder)
            return None if version == known else self._tables.snapshot(f"{ELSEWHERE}{folder}", version)
        found = parquet_folder(folder)
        if state is None or state.version is None:
            return found
        return found if found.held != state.files else None

    def _take_over(self, scope: Scope, name: str, found: Snapshot) -> WriteResult:
        row = dataset_row(self._database, scope, name)
        with self._tables.exclusive(row.location):
            self._writer.publisher.recover(scope, row)
            row = dataset_row(self._database, scope, name)
            head = self._states.head(scope, name, store.MAIN)
            table = file_set(found.schema, found.files, found.held)
            report, profile = self._writer.audit_whole(scope, row, table, found.rows)
            source = row.noun.origin or f"delta@{found.version}"
            if not report.passed:
                self._writer.publisher.quarantine(
                    scope, row, new_id(), mode="adopt", rows=found.rows, columns=columns_of(found.schema),
                    report=report, source=source, idempotency_key=None,
                )  # fmt: skip
                return WriteResult(dataset=name, status="quarantined", rows=found.rows, report=report)
            version = DatasetVersion(
                dataset=name,
                version=row.last + 1,
                parent=head.number,
                mode="adopt",
                rows=found.rows,
                rows_written=found.rows,
                size_bytes=found.size_bytes,
                columns=columns_of(found.schema),
                created_at=self._database.clock.now(),
                created_by=scope.actor,
                source=source,
                table_version=found.version if found.version >= 0 else None,
                report=report,
                profile=profile,
            )
            added, gone = _difference(head.files, found.held)
            plan = make_plan(version, head, found.schema, dataset=row.noun, removed=gone, added=added, logged=False)
            number = self._writer.publisher.publish(scope, row, new_id(), plan, None)
        return WriteResult(dataset=name, status="published", rows=found.rows, report=report, version=number)


def _difference(before: Sequence[DataFile], after: Sequence[DataFile]) -> tuple[Sequence[DataFile], Sequence[DataFile]]:
    """Which files come and which go; one that was changed in place does both."""
    known = {one.name: (one.size_bytes, one.modified_us) for one in before}
    added = [one for one in after if known.get(one.name) != (one.size_bytes, one.modified_us)]
    stay = {one.name for one in after} - {one.name for one in added}
    return added, [one for one in before if one.name not in stay]


def _folder(path: str) -> Path:
    given = Path(path)
    if not given.is_absolute():
        raise InvalidInput(
            f"{path[:200]!a} is no absolute path",
            code="dataset.path_invalid",
            hint="name the folder on the server's machine from its root",
        )
    try:
        folder = given.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise InvalidInput(f"{path[:200]!a} cannot be read: {error}", code="dataset.path_invalid") from error
    if not folder.is_dir():
        raise Conflict(
            f"{folder} is no folder: only a folder is read in place",
            code="dataset.path_invalid",
            hint="import a single file with `modelyard dataset import`",
        )
    return folder
