# ruff: noqa: E501 - statements and schemas are written out
"""Twenty checks over 1M rows of 15 columns in Parquet: beside hand-written DuckDB that counts the same, Great Expectations
(BASIC where all pass, COMPLETE where rows fail and are wanted) and Pandera on Polars.

The peers have their environments (`make foreign`: `gx`, `data_peers`) and are given the rows in memory; we and the floor
read Parquet. `--alone` leaves the peers out. An append is checked too: 10,000 rows after the million.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from modelyard.engines.tables.base import FileSet
from modelyard.engines.tables.sql import sandbox
from modelyard.planes.data.audit import columns_of
from modelyard.planes.data.checks import states_of
from modelyard.planes.data.checks.running import Before, run_suite
from modelyard.planes.data.suites import read_suite

ROOT = Path(__file__).parents[1]
ROWS = 1_000_000
APPENDED = 10_000
TIMES = 5

PEERS = {
    "gx": """
import sys, time, json, pandas as pd, great_expectations as gx
from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
frame = pd.read_parquet(sys.argv[1]); entries = json.loads(sys.argv[2]); how = sys.argv[3]
context = gx.get_context(mode="ephemeral")
context.variables.progress_bars = {"globally": False, "metric_calculations": False}
batch = context.data_sources.add_pandas("p").add_dataframe_asset("f").add_batch_definition_whole_dataframe("w").get_batch(
    batch_parameters={"dataframe": frame})
suite = gx.ExpectationSuite(name="s")
for one in entries:
    suite.add_expectation(ExpectationConfiguration(type=one["type"], kwargs=one["kwargs"]).to_domain_obj())
best = []
for _ in range(1 if how == "COMPLETE" else 3):
    at = time.perf_counter(); found = batch.validate(suite, result_format=how); best.append(time.perf_counter() - at)
print("SECONDS", min(best), found.statistics["unsuccessful_expectations"])
""",
    "data_peers": """
import sys, time, polars as pl, pandera.polars as pa
frame = pl.read_parquet(sys.argv[1])
C, K = pa.Column, pa.Check
schema = pa.DataFrameSchema({
    "id": C(int, [K.ge(0)], nullable=False, unique=True), "carrier": C(str, [K.isin(["AA", "UA", "DL", "B6"]), K.str_length(2, 2)], nullable=False),
    "flight": C(str, [K.str_matches("^[A-Z][A-Z0-9][0-9]+$")], nullable=False), "distance": C(float, [K.in_range(0, 10000)], nullable=False),
    "delay": C(float, [K.in_range(-100, 2000)], nullable=True), "origin": C(str, [K.isin(["JFK", "EWR", "LGA"])], nullable=False),
    "dest": C(str, [K.str_length(3, 3)]), "hour": C(int, [K.in_range(0, 23)], nullable=False), "month": C(int, [K.in_range(1, 12)]),
    "at": C(nullable=False), "temp": C(float, [K.in_range(-60, 60)], nullable=True),
})
best = []
for _ in range(5):
    at = time.perf_counter()
    try: schema.validate(frame, lazy=True); failed = 0
    except pa.errors.SchemaErrors as error: failed = len(error.schema_errors)
    best.append(time.perf_counter() - at)
