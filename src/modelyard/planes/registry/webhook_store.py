"""The tables of webhooks: subscriptions, and deliveries that are still to be made or were."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, Index, Integer, String, Table, Text

from modelyard.kernel.schema import Instant, Json, metadata
from modelyard.types.webhook import Webhook, WebhookDelivery

webhooks = Table(
    "registry_webhooks",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("project", String(64), nullable=False),
    Column("name", String(64), nullable=False),
    Column("url", Text, nullable=False),
    Column("events", Json, nullable=False),
    Column("description", Text, nullable=False),
    Column("status", String(16), nullable=False),
    # The key that deliveries are signed with, sealed (`kernel.sealing`). It leaves the catalog in no answer, event or
    # log; rows of before there was a seal are sealed when the server starts.
    Column("secret", Text, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("updated_at", Instant, nullable=False),
    Index("registry_webhooks_by_project", "project", "id"),
)
deliveries = Table(
    "registry_webhook_deliveries",
    metadata,
    Column("webhook", String(32), primary_key=True),
    Column("event", String(32), primary_key=True),
    Column("id", String(32), nullable=False, unique=True),
    Column("project", String(64), nullable=False),
    Column("body", Text, nullable=False),
    Column("status", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("due_at", Instant, nullable=False),
    Column("last_at", Instant),
    Column("last_answer", Text, nullable=False),
    Index("registry_webhook_deliveries_due", "status", "due_at"),
)


def to_webhook(row: Any) -> Webhook:
    """The noun for a row, without its secret."""
    return Webhook(
        id=row.id,
        name=row.name,
        url=row.url,
        events=row.events,
        description=row.description,
        status=row.status,
        signed=bool(row.secret),
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def to_delivery(row: Any) -> WebhookDelivery:
    """The noun for a row."""
    return WebhookDelivery(
        id=row.id,
        webhook=row.webhook,
        event=row.event,
        status=row.status,
        attempts=row.attempts,
        last_at=row.last_at,
        last_answer=row.last_answer,
    )
