# ruff: noqa: E501 - statements and schemas are written out
"""Checks over 1M rows of 15 columns, by both starts: the rows in memory, and in a Parquet file that everybody reads with
his own reader within the time.

Beside hand-written DuckDB that counts the same; Pandera on Polars, with the 15 checks that it has built in, with all 20
(the other five as checks of one's own, as its documentation writes them), and with the schema that figures before today
were of; and Great Expectations, BASIC where all pass and COMPLETE where four fail, with and without the ids of the rows
that fail (`unexpected_index_column_names`), by how many of the rows fail. Against the ids we take the check and all
failing rows' ids and values, fetched by `failing_rows`.

The peers and we run by turns, so that both bear the same load. Seconds are of the clock, quickest run of several; in brackets those of the processor, which say more on a busy machine.
We are given the very frame that the peer is given (Polars, pandas), and an Arrow table. The peers have their
environments (`make foreign`: `gx`, `data_peers`); `--alone` leaves them out. An append is checked too: 10,000 rows
after the million.
"""

from __future__ import annotations

import importlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

import modelyard
from modelyard.engines.tables.base import FileSet
from modelyard.engines.tables.sql import sandbox
from modelyard.planes.data.audit import columns_of
from modelyard.planes.data.checks import states_of
from modelyard.planes.data.checks.running import Before, run_suite
from modelyard.planes.data.suites import read_suite
from modelyard.sdk.checks_here import opened

ROOT = Path(__file__).parents[1]
ROWS = 1_000_000
APPENDED = 10_000
TIMES = 5

SHARES = (0.01, 0.1, 0.3)

# Each prints a line of JSON for every line that it is asked: seconds by the clock and of the processor, and how many
# checks fail.
TIMED = """
import sys, time, json
def timed(act):
    at, used = time.perf_counter(), time.process_time()
    failed = act()
    return (time.perf_counter() - at, time.process_time() - used), failed
"""
PEERS = {
    "gx": """
import pandas as pd, great_expectations as gx
from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
context = gx.get_context(mode="ephemeral")
context.variables.progress_bars = {"globally": False, "metric_calculations": False}
whole = context.data_sources.add_pandas("p").add_dataframe_asset("f").add_batch_definition_whole_dataframe("w")
frame = pd.read_parquet(sys.argv[1])
for number, line in enumerate(sys.stdin):
    asked = json.loads(line)
    suite = gx.ExpectationSuite(name=f"s{number}")
    for one in asked["expectations"]:
        suite.add_expectation(ExpectationConfiguration(type=one["type"], kwargs=one["kwargs"]).to_domain_obj())
    def run():
        held = pd.read_parquet(sys.argv[1]) if asked["read"] else frame
        found = whole.get_batch(batch_parameters={"dataframe": held}).validate(suite, result_format=asked["how"])
        return found.statistics["unsuccessful_expectations"]
    seconds, failed = timed(run)
    print(json.dumps([*seconds, failed]), flush=True)
""",
    "data_peers": """
import polars as pl, pandera.polars as pa
C, K = pa.Column, pa.Check
def own(number, low, high):
    return K(lambda data: data.lazyframe.select(number(pl.col(data.key)).is_between(low, high)))
def alike(all_of_them):
    def also(*checks): return list(checks) if all_of_them else []
    return pa.DataFrameSchema({
        "id": C(int, K.ge(0), unique=True), "at": C(), "carrier": C(str, K.isin(["AA", "UA", "DL", "B6"])),
        "origin": C(str, K.isin(["JFK", "EWR", "LGA"]), nullable=True),
        "flight": C(str, K.str_matches("^[A-Z][A-Z0-9][0-9]+$"), nullable=True),
        "dest": C(str, [K.str_length(3, 3), *also(own(lambda c: c.n_unique(), 1, 1000))], nullable=True),
        "hour": C(int, K.in_range(0, 23), nullable=True), "month": C(int, K.in_range(1, 12), nullable=True),
        "temp": C(float, K.in_range(-60, 60), nullable=True),
        "delay": C(float, [K.in_range(-100, 2000), *also(own(lambda c: c.mean(), -100, 2000))], nullable=True),
        "distance": C(float, [K.in_range(0, 10000), *also(own(lambda c: c.std(), 1, 10000), own(lambda c: c.median(), 1, 10000))]),
    }, checks=also(K(lambda data: data.lazyframe.select(pl.len() >= 1))))
before = pa.DataFrameSchema({
    "id": C(int, [K.ge(0)], nullable=False, unique=True), "carrier": C(str, [K.isin(["AA", "UA", "DL", "B6"]), K.str_length(2, 2)], nullable=False),
    "flight": C(str, [K.str_matches("^[A-Z][A-Z0-9][0-9]+$")], nullable=False), "distance": C(float, [K.in_range(0, 10000)], nullable=False),
    "delay": C(float, [K.in_range(-100, 2000)], nullable=True), "origin": C(str, [K.isin(["JFK", "EWR", "LGA"])], nullable=False),
    "dest": C(str, [K.str_length(3, 3)]), "hour": C(int, [K.in_range(0, 23)], nullable=False), "month": C(int, [K.in_range(1, 12)]),
    "at": C(nullable=False), "temp": C(float, [K.in_range(-60, 60)], nullable=True),
})
frame = pl.read_parquet(sys.argv[1])
schemas = {"15": alike(False), "20": alike(True), "before": before}
for line in sys.stdin:
    which, start = line.split()
    schema = schemas[which]
    def run():
        held = pl.read_parquet(sys.argv[1], columns=list(schema.columns)) if start == "file" else frame
        try: schema.validate(held, lazy=True)
        except pa.errors.SchemaErrors as error: return len(error.schema_errors)
        return 0
    seconds, failed = timed(run)
    print(json.dumps([*seconds, failed]), flush=True)
""",
}
OF_PANDERA = {
    "15": "the 15 that it has built in",
    "20": "all 20, five of one's own",
    "before": "its schema of before, ours 20",
}
ALTERNATIONS = 12
ALTERNATIONS_OF_GX = 3


