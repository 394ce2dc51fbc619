"""`modelyard import`: what other systems tracked, brought over with its ids, checked, and resumable."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from modelyard.cli.context import JsonFlag, client, show_json, show_table
from modelyard.sdk import imports
from modelyard.sdk.imports.importer import Progress
from modelyard.types.imports import ImportReport

app = typer.Typer(add_completion=False, no_args_is_help=True)
PROBLEMS_SHOWN = 40
EXIT_NOT_VERIFIED = 2
RecheckFlag = Annotated[bool, typer.Option("--recheck", help="Compare again what earlier passes brought.")]


@app.callback()
def import_() -> None:
    """Imports: runs, models and files of other systems, with their ids. Run again, an import goes on where it ended.

    \b
    modelyard import mlflow http://tracking:5000         a running server
    modelyard import mlflow sqlite:///mlflow.db          its SQLite file
    modelyard import mlflow mlruns                       a folder
    modelyard import wandb wandb                         offline runs of Weights & Biases
    modelyard import tensorboard runs                    event files
    """


@app.command()
def mlflow(
    uri: Annotated[str, typer.Argument(help="http(s)://…, sqlite:///FILE, or an mlruns folder.")],
    token: Annotated[
        str, typer.Option(envvar="MLFLOW_TRACKING_TOKEN", help="Bearer token of the server, if it asks for one.")
    ] = "",
    artifacts: Annotated[
        Path | None, typer.Option(help="Where a server keeps its proxied artifacts, when reading its database file.")
    ] = None,
    recheck: RecheckFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Bring experiments, runs, logged models, artifacts and the registry of an MLflow store."""
    report = imports.import_mlflow(
        uri, token=token, artifacts=artifacts, recheck=recheck, progress=_progress(as_json), client=client()
    )
    _show(report, as_json)


@app.command()
def wandb(
    folder: Annotated[Path, typer.Argument(help="An offline run's folder, or the `wandb` folder with many.")],
    recheck: RecheckFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Bring offline runs of Weights & Biases; each of its projects becomes an experiment."""
    report = imports.import_wandb(folder, recheck=recheck, progress=_progress(as_json), client=client())
    _show(report, as_json)


@app.command()
def tensorboard(
    folder: Annotated[Path, typer.Argument(help="The directory that `tensorboard --logdir` is given.")],
    recheck: RecheckFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Bring a log directory of TensorBoard; each folder with event files becomes a run."""
    report = imports.import_tensorboard(folder, recheck=recheck, progress=_progress(as_json), client=client())
    _show(report, as_json)


def _progress(as_json: bool) -> Progress:
    """A line on standard error that is written over, where somebody watches."""
    watched = sys.stderr.isatty() and not as_json

    def tell(what: str, report: ImportReport) -> None:
        runs = report.count("runs")
        line = f"{what}: {runs.here} of {runs.there} runs, {report.bytes / 1e6:.1f} MB of files"
        sys.stderr.write(f"\r\x1b[2K{line}")
        sys.stderr.flush()

    return tell if watched else lambda _what, _report: None


def _show(report: ImportReport, as_json: bool) -> None:
    """The report; what was not brought as it was there ends the command with status 2."""
    if as_json:
        show_json(report)
    else:
        if sys.stderr.isatty():
            sys.stderr.write("\r\x1b[2K")
        columns = {
            "WHAT": lambda row: row[0],
            "THERE": lambda row: f"{row[1].there:,}",
            "HERE": lambda row: f"{row[1].here:,}",
            "NEW": lambda row: f"{row[1].new:,}",
        }
        show_table(list(report.counts.items()), columns, empty="there is nothing to import")
        for one in report.problems[:PROBLEMS_SHOWN]:
            typer.echo(f"{one.kind}: {one.what}: {one.why}", err=True)
        if len(report.problems) > PROBLEMS_SHOWN:
            typer.echo(f"… and {len(report.problems) - PROBLEMS_SHOWN} more; --json lists all", err=True)
        verdict = "verified: what came equals what is there" if report.verified else "not verified, see above"
        typer.echo(f"{verdict}; {report.bytes:,} bytes of files in {report.seconds:.1f} s")
    if not report.verified:
        raise typer.Exit(EXIT_NOT_VERIFIED)
