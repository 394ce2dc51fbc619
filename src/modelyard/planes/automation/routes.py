"""The HTTP face of automation."""

from __future__ import annotations

from typing import Annotated, Any

from litestar.params import Parameter

from modelyard.kernel.auth import Action, Scope
from modelyard.kernel.limits import PAGE_ITEMS_DEFAULT, PAGE_ITEMS_MAX
from modelyard.kernel.routing import delete, get, patch, post
from modelyard.planes.automation.service import Automation
from modelyard.types.automation import Response, SetEnabled, Trigger, TriggerSpec
from modelyard.types.page import Page

Limit = Annotated[int, Parameter(ge=1, le=PAGE_ITEMS_MAX)]


@get("/api/triggers", requires=Action.READ)
def list_triggers(
    caller: Scope, automation: Automation, after: str | None = None, limit: Limit = PAGE_ITEMS_DEFAULT
) -> Page[Trigger]:
    """Triggers by name."""
    return automation.list(caller, after=after, limit=limit)


@post("/api/triggers", requires=Action.WRITE, status_code=201)
def create_trigger(caller: Scope, automation: Automation, data: TriggerSpec) -> Trigger:
    """A new trigger; one that approves by itself needs an approver's role."""
    return automation.create(caller, data)


@get("/api/triggers/{name:str}", requires=Action.READ)
def get_trigger(caller: Scope, automation: Automation, name: str) -> Trigger:
    """One trigger."""
    return automation.get(caller, name)


@patch("/api/triggers/{name:str}", requires=Action.WRITE)
def switch_trigger(caller: Scope, automation: Automation, name: str, data: SetEnabled) -> Trigger:
    """Switch it on or off."""
    return automation.set_enabled(caller, name, data.enabled)


@delete("/api/triggers/{name:str}", requires=Action.WRITE, status_code=204)
def delete_trigger(caller: Scope, automation: Automation, name: str) -> None:
    """Remove it; what it did stays on record."""
    automation.delete(caller, name)


@get("/api/responses", requires=Action.READ)
def list_responses(
    caller: Scope,
    automation: Automation,
    trigger: str | None = None,
    alert: str | None = None,
    before: str | None = None,
    limit: Limit = PAGE_ITEMS_DEFAULT,
) -> Page[Response]:
    """What happened and what was done about it, newest first."""
    return automation.responses(caller, trigger=trigger, alert=alert, before=before, limit=limit)


@get("/api/responses/{response_id:str}", requires=Action.READ)
def get_response(caller: Scope, automation: Automation, response_id: str) -> Response:
    """One response: the event, the decision, the run, the verdict and its gates."""
    return automation.response(caller, response_id)


ROUTES: list[Any] = [
    list_triggers,
    create_trigger,
    get_trigger,
    switch_trigger,
    delete_trigger,
    list_responses,
    get_response,
]
