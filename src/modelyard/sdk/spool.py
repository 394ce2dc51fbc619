"""What waits for a server that is away, on this machine's disk: batches of a run in a file, in the order they came."""

from __future__ import annotations

import fcntl
import os
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import msgspec

from modelyard.kernel.paths import make_private
from modelyard.types.tracking import LogBatch

_FRAME = struct.Struct("<I")


class Spool:
    """Batches in a file, each after its length, in the order they came. Locked by the process that fills it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._file: BinaryIO | None = None
        self._sent = 0
        self._end = 0

    @property
    def waiting(self) -> bool:
        """Whether there is anything in it that was not sent."""
        return self._end > self._sent

    def put(self, batches: Sequence[LogBatch]) -> None:
        """Keep batches, on disk when this returns."""
        with self._lock:
            file = self._opened()
            file.seek(self._end)
            for batch in batches:
                body = msgspec.msgpack.encode(batch)
                file.write(_FRAME.pack(len(body)) + body)
            file.flush()
            os.fsync(file.fileno())
            self._end = file.tell()

    def batches(self) -> Iterator[LogBatch]:
        """The batches that wait; one counts as sent when the next is asked for."""
        while True:
            with self._lock:
                if not self.waiting:
                    self._drop()
                    return
                batch, after = self._read(self._opened(), self._sent)
            if batch is not None:
                yield batch
            with self._lock:
                self._sent = after

    def adopt(self) -> bool:
        """Take over what a program that ended left in the file. False while that program still runs."""
        try:
            file = self.path.open("r+b")
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (FileNotFoundError, BlockingIOError):
            return False
        self._file = file
        self._end = file.seek(0, os.SEEK_END)
        return True

    def _opened(self) -> BinaryIO:
        if self._file is None:
            make_private(self.path.parent)
            self._file = os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600), "r+b")
            fcntl.flock(self._file, fcntl.LOCK_EX)
        return self._file

    def _read(self, file: BinaryIO, at: int) -> tuple[LogBatch | None, int]:
        file.seek(at)
        head = file.read(_FRAME.size)
        length = _FRAME.unpack(head)[0] if len(head) == _FRAME.size else -1
        body = file.read(max(length, 0))
        if len(body) != length:
            # The program died while it wrote: what it had not finished, it had not been promised.
            return None, self._end
        try:
            return msgspec.msgpack.decode(body, type=LogBatch), at + _FRAME.size + length
        except msgspec.MsgspecError:
            return None, self._end

    def _drop(self) -> None:
        if self._file is not None:
            with suppress(FileNotFoundError):
                self.path.unlink()
            self._file.close()
        self._file, self._sent, self._end = None, 0, 0
