"""The prediction log: append-only segments of records, written before the reply goes out.

A record is in the kernel's page cache when its reply is sent, so it survives `kill -9` of the process (not a power
cut). It costs one `write` per batch, on the model's thread, never an fsync; a log that cannot be written drops rows and
counts them, and the reply goes out all the same. Segments are closed by size or age, and taken away by the server.

A segment that is being written carries an exclusive lock, which the operating system releases with the process: whoever
gets the lock of an `.open` segment knows that its writer is gone.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from modelyard.kernel.ids import new_id
from modelyard.kernel.paths import make_private
from modelyard.types.serving import FRAME_HEADER, SEGMENT_CLOSED, SEGMENT_OPEN, EndpointOptions, PredictionRecord

_log = logging.getLogger("modelyard.endpoint")
_encode = msgspec.msgpack.Encoder().encode


class PredictionLog:
    """Writes records; safe to call from several threads."""

    def __init__(self, directory: Path, options: EndpointOptions) -> None:
        self.rows_written = 0
        self.rows_dropped = 0
        self._directory = make_private(directory)
        self._options = options
        self._lock = threading.Lock()
        self._file = -1
        self._path = directory
        self._bytes = 0
        self._opened_at = 0.0
        self._backlog_bytes = 0
        self._failing = False
        self.tick()

    def append(self, records: Sequence[PredictionRecord]) -> bool:
        """Write records in one call; False where they had to be dropped."""
        rows = sum(one.rows for one in records)
        parts: list[bytes] = []
        for record in records:
            payload = _encode(record)
            parts += (FRAME_HEADER.pack(len(payload), zlib.crc32(payload)), payload)
        data = b"".join(parts)
        with self._lock:
            try:
                written = self._write(data)
            except OSError as error:
                written = self._complain(str(error))
            if written:
                self.rows_written += rows
                self._failing = False
            else:
                self.rows_dropped += rows
        return written

    def tick(self) -> None:
        """Close a segment that is old enough, and see how much waits to be taken away. Call about every second."""
        with self._lock:
            if self._bytes and time.monotonic() - self._opened_at >= self._options.segment_age_s_max:
                self._close_segment()
            try:
                self._backlog_bytes = _size_of(self._directory)
            except OSError as error:
                self._complain(str(error))

    def configure(self, options: EndpointOptions) -> None:
        """Take other limits from now on."""
        with self._lock:
            self._options = options

    def close(self) -> None:
        """Close the last segment."""
        with self._lock:
            self._close_segment()

    def _write(self, data: bytes) -> bool:
        if self._backlog_bytes + len(data) > self._options.log_bytes_max:
            return self._complain(f"{self._backlog_bytes:,} bytes wait to be taken away, which is the limit")
        if self._file < 0:
            self._open_segment()
        if self._bytes == 0:
            self._opened_at = time.monotonic()
        count = os.write(self._file, data)
        if count < len(data):
            # A disk that fills up takes a part: it is taken back, or the segment would end here for its reader.
            os.ftruncate(self._file, self._bytes)
            return self._complain(f"only {count} of {len(data)} bytes could be written")
        self._bytes += count
        self._backlog_bytes += count
        if self._bytes >= self._options.segment_bytes_max:
            self._close_segment()
        return True

    def _complain(self, why: str) -> bool:
        if not self._failing:
            _log.error("predictions are answered but not logged: %s", why)
        self._failing = True
        return False

    def _open_segment(self) -> None:
        segment = self._directory / new_id()
        hidden = segment.with_suffix(".new")
        file = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        # Locked before it gets its name, so that nobody can see it unlocked and take its writer for dead.
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._path = segment.with_suffix(SEGMENT_OPEN)
        os.rename(hidden, self._path)
        self._file, self._bytes = file, 0

    def _close_segment(self) -> None:
        if self._file < 0:
            return
        file, size = self._file, self._bytes
        self._file, self._bytes = -1, 0
        with suppress(FileNotFoundError):
            if size:
                os.rename(self._path, self._path.with_suffix(SEGMENT_CLOSED))
            else:
                os.unlink(self._path)
        os.close(file)


def _size_of(directory: Path) -> int:
    total = 0
    with os.scandir(directory) as entries:
        for entry in entries:
            # The server may take a segment away at any moment.
            with suppress(FileNotFoundError):
                total += entry.stat().st_size
    return total
