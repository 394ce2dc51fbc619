"""A set of digests that is larger than memory should hold: written aside by first byte, looked at a part at a time."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from modelyard.kernel.paths import make_private

PARTS = 256
_DIGEST_BYTES = 32
_HELD_DIGESTS_MAX = 250_000


class Marks:
    """The digests that planes keep. `folder` is empty, and whoever made it removes it."""

    def __init__(self, folder: Path) -> None:
        self._folder = make_private(folder)
        self._held: dict[int, bytearray] = {}
        self._count = 0

    def add(self, digests: Iterable[str]) -> None:
        """Note digests. What has not the form of one names no blob, and is passed over."""
        for digest in digests:
            if len(digest) != 2 * _DIGEST_BYTES:
                continue
            raw = bytes.fromhex(digest)
            self._held.setdefault(raw[0], bytearray()).extend(raw)
            self._count += 1
            if self._count >= _HELD_DIGESTS_MAX:
                self._put_aside()
        self._put_aside()

    def part(self, first: int) -> frozenset[bytes]:
        """The digests whose first byte is this."""
        file = self._folder / f"{first:02x}"
        if not file.exists():
            return frozenset()
        raw = file.read_bytes()
        return frozenset(raw[at : at + _DIGEST_BYTES] for at in range(0, len(raw), _DIGEST_BYTES))

    def _put_aside(self) -> None:
        for first, raw in self._held.items():
            with (self._folder / f"{first:02x}").open("ab") as file:
                file.write(raw)
        self._held.clear()
        self._count = 0
