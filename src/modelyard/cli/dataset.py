"""`modelyard dataset`: datasets, their versions, and the batches that their checks turned down."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from modelyard.cli import dataset_changes, dataset_check, dataset_files, dataset_quality
from modelyard.cli.context import JsonFlag, client, show_fields, show_items, show_json
from modelyard.sdk import data
from modelyard.types.data import Column, Rows

app = typer.Typer(add_completion=False, no_args_is_help=True)
quarantine = typer.Typer(add_completion=False, no_args_is_help=True, help="Batches that their checks turned down.")
app.add_typer(quarantine, name="quarantine")
app.add_typer(dataset_files.app, name="files")
app.command("check")(dataset_check.check)
app.command("check-file")(dataset_check.check_file)
app.command("check-runs")(dataset_check.check_runs)
app.command("suite")(dataset_check.suite)
app.add_typer(dataset_quality.app)
dataset_changes.add_to(app)

Name = Annotated[str, typer.Argument(help="The dataset's name.")]
Version = Annotated[
    str | None,
    typer.Option("--version", "--at", help="A number, tag, branch or instant (2013-04-01T00:00Z). Default: newest."),
]
Where = Annotated[str | None, typer.Option("--filter", help="An SQL condition, such as \"origin = 'JFK'\".")]
_SUFFIXES = {
    ".parquet": "application/vnd.apache.parquet", ".csv": "text/csv", ".tsv": "text/tab-separated-values",
    ".jsonl": "application/x-ndjson", ".ndjson": "application/x-ndjson",
}  # fmt: skip


@app.callback()
def dataset() -> None:
    """Versioned tables: each write is checked first, and becomes a version or stays in quarantine.

    \b
    modelyard dataset write flights january.parquet
    modelyard dataset read flights --filter "origin = 'JFK'"
    """


@app.command("list")
def list_datasets(
    limit: Annotated[int, typer.Option(help="At most so many.", min=1, max=1000)] = 100, as_json: JsonFlag = False
) -> None:
    """The datasets of the project."""
    page = data.list_datasets(client(), limit=limit)
    columns = {
        "NAME": lambda one: one.name,
        "VERSION": lambda one: one.latest,
        "ROWS": lambda one: one.rows,
        "BYTES": lambda one: one.size_bytes,
        "UPDATED": lambda one: one.updated_at,
        "DESCRIPTION": lambda one: one.description,
    }
    empty = "no dataset yet; make one with `modelyard dataset write NAME FILE`"
    show_items(page.items, columns, as_json=as_json, empty=empty, more=page.next)


@app.command()
def get(name: Name, version: Version = None, as_json: JsonFlag = False) -> None:
    """A dataset, and its newest (or the given) version with columns, profile and check results."""
    found = _handle(name).get()
    shown = _handle(name).version(version) if found.latest else None
    if as_json:
        show_json({"dataset": found, "version": shown})
        return
    show_fields(
        [
            ("name", found.name),
            ("description", found.description),
            ("key", ", ".join(found.key)),
            ("versions", found.latest),
            ("tags", ", ".join(f"{tag}={number}" for tag, number in found.tags.items())),
            ("branches", ", ".join(f"{branch}={number}" for branch, number in found.branches.items())),
            ("partitioned by", ", ".join(found.partition_by)),
            ("read in place from", found.origin),
            ("created", f"{found.created_at:%Y-%m-%d %H:%M:%S} by {found.created_by}"),
        ]
    )
    if shown is None:
        typer.echo(f"\nno version yet; write one with `modelyard dataset write {name} FILE`")
        return
    typer.echo(f"\nversion {shown.version}: {shown.rows} rows, {shown.size_bytes} bytes, by {shown.created_by}")
    profiles = {} if shown.profile is None else {one.name: one for one in shown.profile.columns}
    columns = {
        "COLUMN": lambda one: one.name,
        "TYPE": lambda one: one.type,
        "NULLS": lambda one: profiles[one.name].nulls if one.name in profiles else None,
        "DISTINCT": lambda one: profiles[one.name].distinct if one.name in profiles else None,
        "MIN": lambda one: profiles[one.name].min if one.name in profiles else None,
        "MEAN": lambda one: profiles[one.name].mean if one.name in profiles else None,
        "MAX": lambda one: profiles[one.name].max if one.name in profiles else None,
    }
    show_items(shown.columns, columns, as_json=False, empty="")


@app.command()
def create(
    name: Name,
    description: Annotated[str, typer.Option(help="What it holds.")] = "",
    key: Annotated[list[str] | None, typer.Option(help="A column that says what a row is about; repeatable.")] = None,
    checks: Annotated[Path | None, typer.Option(help="Checks, as in `check --suite`.")] = None,
    partition_by: Annotated[list[str] | None, typer.Option(help="Split its files by this column; repeatable.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Make a dataset without versions."""
    made = _handle(name).create(
        description=description,
        key=key or [],
        checks=dataset_check.read_checks(checks, name) or [],
        partition_by=partition_by or [],
    )
    if as_json:
        show_json(made)
    else:
        typer.echo(f"dataset {made.name} is there; write to it with `modelyard dataset write {made.name} FILE`")


