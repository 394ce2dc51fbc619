"""What things cost, in a program."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from modelyard.sdk.client import Client, connect
from modelyard.types.cost import Allocation, CostItem, PriceBook, Resource, SetPrices


def cost_of(urn: str, client: Client | None = None) -> CostItem:
    """What a `job:`, `run:`, `pipeline-run:`, `model:name@version` or `project:` cost. Raises NotFound."""
    return (client or connect()).get("/api/cost/of", CostItem, {"urn": urn})


def allocate_cost(
    by: str = "pipeline",
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    client: Client | None = None,
) -> Allocation:
    """The project's cost of a period (default: the last 30 days), allocated by pipeline, run, person or label."""
    params = {
        "by": by,
        "since": since.isoformat() if since else None,
        "until": until.isoformat() if until else None,
    }
    return (client or connect()).get("/api/cost", Allocation, params)


def get_prices(client: Client | None = None) -> PriceBook:
    """The prices in force."""
    return (client or connect()).get("/api/cost/prices", PriceBook)


def set_prices(
    prices: dict[Resource, Decimal],
    *,
    effective_from: datetime | None = None,
    currency: str | None = None,
    client: Client | None = None,
) -> PriceBook:
    """Set prices from an instant on (default: now). Needs an admin."""
    body = SetPrices(prices=prices, effective_from=effective_from, currency=currency)
    book: PriceBook = (client or connect()).put("/api/cost/prices", body, PriceBook)
    return book
