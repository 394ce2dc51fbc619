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


def table_of_frame(frame: Any) -> tuple[pa.Table, frozenset[str]]:
    """The columns of a frame, its index not being one, and those of them that hold floats, none of them NaN. Raises
    InvalidInput for a column that has no one type."""
    import pyarrow as pa  # heavy: imported late

    names = [name.decode() if isinstance(name, bytes) else str(name) for name in frame.columns]
    columns = [frame.iloc[:, place] for place in range(len(names))]
    table = pa.table([_column(series, name) for series, name in zip(columns, names, strict=True)], names)
    return table, frozenset(name for series, name in zip(columns, names, strict=True) if _is_float(series))


def _column(series: Any, name: str) -> pa.Array | pa.ChunkedArray:
    import numpy as np  # heavy: imported late
    import pyarrow as pa  # heavy: imported late

    if isinstance(series.dtype, np.dtype) and series.dtype.isnative:
        values = np.ascontiguousarray(series.to_numpy())
        if _is_float(series):
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


def _is_float(series: Any) -> bool:
    import numpy as np  # heavy: imported late

    return bool(series.dtype in (np.dtype(np.float32), np.dtype(np.float64)))


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
