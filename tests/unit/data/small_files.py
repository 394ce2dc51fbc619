"""Batches that each become one file, of few rows."""

from __future__ import annotations

import math

import pyarrow as pa

PER_FILE = 50


def batch(first: int, count: int = PER_FILE, **more: list[float | None]) -> pa.Table:
    """Rows with ids from the first on."""
    ids = list(range(first, first + count))
    return pa.table({"id": ids, "x": [math.sqrt(one) for one in ids], "s": [f"s{one % 5}" for one in ids]} | more)
