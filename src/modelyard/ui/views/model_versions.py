"""One version: whether it may be promoted and on what evidence, where it comes from, its files, what is new."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
from litestar import Response
from litestar.enums import RequestEncodingType
from litestar.params import Body
from msgspec import Struct

from modelyard.kernel.auth import Action, Scope
from modelyard.kernel.database import Database
from modelyard.kernel.routing import post
from modelyard.planes.jobs import Jobs
from modelyard.planes.registry import Registry, model_card
from modelyard.planes.tracking import Tracking
from modelyard.types.registry import (
    AliasMove,
    Approval,
    Attestation,
    Decision,
    Evaluation,
    Latency,
    ModelFile,
    ModelVersion,
    SignatureCheck,
    VersionChange,
    VersionDiff,
)
from modelyard.ui.frame import Crumb, Frame, Screen, rail, tabs
from modelyard.ui.names import names
from modelyard.ui.page import page as ui_page
from modelyard.ui.render import project_path
from modelyard.ui.urns import address_of

Form = RequestEncodingType.URL_ENCODED
EXAMPLE_CHARACTERS = 4_000
PLANES = {
    "metrics": "Metrics",
    "slices": "Slices",
    "provenance": "Where it comes from",
    "params": "Params",
    "environment": "Packages",
    "signature": "Inputs and outputs",
    "model": "The model",
    "files": "Files",
    "tags": "Tags",
}


class ModelVersionPage(Screen, frozen=True, kw_only=True):
    """One version in its part `tab`: gates, about, files or card. `holder` is the version that the decision's alias
    names now; `can_promote`: the version may take its place. `override` is the move that brought this version under
    its alias past the gates, if one did."""

    version: ModelVersion
    tab: str
    decision: Decision | None = None
    approvals: tuple[Approval, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    latencies: tuple[Latency, ...] = ()
    attestations: tuple[Attestation, ...] = ()
    signatures: tuple[SignatureCheck, ...] = ()
    files: tuple[ModelFile, ...] = ()
    inputs: tuple[tuple[str, str], ...] = ()
    outputs: tuple[tuple[str, str], ...] = ()
    example: str = ""
    card: str = ""
    served: tuple[str, ...] = ()
    others: tuple[int, ...] = ()
    overrides: tuple[AliasMove, ...] = ()
    holder: int | None = None
    can_approve: bool = False
    can_promote: bool = False
    can_override: bool = False
    can_trust: bool = False
    problem: str = ""


class DiffPage(Screen, frozen=True, kw_only=True):
    """In what two versions differ, plane by plane."""

    model: str
    diff: VersionDiff
    planes: tuple[tuple[str, tuple[VersionChange, ...]], ...]
    versions: tuple[int, ...]


def columns_of(signature: Mapping[str, Any] | None, part: str) -> tuple[tuple[str, str], ...]:
    """Names and types of a signature's `inputs` or `outputs`, which MLflow keeps as JSON in text."""
    given = (signature or {}).get(part) or "[]"
    try:
        columns = msgspec.json.decode(given) if isinstance(given, str) else given
    except msgspec.DecodeError:
        return ()
    return tuple(
        (str(column.get("name", f"#{place}")), _type_of(column))
        for place, column in enumerate(columns)
        if isinstance(column, dict)
    )


def _type_of(column: Mapping[str, Any]) -> str:
    tensor = column.get("tensor-spec")
    if isinstance(tensor, dict):
        return f"{tensor.get('dtype', '?')} {tensor.get('shape', '')}"
    return str(column.get("type", "?")) + ("" if column.get("required", True) else ", may be left out")


def by_plane(changes: Sequence[VersionChange]) -> tuple[tuple[str, tuple[VersionChange, ...]], ...]:
    """Changes in groups, in the order in which one reads them."""
    return tuple(
        (title, tuple(one for one in changes if one.plane == plane))
        for plane, title in PLANES.items()
        if any(one.plane == plane for one in changes)
    )


def _evidence(caller: Scope, registry: Registry, version: ModelVersion) -> dict[str, Any]:
    """What is on record about a version."""
    name, number = version.model, version.version
    if version.dropped_at is not None:
        return {"approvals": ()}
    return {
        "approvals": tuple(registry.evidence.approvals(caller, name, number)),
        "evaluations": tuple(registry.evidence.evaluations(caller, name, number)),
        "latencies": tuple(registry.evidence.latencies(caller, name, number)),
        "attestations": tuple(registry.statements.attestations(caller, name, number)),
        "signatures": tuple(registry.statements.check(caller, name, number)),
        "overrides": tuple(move for move in registry.history(caller, name) if move.version == number and move.unmet),
        "served": tuple(user.partition(":")[2] for user in registry.versions.in_use(caller, name).get(number, ())),
    }


