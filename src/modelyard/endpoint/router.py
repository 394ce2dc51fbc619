"""Which variant answers: by weight, and always the same one for the same key.

Rendezvous hashing: each variant draws a number from the hash of key and name, and the best weighted one wins. So the
choice needs no state, is equal in every replica, and a change of one weight moves keys to or from that variant only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from hashlib import blake2b

from modelyard.kernel.errors import InvalidInput

_SPAN = float(2**64)


class Router:
    """Chooses among named variants with relative weights."""

    def __init__(self, weights: Sequence[tuple[str, float]]) -> None:
        names = [name for name, _ in weights]
        if len(set(names)) != len(names):
            raise InvalidInput(f"two variants have one name: {', '.join(names)}", code="endpoint.variant_twice")
        if any(not math.isfinite(weight) or weight < 0 for _, weight in weights):
            raise InvalidInput("a weight is a number of 0 or more", code="endpoint.weight_invalid")
        self._choices = [(name, weight) for name, weight in weights if weight > 0]
        if not self._choices:
            raise InvalidInput(
                "no variant has a weight above 0, so nothing could answer",
                code="endpoint.weight_invalid",
                hint="give at least one variant a weight above 0",
            )

    def choose(self, key: str) -> str:
        """The variant for a key."""
        if len(self._choices) == 1:
            return self._choices[0][0]
        return max(self._choices, key=lambda choice: _score(key, *choice))[0]


def _score(key: str, name: str, weight: float) -> float:
    digest = blake2b(f"{len(name)}:{name}{key}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    # Strictly between 0 and 1, so that the logarithm is finite and below 0.
    drawn = (int.from_bytes(digest, "big") + 0.5) / _SPAN
    return weight / -math.log(min(drawn, 1.0 - 2**-53))
