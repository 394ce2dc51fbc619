"""Realistic screens: what the flights project looks like after its demo. Tests render them; a person looks at them."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime, timedelta

import msgspec

from modelyard.kernel.auth import Action
from modelyard.kernel.event import Event
from modelyard.kernel.lineage import TimedEdge
from modelyard.types import contracts, data, files, jobs, monitoring, registry, serving, tracking
from modelyard.ui.frame import Crumb, Frame, Rail, Screen, tabs, ties_of
from modelyard.ui.previews import Gallery, Picture
from modelyard.ui.render import Visit
from modelyard.ui.series import Chart, series
from modelyard.ui.views import dataset_files
from modelyard.ui.views import datasets as dataset_views
from modelyard.ui.views import endpoints as endpoint_views
from modelyard.ui.views import events as event_views
from modelyard.ui.views import experiments as experiment_views
from modelyard.ui.views import home as home_views
from modelyard.ui.views import jobs as job_views
from modelyard.ui.views import lineage as lineage_views
from modelyard.ui.views import model_versions as version_views
from modelyard.ui.views import models as model_views
from modelyard.ui.views import monitors as monitor_views
from unit.ui import samples_trust

DROP = "AUC 0.671 in June 2013 is below 0.705 (baseline 0.735 less 0.03), surely: at most 0.682 with 95 % confidence"
NOW = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)
RUN_IDS = [f"0193{n:04x}7b2c7000a1b2c3d4e5f6{n:04x}" for n in (0x2A10, 0x2A2F, 0x2A51, 0x2B07, 0x2B33)]
JOB_ID = "01932a107b2c7000a1b2c3d4e5f60ab1"
BATCH_ID = "01932a107b2c7000a1b2c3d4e5f6beef"
ALERT_ID = "01932a107b2c7000a1b2c3d4e5f6a1e4"
DIGEST = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


def ago(**span: float) -> datetime:
    return NOW - timedelta(**span)


def visit(path: str, *query: tuple[str, str], project: str = "default") -> Visit:
    return Visit(project=project, who="anna", path=path, now=NOW, query=query, actions=frozenset(Action))


def event(kind: str, subject: str, minutes: float, actor: str = "anna", /, **values: object) -> Event:
    number = int(10_000 - minutes)
    return Event(
        id=f"0193{number:028x}",
        at=ago(minutes=minutes),
        project="default",
        kind=kind,
        subject=subject,
        actor=actor,
        data=values,
        seq=number,
        hash=DIGEST,
    )


EVENTS = (
    event("endpoint.switched", "endpoint:delay", 3, "system", revision=4, reason="alias champion moved to 3"),
    event(
        "model.promoted",
        "model:delay@3",
        4,
        "automation:retrain-on-drop",
        alias="champion",
        previous=2,
        reason="AUC better by 0.0123, at least 0.0041 with 95 % confidence",
    ),
    event("model.approved", "model:delay@3", 6, "anna", reason="slices look even; go"),
    event("pipeline-run.finished", "pipeline-run:" + RUN_IDS[4], 7, "automation:retrain-on-drop", steps=6, cached=3),
    event("run.finished", "run:" + RUN_IDS[4], 8, "job:" + JOB_ID, status="FINISHED"),
    event("alert.raised", "alert:" + ALERT_ID, 12, "system", kind="auc", monitor="delay-monthly"),
    event("dataset.published", "dataset:arrivals@7", 14, "anna", rows=28_243),
    event("batch.quarantined", "dataset:flights@7", 26, "anna", rows=1200, reason="3 blocking checks failed"),
)
EDGES = [
    TimedEdge("dataset:flights@6", "produced", "pipeline-run:" + RUN_IDS[4], ago(minutes=30)),
    TimedEdge("run:" + RUN_IDS[4], "used", "dataset:flights@6", ago(minutes=9)),
    TimedEdge("run:" + RUN_IDS[4], "used", "dataset:weather@6", ago(minutes=9)),
    TimedEdge("run:" + RUN_IDS[4], "used", "feature-view:origin_delays@3fa29c81d2e4", ago(minutes=9)),
    TimedEdge("run:" + RUN_IDS[4], "used", "code:4fd1c9e2a7b0", ago(minutes=9)),
    TimedEdge("run:" + RUN_IDS[4], "used", "env:77ab0213cdef", ago(minutes=9)),
    TimedEdge("feature-view:origin_delays@3fa29c81d2e4", "derived", "dataset:arrivals@7", ago(minutes=20)),
    TimedEdge("pipeline-run:" + RUN_IDS[4], "produced", "run:" + RUN_IDS[4], ago(minutes=9)),
    TimedEdge("alert:" + ALERT_ID, "triggered", "pipeline-run:" + RUN_IDS[4], ago(minutes=11)),
    TimedEdge("run:" + RUN_IDS[4], "trained", "model:delay@3", ago(minutes=8)),
    TimedEdge("endpoint:delay", "serves", "model:delay@3", ago(minutes=3)),
    TimedEdge("endpoint:delay", "produced", "dataset:delay-predictions@12", ago(minutes=2)),
    TimedEdge("monitor:delay-monthly", "used", "dataset:delay-predictions@12", ago(minutes=1)),
]
EDGES[0] = TimedEdge("pipeline-run:" + RUN_IDS[4], "used", "dataset:flights@6", ago(minutes=10))


def rail(urn: str, command: str = "") -> Rail:
    near = [edge for edge in EDGES if urn in (edge.subject, edge.object)]
    mine = tuple(one for one in EVENTS if one.subject == urn)
    return Rail(urn=urn, ties=tuple(ties_of(urn, near)), events=mine, command=command)


def run(number: int, status: str = "FINISHED") -> tracking.Run:
    noise = random.Random(number)
    started = ago(minutes=50 - number * 8)
    names = ["logistic-baseline", "hist-gbdt", "hist-gbdt-deep", "hist-gbdt-hours", "challenger-2013-07"]
    values = {
        "auc": 0.66 + number * 0.017,
        "log_loss": 0.521 - number * 0.011,
        "brier": 0.171 - number * 0.004,
        "calibration_error": 0.021 + noise.random() * 0.01,
        "train_rows": 81_000.0 + number * 12_345,
    }
    return tracking.Run(
        id=RUN_IDS[number],
        experiment_id="1",
        name=names[number],
        user="anna",
        status=status,  # type: ignore[arg-type]
        stage="active",
        started_at=started,
        ended_at=None if status == "RUNNING" else started + timedelta(seconds=42.5 + 31 * number),
        artifact_uri=f"mlflow-artifacts:/1/{RUN_IDS[number]}/artifacts",
        params={
            "learning_rate": "0.1" if number < 3 else "0.06",
            "max_leaf_nodes": str(31 + 16 * number),
            "model": "logistic" if number == 0 else "hist_gbdt",
            "seed": "7",
        },
        tags={"mlflow.source.name": "train.py", "mlflow.user": "anna", "purpose": "demo"},
        metrics=[tracking.Metric(key=k, value=v, step=120, timestamp_ms=0) for k, v in values.items()],
        inputs=[
            tracking.DatasetInput(
                tracking.Dataset(name="flights", digest="9f86d081", source_type="modelyard", source="dataset:flights@6")
            )
        ],
    )


RUNS = [run(4, "RUNNING"), run(3), run(2, "FAILED"), run(1), run(0)]
EXPERIMENT = tracking.Experiment(
    id="1",
    name="flight-delays",
    artifact_location="mlflow-artifacts:/1",
    stage="active",
    created_at=ago(hours=3),
    updated_at=ago(minutes=8),
)


def home_screen() -> Screen:
    needs = home_views.ordered(
        [
            home_views.Need(
                kind="alert",
                state="open",
                title="AUC of delay",
                at=ago(minutes=12),
                href=f"/alerts/{ALERT_ID}",
                why=DROP,
            ),
            home_views.Need(
                kind="quarantine",
                state="quarantined",
                title="flights",
                at=ago(minutes=26),
                href=f"/datasets/flights/quarantine/{BATCH_ID}",
                why="1,200 rows: distance_mi is negative in 37 rows; carrier ZZ is not in the set; no column tailnum",
            ),
            home_views.Need(
                kind="approval",
                state="waiting",
                title="delay, version 4",
                at=ago(minutes=2),
                href="/models/delay/versions/4",
                why="all 6 gates passed; 1 of 1 approvals missing",
            ),
            home_views.Need(
                kind="job",
                state="failed",
                title="train hist-gbdt-deep",
                at=ago(minutes=31),
                href=f"/jobs/{JOB_ID}",
                why="killed at its memory limit of 2.0 GiB after 48 s, attempt 1 of 1",
            ),
        ]
    )
    tallies = (
        home_views.Tally(label="Datasets", count=5, href="/datasets"),
        home_views.Tally(label="Runs", count=5, href="/runs", note="1 running"),
        home_views.Tally(label="Models", count=1, href="/models"),
        home_views.Tally(label="Endpoints", count=1, href="/endpoints", note="ready"),
        home_views.Tally(label="Jobs", count=9, href="/jobs", note="2 waiting"),
    )
    return home_views.Home(
        frame=Frame(title="Home", section="home"), needs=needs, tallies=tallies, events=EVENTS, fresh=False
    )


REPORT = data.CheckReport(
    passed=False,
    rows=1200,
    results=[
        data.CheckResult(
            name="distance is positive",
            check="range",
            status="failed",
            severity="block",
            columns=["distance_mi"],
            evaluated=1200,
            failing=37,
            message="37 of 1,200 rows are below 0",
            sample=[
                {"id": f"2013-03-{d:02d}-UA-{d * 17}", "carrier": "UA", "origin": "EWR", "distance_mi": -float(d * 113)}
                for d in range(1, 5)
            ],
        ),
        data.CheckResult(
            name="carrier is known",
            check="in_set",
            status="failed",
            severity="block",
            columns=["carrier"],
            evaluated=1200,
            failing=12,
            message="12 rows hold values that are not in the set: ZZ",
            sample=[{"id": "2013-03-04-ZZ-881", "carrier": "ZZ", "origin": "JFK", "distance_mi": 1089.0}],
        ),
        data.CheckResult(
            name="tailnum",
            check="not_null",
            status="error",
            severity="block",
            columns=["tailnum"],
            message="the batch has no column tailnum",
        ),
        data.CheckResult(
            name="one row per flight", check="unique", status="passed", severity="block", columns=["id"], evaluated=1200
        ),
        data.CheckResult(
            name="air time", check="range", status="passed", severity="warn", columns=["air_time_min"], evaluated=1188
        ),
    ],
)
PASSED = data.CheckReport(
    passed=True,
    rows=28_834,
    results=[
        msgspec.structs.replace(r, status="passed", failing=0, message="", sample=[], evaluated=28_834)
        for r in REPORT.results
    ],
)
COLUMNS = [
    data.Column("id", "string"),
    data.Column("carrier", "string"),
    data.Column("distance_mi", "double"),
    data.Column("scheduled_at", "timestamp[us, tz=UTC]"),
]
PROFILE = data.Profile(
    rows=80_789,
    columns=[
        data.ColumnProfile(
            name="id",
            type="string",
            count=80_789,
            nulls=0,
            distinct=80_789,
            min="2013-01-01-AA-1",
            max="2013-03-31-YV-3799",
        ),
        data.ColumnProfile(
            name="carrier",
            type="string",
            count=80_789,
            nulls=0,
            distinct=16,
            min="9E",
            max="YV",
            top=["UA", "EV", "B6", "DL", "AA"],
        ),
        data.ColumnProfile(
            name="distance_mi",
            type="double",
            count=80_789,
            nulls=0,
            distinct=209,
            min=80.0,
            max=4983.0,
            mean=1006.8,
            std=735.2,
            quantiles={"0.05": 199.0, "0.5": 828.0, "0.95": 2475.0},
        ),
        data.ColumnProfile(
            name="air_time_min",
            type="double",
            count=80_789,
            nulls=3821,
            distinct=489,
            min=20.0,
            max=695.0,
            mean=154.2,
            std=95.1,
            quantiles={"0.05": 41.0, "0.5": 132.0, "0.95": 343.0},
        ),
    ],
)
FLIGHTS = data.Dataset(
    name="flights",
    description="Flights out of New York, 2013, as they were scheduled",
    key=["id"],
    checks=[data.NotNull(column="id"), data.Unique(columns=["id"])],
    latest=6,
    rows=164_311,
    size_bytes=9_482_113,
    tags={"training": 3},
    created_at=ago(hours=3),
    created_by="anna",
    updated_at=ago(minutes=14),
)


def version(number: int) -> data.DatasetVersion:
    rows = [27_004, 51_955, 80_789, 109_119, 137_915, 164_311][number - 1]
    before = [0, 27_004, 51_955, 80_789, 109_119, 137_915][number - 1]
    return data.DatasetVersion(
        dataset="flights",
        version=number,
        mode="append",
        rows=rows,
        rows_written=rows - before,
        size_bytes=rows * 58,
        columns=COLUMNS,
        created_at=ago(hours=3, minutes=-number * 7),
        created_by="anna",
        source=f"nycflights13, month {number}",
        tags=["training"] if number == 3 else [],
        report=PASSED,
        profile=PROFILE,
    )


BATCH = data.Quarantined(
    id=BATCH_ID,
    dataset="flights",
    mode="append",
    rows=1200,
    columns=COLUMNS,
    created_at=ago(minutes=26),
    created_by="anna",
    source="a broken batch",
    report=REPORT,
)


def datasets_screen() -> Screen:
    others = [
        msgspec.structs.replace(
            FLIGHTS,
            name=name,
            description=text,
            latest=latest,
            rows=rows,
            size_bytes=rows * 41,
            key=[],
            checks=FLIGHTS.checks[:n],
            updated_at=ago(minutes=9 + latest),
        )
        for name, text, latest, rows, n in [
            ("arrivals", "When each flight really landed: the labels, known later", 7, 162_008, 2),
            ("weather", "Weather by hour at the three airports", 6, 13_041, 1),
            ("planes", "Tail numbers, makers and seats", 1, 3_322, 1),
            ("delay-predictions", "", 12, 83_498, 0),
        ]
    ]
    rows = tuple(
        dataset_views.DatasetRow(dataset=one, quarantined=1 if one is FLIGHTS else 0) for one in [FLIGHTS, *others]
    )
    return dataset_views.Datasets(frame=Frame(title="Datasets", section="datasets"), rows=rows)


def dataset_screen(tab: str = "versions") -> Screen:
    versions = tuple(version(number) for number in range(6, 0, -1))
    frame = Frame(
        title="flights",
        section="datasets",
        kind="dataset",
        about=FLIGHTS.description,
        owner="anna",
        at=FLIGHTS.updated_at,
        crumbs=(Crumb("Datasets", "/datasets"),),
        tabs=tabs(
            "/datasets/flights",
            tab,
            [
                ("versions", "Versions", 6),
                ("contract", "Contract", None),
                ("checks", "Checks", 5),
                ("profile", "Profile", None),
                ("changes", "Changes", None),
                ("anomalies", "Anomalies", None),
                ("quarantine", "Quarantine", 1),
            ],
        ),
        rail=rail("dataset:flights@6", "modelyard dataset read flights --ref 6"),
    )
    return dataset_views.DatasetPage(
        frame=frame,
        dataset=FLIGHTS,
        tab=tab,
        versions=versions,
        version=versions[0],
        quarantined=(BATCH,),
        growth=dataset_views.growth(versions),
        changes=CHANGES if tab == "changes" else None,
        trust=samples_trust.TRUST if tab == "contract" else None,
        unusual=samples_trust.UNUSUAL if tab == "anomalies" else None,
        before="5",
        after="6",
    )


FILES = data.Dataset(
    name="scans",
    kind="files",
    latest=2,
    rows=41,
    size_bytes=439_300,
    tags={"reviewed": 1},
    branches={"relabel": 2},
    created_at=ago(hours=2),
    created_by="anna",
    updated_at=ago(minutes=12),
)
CHANGES = data.VersionDiff(
    dataset="flights",
    before=5,
    after=6,
    rows_before=137_915,
    rows_after=164_311,
    key=["flight_id"],
    columns=[data.ColumnChange("gate", None, "string")],
    added=26_400,
    removed=4,
    changed=1,
    samples={
        "added": [{"flight_id": 137_916, "origin": "JFK", "late": True, "distance": None}],
        "changed": [{"flight_id": 7, "origin before": "JFK", "origin after": "LGA"}],
    },
)
FILE_CHANGES = files.FilesDiff(
    dataset="scans",
    before=1,
    after=2,
    added=2,
    removed=1,
    changed=1,
    added_bytes=22_000,
    removed_bytes=10_400,
    added_paths=["train/dog/img_001.png", "labels-v2.csv"],
    removed_paths=["labels.csv"],
    changed_paths=["README.md"],
    renamed=[("labels.csv", "labels-v2.csv")],
)


def files_screen(tab: str) -> Screen:
    newest = data.DatasetVersion(
        dataset="scans", version=2, mode="commit", rows=41, rows_written=12, size_bytes=439_300, columns=[],
        created_at=ago(minutes=12), created_by="anna", source="relabelled", parent=1, branch="relabel", tree="a" * 64,
    )  # fmt: skip
    picture = "train/dog/img_001.png"
    listed = [
        files.FolderEntry(path="train/dog", is_dir=True),
        files.FolderEntry(path="labels-v2.csv", size_bytes=570, digest="5" * 64),
        files.FolderEntry(path=picture, size_bytes=10_400, digest="6" * 64),
    ]
    gallery = Gallery(key="train/dog", pictures=(Picture(step=0, path=picture, thumbnail=picture),))
    entries = [("versions", "Versions", 2), ("files", "Files", 41), ("changes", "Changes", None)]
    return dataset_views.DatasetPage(
        frame=Frame(
            title="scans, version 2",
            section="datasets",
            kind="dataset",
            owner="anna",
            at=FILES.updated_at,
            crumbs=(Crumb("Datasets", "/datasets"),),
            tabs=tabs("/datasets/scans", tab, entries),
            rail=rail("dataset:scans@2", "modelyard dataset files list scans"),
        ),
        dataset=FILES,
        tab=tab,
        versions=(newest,),
        version=newest,
        files=dataset_files.Browsed(
            artifacts=tuple(listed), folder="train", galleries=(gallery,), download="/datasets/scans/versions/2/files/"
        ),
        file_changes=FILE_CHANGES if tab == "changes" else None,
        before="1",
        after="2",
    )


def quarantine_screen() -> Screen:
    frame = Frame(
        title="Batch " + BATCH_ID[-8:],
        section="datasets",
        kind="batch",
        state="quarantined",
        owner="anna",
        at=BATCH.created_at,
        crumbs=(Crumb("Datasets", "/datasets"), Crumb("flights", "/datasets/flights")),
    )
    return dataset_views.QuarantinePage(frame=frame, batch=BATCH)


def check_run_screen() -> Screen:
    run = data.CheckRun(
        id=BATCH_ID,
        dataset="flights",
        version=6,
        suite="flights.warning",
        checks=[data.NotNull(column="id"), data.Unsupported(what="expect_column_values_to_rhyme", reason="unknown")],
        report=REPORT,
        created_at=ago(minutes=3),
        created_by="anna",
    )
    frame = Frame(
        title="Checks of flights, version 6",
        section="datasets",
        kind="check run",
        state="failed",
        owner="anna",
        at=run.created_at,
        crumbs=(Crumb("Datasets", "/datasets"), Crumb("flights", "/datasets/flights")),
    )
    return dataset_views.CheckRunPage(frame=frame, run=run, unsupported=tuple(run.checks[1:]))  # type: ignore[arg-type]


def job(state: str, name: str, reason: str, number: int = 0) -> jobs.Job:
    started = ago(minutes=31 - number) if state != "queued" else None
    ended = started + timedelta(seconds=48) if started and state not in ("queued", "running") else None
    attempts = (
        [
            jobs.Attempt(
                number=1,
                state=jobs.AttemptState.LOST,
                started_at=ago(minutes=33 - number),
                ended_at=ago(minutes=32 - number),
                reason="host_lost",
                message="the server was restarted while it ran; this spends no attempt",
            ),
            jobs.Attempt(
                number=2,
                state=jobs.AttemptState(state) if state != "queued" else jobs.AttemptState.STARTING,
                started_at=started,
                ended_at=ended,
                reason="" if state == "running" else "memory_limit",
                usage=jobs.Usage(cpu_s=71.3, wall_s=48.0, peak_rss_bytes=2_147_000_000),
            ),
        ]
        if started
        else []
    )
    return jobs.Job(
        id=JOB_ID,
        name=name,
        command=["python", "-m", "flights.train", "--model", "hist_gbdt"],
        resources=jobs.Resources(cpus=1, memory_bytes=2 * 1024**3),
        env={"MLFLOW_TRACKING_URI": "http://127.0.0.1:5800", "API_TOKEN": "***"},
        priority=0,
        timeout_s=3600,
        grace_s=5,
        max_attempts=1,
        labels={"pipeline": "train", "step": "fit"},
        state=jobs.JobState(state),
        reason=reason,
        submitted_by="automation:retrain-on-drop",
        submitted_at=ago(minutes=34 - number),
        started_at=started,
        ended_at=ended,
        attempts=attempts,
    )


JOBS = [
    job(
        "queued",
        "train challenger-2013-08",
        "waits for 1 CPU: 2 of 2 are taken, by train challenger-2013-07 and score june",
        9,
    ),
    job("running", "train challenger-2013-07", "", 5),
    job("failed", "train hist-gbdt-deep", "killed at its memory limit of 2.0 GiB after 48 s, attempt 1 of 1"),
    job("succeeded", "train hist-gbdt", "exit 0", 1),
]


def jobs_screen() -> Screen:
    return job_views.Jobs(
        frame=Frame(title="Jobs", section="jobs", refresh_s=5),
        rows=tuple(job_views.row(one, NOW) for one in JOBS),
        states=("", "queued", "running", "succeeded", "failed"),
        capacity=(
            job_views.Capacity(label="Running", value="1"),
            job_views.Capacity(label="Waiting", value="1"),
            job_views.Capacity(label="CPUs taken", value="2", note="of 2"),
        ),
    )


def job_screen() -> Screen:
    one = JOBS[2]
    log = jobs.JobLog(
        attempt=2,
        text="loading dataset:flights@6 … 164,311 rows\npoint-in-time join of 3 feature views … 4.1 s\n"
        "fit hist_gbdt, 120 iterations\n  10  train 0.5012  valid 0.5088\n  20  train 0.4861  valid 0.4975\nKilled\n",
        next=410,
        complete=True,
    )
    frame = Frame(
        title=one.name,
        section="jobs",
        kind="job",
        state=one.state.value,
        owner=one.submitted_by,
        at=one.submitted_at,
        crumbs=(Crumb("Jobs", "/jobs"),),
        rail=rail("job:" + one.id, f"modelyard job resubmit {one.id}"),
    )
    return job_views.JobPage(
        frame=frame,
        job=one,
        command=job_views.command_of(one),
        duration_s=48.0,
        timeline=job_views.attempts_timeline(one.attempts, NOW),
        log=log,
    )


def scores(rows: int, auc: float | None) -> registry.Scores:
    return registry.Scores(
        rows=rows,
        positives=rows // 5,
        verdict="measured",
        auc=auc,
        log_loss=0.4712,
        brier=0.1513,
        calibration_error=0.0213,
        accuracy=0.81,
    )


EVALUATION = registry.Evaluation(
    id=RUN_IDS[0],
    model="delay",
    version=3,
    version_digest=DIGEST,
    dataset="dataset:holdout@1",
    at=ago(minutes=7),
    by="job:" + JOB_ID[-8:],
    threshold=0.5,
    overall=scores(21_411, 0.7312),
    slices=[
        registry.SliceScores(column="carrier", value=c, scores=scores(n, a))
        for c, n, a in [("UA", 5120, 0.741), ("EV", 4804, 0.722), ("B6", 4377, 0.735), ("HA", 28, None)]
    ],
    rows_digest="ab",
    labels_digest="cd",
)
COMPARISON = registry.Comparison(
    metric="auc",
    verdict="measured",
    method="DeLong, paired",
    rows=21_411,
    champion=0.7189,
    challenger=0.7312,
    difference=0.0123,
    lower=0.0041,
    upper=0.0205,
    p_value=0.0031,
)


def decision(number: int, *, promotable: bool, approved: bool) -> registry.Decision:
    return registry.Decision(
        model="delay",
        version=number,
        alias="champion",
        guarded=True,
        promotable=promotable,
        reasons=["all 6 gates passed", "1 of 1 approvals" if approved else "1 of 1 approvals missing"],
        gates=[
            registry.GateResult(
                name="auc",
                status="passed",
                reason="0.7312 is at least 0.68, on 21,411 rows",
                evidence="evaluation:" + RUN_IDS[0],
            ),
            registry.GateResult(
                name="slices by carrier, origin",
                status="passed",
                reason="the worst of 17 slices is carrier = EV with 0.722; HA (28 rows) is too small to judge",
                evidence="evaluation:" + RUN_IDS[0],
            ),
            registry.GateResult(
                name="better than champion",
                status="passed",
                reason="better by 0.0123, at least 0.0041 with 95 % confidence",
                evidence="evaluation:" + RUN_IDS[1],
            ),
            registry.GateResult(
                name="latency",
                status="passed",
                reason="p95 of 2.1 ms is within 20 ms",
                evidence="latency:" + RUN_IDS[2],
            ),
            registry.GateResult(name="signature", status="passed", reason="14 inputs, 1 output"),
            registry.GateResult(name="safe_format", status="passed", reason="ONNX, no code in any file"),
        ],
        approvals=registry.ApprovalCount(required=1, by=["ben"] if approved else [], refused=[]),
        comparison=COMPARISON,
        champion=3,
        at=NOW,
    )


def model_version(number: int) -> registry.ModelVersion:
    return registry.ModelVersion(
        model="delay",
        version=number,
        created_at=ago(minutes=90 - 20 * number),
        created_by="automation:retrain-on-drop" if number > 1 else "anna",
        updated_at=ago(minutes=3),
        source=f"models:/m-{RUN_IDS[0]}",
        digest=DIGEST,
        size_bytes=412_881,
        files=5,
        format="safe",
        format_reason="ONNX, no code in any file",
        signature={
            "inputs": '[{"type": "string", "name": "carrier"}, {"type": "double", "name": "distance_mi"}, '
            '{"type": "double", "name": "origin_delays__mean_dep_delay_3h", "required": false}]',
            "outputs": '[{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1]}, "name": "late"}]',
        },
        flavors={"onnx": {}, "python_function": {}},
        provenance=registry.Provenance(
            run=RUN_IDS[4],
            data=["dataset:flights@6", "dataset:weather@6", "dataset:arrivals@7"],
            code="code:4fd1c9e2a7b0",
            environment="env:77ab0213cdef",
        ),
        aliases=["champion"] if number == 3 else ["challenger"] if number == 4 else [],
    )


MODEL = registry.Model(
    id=RUN_IDS[0],
    name="delay",
    created_at=ago(hours=2),
    created_by="anna",
    updated_at=ago(minutes=3),
    description="Whether a flight will arrive more than 15 minutes late",
    aliases={"champion": 3, "challenger": 4},
    versions=4,
    policy=registry.Policy(
        aliases=["champion"],
        metrics=[registry.MetricGate(metric="auc", min=0.68)],
        champion=registry.ChampionGate(),
        signature=True,
        approvals=registry.ApprovalRule(count=1),
    ),
)
MOVES = [
    registry.AliasMove(
        id="3",
        model="delay",
        alias="champion",
        kind="promote",
        version=3,
        previous=1,
        at=ago(minutes=4),
        by="automation:retrain-on-drop",
        reason="AUC better by 0.0123, at least 0.0041 with 95 % confidence",
    ),
    registry.AliasMove(
        id="2",
        model="delay",
        alias="champion",
        kind="rollback",
        version=1,
        previous=2,
        at=ago(minutes=33),
        by="anna",
        reason="latency doubled on the canary",
    ),
    registry.AliasMove(
        id="1",
        model="delay",
        alias="champion",
        kind="promote",
        version=2,
        previous=1,
        at=ago(minutes=52),
        by="anna",
        reason="better on March",
    ),
    registry.AliasMove(
        id="0",
        model="delay",
        alias="champion",
        kind="override",
        version=1,
        previous=None,
        at=ago(hours=2),
        by="anna",
        reason="first version",
        unmet=["better than champion: there is no champion"],
    ),
]


def models_screen() -> Screen:
    return model_views.Models(
        frame=Frame(title="Models", section="models"), rows=(model_views.ModelRow(model=MODEL, waiting=1),)
    )


def model_screen(tab: str = "versions") -> Screen:
    frame = Frame(
        title="delay",
        section="models",
        kind="model",
        about=MODEL.description,
        owner="anna",
        at=MODEL.created_at,
        crumbs=(Crumb("Models", "/models"),),
        tabs=tabs(
            "/models/delay", tab, [("versions", "Versions", 4), ("history", "History", 4), ("policy", "Policy", None)]
        ),
        rail=rail("model:delay@3", "modelyard model get delay --alias champion"),
    )
    return model_views.ModelPage(
        frame=frame,
        model=MODEL,
        tab=tab,
        versions=tuple(model_version(n) for n in (4, 3, 2, 1)),
        standings=model_views.standings_of(MODEL, MOVES, [1, 2, 3, 4]),
        candidates=(
            model_views.Candidate(
                version=model_version(4),
                decision=decision(4, promotable=False, approved=False),
                can_approve=True,
                can_promote=False,
            ),
        ),
        served={3: ["endpoint:delay"]},
        moves=model_views.reigns(MOVES),
        **dict(zip(("lanes", "ticks"), model_views.lanes_of(model_views.reigns(MOVES), ago()), strict=True)),
        rules=model_views.rules_of(registry.Policy(metrics=[registry.MetricGate(metric="auc", min=0.68)])),
        policy_text="aliases: [champion]\nmetrics:\n  - metric: auc\n    min: 0.68\n",
    )


def version_screen(tab: str = "gates") -> Screen:
    one = model_version(4)
    frame = Frame(
        title="delay, version 4",
        section="models",
        kind="model version",
        owner=one.created_by,
        at=one.created_at,
        crumbs=(Crumb("Models", "/models"), Crumb("delay", "/models/delay")),
        tabs=tabs(
            "/models/delay/versions/4", tab, [("gates", "Gates", 6), ("about", "About", None), ("files", "Files", 1)]
        ),
        rail=rail("model:delay@3", "modelyard reproduce model:delay@4"),
    )
    return version_views.ModelVersionPage(
        frame=frame,
        version=one,
        tab=tab,
        decision=decision(4, promotable=True, approved=True),
        evaluations=(EVALUATION,),
        can_approve=True,
        can_promote=True,
        holder=3,
        approvals=(
            registry.Approval(
                id="1", version=4, version_digest=DIGEST, by="ben", at=ago(minutes=1), reason="slices look even; go"
            ),
        ),
        latencies=(
            registry.Latency(
                id="l",
                model="delay",
                version=4,
                version_digest=DIGEST,
                at=ago(minutes=6),
                by="anna",
                p50_ms=1.1,
                p95_ms=2.13,
                requests=500,
                measured_on="2 cores, one row a request",
            ),
        ),
        files=(
            registry.ModelFile("model.onnx", DIGEST, 401_113, "onnx", "safe", "a graph of ONNX operators"),
            registry.ModelFile("extra.pkl", DIGEST, 12, "pickle", "unsafe", "it is a pickle"),
        ),
        attestations=(
            registry.Attestation(
                id="a",
                model="delay",
                version=4,
                version_digest=DIGEST,
                kind="scan",
                passed=True,
                summary="nothing found",
                at=ago(minutes=3),
                by="scanner",
            ),
        ),
        signatures=(
            registry.SignatureCheck(
                signature="s", key=DIGEST, by="ben", valid=True, trusted=True, reason="by a trusted key"
            ),
        ),
        overrides=(MOVES[0],),
        others=(3, 2, 1),
        example='{"distance": 1.0}',
        card="# delay, version 4\n\n## Identity\n\n| a | b |\n|---|---|\n| x | y |\n",
        served=("delay",),
        inputs=version_views.columns_of(one.signature, "inputs"),
        outputs=version_views.columns_of(one.signature, "outputs"),
    )


def diff_screen() -> Screen:
    changes = [
        registry.VersionChange(plane="metrics", name="auc", before="0.6800", after="0.7100"),
        registry.VersionChange(plane="environment", name="scikit-learn", before="==1.5", after="==1.6"),
    ]
    comparison = registry.Comparison(
        metric="auc", verdict="measured", method="DeLong", rows=1000, champion=0.68, challenger=0.71,
        difference=0.03, lower=0.01, upper=0.05,
    )  # fmt: skip
    return version_views.DiffPage(
        frame=Frame(title="delay: version 3 to 4", section="models", crumbs=(Crumb("Models", "/models"),)),
        model="delay",
        diff=registry.VersionDiff(model="delay", before=3, after=4, changes=changes, comparison=comparison),
        planes=version_views.by_plane(changes),
        versions=(4, 3, 2, 1),
    )


def variant(number: int) -> serving.Variant:
    return serving.Variant(name="champion", model="delay", version=number, digest=DIGEST, weight=9, alias="champion")


ENDPOINT = serving.Endpoint(
    name="delay",
    project="default",
    model="delay",
    state="ready",
    revision=4,
    observed_revision=4,
    variants=[variant(3), serving.Variant(name="canary", model="delay", version=4, digest=DIGEST, weight=1)],
    serving=[variant(3)],
    options=serving.EndpointOptions(),
    created_at=ago(hours=2),
    created_by="anna",
    updated_at=ago(minutes=3),
    url="http://127.0.0.1:41873",
    port=41873,
    pid=311,
    rows_logged=83_498,
)
SWITCHES = [
    serving.Switch(
        endpoint="delay", at=ago(minutes=100), revision=1, variants=[variant(1)], by="anna", reason="created"
    ),
    serving.Switch(
        endpoint="delay",
        at=ago(minutes=52),
        revision=2,
        variants=[variant(2)],
        by="system",
        reason="alias champion moved to 2",
    ),
    serving.Switch(
        endpoint="delay",
        at=ago(minutes=33),
        revision=3,
        variants=[variant(1)],
        by="system",
        reason="alias champion moved to 1",
    ),
    serving.Switch(
        endpoint="delay",
        at=ago(minutes=4),
        revision=4,
        variants=[variant(3)],
        by="system",
        reason="alias champion moved to 3",
    ),
]


def window(month: int, auc: float | None, drift: float) -> monitoring.MonitorWindow:
    start, end = datetime(2013, month, 1, tzinfo=UTC), datetime(2013, month + 1, 1, tzinfo=UTC)
    scored = (
        monitoring.Performance(
            labelled=27_500,
            coverage=0.98,
            positives=6_000,
            base_rate=0.22 + 0.03 * (month - 4),
            mean_score=0.2,
            auc=auc,
            auc_se=0.004,
            log_loss=0.47 + drift / 4,
            brier=0.15,
            calibration_error=0.018 + drift / 5,
            calibration_noise=0.004,
        )
        if auc
        else None
    )
    bad = (
        [
            monitoring.Finding(
                kind="auc",
                level="alert",
                reason="AUC 0.671 is below 0.705 (baseline 0.735 less 0.03), surely",
                values={"auc": auc or 0},
            )
        ]
        if auc and auc < 0.7
        else []
    )
    columns = [
        "temp_f",
        "origin_delays__mean_dep_delay_3h",
        "wind_mph",
        "carrier",
        "scheduled_hour",
        "distance_mi",
        "seats",
    ]
    inputs = tuple(
        monitoring.Distance(
            column=c,
            measure="jensen_shannon" if c == "carrier" else "wasserstein_normed",
            threshold=0.1,
            value=round(drift / (1 + n), 4),
            noise=0.01,
            psi=drift / 2,
            drifted=drift / (1 + n) > 0.1,
            rows=28_000,
        )
        for n, c in enumerate(columns)
    )
    return monitoring.MonitorWindow(
        monitor="delay-monthly",
        start=start,
        end=end,
        model_version="1",
        rows=28_330,
        complete=True,
        inputs=inputs,
        prediction=monitoring.Distance(
            column="late", measure="wasserstein_normed", threshold=0.2, value=drift, psi=drift / 3
        ),
        drift_share=sum(i.drifted for i in inputs) / len(inputs),
        performance=scored,
        findings=tuple(bad),
        predictions_version=12,
        evaluated_at=ago(minutes=1),
    )


WINDOWS = (window(4, 0.732, 0.12), window(5, 0.721, 0.31), window(6, 0.671, 0.62))
MONITOR = monitoring.Monitor(
    id="m",
    name="delay-monthly",
    created_at=ago(hours=1),
    created_by="anna",
    updated_at=ago(minutes=1),
    evaluated_at=ago(minutes=1),
    reference_rows=80_789,
    spec=monitoring.MonitorSpec(
        name="delay-monthly", endpoint="delay", baseline=monitoring.Baseline(auc=0.735, auc_se=0.004)
    ),
)
ALERT = monitoring.Alert(
    id=ALERT_ID,
    monitor="delay-monthly",
    endpoint="delay",
    kind="auc",
    status="open",
    model="delay",
    model_version="1",
    window_start=datetime(2013, 6, 1, tzinfo=UTC),
    window_end=datetime(2013, 7, 1, tzinfo=UTC),
    reason=DROP,
    values={"auc": 0.671, "limit": 0.705, "upper": 0.682},
    raised_at=ago(minutes=12),
)


def endpoints_screen() -> Screen:
    return endpoint_views.Endpoints(
        frame=Frame(title="Endpoints", section="endpoints"),
        rows=(endpoint_views.EndpointRow(endpoint=ENDPOINT, alerts=1),),
    )


def endpoint_screen(tab: str = "overview") -> Screen:
    rate = [
        (float(1_700_000_000 + 60 * n), 90 + 40 * math.sin(n / 9) + random.Random(n).gauss(0, 6)) for n in range(100)
    ]
    frame = Frame(
        title="delay",
        section="endpoints",
        kind="endpoint",
        state="ready",
        owner="anna",
        at=ENDPOINT.created_at,
        crumbs=(Crumb("Endpoints", "/endpoints"),),
        tabs=tabs(
            "/endpoints/delay",
            tab,
            [
                ("overview", "Overview", None),
                ("quality", "Drift and quality", None),
                ("predictions", "Predictions", None),
            ],
        ),
        rail=rail("endpoint:delay", "modelyard endpoint get delay"),
    )
    predictions = tuple(
        {
            "at": "2013-06-30T21:14:00Z",
            "id": f"2013-06-30-UA-{n}",
            "version": 3,
            "late": round(0.1 + n / 40, 4),
            "latency_us": 1400 + n,
        }
        for n in range(6)
    )
    return endpoint_views.EndpointPage(
        frame=frame,
        endpoint=ENDPOINT,
        tab=tab,
        variants=endpoint_views.shares(ENDPOINT.variants),
        switches=tuple(reversed(SWITCHES)),
        reigns=endpoint_views.reigns(SWITCHES, NOW),
        tallies=(
            endpoint_views.Tally(label="Requests a minute", value="94"),
            endpoint_views.Tally(label="p95 latency", value="2.1 ms"),
            endpoint_views.Tally(label="Latest AUC", value="0.671", note="June 2013", tone="bad"),
        ),
        traffic=Chart(title="Rows predicted a minute", x="time", series=(series("rows", rate),)),
        alerts=(ALERT,),
        charts=monitor_views.charts(MONITOR, WINDOWS),
        windows=WINDOWS,
        columns=("at", "id", "version", "late", "latency_us"),
        predictions=predictions,
        log_dataset="delay-predictions",
        example="curl …",
    )


def monitors_screen() -> Screen:
    return monitor_views.Monitors(
        frame=Frame(title="Monitors", section="monitors"),
        rows=(monitor_views.MonitorRow(monitor=MONITOR, open=1, aucs=monitor_views.aucs(WINDOWS)),),
        alerts=(ALERT,),
    )


def monitor_screen() -> Screen:
    frame = Frame(
        title="delay-monthly",
        section="monitors",
        kind="monitor",
        state="open",
        owner="anna",
        at=MONITOR.created_at,
        crumbs=(Crumb("Monitors", "/monitors"),),
        rail=rail("monitor:delay-monthly", "modelyard monitor evaluate delay-monthly"),
    )
    return monitor_views.MonitorPage(
        frame=frame, monitor=MONITOR, windows=WINDOWS, charts=monitor_views.charts(MONITOR, WINDOWS), alerts=(ALERT,)
    )


def lineage_screen() -> Screen:
    root = "model:delay@3"
    drawn, left_out = lineage_views.drawing(root, EDGES)
    return lineage_views.Lineage(
        frame=Frame(title="Lineage", section="lineage"),
        urn=root,
        edges=tuple(lineage_views.bundled(EDGES)),
        versions=(root, "model:delay@2"),
        data=(
            contracts.DataUse(
                dataset="flights", version=6, columns=["carrier", "distance"], readers=["run:" + RUN_IDS[4]]
            ),
            contracts.DataUse(dataset="weather", version=1, columns=[], readers=["job:" + JOB_ID], whole=True),
        ),
        names={"job:" + JOB_ID: "train"},
        drawing=drawn,
        left_out=left_out,
    )


def events_screen() -> Screen:
    return event_views.Events(frame=Frame(title="Events", section="events"), events=EVENTS)


def experiments_screen() -> Screen:
    return experiment_views.Experiments(
        frame=Frame(title="Experiments", section="experiments"),
        rows=(experiment_views.ExperimentRow(experiment=EXPERIMENT, latest=RUNS[0], runs=5),),
        url="http://127.0.0.1:5800",
    )


SCREENS: dict[str, tuple[str, str, Screen]] = {
    "home": ("/", "home.html", home_screen()),
    "experiments": ("/experiments", "experiments.html", experiments_screen()),
    "datasets": ("/datasets", "datasets.html", datasets_screen()),
    **{f"dataset-{tab}": ("/datasets/flights", "dataset.html", dataset_screen(tab)) for tab in dataset_views.TABS},
    **{f"files-{tab}": ("/datasets/scans", "dataset.html", files_screen(tab)) for tab in dataset_views.TABS_OF_FILES},
    "quarantine": ("/datasets/flights/quarantine/x", "quarantine.html", quarantine_screen()),
    "check run": ("/datasets/flights/check-runs/x", "check_run.html", check_run_screen()),
    "jobs": ("/jobs", "jobs.html", jobs_screen()),
    "job": ("/jobs/x", "job.html", job_screen()),
    "models": ("/models", "models.html", models_screen()),
    **{f"model-{tab}": ("/models/delay", "model.html", model_screen(tab)) for tab in ("versions", "history", "policy")},
    **{
        f"version-{tab}": ("/models/delay/versions/4", "model_version.html", version_screen(tab))
        for tab in ("gates", "about", "files", "card")
    },
    "model-diff": ("/models/delay/diff", "model_diff.html", diff_screen()),
    "endpoints": ("/endpoints", "endpoints.html", endpoints_screen()),
    **{
        f"endpoint-{tab}": ("/endpoints/delay", "endpoint.html", endpoint_screen(tab))
        for tab in ("overview", "quality", "predictions")
    },
    "monitors": ("/monitors", "monitors.html", monitors_screen()),
    "monitor": ("/monitors/delay-monthly", "monitor.html", monitor_screen()),
    "lineage": ("/lineage", "lineage.html", lineage_screen()),
    "events": ("/events", "events.html", events_screen()),
}
"""Each screen by name: its path, its template, and the screen."""
