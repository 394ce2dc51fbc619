"""`modelyard dataset contract …`, `consumer …`, `profile`, `profile-diff`, `anomalies`, `create-from-sql`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import typer

from modelyard.cli.context import JsonFlag, client, show_fields, show_items, show_json
from modelyard.cli.options import pairs
from modelyard.kernel.errors import InvalidInput
from modelyard.sdk import data
from modelyard.sdk.quality import list_anomalies
from modelyard.types.contracts import Contract, ContractCheck
from modelyard.types.data import WriteResult
from modelyard.types.profiles import FreshnessState

T = TypeVar("T")
app = typer.Typer(add_completion=False, no_args_is_help=True)
contract = typer.Typer(add_completion=False, no_args_is_help=True, help="What a dataset promises, and to whom.")
consumer = typer.Typer(add_completion=False, no_args_is_help=True, help="Who uses a dataset, and which columns.")
app.add_typer(contract, name="contract")
app.add_typer(consumer, name="consumer")

Name = Annotated[str, typer.Argument(help="The dataset's name.")]
Breaking = Annotated[bool, typer.Option("--breaking", help="Go on although consumers break.")]
_DOCUMENT_BYTES_MAX = 1024 * 1024


# --- profiles and anomalies -------------------------------------------------------------------------------------


@app.command()
def profile(
    name: Annotated[str, typer.Argument(help="The dataset, or NAME@VERSION.")], as_json: JsonFlag = False
) -> None:
    """What the rows of a version look like, column by column."""
    name, ref = _split(name)
    found = _handle(name).profile(ref)
    if as_json:
        show_json(found)
        return
    typer.echo(f"{found.rows} rows\n")
    columns = {
        "COLUMN": lambda one: one.name,
        "TYPE": lambda one: one.type,
        "NULLS": lambda one: one.nulls,
        "NAN": lambda one: one.nans or None,
        "DISTINCT": lambda one: one.distinct if one.exact or one.distinct is None else f"~{one.distinct}",
        "MIN": lambda one: one.min,
        "MEDIAN": lambda one: one.quantiles.get("0.5"),
        "MEAN": lambda one: one.mean,
        "MAX": lambda one: one.max,
        "STD": lambda one: one.std,
        "LENGTH": lambda one: None if one.lengths is None else f"{one.lengths.min}-{one.lengths.max}",
        "MOST FREQUENT": lambda one: ", ".join(
            f"{value} ({count})" for value, count in zip(one.top[:3], one.top_counts, strict=False)
        ),
    }
    show_items(found.columns, columns, as_json=False, empty="no columns")


@app.command("profile-diff")
def profile_diff(
    name: Name,
    before: Annotated[str, typer.Argument(help="The version compared with: a number, a tag or a branch.")],
    after: Annotated[str | None, typer.Argument(help="The other one. Default: the newest.")] = None,
    other: Annotated[str | None, typer.Option(help="Another dataset that AFTER is a version of.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """How the values of two versions differ: distributions, nulls, new values; what moved most comes first."""
    found = _handle(name).profile_diff(before, after, other=other)
    if as_json:
        show_json(found)
        return
    show_fields(
        [("profiles", f"{found.before} -> {found.after}"), ("rows", f"{found.rows_before} -> {found.rows_after}")]
    )
    typer.echo("")
    columns = {
        "COLUMN": lambda one: one.name,
        "VERDICT": lambda one: one.verdict,
        "PSI": lambda one: one.psi,
        "MEAN": lambda one: None if one.mean_before is None else f"{one.mean_before:.6g} -> {one.mean_after:.6g}",
        "DISTINCT": lambda one: (
            None if one.distinct_before is None else f"{one.distinct_before} -> {one.distinct_after}"
        ),
        "WHY": lambda one: "; ".join(one.reasons),
    }
    show_items(found.columns, columns, as_json=False, empty="no columns")


@app.command()
def anomalies(
    name: Annotated[str | None, typer.Argument(help="A dataset. Default: all of the project.")] = None,
    standing: Annotated[bool, typer.Option("--standing", help="Only what is about newest versions.")] = False,
    limit: Annotated[int, typer.Option(help="At most so many, newest first.", min=1, max=1000)] = 50,
    as_json: JsonFlag = False,
) -> None:
    """What was unusual, each with its reason: volume, freshness, schema, nulls, distinct values, means."""
    page = list_anomalies(client(), name, standing=standing, limit=limit)
    columns = {
        "FOUND": lambda one: one.found_at,
        "DATASET": lambda one: one.dataset if one.version is None else f"{one.dataset}@{one.version}",
        "KIND": lambda one: one.anomaly.kind,
        "WHY": lambda one: one.anomaly.reason,
        "STANDS": lambda one: one.ended_at is None,
    }
    show_items(page.items, columns, as_json=as_json, empty="nothing unusual", more=page.next)


@app.command("create-from-sql")
def create_from_sql(
    name: Name,
    statement: Annotated[
        str, typer.Argument(help="One SELECT over datasets, by their names; @FILE reads it from one.")
    ],
    append: Annotated[bool, typer.Option("--append", help="Add the rows instead of replacing all.")] = False,
    at: Annotated[list[str] | None, typer.Option(help="DATASET=VERSION: read it at that version; repeatable.")] = None,
    evolve: Annotated[bool, typer.Option("--evolve", help="Allow new columns; replacing all, wider types.")] = False,
    replace_schema: Annotated[
        bool, typer.Option("--replace-schema", help="Replacing all rows, allow any other schema.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Make a dataset, or its next version, by SQL over others; exits with 1 where its checks turn it down."""
    text = _read(Path(statement[1:])) if statement.startswith("@") else statement
    inputs = pairs(at, "DATASET=VERSION", may_be_empty=False)
    written = _handle(name).from_sql(
        text, mode="append" if append else "overwrite", inputs=inputs, evolve=evolve, replace_schema=replace_schema,
    )  # fmt: skip
    _show_written(name, written, as_json=as_json)


