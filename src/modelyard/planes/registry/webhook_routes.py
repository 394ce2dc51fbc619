"""HTTP of webhooks: decode, call, encode."""

from __future__ import annotations

from typing import Annotated

from litestar.params import Parameter

from modelyard.kernel.auth import Action, Scope
from modelyard.kernel.limits import PAGE_ITEMS_DEFAULT, PAGE_ITEMS_MAX
from modelyard.kernel.routing import delete, get, patch, post
from modelyard.planes.registry import Registry
from modelyard.types.page import Page
from modelyard.types.webhook import (
    ChangeWebhook,
    CreateWebhook,
    Rekeyed,
    TryWebhook,
    Webhook,
    WebhookDelivery,
    WebhookTest,
)

Limit = Annotated[int, Parameter(ge=1, le=PAGE_ITEMS_MAX)]
_WEBHOOK = "/api/webhooks/{webhook:str}"


@get("/api/webhooks", requires=Action.READ)
def list_all_webhooks(
    caller: Scope, registry: Registry, limit: Limit = PAGE_ITEMS_DEFAULT, page: str | None = None
) -> Page[Webhook]:
    """Webhooks, newest first."""
    return registry.webhooks.list(caller, limit=limit, page=page)


@post("/api/webhooks", requires=Action.ADMIN, status_code=201)
def add_webhook(caller: Scope, registry: Registry, data: CreateWebhook) -> Webhook:
    """Subscribe an address of the open internet to events of the registry."""
    return registry.webhooks.create(
        caller, data.name, data.url, data.events, description=data.description, secret=data.secret
    )


@get(_WEBHOOK, requires=Action.READ)
def show_webhook(caller: Scope, registry: Registry, webhook: str) -> Webhook:
    """One webhook, without its secret."""
    return registry.webhooks.get(caller, webhook)


@patch(_WEBHOOK, requires=Action.ADMIN)
def change_webhook(caller: Scope, registry: Registry, webhook: str, data: ChangeWebhook) -> Webhook:
    """Change what is given; the rest stays."""
    return registry.webhooks.update(
        caller,
        webhook,
        name=data.name,
        url=data.url,
        events=data.events,
        description=data.description,
        secret=data.secret,
        status=data.status,
    )


@delete(_WEBHOOK, requires=Action.ADMIN)
def remove_webhook(caller: Scope, registry: Registry, webhook: str) -> None:
    """Remove a webhook with what is still to be delivered to it."""
    registry.webhooks.delete(caller, webhook)


@get(_WEBHOOK + "/deliveries", requires=Action.READ)
def list_webhook_deliveries(
    caller: Scope, registry: Registry, webhook: str, limit: Limit = PAGE_ITEMS_DEFAULT
) -> list[WebhookDelivery]:
    """Deliveries, newest first: how often each was tried, and what came back."""
    return list(registry.webhooks.deliveries(caller, webhook, limit))


@post(_WEBHOOK + "/test", requires=Action.ADMIN)
def try_webhook(caller: Scope, registry: Registry, webhook: str, data: TryWebhook) -> WebhookTest:
    """Send an example now, once."""
    return registry.webhooks.try_out(caller, webhook, data.event)


@post("/api/webhooks/rekey", requires=Action.ADMIN)
def rekey_webhooks(caller: Scope, registry: Registry) -> Rekeyed:
    """Seal the secrets of all projects' webhooks with a new key. Takes an admin of all projects."""
    return Rekeyed(secrets=registry.webhooks.rekey(caller))


ROUTES = [
    rekey_webhooks,
    list_all_webhooks,
    add_webhook,
    show_webhook,
    change_webhook,
    remove_webhook,
    list_webhook_deliveries,
    try_webhook,
]
