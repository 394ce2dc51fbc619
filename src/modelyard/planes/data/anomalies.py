"""The verbs of anomalies, and the reconciler that notices that no version came."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from modelyard.kernel.auth import Scope, system_scope
from modelyard.kernel.database import Database
from modelyard.kernel.limits import PAGE_ITEMS_DEFAULT
from modelyard.kernel.reconcile import Lease
from modelyard.planes.data import history_store, store
from modelyard.planes.data.anomaly_rules import Earlier, overdue, usual_rows
from modelyard.planes.data.branches import require_dataset
from modelyard.types.page import Page
from modelyard.types.profiles import FoundAnomaly, FreshnessState, WriteVolume


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

    def freshness(self, scope: Scope, dataset: str) -> FreshnessState:
        """When the last version came and by when the next should, where that can be told. Raises NotFound."""
        with self._database.reading(scope) as tx:
            row = require_dataset(store.dataset_named(tx, dataset), scope, dataset)
            known = history_store.last_expectation(tx, row.id)
            last_at = max(history_store.write_instants(tx, row.id), default=None)
        if known is None:
            reason = "too few versions came to tell what is usual"
            return FreshnessState(last_at=last_at, due_at=None, overdue=False, reason=reason)
        due_at = known.by
        return FreshnessState(last_at=last_at, due_at=due_at, overdue=tx.now > due_at, reason=known.reason)

    def volumes(self, scope: Scope, dataset: str) -> Sequence[WriteVolume]:
        """What the latest writes brought, oldest first, each with what was usual then. Only writes of the kind that
        the newest is of are compared. Raises NotFound."""
        with self._database.reading(scope) as tx:
            row = require_dataset(store.dataset_named(tx, dataset), scope, dataset)
            mode = history_store.last_mode(tx, row.id)
            history = [] if mode is None else history_store.earlier_writes(tx, row.id, mode)
        return [_volume(history[:place], one) for place, one in enumerate(history)]


def _volume(before: Sequence[Earlier], write: Earlier) -> WriteVolume:
    usual = usual_rows(before, write.at)
    return WriteVolume(
        version=write.version,
        at=write.at,
        rows=write.measure.rows,
        expected_low=usual and usual[0],
        expected_high=usual and usual[1],
    )


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