def e(kind: str, **kwargs: Any) -> dict[str, Any]:
    return {"type": f"expect_{kind}", "kwargs": kwargs}


def expectations(share: float = 0.0) -> list[dict[str, Any]]:
    """Twenty expectations, of which four are not met by about this share of the rows."""
    return [
        e("table_row_count_to_be_between", min_value=1),
        e("column_values_to_not_be_null", column="id"),
        e("column_values_to_not_be_null", column="at"),
        e("column_values_to_not_be_null", column="carrier"),
        e("column_values_to_not_be_null", column="distance"),
        e("column_values_to_be_unique", column="id"),
        e("column_values_to_be_between", column="id", min_value=int(ROWS * share)),
        e("column_values_to_be_between", column="distance", min_value=0, max_value=10_000 * (1 - share)),
        e("column_values_to_be_between", column="delay", min_value=-100, max_value=2_000 - 2_100 * share),
        e("column_values_to_be_between", column="hour", min_value=0, max_value=23),
        e("column_values_to_be_between", column="month", min_value=1, max_value=12),
        e("column_values_to_be_between", column="temp", min_value=-60, max_value=50 - 80 * share),
        e("column_values_to_be_in_set", column="carrier", value_set=["AA", "UA", "DL", "B6"]),
        e("column_values_to_be_in_set", column="origin", value_set=["JFK", "EWR", "LGA"]),
        e("column_values_to_match_regex", column="flight", regex="^[A-Z][A-Z0-9][0-9]+$"),
        e("column_value_lengths_to_equal", column="dest", value=3),
        e("column_mean_to_be_between", column="delay", min_value=-100, max_value=2000),
        e("column_stdev_to_be_between", column="distance", min_value=1, max_value=10_000),
        e("column_median_to_be_between", column="distance", min_value=1, max_value=10_000),
        e("column_unique_value_count_to_be_between", column="dest", min_value=1, max_value=1_000),
    ]


def built_in() -> list[dict[str, Any]]:
    """Those of the twenty that Pandera has too."""
    lacking = ("row_count", "mean", "stdev", "median", "unique_value_count")
    return [one for one in expectations() if not any(word in one["type"] for word in lacking)]


