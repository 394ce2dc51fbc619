"""How screens are built from the planes' nouns."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from modelyard.kernel.lineage import TimedEdge
from modelyard.types import registry, serving
from modelyard.ui import urns
from modelyard.ui.events import folded, sentence
from modelyard.ui.frame import tabs, ties_of
from modelyard.ui.render import Visit
from modelyard.ui.views import datasets, endpoints, home, jobs, lineage, model_versions, models, monitors
from unit.ui import samples

NOW = samples.NOW


# --- models ---------------------------------------------------------------------------------------------------------


def test_reigns_tell_how_long_each_version_held_the_alias() -> None:
    first, second, *_ = models.reigns(samples.MOVES)
    assert first.until is None
    assert second.move.kind == "rollback"
    assert second.held_s == pytest.approx(29 * 60)


def test_a_version_waits_for_approval_only_if_all_gates_passed() -> None:
    waiting = samples.decision(4, promotable=False, approved=False)
    assert models.lacks_only_approvals(waiting)
    assert not models.lacks_only_approvals(samples.decision(4, promotable=True, approved=True))
    failed = registry.GateResult(name="auc", status="failed", reason="too low")
    assert not models.lacks_only_approvals(
        registry.Decision(
            model="delay",
            version=4,
            alias="champion",
            guarded=True,
            promotable=False,
            reasons=[],
            gates=[failed],
            approvals=waiting.approvals,
            at=NOW,
        )
    )


def test_signatures_are_read_in_both_forms_and_survive_nonsense() -> None:
    version = samples.model_version(4)
    assert model_versions.columns_of(version.signature, "inputs")[0] == ("carrier", "string")
    assert model_versions.columns_of(version.signature, "outputs")[0][1].startswith("float32")
    assert model_versions.columns_of(None, "inputs") == ()
    assert model_versions.columns_of({"inputs": "not json"}, "inputs") == ()


def test_a_policy_is_shown_without_its_empty_parts() -> None:
    assert models.trimmed({"a": "", "b": [], "c": {"d": None}, "e": [{"f": 1, "g": False}]}) == {"e": [{"f": 1}]}


# --- endpoints and monitors -----------------------------------------------------------------------------------------


def test_shares_are_of_the_whole_weight() -> None:
    assert [row.share for row in endpoints.shares(samples.ENDPOINT.variants)] == [0.9, 0.1]
    assert endpoints.shares([]) == ()


def test_a_version_that_serves_on_is_one_bar() -> None:
    again = serving.Switch(endpoint="delay", at=NOW, revision=5, variants=[samples.variant(3)])
    bars = endpoints.reigns([*samples.SWITCHES, again], NOW + timedelta(minutes=5)).bars
    assert [bar.span.label for bar in bars] == ["delay 1", "delay 2", "delay 1", "delay 3"]
    assert bars[-1].span.ended_at is None


def test_traffic_counts_rows_by_minute_and_shows_idle_minutes() -> None:
    written = [samples.version(1), samples.version(2)]
    chart = endpoints.traffic(written)
    assert chart is not None
    assert chart.series[0].ys[0] == 27_004.0
    assert chart.series[0].ys[1] == 0.0
    assert sum(y or 0 for y in chart.series[0].ys) == 51_955.0
    assert endpoints.traffic(written[:1]) is None


def test_latency_is_a_95th_percentile() -> None:
    tally = endpoints.latency([{"latency_us": 1000 * (n + 1)} for n in range(100)])
    assert tally is not None
    assert tally.value.startswith("95")
    assert endpoints.latency([]) is None


def test_windows_become_charts_with_the_alerts_own_threshold() -> None:
    charts = {chart.title: chart for chart in monitors.charts(samples.MONITOR, samples.WINDOWS)}
    assert charts["AUC"].threshold == pytest.approx(0.705)
    assert charts["AUC"].ticks == ("Apr 2013", "May", "Jun")
    assert charts["AUC"].series[0].ys == (0.732, 0.721, 0.671)
    assert charts["Input drift, the farthest columns"].series[0].name == "temp_f"


def test_a_chart_without_values_is_left_out() -> None:
    unlabelled = [samples.window(4, None, 0.1)]
    assert "AUC" not in {chart.title for chart in monitors.charts(samples.MONITOR, unlabelled)}


# --- home -----------------------------------------------------------------------------------------------------------


def test_production_comes_first_then_the_newest() -> None:
    needs = [
        home.Need(kind=kind, state="s", title=title, why="", href="/", at=NOW - timedelta(minutes=age))
        for kind, title, age in [("job", "old", 9), ("job", "new", 1), ("quarantine", "q", 5), ("alert", "a", 60)]
    ]
    assert [need.title for need in home.ordered(needs)] == ["a", "q", "new", "old"]


def test_a_failure_that_a_later_success_mended_needs_nobody() -> None:
    failed = samples.job("failed", "train", "killed")
    mended = [samples.job("succeeded", "train", "exit 0"), failed]
    since = NOW - timedelta(days=7)
    assert home.of_jobs(mended, since) == []
    assert [need.title for need in home.of_jobs(list(reversed(mended)), since)] == ["train"]
    assert home.of_jobs([failed], NOW) == [], "too long ago"


def test_resolved_alerts_need_nobody() -> None:
    assert len(home.of_alerts([samples.ALERT])) == 1
    assert home.of_alerts([msgspec.structs.replace(samples.ALERT, status="resolved")]) == []


def test_quarantine_says_why() -> None:
    (need,) = home.of_quarantine([samples.BATCH])
    assert "1,200 rows" in need.why
    assert "no column tailnum" in need.why
    assert need.href == f"/datasets/flights/quarantine/{samples.BATCH_ID}"


# --- jobs, datasets -------------------------------------------------------------------------------------------------


def test_commands_are_quoted_as_typed() -> None:
    job = samples.job("queued", "x", "")
    assert jobs.command_of(msgspec.structs.replace(job, command=["sh", "-c", "a b"])) == "sh -c 'a b'"
    assert jobs.duration_of(job, NOW) is None


def test_growth_needs_three_versions() -> None:
    assert datasets.growth([samples.version(1), samples.version(2)]) is None
    chart = datasets.growth([samples.version(n) for n in (3, 2, 1)])
    assert chart is not None
    assert chart.series[0].xs == (1.0, 2.0, 3.0)


# --- lineage, frame -------------------------------------------------------------------------------------------------


def test_the_graph_runs_from_causes_to_effects() -> None:
    drawn, left_out = lineage.drawing("model:delay@3", samples.EDGES)
    at = {placed.node.id: placed.x for placed in drawn.nodes}
    assert at["dataset:weather@6"] < at["run:" + samples.RUN_IDS[4]] < at["model:delay@3"] < at["endpoint:delay"]
    assert left_out == ""
    assert [placed.node.id for placed in drawn.nodes if placed.node.focus] == ["model:delay@3"]


def test_a_crowd_is_cut_to_the_nearest_and_says_so() -> None:
    edges = [TimedEdge(f"run:{n:032x}", "used", "dataset:flights@1", NOW) for n in range(300)]
    drawn, left_out = lineage.drawing("dataset:flights@1", edges)
    assert len(drawn.nodes) == lineage.NODES_DRAWN_MAX
    assert "of 301" in left_out


def test_ties_are_told_from_the_urns_own_side_causes_first() -> None:
    near = [edge for edge in samples.EDGES if "model:delay@3" in (edge.subject, edge.object)]
    told = [(tie.relation, tie.urn) for tie in ties_of("model:delay@3", list(reversed(near)))]
    assert told == [("trained by", "run:" + samples.RUN_IDS[4]), ("served by", "endpoint:delay")]


def test_an_unknown_tab_is_the_first() -> None:
    parts = tabs("/runs/a", "nonsense", [("overview", "Overview", None), ("tags", "Tags", 2)])
    assert [(part.current, part.href) for part in parts] == [(True, "/runs/a"), (False, "/runs/a?tab=tags")]


@pytest.mark.parametrize(
    ("urn", "href", "label"),
    [
        ("run:01932a107b2c7000a1b2c3d4e5f60ab1", "/runs/01932a107b2c7000a1b2c3d4e5f60ab1", "e5f60ab1"),
        ("dataset:flights@7", "/datasets/flights?version=7", "flights @7"),
        ("dataset:predictions.delay@2", "/datasets/predictions.delay?version=2", "predictions.delay @2"),
        ("model:delay@3", "/models/delay/versions/3", "delay @3"),
        ("model:delay", "/models/delay", "delay"),
        ("endpoint:delay", "/endpoints/delay", "delay"),
        ("feature-view:origin@3fa29c81d2e4", "/features/origin?version=3fa29c81d2e4", "origin @3fa29c8"),
        (f"pipeline-run:{samples.JOB_ID}", f"/pipelines/runs/{samples.JOB_ID}", "e5f60ab1"),
        ("code:4fd1c9e2a7b08812", "/lineage?urn=code%3A4fd1c9e2a7b08812", "4fd1c9e2a7"),
        ("model:a/b?c@1", "/models/a%2Fb%3Fc/versions/1", "a/b?c @1"),
    ],
)
def test_urns_have_pages_and_labels(urn: str, href: str, label: str) -> None:
    assert urns.address_of(urn) == href
    assert urns.label_of(urn) == label


def test_events_read_as_sentences() -> None:
    promoted = sentence(samples.EVENTS[1])
    assert (promoted.kind, promoted.label, promoted.verb, promoted.tone) == ("model", "delay @3", "promoted", "good")
    assert promoted.details.startswith("alias champion, previous 2, AUC better")
    quarantined = sentence(samples.EVENTS[-1])
    assert quarantined.verb == "batch quarantined"
    assert quarantined.tone == "bad"


def test_what_is_so_is_told_without_a_value_and_what_is_not_so_not_at_all() -> None:
    raised = samples.event("alert.raised", "alert:1", 1, again=False, rows=0, labelled=True)
    assert sentence(raised).details == "rows 0, labelled"


def test_addresses_keep_the_project_and_the_other_parameters() -> None:
    visit = Visit(
        project="team-a",
        who="anna",
        path="/runs",
        now=datetime.now(UTC),
        query=(("column", "a"), ("column", "b"), ("page", "x")),
    )
    assert visit.with_query(order="metrics.auc DESC", page=None) == (
        "/p/team-a/runs?column=a&column=b&order=metrics.auc+DESC"
    )
    assert visit.to("/models") == "/p/team-a/models"


def test_home_tells_of_tokens_only_where_a_person_issued_them() -> None:
    told = [
        home.is_told(samples.event(kind, "token:x", 1, actor))
        for kind, actor in (("token.issued", "system"), ("token.issued", "anna"), ("step.cached", "anna"))
    ]
    assert told == [False, True, False]


def test_columns_stand_with_the_dataset_that_they_are_of() -> None:
    edges = [
        TimedEdge("run:a", "used", "dataset:flights@7", NOW),
        TimedEdge("run:a", "used", "dataset:flights@7#late", NOW),
        TimedEdge("run:a", "used", "dataset:flights@7#dist", NOW),
        TimedEdge("dataset:daily@1#total", "derived", "dataset:flights@7#dist", NOW),
        TimedEdge("dataset:daily@1#total", "derived", "dataset:daily@1", NOW),
    ]
    first, second = lineage.bundled(edges)
    assert (first.subject, first.object, first.of_object) == ("run:a", "dataset:flights@7", ("dist", "late"))
    assert (second.of_subject, second.of_object) == (("total",), ("dist",))
    [tie] = ties_of("run:a", edges[:3])
    assert (tie.label, tie.parts) == ("flights @7", ("dist", "late"))
    assert ties_of("dataset:flights@7#late", edges[1:2])[0].urn == "run:a"


def test_what_happens_every_second_does_not_hide_what_else_happened() -> None:
    flush = [samples.event("dataset.version_published", f"dataset:predictions@{n}", n, "system") for n in range(1, 40)]
    other = samples.event("model.promoted", "model:delay@3", 50)
    first, second = folded([*flush, other])
    assert (first.event, first.again) == (flush[0], 38)
    assert (second.event, second.again) == (other, 0)


def test_an_anomaly_says_its_reason() -> None:
    found = samples.event(
        "dataset.anomaly_found", "dataset:flights@7", 1, "system", anomalies=[{"reason": "4 rows are few"}, {}], count=2
    )
    assert sentence(found).details == "4 rows are few, and 1 more"
