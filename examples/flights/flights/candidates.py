"""The models that are tried. Each is a scikit-learn pipeline over the 24 numbers, and converts to ONNX as it is."""

from __future__ import annotations

from typing import Any

from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from flights.table import CATEGORIES, FEATURES


def make_candidate(name: str) -> Any:
    """A fresh model of a name: `logistic`, `forest` or `boosting`."""
    return {"logistic": _logistic, "forest": _forest, "boosting": _boosting}[name]()


def _logistic() -> Pipeline:
    categories = [FEATURES.index(name) for name in CATEGORIES]
    numbers = [at for at in range(len(FEATURES)) if at not in categories]
    prepared = ColumnTransformer(
        [
            ("categories", OneHotEncoder(handle_unknown="ignore"), categories),
            ("numbers", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), numbers),
        ]
    )
    return make_pipeline(prepared, LogisticRegression(max_iter=300))


def _forest() -> Pipeline:
    forest = RandomForestClassifier(60, max_depth=10, min_samples_leaf=20, random_state=0)
    return make_pipeline(SimpleImputer(strategy="median"), forest)


def _boosting() -> HistGradientBoostingClassifier:
    return HistGradientBoostingClassifier(
        max_iter=120, learning_rate=0.08, max_leaf_nodes=15, min_samples_leaf=100, l2_regularization=5.0, random_state=0
    )
