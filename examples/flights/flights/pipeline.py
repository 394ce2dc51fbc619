"""From datasets to a registered model: three candidates in the beginning, one challenger when something is wrong."""

from __future__ import annotations

from typing import Any

from flights.tasks import assemble, register, train
from modelyard import Dataset, pipeline

MODEL = "flight_delay"
TRAINING_ROWS = 30_000
HELD_OUT_ROWS = 3_000
FIRST_DAYS = 76
RECENT_DAYS = 30


@pipeline
def train_delay(
    until: str,
    flights: Dataset = Dataset("flights"),
    arrivals: Dataset = Dataset("arrivals"),
    weather: Dataset = Dataset("weather"),
    outcomes: Dataset = Dataset("outcomes"),
) -> Any:
    """Train three candidates on what came before the last two weeks, and register the best of them on these."""
    sources = {"flights": flights, "arrivals": arrivals, "weather": weather, "outcomes": outcomes, "until": until}
    training = assemble.named("training")("training", **sources, days=FIRST_DAYS, rows=TRAINING_ROWS)
    held_out = assemble.named("held-out")("held_out", **sources, days=FIRST_DAYS, rows=HELD_OUT_ROWS)
    trained = [
        train.named(f"train-{candidate}")(candidate, training, held_out)
        for candidate in ("boosting", "forest", "logistic")
    ]
    return register(trained, held_out, MODEL)


@pipeline
def retrain_delay(
    until: str,
    flights: Dataset = Dataset("flights"),
    arrivals: Dataset = Dataset("arrivals"),
    weather: Dataset = Dataset("weather"),
    outcomes: Dataset = Dataset("outcomes"),
) -> Any:
    """Train a challenger on recent weeks, and measure it and the champion on the latest two."""
    sources = {"flights": flights, "arrivals": arrivals, "weather": weather, "outcomes": outcomes, "until": until}
    training = assemble.named("training")("training", **sources, days=RECENT_DAYS, rows=TRAINING_ROWS)
    held_out = assemble.named("held-out")("held_out", **sources, days=RECENT_DAYS, rows=HELD_OUT_ROWS)
    return register([train.named("train-boosting")("boosting", training, held_out)], held_out, MODEL)
