"""Requests and replies of the Open Inference Protocol v2, in JSON and with the binary tensor extension.

Everything that a client can get wrong is met here with a sentence that says what and what was expected. The model
sees only arrays of the types and shapes of its signature.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import msgspec
import numpy as np

from modelyard.engines.models.base import NUMPY_TYPES
from modelyard.engines.models.columns import datatype_of
from modelyard.kernel.clock import to_us
from modelyard.kernel.errors import InvalidInput, UserCodeError
from modelyard.types.serving import EVENT_TIME, ROW_ID, NanPolicy, TensorSpec

if TYPE_CHECKING:
    from modelyard.engines.models.base import Array

TENSORS_MAX = 4_096
RANK_MAX = 8
_FLOATS = frozenset({"FP16", "FP32", "FP64"})
_LENGTH = struct.Struct("<I")


class RequestTensor(msgspec.Struct):
    """An input as sent. `data` stays undecoded until its type is known."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Any] = {}
    data: msgspec.Raw = msgspec.Raw(b"")


class RequestedOutput(msgspec.Struct):
    """An output that is asked for, and how."""

    name: str
    parameters: dict[str, Any] = {}


class InferRequest(msgspec.Struct):
    """An inference request as sent."""

    inputs: list[RequestTensor]
    id: str = ""
    parameters: dict[str, Any] = {}
    outputs: list[RequestedOutput] = []


class Decoded(NamedTuple):
    """What a request means: the model's inputs, how many rows, and the caller's ids and times of the rows."""

    columns: dict[str, Array]
    rows: int
    ids: list[str] | None
    event_times_us: list[int] | None


class Reply(NamedTuple):
    """A body, and the length of its JSON part where binary tensors follow it (else 0)."""

    body: bytes
    header_length: int


_requests = msgspec.json.Decoder(InferRequest)
_encode = msgspec.json.Encoder().encode
_ELEMENTS: dict[str, Any] = {"BOOL": bool, "BYTES": str} | dict.fromkeys(_FLOATS, float)
_decoders: dict[tuple[Any, int], msgspec.json.Decoder[Any]] = {}


def refuse(message: str, hint: str = "") -> NoReturn:
    """Raise InvalidInput for a request that cannot be meant."""
    raise InvalidInput(message, code="prediction.invalid", hint=hint)


def parse(body: bytes, header_length: int | None) -> tuple[InferRequest, memoryview]:
    """The request in a body, and the binary data that follows its JSON part. Raises InvalidInput."""
    if header_length is not None and not 0 < header_length <= len(body):
        refuse(f"Inference-Header-Content-Length is {header_length}, but the body has {len(body)} bytes")
    view = memoryview(body)
    text = view if header_length is None else view[:header_length]
    try:
        request = _requests.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        # Which also covers a field of the wrong type: ValidationError derives from DecodeError.
        refuse(f"the body is not an inference request: {error}")
    if len(request.inputs) > TENSORS_MAX:
        refuse(f"there are {len(request.inputs)} inputs, at most {TENSORS_MAX} are taken")
    return request, view[len(text) :]


def row_key(request: InferRequest, binary: memoryview) -> str | None:
    """The one row id that a request names, which keeps it on the same variant; None for none or several."""
    ids = _reserved(request, binary, ROW_ID)
    if ids is None or ids.datatype != "BYTES":
        return None
    values = set(ids.array.tolist())
    return str(next(iter(values))) if len(values) == 1 else None


class _Reserved(NamedTuple):
    datatype: str
    array: Array


def _reserved(request: InferRequest, binary: memoryview, name: str) -> _Reserved | None:
    at = 0
    for tensor in request.inputs:
        size = _binary_size(tensor)
        if tensor.name == name:
            part = None if size is None else binary[at : at + size]
            return _Reserved(tensor.datatype, _array(tensor, part))
        at += size or 0
    return None


