"""scikit-learn models, from pickle, cloudpickle, joblib or skops. Runs only inside a worker process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modelyard.engines.models.mlmodel import MLmodel
from modelyard.engines.models.pyfunc import PREDICTION, Estimator
from modelyard.kernel.errors import InvalidInput
from modelyard.kernel.paths import safe_join

PLATFORM = "sklearn"
PROBABILITY = "probability"


def load(directory: Path, description: MLmodel, *, trusted: bool) -> Estimator:
    """The estimator: `prediction` comes from its `predict`, `probability` from its `predict_proba` where it has one."""
    assert description.signature is not None
    flavor = description.flavors["sklearn"]
    name = str(flavor.get("pickled_model") or flavor.get("model_path") or "model.pkl")
    estimator = _open(safe_join(directory, name), flavor, trusted)
    calls = [(PREDICTION, estimator.predict)]
    # Some estimators have the method only when they were built for it, and say so by raising.
    if hasattr(estimator, "predict_proba"):
        calls.append((PROBABILITY, estimator.predict_proba))
    return Estimator(PLATFORM, description.signature, calls)


def _open(file: Path, flavor: dict[str, Any], trusted: bool) -> Any:
    if not file.is_file():
        raise InvalidInput(f"the model's file '{file.name}' is missing", code="model.file_missing")
    with file.open("rb") as stream:
        head = stream.read(4)
    if head == b"PK\x03\x04":
        import skops.io

        # The list in the flavor is the author's own word, which counts only once somebody trusts the author.
        types = (flavor.get("skops_trusted_types") or []) if trusted else []
        return skops.io.load(file, trusted=[str(one) for one in types])
    if not trusted:
        raise InvalidInput(f"'{file.name}' is a pickle, and nobody trusted it", code="model.untrusted")
    # joblib reads plain and cloudpickled pickles as well, and sees packing by itself.
    import joblib

    return joblib.load(file)
