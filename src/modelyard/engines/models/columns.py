"""Arrays as bytes with a type and a shape: how they travel to a worker process, and how they are logged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from modelyard.engines.models.base import NUMPY_TYPES
from modelyard.kernel.errors import EngineError
from modelyard.types.serving import LoggedColumn

if TYPE_CHECKING:
    from modelyard.engines.models.base import Array, Columns

_DATATYPES = {np.dtype(name): kind for kind, name in NUMPY_TYPES.items()}


def datatype_of(array: Array) -> str:
    """The protocol's name for the type of an array."""
    return "BYTES" if array.dtype.kind in "OUS" else _DATATYPES[array.dtype.newbyteorder("=")]


def pack(columns: Columns) -> list[LoggedColumn]:
    """Arrays as little-endian bytes, texts as texts."""
    return [_packed(name, array) for name, array in columns.items()]


def _packed(name: str, array: Array) -> LoggedColumn:
    datatype = datatype_of(array)
    if datatype == "BYTES":
        return LoggedColumn(name, datatype, list(array.shape), [_text(one) for one in array.reshape(-1).tolist()])
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return LoggedColumn(name, datatype, list(array.shape), little.tobytes())


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def unpack(columns: list[LoggedColumn]) -> dict[str, Array]:
    """The arrays of a message. Raises EngineError where bytes, type and shape do not fit each other."""
    arrays: dict[str, Array] = {}
    for one in columns:
        try:
            if isinstance(one.data, list):
                texts = np.empty(len(one.data), object)
                texts[:] = one.data
                arrays[one.name] = texts.reshape(one.shape)
            else:
                little = np.frombuffer(one.data, np.dtype(NUMPY_TYPES[one.datatype]).newbyteorder("<"))
                arrays[one.name] = little.reshape(one.shape)
        except (ValueError, KeyError) as error:
            raise EngineError(f"column '{one.name[:80]}' is broken: {error}", code="model.column_broken") from error
    return arrays
