"""Logged predictions as an Arrow table: one row per predicted row, `input.<name>` and `output.<name>` as columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from modelyard.engines.models.base import NUMPY_TYPES
from modelyard.types.serving import LoggedColumn, PredictionRecord

if TYPE_CHECKING:
    import pyarrow as pa

EXPANDED_MAX = 16
"""A tensor of so many values per row becomes as many columns (`output.probabilities.1`); of more, a list."""

INPUT = "input."
OUTPUT = "output."


def groups(records: Iterable[PredictionRecord]) -> Iterator[list[PredictionRecord]]:
    """Neighbouring records of one form: the same model version, and the same columns."""
    group: list[PredictionRecord] = []
    form: object = None
    for record in records:
        here = (
            record.model,
            record.version,
            [(one.name, one.datatype, one.shape[1:]) for one in (*record.inputs, *record.outputs)],
        )
        if group and here != form:
            yield group
            group = []
        form = here
        group.append(record)
    if group:
        yield group


def to_table(records: Sequence[PredictionRecord]) -> pa.Table:
    """The table of records of one form."""
    import pyarrow as pa  # heavy: imported late

    instant = pa.timestamp("us", tz="UTC")
    columns: dict[str, Any] = {
        "id": pa.array([one for record in records for one in _ids(record)], pa.string()),
        "event_time": pa.array([one for record in records for one in _event_times(record)], instant),
        "at": pa.array([record.at_us for record in records for _ in range(record.rows)], instant),
        "request_id": _repeated(records, [record.request_id for record in records], pa.string()),
        "row": pa.array([row for record in records for row in range(record.rows)], pa.int32()),
        "model": _repeated(records, [record.model for record in records], pa.string()),
        "version": _repeated(records, [record.version for record in records], pa.int64()),
        "digest": _repeated(records, [record.digest for record in records], pa.string()),
        "variant": _repeated(records, [record.variant for record in records], pa.string()),
        "latency_us": _repeated(records, [record.latency_us for record in records], pa.int64()),
    }
    rows = [record.rows for record in records]
    for prefix, part in ((INPUT, "inputs"), (OUTPUT, "outputs")):
        for at, first in enumerate(getattr(records[0], part)):
            tensors = [getattr(record, part)[at] for record in records]
            columns |= _columns(prefix + first.name, tensors, rows)
    return pa.table(columns)


def _ids(record: PredictionRecord) -> Sequence[str]:
    return record.ids if record.ids is not None else [f"{record.request_id}:{row}" for row in range(record.rows)]


def _event_times(record: PredictionRecord) -> Sequence[int]:
    return record.event_times_us if record.event_times_us is not None else [record.at_us] * record.rows


def _repeated(records: Sequence[PredictionRecord], values: Sequence[Any], kind: Any) -> Any:
    import pyarrow as pa  # heavy: imported late

    return pa.array(
        [value for record, value in zip(records, values, strict=True) for _ in range(record.rows)], type=kind
    )


def _columns(name: str, tensors: Sequence[LoggedColumn], rows: Sequence[int]) -> dict[str, Any]:
    import numpy as np  # heavy: imported late
    import pyarrow as pa  # heavy: imported late

    arrays = [_per_row(tensor, count) for tensor, count in zip(tensors, rows, strict=True)]
    whole = np.concatenate(arrays)
    kind = _stored_type(tensors[0].datatype)
    width = whole.shape[1]

    def stored(values: Any) -> Any:
        # A missing number travels as NaN; in a table it is what SQL counts as missing.
        return pa.array(np.ascontiguousarray(values), from_pandas=True).cast(kind)

    if width == 1:
        return {name: stored(whole[:, 0])}
    if width <= EXPANDED_MAX:
        return {f"{name}.{at}": stored(whole[:, at]) for at in range(width)}
    return {name: pa.FixedSizeListArray.from_arrays(stored(whole.reshape(-1)), width).cast(pa.list_(kind))}


def _stored_type(datatype: str) -> Any:
    """The type that a table holds a tensor's values in: tables know neither unsigned numbers nor half floats."""
    import pyarrow as pa  # heavy: imported late

    match datatype:
        case "BYTES":
            return pa.string()
        case "FP16":
            return pa.float32()
        case "UINT8" | "UINT16" | "UINT32":
            return pa.int64()
        case "UINT64":
            return pa.decimal128(20)
    return pa.type_for_alias(NUMPY_TYPES[datatype])


def _per_row(tensor: LoggedColumn, rows: int) -> Any:
    """A tensor with a line per row; one that does not count rows stands in each of them."""
    import numpy as np  # heavy: imported late

    if isinstance(tensor.data, bytes):
        flat = np.frombuffer(tensor.data, np.dtype(NUMPY_TYPES[tensor.datatype]).newbyteorder("<"))
    else:
        flat = np.array(tensor.data, object)
    if tensor.shape[:1] == [rows]:
        return flat.reshape(rows, -1)
    return np.broadcast_to(flat.reshape(1, -1), (rows, flat.size))
