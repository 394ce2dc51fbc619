"""`modelyard model`: models, their versions, the evidence about them, and what lets their aliases move."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from modelyard.cli import model_trust
from modelyard.cli.context import JsonFlag, client, show_fields, show_items, show_json, show_table
from modelyard.cli.options import instant
from modelyard.kernel.errors import InvalidInput
from modelyard.sdk.registry import ModelHandle, list_models
from modelyard.types.registry import Comparison, Decision, Evaluation, ModelVersion, StartEvaluation

app = typer.Typer(add_completion=False, no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The model's name.")]
Version = Annotated[str, typer.Argument(help="A number, an alias, or latest.")]
Reason = Annotated[str, typer.Option("--reason", "-m", help="Why; it stays on record.")]
Alias = Annotated[str, typer.Option(help="The alias that moves.")]
_POLICY_BYTES_MAX = 1024 * 1024
_SUFFIXES = (".parquet", ".csv", ".arrow", ".arrows")


@app.callback()
def model() -> None:
    """Registered models: immutable versions, gates, approvals, and aliases (champion) that move only through them.

    \b
    modelyard model gates delay 3                     why it may be promoted, or not yet
    modelyard model approve delay 3 -m "checked"      as an approver who did not submit it
    modelyard model promote delay 3 -m "better"       the alias champion moves
    modelyard model rollback delay -m "worse"         and goes back in one step
    """


@app.command("list")
def list_all(
    filter: Annotated[str, typer.Option(help="Such as \"name LIKE 'delay%' AND tags.team = 'ops'\".")] = "",
    limit: Annotated[int, typer.Option(help="At most so many.", min=1, max=1000)] = 100,
    as_json: JsonFlag = False,
) -> None:
    """The models of the project."""
    page = list_models(client(), filter=filter, limit=limit)
    columns = {
        "NAME": lambda one: one.name,
        "VERSIONS": lambda one: one.versions,
        "ALIASES": lambda one: ", ".join(f"{alias}={number}" for alias, number in one.aliases.items()),
        "POLICY": lambda one: one.policy is not None,
        "UPDATED": lambda one: one.updated_at,
        "DESCRIPTION": lambda one: one.description,
    }
    empty = "no model yet; log one with mlflow and registered_model_name=…, or `modelyard model register`"
    show_items(page.items, columns, as_json=as_json, empty=empty, more=page.next)


@app.command()
def get(name: Name, version: Annotated[str | None, typer.Argument()] = None, as_json: JsonFlag = False) -> None:
    """A model, or one of its versions."""
    handle = _handle(name)
    if version is not None:
        found = handle.resolve(version)
        if as_json:
            show_json({"version": found, "files": handle.record(found.version).files()})
            return
        _show_version(found)
        return
    known = handle.get()
    if as_json:
        show_json(known)
        return
    show_fields(
        [
            ("name", known.name),
            ("description", known.description),
            ("versions", known.versions),
            ("aliases", ", ".join(f"{alias}={number}" for alias, number in known.aliases.items())),
            ("tags", ", ".join(f"{key}={value}" for key, value in known.tags.items())),
            ("policy", "declared" if known.policy else "none: aliases move freely"),
            ("created", f"{known.created_at:%Y-%m-%d %H:%M:%S} by {known.created_by}"),
        ]
    )


@app.command()
def versions(
    name: Name,
    dropped: Annotated[bool, typer.Option("--dropped", help="Show dropped ones too.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """The versions of a model, newest first."""
    found = _handle(name).versions(dropped=dropped)
    columns = {
        "VERSION": lambda one: one.version,
        "ALIASES": lambda one: ", ".join(one.aliases),
        "STAGE": lambda one: one.stage,
        "FORMAT": lambda one: f"{one.format}{' (trusted)' if one.trusted else ''}",
        "DIGEST": lambda one: one.digest[:12],
        "RUN": lambda one: one.provenance.run,
        "CREATED": lambda one: one.created_at,
        "BY": lambda one: one.created_by,
        "DROPPED": lambda one: one.dropped_reason if one.dropped_at else "",
    }
    show_items(found, columns, as_json=as_json, empty=f"{name} has no version yet")


@app.command()
def register(
    name: Name,
    source: Annotated[str, typer.Argument(help="models:/m-<id>, runs:/<run>/<path>, or models:/<name>/<version>.")],
    description: Annotated[str, typer.Option(help="What is new in it.")] = "",
    as_json: JsonFlag = False,
) -> None:
    """Take a version in: its files as they are now, by digest."""
    made = _handle(name).register(source, description=description)
    if as_json:
        show_json(made)
        return
    _show_version(made)


@app.command()
def policy(
    name: Name,
    file: Annotated[Path | None, typer.Argument(help="A YAML file; without one the policy is shown.")] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Take the policy away (admins).")] = False,
    reason: Reason = "",
    as_json: JsonFlag = False,
) -> None:
    """Show or declare when the aliases of a model may move."""
    handle = _handle(name)
    if file is not None and remove:
        raise InvalidInput("give a file or --remove, not both", code="policy.invalid")
    if file is not None:
        handle.set_policy(_read(file), reason)
    elif remove:
        handle.set_policy(None, reason)
    declared = handle.get().policy
    if as_json or declared is not None:
        show_json(declared)
    else:
        typer.echo(f"{name} has no policy: its aliases move freely")


@app.command()
def gates(name: Name, version: Version, alias: Alias = "", as_json: JsonFlag = False) -> None:
    """Whether a version may be promoted now, and why. Ends with status 3 where it may not."""
    decision = _handle(name).gates(version, alias)
    if as_json:
        show_json(decision)
    else:
        _show_decision(decision)
    if not decision.promotable:
        raise typer.Exit(3)


@app.command()
def evaluate(
    name: Name,
    version: Version,
    rows: Annotated[
        Path | None, typer.Argument(help="Scored rows (Parquet, CSV or Arrow): row_id, label, score, slices.")
    ] = None,
    dataset: Annotated[str, typer.Option(help="The data version that they come from: dataset:name@version.")] = "",
    on: Annotated[str, typer.Option(help="Instead of rows: let the model score DATASET@VERSION in a job.")] = "",
    label: Annotated[str, typer.Option(help="With --on: the column of 0 and 1.")] = "",
    row_id: Annotated[str, typer.Option(help="With --on: the column that names the rows. Default: their number.")] = "",
    slices: Annotated[list[str] | None, typer.Option("--slice", help="With --on: a column to measure by.")] = None,
    feature: Annotated[
        list[str] | None, typer.Option(help="With --on: a column, in the order of a model that takes one matrix.")
    ] = None,
    output: Annotated[str, typer.Option(help="With --on: which output of the model is the score.")] = "",
    threshold: Annotated[float, typer.Option(help="From which score on a row counts as positive.")] = 0.5,
    as_json: JsonFlag = False,
) -> None:
    """Let the server measure scored rows, and keep them as evidence of the version.

    With --on the platform makes the scores itself, so that it is known whose they are; a policy can ask for that.
    """
    if (rows is None) == (not on):
        raise InvalidInput("give scored rows, or --on DATASET@VERSION", code="evaluation.source")
    if rows is not None:
        made = _handle(name).evaluate(version, _read_rows(rows), dataset=dataset, threshold=threshold)
    else:
        asked = StartEvaluation(
            dataset=on, label=label or "label", row_id=row_id, slices=slices or [], output=output,
            features=feature or [], threshold=threshold,
        )  # fmt: skip
        made = _handle(name).evaluate_on(version, asked)
    if as_json:
        show_json(made)
        return
    _show_evaluation(made)


@app.command()
def approve(name: Name, version: Version, reason: Reason, as_json: JsonFlag = False) -> None:
    """Say yes to the bytes of a version, as an approver who did not submit it."""
    made = _handle(name).approve(version, reason)
    if as_json:
        show_json(made)
        return
    typer.echo(f"{made.by} approved {name}@{made.version} ({made.version_digest[:12]})")


@app.command()
def promote(
    name: Name,
    version: Version,
    alias: Alias = "champion",
    reason: Reason = "",
    override: Annotated[
        bool, typer.Option("--override", help="Go over the gates (admins; it stays on record).")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Let the alias point to a version, where gates and approvals allow it."""
    moved = _handle(name).promote(version, alias, reason, override=override)
    if as_json:
        show_json(moved)
        return
    typer.echo(f"{alias} of {name} is version {moved.version} now")


