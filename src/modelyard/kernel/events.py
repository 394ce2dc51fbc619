"""The event log: append-only, written in the same transaction as the change, sealed into one gap-free hashed order.

Writers only insert, so they never wait for each other. A sealer gives each committed event its place (`seq`) and a hash
over its content and the hash before it, in batches. A removed or altered row breaks the chain, and `verify` names the
place. Readers follow `seq`: numbers from a database sequence commit out of order, so a cursor on them loses rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    String,
    Table,
    Text,
    bindparam,
    func,
    select,
)

from modelyard.kernel.clock import to_us
from modelyard.kernel.errors import TooLarge
from modelyard.kernel.event import Event, Verdict
from modelyard.kernel.ids import new_id
from modelyard.kernel.limits import EVENT_DATA_BYTES_MAX
from modelyard.kernel.prepared import Prepared
from modelyard.kernel.schema import Instant, metadata, on_conflict_do_nothing

if TYPE_CHECKING:
    from modelyard.kernel.database import Transaction

SEAL_BATCH = 2_000
GENESIS = "0" * 64

events = Table(
    "events",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("at", Instant, nullable=False),
    Column("project", String(64), nullable=False),
    Column("kind", String(64), nullable=False),
    Column("subject", String(512), nullable=False),
    Column("actor", String(255), nullable=False),
    Column("data", Text, nullable=False),
    Column("seq", BigInteger, unique=True),
    Column("hash", String(64)),
    Index("events_by_subject", "project", "subject", "at"),
    Index("events_by_kind", "project", "kind", "at"),
    Index("events_by_time", "project", "at"),
)
# The part of the log that is not sealed yet stays tiny, so looking for it must not cost O(history).
Index(
    "events_unsealed",
    events.c.id,
    sqlite_where=events.c.seq.is_(None),
    postgresql_where=events.c.seq.is_(None),
)

_INSERT = Prepared(
    events.insert().values(
        {name: bindparam(name) for name in ("id", "at", "project", "kind", "subject", "actor", "data")}
    )
)

chain_head = Table(
    "event_chain_head",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("hash", String(64), nullable=False),
)
cursors = Table(
    "event_cursors",
    metadata,
    Column("reader", String(255), primary_key=True),
    Column("seq", BigInteger, nullable=False),
)


class NewEvent(msgspec.Struct, frozen=True):
    """An event that a transaction is about to write."""

    kind: str
    subject: str
    data: dict[str, Any]
    project: str


class EventReader(Protocol):
    """Who acts on events. Called at least once per event of its kinds, in sealed order, with a durable cursor."""

    @property
    def name(self) -> str:
        """Names its cursor: it must stay the same over restarts."""
        ...

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds that it wants to hear of; asked for anew with every batch."""
        ...

    def handle(self, event: Event) -> None:
        """Act on one event; idempotent. Raising keeps the cursor before the event, so that it is tried again."""
        ...


def insert(tx: Transaction, said: Sequence[NewEvent]) -> None:
    """Append events, not yet sealed. Raises TooLarge for data over the limit."""
    rows = []
    for one in said:
        data = msgspec.json.encode(one.data, order="sorted").decode()
        if len(data) > EVENT_DATA_BYTES_MAX:
            raise TooLarge(
                f"the data of event '{one.kind}' has {len(data):,} bytes, at most {EVENT_DATA_BYTES_MAX:,} are kept",
                hint="store the content as an artifact or dataset and name it in the event",
            )
        rows.append(
            {
                "id": new_id(), "at": tx.now, "project": one.project, "kind": one.kind,
                "subject": one.subject, "actor": tx.actor, "data": data,
            }
        )  # fmt: skip
    tx.run_many(_INSERT, rows)


def seal(tx: Transaction) -> int:
    """Give the committed events that have none their place in the chain. Returns how many. Needs to write."""
    tx.execute(on_conflict_do_nothing(tx.connection, chain_head), [{"id": 1, "seq": 0, "hash": GENESIS}])
    head = tx.execute(select(chain_head).where(chain_head.c.id == 1).with_for_update()).one()
    seq, previous = head.seq, head.hash
    rows = tx.all(select(events).where(events.c.seq.is_(None)).order_by(events.c.id).limit(SEAL_BATCH))
    sealed = []
    for row in rows:
        seq += 1
        previous = _hash(previous, seq, row)
        sealed.append({"event_id": row.id, "new_seq": seq, "new_hash": previous})
    if sealed:
        tx.execute(
            events.update()
            .where(events.c.id == bindparam("event_id"))
            .values(seq=bindparam("new_seq"), hash=bindparam("new_hash")),
            sealed,
        )
        tx.execute(chain_head.update().where(chain_head.c.id == 1).values(seq=seq, hash=previous))
    return len(sealed)


