"""Connections to the catalog, lent begun and taken back committed.

SQLAlchemy's way to lend a connection, to begin, to commit and to take it back costs several times what SQLite needs for
a small transaction. So connections to SQLite stay lent, and the driver itself begins and commits: only who runs
statements through SQLAlchemy pays for it. PostgreSQL is far enough away for that not to show.
"""

from __future__ import annotations

import os
import sqlite3
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, event
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.exc import DBAPIError

BUSY_TIMEOUT_MS = 120_000
KEPT_MAX = 8
"""So many connections to SQLite stay open while nobody needs them; each has a cache of its own."""
_SQLITE_PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}",
    "PRAGMA foreign_keys=ON",
    "PRAGMA temp_store=MEMORY",
)


class Connections:
    """The connections of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._kept = engine.dialect.name == "sqlite"
        self._idle: deque[Connection] = deque()

    @contextmanager
    def begun(self, *, write: bool) -> Iterator[Connection]:
        """A connection in a transaction of its own: committed at the end of the block, rolled back when it raises.

        On SQLite one that writes has the write lock from its start on.
        """
        connection = self._borrow()
        try:
            if self._kept:
                _driver(connection).execute("BEGIN IMMEDIATE" if write else "BEGIN")
            else:
                connection.begin()
            yield connection
            self.commit(connection)
        except BaseException:
            self._roll_back(connection)
            raise
        self._give_back(connection)

    def commit(self, connection: Connection) -> None:
        """Make what was done true."""
        if self._kept and not connection.in_transaction():
            _driver(connection).commit()
        else:
            connection.commit()

    def close(self) -> None:
        """Give back all connections."""
        while self._idle:
            self._idle.pop().close()
        self._engine.dispose()

    def _borrow(self) -> Connection:
        try:
            return self._idle.pop()
        except IndexError:
            return self._engine.connect()

    def _give_back(self, connection: Connection) -> None:
        if self._kept and len(self._idle) < KEPT_MAX:
            self._idle.append(connection)
        else:
            connection.close()

    def _roll_back(self, connection: Connection) -> None:
        try:
            # Also one that an error ended already, which SQLAlchemy would hold against whoever borrows next.
            if connection.get_transaction() is not None:
                connection.rollback()
            elif self._kept:
                _driver(connection).rollback()
        except (sqlite3.Error, DBAPIError):
            # Lost with its server, or its file: nobody is to get it again.
            connection.invalidate()
            connection.close()
        else:
            self._give_back(connection)


def make_engine(url: str) -> Engine:
    """An engine for a catalog, on SQLite with a file that is private and made ready."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        if parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            _create_private(Path(parsed.database))
        engine = create_engine(
            parsed,
            connect_args={"check_same_thread": False, "timeout": BUSY_TIMEOUT_MS / 1000},
            pool_size=8,
            max_overflow=56,
        )
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    return create_engine(parsed, pool_pre_ping=True, pool_size=8, max_overflow=24)


def _driver(connection: Connection) -> Any:
    return connection.connection.dbapi_connection


def _create_private(file: Path) -> None:
    # Made here with its mode, since SQLite would make it by the umask, readable for others.
    os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # BEGIN comes from us, so the driver must not begin by itself.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in _SQLITE_PRAGMAS:
        cursor.execute(pragma)
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # SQLAlchemy begins by itself with its first statement; what `begun` lends has begun before.
    if not _driver(connection).in_transaction:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
