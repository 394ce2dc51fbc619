"""Blobs as files in a directory: `<two digits>/<digest>`, written aside and renamed, readable by their owner only."""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from modelyard.engines.blobs.base import CHUNK_BYTES, Blob, Removed, check_digest, chunks
from modelyard.kernel.disk import full_disk
from modelyard.kernel.errors import EngineError, InvalidInput, NotFound, TooLarge
from modelyard.kernel.home import write_private
from modelyard.kernel.ids import new_id
from modelyard.kernel.paths import blob_path, make_private, remove_older, safe_join, sync_directory, sync_filesystem
from modelyard.kernel.portions import portions

_INCOMING = "incoming"
_LOCK = "lock"
_AT_ONCE = 200
"""So many blobs are removed before those who put get their turn."""


class LocalBlobs:
    """A blob store in one directory of this machine. Safe for many threads and processes at once."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def root(self) -> Path:
        return self._root

    def put(
        self, source: BinaryIO | Iterable[bytes], *, size_bytes_max: int | None = None, durable: bool = True
    ) -> Blob:
        incoming = make_private(self._root / _INCOMING) / new_id()
        try:
            with _storage_errors():
                blob = self._receive(incoming, source, size_bytes_max, durable)
                final = self._path(blob.digest)
                # Also where the blob exists: the rename renews its time, so that a removal going on spares it.
                make_private(final.parent)
                with self._lock(fcntl.LOCK_SH):
                    incoming.replace(final)
                if durable:
                    sync_directory(final.parent)
        finally:
            with suppress(FileNotFoundError):
                incoming.unlink()
        return blob

    def settle(self) -> None:
        with _storage_errors():
            sync_filesystem(make_private(self._root))

    def make_drop(self, drop_id: str, nonce: str) -> Path:
        folder = make_private(self._drop(drop_id))
        write_private(_nonce_file(folder), nonce.encode())
        return folder

    def adopt(self, drop_id: str) -> list[Blob]:
        folder = self._drop(drop_id)
        digests = _dropped(folder, drop_id)
        adopted: list[Blob] = []
        with _storage_errors():
            for directory in {digest[:2] for digest in digests}:
                make_private(self._root / directory)
            box = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                # One directory after the other: the names of a directory are then changed while it is at hand.
                for some in portions(sorted(digests), _AT_ONCE):
                    with self._lock(fcntl.LOCK_SH):
                        adopted.extend(self._adopt_one(box, digest) for digest in some)
            finally:
                os.close(box)
            self.settle()
        with suppress(OSError):
            folder.rmdir()
            _nonce_file(folder).unlink()
        return adopted

    def _adopt_one(self, box: int, digest: str) -> Blob:
        status = os.stat(digest, dir_fd=box, follow_symlinks=False)
        # Its time is of now also where the blob was this very file already, and nothing is renamed.
        os.chmod(digest, stat.S_IMODE(status.st_mode) & ~0o222, dir_fd=box)
        os.replace(digest, f"{self._root}/{digest[:2]}/{digest}", src_dir_fd=box)
        return Blob(digest, status.st_size)

    def open(self, digest: str, *, verify: bool = False) -> BinaryIO:
        try:
            file = self._path(digest).open("rb")
        except FileNotFoundError:
            raise _missing(digest) from None
        if verify:
            try:
                _check_content(file, digest)
            except EngineError:
                file.close()
                raise
            file.seek(0)
        return file

    def get(self, digest: str, *, verify: bool = True) -> bytes:
        with self.open(digest) as file:
            content = file.read()
        if verify and hashlib.sha256(content).hexdigest() != digest:
            raise _corrupt(digest)
        return content

    def exists(self, digest: str) -> bool:
        return self._path(digest).is_file()

    def size_bytes(self, digest: str) -> int:
        try:
            return self._path(digest).stat().st_size
        except FileNotFoundError:
            raise _missing(digest) from None

    def delete(self, digest: str) -> bool:
        try:
            self._path(digest).unlink()
        except FileNotFoundError:
            return False
        return True

    def digests(self, prefix: str = "") -> Iterator[str]:
        for directory in sorted(self._root.glob(prefix or "[0-9a-f][0-9a-f]")):
            yield from sorted(entry.name for entry in directory.iterdir())

    def written_at(self, digest: str) -> tuple[int, datetime] | None:
        try:
            status = self._path(digest).stat()
        except FileNotFoundError:
            return None
        return status.st_size, datetime.fromtimestamp(self._written_s(status), UTC)

    def remove(self, digests: Iterable[str], older_than: datetime) -> Removed:
        blobs = size_bytes = 0
        for some in portions(digests, _AT_ONCE):
            with self._lock(fcntl.LOCK_EX):
                for digest in some:
                    removed = self._remove_older(self._path(digest), older_than)
                    blobs += removed is not None
                    size_bytes += removed or 0
        return Removed(blobs, size_bytes)

    def clear(self, older_than: datetime) -> int:
        size_bytes = 0
        for unfinished in (self._root / _INCOMING).glob("*"):
            if not unfinished.is_dir():
                size_bytes += self._remove_older(unfinished, older_than) or 0
        remove_older(self._root / _INCOMING, older_than)
        return size_bytes

    @contextmanager
    def _lock(self, kind: int) -> Iterator[None]:
        """Between processes too: many may give blobs their names at once, or one may remove some."""
        # Opened anew each time, since a lock belongs to the opening, and threads that share one share the lock.
        handle = os.open(make_private(self._root) / _LOCK, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, kind)
            yield
        finally:
            os.close(handle)

    def _remove_older(self, file: Path, older_than: datetime) -> int | None:
        """The size of the file removed, None where it stays or is gone already."""
        try:
            status = file.stat()
            if self._written_s(status) >= older_than.timestamp():
                return None
            file.unlink()
        except FileNotFoundError:
            return None
        return status.st_size

    def _written_s(self, status: os.stat_result) -> float:
        # A blob that came by a link keeps the time of its content; when the link was made shows in the other.
        return max(status.st_mtime, status.st_ctime)

    def _path(self, digest: str) -> Path:
        return blob_path(self._root, check_digest(digest))

    def _drop(self, drop_id: str) -> Path:
        return safe_join(self._root / _INCOMING, f"drop-{drop_id}")

    def _receive(
        self, file: Path, source: BinaryIO | Iterable[bytes], size_bytes_max: int | None, durable: bool
    ) -> Blob:
        digest = hashlib.sha256()
        size_bytes = 0
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as sink:
            for piece in chunks(source):
                size_bytes += len(piece)
                if size_bytes_max is not None and size_bytes > size_bytes_max:
                    raise TooLarge(
                        f"this is larger than the {size_bytes_max} bytes allowed here",
                        code="blob.too_large",
                        hint="split it, or ask for a higher limit",
                    )
                digest.update(piece)
                sink.write(piece)
            if durable:
                sink.flush()
                os.fsync(sink.fileno())
        return Blob(digest.hexdigest(), size_bytes)


def _dropped(folder: Path, drop_id: str) -> list[str]:
    """What lies in a dropbox. Raises NotFound for an unknown one, InvalidInput for what is no file or has no digest for
    a name."""
    try:
        with os.scandir(folder) as entries:
            names = []
            for entry in entries:
                if not entry.is_file(follow_symlinks=False):
                    raise InvalidInput(f"{entry.name[:80]!a} is no regular file", code="blob.drop_invalid")
                names.append(check_digest(entry.name))
            return names
    except FileNotFoundError:
        raise NotFound(
            f"there is no dropbox {drop_id[:64]!a}", code="blob.drop_not_found", hint="ask for one, and repeat"
        ) from None


def _nonce_file(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.nonce")


def _storage_errors() -> AbstractContextManager[None]:
    return full_disk(
        "the disk of the blob store is full; nothing was stored",
        code="blob.disk_full",
        hint="free some space and send it again",
    )


def _check_content(file: BinaryIO, digest: str) -> None:
    found = hashlib.sha256()
    while piece := file.read(CHUNK_BYTES):
        found.update(piece)
    if found.hexdigest() != digest:
        raise _corrupt(digest)


def _missing(digest: str) -> NotFound:
    return NotFound(f"there is no blob {digest}", code="blob.not_found")


def _corrupt(digest: str) -> EngineError:
    return EngineError(
        f"blob {digest} is damaged: its bytes no longer have this digest",
        code="blob.corrupt",
        hint="restore it from a backup, or put the same content again",
    )
