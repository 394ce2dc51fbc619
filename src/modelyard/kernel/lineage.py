"""The lineage graph: edges between URNs, and the walk over them.

A relation reads as a sentence, `subject relation object`: `run:a used dataset:flights@3`. Which end is the cause
depends on the relation: who *used* something came after it, who *produced* something came before it. A walk `up` goes
from effects to causes, `down` from causes to effects.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import sqlalchemy as sa
from sqlalchemy import Column, Connection, Index, String, Table, literal, or_, select

from modelyard.kernel.auth import Scope
from modelyard.kernel.errors import InvalidInput, NotFound
from modelyard.kernel.limits import LINEAGE_DEPTH_MAX, LINEAGE_NODES_MAX
from modelyard.kernel.portions import portions
from modelyard.kernel.schema import Instant, metadata, on_conflict_do_nothing

if TYPE_CHECKING:
    from modelyard.kernel.database import Transaction

OBJECT_IS_CAUSE = frozenset({"used", "derived", "serves"})
SUBJECT_IS_CAUSE = frozenset({"produced", "trained", "triggered"})
ALL_COLUMNS = "**"
"""Stands, as a part of a dataset version (`dataset:flights@7#**`), for its columns where a reader names none."""
RELATIONS = OBJECT_IS_CAUSE | SUBJECT_IS_CAUSE
_CHUNK = 500
Direction = Literal["up", "down", "both"]

edges = Table(
    "lineage",
    metadata,
    Column("project", String(64), primary_key=True),
    Column("cause", String(512), primary_key=True),
    Column("effect", String(512), primary_key=True),
    Column("relation", String(16), primary_key=True),
    Column("at", Instant, nullable=False),
    Index("lineage_by_effect", "project", "effect"),
)


class Edge(msgspec.Struct, frozen=True):
    """One tie, as a sentence: subject, relation, object."""

    subject: str
    relation: str
    object: str


class TimedEdge(msgspec.Struct, frozen=True):
    """A tie and when it was made."""

    subject: str
    relation: str
    object: str
    at: datetime


class Graph(msgspec.Struct, frozen=True):
    """What a walk found. `truncated`: there was more than the limits allow to show."""

    root: str
    nodes: list[str]
    edges: list[TimedEdge]
    truncated: bool = False


Listing = Callable[[Scope, str, int], Sequence[str]]
"""The URNs of so many versions of a thing of that name, newest first. May raise NotFound."""


class Newest:
    """What a URN without a version stands for: the newest one. `listings` tell the versions of a thing by its kind."""

    def __init__(self, listings: Mapping[str, Listing]) -> None:
        self._listings = listings

    def versions(self, scope: Scope, urn: str, limit: int = 1) -> Sequence[str]:
        """The versions of a thing that is named without one, newest first; none of what has none, or is not known."""
        kind, _, name = urn.partition("#")[0].partition(":")
        if "@" in name or kind not in self._listings:
            return []
        try:
            return self._listings[kind](scope, name, limit)
        except NotFound:
            return []

    def resolve(self, scope: Scope, urn: str) -> str:
        """The URN with its version; as it is where there is none to be had."""
        found = self.versions(scope, urn)
        _, part, name = urn.partition("#")
        return f"{found[0]}{part}{name}" if found else urn


def insert(connection: Connection, new: Sequence[Edge], *, project: str, at: datetime) -> None:
    """Write edges; those that exist stay as they are. Raises InvalidInput for an unknown relation."""
    rows = []
    for edge in new:
        if edge.relation not in RELATIONS:
            raise InvalidInput(
                f"'{edge.relation}' is no relation of the lineage graph",
                code="lineage.relation_unknown",
                hint=f"use one of {', '.join(sorted(RELATIONS))}",
            )
        cause, effect = (edge.object, edge.subject) if edge.relation in OBJECT_IS_CAUSE else (edge.subject, edge.object)
        rows.append({"project": project, "cause": cause, "effect": effect, "relation": edge.relation, "at": at})
    connection.execute(on_conflict_do_nothing(connection, edges), rows)


def walk(tx: Transaction, urn: str, direction: Direction = "up", depth: int = LINEAGE_DEPTH_MAX) -> Graph:
    """All that led to a URN (`up`), came of it (`down`), or both, in one recursive query per direction."""
    found: dict[tuple[str, str, str], TimedEdge] = {}
    truncated = False
    for one_way in ("up", "down") if direction == "both" else (direction,):
        rows = tx.all(_walk_statement(tx.project, urn, one_way, min(depth, LINEAGE_DEPTH_MAX)))
        truncated = truncated or len(rows) > LINEAGE_NODES_MAX
        for row in rows[:LINEAGE_NODES_MAX]:
            found[(row.cause, row.relation, row.effect)] = _as_sentence(row)
    nodes = {urn} | {end for cause, _, effect in found for end in (cause, effect)}
    return Graph(urn, sorted(nodes), sorted(found.values(), key=lambda edge: edge.at), truncated)


def _walk_statement(project: str, urn: str, direction: str, depth: int) -> sa.Select[Any]:
    near, far = (edges.c.effect, edges.c.cause) if direction == "up" else (edges.c.cause, edges.c.effect)
    reached = select(literal(urn).label("node"), literal(0).label("depth")).cte("reached", recursive=True)
    # UNION (not UNION ALL) on (node, depth) ends on cycles by the depth cap; DISTINCT below folds nodes met again.
    reached = reached.union(
        select(far, reached.c.depth + 1)
        .select_from(edges)
        .join(reached, near == reached.c.node)
        .where(edges.c.project == project, reached.c.depth < depth)
    )
    nodes = select(reached.c.node).distinct()
    beyond = select(reached.c.node).where(reached.c.depth < depth).distinct()
    return (
        select(edges)
        .where(edges.c.project == project, near.in_(beyond), far.in_(nodes))
        .order_by(edges.c.at, edges.c.cause, edges.c.effect)
        .limit(LINEAGE_NODES_MAX + 1)
    )


def ends_like(tx: Transaction, end: Literal["cause", "effect"], prefix: str, suffix: str, limit: int) -> list[str]:
    """URNs that begin and end so and are causes, or effects, of something; those of the latest edges first."""
    column = edges.c.cause if end == "cause" else edges.c.effect
    rows = tx.all(
        select(column.label("urn"), sa.func.max(edges.c.at).label("last"))
        .where(
            edges.c.project == tx.project,
            column.startswith(prefix, autoescape=True),
            column.endswith(suffix, autoescape=True),
        )
        .group_by(column)
        .order_by(sa.desc("last"))
        .limit(limit)
    )
    return [row.urn for row in rows]


def causes_of(tx: Transaction, urns: Sequence[str]) -> dict[str, list[str]]:
    """The direct causes of each of several URNs, oldest first."""
    found: dict[str, list[str]] = {}
    for some in portions(urns, _CHUNK):
        statement = select(edges.c.effect, edges.c.cause).where(edges.c.project == tx.project, edges.c.effect.in_(some))
        for row in tx.all(statement.order_by(edges.c.at, edges.c.cause)):
            found.setdefault(row.effect, []).append(row.cause)
    return found


def neighbours(tx: Transaction, urn: str) -> list[TimedEdge]:
    """The ties that a URN itself has, oldest first."""
    rows = tx.all(
        select(edges)
        .where(edges.c.project == tx.project, or_(edges.c.cause == urn, edges.c.effect == urn))
        .order_by(edges.c.at)
        .limit(LINEAGE_NODES_MAX)
    )
    return [_as_sentence(row) for row in rows]


def _as_sentence(row: Any) -> TimedEdge:
    if row.relation in OBJECT_IS_CAUSE:
        return TimedEdge(row.effect, row.relation, row.cause, row.at)
    return TimedEdge(row.cause, row.relation, row.effect, row.at)
