"""How long it takes until 5 million rows are written, checked, profiled and published, 9 columns, 8 checks.

Beside the floor (`pyarrow.parquet.write_table` of the same table in memory, nothing else) and the peer (a bare
`deltalake` write, without any check or profile). Each runs several times, taking turns; the best of each counts.
The time of the processors is given too, since it says what two busy cores would otherwise hide.
`MODELYARD_BENCH_ROWS` sets another number of rows.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROWS = int(os.environ.get("MODELYARD_BENCH_ROWS", "5000000"))
ROUNDS = 3
SEED = 7
COUNTRIES = ["AT", "BE", "CH", "DE", "DK", "ES", "FI", "FR", "GB", "IE", "IT", "NL", "NO", "PL", "PT", "SE"]


def table() -> Any:
    """Orders: what a fact table looks like, with keys, times, money, categories, a text of many values, some nulls."""
    import numpy as np
    import pyarrow as pa

    draw = np.random.default_rng(SEED)
    merchants = pa.array([f"merchant-{number:05d}" for number in range(20_000)])
    return pa.table(
        {
            "id": pa.array(np.arange(ROWS, dtype=np.int64)),
            "at": pa.array(
                1_700_000_000_000_000 + np.arange(ROWS, dtype=np.int64) * 250_000, pa.timestamp("us", tz="UTC")
            ),
            "customer": pa.array(draw.integers(0, 400_000, ROWS)),
            "amount": pa.array(np.round(draw.lognormal(3, 1, ROWS), 2)),
            "score": pa.array(draw.random(ROWS), mask=draw.random(ROWS) < 0.03),
            "country": pa.array(COUNTRIES).take(pa.array(draw.integers(0, len(COUNTRIES), ROWS))),
            "merchant": merchants.take(pa.array(draw.integers(0, len(merchants), ROWS))),
            "returned": pa.array(draw.random(ROWS) < 0.1),
            "items": pa.array(draw.integers(1, 20, ROWS).astype(np.int32)),
        }
    )


def checks() -> list[Any]:
    """Those that a careful owner would declare for it."""
    from modelyard.types.data import Finite, InSet, NotNull, Range, Regex, RowCount

    return [
        NotNull(column="id"),
        NotNull(column="customer"),
        Range(column="amount", min=0),
        Finite(column="amount"),
        Range(column="score", min=0, max=1),
        InSet(column="country", values=list(COUNTRIES)),
        Regex(column="merchant", pattern="^merchant-"),
        RowCount(min=1),
    ]


def timed(act: Callable[[], object]) -> tuple[float, float]:
    """Seconds on the wall, and seconds of processor time of this process."""
    wall, processor = time.perf_counter(), time.process_time()
    act()
    return time.perf_counter() - wall, time.process_time() - processor


def main() -> None:
    import pyarrow.parquet as pq
    from deltalake import write_deltalake

    from modelyard.app import compose
    from modelyard.kernel.auth import Principal, Role, Scope
    from modelyard.kernel.settings import Settings

    rows = table()
    print(f"{rows.num_rows:,} rows x {rows.num_columns} columns, {rows.nbytes / 1e6:.0f} MB in memory")
    root = Path(tempfile.mkdtemp(prefix="modelyard-bench-"))
    scope = Scope("default", Principal("bench", {"*": Role.ADMIN}))
    try:
        yard = compose(Settings(home=root / "home"))
        guarded = checks()

        def ours() -> None:
            written = yard.data.write(scope, "orders", rows, mode="overwrite", checks=guarded, create=True)
            assert written.published, written.report.failed

        acts: dict[str, Callable[[], object]] = {
            "bare Parquet write": lambda: pq.write_table(rows, root / "bare.parquet"),
            "bare Delta write": lambda: write_deltalake(str(root / "delta"), rows, mode="overwrite"),
            "write + checks + profile + publish": ours,
        }
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in acts}
        for _ in range(ROUNDS):
            for name, act in acts.items():
                found[name].append(timed(act))
        floor_wall, floor_processor = (min(one) for one in zip(*found["bare Parquet write"], strict=True))
        for name, times in found.items():
            wall, processor = (min(one) for one in zip(*times, strict=True))
            print(
                f"{name:36} {wall:6.2f} s {wall / floor_wall:5.2f}x   "
                f"processor {processor:6.2f} s {processor / floor_processor:5.2f}x"
            )
        yard.close()
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