@app.command()
def write(
    name: Name,
    file: Annotated[Path, typer.Argument(help="Parquet, Arrow, CSV, TSV or JSON lines.", exists=True, dir_okay=False)],
    mode: Annotated[str, typer.Option(help="append, or overwrite: the rows take the place of all before.")] = "append",
    checks: Annotated[Path | None, typer.Option(help="Further checks for this write, as in `checks`.")] = None,
    key: Annotated[str | None, typer.Option(help="Idempotency key: repeated, the write has its first result.")] = None,
    source: Annotated[str, typer.Option(help="Where the rows came from. Default: the file's name.")] = "",
    evolve: Annotated[bool, typer.Option("--evolve", help="Allow new columns; on overwrite, wider types.")] = False,
    replace_schema: Annotated[
        bool, typer.Option("--replace-schema", help="On overwrite: allow any other schema.")
    ] = False,
    breaking: Annotated[bool, typer.Option("--breaking", help="Write although the schema breaks consumers.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Write a file as the next version; exits with 1 where the checks turn it down."""
    written = data.send_file(
        client(), name, file, media_type=_SUFFIXES.get(file.suffix.lower(), "application/octet-stream"),
        mode=mode, checks=dataset_check.read_checks(checks, name), key=key, source=source or file.name, evolve=evolve,
        replace_schema=replace_schema, breaking=breaking,
    )  # fmt: skip
    if as_json:
        show_json(written)
    elif written.published:
        typer.echo(f"{written.rows} rows written: {name} is at version {written.version}")
    else:
        typer.echo(f"{written.rows} rows kept in quarantine as {written.quarantine_id}; {name} did not move")
    if not as_json:
        dataset_check.show_report(written.report, only_failed=written.published)
    if not written.published:
        raise typer.Exit(1)


@app.command()
def read(
    name: Name,
    version: Version = None,
    filter: Where = None,
    column: Annotated[list[str] | None, typer.Option(help="Only this column; repeatable.")] = None,
    limit: Annotated[int, typer.Option(help="Rows to show.", min=1, max=1000)] = 20,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write all rows to this Parquet file.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show rows, or write them to a Parquet file."""
    if output is not None:
        rows = data.save_parquet(_handle(name), output, column, filter, version)
        typer.echo(f"{rows} rows written to {output}")
        return
    _show_rows(_handle(name).rows(version, filter=filter, limit=limit), column, as_json=as_json)


@app.command()
def versions(
    name: Name,
    limit: Annotated[int, typer.Option(help="At most so many, newest first.", min=1, max=1000)] = 50,
    as_json: JsonFlag = False,
) -> None:
    """The versions, newest first."""
    columns = {
        "VERSION": lambda one: one.version,
        "BRANCH": lambda one: one.branch,
        "MODE": lambda one: one.mode,
        "ROWS": lambda one: one.rows,
        "WRITTEN": lambda one: one.rows_written,
        "CREATED": lambda one: one.created_at,
        "BY": lambda one: one.created_by,
        "SOURCE": lambda one: one.source,
        "TAGS": lambda one: ", ".join(one.tags),
    }
    empty = f"no version yet; write one with `modelyard dataset write {name} FILE`"
    show_items(_handle(name).versions(limit), columns, as_json=as_json, empty=empty)


@app.command()
def checks(
    name: Name,
    file: Annotated[
        Path | None,
        typer.Argument(help="Checks to guard every write, as in `check --suite`."),
    ] = None,
    version: Version = None,
    as_json: JsonFlag = False,
) -> None:
    """What the checks found for a version; with FILE, replace the dataset's checks."""
    given = dataset_check.read_checks(file, name)
    if given is not None:
        changed = _handle(name).checks(given)
        typer.echo(f"{len(changed.checks)} checks guard {name} from now on")
        return
    report = _handle(name).version(version).report
    if as_json:
        show_json(report)
    elif report is not None:
        dataset_check.show_report(report)


@app.command()
def diff(
    name: Name,
    before: Annotated[str, typer.Argument(help="The older version: a number or a tag.")],
    after: Annotated[str | None, typer.Argument(help="The newer one. Default: the newest.")] = None,
    key: Annotated[list[str] | None, typer.Option(help="Match rows by this column; repeatable.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """What differs between two versions: columns, and rows added, removed and changed."""
    found = _handle(name).diff(before, after, key=key)
    if as_json:
        show_json(found)
        return
    show_fields(
        [
            ("versions", f"{found.before} -> {found.after}"),
            ("rows", f"{found.rows_before} -> {found.rows_after}"),
            ("added", found.added),
            ("removed", found.removed),
            ("changed", found.changed if found.key else "give a --key to match rows"),
        ]
    )
    for change in found.columns:
        typer.echo(f"column {change.name}: {change.before or 'not there'} -> {change.after or 'not there'}")
    for kind, rows in found.samples.items():
        typer.echo(f"\n{kind}, for example:")
        _show_rows(Rows(columns=[Column(one, "") for one in rows[0]], rows=rows[:5]), None, as_json=False)


@app.command()
def tag(
    name: Name,
    tag: Annotated[str, typer.Argument(help="The tag.")],
    version: Annotated[int | None, typer.Argument(help="The version it shall name. Default: the newest.")] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Remove the tag.")] = False,
) -> None:
    """Let a tag name a version."""
    if remove:
        _handle(name).untag(tag)
        typer.echo(f"tag {tag} is removed")
        return
    named = _handle(name).tag(tag, version if version is not None else _handle(name).get().latest)
    typer.echo(f"tag {tag} names {named.dataset} version {named.version}")


@quarantine.command("list")
def list_quarantine(name: Name, as_json: JsonFlag = False) -> None:
    """The batches that were turned down, newest first."""
    columns = {
        "ID": lambda one: one.id,
        "ROWS": lambda one: one.rows,
        "CREATED": lambda one: one.created_at,
        "BY": lambda one: one.created_by,
        "FAILED": lambda one: "; ".join(found.name for found in one.report.failed),
    }
    empty = f"nothing of {name} is in quarantine"
    show_items(_handle(name).quarantine(), columns, as_json=as_json, empty=empty)


QuarantineId = Annotated[str, typer.Argument(help="The batch, as `quarantine list` names it.")]


@quarantine.command("get")
def get_quarantined(name: Name, quarantine_id: QuarantineId, as_json: JsonFlag = False) -> None:
    """Why a batch was turned down, with failing rows."""
    found = _handle(name).quarantined(quarantine_id)
    if as_json:
        show_json(found)
        return
    show_fields([("batch", found.id), ("rows", found.rows), ("source", found.source), ("by", found.created_by)])
    dataset_check.show_report(found.report, only_failed=True)
    for failed in found.report.failed:
        if failed.sample:
            typer.echo(f"\n{failed.name}, for example:")
            names = list(failed.sample[0])
            _show_rows(Rows(columns=[Column(one, "") for one in names], rows=failed.sample[:5]), None, as_json=False)


@quarantine.command("rows")
def quarantined_rows(
    name: Name,
    quarantine_id: QuarantineId,
    filter: Where = None,
    limit: Annotated[int, typer.Option(help="Rows to show.", min=1, max=1000)] = 20,
    as_json: JsonFlag = False,
) -> None:
    """Rows of a batch that was turned down."""
    _show_rows(_handle(name).quarantined_rows(quarantine_id, filter=filter, limit=limit), None, as_json=as_json)


@quarantine.command("discard")
def discard_quarantined(name: Name, quarantine_id: QuarantineId) -> None:
    """Remove a batch from quarantine, with its rows."""
    _handle(name).discard(quarantine_id)
    typer.echo(f"batch {quarantine_id} is removed")


def _handle(name: str) -> data.DatasetHandle:
    return data.dataset(name, client())


def _show_rows(found: Rows, only: list[str] | None, *, as_json: bool) -> None:
    names = only or [column.name for column in found.columns]
    if as_json:
        show_json([{name: row.get(name) for name in names} for row in found.rows])
        return
    columns: dict[str, Callable[[dict[str, Any]], Any]] = {name: partial(_value, name) for name in names}
    show_items(found.rows, columns, as_json=False, empty="no rows")


def _value(name: str, row: dict[str, Any]) -> Any:
    return row.get(name)
