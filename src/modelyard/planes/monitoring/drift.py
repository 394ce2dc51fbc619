"""How far a window lies from its reference: pure functions over sketches.

Definitions, so that the numbers can be compared with other tools:

- `wasserstein_normed`: the 1-Wasserstein distance divided by the reference's standard deviation (ddof 0, at least
  0.001). Evidently's default for numeric columns of more than five distinct values; threshold 0.1.
- `jensen_shannon`: the square root of the Jensen-Shannon divergence, natural logarithm (scipy's `jensenshannon`).
  Evidently's default for categorical columns; threshold 0.1. All unseen categories count as one, which changes nothing:
  a category that one side lacks adds half its share times ln 2, whatever its name.
- `psi`: the population stability index, sum of (q - p) ln(q / p), over the reference's deciles or categories, shares
  floored at 1e-4. Evidently bins the pooled data anew each time (Sturges), so its PSI differs; ours compares over time.

Nulls are no value of a column: they are left out of a distance, and their rate is compared by itself.

A distance is never 0 between two samples of the same distribution, and the smaller they are the larger it is. So
each comes with its *noise*, the value that such samples stay under 95 times of 100. For PSI and Jensen-Shannon it
follows from their chi-square limit: PSI ~ (1/n + 1/m) chi2(B-1) (Yurdakul and Naranjo, 2020), divergence ~ an eighth
of that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec.structs import replace

from modelyard.planes.monitoring.sketches import CategoryGrid, Grid, NumericGrid, Sketch
from modelyard.types.monitoring import Distance

STD_MIN = 0.001
SHARE_MIN = 1e-4
Z_95 = 1.6448536269514722
# The area between two empirical distribution functions is a sum of |normal| variables, strongly tied to each other:
# its 95 % point is 1.5 to 2.2 times its mean (simulated: normal, exponential, uniform, bimodal, hours of the day).
AREA_95 = 2.1


def compare(column: str, grid: Grid, reference: Sketch, window: Sketch, *, threshold: float, rows_min: int) -> Distance:
    """The distance of a window's column from the reference's, both sketched on the reference's grid."""
    distance = Distance(
        column=column,
        measure="wasserstein_normed" if isinstance(grid, NumericGrid) else "jensen_shannon",
        threshold=threshold,
        rows=window.rows,
        null_rate=_rate(window.nulls, window.rows),
        null_rate_reference=_rate(reference.nulls, reference.rows),
        unseen_rate=_rate(window.counts[-1], window.counted) if isinstance(grid, CategoryGrid) else 0.0,
        unseen=tuple(window.unseen),
    )
    note = _why_not(reference, window, rows_min)
    if note is not None:
        return _with(distance, note=note)
    n, m = reference.counted, window.counted
    if isinstance(grid, NumericGrid):
        value, noise = wasserstein_normed(grid, reference, window), wasserstein_noise(grid, reference, n, m)
    else:
        value = jensen_shannon(reference.counts, window.counts)
        noise = math.sqrt(_chi_square_95(_cells_used(reference.counts, window.counts) - 1) * (1 / n + 1 / m) / 8)
    before, after = coarse(grid, reference.counts), coarse(grid, window.counts)
    note = f"{window.mismatched} rows are infinite or of another type, and left out" if window.mismatched else None
    return _with(
        distance,
        value=value,
        noise=noise,
        psi=psi(before, after),
        psi_noise=psi_noise(_cells_used(before, after), n, m),
        drifted=value >= threshold and value >= noise,
        note=note,
    )


def drift_share(distances: Sequence[Distance]) -> float | None:
    """The share of comparable columns that drifted; None where none is comparable. Evidently's line is at 0.5."""
    compared = [distance for distance in distances if distance.value is not None]
    return sum(distance.drifted for distance in compared) / len(compared) if compared else None


def psi(before: Sequence[int], after: Sequence[int]) -> float:
    """The population stability index of two rows of counts over the same cells."""
    n, m = sum(before), sum(after)
    total = 0.0
    for was, now in zip(before, after, strict=True):
        if was or now:
            p, q = max(was / n, SHARE_MIN), max(now / m, SHARE_MIN)
            total += (q - p) * math.log(q / p)
    return total


def psi_noise(cells: int, n: int, m: int) -> float:
    """What the PSI of two samples of one distribution stays under 95 times of 100."""
    return _chi_square_95(cells - 1) * (1 / n + 1 / m)


