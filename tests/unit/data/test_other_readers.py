"""Other readers open what we write, by the log alone: Polars in an environment of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
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


FRAMES = """
import json, sys
sys.path.append(sys.argv[1])
import polars as pl
import modelyard
frame = pl.DataFrame({"id": [1, 2, 3], "carrier": ["AA", None, "B6"], "delay": [1.5, float("nan"), None],
                      "at": pl.Series([0, 1, 2], dtype=pl.Int64).cast(pl.Datetime("ns"))})
flights = modelyard.dataset("flights")
flights.write(frame)
back = flights.to_polars()
report = modelyard.check(frame, "checks.yaml")
print(json.dumps({
    "schema": {name: str(kind) for name, kind in back.schema.items()},
    "rows": back.select("id", "carrier").to_dicts(),
    "nan": [None if value is None else str(value) for value in back["delay"].to_list()],
    "some": flights.to_polars(["id"], "id > 1", 1).to_dicts(),
    "none": flights.to_polars(["id", "carrier"], "id > 100").shape,
    "failing": [one.failing for one in report.results],
}))
"""


@pytest.mark.slow
def test_polars_frames_go_in_and_come_out_and_are_checked(tmp_path: Path) -> None:
    """Our SDK in our own interpreter, with the Polars of the other environment beside it."""
    [packages] = foreign_python("polars").parents[1].glob("lib/python*/site-packages")
    checks = "- {check: not_null, column: carrier}\n- {check: range, column: at, max: '1970-01-02'}\n"
    (tmp_path / "checks.yaml").write_text(checks)
    environ = {key: value for key, value in os.environ.items() if not key.startswith("MODELYARD_")}
    done = subprocess.run(
        [sys.executable, "-c", FRAMES, packages],
        capture_output=True, text=True, check=False, cwd=tmp_path, timeout=300,
        env={**environ, "MODELYARD_HOME": str(tmp_path / "home")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["schema"] == {
        "id": "Int64",
        "carrier": "String",
        "delay": "Float64",
        "at": "Datetime(time_unit='us', time_zone='UTC')",
    }
    assert seen["rows"] == [{"id": 1, "carrier": "AA"}, {"id": 2, "carrier": None}, {"id": 3, "carrier": "B6"}]
    assert seen["nan"] == ["1.5", "nan", None]
    assert seen["some"] == [{"id": 2}, {"id": 3}]
    assert seen["none"] == [0, 2]
    assert seen["failing"] == [1, 0]
