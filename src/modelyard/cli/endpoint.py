"""`modelyard endpoint`: what is served, by which model version, and what it answered."""

from __future__ import annotations

import sys
from collections.abc import Callable
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from modelyard.cli.context import JsonFlag, client, show_fields, show_items, show_json
from modelyard.cli.options import pair
from modelyard.kernel.errors import InvalidInput
from modelyard.sdk import serving
from modelyard.types.serving import Endpoint, EndpointOptions, Variant, VariantSpec

app = typer.Typer(add_completion=False, no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The endpoint's name.")]
Alias = Annotated[str, typer.Option(help="Follow this alias of the model. Default: champion.")]
Version = Annotated[int | None, typer.Option("--version", help="Serve this version, whatever the aliases do.")]
Variants = Annotated[
    list[str] | None,
    typer.Option("--variant", help="NAME=ALIAS_OR_VERSION:WEIGHT, such as canary=7:10; repeatable."),
]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it serves what is asked for.")]
Reason = Annotated[str, typer.Option(help="Why, for the event log.")]


@app.callback()
def endpoint() -> None:
    """Serve a model as a process that speaks the Open Inference Protocol v2, and keep every prediction.

    \b
    modelyard endpoint create delay --model delay --alias champion
    modelyard endpoint predict delay inputs.json
    """


@app.command("list")
def list_endpoints(
    limit: Annotated[int, typer.Option(help="At most so many.", min=1, max=1000)] = 100, as_json: JsonFlag = False
) -> None:
    """The endpoints of the project."""
    page = serving.list_endpoints(client(), limit=limit)
    columns = {
        "NAME": lambda one: one.name,
        "STATE": lambda one: one.state,
        "SERVES": lambda one: _shown(one.serving),
        "REVISION": lambda one: f"{one.observed_revision}/{one.revision}",
        "ROWS": lambda one: one.rows_logged,
        "URL": lambda one: one.url,
        "ERROR": lambda one: one.error[:80],
    }
    empty = "no endpoint yet; make one with `modelyard endpoint create NAME --model MODEL`"
    show_items(page.items, columns, as_json=as_json, empty=empty, more=page.next)


@app.command()
def get(name: Name, as_json: JsonFlag = False) -> None:
    """An endpoint: what is wanted, what is served, where."""
    _show(_handle(name).get(), as_json=as_json)


@app.command()
def create(
    name: Name,
    model: Annotated[str, typer.Option(help="The registered model that it serves.")],
    alias: Alias = "",
    version: Version = None,
    variant: Variants = None,
    port: Annotated[int, typer.Option(help="Port on loopback. 0: a free one, kept over restarts.")] = 0,
    wait: Wait = True,
    as_json: JsonFlag = False,
) -> None:
    """Serve a model under a name."""
    handle = _handle(name)
    made = handle.create(
        model, alias=alias, version=version, variants=_variants(variant), options=EndpointOptions(port=port)
    )
    _show(handle.wait_ready() if wait else made, as_json=as_json)


@app.command()
def update(
    name: Name,
    alias: Alias = "",
    version: Version = None,
    variant: Variants = None,
    running: Annotated[bool | None, typer.Option("--start/--stop", help="Whether it runs at all.")] = None,
    reason: Reason = "",
    wait: Wait = True,
    as_json: JsonFlag = False,
) -> None:
    """Change what an endpoint serves, without a failed request, or stop and start it."""
    handle = _handle(name)
    changed = handle.update(alias=alias, version=version, variants=_variants(variant), running=running, reason=reason)
    _show(handle.wait_ready() if wait and running is not False else changed, as_json=as_json)


@app.command()
def delete(name: Name, reason: Reason = "", as_json: JsonFlag = False) -> None:
    """Stop an endpoint and forget it; its logged predictions stay."""
    deleted = _handle(name).delete(reason)
    if as_json:
        show_json(deleted)
    else:
        typer.echo(f"endpoint {name} is being stopped; its predictions stay in dataset predictions.{name}")


@app.command()
def predict(
    name: Name,
    file: Annotated[
        Path | None, typer.Argument(help="JSON: column names to lists of values. Default: standard input.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Ask an endpoint. The rows are logged as any others are."""
    found = _handle(name).predict(_columns(file))
    if as_json:
        show_json(found)
        return
    typer.echo(f"version {found.model_version} ({found.variant}), request {found.id}")
    columns: dict[str, Callable[[Any], Any]] = {output: itemgetter(output) for output in found.outputs}
    lists = {output: list(values) for output, values in found.outputs.items()}
    rows = [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)]
    show_items(rows, columns, as_json=False, empty="no rows")


@app.command()
def logs(
    name: Name,
    limit: Annotated[int, typer.Option(help="At most so many rows.", min=1, max=1000)] = 20,
    as_json: JsonFlag = False,
) -> None:
    """The newest logged predictions of an endpoint."""
    found = _handle(name).logs(limit)
    if as_json:
        show_json(found)
        return
    names = list(found.rows[0]) if found.rows else []
    hidden = ("request_id", "digest", "row")
    columns: dict[str, Callable[[Any], Any]] = {one: itemgetter(one) for one in names if one not in hidden}
    show_items(found.rows, columns, as_json=False, empty="no prediction yet")


@app.command()
def history(name: Name, as_json: JsonFlag = False) -> None:
    """What an endpoint served since when."""
    columns = {
        "SINCE": lambda one: one.at,
        "REVISION": lambda one: one.revision,
        "SERVED": lambda one: _shown(one.variants) or "nothing",
        "BY": lambda one: one.by,
        "REASON": lambda one: one.reason,
    }
    show_items(_handle(name).switches(), columns, as_json=as_json, empty="it has not served anything yet")


def _handle(name: str) -> serving.EndpointHandle:
    return serving.endpoint(name, client())


def _shown(variants: list[Variant]) -> str:
    whole = sum(one.weight for one in variants)
    if len(variants) == 1:
        return f"{variants[0].model}@{variants[0].version}"
    return ", ".join(f"{one.model}@{one.version} {one.weight / whole:.0%}" for one in variants)


def _show(found: Endpoint, *, as_json: bool) -> None:
    if as_json:
        show_json(found)
        return
    show_fields(
        [
            ("name", found.name),
            ("state", found.state),
            ("url", found.url),
            ("serves", _shown(found.serving)),
            ("wanted", _shown(found.variants)),
            ("follows", ", ".join(one.alias for one in found.variants if one.alias)),
            ("revision", f"{found.observed_revision} of {found.revision}"),
            ("rows logged", found.rows_logged),
            ("restarts", found.restarts),
            ("created", f"{found.created_at:%Y-%m-%d %H:%M:%S} by {found.created_by}"),
            ("error", found.error),
        ]
    )


def _variants(given: list[str] | None) -> list[VariantSpec]:
    return [_variant(one) for one in given or []]


def _variant(text: str) -> VariantSpec:
    name, rest = pair(text, "NAME=ALIAS_OR_VERSION:WEIGHT")
    target, _, weight = rest.partition(":")
    try:
        share = float(weight or "1")
    except ValueError:
        share = -1.0
    if not target or share < 0:
        raise InvalidInput(
            f"'{text}' is no variant",
            code="endpoint.variant_invalid",
            hint="write NAME=ALIAS_OR_VERSION:WEIGHT, such as --variant main=champion:90 --variant canary=7:10",
        )
    about: dict[str, Any] = {"version": int(target)} if target.isdecimal() else {"alias": target}
    return VariantSpec(name=name, weight=share, **about)


def _columns(file: Path | None) -> dict[str, list[Any]]:
    try:
        text = sys.stdin.buffer.read() if file is None else file.read_bytes()
        return msgspec.json.decode(text, type=dict[str, list[Any]])
    except OSError as error:
        raise InvalidInput(f"{file} cannot be read: {error.strerror}", code="prediction.invalid") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidInput(
            f"the inputs are not columns: {error}",
            code="prediction.invalid",
            hint='write JSON such as {"distance": [740.0, 2475.0], "carrier": ["UA", "B6"]}',
        ) from error
