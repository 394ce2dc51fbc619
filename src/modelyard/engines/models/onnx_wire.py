"""ONNX files read as protobuf wire format, without the `onnx` package: is it one, and which other files does it name?

An ONNX tensor may keep its bytes in another file, named by a path inside the model. A path that climbs would let a
model read any file of whoever loads it, so the names are checked here before a runtime sees them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import BinaryIO, NamedTuple

MODEL_BYTES_MAX = 2 * 1024**3
DEPTH_MAX = 64

# Field numbers of onnx.proto by message: which of them lead to a tensor, and as what.
_CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "training": {1: "graph", 2: "graph"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
_MODEL_FIELDS_MAX = 32
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class NotOnnx(ValueError):
    """The bytes are not an ONNX model."""


class Scan(NamedTuple):
    """What a scan found."""

    ir_version: int
    external_files: list[str]


def scan(stream: BinaryIO) -> Scan:
    """Walk a model. Raises NotOnnx where it is none, is cut short, or is larger than protobuf allows."""
    content = stream.read(MODEL_BYTES_MAX + 1)
    if len(content) > MODEL_BYTES_MAX:
        raise NotOnnx("larger than 2 GiB")
    view = memoryview(content)
    ir_version = 0
    has_graph = False
    for field, wire, value in _fields(view):
        if field > _MODEL_FIELDS_MAX:
            raise NotOnnx(f"field {field} is none of a model's")
        if field == 1 and wire == _VARINT and isinstance(value, int):
            ir_version = value
        has_graph = has_graph or (field == 7 and wire == _BYTES)
    if not 1 <= ir_version <= 100 or not has_graph:
        raise NotOnnx("no version or no graph")
    # The deep walk is slow in Python on models of millions of nodes; without this word there is nothing to find.
    return Scan(ir_version, list(_external(view, "model", 0)) if b"location" in content else [])


def is_beside(location: str) -> bool:
    """Whether a file name inside a model stays in the model's directory."""
    path = PurePosixPath(location)
    return bool(location) and not path.is_absolute() and ".." not in path.parts and not set("\\\0:") & set(location)


def _external(view: memoryview, kind: str, depth: int) -> Iterator[str]:
    if depth > DEPTH_MAX:
        raise NotOnnx("nested too deep")
    children = _CHILDREN[kind]
    for field, wire, value in _fields(view):
        child = children.get(field)
        if child is None or wire != _BYTES or isinstance(value, int):
            continue
        if child != "entry":
            yield from _external(value, child, depth + 1)
            continue
        entry = {number: bytes(part) for number, _, part in _fields(value) if not isinstance(part, int)}
        if entry.get(1) == b"location":
            yield entry.get(2, b"").decode("utf-8", "replace")


def _fields(view: memoryview) -> Iterator[tuple[int, int, memoryview | int]]:
    """The fields of one message: number, wire type, and the bytes (or the integer) of each."""
    at, end = 0, len(view)
    while at < end:
        key, at = _varint(view, at)
        field, wire = key >> 3, key & 7
        if field == 0:
            raise NotOnnx("field 0")
        if wire == _VARINT:
            value, at = _varint(view, at)
            yield field, wire, value
            continue
        if wire == _BYTES:
            size, at = _varint(view, at)
        elif wire in (_FIXED32, _FIXED64):
            size = 4 if wire == _FIXED32 else 8
        else:
            raise NotOnnx(f"wire type {wire}")
        if at + size > end:
            raise NotOnnx("cut short")
        yield field, wire, view[at : at + size]
        at += size


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(view):
            raise NotOnnx("cut short")
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise NotOnnx("an integer of more than ten bytes")
