"""A full disk, said as such wherever bytes are written."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from modelyard.kernel.errors import Unavailable

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""No space, no quota, or no file so large."""


@contextmanager
def full_disk(said: str, code: str, hint: str) -> Iterator[None]:
    """Turn the error of a full disk into Unavailable, which says what that means for whoever asked."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise Unavailable(said, code=code, hint=hint) from error
        raise
