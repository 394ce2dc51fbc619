"""Many things a portion at a time: what one statement, one lock or one transaction should hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def portions(items: Iterable[T], most: int) -> Iterator[list[T]]:
    """The items in their order, in lists of at most so many; none of them is empty."""
    rest = iter(items)
    while portion := list(islice(rest, most)):
        yield portion
