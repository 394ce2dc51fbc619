"""Files on this machine's disk as a source has them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from modelyard.sdk.imports.source import SourceFile, Unreachable

PIECE_BYTES = 1024 * 1024


def local_path(uri: str) -> Path | None:
    """The path that a plain path or a `file:` URI names; None for what is elsewhere."""
    parts = urlsplit(uri)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    # A drive letter is no scheme, but such a disk is not here either.
    return Path(uri) if not parts.scheme and uri else None


def files_below(folder: Path) -> Sequence[SourceFile]:
    """All regular files below a folder, by path; none where it is not there. Links are not followed."""
    if not folder.is_dir():
        return []
    return [
        SourceFile(one.relative_to(folder).as_posix(), one.stat().st_size)
        for one in sorted(folder.rglob("*"))
        if one.is_file() and not one.is_symlink()
    ]


@contextmanager
def pieces_of(file: Path) -> Iterator[Iterator[bytes]]:
    """The bytes of a file in pieces. Raises Unreachable."""
    try:
        opened = file.open("rb")
    except OSError as error:
        raise Unreachable(f"{file} cannot be read: {error.strerror}") from error
    with opened:
        yield iter(lambda: opened.read(PIECE_BYTES), b"")


@contextmanager
def in_memory(body: bytes) -> Iterator[Iterator[bytes]]:
    """Bytes that are no file, as one piece."""
    yield iter([body])