def decode(request: InferRequest, binary: memoryview, inputs: Sequence[TensorSpec], nan: NanPolicy) -> Decoded:
    """Check a request against the inputs of a model, and give its arrays. Raises InvalidInput."""
    specs = {one.name: one for one in inputs}
    columns: dict[str, Array] = {}
    ids: list[str] | None = None
    times: list[int] | None = None
    at = 0
    for tensor in request.inputs:
        size = _binary_size(tensor)
        part = None
        if size is not None:
            part = binary[at : at + size]
            at += size
        if tensor.name in columns:
            refuse(f"input '{tensor.name}' is given twice")
        if tensor.name == ROW_ID:
            ids = _row_ids(tensor, part)
        elif tensor.name == EVENT_TIME:
            times = _event_times(tensor, part)
        else:
            spec = specs.get(tensor.name) or _unknown(tensor.name, specs)
            columns[tensor.name] = _column(tensor, part, spec, nan)
    if at != len(binary):
        refuse(f"{len(binary)} bytes of binary data came, but the inputs' `binary_data_size` add up to {at}")
    rows = _rows(columns, inputs)
    for name, values in ((ROW_ID, ids), (EVENT_TIME, times)):
        if values is not None and len(values) != rows:
            refuse(f"input '{name}' has {len(values)} values for {rows} rows", "give one for each row")
    return Decoded(_complete(columns, inputs, rows), rows, ids, times)


def _unknown(name: str, specs: Mapping[str, TensorSpec]) -> NoReturn:
    known = ", ".join(list(specs)[:50])
    refuse(f"input '{name[:200]}' is not one of the model's", f"its inputs are {known}")


def _rows(columns: Mapping[str, Array], inputs: Sequence[TensorSpec]) -> int:
    rows: int | None = None
    first = ""
    for spec in inputs:
        column = columns.get(spec.name)
        if column is None or spec.shape[:1] != [-1]:
            continue
        if rows is None:
            rows, first = column.shape[0], spec.name
        elif column.shape[0] != rows:
            refuse(f"input '{spec.name}' has {column.shape[0]} rows, but '{first}' has {rows}")
    if rows == 0:
        refuse("the request has no rows", "send at least one row")
    return 1 if rows is None else rows


def _complete(columns: dict[str, Array], inputs: Sequence[TensorSpec], rows: int) -> dict[str, Array]:
    missing = []
    for spec in inputs:
        if spec.name in columns:
            continue
        if spec.required or spec.datatype not in _FLOATS or spec.shape != [-1]:
            missing.append(f"'{spec.name}' ({spec.datatype}{spec.shape})")
        else:
            columns[spec.name] = np.full(rows, np.nan, NUMPY_TYPES[spec.datatype])
    if missing:
        refuse(f"input {', '.join(missing[:50])} is missing", "send every input that the model's metadata lists")
    return columns


def _binary_size(tensor: RequestTensor) -> int | None:
    size = tensor.parameters.get("binary_data_size")
    if size is None:
        return None
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        refuse(f"input '{tensor.name}': `binary_data_size` must be a number of bytes, not {size!r}")
    return size


def _column(tensor: RequestTensor, part: memoryview | None, spec: TensorSpec, nan: NanPolicy) -> Array:
    if tensor.datatype != spec.datatype:
        refuse(f"input '{spec.name}' is {spec.datatype}, not {tensor.datatype[:20]}")
    shape = tensor.shape
    # A column of one table may come as a vector or as a matrix of one column.
    flattened = len(spec.shape) == 1 and len(shape) == 2 and shape[1] == 1
    wanted = [*spec.shape, 1] if flattened else spec.shape
    if len(shape) != len(wanted) or any(want not in (-1, have) for want, have in zip(wanted, shape, strict=True)):
        refuse(f"input '{spec.name}' has shape {shape[:RANK_MAX]}, the model takes {spec.shape} (-1: any size)")
    array = _array(tensor, part)
    if spec.datatype in _FLOATS and nan == "refuse" and not np.isfinite(array).all():
        refuse(f"input '{spec.name}' has a value that is not finite", "this endpoint refuses NaN and infinity")
    return array.reshape(shape[0]) if flattened else array


def _array(tensor: RequestTensor, part: memoryview | None) -> Array:
    if tensor.datatype not in NUMPY_TYPES:
        known = ", ".join(NUMPY_TYPES)
        refuse(f"input '{tensor.name[:200]}' has datatype '{tensor.datatype[:20]}'", f"known are {known}")
    if len(tensor.shape) > RANK_MAX or any(size < 0 for size in tensor.shape):
        refuse(f"input '{tensor.name}' has shape {tensor.shape[:20]}", f"give at most {RANK_MAX} sizes of 0 or more")
    count = math.prod(tensor.shape)
    array = _from_json(tensor, count) if part is None else _from_binary(tensor, part, count)
    return array.reshape(tensor.shape)


