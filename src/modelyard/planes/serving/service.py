"""The verbs of endpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import select

from modelyard.engines.compute.base import ComputeEngine
from modelyard.kernel import events
from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database, Transaction
from modelyard.kernel.errors import Conflict, InvalidInput, ModelyardError, NotFound, Unavailable
from modelyard.kernel.event import Event
from modelyard.kernel.events import EventReader
from modelyard.kernel.limits import PAGE_ITEMS_DEFAULT, PAGE_ITEMS_MAX
from modelyard.kernel.reconcile import Reconciler
from modelyard.planes.data import Data
from modelyard.planes.serving import store
from modelyard.planes.serving.ports import Versions
from modelyard.planes.serving.reconcile import (
    DATASET_PREFIX,
    STOPPED,
    SWITCHED,
    AliasFollower,
    EndpointReconciler,
    PredictionIngest,
)
from modelyard.planes.serving.served_features import Verifier
from modelyard.planes.serving.targets import CHAMPION, resolve, specs_of
from modelyard.types.features import FeatureVerification, VerifyLogged
from modelyard.types.page import Page
from modelyard.types.registry import ModelVersion
from modelyard.types.serving import CreateEndpoint, Endpoint, PredictionRows, Switch, UpdateEndpoint, Variant

__all__ = ["ModelVersion", "Serving"]


class Serving:
    """Endpoints: what is wanted is kept here, and brought about by the reconcilers.

    `versions` is the registry's, `compute` runs the prediction processes, and their files lie below `directory`.
    """

    def __init__(
        self, database: Database, versions: Versions, data: Data, compute: ComputeEngine, directory: Path
    ) -> None:
        self._database = database
        self._versions = versions
        self._data = data
        self._compute = compute
        self._directory = directory
        self._verify: Verifier | None = None

    def create(self, scope: Scope, wanted: CreateEndpoint) -> Endpoint:
        """A new endpoint; its process is started soon after.

        Raises Conflict where there is one, NotFound for an unknown model, version or alias, InvalidInput for a version
        without signature, Forbidden for one of an unsafe format that nobody trusted.
        """
        alias = wanted.alias or ("" if wanted.version is not None or wanted.variants else CHAMPION)
        specs = specs_of(alias, wanted.version, wanted.variants)
        variants = resolve(scope, self._versions, wanted.model, specs)
        with self._database.transaction(scope) as tx:
            try:
                store.insert(
                    tx,
                    {
                        "name": wanted.name, "model": wanted.model, "specs": specs, "variants": variants,
                        "options": wanted.options, "running": True, "deleting": False, "revision": 1,
                        "written_revision": 0, "observed_revision": 0, "failed_revision": 0, "serving": [],
                        "state": "starting", "error": "", "refusal": "", "attempt": 0, "handle": None,
                        "launched": False, "stopping": False, "host": "127.0.0.1", "port": wanted.options.port,
                        "pid": 0, "restarts": 0,
                        "started_at": None, "next_start_at": None, "rows_logged": 0, "created_at": tx.now,
                        "created_by": tx.actor, "updated_at": tx.now,
                    },
                )  # fmt: skip
            except Conflict as error:
                raise Conflict(
                    f"endpoint '{wanted.name}' exists already in project '{tx.project}'",
                    code="endpoint.exists",
                    hint="change it with `modelyard endpoint update`; one that is being deleted is gone in a moment",
                ) from error
            store.add_revision(tx, wanted.name, tx.now, 1, variants, "created")
            tx.event("endpoint.created", f"endpoint:{wanted.name}", _about(1, variants, "created"))
            return store.to_endpoint(store.find(tx, wanted.name))

    def get(self, scope: Scope, name: str) -> Endpoint:
        """An endpoint. Raises NotFound."""
        with self._database.reading(scope) as tx:
            return store.to_endpoint(store.find(tx, name))

    def list(self, scope: Scope, *, after: str | None = None, limit: int = PAGE_ITEMS_DEFAULT) -> Page[Endpoint]:
        """Endpoints by name."""
        limit = _page_size(limit)
        with self._database.reading(scope) as tx:
            rows = store.page(tx, after, limit + 1)
        more = rows[limit - 1].name if len(rows) > limit else None
        return Page([store.to_endpoint(row) for row in rows[:limit]], more)

    def update(self, scope: Scope, name: str, change: UpdateEndpoint) -> Endpoint:
        """Change traffic, options, or whether it runs. Traffic and options make a new revision, switched to without
        a failed request. Raises Conflict where `expected` is not the revision, and what `create` raises."""
        with self._database.reading(scope) as tx:
            row = store.find(tx, name)
        self._check_changeable(row, change)
        values: dict[str, Any] = {}
        specs = row.specs
        if change.variants or change.alias or change.version is not None:
            specs = specs_of(change.alias, change.version, change.variants)
        if specs != row.specs or change.options not in (None, row.options):
            values |= {"specs": specs, "options": change.options or row.options}
            values["variants"] = resolve(scope, self._versions, row.model, specs)
            values |= {"revision": row.revision + 1, "refusal": ""}
        if change.running is not None and change.running != row.running:
            values |= {"running": change.running, "restarts": 0, "next_start_at": None}
        if not values:
            return store.to_endpoint(row)
        with self._database.transaction(scope) as tx:
            store.update(tx, row, **values, updated_at=tx.now)
            variants, revision = values.get("variants", row.variants), values.get("revision", row.revision)
            if revision > row.revision:
                store.add_revision(tx, name, row.created_at, revision, variants, change.reason)
            about = _about(revision, variants, change.reason) | {"running": values.get("running", row.running)}
            tx.event("endpoint.updated", f"endpoint:{name}", about)
            return store.to_endpoint(store.find(tx, name))

    def follow(self, scope: Scope, name: str, reason: str) -> Endpoint:
        """Resolve the aliases of an endpoint anew; a new revision where one names another version now."""
        with self._database.reading(scope) as tx:
            row = store.find(tx, name)
        variants = resolve(scope, self._versions, row.model, row.specs)
        if row.deleting or (variants == row.variants and not row.refusal):
            return store.to_endpoint(row)
        with self._database.transaction(scope) as tx:
            if variants == row.variants:
                store.update(tx, row, refusal="", updated_at=tx.now)
                return store.to_endpoint(store.find(tx, name))
            revision = row.revision + 1
            store.update(tx, row, variants=variants, revision=revision, refusal="", updated_at=tx.now)
            store.add_revision(tx, name, row.created_at, revision, variants, reason)
            tx.event("endpoint.updated", f"endpoint:{name}", _about(revision, variants, reason))
            return store.to_endpoint(store.find(tx, name))

    def refuse_switch(self, scope: Scope, name: str, error: ModelyardError) -> None:
        """Record why an endpoint did not follow its alias; it goes on with what it serves."""
        with self._database.transaction(scope) as tx:
            store.update(tx, store.find(tx, name), refusal=str(error), updated_at=tx.now)
            tx.event("endpoint.switch_refused", f"endpoint:{name}", {"error": str(error), "code": error.code})

    def delete(self, scope: Scope, name: str, reason: str = "") -> Endpoint:
        """Stop an endpoint and forget it. What it answered until then stays in its prediction dataset."""
        with self._database.transaction(scope) as tx:
            row = store.find(tx, name)
            if not row.deleting:
                store.update(tx, row, deleting=True, running=False, state="deleting", updated_at=tx.now)
                tx.event("endpoint.deleted", f"endpoint:{name}", {"reason": reason})
            return store.to_endpoint(store.find(tx, name))

    def switches(self, scope: Scope, name: str, *, limit: int = PAGE_ITEMS_DEFAULT) -> Sequence[Switch]:
        """What it served since when, newest first; also for an endpoint that was deleted. Raises NotFound."""
        with self._database.reading(scope) as tx:
            subject, kinds = f"endpoint:{name}", frozenset({SWITCHED, STOPPED})
            found = events.recent(tx, subject=subject, kinds=kinds, limit=_page_size(limit))
            if not found:
                store.find(tx, name)
        return [_switch(name, event) for event in found]

    def served_at(self, scope: Scope, name: str, at: datetime) -> Switch:
        """What an endpoint served at an instant, by the event log. Raises NotFound where it served nothing yet."""
        if at.tzinfo is None:
            raise InvalidInput(
                "the instant has no time zone", code="endpoint.instant_invalid", hint="write 2013-07-01T00:00:00Z"
            )
        log = events.events
        with self._database.reading(scope) as tx:
            row = tx.one(
                select(log)
                .where(
                    log.c.project == tx.project,
                    log.c.subject == f"endpoint:{name}",
                    log.c.kind.in_((SWITCHED, STOPPED)),
                    log.c.at <= at,
                )
                .order_by(log.c.at.desc(), log.c.id.desc())
                .limit(1)
            )
            if row is None:
                store.find(tx, name)
                raise NotFound(
                    f"endpoint '{name}' had served nothing by {at.isoformat()}", code="endpoint.served_nothing"
                )
            return _switch(name, events.to_event(row))

    def versions_in_use(self, tx: Transaction, model: str) -> Mapping[int, Sequence[str]]:
        """The versions of a model that endpoints serve or shall serve, each with those endpoints: the registry asks."""
        found: dict[int, Any] = {}
        for row in store.following(tx, model):
            for number in sorted({one.version for one in (*row.variants, *row.serving) if one.model == model}):
                found.setdefault(number, []).append(f"endpoint:{row.name}")
        return found

    def in_force(self, tx: Transaction) -> Mapping[str, Sequence[str]]:
        """The model versions that are served, each with the endpoints that serve it: whose data must stay."""
        found: dict[str, Any] = {}
        for row in store.serving_now(tx):
            for urn in sorted({one.urn for one in row.serving if one.weight > 0}):
                found.setdefault(urn, []).append(f"endpoint:{row.name}")
        return found

    def predictions(self, scope: Scope, name: str, *, limit: int = 20) -> PredictionRows:
        """The newest logged predictions that were taken in. Raises NotFound while there are none."""
        dataset = DATASET_PREFIX + name
        limit = min(max(limit, 1), PAGE_ITEMS_MAX)
        try:
            newest = f'SELECT * FROM "{dataset}" ORDER BY "at" DESC, "row" LIMIT {limit}'
            table = self._data.query(scope, newest, {dataset: None})
        except NotFound as error:
            raise self._unlogged(scope, name) from error
        return PredictionRows(dataset=dataset, rows=table.to_pylist())

    def _unlogged(self, scope: Scope, name: str) -> NotFound:
        """What to say where the log has no version yet. Raises NotFound where there is no such endpoint."""
        with self._database.reading(scope) as tx:
            store.find(tx, name)
        return NotFound(
            f"no prediction of endpoint '{name}' was taken in yet",
            code="endpoint.no_predictions",
            hint="they arrive some seconds after they were made",
        )

    def verifies_by(self, verify: Verifier) -> None:
        """Let features that were served be verified by this function."""
        self._verify = verify

    def verify_features(self, scope: Scope, name: str, asked: VerifyLogged) -> FeatureVerification:
        """Whether the features that an endpoint was given are those that training sees, by its prediction log.

        Raises NotFound while nothing is logged, InvalidInput where the log does not hold what is needed.
        """
        if self._verify is None:
            raise Unavailable("there are no feature views here to verify by", code="features.none")
        dataset = DATASET_PREFIX + name
        try:
            self._data.resolve(scope, dataset)
        except NotFound as error:
            raise self._unlogged(scope, name) from error
        return self._verify(scope, name, dataset, asked)

    def reconcilers(self) -> Sequence[Reconciler]:
        """What the reconcile loop runs for this plane."""
        return [
            EndpointReconciler(self._database, self._versions, self._compute, self._directory),
            PredictionIngest(self._database, self._data, self._directory),
        ]

    def readers(self) -> Sequence[EventReader]:
        """Who acts on events for this plane."""
        return [AliasFollower(self._database, self.follow, self.refuse_switch)]

    @staticmethod
    def _check_changeable(row: store.EndpointRow, change: UpdateEndpoint) -> None:
        if row.deleting:
            raise Conflict(f"endpoint '{row.name}' is being deleted", code="endpoint.deleting")
        if change.expected is not None and change.expected != row.revision:
            raise Conflict(
                f"endpoint '{row.name}' is at revision {row.revision}, not {change.expected}",
                code="stale",
                hint="read it again and repeat",
            )


def _about(revision: int, variants: Sequence[Variant], reason: str) -> dict[str, Any]:
    return {"revision": revision, "variants": msgspec.to_builtins(list(variants)), "reason": reason}


def _switch(name: str, event: Event) -> Switch:
    data = event.data
    return Switch(
        endpoint=name,
        at=event.at,
        revision=int(data.get("revision", 0)),
        variants=msgspec.convert(data.get("variants", []), list[Variant]),
        by=str(data.get("by", event.actor)),
        reason=str(data.get("reason", "")),
    )


def _page_size(limit: int) -> int:
    if not 1 <= limit <= PAGE_ITEMS_MAX:
        raise InvalidInput(f"a page has 1 to {PAGE_ITEMS_MAX} items, not {limit}", code="page.limit_invalid")
    return limit
