"""`modelyard monitor`: drift, performance and alerts."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from urllib.parse import quote

import typer

from modelyard.cli.context import JsonFlag, client, show_fields, show_items, show_json
from modelyard.cli.options import instant
from modelyard.types.monitoring import (
    Alert,
    Baseline,
    Evaluate,
    Evaluation,
    Labels,
    Monitor,
    MonitorSpec,
    MonitorWindow,
    Note,
    Reference,
    Thresholds,
)
from modelyard.types.page import Page

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None)
Name = Annotated[str, typer.Argument(help="Name of the monitor.")]
Limit = Annotated[int, typer.Option(help="At most so many.", min=1, max=1000)]
EMPTY = "no monitors yet; make one with `modelyard monitor create NAME --endpoint ENDPOINT`"


@app.callback()
def monitor() -> None:
    """Compare what an endpoint predicts with what is usual, and with what came true."""


@app.command("list")
def list_monitors(limit: Limit = 100, as_json: JsonFlag = False) -> None:
    """The monitors of the project."""
    page = client().get("/api/monitors", Page[Monitor], {"limit": limit})
    columns = {
        "NAME": lambda one: one.name,
        "ENDPOINT": lambda one: one.spec.endpoint,
        "WINDOW": lambda one: one.spec.window,
        "EVALUATED": lambda one: one.evaluated_at,
        "PROBLEM": lambda one: one.problem,
    }
    show_items(page.items, columns, as_json=as_json, empty=EMPTY, more=page.next)


@app.command()
def get(name: Name, as_json: JsonFlag = False) -> None:
    """What a monitor watches and how far it has come."""
    _show(client().get(_path(name), Monitor), as_json)


@app.command()
def create(
    name: Name,
    endpoint: Annotated[str, typer.Option(help="The endpoint to watch.")],
    window: Annotated[str, typer.Option(help="month, week, day, or hours as 6h; in UTC.")] = "month",
    reference: Annotated[
        str | None, typer.Option(help="Dataset that inputs are compared with, NAME or NAME@REF. Default: first window.")
    ] = None,
    labels: Annotated[str | None, typer.Option(help="Dataset where the truth arrives, NAME or NAME@REF.")] = None,
    label: Annotated[str, typer.Option(help="Its column of 0 and 1, or as 'arr_delay > 15'.")] = "label",
    key: Annotated[str, typer.Option(help="Its column that matches the prediction's id.")] = "id",
    prediction_key: Annotated[str, typer.Option(help="The log's column to match by, such as input.flight.")] = "id",
    known_at: Annotated[str | None, typer.Option(help="Its column of when the label became known.")] = None,
    score: Annotated[str | None, typer.Option(help="The output that is the probability of 1.")] = None,
    baseline_auc: Annotated[float | None, typer.Option(help="AUC when all is well. Default: first window's.")] = None,
    auc_drop: Annotated[float, typer.Option(help="How far the AUC may fall below it.")] = 0.03,
    calibration: Annotated[float, typer.Option(help="How large the calibration error may be.")] = 0.05,
    as_json: JsonFlag = False,
) -> None:
    """Watch an endpoint.

    \b
    modelyard monitor create delay --endpoint delay --reference training \\
        --labels arrivals --key flight --label 'arr_delay > 15'
    """
    truth = None
    if labels is not None:
        dataset, ref = _dataset(labels)
        truth = Labels(dataset=dataset, ref=ref, key=key, label=label, prediction_key=prediction_key, known_at=known_at)
    usual = _dataset(reference) if reference is not None else (None, "main")
    spec = MonitorSpec(
        name=name,
        endpoint=endpoint,
        window=window,
        reference=Reference(dataset=usual[0], ref=usual[1]),
        labels=truth,
        baseline=None if baseline_auc is None else Baseline(auc=baseline_auc),
        thresholds=Thresholds(auc_drop=auc_drop, calibration=calibration),
        score=score,
    )
    _show(client().post("/api/monitors", spec, Monitor), as_json)


@app.command()
def delete(name: Name) -> None:
    """Remove a monitor and its windows; its alerts stay as history."""
    client().delete(_path(name))
    typer.echo(f"monitor {name} deleted")


@app.command()
def windows(name: Name, limit: Limit = 50, as_json: JsonFlag = False) -> None:
    """What each window and model version looked like, newest first."""
    page = client().get(f"{_path(name)}/windows", Page[MonitorWindow], {"limit": limit})
    columns = {
        "WINDOW": lambda one: f"{one.start:%Y-%m-%d}" if one.start.hour == 0 else f"{one.start:%Y-%m-%d %H:%M}",
        "VERSION": lambda one: one.model_version,
        "ROWS": lambda one: one.rows,
        "DRIFTED": lambda one: sum(distance.drifted for distance in one.inputs) if one.inputs else None,
        "PSI": lambda one: _short(one.prediction.psi if one.prediction else None),
        "LABELS": lambda one: f"{one.performance.coverage:.0%}" if one.performance else None,
        "AUC": lambda one: _short(one.performance.auc if one.performance else None),
        "LOSS": lambda one: _short(one.performance.log_loss if one.performance else None),
        "ECE": lambda one: _short(one.performance.calibration_error if one.performance else None),
        "FINDINGS": lambda one: ", ".join(found.kind for found in one.findings),
    }
    empty = f"no windows yet; see `modelyard monitor get {name}` for what it waits for"
    show_items(page.items, columns, as_json=as_json, empty=empty, more=page.next)


@app.command()
def alerts(
    monitor: Annotated[str | None, typer.Option(help="Only those of this monitor.")] = None,
    status: Annotated[str | None, typer.Option(help="Only open, acknowledged or resolved ones.")] = None,
    limit: Limit = 50,
    as_json: JsonFlag = False,
) -> None:
    """What needs, or needed, an answer, newest first."""
    page = client().get("/api/alerts", Page[Alert], {"monitor": monitor, "status": status, "limit": limit})
    columns = {
        "ID": lambda one: one.id,
        "MONITOR": lambda one: one.monitor,
        "KIND": lambda one: one.kind,
        "STATUS": lambda one: one.status,
        "WINDOW": lambda one: f"{one.window_start:%Y-%m-%d}",
        "VERSION": lambda one: one.model_version,
        "REASON": lambda one: one.reason,
    }
    show_items(page.items, columns, as_json=as_json, empty="no alerts", more=page.next)


@app.command()
def evaluate(
    name: Name,
    complete_through: Annotated[
        datetime | None, typer.Option(parser=instant, help="Take windows that end by then (UTC) as complete.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Look at what is new now, instead of when the platform gets to it."""
    asked = Evaluate(complete_through=complete_through)
    done = client().post(f"{_path(name)}/evaluate", asked, Evaluation)
    if as_json:
        show_json(done)
        return
    show_fields(
        [
            ("windows evaluated", done.windows_evaluated),
            ("windows unchanged", done.windows_unchanged),
            ("alerts raised", ", ".join(done.raised)),
            ("alerts resolved", ", ".join(done.resolved)),
            ("problem", done.problem),
        ]
    )


