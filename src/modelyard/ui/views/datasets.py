"""Datasets: versions, what the checks found, what the columns look like, and what is in quarantine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database
from modelyard.planes.data import Data
from modelyard.types.data import Dataset, DatasetVersion, Quarantined
from modelyard.ui.frame import Crumb, Frame, Screen, rail, tabs
from modelyard.ui.page import page as ui_page
from modelyard.ui.series import Chart, series
from modelyard.ui.urns import address_of

TABS = ("versions", "checks", "profile", "quarantine")


class DatasetRow(Struct, frozen=True, kw_only=True):
    """A dataset and how many batches of it are in quarantine."""

    dataset: Dataset
    quarantined: int


class Datasets(Screen, frozen=True, kw_only=True):
    rows: tuple[DatasetRow, ...]
    next: str | None = None


class DatasetPage(Screen, frozen=True, kw_only=True):
    """One dataset in its part `tab`; `version` is the one that checks and profile are shown of."""

    dataset: Dataset
    tab: str
    versions: tuple[DatasetVersion, ...] = ()
    version: DatasetVersion | None = None
    quarantined: tuple[Quarantined, ...] = ()
    growth: Chart | None = None
    next: str | None = None


class QuarantinePage(Screen, frozen=True, kw_only=True):
    """A batch that was turned down."""

    batch: Quarantined


def growth(versions: Sequence[DatasetVersion]) -> Chart | None:
    """Rows by version, once there are three versions to draw a line through."""
    if len(versions) < 3:
        return None
    points = [(float(version.version), float(version.rows)) for version in versions]
    return Chart(title="Rows by version", series=(series("rows", points),))


@ui_page("/datasets", template="datasets.html")
def datasets(caller: Scope, datasets: Data, page: str = "") -> Datasets:
    """All datasets, by name."""
    found = datasets.list(caller, after=page or None)
    return Datasets(
        frame=Frame(title="Datasets", section="datasets"),
        rows=tuple(
            DatasetRow(dataset=one, quarantined=len(datasets.quarantine(caller, one.name).items)) for one in found.items
        ),
        next=found.next,
    )


@ui_page("/datasets/{name:str}", template="dataset.html")
def dataset(
    caller: Scope,
    database: Database,
    datasets: Data,
    name: str,
    tab: str = "",
    version: int | None = None,
    page: str = "",
) -> DatasetPage:
    """One dataset; with a version, its checks and profile."""
    found = datasets.get(caller, name)
    history = datasets.versions(caller, name, after=page or None)
    chosen = datasets.resolve(caller, name, version) if found.latest else None
    turned_down = datasets.quarantine(caller, name).items
    shown = [
        ("versions", "Versions", found.latest),
        ("checks", "Checks", len(found.checks)),
        ("profile", "Profile", None),
        ("quarantine", "Quarantine", len(turned_down)),
    ]
    parts = tabs(address_of(f"dataset:{name}"), tab or ("checks" if version else ""), shown)
    urn = chosen.urn if chosen else f"dataset:{name}"
    return DatasetPage(
        frame=Frame(
            title=name if version is None else f"{name}, version {version}",
            section="datasets",
            kind="dataset",
            about=found.description,
            owner=found.created_by,
            at=found.updated_at,
            crumbs=(Crumb("Datasets", "/datasets"),),
            tabs=parts,
            rail=rail(database, caller, urn, f"modelyard dataset get {name}"),
        ),
        dataset=found,
        tab=next(key for (key, _, _), part in zip(shown, parts, strict=True) if part.current),
        versions=tuple(history.items),
        version=chosen,
        quarantined=tuple(turned_down),
        growth=growth(history.items),
        next=history.next,
    )


@ui_page("/datasets/{name:str}/quarantine/{batch_id:str}", template="quarantine.html")
def quarantine(caller: Scope, datasets: Data, name: str, batch_id: str) -> QuarantinePage:
    """A batch that was turned down, with its report and failing rows."""
    batch = datasets.quarantined(caller, name, batch_id)
    return QuarantinePage(
        frame=Frame(
            title=f"Batch {batch_id[-8:]}",
            section="datasets",
            kind="batch",
            state="quarantined",
            owner=batch.created_by,
            at=batch.created_at,
            crumbs=(
                Crumb("Datasets", "/datasets"),
                Crumb(name, address_of(f"dataset:{name}")),
                Crumb("Quarantine", address_of(f"dataset:{name}") + "?tab=quarantine"),
            ),
        ),
        batch=batch,
    )


ROUTES: list[Any] = [datasets, dataset, quarantine]
