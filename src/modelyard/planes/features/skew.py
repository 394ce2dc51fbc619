"""Served features beside what the point-in-time join gives for the same rows: what differs, and by how much. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from modelyard.kernel.errors import InvalidInput
from modelyard.types.features import FeatureSkew, SkewExample

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

EXAMPLES_MAX = 5


def check_served(frame: pa.Table, features: Sequence[str]) -> None:
    """Raise InvalidInput where the frame lacks a feature as it was served."""
    lacking = [one for one in features if one not in frame.column_names]
    if lacking:
        raise InvalidInput(
            f"the frame has no column '{lacking[0]}': which value was served is not known",
            code="features.served_missing",
            hint="name served features <view>__<feature>, or verify fewer of them",
        )


def compare(served: pa.ChunkedArray, offline: pa.ChunkedArray, feature: str, tolerance: float) -> FeatureSkew:
    """What differs of one feature. Numbers agree within the tolerance, relative above one; a null agrees with a null,
    NaN with NaN. Raises InvalidInput for values of another kind."""
    import numpy as np  # heavy: imported late

    gone = np.asarray(served.is_null()), np.asarray(offline.is_null())
    both = ~gone[0] & ~gone[1]
    unlike = gone[0] != gone[1]
    largest = 0.0
    if _is_number(served) and _is_number(offline):
        left, right = _numbers(served), _numbers(offline)
        with np.errstate(invalid="ignore"):
            distance = np.abs(left - right)
            far = distance > tolerance * np.maximum(1.0, np.abs(right))
        nan = np.isnan(left) != np.isnan(right)
        differs = both & (far | nan)
        known = distance[both & np.isfinite(distance)]
        largest = float(known.max()) if known.size else 0.0
    else:
        differs = both & _texts_differ(served, offline, feature)
    unlike = unlike | differs
    places = np.flatnonzero(unlike)
    examples = [
        SkewExample(row=int(at), served=_shown(served[int(at)]), offline=_shown(offline[int(at)]))
        for at in places[:EXAMPLES_MAX]
    ]
    return FeatureSkew(feature=feature, rows=len(served), different=len(places), largest=largest, examples=examples)


def _is_number(column: pa.ChunkedArray) -> bool:
    import pyarrow as pa  # heavy: imported late

    kind = column.type
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _numbers(column: pa.ChunkedArray) -> np.ndarray[Any, Any]:
    import numpy as np  # heavy: imported late
    import pyarrow as pa  # heavy: imported late

    # What is null is left out by its own mask; zero stands for it here.
    found = column.cast(pa.float64(), safe=False) if not pa.types.is_boolean(column.type) else column.cast(pa.int8())
    return np.asarray(found.fill_null(0).to_numpy(), float)


def _texts_differ(served: pa.ChunkedArray, offline: pa.ChunkedArray, feature: str) -> np.ndarray[Any, Any]:
    import numpy as np  # heavy: imported late
    import pyarrow as pa  # heavy: imported late
    import pyarrow.compute as pc  # heavy: imported late

    try:
        unlike = pc.not_equal(served.cast(offline.type), offline)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InvalidInput(
            f"'{feature}' was served as {served.type} and is {offline.type} offline",
            code="features.served_type",
            hint="give it in the type of the view",
        ) from error
    return np.asarray(unlike.fill_null(False))


def _shown(value: pa.Scalar) -> str:
    return "null" if not value.is_valid else str(value.as_py())[:100]
