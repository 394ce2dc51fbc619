"""`modelyard token`: access tokens."""

from __future__ import annotations

from typing import Annotated

import typer

from modelyard.cli.context import JsonFlag, client, show_fields, show_json
from modelyard.types.kernel import IssuedToken, IssueToken

app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.callback()
def token() -> None:
    """Access tokens, each for a principal with a role in the project."""


@app.command()
def create(
    principal: Annotated[str, typer.Argument(help="A person's or a service's name.")],
    role: Annotated[str, typer.Option(help="viewer, contributor, approver or admin.")] = "contributor",
    ttl_s: Annotated[float | None, typer.Option(help="Seconds until it expires; default: never.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """A new token, shown this once."""
    issued = client().post("/api/tokens", IssueToken(principal, role, ttl_s), IssuedToken)
    if as_json:
        show_json(issued)
    else:
        show_fields([("principal", issued.principal), ("role", issued.role), ("token", issued.token)])


@app.command()
def revoke(principal: Annotated[str, typer.Argument(help="Whom to shut out, with all tokens.")]) -> None:
    """Shut a principal out."""
    client().delete(f"/api/principals/{principal}")
    typer.echo(f"'{principal}' is shut out")
