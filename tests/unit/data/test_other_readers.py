"""Other readers open what we write, by the log alone: Polars in an environment of its own."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pyarrow as pa
import pytest

from foreign_python import foreign_python
from modelyard.engines.tables.delta import DeltaTables
from modelyard.kernel.auth import Principal, Role, Scope
from modelyard.kernel.database import Database, metadata
from modelyard.planes.data import Data

SCOPE = Scope("default", Principal("ada", {"*": Role.ADMIN}))
PROGRAM = """
import json, sys
import polars as pl
found = pl.read_delta(sys.argv[1]).sort("id")
lazy = pl.scan_delta(sys.argv[1]).filter(pl.col("carrier") == "AA").select("id").collect()
print(json.dumps({"rows": found.to_dicts(), "filtered": sorted(lazy["id"].to_list())}))
"""


@pytest.mark.slow
def test_polars_reads_a_table_that_was_changed_in_every_way(tmp_path: Path) -> None:
    python = foreign_python("polars")
    database = Database(f"sqlite:///{tmp_path}/catalog.db")
    metadata.create_all(database.engine)
    data = Data(database, DeltaTables(tmp_path / "tables"), tmp_path / "spill")
    data.create(SCOPE, "flights", key=["id"], partition_by=["carrier"])
    data.write(SCOPE, "flights", pa.table({"id": range(6), "carrier": ["AA", "B6", None] * 2}))
    data.write(SCOPE, "flights", pa.table({"id": [1, 9], "carrier": ["AA", "AA"]}), mode="merge")
    data.delete_rows(SCOPE, "flights", "id = 0")
    data.branches.create(SCOPE, "flights", "try")
    data.write(SCOPE, "flights", pa.table({"id": [7], "carrier": ["UA"], "x": [1.5]}), evolve=True, branch="try")
    data.branches.merge(SCOPE, "flights", "try")
    data.layout.compact(SCOPE, "flights")
    done = subprocess.run(
        [python, "-c", PROGRAM, tmp_path / "tables" / "default" / "flights"], capture_output=True, text=True, check=True
    )
    seen = json.loads(done.stdout)
    assert seen["rows"] == sorted(data.read(SCOPE, "flights").to_pylist(), key=lambda row: row["id"])
    assert seen["filtered"] == [1, 3, 9]
    database.close()
