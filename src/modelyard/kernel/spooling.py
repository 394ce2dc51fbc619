"""Bodies of requests that are needed whole: received into a private file, in bounded memory, gone afterwards."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path

import anyio

from modelyard.kernel.disk import full_disk
from modelyard.kernel.errors import TooLarge

_PIECE_BYTES = 1024 * 1024


@asynccontextmanager
async def spooled(chunks: AsyncIterator[bytes], file: Path, bytes_max: int, too_large: TooLarge) -> AsyncIterator[Path]:
    """The chunks in a new file. Raises `too_large` past so many bytes, Unavailable (`spool.disk_full`) on a full disk;
    the file is gone in any case."""
    received = 0
    try:
        with spool_full():
            async with await anyio.open_file(file, "xb") as sink:
                async for piece in _gathered(chunks):
                    received += len(piece)
                    if received > bytes_max:
                        raise too_large
                    await sink.write(piece)
        yield file
    finally:
        file.unlink(missing_ok=True)


def spool_full() -> AbstractContextManager[None]:
    """What is said where the disk fills up on which a body is received."""
    return full_disk(
        "the server's disk is full, so that what was sent could not be received; nothing was changed",
        code="spool.disk_full",
        hint="free some space on the server, or send less at a time, and repeat",
    )


async def _gathered(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The chunks in larger pieces: each goes to a thread and back."""
    held: list[bytes] = []
    size_bytes = 0
    async for chunk in chunks:
        held.append(chunk)
        size_bytes += len(chunk)
        if size_bytes >= _PIECE_BYTES:
            yield b"".join(held)
            held, size_bytes = [], 0
    yield b"".join(held)
