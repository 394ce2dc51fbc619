"""Usage times price: pure and exact.

Every attempt's use of a resource is priced once, in whole nano-units of the currency (1e-9). All that is shown are sums
and splits of these integers, so parts always add up to their whole. Rounding happens in one place, once per attempt,
resource and price: by at most half a nano-unit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from fractions import Fraction

import msgspec
from msgspec.structs import replace

from modelyard.types.cost import RESOURCES, CostLine, Price, Resource
from modelyard.types.jobs import AttemptUsage

NANO = 10**9
MICROSECONDS_PER_HOUR = 3_600 * 10**6
GIB = 2**30


class Charge(msgspec.Struct, frozen=True, kw_only=True):
    """What one resource of one attempt costs at one price. `quantity` is in the price's unit, exact."""

    resource: Resource
    quantity: Fraction
    price: Decimal
    nanos: int


class PricedAttempt(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt and all its charges. `unpriced`: resources that it used before any price for them held."""

    attempt: AttemptUsage
    charges: tuple[Charge, ...]
    unpriced: tuple[Resource, ...] = ()

    @property
    def nanos(self) -> int:
        """What it costs altogether."""
        return sum(charge.nanos for charge in self.charges)


def price_attempt(attempt: AttemptUsage, prices: Sequence[Price], now: datetime) -> PricedAttempt:
    """Price what an attempt used. Where a price changed while it ran, its use counts as spread evenly over its time."""
    charges: list[Charge] = []
    unpriced: list[Resource] = []
    for resource, quantity in quantities(attempt).items():
        if quantity == 0:
            continue
        known = sorted((one for one in prices if one.resource == resource), key=lambda one: one.effective_from)
        shares = _shares_by_price(known, attempt.started_at, attempt.ended_at or now)
        if sum(shares.values()) < 1:
            unpriced.append(resource)
        for price, share in shares.items():
            part = quantity * share
            nanos = round(part * Fraction(price) * NANO)
            charges.append(Charge(resource=resource, quantity=part, price=price, nanos=nanos))
    return PricedAttempt(attempt=attempt, charges=tuple(charges), unpriced=tuple(unpriced))


def quantities(attempt: AttemptUsage) -> dict[Resource, Fraction]:
    """What an attempt used, in the units of the prices: metered CPU time, and its peak of memory for as long as it ran.

    Memory that was asked for counts where it is more than what was used: nobody else could have it.
    """
    usage = attempt.usage
    memory = max(usage.peak_rss_bytes, attempt.resources.memory_bytes)
    return {
        "cpu_h": Fraction(_microseconds(usage.cpu_s), MICROSECONDS_PER_HOUR),
        "memory_gib_h": Fraction(memory * _microseconds(usage.wall_s), GIB * MICROSECONDS_PER_HOUR),
    }


def split(nanos: int, parts: int) -> list[int]:
    """An amount in equal parts that add up to it; the first ones are a nano-unit larger where it does not go evenly."""
    whole, rest = divmod(nanos, parts)
    return [whole + (place < rest) for place in range(parts)]


def split_attempt(priced: PricedAttempt, parts: int) -> list[PricedAttempt]:
    """A priced attempt in equal parts, charge by charge, that add up to it."""
    amounts = [split(charge.nanos, parts) for charge in priced.charges]
    return [
        replace(
            priced,
            charges=tuple(
                replace(charge, quantity=charge.quantity / parts, nanos=amounts[number][place])
                for number, charge in enumerate(priced.charges)
            ),
        )
        for place in range(parts)
    ]


def lines(priced: Sequence[PricedAttempt]) -> tuple[CostLine, ...]:
    """The charges of many attempts, one line per resource that was used."""
    found: list[CostLine] = []
    for resource in RESOURCES:
        charges = [charge for one in priced for charge in one.charges if charge.resource == resource]
        if charges:
            prices = {charge.price for charge in charges}
            found.append(
                CostLine(
                    resource=resource,
                    quantity=_rounded(sum((charge.quantity for charge in charges), Fraction(0))),
                    price=prices.pop() if len(prices) == 1 else None,
                    amount=amount(sum(charge.nanos for charge in charges)),
                )
            )
    return tuple(found)


def amount(nanos: int) -> Decimal:
    """An amount in units of the currency, exactly."""
    return Decimal(nanos).scaleb(-9)


def _shares_by_price(prices: Sequence[Price], start: datetime, end: datetime) -> Mapping[Decimal, Fraction]:
    """Which share of a time each price was in force, `prices` being of one resource and in order."""
    shares: dict[Decimal, Fraction] = {}
    if end <= start:
        held = [one for one in prices if one.effective_from <= start]
        return {held[-1].price: Fraction(1)} if held else {}
    whole = end - start
    for place, price in enumerate(prices):
        until = prices[place + 1].effective_from if place + 1 < len(prices) else end
        overlap = min(until, end) - max(price.effective_from, start)
        if overlap.total_seconds() > 0:
            shares[price.price] = shares.get(price.price, Fraction(0)) + Fraction(
                _microseconds(overlap.total_seconds()), _microseconds(whole.total_seconds())
            )
    return shares


def _microseconds(seconds: float) -> int:
    return max(round(seconds * 1e6), 0)


def _rounded(quantity: Fraction) -> Decimal:
    return Decimal(round(quantity * NANO)).scaleb(-9)
