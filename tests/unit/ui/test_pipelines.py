"""How plans and runs of pipelines are drawn, and how features are told."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import msgspec

from modelyard.types import automation as triggers
from modelyard.types import pipelines as nouns
from modelyard.ui import format as formats
from modelyard.ui.views import automation, cost, features, home, pipelines
from unit.ui import samples_build as samples
from unit.ui.samples import NOW


def test_a_plan_is_drawn_with_the_data_that_it_reads() -> None:
    run = msgspec.structs.replace(
        samples.RUN, datasets={"flights": 6}, params={"outcomes": {"from": "dataset", "name": "late"}}
    )
    labels = nouns.ParamRef("outcomes")
    step = msgspec.structs.replace(samples.PLAN.steps[0], inputs={**samples.PLAN.steps[0].inputs, "labels": labels})
    given = nouns.Param(name="outcomes", kind="dataset")
    plan = msgspec.structs.replace(samples.PLAN, params=[given], steps=[step, *samples.PLAN.steps[1:]])
    drawing = pipelines.plan_graph(plan, run, NOW)
    ties = {(line.edge.source, line.edge.target) for line in drawing.edges}
    assert ("dataset:flights@6", "features") in ties, "pinned by the run"
    assert ("dataset:weather", "features") in ties, "within a list, not pinned"
    assert ("dataset:late", "features") in ties, "given by a param"
    assert ("fit-gbdt", "register") in ties, "within a map"
    at = {placed.node.id: placed.x for placed in drawing.nodes}
    assert at["dataset:flights@6"] < at["features"] < at["fit-gbdt"] < at["register"]


def test_a_run_shows_which_steps_were_not_run_again() -> None:
    row = pipelines.run_row(samples.RUN, NOW)
    assert (row.cached, row.done) == (1, 3)
    drawing = pipelines.plan_graph(samples.PLAN, samples.RUN, NOW)
    node = next(placed.node for placed in drawing.nodes if placed.node.id == "features")
    assert (node.state, node.detail) == ("cached", "not run again")


def test_what_a_run_was_given_is_told_once_and_by_version() -> None:
    plan = msgspec.structs.replace(
        samples.PLAN, params=[nouns.Param(name="rows", kind="dataset"), nouns.Param(name="n")]
    )
    run = msgspec.structs.replace(
        samples.RUN,
        params={"rows": {"from": "dataset", "name": "flights", "ref": "frozen"}, "n": 3},
        datasets={"flights@frozen": 5, "flights@2": 2, "weather": 6},
    )
    told = [(one.name, one.value, one.dataset, one.asked_otherwise) for one in pipelines.what_was_given(plan, run)]
    assert told == [
        ("n", 3, "", False),
        ("rows", None, "dataset:flights@5", True),
        ("dataset", None, "dataset:flights@2", False),
        ("dataset", None, "dataset:weather@6", True),
    ]


def test_cached_and_skipped_steps_have_no_bar() -> None:
    bars = {bar.span.label: bar.width for bar in pipelines.steps_timeline(samples.RUN.steps, NOW).bars}
    assert bars["features"] == bars["register"] == 0
    assert bars["fit-gbdt"] > bars["fit-logistic"] > 0


def test_features_are_told_in_words() -> None:
    told = [features.meaning(samples.VIEW.definition, one.name) for one in samples.VIEW.features]
    assert told == [
        "the latest known runway, good for 7d",
        "mean of dep_delay over the last 3h",
        "share of true of late over the last 6h",
        "count of rows over the last 1h",
    ]


def test_a_failed_pipeline_needs_somebody_until_it_succeeds() -> None:
    since = NOW - timedelta(days=7)
    (need,) = home.of_pipeline_runs([samples.RUN], since)
    assert need.why.startswith("step fit-gbdt-deep failed")
    again = msgspec.structs.replace(samples.RUN, state=nouns.RunState.SUCCEEDED)
    assert home.of_pipeline_runs([again, samples.RUN], since) == []


def test_triggers_tell_what_they_wait_for() -> None:
    assert automation.waits_for(samples.TRIGGER.spec.on) == "alert.raised with kind auc or calibration"
    assert automation.waits_for(triggers.OnDataset(dataset="flights")) == "a new version of flights"
    assert automation.waits_for(triggers.OnSchedule(cron="0 3 * * *")) == "0 3 * * * (UTC)"


def test_a_response_that_waits_needs_somebody() -> None:
    since = NOW - timedelta(days=7)
    assert home.of_responses([samples.RESPONSE], since) == []
    (need,) = home.of_responses([msgspec.structs.replace(samples.RESPONSE, state="waiting")], since)
    assert need.href == f"/automation/responses/{samples.RESPONSE.id}"


def test_shares_of_a_cost_add_up() -> None:
    shown = cost.rows(samples.cost_screen().allocation)  # type: ignore[attr-defined]
    assert [row.item.urn for row in shown] == ["pipeline:train", "pipeline:score", "(none)"]
    assert abs(sum(row.share for row in shown) - 1) < 1e-9


def test_small_amounts_of_money_keep_two_digits() -> None:
    amounts = ["0", "0.0000123", "0.04", "1.5", "1234.567"]
    assert [formats.money(Decimal(one)) for one in amounts] == ["0", "0.000012", "0.040", "1.50", "1,234.57"]
