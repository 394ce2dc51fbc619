"""Realistic screens of runs: the table, its groups and plots, one run in all its parts, comparison."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from modelyard.kernel.errors import Problem
from modelyard.types import tracking
from modelyard.ui.frame import Crumb, Frame, Screen, tabs
from modelyard.ui.previews import Histogram, galleries, preview, spreads
from modelyard.ui.views import columns, compare, provenance, runs
from modelyard.ui.views import run as run_view
from modelyard.ui.views.run_query import Query
from unit.ui.samples import DIGEST, EXPERIMENT, RUNS, rail, run

KEYS = [
    tracking.Key(kind="metric", name="auc", runs=5),
    tracking.Key(kind="metric", name="log_loss", runs=5),
    tracking.Key(kind="metric", name="val/loss", runs=5),
    tracking.Key(kind="metric", name="system/cpu_utilization_percentage", runs=2),
    tracking.Key(kind="param", name="learning_rate", runs=5, values=2),
    tracking.Key(kind="param", name="seed", runs=5, values=1),
    tracking.Key(kind="param", name="max leaf nodes", runs=4, values=5),
    tracking.Key(kind="tag", name="purpose", runs=5, values=1),
    tracking.Key(kind="tag", name="mlflow.source.name", runs=5, values=1),
]
COLUMNS = columns.chosen(None, KEYS)


def runs_screen(view: str = "table", shown: Sequence[tracking.Run] = RUNS, **query: Any) -> runs.Runs:
    chosen = Query(view=view, order="metrics.auc DESC", **query)
    made, left_out = runs.sections(KEYS)
    return runs.Runs(
        frame=Frame(title="Runs", section="runs"),
        query=chosen,
        rows=tuple(runs.row(one, "flight-delays", COLUMNS) for one in shown),
        columns=COLUMNS,
        keys=tuple(one for one in columns.offered(KEYS) if one not in COLUMNS),
        groupable=(COLUMNS[-1],),
        charts=made if view == "charts" else (),
        charts_left_out=left_out,
        plot=runs.Plot(runs=tuple(runs.dot(one, COLUMNS, chosen.group) for one in shown), columns=COLUMNS),
        total=len(shown),
        next="WzFd",
        url="http://127.0.0.1:5800",
    )


def groups_screen() -> Screen:
    spread = tracking.Spread(count=3, mean=0.71, least=0.66, greatest=0.744)
    nothing = tracking.Spread(count=0, mean=None, least=None, greatest=None)
    groups = [
        tracking.RunGroup(values=("0.1", "logistic"), runs=3, metrics={"auc": spread, "log_loss": nothing}),
        tracking.RunGroup(values=(None, "x" * 300), runs=80, metrics={"auc": replace(spread, count=1)}),
    ]
    inner = tuple(runs.row(one, "flight-delays", COLUMNS, depth=1) for one in RUNS[:2])
    rows = [
        runs.GroupRow(group=groups[0], token='["0.1","logistic"]', filter="params.learning_rate = '0.1'"),
        runs.GroupRow(group=groups[1], token='[null,"x"]', open=True, rows=inner, experiment="3"),
    ]
    screen = runs_screen(group=("params.learning_rate", "params.model"))
    return replace(screen, rows=(), groups=tuple(rows))


def nested_screen() -> Screen:
    screen = runs_screen(nest=True, experiment="1")
    parent = replace(screen.rows[0], children=12, open=True)
    child = replace(screen.rows[1], depth=1)
    return replace(screen, rows=(parent, child, *screen.rows[2:]), experiment=EXPERIMENT, previous="WzBd", first=51)


def wrong_filter_screen() -> Screen:
    problem = Problem(
        status=400,
        title="InvalidInput",
        detail="Invalid clause in filter string: 'metrics.auc >>> 1'",
        code="filter.invalid",
        hint="compare with =, !=, <, <=, > or >=",
    )
    return runs.Runs(
        frame=Frame(title="Runs", section="runs"), query=Query(filter="metrics.auc >>> 1"), problem=problem
    )


def empty_screen(**query: Any) -> Screen:
    return runs.Runs(frame=Frame(title="Runs", section="runs"), query=Query(**query), url="http://127.0.0.1:5800")


def run_screen(tab: str = "overview", status: str = "FINISHED", **more: Any) -> run_view.RunPage:
    one = run(4, status)
    made, _ = runs.sections([tracking.Key(kind="metric", name=metric.key, runs=1) for metric in one.metrics])
    labels = [(key, key.title(), None) for key in ("overview", "charts", "system", "log", "artifacts", "origin")]
    drawn = tab in ("charts", "system")
    return replace(
        run_view.RunPage(
            frame=Frame(
                title=one.name,
                section="runs",
                kind="run",
                state=one.status,
                owner="anna",
                at=one.started_at,
                crumbs=(Crumb("Experiments", "/experiments"), Crumb("flight-delays", "/runs?experiment=1")),
                tabs=tabs(f"/runs/{one.id}", tab, labels),
                rail=rail("run:" + one.id, f"modelyard run get {one.id}") if tab == "overview" else None,
            ),
            run=one,
            tab=tab,
            duration_s=runs.duration_of(one),
            metrics=tuple(one.metrics),
            charts=made if drawn else (),
            plot=runs.Plot(runs=(runs.dot(one, (), ()),)) if drawn else None,
            download=f"/runs/{one.id}/artifacts/",
            live=status == "RUNNING",
        ),
        **more,
    )


def overview_screen() -> Screen:
    return run_screen(
        note="## Seen\n\nA **deeper** tree, `max_leaf_nodes` 95.\n\n| a | b |\n|---|--:|\n| 1 | 2 |\n",
        tags=(("purpose", "demo"), ("reviewed", "yes")),
        parent=RUNS[1],
        children=tuple(RUNS[2:]),
        children_left_out=40,
    )


def log_screen() -> Screen:
    part = run_view.LogPart(source="logs/train.log", text="epoch 1\nepoch 2\n", start=4096, next=4112, ended=False)
    return run_screen("log", "RUNNING", log=part, logs=("job:" + "0" * 32, "logs/train.log"))


def origin_screen() -> Screen:
    one = run(4)
    lists = (
        run_view.FactList(title="Code", facts=provenance.code_facts(one), none="No commit is on record."),
        run_view.FactList(title="Seeds", facts=dict(provenance.seed_facts(one)), none="No seed is on record."),
        run_view.FactList(title="Environment", facts={}, none="No environment is on record."),
    )
    noted = (
        run_view.NotedFile(path="code/changes.diff", text="@@ -1 +1 @@\n-a = 1\n+a = 2\n b = 3\n"),
        run_view.NotedFile(path="requirements.txt", text="numpy==2.4.6\n"),
    )
    return run_screen("origin", facts=lists, noted=noted)


FILES = (
    tracking.Artifact(path="images", is_dir=True),
    tracking.Artifact(path="table.csv", size_bytes=30, digest=DIGEST),
    tracking.Artifact(path="report.html", size_bytes=30, digest=DIGEST),
)


def file_screen(path: str, content: bytes) -> Screen:
    shown = preview(tracking.Artifact(path=path, size_bytes=len(content), digest=DIGEST), io.BytesIO(content))
    return run_screen("artifacts", folder="out/files", artifacts=FILES, shown=shown)


def gallery_screen() -> Screen:
    end = "%timestamp%1764160000000%0c4a1e00-5b7d-4f0e-9a55-0123456789ab.png"
    files = [tracking.Artifact(path=f"images/samples%step%{n}{end}", size_bytes=9, digest=DIGEST) for n in (10, 2)]
    one = Histogram(step=4, edges=(0.0, 1.0, 2.0), counts=(3, 1), count=4, path="histograms/w/000000000004.json")
    drawn = spreads("w", [one], 1)
    assert drawn is not None
    return run_screen("artifacts", artifacts=FILES, galleries=galleries(files), spreads=(drawn,))


def compare_screen() -> Screen:
    chosen = [run(4), run(3), run(1), run(0)]
    made, left_out = runs.sections(KEYS)
    diff = compare.text_diff("query", chosen, ["a\nb\nc", "a\nx\nc", "a\nb\nc", "a\nb\nc"])
    assert diff is not None
    return compare.Compare(
        frame=Frame(title="Compare 4 runs", section="runs", crumbs=(Crumb("Runs", "/runs"),)),
        runs=tuple(chosen),
        groups=compare.groups(chosen, everything=False, more=(("Code", [{"commit": one.id} for one in chosen]),)),
        diffs=(diff,),
        charts=made,
        charts_left_out=left_out,
        plot=runs.Plot(runs=tuple(runs.dot(one, (), ()) for one in chosen)),
    )


def keys_screen() -> runs.KeyChoice:
    return runs.KeyChoice(frame=Frame(title="Columns", section="runs"), keys=COLUMNS, find="a", left_out=11_940)


SCREENS: dict[str, tuple[str, str, Screen]] = {
    "runs": ("/runs", "runs.html", runs_screen()),
    "runs-charts": ("/runs", "runs.html", runs_screen("charts")),
    "runs-parallel": ("/runs", "runs.html", runs_screen("parallel")),
    "runs-scatter": ("/runs", "runs.html", runs_screen("scatter")),
    "runs-groups": ("/runs", "runs.html", groups_screen()),
    "runs-nested": ("/runs", "runs.html", nested_screen()),
    "runs-wrong-filter": ("/runs", "runs.html", wrong_filter_screen()),
    "runs-none": ("/runs", "runs.html", empty_screen()),
    "runs-none-archived": ("/runs", "runs.html", empty_screen(archived=True)),
    "runs-none-found": ("/runs", "runs.html", empty_screen(text="nothing")),
    "run-keys": ("/run-keys", "run_keys.html", keys_screen()),
    "run-keys-to-group": ("/run-keys", "run_keys.html", replace(keys_screen(), grouping=True)),
    "runs-charts-of-groups": ("/runs", "runs.html", runs_screen("charts", group=("params.learning_rate",))),
    "run": ("/runs/x", "run.html", overview_screen()),
    "run-bare": ("/runs/x", "run.html", run_screen(metrics=())),
    "run-archived": ("/runs/x", "run.html", run_screen(run=replace(run(4), stage="deleted"))),
    "run-charts": ("/runs/x", "run.html", run_screen("charts", "RUNNING")),
    "run-no-charts": ("/runs/x", "run.html", run_screen("charts", charts=(), plot=None)),
    "run-log": ("/runs/x", "run.html", log_screen()),
    "run-no-log": ("/runs/x", "run.html", run_screen("log")),
    "run-origin": ("/runs/x", "run.html", origin_screen()),
    "run-no-files": ("/runs/x", "run.html", run_screen("artifacts")),
    "run-gallery": ("/runs/x", "run.html", gallery_screen()),
    "run-csv": ("/runs/x", "run.html", file_screen("out/files/table.csv", b"a,b\n1,x\n2,y\n")),
    "run-html": ("/runs/x", "run.html", file_screen("out/files/report.html", b"<h1>x</h1>")),
    "run-image": ("/runs/x", "run.html", file_screen("out/files/roc.png", b"\x89PNG")),
    "run-audio": ("/runs/x", "run.html", file_screen("out/files/said.wav", b"RIFF")),
    "run-video": ("/runs/x", "run.html", file_screen("out/files/seen.mp4", b"\0")),
    "run-text": ("/runs/x", "run.html", file_screen("out/files/config.yaml", b"a: 1\n")),
    "run-histogram": (
        "/runs/x",
        "run.html",
        file_screen("histograms/w/000000000004.json", b'{"step":4,"edges":[0,1,2],"counts":[3,1],"count":4}'),
    ),
    "run-binary": ("/runs/x", "run.html", file_screen("out/files/weights.bin", b"\0\1")),
    "compare": ("/compare", "compare.html", compare_screen()),
    "compare-one": ("/compare", "compare.html", compare.Compare(frame=Frame(title="Compare", section="runs"), runs=())),
}
