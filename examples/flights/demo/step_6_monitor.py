"""Monitor: monthly windows against the training data; performance once the true delays are known."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import modelyard
from demo.screen import Screen
from demo.step_1_ingest import add_outcomes
from demo.step_5_serve import ENDPOINT, Traffic
from modelyard.sdk.monitoring import MonitorHandle, create_monitor
from modelyard.types.monitoring import Alert, Baseline, Labels, MonitorSpec, MonitorWindow, Reference, Thresholds
from modelyard.types.pipelines import PipelineRun
from modelyard.types.registry import Evaluation

MONITOR = "flight-delay-monthly"
STALLED_S = 60.0


def create(screen: Screen, trained: PipelineRun, evaluation: Evaluation) -> None:
    """A monitor that compares with the training table, and joins the outcomes by flight."""
    training = step_part(trained, "training")
    scores = evaluation.overall
    spec = MonitorSpec(
        name=MONITOR,
        endpoint=ENDPOINT,
        reference=Reference(dataset=training["dataset"], ref=str(training["version"])),
        window="month",
        labels=Labels(dataset="outcomes", key="flight_id", label="late", known_at="landed_at"),
        baseline=Baseline(auc=scores.auc, base_rate=scores.positives / scores.rows, rows=scores.rows),
        thresholds=Thresholds(auc_drop=0.08, calibration=0.02),
        score="probabilities.1",
    )
    create_monitor(spec)
    screen.good(
        f"monitor {MONITOR}: monthly, reference {training['dataset']}@{training['version']}, labels from outcomes"
    )


def evaluate(screen: Screen, month: int, traffic: Traffic) -> tuple[MonitorWindow, list[Alert]]:
    """Let the month's outcomes arrive, and look at its window. Returns it and the alerts that are open now."""
    screen.now("waiting for the prediction log")
    wait_logged(traffic)
    screen.now(f"the true delays of 2013-{month:02d} arrive")
    add_outcomes(month)
    handle = MonitorHandle(MONITOR)
    end = datetime(2013, month + 1, 1, tzinfo=UTC)
    done = handle.evaluate(complete_through=end)
    if done.problem:
        raise SystemExit(f"the monitor cannot evaluate: {done.problem}")
    window = max((one for one in handle.windows() if one.start.month == month), key=lambda one: one.rows)
    show(screen, window)
    alerts = [alert for alert in handle.alerts("open") if alert.window_start == window.start]
    for alert in alerts:
        screen.alarm(f"alert {alert.id}: {alert.reason}")
    return window, alerts


def show(screen: Screen, window: MonitorWindow) -> None:
    """A window in two lines."""
    drifted = sorted((one for one in window.inputs if one.drifted), key=lambda one: -(one.value or 0.0))
    named = ", ".join(f"{one.column} {one.value:.2f}" for one in drifted[:4] if one.value is not None)
    prediction = window.prediction
    moved = f"; predictions {prediction.value:.2f}" if prediction is not None and prediction.value is not None else ""
    screen.say(
        f"{window.start:%B}: {window.rows:,} predictions of version {window.model_version}; "
        f"{len(drifted)} of {len(window.inputs)} inputs drifted ({named or 'none'}){moved}"
    )
    found = window.performance
    if found is None or found.auc is None or found.log_loss is None or found.base_rate is None:
        screen.say("no performance yet")
        return
    screen.say(
        f"{found.labelled:,} labels: AUC {found.auc:.3f}, log loss {found.log_loss:.3f}, "
        f"said {found.mean_score:.1%} late, true {found.base_rate:.1%}, calibration error {found.calibration_error:.3f}"
    )


def wait_logged(traffic: Traffic) -> None:
    """Wait until every answered row is in the prediction log."""
    handle = modelyard.endpoint(ENDPOINT)
    before, since = -1, time.monotonic()
    while (logged := handle.get().rows_logged) < traffic.rows:
        if logged != before:
            before, since = logged, time.monotonic()
        elif time.monotonic() - since > STALLED_S:
            raise SystemExit(
                f"{logged} of {traffic.rows} predictions are logged, and no further one for {STALLED_S:g} s"
            )
        time.sleep(0.1)


def step_part(run: PipelineRun, step: str) -> dict[str, object]:
    """What a step that kept a dataset said of it."""
    output = next(one.output for one in run.steps if one.name == step)
    assert output is not None
    part: dict[str, object] = output.value
    return part
