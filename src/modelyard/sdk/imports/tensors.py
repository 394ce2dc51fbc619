"""The few tensors that summaries hold: numbers and texts, from TensorFlow's `TensorProto`."""

from __future__ import annotations

import struct
from math import prod
from typing import Any, NamedTuple

from modelyard.kernel.errors import InvalidInput
from modelyard.sdk.imports import protobuf as pb

_FLOAT, _DOUBLE, _INT32, _STRING, _INT64 = 1, 2, 3, 7, 9
_FORMS = {_FLOAT: "f", _DOUBLE: "d", _INT32: "i", _INT64: "q"}
_LISTS = {_FLOAT: 5, _DOUBLE: 6, _INT32: 7, _INT64: 10}


class Tensor(NamedTuple):
    """Its shape, and its numbers or its texts."""

    shape: tuple[int, ...]
    numbers: list[float]
    texts: list[bytes]


def read(found: dict[int, list[Any]]) -> Tensor:
    """A tensor from the fields of its message. Raises InvalidInput for what is damaged; other kinds are empty."""
    kind = pb.integer(found, 1)
    shape = tuple(pb.integer(pb.grouped(one), 1) for one in pb.message(found, 2).get(2, ()))
    if kind == _STRING:
        return Tensor(shape, [], [one for one in found.get(8, ()) if isinstance(one, bytes)])
    form = _FORMS.get(kind)
    if form is None:
        return Tensor(shape, [], [])
    content = found.get(4, [b""])[-1]
    if content:
        size = struct.calcsize(form)
        if len(content) % size:
            raise InvalidInput("a tensor of a wrong length", code="import.record_damaged")
        numbers = [float(one) for one in struct.unpack(f"<{len(content) // size}{form}", content)]
    elif kind in (_FLOAT, _DOUBLE):
        numbers = pb.packed(found.get(_LISTS[kind], []), wide=kind == _DOUBLE)
    else:
        numbers = [float(one) for one in pb.integers(found.get(_LISTS[kind], []))]
    # A constant is written once.
    if len(numbers) == 1 and (count := prod(shape)) > 1:
        numbers *= count
    return Tensor(shape, numbers, [])
