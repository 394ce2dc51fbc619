"""Webhooks: told of what happens, signed, tried again, and never let inside the walls."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from sqlalchemy import select

from modelyard.kernel import events
from modelyard.kernel.auth import Principal, Role, Scope, system_scope
from modelyard.kernel.errors import Forbidden, InvalidInput, NotFound, Unavailable
from modelyard.kernel.events import EventReader
from modelyard.kernel.reconcile import ReconcileLoop
from modelyard.kernel.sealing import KEY_FILE, Sealer
from modelyard.planes.registry import webhook_store
from modelyard.planes.registry.services.webhooks import Webhooks
from modelyard.planes.registry.webhooks import ATTEMPTS_MAX, signature, wait_before

from .conftest import House

ALL = ["registered_model.created", "model_version.created", "model_version_alias.created", "model_version_tag.set"]


class Receiver:
    """A real HTTP server that keeps what it is told, and answers with the statuses that a test wants."""

    def __init__(self) -> None:
        self.heard: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[int] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.heard.append(({name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(outer.answers.pop(0) if outer.answers else 200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def hooked(house: House, receiver: Receiver, tmp_path: Path) -> House:
    """The registry, with the receiver let through by the operator."""
    house.registry.webhooks = Webhooks(house.database, f"127.0.0.1:{receiver.port}", Sealer(tmp_path))
    return house


def tell(house: House) -> None:
    """Seal, read and deliver, until nothing is left to do now."""
    loop = ReconcileLoop(house.database, house.registry.reconcilers(), house.registry.readers())
    for _ in range(4):
        loop.step()


def test_a_receiver_hears_what_it_asked_for_and_can_check_who_says_it(
    hooked: House, receiver: Receiver, root: Scope
) -> None:
    hooked.registry.webhooks.create(root, "ops", receiver.url, ALL, secret="shared")
    hooked.registry.models.create(root, "delay", tags={"team": "ops"}, description="late or not")
    hooked.version(root)
    hooked.registry.versions.set_tag(root, "delay", 1, "checked", "yes")
    hooked.registry.promote(root, "delay", 1, "champion", "")
    tell(hooked)
    told = [json.loads(body) for _, body in receiver.heard]
    by_kind = {f"{one['entity']}.{one['action']}": one["data"] for one in told}
    assert set(by_kind) == set(ALL)
    assert by_kind["registered_model.created"] == {
        "name": "delay",
        "tags": {"team": "ops"},
        "description": "late or not",
    }
    assert by_kind["model_version.created"]["version"] == "1"
    assert by_kind["model_version.created"]["source"].startswith("models:/m-")
    assert by_kind["model_version_tag.set"] == {"name": "delay", "version": "1", "key": "checked", "value": "yes"}
    assert by_kind["model_version_alias.created"] == {"name": "delay", "alias": "champion", "version": "1"}
    for headers, body in receiver.heard:
        signed = f"{headers['x-mlflow-delivery-id']}.{headers['x-mlflow-timestamp']}.".encode() + body
        digest = hmac.new(b"shared", signed, hashlib.sha256).digest()
        assert headers["x-mlflow-signature"] == "v1," + base64.b64encode(digest).decode()
    tell(hooked)
    assert len(receiver.heard) == 4


def test_what_fails_is_tried_again_later_and_given_up_in_the_end(
    hooked: House, receiver: Receiver, root: Scope
) -> None:
    webhooks = hooked.registry.webhooks
    hook = webhooks.create(root, "ops", receiver.url, ["registered_model.created"])
    receiver.answers = [500, 503, 200]
    hooked.registry.models.create(root, "delay")
    tell(hooked)
    assert webhooks.deliveries(root, hook.id)[0].status == "waiting"
    for attempt in (1, 2):
        hooked.clock.advance(wait_before(attempt).total_seconds() + 1)
        tell(hooked)
    done = webhooks.deliveries(root, hook.id)[0]
    assert (done.status, done.attempts, done.last_answer) == ("delivered", 3, "200")
    receiver.answers = [500] * 50
    hooked.registry.models.create(root, "other")
    for attempt in range(1, ATTEMPTS_MAX + 2):
        tell(hooked)
        hooked.clock.advance(wait_before(attempt).total_seconds() + 1)
    assert webhooks.deliveries(root, hook.id)[0].status == "failed"
    assert webhooks.deliveries(root, hook.id)[0].attempts == ATTEMPTS_MAX


def test_a_refusal_by_the_receiver_is_final(hooked: House, receiver: Receiver, root: Scope) -> None:
    hook = hooked.registry.webhooks.create(root, "ops", receiver.url, ["registered_model.created"])
    receiver.answers = [410]
    hooked.registry.models.create(root, "delay")
    tell(hooked)
    assert hooked.registry.webhooks.deliveries(root, hook.id)[0].status == "failed"


def test_an_event_read_twice_is_told_once(hooked: House, receiver: Receiver, root: Scope) -> None:
    hooked.registry.webhooks.create(root, "ops", receiver.url, ["registered_model.created"])
    hooked.registry.models.create(root, "delay")
    with hooked.database.reading(root) as tx:
        said = events.recent(tx, kinds=frozenset({"model.created"}))[0]
    reader: EventReader = hooked.registry.readers()[0]
    reader.handle(said)
    reader.handle(said)
    tell(hooked)
    assert len(receiver.heard) == 1


def test_disabled_and_other_projects_webhooks_hear_nothing(hooked: House, receiver: Receiver, root: Scope) -> None:
    other = hooked.scope("root", Role.ADMIN, "other")
    hooked.registry.webhooks.create(other, "theirs", receiver.url, ALL)
    hook = hooked.registry.webhooks.create(root, "ops", receiver.url, ALL)
    hooked.registry.webhooks.update(root, hook.id, status="DISABLED")
    hooked.registry.models.create(root, "delay")
    tell(hooked)
    assert receiver.heard == []
    with pytest.raises(NotFound):
        hooked.registry.webhooks.get(other, hook.id)


def test_nothing_inside_the_walls_is_called(house: House, receiver: Receiver, root: Scope) -> None:
    """Without the operator's leave: refused when it says so itself, and at delivery when its name leads there."""
    webhooks = house.registry.webhooks
    for url in (
        receiver.url, "http://localhost/x", "http://169.254.169.254/", "http://[::1]/", "http://10.0.0.8/",
        "http://2130706433/", "http://0x7f.1/", "http://127.1/", "http://[::ffff:10.0.0.8]/", "http://a.internal/",
    ):  # fmt: skip
        with pytest.raises(InvalidInput):
            webhooks.create(root, "ops", url, ALL)
    port = receiver.url.rpartition(":")[2]
    hook = webhooks.create(root, "ops", f"http://{socket.gethostname()}:{port}", ["registered_model.created"])
    house.registry.models.create(root, "delay")
    tell(house)
    assert webhooks.deliveries(root, hook.id)[0].status != "delivered"
    assert receiver.heard == []


