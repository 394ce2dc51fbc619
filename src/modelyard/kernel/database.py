"""The catalog: one relational schema on SQLite (WAL) or PostgreSQL, written by transactions.

A `Transaction` collects rows, events and lineage edges and commits once. No network or file I/O happens inside one.
On SQLite a writing transaction takes the write lock at its start (BEGIN IMMEDIATE) and waits for it in a queue, so that
it can never fail half-way with "database is locked".
"""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import datetime
from typing import Any, Generic, TypeVar

import sqlalchemy as sa
from sqlalchemy import ARRAY, ColumnElement, Connection, CursorResult, Executable, Row
from sqlalchemy.exc import DataError, IntegrityError, OperationalError

from modelyard.kernel import events, lineage
from modelyard.kernel.auth import Scope, system_scope
from modelyard.kernel.clock import Clock, SystemClock
from modelyard.kernel.connections import Connections, make_engine
from modelyard.kernel.errors import Conflict, InvalidInput, ModelyardError, Unavailable
from modelyard.kernel.leases import Lease, check_lease
from modelyard.kernel.prepared import Prepared
from modelyard.kernel.schema import Instant, Json, metadata, on_conflict_do_nothing

__all__ = ["Database", "Instant", "Json", "Transaction", "metadata"]

T = TypeVar("T")
STREAMED_ROWS = 5_000


