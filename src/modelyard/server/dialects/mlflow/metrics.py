"""MLflow's endpoints that read histories of metrics."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec
from litestar import Request, Response

from modelyard.kernel.auth import Action, Scope
from modelyard.kernel.errors import InvalidInput
from modelyard.kernel.routing import get
from modelyard.planes.tracking import Tracking, page_offset, page_token
from modelyard.server.dialects.mlflow import wire
from modelyard.server.dialects.mlflow.wire import Message, endpoint
from modelyard.types.tracking import Series

PAGE_MAX = 25_000
RUNS_MAX = 100
SAMPLES_MAX = 2_500


class History(Message):
    REQUIRED: ClassVar = ("run_id", "metric_key")
    run_id: str = ""
    run_uuid: str = ""
    metric_key: str = ""
    page_token: str = ""
    max_results: int | None = None


class Interval(Message):
    REQUIRED: ClassVar = ("run_ids", "metric_key")
    run_ids: list[str] = msgspec.field(default_factory=list)
    metric_key: str = ""
    start_step: int | None = None
    end_step: int | None = None
    max_results: int = SAMPLES_MAX


class _Point(msgspec.Struct):
    key: str
    value: float | str
    timestamp: int
    step: int


class PointOfRun(msgspec.Struct):
    """A point with whose it is."""

    key: str
    value: float | str
    timestamp: int
    step: int
    run_id: str


@get(endpoint("/metrics/get-history"), requires=Action.READ, direct=True)
def get_history(caller: Scope, tracking: Tracking, request: Request[Any, Any, Any]) -> Response[bytes]:
    asked = wire.decode_query(request, History)
    offset = page_offset(asked.page_token)
    limit = None if not asked.max_results or asked.max_results < 1 else min(asked.max_results, PAGE_MAX)
    found = tracking.metrics.history(caller, asked.run_id, asked.metric_key, offset=offset, limit=limit)
    content: dict[str, Any] = {}
    if found.values:
        content["metrics"] = _points(found)
    if limit is not None and offset + limit < found.total:
        content["next_page_token"] = page_token(offset + limit)
    return wire.reply(content)


@get(endpoint("/metrics/get-history-bulk"), requires=Action.READ)
def get_history_bulk(caller: Scope, tracking: Tracking, request: Request[Any, Any, Any]) -> Response[bytes]:
    query = request.query_params
    run_ids = query.getall("run_id", [])
    if not run_ids:
        raise InvalidInput("GetMetricHistoryBulk request must specify at least one run_id.")
    if len(run_ids) > RUNS_MAX:
        raise InvalidInput(
            f"GetMetricHistoryBulk request cannot specify more than {RUNS_MAX} run_ids. "
            f"Received {len(run_ids)} run_ids."
        )
    key = query.get("metric_key")
    if key is None:
        raise InvalidInput("GetMetricHistoryBulk request must specify a metric_key.")
    try:
        limit = min(int(query.get("max_results", PAGE_MAX)), PAGE_MAX)
    except ValueError as error:
        raise wire.invalid("max_results", query.get("max_results")) from error
    found = tracking.metrics.histories(caller, run_ids, key, max(limit, 0))
    return wire.reply({"metrics": [point for one in found for point in _points_of_run(one)]})


@get(endpoint("/metrics/get-history-bulk-interval"), requires=Action.READ)
def get_history_bulk_interval(caller: Scope, tracking: Tracking, request: Request[Any, Any, Any]) -> Response[bytes]:
    points = interval(caller, tracking, wire.decode_query(request, Interval))
    return wire.reply({"metrics": points} if points else None)


def interval(caller: Scope, tracking: Tracking, asked: Interval) -> list[PointOfRun]:
    """Points of a metric of several runs, at the same steps."""
    if len(asked.run_ids) > RUNS_MAX:
        raise InvalidInput(
            f"GetMetricHistoryBulkInterval request must specify at most {RUNS_MAX} run_ids. "
            f"Received {len(asked.run_ids)} run_ids.{wire.SEE_DOCS}"
        )
    if not 1 <= asked.max_results <= SAMPLES_MAX:
        raise InvalidInput(f"max_results must be between 1 and {SAMPLES_MAX}.{wire.SEE_DOCS}")
    if (asked.start_step is None) != (asked.end_step is None):
        raise InvalidInput("If either start step or end step are specified, both must be specified.")
    if asked.start_step is not None and asked.end_step is not None and asked.start_step > asked.end_step:
        raise InvalidInput(
            "end_step must be greater than start_step. "
            f"Found start_step={asked.start_step} and end_step={asked.end_step}."
        )
    found = tracking.metrics.sampled(
        caller, asked.run_ids, asked.metric_key, asked.max_results, asked.start_step, asked.end_step, PAGE_MAX
    )
    return [point for one in found for point in _points_of_run(one)]


def _points(found: Series) -> list[_Point]:
    columns = zip(found.values, found.timestamps_ms, found.steps, strict=True)
    return [_Point(found.key, "NaN" if value is None else value, timestamp, step) for value, timestamp, step in columns]


def _points_of_run(found: Series) -> list[PointOfRun]:
    columns = zip(found.values, found.timestamps_ms, found.steps, strict=True)
    return [
        PointOfRun(found.key, "NaN" if value is None else value, timestamp, step, found.run_id)
        for value, timestamp, step in columns
    ]


HANDLERS = [get_history, get_history_bulk, get_history_bulk_interval]
