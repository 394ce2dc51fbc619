"""The command line's entry: knows the nouns, loads only the one that is asked for."""

from __future__ import annotations

import importlib
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from modelyard import __version__
from modelyard.cli import context
from modelyard.kernel.errors import ModelyardError

NOUNS: dict[str, tuple[str, str]] = {
    "up": ("modelyard.cli.up", "Serve the API and the UI over the home directory."),
    "demo": ("modelyard.cli.demo", "Run the flights project from raw data to a model that retrains itself."),
    "dataset": ("modelyard.cli.dataset", "Versioned datasets: write, read, check, quarantine."),
    "feature": ("modelyard.cli.feature", "Feature views and point-in-time joins."),
    "run": ("modelyard.cli.run", "Tracked runs: metrics, params, artifacts, comparison."),
    "job": ("modelyard.cli.job", "Commands with resources, queued and metered."),
    "pipeline": ("modelyard.cli.pipeline", "Pipelines of cached steps: run, resume, cancel."),
    "model": ("modelyard.cli.model", "Models: versions, gates, approvals, aliases, history."),
    "webhook": ("modelyard.cli.webhook", "Who is told when models and aliases change."),
    "endpoint": ("modelyard.cli.endpoint", "Endpoints that serve models."),
    "monitor": ("modelyard.cli.monitor", "Drift, performance and alerts."),
    "trigger": ("modelyard.cli.trigger", "What events start, and what became of it."),
    "cost": ("modelyard.cli.cost", "What runs, pipelines and projects cost."),
    "import": ("modelyard.cli.import_", "Bring runs and models of MLflow, W&B and TensorBoard over."),
    "gc": ("modelyard.cli.gc", "Remove the bytes that nothing names any more."),
    "config": ("modelyard.cli.config", "Show the settings in force and where each came from."),
    "lineage": ("modelyard.cli.lineage", "What led to a thing, and what came of it."),
    "audit": ("modelyard.cli.audit", "Read the event log and verify its hash chain."),
    "token": ("modelyard.cli.token", "Create access tokens and revoke principals."),
}
EXIT_USER_ERROR = 1


class Nouns(TyperGroup):
    """A group whose commands are imported when they are called, so that `--help` costs nothing."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002  the signature is click's
        return list(NOUNS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        if cmd_name not in NOUNS:
            return None
        module, _ = NOUNS[cmd_name]
        command = typer.main.get_command(importlib.import_module(module).app)
        command.name = cmd_name
        return command

    def format_help(self, ctx: Any, formatter: Any) -> None:
        # Typer's own help would import every noun for its one line, and rich for its frames.
        self.format_usage(ctx, formatter)
        self.format_help_text(ctx, formatter)
        with formatter.section("Options"):
            formatter.write_dl([record for one in self.get_params(ctx) if (record := one.get_help_record(ctx))])
        with formatter.section("Commands"):
            formatter.write_dl([(noun, help_text) for noun, (_, help_text) in NOUNS.items()])


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"modelyard {__version__}")
        raise typer.Exit


app = typer.Typer(
    cls=Nouns,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def cli(
    url: Annotated[str | None, typer.Option(help="A running server. Default: the one that has the home open.")] = None,
    home: Annotated[str | None, typer.Option(help="Directory of catalog and data. Default: ~/.modelyard")] = None,
    project: Annotated[str | None, typer.Option("--project", "-p", help="Project to act in.")] = None,
    version: Annotated[  # noqa: ARG001  its callback ends the program
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """One machine-learning platform: data, features, training, models, serving and monitoring on one event log.

    \b
    modelyard up                     start the server and the UI
    modelyard demo                   run the flights project from raw data to a model that retrains itself
    modelyard NOUN --help            what can be done with a noun
    """
    context.set_flags(url=url, home=home, project=project)


def main() -> None:
    """Run the command line; platform errors end it with a message and status 1, never with a traceback."""
    try:
        app()
    except ModelyardError as error:
        context.show_error(error)
        sys.exit(EXIT_USER_ERROR)
    except BrokenPipeError:
        sys.exit(0)
