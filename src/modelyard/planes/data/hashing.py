"""Hashes of values, the same on every machine and in every version of every library, and registers made of them.

A sketch of last year must merge with one of today, so the hash function is our own and named (`HASHED_BY`). All of it
is done on whole arrays: a value costs some nanoseconds.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    Hashes = np.ndarray[Any, np.dtype[np.uint64]]
    Positions = np.ndarray[Any, np.dtype[np.int64]]

HASHED_BY = "modelyard 1"
BUCKET_BITS = 11
REGISTERS = 1 << BUCKET_BITS
_REST_BITS = 64 - BUCKET_BITS
_RANKS = 64
_FIRST = 0x9E3779B97F4A7C15
_SECOND = 0xD6E8FEB86659FD93
LONG_TEXT_BYTES = 256


class Registers:
    """HyperLogLog registers that fill up: 2,048 of them, so that a count is wrong by 2.3 % (one standard error)."""

    def __init__(self) -> None:
        import numpy as np  # heavy: imported late

        # Which (bucket, rank) was seen; the greatest rank of each bucket is only looked up at the end.
        self._seen = np.zeros(REGISTERS * _RANKS, dtype=bool)

    def add(self, hashes: Hashes) -> None:
        """Count values by their hashes."""
        import numpy as np  # heavy: imported late

        rest = hashes & np.uint64((1 << _REST_BITS) - 1)
        # The exponent of a double is the place of the highest bit; 53 bits go into one without rounding.
        place = rest.astype(np.float64).view(np.int64)
        place >>= 52
        np.subtract(1023 + _REST_BITS, place, out=place)
        np.minimum(place, _REST_BITS + 1, out=place)
        bucket = (hashes >> np.uint64(_REST_BITS)).view(np.int64)
        bucket <<= 6
        place |= bucket
        self._seen[place] = True

    def to_bytes(self) -> bytes:
        """The greatest rank of each bucket, 0 where none fell into it."""
        import numpy as np  # heavy: imported late

        seen = self._seen.reshape(REGISTERS, _RANKS)
        greatest = (_RANKS - 1) - np.argmax(seen[:, ::-1], axis=1)
        return np.where(seen.any(axis=1), greatest, 0).astype(np.uint8).tobytes()


def hash_numbers(values: Any) -> Hashes:
    """Hashes of an array of integers or floats: equal numbers of one kind are hashed alike, in whatever width."""
    import numpy as np  # heavy: imported late

    if values.dtype.kind == "f":
        wide = values.astype(np.float64)
        wide += 0.0  # minus zero is zero
        wide[np.isnan(wide)] = np.nan
    else:
        wide = values.astype(np.int64)
    return _mixed(wide.view(np.uint64))


def hash_decimals(values: pa.Array) -> Hashes:
    """Hashes of a decimal128 array without nulls."""
    import numpy as np  # heavy: imported late

    start = values.offset * 2
    halves = np.frombuffer(values.buffers()[1], dtype=np.uint64)[start : start + 2 * len(values)].reshape(-1, 2)
    low = _mixed(halves[:, 0].copy())
    low ^= halves[:, 1]
    return _mixed(low)


def hash_texts(values: pa.Array) -> tuple[Hashes, Hashes]:
    """Hashes of a string or binary array without nulls, eight bytes of all texts at a time; and their first eight."""
    import numpy as np  # heavy: imported late

    words, offsets = _words(values)
    starts = offsets[:-1]
    lengths = np.diff(offsets)
    longest, shortest = int(lengths.max()), int(lengths.min())
    first = _masked(words, starts, lengths)
    hashes = lengths.view(np.uint64) * np.uint64(_SECOND)
    hashes ^= first
    hashes = _mixed(hashes)
    left: Positions | None = None
    for done in range(8, min(longest, LONG_TEXT_BYTES), 8):
        if shortest <= done:
            left = np.flatnonzero(lengths > done) if left is None else left[lengths[left] > done]
        if left is None:
            hashes ^= _masked(words, starts + done, lengths - done)
            hashes = _mixed(hashes)
        else:
            hashes[left] = _mixed(hashes[left] ^ _masked(words, starts[left] + done, lengths[left] - done))
    if longest > LONG_TEXT_BYTES:
        for place in np.flatnonzero(lengths > LONG_TEXT_BYTES).tolist():
            hashes[place] = _hash_of_long(values[place].as_buffer())
    return hashes, first


def _hash_of_long(text: pa.Buffer) -> int:
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def _words(values: pa.Array) -> tuple[Hashes, Positions]:
    """The bytes of all texts as a word of eight beginning at each of them, and where each text begins and ends."""
    import numpy as np  # heavy: imported late

    _, places, content = values.buffers()
    offsets = np.frombuffer(places, dtype=np.int32)[values.offset : values.offset + len(values) + 1].astype(np.int64)
    first, last = int(offsets[0]), int(offsets[-1])
    held = np.zeros(last - first + 8, dtype=np.uint8)
    if last > first:
        held[: last - first] = np.frombuffer(content, dtype=np.uint8, count=last - first, offset=first)
    words: Hashes = np.ndarray((last - first + 1,), dtype="<u8", buffer=held.data, strides=(1,))
    return words, offsets - first


def _masked(words: Hashes, starts: Positions, left: Positions) -> Hashes:
    """The words that begin at some places, with only so many of their bytes as belong to the text."""
    import numpy as np  # heavy: imported late

    masks = np.array([(1 << 8 * count) - 1 for count in range(9)], dtype=np.uint64)
    found: Hashes = words[starts]
    found &= masks[np.minimum(left, 8)]
    return found


def _mixed(words: Hashes) -> Hashes:
    """Words of which every bit depends on all bits of those before; the high ones best."""
    import numpy as np  # heavy: imported late

    mixed = words * np.uint64(_FIRST)
    mixed += np.uint64(_SECOND)  # nothing at all has a hash like others
    mixed ^= mixed >> np.uint64(32)
    mixed *= np.uint64(_SECOND)
    mixed ^= mixed >> np.uint64(29)
    return mixed
