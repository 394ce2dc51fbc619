"""`modelyard dataset …` for what moves and what is cleared away: branches, merges, deletion, upkeep, imports."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from modelyard.cli.context import JsonFlag, client, show_fields, show_items, show_json
from modelyard.sdk import data
from modelyard.sdk.data_import import open_source
from modelyard.types.data import Retention, WriteResult

Name = Annotated[str, typer.Argument(help="The dataset's name.")]
OnBranch = Annotated[str, typer.Option("--branch", help="The branch to write to.")]
BranchName = Annotated[str, typer.Argument(help="The branch.")]


def merge_rows(
    name: Name,
    file: Annotated[Path, typer.Argument(help="Parquet, CSV, JSON lines or Arrow.", exists=True)],
    on: Annotated[list[str] | None, typer.Option(help="A key column; repeatable. Default: the dataset's key.")] = None,
    branch: OnBranch = "main",
    source: Annotated[str, typer.Option(help="Where the rows came from. Default: the file's name.")] = "",
    as_json: JsonFlag = False,
) -> None:
    """Replace rows that have a key of the file, add the others (upsert)."""
    written = _handle(name).write(
        open_source(file), mode="merge", on=on or (), branch=branch, source=source or file.name, create=False,
        on_reject="return",
    )  # fmt: skip
    _show_written(name, written, as_json)


def delete_rows(
    name: Name,
    where: Annotated[str, typer.Option(help="An SQL condition: the rows that go.")],
    branch: OnBranch = "main",
    source: Annotated[str, typer.Option(help="Why, or on whose behalf.")] = "",
    as_json: JsonFlag = False,
) -> None:
    """Make a version without the rows that meet a condition."""
    _show_written(name, _handle(name).delete_rows(where, branch=branch, source=source), as_json)


def branch(
    name: Name,
    branch: Annotated[str | None, typer.Argument(help="The branch to make. Default: list them.")] = None,
    at: Annotated[str | None, typer.Option(help="A number, tag, branch or instant. Default: the newest.")] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Remove the branch.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Make a branch, which copies nothing; without BRANCH, list them."""
    if branch is None:
        columns = {
            "BRANCH": lambda one: one.name,
            "VERSION": lambda one: one.head,
            "MADE AT": lambda one: one.base,
            "CREATED": lambda one: one.created_at,
            "BY": lambda one: one.created_by,
        }
        empty = f"no branch yet; make one with `modelyard dataset branch {name} BRANCH`"
        show_items(_handle(name).branches(), columns, as_json=as_json, empty=empty)
    elif delete:
        _handle(name).delete_branch(branch)
        typer.echo(f"branch {branch} is removed")
    else:
        made = _handle(name).branch(branch, at)
        show_json(made) if as_json else typer.echo(f"branch {made.name} of {name} is at version {made.head}")


def merge(
    name: Name,
    branch: BranchName,
    into: Annotated[str, typer.Option(help="The branch that moves.")] = "main",
    as_json: JsonFlag = False,
) -> None:
    """Let main (or another branch) name what BRANCH names; refused, with what conflicts, where both moved."""
    done = _handle(name).merge(branch, into)
    if as_json:
        show_json(done)
    elif done.moved:
        typer.echo(f"{into} of {name} moved from version {done.before} to {done.version}")
    else:
        typer.echo(f"{into} of {name} has all of {branch} already, and stays at version {done.version}")


def revert(
    name: Name,
    to: Annotated[str, typer.Argument(help="The version whose rows shall be back: a number, tag or instant.")],
    branch: OnBranch = "main",
    as_json: JsonFlag = False,
) -> None:
    """Make a version with the rows of an older one."""
    _show_written(name, _handle(name).revert(to, branch), as_json)


def compact(name: Name, branch: OnBranch = "main", as_json: JsonFlag = False) -> None:
    """Let the newest version lie in fewer files; it stays the same version."""
    done = _handle(name).compact(branch)
    if as_json:
        show_json(done)
    else:
        typer.echo(f"{name} version {done.version}: {done.files_before} files became {done.files_after}")


