"""Triggers and responses in a program."""

from __future__ import annotations

from modelyard.sdk.client import Client, connect
from modelyard.sdk.handle import Handle
from modelyard.types.automation import Response, SetEnabled, Trigger, TriggerSpec
from modelyard.types.page import Page

PAGE_ITEMS = 500


class TriggerHandle(Handle):
    """A trigger by its name, which need not exist yet."""

    _NOUN = "trigger"
    _AT = "/api/triggers"

    def get(self) -> Trigger:
        """What the platform knows of it. Raises NotFound."""
        return self._client.get(self._path, Trigger)

    def set_enabled(self, enabled: bool) -> Trigger:
        """Switch it on or off."""
        switched: Trigger = self._client.patch(self._path, SetEnabled(enabled=enabled), Trigger)
        return switched

    def delete(self) -> None:
        """Remove it; what it did stays on record."""
        self._client.delete(self._path)

    def responses(self) -> list[Response]:
        """What it made of events, newest first."""
        return list_responses(trigger=self.name, client=self._client)


def create_trigger(spec: TriggerSpec, client: Client | None = None) -> Trigger:
    """Make a trigger. Raises Conflict (`trigger.exists`)."""
    return (client or connect()).post("/api/triggers", spec, Trigger)


def list_responses(
    *, trigger: str | None = None, alert: str | None = None, client: Client | None = None
) -> list[Response]:
    """What happened and what was done about it, newest first: the last 500."""
    params = {"trigger": trigger, "alert": alert, "limit": PAGE_ITEMS}
    return (client or connect()).get("/api/responses", Page[Response], params).items
