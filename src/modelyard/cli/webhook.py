"""`modelyard webhook`: who is told when models, versions and aliases change."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import typer

from modelyard.cli.context import JsonFlag, client, show_fields, show_items, show_json
from modelyard.types.page import Page
from modelyard.types.webhook import CreateWebhook, Rekeyed, TryWebhook, Webhook, WebhookDelivery, WebhookTest

app = typer.Typer(add_completion=False, no_args_is_help=True)
Id = Annotated[str, typer.Argument(help="The webhook's id.")]


@app.callback()
def webhook() -> None:
    """Webhooks: signed messages to an address of the open internet when the registry changes.

    \b
    modelyard webhook create release https://ci.example.org/hook -e model_version_alias.created
    """


@app.command("list")
def list_all(as_json: JsonFlag = False) -> None:
    """The webhooks of the project."""
    page = client().get("/api/webhooks", Page[Webhook], {"limit": 1000})
    columns = {
        "ID": lambda one: one.id,
        "NAME": lambda one: one.name,
        "URL": lambda one: one.url,
        "EVENTS": lambda one: ", ".join(one.events),
        "STATUS": lambda one: one.status,
        "SIGNED": lambda one: one.signed,
    }
    empty = "no webhook yet; `modelyard webhook create NAME URL -e model_version.created` makes one"
    show_items(page.items, columns, as_json=as_json, empty=empty, more=page.next)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What to call it.")],
    url: Annotated[str, typer.Argument(help="An address of the open internet.")],
    event: Annotated[list[str], typer.Option("--event", "-e", help="Such as model_version_alias.created; repeat it.")],
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
    secret: Annotated[
        str, typer.Option(envvar="WEBHOOK_SECRET", help="What deliveries are signed with.", show_envvar=True)
    ] = "",
    as_json: JsonFlag = False,
) -> None:
    """Tell an address when something happens (admins)."""
    body = CreateWebhook(name=name, url=url, events=event, description=description, secret=secret)
    made = client().post("/api/webhooks", body, Webhook)
    if as_json:
        show_json(made)
        return
    show_fields([("id", made.id), ("name", made.name), ("url", made.url), ("events", ", ".join(made.events))])


@app.command()
def deliveries(identifier: Id, as_json: JsonFlag = False) -> None:
    """What was delivered, how often it was tried, and what came back."""
    found = client().get(f"{_path(identifier)}/deliveries", list[WebhookDelivery])
    columns = {
        "ID": lambda one: one.id,
        "STATUS": lambda one: one.status,
        "TRIES": lambda one: one.attempts,
        "LAST": lambda one: one.last_at,
        "ANSWER": lambda one: one.last_answer,
    }
    show_items(found, columns, as_json=as_json, empty="nothing was delivered yet")


@app.command("test")
def try_out(
    identifier: Id,
    event: Annotated[str, typer.Option(help="Which event to send an example of.")] = "",
    as_json: JsonFlag = False,
) -> None:
    """Send an example now, once. Ends with status 3 where it did not arrive."""
    tried = client().post(f"{_path(identifier)}/test", TryWebhook(event=event), WebhookTest)
    if as_json:
        show_json(tried)
    else:
        typer.echo(f"answered {tried.response_status}" if tried.success else f"failed: {_why(tried)}")
    if not tried.success:
        raise typer.Exit(3)


@app.command()
def delete(identifier: Id) -> None:
    """Remove a webhook with what is still to be delivered."""
    client().delete(_path(identifier))
    typer.echo(f"webhook {identifier} is removed")


@app.command()
def rekey(as_json: JsonFlag = False) -> None:
    """Seal the secrets of all webhooks with a new key, and give the old one up. Needs an admin of all projects.

    The key is `secrets.key` in the home directory. With the setting `secret_key`, put the new key there before the old
    one; restart; rekey; then take the old one away.
    """
    done = client().post("/api/webhooks/rekey", None, Rekeyed)
    if as_json:
        show_json(done)
    else:
        typer.echo(f"{done.secrets} secrets are sealed with the newest key")


def _why(tried: WebhookTest) -> str:
    return tried.error_message or f"the receiver answered {tried.response_status}"


def _path(identifier: str) -> str:
    return f"/api/webhooks/{quote(identifier, safe='')}"
