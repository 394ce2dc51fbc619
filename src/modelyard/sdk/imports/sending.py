"""Files on their way: read one after the other, as a source allows, and sent side by side, since each waits for a disk.

What a file became is known when its sending is settled; until then at most some megabytes are held.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from modelyard.kernel.errors import Conflict, InvalidInput, ModelyardError, TooLarge
from modelyard.sdk.imports.source import Owner, Source, SourceFile, Unreachable
from modelyard.sdk.imports.target import Target
from modelyard.types.tracking import Artifact

SENDERS = 8
HELD_BYTES_MAX = 1024 * 1024
"""A file up to this size is held in memory while it is sent; a larger one is sent as it is read."""


class Sent(NamedTuple):
    """What came of some files of an owner: how many are there and here, which are new, what is to be said."""

    there: int
    here: int
    new: int
    bytes: int
    left_out: list[str]
    differing: list[str]


class Sending(NamedTuple):
    """Files of an owner that are being sent. `known`: how many were here already."""

    there: int
    known: int
    pending: list[tuple[str, Future[int]]]
    left_out: list[str]
    differing: list[str]


class Sender:
    """Brings files of a source to a target. `recheck`: those that are here are compared by their bytes."""

    def __init__(self, source: Source, target: Target, *, recheck: bool = False) -> None:
        self._source = source
        self._target = target
        self._recheck = recheck
        self._pool = ThreadPoolExecutor(SENDERS, "import-sender")
        self._room = threading.BoundedSemaphore(2 * SENDERS)

    def close(self) -> None:
        """Give the threads back."""
        self._pool.shutdown(cancel_futures=True)

    def begin(self, owner: Owner, *, empty: bool = False) -> Sending:
        """Send what is not here yet. `empty`: nothing can be, so that nobody asks."""
        try:
            listed = self._source.files(owner)
        except Unreachable as error:
            return Sending(0, 0, [], [f"its files: {error}"], [])
        here = self._target.files(owner) if listed and not empty else {}
        sending = Sending(len(listed), sum(_is_here(one, here) for one in listed), [], [], [])
        for file in listed:
            if not _is_here(file, here):
                sending.pending.append((file.path, self._send(owner, file)))
            elif self._recheck and self._digest(owner, file.path) != here[file.path].digest:
                sending.differing.append(file.path)
        return sending

    def settle(self, sending: Sending) -> Sent:
        """What became of them. Raises Unavailable, EngineError."""
        left_out, sizes = list(sending.left_out), []
        for path, future in sending.pending:
            try:
                sizes.append(future.result())
            except (Unreachable, InvalidInput, TooLarge, Conflict) as error:
                left_out.append(f"'{path}': {error}")
        refused = len(sending.pending) - len(sizes)
        return Sent(
            sending.there - refused, sending.known + len(sizes), len(sizes), sum(sizes), left_out, sending.differing
        )

    def _send(self, owner: Owner, file: SourceFile) -> Future[int]:
        if file.size_bytes is not None and file.size_bytes <= HELD_BYTES_MAX:
            try:
                with self._source.open(owner, file.path) as pieces:
                    content = b"".join(pieces)
            except Unreachable as error:
                return _failed(error)
            self._room.acquire()
            future = self._pool.submit(self._put, owner, file.path, [content])
            future.add_done_callback(lambda _: self._room.release())
            return future
        try:
            with self._source.open(owner, file.path) as pieces:
                size_bytes = self._put(owner, file.path, pieces)
        except (Unreachable, ModelyardError) as error:
            return _failed(error)
        done: Future[int] = Future()
        done.set_result(size_bytes)
        return done

    def _put(self, owner: Owner, path: str, pieces: Iterable[bytes]) -> int:
        return self._target.put(owner, path, iter(pieces))[0]

    def _digest(self, owner: Owner, path: str) -> str:
        digest = hashlib.sha256()
        with self._source.open(owner, path) as pieces:
            for piece in pieces:
                digest.update(piece)
        return digest.hexdigest()


def _is_here(file: SourceFile, here: Mapping[str, Artifact]) -> bool:
    known = here.get(file.path)
    return known is not None and file.size_bytes is not None and known.size_bytes == file.size_bytes


def _failed(error: Exception) -> Future[int]:
    failed: Future[int] = Future()
    failed.set_exception(error)
    return failed
