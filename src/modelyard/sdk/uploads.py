"""Files that a run logs while it trains: written to this machine's disk at once, uploaded by a thread.

Each lies below the home directory until the server has it: the path it is for in the first line, then its content. So
what a program left when it died, or while the server was away, the next run uploads.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from modelyard.kernel.errors import ModelyardError
from modelyard.kernel.paths import make_private, safe_relative
from modelyard.sdk.client import Client
from modelyard.sdk.outbox import AWAY, RETRY_S_MAX, RETRY_S_MIN

PIECE_BYTES = 1024 * 1024
FOLDER = ".files"
_HEAD_BYTES_MAX = 8_192
_log = logging.getLogger("modelyard.run")


class Uploads:
    """The files of one run that wait. Made by `start_run`; safe to use from many threads."""

    def __init__(self, client: Client, run_id: str, spool: Path) -> None:
        self._client = client
        self._run_id = run_id
        self._folder = spool / f"{run_id}{FOLDER}"
        self._held: BinaryIO | None = None
        self._made = 0
        self._waiting = 0
        self._away = False
        self._stopping = False
        self._refused: list[ModelyardError] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def put(self, path: str, content: bytes) -> None:
        """Take a file for `path` of the run's artifacts. Never waits for the server. Raises InvalidInput for a path
        that cannot be."""
        safe_relative(path)
        with self._changed:
            if self._thread is None:
                self._begin()
            target = self._folder / f"{self._made:08d}"
            self._made += 1
            # Renamed when it is whole, so that the thread never sees half of it.
            part = target.with_suffix(".part")
            with part.open("xb") as file:
                file.write(path.encode() + b"\n" + content)
            part.rename(target)
            self._waiting += 1
            self._changed.notify_all()

    def flush(self, timeout_s: float = 60.0) -> None:
        """Return once the server has all, or once all is safe on disk where the server is away.

        Raises the error with which the server refused a file, once.
        """
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while self._waiting and not self._away and time.monotonic() < deadline:
                self._changed.wait(0.2)
            if self._waiting:
                _sync(self._folder)
            refused, self._refused = self._refused, []
        if refused:
            raise refused[0]

    def close(self, timeout_s: float = 60.0) -> None:
        """Flush and stop; what the server has not is kept on disk for the next run."""
        try:
            self.flush(timeout_s)
        finally:
            with self._changed:
                self._stopping = True
                self._changed.notify_all()
            if self._thread is not None:
                self._thread.join(timeout_s)
            if self._held is not None:
                if not self._waiting:
                    _drop(self._folder)
                self._held.close()

    def _begin(self) -> None:
        make_private(self._folder)
        self._held = _lock(self._folder)
        self._thread = threading.Thread(target=self._run, name=f"uploads-{self._run_id[:8]}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        delay_s = RETRY_S_MIN
        while True:
            with self._changed:
                while not (self._waiting or self._stopping):
                    self._changed.wait()
                if self._stopping and (self._away or not self._waiting):
                    return
            try:
                for file in _waiting(self._folder):
                    self._upload(file)
                delay_s = RETRY_S_MIN
            except AWAY as error:
                self._note_away(error)
                with self._changed:
                    self._changed.wait(delay_s)
                delay_s = min(2 * delay_s, RETRY_S_MAX)

    def _upload(self, file: Path) -> None:
        refusal = upload(self._client, self._run_id, file)
        with self._changed:
            if refusal is not None:
                self._refused.append(refusal)
            self._waiting -= 1
            self._away = False
            self._changed.notify_all()

    def _note_away(self, error: ModelyardError) -> None:
        with self._changed:
            if not self._away:
                _log.warning("the server does not take the files of this run; they are kept on disk: %s", error)
            self._away = True
            self._changed.notify_all()


def upload(client: Client, run_id: str, file: Path) -> ModelyardError | None:
    """Send a waiting file and remove it. Returns the refusal, if any. Raises one of `AWAY` where the server is away."""
    refusal = None
    with file.open("rb") as source:
        path = source.readline(_HEAD_BYTES_MAX).decode().rstrip("\n")
        try:
            client.send_bytes("PUT", artifact_url(run_id, path), pieces(source))
        except AWAY:
            raise
        except ModelyardError as error:
            _log.warning("the server refused the file %s of run %s: %s", path, run_id, error)
            refusal = error
    file.unlink()
    return refusal


def upload_leftovers(client: Client, spool: Path) -> int:
    """Upload what programs that ended have left. Returns how many runs had something."""
    sent = 0
    for folder in sorted(spool.glob(f"*{FOLDER}")):
        try:
            held = _lock(folder)
        except BlockingIOError:
            continue
        with held:
            try:
                for file in _waiting(folder):
                    upload(client, folder.name.removesuffix(FOLDER), file)
            except AWAY:
                return sent
            _drop(folder)
        sent += 1
    return sent


def artifact_url(run_id: str, path: str) -> str:
    """The API's path of an artifact."""
    return f"/api/runs/{run_id}/artifacts/{quote(path)}"


def pieces(source: BinaryIO) -> Iterator[bytes]:
    """The rest of a file, piece by piece."""
    while piece := source.read(PIECE_BYTES):
        yield piece


def _waiting(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.name.isdecimal())


def _lock(folder: Path) -> BinaryIO:
    """The folder's lock; a program that dies gives it back. Raises BlockingIOError while another holds it."""
    held = os.fdopen(os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600), "r+b")
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        held.close()
        raise
    return held


def _drop(folder: Path) -> None:
    with suppress(OSError):
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()


def _sync(folder: Path) -> None:
    for path in (*_waiting(folder), folder):
        # What is gone meanwhile, the server has.
        with suppress(FileNotFoundError):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
