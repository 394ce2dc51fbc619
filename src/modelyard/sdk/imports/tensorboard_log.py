"""TensorBoard's event files: records with a length and masked CRC-32C sums (TFRecord), read without TensorFlow."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from modelyard.sdk.imports.source import CutOff

RECORD_BYTES_MAX = 1024 * 1024 * 1024
CHECKED_BYTES_MAX = 4 * 1024
"""Larger bodies (images) are not summed up, which in Python alone takes a second for some megabytes."""
_LENGTH = struct.Struct("<QI")
_SUM = struct.Struct("<I")
_POLYNOMIAL = 0x82F63B78


def records(file: Path) -> Iterator[bytes]:
    """The records of a file. Raises CutOff where a writer that was killed left it."""
    with file.open("rb") as opened:
        at = 0
        while head := opened.read(_LENGTH.size):
            if len(head) < _LENGTH.size:
                raise CutOff(f"the file ends in the middle, at byte {at}")
            length, checksum = _LENGTH.unpack(head)
            if masked(head[:8]) != checksum or length > RECORD_BYTES_MAX:
                raise CutOff(f"the record at byte {at} is damaged")
            body, foot = opened.read(length), opened.read(_SUM.size)
            if len(body) < length or len(foot) < _SUM.size:
                raise CutOff(f"the file ends in the middle, at byte {at}")
            if length <= CHECKED_BYTES_MAX and masked(body) != _SUM.unpack(foot)[0]:
                raise CutOff(f"the record at byte {at} is damaged")
            at += _LENGTH.size + length + _SUM.size
            yield body


def masked(data: bytes) -> int:
    """The CRC-32C of some bytes, masked as TFRecord has it."""
    table = _table()
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ table[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


@cache
def _table() -> tuple[int, ...]:
    found = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (_POLYNOMIAL if byte & 1 else 0)
        found.append(byte)
    return tuple(found)
