"""`modelyard audit`: the event log and its hash chain."""

from __future__ import annotations

from typing import Annotated

import typer

from modelyard.cli.context import JsonFlag, client, show_fields, show_items, show_json
from modelyard.kernel.event import Event, Verdict
from modelyard.types.page import Page

app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.callback()
def audit() -> None:
    """Who did what and when, and the proof that nobody changed the record."""


@app.command("list")
def list_events(
    subject: Annotated[str | None, typer.Option(help="Only this URN, such as model:delay@3.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only these kinds, comma-separated, such as model.promoted.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many, newest first.", min=1, max=1000)] = 50,
    as_json: JsonFlag = False,
) -> None:
    """The events of the project, newest first."""
    page = client().get("/api/events", Page[Event], {"subject": subject, "kind": kind, "limit": limit})
    columns = {
        "AT": lambda one: one.at,
        "KIND": lambda one: one.kind,
        "SUBJECT": lambda one: one.subject,
        "ACTOR": lambda one: one.actor,
    }
    show_items(page.items, columns, as_json=as_json, empty="nothing happened yet in this project", more=page.next)


@app.command()
def verify(as_json: JsonFlag = False) -> None:
    """Recompute the hash chain over the whole log; exits with 1 if an event was altered or removed."""
    verdict = client().get("/api/audit", Verdict)
    if as_json:
        show_json(verdict)
    elif verdict.ok:
        show_fields([("verdict", "whole"), ("events", verdict.events), ("head", verdict.head)])
    else:
        show_fields([("verdict", "BROKEN"), ("reason", verdict.reason), ("whole up to", verdict.events)])
    if not verdict.ok:
        raise typer.Exit(1)
