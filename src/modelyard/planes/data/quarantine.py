"""Batches that were turned down: kept aside with their report, to be looked at, and discarded."""

from __future__ import annotations

from collections.abc import Callable

from modelyard.engines.tables.base import FileSet, TableStore
from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database
from modelyard.kernel.errors import NotFound
from modelyard.kernel.limits import PAGE_ITEMS_DEFAULT
from modelyard.planes.data import store
from modelyard.planes.data.branches import dataset_row
from modelyard.planes.data.checks import report_sent
from modelyard.planes.data.paging import page_size
from modelyard.types.data import Quarantined, Rows
from modelyard.types.page import Page

ShowRows = Callable[[FileSet, "str | None", int], Rows]


class Quarantine:
    """The batches of datasets that were turned down. `show` gives some rows of files, for looking at."""

    def __init__(self, database: Database, tables: TableStore, show: ShowRows) -> None:
        self._database = database
        self._tables = tables
        self._show = show

    def list(self, scope: Scope, name: str | None, *, limit: int = PAGE_ITEMS_DEFAULT) -> Page[Quarantined]:
        """Batches of a dataset, or of all, that were turned down and not discarded, newest first."""
        dataset = None if name is None else dataset_row(self._database, scope, name).id
        with self._database.reading(scope) as tx:
            found = store.writes_of(tx, dataset, store.QUARANTINED, page_size(limit))
        return Page([_quarantined(write) for write in found])

    def get(self, scope: Scope, name: str, quarantine_id: str) -> Quarantined:
        """One such batch with its report. Raises NotFound."""
        return _quarantined(self._write(scope, name, quarantine_id))

    def rows(self, scope: Scope, name: str, quarantine_id: str, *, filter: str | None = None, limit: int = 100) -> Rows:
        """Rows of such a batch, those that meet an SQL condition where one is given."""
        write = self._write(scope, name, quarantine_id)
        return self._show(self._staged_table(write.location, write.id), filter, limit)

    def discard(self, scope: Scope, name: str, quarantine_id: str) -> None:
        """Remove a batch from quarantine, with its files."""
        write = self._write(scope, name, quarantine_id)
        with self._database.transaction(scope) as tx:
            store.finish_write(tx, write.id, store.DISCARDED)
            tx.event("dataset.batch_discarded", f"dataset:{name}", {"quarantine_id": write.id})
        self._tables.discard(write.location, write.id)

    def _write(self, scope: Scope, name: str, quarantine_id: str) -> store.WriteRow:
        row = dataset_row(self._database, scope, name)
        with self._database.reading(scope) as tx:
            write = store.write_row(tx, quarantine_id)
        if write is None or write.dataset_id != row.id or write.status != store.QUARANTINED:
            raise NotFound(
                f"dataset '{name}' has no batch {quarantine_id[:64]!a} in quarantine",
                code="dataset.quarantine_not_found",
                hint=f"list them with `modelyard dataset quarantine list {name}`",
            )
        return write

    def _staged_table(self, location: str, write_id: str) -> FileSet:
        import pyarrow.parquet as pq  # heavy: imported late

        files = self._tables.staged(location, write_id)
        if not files:
            raise NotFound(
                "this write brought no rows, it only took some away: look at its report", code="dataset.no_rows"
            )
        return FileSet(pq.read_schema(files[0]), files, uniform=True)


def _quarantined(write: store.WriteRow) -> Quarantined:
    return Quarantined(
        id=write.id,
        dataset=write.dataset,
        mode=write.mode,
        rows=write.rows,
        columns=write.columns,
        created_at=write.created_at,
        created_by=write.created_by,
        source=write.source,
        report=report_sent(write.report),
    )
