"""One loaded variant on a thread of its own: takes what has queued up while it was busy, calls the model once for it.

There is no timer: a lone request is run at once, and under load the batch grows by itself to what arrives during one
call. The event loop never waits for a model.
"""

from __future__ import annotations

import asyncio
import queue
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from modelyard.endpoint import tensors
from modelyard.endpoint.metrics import VariantMetrics
from modelyard.endpoint.prediction_log import PredictionLog
from modelyard.engines.models.base import LoadedModel
from modelyard.engines.models.columns import pack
from modelyard.kernel.errors import EngineError, LimitExceeded, ModelyardError, Unavailable
from modelyard.types.serving import EndpointOptions, PredictionRecord, VariantConfig

if TYPE_CHECKING:
    from modelyard.engines.models.base import Array

    Outputs = dict[str, Array]


class Pending:
    """A request between its arrival and its reply."""

    __slots__ = ("abandoned", "arrived_ns", "at_us", "decoded", "future", "request_id")

    def __init__(
        self, request_id: str, decoded: tensors.Decoded, future: asyncio.Future[Outputs], arrived_ns: int
    ) -> None:
        self.request_id = request_id
        self.decoded = decoded
        self.future = future
        self.arrived_ns = arrived_ns
        self.at_us = time.time_ns() // 1_000 - (time.perf_counter_ns() - arrived_ns) // 1_000
        self.abandoned = False


class _Answer(NamedTuple):
    pending: Pending
    result: Outputs | ModelyardError


class Runner:
    """A model, its queue and its thread."""

    def __init__(
        self, endpoint: str, variant: VariantConfig, model: LoadedModel, options: EndpointOptions,
        log: PredictionLog, metrics: VariantMetrics, *, batches: bool,
    ) -> None:  # fmt: skip
        self.variant = variant
        self.model = model
        self.metrics = metrics
        self.closing = False
        self._endpoint = endpoint
        self._options = options
        self._log = log
        self._rows_max = options.batch_rows_max if batches and model.batches else 0
        self._queue: queue.SimpleQueue[Pending | None] = queue.SimpleQueue()
        self._held: Pending | None = None
        self._rows_queued = 0
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name=f"model-{variant.name}", daemon=True)
        self._thread.start()

    @property
    def broken(self) -> bool:
        """Whether the thread ended although nobody closed it."""
        return not self._thread.is_alive() and not self.closing

    def submit(self, pending: Pending) -> None:
        """Queue a request; its future gets the outputs. Only from the event loop. Raises LimitExceeded, Unavailable."""
        if self.broken:
            raise Unavailable(f"variant '{self.variant.name}' has stopped by a fault", code="endpoint.variant_broken")
        if self._rows_queued >= self._options.queue_rows_max:
            raise LimitExceeded(
                f"{self._rows_queued:,} rows are waiting already",
                code="endpoint.overloaded",
                hint="send again later, or more slowly",
            )
        self._rows_queued += pending.decoded.rows
        self._queue.put(pending)

    def close(self) -> None:
        """Answer what is queued, then stop. Returns at once; only from the event loop."""
        self.closing = True
        self._queue.put(None)

    def join(self, timeout_s: float) -> None:
        """Wait for the thread to end after `close`."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            while (first := self._next()) is not None:
                self._answer(self._collect(first))
        finally:
            fault = sys.exc_info()[1]
            self._abandon_queue(fault)
            self.model.close()

    def _next(self) -> Pending | None:
        held, self._held = self._held, None
        return held if held is not None else self._queue.get()

    def _collect(self, first: Pending) -> list[Pending]:
        batch = [first]
        rows = first.decoded.rows
        while rows < self._rows_max:
            try:
                more = self._queue.get_nowait()
            except queue.Empty:
                break
            if more is None:
                # Closing: put the mark back behind this batch, nothing follows it.
                self._queue.put(None)
                break
            if rows + more.decoded.rows > self._rows_max:
                self._held = more
                break
            batch.append(more)
            rows += more.decoded.rows
        return batch

    def _answer(self, batch: Sequence[Pending]) -> None:
        live = [one for one in batch if not one.abandoned]
        answers = self._predict(live) if live else []
        records = [self._record(one.pending, one.result) for one in answers if isinstance(one.result, dict)]
        if records:
            self._log.append(records)
        rows = sum(one.decoded.rows for one in batch)
        # A loop that is gone needs no answers.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._resolve, answers, rows)

    def _resolve(self, answers: Sequence[_Answer], rows: int) -> None:
        self._rows_queued -= rows
        for pending, result in answers:
            if pending.future.done():
                continue
            if isinstance(result, ModelyardError):
                pending.future.set_exception(result)
            else:
                pending.future.set_result(result)

    def _predict(self, batch: Sequence[Pending]) -> list[_Answer]:
        try:
            outputs = self._call(batch)
        except ModelyardError as error:
            if len(batch) == 1:
                return [_Answer(batch[0], error)]
            # One bad request must not fail those that happened to share its batch.
            return [answer for one in batch for answer in self._predict([one])]
        return [self._checked(one, part) for one, part in zip(batch, outputs, strict=True)]

    def _call(self, batch: Sequence[Pending]) -> list[Outputs]:
        rows = sum(one.decoded.rows for one in batch)
        self.metrics.batch_rows.observe(rows)
        if len(batch) == 1:
            return [self.model.predict(batch[0].decoded.columns)]
        first = batch[0].decoded.columns
        try:
            columns = {name: np.concatenate([one.decoded.columns[name] for one in batch]) for name in first}
        except ValueError as error:
            # Requests may differ in an axis that the model leaves open; then each goes alone.
            raise EngineError(f"the requests of a batch differ in shape: {error}", code="model.rows_wrong") from error
        outputs = self.model.predict(columns)
        for name, array in outputs.items():
            if array.shape[:1] != (rows,):
                raise EngineError(f"output '{name}' has shape {array.shape} for {rows} rows", code="model.rows_wrong")
        split, at = [], 0
        for one in batch:
            end = at + one.decoded.rows
            split.append({name: array[at:end] for name, array in outputs.items()})
            at = end
        return split

    def _checked(self, pending: Pending, outputs: Outputs) -> _Answer:
        if self._options.nan_outputs == "refuse":
            try:
                tensors.check_finite(outputs, f"model '{self.variant.model}' version {self.variant.version}")
            except ModelyardError as error:
                return _Answer(pending, error)
        return _Answer(pending, outputs)

    def _record(self, pending: Pending, outputs: Outputs) -> PredictionRecord:
        decoded = pending.decoded
        return PredictionRecord(
            request_id=pending.request_id,
            at_us=pending.at_us,
            endpoint=self._endpoint,
            variant=self.variant.name,
            model=self.variant.model,
            version=self.variant.version,
            digest=self.variant.digest,
            latency_us=(time.perf_counter_ns() - pending.arrived_ns) // 1_000,
            rows=decoded.rows,
            ids=decoded.ids,
            event_times_us=decoded.event_times_us,
            inputs=pack(decoded.columns),
            outputs=pack(outputs),
        )

    def _abandon_queue(self, fault: BaseException | None) -> None:
        if fault is None:
            return
        error = Unavailable(f"variant '{self.variant.name}' has stopped by a fault: {fault}")
        waiting = [self._held] if self._held is not None else []
        with suppress(queue.Empty):
            while True:
                one = self._queue.get_nowait()
                if one is not None:
                    waiting.append(one)
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._resolve, [_Answer(one, error) for one in waiting], 0)