@ui_page("/models/{name:str}/versions/{version:str}", template="model_version.html")
def model_version(
    caller: Scope,
    database: Database,
    registry: Registry,
    jobs: Jobs,
    tracking: Tracking,
    name: str,
    version: str,
    tab: str = "",
) -> ModelVersionPage:
    """One version: whether it may be promoted and on what evidence, where it comes from, its files, its card."""
    found = registry.versions.recorded(caller, name, version)
    decision = registry.decide(caller, name, found.version) if found.dropped_at is None else None
    files = registry.versions.files(caller, name, found.version, dropped=True)
    shown: list[tuple[str, str, int | None]] = [("about", "About", None), ("files", "Files", len(files))]
    if decision is not None:
        shown = [("gates", "Gates", len(decision.gates)), *shown, ("card", "Card", None)]
    parts = tabs(address_of(found.urn), tab, shown)
    chosen = next(key for (key, _, _), part in zip(shown, parts, strict=True) if part.current)
    holder = registry.models.get(caller, name).aliases.get(decision.alias) if decision else None
    evidence = _evidence(caller, registry, found)
    approved = any(one.by == caller.actor and one.revoked_at is None for one in evidence["approvals"])
    other = decision is not None and holder != found.version
    readable = bool(found.input_example) and decision is not None
    example = registry.versions.text(caller, name, found.version, found.input_example) if readable else ""
    return ModelVersionPage(
        frame=Frame(
            title=f"{name}, version {found.version}",
            section="models",
            kind="model version",
            about=found.description,
            owner=found.created_by,
            at=found.created_at,
            crumbs=(Crumb("Models", "/models"), Crumb(name, address_of(f"model:{name}"))),
            tabs=parts,
            rail=rail(
                database,
                caller,
                found.urn,
                f"modelyard model get {name} {found.version}",
                name_them=names(caller, jobs, tracking),
            ),
        ),
        version=found,
        tab=chosen,
        decision=decision,
        files=tuple(files),
        inputs=columns_of(found.signature, "inputs"),
        outputs=columns_of(found.signature, "outputs"),
        example=example[:EXAMPLE_CHARACTERS],
        card=model_card(registry.record(caller, name, found.version)) if chosen == "card" else "",
        others=tuple(one.version for one in registry.versions.list(caller, name) if one.version != found.version),
        holder=holder,
        can_promote=decision is not None and decision.promotable and other,
        can_override=decision is not None and decision.guarded and not decision.promotable and other,
        can_approve=other and bool(found.digest) and not approved,
        can_trust=bool(decision) and bool(found.digest) and found.format != "safe" and not found.trusted,
        **evidence,
    )


@ui_page("/models/{name:str}/diff", template="model_diff.html")
def model_diff(caller: Scope, registry: Registry, name: str, before: str = "", after: str = "latest") -> DiffPage:
    """In what two versions differ; without `before`, the newest from the champion, or from the one before it."""
    numbers = tuple(one.version for one in registry.versions.list(caller, name))
    newest = registry.resolve(caller, name, after).version
    champion = registry.models.get(caller, name).aliases.get("champion")
    earlier = next((one for one in numbers if one < newest), newest)
    start = before or str(champion if champion not in (None, newest) else earlier)
    found = registry.diff(caller, name, start, newest)
    return DiffPage(
        frame=Frame(
            title=f"{name}: version {found.before} to {found.after}",
            section="models",
            kind="comparison",
            crumbs=(Crumb("Models", "/models"), Crumb(name, address_of(f"model:{name}"))),
        ),
        model=name,
        diff=found,
        planes=by_plane(found.changes),
        versions=numbers,
    )


class ApproveForm(Struct, frozen=True, kw_only=True):
    """The form of the approve dialog. `digest` is that of the files that were looked at."""

    reason: str
    digest: str = ""


class PromoteForm(Struct, frozen=True, kw_only=True):
    """The form of the promote and override dialogs. `expected` is the version that the alias pointed to when it was
    looked at."""

    alias: str
    reason: str
    expected: str = ""
    override: str = ""


class ReasonForm(Struct, frozen=True, kw_only=True):
    """The form of a dialog that asks for a reason only; `approval` where one is taken back."""

    reason: str
    approval: str = ""


_VERSION = "/models/{name:str}/versions/{version:int}"


@post(_VERSION + "/approve", requires=Action.APPROVE, status_code=303)
def approve(
    caller: Scope, registry: Registry, name: str, version: int, data: Annotated[ApproveForm, Body(media_type=Form)]
) -> Response[None]:
    """Approve a version by the form, and show it again."""
    registry.approve(caller, name, version, data.reason, digest=data.digest)
    return _back_to(caller, name, version)


@post(_VERSION + "/revoke", requires=Action.APPROVE, status_code=303)
def revoke(
    caller: Scope, registry: Registry, name: str, version: int, data: Annotated[ReasonForm, Body(media_type=Form)]
) -> Response[None]:
    """Take an approval back by the form, and show the version again."""
    registry.evidence.revoke(caller, name, version, data.approval, data.reason)
    return _back_to(caller, name, version)


@post(_VERSION + "/promote", requires=Action.WRITE, status_code=303)
def promote(
    caller: Scope, registry: Registry, name: str, version: int, data: Annotated[PromoteForm, Body(media_type=Form)]
) -> Response[None]:
    """Promote a version by the form, and show it again. An override takes an admin, as everywhere."""
    expected = int(data.expected) if data.expected.isdecimal() else None
    override = data.override == "yes"
    registry.promote(caller, name, version, data.alias, data.reason, override=override, expected=expected)
    return _back_to(caller, name, version)


@post(_VERSION + "/trust", requires=Action.APPROVE, status_code=303)
def trust(
    caller: Scope, registry: Registry, name: str, version: int, data: Annotated[ReasonForm, Body(media_type=Form)]
) -> Response[None]:
    """Trust the files of a version by the form, and show it again."""
    registry.versions.trust(caller, name, version, data.reason)
    return _back_to(caller, name, version)


def _back_to(caller: Scope, name: str, version: int) -> Response[None]:
    there = project_path(caller.project, address_of(f"model:{name}@{version}"))
    return Response(None, status_code=303, headers={"Location": there})


ROUTES: list[Any] = [model_version, model_diff, approve, revoke, promote, trust]
