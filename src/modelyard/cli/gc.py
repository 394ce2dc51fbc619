"""`modelyard gc`: remove the blobs that nothing names any more."""

from __future__ import annotations

from typing import Annotated

import typer

from modelyard.cli.context import JsonFlag, client, show_fields, show_items, show_json
from modelyard.sdk.features import seconds
from modelyard.types.storage import Collect, Collection

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    grace: Annotated[
        str,
        typer.Option(help="For how long nothing must have named a blob; longer than any write takes."),
    ] = "24h",
    history: Annotated[bool, typer.Option("--history", help="Show the collections that were made instead.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Remove the bytes of artifacts, models, files and steps that nothing names any more.

    The server does so once a day. A blob goes when nothing named it at two looks that lie a grace apart: the first
    `modelyard gc` notes it as waiting, one after the grace removes it. Needs an admin of all projects.
    """
    if history:
        _show_history(as_json)
        return
    asked = Collect(dry_run=dry_run, grace_s=0 if grace == "0" else seconds(grace))
    found: Collection = client().post("/api/storage/collect", asked, Collection)
    if as_json:
        show_json(found)
        return
    show_fields(
        [
            ("would free" if dry_run else "freed", _amount(found.freed, found.freed_bytes)),
            ("waiting for the grace", _amount(found.waiting, found.waiting_bytes)),
            ("put lately", f"{found.young} blobs"),
            ("of uploads that broke off", f"{found.unfinished_bytes} bytes"),
            ("looked at", f"{found.blobs} blobs"),
        ]
    )


def _show_history(as_json: bool) -> None:
    found = client().get("/api/storage/collections", list[Collection])
    columns = {
        "AT": lambda one: one.at,
        "BLOBS": lambda one: one.blobs,
        "FREED": lambda one: one.freed,
        "BYTES": lambda one: one.freed_bytes,
        "WAITING": lambda one: one.waiting,
    }
    show_items(found, columns, as_json=as_json, empty="no collection yet; the server makes one a day")


def _amount(blobs: int, size_bytes: int) -> str:
    return f"{blobs} blobs, {size_bytes} bytes"
