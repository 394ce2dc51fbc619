"""More rows than memory: a table streamed in and out, embedded and over HTTP, with checks and a profile.

`GB=…` sets how many gigabytes of Arrow rows go through (1 by default; the promise is of 10), `BENCH_DISK` on which
disk, which needs twice as much room, `PARTS=floor,embedded,http` which ways they take. Each part runs in processes of
its own, and says the most memory that each of them ever held. The floor is a bare Parquet writer of the same batches.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks._servers import ROOT, environment, served

GB = float(os.environ.get("GB", "1"))
PARTS = os.environ.get("PARTS", "floor,embedded,http").split(",")
ROWS_A_BATCH = 64 * 1024
PROMISED_MIB = 2_000
_COUNTRIES = ["AT", "BE", "CH", "DE", "DK", "ES", "FI", "FR", "GB", "IE", "IT", "NL", "NO", "PL", "PT", "SE"]


def main() -> None:
    """Print the time of each part, and the most memory that its processes held."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DISK")) as directory:
        home = Path(directory)
        print(f"{GB:g} GB of rows in batches of {ROWS_A_BATCH:,}; {len(checks())} checks, 7 of all values at once")
        floor = _child("floor", home) if "floor" in PARTS else None
        if floor is not None:
            _say("bare Parquet writer", floor)
        if "embedded" in PARTS:
            _say("embedded: write, check, profile, publish", _child("embedded-write", home), floor)
            _say("embedded: read as a stream", _child("embedded-read", home), floor)
        if "http" in PARTS:
            with served(home / "served") as (url, token, held):
                given = {"URL": url, "TOKEN": token}
                for work in ("http-write", "http-read"):
                    _say(f"HTTP, the client: {work[5:]}", _child(work, home, **given), floor)
                    _say("  and the server until then", (0.0, held()), floor)


def batches(gigabytes: float = GB) -> Iterator[Any]:
    """Orders, whose ids are unique but do not rise, so that their uniqueness needs all of them to be grouped."""
    import numpy as np
    import pyarrow as pa

    draw = np.random.default_rng(3)
    shuffled = draw.permutation(ROWS_A_BATCH)
    amounts = draw.lognormal(3, 1, ROWS_A_BATCH)
    numbers = draw.random((6, ROWS_A_BATCH))
    country = pa.array(_COUNTRIES).take(pa.array(draw.integers(0, len(_COUNTRIES), ROWS_A_BATCH)))
    merchants = pa.array([f"merchant-{number:05d}" for number in range(20_000)])
    merchant = merchants.take(pa.array(draw.integers(0, len(merchants), ROWS_A_BATCH)))
    done = turn = 0
    while done < gigabytes * 1e9:
        first = turn * ROWS_A_BATCH
        at = 1_700_000_000_000_000 + (first + np.arange(ROWS_A_BATCH)) * 1_000
        batch = pa.record_batch(
            {
                "id": pa.array(first + shuffled),
                "at": pa.array(at, pa.timestamp("us", tz="UTC")),
                "customer": pa.array((first * 31 + shuffled * 7) % 5_000_003),
                "amount": pa.array(amounts + turn),
                "country": country,
                "merchant": merchant,
                **{f"x{place}": pa.array(column + turn) for place, column in enumerate(numbers)},
            }
        )
        yield batch
        done += batch.nbytes
        turn += 1


def checks() -> list[Any]:
    """Some that one pass answers, and some that need every value at once."""
    from modelyard.types.checks import Finite, InSet, Monotonic, NotNull, Quantiles, Range, Regex, Statistic, Unique

    return [
        NotNull(column="id"),
        Range(column="amount", min=0),
        Finite(column="x0"),
        InSet(column="country", values=list(_COUNTRIES)),
        Regex(column="merchant", pattern="^merchant-"),
        Monotonic(column="at"),
        Unique(columns=["id"]),
        Unique(columns=["at", "id"]),
        Statistic(column="customer", measure="distinct", min=1),
        Quantiles(column="x1", quantiles=[0.05, 0.5, 0.95], ranges=[(0.0, 1e9)] * 3),
        Statistic(column="amount", measure="median", min=0),
        Quantiles(column="x2", quantiles=[0.5], ranges=[(0.0, 1e9)], method="lower"),
    ]


# --- in a process of its own ------------------------------------------------------------------------------------


def _embedded(home: Path) -> tuple[Any, Any]:
    from modelyard.app import compose
    from modelyard.kernel.auth import Principal, Role, Scope
    from modelyard.kernel.settings import Settings

    return compose(Settings(home=home / "embedded")), Scope("default", Principal("bench", {"*": Role.ADMIN}))


def embedded_write(home: Path) -> None:
    yard, scope = _embedded(home)
    written = yard.data.write(scope, "orders", batches(), checks=checks(), create=True)
    assert written.published, written.report.failed


def embedded_read(home: Path) -> None:
    yard, scope = _embedded(home)
    rows = sum(batch.num_rows for batch in yard.data.stream(scope, "orders")[1])
    assert rows == yard.data.get(scope, "orders").rows


def _handle() -> Any:
    from modelyard.sdk.client import Client
    from modelyard.sdk.data import DatasetHandle

    return DatasetHandle("orders", Client(os.environ["URL"], token=os.environ["TOKEN"]))


def http_write(_: Path) -> None:
    _handle().write(batches(), checks=checks())


def http_read(_: Path) -> None:
    with _handle().reader() as reader:
        rows = sum(batch.num_rows for batch in reader)
    assert rows == _handle().get().rows


def floor(home: Path) -> None:
    import pyarrow.parquet as pq

    source = batches()
    first = next(source)
    with pq.ParquetWriter(home / "floor.parquet", first.schema, compression="zstd", compression_level=1) as writer:
        writer.write_batch(first)
        for batch in source:
            writer.write_batch(batch)
    (home / "floor.parquet").unlink()


WORK: dict[str, Callable[[Path], None]] = {
    "floor": floor,
    "embedded-write": embedded_write,
    "embedded-read": embedded_read,
    "http-write": http_write,
    "http-read": http_read,
}


def _child(work: str, home: Path, **given: str) -> tuple[float, float]:
    """Seconds, and the most MiB that the process held."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.data_streams", work, str(home)],
        cwd=ROOT,
        env=environment(**given, GB=str(GB)),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    seconds, mib = done.stdout.split()
    return float(seconds), float(mib)


def _say(what: str, found: tuple[float, float], floor: tuple[float, float] | None = None) -> None:
    seconds, mib = found
    ratio = "" if floor is None or not seconds else f"{seconds / floor[0]:5.2f} x the bare writer"
    spent = f"{seconds:7.1f} s" if seconds else " " * 9
    kept = "" if mib < PROMISED_MIB else f"  MORE THAN THE {PROMISED_MIB} MiB PROMISED"
    print(f"{what:42} {spent} {mib:7,.0f} MiB at most  {ratio}{kept}", flush=True)


if __name__ == "__main__":
    begun = time.perf_counter()
    WORK[sys.argv[1]](Path(sys.argv[2]))
    print(time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
