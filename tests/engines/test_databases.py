"""Sandboxes over rows in memory share databases one after the other, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modelyard.engines.tables import databases
from modelyard.engines.tables.foreign import foreign_rows
from modelyard.engines.tables.sql import sandbox
from modelyard.kernel.errors import InvalidInput

SECRET = pa.table({"a": [1], "at": pa.array([0], pa.timestamp("us"))})
# Everything by which one statement could leave something for the next.
LEFT = (
    "SELECT view_name AS name FROM duckdb_views() WHERE NOT internal",
    "SELECT table_name AS name FROM duckdb_tables()",
    "SELECT name FROM duckdb_variables()",
    "SELECT * FROM duckdb_logs()",
)


@pytest.fixture(autouse=True)
def _none_kept() -> None:
    databases._close()


def test_the_next_sandbox_has_the_database_of_the_last_and_nothing_of_its_tables() -> None:
    with sandbox({"secret": foreign_rows(SECRET), "other": SECRET}) as session:
        assert session.rows("SELECT a FROM secret JOIN other USING (a)") == [{"a": 1}]
        first = session._opened.connection.execute("SELECT 1").fetchall()
    [(_, kept)] = databases._kept
    with sandbox({"t": pa.table({"b": [2]})}) as session:
        assert databases._kept == []
        for name in ("secret", "other", '"secret as it is"'):
            with pytest.raises(InvalidInput, match="does not exist"):
                session.rows(f"SELECT * FROM {name}")
        assert [session.rows(one) for one in LEFT[1:]] == [[], [], []]
        assert {row["name"] for row in session.rows(LEFT[0])} <= {"t"}
        assert session.rows("SELECT * FROM t") == [{"b": 2}]
    assert first == [(1,)]
    assert [one for _, one in databases._kept] == [kept]


def test_sandboxes_at_one_time_have_databases_of_their_own() -> None:
    with sandbox({"t": foreign_rows(SECRET)}) as one, sandbox({"t": pa.table({"a": [2]})}) as other:
        assert one.rows("SELECT a FROM t") == [{"a": 1}]
        assert other.rows("SELECT a FROM t") == [{"a": 2}]
        assert {row["name"] for row in other.rows(LEFT[0])} <= {"t"}
    assert len(databases._kept) == 2


def test_what_ends_by_an_error_or_can_read_files_is_not_kept(tmp_path: Path) -> None:
    pq.write_table(SECRET, tmp_path / "t.parquet")
    with sandbox({"t": foreign_rows(tmp_path / "t.parquet")}) as session:
        session.rows("SELECT a FROM t")
    with sandbox({"t": SECRET}, spill=tmp_path) as session:
        session.rows("SELECT a FROM t")
    with pytest.raises(InvalidInput), sandbox({"t": SECRET}) as session:
        session.rows("SELECT nothing FROM t")
    assert databases._kept == []


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM enable_logging()",
        "SELECT * FROM enable_profiling()",
        "SELECT * FROM disable_logging()",
        "SELECT * FROM read_text('/etc/passwd')",
        "SET threads = 1",
        "CREATE TABLE x AS SELECT 1",
        "ATTACH ':memory:' AS other",
    ],
)
def test_no_statement_changes_the_database_for_those_who_come_after(statement: str) -> None:
    with sandbox({"t": SECRET}) as session, pytest.raises(InvalidInput):
        session.rows(statement)


def test_rows_that_are_written_to_no_log_are_found_in_none() -> None:
    with sandbox({"t": SECRET}) as session:
        session.rows("SELECT write_log('secret ' || a) FROM t")
        session.rows("SELECT setseed(0.5) FROM t")
    with sandbox({"t": SECRET}) as session:
        assert session.rows("SELECT * FROM duckdb_logs()") == []


def test_a_forked_process_ends_well_and_opens_its_own() -> None:
    forked = """
import os, pyarrow as pa
from modelyard.engines.tables.sql import sandbox
def use():
    with sandbox({"t": pa.table({"a": [1]})}) as session:
        return session.rows("SELECT sum(range) AS n FROM range(100000)")
use()
child = os.fork()
if not child:
    use()
    raise SystemExit(3)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    ran = subprocess.run([sys.executable, "-c", forked], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.split() == ["3"], ran.stderr
