"""`modelyard model`: what people state about versions (approvals, attestations, signatures) and what is let go."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from modelyard.cli.context import JsonFlag, client, show_fields, show_items, show_json
from modelyard.kernel.errors import InvalidInput
from modelyard.sdk.registry import ModelHandle
from modelyard.sdk.signing import sign_directory
from modelyard.types.registry import Retention

Name = Annotated[str, typer.Argument(help="The model's name.")]
Version = Annotated[str, typer.Argument(help="A number, an alias, or latest.")]
Reason = Annotated[str, typer.Option("--reason", "-m", help="Why; it stays on record.")]


def register(app: typer.Typer) -> None:
    """Add these commands to those of the noun."""
    for command in (
        approvals, revoke, attest, attestations, sign, verify, signatures, evaluations, latency, retention,
        unset_alias, delete,
    ):  # fmt: skip
        app.command(command.__name__.replace("_", "-"))(command)


def approvals(name: Name, version: Version, as_json: JsonFlag = False) -> None:
    """Who approved a version, the revoked approvals too."""
    columns = {
        "ID": lambda one: one.id,
        "BY": lambda one: one.by,
        "AT": lambda one: one.at,
        "DIGEST": lambda one: one.version_digest[:12],
        "REASON": lambda one: one.reason,
        "REVOKED": lambda one: f"by {one.revoked_by}: {one.revoked_reason}" if one.revoked_at else "",
    }
    found = _handle(name).record(version).approvals()
    show_items(found, columns, as_json=as_json, empty=f"nobody has approved {name}@{version}")


def revoke(
    name: Name,
    version: Version,
    approval: Annotated[str, typer.Argument(help="The approval's id, as `modelyard model approvals` shows it.")],
    reason: Reason,
    as_json: JsonFlag = False,
) -> None:
    """Take an approval back: one's own, or as an admin anybody's."""
    left = _handle(name).record(version).revoke(approval, reason)
    if as_json:
        show_json(left)
        return
    typer.echo(f"approval {approval} of {name}@{version} is revoked")


def attest(
    name: Name,
    version: Version,
    kind: Annotated[str, typer.Argument(help="What was checked: scan, license, features, or a word of your own.")],
    summary: Annotated[str, typer.Option("--summary", "-m", help="What was found, in a sentence.")],
    failed: Annotated[bool, typer.Option("--failed", help="The check did not pass.")] = False,
    value: Annotated[str, typer.Option(help="The value, where the kind has one: the SPDX id of a licence.")] = "",
    evidence: Annotated[str, typer.Option(help="Where the evidence lies: a URN or a URL.")] = "",
    as_json: JsonFlag = False,
) -> None:
    """State that a check passed or failed on the bytes of a version; gates read it."""
    made = _handle(name).record(version).attest(kind, summary, passed=not failed, value=value, evidence=evidence)
    if as_json:
        show_json(made)
        return
    typer.echo(f"{made.by} attests {made.kind} of {name}@{made.version}: {'passed' if made.passed else 'failed'}")


def attestations(name: Name, version: Version, as_json: JsonFlag = False) -> None:
    """What was attested about a version, newest first."""
    columns = {
        "KIND": lambda one: one.kind,
        "PASSED": lambda one: one.passed,
        "VALUE": lambda one: one.value,
        "SUMMARY": lambda one: one.summary,
        "BY": lambda one: one.by,
        "AT": lambda one: one.at,
    }
    found = _handle(name).record(version).attestations()
    show_items(found, columns, as_json=as_json, empty=f"nothing is attested about {name}@{version}")


def sign(
    name: Name,
    version: Version,
    key: Annotated[Path, typer.Option(help="Your private EC key, in PEM. It stays on this machine.")],
    password: Annotated[
        str, typer.Option(envvar="MODEL_SIGNING_PASSWORD", show_envvar=True, help="The key's, where it has one.")
    ] = "",
    as_json: JsonFlag = False,
) -> None:
    """Sign all files of a version with OpenSSF model signing, and record the signature."""
    handle = _handle(name)
    record = handle.record(version)
    with tempfile.TemporaryDirectory() as aside:
        files = Path(aside) / "model"
        handle.write_files(version, files)
        bundle, public_key = sign_directory(files, key, password)
    made = record.sign(bundle, public_key)
    if as_json:
        show_json(made)
        return
    typer.echo(f"{name}@{made.version} ({made.version_digest[:12]}) is signed with the key {made.key[:16]}")


def verify(
    name: Name,
    version: Version,
    key: Annotated[Path | None, typer.Option(help="The public key (PEM) that must have signed.")] = None,
    directory: Annotated[
        Path | None, typer.Option(help="Files on this machine to verify, instead of a fresh copy.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Verify the signatures of a version. With --key on this machine, over the bytes; else as the policy has it.

    Ends with status 3 where no signature counts.
    """
    handle = _handle(name)
    if key is not None:
        _verify_here(handle, version, key, directory)
        result = {"model": name, "version": version, "key": str(key), "verified": True}
        show_json(result) if as_json else typer.echo(f"the files of {name}@{version} are those that were signed")
        return
    if directory is not None:
        raise InvalidInput("files on this machine are verified with --key", code="signing.key_missing")
    checks = handle.record(version).check_signatures()
    columns = {
        "KEY": lambda one: one.key[:16],
        "VALID": lambda one: one.valid,
        "TRUSTED": lambda one: one.trusted,
        "WHY": lambda one: one.reason,
        "RECORDED BY": lambda one: one.by,
    }
    show_items(checks, columns, as_json=as_json, empty=f"nobody has signed {name}@{version}")
    if not any(one.trusted for one in checks):
        raise typer.Exit(3)