@app.command()
def rollback(name: Name, alias: Alias = "champion", reason: Reason = "", as_json: JsonFlag = False) -> None:
    """Let the alias go back to the version before the present one."""
    moved = _handle(name).rollback(alias, reason)
    if as_json:
        show_json(moved)
        return
    typer.echo(f"{alias} of {name} is version {moved.version} again")


@app.command()
def history(
    name: Name,
    alias: Annotated[str | None, typer.Option(help="Only this alias.")] = None,
    at: Annotated[
        datetime | None, typer.Option(parser=instant, help="Who was it at this time (UTC), such as 2013-06-01T12:00?")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """All moves of the aliases; with --at, which version an alias pointed to at a time."""
    handle = _handle(name)
    if at is not None:
        found = handle.at(alias or "champion", at)
        if as_json:
            show_json(found)
        else:
            typer.echo(f"{alias or 'champion'} of {name} was version {found.version}")
        return
    columns = {
        "AT": lambda one: one.at,
        "ALIAS": lambda one: one.alias,
        "FROM": lambda one: one.previous,
        "TO": lambda one: one.version,
        "HOW": lambda one: one.kind,
        "BY": lambda one: one.by,
        "REASON": lambda one: one.reason + (f" (over: {'; '.join(one.unmet)})" if one.unmet else ""),
    }
    show_items(handle.history(alias), columns, as_json=as_json, empty=f"no alias of {name} has moved yet")


@app.command()
def trust(name: Name, version: Version, reason: Reason, as_json: JsonFlag = False) -> None:
    """Take responsibility, as an approver, for files of a format that can run code."""
    trusted = _handle(name).record(version).trust(reason)
    if as_json:
        show_json(trusted)
        return
    typer.echo(f"{name}@{trusted.version} is trusted by {trusted.trusted_by}")


@app.command()
def drop(name: Name, version: Version, reason: Reason, as_json: JsonFlag = False) -> None:
    """Take a version out of use for ever."""
    dropped = _handle(name).drop(version, reason)
    if as_json:
        show_json(dropped)
        return
    typer.echo(f"{name}@{dropped.version} is dropped")


@app.command()
def diff(name: Name, before: Version, after: Version, as_json: JsonFlag = False) -> None:
    """In what two versions differ."""
    found = _handle(name).diff(before, after)
    if as_json:
        show_json(found)
        return
    columns = {
        "PLANE": lambda one: one.plane,
        "WHAT": lambda one: one.name,
        f"VERSION {found.before}": lambda one: one.before,
        f"VERSION {found.after}": lambda one: one.after,
    }
    show_table(found.changes, columns, empty=f"{name}@{found.before} and @{found.after} are the same")
    if found.comparison is not None:
        typer.echo(f"\n{_comparison(found.comparison)}")


@app.command()
def card(name: Name, version: Version = "latest", as_json: JsonFlag = False) -> None:
    """The model card: all that is on record about a version, in Markdown."""
    text = _handle(name).record(version).card()
    if as_json:
        show_json({"card": text})
        return
    typer.echo(text)


@app.command()
def bom(name: Name, version: Version = "latest", as_json: JsonFlag = False) -> None:  # noqa: ARG001  it is JSON anyway
    """The bill of materials of a version: files, data and measures as CycloneDX JSON."""
    show_json(_handle(name).record(version).bill_of_materials())


@app.command()
def download(
    name: Name,
    version: Version,
    into: Annotated[Path, typer.Argument(help="An empty directory.")],
    key: Annotated[Path | None, typer.Option(help="The public key (PEM) that must have signed the files.")] = None,
) -> None:
    """Write the files of a version out, each checked against its digest, and against the signature where one counts."""
    found = _handle(name).download(version, into, public_key=key)
    typer.echo(f"{found.files} files of {name}@{found.version} are in {into}")


def _handle(name: str) -> ModelHandle:
    return ModelHandle(name, client())


def _show_version(found: ModelVersion) -> None:
    known = found.provenance
    dropped = f"{found.dropped_at:%Y-%m-%d} by {found.dropped_by}: {found.dropped_reason}" if found.dropped_at else ""
    show_fields(
        [
            ("version", f"{found.model}@{found.version}"),
            ("aliases", ", ".join(found.aliases)),
            ("stage", found.stage),
            ("description", found.description),
            ("digest", found.digest or "unknown: the files lie elsewhere"),
            ("files", f"{found.files} with {found.size_bytes:,} bytes"),
            ("format", f"{found.format}: {found.format_reason}"),
            ("trusted", f"by {found.trusted_by}: {found.trusted_reason}" if found.trusted else "no"),
            ("signature", "declared" if found.signature else "none"),
            ("input example", found.input_example),
            ("licence", found.license or "not declared"),
            ("flavors", ", ".join(found.flavors)),
            ("source", found.source),
            ("run", known.run),
            ("data", ", ".join(known.data)),
            ("code", known.code),
            ("environment", known.environment),
            ("created", f"{found.created_at:%Y-%m-%d %H:%M:%S} by {found.created_by}"),
            ("dropped", dropped),
        ]
    )


def _show_decision(decision: Decision) -> None:
    columns = {
        "GATE": lambda one: one.name,
        "STATUS": lambda one: one.status,
        "REASON": lambda one: one.reason,
    }
    show_table(decision.gates, columns, empty="no gates are declared")
    counted = decision.approvals
    typer.echo(f"\napprovals: {len(counted.by)} of {counted.required} ({', '.join(counted.by) or 'nobody yet'})")
    for refused in counted.refused:
        typer.echo(f"  does not count: {refused}")
    verdict = "may become" if decision.promotable else "may NOT become"
    why = "" if decision.guarded else " (the alias is not guarded by a policy)"
    typer.echo(f"{decision.model}@{decision.version} {verdict} {decision.alias}{why}")


def _show_evaluation(made: Evaluation) -> None:
    overall = made.overall
    show_fields(
        [
            ("evaluation", made.id),
            ("made by", f"the platform, in job {made.job}" if made.made_by == "platform" else f"{made.by} sent scores"),
            ("verdict", f"{overall.verdict}{': ' if overall.reason else ''}{overall.reason}"),
            ("rows", f"{overall.rows}, {overall.positives} of them positive"),
            ("auc", overall.auc),
            ("log_loss", overall.log_loss),
            ("brier", overall.brier),
            ("calibration_error", overall.calibration_error),
            ("accuracy", overall.accuracy),
            ("slices", len(made.slices)),
        ]
    )


def _comparison(found: Comparison) -> str:
    if found.difference is None or found.lower is None or found.upper is None:
        return f"{found.metric}: not enough data to compare: {found.reason}"
    return (
        f"{found.metric} on the same {found.rows} rows: {found.difference:+.4f} in favour of the latter, "
        f"{found.confidence:.0%} sure between {found.lower:+.4f} and {found.upper:+.4f} ({found.method})"
    )


def _read(file: Path) -> str:
    try:
        if file.stat().st_size > _POLICY_BYTES_MAX:
            raise InvalidInput(f"{file} is too large for a policy", code="policy.invalid")
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{file} cannot be read: {error}", code="policy.unreadable") from error


def _read_rows(file: Path) -> Any:
    """A table from a file. Arrow is loaded only for this command."""
    import pyarrow as pa
    from pyarrow import csv, ipc, parquet

    if file.suffix not in _SUFFIXES:
        raise InvalidInput(f"{file} is none of {', '.join(_SUFFIXES)}", code="evaluation.file")
    try:
        if file.suffix == ".parquet":
            return parquet.read_table(file)
        if file.suffix == ".csv":
            return csv.read_csv(file)
        with pa.memory_map(str(file)) as source:
            opened = ipc.open_file(source) if file.suffix == ".arrow" else ipc.open_stream(source)
            return opened.read_all()
    except (OSError, pa.ArrowException) as error:
        raise InvalidInput(f"{file} cannot be read: {error}", code="evaluation.file") from error


model_trust.register(app)
