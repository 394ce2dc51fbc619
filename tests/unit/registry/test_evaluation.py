"""Metrics and comparisons against brute force, scikit-learn and known truths; degenerate rows never crash."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.planes.registry import evaluation
from modelyard.planes.registry.evaluation import Rows, compare, measure, measure_slices

pairs = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 12).map(lambda step: step / 12)), min_size=1, max_size=60)


def arrays(rows: list[tuple[int, float]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([label for label, _ in rows], float), np.array([score for _, score in rows], float)


@settings(deadline=None)
@given(pairs)
def test_metrics_equal_brute_force(rows: list[tuple[int, float]]) -> None:
    labels, scores = arrays(rows)
    found = measure(labels, scores)
    assert found.rows == len(rows)
    assert found.positives == sum(label for label, _ in rows)
    assert found.accuracy == pytest.approx(np.mean([(s >= 0.5) == (y == 1) for y, s in rows]))
    assert found.brier == pytest.approx(np.mean([(s - y) ** 2 for y, s in rows]))
    wins = [
        (1.0 if high > low else 0.5 if high == low else 0.0) for y, high in rows if y == 1 for z, low in rows if z == 0
    ]
    if wins:
        assert found.verdict == "measured"
        assert found.auc == pytest.approx(np.mean(wins))
    else:
        assert found.verdict == "not enough data"
        assert found.auc is None
        assert "one class" in found.reason
    by_bin: dict[int, list[tuple[int, float]]] = {}
    for label, score in rows:
        by_bin.setdefault(min(int(score * 10), 9), []).append((label, score))
    expected = sum(
        len(members) / len(rows) * abs(np.mean([y for y, _ in members]) - np.mean([s for _, s in members]))
        for members in by_bin.values()
    )
    assert found.calibration_error == pytest.approx(expected)


@settings(deadline=None)
@given(pairs.filter(lambda rows: len({label for label, _ in rows}) == 2))
def test_metrics_equal_scikit_learn(rows: list[tuple[int, float]]) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    labels, scores = arrays(rows)
    found = measure(labels, scores)
    assert found.auc == pytest.approx(metrics.roc_auc_score(labels, scores))
    assert found.log_loss == pytest.approx(metrics.log_loss(labels, scores, labels=[0, 1]))
    assert found.brier == pytest.approx(metrics.brier_score_loss(labels, scores))


@pytest.mark.parametrize(
    ("labels", "scores", "reason"),
    [
        ([], [], "no rows"),
        ([0, 1], [0.5], "2 labels but 1 scores"),
        ([0, 1, 1], [0.1, math.nan, 0.3], "1 of 3 scores are not finite"),
        ([0, 1], [0.1, math.inf], "not finite"),
        ([0, 2], [0.1, 0.2], "neither 0 nor 1"),
        ([0, math.nan], [0.1, 0.2], "neither 0 nor 1"),
        ([1, 1], [0.1, 0.2], "one class"),
        ([0, 0], [0.1, 0.2], "one class"),
    ],
)
def test_degenerate_rows_give_a_verdict(labels: list[float], scores: list[float], reason: str) -> None:
    found = measure(np.array(labels, float), np.array(scores, float))
    assert found.verdict == "not enough data"
    assert reason in found.reason
    assert found.auc is None


def test_scores_that_are_no_probabilities_rank_but_have_no_loss() -> None:
    found = measure(np.array([0.0, 1.0, 1.0]), np.array([-3.0, 1.0, 7.0]))
    assert (found.verdict, found.auc, found.log_loss, found.brier) == ("measured", 1.0, None, None)
    assert "no probabilities" in found.reason


def test_slices_are_the_metrics_of_their_rows() -> None:
    generator = np.random.default_rng(3)
    labels = generator.integers(0, 2, 400).astype(float)
    scores = generator.random(400)
    carrier = [["UA", "B6", "é"][place] for place in generator.integers(0, 3, 400)]
    rows = Rows([str(n) for n in range(400)], labels, scores, {"carrier": carrier, "all": ["x"] * 400})
    found = {(cut.column, cut.value): cut.scores for cut in measure_slices(rows)}
    assert set(found) == {("all", "x"), ("carrier", "UA"), ("carrier", "B6"), ("carrier", "é")}
    assert found["all", "x"] == measure(labels, scores)
    here = np.array([name == "B6" for name in carrier])
    assert found["carrier", "B6"] == measure(labels[here], scores[here])


def delong_by_definition(labels: np.ndarray, old: np.ndarray, new: np.ndarray) -> tuple[float, float]:
    """Difference and its variance from the definition, with every pair of rows looked at."""

    def psi(high: float, low: float) -> float:
        return 1.0 if high > low else 0.5 if high == low else 0.0

    ups, downs = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    gains = np.array([[psi(new[u], new[d]) - psi(old[u], old[d]) for d in downs] for u in ups])
    variance = gains.mean(axis=1).var(ddof=1) / len(ups) + gains.mean(axis=0).var(ddof=1) / len(downs)
    return float(gains.mean()), float(variance)


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 40))
def test_delong_equals_its_definition(seed: int, levels: int) -> None:
    generator = np.random.default_rng(seed)
    labels = np.array([0.0] * 40 + [1.0] * 25)
    old = generator.integers(0, levels, 65) / levels
    new = np.clip(old + generator.integers(-2, 3, 65) / levels, 0, 1)
    difference, variance = delong_by_definition(labels, old, new)
    found = compare("auc", labels, old, new)
    assert found.verdict == "measured"
    assert found.difference == pytest.approx(difference)
    assert (found.upper - found.lower) / 2 == pytest.approx(1.959964 * math.sqrt(variance), rel=1e-5)


@pytest.mark.parametrize("metric", ["auc", "log_loss", "brier", "accuracy", "calibration_error"])
def test_swapping_the_two_turns_the_sign(metric: evaluation.Metric) -> None:
    labels, weak, strong = made(2_000, seed=5)
    forward = compare(metric, labels, weak, strong)
    back = compare(metric, labels, strong, weak)
    assert forward.difference == pytest.approx(-back.difference)
    assert forward.lower == pytest.approx(-back.upper)


@pytest.mark.parametrize("metric", ["auc", "log_loss", "brier"])
def test_a_truly_better_model_is_better_with_confidence(metric: evaluation.Metric) -> None:
    labels, weak, strong = made(5_000, seed=1)
    found = compare(metric, labels, weak, strong)
    assert found.difference > 0
    assert found.lower > 0
    assert found.p_value is not None
    assert found.p_value < 0.01


@pytest.mark.parametrize("metric", ["auc", "log_loss", "brier", "accuracy", "calibration_error"])
def test_equal_scores_differ_by_nothing(metric: evaluation.Metric) -> None:
    labels, weak, _ = made(500, seed=2)
    found = compare(metric, labels, weak, weak)
    assert (found.difference, found.lower, found.upper) == (0.0, 0.0, 0.0)


def test_the_interval_covers_as_often_as_it_says() -> None:
    """Two equally good noisy models: the 90 % interval of their difference must hold 0 about 90 times in 100."""
    held = 0
    for seed in range(300):
        generator = np.random.default_rng(seed)
        truth = generator.normal(size=300)
        labels = (truth + generator.normal(size=300) > 0).astype(float)
        one, other = truth + generator.normal(size=300), truth + generator.normal(size=300)
        found = compare("auc", labels, one, other, confidence=0.9)
        held += found.lower <= 0.0 <= found.upper
    assert 0.85 <= held / 300 <= 0.95


@pytest.mark.parametrize("metric", ["auc", "log_loss", "brier", "accuracy", "calibration_error"])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda y, a, b: (y[:10], a[:10], b[:10]),
        lambda y, a, b: (y, a, b * np.nan),
        lambda y, a, b: (y, a[:5], b),
        lambda y, a, b: (y[:0], a[:0], b[:0]),
        lambda y, a, b: (y * 3, a, b),
    ],
)
def test_what_cannot_be_compared_says_so(metric: evaluation.Metric, spoil) -> None:
    found = compare(metric, *spoil(*made(200, seed=9)))
    assert found.verdict == "not enough data"
    assert found.reason
    assert found.lower is None


def test_one_class_cannot_be_ranked() -> None:
    found = compare("auc", np.ones(50), np.linspace(0, 1, 50), np.linspace(1, 0, 50))
    assert found.verdict == "not enough data"
    assert "rarer class" in found.reason


def made(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    truth = generator.normal(size=rows)
    labels = (truth + generator.normal(size=rows) > 0.8).astype(float)

    def score(noise: float) -> np.ndarray:
        return 1 / (1 + np.exp(-(truth + noise * generator.normal(size=rows) - 0.8)))

    return labels, score(1.5), score(0.4)
