"""Cost: what the project used, at the prices in force, and to what it is allocated."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from msgspec import Struct

from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database
from modelyard.planes.cost import Cost
from modelyard.types.cost import Allocation, CostItem, PriceBook
from modelyard.ui.frame import Frame, Screen
from modelyard.ui.page import page as ui_page

GROUPS = ("pipeline", "pipeline_run", "step", "job", "run", "submitted_by")
DAYS_DEFAULT = 30


class CostRow(Struct, frozen=True, kw_only=True):
    """A part of the total, and its share of it."""

    item: CostItem
    share: float


class CostPage(Screen, frozen=True, kw_only=True):
    """The cost of the last `days`, by one kind of thing, dearest first."""

    allocation: Allocation
    rows: tuple[CostRow, ...]
    book: PriceBook
    by: str
    groups: tuple[str, ...]
    days: int


def rows(allocation: Allocation) -> tuple[CostRow, ...]:
    """The parts, dearest first, with their shares of the total."""
    whole = allocation.total.amount
    return tuple(
        CostRow(item=part, share=float(part.amount / whole) if whole else 0.0)
        for part in sorted(allocation.parts, key=lambda part: (-part.amount, part.urn))
    )


@ui_page("/cost", template="cost.html")
def cost(caller: Scope, database: Database, cost: Cost, by: str = "pipeline", days: int = DAYS_DEFAULT) -> CostPage:
    """What the project cost."""
    since = database.clock.now() - timedelta(days=max(1, min(days, 3650)))
    allocation = cost.allocate(caller, by, since=since)
    return CostPage(
        frame=Frame(title="Cost", section="cost"),
        allocation=allocation,
        rows=rows(allocation),
        book=cost.prices(caller),
        by=by,
        groups=GROUPS,
        days=days,
    )


ROUTES: list[Any] = [cost]
