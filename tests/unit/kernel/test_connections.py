"""Connections that stay lent: each transaction begins and ends by itself, whoever had the connection before."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
import sqlalchemy as sa

from modelyard.kernel.auth import Scope, principals
from modelyard.kernel.connections import KEPT_MAX
from modelyard.kernel.database import Database, Transaction
from modelyard.kernel.errors import Conflict, InvalidInput
from modelyard.kernel.prepared import Prepared

_ADD = Prepared(principals.insert().values({name: sa.bindparam(name) for name in ("name", "created_at", "revoked")}))


def add_by_driver(tx: Transaction, name: str) -> None:
    tx.run(_ADD, {"name": name, "created_at": tx.now, "revoked": False})


def add_by_sqlalchemy(tx: Transaction, name: str) -> None:
    tx.execute(principals.insert().values(name=name, created_at=tx.now, revoked=False))


ADD = [add_by_driver, add_by_sqlalchemy]


def names(database: Database) -> list[str]:
    with database.reading() as tx:
        return list(tx.execute(sa.select(principals.c.name).order_by(principals.c.name)).scalars())


@pytest.mark.parametrize("first", ADD)
@pytest.mark.parametrize("second", ADD)
def test_what_the_driver_and_sqlalchemy_do_is_one_transaction(
    database: Database, scope: Scope, first: object, second: object
) -> None:
    assert callable(first)
    assert callable(second)
    with database.transaction(scope) as tx:
        first(tx, "a")
        second(tx, "b")
        assert tx.scalar(sa.select(sa.func.count()).select_from(principals)) == 2
        # Of what is not committed nobody else sees anything.
        assert names(database) == []
    assert names(database) == ["a", "b"]
    for broken in (InvalidInput("no"), Conflict("no")):
        with pytest.raises(type(broken)), database.transaction(scope) as tx:
            first(tx, "c")
            second(tx, "d")
            raise broken
        assert names(database) == ["a", "b"]
    with pytest.raises(Conflict), database.transaction(scope) as tx:
        first(tx, "c")
        second(tx, "a")
    with database.transaction(scope) as tx:
        second(tx, "e")
    assert names(database) == ["a", "b", "e"]


def test_a_reader_sees_one_instant_and_the_next_reader_a_later_one(database: Database, scope: Scope) -> None:
    if database.engine.dialect.name != "sqlite":
        pytest.skip("on PostgreSQL each statement sees what was committed before it")
    with database.reading() as tx:
        assert tx.all(sa.select(principals)) == []
        with ThreadPoolExecutor(1) as pool:
            pool.submit(_write, database, scope).result(10)
        assert tx.all(sa.select(principals)) == []
    assert names(database) == ["a"]


def _write(database: Database, scope: Scope) -> None:
    with database.transaction(scope) as tx:
        add_by_driver(tx, "a")


def test_of_many_connections_some_stay_open(database: Database, scope: Scope) -> None:
    with ExitStack() as stack:
        for _ in range(KEPT_MAX + 5):
            stack.enter_context(database.reading()).all(sa.select(principals))
    assert len(database._connections._idle) == (KEPT_MAX if database.engine.dialect.name == "sqlite" else 0)
    _write(database, scope)
    assert names(database) == ["a"]
    database.close()
    assert names(database) == ["a"]