def vacuum(
    name: Name,
    keep_versions: Annotated[int | None, typer.Option(help="Keep the newest so many.", min=1)] = None,
    keep_days: Annotated[float | None, typer.Option(help="Keep those of the last so many days.", min=0)] = None,
    grace_s: Annotated[float, typer.Option(help="How long files stay that nothing names.", min=0)] = 3600.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Give up old versions that nothing points at, and files that none names."""
    given = keep_versions is not None or keep_days is not None
    retention = Retention(versions=keep_versions, days=keep_days) if given else None
    done = _handle(name).vacuum(retention=retention, grace_s=grace_s, dry_run=dry_run)
    if as_json:
        show_json(done)
        return
    show_fields(
        [
            ("versions given up", ", ".join(map(str, done.expired)) or "none"),
            ("files removed", done.files_removed),
            ("bytes removed", done.bytes_removed),
            *([("files waiting for the grace", done.files_waiting)] if done.files_waiting else []),
            *([("bytes waiting for the grace", done.bytes_waiting)] if done.files_waiting else []),
        ]
    )
    for version, why in done.kept.items():
        typer.echo(f"version {version} is kept: {why}")


def flush(name: Name, as_json: JsonFlag = False) -> None:
    """Make buffered appends a version."""
    results = _handle(name).flush()
    if as_json:
        show_json(results)
        return
    for one in results:
        _show_written(name, one, as_json=False, leave=False)
    if not results:
        typer.echo(f"nothing waits for {name}")


def import_(
    name: Name,
    path: Annotated[Path, typer.Argument(help="A Delta table, or a file or folder of Parquet, CSV or JSON lines.")],
    mode: Annotated[str, typer.Option(help="append, overwrite or merge.")] = "append",
    branch: OnBranch = "main",
    key: Annotated[str | None, typer.Option(help="Idempotency key: repeated, the write has its first result.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Copy the rows of a table or of files of this machine into a dataset, streamed."""
    written = _handle(name).write(
        open_source(path), mode=mode, branch=branch, key=key, source=f"file:{path.resolve()}",  # type: ignore[arg-type]
        on_reject="return",
    )  # fmt: skip
    _show_written(name, written, as_json)


def register(
    name: Name,
    path: Annotated[Path, typer.Argument(help="A Delta table or a folder of Parquet, on the server's machine.")],
    description: Annotated[str, typer.Option(help="What it holds.")] = "",
    as_json: JsonFlag = False,
) -> None:
    """Make a dataset that reads a folder where it lies, and copies nothing."""
    _show_written(name, _handle(name).register(path.absolute(), description), as_json)


def sync(name: Name, as_json: JsonFlag = False) -> None:
    """Check what others wrote to the table since the newest version, and make it one."""
    _show_written(name, _handle(name).sync(), as_json)


COMMANDS: dict[str, Callable[..., None]] = {
    "merge-rows": merge_rows,
    "delete-rows": delete_rows,
    "branch": branch,
    "merge": merge,
    "revert": revert,
    "compact": compact,
    "vacuum": vacuum,
    "flush": flush,
    "import": import_,
    "register": register,
    "sync": sync,
}


def add_to(app: typer.Typer) -> None:
    """Let `modelyard dataset` know these commands."""
    for name, command in COMMANDS.items():
        app.command(name)(command)


def _handle(name: str) -> data.DatasetHandle:
    return data.dataset(name, client())


def _show_written(name: str, written: WriteResult, as_json: bool, *, leave: bool = True) -> None:
    if as_json:
        show_json(written)
    elif written.status == "published":
        typer.echo(f"{written.rows} rows: {name} has version {written.version}")
    elif written.status == "unchanged":
        typer.echo(f"nothing to do: {name} stays at version {written.version}")
    else:
        typer.echo(f"{written.rows} rows did not pass: {data.reasons(written.report)}")
        if written.quarantine_id:
            typer.echo(f"look at them with `modelyard dataset quarantine get {name} {written.quarantine_id}`")
    if written.status == "quarantined" and leave:
        raise typer.Exit(1)
