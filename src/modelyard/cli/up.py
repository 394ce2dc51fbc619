"""`modelyard up`: serve the API and the UI."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Annotated

import typer

from modelyard.cli.context import current_settings

if TYPE_CHECKING:
    from modelyard.server.run import Server

app = typer.Typer(add_completion=False)


@app.command()
def up(
    host: Annotated[
        str | None, typer.Option(help="Address to bind. Other than loopback needs MODELYARD_TOKEN.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port to bind; 0 takes a free one.")] = None,
) -> None:
    """Serve the API and the UI in one process over the home directory, until Ctrl-C.

    Goes on from where an earlier server was, however it ended. Prints a link that signs you in, once.
    """
    # Nothing that a start loads is garbage, and looking for some takes a seventh of it. `Server.run` looks again.
    gc.disable()
    from modelyard.sdk.embedded import serve  # loads the whole app, which only this command needs

    serve(current_settings(host=host, port=port), _announce)


def _announce(server: Server) -> None:
    home = server.yard.settings.home
    typer.echo(f"modelyard is up at {server.url}, over {home}")
    typer.echo(f"  sign in (once, within 15 minutes):  {server.sign_in_link()}")
    typer.echo(f"  MLflow clients:  export MLFLOW_TRACKING_URI={server.url}")
    typer.echo(f"                   export MLFLOW_TRACKING_TOKEN=$(cat {home / 'token'})")
