"""Runs: the table with its filter and chosen columns, one run, and several side by side."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import quote

from litestar.background_tasks import BackgroundTask
from litestar.response import Stream
from msgspec import Struct

from modelyard.kernel.auth import Action, Scope
from modelyard.kernel.database import Database
from modelyard.kernel.errors import InvalidInput, Problem, to_problem
from modelyard.kernel.routing import get
from modelyard.kernel.settings import Settings
from modelyard.planes.tracking import Owner, Tracking
from modelyard.types import tracking as nouns
from modelyard.types.tracking import Artifact, Experiment, Run
from modelyard.ui.frame import Crumb, Frame, Screen, rail, tabs
from modelyard.ui.page import page as ui_page
from modelyard.ui.series import POINTS_MAX, Chart, Series, series

COLUMNS_DEFAULT = 5
SHOWN = 50
CHARTS_MAX = 24
PIECE_BYTES = 256 * 1024
COMPARED_MAX = 8
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_LOWER_IS_BETTER = ("loss", "error", "mse", "mae", "brier", "latency", "_time")
_DURATIONS = ("_ms", "_s")
Value = float | str | None


class Choice(Struct, frozen=True, kw_only=True):
    """A column that the table can show: `metrics.auc`, `params.depth`, `tags.team`."""

    key: str
    kind: str
    name: str
    chosen: bool


class Head(Struct, frozen=True, kw_only=True):
    """The head of a chosen column, with what orders by it in MLflow's grammar."""

    label: str
    kind: str
    sort: str


class RunRow(Struct, frozen=True, kw_only=True):
    """A run with the values of the chosen columns."""

    run: Run
    experiment: str
    duration_s: float | None
    values: tuple[Value, ...]


class Runs(Screen, frozen=True, kw_only=True):
    """The table. `problem` says what is wrong with the filter or the order."""

    rows: tuple[RunRow, ...]
    head: tuple[Head, ...] = ()
    choices: tuple[Choice, ...] = ()
    experiment: Experiment | None = None
    filter: str = ""
    order: str = ""
    next: str | None = None
    problem: Problem | None = None
    url: str = ""


