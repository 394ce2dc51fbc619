"""Many blobs in one body: each after its digest (64 hex digits) and its length (8 bytes, little-endian).

A request for each of 200,000 small files would cost a hundred times what their bytes do.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from modelyard.kernel.errors import InvalidInput

MEDIA_TYPE = "application/x-modelyard-frames"
PIECE_BYTES = 1024 * 1024
_HEAD = struct.Struct("<64sQ")


class Pieces:
    """A stream of pieces of any size, read as a file is: exactly so many bytes at a time."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._rest = b""

    def read(self, size: int) -> bytes:
        """`size` bytes, fewer at the end."""
        found = [self._rest]
        have = len(self._rest)
        while have < size:
            piece = next(self._pieces, b"")
            if not piece:
                break
            found.append(piece)
            have += len(piece)
        whole = b"".join(found)
        self._rest = whole[size:]
        return whole[:size]


def head(digest: str, size_bytes: int) -> bytes:
    """What stands before a blob."""
    return _HEAD.pack(digest.encode("ascii"), size_bytes)


def frames(source: Pieces | BinaryIO) -> Iterator[tuple[str, int, Iterator[bytes]]]:
    """Digest, length and pieces of each blob; the pieces must be read before the next blob is asked for.

    Raises InvalidInput where the body ends too early.
    """
    while first := source.read(_HEAD.size):
        if len(first) != _HEAD.size:
            raise _cut_short()
        digest, size_bytes = _HEAD.unpack(first)
        yield digest.decode("ascii", "replace"), size_bytes, _content(source, size_bytes)


def _content(source: Pieces | BinaryIO, size_bytes: int) -> Iterator[bytes]:
    left = size_bytes
    while left:
        piece = source.read(min(left, PIECE_BYTES))
        if not piece:
            raise _cut_short()
        left -= len(piece)
        yield piece


def _cut_short() -> InvalidInput:
    return InvalidInput("the body ends in the middle of a blob", code="frames.cut_short", hint="send it again")
