"""`modelyard config`: the settings in force."""

from __future__ import annotations

import typer

from modelyard.cli.context import JsonFlag, settings_with_origin, show_items

app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.callback()
def config() -> None:
    """Settings: flag > environment MODELYARD_… > modelyard.toml > default."""


@app.command()
def show(as_json: JsonFlag = False) -> None:
    """Every setting, its value and where it came from; secrets are masked."""
    columns = {
        "SETTING": lambda one: one.name,
        "VALUE": lambda one: one.value,
        "ORIGIN": lambda one: one.origin,
        "MEANING": lambda one: one.doc,
    }
    show_items(settings_with_origin(), columns, as_json=as_json, empty="")
