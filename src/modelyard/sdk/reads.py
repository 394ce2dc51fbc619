"""Who wants to know which datasets this program reads: the runs that go on, each for the thread that started it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

Listener = Callable[[str, int, Sequence[str] | None], None]
"""Told of a read: the dataset, its version, and the columns that were named (None: all)."""
_listening: list[tuple[int, Listener]] = []
_lock = threading.Lock()


def listen(listener: Listener) -> None:
    """Tell it what this thread reads from now on."""
    with _lock:
        _listening.append((threading.get_ident(), listener))


def stop(listener: Listener) -> None:
    """Tell it no more."""
    with _lock:
        _listening[:] = [one for one in _listening if one[1] != listener]


def listener() -> Listener | None:
    """Whom a read of this thread concerns: the newest that listens to it, else the only one that there is."""
    here = threading.get_ident()
    with _lock:
        of_thread = [one for thread, one in _listening if thread == here]
        if of_thread:
            return of_thread[-1]
        return _listening[0][1] if len(_listening) == 1 else None
