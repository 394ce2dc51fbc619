"""DuckDB databases that are lent to one user after the other, since opening one takes 20 ms.

Only those are lent again whose whole configuration is locked and which can read no file: nothing that a SELECT can do
changes them, and what is provided is known to the connection of the one who provides it.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb

_KEPT_MAX = 2

_kept: list[tuple[Hashable, duckdb.DuckDBPyConnection]] = []
_lock = threading.Lock()


@contextmanager
def lent(kind: Hashable, opened: Callable[[], duckdb.DuckDBPyConnection]) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database of this kind that nobody else has, `opened` where none is free. It is kept for the next one, unless
    an error ends the use of it: who knows what is left then."""
    database = _taken(kind) or opened()
    try:
        yield database
    except BaseException:
        database.close()
        raise
    with _lock:
        _kept.append((kind, database))
        too_many = [one for _, one in _kept[:-_KEPT_MAX]]
        del _kept[:-_KEPT_MAX]
    for one in too_many:
        one.close()


def _taken(kind: Hashable) -> duckdb.DuckDBPyConnection | None:
    with _lock:
        for place, (held, database) in enumerate(_kept):
            if held == kind:
                del _kept[place]
                return database
    return None


def _close() -> None:
    with _lock:
        closing = [database for _, database in _kept]
        _kept.clear()
    for one in closing:
        one.close()


def _forget() -> None:
    """In a forked child the threads of a database are missing, and closing it would end the child by a fault."""
    global _lock
    _lock = threading.Lock()
    for _, database in _kept:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(database))
    _kept.clear()


atexit.register(_close)
os.register_at_fork(after_in_child=_forget)