print("SECONDS", min(best), failed)
""",
}


def e(kind: str, **kwargs: Any) -> dict[str, Any]:
    return {"type": f"expect_{kind}", "kwargs": kwargs}


def expectations(failing: bool) -> list[dict[str, Any]]:
    """Twenty expectations; of the failing ones four are not met, each by some of the rows."""
    return [
        e("table_row_count_to_be_between", min_value=1),
        e("column_values_to_not_be_null", column="id"),
        e("column_values_to_not_be_null", column="at"),
        e("column_values_to_not_be_null", column="carrier"),
        e("column_values_to_not_be_null", column="distance"),
        e("column_values_to_be_unique", column="id"),
        e("column_values_to_be_between", column="id", min_value=0),
        e("column_values_to_be_between", column="distance", min_value=0, max_value=9_000 if failing else 10_000),
        e("column_values_to_be_between", column="delay", min_value=-100, max_value=1_800 if failing else 2_000),
        e("column_values_to_be_between", column="hour", min_value=0, max_value=21 if failing else 23),
        e("column_values_to_be_between", column="month", min_value=1, max_value=12),
        e("column_values_to_be_between", column="temp", min_value=-60, max_value=60),
        e("column_values_to_be_in_set", column="carrier", value_set=["AA", "UA", "DL"] + ([] if failing else ["B6"])),
        e("column_values_to_be_in_set", column="origin", value_set=["JFK", "EWR", "LGA"]),
        e("column_values_to_match_regex", column="flight", regex="^[A-Z][A-Z0-9][0-9]+$"),
        e("column_value_lengths_to_equal", column="dest", value=3),
        e("column_mean_to_be_between", column="delay", min_value=-100, max_value=2000),
        e("column_stdev_to_be_between", column="distance", min_value=1, max_value=10_000),
        e("column_median_to_be_between", column="distance", min_value=1, max_value=10_000),
        e("column_unique_value_count_to_be_between", column="dest", min_value=1, max_value=1_000),
    ]


def by_hand(file: Path, failing: bool) -> list[str]:
    """What somebody would write who wants these numbers of DuckDB, and the twenty rows of each failing check."""
    d, y, h = (9000, 1800, 21) if failing else (10000, 2000, 23)
    carriers = "'AA','UA','DL'" + ("" if failing else ",'B6'")
    source = f"read_parquet('{file}')"
    statements = [
        f"""SELECT count(*), count(id), count("at"), count(carrier), count(distance), count_if(id < 0),
        count_if(distance < 0 OR distance > {d}), count_if(delay < -100 OR delay > {y}), count(delay),
        count_if(hour < 0 OR hour > {h}), count(hour), count_if(month < 1 OR month > 12), count(month),
        count_if(temp < -60 OR temp > 60), count(temp), count_if(carrier NOT IN ({carriers})),
        count_if(origin NOT IN ('JFK','EWR','LGA')), count(origin),
        count_if(NOT regexp_matches(flight, '^[A-Z][A-Z0-9][0-9]+$')), count(flight), count_if(length(dest) <> 3), count(dest),
        avg(delay), stddev_samp(distance) FROM {source}""",
        f"SELECT sum(n), sum(n) FILTER (n > 1) FROM (SELECT id, count(*) AS n FROM {source} GROUP BY id)",
        f"SELECT median(distance) FROM {source}",
        f"SELECT count(DISTINCT dest) FROM {source}",
    ]
    bad = [f"distance > {d}", f"delay > {y}", f"hour > {h}", f"carrier NOT IN ({carriers})"] if failing else []
    return [*statements, *(f"SELECT * FROM {source} WHERE {one} LIMIT 20" for one in bad)]


def table(rows: int, start: int = 0) -> pa.Table:
    """Rows as flights are, made by DuckDB from a seed."""
    found: pa.Table = duckdb.sql(
        f"""SELECT i AS id, ['AA','UA','DL','B6'][1 + h % 4] AS carrier,
        ['AA','UA','DL','B6'][1 + h % 4] || (h % 9000) AS flight, (h % 1000000) / 100.0::DOUBLE AS distance,
        CASE WHEN h % 50 = 0 THEN NULL ELSE ((h // 7) % 210000) / 100.0::DOUBLE - 100 END AS delay,
        ['JFK','EWR','LGA'][1 + h % 3] AS origin, chr((65 + h % 26)::INT) || chr((65 + h // 26 % 26)::INT) || 'X' AS dest,
        (h % 24)::BIGINT AS hour, (1 + h % 12)::BIGINT AS month, TIMESTAMP '2024-01-01' + to_seconds(i) AS "at",
        CASE WHEN h % 20 = 0 THEN NULL ELSE (h % 8000) / 100.0::DOUBLE - 30 END AS temp, h % 2 = 0 AS night,
        (h % 400)::BIGINT AS seats, 'tail' || h % 4000 AS tail, (h % 100)::DOUBLE AS wind
        FROM (SELECT i, (hash(i) % 1000000007)::BIGINT AS h FROM range({start}, {start + rows}) r(i))"""
    ).to_arrow_table()
    return found


def best(act: Callable[[], object], times: int = TIMES) -> float:
    """Seconds of the middle run."""
    taken = []
    for _ in range(times):
        at = time.perf_counter()
        act()
        taken.append(time.perf_counter() - at)
    return statistics.median(taken)


def peer(name: str, *arguments: str) -> tuple[float, int] | None:
    python = ROOT / ".venvs" / name / "bin" / "python"
    if "--alone" in sys.argv or not python.exists():
        return None
    ran = subprocess.run([str(python), "-c", PEERS[name], *arguments], capture_output=True, text=True, check=False)
    if ran.returncode:
        print(f"  {name} failed: {ran.stderr.strip().splitlines()[-1][:200]}")
        return None
    _, seconds, failed = next(line for line in ran.stdout.splitlines() if line.startswith("SECONDS")).split()
    return float(seconds), int(failed)


def measured(file: Path, failing: bool) -> None:
    """One suite: ours, the floor, the peers."""
    entries = expectations(failing)
    checks = read_suite({"name": "s", "expectations": entries}).checks
    schema = pq.read_schema(file)
    whole = FileSet(schema, (file,), uniform=True)

    def ours() -> int:
        with sandbox({"batch": whole, "dataset": whole}) as session:
            found = run_suite(session, checks, columns_of(schema), datetime.now(UTC), one_table=True)
        return sum(one.status != "passed" for one in found)

    def floor() -> None:
        connection = duckdb.connect()
        connection.execute("SET threads = 2")
        for statement in by_hand(file, failing):
            connection.execute(statement).fetchall()
        connection.close()

    failed = ours()
    floor()
    mine, bare = best(ours), best(floor)
    what = "four checks fail, their rows wanted" if failing else "all pass"
    print(f"20 checks, {ROWS:,} x {len(schema.names)}, {what}: {mine:.3f} s ({failed} fail)")
    print(f"  hand-written DuckDB          {bare:.3f} s   we take {mine / bare:.2f} x of it (at most 1.5)")
    how = "COMPLETE" if failing else "BASIC"
    real = peer("gx", str(file), json.dumps(entries), how)
    if real:
        print(
            f"  Great Expectations {how:9} {real[0]:.3f} s   {real[0] / mine:.1f} x of ours ({real[1]} fail; at least {40 if failing else 4})"
        )
    polars = None if failing else peer("data_peers", str(file))
    if polars:
        print(
            f"  Pandera on Polars            {polars[0]:.3f} s   {polars[0] / mine:.2f} x of ours ({polars[1]} fail; at least 1)"
        )


def appended(folder: Path, file: Path) -> None:
    """The same suite after an append, going on from the state of the rows before, beside looking at all rows again."""
    more = folder / "more.parquet"
    pq.write_table(table(APPENDED, ROWS), more)
    schema = pq.read_schema(file)
    checks = read_suite({"name": "s", "expectations": expectations(False)}).checks
    base, batch = FileSet(schema, (file,), uniform=True), FileSet(schema, (more,), uniform=True)
    whole = FileSet(schema, (file, more), uniform=True)
    with sandbox({"batch": base, "dataset": base}) as session:
        states = states_of(run_suite(session, checks, columns_of(schema), datetime.now(UTC)))
    merging = [check for check in checks if not (check.origin.endswith(("median_to_be_between", "to_be_unique")))]

    def run(which: list[Any], before: Before | None) -> Callable[[], object]:
        def act() -> None:
            tables = {"batch": batch if before else whole, "dataset": whole, "base": base}
            with sandbox(tables) as session:
                run_suite(
                    session, which, columns_of(schema), datetime.now(UTC), before=before, one_table=before is None
                )

        return act

    known = Before(states, appended=True, whole=True)
    print(f"an append of {APPENDED:,} rows to {ROWS:,}:")
    for what, which in (("all 20 checks (one rescans, one looks its keys up)", checks), ("the 18 that merge", merging)):
        again, on = best(run(which, None)), best(run(which, known))
        print(f"  {what}: {on:.3f} s going on, {again:.3f} s over all rows: {again / on:.1f} x")


def main() -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        file = folder / "flights.parquet"
        pq.write_table(table(ROWS), file)
        measured(file, failing=False)
        measured(file, failing=True)
        appended(folder, file)


if __name__ == "__main__":
    main()
