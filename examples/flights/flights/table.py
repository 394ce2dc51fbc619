"""The model's table: 24 numbers a flight, by name and in one order, from the schedule and the joined features."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flights.quality import CARRIERS, ORIGINS

SCHEDULE = ("carrier_code", "origin_code", "minute_of_day", "day_of_week", "distance")
JOINED = {
    "origin_mean_dep_delay_3h": "origin_delays__mean_dep_delay_3h",
    "origin_late_rate_3h": "origin_delays__rate_late_3h",
    "origin_flights_3h": "origin_delays__count_3h",
    "origin_mean_dep_delay_24h": "origin_delays__mean_dep_delay_24h",
    "origin_late_rate_24h": "origin_delays__rate_late_24h",
    "carrier_mean_dep_delay_6h": "carrier_delays__mean_dep_delay_6h",
    "carrier_mean_dep_delay_24h": "carrier_delays__mean_dep_delay_24h",
    "carrier_late_rate_24h": "carrier_delays__rate_late_24h",
    "carrier_late_rate_7d": "carrier_delays__rate_late_7d",
    "dest_mean_arr_delay_24h": "dest_delays__mean_arr_delay_24h",
    "dest_late_rate_24h": "dest_delays__rate_late_24h",
    "last_leg_arr_delay": "last_leg__arr_delay",
    "temp": "weather_now__temp",
    "humid": "weather_now__humid",
    "wind_speed": "weather_now__wind_speed",
    "precip": "weather_now__precip",
    "visib": "weather_now__visib",
    "pressure": "weather_now__pressure",
}
FEATURES = (*SCHEDULE, *JOINED, "minutes_since_landing")
ALWAYS_KNOWN = frozenset({*SCHEDULE, "origin_flights_3h"})
CATEGORIES = ("carrier_code", "origin_code")
_MINUTE_US = 60_000_000


def model_table(joined: pa.Table) -> pa.Table:
    """The 24 columns as 32-bit floats; what was not known is null."""
    since = pc.subtract(_us(joined["scheduled_departure"]), _us(joined["last_leg__landed_at"]))
    columns: dict[str, Any] = {
        "carrier_code": pc.index_in(joined["carrier"], pa.array(CARRIERS)),
        "origin_code": pc.index_in(joined["origin"], pa.array(ORIGINS)),
        **{name: joined[name] for name in SCHEDULE[2:]},
        **{name: joined[source] for name, source in JOINED.items()},
        "minutes_since_landing": pc.divide(pc.cast(since, pa.float64()), float(_MINUTE_US)),
    }
    return pa.table({name: pc.cast(columns[name], pa.float32(), safe=False) for name in FEATURES})


def matrix(table: pa.Table) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The 24 columns side by side, missing values as NaN."""
    return np.column_stack([column_of(table, name) for name in FEATURES])


def column_of(table: pa.Table, name: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    """One column, missing values as NaN."""
    filled = pc.fill_null(pc.cast(table[name], pa.float32()), float("nan"))
    return np.asarray(filled.to_numpy(), dtype=np.float32)


def _us(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.cast(pc.cast(column, pa.timestamp("us", tz="UTC")), pa.int64())
