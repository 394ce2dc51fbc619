"""MLflow's runs endpoints, but for what is logged to them (`logging.py`)."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec
from litestar import Request, Response

from modelyard.kernel.auth import Action, Scope
from modelyard.kernel.clock import from_us
from modelyard.kernel.errors import InvalidInput
from modelyard.kernel.routing import get, post
from modelyard.planes.tracking import Tracking, check_time_ms
from modelyard.server.dialects.mlflow import wire
from modelyard.server.dialects.mlflow.wire import Message, Pair, endpoint
from modelyard.types.tracking import CreateRun, Metric, Run, RunStatus, UpdateRun

SEARCH_MAX = 50_000
_STATUSES: dict[str, RunStatus] = {
    "1": "RUNNING", "2": "SCHEDULED", "3": "FINISHED", "4": "FAILED", "5": "KILLED",
    "RUNNING": "RUNNING", "SCHEDULED": "SCHEDULED", "FINISHED": "FINISHED", "FAILED": "FAILED", "KILLED": "KILLED",
}  # fmt: skip


class Create(Message):
    experiment_id: str = ""
    user_id: str = ""
    start_time: int | None = None
    tags: list[Pair] = msgspec.field(default_factory=list)
    run_name: str = ""


class ById(Message):
    REQUIRED: ClassVar = ("run_id",)
    run_id: str = ""
    run_uuid: str = ""


class Update(Message):
    REQUIRED: ClassVar = ("run_id",)
    run_id: str = ""
    run_uuid: str = ""
    end_time: int | None = None
    status: str | int | None = None
    run_name: str = ""


class Search(Message):
    experiment_ids: list[str] = msgspec.field(default_factory=list)
    filter: str = ""
    run_view_type: str | int | None = None
    max_results: int = 1_000
    order_by: list[str] = msgspec.field(default_factory=list)
    page_token: str = ""


@post(endpoint("/runs/create"), requires=Action.WRITE, direct=True)
def create_run(caller: Scope, tracking: Tracking, body: bytes) -> Response[bytes]:
    asked = wire.decode(body, Create)
    if asked.start_time is not None:
        check_time_ms("start_time", asked.start_time)
    made = tracking.runs.create(
        caller,
        CreateRun(
            experiment_id=asked.experiment_id,
            name=asked.run_name,
            user=asked.user_id,
            started_at=None if asked.start_time is None else from_us(asked.start_time * 1_000),
            tags=wire.mapping(asked.tags),
        ),
    )
    return wire.reply({"run": view(made)})


@get(endpoint("/runs/get"), requires=Action.READ, direct=True)
def get_run(caller: Scope, tracking: Tracking, request: Request[Any, Any, Any]) -> Response[bytes]:
    return wire.reply({"run": view(tracking.runs.get(caller, wire.decode_query(request, ById).run_id))})


@post(endpoint("/runs/update"), requires=Action.WRITE, direct=True)
def update_run(caller: Scope, tracking: Tracking, body: bytes) -> Response[bytes]:
    asked = wire.decode(body, Update)
    if asked.end_time is not None:
        check_time_ms("end_time", asked.end_time)
    status = None
    if asked.status is not None:
        status = _STATUSES.get(str(asked.status))
        if status is None:
            raise wire.invalid("status", asked.status)
    updated = tracking.runs.update(
        caller,
        asked.run_id,
        UpdateRun(
            status=status,
            ended_at=None if asked.end_time is None else from_us(asked.end_time * 1_000),
            name=asked.run_name or None,
        ),
    )
    return wire.reply({"run_info": info(updated)})


@post(endpoint("/runs/delete"), requires=Action.WRITE)
def delete_run(caller: Scope, tracking: Tracking, body: bytes) -> Response[bytes]:
    tracking.runs.delete(caller, wire.decode(body, ById).run_id)
    return wire.reply()


@post(endpoint("/runs/restore"), requires=Action.WRITE)
def restore_run(caller: Scope, tracking: Tracking, body: bytes) -> Response[bytes]:
    tracking.runs.restore(caller, wire.decode(body, ById).run_id)
    return wire.reply()


@post(endpoint("/runs/search"), requires=Action.READ, direct=True)
def search_runs(caller: Scope, tracking: Tracking, body: bytes) -> Response[bytes]:
    return wire.reply(search(caller, tracking, wire.decode(body, Search)))


def search(caller: Scope, tracking: Tracking, asked: Search) -> dict[str, Any]:
    """The runs that are asked for, as MLflow writes them."""
    if asked.max_results > SEARCH_MAX:
        shown = msgspec.json.encode(asked.max_results).decode()
        raise InvalidInput(f"Invalid value {shown} for parameter 'max_results' supplied.{wire.SEE_DOCS}")
    found = tracking.runs.search(
        caller,
        asked.experiment_ids,
        asked.filter,
        asked.order_by,
        wire.view_of(asked.run_view_type, "run_view_type"),
        asked.max_results,
        asked.page_token,
    )
    content: dict[str, Any] = {}
    if found.items:
        content["runs"] = [view(one) for one in found.items]
    if found.next:
        content["next_page_token"] = found.next
    return content


def view(run: Run) -> dict[str, Any]:
    """A run as MLflow writes it."""
    data: dict[str, Any] = {}
    if run.metrics:
        data["metrics"] = [metric_view(metric) for metric in run.metrics]
    if run.params:
        data["params"] = wire.pairs(run.params)
    if run.tags:
        data["tags"] = wire.pairs(run.tags)
    inputs: dict[str, Any] = {}
    if run.inputs:
        inputs["dataset_inputs"] = [
            ({"tags": wire.pairs(one.tags)} if one.tags else {})
            | {"dataset": {key: text for key, text in msgspec.structs.asdict(one.dataset).items() if text is not None}}
            for one in run.inputs
        ]
    if run.model_inputs:
        inputs["model_inputs"] = [{"model_id": model_id} for model_id in run.model_inputs]
    outputs: dict[str, Any] = {}
    if run.model_outputs:
        outputs["model_outputs"] = [{"model_id": one.model_id, "step": one.step} for one in run.model_outputs]
    return {"info": info(run), "data": data, "inputs": inputs, "outputs": outputs}


def info(run: Run) -> dict[str, Any]:
    """The head of a run as MLflow writes it."""
    seen: dict[str, Any] = {
        "run_uuid": run.id,
        "experiment_id": run.experiment_id,
        "run_name": run.name,
        "user_id": run.user,
        "status": run.status,
        "start_time": wire.ms(run.started_at),
        "artifact_uri": run.artifact_uri,
        "lifecycle_stage": run.stage,
        "run_id": run.id,
    }
    if run.ended_at is not None:
        seen["end_time"] = wire.ms(run.ended_at)
    return seen


def metric_view(metric: Metric) -> dict[str, Any]:
    """A metric as MLflow writes it."""
    return {
        "key": metric.key,
        "value": wire.number(metric.value),
        "timestamp": metric.timestamp_ms,
        "step": metric.step,
    }


HANDLERS = [create_run, get_run, update_run, delete_run, restore_run, search_runs]
