"""What a metric is, apart from how it is computed: which way is better, and where its value stands."""

from __future__ import annotations

from collections.abc import Mapping

from modelyard.types.registry import Metric, Scores

LARGER_IS_BETTER: Mapping[Metric, bool] = {
    "auc": True,
    "accuracy": True,
    "log_loss": False,
    "brier": False,
    "calibration_error": False,
}


def metric_of(scores: Scores, metric: Metric) -> float | None:
    """The metric's value, or None where the rows did not give it."""
    value: float | None = getattr(scores, metric)
    return value