def _from_binary(tensor: RequestTensor, part: memoryview, count: int) -> Array:
    if len(tensor.data):
        refuse(f"input '{tensor.name}' has both `data` and `binary_data_size`")
    if tensor.datatype == "BYTES":
        return _texts(tensor.name, part, count)
    dtype = np.dtype(NUMPY_TYPES[tensor.datatype]).newbyteorder("<")
    if len(part) != count * dtype.itemsize:
        refuse(
            f"input '{tensor.name}' has {len(part)} bytes of binary data, but shape {tensor.shape} of "
            f"{tensor.datatype} needs {count * dtype.itemsize}"
        )
    array = np.frombuffer(part, dtype)
    if tensor.datatype == "BOOL" and len(part) and np.frombuffer(part, np.uint8).max() > 1:
        refuse(f"input '{tensor.name}' is BOOL, whose bytes are 0 or 1")
    return array


def _texts(name: str, part: memoryview, count: int) -> Array:
    values: list[str] = []
    at = 0
    while at < len(part):
        if at + 4 > len(part):
            refuse(f"input '{name}': its binary data ends inside a length")
        (length,) = _LENGTH.unpack_from(part, at)
        at += 4
        if at + length > len(part):
            refuse(f"input '{name}': its binary data ends inside a text")
        try:
            values.append(str(part[at : at + length], "utf-8"))
        except UnicodeDecodeError:
            refuse(f"input '{name}': element {len(values)} is not UTF-8")
        at += length
    if len(values) != count:
        refuse(f"input '{name}' has {len(values)} elements, its shape says {count}")
    return _objects(values)


def _objects(values: list[str]) -> Array:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def _from_json(tensor: RequestTensor, count: int) -> Array:
    raw = bytes(tensor.data)
    if not raw:
        refuse(f"input '{tensor.name}' has no data", "give `data`, or `binary_data_size` with binary data")
    text = raw[: 4 * RANK_MAX + 64].translate(None, b" \t\r\n")
    depth = len(text) - len(text.lstrip(b"["))
    # A nested list of nothing tells no depth, and a text may start with a bracket only behind its quote.
    nested = depth > 1 and len(tensor.shape) > 1
    if nested and depth != len(tensor.shape):
        refuse(f"input '{tensor.name}': `data` is nested {depth} deep, its shape has {len(tensor.shape)} sizes")
    values = _decode_elements(tensor, raw, len(tensor.shape) if nested else 1)
    if nested:
        values = _flatten(tensor.name, values, tensor.shape)
    if len(values) != count:
        refuse(f"input '{tensor.name}' has {len(values)} elements, shape {tensor.shape} needs {count}")
    return _numbers(tensor, values) if tensor.datatype != "BYTES" else _objects(values)


def _decode_elements(tensor: RequestTensor, raw: bytes, depth: int) -> list[Any]:
    element = _ELEMENTS.get(tensor.datatype, int)
    # JSON has no NaN: a missing number is null. Only where one may stand is the slower decoder taken.
    if element is float and b"null" in raw:
        element = float | None
    try:
        return _decoder(element, depth).decode(raw)  # type: ignore[no-any-return]
    except msgspec.DecodeError as error:
        refuse(f"input '{tensor.name}' is {tensor.datatype}: {error}")


def _decoder(element: Any, depth: int) -> msgspec.json.Decoder[Any]:
    decoder = _decoders.get((element, depth))
    if decoder is None:
        kind: Any = element
        for _ in range(depth):
            kind = list.__class_getitem__(kind)
        decoder = _decoders[element, depth] = msgspec.json.Decoder(kind)
    return decoder


def _flatten(name: str, values: list[Any], shape: list[int]) -> list[Any]:
    if len(values) != shape[0]:
        refuse(f"input '{name}': `data` has a list of {len(values)} where its shape says {shape[0]}")
    if len(shape) == 1:
        return values
    flat: list[Any] = []
    for one in values:
        flat.extend(_flatten(name, one, shape[1:]))
    return flat


def _numbers(tensor: RequestTensor, values: list[Any]) -> Array:
    dtype = np.dtype(NUMPY_TYPES[tensor.datatype])
    try:
        if tensor.datatype not in _FLOATS:
            return np.array(values, dtype)
        wide = np.array(values, np.float64)
    except OverflowError:
        refuse(f"input '{tensor.name}' has a number that {tensor.datatype} cannot hold")
    with np.errstate(over="ignore"):
        array = wide.astype(dtype)
    if np.isinf(array).any():
        refuse(f"input '{tensor.name}' has a number that {tensor.datatype} cannot hold")
    return array


