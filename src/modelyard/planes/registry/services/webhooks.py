"""The verbs of webhooks: subscribe, change, try, and deliver what the event log says.

An event is written down as a delivery for each webhook that wants it, in one transaction with the reader's progress
being repeatable; each delivery is then made by itself, again and again with growing pauses, so that a receiver that is
down holds up nobody else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import select

from modelyard.kernel.auth import ALL_PROJECTS, Action, Scope, check, system_scope
from modelyard.kernel.clock import to_us
from modelyard.kernel.database import Database, Transaction, insert_missing
from modelyard.kernel.errors import Forbidden, InvalidInput, ModelyardError, NotFound, Unavailable
from modelyard.kernel.event import Event
from modelyard.kernel.http import OutboundClient
from modelyard.kernel.ids import new_id
from modelyard.kernel.leases import Lease
from modelyard.kernel.sealing import Sealer
from modelyard.planes.registry import store
from modelyard.planes.registry.search import PROMPT_TAG
from modelyard.planes.registry.webhook_store import deliveries, to_delivery, to_webhook, webhooks
from modelyard.planes.registry.webhooks import (
    ATTEMPTS_MAX,
    SECRET_CHARACTERS_MAX,
    check_events,
    check_name,
    check_url,
    event_of,
    signature,
    wait_before,
)
from modelyard.planes.tracking import page_offset, page_token
from modelyard.types.page import Page
from modelyard.types.webhook import Webhook, WebhookDelivery, WebhookTest

DUE_MAX = 200
ANSWER_CHARACTERS_MAX = 500
REPLY_BYTES_MAX = 64 * 1024
_PROMPT_TEXT_TAG = "mlflow.prompt.text"


class Webhooks:
    """Webhooks of a project's registry. `outbound_allow`: `host:port` inside the walls that may be called. Without a
    `sealer` there are no webhooks with a secret."""

    def __init__(self, database: Database, outbound_allow: str = "", sealer: Sealer | None = None) -> None:
        self._database = database
        self._sealer = sealer
        self._allowed = frozenset(one.strip().lower() for one in outbound_allow.split(",") if one.strip())
        self._outbound = OutboundClient(outbound_allow)

    def create(
        self,
        scope: Scope,
        name: str,
        url: str,
        events: Sequence[str],
        *,
        description: str = "",
        secret: str = "",
        status: str = "ACTIVE",
    ) -> Webhook:
        """Subscribe an address to events. Raises InvalidInput."""
        made = new_id()
        row = {
            "id": made, "project": scope.project, "name": check_name(name),
            "url": check_url(url, self._allowed), "events": check_events(events), "description": description,
            "status": _check_status(status), "secret": self._sealed(made, secret),
        }  # fmt: skip
        with self._database.transaction(scope) as tx:
            tx.execute(webhooks.insert().values(**row, created_at=tx.now, updated_at=tx.now))
            tx.event("webhook.created", f"webhook:{made}", {"name": name, "url": url, "events": row["events"]})
            return to_webhook(_row(tx, made))

    def get(self, scope: Scope, webhook: str) -> Webhook:
        """One webhook. Raises NotFound."""
        with self._database.reading(scope) as tx:
            return to_webhook(_row(tx, webhook))

    def list(self, scope: Scope, *, limit: int = 100, page: str | None = None) -> Page[Webhook]:
        """Webhooks, newest first."""
        offset = page_offset(page)
        with self._database.reading(scope) as tx:
            rows = tx.all(
                select(webhooks)
                .where(webhooks.c.project == tx.project)
                .order_by(webhooks.c.id.desc())
                .limit(limit + 1)
                .offset(offset)
            )
        return Page(
            [to_webhook(row) for row in rows[:limit]], page_token(offset + limit) if len(rows) > limit else None
        )

    def update(self, scope: Scope, webhook: str, **changes: Any) -> Webhook:
        """Change name, url, events, description, secret or status; what is None stays. Raises as `create`, NotFound."""
        checks: dict[str, Callable[[Any], Any]] = {
            "name": check_name,
            "url": lambda url: check_url(url, self._allowed),
            "events": check_events,
            "description": str,
            "secret": lambda secret: self._sealed(webhook, secret),
            "status": _check_status,
        }
        self.get(scope, webhook)
        values = {name: checks[name](value) for name, value in changes.items() if value is not None}
        with self._database.transaction(scope) as tx:
            _row(tx, webhook)
            tx.execute(
                webhooks.update()
                .where(webhooks.c.id == webhook, webhooks.c.project == tx.project)
                .values(**values, updated_at=tx.now)
            )
            tx.event("webhook.updated", f"webhook:{webhook}", {"changed": sorted(values)})
            return to_webhook(_row(tx, webhook))

    def delete(self, scope: Scope, webhook: str) -> None:
        """Remove a webhook with what is still to be delivered to it. Raises NotFound."""
        with self._database.transaction(scope) as tx:
            row = _row(tx, webhook)
            tx.execute(deliveries.delete().where(deliveries.c.webhook == webhook))
            tx.execute(webhooks.delete().where(webhooks.c.id == webhook, webhooks.c.project == tx.project))
            tx.event("webhook.deleted", f"webhook:{webhook}", {"name": row.name})

    def deliveries(self, scope: Scope, webhook: str, limit: int = 100) -> Sequence[WebhookDelivery]:
        """Deliveries to a webhook, newest first."""
        with self._database.reading(scope) as tx:
            _row(tx, webhook)
            rows = tx.all(
                select(deliveries)
                .where(deliveries.c.webhook == webhook, deliveries.c.project == tx.project)
                .order_by(deliveries.c.id.desc())
                .limit(limit)
            )
        return [to_delivery(row) for row in rows]

    def try_out(self, scope: Scope, webhook: str, event: str = "") -> WebhookTest:
        """Send an example of an event now, once. What fails is the answer, not an error."""
        with self._database.reading(scope) as tx:
            row = _row(tx, webhook)
        name = check_events([event])[0] if event else row.events[0]
        body = _body(name, self._database.clock.now(), {"name": "example", "version": "1", "key": "key", "value": ""})
        try:
            status = self._post(row, new_id(), body)
        except ModelyardError as error:
            return WebhookTest(success=False, error_message=error.message)
        return WebhookTest(success=status < 400, response_status=status)

    # --- secrets --------------------------------------------------------------------------------------------------

    def seal_all(self) -> int:
        """Seal the secrets of all projects that are stored in clear or sealed with an older key. Returns how many.

        Raises Unavailable where the key of one is lost; then all stay as they are.
        """
        if self._sealer is None:
            return 0
        with self._database.reading() as tx:
            rows = tx.all(select(webhooks.c.id, webhooks.c.secret).where(webhooks.c.secret != ""))
        old = [row for row in rows if not self._sealer.is_newest(row.secret)]
        opened = {row.id: self._sealer.open(row.secret, _place(row.id)) for row in old}
        sealed = {hook: self._sealer.seal(secret, _place(hook)) for hook, secret in opened.items()}
        if sealed:
            with self._database.transaction(system_scope("*")) as tx:
                for row in old:
                    # Not one that was set anew meanwhile.
                    same = (webhooks.c.id == row.id, webhooks.c.secret == row.secret)
                    tx.execute(webhooks.update().where(*same).values(secret=sealed[row.id]))
        return len(sealed)

    def rekey(self, scope: Scope) -> int:
        """Make a new key, and seal all secrets of all projects with it. Returns how many.

        The key before it is kept until the next time, for whoever sealed something with it at this moment. With keys by
        setting the new one is the first of them. Raises Forbidden for who is no admin of all projects.
        """
        check(scope.principal, Action.ADMIN, ALL_PROJECTS)
        if self._sealer is None:
            return 0
        # Cut off anywhere in here, all keys that something is sealed with are there, and it can be repeated.
        count = self.seal_all()
        self._sealer.add_key()
        count = max(count, self.seal_all())
        with self._database.transaction(scope) as tx:
            tx.event("webhook.secrets_rekeyed", "webhook:*", {"secrets": count})
        return count

    def _sealed(self, webhook: str, secret: str) -> str:
        secret = _check_secret(secret)
        if not secret:
            return ""
        if self._sealer is None:
            raise Unavailable(
                "there is no key to seal secrets with", code="secret.no_key", hint="make the webhook without a secret"
            )
        return self._sealer.seal(secret, _place(webhook))

    def _secret(self, row: Any) -> str:
        return row.secret if self._sealer is None else self._sealer.open(row.secret, _place(row.id))

    # --- delivery -------------------------------------------------------------------------------------------------

    def queue(self, event: Event) -> None:
        """Write down a delivery of an event of the log for each webhook that wants it. Twice is once."""
        scope = system_scope(event.project)
        with self._database.transaction(scope) as tx:
            name = event_of(event.kind, event.data, prompt=_is_prompt(tx, event.data))
            if name is None:
                return
            wanting = [
                row
                for row in tx.all(select(webhooks).where(webhooks.c.project == tx.project))
                if row.status == "ACTIVE" and name in row.events and row.created_at <= event.at
            ]
            if not wanting:
                return
            body = _body(name, event.at, _payload(tx, name, event.data)).decode()
            common = {"event": event.id, "project": tx.project, "body": body, "status": "waiting"}
            rows = [
                {**common, "webhook": row.id, "id": new_id(), "attempts": 0, "due_at": tx.now, "last_answer": ""}
                for row in wanting
            ]
            insert_missing(tx, deliveries, rows)

    def due(self, now: datetime) -> Sequence[str]:
        """Deliveries to make now."""
        with self._database.reading() as tx:
            rows = tx.all(
                select(deliveries.c.id)
                .where(deliveries.c.status == "waiting", deliveries.c.due_at <= now)
                .order_by(deliveries.c.due_at)
                .limit(DUE_MAX)
            )
        return [row.id for row in rows]

    def deliver(self, delivery: str, lease: Lease) -> None:
        """Make one delivery, and write down how it went."""
        with self._database.reading() as tx:
            row = tx.one(select(deliveries).where(deliveries.c.id == delivery, deliveries.c.status == "waiting"))
            to = None if row is None else tx.one(select(webhooks).where(webhooks.c.id == row.webhook))
        if row is None:
            return
        answer, outcome = "the webhook is gone or disabled", "failed"
        if to is not None and to.status == "ACTIVE":
            answer, outcome = self._attempt(to, row)
        attempts = row.attempts + 1
        if outcome == "waiting" and attempts >= ATTEMPTS_MAX:
            outcome = "failed"
        with self._database.transaction(system_scope(row.project), lease=lease) as tx:
            tx.execute(
                deliveries.update()
                .where(deliveries.c.id == delivery)
                .values(
                    status=outcome,
                    attempts=attempts,
                    due_at=tx.now + wait_before(attempts),
                    last_at=tx.now,
                    last_answer=answer[:ANSWER_CHARACTERS_MAX],
                )
            )

    def _attempt(self, to: Any, row: Any) -> tuple[str, str]:
        try:
            status = self._post(to, row.id, row.body.encode())
        except (Forbidden, InvalidInput) as error:
            return error.message, "failed"
        except ModelyardError as error:
            return error.message, "waiting"
        if status < 400:
            return str(status), "delivered"
        return str(status), "waiting" if status in (408, 429) or status >= 500 else "failed"

    def _post(self, to: Any, delivery: str, body: bytes) -> int:
        timestamp = str(to_us(self._database.clock.now()) // 1_000_000)
        headers = {
            "Content-Type": "application/json",
            "X-MLflow-Delivery-Id": delivery,
            "X-MLflow-Timestamp": timestamp,
        }
        if to.secret:
            headers["X-MLflow-Signature"] = signature(self._secret(to), delivery, timestamp, body)
        return self._outbound.post(to.url, body, headers=headers, reply_bytes_max=REPLY_BYTES_MAX).status


def _row(tx: Transaction, webhook: str) -> Any:
    row = tx.one(select(webhooks).where(webhooks.c.project == tx.project, webhooks.c.id == webhook))
    if row is None:
        raise NotFound(f"Webhook with ID {webhook[:100]} not found.", code="webhook.not_found")
    return row


def _place(webhook: str) -> str:
    return f"webhook:{webhook}"


def _check_status(status: str) -> str:
    if status not in ("ACTIVE", "DISABLED"):
        raise InvalidInput(f"a webhook is ACTIVE or DISABLED, not {status[:40]!r}", code="webhook.status_invalid")
    return status


def _check_secret(secret: str) -> str:
    if len(secret) > SECRET_CHARACTERS_MAX:
        raise InvalidInput(f"a secret has at most {SECRET_CHARACTERS_MAX} characters", code="webhook.secret_invalid")
    return secret


def _body(name: str, at: datetime, data: dict[str, Any]) -> bytes:
    entity, _, action = name.partition(".")
    return msgspec.json.encode({"entity": entity, "action": action, "timestamp": at, "data": data})


def _is_prompt(tx: Transaction, data: dict[str, Any]) -> bool:
    model = store.live_model(tx, str(data.get("model", "")))
    return model is not None and PROMPT_TAG in store.to_models(tx, [model], with_latest=False)[0].tags


def _payload(tx: Transaction, name: str, said: dict[str, Any]) -> dict[str, Any]:
    """What MLflow's receivers expect. Long values are read from the catalog, since events hold only short ones."""
    entity, _, action = name.partition(".")
    payload: dict[str, Any] = {"name": said["model"]}
    if entity.endswith("_alias"):
        payload["alias"] = said["alias"]
        return payload if action == "deleted" else {**payload, "version": str(said["version"])}
    if "version" in entity:
        payload["version"] = str(said["version"])
    model = store.live_model(tx, said["model"])
    found = _described(tx, model, said) if model is not None else {"tags": {}, "description": None}
    if entity.endswith("_tag"):
        payload["key"] = said["key"]
        return payload if action == "deleted" else {**payload, "value": found["tags"].get(said["key"], "")}
    tags = dict(found.pop("tags"))
    if entity == "prompt_version":
        payload["template"] = tags.pop(_PROMPT_TEXT_TAG, None)
    if entity.startswith("prompt"):
        found = {"description": found["description"]}
        tags.pop(PROMPT_TAG, None)
    return {**payload, **found, "tags": tags}


def _described(tx: Transaction, model: Any, said: dict[str, Any]) -> dict[str, Any]:
    if "version" not in said:
        noun = store.to_models(tx, [model], with_latest=False)[0]
        return {"tags": noun.tags, "description": noun.description or None}
    row = tx.one(store.with_name(model).where(store.versions.c.version == said["version"]))
    if row is None:
        return {"tags": {}, "description": None}
    version = store.to_versions(tx, [row])[0]
    return {
        "tags": version.tags,
        "description": version.description or None,
        "source": version.source,
        "run_id": version.provenance.run or None,
    }
