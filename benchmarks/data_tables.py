"""Tables: small appends, opening versions, reading into DuckDB; each beside its peer and its floor.

The peer's commits (`deltalake`) do not wait for the disk; ours, and the floor of appends, do.

`APPENDS=…`, `COMMITS=…` and `ROWS=…` set other sizes.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import deltalake
import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from modelyard.engines.tables.delta import DeltaTables
from modelyard.kernel.auth import Principal, Role, Scope
from modelyard.kernel.database import Database, metadata
from modelyard.planes.data import Data

SCOPE = Scope("default", Principal("bench", {"*": Role.ADMIN}))
APPENDS = int(os.environ.get("APPENDS", "1000"))
COMMITS = int(os.environ.get("COMMITS", "2000"))
ROWS = int(os.environ.get("ROWS", "2000000"))


def main() -> None:
    """Run all and print a line for each."""
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        small_appends(home / "small", APPENDS)
        opening(home / "opening", COMMITS)
        reading(home / "reading", ROWS)


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


def small_appends(home: Path, count: int) -> None:
    """Appends of 100 rows: buffered with their flush, beside Delta commits and beside fsynced files."""
    data = opened(home)
    data.create(SCOPE, "events")
    batch = pa.table({"id": range(100), "x": np.random.default_rng(1).random(100), "s": ["text"] * 100})

    def buffered() -> None:
        for _ in range(count):
            data.buffers.append(SCOPE, "events", batch)
        data.buffers.flush(SCOPE, "events")

    def ours() -> None:
        for _ in range(count // 20):
            data.write(SCOPE, "events", batch)

    def delta() -> None:
        for _ in range(count // 20):
            deltalake.write_deltalake(home / "peer", batch, mode="append")

    def floor() -> None:
        with (home / "floor").open("wb", buffering=0) as file:
            for _ in range(count):
                sink = pa.BufferOutputStream()
                with pa.ipc.new_stream(sink, batch.schema) as writer:
                    writer.write_table(batch)
                file.write(sink.getvalue())
                os.fdatasync(file.fileno())

    deltalake.write_deltalake(home / "peer", batch, mode="append")
    say(
        f"{count} buffered appends and their flush",
        timed(buffered),
        delta_commits=timed(delta) * 20,
        floor=timed(floor),
    )
    say(f"{count // 20} published appends", timed(ours), delta_commits=timed(delta))
    assert data.get(SCOPE, "events").rows == (count + count // 20) * 100


def opening(home: Path, commits: int) -> None:
    """Opening a version of a table with many commits and with few, beside `deltalake`."""
    data = opened(home)
    for name, count in (("few", 10), ("many", commits)):
        data.create(SCOPE, name)
        for number in range(count):
            data.write(SCOPE, name, pa.table({"id": [number]}), mode="overwrite" if number % 50 == 0 else "append")

    def cold(name: str, version: int) -> Callable[[], object]:
        def work() -> None:
            # Another plane object: nothing of what an earlier one read is kept.
            again = Data(data._database, data._tables, home / "spill")
            again.snapshot(SCOPE, name, version)
            again.versions(SCOPE, name, limit=50)

        return work

    def peer(name: str, version: int) -> Callable[[], object]:
        return lambda: deltalake.DeltaTable(home / "tables" / "default" / name, version=version).file_uris()

    for version in (9, commits - 1):
        say(
            f"version {version} of {commits}, opened and listed",
            timed(cold("many", version), 7),
            of_10_commits=timed(cold("few", 9), 7),
            deltalake=timed(peer("many", version - 1), 3),
        )


def reading(home: Path, rows: int) -> None:
    """A filter and an aggregation in DuckDB over a version, beside the same over its files by hand."""
    data = opened(home)
    random = np.random.default_rng(2)
    data.create(SCOPE, "flights")
    for part in range(4):
        share = rows // 4
        columns = {f"x{at}": random.random(share) for at in range(6)}
        carriers = pa.array(random.integers(0, 16, share)).cast(pa.string())
        data.write(
            SCOPE, "flights", pa.table({"id": range(part * share, (part + 1) * share), "carrier": carriers, **columns})
        )
    pq.write_table(data.read(SCOPE, "flights"), home / "floor.parquet")
    held = data.files(SCOPE, "flights")
    query = "SELECT carrier, avg(x1), max(x2) FROM t WHERE x3 > 0.2 GROUP BY carrier"

    def ours() -> None:
        data.query(SCOPE, query.replace("FROM t", "FROM flights"), {"flights": None})

    def by_hand() -> None:
        with duckdb.connect() as connection:
            connection.execute("SET threads = 2")
            connection.read_parquet(held.files).create_view("t")
            connection.sql(query).to_arrow_table()

    def through_arrow() -> None:
        with duckdb.connect() as connection:
            connection.execute("SET threads = 2")
            table = deltalake.DeltaTable(home / "tables" / "default" / "flights").to_pyarrow_dataset()
            connection.register("t", table)
            connection.sql(query).to_arrow_table()

    ours()
    by_hand()
    say(
        f"aggregation over {rows} rows",
        timed(ours, 5),
        duckdb_files=timed(by_hand, 5),
        arrow_dataset=timed(through_arrow, 5),
    )
    say(
        "read all as Arrow",
        timed(lambda: data.read(SCOPE, "flights"), 3),
        pyarrow=timed(lambda: pq.read_table(home / "floor.parquet"), 3),
    )


if __name__ == "__main__":
    main()
