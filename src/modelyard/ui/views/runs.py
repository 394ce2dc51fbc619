"""Runs as a table, in groups, as charts, as parallel coordinates and as a scatter plot. The address is the state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from litestar.params import Parameter
from msgspec import Struct
from msgspec.structs import replace

from modelyard.kernel.auth import Scope
from modelyard.kernel.errors import InvalidInput, Problem, to_problem
from modelyard.kernel.settings import Settings
from modelyard.planes.tracking import Tracking, page_offset, page_token
from modelyard.types.tracking import Experiment, Key, Run, RunGroup
from modelyard.ui.frame import Crumb, Frame, Screen
from modelyard.ui.page import page as ui_page
from modelyard.ui.views import columns
from modelyard.ui.views.columns import Column, Value
from modelyard.ui.views.run_query import (
    DRAWN,
    PARENT,
    SIZES,
    VIEWS,
    Query,
    joined,
    of_group,
    quoted,
    token_of,
    values_of_token,
)

GROUPS_SHOWN = 100
OPENED_SHOWN = 50
OPENED_MAX = 20
CHARTS_SHOWN = 36
PLOTTED_MAX = 1_000
PICKER_SHOWN = 60
COUNTED_MAX = 10_000


class RunRow(Struct, frozen=True, kw_only=True):
    """A run with the values of the chosen columns. `children` counts the runs nested in it, `depth` how deep it is."""

    run: Run
    experiment: str
    duration_s: float | None
    values: tuple[Value, ...]
    children: int = 0
    depth: int = 0
    open: bool = False


class GroupRow(Struct, frozen=True, kw_only=True):
    """A group of runs, with its first runs where it is open. `token` names it in the address."""

    group: RunGroup
    token: str
    open: bool = False
    rows: tuple[RunRow, ...] = ()
    filter: str = ""
    experiment: str = ""


class ChartKey(Struct, frozen=True, kw_only=True):
    """The charts of one section: the part of their names before the first slash."""

    section: str
    keys: tuple[str, ...]
    open: bool = True


class Dot(Struct, frozen=True, kw_only=True):
    """A run as a line or point of a plot."""

    id: str
    name: str
    state: str
    values: tuple[Value, ...] = ()
    group: str = ""


class Plot(Struct, frozen=True, kw_only=True):
    """What the plots draw: runs, with the values of some columns."""

    runs: tuple[Dot, ...]
    columns: tuple[Column, ...] = ()
    colour: str = ""


class Runs(Screen, frozen=True, kw_only=True):
    """The page of runs. `problem` says what is wrong with the filter or the order; `total` is counted up to 10,000."""

    query: Query
    rows: tuple[RunRow, ...] = ()
    groups: tuple[GroupRow, ...] = ()
    columns: tuple[Column, ...] = ()
    keys: tuple[Column, ...] = ()
    groupable: tuple[Column, ...] = ()
    charts: tuple[ChartKey, ...] = ()
    charts_left_out: int = 0
    plot: Plot | None = None
    experiment: Experiment | None = None
    total: int = 0
    first: int = 1
    next: str | None = None
    previous: str | None = None
    problem: Problem | None = None
    url: str = ""


class KeyChoice(Screen, frozen=True, kw_only=True):
    """Columns whose name contains a text, to choose from. `left_out` were found but are not listed."""

    keys: tuple[Column, ...]
    find: str = ""
    left_out: int = 0
    grouping: bool = False


def duration_of(run: Run) -> float | None:
    """Seconds from start to end, None while it runs."""
    return None if run.ended_at is None else (run.ended_at - run.started_at).total_seconds()


def row(
    run: Run, experiment: str, shown: Sequence[Column], children: int = 0, depth: int = 0, open: bool = False
) -> RunRow:
    """A run as a row of the table."""
    return RunRow(
        run=run,
        experiment=experiment,
        duration_s=duration_of(run),
        values=columns.values_of(run, shown),
        children=children,
        depth=depth,
        open=open,
    )


def sections(keys: Sequence[Key], wanted: str = "") -> tuple[tuple[ChartKey, ...], int]:
    """The metrics to draw, by the part of their name before the first slash, and how many found no room."""
    names = [key.name for key in keys if key.kind == "metric" and wanted.strip().lower() in key.name.lower()]
    names.sort(key=lambda name: (name.startswith(columns.SYSTEM), "/" in name, name))
    found: dict[str, list[str]] = {}
    for name in names[:CHARTS_SHOWN]:
        head, slash, _ = name.partition("/")
        found.setdefault(head if slash else "", []).append(name)
    made = tuple(
        ChartKey(section=section, keys=tuple(of_it), open=section != columns.SYSTEM.rstrip("/"))
        for section, of_it in found.items()
    )
    return made, max(len(names) - CHARTS_SHOWN, 0)


def dot(run: Run, shown: Sequence[Column], group: Sequence[str]) -> Dot:
    """A run for a plot."""
    by = [one for key in group if (one := columns.column(key)) is not None]
    label = ", ".join("–" if value is None else str(value) for value in columns.values_of(run, by))
    if not by and group:
        label = run.status.lower() if group[0] == "attributes.status" else run.user
    return Dot(
        id=run.id, name=run.name or run.id[-8:], state=run.status, values=columns.values_of(run, shown), group=label
    )


@ui_page("/runs", template="runs.html")
def runs(
    caller: Scope,
    tracking: Tracking,
    settings: Settings,
    experiment: str = "",
    text: str = "",
    filter: str = "",
    order: str = "",
    page: str = "",
    column: list[str] | None = None,
    group: list[str] | None = None,
    opened: Annotated[list[str] | None, Parameter(query="open")] = None,
    view: str = "table",
    nest: str = "",
    archived: str = "",
    size: int = 50,
    drawn: int = 100,
    metric: str = "",
) -> Runs:
    """The runs of one experiment or of all: filtered by MLflow's grammar or by name, ordered, grouped, drawn."""
    query = Query(
        experiment=experiment,
        text=text,
        filter=filter,
        order=order,
        page=page,
        view=view if view in VIEWS else VIEWS[0],
        group=tuple(one for one in group or () if one),
        nest=bool(nest),
        archived=bool(archived),
        size=size if size in SIZES else 50,
        drawn=drawn if drawn in DRAWN else 100,
        metric=metric,
    )
    within = tracking.experiments.get(caller, experiment) if experiment else None
    frame = Frame(
        title=within.name if within else "Runs",
        section="experiments" if within else "runs",
        crumbs=(Crumb("Experiments", "/experiments"),) if within else (),
    )
    screen = Runs(frame=frame, query=query, experiment=within, url=settings.public_url)
    try:
        return _filled(caller, tracking, screen, column, opened or ())
    except InvalidInput as error:
        return replace(screen, problem=to_problem(error), columns=columns.chosen(column, ()))


