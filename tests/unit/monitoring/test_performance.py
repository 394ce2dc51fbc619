from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest

from modelyard.kernel.errors import InvalidInput
from modelyard.planes.monitoring.performance import LabelRule, auc_error, evaluate, labels_of, parse_label


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("late", LabelRule("late")),
        ("arr_delay > 15", LabelRule("arr_delay", ">", 15.0)),
        ("arr_delay>=-1.5e1", LabelRule("arr_delay", ">=", -15.0)),
        (" two words == 1 ", LabelRule("two words", "==", 1.0)),
        ("a!=0", LabelRule("a", "!=", 0.0)),
    ],
)
def test_a_label_is_a_column_or_a_comparison(text: str, rule: LabelRule) -> None:
    assert parse_label(text) == rule


@pytest.mark.parametrize("text", ["", "> 15", "a >", "a > b", "a > 1 > 2", "a > nan", "a > inf", "a => 1", "a = 1"])
def test_other_expressions_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="says no label"):
        parse_label(text)


def test_nulls_stay_unknown_under_a_comparison() -> None:
    column = pa.chunked_array([[20, None, 15, -3]])
    found = labels_of(parse_label("delay > 15"), column)
    assert found[[0, 2, 3]].tolist() == [1.0, 0.0, 0.0]
    assert math.isnan(found[1])


@pytest.mark.parametrize("values", [[0, 1, 2], ["late"], [0.5]])
def test_what_is_neither_0_nor_1_is_no_label(values: list[object]) -> None:
    with pytest.raises(InvalidInput, match="label"):
        labels_of(LabelRule("late"), pa.chunked_array([values]))


def test_booleans_are_labels() -> None:
    assert labels_of(LabelRule("late"), pa.chunked_array([[True, False]])).tolist() == [1.0, 0.0]


def test_performance_of_a_window() -> None:
    random = np.random.default_rng(5)
    scores = random.random(5_000)
    labels = (random.random(5_000) < scores).astype(float)
    found = evaluate(labels, scores, rows=6_250, rows_min=100)
    assert found.coverage == 0.8
    assert found.positives == labels.sum()
    # Scores drawn evenly and labels by them: AUC is 5/6, Brier 1/6, log loss 1/2.
    assert found.auc == pytest.approx(5 / 6, abs=0.01)
    assert found.brier == pytest.approx(1 / 6, abs=0.01)
    assert found.log_loss == pytest.approx(0.5, abs=0.02)
    assert found.calibration_error is not None
    assert found.calibration_noise is not None
    assert found.calibration_error < found.calibration_noise
    assert sum(one.rows for one in found.calibration) == 5_000


def test_a_well_calibrated_model_stays_under_the_noise() -> None:
    random = np.random.default_rng(6)
    over = 0
    for _ in range(200):
        scores = random.beta(2, 5, 400)
        found = evaluate((random.random(400) < scores).astype(float), scores, rows=400, rows_min=1)
        over += (found.calibration_error or 0) > (found.calibration_noise or 0)
    assert 2 <= over <= 24, "about 5 of 100"


def test_the_error_of_an_auc_is_its_scatter_over_samples() -> None:
    random = np.random.default_rng(7)
    found = []
    for _ in range(300):
        labels = np.repeat([1.0, 0.0], [100, 300])
        scores = random.normal(labels, 1.0)
        found.append(evaluate(labels, scores, rows=400, rows_min=1).auc or 0.0)
    assert auc_error(float(np.mean(found)), 100, 300) == pytest.approx(float(np.std(found)), rel=0.2)


def test_too_few_labels_say_so() -> None:
    found = evaluate(np.array([1.0, 0.0]), np.array([0.9, 0.1]), rows=500, rows_min=100)
    assert (found.auc, found.labelled) == (None, 2)
    assert "not enough data: 2 of 500" in (found.note or "")


def test_no_rows_at_all_say_so() -> None:
    assert "not enough data" in (evaluate(np.array([]), np.array([]), rows=0, rows_min=1).note or "")


def test_one_class_has_no_auc_but_a_calibration() -> None:
    found = evaluate(np.zeros(200), np.full(200, 0.25), rows=200, rows_min=100)
    assert (found.auc, found.auc_se) == (None, None)
    assert found.calibration_error == pytest.approx(0.25)
    assert "one class" in (found.note or "")


def test_scores_that_are_no_probabilities_rank_only() -> None:
    found = evaluate(np.array([0.0, 1.0] * 100), np.array([-3.0, 7.0] * 100), rows=200, rows_min=100)
    assert (found.auc, found.log_loss, found.calibration) == (1.0, None, ())


def test_broken_scores_are_named() -> None:
    found = evaluate(np.array([0.0, 1.0] * 100), np.array([0.1, math.nan] * 100), rows=200, rows_min=100)
    assert (found.auc, found.mean_score) == (None, None)
    assert "not finite" in (found.note or "")
