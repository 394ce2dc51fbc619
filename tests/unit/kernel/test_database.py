"""One commit for rows, events and edges; what collides says so; many processes at once lose nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from modelyard.kernel import events, lineage
from modelyard.kernel.auth import Scope, principals
from modelyard.kernel.database import Database, metadata
from modelyard.kernel.errors import Conflict


def names(database: Database) -> list[str]:
    with database.reading() as tx:
        return [row.name for row in tx.all(sa.select(principals.c.name).order_by(principals.c.name))]


def test_rows_events_and_edges_are_one_commit(database: Database, scope: Scope) -> None:
    with database.transaction(scope) as tx:
        tx.execute(principals.insert().values(name="bob", created_at=tx.now, revoked=False))
        tx.event("principal.granted", "principal:bob", {"role": "viewer"})
        tx.link("run:a", "used", "dataset:d@1")
    with database.reading(scope) as tx:
        (said,) = events.recent(tx)
        assert (said.kind, said.subject, said.actor, said.data) == (
            "principal.granted", "principal:bob", "ada", {"role": "viewer"},
        )  # fmt: skip
        assert [(e.subject, e.relation, e.object) for e in lineage.walk(tx, "run:a").edges] == [
            ("run:a", "used", "dataset:d@1")
        ]
    assert names(database) == ["bob"]


def test_what_fails_leaves_nothing(database: Database, scope: Scope) -> None:
    with pytest.raises(ZeroDivisionError), database.transaction(scope) as tx:
        tx.execute(principals.insert().values(name="bob", created_at=tx.now, revoked=False))
        tx.event("principal.granted", "principal:bob")
        tx.link("run:a", "used", "dataset:d@1")
        _ = 1 / 0
    with database.reading(scope) as tx:
        assert events.recent(tx) == []
        assert lineage.walk(tx, "run:a").edges == []
    assert names(database) == []


def test_broken_uniqueness_is_a_conflict(database: Database, scope: Scope) -> None:
    with pytest.raises(Conflict, match="rule of the catalog"), database.transaction(scope) as tx:
        for _ in range(2):
            tx.execute(principals.insert().values(name="bob", created_at=tx.now, revoked=False))


def test_guarded_update_needs_the_state_it_assumes(database: Database, scope: Scope) -> None:
    with database.transaction(scope) as tx:
        tx.execute(principals.insert().values(name="bob", created_at=tx.now, revoked=False))
    statement = principals.update().where(principals.c.name == "bob", principals.c.revoked.is_(False))
    with database.transaction(scope) as tx:
        tx.update_guarded(statement.values(revoked=True), what="bob")
    with pytest.raises(Conflict) as caught, database.transaction(scope) as tx:
        tx.update_guarded(statement.values(revoked=True), what="bob")
    assert caught.value.code == "stale"


def test_one_of_many_values_is_found_as_if_each_stood_there(database: Database, scope: Scope) -> None:
    people = ["ann", "bob", "o'neil", "x" * 255, "ü", "{a,b}", "NULL", ""]
    with database.transaction(scope) as tx:
        tx.execute(principals.insert(), [{"name": one, "created_at": tx.now, "revoked": False} for one in people])

    def found(*values: str) -> list[str]:
        with database.reading(scope) as tx:
            rows = tx.all(sa.select(principals.c.name).where(tx.among(principals.c.name, values)))
        return sorted(row.name for row in rows)

    assert found(*people, "nobody") == sorted(people)
    for one in people:
        assert found(one) == [one]
    assert found() == found("x" * 256) == found("x" * 300) == found("a", "b") == []
    with database.reading(scope) as tx:
        number = sa.literal(7, sa.BigInteger)
        assert tx.scalar(sa.select(tx.among(number, {2, 7, 2**40})))
        assert not tx.scalar(sa.select(tx.among(number, {2, 2**40})))


def test_a_second_transaction_in_the_same_thread_is_a_bug_said_at_once(database: Database, scope: Scope) -> None:
    with database.transaction(scope), pytest.raises(RuntimeError, match="open in this thread"):
        with database.transaction(scope):
            pass


WRITER = """
import sys
from modelyard.kernel.auth import principals, system_scope
from modelyard.kernel.database import Database
database = Database(sys.argv[1])
for i in range(int(sys.argv[3])):
    with database.transaction(system_scope("default")) as tx:
        tx.execute(principals.insert().values(name=f"{sys.argv[2]}-{i}", created_at=tx.now, revoked=False))
        tx.event("principal.granted", f"principal:{sys.argv[2]}-{i}")
"""


@pytest.mark.slow
def test_32_processes_writing_at_once_meet_no_lock_error_and_lose_nothing(tmp_path: Path, scope: Scope) -> None:
    url = f"sqlite:///{tmp_path / 'catalog.db'}"
    database = Database(url)
    metadata.create_all(database.engine)
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, url, str(n), "12"], stderr=subprocess.PIPE, text=True)
        for n in range(32)
    ]
    for writer in writers:
        _, errors = writer.communicate(timeout=240)
        assert writer.returncode == 0, errors
    assert sorted(names(database)) == sorted(f"{n}-{i}" for n in range(32) for i in range(12))
    with database.transaction(scope) as tx:
        while events.seal(tx):
            pass
        verdict = events.verify(tx)
    assert verdict.ok
    assert verdict.events == 32 * 12
