"""The SDK's outbox: what was flushed outlives an absent server and a program's death, and reaches the server later."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from modelyard.sdk.outbox import send_leftovers
from modelyard.sdk.spool import Spool
from modelyard.types.tracking import CreateRun, LogBatch, Point, Run
from running import client_of, running_server


def _batch(step: int) -> LogBatch:
    return LogBatch(metrics=[Point("m", float(step), step, step)], params={f"p{step}": "v"})


def _closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_spool_gives_back_its_batches_in_order_and_goes_when_it_is_empty(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s" / "run.spool")
    spool.put([_batch(1), _batch(2)])
    spool.put([_batch(3)])
    assert spool.path.stat().st_mode & 0o777 == 0o600
    assert [batch.metrics[0].step for batch in spool.batches()] == [1, 2, 3]
    assert not spool.waiting
    assert not spool.path.exists()


def test_a_spool_is_read_up_to_where_its_program_died(tmp_path: Path) -> None:
    path = tmp_path / "run.spool"
    dead = Spool(path)
    dead.put([_batch(1), _batch(2)])
    # What a killed process leaves: its lock is gone with it, its last write may be torn.
    assert dead._file is not None
    dead._file.close()
    path.write_bytes(path.read_bytes()[:-5])
    left = Spool(path)
    assert left.adopt()
    assert [batch.metrics[0].step for batch in left.batches()] == [1]


def test_a_spool_of_a_living_program_is_left_alone(tmp_path: Path) -> None:
    living = Spool(tmp_path / "run.spool")
    living.put([_batch(1)])
    assert not Spool(living.path).adopt()
    assert living.waiting


DYING = """
import os, sys
from pathlib import Path
from modelyard.sdk.client import Client
from modelyard.sdk.outbox import Outbox, Row

outbox = Outbox(Client(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
for step in range(50):
    outbox.add_row(Row(("m",), step, step, [float(step)]))
    outbox.add({"lr": "0.1"})
outbox.flush(timeout_s=20)
os._exit(9)
"""


@pytest.mark.slow
def test_what_a_program_flushed_while_the_server_was_away_outlives_its_death(tmp_path: Path) -> None:
    with running_server(tmp_path / "home") as server:
        client = client_of(server)
        run = client.post("/api/runs", CreateRun(), Run)
        away, spool = f"http://127.0.0.1:{_closed_port()}", tmp_path / "spool"
        died = subprocess.run([sys.executable, "-c", DYING, away, run.id, str(spool)], timeout=60, check=False)
        assert died.returncode == 9
        assert [kept.stem for kept in spool.glob("*.spool")] == [run.id]
        assert send_leftovers(client, spool) == 1
        assert client.get(f"/api/runs/{run.id}/metrics/m")["steps"] == list(range(50))
        assert client.get(f"/api/runs/{run.id}", Run).params == {"lr": "0.1"}
        assert list(spool.glob("*.spool")) == []
