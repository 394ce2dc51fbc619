"""Identifiers: UUIDv7 (RFC 9562) written as 32 hex digits: they sort by time, and MLflow's clients accept them."""

from __future__ import annotations

import os
import re
import threading
import time

_HEX32 = re.compile(r"[0-9a-f]{32}")
_lock = threading.Lock()
_last = 0


def new_id() -> str:
    """A new UUIDv7. Within one process ids are strictly increasing, even when the clock stands still or goes back."""
    global _last
    # 48 bits of milliseconds and 12 bits of sub-millisecond fraction (RFC 9562, method 3) form one counter.
    ticks = (time.time_ns() // 1_000_000 << 12) | (time.time_ns() % 1_000_000) * 4096 // 1_000_000
    with _lock:
        _last = ticks = max(ticks, _last + 1)
    milliseconds, fraction = ticks >> 12, ticks & 0xFFF
    tail = int.from_bytes(os.urandom(8), "big") & ((1 << 62) - 1)
    value = (milliseconds << 80) | (0x7 << 76) | (fraction << 64) | (0b10 << 62) | tail
    return f"{value:032x}"


def is_id(text: str) -> bool:
    """Whether the text has the form of an id."""
    return _HEX32.fullmatch(text) is not None
