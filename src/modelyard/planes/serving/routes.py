"""HTTP for endpoints. Predictions do not pass here: clients talk to the endpoint's own URL."""

from __future__ import annotations

from datetime import datetime

from modelyard.kernel.auth import Action, Scope
from modelyard.kernel.limits import PAGE_ITEMS_DEFAULT
from modelyard.kernel.routing import delete, get, patch, post
from modelyard.planes.serving import Serving
from modelyard.types.features import FeatureVerification, VerifyLogged
from modelyard.types.page import Page
from modelyard.types.serving import CreateEndpoint, Endpoint, PredictionRows, Switch, UpdateEndpoint


@get("/api/endpoints", requires=Action.READ)
def list_endpoints(
    caller: Scope, serving: Serving, after: str | None = None, limit: int = PAGE_ITEMS_DEFAULT
) -> Page[Endpoint]:
    """Endpoints by name."""
    return serving.list(caller, after=after, limit=limit)


@post("/api/endpoints", requires=Action.WRITE, status_code=201)
def create_endpoint(caller: Scope, serving: Serving, data: CreateEndpoint) -> Endpoint:
    """A new endpoint; it is ready some moments later."""
    return serving.create(caller, data)


@get("/api/endpoints/{name:str}", requires=Action.READ)
def get_endpoint(caller: Scope, serving: Serving, name: str) -> Endpoint:
    """One endpoint, with its URL."""
    return serving.get(caller, name)


@patch("/api/endpoints/{name:str}", requires=Action.WRITE)
def update_endpoint(caller: Scope, serving: Serving, name: str, data: UpdateEndpoint) -> Endpoint:
    """Change its traffic, its options, or whether it runs."""
    return serving.update(caller, name, data)


@delete("/api/endpoints/{name:str}", requires=Action.WRITE)
def delete_endpoint(caller: Scope, serving: Serving, name: str, reason: str = "") -> Endpoint:
    """Stop and forget it; its logged predictions stay."""
    return serving.delete(caller, name, reason)


@get("/api/endpoints/{name:str}/switches", requires=Action.READ)
def list_switches(caller: Scope, serving: Serving, name: str, limit: int = PAGE_ITEMS_DEFAULT) -> Page[Switch]:
    """What it served since when, newest first."""
    return Page(list(serving.switches(caller, name, limit=limit)))


@get("/api/endpoints/{name:str}/served", requires=Action.READ)
def get_served(caller: Scope, serving: Serving, name: str, at: datetime) -> Switch:
    """What it served at an instant."""
    return serving.served_at(caller, name, at)


@get("/api/endpoints/{name:str}/predictions", requires=Action.READ)
def list_predictions(caller: Scope, serving: Serving, name: str, limit: int = 20) -> PredictionRows:
    """Its newest logged predictions."""
    return serving.predictions(caller, name, limit=limit)


@post("/api/endpoints/{name:str}/verify-features", requires=Action.READ)
def verify_logged_features(caller: Scope, serving: Serving, name: str, data: VerifyLogged) -> FeatureVerification:
    """What differs between the features that it was given, by its prediction log, and the point-in-time join. With
    `model` (takes the right to write) the outcome is attested of that version."""
    return serving.verify_features(caller, name, data)


ROUTES = [
    list_endpoints,
    create_endpoint,
    get_endpoint,
    update_endpoint,
    delete_endpoint,
    list_switches,
    get_served,
    list_predictions,
    verify_logged_features,
]
