"""Tables: small appends, opening versions, reading into DuckDB; each beside its peer and its floor.

The peer's commits (`deltalake`) do not wait for the disk; ours, and the floor of appends, do.

`APPENDS=…`, `COMMITS=…` and `ROWS=…` set other sizes, `PARTS=appends,served,opening,growing,reading,deleting` which
are run.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import deltalake
import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.training_loop import serving
from modelyard.engines.tables.delta import DeltaTables
from modelyard.kernel.auth import Principal, Role, Scope
from modelyard.kernel.database import Database, metadata
from modelyard.planes.data import Data, file_profiles, file_states
from modelyard.sdk.client import Client
from modelyard.sdk.data import DatasetHandle
from modelyard.types.checks import Check, Finite, InSet, NotNull, Range, Regex, RowCount, Statistic, Unique

SCOPE = Scope("default", Principal("bench", {"*": Role.ADMIN}))
APPENDS = int(os.environ.get("APPENDS", "1000"))
COMMITS = int(os.environ.get("COMMITS", "2000"))
ROWS = int(os.environ.get("ROWS", "2000000"))
SUITE: list[Check] = [
    Unique(columns=["id"]),
    RowCount(of="dataset", min=1),
    InSet(column="carrier", values=[str(one) for one in range(16)]),
    Regex(column="carrier", pattern="^[0-9]+$"),
    Range(column="x0", min=0, max=1),
    Finite(column="x1"),
    NotNull(column="x2"),
    Statistic(column="x3", measure="mean", min=0.4, max=0.6, of="dataset"),
    Statistic(column="x4", measure="max", max=1, of="dataset"),
    Statistic(column="carrier", measure="distinct", max=16, of="dataset"),
]
BATCH = pa.table({"id": range(100), "x": np.random.default_rng(1).random(100), "s": ["text"] * 100})


def main() -> None:
    """Run all and print a line for each."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DISK")) as directory:
        for part in os.environ.get("PARTS", ",".join(PARTS)).split(","):
            PARTS[part](Path(directory) / part)


def opened(home: Path) -> Data:
    """An empty platform's data plane."""
    home.mkdir(parents=True)
    database = Database(f"sqlite:///{home}/catalog.db")
    metadata.create_all(database.engine)
    return Data(database, DeltaTables(home / "tables"), home / "spill")


def timed(work: Callable[[], object], repeat: int = 1) -> float:
    """The best of some runs, in seconds."""
    best = float("inf")
    for _ in range(repeat):
        begun = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - begun)
    return best


def say(what: str, ours: float, **others: float) -> None:
    """One line: our figure, and what it is as a multiple of each other one."""
    ratios = "  ".join(f"{name} {value * 1000:9.1f} ms (x{ours / value:.2f})" for name, value in others.items())
    print(f"{what:42} {ours * 1000:9.1f} ms   {ratios}")