def _row_ids(tensor: RequestTensor, part: memoryview | None) -> list[str]:
    if tensor.datatype != "BYTES":
        refuse(f"input '{ROW_ID}' is BYTES, not {tensor.datatype[:20]}")
    return [str(one) for one in _array(tensor, part).reshape(-1).tolist()]


def _event_times(tensor: RequestTensor, part: memoryview | None) -> list[int]:
    if tensor.datatype not in ("INT64", "BYTES"):
        refuse(
            f"input '{EVENT_TIME}' is INT64 or BYTES, not {tensor.datatype[:20]}",
            "give microseconds since 1970 as INT64, or RFC 3339 texts as BYTES",
        )
    values = _array(tensor, part).reshape(-1).tolist()
    if tensor.datatype == "BYTES":
        return [_instant_us(one) for one in values]
    for one in values:
        if not _FIRST_US <= one <= _LAST_US:
            refuse(f"input '{EVENT_TIME}' has {one}, which is no microsecond of the years 1 to 9999")
    return values


_FIRST_US = -62_135_596_800_000_000
_LAST_US = 253_402_300_799_999_999


def _instant_us(text: str) -> int:
    try:
        return to_us(msgspec.convert(text, datetime))
    except (msgspec.ValidationError, ValueError, OverflowError):
        refuse(
            f"input '{EVENT_TIME}' has {text[:60]!a}, which is no instant",
            "write RFC 3339 with a zone, as in 2013-04-01T12:00:00Z",
        )


# --- replies ----------------------------------------------------------------------------------------------------


def check_outputs(request: InferRequest, outputs: Sequence[TensorSpec]) -> None:
    """Raise InvalidInput for an output that the model does not have, or a form of it that is not offered."""
    names = {one.name for one in outputs}
    for wanted in request.outputs:
        if wanted.name not in names:
            refuse(f"output '{wanted.name[:200]}' is not one of the model's", f"its outputs are {', '.join(names)}")
        if wanted.parameters.get("classification"):
            refuse("the classification extension is not offered", "ask for the output's values")


def check_finite(outputs: Mapping[str, Array], model: str) -> None:
    """Raise UserCodeError where a model returned NaN or infinity."""
    for name, array in outputs.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            row = int(np.argwhere(~np.isfinite(array))[0][0]) if array.ndim else 0
            raise UserCodeError(
                f"{model} returned a value that is not finite in output '{name}', row {row}",
                code="prediction.not_finite",
                hint="check the inputs of that row; `nan_outputs: allow` lets such values through",
            )


def encode(
    request: InferRequest, request_id: str, name: str, version: str, variant: str, outputs: Mapping[str, Array]
) -> Reply:
    """The reply to a request: the outputs it asked for (all, if it named none), binary where it asked for that."""
    wanted = request.outputs or [RequestedOutput(one) for one in outputs]
    binary_default = bool(request.parameters.get("binary_data_output", False))
    tensors: list[dict[str, Any]] = []
    blobs: list[bytes] = []
    for one in wanted:
        array = outputs[one.name]
        tensor: dict[str, Any] = {"name": one.name, "datatype": datatype_of(array), "shape": list(array.shape)}
        if one.parameters.get("binary_data", binary_default):
            blob = to_binary(array)
            tensor["parameters"] = {"binary_data_size": len(blob)}
            blobs.append(blob)
        else:
            tensor["data"] = array.reshape(-1).tolist()
        tensors.append(tensor)
    header = _encode(
        {
            "model_name": name,
            "model_version": version,
            "id": request_id,
            "parameters": {"variant": variant},
            "outputs": tensors,
        }
    )
    return Reply(b"".join((header, *blobs)), len(header)) if blobs else Reply(header, 0)


def to_binary(array: Array) -> bytes:
    """An array's bytes as the binary extension wants them: little-endian, texts each behind their length."""
    if array.dtype.kind not in "OUS":
        return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    texts = [one if isinstance(one, bytes) else str(one).encode() for one in array.reshape(-1).tolist()]
    return b"".join(part for text in texts for part in (_LENGTH.pack(len(text)), text))
