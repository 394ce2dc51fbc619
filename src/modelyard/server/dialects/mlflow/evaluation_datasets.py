"""MLflow's endpoints of evaluation datasets. Tags, records, schema and profile travel as JSON in texts of the JSON."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec
from litestar import Request, Response

from modelyard.kernel.auth import Action, Scope
from modelyard.kernel.errors import InvalidInput
from modelyard.kernel.routing import delete, get, patch, post
from modelyard.planes.tracking import Tracking
from modelyard.server.dialects.mlflow import wire
from modelyard.server.dialects.mlflow.wire import Message, endpoint
from modelyard.types.tracing import EvaluationDataset, EvaluationRecord, PutRecord

PAGE_DEFAULT = 1_000
PAGE_MAX = 50_000
_ONE = "/datasets/{dataset_id:str}"


class Create(Message):
    REQUIRED: ClassVar = ("name",)
    name: str = ""
    experiment_ids: list[str] = []
    tags: str = ""


class Search(Message):
    experiment_ids: list[str] = []
    filter_string: str = ""
    max_results: int | None = None
    order_by: list[str] = []
    page_token: str = ""


class SetTags(Message):
    REQUIRED: ClassVar = ("tags",)
    tags: str = ""


class Put(Message):
    REQUIRED: ClassVar = ("records",)
    records: str = ""


class Records(Message):
    max_results: int | None = None
    page_token: str = ""


class DeleteRecords(Message):
    dataset_record_ids: list[str] = []


class Ties(Message):
    experiment_ids: list[str] = []


class Source(msgspec.Struct, kw_only=True):
    source_type: str = ""
    source_data: dict[str, Any] = {}


class Record(msgspec.Struct, kw_only=True):
    inputs: dict[str, Any] = {}
    outputs: Any = msgspec.UNSET
    expectations: dict[str, Any] | None = None
    tags: dict[str, Any] | None = None
    source: Source | None = None


@post(endpoint("/datasets/create", "3.0"), requires=Action.WRITE)
def create_dataset(caller: Scope, tracking: Tracking, body: bytes) -> Response[bytes]:
    asked = wire.decode(body, Create)
    return _one(tracking.evaluation.create(caller, asked.name, asked.experiment_ids, _tags(asked.tags)))


@get(endpoint(_ONE, "3.0"), requires=Action.READ)
def get_dataset(caller: Scope, tracking: Tracking, dataset_id: str) -> Response[bytes]:
    # Clients ask for the experiments when they need them.
    return wire.reply({"dataset": view(tracking.evaluation.get(caller, dataset_id), tied=False)})


@delete(endpoint(_ONE, "3.0"), requires=Action.WRITE)
def delete_dataset(caller: Scope, tracking: Tracking, dataset_id: str) -> Response[bytes]:
    tracking.evaluation.delete(caller, dataset_id)
    return wire.reply()


@post(endpoint("/datasets/search", "3.0"), requires=Action.READ)
def search_datasets(caller: Scope, tracking: Tracking, body: bytes) -> Response[bytes]:
    asked = wire.decode(body, Search)
    found = tracking.evaluation.search(
        caller, asked.experiment_ids, asked.filter_string, asked.order_by, _limit(asked.max_results), asked.page_token
    )
    content: dict[str, Any] = {}
    if found.items:
        content["datasets"] = [view(one, tied=False) for one in found.items]
    if found.next:
        content["next_page_token"] = found.next
    return wire.reply(content)


@patch(endpoint(f"{_ONE}/tags", "3.0"), requires=Action.WRITE)
def set_dataset_tags(caller: Scope, tracking: Tracking, dataset_id: str, body: bytes) -> Response[bytes]:
    tracking.evaluation.set_tags(caller, dataset_id, _tags(wire.decode(body, SetTags).tags))
    return wire.reply()


@delete(endpoint(f"{_ONE}/tags/{{key:str}}", "3.0"), requires=Action.WRITE)
def delete_dataset_tag(caller: Scope, tracking: Tracking, dataset_id: str, key: str) -> Response[bytes]:
    tracking.evaluation.delete_tag(caller, dataset_id, key)
    return wire.reply()


@post(endpoint(f"{_ONE}/records", "3.0"), requires=Action.WRITE)
def put_dataset_records(caller: Scope, tracking: Tracking, dataset_id: str, body: bytes) -> Response[bytes]:
    said = _json("records", wire.decode(body, Put).records, list[Record])
    added, merged = tracking.evaluation.put_records(caller, dataset_id, [_asked(one) for one in said])
    return wire.reply({"inserted_count": added, "updated_count": merged})


@get(endpoint(f"{_ONE}/records", "3.0"), requires=Action.READ)
def get_dataset_records(
    caller: Scope, tracking: Tracking, dataset_id: str, request: Request[Any, Any, Any]
) -> Response[bytes]:
    asked = wire.decode_query(request, Records)
    found = tracking.evaluation.records(caller, dataset_id, _limit(asked.max_results), asked.page_token)
    content = {"records": msgspec.json.encode([record_view(one) for one in found.items]).decode()}
    if found.next:
        content["next_page_token"] = found.next
    return wire.reply(content)


@delete(endpoint(f"{_ONE}/records", "3.0"), requires=Action.WRITE)
def delete_dataset_records(caller: Scope, tracking: Tracking, dataset_id: str, body: bytes) -> Response[bytes]:
    asked = wire.decode(body, DeleteRecords)
    gone = tracking.evaluation.delete_records(caller, dataset_id, asked.dataset_record_ids)
    return wire.reply({"deleted_count": gone})


@get(endpoint(f"{_ONE}/experiment-ids", "3.0"), requires=Action.READ)
def get_dataset_experiments(caller: Scope, tracking: Tracking, dataset_id: str) -> Response[bytes]:
    found = tracking.evaluation.experiments_of(caller, dataset_id)
    return wire.reply({"experiment_ids": found} if found else None)


@post(endpoint(f"{_ONE}/add-experiments", "3.0"), requires=Action.WRITE)
def add_dataset_to_experiments(caller: Scope, tracking: Tracking, dataset_id: str, body: bytes) -> Response[bytes]:
    asked = wire.decode(body, Ties)
    return _one(tracking.evaluation.add_experiments(caller, dataset_id, asked.experiment_ids))


@post(endpoint(f"{_ONE}/remove-experiments", "3.0"), requires=Action.WRITE)
def remove_dataset_from_experiments(caller: Scope, tracking: Tracking, dataset_id: str, body: bytes) -> Response[bytes]:
    asked = wire.decode(body, Ties)
    return _one(tracking.evaluation.remove_experiments(caller, dataset_id, asked.experiment_ids))


def view(one: EvaluationDataset, *, tied: bool = True) -> dict[str, Any]:
    """A dataset as MLflow writes it."""
    seen: dict[str, Any] = {
        "dataset_id": one.id,
        "name": one.name,
        "digest": one.digest,
        "created_time": one.created_ms,
        "last_update_time": one.updated_ms,
        "tags": msgspec.json.encode(one.tags).decode(),
    }
    if one.fields is not None:
        seen["schema"] = msgspec.json.encode(one.fields).decode()
    if one.records:
        seen["profile"] = msgspec.json.encode({"num_records": one.records}).decode()
    for name, text in (("created_by", one.created_by), ("last_updated_by", one.updated_by)):
        if text is not None:
            seen[name] = text
    if tied and one.experiment_ids:
        seen["experiment_ids"] = one.experiment_ids
    return seen


def record_view(one: EvaluationRecord) -> dict[str, Any]:
    """A record as MLflow writes it."""
    seen: dict[str, Any] = {
        "dataset_record_id": one.id,
        "dataset_id": one.dataset_id,
        "inputs": one.inputs,
        "tags": one.tags,
        "created_time": one.created_ms,
        "last_update_time": one.updated_ms,
    }
    if one.source_type is not None:
        source = one.source or {}
        seen["source_type"] = one.source_type
        seen["source"] = {"source_type": one.source_type, "source_data": source}
        named = source.get("trace_id" if one.source_type == "TRACE" else "source_id")
        if isinstance(named, str):
            seen["source_id"] = named
    for name, value in (
        ("outputs", one.outputs),
        ("expectations", one.expectations),
        ("created_by", one.created_by),
        ("last_updated_by", one.updated_by),
    ):
        if value is not None:
            seen[name] = value
    return seen


def _asked(said: Record) -> PutRecord:
    return PutRecord(
        inputs=said.inputs,
        outputs=said.outputs,
        expectations=said.expectations,
        tags={key: str(value) for key, value in (said.tags or {}).items()},
        source_type=None if said.source is None else said.source.source_type,
        source=None if said.source is None else said.source.source_data,
    )


def _tags(text: str) -> dict[str, str]:
    found = _json("tags", text or "{}", dict[str, Any])
    return {key: value if isinstance(value, str) else str(value) for key, value in found.items() if value is not None}


def _json(name: str, text: str, kind: Any) -> Any:
    try:
        return msgspec.json.decode(text.encode(), type=kind)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise InvalidInput(f"'{name}' is not the JSON that it should be: {error}", code="parameter.invalid") from error


def _limit(asked: int | None) -> int:
    limit = asked or PAGE_DEFAULT
    if not 1 <= limit <= PAGE_MAX:
        raise InvalidInput(
            f"Invalid value {limit} for parameter 'max_results' supplied. It must be 1 to {PAGE_MAX}.{wire.SEE_DOCS}",
            code="parameter.invalid",
        )
    return limit


def _one(found: EvaluationDataset) -> Response[bytes]:
    return wire.reply({"dataset": view(found)})


HANDLERS = [
    create_dataset,
    get_dataset,
    delete_dataset,
    search_datasets,
    set_dataset_tags,
    delete_dataset_tag,
    put_dataset_records,
    get_dataset_records,
    delete_dataset_records,
    get_dataset_experiments,
    add_dataset_to_experiments,
    remove_dataset_from_experiments,
]