def _show_written(name: str, written: WriteResult, *, as_json: bool) -> None:
    if as_json:
        show_json(written)
    elif written.published:
        typer.echo(f"{written.rows} rows written: {name} is at version {written.version}")
    else:
        typer.echo(f"{written.rows} rows kept in quarantine as {written.quarantine_id}; {name} did not move")
    if not as_json:
        for one in written.report.failed:
            typer.echo(f"  {'warning' if one.severity == 'warn' else 'failed'}: {one.name}: {one.message}")
    if not written.published:
        raise typer.Exit(1)


# --- contracts --------------------------------------------------------------------------------------------------


@contract.command("set")
def set_contract(
    name: Name,
    file: Annotated[Path, typer.Argument(help="A YAML or JSON file with the contract.")],
    breaking: Breaking = False,
    as_json: JsonFlag = False,
) -> None:
    """Put a contract in force for every write from now on."""
    made = _handle(name).set_contract(_document(file, Contract), breaking=breaking)
    if as_json:
        show_json(made)
    else:
        typer.echo(f"contract {made.number} of {name} is in force")


@contract.command("get")
def get_contract(
    name: Name,
    number: Annotated[int | None, typer.Option(help="An earlier one. Default: the one in force.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """The contract in force, or an earlier one."""
    found = _handle(name).contract(number)
    if as_json:
        show_json(found)
        return
    held = found.contract
    fresh = _handle(name).freshness()
    show_fields(
        [
            ("contract", f"{found.number}, set {found.set_at:%Y-%m-%d %H:%M:%S} by {found.set_by}"),
            ("owner", held.owner),
            ("description", held.description),
            ("columns", "these and no others" if held.closed else "at least these"),
            ("a version every", None if held.max_age_s is None else f"{held.max_age_s:g} s"),
            ("the next is due", _due(fresh)),
            ("what is unusual", "blocks" if held.on_anomaly == "block" else "warns"),
            ("checks", len(held.checks)),
        ]
    )
    typer.echo("")
    columns = {
        "COLUMN": lambda one: one.name,
        "TYPE": lambda one: one.type or "any",
        "NULLS": lambda one: "may be null" if one.nullable else "never null",
        "DESCRIPTION": lambda one: one.description,
    }
    show_items(held.columns, columns, as_json=False, empty="it names no columns")


def _due(fresh: FreshnessState) -> str | None:
    return None if fresh.due_at is None else f"{fresh.due_at:%Y-%m-%d %H:%M:%S}{', overdue' if fresh.overdue else ''}"


@contract.command("history")
def list_contracts(name: Name, as_json: JsonFlag = False) -> None:
    """The contracts that were set, newest first."""
    columns = {
        "NUMBER": lambda one: one.number,
        "SET": lambda one: one.set_at,
        "BY": lambda one: one.set_by,
        "OWNER": lambda one: one.contract.owner,
        "COLUMNS": lambda one: len(one.contract.columns),
        "CHECKS": lambda one: len(one.contract.checks),
    }
    empty = f"no contract yet; set one with `modelyard dataset contract set {name} FILE`"
    show_items(_handle(name).contracts(), columns, as_json=as_json, empty=empty)


@contract.command("check")
def check_contract(
    name: Name,
    schema: Annotated[
        Path | None, typer.Option(help="A schema to try: YAML or JSON `{column: type}`, or a Parquet file.")
    ] = None,
    drop: Annotated[
        list[str] | None, typer.Option(help="A column to think away of the newest version's; repeatable.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Whom a schema would break, by name; nothing is written. Exits with 1 where somebody would."""
    tried = None if schema is None else _schema(schema)
    if drop:
        tried = _without(tried or {one.name: one.type for one in _handle(name).version().columns}, drop)
    found = _handle(name).check_contract(tried)
    if as_json:
        show_json(found)
    else:
        _show_check(found)
    if not found.passed:
        raise typer.Exit(1)


def _show_check(found: ContractCheck) -> None:
    columns = {
        "WHO": lambda one: one.consumer,
        "COLUMN": lambda one: one.column,
        "WHY": lambda one: one.problem,
    }
    known = sum(bool(one.columns) for one in found.consumers)
    show_items(found.breaks, columns, as_json=False, empty=f"nobody breaks; {known} consumers were asked")
    for one in found.affected:
        typer.echo(f"may be affected, its columns are not known: {one}")


# --- consumers --------------------------------------------------------------------------------------------------


@consumer.command("list")
def list_consumers(name: Name, as_json: JsonFlag = False) -> None:
    """Who uses a dataset, as far as they said so or lineage shows it."""
    columns = {
        "CONSUMER": lambda one: one.consumer,
        "COLUMNS": lambda one: ", ".join(column.name for column in one.columns) or "not known",
        "KNOWN BY": lambda one: one.origin,
        "OWNER": lambda one: one.owner,
        "SINCE": lambda one: one.at,
    }
    empty = f"nobody yet; say so with `modelyard dataset consumer add {name} URN --column COLUMN`"
    show_items(_handle(name).consumers(), columns, as_json=as_json, empty=empty)


@consumer.command("add")
def add_consumer(
    name: Name,
    urn: Annotated[str, typer.Argument(help="Who: a URN such as model:delay, pipeline:retrain or team:ops.")],
    column: Annotated[list[str], typer.Option(help="A column it uses, as NAME or NAME=TYPE; repeatable.")],
    owner: Annotated[str, typer.Option(help="Whom to ask.")] = "",
    as_json: JsonFlag = False,
) -> None:
    """Say which columns somebody uses: who would break them is told so before anything is published."""
    uses = {given.partition("=")[0]: given.partition("=")[2] for given in column}
    made = _handle(name).declare_consumer(urn, uses, owner=owner)
    if as_json:
        show_json(made)
    else:
        typer.echo(f"{made.consumer} uses {len(made.columns)} columns of {name}")


@consumer.command("remove")
def remove_consumer(name: Name, urn: Annotated[str, typer.Argument(help="The consumer's URN.")]) -> None:
    """Forget a consumer."""
    _handle(name).withdraw_consumer(urn)
    typer.echo(f"{urn} uses {name} no more")


# --- within -----------------------------------------------------------------------------------------------------


def _handle(name: str) -> data.DatasetHandle:
    return data.dataset(name, client())


def _split(text: str) -> tuple[str, str | None]:
    name, _, ref = text.partition("@")
    return name, ref or None


def _schema(file: Path) -> dict[str, str]:
    if file.suffix.lower() != ".parquet":
        return _document(file, dict[str, str])
    import pyarrow as pa  # heavy: imported late
    import pyarrow.parquet as pq  # heavy: imported late

    try:
        return {field.name: _kept_type(field.type) for field in pq.read_schema(file)}
    except (pa.ArrowInvalid, OSError) as error:
        raise InvalidInput(f"{file} is no readable Parquet file: {error}", code="dataset.document_invalid") from error


def _without(columns: dict[str, str], dropped: list[str]) -> dict[str, str]:
    for one in dropped:
        if columns.pop(one, None) is None:
            raise InvalidInput(f"there is no column {one!a} to drop", code="dataset.column_unknown")
    return columns


def _kept_type(kind: Any) -> str:
    """The type under which a dataset keeps an Arrow type, for those that differ most often."""
    import pyarrow.types as at  # heavy: imported late

    if at.is_timestamp(kind):
        return "timestamp[us, tz=UTC]"
    if at.is_large_string(kind) or at.is_string_view(kind):
        return "string"
    return _kept_type(kind.value_type) if at.is_dictionary(kind) else str(kind)


def _document(file: Path, kind: type[T]) -> T:
    """A YAML or JSON file as this type. Raises InvalidInput with the place."""
    import yaml  # heavy: imported late

    text = _read(file)
    try:
        # An alias could stand for itself many times over; a contract has no use for one.
        if any(isinstance(token, (yaml.AliasToken, yaml.AnchorToken)) for token in yaml.scan(text)):
            raise InvalidInput(f"{file} uses YAML anchors, which it may not", code="dataset.document_invalid")
        return msgspec.convert(yaml.safe_load(text), kind)
    except (yaml.YAMLError, msgspec.ValidationError, RecursionError) as error:
        raise InvalidInput(f"{file} does not fit: {error}", code="dataset.document_invalid") from error


def _read(file: Path) -> str:
    try:
        if file.stat().st_size > _DOCUMENT_BYTES_MAX:
            raise InvalidInput(f"{file} is larger than {_DOCUMENT_BYTES_MAX} bytes", code="dataset.document_invalid")
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{file} cannot be read: {error}", code="dataset.document_invalid") from error
