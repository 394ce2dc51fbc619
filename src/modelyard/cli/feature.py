"""`modelyard feature`: feature views, and the point-in-time join of an entity frame with them."""

from __future__ import annotations

import runpy
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from modelyard.cli.context import JsonFlag, client, show_fields, show_items, show_json
from modelyard.cli.options import instant, pairs
from modelyard.kernel.errors import InvalidInput, UserCodeError
from modelyard.sdk import features
from modelyard.types.features import DefineFeatureView, FeatureVerification, FeatureView, VerifyLogged, duration_text

app = typer.Typer(add_completion=False, no_args_is_help=True)
_DEFINITION_BYTES_MAX = 1024 * 1024


@app.callback()
def feature() -> None:
    """What is known about an entity at an instant: declared once, joined so that nothing of the future leaks in.

    \b
    modelyard feature apply views.py
    modelyard feature historical flights.parquet -f origin_delays --timestamp scheduled_departure -o train.parquet
    """


@app.command("list")
def list_views(
    limit: Annotated[int, typer.Option(help="At most so many.", min=1, max=1000)] = 100, as_json: JsonFlag = False
) -> None:
    """The feature views of the project."""
    page = features.list_feature_views(client(), limit=limit)
    columns = {
        "NAME": lambda one: one.name,
        "VERSION": lambda one: one.version,
        "SOURCE": lambda one: one.definition.source,
        "ENTITIES": lambda one: ", ".join(one.definition.entities),
        "FEATURES": lambda one: len(one.features),
        "CREATED": lambda one: one.created_at,
    }
    empty = "no feature view yet; make one with `modelyard feature apply FILE`"
    show_items(page.items, columns, as_json=as_json, empty=empty, more=page.next)


@app.command()
def get(
    ref: Annotated[str, typer.Argument(help="NAME for the current version, or NAME@VERSION.")],
    as_json: JsonFlag = False,
) -> None:
    """A feature view and its features."""
    view = features.get_feature_view(ref, client())
    if as_json:
        show_json(view)
        return
    _show(view)


@app.command()
def apply(
    file: Annotated[Path, typer.Argument(help="A Python file that declares views, or one view as YAML or JSON.")],
    as_json: JsonFlag = False,
) -> None:
    """Make the definitions in a file the current versions of their views.

    A Python file is run, and every feature view that it leaves as a variable (or in a list) is applied.
    """
    applied = features.apply(*definitions_in(file), client=client())
    columns = {
        "NAME": lambda one: one.name,
        "VERSION": lambda one: one.version,
        "FEATURES": lambda one: len(one.features),
    }
    show_items(applied, columns, as_json=as_json, empty="nothing was declared")


