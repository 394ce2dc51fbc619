"""The `.wandb` file of a W&B run: a header, then records in blocks of 32 KiB, each with a checksum (LevelDB's log)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from modelyard.kernel.errors import InvalidInput
from modelyard.sdk.imports.source import CutOff

HEADER = b":W&B"
MAGIC = 0xBEE1
BLOCK_BYTES = 32 * 1024
RECORD_BYTES_MAX = 512 * 1024 * 1024
_HEAD = struct.Struct("<4sHB")
_PART = struct.Struct("<IHB")
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def records(file: Path) -> Iterator[bytes]:
    """The records of a file. Raises InvalidInput for another kind of file, CutOff where a killed run left it."""
    with file.open("rb") as opened:
        found = opened.read(_HEAD.size)
        if len(found) < _HEAD.size or _HEAD.unpack(found)[:2] != (HEADER, MAGIC):
            raise InvalidInput(f"{file} is no log of W&B", code="import.source_invalid")
        yield from _joined(_parts(opened))


def _joined(parts: Iterator[tuple[int, bytes]]) -> Iterator[bytes]:
    pieces: list[bytes] = []
    for kind, body in parts:
        if kind in (FULL, FIRST) and pieces:
            raise CutOff("a record has no end")
        if kind in (MIDDLE, LAST) and not pieces:
            raise CutOff("a record has no beginning")
        pieces.append(body)
        if sum(map(len, pieces)) > RECORD_BYTES_MAX:
            raise CutOff(f"a record is larger than {RECORD_BYTES_MAX} bytes")
        if kind in (FULL, LAST):
            yield b"".join(pieces)
            pieces = []
    if pieces:
        raise CutOff("the last record has no end")


def _parts(opened: BinaryIO) -> Iterator[tuple[int, bytes]]:
    at = _HEAD.size
    while True:
        left = BLOCK_BYTES - at % BLOCK_BYTES
        if left < _PART.size:
            # What no head fits into is filled up.
            opened.read(left)
            at += left
        head = opened.read(_PART.size)
        if not head:
            return
        if len(head) < _PART.size:
            raise CutOff(f"the file ends in the middle, at byte {at}")
        checksum, length, kind = _PART.unpack(head)
        if (checksum, length, kind) == (0, 0, 0):
            return
        body = opened.read(length)
        if len(body) < length:
            raise CutOff(f"the file ends in the middle, at byte {at}")
        if kind not in (FULL, FIRST, MIDDLE, LAST) or zlib.crc32(bytes([kind]) + body) != checksum:
            raise CutOff(f"the record at byte {at} is damaged")
        at += _PART.size + length
        yield kind, body