@pytest.mark.parametrize(
    ("name", "url", "wanted", "word"),
    [
        ("a b", "https://example.com/", ALL, "is invalid"),
        ("x" * 64, "https://example.com/", ALL, "is invalid"),
        ("ok", " ", ALL, "empty or just whitespace"),
        ("ok", "ftp://example.com/", ALL, "Invalid webhook URL scheme"),
        ("ok", "http://[bad", ALL, "Invalid webhook URL"),
        ("ok", "https:///path", ALL, "hostname"),
        ("ok", "https://u:p@example.com/", ALL, "credentials"),
        ("ok", "https://example.com/", [], "non-empty"),
        ("ok", "https://example.com/", ["model.eaten"], "no webhook events"),
    ],
)
def test_what_cannot_be_a_webhook(house: House, root: Scope, name: str, url: str, wanted: list[str], word: str) -> None:
    with pytest.raises(InvalidInput, match=word):
        house.registry.webhooks.create(root, name, url, wanted)


def test_the_secret_is_in_no_answer_and_no_event(hooked: House, receiver: Receiver, root: Scope) -> None:
    hook = hooked.registry.webhooks.create(root, "ops", receiver.url, ALL, secret="canary-8431")
    assert "canary" not in repr(hook)
    assert hook.signed
    with hooked.database.reading(system_scope("default")) as tx:
        assert "canary" not in repr(events.recent(tx))


def _stored(house: House) -> list[str]:
    with house.database.reading() as tx:
        return [row.secret for row in tx.all(select(webhook_store.webhooks.c.secret))]


