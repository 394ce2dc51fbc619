"""One run: what it measured, its log, its files, what made it. It moves while the run goes on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from modelyard.kernel.auth import Action, Scope
from modelyard.kernel.database import Database
from modelyard.kernel.errors import NotFound
from modelyard.kernel.routing import get
from modelyard.planes.jobs import Jobs
from modelyard.planes.tracking import Owner, Tracking
from modelyard.types.tracking import Artifact, Key, Metric, Run
from modelyard.ui.frame import Crumb, Frame, Rail, Screen, rail, tabs
from modelyard.ui.names import names
from modelyard.ui.page import page as ui_page
from modelyard.ui.previews import Gallery, Preview, Spreads, galleries, histogram, histogram_steps, preview, spreads
from modelyard.ui.views.columns import SYSTEM
from modelyard.ui.views.provenance import (
    code_facts,
    data_facts,
    environment_facts,
    files_of_note,
    seed_facts,
    text_of,
)
from modelyard.ui.views.run_query import PARENT, quoted
from modelyard.ui.views.runs import ChartKey, Plot, dot, duration_of, sections

NOTE_TAG = "mlflow.note.content"
PARENT_TAG = "mlflow.parentRunId"
LOG_PIECE_BYTES = 128 * 1024
CHILDREN_SHOWN = 25
HISTOGRAM_KEYS_SHOWN = 8
_LOG_NAME = re.compile(r"(?:.*/)?(?:logs?/.+\.(?:log|txt)|[^/]+\.log|console\.txt|output\.txt)")


class FactList(Struct, frozen=True, kw_only=True):
    """Facts of one kind, by their names."""

    title: str
    facts: dict[str, Any]
    none: str


class NotedFile(Struct, frozen=True, kw_only=True):
    """A file that says what made the run, with its text."""

    path: str
    text: str


class LogPart(Struct, frozen=True, kw_only=True):
    """A part of a log, from byte `start` to byte `next`. `ended`: no more will come."""

    source: str
    text: str
    start: int
    next: int
    ended: bool


class Pulse(Struct, frozen=True, kw_only=True):
    """What a page that looks at a running run asks for again and again: its state and latest values."""

    status: str
    metrics: dict[str, Metric]


class RunPage(Screen, frozen=True, kw_only=True):
    """One run, in its part `tab`. `download` is the path that an artifact's own path is added to."""

    run: Run
    tab: str
    duration_s: float | None
    metrics: tuple[Metric, ...] = ()
    system: tuple[Metric, ...] = ()
    charts: tuple[ChartKey, ...] = ()
    charts_left_out: int = 0
    plot: Plot | None = None
    metric: str = ""
    note: str = ""
    tags: tuple[tuple[str, str], ...] = ()
    parent: Run | None = None
    children: tuple[Run, ...] = ()
    children_left_out: int = 0
    facts: tuple[FactList, ...] = ()
    noted: tuple[NotedFile, ...] = ()
    log: LogPart | None = None
    logs: tuple[str, ...] = ()
    folder: str = ""
    artifacts: tuple[Artifact, ...] = ()
    shown: Preview | None = None
    galleries: tuple[Gallery, ...] = ()
    spreads: tuple[Spreads, ...] = ()
    download: str = ""
    live: bool = False