def _verify_here(handle: ModelHandle, version: str, key: Path, directory: Path | None) -> None:
    if directory is not None:
        handle.verify(version, directory, key)
        return
    with tempfile.TemporaryDirectory() as aside:
        files = Path(aside) / "model"
        handle.write_files(version, files)
        handle.verify(version, files, key)


def signatures(
    name: Name,
    version: Version,
    into: Annotated[Path | None, typer.Option(help="Write the newest bundle to this file, for other tools.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """The signatures over the files of a version, newest first."""
    found = _handle(name).record(version).signatures()
    if into is not None:
        if not found:
            raise InvalidInput(f"nobody has signed {name}@{version}", code="signing.missing")
        into.write_text(found[0].bundle, "utf-8")
    columns = {
        "KEY": lambda one: one.key[:16],
        "DIGEST": lambda one: one.version_digest[:12],
        "RECORDED BY": lambda one: one.by,
        "AT": lambda one: one.at,
    }
    show_items(found, columns, as_json=as_json, empty=f"nobody has signed {name}@{version}")


def evaluations(name: Name, version: Version, as_json: JsonFlag = False) -> None:
    """What the server measured of a version, newest first."""
    columns = {
        "ID": lambda one: one.id,
        "DATASET": lambda one: one.dataset,
        "ROWS": lambda one: one.overall.rows,
        "AUC": lambda one: one.overall.auc,
        "LOG LOSS": lambda one: one.overall.log_loss,
        "VERDICT": lambda one: one.overall.verdict,
        "AT": lambda one: one.at,
        "BY": lambda one: one.by,
    }
    found = _handle(name).record(version).evaluations()
    show_items(found, columns, as_json=as_json, empty=f"{name}@{version} has not been evaluated")


def latency(
    name: Name,
    version: Version,
    p50_ms: Annotated[float | None, typer.Option(help="Milliseconds; with it a measurement is recorded.")] = None,
    p95_ms: Annotated[float | None, typer.Option(help="Milliseconds.")] = None,
    requests: Annotated[int, typer.Option(help="How many requests were measured.", min=1)] = 1,
    measured_on: Annotated[str, typer.Option(help="Where: the machine, the runtime.")] = "",
    as_json: JsonFlag = False,
) -> None:
    """Show latency measurements of a version, or record one."""
    handle = _handle(name)
    if p50_ms is not None:
        if p95_ms is None or not measured_on:
            raise InvalidInput("a measurement has --p95-ms and --measured-on too", code="latency.invalid")
        handle.record_latency(version, p50_ms=p50_ms, p95_ms=p95_ms, requests=requests, measured_on=measured_on)
    columns = {
        "P50 MS": lambda one: one.p50_ms,
        "P95 MS": lambda one: one.p95_ms,
        "REQUESTS": lambda one: one.requests,
        "MEASURED ON": lambda one: one.measured_on,
        "AT": lambda one: one.at,
        "BY": lambda one: one.by,
    }
    found = handle.record(version).latencies()
    show_items(found, columns, as_json=as_json, empty=f"the latency of {name}@{version} has not been measured")


def retention(
    name: Name,
    keep_last: Annotated[int | None, typer.Option(help="Keep at least so many of the newest.", min=1)] = None,
    keep_days: Annotated[float | None, typer.Option(help="Keep what is younger than so many days.", min=0)] = None,
    grace_days: Annotated[float | None, typer.Option(help="Give files up so many days after the drop.", min=0)] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Keep everything from now on.")] = False,
    reason: Reason = "",
    as_json: JsonFlag = False,
) -> None:
    """Declare which versions are dropped by themselves; without options, show what that would do now."""
    handle = _handle(name)
    given = {"keep_last": keep_last, "keep_days": keep_days, "grace_days": grace_days}
    said = {key: value for key, value in given.items() if value is not None}
    if remove and said:
        raise InvalidInput("give numbers or --remove, not both", code="retention.invalid")
    if remove:
        handle.set_retention(None, reason)
    elif said:
        handle.set_retention(Retention(**said), reason)  # type: ignore[arg-type]
    columns = {
        "VERSION": lambda one: one.version,
        "NOW": lambda one: one.action,
        "WHY": lambda one: one.reason,
    }
    show_items(handle.retention_plan(), columns, as_json=as_json, empty=f"{name} has no retention: everything is kept")


def unset_alias(
    name: Name,
    alias: Annotated[str, typer.Argument(help="The alias that shall point nowhere.")],
    reason: Reason = "",
) -> None:
    """Let an alias point nowhere. One that a policy guards takes an admin."""
    _handle(name).unset_alias(alias, reason)
    typer.echo(f"{alias} of {name} points nowhere now")


def delete(name: Name, reason: Reason) -> None:
    """Drop a model with all its versions; what is on record about them stays."""
    _handle(name).delete(reason)
    show_fields([("deleted", name)])


def _handle(name: str) -> ModelHandle:
    return ModelHandle(name, client())