def test_the_catalog_holds_no_secret_in_clear(hooked: House, receiver: Receiver, root: Scope) -> None:
    hook = hooked.registry.webhooks.create(root, "ops", receiver.url, ALL, secret="canary-8431")
    hooked.registry.webhooks.update(root, hook.id, secret="canary-9999")
    assert "canary" not in repr(_stored(hooked))
    assert hooked.registry.webhooks.try_out(root, hook.id).success
    said, body = receiver.heard[-1]
    expected = signature("canary-9999", said["x-mlflow-delivery-id"], said["x-mlflow-timestamp"], body)
    assert said["x-mlflow-signature"] == expected


def test_what_an_older_version_stored_in_clear_works_and_is_sealed_at_the_first_look(
    hooked: House, receiver: Receiver, root: Scope
) -> None:
    hook = hooked.registry.webhooks.create(root, "ops", receiver.url, ALL, secret="x")
    with hooked.database.transaction(root) as tx:
        tx.execute(webhook_store.webhooks.update().values(secret="in clear"))
    assert hooked.registry.webhooks.try_out(root, hook.id).success
    tell(hooked)
    assert "in clear" not in repr(_stored(hooked))
    assert hooked.registry.webhooks.try_out(root, hook.id).success
    for said, body in receiver.heard[-2:]:
        expected = signature("in clear", said["x-mlflow-delivery-id"], said["x-mlflow-timestamp"], body)
        assert said["x-mlflow-signature"] == expected


def test_a_new_key_seals_all_anew_and_a_lost_one_says_what_to_do(
    hooked: House, receiver: Receiver, root: Scope, tmp_path: Path
) -> None:
    webhooks = hooked.registry.webhooks
    hooks = [webhooks.create(root, f"hook{at}", receiver.url, ALL, secret=f"secret {at}") for at in range(3)]
    before, old_key = _stored(hooked), (tmp_path / KEY_FILE).read_bytes()
    everywhere = Scope("default", Principal("root", {"*": Role.ADMIN}))
    for _ in range(2):
        assert webhooks.rekey(everywhere) == 3
    assert set(before).isdisjoint(_stored(hooked))
    assert old_key.strip() not in (tmp_path / KEY_FILE).read_bytes()
    assert all(webhooks.try_out(root, one.id).success for one in hooks)
    (tmp_path / KEY_FILE).write_bytes(old_key)
    lost = Webhooks(hooked.database, f"127.0.0.1:{receiver.port}", Sealer(tmp_path))
    tried = lost.try_out(root, hooks[0].id)
    assert not tried.success
    assert KEY_FILE in tried.error_message
    with pytest.raises(Unavailable) as caught:
        lost.seal_all()
    assert caught.value.code == "secret.key_lost"
    assert caught.value.hint
    lost.update(root, hooks[0].id, secret="anew")
    assert lost.try_out(root, hooks[0].id).success
    with pytest.raises(Forbidden):
        webhooks.rekey(hooked.scope("ann"))


def test_trying_out_says_how_it_went(hooked: House, receiver: Receiver, root: Scope) -> None:
    webhooks = hooked.registry.webhooks
    hook = webhooks.create(root, "ops", receiver.url, ALL)
    assert webhooks.try_out(root, hook.id).success
    receiver.answers = [404]
    assert webhooks.try_out(root, hook.id, "model_version.created").response_status == 404
    receiver.close()
    failed = webhooks.try_out(root, hook.id)
    assert not failed.success
    assert failed.error_message


def test_list_update_delete(house: House, root: Scope) -> None:
    webhooks = house.registry.webhooks
    made = [webhooks.create(root, f"hook{n}", "https://example.com/", ALL) for n in range(5)]
    first = webhooks.list(root, limit=2)
    second = webhooks.list(root, limit=2, page=first.next)
    assert [one.name for one in (*first.items, *second.items)] == ["hook4", "hook3", "hook2", "hook1"]
    changed = webhooks.update(root, made[0].id, name="renamed", url=None)
    assert (changed.name, changed.url) == ("renamed", "https://example.com/")
    webhooks.delete(root, made[0].id)
    for act in (webhooks.get, webhooks.delete, webhooks.update):
        with pytest.raises(NotFound, match="not found"):
            act(root, made[0].id)


def test_the_signature_is_mlflows() -> None:
    assert (
        signature("s", "d", "1", b"{}")
        == "v1," + base64.b64encode(hmac.new(b"s", b"d.1.{}", hashlib.sha256).digest()).decode()
    )
