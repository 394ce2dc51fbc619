"""The digests of many files at once, remembered: a file whose size, time and inode stayed is not read again."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from modelyard.kernel.errors import InvalidInput
from modelyard.kernel.paths import make_private

PIECE_BYTES = 1024 * 1024
# A file that was written this shortly before may be written again within the tick of its time: not remembered.
_SETTLED_NS = 2_000_000_000
# Below it the buffer that `file_digest` makes costs more than the file.
_SMALL_BYTES = 64 * 1024
_BATCH_FILES, _BATCH_BYTES = 256, 32 * 1024 * 1024
# So many digests are remembered at once: each time is a transaction.
_KEPT_AT_ONCE = 4_096
_SCHEMA = """CREATE TABLE IF NOT EXISTS digests (
  path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, inode INTEGER, digest TEXT) WITHOUT ROWID"""
Progress = Callable[[int, int], None]
"""Called with how many files and bytes have been dealt with so far."""


class Found(NamedTuple):
    """A file on this machine: where it is, and what identifies its present content."""

    file: str
    path: str
    size_bytes: int
    mtime_ns: int
    inode: int
    mode: int

    @property
    def executable(self) -> bool:
        """Whether its owner may run it."""
        return bool(self.mode & 0o100)


class Hashed(NamedTuple):
    """A file with the SHA-256 of its bytes."""

    found: Found
    digest: str


def walk(root: Path) -> list[Found]:
    """All regular files below a folder, by their path relative to it. Raises InvalidInput for a link that is no file of
    the folder, naming it: what it points to would not be what another machine finds."""
    found: list[Found] = []
    folders = [(os.fspath(root.absolute()), "")]
    while folders:
        folder, prefix = folders.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_symlink():
                    raise InvalidInput(
                        f"{entry.path} is a symbolic link, which a dataset cannot hold",
                        code="files.link",
                        hint="replace it by the file itself, or leave it out",
                    )
                if entry.is_dir():
                    folders.append((entry.path, f"{prefix}{entry.name}/"))
                elif entry.is_file():
                    found.append(_found(entry.path, prefix + entry.name, entry.stat()))
    found.sort(key=lambda one: one.path)
    return found


def single(file: Path) -> Found:
    """One file under its own name."""
    return _found(os.fspath(file.absolute()), file.name, file.stat())


def unchanged(found: Found) -> bool:
    """Whether the file is still what it was when it was found."""
    status = os.stat(found.file)
    return (status.st_size, status.st_mtime_ns, status.st_ino) == (found.size_bytes, found.mtime_ns, found.inode)


class DigestCache:
    """Digests of files by path, size, time and inode, in a file of this user's."""

    def __init__(self, file: Path) -> None:
        make_private(file.parent)
        self._connection = sqlite3.connect(file, timeout=30, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=OFF")
        self._connection.execute(_SCHEMA)

    def known(self, found: Sequence[Found]) -> dict[str, str]:
        """Digest by path of those that have not changed since they were hashed."""
        if not found:
            return {}
        below = os.path.commonpath([os.path.dirname(one.file) for one in found])
        rows = self._connection.execute(
            "SELECT path, size, mtime_ns, inode, digest FROM digests WHERE path >= ? AND path < ?",
            (below, below + "\U0010ffff"),
        )
        kept = {path: (size, mtime_ns, inode, digest) for path, size, mtime_ns, inode, digest in rows}
        digests = {}
        for one in found:
            row = kept.get(one.file)
            if row is not None and row[:3] == (one.size_bytes, one.mtime_ns, one.inode):
                digests[one.path] = row[3]
        return digests

    def keep(self, hashed: Iterable[Hashed]) -> None:
        """Remember digests."""
        before = time.time_ns() - _SETTLED_NS
        rows = [
            (one.file, one.size_bytes, one.mtime_ns, one.inode, digest)
            for one, digest in hashed
            if one.mtime_ns < before
        ]
        with self._connection:
            self._connection.executemany("INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?, ?)", rows)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def hash_files(found: Sequence[Found], cache_file: Path, progress: Progress | None = None) -> list[Hashed]:
    """Digests of files, in their order."""
    digests = {one.path: digest for batch in hash_batches(found, cache_file, progress) for one, digest in batch}
    return [Hashed(one, digests[one.path]) for one in found]


def hash_batches(
    found: Sequence[Found], cache_file: Path, progress: Progress | None = None
) -> Iterator[Sequence[Hashed]]:
    """Digests of files as they become known, in any order: first what is remembered, then what is read, large files by
    as many threads as there are cores."""
    with closing(DigestCache(cache_file)) as cache:
        known = cache.known(found)
        remembered = [Hashed(one, known[one.path]) for one in found if one.path in known]
        done_files, done_bytes = 0, 0
        fresh: list[Hashed] = []
        try:
            for batch in chain([remembered], _hashed([one for one in found if one.path not in known])):
                yield batch
                fresh.extend(batch if batch is not remembered else ())
                if len(fresh) >= _KEPT_AT_ONCE:
                    cache.keep(fresh)
                    fresh.clear()
                done_files += len(batch)
                done_bytes += sum(one.size_bytes for one, _ in batch)
                if progress is not None:
                    progress(done_files, done_bytes)
        finally:
            cache.keep(fresh)


def digest_of(file: str) -> str:
    """The SHA-256 of a file's bytes."""
    with open(file, "rb", buffering=0) as source:
        first = source.read(_SMALL_BYTES)
        if len(first) < _SMALL_BYTES:
            return hashlib.sha256(first).hexdigest()
        source.seek(0)
        return hashlib.file_digest(source, "sha256").hexdigest()


def _hashed(unknown: Sequence[Found]) -> Iterator[list[Hashed]]:
    small = [one for one in unknown if one.size_bytes < _SMALL_BYTES]
    large = [one for one in unknown if one.size_bytes >= _SMALL_BYTES]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        ahead = pool.map(_hash_batch, list(_batches(large)))
        # Of small files the interpreter is the cost: threads do not share it, and would be in each other's way.
        for batch in _batches(small):
            yield _hash_batch(batch)
        yield from ahead


def _batches(unknown: Sequence[Found]) -> Iterator[list[Found]]:
    batch: list[Found] = []
    size_bytes = 0
    for one in unknown:
        batch.append(one)
        size_bytes += one.size_bytes
        if len(batch) == _BATCH_FILES or size_bytes >= _BATCH_BYTES:
            yield batch
            batch, size_bytes = [], 0
    if batch:
        yield batch


def _hash_batch(batch: Sequence[Found]) -> list[Hashed]:
    return [Hashed(one, digest_of(one.file)) for one in batch]


def _found(file: str, path: str, status: os.stat_result) -> Found:
    return Found(file, path, status.st_size, status.st_mtime_ns, status.st_ino, status.st_mode)
