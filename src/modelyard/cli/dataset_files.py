"""`modelyard dataset files`: datasets that are trees of files."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from modelyard.cli.context import JsonFlag, client, show_items, show_json
from modelyard.sdk.files.handle import FilesHandle, Progress
from modelyard.sdk.files.placing import Link
from modelyard.types.files import FileEntry, FilesResult

app = typer.Typer(add_completion=False, no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The dataset's name.")]
Ref = Annotated[str | None, typer.Option("--version", help="A number, tag, branch or instant. Default: the newest.")]
Branch = Annotated[str, typer.Option("--branch", help="The branch that gets the version.")]
Message = Annotated[str, typer.Option("--message", "-m", help="Why it is made.")]
LinkOption = Annotated[str, typer.Option("--link", help="auto, reflink, hardlink or copy, on the server's disk.")]
_TOLD_EVERY_S = 0.2
_LINKS = ("auto", "reflink", "hardlink", "copy")


@app.callback()
def files() -> None:
    """Datasets of files (images, audio, anything): each version a tree, equal files kept once.

    \b
    modelyard dataset files add scans ./raw
    modelyard dataset files checkout scans ./work --version 3
    modelyard dataset files diff scans 2 3
    """


@app.command()
def add(
    name: Name,
    source: Annotated[Path, typer.Argument(help="A folder or a file.")],
    to: Annotated[str, typer.Option("--to", help="The directory within the dataset.")] = "",
    keep: Annotated[bool, typer.Option("--keep", help="Keep what the folder does not have.")] = False,
    message: Message = "",
    branch: Branch = "main",
    link: LinkOption = "auto",
    as_json: JsonFlag = False,
) -> None:
    """Make the files of a folder the next version. What the dataset has already is not sent again.

    On the server's disk files are linked where blocks cannot be shared; a linked file becomes read-only.
    """
    added = _handle(name).add(
        source, to, replace=not keep, message=message, branch=branch, link=_link(link), progress=_progress(as_json)
    )
    _show_result(added, as_json=as_json)


@app.command("import-dvc")
def import_dvc(
    name: Name,
    dvc_file: Annotated[Path, typer.Argument(help="A .dvc file, in its repository.")],
    branch: Branch = "main",
    as_json: JsonFlag = False,
) -> None:
    """Make what a .dvc file stands for the next version, out of DVC's cache; each file is checked by its MD5."""
    imported = _handle(name).import_dvc(dvc_file, branch=branch, progress=_progress(as_json))
    _show_result(imported, as_json=as_json)


@app.command()
def remove(
    name: Name,
    paths: Annotated[list[str], typer.Argument(help="Files, or directories with all below.")],
    message: Message = "",
    branch: Branch = "main",
    as_json: JsonFlag = False,
) -> None:
    """Make a version without some files; older versions keep them."""
    _show_result(_handle(name).remove(paths, message=message, branch=branch), as_json=as_json)


@app.command("list")
def list_files(
    name: Name,
    prefix: Annotated[str, typer.Option("--prefix", help="Only paths that begin with it.")] = "",
    version: Ref = None,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1)] = 1_000,
    as_json: JsonFlag = False,
) -> None:
    """The files of a version."""
    found: list[FileEntry] = []
    more = None
    for one in _handle(name).list(version, prefix):
        if len(found) == limit:
            more = found[-1].path
            break
        found.append(one)
    if as_json:
        items = [
            {"path": one.path, "digest": one.digest, "size_bytes": one.size_bytes, "executable": one.executable}
            for one in found
        ]
        show_json({"items": items, "next": more})
        return
    columns = {
        "PATH": lambda one: one.path,
        "BYTES": lambda one: one.size_bytes,
        "DIGEST": lambda one: one.digest[:12],
    }
    empty = f"no file; add some with `modelyard dataset files add {name} FOLDER`"
    show_items(found, columns, as_json=False, empty=empty, more=more)


