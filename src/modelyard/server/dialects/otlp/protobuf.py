"""The wire format of protocol buffers, read without a library for it: a message as its fields, in one pass.

Only what OTLP needs: no groups, which are deprecated, and no packed repeats, of which its traces have none.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from modelyard.kernel.errors import InvalidInput

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
Value = int | bytes
_FIXED64 = struct.Struct("<Q")
_DOUBLE = struct.Struct("<d")
_VARINT_BYTES_MAX = 10


def fields(message: bytes) -> Iterator[tuple[int, int, Value]]:
    """The fields of a message as (number, wire type, value): bytes for what has a length or is fixed, else an int.

    Raises InvalidInput for bytes that are no message.
    """
    at, end = 0, len(message)
    while at < end:
        tag, at = _varint(message, at)
        number, kind = tag >> 3, tag & 7
        if kind == VARINT:
            value, at = _varint(message, at)
            yield number, kind, value
            continue
        if kind == BYTES:
            length, at = _varint(message, at)
        elif kind in (FIXED64, FIXED32):
            length = 8 if kind == FIXED64 else 4
        else:
            raise _damaged(f"it has a field of wire type {kind}")
        if number == 0 or length > end - at:
            raise _damaged("a field is cut off")
        yield number, kind, message[at : at + length]
        at += length


def text(value: Value) -> str:
    """A field as text. Raises InvalidInput."""
    try:
        return raw(value).decode()
    except UnicodeDecodeError as error:
        raise _damaged("a text is not UTF-8") from error


def raw(value: Value) -> bytes:
    """A field as bytes. Raises InvalidInput."""
    if isinstance(value, int):
        raise _damaged("a number is where bytes belong")
    return value


def number(value: Value) -> int:
    """A varint or fixed64 field as an unsigned number. Raises InvalidInput."""
    if isinstance(value, int):
        return value
    if len(value) != 8:
        raise _damaged("bytes are where a number belongs")
    return int(_FIXED64.unpack(value)[0])


def signed(value: Value) -> int:
    """An int64 field. Raises InvalidInput."""
    found = number(value)
    return found - 2**64 if found >= 2**63 else found


def double(value: Value) -> float:
    """A double field. Raises InvalidInput."""
    found = raw(value)
    if len(found) != 8:
        raise _damaged("bytes are where a double belongs")
    return float(_DOUBLE.unpack(found)[0])


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for place, byte in enumerate(message[at : at + _VARINT_BYTES_MAX]):
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value & (2**64 - 1), at + place + 1
    raise _damaged("a number is cut off, or longer than 64 bits")


def _damaged(why: str) -> InvalidInput:
    return InvalidInput(
        f"Invalid OpenTelemetry format: {why}.",
        code="otlp.invalid",
        hint="send an ExportTraceServiceRequest, as protobuf or as JSON, and name it in Content-Type",
    )
