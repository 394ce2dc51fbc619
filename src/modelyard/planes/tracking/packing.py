"""Columns of one key, packed small: settled segments (`MYS2`) and sketches of them (`MYK1`), deltas, deflated.

numpy is imported late: writing metrics never needs it, and a server that nobody asks for a chart should stay small.
"""

from __future__ import annotations

import struct
import zlib
from array import array
from typing import TYPE_CHECKING, Any

from modelyard.planes.tracking import points
from modelyard.planes.tracking.history import History

if TYPE_CHECKING:
    import numpy as np

_SETTLED, _SKETCH = b"MYS2", b"MYK1"
_COUNT = struct.Struct("<4sI")


def pack(history: History) -> bytes:
    """The points of one key as a settled segment or, where they have weights, as a sketch."""
    import numpy as np  # heavy: imported late

    columns = [
        history.values.astype("<f8").tobytes(),
        np.diff(history.steps, prepend=0).astype("<i8").tobytes(),
        np.diff(history.times, prepend=0).astype("<i8").tobytes(),
    ]
    if history.weights is not None:
        columns.append(history.weights.astype("<i8").tobytes())
    name = _SETTLED if history.weights is None else _SKETCH
    return _COUNT.pack(name, len(history)) + zlib.compress(b"".join(columns), 1)


def pack_short(histories: dict[str, History]) -> bytes:
    """Histories of several keys, in the order of the keys, as one segment of the batch form."""
    columns: tuple[Any, Any, Any] = (array("d"), array("q"), array("q"))
    for history in histories.values():
        for column, source in zip(columns, history[:3], strict=True):
            column.frombytes(source.tobytes())
    directory = [(key, len(history)) for key, history in histories.items()]
    return points.pack_columns(directory, *columns)


def unpack(body: bytes, key: str) -> History | None:
    """The points of a key in a segment or sketch of any form; None where it has none. Raises EngineError for damage."""
    import numpy as np  # heavy: imported late

    if body[:4] in (_SETTLED, _SKETCH):
        return _unpacked(body)
    found = points.unpack(body, key)
    if found is None:
        return None
    return History(
        np.frombuffer(found.values, np.float64),
        np.frombuffer(found.steps, np.int64),
        np.frombuffer(found.times, np.int64),
    )


def unpack_all(body: bytes) -> dict[str, History]:
    """All points of a segment of the batch form, by key. Raises EngineError for damage."""
    import numpy as np  # heavy: imported late

    directory, offset = points.opened(body)
    total = sum(count for _, count in directory)
    values = np.frombuffer(body, "<f8", total, offset)
    steps = np.frombuffer(body, "<i8", total, offset + 8 * total)
    times = np.frombuffer(body, "<i8", total, offset + 16 * total)
    found, before = {}, 0
    for key, count in directory:
        part = slice(before, before + count)
        found[key] = History(values[part], steps[part], times[part])
        before += count
    return found


def _unpacked(body: bytes) -> History:
    try:
        name, count = _COUNT.unpack_from(body)
        columns = zlib.decompress(body[_COUNT.size :])
        width = 4 if name == _SKETCH else 3
        if len(columns) != 8 * width * count:
            raise points.damaged()
    except (zlib.error, struct.error) as error:
        raise points.damaged() from error
    return _columns(columns, count, weighted=width == 4)


def _columns(columns: bytes, count: int, *, weighted: bool) -> History:
    import numpy as np  # heavy: imported late

    def integers(place: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        return np.frombuffer(columns, "<i8", count, 8 * place * count).astype(np.int64, copy=False)

    values = np.frombuffer(columns, "<f8", count, 0).astype(np.float64, copy=False)
    return History(values, np.cumsum(integers(1)), np.cumsum(integers(2)), integers(3) if weighted else None)
