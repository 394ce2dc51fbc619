"""Protocol buffers on the wire, as far as reading logs needs them: numbered fields, with no schema and no package."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from modelyard.kernel.errors import InvalidInput

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


def fields(data: bytes) -> Iterator[tuple[int, int, Any]]:
    """The fields of a message in their order: number, wire type, and an int or the bytes. Raises InvalidInput."""
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, at = _varint(data, at)
            yield number, kind, value
            continue
        if kind == BYTES:
            length, at = _varint(data, at)
        elif kind in (FIXED64, FIXED32):
            length = 8 if kind == FIXED64 else 4
        else:
            raise _damaged(f"a field of the unknown kind {kind}")
        if length > end - at:
            raise _damaged("a field is longer than its message")
        yield number, kind, data[at : at + length]
        at += length


def grouped(data: bytes) -> dict[int, list[Any]]:
    """The values of a message by the numbers of their fields."""
    found: dict[int, list[Any]] = {}
    for number, _, value in fields(data):
        found.setdefault(number, []).append(value)
    return found


def text(found: dict[int, list[Any]], number: int) -> str:
    """A text field; empty where it is not there."""
    values = found.get(number)
    if not values or not isinstance(values[-1], bytes):
        return ""
    return values[-1].decode("utf-8", "replace")


def texts(found: dict[int, list[Any]], number: int) -> list[str]:
    """A repeated text field."""
    return [one.decode("utf-8", "replace") for one in found.get(number, ()) if isinstance(one, bytes)]


def integer(found: dict[int, list[Any]], number: int) -> int:
    """A signed integer field; 0 where it is not there."""
    values = found.get(number)
    if not values or not isinstance(values[-1], int):
        return 0
    value = values[-1]
    return value - 2**64 if value >= 2**63 else value


def zigzag(value: int) -> int:
    """The number that a `sint64` field stands for."""
    return (value >> 1) ^ -(value & 1)


def number(value: Any, *, wide: bool = True) -> float:
    """A double or (not wide) float from its bytes. Raises InvalidInput."""
    form, length = ("<d", 8) if wide else ("<f", 4)
    if not isinstance(value, bytes) or len(value) != length:
        raise _damaged("a number of a wrong length")
    return float(struct.unpack(form, value)[0])


def packed(values: list[Any], *, wide: bool) -> list[float]:
    """The numbers of a repeated double or float field, packed or not. Raises InvalidInput."""
    length = 8 if wide else 4
    found: list[float] = []
    for one in values:
        if not isinstance(one, bytes) or len(one) % length:
            raise _damaged("packed numbers of a wrong length")
        found += struct.unpack(f"<{len(one) // length}{'d' if wide else 'f'}", one)
    return found


def integers(values: list[Any]) -> list[int]:
    """The numbers of a repeated integer field, packed or not. Raises InvalidInput."""
    found: list[int] = []
    for one in values:
        if isinstance(one, int):
            found.append(one)
            continue
        at = 0
        while at < len(one):
            value, at = _varint(one, at)
            found.append(value)
    return [value - 2**64 if value >= 2**63 else value for value in found]


def message(found: dict[int, list[Any]], field: int) -> dict[int, list[Any]]:
    """A field that is a message; an empty one where it is not there."""
    values = found.get(field)
    return grouped(values[-1]) if values and isinstance(values[-1], bytes) else {}


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise _damaged("a number without an end")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (2**64 - 1), at
        shift += 7


def _damaged(why: str) -> InvalidInput:
    return InvalidInput(f"a record is damaged: {why}", code="import.record_damaged")
