"""The verbs of monitoring."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from msgspec.structs import replace

from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database, Transaction
from modelyard.kernel.errors import Conflict, InvalidInput, NotFound
from modelyard.kernel.events import EventReader
from modelyard.kernel.ids import is_id, new_id
from modelyard.kernel.limits import PAGE_ITEMS_DEFAULT, PAGE_ITEMS_MAX
from modelyard.kernel.reconcile import Lease, Reconciler
from modelyard.planes.data import Data
from modelyard.planes.monitoring import store
from modelyard.planes.monitoring.decisions import Again, Raise, Resolve, decide
from modelyard.planes.monitoring.evaluation import Evaluator, Outcome, baseline_of
from modelyard.planes.monitoring.performance import parse_label
from modelyard.planes.monitoring.reconcile import EvaluateMonitors, WatchDatasets
from modelyard.planes.monitoring.state import Memory, WindowKey, WindowState
from modelyard.planes.monitoring.windows import parse_window
from modelyard.types.monitoring import Alert, Evaluation, Monitor, MonitorSpec, MonitorWindow, Thresholds
from modelyard.types.page import Page

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
STATUSES = ("open", "acknowledged", "resolved")
EVALUATE_TRIES = 5
GATHER_S = 3.0
"""A log that is written to all the time makes many small versions: they are looked at together."""
DECIDED_WINDOWS_MAX = 200
DECIDED_ALERTS_MAX = 200
DECISION_ROUNDS_MAX = 8


class Monitoring:
    """Monitors, the results of their windows, and alerts."""

    def __init__(self, database: Database, data: Data) -> None:
        self._database = database
        self._data = data

    # --- monitors ---------------------------------------------------------------------------------------------

    def create(self, scope: Scope, spec: MonitorSpec) -> Monitor:
        """A new monitor, evaluated as soon as there is something to read. Raises InvalidInput, Conflict."""
        check_spec(spec)
        with self._database.transaction(scope) as tx:
            if store.monitor_named(tx, spec.name) is not None:
                raise Conflict(
                    f"monitor '{spec.name}' exists already",
                    code="monitor.exists",
                    hint="update it, or choose another name",
                )
            store.insert_monitor(
                tx,
                {
                    "id": new_id(), "name": spec.name, "memory": Memory(), "revision": 0, "marks": 0,
                    "created_at": tx.now, "created_by": tx.actor, **_spec_values(tx, spec),
                },
            )  # fmt: skip
            tx.event("monitor.created", f"monitor:{spec.name}", {"endpoint": spec.endpoint})
        return self.get(scope, spec.name)

    def get(self, scope: Scope, name: str) -> Monitor:
        """A monitor. Raises NotFound."""
        with self._database.reading(scope) as tx:
            return _row(tx, name).noun

    def list(self, scope: Scope, *, after: str | None = None, limit: int = PAGE_ITEMS_DEFAULT) -> Page[Monitor]:
        """Monitors by name."""
        limit = _page_size(limit)
        with self._database.reading(scope) as tx:
            found = store.list_monitors(tx, after or "", limit + 1)
        return Page(found[:limit], found[limit - 1].name if len(found) > limit else None)

    def update(self, scope: Scope, name: str, spec: MonitorSpec) -> Monitor:
        """Change what a monitor watches. What it has computed is computed anew; its alerts stay."""
        check_spec(spec)
        if spec.name != name:
            raise InvalidInput(
                f"a monitor keeps its name: '{name}' cannot become '{spec.name}'",
                code="monitor.name_changed",
                hint="create another monitor",
            )
        with self._database.transaction(scope) as tx:
            row = _row(tx, name)
            store.delete_windows(tx, row.noun.id)
            values = {"memory": Memory(), "predictions_version": None, "labels_version": None, **_spec_values(tx, spec)}
            store.update_monitor(tx, row, values)
            tx.event("monitor.updated", f"monitor:{name}")
        return self.get(scope, name)

    def delete(self, scope: Scope, name: str) -> None:
        """Remove a monitor and its windows. Its alerts stay as history; those unresolved are resolved."""
        with self._database.transaction(scope) as tx:
            row = _row(tx, name)
            for alert in store.alerts_of(tx, row.noun.id, PAGE_ITEMS_MAX):
                if alert.status != "resolved":
                    _resolve(tx, alert, "the monitor was deleted")
            store.delete_monitor(tx, row.noun.id)
            tx.event("monitor.deleted", f"monitor:{name}")

    # --- results ----------------------------------------------------------------------------------------------

    def windows(
        self, scope: Scope, name: str, *, before: datetime | None = None, limit: int = PAGE_ITEMS_DEFAULT
    ) -> Page[MonitorWindow]:
        """The results of windows, newest first; a page ends with whole windows, whatever versions they had."""
        limit = _page_size(limit)
        with self._database.reading(scope) as tx:
            row = _row(tx, name)
            found = store.results_of(tx, row.noun.id, limit=limit + 1, before=before)
        if len(found) <= limit:
            return Page(found)
        whole = [window for window in found if window.start > found[-1].start]
        if not whole:
            whole = found[:limit]
        return Page(whole, whole[-1].start.isoformat())

    def evaluate(self, scope: Scope, name: str, *, complete_through: datetime | None = None) -> Evaluation:
        """Evaluate now. Windows that end by `complete_through` are taken as complete from now on.

        Where the platform itself evaluates at the same time, it is done again on what that left. Raises NotFound;
        Conflict (`stale`) where the monitor changes all the time.
        """
        for _ in range(EVALUATE_TRIES - 1):
            try:
                return self.carry_out(scope, name, lease=None, complete_through=complete_through)
            except Conflict as error:
                if error.code != "stale":
                    raise
        return self.carry_out(scope, name, lease=None, complete_through=complete_through)

    def carry_out(
        self, scope: Scope, name: str, *, lease: Lease | None, complete_through: datetime | None = None
    ) -> Evaluation:
        """As `evaluate`, under a lease where there is one."""
        with self._database.reading(scope) as tx:
            row = _row(tx, name)
            marks = store.window_marks(tx, row.noun.id)
            now = tx.now
        if complete_through is not None:
            said = max(filter(None, (row.memory.complete_through, complete_through)))
            row = _with_memory(row, complete_through=said)

        def load(keys: Sequence[WindowKey]) -> Mapping[WindowKey, WindowState]:
            with self._database.reading(scope) as tx:
                return store.window_states(tx, row.noun.id, keys)

        outcome: Outcome | None = None
        problem: str | None = None
        try:
            outcome = Evaluator(self._data, scope, row, marks, load, now).run()
            problem = outcome.problem
        except (InvalidInput, NotFound) as error:
            # New data, or a changed monitor, may mend it; until then it stands in the monitor for all to see.
            problem = str(error)
        with self._database.transaction(scope, lease=lease) as tx:
            if outcome is None or problem is not None:
                values = {"problem": problem, "due_at": None, "evaluated_at": tx.now, "memory": row.memory}
                store.update_monitor(tx, row, values)
                return Evaluation(
                    monitor=name,
                    predictions_version=row.noun.predictions_version,
                    labels_version=row.noun.labels_version,
                    windows_evaluated=0,
                    windows_unchanged=len(marks),
                    problem=problem,
                )
            return self._apply(tx, row, outcome, {mark.key for mark in marks})

    def _apply(self, tx: Transaction, row: store.MonitorRow, outcome: Outcome, kept: set[WindowKey]) -> Evaluation:
        monitor_id = row.noun.id
        # First of all, so that of two evaluations at once one goes on and the other ends here.
        store.update_monitor(
            tx,
            row,
            {
                "memory": outcome.memory,
                "predictions_version": outcome.predictions_version,
                "labels_version": outcome.labels_version,
                "evaluated_at": tx.now,
                "due_at": outcome.due_at,
                "problem": None,
            },
        )
        if outcome.restart:
            store.delete_windows(tx, monitor_id)
        store.put_windows(tx, monitor_id, outcome.windows)
        raised, resolved = self._decide(tx, row, outcome)
        return Evaluation(
            monitor=row.noun.name,
            predictions_version=outcome.predictions_version,
            labels_version=outcome.labels_version,
            windows_evaluated=len(outcome.windows),
            windows_unchanged=0 if outcome.restart else len(kept - {window.key for window in outcome.windows}),
            raised=tuple(raised),
            resolved=tuple(resolved),
        )

    # --- alerts -----------------------------------------------------------------------------------------------

    def alert(self, scope: Scope, alert_id: str) -> Alert:
        """An alert. Raises NotFound."""
        with self._database.reading(scope) as tx:
            return _alert(tx, alert_id)

    def alerts(
        self,
        scope: Scope,
        *,
        monitor: str | None = None,
        status: str | None = None,
        before: str | None = None,
        limit: int = PAGE_ITEMS_DEFAULT,
    ) -> Page[Alert]:
        """Alerts, newest first."""
        if status is not None and status not in STATUSES:
            raise InvalidInput(
                f"'{status[:40]}' is no status of an alert",
                code="alert.status_invalid",
                hint=f"use one of {', '.join(STATUSES)}",
            )
        limit = _page_size(limit)
        with self._database.reading(scope) as tx:
            found = store.list_alerts(tx, monitor=monitor, status=status, before=before, limit=limit + 1)
        return Page(found[:limit], found[limit - 1].id if len(found) > limit else None)

    def acknowledge(self, scope: Scope, alert_id: str, note: str = "") -> Alert:
        """Say that somebody looks after an alert. Raises Conflict for one that is resolved."""
        with self._database.transaction(scope) as tx:
            alert = _alert(tx, alert_id)
            if alert.status == "resolved":
                raise Conflict(f"alert '{alert_id}' is resolved already", code="alert.resolved")
            if alert.status == "open":
                values = {"status": "acknowledged", "acknowledged_at": tx.now, "acknowledged_by": tx.actor}
                store.update_alert(tx, alert, values)
                tx.event("alert.acknowledged", f"alert:{alert_id}", {"monitor": alert.monitor, "note": note})
            return _alert(tx, alert_id)

    def resolve(self, scope: Scope, alert_id: str, note: str = "") -> Alert:
        """Close an alert. It is not raised again for the windows that it was raised for; one that is resolved stays."""
        with self._database.transaction(scope) as tx:
            alert = _alert(tx, alert_id)
            if alert.status != "resolved":
                _resolve(tx, alert, note or f"resolved by {tx.actor}")
            return _alert(tx, alert_id)

    def _decide(self, tx: Transaction, row: store.MonitorRow, outcome: Outcome) -> tuple[Sequence[str], Sequence[str]]:
        """Raise and resolve until nothing more follows. An alert that ends may make room for the next one."""
        raised: list[str] = []
        resolved: list[str] = []
        windows = store.results_of(tx, row.noun.id, limit=DECIDED_WINDOWS_MAX)
        versions = {window.model_version for window in windows}
        found = {version: baseline_of(row, outcome.memory, version) for version in versions}
        baselines = {version: baseline for version, baseline in found.items() if baseline is not None}
        models = {one.key.model_version: one.state.model for one in outcome.windows}
        for _ in range(DECISION_ROUNDS_MAX):
            alerts = store.alerts_of(tx, row.noun.id, DECIDED_ALERTS_MAX)
            decisions = decide(row.noun.spec.thresholds, windows, baselines, alerts)
            if not decisions:
                break
            for decision in decisions:
                match decision:
                    case Raise():
                        raised.append(_raise(tx, row, decision, models.get(decision.model_version), outcome))
                    case Again():
                        alert = next(one for one in alerts if one.id == decision.alert)
                        _ring_again(tx, row, alert, decision)
                        raised.append(alert.id)
                    case Resolve():
                        _resolve(tx, next(one for one in alerts if one.id == decision.alert), decision.reason)
                        resolved.append(decision.alert)
        return raised, resolved

    # --- within -----------------------------------------------------------------------------------------------

    def due(self, now: datetime, limit: int) -> Sequence[tuple[str, str]]:
        """Project and name of the monitors that need a look."""
        with self._database.reading() as tx:
            return store.due_monitors(tx, now, limit)

    def mark_due(self, scope: Scope, dataset: str) -> int:
        """A dataset has a new version: those who read it need a look soon. Returns how many these are."""
        with self._database.transaction(scope) as tx:
            return store.mark_due(tx, dataset, tx.now + timedelta(seconds=GATHER_S))

    def reconcilers(self) -> Sequence[Reconciler]:
        """What keeps the windows up to date."""
        return [EvaluateMonitors(self)]

    def readers(self) -> Sequence[EventReader]:
        """What hears of new data."""
        return [WatchDatasets(self)]


def check_spec(spec: MonitorSpec) -> None:
    """Raise InvalidInput for a monitor that has no meaning."""
    if not _NAME.fullmatch(spec.name):
        raise InvalidInput(
            f"{spec.name[:80]!a} cannot name a monitor",
            code="monitor.name_invalid",
            hint="use at most 64 lower-case letters, digits, '.', '_' or '-'",
        )
    if not spec.endpoint:
        raise InvalidInput("a monitor needs an endpoint", code="monitor.endpoint_missing", hint="name the endpoint")
    parse_window(spec.window)
    if spec.labels is not None:
        parse_label(spec.labels.label)
    wrong = _wrong_thresholds(spec.thresholds)
    if wrong:
        raise InvalidInput(
            f"the thresholds cannot be meant so: {'; '.join(wrong)}",
            code="monitor.thresholds_invalid",
            hint="see `modelyard monitor create --help`",
        )


def _wrong_thresholds(given: Thresholds) -> list[str]:
    # Written so that NaN is refused as well.
    limits = {
        name: getattr(given, name)
        for name in ("auc_drop", "calibration", "label_drift", "prediction_psi", "null_rate", "input_drift")
    }
    wrong = [f"{name} must be above 0" for name, limit in limits.items() if limit is not None and not limit > 0]
    rules = {
        "confidence must lie between 0.5 and 1": 0.5 <= given.confidence < 1,
        "label_coverage_min must lie between 0 and 1": 0 <= given.label_coverage_min <= 1,
        "resolve_ratio must lie between 0 and 1": 0 <= given.resolve_ratio <= 1,
        "rows_min must be at least 10": given.rows_min >= 10,
        "performance_windows, drift_windows and healthy_windows must be at least 1": min(
            given.performance_windows, given.drift_windows, given.healthy_windows
        )
        >= 1,
    }
    return [*wrong, *(text for text, holds in rules.items() if not holds)]


def _spec_values(tx: Transaction, spec: MonitorSpec) -> dict[str, Any]:
    return {
        "spec": spec,
        "predictions": spec.predictions or f"predictions.{spec.endpoint}",
        "labels": None if spec.labels is None else spec.labels.dataset,
        "due_at": tx.now,
        "problem": None,
        "updated_at": tx.now,
    }


def _raise(tx: Transaction, row: store.MonitorRow, decision: Raise, model: str | None, outcome: Outcome) -> str:
    alert_id, spec = new_id(), row.noun.spec
    store.insert_alert(
        tx,
        {
            "id": alert_id, "monitor_id": row.noun.id, "monitor": spec.name, "endpoint": spec.endpoint,
            "kind": decision.kind, "status": "open", "model": model, "model_version": decision.model_version,
            "window_start": decision.window_start, "window_end": decision.window_end, "reason": decision.reason,
            "numbers": decision.values, "windows": 1, "raised_at": tx.now,
        },
    )  # fmt: skip
    alert = store.alert_of(tx, alert_id)
    assert alert is not None
    _announce(tx, spec, alert)
    tx.link(f"monitor:{spec.name}", "produced", f"alert:{alert_id}")
    tx.link(f"alert:{alert_id}", "derived", f"dataset:{row.predictions}@{outcome.predictions_version}")
    if spec.labels is not None and outcome.labels_version is not None:
        tx.link(f"alert:{alert_id}", "derived", f"dataset:{spec.labels.dataset}@{outcome.labels_version}")
    if model is not None:
        tx.link(f"alert:{alert_id}", "derived", f"model:{model}@{decision.model_version}")
    return alert_id


def _ring_again(tx: Transaction, row: store.MonitorRow, alert: Alert, decision: Again) -> None:
    values = {
        "window_start": decision.window_start,
        "window_end": decision.window_end,
        "reason": decision.reason,
        "numbers": decision.values,
        "windows": alert.windows + 1,
    }
    store.update_alert(tx, alert, values)
    later = store.alert_of(tx, alert.id)
    assert later is not None
    _announce(tx, row.noun.spec, later)


def _announce(tx: Transaction, spec: MonitorSpec, alert: Alert) -> None:
    tx.event(
        "alert.raised",
        f"alert:{alert.id}",
        {
            "monitor": alert.monitor,
            "kind": alert.kind,
            "endpoint": alert.endpoint,
            "model": alert.model,
            "model_version": alert.model_version,
            "window": window_label(spec.window, alert.window_start),
            "window_start": alert.window_start.isoformat(),
            "window_end": alert.window_end.isoformat(),
            "reason": alert.reason,
            "values": alert.values,
            "again": alert.windows > 1,
        },
    )


def _resolve(tx: Transaction, alert: Alert, reason: str) -> None:
    values = {"status": "resolved", "resolved_at": tx.now, "resolved_by": tx.actor, "resolution": reason}
    store.update_alert(tx, alert, values)
    data = {"monitor": alert.monitor, "kind": alert.kind, "endpoint": alert.endpoint, "reason": reason}
    tx.event("alert.resolved", f"alert:{alert.id}", data)


def window_label(window: str, start: datetime) -> str:
    """A window in short: `2013-06` for a month, the day for a week or day, else with the hour."""
    if window == "month":
        return f"{start:%Y-%m}"
    return f"{start:%Y-%m-%d}" if window in ("week", "day") else f"{start:%Y-%m-%dT%H:00}"


def _row(tx: Transaction, name: str) -> store.MonitorRow:
    row = store.monitor_named(tx, name)
    if row is None:
        raise NotFound(
            f"monitor {name[:80]!a} does not exist in project '{tx.project}'",
            code="monitor.not_found",
            hint="list them with `modelyard monitor list`",
        )
    return row


def _alert(tx: Transaction, alert_id: str) -> Alert:
    alert = store.alert_of(tx, alert_id) if is_id(alert_id) else None
    if alert is None:
        raise NotFound(
            f"alert {alert_id[:40]!a} does not exist in project '{tx.project}'",
            code="alert.not_found",
            hint="list them with `modelyard monitor alerts`",
        )
    return alert


def _with_memory(row: store.MonitorRow, **changes: Any) -> store.MonitorRow:
    return replace(row, memory=replace(row.memory, **changes))


def _page_size(limit: int) -> int:
    return max(1, min(limit, PAGE_ITEMS_MAX))
