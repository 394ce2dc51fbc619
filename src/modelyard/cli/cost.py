"""`modelyard cost`: what runs, pipelines and projects cost."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated

import typer

from modelyard.cli.context import JsonFlag, client, show_fields, show_items, show_json
from modelyard.cli.options import instant, pair
from modelyard.kernel.errors import InvalidInput
from modelyard.types.cost import RESOURCES, Allocation, CostItem, PriceBook, Resource, SetPrices

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None)
Instant = Annotated[datetime | None, typer.Option(parser=instant, help="In UTC, such as 2013-06-01.")]


@app.callback()
def cost() -> None:
    """Metered use times the prices in force, exact to the last digit."""


@app.command()
def get(
    urn: Annotated[str, typer.Argument(help="Such as run:<id>, pipeline-run:<id>, model:delay@3, project:default.")],
    as_json: JsonFlag = False,
) -> None:
    """What one thing cost."""
    found = client().get("/api/cost/of", CostItem, {"urn": urn})
    if as_json:
        show_json(found)
        return
    show_fields(
        [
            ("cost", f"{found.amount:f} {found.currency}"),
            *((line.resource, f"{line.quantity:f} = {line.amount:f} {found.currency}") for line in found.lines),
            ("attempts", found.attempts),
            ("jobs", ", ".join(found.jobs)),
            *(("note", note) for note in found.notes),
        ]
    )


@app.command("list")
def list_costs(
    by: Annotated[
        str, typer.Option(help="pipeline, pipeline_run, step, job, run, submitted_by, or label:NAME.")
    ] = "pipeline",
    since: Instant = None,
    until: Instant = None,
    as_json: JsonFlag = False,
) -> None:
    """The project's cost of a period (default: the last 30 days) and what it went to."""
    params = {"by": by, "since": since and since.isoformat(), "until": until and until.isoformat()}
    found = client().get("/api/cost", Allocation, params)
    if as_json:
        show_json(found)
        return
    columns = {
        by.upper(): lambda one: one.urn,
        f"COST {found.currency}": lambda one: f"{one.amount:f}",
        "ATTEMPTS": lambda one: one.attempts,
    }
    show_items(list(found.parts), columns, as_json=False, empty="nothing ran in this period")
    typer.echo(f"total {found.total.amount:f} {found.currency}")
    for note in found.total.notes:
        typer.echo(f"note: {note}")


@app.command()
def prices(
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="RESOURCE=PRICE, such as cpu_h=0.04 or memory_gib_h=0.005.")
    ] = None,
    effective_from: Instant = None,
    currency: Annotated[str | None, typer.Option(help="Three letters, such as EUR; for the first prices.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """The prices in force, or with --set new ones from now or an instant on."""
    if set_:
        body = SetPrices(
            prices=dict(_price(text) for text in set_),
            effective_from=effective_from,
            currency=currency,
        )
        book: PriceBook = client().put("/api/cost/prices", body, PriceBook)
    else:
        book = client().get("/api/cost/prices", PriceBook)
    if as_json:
        show_json(book)
        return
    columns = {
        "RESOURCE": lambda one: one.resource,
        f"PRICE {book.currency}": lambda one: f"{one.price:f}",
        "FROM": lambda one: one.effective_from,
        "SET BY": lambda one: one.set_by or "(example)",
    }
    show_items(list(book.prices), columns, as_json=False, empty="no prices")


def _price(text: str) -> tuple[Resource, Decimal]:
    name, number = pair(text, "RESOURCE=PRICE")
    for resource in RESOURCES:
        if resource == name:
            try:
                return resource, Decimal(number)
            except InvalidOperation:
                break
    raise InvalidInput(
        f"'{text[:80]}' is no RESOURCE=PRICE",
        code="cost.price_invalid",
        hint=f"resources are {' and '.join(RESOURCES)}; write for example cpu_h=0.04",
    )
