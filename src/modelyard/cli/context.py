"""What every command shares: the settings from the flags, the client, and how results and errors are shown."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec
import typer

from modelyard.kernel import settings
from modelyard.kernel.errors import ModelyardError
from modelyard.kernel.settings import Settings

if TYPE_CHECKING:
    from modelyard.sdk.client import Client

T = TypeVar("T")
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
_flags: dict[str, str | None] = {}


def set_flags(**flags: str | None) -> None:
    """Keep the global flags for the command that follows."""
    _flags.clear()
    _flags.update(flags)


def current_settings(**more: Any) -> Settings:
    """The settings in force, flags included."""
    return settings.load({**_flags, **more})


def settings_with_origin() -> list[settings.Origin]:
    """Every setting with its value and where it came from."""
    return settings.load_with_origin(_flags)[1]


def client() -> Client:
    """The client for the settings in force."""
    from modelyard.sdk.client import connect  # httpx costs a tenth of a second that --help need not pay

    return connect(current_settings())


def show_json(value: Any) -> None:
    """Print any Struct or builtins as indented JSON."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def show_table(items: Sequence[T], columns: Mapping[str, Callable[[T], Any]], *, empty: str) -> None:
    """Print rows as a table; `empty` says which command would make the first one."""
    if not items:
        typer.echo(empty)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in columns:
        table.add_column(title, overflow="fold")
    for item in items:
        table.add_row(*(Text(cell(value(item))) for value in columns.values()))
    Console(soft_wrap=not sys.stdout.isatty()).print(table)


def show_items(
    items: Sequence[T], columns: Mapping[str, Callable[[T], Any]], *, as_json: bool, empty: str, more: str | None = None
) -> None:
    """A listing, as JSON or as a table; `more` is the token that continues it."""
    if as_json:
        show_json({"items": items, "next": more})
        return
    show_table(items, columns, empty=empty)
    if more:
        typer.echo("… there are more; narrow the listing or raise --limit")


def show_fields(pairs: Iterable[tuple[str, Any]]) -> None:
    """Print names and values below each other, aligned."""
    shown = [(name, cell(value)) for name, value in pairs]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        typer.echo(f"{name.ljust(width)}  {value}")


def cell(value: Any) -> str:
    """A value as a person reads it. Control characters, which could drive a terminal, are made visible."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in str(value))


def show_error(error: ModelyardError) -> None:
    """What is wrong and why, and what to do next, on standard error."""
    typer.secho(f"error: {error.message}", fg="red", err=True)
    if error.hint:
        typer.echo(f"  next: {error.hint}", err=True)
    request_id = error.details.get("request_id")
    if error.status >= 500 and request_id:
        typer.echo(f"  request: {request_id}", err=True)
