"""What is known about an airport, a carrier, a destination, a plane and the weather at an instant.

A delay counts from when the flight has landed, not from when it left: `known_at` says so, and no feature of a flight
can see what happened after its scheduled departure.
"""

from __future__ import annotations

from modelyard.sdk.features import count, feature_view, mean, rate

_OBSERVED = {"source": "arrivals", "event_time": "departed_at", "known_at": "landed_at"}
_LATE = "SELECT *, arr_delay > 15 AS late FROM arrivals"

origin_delays = feature_view(
    "origin_delays",
    entities=["origin"],
    **_OBSERVED,
    sql=_LATE,
    aggregates=[
        mean("dep_delay", "3h"),
        rate("late", "3h"),
        count("3h"),
        mean("dep_delay", "24h"),
        rate("late", "24h"),
    ],
    description="How flights from an airport went lately.",
)
carrier_delays = feature_view(
    "carrier_delays",
    entities=["carrier"],
    **_OBSERVED,
    sql=_LATE,
    aggregates=[mean("dep_delay", "6h"), mean("dep_delay", "24h"), rate("late", "24h"), rate("late", "7d")],
    description="How a carrier's flights went lately.",
)
dest_delays = feature_view(
    "dest_delays",
    entities=["dest"],
    **_OBSERVED,
    sql=_LATE,
    aggregates=[mean("arr_delay", "24h"), rate("late", "24h")],
    description="How flights to a destination went lately.",
)
last_leg = feature_view(
    "last_leg",
    entities=["tailnum"],
    **_OBSERVED,
    ttl="24h",
    columns=["arr_delay", "landed_at"],
    description="The last flight of a plane that has landed.",
)
weather_now = feature_view(
    "weather_now",
    entities=["origin"],
    source="weather",
    event_time="observed_at",
    known_at="known_at",
    ttl="6h",
    columns=["temp", "humid", "wind_speed", "precip", "visib", "pressure"],
    description="The latest known weather at an airport.",
)

VIEWS = [origin_delays, carrier_delays, dest_delays, last_leg, weather_now]
NAMES = [view.name for view in VIEWS]
