"""Delays by origin: arrivals as they came to be known, a view over them, and a model that the feature gate guards."""

from __future__ import annotations

import io
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pyarrow as pa

from modelyard.kernel.auth import system_scope
from modelyard.planes.tracking import Owner
from modelyard.sdk import features
from modelyard.sdk.data import dataset
from modelyard.sdk.features import count, feature_view, mean
from modelyard.server.run import Server
from modelyard.types.registry import Policy
from modelyard.types.tracking import CreateRun
from running import client_of

NOON = datetime(2013, 1, 1, 12, tzinfo=UTC)
INSTANTS = pa.timestamp("us", tz="UTC")
ADA = system_scope("default")
VIEW = feature_view(
    "origin_delays", entities=["origin"], source="arrivals", event_time="departed_at", known_at="landed_at",
    aggregates=[mean("delay", "3h"), count("7d", name="week")],
)  # fmt: skip
MEAN, WEEK = "origin_delays__mean_delay_3h", "origin_delays__week"


def guard_by_features(server: Server, files: Mapping[str, bytes]) -> None:
    """Six arrivals, the view over them, and `delay` with two versions of a model of these files behind the gate."""
    client, yard = client_of(server), server.yard
    hours = [NOON + timedelta(hours=at) for at in range(6)]
    arrivals = pa.table(
        {
            "origin": ["JFK", "LGA"] * 3,
            "departed_at": pa.array(hours, INSTANTS),
            "landed_at": pa.array([one + timedelta(hours=1) for one in hours], INSTANTS),
            "delay": [10.0, 20.0, 30.0, 40.0, 50.0, 60.0],
        }
    )
    dataset("arrivals", client).write(arrivals)
    features.apply(VIEW, client=client)
    yard.registry.models.create(ADA, "delay")
    run = yard.tracking.runs.create(ADA, CreateRun(experiment_id="0")).id
    for path, content in files.items():
        yard.tracking.artifacts.put(ADA, Owner("run", run), f"m/{path}", io.BytesIO(content))
    for _ in range(2):
        yard.registry.versions.create(ADA, "delay", f"runs:/{run}/m")
    yard.registry.models.set_policy(ADA, "delay", Policy(features=True), "")
