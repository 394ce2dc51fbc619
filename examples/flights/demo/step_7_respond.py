"""Respond: an alert starts the retraining by itself; its challenger is promoted if surely better, else dropped."""

from __future__ import annotations

import time

from flights.pipeline import MODEL

import modelyard
from demo.screen import Screen
from demo.step_5_serve import ENDPOINT
from demo.step_6_monitor import MONITOR
from modelyard.sdk.automation import TriggerHandle, create_trigger
from modelyard.types.automation import FINAL_STATES, OnEvent, Promotion, Response, StartPipeline, TriggerSpec
from modelyard.types.monitoring import Alert

TRIGGER = "retrain-on-alert"
TIMEOUT_S = 180.0


def create(screen: Screen) -> None:
    """The trigger: a calibration alert of the monitor starts the retraining pipeline up to the end of its window."""
    create_trigger(
        TriggerSpec(
            name=TRIGGER,
            on=OnEvent(kind="alert.raised", match={"monitor": MONITOR, "kind": "calibration"}),
            start=StartPipeline(pipeline="retrain_delay", params={"until": "{event.data.window_end}"}),
            then=Promotion(model=MODEL, alias="champion"),
        )
    )
    screen.good(f"trigger {TRIGGER}: a calibration alert starts retrain_delay, whose challenger must beat the champion")


def wait(screen: Screen, alert: Alert) -> Response:
    """Wait until the response to an alert is over. It began by itself."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        found = next((one for one in TriggerHandle(TRIGGER).responses() if one.alert == alert.id), None)
        if found is not None and found.state in FINAL_STATES:
            return found
        state = "not heard of yet" if found is None else f"{found.state}, pipeline run {found.pipeline_run}"
        screen.now(f"response to alert {alert.id}: {state}")
        time.sleep(0.2)
    raise SystemExit(f"nothing came of alert {alert.id} within {TIMEOUT_S:g} s")


def show(screen: Screen, response: Response) -> None:
    """What was decided, and why."""
    comparison = next((gate for gate in response.gates if gate.name.startswith("better-than")), None)
    tell = screen.good if response.state == "promoted" else screen.alarm
    tell(f"challenger {MODEL}@{response.challenger} against champion @{response.champion}: {response.state}")
    if comparison is not None:
        screen.say(f"  {comparison.reason}")
    if response.state not in ("promoted", "dropped"):
        raise SystemExit(f"the response ended as {response.state}: {response.verdict}")


def wait_served(version: int) -> None:
    """Wait until the endpoint, which follows the alias, serves a version."""
    handle = modelyard.endpoint(ENDPOINT)
    deadline = time.monotonic() + 60.0
    while time.monotonic() < deadline:
        if any(variant.version == version for variant in handle.get().serving):
            return
        time.sleep(0.1)
    raise SystemExit(f"the endpoint did not switch to version {version} within a minute")