class Transaction:
    """One unit of work: what is executed, said (`event`) and tied (`link`) becomes true together, or not at all."""

    def __init__(self, connection: Connection, scope: Scope, now: datetime) -> None:
        self.connection = connection
        self.scope = scope
        self.now = now
        self._said: list[events.NewEvent] = []
        self._edges: list[lineage.Edge] = []

    @property
    def project(self) -> str:
        """The project that every query here filters on."""
        return self.scope.project

    @property
    def actor(self) -> str:
        """Who does it, as events record it."""
        return self.scope.actor

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`, for the few statements that differ."""
        return self.connection.dialect.name

    def execute(
        self, statement: Executable, parameters: Sequence[Mapping[str, Any]] | Mapping[str, Any] | None = None
    ) -> CursorResult[Any]:
        """Run a statement. A broken uniqueness rule raises Conflict, a value that no column holds InvalidInput."""
        try:
            return self.connection.execute(statement, parameters)
        except IntegrityError as error:
            raise _broken_rule(error.orig) from error
        except _UNFIT as error:
            raise _unfit() from error

    def run(self, prepared: Prepared, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Run a prepared statement. Returns its rows as the driver has them. A broken rule raises Conflict."""
        text, bind = prepared.of(self.connection.dialect)
        cursor: Any = self.connection.connection.cursor()
        try:
            cursor.execute(text, bind(parameters))
            return cursor.fetchall() if cursor.description is not None else []
        except self._driver_errors() as error:
            raise self._told(error) from error
        finally:
            cursor.close()

    def run_many(self, prepared: Prepared, rows: Iterable[Mapping[str, Any]]) -> None:
        """Run a prepared statement once a row. A broken rule raises Conflict."""
        text, bind = prepared.of(self.connection.dialect)
        cursor: Any = self.connection.connection.cursor()
        try:
            cursor.executemany(text, [bind(row) for row in rows])
        except self._driver_errors() as error:
            raise self._told(error) from error
        finally:
            cursor.close()

    def _driver_errors(self) -> tuple[type[Exception], ...]:
        driver: Any = self.connection.dialect.loaded_dbapi
        return driver.IntegrityError, driver.DataError, driver.OperationalError, UnicodeEncodeError, OverflowError

    def _told(self, error: Exception) -> ModelyardError:
        """What the driver itself raised, told as SQLAlchemy's errors are elsewhere."""
        driver: Any = self.connection.dialect.loaded_dbapi
        if isinstance(error, driver.IntegrityError):
            return _broken_rule(error)
        return _unavailable(error) if isinstance(error, driver.OperationalError) else _unfit()

    def one(self, statement: Executable) -> Row[Any] | None:
        """The first row, or None."""
        return self.execute(statement).first()

    def all(self, statement: Executable) -> Sequence[Row[Any]]:
        """All rows."""
        return self.execute(statement).all()

    def stream(self, statement: Executable) -> Iterator[Row[Any]]:
        """All rows, some thousands at a time: for more than memory should hold. To be read to the end within the
        transaction."""
        yield from self.connection.execute(statement, execution_options={"yield_per": STREAMED_ROWS})

    def scalar(self, statement: Executable) -> Any:
        """The first column of the first row, or None."""
        return self.execute(statement).scalar()

    def among(self, column: ColumnElement[Any], values: Collection[Any]) -> ColumnElement[bool]:
        """That a column of numbers or texts is one of some values, which may be many.

        On PostgreSQL they are one parameter, so that the statement is one however many there are: written out one by
        one, each length is a text of its own to be put together, read and planned.
        """
        if self.dialect != "postgresql":
            return column.in_(values)
        kind = sa.BigInteger() if isinstance(column.type, sa.Integer) else sa.Text()
        return column == sa.any_(sa.bindparam(None, list(values), type_=ARRAY(kind)))

    def update_guarded(self, statement: Executable, what: str) -> None:
        """Run an update whose WHERE names the state that is assumed. Raises Conflict (`stale`) unless one row did."""
        if self.execute(statement).rowcount != 1:
            raise Conflict(
                f"{what} changed in the meantime, or is not in the state that this needs",
                code="stale",
                hint="read it again and repeat",
            )

    def event(self, kind: str, subject: str, data: Mapping[str, Any] | None = None, project: str | None = None) -> None:
        """Say that a state changed: `kind` is `noun.participle`, `subject` a URN. Written with the commit."""
        self._said.append(
            events.NewEvent(kind, subject, dict(data or {}), self.project if project is None else project)
        )

    def link(self, subject: str, relation: str, object_: str) -> None:
        """Tie two URNs by a relation of `lineage.RELATIONS`. Written with the commit; a tie that exists stays."""
        self._edges.append(lineage.Edge(subject, relation, object_))

    def flush(self) -> bool:
        """Write the collected events and edges into the open transaction. Returns whether there was an event."""
        said, self._said = self._said, []
        edges, self._edges = self._edges, []
        if said:
            events.insert(self, said)
        if edges:
            lineage.insert(self.connection, edges, project=self.project, at=self.now)
        return bool(said)


class _Piece(Generic[T]):
    """Work of one caller that waits for its turn in a shared commit."""

    def __init__(self, scope: Scope, work: Callable[[Transaction], T]) -> None:
        self.scope = scope
        self.work = work
        self.done = threading.Lock()
        """Held until the work is done: a bare lock, since an Event costs as much as a small statement."""
        self.done.acquire()
        self.leads = False
        self.result: T | None = None
        self.error: BaseException | None = None


class Database:
    """The catalog's engine. One per process and URL; safe to share between threads."""

    def __init__(self, url: str, clock: Clock | None = None) -> None:
        self.clock: Clock = clock or SystemClock()
        self.url = url
        self.engine = make_engine(url)
        self._connections = Connections(self.engine)
        # Waiting here costs nothing and is fair; waiting in SQLite's busy handler is a lottery with sleeps.
        self._write_lock = threading.Lock() if self.engine.dialect.name == "sqlite" else nullcontext()
        self._open = threading.local()
        self._pieces: deque[_Piece[Any]] = deque()
        self._pieces_lock = threading.Lock()
        self.after_commit: list[Callable[[], None]] = []
        """Called after each commit that said an event: what waits for events looks at once."""

    @contextmanager
    def transaction(self, scope: Scope, lease: Lease | None = None) -> Iterator[Transaction]:
        """A writing transaction: commits at the end of the block, rolls back when it raises.

        With a lease, the commit happens only if the lease is still held (else StaleLease).
        """
        if getattr(self._open, "writing", False):
            raise RuntimeError("a transaction is open in this thread already: pass it on instead of opening another")
        self._open.writing = True
        try:
            with self._write_lock, self._begin(scope, write=True) as tx:
                if lease is not None:
                    check_lease(tx.connection, lease, tx.now)
                yield tx
                told = tx.flush()
        finally:
            self._open.writing = False
        if told:
            for notify in self.after_commit:
                notify()

    def together(self, scope: Scope, work: Callable[[Transaction], T]) -> T:
        """Run work in a writing transaction that it may share with others, for verbs that many callers use at once.

        On SQLite, where one writes at a time, all who wait share the next commit, and so its way to the disk. Each has
        a savepoint of its own: what fails raises here and leaves nothing, and nobody else notices. Returns after
        the commit. PostgreSQL gathers commits by itself, so there it is a transaction as any other.
        """
        if self.engine.dialect.name != "sqlite":
            with self.transaction(scope) as tx:
                return work(tx)
        if getattr(self._open, "writing", False):
            raise RuntimeError("a transaction is open in this thread already: pass it on instead of opening another")
        piece = _Piece(scope, work)
        with self._pieces_lock:
            piece.leads = not self._pieces
            self._pieces.append(piece)
        if not piece.leads:
            piece.done.acquire()
        else:
            self._lead()
        if piece.error is not None:
            raise piece.error
        result: Any = piece.result
        return result  # type: ignore[no-any-return]

    def _lead(self) -> None:
        """Wait for the write lock, then do all that has come to wait until then."""
        self._open.writing = True
        pieces: list[_Piece[Any]] = []
        told = False
        try:
            with self._write_lock:
                pieces = self._taken()
                with self._begin(pieces[0].scope, write=True) as tx:
                    told = self._do(tx, pieces)
        except BaseException as error:  # noqa: BLE001  whatever kept the group from its commit is told to each of it
            for piece in pieces or (pieces := self._taken()):
                piece.error = piece.error or error
        finally:
            self._open.writing = False
            for piece in pieces:
                piece.done.release()
        if told:
            for notify in self.after_commit:
                notify()

    def _taken(self) -> list[_Piece[Any]]:
        # From here on whoever comes leads the next group, which gathers while this one is written.
        with self._pieces_lock:
            pieces = list(self._pieces)
            self._pieces.clear()
        return pieces

    def _do(self, first: Transaction, pieces: Sequence[_Piece[Any]]) -> bool:
        """Do each piece behind a savepoint. Returns whether there was an event."""
        if len(pieces) == 1:
            # Alone it needs none: what fails takes the whole transaction with it.
            pieces[0].result = pieces[0].work(first)
            return first.flush()
        told = False
        cursor: Any = first.connection.connection.cursor()
        for piece in pieces:
            tx = Transaction(first.connection, piece.scope, first.now)
            cursor.execute("SAVEPOINT piece")
            try:
                piece.result = piece.work(tx)
                told |= tx.flush()
            except Exception as error:  # noqa: BLE001  raised again in the caller's own thread
                piece.error = error
                cursor.execute("ROLLBACK TO piece")
            cursor.execute("RELEASE piece")
        cursor.close()
        return told

    @contextmanager
    def reading(self, scope: Scope | None = None) -> Iterator[Transaction]:
        """A reading transaction: one snapshot, never waits for writers."""
        with self._begin(scope or system_scope("*"), write=False) as tx:
            yield tx

    @contextmanager
    def _begin(self, scope: Scope, *, write: bool) -> Iterator[Transaction]:
        try:
            with self._connections.begun(write=write) as connection:
                yield Transaction(connection, scope, self.clock.now())
        except (OperationalError, sqlite3.OperationalError) as error:
            raise _unavailable(getattr(error, "orig", None) or error) from error

    def close(self) -> None:
        """Give back all connections."""
        self._connections.close()


def _broken_rule(error: object) -> Conflict:
    return Conflict(
        f"this would break a rule of the catalog: {error}",
        code="catalog.integrity",
        hint="it exists already, or something else changed it at the same time: read it again",
    )


_UNFIT = (DataError, UnicodeEncodeError, OverflowError)


def _unfit() -> InvalidInput:
    return InvalidInput(
        "the catalog cannot hold one of these values: a text with a NUL or half a surrogate pair, or a number beyond "
        "64 bits",
        code="catalog.value_invalid",
        hint="take such characters out",
    )


def _unavailable(error: BaseException) -> Unavailable:
    text = str(error).strip()
    if "disk is full" in text or "No space left" in text:
        return Unavailable(
            "the disk of the catalog is full; nothing was changed",
            code="catalog.disk_full",
            hint="free some space and repeat",
        )
    return Unavailable(
        f"the catalog does not answer: {text.splitlines()[0] if text else error}",
        code="catalog.unavailable",
        hint="check that the database runs and can be reached, then repeat",
    )


def insert_missing(tx: Transaction, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows, leaving those alone whose key exists."""
    insert_ignoring(tx.connection, table, rows)


def insert_ignoring(connection: Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """INSERT … ON CONFLICT DO NOTHING, on either database."""
    if rows:
        connection.execute(on_conflict_do_nothing(connection, table), list(rows))
