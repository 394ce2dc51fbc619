"""Models: what is in production and why, what waits for it, who was it when, and by which rules it moves."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

import msgspec
from litestar import Response
from litestar.enums import RequestEncodingType
from litestar.params import Body
from msgspec import Struct

from modelyard.kernel.auth import Action, Scope
from modelyard.kernel.clock import as_utc
from modelyard.kernel.database import Database
from modelyard.kernel.routing import post
from modelyard.planes.jobs import Jobs
from modelyard.planes.registry import Registry, step_back
from modelyard.planes.tracking import Tracking
from modelyard.types.registry import (
    AliasMove,
    Decision,
    Model,
    ModelVersion,
    Policy,
    RetentionStep,
)
from modelyard.ui.frame import Crumb, Frame, Screen, rail, tabs
from modelyard.ui.names import names
from modelyard.ui.page import page as ui_page
from modelyard.ui.render import project_path
from modelyard.ui.timeline import Bar, Span, Tick, timeline
from modelyard.ui.urns import address_of

CHAMPION = "champion"
NEWEST_LOOKED_AT = 3
CANDIDATES_SHOWN = 3
LANES_SHOWN = 12


class ModelRow(Struct, frozen=True, kw_only=True):
    """A model and how many of its versions wait for an approval. `served` names the endpoints that serve it."""

    model: Model
    waiting: int
    served: tuple[str, ...] = ()


class Models(Screen, frozen=True, kw_only=True):
    rows: tuple[ModelRow, ...]
    next: str | None = None


class Reign(Struct, frozen=True, kw_only=True):
    """A move of an alias and how long it held: `until` is that of the alias's next move."""

    move: AliasMove
    until: datetime | None
    held_s: float | None


class Standing(Struct, frozen=True, kw_only=True):
    """An alias as it stands: the version, the move that brought it there, and where one step back leads."""

    alias: str
    version: int
    move: AliasMove | None
    guarded: bool
    before: int | None


class Candidate(Struct, frozen=True, kw_only=True):
    """A version that could be next, what stands in its way, and what the visitor may do about it."""

    version: ModelVersion
    decision: Decision
    can_approve: bool
    can_promote: bool


class Lane(Struct, frozen=True, kw_only=True):
    """One alias over time: a bar for each version that held it."""

    alias: str
    bars: tuple[Bar, ...]


class ModelPage(Screen, frozen=True, kw_only=True):
    """One model in its part `tab`: versions, history or policy. `asked_at`: the time that was looked up, with the
    version under `asked_alias` then."""

    model: Model
    tab: str
    standings: tuple[Standing, ...] = ()
    candidates: tuple[Candidate, ...] = ()
    versions: tuple[ModelVersion, ...] = ()
    served: dict[int, list[str]] = {}
    moves: tuple[Reign, ...] = ()
    lanes: tuple[Lane, ...] = ()
    ticks: tuple[Tick, ...] = ()
    asked_alias: str = CHAMPION
    asked_at: str = ""
    answer: str = ""
    rules: tuple[tuple[str, str], ...] = ()
    policy_text: str = ""
    retention: tuple[RetentionStep, ...] = ()
    next: str | None = None


def reigns(moves: Sequence[AliasMove]) -> tuple[Reign, ...]:
    """Moves, newest first, each with how long it held."""
    until: dict[str, datetime] = {}
    result = []
    for move in sorted(moves, key=lambda move: (move.at, move.id), reverse=True):
        end = until.get(move.alias)
        result.append(Reign(move=move, until=end, held_s=None if end is None else (end - move.at).total_seconds()))
        until[move.alias] = move.at
    return tuple(result)


def lanes_of(found: Sequence[Reign], now: datetime) -> tuple[tuple[Lane, ...], tuple[Tick, ...]]:
    """The reigns as lanes over one time axis, the champion's first; where an alias pointed nowhere there is a gap."""
    held = [one for one in reversed(found) if one.move.version is not None]
    names = sorted({one.move.alias for one in held}, key=lambda alias: (alias != CHAMPION, alias))[:LANES_SHOWN]
    shown = [one for one in held if one.move.alias in names]
    drawn = timeline([_span(one) for one in shown], now, clock=True)
    lanes = [
        Lane(
            alias=name,
            bars=tuple(bar for bar, one in zip(drawn.bars, shown, strict=True) if one.move.alias == name),
        )
        for name in names
    ]
    return tuple(lanes), drawn.ticks


def _span(reign: Reign) -> Span:
    move = reign.move
    return Span(
        label=str(move.version),
        started_at=move.at,
        ended_at=reign.until,
        state=move.kind,
        href=address_of(f"model:{move.model}@{move.version}"),
        note=move.reason,
    )


