"""MLflow's experiments endpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import msgspec
from litestar import Request, Response

from modelyard.kernel.auth import Action, Scope
from modelyard.kernel.errors import InvalidInput, NotFound
from modelyard.kernel.routing import get, post
from modelyard.planes.tracking import Tracking
from modelyard.server.dialects.mlflow import wire
from modelyard.server.dialects.mlflow.wire import Message, Pair, endpoint
from modelyard.types.tracking import CreateExperiment, Experiment

SEARCH_MAX = 50_000
DATASETS_EXPERIMENTS_MAX = 20


class Create(Message):
    REQUIRED: ClassVar = ("name",)
    name: str = ""
    artifact_location: str = ""
    tags: list[Pair] = msgspec.field(default_factory=list)


class ById(Message):
    REQUIRED: ClassVar = ("experiment_id",)
    experiment_id: str = ""


class ByName(Message):
    REQUIRED: ClassVar = ("experiment_name",)
    experiment_name: str = ""


class Rename(Message):
    REQUIRED: ClassVar = ("experiment_id", "new_name")
    experiment_id: str = ""
    new_name: str = ""


class Search(Message):
    view_type: str | int | None = None
    max_results: int | None = None
    order_by: list[str] = msgspec.field(default_factory=list)
    filter: str = ""
    page_token: str = ""


class SetTag(Message):
    REQUIRED: ClassVar = ("experiment_id", "key")
    experiment_id: str = ""
    key: str = ""
    value: str = ""


class DeleteTag(Message):
    REQUIRED: ClassVar = ("experiment_id", "key")
    experiment_id: str = ""
    key: str = ""


class SearchDatasets(Message):
    experiment_ids: list[str] = msgspec.field(default_factory=list)


@post(endpoint("/experiments/create"), requires=Action.WRITE)
def create_experiment(caller: Scope, tracking: Tracking, body: bytes) -> Response[bytes]:
    asked = wire.decode(body, Create)
    location = _absolute(asked.artifact_location)
    made = tracking.experiments.create(
        caller, CreateExperiment(name=asked.name, artifact_location=location, tags=wire.mapping(asked.tags))
    )
    return wire.reply({"experiment_id": made.id})


def _absolute(location: str) -> str:
    """A path below the server's working directory, as MLflow's server makes it: else every client, which is who opens
    it, would take its own. What names a scheme stays."""
    return location if not location or urlsplit(location).scheme else str(Path.cwd() / location)


@get(endpoint("/experiments/get"), requires=Action.READ)
def get_experiment(caller: Scope, tracking: Tracking, request: Request[Any, Any, Any]) -> Response[bytes]:
    asked = wire.decode_query(request, ById)
    return wire.reply({"experiment": view(tracking.experiments.get(caller, asked.experiment_id))})


@get(endpoint("/experiments/get-by-name"), requires=Action.READ)
def get_experiment_by_name(caller: Scope, tracking: Tracking, request: Request[Any, Any, Any]) -> Response[bytes]:
    name = wire.decode_query(request, ByName).experiment_name
    found = tracking.experiments.find(caller, name)
    if found is None:
        raise NotFound(f"Could not find experiment with name '{name}'", code="experiment.not_found")
    return wire.reply({"experiment": view(found)})


@post(endpoint("/experiments/search"), requires=Action.READ)
def search_experiments(caller: Scope, tracking: Tracking, body: bytes) -> Response[bytes]:
    return _search(caller, tracking, wire.decode(body, Search))


@get(endpoint("/experiments/search"), requires=Action.READ)
def search_experiments_by_query(caller: Scope, tracking: Tracking, request: Request[Any, Any, Any]) -> Response[bytes]:
    return _search(caller, tracking, wire.decode_query(request, Search))


@post(endpoint("/experiments/update"), requires=Action.WRITE)
def rename_experiment(caller: Scope, tracking: Tracking, body: bytes) -> Response[bytes]:
    asked = wire.decode(body, Rename)
    tracking.experiments.rename(caller, asked.experiment_id, asked.new_name)
    return wire.reply()


@post(endpoint("/experiments/delete"), requires=Action.WRITE)
def delete_experiment(caller: Scope, tracking: Tracking, body: bytes) -> Response[bytes]:
    tracking.experiments.delete(caller, wire.decode(body, ById).experiment_id)
    return wire.reply()


@post(endpoint("/experiments/restore"), requires=Action.WRITE)
def restore_experiment(caller: Scope, tracking: Tracking, body: bytes) -> Response[bytes]:
    tracking.experiments.restore(caller, wire.decode(body, ById).experiment_id)
    return wire.reply()


@post(endpoint("/experiments/set-experiment-tag"), requires=Action.WRITE)
def set_experiment_tag(caller: Scope, tracking: Tracking, body: bytes) -> Response[bytes]:
    asked = wire.decode(body, SetTag)
    tracking.experiments.set_tag(caller, asked.experiment_id, asked.key, asked.value)
    return wire.reply()


@post(endpoint("/experiments/delete-experiment-tag"), requires=Action.WRITE)
def delete_experiment_tag(caller: Scope, tracking: Tracking, body: bytes) -> Response[bytes]:
    asked = wire.decode(body, DeleteTag)
    tracking.experiments.delete_tag(caller, asked.experiment_id, asked.key)
    return wire.reply()


@post(endpoint("/experiments/search-datasets"), requires=Action.READ)
def search_datasets(caller: Scope, tracking: Tracking, body: bytes) -> Response[bytes]:
    summaries = datasets(caller, tracking, wire.decode(body, SearchDatasets))
    return wire.reply({"dataset_summaries": summaries} if summaries else None)


def datasets(caller: Scope, tracking: Tracking, asked: SearchDatasets) -> list[dict[str, Any]]:
    """The datasets that runs of some experiments read, as MLflow writes them."""
    experiment_ids = asked.experiment_ids
    if not experiment_ids:
        raise InvalidInput("SearchDatasets request must specify at least one experiment_id.")
    if len(experiment_ids) > DATASETS_EXPERIMENTS_MAX:
        raise InvalidInput(
            f"SearchDatasets request cannot specify more than {DATASETS_EXPERIMENTS_MAX} experiment_ids. "
            f"Received {len(experiment_ids)} experiment_ids."
        )
    found = tracking.runs.datasets(caller, experiment_ids)
    return [
        {"experiment_id": one.experiment_id, "name": one.name, "digest": one.digest}
        | ({} if one.context is None else {"context": one.context})
        for one in found
    ]


def _search(caller: Scope, tracking: Tracking, asked: Search) -> Response[bytes]:
    limit = 1_000 if asked.max_results is None else asked.max_results
    if not 1 <= limit <= SEARCH_MAX:
        bound = "a positive integer" if limit < 1 else f"at most {SEARCH_MAX}"
        raise InvalidInput(f"Invalid value {limit} for parameter 'max_results' supplied. It must be {bound}")
    stages = wire.view_of(asked.view_type, "view_type")
    found = tracking.experiments.search(caller, asked.filter, asked.order_by, stages, limit, asked.page_token)
    content: dict[str, Any] = {}
    if found.items:
        content["experiments"] = [view(one) for one in found.items]
    if found.next:
        content["next_page_token"] = found.next
    return wire.reply(content)


def view(found: Experiment) -> dict[str, Any]:
    """An experiment as MLflow writes it."""
    seen: dict[str, Any] = {
        "experiment_id": found.id,
        "name": found.name,
        "artifact_location": found.artifact_location,
        "lifecycle_stage": found.stage,
        "last_update_time": wire.ms(found.updated_at),
        "creation_time": wire.ms(found.created_at),
    }
    if found.tags:
        seen["tags"] = wire.pairs(found.tags)
    return seen


HANDLERS = [
    create_experiment,
    get_experiment,
    get_experiment_by_name,
    search_experiments,
    search_experiments_by_query,
    rename_experiment,
    delete_experiment,
    restore_experiment,
    set_experiment_tag,
    delete_experiment_tag,
    search_datasets,
]
