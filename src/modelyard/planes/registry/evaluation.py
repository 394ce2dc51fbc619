"""How good scores are: metrics of a binary classifier, slices, and a paired comparison of two on the same rows.

Everything here is pure. What the rows cannot give (one class only, a score that is not a number, no rows at all) is
the verdict "not enough data" with its reason, never an exception and never a number that looks like one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import TYPE_CHECKING

from modelyard.planes.registry.metrics import LARGER_IS_BETTER
from modelyard.types.registry import Comparison, Metric, Scores, SliceScores

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

CALIBRATION_BINS = 10
ROWS_COMPARED_MIN = 30
"""Below this many rows (or rows of the rarer class, for AUC: 5) the normal approximation is not worth its name."""
RARER_CLASS_COMPARED_MIN = 5
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Rows:
    """Scored rows. `labels` are 0 or 1, `slices` hold one value per row for each slice column."""

    ids: Sequence[str]
    labels: Floats
    scores: Floats
    slices: Mapping[str, Sequence[str]] = field(default_factory=dict)


def measure(labels: Floats, scores: Floats, threshold: float = 0.5) -> Scores:
    """All metrics of these scores. Scores outside 0 to 1 rank (AUC, accuracy) but are no probabilities."""
    import numpy as np  # heavy: imported late

    rows = len(labels)
    positives = int(np.count_nonzero(labels == 1))
    trouble = _unusable(labels, scores)
    if trouble:
        return Scores(rows=rows, positives=positives, verdict="not enough data", reason=trouble)
    accuracy = float(np.mean((scores >= threshold) == (labels == 1)))
    probabilities = bool(scores.min() >= 0.0 and scores.max() <= 1.0)
    log_loss = float(np.mean(_log_losses(labels, scores))) if probabilities else None
    brier = float(np.mean((scores - labels) ** 2)) if probabilities else None
    calibration = expected_calibration_error(labels, scores) if probabilities else None
    one_class = positives in (0, rows)
    reasons = [
        f"all {rows} rows are of one class, so that no ranking can be judged" if one_class else "",
        "" if probabilities else "the scores are no probabilities (outside 0 to 1)",
    ]
    return Scores(
        rows=rows,
        positives=positives,
        verdict="not enough data" if one_class else "measured",
        reason="; ".join(reason for reason in reasons if reason),
        auc=None if one_class else area_under_curve(labels, scores),
        log_loss=log_loss,
        brier=brier,
        calibration_error=calibration,
        accuracy=accuracy,
    )


def measure_slices(rows: Rows, threshold: float = 0.5) -> list[SliceScores]:
    """The metrics of every value of every slice column, ordered by column and value."""
    import numpy as np  # heavy: imported late

    found: list[SliceScores] = []
    for column in sorted(rows.slices):
        values = np.asarray(rows.slices[column], dtype=object)
        names, places = np.unique(values.astype(str), return_inverse=True)
        order = np.argsort(places, kind="stable")
        bounds = np.searchsorted(places[order], np.arange(len(names) + 1))
        for index, name in enumerate(names):
            members = order[bounds[index] : bounds[index + 1]]
            scores = measure(rows.labels[members], rows.scores[members], threshold)
            found.append(SliceScores(column=column, value=str(name), scores=scores))
    return found


def area_under_curve(labels: Floats, scores: Floats) -> float:
    """The chance that a random positive outranks a random negative, ties counting half. Needs both classes."""
    import numpy as np  # heavy: imported late

    positive = labels == 1
    count = int(np.count_nonzero(positive))
    ranks = _midranks(scores)
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * (len(labels) - count)))


def expected_calibration_error(labels: Floats, scores: Floats, bins: int = CALIBRATION_BINS) -> float:
    """Mean distance between predicted and observed share, over equally wide bins weighted by their rows."""
    import numpy as np  # heavy: imported late

    places = np.minimum((scores * bins).astype(np.int64), bins - 1)
    predicted = np.bincount(places, weights=scores, minlength=bins)
    observed = np.bincount(places, weights=labels, minlength=bins)
    return float(np.abs(predicted - observed).sum() / len(labels))


def compare(
    metric: Metric,
    labels: Floats,
    champion: Floats,
    challenger: Floats,
    *,
    confidence: float = 0.95,
    threshold: float = 0.5,
) -> Comparison:
    """Challenger minus champion on the same rows, turned so that larger is better, with a two-sided interval.

    AUC by DeLong's test; log loss, Brier and accuracy are means over rows, so by the paired differences; calibration
    error by a paired bootstrap with a fixed seed.
    """
    refused = _not_comparable(metric, labels, champion, challenger)
    if refused:
        return Comparison(
            metric=metric,
            verdict="not enough data",
            reason=refused,
            rows=len(labels),
            confidence=confidence,
        )
    if metric == "auc":
        return _delong(labels, champion, challenger, confidence)
    if metric == "calibration_error":
        return _bootstrap(labels, champion, challenger, confidence)
    return _paired_means(metric, labels, champion, challenger, confidence, threshold)


# --- parts ------------------------------------------------------------------------------------------------------


def _unusable(labels: Floats, scores: Floats) -> str:
    import numpy as np  # heavy: imported late

    if len(labels) != len(scores):
        return f"{len(labels)} labels but {len(scores)} scores"
    if len(labels) == 0:
        return "there are no rows"
    odd = int(np.count_nonzero((labels != 0) & (labels != 1)))
    if odd:
        return f"{odd} of {len(labels)} labels are neither 0 nor 1"
    broken = int(np.count_nonzero(~np.isfinite(scores)))
    if broken:
        return f"{broken} of {len(scores)} scores are not finite numbers"
    return ""


def _not_comparable(metric: Metric, labels: Floats, champion: Floats, challenger: Floats) -> str:
    for who, scores in (("champion", champion), ("challenger", challenger)):
        trouble = _unusable(labels, scores)
        if trouble:
            return f"{who}: {trouble}"
    if len(labels) < ROWS_COMPARED_MIN:
        return f"{len(labels)} rows are too few to compare, at least {ROWS_COMPARED_MIN} are needed"
    positives = int((labels == 1).sum())
    rarer = min(positives, len(labels) - positives)
    if metric == "auc" and rarer < RARER_CLASS_COMPARED_MIN:
        return f"only {rarer} rows are of the rarer class, at least {RARER_CLASS_COMPARED_MIN} are needed"
    if metric in ("log_loss", "brier", "calibration_error"):
        for who, scores in (("champion", champion), ("challenger", challenger)):
            if scores.min() < 0.0 or scores.max() > 1.0:
                return f"{who}: the scores are no probabilities (outside 0 to 1)"
    return ""


def _log_losses(labels: Floats, scores: Floats) -> Floats:
    import numpy as np  # heavy: imported late

    # The smallest step of a float, as scikit-learn has it: a certain and wrong prediction costs much, not infinity.
    tiny = np.finfo(np.float64).eps
    chance = np.clip(scores, tiny, 1.0 - tiny)
    losses: Floats = -np.where(labels == 1, np.log(chance), np.log(1.0 - chance))
    return losses


def _midranks(values: Floats) -> Floats:
    """Ranks from 1, where equal values share the mean of their places."""
    import numpy as np  # heavy: imported late

    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    ends = np.concatenate((starts[1:], [len(values)]))
    ranks = np.empty(len(values), dtype=np.float64)
    ranks[order] = np.repeat((starts + ends + 1) / 2.0, ends - starts)
    return ranks


def _placements(labels: Floats, scores: Floats) -> tuple[Floats, Floats]:
    """For each positive the share of negatives below it, for each negative the share of positives above it."""
    positive = labels == 1
    above, below = scores[positive], scores[~positive]
    everywhere = _midranks(scores)
    of_positives = (everywhere[positive] - _midranks(above)) / len(below)
    of_negatives = 1.0 - (everywhere[~positive] - _midranks(below)) / len(above)
    return of_positives, of_negatives


def _delong(labels: Floats, champion: Floats, challenger: Floats, confidence: float) -> Comparison:
    """DeLong, DeLong and Clarke-Pearson 1988, by the mid-rank algorithm of Sun and Xu 2014."""
    import numpy as np  # heavy: imported late

    old_positives, old_negatives = _placements(labels, champion)
    new_positives, new_negatives = _placements(labels, challenger)
    gain_positives, gain_negatives = new_positives - old_positives, new_negatives - old_negatives
    variance = float(
        np.var(gain_positives, ddof=1) / len(gain_positives) + np.var(gain_negatives, ddof=1) / len(gain_negatives)
    )
    before, after = area_under_curve(labels, champion), area_under_curve(labels, challenger)
    return _with_interval("auc", "DeLong", len(labels), before, after, after - before, variance, confidence)


def _paired_means(
    metric: Metric,
    labels: Floats,
    champion: Floats,
    challenger: Floats,
    confidence: float,
    threshold: float,
) -> Comparison:
    import numpy as np  # heavy: imported late

    per_row: dict[Metric, Callable[[Floats], Floats]] = {
        "log_loss": lambda scores: _log_losses(labels, scores),
        "brier": lambda scores: (scores - labels) ** 2,
        "accuracy": lambda scores: ((scores >= threshold) == (labels == 1)).astype(np.float64),
    }
    old, new = per_row[metric](champion), per_row[metric](challenger)
    gains = new - old if LARGER_IS_BETTER[metric] else old - new
    variance = float(np.var(gains, ddof=1) / len(gains))
    before, after = float(old.mean()), float(new.mean())
    gain = float(gains.mean())
    return _with_interval(metric, "paired differences", len(labels), before, after, gain, variance, confidence)


def _with_interval(
    metric: Metric,
    method: str,
    rows: int,
    before: float,
    after: float,
    gain: float,
    variance: float,
    confidence: float,
) -> Comparison:
    deviation = math.sqrt(max(variance, 0.0))
    reach = _NORMAL.inv_cdf(0.5 + confidence / 2.0) * deviation
    # Two score vectors that never differ in their ranking have no variance: then there is nothing to be sure about.
    p_value = 2.0 * _NORMAL.cdf(-abs(gain) / deviation) if deviation > 0.0 else (1.0 if gain == 0.0 else 0.0)
    return Comparison(
        metric=metric,
        verdict="measured",
        method=method,
        rows=rows,
        champion=before,
        challenger=after,
        difference=gain,
        lower=gain - reach,
        upper=gain + reach,
        p_value=p_value,
        confidence=confidence,
    )


BOOTSTRAP_DRAWS = 500
BOOTSTRAP_SEED = 20130101


def _bootstrap(labels: Floats, champion: Floats, challenger: Floats, confidence: float) -> Comparison:
    import numpy as np  # heavy: imported late

    rows = len(labels)
    before = expected_calibration_error(labels, champion)
    after = expected_calibration_error(labels, challenger)
    generator = np.random.default_rng(BOOTSTRAP_SEED)
    gains = np.empty(BOOTSTRAP_DRAWS)
    for draw in range(BOOTSTRAP_DRAWS):
        picked = generator.integers(0, rows, rows)
        gains[draw] = expected_calibration_error(labels[picked], champion[picked]) - expected_calibration_error(
            labels[picked], challenger[picked]
        )
    tail = (1.0 - confidence) / 2.0
    lower, upper = np.quantile(gains, [tail, 1.0 - tail])
    return Comparison(
        metric="calibration_error",
        verdict="measured",
        method=f"paired bootstrap of {BOOTSTRAP_DRAWS} draws",
        rows=rows,
        champion=before,
        challenger=after,
        difference=before - after,
        lower=float(lower),
        upper=float(upper),
        confidence=confidence,
    )
