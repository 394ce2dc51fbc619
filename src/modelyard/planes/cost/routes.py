"""The HTTP face of cost."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from modelyard.kernel.auth import Action, Scope
from modelyard.kernel.routing import get, put
from modelyard.planes.cost.service import Cost
from modelyard.types.cost import Allocation, CostItem, PriceBook, SetPrices


@get("/api/cost", requires=Action.READ)
def allocate_cost(
    caller: Scope, cost: Cost, by: str = "pipeline", since: datetime | None = None, until: datetime | None = None
) -> Allocation:
    """The project's cost of a period, allocated; the parts add up to the total exactly."""
    return cost.allocate(caller, by, since=since, until=until)


@get("/api/cost/of", requires=Action.READ)
def get_cost(caller: Scope, cost: Cost, urn: str) -> CostItem:
    """What one thing cost, by its URN."""
    return cost.of(caller, urn)


@get("/api/cost/prices", requires=Action.READ)
def get_prices(caller: Scope, cost: Cost) -> PriceBook:
    """The prices in force."""
    return cost.prices(caller)


@put("/api/cost/prices", requires=Action.ADMIN)
def set_prices(caller: Scope, cost: Cost, data: SetPrices) -> PriceBook:
    """Set prices from an instant on."""
    return cost.set_prices(caller, data)


ROUTES: list[Any] = [allocate_cost, get_cost, get_prices, set_prices]
