"""`modelyard trigger`: what events start, and what became of it."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer

from modelyard.cli.context import JsonFlag, client, show_fields, show_items, show_json
from modelyard.cli.options import json_or_text, pairs
from modelyard.kernel.errors import InvalidInput
from modelyard.types.automation import (
    On,
    OnDataset,
    OnEvent,
    OnSchedule,
    Promotion,
    Response,
    SetEnabled,
    StartPipeline,
    Trigger,
    TriggerSpec,
)
from modelyard.types.page import Page

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None)
Name = Annotated[str, typer.Argument(help="Name of the trigger.")]
Limit = Annotated[int, typer.Option(help="At most so many.", min=1, max=1000)]
EMPTY = "no triggers yet; make one with `modelyard trigger create NAME --on-event alert.raised --pipeline PIPELINE`"


@app.callback()
def trigger() -> None:
    """Start pipelines when something happens, and promote what they make only if it is surely better."""


@app.command("list")
def list_triggers(limit: Limit = 100, as_json: JsonFlag = False) -> None:
    """The triggers of the project."""
    page = client().get("/api/triggers", Page[Trigger], {"limit": limit})
    columns = {
        "NAME": lambda one: one.name,
        "ON": lambda one: _on(one.spec.on),
        "PIPELINE": lambda one: one.spec.start.pipeline,
        "THEN": lambda one: _then(one.spec.then),
        "ENABLED": lambda one: one.spec.enabled,
        "NEXT": lambda one: one.next_at,
    }
    show_items(page.items, columns, as_json=as_json, empty=EMPTY, more=page.next)


@app.command()
def get(name: Name, as_json: JsonFlag = False) -> None:
    """What a trigger waits for and what it starts."""
    _show(client().get(_path(name), Trigger), as_json)


@app.command()
def create(
    name: Name,
    pipeline: Annotated[str, typer.Option(help="The pipeline to start.")],
    on_event: Annotated[str | None, typer.Option(help="Kind of event to wait for, such as alert.raised.")] = None,
    match: Annotated[
        list[str] | None, typer.Option(help="FIELD=VALUE that the event's data must have; several values: a,b.")
    ] = None,
    on_dataset: Annotated[str | None, typer.Option(help="Dataset whose new versions to wait for.")] = None,
    cron: Annotated[str, typer.Option(help="Five fields in UTC, such as '0 6 * * 1'.")] = "",
    every_s: Annotated[float, typer.Option(help="Seconds between two runs.", min=0)] = 0.0,
    param: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE for the pipeline; {event.data.window} takes it from the event.")
    ] = None,
    promote: Annotated[str | None, typer.Option(help="Model whose new version to promote if it is better.")] = None,
    alias: Annotated[str, typer.Option(help="The alias to promote to.")] = "champion",
    cooldown_s: Annotated[float, typer.Option(help="Least seconds between two runs.", min=0)] = 0.0,
    as_json: JsonFlag = False,
) -> None:
    """Let an event, a new dataset version or the clock start a pipeline.

    \b
    modelyard trigger create retrain --on-event alert.raised --match monitor=delay --match kind=auc,calibration \\
        --pipeline train --param until={event.data.window} --promote delay
    """
    spec = TriggerSpec(
        name=name,
        on=_chosen(on_event, match or [], on_dataset, cron, every_s),
        start=StartPipeline(pipeline=pipeline, params={key: json_or_text(text) for key, text in pairs(param).items()}),
        then=None if promote is None else Promotion(model=promote, alias=alias),
        cooldown_s=cooldown_s,
    )
    _show(client().post("/api/triggers", spec, Trigger), as_json)


@app.command()
def delete(name: Name) -> None:
    """Remove a trigger; what it did stays on record."""
    client().delete(_path(name))
    typer.echo(f"trigger {name} deleted")


@app.command()
def enable(name: Name, as_json: JsonFlag = False) -> None:
    """Switch a trigger on."""
    _show(client().patch(_path(name), SetEnabled(enabled=True), Trigger), as_json)


@app.command()
def disable(name: Name, as_json: JsonFlag = False) -> None:
    """Switch a trigger off."""
    _show(client().patch(_path(name), SetEnabled(enabled=False), Trigger), as_json)


@app.command()
def history(
    name: Annotated[str | None, typer.Argument(help="Only what this trigger did.")] = None,
    alert: Annotated[str | None, typer.Option(help="Only what was done about this alert.")] = None,
    limit: Limit = 50,
    as_json: JsonFlag = False,
) -> None:
    """What happened, what was done about it, and what came of that; newest first."""
    page = client().get("/api/responses", Page[Response], {"trigger": name, "alert": alert, "limit": limit})
    columns = {
        "AT": lambda one: one.created_at,
        "TRIGGER": lambda one: one.trigger,
        "EVENT": lambda one: f"{one.event_kind} {one.event_subject}",
        "STATE": lambda one: one.state,
        "RUN": lambda one: one.pipeline_run,
        "CHALLENGER": lambda one: f"{one.model}@{one.challenger}" if one.challenger else None,
        "WHY": lambda one: one.verdict or one.reason,
    }
    show_items(page.items, columns, as_json=as_json, empty="no trigger did anything yet", more=page.next)


def _chosen(on_event: str | None, match: list[str], on_dataset: str | None, cron: str, every_s: float) -> On:
    given = [on_event is not None, on_dataset is not None, bool(cron or every_s)]
    if sum(given) != 1 or (match and on_event is None):
        raise InvalidInput(
            "a trigger waits for one thing: an event (with --match, if wanted), a dataset, or the clock",
            code="trigger.on_invalid",
            hint="give one of --on-event, --on-dataset, --cron or --every-s",
        )
    if on_event is not None:
        fields: dict[str, Any] = {}
        for key, text in pairs(match, "FIELD=VALUE").items():
            values = [json_or_text(one) for one in text.split(",")]
            fields[key] = values if len(values) > 1 else values[0]
        return OnEvent(kind=on_event, match=fields)
    if on_dataset is not None:
        return OnDataset(dataset=on_dataset)
    return OnSchedule(cron=cron, every_s=every_s)


def _path(name: str) -> str:
    return f"/api/triggers/{quote(name, safe='')}"


def _on(on: On) -> str:
    match on:
        case OnEvent():
            fields = ", ".join(f"{name}={value}" for name, value in on.match.items())
            return f"{on.kind} {fields}".strip()
        case OnDataset():
            return f"new version of dataset {on.dataset}"
        case OnSchedule():
            return f"cron {on.cron}" if on.cron else f"every {on.every_s:g} s"


def _then(then: Promotion | None) -> str | None:
    return None if then is None else f"promote {then.model or 'its model'} to {then.alias} if better"


def _show(found: Trigger, as_json: bool) -> None:
    if as_json:
        show_json(found)
        return
    spec = found.spec
    show_fields(
        [
            ("name", found.name),
            ("on", _on(spec.on)),
            ("starts", spec.start.pipeline),
            ("params", ", ".join(f"{name}={value}" for name, value in spec.start.params.items())),
            ("then", _then(spec.then)),
            ("cooldown_s", spec.cooldown_s),
            ("enabled", spec.enabled),
            ("next", found.next_at),
            ("created by", found.created_by),
        ]
    )
