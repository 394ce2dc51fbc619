"""MLflow's webhooks endpoints."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec
from litestar import Request, Response

from modelyard.kernel.auth import Action, Scope
from modelyard.kernel.errors import InvalidInput
from modelyard.kernel.routing import delete, get, patch, post
from modelyard.planes.registry import Registry
from modelyard.server.dialects.mlflow import wire
from modelyard.server.dialects.mlflow.wire import Message, endpoint
from modelyard.types.webhook import Webhook

LIST_DEFAULT = 100
LIST_MAX = 1_000
_ENTITIES = (
    "", "REGISTERED_MODEL", "MODEL_VERSION", "MODEL_VERSION_TAG", "MODEL_VERSION_ALIAS", "PROMPT", "PROMPT_VERSION",
    "PROMPT_TAG", "PROMPT_VERSION_TAG", "PROMPT_ALIAS", "BUDGET_POLICY",
)  # fmt: skip
_ACTIONS = ("", "CREATED", "UPDATED", "DELETED", "SET", "EXCEEDED")
_STATUSES = {"1": "ACTIVE", "2": "DISABLED"}


class Heard(msgspec.Struct, kw_only=True):
    entity: str | int = ""
    action: str | int = ""


class Create(Message):
    REQUIRED: ClassVar = ("name", "url", "events")
    name: str = ""
    url: str = ""
    events: list[Heard] = []
    description: str = ""
    secret: str = ""
    status: str | int = ""


class Update(Message):
    name: str = ""
    description: str = ""
    url: str = ""
    events: list[Heard] = []
    secret: str = ""
    status: str | int = ""


class List(Message):
    max_results: int = LIST_DEFAULT
    page_token: str = ""


class Try(Message):
    event: Heard | None = None


@post(endpoint("/webhooks"), requires=Action.ADMIN)
def create_webhook(caller: Scope, registry: Registry, body: bytes) -> Response[bytes]:
    asked = wire.decode(body, Create)
    made = registry.webhooks.create(
        caller,
        asked.name,
        asked.url,
        [_name(one) for one in asked.events],
        description=asked.description,
        secret=asked.secret,
        status=_status(asked.status) or "ACTIVE",
    )
    return wire.reply({"webhook": view(made)})


@get(endpoint("/webhooks"), requires=Action.READ)
def list_webhooks(caller: Scope, registry: Registry, request: Request[Any, Any, Any]) -> Response[bytes]:
    asked = wire.decode_query(request, List)
    if not 0 < asked.max_results <= LIST_MAX:
        raise InvalidInput(f"max_results must be between 1 and {LIST_MAX}.", code="parameter.invalid")
    found = registry.webhooks.list(caller, limit=asked.max_results, page=asked.page_token)
    content: dict[str, Any] = {}
    if found.items:
        content["webhooks"] = [view(one) for one in found.items]
    if found.next:
        content["next_page_token"] = found.next
    return wire.reply(content)


@get(endpoint("/webhooks/{webhook_id:str}"), requires=Action.READ)
def get_webhook(caller: Scope, registry: Registry, webhook_id: str) -> Response[bytes]:
    return wire.reply({"webhook": view(registry.webhooks.get(caller, webhook_id))})


@patch(endpoint("/webhooks/{webhook_id:str}"), requires=Action.ADMIN)
def update_webhook(caller: Scope, registry: Registry, webhook_id: str, body: bytes) -> Response[bytes]:
    asked = wire.decode(body, Update)
    updated = registry.webhooks.update(
        caller,
        webhook_id,
        name=asked.name or None,
        url=asked.url or None,
        events=[_name(one) for one in asked.events] or None,
        description=asked.description or None,
        secret=asked.secret or None,
        status=_status(asked.status) or None,
    )
    return wire.reply({"webhook": view(updated)})


@delete(endpoint("/webhooks/{webhook_id:str}"), requires=Action.ADMIN)
def delete_webhook(caller: Scope, registry: Registry, webhook_id: str) -> Response[bytes]:
    registry.webhooks.delete(caller, webhook_id)
    return wire.reply()


@post(endpoint("/webhooks/{webhook_id:str}/test"), requires=Action.ADMIN)
def test_webhook(caller: Scope, registry: Registry, webhook_id: str, body: bytes) -> Response[bytes]:
    asked = wire.decode(body, Try)
    tried = registry.webhooks.try_out(caller, webhook_id, "" if asked.event is None else _name(asked.event))
    result: dict[str, Any] = {"success": tried.success}
    if tried.response_status is not None:
        result["response_status"] = tried.response_status
    if tried.error_message:
        result["error_message"] = tried.error_message
    return wire.reply({"result": result})


def view(webhook: Webhook) -> dict[str, Any]:
    """A webhook as MLflow writes it: never with its secret."""
    found: dict[str, Any] = {
        "webhook_id": webhook.id,
        "name": webhook.name,
        "url": webhook.url,
        "events": [dict(zip(("entity", "action"), one.upper().split("."), strict=True)) for one in webhook.events],
        "status": webhook.status,
        "creation_timestamp": wire.ms(webhook.created_at),
        "last_updated_timestamp": wire.ms(webhook.updated_at),
    }
    if webhook.description:
        found["description"] = webhook.description
    return found


def _name(heard: Heard) -> str:
    entity, action = _enum(heard.entity, _ENTITIES, "entity"), _enum(heard.action, _ACTIONS, "action")
    return f"{entity}.{action}".lower()


def _enum(value: str | int, names: tuple[str, ...], path: str) -> str:
    if isinstance(value, int) or value.isdecimal():
        number = int(value)
        if 0 < number < len(names):
            return names[number]
        raise wire.invalid(path, value)
    return value


def _status(value: str | int) -> str:
    return _STATUSES.get(str(value), str(value))


HANDLERS = [create_webhook, list_webhooks, get_webhook, update_webhook, delete_webhook, test_webhook]
