"""Lineage: the graph around any URN."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct

from modelyard.kernel import lineage
from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database
from modelyard.kernel.lineage import ALL_COLUMNS, Direction, Newest, TimedEdge
from modelyard.planes.data import Data
from modelyard.planes.jobs import Jobs
from modelyard.planes.tracking import Tracking
from modelyard.types.contracts import DataUse
from modelyard.ui.frame import Frame, Screen
from modelyard.ui.graph import Drawing, GraphEdge, GraphNode, draw
from modelyard.ui.names import names as names_of
from modelyard.ui.page import page as ui_page
from modelyard.ui.urns import address_of, kind_of, label_of, whole_of

NODES_DRAWN_MAX = 120
DEPTH_DEFAULT = 4
VERSIONS_LISTED_MAX = 30


class Bundle(Struct, frozen=True, kw_only=True):
    """A tie with the columns or features of its two ends that it stands for."""

    subject: str
    relation: str
    object: str
    at: datetime
    of_subject: tuple[str, ...] = ()
    of_object: tuple[str, ...] = ()


class Lineage(Screen, frozen=True, kw_only=True):
    """What a walk from `urn` found, drawn. `left_out` says what was too much to draw. `columns`: they are drawn each by
    itself. `versions`: others of the same thing, newest first. `data`: the datasets behind it. `names`: of jobs, runs.
    """

    urn: str = ""
    direction: str = "both"
    depth: int = DEPTH_DEFAULT
    columns: bool = False
    edges: tuple[Bundle, ...] = ()
    versions: tuple[str, ...] = ()
    data: tuple[DataUse, ...] = ()
    names: dict[str, str] = {}
    drawing: Drawing = Drawing()
    left_out: str = ""
    problem: str = ""


def bundled(edges: Sequence[TimedEdge]) -> list[Bundle]:
    """Ties of columns and features folded into those of what they are parts of; what is within one thing goes."""
    first: dict[tuple[str, str, str], datetime] = {}
    parts: dict[tuple[str, str, str], tuple[dict[str, None], dict[str, None]]] = {}
    for edge in edges:
        (subject, own), (other, foreign) = whole_of(edge.subject), whole_of(edge.object)
        if subject == other:
            continue
        key = (subject, edge.relation, other)
        first.setdefault(key, edge.at)
        mine, theirs = parts.setdefault(key, ({}, {}))
        mine |= {own: None} if own else {}
        # Who names no columns has the tie to the whole.
        theirs |= {foreign: None} if foreign and foreign != ALL_COLUMNS else {}
    return [
        Bundle(
            subject=subject, relation=relation, object=other, at=at,
            of_subject=tuple(sorted(parts[subject, relation, other][0])),
            of_object=tuple(sorted(parts[subject, relation, other][1])),
        )
        for (subject, relation, other), at in first.items()
    ]  # fmt: skip


def drawing(
    root: str, edges: Sequence[TimedEdge | Bundle], names: Mapping[str, str] | None = None
) -> tuple[Drawing, str]:
    """The graph from causes to effects, left to right, and what was left out of it."""
    names = names or {}
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
                label=names.get(urn) or label_of(urn),
                kind=kind_of(urn),
                detail=label_of(urn) if urn in names else "",
                href=address_of(urn),
                focus=urn == root,
            )
            for urn in shown
        ],
        arrows,
    )
    more = len(nodes) - len(shown)
    return drawn, f"The {len(shown)} nearest of {len(nodes)} nodes are drawn; the table holds all ties." if more else ""


def _direction(edge: TimedEdge | Bundle) -> tuple[str, str]:
    if edge.relation in lineage.OBJECT_IS_CAUSE:
        return edge.object, edge.subject
    return edge.subject, edge.object


def _nearest(root: str, edges: Sequence[TimedEdge | Bundle]) -> list[str]:
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
    caller: Scope,
    database: Database,
    datasets: Data,
    newest: Newest,
    jobs: Jobs,
    tracking: Tracking,
    urn: str = "",
    direction: Direction = "both",
    depth: int = DEPTH_DEFAULT,
    columns: bool = False,
) -> Lineage:
    """The graph around a URN; of a thing that is named without a version around its newest."""
    frame = Frame(title="Lineage", section="lineage")
    urn = urn.strip()
    if not urn:
        return Lineage(frame=frame, direction=direction, depth=depth)
    versions = newest.versions(caller, urn, VERSIONS_LISTED_MAX)
    root = newest.resolve(caller, urn)
    columns = columns or bool(whole_of(root)[1])
    with database.reading(caller) as tx:
        graph = lineage.walk(tx, root, direction, depth)
    edges: Sequence[TimedEdge | Bundle] = graph.edges if columns else bundled(graph.edges)
    names = dict(names_of(caller, jobs, tracking)(graph.nodes))
    drawn, left_out = drawing(root, edges, names)
    if graph.truncated:
        left_out = "The walk met its limit: there is more than is shown."
    return Lineage(
        frame=frame,
        urn=root,
        direction=direction,
        depth=depth,
        columns=columns,
        edges=tuple(
            one
            if isinstance(one, Bundle)
            else Bundle(subject=one.subject, relation=one.relation, object=one.object, at=one.at)
            for one in edges
        ),
        versions=tuple(versions),
        data=tuple(datasets.derivations.behind(caller, root).data) if direction != "down" else (),
        names=names,
        drawing=drawn if edges else Drawing(),
        left_out=left_out,
    )


ROUTES: list[Any] = [lineage_graph]