def small_appends(home: Path) -> None:
    """Appends of 100 rows: buffered with their flush, beside Delta commits and beside fsynced files."""
    data = opened(home)
    data.create(SCOPE, "events")

    def buffered() -> None:
        for _ in range(APPENDS):
            data.buffers.append(SCOPE, "events", BATCH)
        data.buffers.flush(SCOPE, "events")

    def ours() -> None:
        for _ in range(APPENDS // 20):
            data.write(SCOPE, "events", BATCH)

    say(
        f"{APPENDS} buffered appends and their flush",
        timed(buffered),
        delta_commits=timed(lambda: delta_commits(home)) * 20,
        floor=timed(lambda: fsynced(home)),
    )
    say(
        f"{APPENDS // 20} published appends",
        timed(ours),
        delta_commits=timed(lambda: delta_commits(home)),
        delta_synced=timed(lambda: delta_commits(home, synced=True)),
    )
    assert data.get(SCOPE, "events").rows == (APPENDS + APPENDS // 20) * 100


def served_appends(home: Path) -> None:
    """The same buffered appends over HTTP, one after the other by one client, and by eight at once."""
    home.mkdir(parents=True)
    with serving(home / "home") as (url, token):
        handle = DatasetHandle("events", Client(url, token=token))
        handle.append_buffered(BATCH)

        def one_after_the_other() -> None:
            for _ in range(APPENDS):
                handle.append_buffered(BATCH)
            handle.flush()

        def eight_at_once() -> None:
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(lambda _: handle.append_buffered(BATCH), range(APPENDS)))
            handle.flush()

        floor = timed(lambda: fsynced(home))
        delta = timed(lambda: delta_commits(home)) * 20
        say(f"{APPENDS} buffered appends over HTTP", timed(one_after_the_other), delta_commits=delta, floor=floor)
        say(f"{APPENDS} of eight clients at once", timed(eight_at_once), delta_commits=delta, floor=floor)
        assert handle.get().rows == (2 * APPENDS + 1) * 100


def delta_commits(home: Path, *, synced: bool = False) -> None:
    """A twentieth of the appends as commits of `deltalake`; `synced`: durable when they return, as ours are."""
    for _ in range(APPENDS // 20):
        deltalake.write_deltalake(home / "peer", BATCH, mode="append")
        if synced:
            table = deltalake.DeltaTable(home / "peer")
            entry = home / "peer" / "_delta_log" / f"{table.version():020d}.json"
            newest = max((home / "peer").glob("*.parquet"), key=lambda file: file.stat().st_mtime_ns)
            for path in (newest, entry, home / "peer", entry.parent):
                sync(path)


def sync(path: Path) -> None:
    """Wait until the disk has a file, or the names in a directory."""
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def fsynced(home: Path) -> None:
    """The appends as records of one file, each on the disk before the next."""
    with (home / "floor").open("wb", buffering=0) as file:
        for _ in range(APPENDS):
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, BATCH.schema) as writer:
                writer.write_table(BATCH)
            file.write(sink.getvalue())
            os.fdatasync(file.fileno())


def opening(home: Path) -> None:
    """Opening a version of a table with many commits and with few, beside `deltalake`; and what a commit costs then."""
    data = opened(home)

    def grow(name: str, numbers: Iterable[int]) -> None:
        for number in numbers:
            data.write(SCOPE, name, pa.table({"id": [number]}), mode="overwrite" if number % 50 == 0 else "append")

    for name, count in (("few", 10), ("many", COMMITS)):
        data.create(SCOPE, name)
        grow(name, range(count))

    def cold(name: str, version: int) -> Callable[[], object]:
        def work() -> None:
            # Another plane object: nothing of what an earlier one read is kept.
            again = Data(data._database, data._tables, home / "spill")
            again.snapshot(SCOPE, name, version)
            again.versions(SCOPE, name, limit=50)

        return work

    def peer(name: str, version: int) -> Callable[[], object]:
        return lambda: deltalake.DeltaTable(home / "tables" / "default" / name, version=version).file_uris()

    for version in (9, COMMITS - 1):
        say(
            f"version {version} of {COMMITS}, opened and listed",
            timed(cold("many", version), 7),
            of_10_commits=timed(cold("few", 9), 7),
            deltalake=timed(peer("many", version - 1), 3),
        )
    many, few = (
        timed(lambda name=name: grow(name, range(11, 41))) / 30  # type: ignore[misc]
        for name in ("many", "few")
    )
    say(f"a commit after {COMMITS}", many, after_10=few)


def growing(home: Path) -> None:
    """A table of only appends, so that each version has a file more: what the last commits cost, and opening them."""
    data = opened(home)
    data.create(SCOPE, "grown", checks=[NotNull(column="id"), Range(column="id", min=0)])
    batch = pa.table({"id": [1]})
    turns = [timed(lambda: data.write(SCOPE, "grown", batch)) for _ in range(max(COMMITS, 100))]
    early, late = (statistics.median(some) for some in (turns[10:40], turns[-30:]))
    say(f"a commit with 2 checks onto {COMMITS} files", late, onto_25=early)

    def cold(version: int) -> None:
        Data(data._database, data._tables, home / "spill").snapshot(SCOPE, "grown", version)

    def peer() -> None:
        deltalake.DeltaTable(home / "tables" / "default" / "grown").file_uris()

    opened_10 = timed(lambda: cold(10), 7)
    say(f"version 10 of {COMMITS} appends, opened", opened_10)
    say(f"version {COMMITS} of as many files, opened", timed(lambda: cold(COMMITS), 5), deltalake=timed(peer, 3))


def reading(home: Path) -> None:
    """A filter and an aggregation in DuckDB over versions of all kinds, beside the same over their files by hand."""
    data = opened(home)
    for name, partition_by in (("plain", ()), ("compacted", ()), ("partitioned", ("carrier",))):
        data.create(SCOPE, name, partition_by=partition_by)
        for part in range(4 if name != "compacted" else 20):
            data.write(SCOPE, name, flights(part, ROWS // (4 if name != "compacted" else 20)))
    data.layout.compact(SCOPE, "compacted")
    data.branches.create(SCOPE, "plain", "try")
    data.write(SCOPE, "plain", flights(9, ROWS // 4), branch="try")
    for name, ref in (("plain", None), ("plain", "try"), ("plain", 2), ("compacted", None), ("partitioned", None)):
        compared(data, name, ref)
    pq.write_table(data.read(SCOPE, "plain"), home / "floor.parquet")
    say(
        "read all as Arrow",
        timed(lambda: data.read(SCOPE, "plain"), 3),
        pyarrow=timed(lambda: pq.read_table(home / "floor.parquet"), 3),
    )


def deleting(home: Path) -> None:
    """Deletes and merges that touch one file of a hundred, without checks and with ten: beside the same where the whole
    table is profiled again, or checked again, a delete by `deltalake`, and the one file rewritten by hand."""
    data = opened(home)
    rows = ROWS // 100
    data.create(SCOPE, "flights", key=["id"])
    data.create(SCOPE, "checked", key=["id"], checks=SUITE)
    for part in range(100):
        data.write(SCOPE, "checked", flights(part, rows))
        data.write(SCOPE, "flights", flights(part, rows))
    deltalake.write_deltalake(home / "peer", data.read(SCOPE, "flights"), target_file_size=rows * 60)
    touched = home / "touched.parquet"
    pq.write_table(flights(0, rows), touched)
    ids = iter(range(0, ROWS, rows + 1))

    def delete(name: str) -> None:
        assert data.delete_rows(SCOPE, name, f"id = {next(ids)}").rows == 1

    def merge(name: str) -> None:
        data.write(SCOPE, name, flights(0, rows).slice(next(ids) % rows, 10), mode="merge")

    def by_hand() -> None:
        found = duckdb.sql(f"SELECT * FROM '{touched}' WHERE id <> {next(ids)}").to_arrow_table()
        with (home / "rewritten.parquet").open("wb") as file:
            pq.write_table(found, file)
            file.flush()
            os.fsync(file.fileno())

    def peer() -> None:
        deltalake.DeltaTable(home / "peer").delete(f"id = {next(ids)}")

    others = {"floor": timed(by_hand, 3), "deltalake": timed(peer, 3)}
    for what, act in (("delete", delete), ("merge of 10 rows", merge)):
        for name, of, with_checks in (("flights", file_profiles, ""), ("checked", file_states, ", ten checks")):
            ours = timed(partial(act, name), 3)
            with setting(of, "FILES_MAX", 0):
                whole = timed(partial(act, name), 3)
            against = {"checked_whole" if with_checks else "profiled_whole": whole}
            say(f"{what} in one of 100 files, {ROWS:,} rows{with_checks}", ours, **against, **others)


@contextmanager
def setting(of: object, name: str, value: object) -> Iterator[None]:
    """Another value of a module's constant, for a while."""
    before = getattr(of, name)
    setattr(of, name, value)
    try:
        yield
    finally:
        setattr(of, name, before)


def flights(part: int, rows: int) -> pa.Table:
    """Rows with ids of their own."""
    random = np.random.default_rng(part)
    columns = {f"x{at}": random.random(rows) for at in range(6)}
    carriers = pa.array(random.integers(0, 16, rows)).cast(pa.string())
    return pa.table({"id": range(part * rows, (part + 1) * rows), "carrier": carriers, **columns})


def compared(data: Data, name: str, ref: int | str | None) -> None:
    """One version, asked in ways that look at one column, at four, and at few rows."""
    held = data.files(SCOPE, name, ref)
    queries = {
        "aggregated": "SELECT carrier, avg(x1), max(x2) FROM t WHERE x3 > 0.2 GROUP BY carrier",
        "one partition": "SELECT count(*), avg(x1) FROM t WHERE carrier = '7'",
        "by id": "SELECT * FROM t WHERE id = 12345",
    }
    for what, query in queries.items():

        def ours(query: str = query) -> object:
            return data.query(SCOPE, query.replace("FROM t", f"FROM {name}"), {name: ref})

        def by_hand(query: str = query) -> object:
            with duckdb.connect() as connection:
                connection.execute("SET threads = 2")
                connection.read_parquet(held.files).create_view("t")
                return connection.sql(query).to_arrow_table()

        ours()
        by_hand()
        both = in_turn(ours, by_hand, 7)
        say(f"{name}@{ref or 'main'}, {len(held.files)} files: {what}", both[0], duckdb_files=both[1])


def in_turn(one: Callable[[], object], other: Callable[[], object], repeat: int) -> tuple[float, float]:
    """The best of some runs of each, which take turns, so that what else the machine does meets both."""
    pairs = [(timed(one), timed(other)) for _ in range(repeat)]
    return min(first for first, _ in pairs), min(second for _, second in pairs)


PARTS: dict[str, Callable[[Path], None]] = {
    "appends": small_appends,
    "served": served_appends,
    "opening": opening,
    "growing": growing,
    "reading": reading,
    "deleting": deleting,
}

if __name__ == "__main__":
    main()
