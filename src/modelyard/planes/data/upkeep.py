"""What keeps datasets in order after crashes: ending what was cut off, removing what was left behind."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import gettempdir

from modelyard.engines.tables.base import TableStore
from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database
from modelyard.kernel.errors import NotFound
from modelyard.kernel.ids import new_id
from modelyard.kernel.paths import make_private, remove_older
from modelyard.planes.data import store
from modelyard.planes.data.publish import Publisher

PENDING_AFTER = timedelta(seconds=30)
STAGED_KEPT = timedelta(hours=24)


class Upkeep:
    """Everything here may run twice, and beside live writers."""

    def __init__(self, database: Database, tables: TableStore, publisher: Publisher, spill: Path | None) -> None:
        self._database = database
        self._tables = tables
        self._publisher = publisher
        self._spill = spill

    def unfinished(self, now: datetime) -> Sequence[tuple[str, str]]:
        """Project and name of datasets with a publication that began some time ago and did not end."""
        with self._database.reading() as tx:
            return store.unfinished(tx, now - PENDING_AFTER, 100)

    def recover(self, scope: Scope, name: str) -> int:
        """Carry out publications of a dataset that a crash cut off. Returns how many. Raises NotFound."""
        with self._database.reading(scope) as tx:
            row = store.dataset_named(tx, name)
        if row is None:
            raise NotFound(f"dataset '{name}' does not exist in project '{scope.project}'", code="dataset.not_found")
        with self._tables.exclusive(row.location):
            return self._publisher.recover(scope, row)

    def with_retention(self) -> Sequence[tuple[str, str]]:
        """Project and name of datasets that say which versions to keep."""
        with self._database.reading() as tx:
            return store.with_retention(tx)

    def sweep(self, now: datetime) -> int:
        """Remove files of writes that came to nothing: older than a day, and in no version and no quarantine."""
        before = now - STAGED_KEPT
        with self._database.reading() as tx:
            locations = store.locations(tx)
            kept = store.write_ids_kept(tx)
        removed = sum(self._tables.sweep(location, kept, before) for location in locations)
        return removed + (0 if self._spill is None else remove_older(self._spill, before))

    def spool(self) -> Path:
        """The name of a new file for a body that is being received."""
        return make_private(self._spill or Path(gettempdir()) / "modelyard") / f"{new_id()}.incoming"
