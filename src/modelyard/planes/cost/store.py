"""The tables of cost, and all SQL on them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Column, String, Table, select

from modelyard.kernel.database import Instant, Transaction, metadata
from modelyard.types.cost import Price, Resource

books = Table(
    "price_books",
    metadata,
    Column("project", String(64), primary_key=True),
    Column("currency", String(3), nullable=False),
)
prices = Table(
    "prices",
    metadata,
    Column("project", String(64), primary_key=True),
    Column("resource", String(32), primary_key=True),
    Column("effective_from", Instant, primary_key=True),
    # A decimal as text: no database's number is both exact and the same on all of them.
    Column("price", String(40), nullable=False),
    Column("set_by", String(255), nullable=False),
    Column("set_at", Instant, nullable=False),
)


def currency_of(tx: Transaction) -> str | None:
    """The currency of the project's book; None where it has none."""
    found: str | None = tx.scalar(select(books.c.currency).where(books.c.project == tx.project))
    return found


def set_currency(tx: Transaction, currency: str) -> None:
    """Open the project's book."""
    tx.execute(books.insert().values(project=tx.project, currency=currency))


def prices_of(tx: Transaction) -> list[Price]:
    """The prices of the project, oldest first."""
    rows = tx.all(
        select(prices).where(prices.c.project == tx.project).order_by(prices.c.effective_from, prices.c.resource)
    )
    return [_price(row) for row in rows]


def put_prices(tx: Transaction, given: Mapping[Resource, Decimal], effective_from: datetime) -> None:
    """Write prices for an instant, in place of those that were set for the same one."""
    for resource, price in given.items():
        tx.execute(
            prices.delete().where(
                prices.c.project == tx.project,
                prices.c.resource == resource,
                prices.c.effective_from == effective_from,
            )
        )
        tx.execute(
            prices.insert().values(
                project=tx.project,
                resource=resource,
                effective_from=effective_from,
                price=str(price),
                set_by=tx.actor,
                set_at=tx.now,
            )
        )


def _price(row: Any) -> Price:
    return Price(
        resource=row.resource,
        price=Decimal(row.price),
        effective_from=row.effective_from,
        set_by=row.set_by,
        set_at=row.set_at,
    )
