"""Models: versions, gates and approvals, and who was champion when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

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
from modelyard.ui.frame import Screen

CHAMPION = "champion"


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
    """One version in its part `tab`: gates, about or files."""

    version: ModelVersion
    tab: str
    decision: Decision | None = None
    approvals: tuple[Approval, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    latencies: tuple[Latency, ...] = ()
    files: tuple[ModelFile, ...] = ()
    inputs: tuple[tuple[str, str], ...] = ()
    outputs: tuple[tuple[str, str], ...] = ()
    can_approve: bool = False
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
