"""Feature views in a program: declared as values, applied, and joined to an entity frame as of each row's instant.

origin_delays = feature_view(
    "origin_delays", entities=["origin"], source="arrivals", event_time="departed_at", known_at="landed_at",
    aggregates=[mean("dep_delay", "3h"), count("3h")],
)
apply(origin_delays)
frame = historical(flights, ["origin_delays"], timestamp="scheduled_departure")
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from modelyard.kernel.errors import InvalidInput
from modelyard.sdk.arrow_wire import ARROW_STREAM, ipc_stream
from modelyard.sdk.client import Client, connect
from modelyard.types.features import (
    Aggregate,
    DefineFeatureView,
    FeatureVerification,
    FeatureView,
    Function,
    JoinRecord,
    VerifyLogged,
)
from modelyard.types.page import Page

if TYPE_CHECKING:
    import pyarrow as pa

Duration = str | int | timedelta
_DURATION = re.compile(r"(\d+)\s*([smhdw])")
_UNIT_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def feature_view(
    name: str,
    *,
    entities: Sequence[str],
    source: str,
    event_time: str,
    known_at: str = "",
    ttl: Duration | None = None,
    columns: Sequence[str] = (),
    aggregates: Sequence[Aggregate] = (),
    sql: str = "",
    description: str = "",
) -> DefineFeatureView:
    """Declare a feature view; `apply` makes it known. See `DefineFeatureView` for what each part means."""
    return DefineFeatureView(
        name=name,
        entities=list(entities),
        source=source,
        event_time=event_time,
        known_at=known_at,
        ttl_s=None if ttl is None else seconds(ttl),
        columns=list(columns),
        aggregates=list(aggregates),
        sql=sql,
        description=description,
    )


def count(window: Duration, column: str = "", *, name: str = "") -> Aggregate:
    """How many rows, or how many values that are not null."""
    return Aggregate(function="count", column=column, window_s=seconds(window), name=name)


def mean(column: str, window: Duration, *, name: str = "") -> Aggregate:
    """The mean of the values."""
    return _aggregate("mean", column, window, name)


def total(column: str, window: Duration, *, name: str = "") -> Aggregate:
    """The sum of the values."""
    return _aggregate("sum", column, window, name)


def rate(column: str, window: Duration, *, name: str = "") -> Aggregate:
    """The share of true."""
    return _aggregate("rate", column, window, name)


def least(column: str, window: Duration, *, name: str = "") -> Aggregate:
    """The minimum of the values."""
    return _aggregate("min", column, window, name)


def greatest(column: str, window: Duration, *, name: str = "") -> Aggregate:
    """The maximum of the values."""
    return _aggregate("max", column, window, name)


def _aggregate(function: Function, column: str, window: Duration, name: str) -> Aggregate:
    return Aggregate(function=function, column=column, window_s=seconds(window), name=name)


def seconds(duration: Duration) -> int:
    """Whole seconds of `3h`, `45m`, `7d`, `2w`, a number of seconds, or a timedelta. Raises InvalidInput."""
    if isinstance(duration, timedelta):
        whole = duration // timedelta(seconds=1)
        if timedelta(seconds=whole) == duration and whole > 0:
            return whole
    elif isinstance(duration, int) and not isinstance(duration, bool) and duration > 0:
        return duration
    elif isinstance(duration, str) and (found := _DURATION.fullmatch(duration.strip())) and int(found.group(1)):
        return int(found.group(1)) * _UNIT_S[found.group(2)]
    raise InvalidInput(
        f"{duration!r} is no duration of whole seconds",
        code="duration.invalid",
        hint="write 45s, 30m, 3h, 7d or 2w, or give a number of seconds or a timedelta",
    )


def apply(*views: DefineFeatureView, client: Client | None = None) -> list[FeatureView]:
    """Make definitions the current versions of their views; what is so already stays as it is."""
    reach = client or connect()
    return [reach.post("/api/feature-views", view, FeatureView) for view in views]


def get_feature_view(ref: str, client: Client | None = None) -> FeatureView:
    """A view by `name` or `name@version`. Raises NotFound."""
    return (client or connect()).get(f"/api/feature-views/{quote(ref, safe='@')}", FeatureView)


def list_feature_views(
    client: Client | None = None, *, after: str | None = None, limit: int = 100
) -> Page[FeatureView]:
    """Current versions by name."""
    return (client or connect()).get("/api/feature-views", Page[FeatureView], {"after": after, "limit": limit})


def historical(
    entities: Any,
    features: Sequence[str],
    *,
    timestamp: str,
    versions: Mapping[str, int | str] | None = None,
    client: Client | None = None,
) -> pa.Table:
    """The entity frame with the features as they stood, for each row, at its own instant in column `timestamp`.

    `entities`: an Arrow table or batches, a pandas or Polars frame. `features`: views, or `view:feature`; the columns
    are named `<view>__<feature>`. All rows come back in their order. `versions` pins datasets, else the newest is read.
    """
    import pyarrow as pa  # heavy: imported late

    params = {
        "feature": list(features),
        "timestamp": timestamp,
        "pin": [f"{name}@{version}" for name, version in (versions or {}).items()] or None,
    }
    reach = client or connect()
    reply: bytes = reach.send_bytes(
        "POST", "/api/features/historical", ipc_stream(entities), media_type=ARROW_STREAM, type=bytes, params=params
    )
    return pa.ipc.open_stream(io.BytesIO(reply)).read_all()


def verify(
    served: Any,
    features: Sequence[str],
    *,
    timestamp: str,
    versions: Mapping[str, int | str] | None = None,
    tolerance: float = 1e-6,
    model: str = "",
    client: Client | None = None,
) -> FeatureVerification:
    """Whether features that were served are those that training sees: the frame holds them as `<view>__<feature>`,
    beside entities and instants. With `model` (`name@version`) the outcome is attested of it, for its feature gate."""
    params = {
        "feature": list(features),
        "timestamp": timestamp,
        "pin": [f"{name}@{version}" for name, version in (versions or {}).items()] or None,
        "tolerance": tolerance,
        "model": model or None,
    }
    found: FeatureVerification = (client or connect()).send_bytes(
        "POST", "/api/features/verify", ipc_stream(served), media_type=ARROW_STREAM, type=FeatureVerification,
        params=params,
    )  # fmt: skip
    return found


def verify_logged(endpoint: str, asked: VerifyLogged, client: Client | None = None) -> FeatureVerification:
    """Whether the features that an endpoint was given are those that training sees, by its prediction log."""
    reach = client or connect()
    return reach.post(f"/api/endpoints/{quote(endpoint, safe='')}/verify-features", asked, FeatureVerification)


def join_record(frame: pa.Table) -> JoinRecord:
    """What a frame from `historical` was made of: views, dataset versions, features. Raises InvalidInput for others."""
    found = (frame.schema.metadata or {}).get(b"modelyard")
    if found is None:
        raise InvalidInput("this frame does not come from a point-in-time join", code="features.no_record")
    return msgspec.json.decode(found, type=JoinRecord)
