"""The tracking store under fire: 32 clients at once, the server killed, the compactor killed at each of its steps."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest
from sqlalchemy import func, select

from modelyard.engines.blobs.local import LocalBlobs
from modelyard.kernel.auth import Principal, Role, Scope
from modelyard.kernel.database import Database, metadata
from modelyard.planes.tracking import Tracking, store
from modelyard.types.tracking import CreateRun

pytestmark = pytest.mark.slow
SCOPE = Scope("default", Principal("ada", {"*": Role.ADMIN}))
CLIENTS, CALLS = 32, 30
DIED = 137
API = "/api/2.0/mlflow"
SERVER = """
import sys
from pathlib import Path
from modelyard.kernel import settings
from modelyard.server.run import Server
server = Server(settings.load({"home": Path(sys.argv[1]), "port": 0}, environ={}, directory=Path(sys.argv[1]).parent))
server.run(lambda: print(server.url, server.token, flush=True))
"""
COMPACTOR = """
import os, sys
from pathlib import Path
from modelyard.kernel.auth import system_scope
from modelyard.kernel.database import Database, Transaction
from modelyard.kernel.leases import take_lease
from modelyard.planes.tracking import Tracking, compaction, reconcile
from modelyard.engines.blobs.local import LocalBlobs

home, step = Path(sys.argv[1]), sys.argv[2]
database = Database(f"sqlite:///{home}/catalog.db")
PLACES = {
    "reading": (reconcile, "_parts"),
    "merging": (reconcile, "merge"),
    "writing": (reconcile.Compactor, "_write"),
    "swapping": (reconcile, "_swap"),
    "committing": (Transaction, "flush"),
}
(compactor,) = Tracking(database, LocalBlobs(home / "blobs")).reconcilers()
with database.transaction(system_scope("*")) as tx:
    lease = take_lease(tx.connection, "test", f"test-{os.getpid()}", tx.now, 1)
if step:
    when, _, place = step.partition(" ")
    owner, name = PLACES[place]
    original = getattr(owner, name)

    def dying(*args, **named):
        if when == "before":
            os._exit(137)
        found = original(*args, **named)
        os._exit(137)
        return found

    setattr(owner, name, dying)
while compactor.due(None):
    compactor.act("queue", lease)
"""
PLACES = ("reading", "merging", "writing", "swapping", "committing")


def serve(home: Path) -> tuple[subprocess.Popen[str], str, str]:
    process = subprocess.Popen([sys.executable, "-c", SERVER, str(home)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    url, token = process.stdout.readline().split()
    return process, url, token


def write(url: str, token: str, run_id: str, place: int, answered: list[int]) -> None:
    """Log as one client does, counting what was answered; until done, or the server is gone."""
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=120) as client:
        for at in range(CALLS):
            one = {"run_id": run_id, "key": f"single{place}", "value": at, "timestamp": at, "step": at}
            batch = [
                {"key": f"batch{place}", "value": step, "timestamp": step, "step": step}
                for step in range(at * 20, at * 20 + 20)
            ]
            try:
                client.post(f"{API}/runs/log-metric", json=one).raise_for_status()
                body = {"run_id": run_id, "metrics": batch, "tags": [{"key": f"t{place}.{at}", "value": "x"}]}
                client.post(f"{API}/runs/log-batch", json=body).raise_for_status()
            except httpx.TransportError:
                return
            answered[place] += 1


def lengths(url: str, token: str, run_id: str, key: str) -> int:
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=120) as client:
        reply = client.get(f"{API}/metrics/get-history", params={"run_id": run_id, "metric_key": key})
        return len(reply.raise_for_status().json().get("metrics", []))


def start_writing(url: str, token: str) -> tuple[str, list[int], list[threading.Thread]]:
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=120) as client:
        reply = client.post(f"{API}/runs/create", json={"experiment_id": "0"}).raise_for_status()
        run_id: str = reply.json()["run"]["info"]["run_id"]
    answered = [0] * CLIENTS
    threads = [threading.Thread(target=write, args=(url, token, run_id, place, answered)) for place in range(CLIENTS)]
    for thread in threads:
        thread.start()
    return run_id, answered, threads


def test_32_clients_writing_at_once_meet_no_error_and_lose_nothing(tmp_path: Path) -> None:
    process, url, token = serve(tmp_path / "home")
    try:
        run_id, answered, threads = start_writing(url, token)
        for thread in threads:
            thread.join()
        assert answered == [CALLS] * CLIENTS
        for place in range(CLIENTS):
            assert lengths(url, token, run_id, f"single{place}") == CALLS
            assert lengths(url, token, run_id, f"batch{place}") == CALLS * 20
    finally:
        process.terminate()
        process.wait(30)


def test_what_was_answered_survives_kill_9_under_load(tmp_path: Path) -> None:
    process, url, token = serve(tmp_path / "home")
    run_id, answered, threads = start_writing(url, token)
    while sum(answered) < CLIENTS * 3:
        threads[0].join(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    for thread in threads:
        thread.join()
    again, url, token = serve(tmp_path / "home")
    try:
        for place in range(CLIENTS):
            kept = lengths(url, token, run_id, f"batch{place}")
            # The call that was under way may have been committed or not, but whole.
            assert kept in (answered[place] * 20, answered[place] * 20 + 20)
            assert lengths(url, token, run_id, f"single{place}") in (answered[place], answered[place] + 1)
    finally:
        again.terminate()
        again.wait(30)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a run of many loose segments, in the compactor's queue."""
    database = Database(f"sqlite:///{tmp_path}/catalog.db")
    metadata.create_all(database.engine)
    tracking = Tracking(database, LocalBlobs(tmp_path / "blobs"))
    run_id = tracking.runs.create(SCOPE, CreateRun(name="one")).id
    for batch in range(20):
        long = [("long", float(at), at, at) for at in range(batch * 2_000, batch * 2_000 + 2_000)]
        tracking.runs.log(SCOPE, run_id, [*long, ("short", float(batch), batch, batch)])
    with database.transaction(SCOPE) as tx:
        tx.execute(store.inserting(tx, store.compactions).on_conflict_do_nothing(), [{"run": 1, "project": "default"}])
    database.close()
    return tmp_path


@pytest.mark.parametrize("step", [f"{when} {place}" for place in PLACES for when in ("before", "after")])
def test_a_compactor_killed_at_a_step_loses_and_doubles_nothing(home: Path, step: str) -> None:
    before = state(home)
    died = subprocess.run([sys.executable, "-c", COMPACTOR, str(home), step], env=dict(os.environ))
    assert died.returncode == DIED
    assert state(home)[:2] == before[:2]
    # Whoever comes next takes the lease over and ends the work.
    for _ in range(50):
        done = subprocess.run([sys.executable, "-c", COMPACTOR, str(home), ""], capture_output=True, text=True)
        if done.returncode == 0:
            break
    assert done.returncode == 0, done.stderr
    long, short, segments = state(home)
    assert (long, short) == before[:2]
    assert segments < before[2]


def state(home: Path) -> tuple[list[int], list[int], int]:
    """The steps of both series as they are read, and how many segments there are."""
    database = Database(f"sqlite:///{home}/catalog.db")
    tracking = Tracking(database, LocalBlobs(home / "blobs"))
    with database.reading(SCOPE) as tx:
        run_id = tx.scalar(select(store.runs.c.id))
        segments = tx.scalar(select(func.count()).select_from(store.metric_segments))
    long, short = (tracking.metrics.history(SCOPE, run_id, key).steps for key in ("long", "short"))
    database.close()
    return long, short, segments
