"""A segment: records one after another, each with its length and checksum, so that what was cut off shows.

A segment begins with an identity of its own, since the inode of a file that is gone is soon that of another. A record
is `length, crc32, rows, microseconds since the epoch` in little-endian, then the body.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from modelyard.kernel.clock import from_us

if TYPE_CHECKING:
    import pyarrow as pa

_HEAD = struct.Struct("<IIIq")
IDENTITY_BYTES = 16
_BODY_BYTES_MAX = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Record:
    """One append: who made it, where the rows came from in their words, when, the rows."""

    actor: str
    source: str
    at_us: int
    table: pa.Table


@dataclass(frozen=True, slots=True)
class Mark:
    """What a record's head says."""

    rows: int
    size_bytes: int
    at: datetime


class _Body(msgspec.Struct, frozen=True, array_like=True):
    actor: str
    source: str
    rows: bytes


def encode(record: Record) -> bytes:
    """The bytes of a record."""
    import pyarrow as pa  # heavy: imported late

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, record.table.schema) as writer:
        writer.write_table(record.table)
    body = msgspec.msgpack.encode(_Body(record.actor, record.source, sink.getvalue().to_pybytes()))
    return _HEAD.pack(len(body), zlib.crc32(body), record.table.num_rows, record.at_us) + body


def read(file: Path) -> tuple[list[Record], bool]:
    """The records up to where the file is whole, and whether nothing but a torn end follows.

    An end is torn where the last record is shorter than its head says: its writer died before it was acknowledged.
    """
    import pyarrow as pa  # heavy: imported late

    records: list[Record] = []
    with file.open("rb") as source:
        source.seek(IDENTITY_BYTES)
        for head, body in _walk(source):
            if body is None:
                return records, head is None
            found = msgspec.msgpack.decode(body, type=_Body)
            table = pa.ipc.open_stream(found.rows).read_all()
            records.append(Record(found.actor, found.source, 0 if head is None else head[3], table))
    return records, True


def marks(file: Path) -> Iterator[Mark]:
    """What the heads of the whole records say, without reading their bodies."""
    size = file.stat().st_size
    with file.open("rb") as source:
        at = IDENTITY_BYTES
        while at + _HEAD.size <= size:
            source.seek(at)
            length, _, rows, at_us = _HEAD.unpack(source.read(_HEAD.size))
            at += _HEAD.size + length
            if at > size:
                return
            yield Mark(rows, _HEAD.size + length, from_us(at_us))


def whole_until(file: Path, start: int) -> int:
    """The end of the last whole record at or after `start`, which is an end of one or of the identity."""
    end = start
    with file.open("rb") as source:
        source.seek(start)
        for head, body in _walk(source):
            if body is None or head is None:
                break
            end += _HEAD.size + head[0]
    return end


Head = tuple[int, int, int, int]


def _walk(source: BinaryIO) -> Iterator[tuple[Head | None, bytes | None]]:
    """Each record's head and body. The walk ends with no body where one is not what its head says, and with no head
    either where the file ends within it: that one's writer died before it was acknowledged."""
    while head_bytes := source.read(_HEAD.size):
        if len(head_bytes) < _HEAD.size:
            yield None, None
            return
        head: Head = _HEAD.unpack(head_bytes)
        if not 0 < head[0] <= _BODY_BYTES_MAX:
            yield head, None
            return
        body = source.read(head[0])
        if len(body) < head[0]:
            yield None, None
            return
        if zlib.crc32(body) != head[1]:
            yield head, None
            return
        yield head, body