def _filled(
    caller: Scope, tracking: Tracking, screen: Runs, asked: Sequence[str] | None, opened: Sequence[str]
) -> Runs:
    query = screen.query
    keys = tracking.overview.keys(caller, query.experiments, query.whole_filter, view=query.stage)
    shown = columns.chosen(asked, keys)
    offered = columns.offered(keys)
    screen = replace(
        screen,
        columns=shown,
        keys=tuple(one for one in offered if one.key not in {column.key for column in shown})[:PICKER_SHOWN],
        groupable=_groupable(keys),
    )
    total = tracking.overview.count(caller, query.experiments, query.whole_filter, query.stage, COUNTED_MAX)
    screen = replace(screen, total=total)
    if query.view == "table":
        if query.group:
            return _grouped(caller, tracking, screen, opened)
        return _listed(caller, tracking, screen, opened)
    return _plotted(caller, tracking, screen, keys)


def _groupable(keys: Sequence[Key]) -> tuple[Column, ...]:
    wanted = [key for key in keys if key.kind != "metric" and not key.name.startswith("mlflow.")]
    return tuple(_column(key) for key in wanted[:PICKER_SHOWN])


def _column(key: Key) -> Column:
    made = columns.column(f"{key.kind}s.{key.name}", key.runs)
    assert made is not None
    return made


def _listed(caller: Scope, tracking: Tracking, screen: Runs, opened: Sequence[str]) -> Runs:
    query = screen.query
    found = tracking.runs.search(
        caller, query.experiments, query.whole_filter, [query.order] if query.order else [], query.stage,
        limit=query.size, page=query.page or None, metric_keys=columns.metric_names(screen.columns),
    )  # fmt: skip
    names = _names(caller, tracking, screen, found.items)
    children = tracking.overview.children(caller, [run.id for run in found.items]) if query.nest else {}
    rows: list[RunRow] = []
    for run in found.items:
        below = children.get(run.id, 0)
        open = bool(below) and run.id in opened
        rows.append(row(run, names.get(run.experiment_id, run.experiment_id), screen.columns, below, 0, open))
        if open and len(opened) <= OPENED_MAX:
            inner = _some(caller, tracking, screen, None, f"{PARENT} = {quoted(run.id)}")
            rows += [row(one, names.get(one.experiment_id, ""), screen.columns, depth=1) for one in inner]
    offset = page_offset(query.page or None)
    return replace(
        screen,
        rows=tuple(rows),
        first=offset + 1,
        next=found.next,
        previous=_before(offset, query.size),
    )


