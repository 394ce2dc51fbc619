"""Models: versions, gates and approvals, and who was champion when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

import msgspec
from litestar import Response
from litestar.enums import RequestEncodingType
from litestar.params import Body
from msgspec import Struct

from modelyard.kernel.auth import Action, Scope
from modelyard.kernel.database import Database
from modelyard.kernel.routing import post
from modelyard.planes.registry import Registry
from modelyard.types.registry import (
    AliasMove,
    Approval,
    Decision,
    Evaluation,
    Latency,
    Model,
    ModelFile,
    ModelVersion,
)
from modelyard.ui.frame import Crumb, Frame, Screen, rail, tabs
from modelyard.ui.page import page as ui_page
from modelyard.ui.render import project_path
from modelyard.ui.urns import address_of

CHAMPION = "champion"
NEWEST_LOOKED_AT = 3


class ModelRow(Struct, frozen=True, kw_only=True):
    """A model and how many of its versions wait for an approval."""

    model: Model
    waiting: int


class Models(Screen, frozen=True, kw_only=True):
    rows: tuple[ModelRow, ...]
    next: str | None = None


class Reign(Struct, frozen=True, kw_only=True):
    """A move of an alias and how long it held: `until` is that of the alias's next move."""

    move: AliasMove
    until: datetime | None
    held_s: float | None


class ModelPage(Screen, frozen=True, kw_only=True):
    """One model in its part `tab`: versions, history or policy. `waiting` are versions that lack only approvals."""

    model: Model
    tab: str
    versions: tuple[ModelVersion, ...] = ()
    waiting: tuple[Decision, ...] = ()
    moves: tuple[Reign, ...] = ()
    policy_text: str = ""
    next: str | None = None