def has_unsealed(tx: Transaction) -> bool:
    """Whether the sealer has work."""
    return tx.one(select(events.c.id).where(events.c.seq.is_(None)).limit(1)) is not None


def after(tx: Transaction, seq: int, kinds: frozenset[str] | None = None, limit: int = 200) -> list[Event]:
    """Sealed events that follow a place in the order, of all projects, oldest first."""
    statement = select(events).where(events.c.seq > seq).order_by(events.c.seq).limit(limit)
    if kinds is not None:
        statement = statement.where(events.c.kind.in_(sorted(kinds)))
    return [to_event(row) for row in tx.all(statement)]


def recent(
    tx: Transaction,
    *,
    subject: str | None = None,
    kinds: frozenset[str] | None = None,
    before_id: str | None = None,
    limit: int = 100,
) -> list[Event]:
    """Events of the transaction's project, newest first; `before_id` continues a listing."""
    statement = select(events).where(events.c.project == tx.project).order_by(events.c.id.desc()).limit(limit)
    if subject is not None:
        statement = statement.where(events.c.subject == subject)
    if kinds is not None:
        statement = statement.where(events.c.kind.in_(sorted(kinds)))
    if before_id is not None:
        statement = statement.where(events.c.id < before_id)
    return [to_event(row) for row in tx.all(statement)]


def cursor_of(tx: Transaction, reader: str) -> int:
    """How far a reader has come."""
    return int(tx.scalar(select(cursors.c.seq).where(cursors.c.reader == reader)) or 0)


def move_cursor(tx: Transaction, reader: str, seq: int) -> None:
    """Record how far a reader has come; it never goes back."""
    changed = tx.execute(cursors.update().where(cursors.c.reader == reader, cursors.c.seq <= seq).values(seq=seq))
    if changed.rowcount == 0 and tx.one(select(cursors).where(cursors.c.reader == reader)) is None:
        tx.execute(cursors.insert().values(reader=reader, seq=seq))


def head_seq(tx: Transaction) -> int:
    """The last place in the sealed order."""
    return int(tx.scalar(select(chain_head.c.seq).where(chain_head.c.id == 1)) or 0)


def verify(tx: Transaction) -> Verdict:
    """Recompute the chain from its start. Finds an altered, removed, reordered or inserted sealed event."""
    previous, expected = GENESIS, 0
    for row in _in_order(tx):
        expected += 1
        if row.seq != expected:
            return Verdict(False, expected - 1, previous, expected, f"event {expected} is missing")
        if _hash(previous, expected, row) != row.hash:
            return Verdict(False, expected - 1, previous, expected, f"event {expected} ({row.id}) was altered")
        previous = row.hash
    head = tx.one(select(chain_head).where(chain_head.c.id == 1))
    if head is not None and (head.seq, head.hash) != (expected, previous):
        return Verdict(False, expected, previous, expected + 1, f"events {expected + 1} to {head.seq} are missing")
    return Verdict(True, expected, previous)


def _in_order(tx: Transaction) -> Iterator[Any]:
    reached = 0
    while rows := tx.all(select(events).where(events.c.seq > reached).order_by(events.c.seq).limit(SEAL_BATCH)):
        yield from rows
        reached = rows[-1].seq


def _hash(previous: str, seq: int, row: Any) -> str:
    content = msgspec.json.encode(
        [previous, seq, row.id, to_us(row.at), row.project, row.kind, row.subject, row.actor, row.data]
    )
    return hashlib.sha256(content).hexdigest()


def to_event(row: Any) -> Event:
    """The noun for a row of the log."""
    return Event(
        row.id,
        row.at,
        row.project,
        row.kind,
        row.subject,
        row.actor,
        msgspec.json.decode(row.data),
        row.seq,
        row.hash,
    )


def count(tx: Transaction) -> int:
    """How many events the log has."""
    return int(tx.scalar(select(func.count()).select_from(events)) or 0)
