"""Lineage: the graph around any URN."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modelyard.kernel import lineage
from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database
from modelyard.kernel.lineage import Direction, TimedEdge
from modelyard.ui.frame import Frame, Screen
from modelyard.ui.graph import Drawing, GraphEdge, GraphNode, draw
from modelyard.ui.page import page as ui_page
from modelyard.ui.urns import address_of, kind_of, label_of

NODES_DRAWN_MAX = 120
DEPTH_DEFAULT = 4


class Lineage(Screen, frozen=True, kw_only=True):
    """What a walk from `urn` found, drawn. `left_out` says what was too much to draw."""

    urn: str = ""
    direction: str = "both"
    depth: int = DEPTH_DEFAULT
    edges: tuple[TimedEdge, ...] = ()
    drawing: Drawing = Drawing()
    left_out: str = ""
    problem: str = ""


def drawing(root: str, edges: Sequence[TimedEdge]) -> tuple[Drawing, str]:
    """The graph from causes to effects, left to right, and what was left out of it."""
    nodes = _nearest(root, edges)
    shown = nodes[:NODES_DRAWN_MAX]
    kept = set(shown)
    arrows = [
        GraphEdge(cause, effect, f"{edge.subject} {edge.relation} {edge.object}")
        for edge in edges
        for cause, effect in [_direction(edge)]
        if cause in kept and effect in kept
    ]
    drawn = draw(
        [
            GraphNode(
                id=urn,
                label=label_of(urn),
                kind=kind_of(urn),
                href=address_of(urn),
                focus=urn == root,
            )
            for urn in shown
        ],
        arrows,
    )
    more = len(nodes) - len(shown)
    return drawn, f"The {len(shown)} nearest of {len(nodes)} nodes are drawn; the table holds all ties." if more else ""


def _direction(edge: TimedEdge) -> tuple[str, str]:
    if edge.relation in lineage.OBJECT_IS_CAUSE:
        return edge.object, edge.subject
    return edge.subject, edge.object


def _nearest(root: str, edges: Sequence[TimedEdge]) -> list[str]:
    """All nodes, the root first, then by how many steps away they are."""
    around: dict[str, list[str]] = {}
    for edge in edges:
        around.setdefault(edge.subject, []).append(edge.object)
        around.setdefault(edge.object, []).append(edge.subject)
    seen = [root]
    known = {root}
    for urn in seen:
        for other in around.get(urn, ()):
            if other not in known:
                known.add(other)
                seen.append(other)
    return seen


@ui_page("/lineage", template="lineage.html")
def lineage_graph(
    caller: Scope, database: Database, urn: str = "", direction: Direction = "both", depth: int = DEPTH_DEFAULT
) -> Lineage:
    """The graph around a URN."""
    frame = Frame(title="Lineage", section="lineage")
    urn = urn.strip()
    if not urn:
        return Lineage(frame=frame, direction=direction, depth=depth)
    with database.reading(caller) as tx:
        graph = lineage.walk(tx, urn, direction, depth)
    drawn, left_out = drawing(urn, graph.edges)
    if graph.truncated:
        left_out = "The walk met its limit: there is more than is shown."
    return Lineage(
        frame=frame,
        urn=urn,
        direction=direction,
        depth=depth,
        edges=tuple(graph.edges),
        drawing=drawn if graph.edges else Drawing(),
        left_out=left_out,
    )


ROUTES: list[Any] = [lineage_graph]
