"""Leases: at most one holder at a time, each holding with a token that only grows, so that a late one can be told."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec
from sqlalchemy import BigInteger, Column, Connection, String, Table, select

from modelyard.kernel.errors import Conflict
from modelyard.kernel.schema import Instant, metadata, on_conflict_do_nothing

leases = Table(
    "leases",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("owner", String(255), nullable=False),
    Column("token", BigInteger, nullable=False),
    Column("expires_at", Instant, nullable=False),
)


class Lease(msgspec.Struct, frozen=True):
    """The right to act on `name` until `expires_at`; `token` fences off whoever held it before."""

    name: str
    owner: str
    token: int
    expires_at: datetime


class StaleLease(Conflict):
    """The lease was lost: what was done under it is thrown away."""

    default_code = "lease.stale"


def take_lease(connection: Connection, name: str, owner: str, now: datetime, ttl_s: float) -> Lease | None:
    """Take or renew a lease; None while somebody else holds it. Run in a writing transaction."""
    expires_at = now + timedelta(seconds=ttl_s)
    found = select(leases).where(leases.c.name == name).with_for_update()
    row = connection.execute(found).first()
    if row is None:
        # Another may insert it at the same time: the row is made free first, and then taken as any other.
        free = {"name": name, "owner": "", "token": 0, "expires_at": now}
        connection.execute(on_conflict_do_nothing(connection, leases), [free])
        row = connection.execute(found).one()
    if row.owner != owner and row.expires_at > now:
        return None
    token = row.token if row.owner == owner and row.expires_at > now else row.token + 1
    changed = connection.execute(
        leases.update()
        .where(leases.c.name == name, leases.c.token == row.token)
        .values(owner=owner, token=token, expires_at=expires_at)
    )
    return Lease(name, owner, token, expires_at) if changed.rowcount == 1 else None


def release_lease(connection: Connection, lease: Lease) -> None:
    """Give a lease back. The row stays, so that tokens keep growing."""
    connection.execute(
        leases.update()
        .where(leases.c.name == lease.name, leases.c.token == lease.token, leases.c.owner == lease.owner)
        .values(owner="", expires_at=lease.expires_at - timedelta(days=1))
    )


def owners_of(connection: Connection, prefix: str) -> list[str]:
    """Who holds leases, among the owners whose names begin so."""
    return list(
        connection.execute(select(leases.c.owner).where(leases.c.owner.startswith(prefix)).distinct()).scalars()
    )


def release_leases_of(connection: Connection, owners: str) -> int:
    """Free all leases whose owner begins with `owners`, as those of a process that is known to be dead."""
    held = connection.execute(select(leases.c.name, leases.c.expires_at).where(leases.c.owner.startswith(owners))).all()
    for row in held:
        freed = leases.update().where(leases.c.name == row.name, leases.c.owner.startswith(owners))
        connection.execute(freed.values(owner="", expires_at=row.expires_at - timedelta(days=1)))
    return len(held)


def check_lease(connection: Connection, lease: Lease, now: datetime) -> None:
    """Raise StaleLease unless the lease is still held with the same token. The row is locked until the commit."""
    row = connection.execute(select(leases).where(leases.c.name == lease.name).with_for_update()).first()
    if row is None or row.token != lease.token or row.owner != lease.owner or row.expires_at <= now:
        raise StaleLease(f"the lease '{lease.name}' was lost", hint="the work will be done again by its new holder")
