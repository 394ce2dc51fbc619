"""The nouns of cost: prices with the day they hold from, metered usage, and what it comes to.

Amounts are decimals, never floats, and exact: what the parts cost adds up to what the whole costs, to the last digit.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Resource = Literal["cpu_h", "memory_gib_h"]
RESOURCES: tuple[Resource, ...] = ("cpu_h", "memory_gib_h")


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """What one unit costs from an instant on, until a later price takes over: `cpu_h` is one hour of one CPU,
    `memory_gib_h` one GiB for one hour."""

    resource: Resource
    price: Decimal
    effective_from: datetime
    set_by: str = ""
    set_at: datetime | None = None


class PriceBook(msgspec.Struct, frozen=True, kw_only=True):
    """All prices of a project, oldest first, in one currency. `default`: nobody has set any, these are examples."""

    currency: str
    prices: tuple[Price, ...]
    default: bool


class SetPrices(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Prices that hold from an instant on (default: from now). An earlier price for the same instant is replaced."""

    prices: Annotated[dict[Resource, Decimal], Meta(min_length=1)]
    effective_from: datetime | None = None
    currency: Annotated[str, Meta(pattern=r"^[A-Z]{3}$")] | None = None


class CostLine(msgspec.Struct, frozen=True, kw_only=True):
    """One resource of a cost: how much of it, and what that comes to. `price` is null where several were in force."""

    resource: Resource
    quantity: Decimal
    price: Decimal | None
    amount: Decimal


class CostItem(msgspec.Struct, frozen=True, kw_only=True):
    """What a thing cost. `amount` is the sum of the lines. `share` below 1: it is a part of the cost of jobs that made
    several things alike. `estimate`: a job still runs, or the prices are only the examples."""

    urn: str
    currency: str
    amount: Decimal
    lines: tuple[CostLine, ...]
    jobs: tuple[str, ...]
    attempts: int
    since: datetime | None = None
    until: datetime | None = None
    estimate: bool = False
    notes: tuple[str, ...] = ()


class Allocation(msgspec.Struct, frozen=True, kw_only=True):
    """A total and the parts that it is allocated to; the parts add up to it exactly. `(none)` holds what belongs to no
    such thing."""

    by: str
    currency: str
    total: CostItem
    parts: tuple[CostItem, ...]