def by_hand(source: str, share: float = 0.0) -> list[str]:
    """What somebody would write who wants these numbers of DuckDB, and the twenty rows of each failing check."""
    low, d, y, t = int(ROWS * share), 10_000 * (1 - share), 2_000 - 2_100 * share, 50 - 80 * share
    statements = [
        f"""SELECT count(*), count(id), count("at"), count(carrier), count(distance), count_if(id < {low}),
        count_if(distance < 0 OR distance > {d}), count_if(delay < -100 OR delay > {y}), count(delay),
        count_if(hour < 0 OR hour > 23), count(hour), count_if(month < 1 OR month > 12), count(month),
        count_if(temp < -60 OR temp > {t}), count(temp), count_if(carrier NOT IN ('AA','UA','DL','B6')),
        count_if(origin NOT IN ('JFK','EWR','LGA')), count(origin),
        count_if(NOT regexp_matches(flight, '^[A-Z][A-Z0-9][0-9]+$')), count(flight), count_if(length(dest) <> 3), count(dest),
        avg(delay), stddev_samp(distance) FROM {source}""",
        f"SELECT sum(n), sum(n) FILTER (n > 1) FROM (SELECT id, count(*) AS n FROM {source} GROUP BY id)",
        f"SELECT median(distance) FROM {source}",
        f"SELECT count(DISTINCT dest) FROM {source}",
    ]
    bad = [f"id < {low}", f"distance > {d}", f"delay > {y}", f"temp > {t}"] if share else []
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


@dataclass(frozen=True)
class Taken:
    """Seconds by the clock, and of the processor."""

    clock: float
    processor: float

    def __str__(self) -> str:
        return f"{self.clock:.3f} s ({self.processor:.3f})"

    def over(self, other: Taken) -> str:
        """How many times the other it is."""
        return f"{self.clock / other.clock:.2f} x ({self.processor / other.processor:.2f})"


def best(act: Callable[[], object], times: int = TIMES) -> Taken:
    """The quickest run, after one that warms up."""
    act()
    taken = []
    for _ in range(times):
        at, used = time.perf_counter(), time.process_time()
        act()
        taken.append((time.perf_counter() - at, time.process_time() - used))
    return Taken(min(one for one, _ in taken), min(one for _, one in taken))


