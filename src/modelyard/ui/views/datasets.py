"""Datasets: versions, what the checks found, what the columns look like, and what is in quarantine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database
from modelyard.kernel.errors import InvalidInput
from modelyard.kernel.limits import PAGE_ITEMS_MAX
from modelyard.planes.data import Data, Files
from modelyard.planes.jobs import Jobs
from modelyard.planes.tracking import Tracking
from modelyard.types.data import (
    CheckRun,
    Dataset,
    DatasetKind,
    DatasetVersion,
    Quarantined,
    Unsupported,
    VersionDiff,
)
from modelyard.types.files import FilesDiff
from modelyard.ui.frame import Crumb, Frame, Screen, Tab, rail, tabs
from modelyard.ui.names import NameThem, names
from modelyard.ui.page import page as ui_page
from modelyard.ui.series import Chart, series
from modelyard.ui.urns import address_of
from modelyard.ui.views import dataset_files
from modelyard.ui.views.dataset_files import Browsed, browsed
from modelyard.ui.views.dataset_trust import Trust, Unusual, trust, unusual

TABS = ("versions", "contract", "checks", "profile", "changes", "anomalies", "quarantine")
TABS_OF_FILES = ("versions", "files", "changes")


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
    runs: tuple[CheckRun, ...] = ()
    next: str | None = None
    files: Browsed | None = None
    changes: VersionDiff | None = None
    file_changes: FilesDiff | None = None
    before: str = ""
    after: str = ""
    comparing: bool = False
    incomparable: str = ""
    trust: Trust | None = None
    unusual: Unusual | None = None


class CheckRunPage(Screen, frozen=True, kw_only=True):
    """What a suite found of a version, with what of it is not supported."""

    run: CheckRun
    unsupported: tuple[Unsupported, ...] = ()


class QuarantinePage(Screen, frozen=True, kw_only=True):
    """A batch that was turned down."""

    batch: Quarantined


def growth(versions: Sequence[DatasetVersion], kind: DatasetKind = "table") -> Chart | None:
    """Rows (or files) by version, once there are three versions to draw a line through."""
    if len(versions) < 3:
        return None
    points = [(float(version.version), float(version.rows)) for version in versions]
    what = "rows" if kind == "table" else "files"
    return Chart(title=f"{what.capitalize()} by version", series=(series(what, points),))


@ui_page("/datasets", template="datasets.html")
def datasets(caller: Scope, datasets: Data, page: str = "") -> Datasets:
    """All datasets, by name."""
    found = datasets.list(caller, after=page or None)
    turned_down = Counter(one.dataset for one in datasets.quarantine.list(caller, None, limit=PAGE_ITEMS_MAX).items)
    return Datasets(
        frame=Frame(title="Datasets", section="datasets"),
        rows=tuple(DatasetRow(dataset=one, quarantined=turned_down[one.name]) for one in found.items),
        next=found.next,
    )


@ui_page("/datasets/{name:str}", template="dataset.html")
def dataset(
    caller: Scope,
    database: Database,
    datasets: Data,
    files: Files,
    jobs: Jobs,
    tracking: Tracking,
    name: str,
    tab: str = "",
    version: str = "",
    page: str = "",
    path: str = "",
    before: str = "",
    after: str = "",
    drop: str = "",
    compare: bool = False,
) -> DatasetPage:
    """One dataset in one of its parts; with a version, its checks, profile or files."""
    found = datasets.get(caller, name)
    chosen = datasets.resolve(caller, name, version or None) if found.latest else None
    turned_down = datasets.quarantine.list(caller, name).items
    default = "" if not version else "checks" if found.kind == "table" else "files"
    parts = _tabs(found, tab or default, len(turned_down))
    screen = DatasetPage(
        frame=_frame(database, caller, found, chosen, version, parts, names(caller, jobs, tracking)),
        dataset=found,
        tab=_current(found, parts),
        version=chosen,
    )
    match screen.tab:
        case "versions":
            history = datasets.versions(caller, name, after=page or None)
            shown = tuple(history.items)
            return replace(screen, versions=shown, growth=growth(shown, found.kind), next=history.next)
        case "contract":
            return replace(screen, trust=trust(caller, datasets, found, chosen, drop))
        case "checks" if chosen is not None:
            return replace(screen, runs=tuple(datasets.checking.runs(caller, name, limit=20)))
        case "files" if chosen is not None:
            return replace(screen, files=browsed(caller, files, name, chosen.version, path.strip("/"), page))
        case "changes" if chosen is not None:
            asked = replace(screen, before=before or str(chosen.parent or chosen.version), after=after)
            return _changes(caller, datasets, files, asked, compare=compare)
        case "anomalies":
            return replace(screen, unusual=unusual(caller, datasets, name, page))
        case "quarantine":
            return replace(screen, quarantined=tuple(turned_down))
    return screen


def _changes(caller: Scope, datasets: Data, files: Files, screen: DatasetPage, *, compare: bool) -> DatasetPage:
    """What differs between two versions. Rows are compared only where that is asked for, or is known: the page is there
    at once, and asks for it."""
    name, before = screen.dataset.name, screen.before
    after = screen.after or (str(screen.version.version) if screen.version else "latest")
    screen = replace(screen, after=after)
    if screen.dataset.kind == "files":
        return replace(screen, file_changes=files.diff(caller, name, before, after))
    key = screen.dataset.key
    found = datasets.diffs.known(caller, name, before, after, key)
    if found is None and not compare:
        return replace(screen, comparing=True)
    try:
        return replace(screen, changes=found or datasets.diffs.between(caller, name, before, after, key))
    except InvalidInput as error:
        return replace(screen, incomparable=f"{error.message}. {error.hint}".strip())


def _tabs(found: Dataset, current: str, quarantined: int) -> tuple[Tab, ...]:
    shown: list[tuple[str, str, int | None]] = [("versions", "Versions", found.latest)]
    if found.kind == "files":
        shown += [("files", "Files", found.rows), ("changes", "Changes", None)]
    else:
        shown += [
            ("contract", "Contract", None),
            ("checks", "Checks", len(found.checks)),
            ("profile", "Profile", None),
            ("changes", "Changes", None),
            ("anomalies", "Anomalies", None),
            ("quarantine", "Quarantine", quarantined),
        ]
    return tabs(address_of(f"dataset:{found.name}"), current, shown)


def _current(found: Dataset, parts: Sequence[Tab]) -> str:
    keys = TABS_OF_FILES if found.kind == "files" else TABS
    return next(key for key, part in zip(keys, parts, strict=True) if part.current)


def _frame(
    database: Database,
    caller: Scope,
    found: Dataset,
    chosen: DatasetVersion | None,
    version: str,
    parts: Sequence[Tab],
    name_them: NameThem,
) -> Frame:
    urn = chosen.urn if chosen else f"dataset:{found.name}"
    what = "dataset files list" if found.kind == "files" else "dataset get"
    return Frame(
        title=found.name if not version or chosen is None else f"{found.name}, version {chosen.version}",
        section="datasets",
        kind="dataset",
        about=found.description,
        owner=found.created_by,
        at=found.updated_at,
        crumbs=(Crumb("Datasets", "/datasets"),),
        tabs=tuple(parts),
        rail=rail(database, caller, urn, f"modelyard {what} {found.name}", name_them=name_them),
    )


@ui_page("/datasets/{name:str}/check-runs/{run_id:str}", template="check_run.html")
def check_run(caller: Scope, datasets: Data, name: str, run_id: str) -> CheckRunPage:
    """A run of checks over a version."""
    run = datasets.checking.one(caller, name, run_id)
    return CheckRunPage(
        frame=Frame(
            title=f"Checks of {name}, version {run.version}",
            section="datasets",
            kind="check run",
            state="passed" if run.report.passed else "failed",
            owner=run.created_by,
            at=run.created_at,
            crumbs=(
                Crumb("Datasets", "/datasets"),
                Crumb(name, address_of(f"dataset:{name}")),
                Crumb("Checks", address_of(f"dataset:{name}") + "?tab=checks"),
            ),
        ),
        run=run,
        unsupported=tuple(one for one in run.checks if isinstance(one, Unsupported)),
    )


@ui_page("/datasets/{name:str}/quarantine/{batch_id:str}", template="quarantine.html")
def quarantine(caller: Scope, datasets: Data, name: str, batch_id: str) -> QuarantinePage:
    """A batch that was turned down, with its report and failing rows."""
    batch = datasets.quarantine.get(caller, name, batch_id)
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


ROUTES: list[Any] = [datasets, dataset, check_run, quarantine, *dataset_files.ROUTES]
