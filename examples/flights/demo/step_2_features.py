"""Features: declared windowed aggregates, joined point-in-time; the future is corrupted, and nothing changes."""

from __future__ import annotations

from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc
from flights import source
from flights.views import NAMES, VIEWS

import modelyard
from demo.screen import Screen
from modelyard.sdk.features import apply, historical, join_record

PROBE_ROWS = 2_000
HORIZON = datetime(2013, 3, 10, tzinfo=UTC)


def run(screen: Screen) -> None:
    """Apply the views, and show that a flight's features hold nothing of what came after its scheduled departure."""
    for view in apply(*VIEWS):
        screen.good(
            f"{view.name}@{view.version}: {len(view.features)} features of {', '.join(view.definition.entities)}"
        )
    screen.now("joining, corrupting the future, joining again")
    asked = probe()
    before = historical(asked, NAMES, timestamp="scheduled_departure")
    corrupted = corrupt_the_future()
    pins = {"arrivals": corrupted}
    after = historical(asked, NAMES, timestamp="scheduled_departure", versions=pins)
    assert after.equals(before), "features changed when the future was corrupted: they leak"
    restored = modelyard.dataset("arrivals").overwrite(source.arrivals(1, 2, 3), source="the corruption undone")
    record = join_record(before)
    screen.good(f"{record.rows:,} flights × {len(record.features)} features, as of their scheduled departures")
    screen.good(
        f"every delay known after {HORIZON:%d %B} set to 1,999 minutes (arrivals@{corrupted}): "
        f"not one feature of these flights changed; undone (arrivals@{restored.version})"
    )


def probe() -> pa.Table:
    """Flights scheduled before the horizon, the latest ones, whose features see most of what is near it."""
    flights = modelyard.dataset("flights").read(filter=f"scheduled_departure <= '{HORIZON.isoformat()}'")
    ordered = flights.sort_by([("scheduled_departure", "descending"), ("flight_id", "ascending")])
    return ordered.slice(0, PROBE_ROWS)


def corrupt_the_future() -> int:
    """A version of `arrivals` in which every flight that landed after the horizon was late beyond belief."""
    arrivals = modelyard.dataset("arrivals").read()
    later = pc.greater(arrivals["landed_at"], pa.scalar(HORIZON, pa.timestamp("us", tz="UTC")))
    for name in ("dep_delay", "arr_delay"):
        spoiled = pc.if_else(later, 1_999.0, arrivals[name])
        arrivals = arrivals.set_column(arrivals.column_names.index(name), name, spoiled)
    written = modelyard.dataset("arrivals").overwrite(
        arrivals, source="the future corrupted, to prove that it does not leak"
    )
    assert written.version is not None
    return written.version