def _before(offset: int, size: int) -> str | None:
    """The page before; the first has an empty token, and none before it."""
    if not offset:
        return None
    return page_token(offset - size) if offset > size else ""


def _some(
    caller: Scope, tracking: Tracking, screen: Runs, experiments: Sequence[str] | None, filter: str
) -> Sequence[Run]:
    order = screen.query.order
    return tracking.runs.search(
        caller, experiments, filter, [order] if order and not screen.query.group else [], screen.query.stage,
        limit=OPENED_SHOWN, metric_keys=columns.metric_names(screen.columns),
    ).items  # fmt: skip


def _grouped(caller: Scope, tracking: Tracking, screen: Runs, opened: Sequence[str]) -> Runs:
    query = screen.query
    found = tracking.overview.groups(
        caller, query.group, columns.metric_names(screen.columns), experiment_ids=query.experiments,
        filter=query.whole_filter, view=query.stage, order=query.order, limit=GROUPS_SHOWN, page=query.page or None,
    )  # fmt: skip
    open = {values for one in opened[:OPENED_MAX] if (values := values_of_token(one)) is not None}
    groups = []
    for group in found.items:
        narrowed, experiment = of_group(query.group, group.values)
        rows: tuple[RunRow, ...] = ()
        if group.values in open:
            within = [experiment] if experiment else query.experiments
            inner = _some(caller, tracking, screen, within, joined(query.whole_filter, narrowed))
            names = _names(caller, tracking, screen, inner)
            rows = tuple(row(run, names.get(run.experiment_id, ""), screen.columns, depth=1) for run in inner)
        groups.append(
            GroupRow(
                group=group,
                token=token_of(group.values),
                open=group.values in open,
                rows=rows,
                filter=joined(query.filter, narrowed),
                experiment=experiment,
            )
        )
    offset = page_offset(query.page or None)
    return replace(
        screen,
        groups=tuple(groups),
        first=offset + 1,
        next=found.next,
        previous=_before(offset, GROUPS_SHOWN),
    )


def _plotted(caller: Scope, tracking: Tracking, screen: Runs, keys: Sequence[Key]) -> Runs:
    query = screen.query
    drawing = query.view == "charts"
    shown = screen.columns
    found = tracking.runs.search(
        caller, query.experiments, query.whole_filter, [query.order] if query.order else [], query.stage,
        limit=query.drawn if drawing else PLOTTED_MAX, metric_keys=columns.metric_names(shown),
    )  # fmt: skip
    made, left_out = sections(keys, query.metric) if drawing else ((), 0)
    if drawing and query.metric.strip():
        exact = tracking.overview.keys(caller, query.experiments, query.whole_filter, query.metric, query.stage)
        made, left_out = sections(exact, query.metric)
    plot = Plot(
        runs=tuple(dot(run, () if drawing else shown, query.group) for run in found.items),
        columns=() if drawing else shown,
        colour=next((one.key for one in shown if one.kind == "metric"), ""),
    )
    names = _names(caller, tracking, screen, found.items)
    rows = tuple(row(run, names.get(run.experiment_id, run.experiment_id), shown) for run in found.items)
    return replace(screen, rows=rows, plot=plot, charts=made, charts_left_out=left_out)


def _names(caller: Scope, tracking: Tracking, screen: Runs, found: Sequence[Run]) -> dict[str, str]:
    if screen.experiment is not None:
        return {screen.experiment.id: screen.experiment.name}
    return {one: tracking.experiments.get(caller, one).name for one in {run.experiment_id for run in found}}


@ui_page("/run-keys", template="run_keys.html")
def run_keys(
    caller: Scope,
    tracking: Tracking,
    experiment: str = "",
    find: str = "",
    column: list[str] | None = None,
    grouping: str = "",
) -> KeyChoice:
    """The columns to choose from whose name contains a text, without those that are shown already; with `grouping`
    those that runs can be grouped by."""
    found = tracking.overview.keys(caller, [experiment] if experiment else None, find=find)
    left = [one for one in columns.offered(found) if one.key not in (column or ())]
    wanted = [one for one in left if not grouping or one.kind != "metric"]
    return KeyChoice(
        frame=Frame(title="Columns", section="runs"),
        keys=tuple(wanted[:PICKER_SHOWN]),
        find=find,
        left_out=max(len(wanted) - PICKER_SHOWN, 0),
        grouping=bool(grouping),
    )


ROUTES: list[Any] = [runs, run_keys]
