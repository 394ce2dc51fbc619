"""The nouns of storage: what a collection of blobs that nothing names found and freed."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import Meta, Struct

GRACE_S = 86_400


class Collect(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A collection that is asked for. `grace_s`: for how long nothing must have named or written a blob before it is
    removed; longer than any write takes. `dry_run` removes and notes nothing."""

    dry_run: bool = False
    grace_s: Annotated[int, Meta(ge=0, le=366 * 86_400)] = GRACE_S


class Collection(Struct, frozen=True, kw_only=True):
    """What a collection found. `freed`: blobs that were removed, or would be. `waiting`: blobs that nothing names, and
    that a collection removes once the grace is over. `young`: put so lately that whoever put them may still name them.
    `unfinished_bytes`: of uploads that broke off."""

    at: datetime
    dry_run: bool
    grace_s: int
    blobs: int
    freed: int
    freed_bytes: int
    waiting: int
    waiting_bytes: int
    young: int
    unfinished_bytes: int