@ui_page("/runs/{run_id:str}", template="run.html")
def run(
    caller: Scope,
    database: Database,
    tracking: Tracking,
    jobs: Jobs,
    run_id: str,
    tab: str = "overview",
    path: str = "",
    metric: str = "",
    log: str = "",
) -> RunPage:
    """One run."""
    found = tracking.runs.get(caller, run_id)
    group = tracking.experiments.get(caller, found.experiment_id)
    own = tuple(one for one in sorted(found.metrics, key=_by_key) if not one.key.startswith(SYSTEM))
    system = tuple(one for one in sorted(found.metrics, key=_by_key) if one.key.startswith(SYSTEM))
    shown = [("overview", "Overview", None), ("charts", "Charts", len(own) or None)]
    shown += [("system", "System", len(system))] if system else []
    shown += [("log", "Log", None), ("artifacts", "Artifacts", None), ("origin", "Origin", None)]
    parts = tabs(f"/runs/{run_id}", tab, shown)
    current = next(key for (key, _, _), part in zip(shown, parts, strict=True) if part.current)
    beside = rail(
        database, caller, f"run:{run_id}", f"modelyard run get {run_id}", name_them=names(caller, jobs, tracking)
    )
    screen = RunPage(
        frame=Frame(
            title=found.name or f"Run {run_id[-8:]}",
            section="runs",
            kind="run",
            state=found.status,
            owner=found.user,
            at=found.started_at,
            crumbs=(Crumb("Experiments", "/experiments"), Crumb(group.name, f"/runs?experiment={group.id}")),
            tabs=parts,
            rail=beside if current == "overview" else None,
        ),
        run=found,
        tab=current,
        duration_s=duration_of(found),
        metrics=own,
        system=system,
        download=f"/runs/{run_id}/artifacts/",
        live=found.status == "RUNNING" and found.stage == "active",
    )
    match current:
        case "charts" | "system":
            return _charts(screen, metric)
        case "artifacts":
            return _artifacts(caller, tracking, screen, path)
        case "origin":
            return _origin(caller, tracking, screen)
        case "log":
            return _log(caller, tracking, jobs, screen, beside, log)
    return _overview(caller, tracking, screen)


def _by_key(metric: Metric) -> str:
    return metric.key


def _overview(caller: Scope, tracking: Tracking, screen: RunPage) -> RunPage:
    found = screen.run
    parent = found.tags.get(PARENT_TAG, "")
    count = tracking.overview.children(caller, [found.id]).get(found.id, 0)
    children: Sequence[Run] = ()
    if count:
        below = f"{PARENT} = {quoted(found.id)}"
        children = tracking.runs.search(
            caller, [found.experiment_id], below, limit=CHILDREN_SHOWN, metric_keys=[]
        ).items
    return replace(
        screen,
        note=found.tags.get(NOTE_TAG, ""),
        tags=tuple(sorted(one for one in found.tags.items() if not one[0].startswith(("mlflow.", "modelyard.")))),
        parent=_run_or_none(caller, tracking, parent),
        children=tuple(children),
        children_left_out=max(count - len(children), 0),
    )


def _run_or_none(caller: Scope, tracking: Tracking, run_id: str) -> Run | None:
    try:
        return tracking.runs.get(caller, run_id) if run_id else None
    except NotFound:
        return None


def _charts(screen: RunPage, metric: str) -> RunPage:
    metrics = screen.system if screen.tab == "system" else screen.metrics
    made, left_out = sections([Key(kind="metric", name=one.key, runs=1) for one in metrics], metric)
    opened = tuple(ChartKey(section=one.section, keys=one.keys) for one in made)
    return replace(
        screen, charts=opened, charts_left_out=left_out, plot=Plot(runs=(dot(screen.run, (), ()),)), metric=metric
    )


def _artifacts(caller: Scope, tracking: Tracking, screen: RunPage, path: str) -> RunPage:
    owner = Owner("run", screen.run.id)
    listed = tracking.artifacts.list(caller, owner, path)
    if listed or not path:
        below = [
            one for one in tracking.artifacts.tree(caller, owner) if one.path.startswith(f"{path}/" if path else "")
        ]
        return replace(
            screen,
            folder=path,
            artifacts=tuple(listed),
            galleries=galleries(listed if path else below),
            spreads=_spreads(caller, tracking, owner, below),
        )
    found, content = tracking.artifacts.open(caller, owner, path)
    folder = path.rpartition("/")[0]
    with content:
        seen = preview(found, content)
    return replace(screen, folder=folder, artifacts=tuple(tracking.artifacts.list(caller, owner, folder)), shown=seen)