@contextmanager
def peer(name: str, file: Path) -> Iterator[subprocess.Popen[str] | None]:
    """A peer that waits for what is asked of it; none where it is not set up."""
    python = ROOT / ".venvs" / name / "bin" / "python"
    if "--alone" in sys.argv or not python.exists():
        yield None
        return
    command = [str(python), "-c", TIMED + PEERS[name], str(file)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as running:
        yield running


def polars_frame(file: Path) -> Any:
    """The frame that Pandera's users have; None where the peers are not set up."""
    found = list((ROOT / ".venvs" / "data_peers" / "lib").glob("python*/site-packages"))
    if not found or "--alone" in sys.argv:
        return None
    sys.path.append(str(found[0]))
    return importlib.import_module("polars").read_parquet(file)


def floor(source: str, held: Any, share: float = 0.0) -> Callable[[], None]:
    """The hand-written statements in a DuckDB of their own, as ours has one."""

    def act() -> None:
        with duckdb.connect() as connection:
            connection.execute("SET threads = 2")
            if held is not None:
                connection.register("held", held)
            for statement in by_hand(source, share):
                connection.execute(statement).fetchall()

    return act


def ours(data: Any, suite: dict[str, Any], failing: int) -> Callable[[], None]:
    """A check by the public way, which must find as many failing ones."""

    def act() -> None:
        assert len(modelyard.check(data, suite).failed) == failing

    return act


def rows_too(data: Any, suite: dict[str, Any], failing: int) -> Callable[[], None]:
    """A check, and the ids and values of all rows that fail."""

    def act() -> None:
        held = opened(data)
        checks = modelyard.read_suite(suite).checks
        found = modelyard.check(held, checks)
        assert len(found.failed) == failing
        failed = [(check, one) for check, one in zip(checks, found.results, strict=True) if one.status == "failed"]
        columns = {"id": None} | {name: None for _, one in failed for name in one.columns}
        rows = modelyard.failing_rows(held, [check for check, _ in failed], columns=list(columns))
        assert [some.num_rows for some in rows] == [one.failing for _, one in failed]

    return act


def passing(file: Path, frame: Any) -> None:
    """All pass: both starts."""
    suite = {"name": "s", "expectations": expectations()}
    held, pandas = pq.read_table(file), pq.read_table(file).to_pandas()
    print(f"20 checks, {ROWS:,} x 15, all pass; seconds by the clock, and in brackets of the processor")
    bare = {"memory": best(floor("held", held)), "file": best(floor(f"read_parquet('{file}')", None))}
    mine = {"memory": best(ours(held, suite, 0)), "file": best(ours(file, suite, 0))}
    for start, one in mine.items():
        print(
            f"  {start:6} we {one}, hand-written DuckDB {bare[start]}; ours {one.over(bare[start])} of it (at most 1.5)"
        )
    against_pandera(file, frame)
    with peer("gx", file) as gx:
        for start, data in (("memory", pandas), ("file", file)):
            asked = {**suite, "how": "BASIC", "read": start == "file"}
            found = against_gx(gx, asked, ours(data, suite, 0), failing=0)
            print(f"  {start:6} GX BASIC {found} (at least 4)")


def against_pandera(file: Path, frame: Any) -> None:
    """The same checks on both sides, who run by turns: the load of the machine is the same for both."""
    with peer("data_peers", file) as pandera:
        if pandera is None or frame is None:
            return
        for which, what in OF_PANDERA.items():
            suite = {"name": "s", "expectations": built_in() if which == "15" else expectations()}
            assert len(suite["expectations"]) == (15 if which == "15" else 20)
            for start, data in (("memory", frame), ("file", file)):
                act = ours(data, suite, 0)
                turns = [_turn(pandera, f"{which} {start}", act, failing=0) for _ in range(ALTERNATIONS)][1:]
                print(f"  {start:6} Pandera on Polars, {what}: {_said(turns)} (at least 1)")


def against_gx(
    running: subprocess.Popen[str] | None, asked: dict[str, Any], act: Callable[[], object], *, failing: int
) -> str:
    """A suite on both sides, by turns."""
    if running is None:
        return "is not set up"
    return _said([_turn(running, json.dumps(asked), act, failing=failing) for _ in range(ALTERNATIONS_OF_GX)])


def _turn(
    running: subprocess.Popen[str], asked: str, act: Callable[[], object], *, failing: int
) -> tuple[Taken, Taken]:
    """What a peer takes once, and what we take right after it: the median of three, which together are still shorter."""
    assert running.stdin is not None
    assert running.stdout is not None
    print(asked, file=running.stdin, flush=True)
    clock, processor, failed = json.loads(running.stdout.readline())
    assert failed == failing
    taken = []
    for _ in range(3):
        at, used = time.perf_counter(), time.process_time()
        act()
        taken.append((time.perf_counter() - at, time.process_time() - used))
    return Taken(clock, processor), Taken(*sorted(taken)[1])


def _said(turns: Sequence[tuple[Taken, Taken]]) -> str:
    """The quickest of both sides, and the median of how many times the other the one is."""
    theirs, us = (
        Taken(min(one.clock for one in side), min(one.processor for one in side)) for side in zip(*turns, strict=True)
    )
    clock = statistics.median(one.clock / other.clock for one, other in turns)
    processor = statistics.median(one.processor / other.processor for one, other in turns)
    return f"{theirs}, we {us}: {clock:.2f} x of ours, the median of turns ({processor:.2f})"


def failing(file: Path) -> None:
    """Four checks fail and their rows are wanted: by the share of the rows that fail."""
    held, pandas = pq.read_table(file), pq.read_table(file).to_pandas()
    complete = {"result_format": "COMPLETE"}
    print("four of the 20 checks fail, in so many of the rows each, and the rows are wanted (40 x asked for):")
    with peer("gx", file) as gx:
        for share in SHARES:
            suite = {"name": "s", "expectations": expectations(share)}
            mine, bare = best(ours(held, suite, 4)), best(floor("held", held, share))
            print(f"  {share:4.0%}: of an Arrow table {mine}, {mine.over(bare)} of hand-written DuckDB")
            for what, how, act in (
                ("a sample of ours, GX's values", complete, ours(pandas, suite, 4)),
                (
                    "all ids and values",
                    complete | {"unexpected_index_column_names": ["id"]},
                    rows_too(pandas, suite, 4),
                ),
            ):
                found = against_gx(gx, {**suite, "how": how, "read": False}, act, failing=4)
                print(f"        {what}: GX COMPLETE {found}")


def appended(folder: Path, file: Path) -> None:
    """The same suite after an append, going on from the state of the rows before, beside looking at all rows again."""
    more = folder / "more.parquet"
    pq.write_table(table(APPENDED, ROWS), more)
    schema = pq.read_schema(file)
    checks = read_suite({"name": "s", "expectations": expectations()}).checks
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
        print(f"  {what}: {on} going on, {again} over all rows: {again.over(on)}")


def main() -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        file = folder / "flights.parquet"
        pq.write_table(table(ROWS), file)
        passing(file, polars_frame(file))
        failing(file)
        appended(folder, file)


if __name__ == "__main__":
    main()
