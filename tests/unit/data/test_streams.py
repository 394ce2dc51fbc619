"""More rows than the process may hold: they stream in and out."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from modelyard.sdk.client import Client
from modelyard.sdk.data import DatasetHandle
from modelyard.types.checks import Monotonic, Quantiles, Range, Statistic, Unique

PROGRAM = """
import resource, sys
from pathlib import Path
import numpy as np, pyarrow as pa
from modelyard.engines.tables.delta import DeltaTables
from modelyard.engines.tables.sql import SqlLimits
from modelyard.kernel.auth import Principal, Role, Scope
from modelyard.kernel.database import Database, metadata
from modelyard.planes.data import Data
from modelyard.types.data import Range
home = Path(sys.argv[1])
scope = Scope("default", Principal("ada", {"*": Role.ADMIN}))
database = Database(f"sqlite:///{home}/catalog.db")
metadata.create_all(database.engine)
data = Data(database, DeltaTables(home / "tables"), home / "spill", SqlLimits(memory_bytes=192 * 2**20))
data.create(scope, "flights", checks=[Range(column="x", min=0)])
block = np.random.default_rng(1).random((8, 65_536))
def batches(count):
    for turn in range(count):
        columns = {f"c{at}": block[at] + turn for at in range(8)}
        yield pa.record_batch({"id": np.arange(turn * 65_536, (turn + 1) * 65_536), "x": block[0], **columns})
def reader(count):
    return pa.RecordBatchReader.from_batches(next(batches(1)).schema, batches(count))
def through(count):
    data.write(scope, "flights", reader(count))
    schema, rows = data.stream(scope, "flights")
    read = sum(batch.num_rows for batch in rows)
    data.delete_rows(scope, "flights", "id % 1000 = 7")
    return read
through(8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
read = through(80)
print(read, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_a_table_is_written_read_and_rewritten_in_bounded_memory(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, tmp_path], capture_output=True, text=True, check=True)
    read, grown_kib = (int(part) for part in done.stdout.split())
    assert read > 80 * 65_536
    assert grown_kib < 300 * 1024, "420 MB of rows went through"


SERVER = """
import sys
from modelyard.kernel import settings
from modelyard.server.run import Server
server = Server(settings.load({"home": sys.argv[1], "port": 0}))
server.run(lambda: print(server.url, server.token, flush=True))
"""
GIGABYTES = 2
CHECKS = [
    Range(column="x", min=0),
    # Ids that do not rise, so that all of them have to be grouped.
    Unique(columns=["id"]),
    Unique(columns=["id", "turn"]),
    Monotonic(column="turn"),
    Statistic(column="id", measure="distinct", min=1),
    Quantiles(column="x", quantiles=[0.5], ranges=[(0.0, 1.0)]),
]


def blocks() -> Iterator[pa.RecordBatch]:
    draw = np.random.default_rng(1)
    block, order = draw.random((8, 65_536)), draw.permutation(65_536)
    sent = turn = 0
    while sent < GIGABYTES * 10**9:
        columns = {f"c{at}": block[at] + turn for at in range(8)}
        ids = {"id": turn * 65_536 + order, "turn": np.full(65_536, turn)}
        batch = pa.record_batch({**ids, "x": block[0], **columns})
        yield batch
        sent += batch.nbytes
        turn += 1


def most_mib(process: int | str) -> float:
    """The most memory that a process ever held."""
    status = Path(f"/proc/{process}/status").read_text("utf-8")
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))


@pytest.mark.slow
def test_gigabytes_go_through_a_server_in_bounded_memory(tmp_path: Path) -> None:
    """Checks that group and sort all rows spill; neither the body nor the rows are ever held as a whole."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, tmp_path / "home"], stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            url, token = server.stdout.readline().split()
            flights = DatasetHandle("flights", Client(url, token=token))
            before = most_mib("self")
            written = flights.write(blocks(), checks=CHECKS)
            assert [one.status for one in written.report.results] == ["passed"] * (len(CHECKS) + 1)
            with flights.reader() as reader:
                assert sum(batch.num_rows for batch in reader) == written.rows
            assert most_mib(server.pid) < 1_600
            assert most_mib("self") - before < 200
        finally:
            server.terminate()
