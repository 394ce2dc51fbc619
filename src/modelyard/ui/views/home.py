"""Home: what needs somebody, then what happened."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct

from modelyard.kernel import events as log
from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database
from modelyard.kernel.event import Event
from modelyard.planes.automation import Automation
from modelyard.planes.data import Data
from modelyard.planes.jobs import Jobs
from modelyard.planes.monitoring import Monitoring
from modelyard.planes.pipelines import Pipelines
from modelyard.planes.registry import Registry
from modelyard.planes.serving import Serving
from modelyard.planes.tracking import Tracking
from modelyard.types.automation import Response
from modelyard.types.data import CheckResult, Quarantined
from modelyard.types.jobs import Job, JobState
from modelyard.types.monitoring import Alert, Monitor
from modelyard.types.page import Page
from modelyard.types.pipelines import PipelineRun, RunState
from modelyard.types.profiles import FoundAnomaly
from modelyard.types.registry import Decision
from modelyard.types.serving import Endpoint
from modelyard.ui.events import folded
from modelyard.ui.format import plural
from modelyard.ui.frame import Frame, Screen
from modelyard.ui.page import page as ui_page
from modelyard.ui.urns import address_of
from modelyard.ui.views import models, monitors

WINDOW_DAYS = 7
COUNTED_MAX = 200
EVENTS_SHOWN = 15
EVENTS_READ = 100
DETAIL = "step."
"""Events of this kind belong to a pipeline run, and are told on its page."""
HOUSEKEEPING = ("token.", "principal.")
"""Events of these kinds by the platform itself: what its jobs sign in with. By a person, they are told."""
SYSTEM = "system"
RUNS_COUNTED_MAX = 10_000
STEP_LABEL = "pipeline_run"
"""On the jobs of pipeline steps: their failures are told once, as those of the run."""
_URGENCY = (
    "alert",
    "endpoint",
    "monitor",
    "quarantine",
    "anomaly",
    "approval",
    "automation",
    "pipeline run",
    "job",
    "run",
)


class Need(Struct, frozen=True, kw_only=True):
    """Something that waits for a person, with the reason in words and the page where it is answered."""

    kind: str
    state: str
    title: str
    why: str
    href: str
    at: datetime


class Tally(Struct, frozen=True, kw_only=True):
    """How many of a noun there are. `more`: at least so many."""

    label: str
    count: int
    href: str
    note: str = ""
    more: bool = False


class Home(Screen, frozen=True, kw_only=True):
    """`fresh`: the project holds nothing yet. Failures count as needs for `window_days`. `again`: how many more events
    of its kind about the same thing each event stands for."""

    needs: tuple[Need, ...]
    tallies: tuple[Tally, ...]
    events: tuple[Event, ...]
    again: tuple[int, ...] = ()
    fresh: bool
    window_days: int = WINDOW_DAYS


def ordered(needs: Iterable[Need]) -> tuple[Need, ...]:
    """What concerns production first, and of one kind the newest first."""
    return tuple(sorted(needs, key=lambda need: (_URGENCY.index(need.kind), -need.at.timestamp())))


def of_alerts(alerts: Iterable[Alert]) -> list[Need]:
    """Alerts that nobody has resolved."""
    return [
        Need(
            kind="alert",
            state=alert.status,
            title=monitors.title_of(alert),
            why=alert.reason,
            href=address_of(f"alert:{alert.id}"),
            at=alert.raised_at,
        )
        for alert in alerts
        if alert.status != "resolved"
    ]


def of_endpoints(endpoints: Iterable[Endpoint]) -> list[Need]:
    """Endpoints that failed, or that did not take what they were told to serve."""
    return [
        Need(
            kind="endpoint",
            state=endpoint.state if endpoint.state == "failed" else "degraded",
            title=endpoint.name,
            why=endpoint.error or "its process does not come up",
            href=address_of(f"endpoint:{endpoint.name}"),
            at=endpoint.updated_at,
        )
        for endpoint in endpoints
        if endpoint.state == "failed" or endpoint.error
    ]


def of_monitors(found: Iterable[Monitor]) -> list[Need]:
    """Monitors whose last evaluation could not be done."""
    return [
        Need(
            kind="monitor",
            state="problem",
            title=monitor.name,
            why=monitor.problem,
            href=address_of(f"monitor:{monitor.name}"),
            at=monitor.evaluated_at or monitor.updated_at,
        )
        for monitor in found
        if monitor.problem
    ]


def of_quarantine(batches: Iterable[Quarantined]) -> list[Need]:
    """Batches that were turned down and not discarded."""
    return [
        Need(
            kind="quarantine",
            state="quarantined",
            title=batch.dataset,
            why=f"{plural(batch.rows, 'row')}: " + "; ".join(_failure(result) for result in batch.report.failed),
            href=f"{address_of(f'dataset:{batch.dataset}')}/quarantine/{batch.id}",
            at=batch.created_at,
        )
        for batch in batches
    ]


def of_anomalies(found: Iterable[FoundAnomaly]) -> list[Need]:
    """What is unusual about the newest version of a dataset, or that none came; one need for each dataset."""
    about: dict[str, list[FoundAnomaly]] = {}
    for one in found:
        about.setdefault(one.dataset, []).append(one)
    return [
        Need(
            kind="anomaly",
            state="warning",
            title=dataset,
            why="; ".join(one.anomaly.reason for one in unusual[:3]),
            href=address_of(f"dataset:{dataset}"),
            at=unusual[0].found_at,
        )
        for dataset, unusual in about.items()
    ]


def _failure(result: CheckResult) -> str:
    name = result.name or result.check
    return f"{name}: {result.message}" if result.message and name not in result.message else result.message or name


def of_approvals(decisions: Iterable[Decision]) -> list[Need]:
    """Versions that lack nothing but approvals."""
    return [
        Need(
            kind="approval",
            state="waiting",
            title=f"{decision.model}, version {decision.version}",
            why="; ".join(decision.reasons),
            href=address_of(f"model:{decision.model}@{decision.version}"),
            at=decision.at,
        )
        for decision in decisions
    ]


def of_responses(responses: Iterable[Response], since: datetime) -> list[Need]:
    """What a trigger set off and could not end by itself, since then."""
    return [
        Need(
            kind="automation",
            state=one.state,
            title=one.trigger,
            why=one.verdict or one.reason,
            href=f"/automation/responses/{one.id}",
            at=one.updated_at,
        )
        for one in responses
        if one.state in ("waiting", "failed") and one.updated_at >= since
    ]


def of_jobs(jobs: Sequence[Job], since: datetime) -> list[Need]:
    """Jobs that failed since then, and of whose name none has succeeded after them. `jobs` is newest first."""
    mended: set[str] = set()
    needs = []
    for job in jobs:
        if job.state is JobState.SUCCEEDED:
            mended.add(job.name)
        failed = job.state in (JobState.FAILED, JobState.TIMED_OUT)
        if failed and job.name not in mended and job.ended_at and job.ended_at >= since:
            needs.append(
                Need(
                    kind="job",
                    state=job.state.value,
                    title=job.name or job.command[0],
                    why=job.reason,
                    href=address_of(f"job:{job.id}"),
                    at=job.ended_at,
                )
            )
    return needs


def of_pipeline_runs(runs: Sequence[PipelineRun], since: datetime) -> list[Need]:
    """Pipeline runs that failed since then, where the pipeline has not succeeded after. `runs` is newest first."""
    mended: set[str] = set()
    needs = []
    for run in runs:
        if run.state is RunState.SUCCEEDED:
            mended.add(run.pipeline)
        if run.state is RunState.FAILED and run.pipeline not in mended and run.created_at >= since:
            failed = [step.name for step in run.steps if step.error is not None]
            needs.append(
                Need(
                    kind="pipeline run",
                    state=run.state.value,
                    title=run.pipeline,
                    why=run.reason or f"failed in {', '.join(failed)}",
                    href=address_of(f"pipeline-run:{run.id}"),
                    at=run.ended_at or run.created_at,
                )
            )
    return needs


@ui_page("/", template="home.html")
def home(
    caller: Scope,
    database: Database,
    datasets: Data,
    tracking: Tracking,
    jobs: Jobs,
    pipelines: Pipelines,
    registry: Registry,
    serving: Serving,
    monitoring: Monitoring,
    automation: Automation,
) -> Home:
    """What needs somebody, how much there is of everything, and what happened last."""
    known_datasets = datasets.list(caller)
    known_jobs = jobs.list_jobs(caller, limit=COUNTED_MAX)
    known_models = registry.models.search(caller)
    known_endpoints = serving.list(caller)
    runs = tracking.overview.count(caller, at_most=RUNS_COUNTED_MAX)
    live_runs = 0
    if runs < RUNS_COUNTED_MAX:  # of very many, those that run would be looked for among all of them
        live_runs = tracking.overview.count(caller, filter="attributes.status = 'RUNNING'", at_most=RUNS_COUNTED_MAX)
    with database.reading(caller) as tx:
        happened = folded([event for event in log.recent(tx, limit=EVENTS_READ) if is_told(event)])
    since = database.clock.now() - timedelta(days=WINDOW_DAYS)
    needs = [
        *of_alerts(monitoring.alerts(caller).items),
        *of_endpoints(known_endpoints.items),
        *of_monitors(monitoring.list(caller).items),
        *of_quarantine(datasets.quarantine.list(caller, None).items),
        *of_anomalies(datasets.anomalies.list(caller, standing=True).items),
        *of_approvals(d for one in known_models.items for d in models.waiting_for_approval(caller, registry, one)),
        *of_responses(automation.responses(caller).items, since),
        *of_pipeline_runs(pipelines.list_runs(caller).items, since),
        *of_jobs([job for job in known_jobs.items if STEP_LABEL not in job.labels], since),
    ]
    live_jobs = sum(not job.state.final for job in known_jobs.items)
    ready = sum(endpoint.ready for endpoint in known_endpoints.items)
    tallies = (
        _tally("Datasets", "/datasets", known_datasets),
        Tally(
            label="Runs",
            href="/runs",
            count=runs,
            more=runs >= RUNS_COUNTED_MAX,
            note=f"{live_runs} running" if live_runs else "",
        ),
        _tally("Jobs", "/jobs", known_jobs, f"{live_jobs} not done" if live_jobs else ""),
        _tally("Models", "/models", known_models),
        _tally("Endpoints", "/endpoints", known_endpoints, f"{ready} ready" if known_endpoints.items else ""),
    )
    return Home(
        frame=Frame(title="Home", section="home", refresh_s=15),
        needs=ordered(needs),
        tallies=tallies,
        events=tuple(one.event for one in happened[:EVENTS_SHOWN]),
        again=tuple(one.again for one in happened[:EVENTS_SHOWN]),
        fresh=not needs and not any(tally.count for tally in tallies),
    )


def is_told(event: Event) -> bool:
    """Whether an event is worth a line on the first page."""
    return not event.kind.startswith(DETAIL) and not (event.actor == SYSTEM and event.kind.startswith(HOUSEKEEPING))


def _tally(label: str, href: str, found: Page[Any], note: str = "") -> Tally:
    return Tally(label=label, href=href, count=len(found.items), more=found.next is not None, note=note)


ROUTES: list[Any] = [home]
