"""Feature views: what a feature is made of, and which versions of its definition there were."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database
from modelyard.planes.features import Features
from modelyard.types.features import NAME_SEPARATOR, Aggregate, DefineFeatureView, FeatureView, duration_text
from modelyard.ui.frame import Crumb, Frame, Screen, rail
from modelyard.ui.page import page as ui_page


class FeatureViews(Screen, frozen=True, kw_only=True):
    """The current version of every view."""

    views: tuple[FeatureView, ...]
    next: str | None = None


class FeatureRow(Struct, frozen=True, kw_only=True):
    """A feature, the name under which a join gives it, and in words what it is."""

    name: str
    column: str
    type: str
    meaning: str


class FeatureViewPage(Screen, frozen=True, kw_only=True):
    """One view, at its current version or another."""

    view: FeatureView
    features: tuple[FeatureRow, ...]
    versions: tuple[FeatureView, ...]


def meaning(definition: DefineFeatureView, name: str) -> str:
    """What a feature is, in words."""
    for aggregate in definition.aggregates:
        if aggregate.feature == name:
            return _aggregate_in_words(aggregate)
    return f"the latest known {name}" + (f", good for {duration_text(definition.ttl_s)}" if definition.ttl_s else "")


def _aggregate_in_words(aggregate: Aggregate) -> str:
    of = f" of {aggregate.column}" if aggregate.column else " of rows"
    function = "share of true" if aggregate.function == "rate" else aggregate.function
    return f"{function}{of} over the last {duration_text(aggregate.window_s)}"


@ui_page("/features", template="feature_views.html")
def feature_views(caller: Scope, features: Features, page: str = "") -> FeatureViews:
    """All feature views, by name."""
    found = features.list(caller, after=page or None)
    return FeatureViews(
        frame=Frame(title="Feature views", section="features"), views=tuple(found.items), next=found.next
    )


@ui_page("/features/{name:str}", template="feature_view.html")
def feature_view(
    caller: Scope, database: Database, features: Features, name: str, version: str = ""
) -> FeatureViewPage:
    """One feature view."""
    found = features.get(caller, f"{name}@{version}" if version else name)
    return FeatureViewPage(
        frame=Frame(
            title=name if found.current else f"{name} @{found.version[:7]}",
            section="features",
            kind="feature view",
            about=found.definition.description,
            owner=found.created_by,
            at=found.created_at,
            crumbs=(Crumb("Feature views", "/features"),),
            rail=rail(database, caller, found.urn, f"modelyard feature get {name}"),
        ),
        view=found,
        features=tuple(
            FeatureRow(
                name=feature.name,
                column=f"{name}{NAME_SEPARATOR}{feature.name}",
                type=feature.type,
                meaning=meaning(found.definition, feature.name),
            )
            for feature in found.features
        ),
        versions=tuple(features.versions(caller, name).items),
    )


ROUTES: list[Any] = [feature_views, feature_view]
