"""A training loop with and without logging, for `benchmarks.training_loop`; needs numpy only, so that foreign
environments run it too: `python -m benchmarks._loop URI` logs by the mlflow client it finds there."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np

BLOCK_STEPS, BLOCKS, METRICS, STEP_S = 250, 12, 10, 0.001
Log = Callable[[dict[str, float], int], object]


def make_step() -> Callable[[], None]:
    """A step of about a millisecond of matrix products, which leave the interpreter to others."""
    matrix = np.random.default_rng(0).random((96, 96))

    def step(times: int) -> None:
        for _ in range(times):
            np.dot(matrix, matrix)

    started = time.perf_counter()
    step(2_000)
    times = max(1, round(STEP_S / ((time.perf_counter() - started) / 2_000)))
    return lambda: step(times)


def slowdown(log: Log) -> float:
    """By how much logging slows the loop, as a part of it. Blocks with and without it take turns, so that a machine
    that slows down slows both."""
    step, at = make_step(), 0
    bare, logged = [], []
    for _ in range(BLOCKS):
        for chosen, times in ((None, bare), (log, logged)):
            started = time.perf_counter()
            for _ in range(BLOCK_STEPS):
                step()
                if chosen is not None:
                    chosen({f"metric_{key}": at * 0.5 + key for key in range(METRICS)}, at)
                    at += 1
            times.append(time.perf_counter() - started)
    return statistics.median(after / before for before, after in zip(bare, logged, strict=True)) - 1


def main(uri: str) -> None:
    import mlflow

    mlflow.set_tracking_uri(uri)
    with mlflow.start_run():
        background = slowdown(lambda values, step: mlflow.log_metrics(values, step=step, synchronous=False))
        mlflow.flush_async_logging()
        waiting = slowdown(lambda values, step: mlflow.log_metrics(values, step=step))
    print(background, waiting)


if __name__ == "__main__":
    main(sys.argv[1])
