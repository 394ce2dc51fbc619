"""Monitors and alerts in a program."""

from __future__ import annotations

from datetime import datetime
from urllib.parse import quote

from modelyard.sdk.client import Client, connect
from modelyard.sdk.handle import Handle
from modelyard.types.monitoring import Alert, Evaluate, Evaluation, Monitor, MonitorSpec, MonitorWindow, Note
from modelyard.types.page import Page

PAGE_ITEMS = 500


class MonitorHandle(Handle):
    """A monitor by its name, which need not exist yet."""

    _NOUN = "monitor"
    _AT = "/api/monitors"

    def get(self) -> Monitor:
        """What the platform knows of it. Raises NotFound."""
        return self._client.get(self._path, Monitor)

    def update(self, spec: MonitorSpec) -> Monitor:
        """Change what it watches; its windows are computed anew."""
        updated: Monitor = self._client.put(self._path, spec, Monitor)
        return updated

    def delete(self) -> None:
        """Remove it. Its alerts stay as history."""
        self._client.delete(self._path)

    def windows(self) -> list[MonitorWindow]:
        """The results of all windows and model versions, oldest first."""
        found: list[MonitorWindow] = []
        before: str | None = None
        while True:
            params = {"limit": PAGE_ITEMS, "before": before}
            page = self._client.get(f"{self._path}/windows", Page[MonitorWindow], params)
            found += page.items
            if page.next is None:
                return found[::-1]
            before = page.next

    def evaluate(self, *, complete_through: datetime | None = None) -> Evaluation:
        """Look at what is new now. Windows that end by `complete_through` are taken as complete."""
        return self._client.post(f"{self._path}/evaluate", Evaluate(complete_through=complete_through), Evaluation)

    def alerts(self, status: str | None = None) -> list[Alert]:
        """Its alerts, newest first."""
        params = {"monitor": self.name, "status": status, "limit": PAGE_ITEMS}
        return self._client.get("/api/alerts", Page[Alert], params).items


def create_monitor(spec: MonitorSpec, client: Client | None = None) -> Monitor:
    """Make a monitor. Raises Conflict (`monitor.exists`)."""
    return (client or connect()).post("/api/monitors", spec, Monitor)


def acknowledge_alert(alert_id: str, note: str = "", client: Client | None = None) -> Alert:
    """Say that somebody looks after an alert."""
    return (client or connect()).post(f"/api/alerts/{quote(alert_id, safe='')}/acknowledge", Note(note=note), Alert)


def resolve_alert(alert_id: str, note: str = "", client: Client | None = None) -> Alert:
    """Close an alert."""
    return (client or connect()).post(f"/api/alerts/{quote(alert_id, safe='')}/resolve", Note(note=note), Alert)
