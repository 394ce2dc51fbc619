"""What the registry asks of whoever uses versions, by a function that the composition root hands in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from modelyard.kernel.database import Transaction

Uses = Callable[[Transaction, str], Mapping[int, Sequence[str]]]
"""The versions of a model that are in use now, each with what uses it (such as `endpoint:delay`)."""
