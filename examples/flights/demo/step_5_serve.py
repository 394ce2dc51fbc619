"""Serve: an endpoint process by the Open Inference Protocol v2, and months of flights replayed to it in time order."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from flights import source
from flights.pipeline import MODEL
from flights.table import FEATURES, column_of, model_table
from flights.views import NAMES

import modelyard
from demo.screen import Screen
from modelyard.kernel.errors import ModelyardError
from modelyard.sdk.features import historical
from modelyard.types.serving import Endpoint, EndpointOptions

ENDPOINT = "flight-delay"
EVERY = 5
PAUSE_S = 0.06


@dataclass
class Traffic:
    """What was asked and what came back."""

    requests: int = 0
    rows: int = 0
    failures: list[str] = field(default_factory=list)
    versions: set[str] = field(default_factory=set)


def run(screen: Screen) -> Endpoint:
    """Start the endpoint, which follows the alias `champion`."""
    screen.now("starting the endpoint's process")
    handle = modelyard.endpoint(ENDPOINT)
    handle.create(MODEL, alias="champion", options=EndpointOptions(segment_age_s_max=0.5))
    found = handle.wait_ready()
    screen.good(
        f"{ENDPOINT} serves {found.serving[0].urn} at {found.url}/v2/models/{ENDPOINT}/infer (process {found.pid})"
    )
    return found


def replay(screen: Screen, month: int, traffic: Traffic) -> None:
    """Every fifth flight of a month, hour by hour, as it would have been asked for at its scheduled departure."""
    screen.now(f"joining the features of 2013-{month:02d}")
    joined = features_of(source.flights(month))
    for at, hour in by_hour(joined):
        screen.now(f"replaying {at:%d %B %H:00} · {traffic.rows:,} predictions, {len(traffic.failures)} failed")
        predict(hour, traffic)


def features_of(flights: pa.Table) -> pa.Table:
    """Every fifth of the flights with its features, in time order."""
    chosen = flights.take(pa.array(range(0, flights.num_rows, EVERY)))
    return historical(chosen, NAMES, timestamp="scheduled_departure")


def by_hour(joined: pa.Table) -> Iterator[tuple[datetime, pa.Table]]:
    """The flights of each hour."""
    hours = pc.floor_temporal(joined["scheduled_departure"], unit="hour")
    ends = pc.run_end_encode(hours.combine_chunks())
    begin = 0
    for end, hour in zip(ends.run_ends.to_pylist(), ends.values.to_pylist(), strict=True):
        yield hour, joined.slice(begin, end - begin)
        begin = end


def predict(flights: pa.Table, traffic: Traffic) -> None:
    """One request for some flights."""
    table = model_table(flights)
    columns: dict[str, Any] = {name: column_of(table, name) for name in FEATURES}
    traffic.requests += 1
    try:
        answer = this_endpoint().predict(
            columns,
            ids=flights["flight_id"].to_pylist(),
            event_times=pc.cast(flights["scheduled_departure"], pa.int64()).to_pylist(),
            binary=True,
        )
    except ModelyardError as error:
        traffic.failures.append(str(error))
        return
    traffic.rows += flights.num_rows
    traffic.versions.add(answer.model_version)


_local = threading.local()


def this_endpoint() -> Any:
    """The endpoint's handle, one a thread, since it keeps its connection."""
    if not hasattr(_local, "endpoint"):
        _local.endpoint = modelyard.endpoint(ENDPOINT)
    return _local.endpoint


class Background:
    """Traffic that goes on while something else happens: flights of July in their order, until it is over."""

    def __init__(self, traffic: Traffic, joined: pa.Table) -> None:
        self._traffic = traffic
        self._hours = [hour for _, hour in by_hour(joined)]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._send, daemon=True)

    def _send(self) -> None:
        for hour in self._hours:
            predict(hour, self._traffic)
            if self._over.wait(PAUSE_S):
                return

    def __enter__(self) -> Background:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
