"""Any MLflow model as a Python function. Runs only inside a worker process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modelyard.engines.models.base import NUMPY_TYPES
from modelyard.engines.models.mlmodel import MLmodel, Signature
from modelyard.kernel.errors import InvalidInput
from modelyard.types.serving import Datatype, TensorSpec

if TYPE_CHECKING:
    from modelyard.engines.models.base import Array, Columns

PLATFORM = "mlflow_pyfunc"
PREDICTION = "prediction"
_DATATYPES: dict[str, Datatype] = {name: kind for kind, name in NUMPY_TYPES.items()}  # type: ignore[misc]


class Estimator:
    """A model in its own library, with tensors in front. `calls` gives each group of outputs from one table."""

    def __init__(self, platform: str, signature: Signature, calls: Sequence[tuple[str, Callable[[Any], Any]]]) -> None:
        self.platform = platform
        self.inputs = signature.inputs
        self._by_column = signature.by_column
        self.declared_outputs = signature.outputs
        self._calls = calls

    def predict(self, columns: Columns) -> dict[str, Array]:
        """The outputs for the inputs; raises whatever the model raises."""
        table = self._table(columns)
        outputs: dict[str, Array] = {}
        for name, call in self._calls:
            outputs |= to_arrays(name, call(table))
        return outputs

    def _table(self, columns: Columns) -> Any:
        if not self._by_column:
            arrays = {spec.name: columns[spec.name] for spec in self.inputs}
            return next(iter(arrays.values())) if len(arrays) == 1 else arrays
        import pandas as pd  # heavy: imported late

        return pd.DataFrame({spec.name: columns[spec.name] for spec in self.inputs})


def probe(model: Estimator) -> list[TensorSpec]:
    """What comes out, seen by asking once: a signature seldom tells the whole, such as class probabilities.

    Raises whatever the model raises: it may well refuse zeros.
    """
    return [
        TensorSpec(name=name, datatype=_DATATYPES[array.dtype.name], shape=[-1, *array.shape[1:]])
        for name, array in model.predict(zeros(model.inputs, 2)).items()
    ]


def zeros(specs: Sequence[TensorSpec], rows: int) -> dict[str, Array]:
    """Inputs of the right types that mean nothing, to try a model with."""
    columns: dict[str, Array] = {}
    for spec in specs:
        shape = [rows if at == 0 and size == -1 else max(size, 1) for at, size in enumerate(spec.shape)]
        columns[spec.name] = (
            np.full(shape, "", object) if spec.datatype == "BYTES" else np.zeros(shape, NUMPY_TYPES[spec.datatype])
        )
    return columns


def to_arrays(name: str, value: Any) -> dict[str, Array]:
    """What a model returned (array, list, table, series, dict) as named arrays of the protocol's types."""
    if hasattr(value, "columns") and hasattr(value, "to_numpy"):
        return {str(column): _array(value[column].to_numpy()) for column in value.columns}
    if isinstance(value, dict):
        return {str(key): _array(one) for key, one in value.items()}
    return {name: _array(value.to_numpy() if hasattr(value, "to_numpy") else value)}


def _array(value: Any) -> Array:
    array = np.asarray(value)
    if array.dtype.kind in "OUS":
        return np.array([str(one) for one in array.reshape(-1)], object).reshape(array.shape)
    if array.dtype.name not in _DATATYPES:
        raise InvalidInput(f"the model returned {array.dtype.name}, which no tensor of the protocol can carry")
    return np.ascontiguousarray(array)


def load(directory: Path, description: MLmodel) -> Estimator:
    """The model as MLflow loads it. Raises whatever that raises."""
    assert description.signature is not None
    import mlflow.pyfunc  # heavy: imported late

    model = mlflow.pyfunc.load_model(str(directory))
    return Estimator(PLATFORM, description.signature, [(PREDICTION, model.predict)])
