"""MLflow's logged-models endpoints (new in 3.0, and every client of 3.x needs them)."""

from __future__ import annotations

import base64
import binascii
from typing import Any, ClassVar

import msgspec
from litestar import Request, Response

from modelyard.kernel.auth import Action, Scope
from modelyard.kernel.errors import InvalidInput
from modelyard.kernel.routing import delete, get, patch, post
from modelyard.planes.tracking import Tracking, order_model
from modelyard.server.dialects.mlflow import wire
from modelyard.server.dialects.mlflow.wire import Message, Pair, endpoint
from modelyard.types.tracking import LoggedModel, ModelMetric, ModelStatus

PAGE_DEFAULT = 100
_STATUSES: dict[str, ModelStatus] = {
    "1": "PENDING", "2": "READY", "3": "FAILED", "LOGGED_MODEL_PENDING": "PENDING", "LOGGED_MODEL_READY": "READY",
    "LOGGED_MODEL_UPLOAD_FAILED": "FAILED", "PENDING": "PENDING", "READY": "READY", "FAILED": "FAILED",
}  # fmt: skip
_STATUS_NAMES: dict[ModelStatus, str] = {
    "PENDING": "LOGGED_MODEL_PENDING", "READY": "LOGGED_MODEL_READY", "FAILED": "LOGGED_MODEL_UPLOAD_FAILED",
}  # fmt: skip


class Create(Message):
    REQUIRED: ClassVar = ("experiment_id",)
    experiment_id: str = ""
    name: str = ""
    model_type: str = ""
    source_run_id: str = ""
    params: list[Pair] = msgspec.field(default_factory=list)
    tags: list[Pair] = msgspec.field(default_factory=list)


class Finalize(Message):
    REQUIRED: ClassVar = ("status",)
    status: str | int | None = None


class Params(Message):
    params: list[Pair] = msgspec.field(default_factory=list)


class Tags(Message):
    tags: list[Pair] = msgspec.field(default_factory=list)


class OnDataset(msgspec.Struct, kw_only=True):
    dataset_name: str = ""
    dataset_digest: str = ""


class OrderBy(msgspec.Struct, kw_only=True):
    field_name: str = ""
    ascending: bool = True
    dataset_name: str = ""
    dataset_digest: str = ""


class Search(Message):
    REQUIRED: ClassVar = ("experiment_ids",)
    experiment_ids: list[str] = msgspec.field(default_factory=list)
    filter: str = ""
    datasets: list[OnDataset] = msgspec.field(default_factory=list)
    max_results: int | None = None
    order_by: list[OrderBy] = msgspec.field(default_factory=list)
    page_token: str = ""


class _Token(msgspec.Struct):
    """Where a search goes on; good only for the very same search."""

    experiment_ids: list[str]
    filter_string: str | None
    order_by: list[OrderBy]
    page: str


@post(endpoint("/logged-models"), requires=Action.WRITE)
def create_logged_model(caller: Scope, tracking: Tracking, body: bytes) -> Response[bytes]:
    asked = wire.decode(body, Create)
    made = tracking.models.create(
        caller,
        asked.experiment_id,
        asked.name or None,
        model_type=asked.model_type,
        source_run_id=asked.source_run_id,
        params=wire.mapping(asked.params),
        tags=wire.mapping(asked.tags),
    )
    return wire.reply({"model": view(made)})


@get(endpoint("/logged-models/{model_id:str}"), requires=Action.READ)
def get_logged_model(
    caller: Scope, tracking: Tracking, model_id: str, request: Request[Any, Any, Any]
) -> Response[bytes]:
    allowed = request.query_params.get("allow_deleted", "false").lower() == "true"
    return wire.reply({"model": view(tracking.models.get(caller, model_id, allow_deleted=allowed))})


@patch(endpoint("/logged-models/{model_id:str}"), requires=Action.WRITE)
def finalize_logged_model(caller: Scope, tracking: Tracking, model_id: str, body: bytes) -> Response[bytes]:
    asked = wire.decode(body, Finalize)
    status = _STATUSES.get(str(asked.status))
    if status is None:
        raise wire.invalid("status", asked.status)
    return wire.reply({"model": view(tracking.models.finish(caller, model_id, status))})


@delete(endpoint("/logged-models/{model_id:str}"), requires=Action.WRITE)
def delete_logged_model(caller: Scope, tracking: Tracking, model_id: str) -> Response[bytes]:
    tracking.models.delete(caller, model_id)
    return wire.reply()


