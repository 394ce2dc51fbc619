"""How good the predictions of a window were, once labels are there: pure functions over scores and labels.

The metrics themselves are the registry's (`measure`), so that a gate and a monitor never differ by definition. What a
monitor adds is the doubt: a window is a sample, and an alert must be surer than its sampling error.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from modelyard.kernel.errors import InvalidInput
from modelyard.planes.registry import CALIBRATION_BINS, measure
from modelyard.types.monitoring import CalibrationBin, Performance

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    Floats = np.ndarray[Any, np.dtype[np.float64]]

Z_95 = 1.6448536269514722
_EXPRESSION = re.compile(r"\s*(?P<column>[^<>=!]+?)\s*(?:(?P<sign><=|>=|==|!=|<|>)\s*(?P<bound>[-+.\w]+)\s*)?")
_SIGNS: dict[str, Callable[[Any, float], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}


class LabelRule(msgspec.Struct, frozen=True):
    """How a label is read from a column: as it is (0 or 1), or as a comparison with a number."""

    column: str
    sign: str | None = None
    bound: float = 0.0


def parse_label(text: str) -> LabelRule:
    """Read `column` or `column > number`. Raises InvalidInput."""
    found = _EXPRESSION.fullmatch(text)
    if found is not None:
        if found["sign"] is None:
            return LabelRule(found["column"])
        try:
            bound = float(found["bound"])
        except ValueError:
            bound = math.nan
        if math.isfinite(bound):
            return LabelRule(found["column"], found["sign"], bound)
    raise InvalidInput(
        f"'{text[:80]}' says no label",
        code="monitor.label_invalid",
        hint="name a column of 0 and 1, or compare one with a number, as in `arr_delay > 15`",
    )


def labels_of(rule: LabelRule, column: pa.ChunkedArray) -> Floats:
    """The labels as 0.0 and 1.0, NaN where the column is null. Raises InvalidInput for what can be no label."""
    import numpy as np  # heavy: imported late
    import pyarrow as pa  # heavy: imported late

    try:
        values: Floats = column.cast(pa.float64()).to_numpy()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InvalidInput(
            f"label column '{rule.column}' holds {column.type}, which is no number",
            code="monitor.label_invalid",
            hint="name a column of 0 and 1, or compare a numeric one with a number, as in `arr_delay > 15`",
        ) from error
    missing = np.isnan(values)
    if rule.sign is not None:
        compared = _SIGNS[rule.sign](values, rule.bound).astype(np.float64)
        return np.where(missing, np.nan, compared)
    strange = values[~missing & (values != 0) & (values != 1)]
    if len(strange):
        raise InvalidInput(
            f"label column '{rule.column}' holds {strange[0]:g}, and a label is 0 or 1",
            code="monitor.label_invalid",
            hint=f"compare it with a number, as in `{rule.column} > {strange[0]:g}`",
        )
    return values


def evaluate(labels: Floats, scores: Floats, *, rows: int, rows_min: int) -> Performance:
    """The performance of labelled predictions. `rows` are all predictions of the window, labelled or not."""
    import numpy as np  # heavy: imported late

    labelled = len(labels)
    positives = int(np.count_nonzero(labels == 1))
    counts = {"labelled": labelled, "coverage": labelled / rows if rows else 0.0, "positives": positives}
    if labelled < rows_min:
        note = f"not enough data: {labelled} of {rows} predictions have a label, and {rows_min} are needed"
        return Performance(**counts, note=note)  # type: ignore[arg-type]
    metrics = measure(labels, scores)
    bins = calibration_bins(labels, scores) if metrics.calibration_error is not None else ()
    return Performance(
        **counts,  # type: ignore[arg-type]
        base_rate=positives / labelled,
        mean_score=float(scores.mean()) if np.isfinite(scores).all() else None,
        auc=metrics.auc,
        auc_se=None if metrics.auc is None else auc_error(metrics.auc, positives, labelled - positives),
        log_loss=metrics.log_loss,
        brier=metrics.brier,
        calibration_error=metrics.calibration_error,
        calibration_noise=calibration_noise(bins) if bins else None,
        calibration=bins,
        note=metrics.reason or None,
    )


def auc_error(auc: float, positives: int, negatives: int) -> float:
    """The standard error of an AUC (Hanley and McNeil, 1982), from the class sizes alone."""
    q1, q2 = auc / (2 - auc), 2 * auc * auc / (1 + auc)
    spread = auc * (1 - auc) + (positives - 1) * (q1 - auc * auc) + (negatives - 1) * (q2 - auc * auc)
    return math.sqrt(max(spread, 0.0) / (positives * negatives))


def calibration_bins(labels: Floats, scores: Floats, bins: int = CALIBRATION_BINS) -> tuple[CalibrationBin, ...]:
    """What was said and what came true, over equally wide bins of the score; empty bins are left out."""
    import numpy as np  # heavy: imported late

    places = np.minimum((scores * bins).astype(np.int64), bins - 1)
    rows = np.bincount(places, minlength=bins)
    said = np.bincount(places, weights=scores, minlength=bins)
    true = np.bincount(places, weights=labels, minlength=bins)
    return tuple(
        CalibrationBin(
            low=place / bins,
            high=(place + 1) / bins,
            rows=int(rows[place]),
            mean_score=float(said[place] / rows[place]),
            base_rate=float(true[place] / rows[place]),
        )
        for place in range(bins)
        if rows[place]
    )


def calibration_noise(bins: tuple[CalibrationBin, ...]) -> float:
    """The expected calibration error that a perfectly calibrated model stays under 95 times of 100, by chance alone.

    A bin's observed share scatters around what was said by sqrt(p (1 - p) / n); the error sums the absolute values.
    """
    rows = sum(one.rows for one in bins)
    scatters = [math.sqrt(max(one.mean_score * (1 - one.mean_score), 0.0) * one.rows) / rows for one in bins]
    mean = math.sqrt(2 / math.pi) * sum(scatters)
    deviation = math.sqrt((1 - 2 / math.pi) * sum(scatter * scatter for scatter in scatters))
    return mean + Z_95 * deviation