class RunPage(Screen, frozen=True, kw_only=True):
    """One run, in its part `tab`. `download` is the path that an artifact's own path is added to."""

    run: Run
    tab: str
    duration_s: float | None
    charts: tuple[Chart, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
    folder: str = ""
    download: str = ""


class Compared(Struct, frozen=True, kw_only=True):
    """A metric, param or tag over the compared runs; `best` is the place of the best value, -1 where none is."""

    name: str
    values: tuple[Value, ...]
    best: int = -1


class Group(Struct, frozen=True, kw_only=True):
    """The rows of one kind. `equal` counts those that do not differ."""

    name: str
    rows: tuple[Compared, ...]
    equal: int


class Compare(Screen, frozen=True, kw_only=True):
    """Several runs side by side. Unless `all`, only what differs."""

    runs: tuple[Run, ...]
    groups: tuple[Group, ...] = ()
    charts: tuple[Chart, ...] = ()
    all: bool = False


def choices(runs: Sequence[Run], chosen: Sequence[str] | None) -> tuple[Choice, ...]:
    """The columns that these runs could fill. Unless chosen: first the metrics, then the params that differ."""
    metrics = _frequent(run.latest for run in runs)
    params = _frequent(run.params for run in runs)
    tags = [name for name in _frequent(run.tags for run in runs) if not name.startswith("mlflow.")]
    if chosen is None:
        distinct = {name: len({run.params.get(name) for run in runs}) for name in params}
        differing = sorted((name for name in params if distinct[name] > 1), key=lambda name: -distinct[name])
        room = COLUMNS_DEFAULT - min(len(differing), 2)
        chosen = [f"metrics.{name}" for name in metrics[:room]]
        chosen += [f"params.{name}" for name in differing[: COLUMNS_DEFAULT - len(chosen)]]
    return tuple(
        Choice(key=f"{kind}s.{name}", kind=kind, name=name, chosen=f"{kind}s.{name}" in chosen)
        for kind, names in (("metric", metrics), ("param", params), ("tag", tags))
        for name in names
    )


def _frequent(dictionaries: Iterable[Mapping[str, object]]) -> list[str]:
    counts: dict[str, int] = {}
    for dictionary in dictionaries:
        for name in dictionary:
            counts[name] = counts.get(name, 0) + 1
    return sorted(counts, key=lambda name: (-counts[name], name))


def heads(chosen: Sequence[Choice]) -> tuple[Head, ...]:
    """The heads of the chosen columns."""
    return tuple(
        Head(
            label=choice.name,
            kind="num" if choice.kind == "metric" else "",
            sort=f"{choice.kind}s.{choice.name if _PLAIN.fullmatch(choice.name) else f'`{choice.name}`'}",
        )
        for choice in chosen
    )


def value_of(run: Run, key: str) -> Value:
    """The value of a column for a run, None where it has none."""
    kind, _, name = key.partition(".")
    source: Mapping[str, Value] = {"metrics": run.latest, "params": run.params, "tags": run.tags}.get(kind, {})  # type: ignore[assignment]
    return source.get(name)


def row(run: Run, experiment: str, chosen: Sequence[Choice]) -> RunRow:
    """A run as a row of the table."""
    return RunRow(
        run=run,
        experiment=experiment,
        duration_s=duration_of(run),
        values=tuple(value_of(run, choice.key) for choice in chosen),
    )


def duration_of(run: Run) -> float | None:
    """Seconds from start to end, None while it runs."""
    return None if run.ended_at is None else (run.ended_at - run.started_at).total_seconds()


def line(history: nouns.Series, name: str, href: str = "") -> Series:
    """A metric's history as a line over steps, or over the order of logging where all steps are equal."""
    steps = history.steps if len(set(history.steps)) > 1 else range(len(history.values))
    return series(name, list(zip(steps, history.values, strict=True)), href=href)


def metric_charts(
    runs: Sequence[Run], histories: Mapping[tuple[str, str], nouns.Series], *, linked: bool
) -> tuple[Chart, ...]:
    """A chart for each metric with more than one point, with a line per run. `histories` by run id and key."""
    keys = sorted({key for (_, key), history in histories.items() if len(history.values) > 1})
    charts = []
    for key in keys:
        lines = tuple(
            line(history, run.name or run.id[-8:], f"/runs/{run.id}" if linked else "")
            for run in runs
            if (history := histories.get((run.id, key))) is not None
        )
        thinned = [h for (_, k), h in histories.items() if k == key and h.total > len(h.values)]
        note = f"{max(h.total for h in thinned):,} points, thinned with their peaks kept" if thinned else ""
        charts.append(Chart(title=key, series=lines, note=note))
    return tuple(charts)


def groups(runs: Sequence[Run], *, everything: bool) -> tuple[Group, ...]:
    """Metrics, params and tags of the runs, side by side."""
    sources: tuple[tuple[str, list[Mapping[str, Value]]], ...] = (
        ("Metrics", [run.latest for run in runs]),
        ("Params", [dict(run.params) for run in runs]),
        ("Tags", [{k: v for k, v in run.tags.items() if not k.startswith("mlflow.")} for run in runs]),
    )
    result = []
    for name, values in sources:
        rows = []
        equal = 0
        for key in sorted({key for one in values for key in one}):
            found = tuple(one.get(key) for one in values)
            if len(set(found)) == 1:
                equal += 1
                if not everything:
                    continue
            rows.append(Compared(name=key, values=found, best=_best(key, found) if name == "Metrics" else -1))
        if rows or equal:
            result.append(Group(name=name, rows=tuple(rows), equal=equal))
    return tuple(result)


def _best(name: str, values: Sequence[Value]) -> int:
    known = [(value, place) for place, value in enumerate(values) if isinstance(value, int | float)]
    if len({value for value, _ in known}) < 2:
        return -1
    lower = any(word in name.lower() for word in _LOWER_IS_BETTER) or name.endswith(_DURATIONS)
    return (min(known) if lower else max(known))[1]


@ui_page("/runs", template="runs.html")
def runs(
    caller: Scope,
    tracking: Tracking,
    settings: Settings,
    experiment: str = "",
    filter: str = "",
    order: str = "",
    page: str = "",
    column: list[str] | None = None,
) -> Runs:
    """The runs that a filter in MLflow's grammar picks, of one experiment or of all."""
    within = tracking.experiments.get(caller, experiment) if experiment else None
    title = within.name if within else "Runs"
    crumbs = (Crumb("Experiments", "/experiments"),) if within else ()
    frame = Frame(title=title, section="experiments" if within else "runs", crumbs=crumbs)
    try:
        found = tracking.runs.search(
            caller,
            [experiment] if experiment else None,
            filter,
            [order] if order else [],
            limit=SHOWN,
            page=page or None,
        )
    except InvalidInput as error:
        return Runs(frame=frame, rows=(), experiment=within, filter=filter, order=order, problem=to_problem(error))
    names = {within.id: within.name} if within else _names(caller, tracking, found.items)
    offered = choices(found.items, column)
    chosen = [choice for choice in offered if choice.chosen]
    return Runs(
        frame=frame,
        rows=tuple(row(run, names.get(run.experiment_id, run.experiment_id), chosen) for run in found.items),
        head=heads(chosen),
        choices=offered,
        experiment=within,
        filter=filter,
        order=order,
        next=found.next,
        url=settings.public_url,
    )


def _names(caller: Scope, tracking: Tracking, found: Sequence[Run]) -> dict[str, str]:
    return {one: tracking.experiments.get(caller, one).name for one in {run.experiment_id for run in found}}


@ui_page("/runs/{run_id:str}", template="run.html")
def run(
    caller: Scope, database: Database, tracking: Tracking, run_id: str, tab: str = "overview", folder: str = ""
) -> RunPage:
    """One run."""
    found = tracking.runs.get(caller, run_id)
    group = tracking.experiments.get(caller, found.experiment_id)
    shown = [("overview", "Overview", None), ("artifacts", "Artifacts", None), ("tags", "Tags", len(found.tags))]
    parts = tabs(f"/runs/{run_id}", tab, shown)
    current = next(key for (key, _, _), part in zip(shown, parts, strict=True) if part.current)
    histories = {}
    if current == "overview":
        for metric in found.metrics[:CHARTS_MAX]:
            history = tracking.metrics.history(caller, run_id, metric.key, points_max=POINTS_MAX)
            histories[(run_id, metric.key)] = history
    return RunPage(
        frame=Frame(
            title=found.name or f"Run {run_id[-8:]}",
            section="runs",
            kind="run",
            state=found.status,
            owner=found.user,
            at=found.started_at,
            crumbs=(Crumb("Experiments", "/experiments"), Crumb(group.name, f"/runs?experiment={group.id}")),
            tabs=parts,
            rail=rail(database, caller, f"run:{run_id}", f"modelyard run get {run_id}"),
            refresh_s=5 if found.status == "RUNNING" else 0,
        ),
        run=found,
        tab=current,
        duration_s=duration_of(found),
        charts=metric_charts([found], histories, linked=False),
        artifacts=tuple(
            tracking.artifacts.list(caller, Owner("run", run_id), folder) if current == "artifacts" else ()
        ),
        folder=folder,
        download=f"/runs/{run_id}/artifacts/",
    )


@ui_page("/compare", template="compare.html")
def compare(caller: Scope, tracking: Tracking, runs: str = "", all: bool = False) -> Compare:
    """Several runs side by side: `runs` are their ids, with commas."""
    asked = list(dict.fromkeys(one for one in runs.split(",") if one))
    if len(asked) > COMPARED_MAX:
        raise InvalidInput(
            f"{len(asked)} runs do not fit side by side",
            code="compare.too_many",
            hint=f"choose at most {COMPARED_MAX}",
        )
    found = [tracking.runs.get(caller, one) for one in asked]
    histories: dict[tuple[str, str], nouns.Series] = {}
    if len(found) > 1:
        for key in sorted({metric.key for one in found for metric in one.metrics})[:CHARTS_MAX]:
            for one in found:
                if key in one.latest:
                    history = tracking.metrics.history(caller, one.id, key, points_max=POINTS_MAX)
                    histories[(one.id, key)] = history
    title = f"Compare {len(found)} runs" if found else "Compare runs"
    return Compare(
        frame=Frame(title=title, section="runs", crumbs=(Crumb("Runs", "/runs"),)),
        runs=tuple(found),
        groups=groups(found, everything=all) if found else (),
        charts=metric_charts(found, histories, linked=True),
        all=all,
    )


@get("/runs/{run_id:str}/artifacts/{path:path}", requires=Action.READ)
def artifact(caller: Scope, tracking: Tracking, run_id: str, path: str) -> Stream:
    """A file of a run, to be saved and never shown: what a run wrote is not to be trusted in this origin."""
    found, content = tracking.artifacts.open(caller, Owner("run", run_id), path.lstrip("/"))
    name = quote(found.path.rsplit("/", 1)[-1], safe="")
    return Stream(
        iter(partial(content.read, PIECE_BYTES), b""),
        media_type="application/octet-stream",
        headers={
            "Content-Disposition": f"attachment; filename*=UTF-8''{name}",
            "Content-Length": str(found.size_bytes),
            "Content-Security-Policy": "sandbox",
        },
        background=BackgroundTask(content.close),
    )


ROUTES: list[Any] = [runs, run, compare, artifact]
