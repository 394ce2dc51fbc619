"""Segments of the prediction log on disk: which may be taken, and the records in one.

A live writer holds the lock of its `.open` segment. Whoever gets that lock knows that the writer is gone, and closes
the segment for it. What such a writer had begun and not ended is a torn tail: it was never acknowledged.
"""

from __future__ import annotations

import fcntl
import os
import zlib
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from modelyard.types.serving import FRAME_HEADER, SEGMENT_CLOSED, SEGMENT_OPEN, PredictionRecord

_decoder = msgspec.msgpack.Decoder(PredictionRecord)


def closed_segments(directory: Path) -> list[Path]:
    """Segments that nobody writes any more, oldest first; those of dead writers are closed on the way."""
    if not directory.is_dir():
        return []
    for path in sorted(directory.glob(f"*{SEGMENT_OPEN}")):
        _close_if_abandoned(path)
    return sorted(directory.glob(f"*{SEGMENT_CLOSED}"))


def has_segments(directory: Path) -> bool:
    """Whether there is anything to take in, now or later."""
    return bool(closed_segments(directory)) or any(directory.glob(f"*{SEGMENT_OPEN}"))


def _close_if_abandoned(path: Path) -> None:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Its writer may have closed and renamed it between our look and our lock; then there is nothing to do.
        with suppress(FileNotFoundError):
            if path.stat().st_ino == os.fstat(handle).st_ino:
                path.rename(path.with_suffix(SEGMENT_CLOSED))
    except BlockingIOError:
        return
    finally:
        os.close(handle)


class Segment(NamedTuple):
    """The whole records of a segment. `problem` is empty, or says where it is damaged before its end."""

    records: list[PredictionRecord]
    problem: str


def read_segment(path: Path) -> Segment:
    """What a segment holds. A torn tail is no problem; what follows damage in its middle cannot be told from it."""
    content = path.read_bytes()
    records: list[PredictionRecord] = []
    at, end = 0, len(content)
    while at + FRAME_HEADER.size <= end:
        length, checksum = FRAME_HEADER.unpack_from(content, at)
        start = at + FRAME_HEADER.size
        payload = content[start : start + length]
        if len(payload) < length:
            break
        if zlib.crc32(payload) != checksum:
            return Segment(records, "" if start + length >= end else f"it is damaged at byte {at:,} of {end:,}")
        try:
            records.append(_decoder.decode(payload))
        except msgspec.DecodeError as error:
            return Segment(records, f"its record at byte {at:,} is of no known form: {error}")
        at = start + length
    return Segment(records, "")
