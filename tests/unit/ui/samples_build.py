"""Realistic screens of feature views and pipelines, beside those of `samples`."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

from modelyard.types import automation, cost, features, pipelines
from modelyard.ui.frame import Crumb, Frame, Screen
from modelyard.ui.views import automation as automation_views
from modelyard.ui.views import cost as cost_views
from modelyard.ui.views import features as feature_views
from modelyard.ui.views import monitors as monitor_views
from modelyard.ui.views import pipelines as pipeline_views
from unit.ui import samples_runs
from unit.ui.samples import ALERT, ALERT_ID, JOB_ID, NOW, RUN_IDS, SCREENS, ago, decision, rail

VIEW = features.FeatureView(
    name="origin_delays",
    version="3fa29c81d2e4",
    definition=features.DefineFeatureView(
        name="origin_delays",
        entities=["origin"],
        source="arrivals",
        event_time="departed_at",
        known_at="landed_at",
        columns=["runway"],
        ttl_s=7 * 86_400,
        aggregates=[
            features.Aggregate(function="mean", column="dep_delay", window_s=3 * 3600),
            features.Aggregate(function="rate", column="late", window_s=6 * 3600),
            features.Aggregate(function="count", window_s=3600),
        ],
        sql="SELECT *, arr_delay > 15 AS late FROM arrivals",
        description="How late an airport has been running, as far as it was known",
    ),
    features=[
        features.Feature("runway", "string"),
        features.Feature("mean_dep_delay_3h", "double"),
        features.Feature("rate_late_6h", "double"),
        features.Feature("count_1h", "int64"),
    ],
    current=True,
    created_at=ago(minutes=70),
    created_by="anna",
)


def feature_view_screen() -> Screen:
    frame = Frame(
        title=VIEW.name,
        section="features",
        kind="feature view",
        about=VIEW.definition.description,
        owner="anna",
        at=VIEW.created_at,
        crumbs=(Crumb("Feature views", "/features"),),
        rail=rail(VIEW.urn, "modelyard feature get origin_delays"),
    )
    rows = tuple(
        feature_views.FeatureRow(
            name=one.name,
            column=f"origin_delays__{one.name}",
            type=one.type,
            meaning=feature_views.meaning(VIEW.definition, one.name),
        )
        for one in VIEW.features
    )
    return feature_views.FeatureViewPage(frame=frame, view=VIEW, features=rows, versions=(VIEW,))


PLAN = pipelines.Plan(
    name="train",
    description="Features, three candidates, the best of them registered",
    params=[pipelines.Param(name="through", kind="str", required=True), pipelines.Param(name="seed", default=7)],
    steps=[
        pipelines.Step(
            name="features",
            task="flights.steps:features",
            code_hash="a",
            inputs={
                "flights": pipelines.DatasetRef("flights"),
                "weather": pipelines.ListOf([pipelines.DatasetRef("weather")]),
                "through": pipelines.ParamRef("through"),
            },
        ),
        *(
            pipelines.Step(
                name=name,
                task="flights.steps:fit",
                code_hash="b",
                inputs={"table": pipelines.OutputRef("features"), "model": pipelines.Value(name)},
            )
            for name in ("fit-logistic", "fit-gbdt", "fit-gbdt-deep")
        ),
        pipelines.Step(
            name="register",
            task="flights.steps:register",
            code_hash="c",
            inputs={
                "candidates": pipelines.MapOf(
                    {
                        "logistic": pipelines.OutputRef("fit-logistic"),
                        "gbdt": pipelines.OutputRef("fit-gbdt"),
                        "deep": pipelines.OutputRef("fit-gbdt-deep"),
                    }
                )
            },
        ),
    ],
)
PIPELINE = pipelines.Pipeline(
    name="train",
    version=2,
    plan=PLAN,
    code=pipelines.Code(digest="4fd1c9e2a7b0", size_bytes=41_000, commit="4fd1c9e2a7b0aa11", dirty=True),
    created_by="anna",
    created_at=ago(minutes=80),
)


def step(name: str, state: str, start: float | None = None, took: float | None = None) -> pipelines.StepRun:
    started = None if start is None else ago(minutes=10) + timedelta(seconds=start)
    error = pipelines.StepError(
        kind="user_code",
        type="ValueError",
        message="ValueError: max_depth must be positive, not -1",
        traceback='  File "flights/steps.py", line 88, in fit\n    model.fit(x, y)\nValueError: max_depth is -1',
    )
    return pipelines.StepRun(
        name=name,
        task="flights.steps:fit",
        state=pipelines.StepState(state),
        key="k",
        job_id=JOB_ID if started else None,
        cached_from=RUN_IDS[0] if state == "cached" else None,
        started_at=started,
        ended_at=started + timedelta(seconds=took) if started and took is not None else None,
        error=error if state == "failed" else None,
    )


RUN = pipelines.PipelineRun(
    id=RUN_IDS[4],
    pipeline="train",
    version=2,
    state=pipelines.RunState.FAILED,
    params={"through": "2013-06", "seed": 7},
    datasets={"flights": 6, "weather": 6},
    code="4fd1c9e2a7b0",
    env="77ab0213cdef",
    cause="alert:" + RUN_IDS[1],
    reason="step fit-gbdt-deep failed; what was done stays done, `modelyard pipeline resume` goes on from there",
    steps=[
        step("features", "cached"),
        step("fit-logistic", "succeeded", 0.4, 6.1),
        step("fit-gbdt", "succeeded", 0.6, 21.7),
        step("fit-gbdt-deep", "failed", 6.8, 11.2),
        step("register", "skipped"),
    ],
    result={"auc": 0.7312},
    created_by="automation:retrain-on-drop",
    created_at=ago(minutes=10),
    ended_at=ago(minutes=9.5),
)


def pipelines_screen() -> Screen:
    row = pipeline_views.run_row(RUN, NOW)
    return pipeline_views.Pipelines(
        frame=Frame(title="Pipelines", section="pipelines"),
        rows=(pipeline_views.PipelineRow(pipeline=PIPELINE, latest=row),),
        runs=(row,),
    )


def pipeline_screen() -> Screen:
    return pipeline_views.PipelinePage(
        frame=Frame(
            title="train",
            section="pipelines",
            kind="pipeline",
            about=PLAN.description,
            owner="anna",
            at=PIPELINE.created_at,
            crumbs=(Crumb("Pipelines", "/pipelines"),),
        ),
        pipeline=PIPELINE,
        drawing=pipeline_views.plan_graph(PLAN, None, NOW),
        runs=(pipeline_views.run_row(RUN, NOW),),
    )


def pipeline_run_screen() -> Screen:
    return pipeline_views.PipelineRunPage(
        frame=Frame(
            title="train e5f62b33",
            section="pipelines",
            kind="pipeline run",
            state="failed",
            owner=RUN.created_by,
            at=RUN.created_at,
            crumbs=(Crumb("Pipelines", "/pipelines"), Crumb("train", "/pipelines/train")),
            rail=rail("pipeline-run:" + RUN.id, f"modelyard pipeline resume {RUN.id}"),
        ),
        run=RUN,
        row=pipeline_views.run_row(RUN, NOW),
        drawing=pipeline_views.plan_graph(PLAN, RUN, NOW),
        timeline=pipeline_views.steps_timeline(RUN.steps, NOW),
        failed=tuple(one for one in RUN.steps if one.error),
        given=pipeline_views.what_was_given(PLAN, RUN),
    )


RESPONSE = automation.Response(
    id=RUN_IDS[2],
    trigger="retrain-on-drop",
    event=RUN_IDS[3],
    event_kind="alert.raised",
    event_subject="alert:" + RUN_IDS[1],
    event_at=ago(minutes=12),
    state="promoted",
    reason="alert.raised on monitor delay-monthly; no run within the last hour",
    alert=RUN_IDS[1],
    pipeline="train",
    params={"through": "2013-06"},
    pipeline_run=RUN_IDS[4],
    model="delay",
    challenger=3,
    champion=2,
    verdict="AUC better by 0.0123, at least 0.0041 with 95 % confidence: promoted to champion",
    gates=tuple(decision(3, promotable=True, approved=True).gates),
    created_at=ago(minutes=12),
    updated_at=ago(minutes=4),
)
TRIGGER = automation.Trigger(
    id="t",
    name="retrain-on-drop",
    spec=automation.TriggerSpec(
        name="retrain-on-drop",
        on=automation.OnEvent(kind="alert.raised", match={"kind": ["auc", "calibration"]}),
        start=automation.StartPipeline(pipeline="train"),
        then=automation.Promotion(model="delay"),
        cooldown_s=3600,
    ),
    created_at=ago(hours=1),
    created_by="anna",
    updated_at=ago(hours=1),
)


def automation_screen() -> Screen:
    row = automation_views.TriggerRow(
        trigger=TRIGGER, waits_for=automation_views.waits_for(TRIGGER.spec.on), latest=RESPONSE
    )
    return automation_views.Triggers(
        frame=Frame(title="Automation", section="automation"), rows=(row,), responses=(RESPONSE,)
    )


def alert_screen() -> Screen:
    frame = Frame(
        title="AUC of delay",
        section="monitors",
        kind="alert",
        state="open",
        at=ALERT.raised_at,
        crumbs=(Crumb("Monitors", "/monitors"), Crumb("delay-monthly", "/monitors/delay-monthly")),
        rail=rail("alert:" + ALERT_ID),
    )
    return monitor_views.AlertPage(frame=frame, alert=ALERT, responses=(RESPONSE,))


def response_screen() -> Screen:
    frame = Frame(
        title="retrain-on-drop on alert.raised",
        section="automation",
        kind="response",
        state="promoted",
        at=RESPONSE.created_at,
        crumbs=(Crumb("Automation", "/automation"),),
        rail=rail("pipeline-run:" + RUN_IDS[4]),
    )
    return automation_views.ResponsePage(frame=frame, response=RESPONSE)


def cost_item(urn: str, hours: str) -> cost.CostItem:
    quantity = Decimal(hours)
    line = cost.CostLine(resource="cpu_h", quantity=quantity, price=Decimal("0.04"), amount=quantity * Decimal("0.04"))
    return cost.CostItem(
        urn=urn, currency="EUR", amount=line.amount, lines=(line,), jobs=(JOB_ID,), attempts=3, estimate=True
    )


def cost_screen() -> Screen:
    parts = (
        cost_item("pipeline:train", "0.0412"),
        cost_item("pipeline:score", "0.0131"),
        cost_item("(none)", "0.0007"),
    )
    allocation = cost.Allocation(
        by="pipeline", currency="EUR", total=cost_item("project:default", "0.0550"), parts=parts
    )
    price = cost.Price(resource="cpu_h", price=Decimal("0.04"), effective_from=ago(days=30))
    return cost_views.CostPage(
        frame=Frame(title="Cost", section="cost"),
        allocation=allocation,
        rows=cost_views.rows(allocation),
        book=cost.PriceBook(currency="EUR", prices=(price,), default=True),
        by="pipeline",
        groups=cost_views.GROUPS,
        days=30,
    )


ALL_SCREENS: dict[str, tuple[str, str, Screen]] = {
    **SCREENS,
    **samples_runs.SCREENS,
    "features": (
        "/features",
        "feature_views.html",
        feature_views.FeatureViews(frame=Frame(title="Feature views", section="features"), views=(VIEW,)),
    ),
    "feature": ("/features/origin_delays", "feature_view.html", feature_view_screen()),
    "automation": ("/automation", "automation.html", automation_screen()),
    "response": ("/automation/responses/x", "response.html", response_screen()),
    "alert": ("/alerts/x", "alert.html", alert_screen()),
    "cost": ("/cost", "cost.html", cost_screen()),
    "pipelines": ("/pipelines", "pipelines.html", pipelines_screen()),
    "pipeline": ("/pipelines/train", "pipeline.html", pipeline_screen()),
    "pipeline-run": ("/pipelines/runs/x", "pipeline_run.html", pipeline_run_screen()),
}
"""Every screen by name: its path, its template, and the screen."""
