"""All eight steps against the server that has MODELYARD_HOME open: `python -m demo`."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from flights import source
from flights.pipeline import MODEL

import modelyard
from demo import (
    step_1_ingest,
    step_2_features,
    step_3_train,
    step_4_register,
    step_5_serve,
    step_6_monitor,
    step_7_respond,
    step_8_ask,
)
from demo.page import Done, show_page
from demo.screen import Screen
from modelyard.types.automation import Response
from modelyard.types.registry import ModelVersion

MONTHS = {4: "April", 5: "May", 6: "June"}


def main() -> None:
    """Run the steps in their order, and say what was done."""
    screen = Screen()
    with screen.step(1, "Ingest January to March by write-audit-publish"):
        step_1_ingest.run(screen)
    with screen.step(2, "Features, point-in-time"):
        step_2_features.run(screen)
    with screen.step(3, "Train three candidates"):
        trained = step_3_train.run(screen)
    with screen.step(4, "Register, pass the gates, approve, promote"):
        first = step_4_register.run(screen, trained)
    with screen.step(5, "Serve"):
        served = step_5_serve.run(screen)
        evaluation = modelyard.model(MODEL).record(first.version).evaluations()[0]
        step_6_monitor.create(screen, trained, evaluation)
        step_7_respond.create(screen)
    traffic, responses, instants = step_5_serve.Traffic(), [], {}
    alerts = []
    for month, name in MONTHS.items():
        with screen.step(5, f"Serve: replay {name}"):
            step_1_ingest.add_month(month)
            step_5_serve.replay(screen, month, traffic)
            screen.good(
                f"{traffic.rows:,} predictions in {traffic.requests:,} requests so far, {len(traffic.failures)} failed"
            )
        instants[f"as {name} had been replayed"] = datetime.now(UTC)
        for alert in alerts:
            with screen.step(7, "Respond to the alert before"):
                responses.append(step_7_respond.wait(screen, alert))
                step_7_respond.show(screen, responses[-1])
        with screen.step(6, f"Monitor: the outcomes of {name} arrive"):
            _, raised = step_6_monitor.evaluate(screen, month, traffic)
            alerts = [alert for alert in raised if alert.kind == "calibration"]
    with screen.step(7, "Respond while July goes on"):
        screen.now("joining the features of July")
        step_1_ingest.add_month(7)
        july = step_5_serve.features_of(source.flights(7))
        with step_5_serve.Background(traffic, july):
            for alert in alerts:
                responses.append(step_7_respond.wait(screen, alert))
                step_7_respond.show(screen, responses[-1])
            champion = modelyard.model(MODEL).resolve("champion")
            step_7_respond.wait_served(champion.version)
            time.sleep(1.0)
        check(responses, champion, first)
        assert not traffic.failures, f"{len(traffic.failures)} requests failed, first: {traffic.failures[0]}"
        screen.good(
            f"{served.name} switched to {champion.urn} under traffic: {traffic.requests:,} requests, none failed, "
            f"answered by versions {', '.join(sorted(traffic.versions))}"
        )
    instants["now"] = datetime.now(UTC)
    with screen.step(8, "Ask"):
        step_8_ask.run(screen, trained, instants)
    show_page(screen, Done(trained, first, champion, served, traffic, responses))


def check(responses: list[Response], champion: ModelVersion, first: ModelVersion) -> None:
    """The gate has said no in spring, when a challenger was hardly better, and yes in summer."""
    verdicts = [response.state for response in responses]
    assert champion.version != first.version, f"no alert led to another champion; the responses ended as {verdicts}"
    assert "dropped" in verdicts, f"the gate never said no; the responses ended as {verdicts}"


if __name__ == "__main__":
    main()