@post(endpoint("/logged-models/{model_id:str}/params"), requires=Action.WRITE)
def log_logged_model_params(caller: Scope, tracking: Tracking, model_id: str, body: bytes) -> Response[bytes]:
    tracking.models.log_params(caller, model_id, wire.mapping(wire.decode(body, Params).params))
    return wire.reply()


@patch(endpoint("/logged-models/{model_id:str}/tags"), requires=Action.WRITE)
def set_logged_model_tags(caller: Scope, tracking: Tracking, model_id: str, body: bytes) -> Response[bytes]:
    tagged = tracking.models.set_tags(caller, model_id, wire.mapping(wire.decode(body, Tags).tags))
    return wire.reply({"model": view(tagged)})


@delete(endpoint("/logged-models/{model_id:str}/tags/{key:str}"), requires=Action.WRITE)
def delete_logged_model_tag(caller: Scope, tracking: Tracking, model_id: str, key: str) -> Response[bytes]:
    tracking.models.delete_tag(caller, model_id, key)
    return wire.reply()


@post(endpoint("/logged-models/search"), requires=Action.READ)
def search_logged_models(caller: Scope, tracking: Tracking, body: bytes) -> Response[bytes]:
    asked = wire.decode(body, Search)
    if any(not one.dataset_name for one in asked.datasets):
        raise InvalidInput("`dataset_name` in the `datasets` clause must be specified.")
    orders = [
        order_model(one.field_name, one.ascending, one.dataset_name, one.dataset_digest) for one in asked.order_by
    ]
    found = tracking.models.search(
        caller,
        asked.experiment_ids,
        asked.filter,
        orders,
        [(one.dataset_name, one.dataset_digest or None) for one in asked.datasets],
        asked.max_results or PAGE_DEFAULT,
        _page(asked),
    )
    content: dict[str, Any] = {}
    if found.items:
        content["models"] = [view(one) for one in found.items]
    if found.next:
        content["next_page_token"] = _token(asked, found.next)
    return wire.reply(content)


def _token(asked: Search, page: str) -> str:
    token = _Token(asked.experiment_ids, asked.filter or None, asked.order_by, page)
    return base64.b64encode(msgspec.json.encode(token)).decode()


def _page(asked: Search) -> str:
    if not asked.page_token:
        return ""
    try:
        token = msgspec.json.decode(base64.b64decode(asked.page_token, validate=True), type=_Token)
    except (msgspec.MsgspecError, binascii.Error, ValueError) as error:
        raise InvalidInput(f"Invalid page token: {asked.page_token[:200]}. {error}", code="page.invalid") from error
    for what, expected, found in (
        (
            "Experiment IDs in the page token do not match the requested experiment IDs",
            asked.experiment_ids,
            token.experiment_ids,
        ),
        (
            "Filter string in the page token does not match the requested filter string",
            asked.filter or None,
            token.filter_string,
        ),
        ("Order by in the page token does not match the requested order by", asked.order_by, token.order_by),
    ):
        if expected != found:
            raise InvalidInput(f"{what}. Expected: {expected}. Found: {found}", code="page.invalid")
    return token.page


def view(model: LoggedModel) -> dict[str, Any]:
    """A logged model as MLflow writes it."""
    info: dict[str, Any] = {
        "model_id": model.id,
        "experiment_id": model.experiment_id,
        "name": model.name,
        "creation_timestamp_ms": wire.ms(model.created_at),
        "last_updated_timestamp_ms": wire.ms(model.updated_at),
        "artifact_uri": model.artifact_location,
        "status": _STATUS_NAMES[model.status],
    }
    for name, text in (("model_type", model.model_type), ("source_run_id", model.source_run_id)):
        if text:
            info[name] = text
    if model.tags:
        info["tags"] = wire.pairs(model.tags)
    data: dict[str, Any] = {}
    if model.params:
        data["params"] = wire.pairs(model.params)
    if model.metrics:
        data["metrics"] = [_metric(model.id, metric) for metric in model.metrics]
    return {"info": info, "data": data}


def _metric(model_id: str, metric: ModelMetric) -> dict[str, Any]:
    seen: dict[str, Any] = {
        "key": metric.key,
        "value": wire.number(metric.value),
        "timestamp": metric.timestamp_ms,
        "step": metric.step,
        "model_id": model_id,
        "run_id": metric.run_id,
    }
    if metric.dataset_name:
        seen["dataset_name"] = metric.dataset_name
    if metric.dataset_digest:
        seen["dataset_digest"] = metric.dataset_digest
    return seen


HANDLERS = [
    create_logged_model,
    get_logged_model,
    finalize_logged_model,
    delete_logged_model,
    log_logged_model_params,
    set_logged_model_tags,
    delete_logged_model_tag,
    search_logged_models,
]