def standings_of(model: Model, moves: Sequence[AliasMove], usable: Sequence[int]) -> tuple[Standing, ...]:
    """Every alias with what brought it where it is, the champion first."""
    found = []
    for alias, version in sorted(model.aliases.items(), key=lambda pair: (pair[0] != CHAMPION, pair[0])):
        mine = [move for move in moves if move.alias == alias]
        last = mine[-1] if mine and mine[-1].version == version else None
        guarded = model.policy is not None and (not model.policy.aliases or alias in model.policy.aliases)
        before = step_back(mine, usable)
        found.append(Standing(alias=alias, version=version, move=last, guarded=guarded, before=before))
    return tuple(found)


def lacks_only_approvals(decision: Decision) -> bool:
    """Whether a version would be promotable if somebody approved it."""
    gates_passed = all(gate.status == "passed" for gate in decision.gates)
    return not decision.promotable and gates_passed and not decision.approvals.enough


def trimmed(value: Any) -> Any:
    """A structure without its empty parts, for reading."""
    if isinstance(value, dict):
        kept = {key: trimmed(one) for key, one in value.items()}
        return {key: one for key, one in kept.items() if one not in (None, "", [], {}, False)}
    return [trimmed(one) for one in value] if isinstance(value, list) else value


def rules_of(policy: Policy) -> tuple[tuple[str, str], ...]:
    """A policy in words: each gate and what it asks for."""
    where = f" on {policy.dataset}" if policy.dataset else " on the rows it was evaluated on"
    rules = [("aliases", ", ".join(policy.aliases) or "all of them")]
    for metric in policy.metrics:
        limits = [f"at least {metric.min:g}" if metric.min is not None else ""]
        limits.append(f"at most {metric.max:g}" if metric.max is not None else "")
        rows = f", on {metric.min_rows:,} rows or more" if metric.min_rows > 1 else ""
        rules.append((metric.metric, f"{' and '.join(filter(None, limits))}{where}{rows}"))
    for cut in policy.slices:
        limits = [f"{cut.metric} no worse than {cut.limit:g}" if cut.limit is not None else ""]
        limits.append(f"no further than {cut.max_gap:g} behind the whole" if cut.max_gap is not None else "")
        by = f"every slice by {', '.join(cut.columns)} with {cut.min_rows:,} rows or more"
        rules.append(("slices", f"{by}: {' and '.join(filter(None, limits))}"))
    if policy.champion is not None:
        gate = policy.champion
        margin = f" by more than {gate.margin:g}" if gate.margin else ""
        rules.append((f"better than {gate.alias}", f"in {gate.metric}{margin}, with {gate.confidence:.0%} confidence"))
    rules += _rules_of_files(policy)
    rules += _rules_of_evidence(policy)
    return tuple(rules)


def _rules_of_files(policy: Policy) -> list[tuple[str, str]]:
    given: list[tuple[str, str, object]] = [
        ("signature", "inputs and outputs are declared", policy.signature),
        ("input example", "one comes with the files", policy.input_example),
        ("signed files", "by one of the trusted keys of the policy", policy.require_signature),
        ("format", "no file can carry code, or an approver trusted this version", policy.safe_format),
        ("licence", f"one of {', '.join(policy.licenses)}", policy.licenses),
        ("size", f"at most {policy.size_bytes_max or 0:,} bytes", policy.size_bytes_max),
    ]
    return [(name, text) for name, text, asked in given if asked]


def _rules_of_evidence(policy: Policy) -> list[tuple[str, str]]:
    rules = []
    if policy.latency is not None:
        rules.append(("latency", f"95th percentile at most {policy.latency.p95_ms:g} ms"))
    if policy.provenance is not None:
        known = msgspec.structs.asdict(policy.provenance)
        rules.append(("provenance", f"known: {', '.join(name for name, asked in known.items() if asked) or 'files'}"))
    if policy.data_checks:
        rules.append(("data checks", "passed on every data version behind it"))
    if policy.features:
        rules.append(("features", "somebody attests that served and training features agree"))
    for stated in policy.attestations:
        rules.append((f"attestation: {stated.kind}", f"by {', '.join(stated.by)}" if stated.by else "by anybody"))
    if policy.evidence_valid_days is not None:
        rules.append(("evidence", f"no older than {policy.evidence_valid_days:g} days"))
    asked = policy.approvals
    who = f" of {', '.join(asked.people)}" if asked.people else f" by people with the role {asked.role}"
    valid = f", within {asked.valid_days:g} days" if asked.valid_days is not None else ""
    machine = "; an automation counts as one" if asked.automation else ""
    rules.append(("approvals", f"{asked.count}{who}, never by who submitted it{valid}{machine}"))
    return rules


def waiting_for_approval(caller: Scope, registry: Registry, model: Model) -> tuple[Decision, ...]:
    """Of the newest versions after the champion, those that lack nothing but approvals."""
    if model.policy is None or model.policy.approvals.count == 0:
        return ()
    decisions = [registry.decide(caller, model.name, one.version) for one in _newer(caller, registry, model)]
    return tuple(decision for decision in decisions if lacks_only_approvals(decision))


