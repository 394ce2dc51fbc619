"""More rows than the process may hold: they stream in and out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

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
