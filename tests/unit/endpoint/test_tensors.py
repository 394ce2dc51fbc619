"""The codec: what one encodes the other reads, in JSON and in binary, and nothing breaks it."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from modelyard.endpoint import tensors
from modelyard.engines.models.base import NUMPY_TYPES
from modelyard.kernel.errors import InvalidInput
from modelyard.types.serving import TensorSpec

NUMBERS = [kind for kind in NUMPY_TYPES if kind != "BYTES"]


@st.composite
def arrays(draw: st.DrawFn) -> tuple[str, np.ndarray[Any, Any]]:
    kind = draw(st.sampled_from(list(NUMPY_TYPES)))
    shape = draw(npst.array_shapes(min_dims=1, max_dims=3, max_side=4))
    if kind == "BYTES":
        texts = draw(st.lists(st.text(), min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
        array = np.empty(len(texts), object)
        array[:] = texts
        return kind, array.reshape(shape)
    options = {"allow_nan": False, "allow_infinity": False} if kind.startswith("FP") else {}
    return kind, draw(
        npst.arrays(NUMPY_TYPES[kind], shape, elements=npst.from_dtype(np.dtype(NUMPY_TYPES[kind]), **options))
    )


def decoded(body: bytes, header_length: int | None, kind: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    request, binary = tensors.parse(body, header_length)
    spec = TensorSpec(name="x", datatype=kind, shape=[-1, *shape[1:]])  # type: ignore[arg-type]
    return tensors.decode(request, binary, [spec], "allow").columns["x"]


@given(arrays(), st.booleans())
def test_json_is_read_flat_and_nested(made: tuple[str, np.ndarray[Any, Any]], nested: bool) -> None:
    kind, array = made
    data = array.tolist() if nested else array.reshape(-1).tolist()
    body = json.dumps({"inputs": [{"name": "x", "datatype": kind, "shape": list(array.shape), "data": data}]})
    found = decoded(body.encode("utf-8", "surrogatepass"), None, kind, array.shape)
    assert found.dtype == array.dtype
    assert found.tolist() == array.tolist()


@given(arrays())
def test_binary_is_read_as_it_is_written(made: tuple[str, np.ndarray[Any, Any]]) -> None:
    kind, array = made
    blob = tensors.to_binary(array)
    tensor = {
        "name": "x", "datatype": kind, "shape": list(array.shape), "parameters": {"binary_data_size": len(blob)},
    }  # fmt: skip
    header = json.dumps({"inputs": [tensor]}).encode()
    found = decoded(header + blob, len(header), kind, array.shape)
    assert found.tolist() == array.tolist()


@given(arrays(), st.booleans())
def test_replies_are_read_back(made: tuple[str, np.ndarray[Any, Any]], binary: bool) -> None:
    kind, array = made
    request = tensors.InferRequest(inputs=[], parameters={"binary_data_output": binary})
    reply = tensors.encode(request, "r", "m", "1", "v", {"y": array})
    header = json.loads(reply.body[: reply.header_length or None])
    (output,) = header["outputs"]
    assert (output["datatype"], output["shape"]) == (kind, list(array.shape))
    if binary:
        assert reply.body[reply.header_length :] == tensors.to_binary(array)
    else:
        assert output["data"] == array.reshape(-1).tolist()


@given(st.binary(max_size=300), st.one_of(st.none(), st.integers(0, 400)))
def test_any_body_is_read_or_refused(body: bytes, header_length: int | None) -> None:
    with suppress(InvalidInput):
        request, binary = tensors.parse(body, header_length)
        tensors.decode(request, binary, [TensorSpec(name="x", datatype="FP32", shape=[-1])], "refuse")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.sampled_from([*NUMPY_TYPES, "BF16", ""]),
    st.lists(st.integers(-2, 2**70), max_size=4),
    json_values,
    st.sampled_from(["x", "modelyard.id", "modelyard.event_time", "z"]),
    json_values,
)
def test_any_tensor_is_read_or_refused(kind: str, shape: list[int], data: Any, name: str, size: Any) -> None:
    tensor: dict[str, Any] = {"name": name, "datatype": kind, "shape": shape, "data": data}
    if size is not None:
        tensor["parameters"] = {"binary_data_size": size}
    body = json.dumps({"inputs": [tensor]}).encode("utf-8", "surrogatepass")
    with suppress(InvalidInput):
        request, binary = tensors.parse(body, None)
        tensors.row_key(request, binary)
        tensors.decode(request, binary, [TensorSpec(name="x", datatype="FP32", shape=[-1])], "refuse")


@pytest.mark.parametrize("shape", [[3], [3, 1]])
def test_a_column_comes_as_vector_or_matrix(shape: list[int]) -> None:
    body = json.dumps({"inputs": [{"name": "x", "datatype": "FP64", "shape": shape, "data": [1, 2, 3]}]}).encode()
    request, binary = tensors.parse(body, None)
    found = tensors.decode(request, binary, [TensorSpec(name="x", datatype="FP64", shape=[-1])], "refuse")
    assert (found.columns["x"].shape, found.rows) == ((3,), 3)


def test_an_optional_column_may_be_left_out() -> None:
    specs = [
        TensorSpec(name="x", datatype="FP64", shape=[-1]),
        TensorSpec(name="maybe", datatype="FP32", shape=[-1], required=False),
    ]
    body = json.dumps({"inputs": [{"name": "x", "datatype": "FP64", "shape": [2], "data": [1, 2]}]}).encode()
    request, binary = tensors.parse(body, None)
    found = tensors.decode(request, binary, specs, "allow").columns["maybe"]
    assert (found.dtype, found.shape, bool(np.isnan(found).all())) == (np.float32, (2,), True)


@pytest.mark.parametrize(
    ("blob", "kind", "shape", "said"),
    [
        (b"\0\0\0", "FP32", [1], "3 bytes of binary data"),
        (b"\1\0\0\0", "BYTES", [1], "ends inside a text"),
        (b"\1\0", "BYTES", [1], "ends inside a length"),
        (b"\1\0\0\0\xff", "BYTES", [1], "not UTF-8"),
        (b"\1\0\0\0a", "BYTES", [2], "has 1 elements"),
        (b"\2", "BOOL", [1], "bytes are 0 or 1"),
    ],
)
def test_broken_binary_data_is_refused(blob: bytes, kind: str, shape: list[int], said: str) -> None:
    tensor = {"name": "x", "datatype": kind, "shape": shape, "parameters": {"binary_data_size": len(blob)}}
    header = json.dumps({"inputs": [tensor]}).encode()
    with pytest.raises(InvalidInput, match=said):
        decoded(header + blob, len(header), kind, tuple(shape))