def _spreads(caller: Scope, tracking: Tracking, owner: Owner, files: Sequence[Artifact]) -> tuple[Spreads, ...]:
    made = []
    for key, paths in list(histogram_steps(files).items())[:HISTOGRAM_KEYS_SHOWN]:
        found = []
        for path in paths:
            _, content = tracking.artifacts.open(caller, owner, path)
            with content:
                if (one := histogram(path, content)) is not None:
                    found.append(one)
        total = sum(1 for one in files if one.path.startswith(f"histograms/{key}/"))
        if (drawn := spreads(key, found, total)) is not None:
            made.append(drawn)
    return tuple(made)


def _origin(caller: Scope, tracking: Tracking, screen: RunPage) -> RunPage:
    found = screen.run
    noted = [
        NotedFile(path=path, text=text_of(caller, tracking, found.id, path))
        for path in files_of_note(caller, tracking, found.id)
    ]
    lists = (
        FactList(title="Code", facts=code_facts(found), none="No program or commit is on record."),
        FactList(title="Environment", facts=environment_facts(found), none="No environment is on record."),
        FactList(title="Seeds", facts=seed_facts(found), none="No seed is on record."),
        FactList(title="Data", facts=dict(data_facts(found)), none="No dataset is on record."),
    )
    return replace(screen, facts=lists, noted=tuple(noted))


def _log(caller: Scope, tracking: Tracking, jobs: Jobs, screen: RunPage, beside: Rail, log: str) -> RunPage:
    sources = log_sources(caller, tracking, screen.run.id, beside)
    source = log if log in sources else next(iter(sources), "")
    part = read_log(caller, tracking, jobs, screen.run, source, -LOG_PIECE_BYTES) if source else None
    return replace(screen, logs=tuple(sources), log=part)


def log_sources(caller: Scope, tracking: Tracking, run_id: str, beside: Rail) -> list[str]:
    """Where a run's log can be read: the job that made it, and files that look like logs."""
    of_jobs = [tie.urn for tie in beside.ties if tie.urn.startswith("job:")]
    files = [one.path for one in tracking.artifacts.tree(caller, Owner("run", run_id)) if _LOG_NAME.fullmatch(one.path)]
    return [*of_jobs, *files[:20]]


def read_log(caller: Scope, tracking: Tracking, jobs: Jobs, run: Run, source: str, after: int) -> LogPart:
    """A part of a log from a byte on; a negative one counts from the end."""
    ended = run.status != "RUNNING"
    if source.startswith("job:"):
        job_id = source.removeprefix("job:")
        found = jobs.read_log(caller, job_id, offset=after, limit_bytes=LOG_PIECE_BYTES)
        start = found.next - len(found.text.encode())
        final = jobs.get_job(caller, job_id).state.final
        return LogPart(source=source, text=found.text, start=max(start, 0), next=found.next, ended=final)
    artifact, content = tracking.artifacts.open(caller, Owner("run", run.id), source)
    size = artifact.size_bytes or 0
    start = max(size + after, 0) if after < 0 else min(after, size)
    with content:
        content.seek(start)
        body = content.read(LOG_PIECE_BYTES)
    return LogPart(
        source=source, text=body.decode("utf-8", "replace"), start=start, next=start + len(body), ended=ended
    )


@get("/runs/{run_id:str}/log", requires=Action.READ)
def run_log(caller: Scope, tracking: Tracking, jobs: Jobs, run_id: str, source: str, after: int = 0) -> LogPart:
    """What has come to a log of a run after a byte."""
    return read_log(caller, tracking, jobs, tracking.runs.get(caller, run_id), source, max(after, 0))


@get("/runs/{run_id:str}/pulse", requires=Action.READ)
def run_pulse(caller: Scope, tracking: Tracking, run_id: str) -> Pulse:
    """The state and the latest values of a run."""
    found = tracking.runs.get(caller, run_id)
    return Pulse(status=found.status, metrics={one.key: one for one in found.metrics})


ROUTES: list[Any] = [run, run_log, run_pulse]
