"""A pandas frame as an Arrow table, in which NaN and NaT are nulls, with the values where they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelyard.kernel.errors import InvalidInput

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

_SAID_MAX = 300
_NAT = -(2**63)


def table_of_frame(frame: Any) -> pa.Table:
    """The columns of a frame; its index is a name for the row and not one of them. Raises InvalidInput for a column
    that has no one type."""
    import pyarrow as pa  # heavy: imported late

    names = [name.decode() if isinstance(name, bytes) else str(name) for name in frame.columns]
    return pa.table([_column(frame.iloc[:, place], name) for place, name in enumerate(names)], names)


def _column(series: Any, name: str) -> pa.Array | pa.ChunkedArray:
    import numpy as np  # heavy: imported late
    import pyarrow as pa  # heavy: imported late

    if isinstance(series.dtype, np.dtype) and series.dtype.isnative:
        values = np.ascontiguousarray(series.to_numpy())
        if series.dtype in (np.float32, np.float64):
            return _unless_missing(values, values == values, pa.from_numpy_dtype(series.dtype))
        if series.dtype.kind == "M":
            return _unless_missing(values, values.view(np.int64) != _NAT, pa.from_numpy_dtype(series.dtype))
        if series.dtype.kind == "b":
            return pa.Array.from_buffers(pa.bool_(), len(values), [None, _packed(values)])
    try:
        return pa.array(series, from_pandas=True)
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        raise InvalidInput(
            f"the frame is no table: column '{name}': {' '.join(str(error).split())[:_SAID_MAX]}",
            code="dataset.not_tabular",
            hint="give each column one type",
        ) from error


def _unless_missing(values: npt.NDArray[Any], present: npt.NDArray[np.bool_], kind: pa.DataType) -> pa.Array:
    """The values as they lie in memory. Arrow's own way to leave out what is missing takes ten times as long."""
    import numpy as np  # heavy: imported late
    import pyarrow as pa  # heavy: imported late

    mask = None if present.all() else _packed(present)
    return pa.Array.from_buffers(kind, len(values), [mask, pa.py_buffer(values.view(np.uint8))])


def _packed(flags: npt.NDArray[np.bool_]) -> pa.Buffer:
    import numpy as np  # heavy: imported late
    import pyarrow as pa  # heavy: imported late

    return pa.py_buffer(np.packbits(flags, bitorder="little"))
