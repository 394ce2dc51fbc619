"""Nouns of webhooks: who is told when the registry changes, and how each telling went."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from msgspec import Struct


class Webhook(Struct, frozen=True, kw_only=True):
    """Who is told when the registry changes. The secret is never shown; `signed` says that there is one."""

    id: str
    name: str
    url: str
    events: list[str]
    description: str
    status: Literal["ACTIVE", "DISABLED"]
    signed: bool
    created_at: datetime
    updated_at: datetime


class WebhookDelivery(Struct, frozen=True, kw_only=True):
    """One telling of one event to one webhook. `last_answer` is the status that came back, or why none did."""

    id: str
    webhook: str
    event: str
    status: Literal["waiting", "delivered", "failed"]
    attempts: int
    last_at: datetime | None = None
    last_answer: str = ""


class WebhookTest(Struct, frozen=True, kw_only=True):
    """How a trial delivery ended."""

    success: bool
    response_status: int | None = None
    error_message: str = ""


class Rekeyed(Struct, frozen=True, kw_only=True):
    """How many secrets were sealed anew."""

    secrets: int


class CreateWebhook(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A webhook to make. With a secret its deliveries are signed."""

    name: str
    url: str
    events: list[str]
    description: str = ""
    secret: str = ""


class ChangeWebhook(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What of a webhook changes; what is None stays."""

    name: str | None = None
    url: str | None = None
    events: list[str] | None = None
    description: str | None = None
    secret: str | None = None
    status: Literal["ACTIVE", "DISABLED"] | None = None


class TryWebhook(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which of its events to send an example of; empty means its first."""

    event: str = ""
