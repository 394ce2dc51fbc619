"""What a store of blobs can do: bytes in, addressed by their content, bytes out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Protocol, runtime_checkable

from modelyard.kernel.errors import InvalidInput

_DIGEST = re.compile(r"[0-9a-f]{64}")
CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Blob:
    """Some bytes: their SHA-256 in 64 lower-case hex digits, and how many they are."""

    digest: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Removed:
    """What was removed."""

    blobs: int
    size_bytes: int


class BlobStore(Protocol):
    """Content-addressed bytes. An acknowledged `put` survives a crash; what was put never changes."""

    def put(
        self, source: BinaryIO | Iterable[bytes], *, size_bytes_max: int | None = None, durable: bool = True
    ) -> Blob:
        """Store a stream in bounded memory. Raises TooLarge past the cap, Unavailable on a full disk.

        When it raises, nothing is left behind. What is not `durable` survives a crash once `settle` has returned: for
        many small blobs that count only together.
        """
        ...

    def settle(self) -> None:
        """Make all that was put before survive a crash."""
        ...

    def open(self, digest: str, *, verify: bool = False) -> BinaryIO:
        """The bytes, to be closed by the caller. With `verify` their digest is checked before the first byte is given.

        Raises NotFound, or EngineError (`blob.corrupt`) where the bytes are no longer those that were put.
        """
        ...

    def get(self, digest: str, *, verify: bool = True) -> bytes:
        """All the bytes at once; for small blobs. Raises as `open` does."""
        ...

    def exists(self, digest: str) -> bool:
        """Whether the blob is here."""
        ...

    def size_bytes(self, digest: str) -> int:
        """Its length. Raises NotFound."""
        ...

    def delete(self, digest: str) -> bool:
        """Remove it; False where there was none."""
        ...

    def digests(self, prefix: str = "") -> Iterator[str]:
        """All digests that begin so (with none or two hex digits), in ascending order."""
        ...

    def written_at(self, digest: str) -> tuple[int, datetime] | None:
        """Its length and when it was last put, None where it is not here."""
        ...

    def remove(self, digests: Iterable[str], older_than: datetime) -> Removed:
        """Remove those of the blobs that were last put before the instant.

        Whoever puts the same bytes meanwhile, in this process or another, finds them there afterwards: a put comes
        before the look at a blob's time and renews it, or after the removal and brings it back.
        """
        ...

    def clear(self, older_than: datetime) -> int:
        """Remove unfinished writes that were last written to before the instant. Returns their bytes."""
        ...


@runtime_checkable
class SharedDisk(Protocol):
    """What a store can do whose blobs are files on a disk that other programs of its owner reach: bytes come and go by
    a link or a rename, which costs nothing a byte."""

    @property
    def root(self) -> Path:
        """The directory below which each blob lies at `kernel.paths.blob_path`."""
        ...

    def make_drop(self, drop_id: str, nonce: str) -> Path:
        """A private folder into which such a program puts files under the names of their digests.

        `nonce` lies beside it in a file of its name with `.nonce`: who can read that shares the disk.
        """
        ...

    def adopt(self, drop_id: str) -> list[Blob]:
        """Take all files of the folder as blobs, unread: whoever can write there could write to the blobs as well.

        Raises NotFound for an unknown folder, InvalidInput for a file that is none or has no digest
        for a name; then nothing was taken.
        """
        ...


def check_digest(digest: str) -> str:
    """The digest, if it has the form of one; it becomes part of a path. Raises InvalidInput."""
    if not _DIGEST.fullmatch(digest):
        raise InvalidInput(
            f"{digest[:80]!r} is not the digest of a blob",
            code="blob.digest_invalid",
            hint="a digest is a SHA-256 in 64 lower-case hex digits",
        )
    return digest


def chunks(source: BinaryIO | Iterable[bytes]) -> Iterator[bytes]:
    """A stream or an iterable of pieces, as pieces of bounded size."""
    read = getattr(source, "read", None)
    if read is None:
        yield from source
        return
    while piece := read(CHUNK_BYTES):
        yield piece
