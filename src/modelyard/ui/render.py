"""Templates to HTML. Escaping is on everywhere, an unknown variable is an error, and nothing here decides anything."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import msgspec
from markupsafe import Markup, escape
from msgspec import Struct

from modelyard.kernel.auth import Action
from modelyard.planes.data import name_of
from modelyard.ui import format as formats
from modelyard.ui import urns
from modelyard.ui.assets import asset_url
from modelyard.ui.distribution import spread
from modelyard.ui.events import sentence
from modelyard.ui.frame import Screen
from modelyard.ui.graph import draw
from modelyard.ui.markdown import markdown
from modelyard.ui.previews import bars
from modelyard.ui.series import sparkline

if TYPE_CHECKING:
    from jinja2 import Environment

_ID = re.compile(r"\b[0-9a-f]{32}\b")
TEMPLATES = Path(__file__).parent / "templates"


class Entry(Struct, frozen=True):
    """An entry of the navigation."""

    section: str
    label: str
    href: str
    icon: str


NAVIGATION: tuple[tuple[str, tuple[Entry, ...]], ...] = (
    ("", (Entry("home", "Home", "/", "home"),)),
    (
        "Data",
        (
            Entry("datasets", "Datasets", "/datasets", "dataset"),
            Entry("features", "Feature views", "/features", "feature"),
        ),
    ),
    (
        "Build",
        (
            Entry("experiments", "Experiments", "/experiments", "experiment"),
            Entry("runs", "Runs", "/runs", "run"),
            Entry("pipelines", "Pipelines", "/pipelines", "pipeline"),
            Entry("jobs", "Jobs", "/jobs", "job"),
        ),
    ),
    (
        "Serve",
        (
            Entry("models", "Models", "/models", "model"),
            Entry("endpoints", "Endpoints", "/endpoints", "endpoint"),
            Entry("monitors", "Monitors", "/monitors", "monitor"),
            Entry("automation", "Automation", "/automation", "automation"),
        ),
    ),
    (
        "Trace",
        (
            Entry("lineage", "Lineage", "/lineage", "lineage"),
            Entry("events", "Events", "/events", "event"),
            Entry("cost", "Cost", "/cost", "cost"),
        ),
    ),
)


class Visit(Struct, frozen=True, kw_only=True):
    """One look at a page: in which project, by whom, at which address, when, and what they may do there."""

    project: str
    who: str
    path: str
    now: datetime
    query: tuple[tuple[str, str], ...] = ()
    actions: frozenset[Action] = frozenset()

    def to(self, path: str) -> str:
        """The address of a path in this visit's project."""
        return project_path(self.project, path)

    def with_query(self, **changes: str | int | Sequence[str] | None) -> str:
        """This address with some query parameters changed; None or empty takes one away, a list gives several."""
        kept = [(key, value) for key, value in self.query if key not in changes]
        for key, value in changes.items():
            several = [str(value)] if isinstance(value, str | int) else value or ()
            kept += [(key, one) for one in several if one]
        return self.to(self.path) + (f"?{urlencode(kept)}" if kept else "")

    def all(self, key: str) -> list[str]:
        """The values of a query parameter of this address."""
        return [value for name, value in self.query if name == key]

    def may(self, action: str) -> bool:
        """Whether the visitor may do the action; buttons that would be refused are not shown."""
        return Action(action) in self.actions


def project_path(project: str, path: str) -> str:
    """The address of a path in a project."""
    return path if project == "default" else f"/p/{project}{path}"


def render(template: str, screen: Screen, visit: Visit) -> str:
    """The HTML of a screen."""
    return (
        environment()
        .get_template(f"pages/{template}")
        .render(screen=screen, frame=screen.frame, visit=visit, navigation=NAVIGATION)
    )


def render_alone(template: str, **values: Any) -> str:
    """The HTML of a page outside the frame, such as for signing in."""
    return environment().get_template(f"pages/{template}").render(**values)


def render_part(template: str, **values: Any) -> str:
    """The HTML of a part of a page that is asked for by itself."""
    return environment().get_template(f"widgets/{template}").render(**values)


@cache
def environment() -> Environment:
    """The one template environment."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters.update(
        relative=formats.relative,
        exact=formats.exact,
        day=formats.day,
        duration=formats.duration,
        size=formats.size,
        count=formats.count,
        number=formats.number,
        measure=formats.measure,
        actor=formats.actor,
        numeric=formats.numeric,
        percent=formats.percent,
        money=formats.money,
        cell=formats.cell,
        short_id=formats.short_id,
        truncated=formats.truncated,
        plural=formats.plural,
        tone=formats.tone,
        words=formats.words,
        prose=_prose,
        markdown=markdown,
        urn_href=urns.address_of,
        urn_label=urns.label_of,
        urn_kind=urns.kind_of,
        lineage_href=urns.lineage_of,
        segment=lambda text: quote(str(text), safe=""),
        check_name=name_of,
        wire=_wire,
        isotime=_isotime,
        sentence=sentence,
    )
    made.globals.update(asset_url=asset_url, draw=draw, sparkline=sparkline, bars=bars, spread=spread, zip=_zip)
    return made


def _prose(text: str) -> Markup:
    """A message with its `commands` set as code and ids in its sentences shortened; all else is escaped."""
    if "`" not in text:
        text = _ID.sub(lambda found: formats.short_id(found.group()), text)
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return escape(text)
    return Markup().join(
        Markup("<code>{}</code>").format(part) if place % 2 else escape(part) for place, part in enumerate(parts)
    )


def _wire(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _isotime(at: datetime) -> str:
    return at.isoformat()


def _zip(*lists: Sequence[Any]) -> list[tuple[Any, ...]]:
    return list(zip(*lists, strict=True))
