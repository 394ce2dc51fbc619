"""Automation: which events start which pipelines, and what became of the challengers that they made."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database
from modelyard.planes.automation import Automation
from modelyard.types.automation import On, OnDataset, OnEvent, OnSchedule, Response, Trigger
from modelyard.ui.format import duration, words
from modelyard.ui.frame import Crumb, Frame, Screen, rail
from modelyard.ui.page import page as ui_page

RESPONSES_SHOWN = 50


class TriggerRow(Struct, frozen=True, kw_only=True):
    """A trigger, in words what it waits for, and its latest response."""

    trigger: Trigger
    waits_for: str
    latest: Response | None


class Triggers(Screen, frozen=True, kw_only=True):
    """All triggers, and what they made of events, newest first."""

    rows: tuple[TriggerRow, ...]
    responses: tuple[Response, ...]
    next: str | None = None


class ResponsePage(Screen, frozen=True, kw_only=True):
    """What a trigger made of one event, from its decision to the verdict."""

    response: Response


def waits_for(on: On) -> str:
    """What a trigger waits for, in words."""
    match on:
        case OnEvent(kind=kind, match=match):
            conditions = ", ".join(f"{words(key)} {_values(value)}" for key, value in match.items())
            return f"{kind} with {conditions}" if conditions else kind
        case OnDataset(dataset=name):
            return f"a new version of {name}"
        case OnSchedule(cron=cron, every_s=every_s):
            return f"{cron} (UTC)" if cron else f"every {duration(every_s)}"


def _values(value: object) -> str:
    return " or ".join(str(one) for one in value) if isinstance(value, list) else str(value)


@ui_page("/automation", template="automation.html")
def automation(caller: Scope, automation: Automation, page: str = "") -> Triggers:
    """All triggers with their responses."""
    found = automation.list(caller)
    responses = automation.responses(caller, before=page or None, limit=RESPONSES_SHOWN)
    rows = []
    for one in found.items:
        newest = automation.responses(caller, trigger=one.name, limit=1).items
        rows.append(TriggerRow(trigger=one, waits_for=waits_for(one.spec.on), latest=newest[0] if newest else None))
    return Triggers(
        frame=Frame(title="Automation", section="automation"),
        rows=tuple(rows),
        responses=tuple(responses.items),
        next=responses.next,
    )


@ui_page("/automation/responses/{response_id:str}", template="response.html")
def response(caller: Scope, database: Database, automation: Automation, response_id: str) -> ResponsePage:
    """One response with the gates that decided it."""
    found = automation.response(caller, response_id)
    urn = f"pipeline-run:{found.pipeline_run}" if found.pipeline_run else found.event_subject
    return ResponsePage(
        frame=Frame(
            title=f"{found.trigger} on {words(found.event_kind)}",
            section="automation",
            kind="response",
            state=found.state,
            at=found.created_at,
            crumbs=(Crumb("Automation", "/automation"),),
            rail=rail(database, caller, urn),
        ),
        response=found,
    )


ROUTES: list[Any] = [automation, response]
