"""What webhooks may be, which events reach them, and how a delivery is signed. Pure.

The names of events, the body and its signature are MLflow's, whose receivers exist already.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import re
import socket
from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from modelyard.kernel.errors import InvalidInput
from modelyard.kernel.http import is_public

NAME_CHARACTERS_MAX = 63
URL_CHARACTERS_MAX = 500
SECRET_CHARACTERS_MAX = 1_000
ATTEMPTS_MAX = 6
_FIRST_WAIT_S = 10.0
_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?", re.IGNORECASE)
_OF_MODELS = {
    "registered_model": ("created",),
    "model_version": ("created",),
    "model_version_tag": ("set", "deleted"),
    "model_version_alias": ("created", "deleted"),
}
_OF_PROMPTS = {
    "prompt": ("created",),
    "prompt_version": ("created",),
    "prompt_tag": ("set", "deleted"),
    "prompt_version_tag": ("set", "deleted"),
    "prompt_alias": ("created", "deleted"),
}
EVENTS = frozenset(f"{entity}.{action}" for entity, actions in (_OF_MODELS | _OF_PROMPTS).items() for action in actions)
_SAID_OF_MODELS = {
    "model.created": "registered_model.created",
    "model.version_created": "model_version.created",
    "model.version_tagged": "model_version_tag.set",
    "model.version_untagged": "model_version_tag.deleted",
}
_SAID_OF_PROMPTS = {
    "model.created": "prompt.created",
    "model.version_created": "prompt_version.created",
    "model.tagged": "prompt_tag.set",
    "model.untagged": "prompt_tag.deleted",
    "model.version_tagged": "prompt_version_tag.set",
    "model.version_untagged": "prompt_version_tag.deleted",
}
KINDS = frozenset({*_SAID_OF_MODELS, *_SAID_OF_PROMPTS, "model.alias_moved"})


def check_name(name: str) -> str:
    """The name, if a webhook may have it. Raises InvalidInput."""
    if len(name) > NAME_CHARACTERS_MAX or _NAME.fullmatch(name) is None:
        raise InvalidInput(
            f"Webhook name {name[:100]!r} is invalid. It must start and end with a letter or digit, be less than 63 "
            "characters long, and contain only letters, digits, dots (.), underscores (_), and hyphens (-).",
            code="webhook.name_invalid",
        )
    return name


def check_url(url: str, allowed: Collection[str]) -> str:
    """The URL, if it may be called at all. Raises InvalidInput.

    Names are judged by their addresses at each delivery; here only what says by itself that it is inside the walls.
    `allowed` holds the `host:port` that the operator lets through.
    """
    if not url.strip():
        raise InvalidInput(f"Webhook URL cannot be empty or just whitespace: {url!r}", code="webhook.url_invalid")
    try:
        parsed = urlsplit(url)
        host, port = parsed.hostname or "", parsed.port or (443 if parsed.scheme == "https" else 80)
    except ValueError as error:
        raise InvalidInput(f"Invalid webhook URL {url[:200]!r}: {error}", code="webhook.url_invalid") from error
    if parsed.scheme not in ("http", "https"):
        raise InvalidInput(
            f"Invalid webhook URL scheme: {parsed.scheme!r}. Allowed schemes are: https, http.",
            code="webhook.url_invalid",
        )
    if not host:
        raise InvalidInput(f"Webhook URL must include a hostname: {url[:200]!r}", code="webhook.url_invalid")
    if len(url) > URL_CHARACTERS_MAX or parsed.username or parsed.password:
        raise InvalidInput("Invalid webhook URL: it is too long, or holds credentials", code="webhook.url_invalid")
    if f"{host}:{port}".lower() not in allowed and _says_inside(host):
        raise InvalidInput(
            f"Webhook URL must not resolve to a non-public IP address. {host!r} is one.",
            code="webhook.url_inside",
            hint="an operator can allow it by name with `outbound_allow`",
        )
    return url


def _says_inside(host: str) -> bool:
    if host == "localhost" or host.endswith((".localhost", ".internal", ".local")):
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        try:
            # The short and the decimal forms (127.1, 2130706433, 0x7f.1), which resolvers take for addresses.
            host = socket.inet_ntoa(socket.inet_aton(host))
        except OSError:
            return False
    return not is_public(host)


def check_events(events: Sequence[str]) -> list[str]:
    """The events, if there are such. Raises InvalidInput."""
    if not events:
        raise InvalidInput(
            "Webhook events must be a non-empty list of WebhookEvent objects: [].", code="webhook.events_invalid"
        )
    unknown = sorted(set(events) - EVENTS)
    if unknown:
        raise InvalidInput(
            f"there are no webhook events {', '.join(unknown)[:200]}",
            code="webhook.events_invalid",
            hint=f"use some of {', '.join(sorted(EVENTS))}",
        )
    return list(dict.fromkeys(events))


def event_of(kind: str, data: dict[str, Any], *, prompt: bool) -> str | None:
    """Which webhook event an event of the log is; None where no webhook hears of it."""
    if kind == "model.alias_moved":
        entity = "prompt_alias" if prompt else "model_version_alias"
        return f"{entity}.{'deleted' if data.get('version') is None else 'created'}"
    return (_SAID_OF_PROMPTS if prompt else _SAID_OF_MODELS).get(kind)


def signature(secret: str, delivery: str, timestamp: str, body: bytes) -> str:
    """The signature of a delivery: `v1,` and the HMAC-SHA256 over `<delivery>.<timestamp>.<body>` in base64."""
    signed = f"{delivery}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(secret.encode(), signed, hashlib.sha256).digest()).decode()


def wait_before(attempt: int) -> timedelta:
    """How long to wait after so many failed attempts: 10 s, then four times as long each time."""
    return timedelta(seconds=_FIRST_WAIT_S * 4 ** (attempt - 1))
