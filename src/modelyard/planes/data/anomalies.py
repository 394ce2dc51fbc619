"""The verbs of anomalies, and the reconciler that notices that no version came."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from modelyard.kernel.auth import Scope, system_scope
from modelyard.kernel.database import Database
from modelyard.kernel.limits import PAGE_ITEMS_DEFAULT
from modelyard.kernel.reconcile import Lease
from modelyard.planes.data import history_store, store
from modelyard.planes.data.anomaly_rules import overdue
from modelyard.types.page import Page
from modelyard.types.profiles import FoundAnomaly


class Anomalies:
    """What was found unusual about datasets."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(
        self,
        scope: Scope,
        dataset: str | None = None,
        *,
        standing: bool = False,
        after: str | None = None,
        limit: int = PAGE_ITEMS_DEFAULT,
    ) -> Page[FoundAnomaly]:
        """Newest first, of one dataset or all. `standing`: only what is about the newest version."""
        with self._database.reading(scope) as tx:
            found = history_store.list_anomalies(tx, dataset, standing=standing, before=after, limit=limit + 1)
        return Page(found[:limit], found[limit - 1].id if len(found) > limit else None)


class FreshnessWatch:
    """Notices datasets of which a version should have come. It looks at one indexed instant, and says it once."""

    name = "data.freshness"

    def __init__(self, database: Database) -> None:
        self._database = database

    def due(self, now: datetime) -> Sequence[str]:
        with self._database.reading() as tx:
            return [f"{project}/{name}" for project, name in history_store.due(tx, now, 100)]

    def act(self, key: str, lease: Lease) -> None:
        project, _, name = key.partition("/")
        with self._database.transaction(system_scope(project), lease=lease) as tx:
            row = store.dataset_named(tx, name)
            known = None if row is None else history_store.expectation(tx, row.id)
            if row is None or known is None:
                return
            last_at, expected = known
            found = overdue(expected, last_at, tx.now)
            if found is None:
                return
            history_store.insert_anomalies(tx, row.id, None, [found])
            history_store.expectation_told(tx, row.id)
            said = {"kind": found.kind, "column": "", "reason": found.reason}
            tx.event("dataset.anomaly_found", f"dataset:{name}", {"anomalies": [said], "count": 1})
