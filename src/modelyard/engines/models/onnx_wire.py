"""ONNX files read as protobuf wire format, without the `onnx` package: is it one, and which other files does it name?

An ONNX tensor may keep its bytes in another file, named by a path inside the model. A path that climbs would let a
model read any file of whoever loads it, so the names are checked here before a runtime sees them.
"""

from __future__ import annotations

import bisect
import mmap
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import BinaryIO, NamedTuple

MODEL_BYTES_MAX = 2 * 1024**3
DEPTH_MAX = 64
SMALL_BYTES_MAX = 4 * 1024**2
PARTS_MAX = 500_000
"""So many fields are looked at; a file with more is not walked for minutes, and counts as not known to be safe."""

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
_WORD = b"location"
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class NotOnnx(ValueError):
    """The bytes are not an ONNX model."""


class Scan(NamedTuple):
    """What a scan found."""

    ir_version: int
    external_files: list[str]


def scan(stream: BinaryIO) -> Scan:
    """Walk a model without holding it in memory. Raises NotOnnx where it is none, is cut short, or is larger than
    protobuf allows."""
    content = _mapped(stream)
    walk = _Walk(content)
    ir_version = 0
    has_graph = False
    for field, wire, value in walk.fields(Part(0, len(content))):
        if field > _MODEL_FIELDS_MAX:
            raise NotOnnx(f"field {field} is none of a model's")
        if field == 1 and wire == _VARINT and isinstance(value, int):
            ir_version = value
        has_graph = has_graph or (field == 7 and wire == _BYTES)
    if not 1 <= ir_version <= 100 or not has_graph:
        raise NotOnnx("no version or no graph")
    return Scan(ir_version, list(walk.external(Part(0, len(content)), "model", 0)))


def _mapped(stream: BinaryIO) -> mmap.mmap | bytes:
    """The bytes of a stream: of a file as pages that the system may drop again, of any other by way of a file."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    if size > MODEL_BYTES_MAX:
        raise NotOnnx("larger than 2 GiB")
    if size <= SMALL_BYTES_MAX:
        return stream.read(SMALL_BYTES_MAX + 1)
    try:
        return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, AttributeError):
        # The map keeps the file alive after it is closed.
        with tempfile.TemporaryFile() as copy:
            shutil.copyfileobj(stream, copy)
            copy.flush()
            return mmap.mmap(copy.fileno(), 0, access=mmap.ACCESS_READ)


def is_beside(location: str) -> bool:
    """Whether a file name inside a model stays in the model's directory."""
    path = PurePosixPath(location)
    return bool(location) and not path.is_absolute() and ".." not in path.parts and not set("\\\0:") & set(location)


class Part(NamedTuple):
    """Where the bytes of a message lie."""

    begin: int
    end: int


class _Walk:
    """A walk over one file, that counts what it looks at and goes only where a file name may be."""

    def __init__(self, content: mmap.mmap | bytes) -> None:
        self._view = memoryview(content)
        self._left = PARTS_MAX
        # A tensor elsewhere says so by this word; a model of millions of nodes has it nowhere, and is not walked.
        self._words: list[int] = []
        at = content.find(_WORD)
        while at >= 0:
            self._words.append(at)
            if len(self._words) > PARTS_MAX:
                raise NotOnnx(f"more than {PARTS_MAX:,} external tensors")
            at = content.find(_WORD, at + len(_WORD))

    def external(self, part: Part, kind: str, depth: int) -> Iterator[str]:
        """The names of other files in a message of a kind."""
        if depth > DEPTH_MAX:
            raise NotOnnx("nested too deep")
        if not self._has_word(part):
            return
        children = _CHILDREN[kind]
        for field, wire, value in self.fields(part):
            child = children.get(field)
            if child is None or wire != _BYTES or isinstance(value, int):
                continue
            if child != "entry":
                yield from self.external(value, child, depth + 1)
                continue
            found = {
                number: bytes(self._view[text.begin : text.end])
                for number, _, text in self.fields(value)
                if isinstance(text, Part)
            }
            if found.get(1) == _WORD:
                yield found.get(2, b"").decode("utf-8", "replace")

    def fields(self, part: Part) -> Iterator[tuple[int, int, Part | int]]:
        """The fields of one message: number, wire type, and the place of the bytes (or the integer) of each."""
        at, end = part
        while at < end:
            self._left -= 1
            if self._left < 0:
                raise NotOnnx(f"more than {PARTS_MAX:,} parts")
            key, at = self._varint(at, end)
            field, wire = key >> 3, key & 7
            if field == 0:
                raise NotOnnx("field 0")
            if wire == _VARINT:
                value, at = self._varint(at, end)
                yield field, wire, value
                continue
            if wire == _BYTES:
                size, at = self._varint(at, end)
            elif wire in (_FIXED32, _FIXED64):
                size = 4 if wire == _FIXED32 else 8
            else:
                raise NotOnnx(f"wire type {wire}")
            if at + size > end:
                raise NotOnnx("cut short")
            yield field, wire, Part(at, at + size)
            at += size

    def _has_word(self, part: Part) -> bool:
        at = bisect.bisect_left(self._words, part.begin)
        return at < len(self._words) and self._words[at] + len(_WORD) <= part.end

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, 70, 7):
            if at >= end:
                raise NotOnnx("cut short")
            byte = self._view[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
        raise NotOnnx("an integer of more than ten bytes")