@app.command()
def acknowledge(
    alert: Annotated[str, typer.Argument(help="Id of the alert.")],
    note: Annotated[str, typer.Option(help="What you are going to do.")] = "",
    as_json: JsonFlag = False,
) -> None:
    """Say that you look after an alert."""
    _show_alert(client().post(f"/api/alerts/{quote(alert, safe='')}/acknowledge", Note(note=note), Alert), as_json)


@app.command()
def resolve(
    alert: Annotated[str, typer.Argument(help="Id of the alert.")],
    note: Annotated[str, typer.Option(help="What it was.")] = "",
    as_json: JsonFlag = False,
) -> None:
    """Close an alert. It does not come again for the same windows."""
    _show_alert(client().post(f"/api/alerts/{quote(alert, safe='')}/resolve", Note(note=note), Alert), as_json)


def _short(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f}"


def _path(name: str) -> str:
    return f"/api/monitors/{quote(name, safe='')}"


def _dataset(text: str) -> tuple[str, str]:
    name, _, ref = text.partition("@")
    return name, ref or "main"


def _show(found: Monitor, as_json: bool) -> None:
    if as_json:
        show_json(found)
        return
    spec = found.spec
    show_fields(
        [
            ("name", found.name),
            ("endpoint", spec.endpoint),
            ("window", spec.window),
            ("predictions", spec.predictions or f"predictions.{spec.endpoint}"),
            ("read up to version", found.predictions_version),
            ("reference", found.reference_source or spec.reference.dataset or "the first complete window"),
            ("labels", f"{spec.labels.dataset}: {spec.labels.label}" if spec.labels else None),
            ("evaluated", found.evaluated_at),
            ("problem", found.problem),
        ]
    )


def _show_alert(alert: Alert, as_json: bool) -> None:
    if as_json:
        show_json(alert)
        return
    show_fields(
        [
            ("id", alert.id),
            ("monitor", alert.monitor),
            ("kind", alert.kind),
            ("status", alert.status),
            ("reason", alert.reason),
            ("resolution", alert.resolution),
        ]
    )
