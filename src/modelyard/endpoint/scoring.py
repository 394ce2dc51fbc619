"""`python -m modelyard.endpoint.scoring FOLDER`: let a model say its scores for rows, as a job of the platform.

The folder holds `spec.json`, the model's files and `features.arrow`; the scores go to `scores.arrow`, in the order of
the rows. Labels are not in it: who made the model may have written code that is loaded with it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from modelyard.engines.models.base import NUMPY_TYPES
from modelyard.engines.models.loading import open_model
from modelyard.kernel.errors import InvalidInput, ModelyardError
from modelyard.types.registry import ScoringSpec

if TYPE_CHECKING:
    import pyarrow as pa

    from modelyard.engines.models.base import Array, LoadedModel
    from modelyard.types.serving import TensorSpec

SPEC, MODEL, FEATURES, SCORES = "spec.json", "model", "features.arrow", "scores.arrow"
ROWS_AT_ONCE = 8_192


def score(folder: Path) -> int:
    """Write the scores of all rows. Returns how many. Raises InvalidInput for columns that do not fit the model."""
    import pyarrow as pa

    spec = msgspec.json.decode((folder / SPEC).read_bytes(), type=ScoringSpec)
    model = open_model(folder / MODEL, trusted=spec.trusted)
    rows = 0
    try:
        schema = pa.schema([("score", pa.float64())])
        partial = folder / f"{SCORES}.partial"
        with pa.memory_map(str(folder / FEATURES)) as source, pa.OSFile(str(partial), "wb") as sink:
            reader = pa.ipc.open_stream(source)
            with pa.ipc.new_stream(sink, schema) as writer:
                for batch in reader:
                    for start in range(0, batch.num_rows, ROWS_AT_ONCE):
                        some = batch.slice(start, ROWS_AT_ONCE)
                        found = model.predict(_columns(some, model.inputs, spec.features))
                        scores = _scores(found, model, spec.output, some.num_rows)
                        writer.write_batch(pa.record_batch([pa.array(scores, pa.float64())], schema=schema))
                        rows += some.num_rows
        partial.replace(folder / SCORES)
    finally:
        model.close()
    return rows


def _columns(batch: pa.RecordBatch, inputs: Sequence[TensorSpec], features: Sequence[str]) -> dict[str, Array]:
    import numpy as np

    wide = inputs[0].shape if len(inputs) == 1 else []
    if len(wide) == 2 and inputs[0].name not in batch.schema.names:
        # One matrix for all features, as scikit-learn's converter makes it by default: they say in which order.
        if wide[1] not in (-1, len(features)) or not features:
            raise InvalidInput(
                f"the model takes one matrix of {wide[1]} columns, and {len(features)} features are named",
                code="scoring.features",
                hint="name the features in the model's order with --feature",
            )
        kind = np.dtype(NUMPY_TYPES[inputs[0].datatype])
        return {inputs[0].name: np.stack([_array(batch, name, kind) for name in features], axis=1)}
    return {one.name: _input(batch, one) for one in inputs if one.required or one.name in batch.schema.names}


def _input(batch: pa.RecordBatch, spec: TensorSpec) -> Array:
    import numpy as np

    found = _array(batch, spec.name, np.dtype(NUMPY_TYPES[spec.datatype]))
    return found.reshape(-1, 1) if len(spec.shape) == 2 and spec.shape[1] in (1, -1) else found


def _array(batch: pa.RecordBatch, name: str, kind: Any) -> Array:
    if name not in batch.schema.names:
        raise InvalidInput(
            f"the model takes '{name[:80]}', and the dataset has no such column",
            code="scoring.features",
            hint=f"its columns are {', '.join(batch.schema.names)[:300]}",
        )
    column: Any = batch.column(name)
    if kind.kind == "O":
        column = column.cast("string")
    found: Array = column.to_numpy(zero_copy_only=False)
    try:
        return found.astype(kind)
    except (TypeError, ValueError) as error:
        raise InvalidInput(
            f"column '{name[:80]}' of the dataset is no {kind} as the model takes it: {error}", code="scoring.features"
        ) from error


def _scores(found: dict[str, Array], model: LoadedModel, output: str, rows: int) -> Array:
    """One number a row: the named output, else the last that holds fractions; of two classes the second's."""
    name = output or next((one for one in reversed(found) if found[one].dtype.kind == "f"), next(iter(found), ""))
    if name not in found:
        raise InvalidInput(
            f"the model gives no '{name[:80]}'", code="scoring.output", hint=f"it gives {', '.join(found)[:300]}"
        )
    values = found[name]
    if values.ndim == 2 and values.shape[1] in (1, 2):
        values = values[:, -1]
    if values.ndim != 1 or len(values) != rows or values.dtype.kind not in "fiub":
        raise InvalidInput(
            f"output '{name[:80]}' of {model.platform} is no number a row: shape {values.shape}, {values.dtype}",
            code="scoring.output",
            hint="name the output that is the score of the positive class with --output",
        )
    return values.astype("float64")


def main() -> int:
    """Run as a program. A failure is told on standard error, where the job keeps it."""
    try:
        rows = score(Path(sys.argv[1]))
    except ModelyardError as error:
        sys.stderr.write(f"{error.message}{f' ({error.hint})' if error.hint else ''}\n")
        return 1
    sys.stdout.write(f"scored {rows} rows\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