@app.command()
def historical(
    entities: Annotated[Path, typer.Argument(help="The entity frame: Parquet, CSV or Arrow.")],
    feature: Annotated[list[str], typer.Option("--feature", "-f", help="VIEW or VIEW:FEATURE; repeat for more.")],
    timestamp: Annotated[str, typer.Option(help="The frame's column of instants.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The Parquet file to write.")],
    pin: Annotated[list[str] | None, typer.Option(help="DATASET@VERSION to read; repeat for more.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Join features to an entity frame, each as it stood at the instant of its row."""
    frame = _read_frame(entities)
    versions = dict(text.rpartition("@")[::2] for text in pin or [])
    joined = features.historical(frame, feature, timestamp=timestamp, versions=versions, client=client())
    import pyarrow.parquet as pq  # heavy: imported late

    pq.write_table(joined, output)
    record = features.join_record(joined)
    if as_json:
        show_json({"output": str(output), "record": record})
        return
    typer.echo(f"wrote {record.rows} rows with {len(record.features)} features to {output}")
    for one in record.datasets:
        typer.echo(f"  read {one.dataset}@{one.version}")


@app.command()
def verify(
    served: Annotated[
        Path | None, typer.Argument(help="Rows as they were served: entities, instant, <view>__<feature>.")
    ] = None,
    feature: Annotated[list[str] | None, typer.Option("--feature", "-f", help="VIEW or VIEW:FEATURE; repeat.")] = None,
    timestamp: Annotated[
        str, typer.Option(help="The file's column of instants; of a log `event_time` (it is by itself) or `at`.")
    ] = "",
    endpoint: Annotated[str, typer.Option(help="Read what was served from this endpoint's prediction log.")] = "",
    given_as: Annotated[
        list[str] | None,
        typer.Option("--input", help="COLUMN=INPUT: the model's input that holds a feature or an entity; repeat."),
    ] = None,
    entities: Annotated[
        str, typer.Option(help="DATASET:COLUMN with the entities of the log's rows by their own ids.")
    ] = "",
    since: Annotated[
        datetime | None, typer.Option(parser=instant, help="Of a log, rows from this instant on (UTC).")
    ] = None,
    until: Annotated[
        datetime | None, typer.Option(parser=instant, help="Of a log, rows before this instant (UTC).")
    ] = None,
    rows: Annotated[int, typer.Option(help="Of a log, at most so many rows, the newest.", min=1)] = 100_000,
    pin: Annotated[list[str] | None, typer.Option(help="DATASET@VERSION to read; repeat for more.")] = None,
    tolerance: Annotated[float, typer.Option(help="How far numbers may be apart; relative above one.")] = 1e-6,
    model: Annotated[str, typer.Option(help="NAME@VERSION to attest the outcome of, for its feature gate.")] = "",
    as_json: JsonFlag = False,
) -> None:
    """Recompute served features offline and show what differs. Ends with status 3 where something does.

    \b
    modelyard feature verify served.parquet -f origin_delays --timestamp t
    modelyard feature verify --endpoint late -f origin_delays --model delay@3
    """
    versions = dict(text.rpartition("@")[::2] for text in pin or [])
    if (served is None) == (not endpoint):
        raise InvalidInput(
            "name either a file of served rows or an endpoint", code="features.served_source", hint="see --help"
        )
    if served is not None:
        found = features.verify(
            _read_frame(served), feature or [], timestamp=timestamp, versions=versions, tolerance=tolerance,
            model=model, client=client(),
        )  # fmt: skip
    else:
        dataset, _, key = entities.rpartition(":")
        inputs = pairs(given_as, "COLUMN=INPUT", may_be_empty=False)
        asked = {
            "features": feature or [], "inputs": inputs, "entities": dataset, "key": key,
            "timestamp": timestamp or "event_time", "since": since, "until": until, "rows": rows,
            "pins": versions, "tolerance": tolerance, "model": model,
        }  # fmt: skip
        found = features.verify_logged(endpoint, _asked(asked), client())
    _show_verification(found, model, as_json)
    if not found.passed:
        raise typer.Exit(3)


def _asked(fields: dict[str, Any]) -> VerifyLogged:
    try:
        return msgspec.convert(fields, VerifyLogged)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"this cannot be verified: {error}", code="features.verify_invalid") from error


def _show_verification(found: FeatureVerification, model: str, as_json: bool) -> None:
    if as_json:
        show_json(found)
        return
    columns = {
        "FEATURE": lambda one: one.feature,
        "ROWS": lambda one: one.rows,
        "DIFFERENT": lambda one: one.different,
        "LARGEST": lambda one: one.largest,
        "SUCH AS": lambda one: next(
            (f"row {e.id or e.row}: {e.served}, not {e.offline}" for e in one.examples), ""
        ),
    }  # fmt: skip
    show_items(found.features, columns, as_json=False, empty="")
    if found.log is not None:
        left = f"; {found.unmatched} rows of unknown entity were left out" if found.unmatched else ""
        typer.echo(f"served values are those of {found.log.dataset}@{found.log.version}{left}")
    if found.attestation:
        typer.echo(f"attested of {model}: {'passed' if found.passed else 'failed'} ({found.attestation})")


def definitions_in(file: Path) -> list[DefineFeatureView]:
    """The feature views that a file declares. Raises InvalidInput, and UserCodeError where a Python file fails."""
    if not file.is_file():
        raise InvalidInput(f"there is no file {file}", code="file.not_found")
    if file.suffix == ".py":
        found = _declared(_run(file))
    elif file.suffix in {".json", ".yaml", ".yml"}:
        found = [_decoded(file)]
    else:
        raise InvalidInput(f"{file} is neither Python, YAML nor JSON", code="feature_view.file_unknown")
    if not found:
        raise InvalidInput(
            f"{file} declares no feature view",
            code="feature_view.none_declared",
            hint="assign `modelyard.feature_view(...)` to a variable",
        )
    return found


def _run(file: Path) -> dict[str, Any]:
    try:
        return runpy.run_path(str(file))
    except (ImportError, NameError, SyntaxError, TypeError, ValueError, AttributeError, LookupError, OSError) as error:
        raise UserCodeError(
            f"{file} failed: {type(error).__name__}: {error}",
            code="feature_view.file_failed",
            hint="run it with python",
        ) from error


def _declared(variables: dict[str, Any]) -> list[DefineFeatureView]:
    values: list[Any] = []
    for value in variables.values():
        values += value if isinstance(value, (list, tuple)) else [value]
    unique = {value.name: value for value in values if isinstance(value, DefineFeatureView)}
    return list(unique.values())


def _decoded(file: Path) -> DefineFeatureView:
    text = file.read_bytes()
    if len(text) > _DEFINITION_BYTES_MAX:
        raise InvalidInput(f"{file} is too large for a definition", code="feature_view.file_too_large")
    decode = msgspec.json.decode if file.suffix == ".json" else msgspec.yaml.decode
    try:
        return decode(text, type=DefineFeatureView)
    except (msgspec.ValidationError, msgspec.DecodeError, RecursionError) as error:
        raise InvalidInput(f"{file} is no feature view: {error}", code="feature_view.file_invalid") from error


def _read_frame(file: Path) -> Any:
    import pyarrow as pa  # heavy: imported late
    import pyarrow.dataset as ds  # heavy: imported late

    formats = {".parquet": "parquet", ".csv": "csv", ".arrow": "ipc", ".feather": "ipc"}
    if file.suffix not in formats:
        raise InvalidInput(
            f"{file} is neither {', '.join(sorted(formats))}", code="file.format_unknown", hint="convert it to Parquet"
        )
    try:
        return ds.dataset(str(file), format=formats[file.suffix]).to_table()
    except (pa.ArrowInvalid, OSError) as error:
        raise InvalidInput(f"{file} cannot be read: {str(error).splitlines()[0]}", code="file.unreadable") from error


def _show(view: FeatureView) -> None:
    definition = view.definition
    show_fields(
        [
            ("name", view.name),
            ("version", f"{view.version}{' (current)' if view.current else ''}"),
            ("description", definition.description),
            ("entities", ", ".join(definition.entities)),
            ("source", definition.source),
            ("event time", definition.event_time),
            ("known at", definition.known_at or "as it happens"),
            ("ttl", duration_text(definition.ttl_s) if definition.ttl_s else "never expires"),
            ("sql", definition.sql),
            ("created", f"{view.created_at:%Y-%m-%d %H:%M:%S} by {view.created_by}"),
        ]
    )
    typer.echo("")
    columns = {"FEATURE": lambda one: one.name, "TYPE": lambda one: one.type}
    show_items(view.features, columns, as_json=False, empty="")
