"""The page frame, as data: what every screen has, whatever its noun. A screen's `.json` is exactly its struct."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from modelyard.kernel import events, lineage
from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database
from modelyard.kernel.event import Event
from modelyard.ui.names import NameThem
from modelyard.ui.urns import address_of, kind_of, label_of, whole_of

_PASSIVE = {
    "used": "used by",
    "produced": "made by",
    "trained": "trained by",
    "serves": "served by",
    "derived": "source of",
    "triggered": "set off by",
}
_ACTIVE = {"produced": "made", "derived": "from", "triggered": "set off"}
RAIL_EVENTS = 6
RAIL_TIES = 12


class Crumb(Struct, frozen=True):
    """A step of the way to this page."""

    label: str
    href: str


class Tab(Struct, frozen=True, kw_only=True):
    """A part of a page with an address of its own."""

    label: str
    href: str
    count: int | None = None
    current: bool = False


class Tie(Struct, frozen=True):
    """A neighbour in the lineage graph, as the page's noun would say it: `used`, `dataset:flights@7`. `parts` are its
    columns or features that are known to be meant."""

    relation: str
    urn: str
    kind: str
    label: str
    href: str
    parts: tuple[str, ...] = ()


class Rail(Struct, frozen=True, kw_only=True):
    """What stands beside a noun: its neighbours, what happened to it, and the command that gives it again."""

    urn: str
    ties: tuple[Tie, ...] = ()
    ties_left_out: int = 0
    events: tuple[Event, ...] = ()
    command: str = ""
    command_title: str = "On the command line"


class Frame(Struct, frozen=True, kw_only=True):
    """Around every screen. `section` names the entry of the navigation; A page with `refresh_s` asks again
    after so many seconds."""

    title: str
    section: str
    kind: str = ""
    crumbs: tuple[Crumb, ...] = ()
    about: str = ""
    state: str = ""
    owner: str = ""
    at: datetime | None = None
    tabs: tuple[Tab, ...] = ()
    rail: Rail | None = None
    refresh_s: int = 0


class Screen(Struct, frozen=True, kw_only=True):
    """Base of all view models."""

    frame: Frame


def rail(
    database: Database,
    caller: Scope,
    urn: str,
    command: str = "",
    *,
    reproduces: bool = False,
    name_them: NameThem | None = None,
) -> Rail:
    """The rail of the thing that has this URN. `reproduces`: the command makes it again, not only shows it."""
    with database.reading(caller) as tx:
        near = lineage.neighbours(tx, urn)
        happened = events.recent(tx, subject=urn, limit=RAIL_EVENTS)
    ties = ties_of(urn, near)
    shown = ties[:RAIL_TIES]
    if name_them is not None:
        names = name_them(tie.urn for tie in shown)
        shown = [replace(tie, label=names.get(tie.urn) or tie.label) for tie in shown]
    return Rail(
        urn=urn,
        ties=tuple(shown),
        ties_left_out=max(len(ties) - RAIL_TIES, 0),
        events=tuple(happened),
        command=command,
        **({"command_title": "Reproduce"} if reproduces else {}),
    )


def ties_of(urn: str, edges: Sequence[lineage.TimedEdge]) -> list[Tie]:
    """The neighbours of a URN, causes before effects, each told from the URN's side; columns stand with their thing."""
    causes: dict[tuple[str, str], list[str]] = {}
    effects: dict[tuple[str, str], list[str]] = {}
    for edge in edges:
        acts = edge.subject == urn
        other = edge.object if acts else edge.subject
        relation = _ACTIVE.get(edge.relation, edge.relation) if acts else _PASSIVE.get(edge.relation, edge.relation)
        came_first = acts == (edge.relation in lineage.OBJECT_IS_CAUSE)
        whole, part = (other, "") if "#" in urn else whole_of(other)
        parts = (causes if came_first else effects).setdefault((relation, whole), [])
        if part:
            parts.append(part)
    return [
        Tie(relation, other, kind_of(other), label_of(other), address_of(other), tuple(sorted(parts)))
        for (relation, other), parts in [*causes.items(), *effects.items()]
    ]


def tabs(path: str, current: str, entries: Sequence[tuple[str, str, int | None]]) -> tuple[Tab, ...]:
    """Tabs of a page at `path`, each (key, label, count); the first is the page itself, the others `?tab=key`."""
    first = entries[0][0]
    known = {key for key, _, _ in entries}
    chosen = current if current in known else first
    return tuple(
        Tab(label=label, href=path if key == first else f"{path}?tab={key}", count=count, current=key == chosen)
        for key, label, count in entries
    )