@app.command()
def checkout(
    name: Name,
    target: Annotated[Path, typer.Argument(help="A new folder.")],
    version: Ref = None,
    prefix: Annotated[str, typer.Option("--prefix", help="Only paths that begin with it.")] = "",
    link: LinkOption = "auto",
    update: Annotated[bool, typer.Option("--update", help="Bring an existing folder to the version.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Put the files of a version into a folder, whole or not at all. By link it costs no bytes."""
    made = _handle(name).checkout(
        target, version, prefix=prefix, link=_link(link), update=update, progress=_progress(as_json)
    )
    if as_json:
        show_json(made)
        return
    typer.echo(f"{target} holds {name}@{made.version}")


@app.command()
def diff(
    name: Name,
    before: Annotated[str, typer.Argument(help="A number, tag, branch or instant.")],
    after: Annotated[str | None, typer.Argument(help="Another. Default: the newest.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """What differs between two versions, by path."""
    found = _handle(name).diff(before, after)
    if as_json:
        show_json(found)
        return
    typer.echo(
        f"{name}@{found.before} → @{found.after}: {found.added} added, {found.removed} removed, {found.changed} changed"
    )
    _show_paths(found.added_paths, found.removed_paths, found.changed_paths)
    for old, new in found.renamed:
        typer.echo(f"  {old} → {new} (same content)")


@app.command()
def status(
    name: Name,
    folder: Annotated[Path, typer.Argument(help="A folder of this machine.")],
    version: Ref = None,
    prefix: Annotated[str, typer.Option("--prefix", help="The directory of the dataset to compare with.")] = "",
    as_json: JsonFlag = False,
) -> None:
    """How a folder differs from a version: what `add` would change. Unchanged files are not read again."""
    found = _handle(name).status(folder, version, prefix=prefix, progress=_progress(as_json))
    if as_json:
        show_json(found)
        return
    typer.echo(
        f"{folder} against {name}@{found.version}: {found.added} added, {found.removed} removed, "
        f"{found.changed} changed"
    )
    _show_paths(found.added_paths, found.removed_paths, found.changed_paths)


@app.command()
def verify(name: Name, version: Ref = None, as_json: JsonFlag = False) -> None:
    """Read every byte of a version; exit with 1 where a file is not what it was."""
    found = _handle(name).verify(version)
    if as_json:
        show_json(found)
    else:
        for one in found.problems:
            typer.echo(f"{one.what}: {one.path} ({one.digest[:12]})")
        typer.echo(f"{found.files} files, {found.size_bytes} bytes, {len(found.problems)} not as they were")
    if found.problems:
        raise typer.Exit(1)


def _show_paths(added: list[str], removed: list[str], changed: list[str]) -> None:
    for sign, paths in (("+", added), ("-", removed), ("~", changed)):
        for path in paths:
            typer.echo(f"{sign} {path}")


def _handle(name: str) -> FilesHandle:
    return FilesHandle(name, client())


def _link(text: str) -> Link:
    for known in _LINKS:
        if text == known:
            return known  # type: ignore[return-value]
    raise typer.BadParameter(f"'{text}' is no way to link; use one of {', '.join(_LINKS)}")


def _progress(silent: bool) -> Progress | None:
    """Progress on one line of a terminal's standard error; none where nobody watches."""
    if silent or not sys.stderr.isatty():
        return None
    told = [0.0]

    def tell(what: str, done: int, size_bytes: int) -> None:
        if time.monotonic() - told[0] >= _TOLD_EVERY_S:
            told[0] = time.monotonic()
            sys.stderr.write(f"\r\033[K{what}: {done:,} files, {size_bytes / 1e6:,.0f} MB")
            sys.stderr.flush()

    return tell


def _show_result(result: FilesResult, *, as_json: bool) -> None:
    if as_json:
        show_json(result)
        return
    if sys.stderr.isatty():
        sys.stderr.write("\r\033[K")
    version: Any = result.version
    if not result.changed:
        typer.echo(f"nothing changed: {version.dataset}@{version.version} is like that already")
        return
    typer.echo(
        f"{version.dataset}@{version.version}: {version.rows} files, {version.size_bytes} bytes; "
        f"{result.added} added, {result.replaced} changed, {result.removed} removed"
    )
