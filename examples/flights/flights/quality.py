"""What must hold of every batch before it becomes a version of its dataset."""

from __future__ import annotations

from modelyard.types.data import Check, Finite, InSet, NotNull, Range, RowCount, Unique

CARRIERS = ("9E", "AA", "AS", "B6", "DL", "EV", "F9", "FL", "HA", "MQ", "OO", "UA", "US", "VX", "WN", "YV")
ORIGINS = ("EWR", "JFK", "LGA")

FLIGHTS: list[Check] = [
    NotNull(column="flight_id"),
    Unique(columns=["flight_id"]),
    NotNull(column="scheduled_departure"),
    InSet(column="carrier", values=list(CARRIERS)),
    InSet(column="origin", values=list(ORIGINS)),
    Range(column="distance", min=1, max=6_000),
    RowCount(min=100),
]
ARRIVALS: list[Check] = [
    NotNull(column="landed_at"),
    NotNull(column="departed_at"),
    Unique(columns=["flight_id"]),
    Finite(column="dep_delay"),
    Range(column="arr_delay", min=-180, max=2_000),
]
OUTCOMES: list[Check] = [NotNull(column="late"), NotNull(column="landed_at"), Unique(columns=["flight_id"])]
WEATHER: list[Check] = [
    InSet(column="origin", values=list(ORIGINS)),
    NotNull(column="observed_at"),
    Range(column="humid", min=0, max=100),
]
PLANES: list[Check] = [NotNull(column="tailnum"), Unique(columns=["tailnum"])]
