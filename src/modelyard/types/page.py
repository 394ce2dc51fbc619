"""A page of a listing."""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

T = TypeVar("T")


class Page(msgspec.Struct, Generic[T], frozen=True):
    """Items and, where there are more, the opaque token that continues after them."""

    items: list[T]
    next: str | None = None
