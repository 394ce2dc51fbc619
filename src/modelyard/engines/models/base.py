"""What every model runtime offers: load a directory, then map named input columns to named output columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from modelyard.types.serving import TensorSpec

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]
    Columns = Mapping[str, Array]

NUMPY_TYPES: dict[str, str] = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
    "BYTES": "object",
}
"""The NumPy type that each tensor type of the Open Inference Protocol is held in; BYTES are arrays of `str`."""


class LoadedModel(Protocol):
    """A model that can be asked. `predict` is called by one thread at a time."""

    @property
    def platform(self) -> str:
        """The runtime, as the protocol's metadata names it."""
        ...

    @property
    def inputs(self) -> Sequence[TensorSpec]:
        """What `predict` takes."""
        ...

    @property
    def outputs(self) -> Sequence[TensorSpec]:
        """What `predict` gives."""
        ...

    @property
    def batches(self) -> bool:
        """Whether rows are independent of each other, so that rows of several requests may go through one call."""
        ...

    def predict(self, columns: Columns) -> dict[str, Array]:
        """The outputs for inputs. Raises UserCodeError where the model fails, EngineError where its process died."""
        ...

    def close(self) -> None:
        """Give back what the model holds. It is not asked again."""
        ...


class ModelEngine(Protocol):
    """Loads models of one kind."""

    def load(self, directory: Path) -> LoadedModel:
        """Load the model in a directory. Raises InvalidInput where there is none that this engine can serve."""
        ...
