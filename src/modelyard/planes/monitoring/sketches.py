"""Sketches: what a window of a column looked like, in a few hundred numbers that add up.

The reference fixes a *grid* once: the cells that every later window is counted in. A sketch of January and one of
February added cell by cell are the sketch of both, so a longer window, or rows that come late, never need the old rows.

A numeric grid has the reference's percentiles as edges. A cell holds, beside its count, the sum of the distances of its
values from its edge: with these the area between two distribution functions is exact per cell (see `drift.py`).
A numeric column of at most five distinct values is counted by value, like a categorical one (as Evidently does).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from modelyard.kernel.errors import InvalidInput

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

PERCENTILES = 100
DISCRETE_VALUES_MAX = 5
CATEGORIES_MAX = 1_000
UNSEEN_NAMED_MAX = 20


class NumericGrid(msgspec.Struct, frozen=True, tag="numeric", tag_field="kind"):
    """Cells between `edges`, closed on the right, plus one below and one above. `deciles` are positions in `edges`."""

    edges: tuple[float, ...]
    deciles: tuple[int, ...]
    std: float

    @property
    def cells(self) -> int:
        """How many counts a sketch on this grid has."""
        return len(self.edges) + 1


class CategoryGrid(msgspec.Struct, frozen=True, tag="categorical", tag_field="kind"):
    """One cell per category, most frequent first, and a last one for all others. `numeric`: categories are numbers."""

    categories: tuple[str, ...]
    numeric: bool = False

    @property
    def cells(self) -> int:
        """How many counts a sketch on this grid has."""
        return len(self.categories) + 1


Grid = NumericGrid | CategoryGrid


class Sketch(msgspec.Struct, frozen=True):
    """One column of some rows on a grid. Invariant: rows == nulls + mismatched + sum(counts).

    `nulls` includes NaN; `mismatched` are infinities, and values of a type that the grid cannot hold.
    """

    rows: int
    nulls: int
    mismatched: int
    counts: tuple[int, ...]
    distances: tuple[float, ...] = ()
    unseen: dict[str, int] = {}

    @property
    def counted(self) -> int:
        """The rows with a usable value."""
        return self.rows - self.nulls - self.mismatched


def is_comparable(kind: pa.DataType) -> bool:
    """Whether columns of this Arrow type can be sketched: numbers, booleans and strings can."""
    import pyarrow.types as at  # heavy: imported late

    if at.is_dictionary(kind):
        return is_comparable(kind.value_type)
    return bool(_is_number(kind) or at.is_boolean(kind) or _is_text(kind))


def make_grid(column: pa.ChunkedArray) -> Grid | None:
    """The grid that a reference column gives. None for a column without any usable value."""
    column = _decoded(column)
    if not _is_number(column.type):
        return _category_grid(column, numeric=False)
    import numpy as np  # heavy: imported late

    values, _, _ = _numbers(column)
    if not len(values):
        return None
    distinct = np.unique(values[:4096])
    if len(distinct) <= DISCRETE_VALUES_MAX and len(np.unique(values)) <= DISCRETE_VALUES_MAX:
        return _category_grid(column, numeric=True)
    # inverted_cdf: an edge is a value that occurs, so a value with much weight is a cell's closed end, never split.
    percentiles = np.quantile(values, np.linspace(0, 1, PERCENTILES + 1), method="inverted_cdf")
    edges = np.unique(percentiles)
    deciles = np.searchsorted(edges, np.unique(percentiles[10:100:10]))
    return NumericGrid(
        tuple(float(edge) for edge in edges), tuple(int(place) for place in deciles), float(values.std())
    )


def make_sketch(grid: Grid, column: pa.ChunkedArray) -> Sketch:
    """Count a column on a grid. Raises InvalidInput for an Arrow type that has no order and no categories."""
    column = _decoded(column)
    if not is_comparable(column.type):
        raise InvalidInput(
            f"a column of type {column.type} cannot be compared with a reference",
            code="monitor.column_type",
            hint="monitor numbers, booleans and strings; name the inputs to compare in `inputs`",
        )
    if isinstance(grid, NumericGrid) or grid.numeric:
        if not _is_number(column.type):
            nulls = column.null_count
            return Sketch(len(column), nulls, len(column) - nulls, (0,) * grid.cells, _no_distances(grid))
        values, nulls, mismatched = _numbers(column)
        if isinstance(grid, NumericGrid):
            return _count_numbers(grid, values, len(column), nulls, mismatched)
        return _count_categories(grid, _number_counts(values), len(column), nulls, mismatched)
    counts, nulls = _text_counts(column)
    return _count_categories(grid, counts, len(column), nulls, 0)


def merge(sketches: Sequence[Sketch]) -> Sketch:
    """The sketch of all the rows together. All must be on the same grid, and there must be at least one."""
    first = sketches[0]
    unseen: dict[str, int] = {}
    for sketch in sketches:
        if len(sketch.counts) != len(first.counts):
            raise ValueError("sketches on different grids do not add up")
        for name, count in sketch.unseen.items():
            unseen[name] = unseen.get(name, 0) + count
    return Sketch(
        rows=sum(sketch.rows for sketch in sketches),
        nulls=sum(sketch.nulls for sketch in sketches),
        mismatched=sum(sketch.mismatched for sketch in sketches),
        counts=tuple(sum(cell) for cell in zip(*(sketch.counts for sketch in sketches), strict=True)),
        distances=tuple(sum(cell) for cell in zip(*(sketch.distances for sketch in sketches), strict=True)),
        unseen=_most_frequent(unseen),
    )


def _no_distances(grid: Grid) -> tuple[float, ...]:
    return (0.0,) * grid.cells if isinstance(grid, NumericGrid) else ()


def _count_numbers(grid: NumericGrid, values: np.ndarray[Any, Any], rows: int, nulls: int, mismatched: int) -> Sketch:
    import numpy as np  # heavy: imported late

    edges = np.asarray(grid.edges)
    cell = np.searchsorted(edges, values, side="left")
    # From the edge below; for the lowest cell, which has none, from the edge above it.
    near = edges[np.maximum(cell - 1, 0)]
    return Sketch(
        rows,
        nulls,
        mismatched,
        tuple(np.bincount(cell, minlength=grid.cells).tolist()),
        tuple(np.bincount(cell, weights=np.abs(values - near), minlength=grid.cells).tolist()),
    )


def _count_categories(grid: CategoryGrid, found: dict[str, int], rows: int, nulls: int, mismatched: int) -> Sketch:
    place = {name: position for position, name in enumerate(grid.categories)}
    counts = [0] * grid.cells
    unseen: dict[str, int] = {}
    for name, count in found.items():
        position = place.get(name)
        if position is None:
            unseen[name] = count
        counts[len(place) if position is None else position] += count
    return Sketch(rows, nulls, mismatched, tuple(counts), unseen=_most_frequent(unseen))


def _category_grid(column: pa.ChunkedArray, *, numeric: bool) -> CategoryGrid | None:
    counts = _number_counts(_numbers(column)[0]) if numeric else _text_counts(column)[0]
    if not counts:
        return None
    by_weight = sorted(counts, key=lambda name: (-counts[name], name))
    return CategoryGrid(tuple(by_weight[:CATEGORIES_MAX]), numeric)


def _most_frequent(counts: dict[str, int]) -> dict[str, int]:
    kept = sorted(counts, key=lambda name: (-counts[name], name))[:UNSEEN_NAMED_MAX]
    return {name: counts[name] for name in kept}


def _is_number(kind: pa.DataType) -> bool:
    import pyarrow.types as at  # heavy: imported late

    return bool(at.is_integer(kind) or at.is_floating(kind) or at.is_decimal(kind))


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow.types as at  # heavy: imported late

    return bool(at.is_string(kind) or at.is_large_string(kind) or at.is_string_view(kind) or at.is_null(kind))


def _decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    import pyarrow.types as at  # heavy: imported late

    return column.cast(column.type.value_type) if at.is_dictionary(column.type) else column


def _numbers(column: pa.ChunkedArray) -> tuple[np.ndarray[Any, Any], int, int]:
    """The finite values as doubles, how many were null or NaN, and how many infinite."""
    import numpy as np  # heavy: imported late
    import pyarrow as pa  # heavy: imported late

    # safe=False: integers beyond 2^53 round to the nearest double, which no distance can notice.
    values = column.cast(pa.float64(), safe=False).to_numpy()
    missing = int(np.isnan(values).sum())
    finite = values[np.isfinite(values)]
    return finite, missing, len(values) - missing - len(finite)


def _number_counts(values: np.ndarray[Any, Any]) -> dict[str, int]:
    import numpy as np  # heavy: imported late

    # + 0.0 makes -0.0 the same zero.
    distinct, counts = np.unique(values + 0.0, return_counts=True)
    return {f"{value:.17g}": int(count) for value, count in zip(distinct, counts, strict=True)}


def _text_counts(column: pa.ChunkedArray) -> tuple[dict[str, int], int]:
    import pyarrow as pa  # heavy: imported late
    import pyarrow.compute as pc  # heavy: imported late

    texts = column.cast(pa.string())
    counted = pc.value_counts(texts.drop_null())
    return {entry["values"]: entry["counts"] for entry in counted.to_pylist()}, texts.null_count
