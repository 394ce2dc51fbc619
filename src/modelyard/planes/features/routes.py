"""HTTP for feature views: definitions as JSON, entity frames and features as Arrow IPC streams."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import anyio.to_thread
from litestar import Request
from litestar.params import Parameter
from litestar.response import Stream

from modelyard.engines.tables.ingest import ARROW_STREAM, ipc_chunks, open_tabular
from modelyard.kernel.auth import Action, Scope
from modelyard.kernel.errors import InvalidInput, TooLarge
from modelyard.kernel.limits import GIB, PAGE_ITEMS_DEFAULT
from modelyard.kernel.routing import get, post
from modelyard.kernel.spooling import spooled
from modelyard.planes.features.service import TOLERANCE, Features
from modelyard.types.features import DefineFeatureView, FeatureVerification, FeatureView
from modelyard.types.page import Page

FRAME_BYTES_MAX = 4 * GIB
Many = Annotated[list[str], Parameter(query="feature")]
Pins = Annotated[list[str] | None, Parameter(query="pin")]


@get("/api/feature-views", requires=Action.READ)
def list_feature_views(
    caller: Scope, features: Features, after: str | None = None, limit: int = PAGE_ITEMS_DEFAULT
) -> Page[FeatureView]:
    """Current versions by name."""
    return features.list(caller, after=after, limit=limit)


@post("/api/feature-views", requires=Action.WRITE)
def apply_feature_view(caller: Scope, features: Features, data: DefineFeatureView) -> FeatureView:
    """Make a definition the current version of its view."""
    return features.apply(caller, data)


@get("/api/feature-views/{ref:str}", requires=Action.READ)
def get_feature_view(caller: Scope, features: Features, ref: str) -> FeatureView:
    """A view by `name` or `name@version`."""
    return features.get(caller, ref)


@get("/api/feature-views/{name:str}/versions", requires=Action.READ)
def list_feature_view_versions(
    caller: Scope, features: Features, name: str, limit: int = PAGE_ITEMS_DEFAULT
) -> Page[FeatureView]:
    """Versions of a view, newest first."""
    return features.versions(caller, name, limit=limit)


@post("/api/features/historical", requires=Action.READ, request_max_body_size=None)
async def historical_features(
    request: Request[Any, Any, Any], caller: Scope, features: Features, feature: Many, timestamp: str, pin: Pins = None
) -> Stream:
    """The entity frame in the body (an Arrow stream or file, or Parquet) with the features as of each row's instant.

    `feature`: views or `view:feature`, repeated. `timestamp`: the frame's column of instants. `pin`: `dataset@version`.
    """
    pins = _pins(pin or [])
    async with _received(request, features) as file:
        join = partial(_join, file, request.headers.get("content-type", ""), features, caller, feature, timestamp, pins)
        table = await anyio.to_thread.run_sync(join)
    return Stream(ipc_chunks(table.schema, iter(table.to_batches(64 * 1024))), media_type=ARROW_STREAM)


@post("/api/features/verify", requires=Action.READ, request_max_body_size=None)
async def verify_features(
    request: Request[Any, Any, Any],
    caller: Scope,
    features: Features,
    feature: Many,
    timestamp: str,
    pin: Pins = None,
    tolerance: float = TOLERANCE,
    model: str = "",
) -> FeatureVerification:
    """The frame in the body holds features as they were served, beside entities and instants: what differs from the
    point-in-time join. With `model` (`name@version`; takes the right to write) the outcome is attested of it."""
    pins = _pins(pin or [])
    async with _received(request, features) as file:
        media_type = request.headers.get("content-type", "")

        def verify() -> FeatureVerification:
            with open_tabular(file, media_type) as reader:
                return features.verify(
                    caller, reader, feature, timestamp=timestamp, pins=pins, tolerance=tolerance, model=model
                )

        return await anyio.to_thread.run_sync(verify)


def _join(
    file: Path,
    media_type: str,
    features: Features,
    caller: Scope,
    wanted: list[str],
    timestamp: str,
    pins: dict[str, str],
) -> Any:
    with open_tabular(file, media_type) as reader:
        return features.historical(caller, reader, wanted, timestamp=timestamp, pins=pins)


def _pins(texts: list[str]) -> dict[str, str]:
    pins = {}
    for text in texts:
        name, _, version = text.rpartition("@")
        if not name or not version:
            raise InvalidInput(f"{text[:160]!a} is no pin", code="features.pin_invalid", hint="write dataset@version")
        pins[name] = version
    return pins


def _received(request: Request[Any, Any, Any], features: Features) -> AbstractAsyncContextManager[Path]:
    """The body in a private file, which is gone afterwards."""
    too_large = TooLarge(
        f"an entity frame has at most {FRAME_BYTES_MAX} bytes",
        code="features.frame_too_large",
        hint="join it in several parts",
    )
    return spooled(request.stream(), features.spool(), FRAME_BYTES_MAX, too_large)


ROUTES = [
    list_feature_views,
    apply_feature_view,
    get_feature_view,
    list_feature_view_versions,
    historical_features,
    verify_features,
]