class ModelVersionPage(Screen, frozen=True, kw_only=True):
    """One version in its part `tab`: gates, about or files. `holder` is the version that the decision's alias names
    now; `can_promote`: the version may take its place."""

    version: ModelVersion
    tab: str
    decision: Decision | None = None
    approvals: tuple[Approval, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    latencies: tuple[Latency, ...] = ()
    files: tuple[ModelFile, ...] = ()
    inputs: tuple[tuple[str, str], ...] = ()
    outputs: tuple[tuple[str, str], ...] = ()
    holder: int | None = None
    can_approve: bool = False
    can_promote: bool = False
    problem: str = ""


def reigns(moves: Sequence[AliasMove]) -> tuple[Reign, ...]:
    """Moves, newest first, each with how long it held."""
    until: dict[str, datetime] = {}
    result = []
    for move in sorted(moves, key=lambda move: (move.at, move.id), reverse=True):
        end = until.get(move.alias)
        result.append(Reign(move=move, until=end, held_s=None if end is None else (end - move.at).total_seconds()))
        until[move.alias] = move.at
    return tuple(result)


def lacks_only_approvals(decision: Decision) -> bool:
    """Whether a version would be promotable if somebody approved it."""
    gates_passed = all(gate.status == "passed" for gate in decision.gates)
    return not decision.promotable and gates_passed and not decision.approvals.enough


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


def trimmed(value: Any) -> Any:
    """A structure without its empty parts, for reading."""
    if isinstance(value, dict):
        kept = {key: trimmed(one) for key, one in value.items()}
        return {key: one for key, one in kept.items() if one not in (None, "", [], {}, False)}
    return [trimmed(one) for one in value] if isinstance(value, list) else value


def waiting_for_approval(caller: Scope, registry: Registry, model: Model) -> tuple[Decision, ...]:
    """Of the newest versions after the champion, those that lack nothing but approvals."""
    if model.policy is None or model.policy.approvals.count == 0:
        return ()
    newer = [one for one in registry.versions.list(caller, model.name) if one.version > model.aliases.get(CHAMPION, 0)]
    decisions = [registry.decide(caller, model.name, one.version) for one in newer[:NEWEST_LOOKED_AT]]
    return tuple(decision for decision in decisions if lacks_only_approvals(decision))


@ui_page("/models", template="models.html")
def models(caller: Scope, registry: Registry, page: str = "") -> Models:
    """All models."""
    found = registry.models.search(caller, page=page or None)
    return Models(
        frame=Frame(title="Models", section="models"),
        rows=tuple(
            ModelRow(model=one, waiting=len(waiting_for_approval(caller, registry, one))) for one in found.items
        ),
        next=found.next,
    )


@ui_page("/models/{name:str}", template="model.html")
def model(caller: Scope, database: Database, registry: Registry, name: str, tab: str = "") -> ModelPage:
    """One model: its versions, who was champion when, and its policy."""
    found = registry.models.get(caller, name)
    versions = registry.versions.list(caller, name, dropped=True)
    moves = registry.history(caller, name)
    shown = [("versions", "Versions", len(versions)), ("history", "History", len(moves)), ("policy", "Policy", None)]
    parts = tabs(address_of(f"model:{name}"), tab, shown)
    policy = msgspec.yaml.encode(trimmed(msgspec.to_builtins(found.policy))).decode() if found.policy else ""
    champion = found.aliases.get(CHAMPION)
    return ModelPage(
        frame=Frame(
            title=name,
            section="models",
            kind="model",
            about=found.description,
            owner=found.created_by,
            at=found.created_at,
            crumbs=(Crumb("Models", "/models"),),
            tabs=parts,
            rail=rail(
                database,
                caller,
                f"model:{name}@{champion}" if champion else f"model:{name}",
                f"modelyard model get {name}",
            ),
        ),
        model=found,
        tab=next(key for (key, _, _), part in zip(shown, parts, strict=True) if part.current),
        versions=tuple(versions),
        waiting=waiting_for_approval(caller, registry, found),
        moves=reigns(moves),
        policy_text=policy,
    )


@ui_page("/models/{name:str}/versions/{version:str}", template="model_version.html")
def model_version(
    caller: Scope, database: Database, registry: Registry, name: str, version: str, tab: str = ""
) -> ModelVersionPage:
    """One version: whether it may be promoted and on what evidence, where it comes from, its files."""
    found = registry.resolve(caller, name, version)
    decision = registry.decide(caller, name, found.version) if found.dropped_at is None else None
    files = registry.versions.files(caller, name, found.version)
    shown = [
        ("gates", "Gates", len(decision.gates) if decision else None),
        ("about", "About", None),
        ("files", "Files", len(files)),
    ]
    parts = tabs(address_of(found.urn), tab, shown)
    holder = registry.models.get(caller, name).aliases.get(decision.alias) if decision else None
    approvals = registry.evidence.approvals(caller, name, found.version)
    approved = any(one.by == caller.actor and one.revoked_at is None for one in approvals)
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
            rail=rail(database, caller, found.urn, f"modelyard model get {name} {found.version}"),
        ),
        version=found,
        tab=next(key for (key, _, _), part in zip(shown, parts, strict=True) if part.current),
        decision=decision,
        approvals=tuple(approvals),
        evaluations=tuple(registry.evidence.evaluations(caller, name, found.version)),
        latencies=tuple(registry.evidence.latencies(caller, name, found.version)),
        files=tuple(files),
        inputs=columns_of(found.signature, "inputs"),
        outputs=columns_of(found.signature, "outputs"),
        holder=holder,
        can_promote=decision is not None and decision.promotable and holder != found.version,
        can_approve=bool(decision) and bool(found.digest) and not approved and found.dropped_at is None,
    )


class ApproveForm(Struct, frozen=True, kw_only=True):
    """The form of the approve dialog. `digest` is that of the files that were looked at."""

    reason: str
    digest: str = ""


class PromoteForm(Struct, frozen=True, kw_only=True):
    """The form of the promote dialog. `expected` is the version that the alias pointed to when it was looked at."""

    alias: str
    reason: str
    expected: str = ""


@post("/models/{name:str}/versions/{version:str}/approve", requires=Action.APPROVE, status_code=303)
def approve(
    caller: Scope,
    registry: Registry,
    name: str,
    version: int,
    data: Annotated[ApproveForm, Body(media_type=RequestEncodingType.URL_ENCODED)],
) -> Response[None]:
    """Approve a version by the form, and show it again."""
    registry.approve(caller, name, version, data.reason, digest=data.digest)
    return _back_to(caller, name, version)


@post("/models/{name:str}/versions/{version:str}/promote", requires=Action.WRITE, status_code=303)
def promote(
    caller: Scope,
    registry: Registry,
    name: str,
    version: int,
    data: Annotated[PromoteForm, Body(media_type=RequestEncodingType.URL_ENCODED)],
) -> Response[None]:
    """Promote a version by the form, and show it again."""
    expected = int(data.expected) if data.expected.isdecimal() else None
    registry.promote(caller, name, version, data.alias, data.reason, expected=expected)
    return _back_to(caller, name, version)


def _back_to(caller: Scope, name: str, version: int) -> Response[None]:
    there = project_path(caller.project, address_of(f"model:{name}@{version}"))
    return Response(None, status_code=303, headers={"Location": there})


ROUTES: list[Any] = [models, model, model_version, approve, promote]
