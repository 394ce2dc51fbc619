"""Work that many callers bring at once shares commits: each answered after its own, none hurt by another's fault."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from modelyard.kernel import events
from modelyard.kernel.auth import Scope, principals
from modelyard.kernel.clock import FixedClock
from modelyard.kernel.database import Database, Transaction
from modelyard.kernel.errors import Conflict, InvalidInput, Unavailable
from modelyard.kernel.prepared import Prepared

_ADD = Prepared(principals.insert().values({name: sa.bindparam(name) for name in ("name", "created_at", "revoked")}))
_ALL = Prepared(sa.select(principals.c.name, principals.c.revoked).order_by(principals.c.name))


def names(database: Database) -> list[str]:
    with database.reading() as tx:
        return [row.name for row in tx.all(sa.select(principals.c.name).order_by(principals.c.name))]


def add(tx: Transaction, name: str) -> str:
    tx.run(_ADD, {"name": name, "created_at": tx.now, "revoked": False})
    tx.event("principal.granted", f"principal:{name}")
    return name


def test_what_it_returns_is_committed_with_its_events(database: Database, scope: Scope) -> None:
    assert database.together(scope, lambda tx: add(tx, "bob")) == "bob"
    assert names(database) == ["bob"]
    with database.reading(scope) as tx:
        assert [one.subject for one in events.recent(tx)] == ["principal:bob"]


def test_what_fails_leaves_nothing_and_hurts_nobody(
    database: Database, scope: Scope, clock: FixedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits, commit = 0, database._connections.commit

    def count(connection: sa.Connection) -> None:
        nonlocal commits
        commits += 1
        commit(connection)

    def work(at: int) -> str:
        def one(tx: Transaction) -> str:
            add(tx, f"p{at:02}")
            if at % 4 == 1:
                raise InvalidInput("no")
            if at % 4 == 2:
                add(tx, f"p{at:02}")
            return f"p{at:02}"

        try:
            return database.together(scope, one)
        except (InvalidInput, Conflict) as error:
            return type(error).__name__

    # Who holds the write lock lets all of them come to wait for it.
    go, held = threading.Event(), threading.Event()

    def hold(tx: Transaction) -> None:
        held.set()
        go.wait(10)
        add(tx, "first")

    monkeypatch.setattr(database._connections, "commit", count)
    with ThreadPoolExecutor(25) as pool:
        first = pool.submit(database.together, scope, hold)
        held.wait(10)
        outcomes = [pool.submit(work, at) for at in range(24)]
        if database.engine.dialect.name == "sqlite":
            while len(database._pieces) < 24:
                pass
        go.set()
        first.result(10)
        found = [one.result(10) for one in outcomes]
    if database.engine.dialect.name == "sqlite":
        assert commits == 2
    assert found == [
        "InvalidInput" if at % 4 == 1 else "Conflict" if at % 4 == 2 else f"p{at:02}" for at in range(24)
    ]  # fmt: skip
    assert names(database) == ["first", *(name for name in found if name.startswith("p"))]
    with database.reading(scope) as tx:
        assert len(events.recent(tx)) == 13


def test_a_commit_that_fails_is_told_to_each_that_shared_it(
    database: Database, scope: Scope, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(_connection: sa.Connection) -> None:
        raise Unavailable("the disk of the catalog is full")

    monkeypatch.setattr(database._connections, "commit", spoil)
    with ThreadPoolExecutor(8) as pool:
        outcomes = [pool.submit(database.together, scope, lambda tx, at=at: add(tx, f"p{at}")) for at in range(8)]
        for one in outcomes:
            with pytest.raises(Unavailable):
                one.result(10)
    monkeypatch.undo()
    assert names(database) == []
    assert database.together(scope, lambda tx: add(tx, "bob")) == "bob"


def test_a_second_transaction_in_the_same_thread_is_a_mistake(database: Database, scope: Scope) -> None:
    with database.transaction(scope), pytest.raises(RuntimeError, match="pass it on"):
        database.together(scope, lambda tx: add(tx, "bob"))


def test_a_prepared_statement_translates_what_goes_in_and_refuses_what_would_come_out(
    database: Database, scope: Scope
) -> None:
    with database.transaction(scope) as tx:
        tx.run_many(_ADD, [{"name": name, "created_at": tx.now, "revoked": name == "b"} for name in "ab"])
    with database.reading(scope) as tx:
        assert [(name, bool(revoked)) for name, revoked in tx.run(_ALL, {})] == [("a", False), ("b", True)]
        assert tx.scalar(sa.select(principals.c.created_at).limit(1)) == tx.now
        with pytest.raises(TypeError, match="translated"):
            tx.run(Prepared(sa.select(principals.c.created_at)), {})
    with pytest.raises(Conflict, match="rule of the catalog"), database.transaction(scope) as tx:
        tx.run(_ADD, {"name": "a", "created_at": tx.now, "revoked": False})