def _newer(caller: Scope, registry: Registry, model: Model) -> list[ModelVersion]:
    found = registry.versions.list(caller, model.name)
    return [one for one in found if one.version > model.aliases.get(CHAMPION, 0)][:NEWEST_LOOKED_AT]


def candidates_of(caller: Scope, registry: Registry, model: Model) -> tuple[Candidate, ...]:
    """The newest versions after the champion of a guarded model, with all that lets them in or keeps them out."""
    if model.policy is None:
        return ()
    found = []
    for version in _newer(caller, registry, model)[:CANDIDATES_SHOWN]:
        decision = registry.decide(caller, model.name, version.version)
        approved = registry.evidence.approvals(caller, model.name, version.version)
        mine = any(one.by == caller.actor and one.revoked_at is None for one in approved)
        holds = decision.alias in version.aliases
        found.append(
            Candidate(
                version=version,
                decision=decision,
                can_approve=bool(version.digest) and not mine and not holds,
                can_promote=decision.promotable and not holds,
            )
        )
    return tuple(found)


@ui_page("/models", template="models.html")
def models(caller: Scope, registry: Registry, page: str = "") -> Models:
    """All models."""
    found = registry.models.search(caller, page=page or None)
    return Models(
        frame=Frame(title="Models", section="models"),
        rows=tuple(
            ModelRow(
                model=one,
                waiting=len(waiting_for_approval(caller, registry, one)),
                served=tuple(
                    sorted({user for users in registry.versions.in_use(caller, one.name).values() for user in users})
                ),
            )
            for one in found.items
        ),
        next=found.next,
    )


@ui_page("/models/{name:str}", template="model.html")
def model(
    caller: Scope,
    database: Database,
    registry: Registry,
    jobs: Jobs,
    tracking: Tracking,
    name: str,
    tab: str = "",
    at: str = "",
    alias: str = CHAMPION,
) -> ModelPage:
    """One model: its versions, who was champion when, and its policy."""
    found = registry.models.get(caller, name)
    versions = registry.versions.list(caller, name, dropped=True)
    usable = [one.version for one in versions if one.dropped_at is None]
    moves = registry.history(caller, name)
    held = reigns(moves)
    lanes, ticks = lanes_of(held, database.clock.now())
    shown = [("versions", "Versions", len(versions)), ("history", "History", len(moves)), ("policy", "Policy", None)]
    parts = tabs(address_of(f"model:{name}"), tab, shown)
    text = msgspec.yaml.encode(trimmed(msgspec.to_builtins(found.policy))).decode() if found.policy else ""
    champion = found.aliases.get(CHAMPION)
    urn = f"model:{name}@{champion}" if champion else f"model:{name}"
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
            rail=rail(database, caller, urn, f"modelyard model get {name}", name_them=names(caller, jobs, tracking)),
        ),
        model=found,
        tab=next(key for (key, _, _), part in zip(shown, parts, strict=True) if part.current),
        standings=standings_of(found, moves, usable),
        candidates=candidates_of(caller, registry, found),
        versions=tuple(versions),
        served={number: list(users) for number, users in registry.versions.in_use(caller, name).items()},
        moves=held,
        lanes=lanes,
        ticks=ticks,
        asked_alias=alias,
        asked_at=at,
        answer=_answer(moves, alias, at),
        rules=rules_of(found.policy) if found.policy else (),
        policy_text=text,
        retention=tuple(registry.retention.preview(caller, name)) if found.retention else (),
    )


def _answer(moves: Sequence[AliasMove], alias: str, at: str) -> str:
    """In words, which version an alias pointed to at a time that somebody typed, in UTC."""
    if not at:
        return ""
    try:
        instant = as_utc(datetime.fromisoformat(at))
    except ValueError:
        return f"'{at[:40]}' is no time"
    past = [move for move in moves if move.alias == alias and move.at <= instant]
    if not past or past[-1].version is None:
        return f"no version was {alias} then"
    last = past[-1]
    return f"version {last.version} was {alias} then, since {last.at:%Y-%m-%d %H:%M} UTC ({last.kind} by {last.by})"


class RollbackForm(Struct, frozen=True, kw_only=True):
    """The form of the rollback dialog."""

    alias: str
    reason: str


Form = RequestEncodingType.URL_ENCODED


@post("/models/{name:str}/rollback", requires=Action.WRITE, status_code=303)
def rollback(
    caller: Scope, registry: Registry, name: str, data: Annotated[RollbackForm, Body(media_type=Form)]
) -> Response[None]:
    """Roll an alias back by the form, and show the model again."""
    registry.rollback(caller, name, data.alias, data.reason)
    there = project_path(caller.project, address_of(f"model:{name}"))
    return Response(None, status_code=303, headers={"Location": there})


ROUTES: list[Any] = [models, model, rollback]
