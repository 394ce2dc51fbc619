"""The verbs of retention: declare it, see what it would do, and do it. What is protected stays whoever asks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy import select

from modelyard.kernel.auth import Action, Scope, check, system_scope
from modelyard.kernel.database import Database
from modelyard.kernel.errors import Conflict
from modelyard.planes.registry import store
from modelyard.planes.registry.ports import Uses
from modelyard.planes.registry.retention import plan
from modelyard.planes.registry.rows import locked_model, model_row, uses_of
from modelyard.planes.registry.services.versions import Versions
from modelyard.types.registry import Model, Retention, RetentionStep

EVERY = timedelta(hours=1)
DUE_MAX = 100


class Retentions:
    """Retention of models."""

    def __init__(self, database: Database, versions: Versions, uses: Sequence[Uses]) -> None:
        self._database = database
        self._versions = versions
        self._uses = uses

    def declare(self, scope: Scope, name: str, retention: Retention | None, reason: str = "") -> Model:
        """Declare, change or take away the retention. On a model with a policy this takes an admin."""
        with self._database.transaction(scope) as tx:
            row = locked_model(tx, name)
            if row.policy is not None:
                check(scope.principal, Action.ADMIN, scope.project)
            tx.execute(
                store.models.update()
                .where(store.models.c.id == row.id)
                .values(retention=retention, retention_due_at=None if retention is None else tx.now)
            )
            kind = "model.retention_set" if retention is not None else "model.retention_removed"
            tx.event(kind, f"model:{name}", {"model": name, "reason": reason})
            return store.to_models(tx, [model_row(tx, name)])[0]

    def preview(self, scope: Scope, name: str, retention: Retention | None = None) -> list[RetentionStep]:
        """What the declared retention (or another) would do to each version now, newest first."""
        with self._database.reading(scope) as tx:
            row = model_row(tx, name)
            asked = retention or store.retention_of(row)
            if asked is None:
                return []
            rows = tx.all(store.with_name(row).order_by(store.versions.c.version.desc()))
            return plan(store.to_versions(tx, rows), asked, uses_of(tx, self._uses, name), tx.now)

    def due(self, now: datetime) -> Sequence[str]:
        """The models whose retention looks now."""
        table = store.models
        with self._database.reading(system_scope("*")) as tx:
            rows = tx.all(
                select(table.c.id)
                .where(table.c.retention_due_at <= now, table.c.live_name.is_not(None))
                .order_by(table.c.retention_due_at)
                .limit(DUE_MAX)
            )
        return [row.id for row in rows]

    def carry_out(self, model_id: str) -> None:
        """Do now what the retention of a model says. What became protected in between is passed over."""
        table = store.models
        with self._database.reading(system_scope("*")) as tx:
            row = tx.one(select(table).where(table.c.id == model_id, table.c.live_name.is_not(None)))
        if row is None or row.retention is None:
            return
        scope = system_scope(row.project)
        for step in self.preview(scope, row.name):
            if step.action == "drop":
                try:
                    self._versions.drop(scope, row.name, step.version, f"retention: {step.reason}")
                except Conflict:
                    continue
            elif step.action == "purge":
                self._versions.purge(scope, row.name, step.version, f"retention: {step.reason}")
        with self._database.transaction(scope) as tx:
            still = sa.and_(table.c.id == model_id, table.c.retention_due_at.is_not(None))
            tx.execute(table.update().where(still).values(retention_due_at=tx.now + EVERY))