def jensen_shannon(before: Sequence[int], after: Sequence[int]) -> float:
    """The Jensen-Shannon distance (square root, natural logarithm) of two rows of counts: 0 to sqrt(ln 2)."""
    n, m = sum(before), sum(after)
    divergence = 0.0
    for was, now in zip(before, after, strict=True):
        p, q = was / n, now / m
        middle = (p + q) / 2
        divergence += (p * math.log(p / middle) if p else 0.0) + (q * math.log(q / middle) if q else 0.0)
    return math.sqrt(max(divergence / 2, 0.0))


def wasserstein_normed(grid: NumericGrid, reference: Sketch, window: Sketch) -> float:
    """The area between the two distribution functions over the reference's standard deviation.

    Exact per cell as long as the two curves do not cross inside it; where they do it is lower, never higher. The cells
    are the reference's percentiles, so what can hide in one is what a hundredth of the reference can move within it.
    """
    one, other = _areas(grid, reference), _areas(grid, window)
    return sum(abs(a - b) for a, b in zip(one, other, strict=True)) / max(grid.std, STD_MIN)


def wasserstein_noise(grid: NumericGrid, reference: Sketch, n: int, m: int) -> float:
    """What the normed distance of two samples of one distribution stays under, about 95 times of 100.

    The mean is sqrt(2/pi) sqrt(1/n + 1/m) times the integral of sqrt(F (1 - F)), which the reference gives.
    """
    spread, below = 0.0, 0
    for place, width in enumerate(_widths(grid)):
        share_low = (below := below + reference.counts[place]) / n
        share_high = share_low + reference.counts[place + 1] / n
        middle = min((share_low + share_high) / 2, 1.0)
        spread += math.sqrt(middle * (1 - middle)) * width
    mean = math.sqrt(2 / math.pi) * math.sqrt(1 / n + 1 / m) * spread / max(grid.std, STD_MIN)
    return AREA_95 * mean


def coarse(grid: Grid, counts: Sequence[int]) -> list[int]:
    """Counts over deciles: fine cells folded for PSI. Categories stay as they are."""
    if isinstance(grid, CategoryGrid):
        return list(counts)
    folded, start = [], 0
    for place in grid.deciles:
        folded.append(sum(counts[start : place + 1]))
        start = place + 1
    return [*folded, sum(counts[start:])]


def _areas(grid: NumericGrid, sketch: Sketch) -> list[float]:
    # Below the lowest edge and above the highest one: the area under F, and under 1 - F, is the mean distance there.
    n = sketch.counted
    areas = [sketch.distances[0] / n]
    below = sketch.counts[0]
    for place, width in enumerate(_widths(grid), start=1):
        # A value at distance d from the cell's lower edge is under the curve for the rest of the width.
        areas.append((below * width + sketch.counts[place] * width - sketch.distances[place]) / n)
        below += sketch.counts[place]
    areas.append(sketch.distances[-1] / n)
    return areas


def _widths(grid: NumericGrid) -> list[float]:
    return [high - low for low, high in zip(grid.edges, grid.edges[1:], strict=False)]


def _why_not(reference: Sketch, window: Sketch, rows_min: int) -> str | None:
    for name, sketch in (("reference", reference), ("window", window)):
        if sketch.rows < rows_min:
            return f"not enough data: the {name} has {sketch.rows} rows, and {rows_min} are needed"
        if sketch.counted < rows_min:
            return (
                f"not enough data: of {sketch.rows} rows in the {name}, {sketch.nulls} are null and "
                f"{sketch.mismatched} of another type or infinite; {rows_min} values are needed"
            )
    return None


def _chi_square_95(degrees: int) -> float:
    """The 95 % point of chi-square, by Wilson and Hilferty (1931): good to a percent, and needs no scipy."""
    if degrees <= 0:
        return 0.0
    third = 2 / (9 * degrees)
    return float(degrees * (1 - third + Z_95 * math.sqrt(third)) ** 3)


def _cells_used(before: Sequence[int], after: Sequence[int]) -> int:
    return sum(1 for was, now in zip(before, after, strict=True) if was or now)


def _rate(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _with(distance: Distance, **changes: float | bool | str | None) -> Distance:
    return replace(distance, **changes)
