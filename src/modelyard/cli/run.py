"""`modelyard run`: tracked runs, what they logged, and what differs between them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import typer

from modelyard.cli.context import JsonFlag, client, show_fields, show_items, show_json, show_table
from modelyard.kernel.errors import InvalidInput
from modelyard.sdk import tracking as sdk
from modelyard.sdk.features import seconds
from modelyard.types.tracking import Run

app = typer.Typer(add_completion=False, no_args_is_help=True)

RunId = Annotated[str, typer.Argument(help="The run's id.")]


@app.callback()
def run() -> None:
    """Runs: one execution each, with its params, metrics, tags and artifacts.

    \b
    modelyard run list --filter "metrics.auc > 0.7 AND params.model = 'lightgbm'" --order-by "metrics.auc DESC"
    modelyard run get RUN
    modelyard run compare RUN RUN           only what differs
    modelyard run metrics RUN loss          the history of a metric
    """


@app.command("list")
def list_runs(
    experiment: Annotated[str, typer.Option("--experiment", "-e", help="Name or id of an experiment.")] = "",
    filter: Annotated[str, typer.Option("--filter", help="As MLflow's: metrics.x > 1 AND params.y = 'z'.")] = "",
    order_by: Annotated[list[str] | None, typer.Option(help="Such as 'metrics.auc DESC'; may be repeated.")] = None,
    metric: Annotated[list[str] | None, typer.Option(help="A metric to show; may be repeated.")] = None,
    deleted: Annotated[bool, typer.Option("--deleted", help="Those that were deleted.")] = False,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1, max=1000)] = 50,
    as_json: JsonFlag = False,
) -> None:
    """The runs of the project, newest first."""
    page = sdk.list_runs(
        experiment=experiment,
        filter=filter,
        order_by=order_by or (),
        view="deleted" if deleted else "active",
        limit=limit,
        metrics=metric,
        client=client(),
    )
    columns: dict[str, Callable[[Run], Any]] = {
        "ID": lambda one: one.id,
        "NAME": lambda one: one.name,
        "EXPERIMENT": lambda one: one.experiment_id,
        "STATUS": lambda one: one.status,
        "STARTED": lambda one: one.started_at,
        "METRICS": _metrics,
    }
    empty = "no such run; start one with `modelyard.start_run()` or an MLflow client"
    show_items(page.items, columns, as_json=as_json, empty=empty, more=page.next)


@app.command()
def get(run_id: RunId, as_json: JsonFlag = False) -> None:
    """One run: params, latest metrics, tags, what it read and made."""
    found = sdk.get_run(run_id, client())
    if as_json:
        show_json(found)
        return
    show_fields(
        [
            ("id", found.id),
            ("name", found.name),
            ("experiment", found.experiment_id),
            ("status", found.status if found.stage == "active" else f"{found.status} (deleted)"),
            ("user", found.user),
            ("started", found.started_at),
            ("ended", found.ended_at),
            *((f"param {key}", value) for key, value in sorted(found.params.items())),
            *((f"metric {one.key}", "NaN" if one.value is None else one.value) for one in found.metrics),
            *((f"tag {key}", value) for key, value in sorted(found.tags.items())),
            *((f"read {one.dataset.name}", one.dataset.digest) for one in found.inputs),
            *(("made", one.model_id) for one in found.model_outputs),
        ]
    )


@app.command()
def compare(
    run_ids: Annotated[list[str], typer.Argument(help="Two or more runs.")],
    as_json: JsonFlag = False,
) -> None:
    """What differs between runs: params, tags, metrics."""
    if len(run_ids) < 2:
        raise InvalidInput("comparing takes two runs at least", hint="modelyard run compare RUN RUN")
    chosen = client()
    runs = [sdk.get_run(run_id, chosen) for run_id in run_ids]
    rows = sdk.differences(runs)
    if as_json:
        show_json([{"what": what, "values": dict(zip(run_ids, values, strict=True))} for what, values in rows])
        return
    columns: dict[str, Callable[[Any], Any]] = {"WHAT": lambda row: row[0]}
    for at, one in enumerate(runs):
        columns[f"{one.name} ({one.id[-6:]})"] = partial(_value_at, at)
    show_table(rows, columns, empty="these runs have the same params, tags and metrics")


@app.command()
def metrics(
    run_id: RunId,
    key: Annotated[str, typer.Argument(help="The metric. Default: list them.")] = "",
    points: Annotated[int, typer.Option(help="At most so many points, extremes kept.", min=4, max=1_000_000)] = 2000,
    as_json: JsonFlag = False,
) -> None:
    """The history of a metric, or the latest value of each."""
    if not key:
        found = sdk.get_run(run_id, client())
        columns = {
            "METRIC": lambda one: one.key,
            "LATEST": lambda one: "NaN" if one.value is None else one.value,
            "STEP": lambda one: one.step,
        }
        show_items(found.metrics, columns, as_json=as_json, empty="this run has logged no metric")
        return
    series = sdk.read_history(run_id, key, points_max=points, client=client())
    if as_json:
        show_json(series)
        return
    rows = list(zip(series.steps, series.values, strict=True))
    shown = {"STEP": lambda row: row[0], "VALUE": lambda row: "NaN" if row[1] is None else row[1]}
    show_table(rows, shown, empty=f"this run has no metric '{key}'")
    if series.total > len(rows):
        typer.echo(f"{len(rows)} of {series.total} points, the extremes among them; raise --points for more")


@app.command()
def artifacts(
    run_id: RunId,
    path: Annotated[str, typer.Argument(help="A directory. Default: the top.")] = "",
    as_json: JsonFlag = False,
) -> None:
    """The files that a run stored."""
    found = sdk.list_artifacts(run_id, path, client())
    columns = {
        "PATH": lambda one: f"{one.path}/" if one.is_dir else one.path,
        "BYTES": lambda one: one.size_bytes,
        "DIGEST": lambda one: one.digest[:12] if one.digest else None,
    }
    show_items(found, columns, as_json=as_json, empty="no files there")


@app.command()
def delete(run_id: RunId, as_json: JsonFlag = False) -> None:
    """Mark a run deleted. `restore` brings it back."""
    _show_stage(sdk.delete_run(run_id, client()), as_json)


@app.command()
def restore(run_id: RunId, as_json: JsonFlag = False) -> None:
    """Make a deleted run active again."""
    _show_stage(sdk.restore_run(run_id, client()), as_json)


@app.command()
def purge(
    run_ids: Annotated[list[str] | None, typer.Argument(help="Deleted runs. Default: all that were deleted.")] = None,
    experiment: Annotated[list[str] | None, typer.Option(help="A deleted experiment's id; repeat for more.")] = None,
    older_than: Annotated[str, typer.Option(help="Only what has been deleted for so long: 12h, 30d.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """End runs and experiments for good that were deleted, with metrics, tags and files. Nothing brings them back.

    Versions of models that came from them keep their files. Needs an admin of the project.
    """
    found = sdk.purge(
        run_ids or (), experiment or (), older_than_s=seconds(older_than) if older_than else 0, dry_run=dry_run,
        client=client(),
    )  # fmt: skip
    if as_json:
        show_json(found)
        return
    names = ("runs", "experiments", "logged_models", "artifacts")
    show_fields((f"{'would go' if dry_run else 'gone'}: {one.replace('_', ' ')}", getattr(found, one)) for one in names)


def _value_at(at: int, row: tuple[str, list[str | None]]) -> str | None:
    return row[1][at]


def _show_stage(found: Run, as_json: bool) -> None:
    if as_json:
        show_json(found)
    else:
        typer.echo(f"run {found.id} is {found.stage}")


def _metrics(one: Run) -> str:
    shown = [f"{metric.key}={'NaN' if metric.value is None else format(metric.value, '.5g')}" for metric in one.metrics]
    return " ".join(shown[:4]) + (" …" if len(shown) > 4 else "")
