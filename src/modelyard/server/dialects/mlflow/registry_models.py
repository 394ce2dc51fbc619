"""MLflow's registered-models endpoints: models, their tags and aliases, the newest version of each stage."""

from __future__ import annotations

from typing import Any, ClassVar

from litestar import Request, Response

from modelyard.kernel.auth import Action, Scope
from modelyard.kernel.errors import Conflict, InvalidInput, NotFound
from modelyard.kernel.routing import delete, get, patch, post
from modelyard.planes.registry import Registry
from modelyard.server.dialects.mlflow import wire
from modelyard.server.dialects.mlflow.registry_views import model_view, version_view
from modelyard.server.dialects.mlflow.wire import Message, Pair, endpoint

SEARCH_DEFAULT = 100
SEARCH_MAX = 1_000
PROMPT_TAG = "mlflow.prompt.is_prompt"
THROUGH_MLFLOW = "through the MLflow API"


class Create(Message):
    REQUIRED: ClassVar = ("name",)
    name: str = ""
    tags: list[Pair] = []
    description: str = ""


class Named(Message):
    REQUIRED: ClassVar = ("name",)
    name: str = ""


class Update(Message):
    REQUIRED: ClassVar = ("name",)
    name: str = ""
    description: str = ""


class Rename(Message):
    REQUIRED: ClassVar = ("name", "new_name")
    name: str = ""
    new_name: str = ""


class Search(Message):
    filter: str = ""
    max_results: int = SEARCH_DEFAULT
    order_by: list[str] = []
    page_token: str = ""


class Latest(Message):
    REQUIRED: ClassVar = ("name",)
    name: str = ""
    stages: list[str] = []


class SetTag(Message):
    REQUIRED: ClassVar = ("name", "key")
    name: str = ""
    key: str = ""
    value: str = ""


class DeleteTag(Message):
    REQUIRED: ClassVar = ("name", "key")
    name: str = ""
    key: str = ""


class SetAlias(Message):
    REQUIRED: ClassVar = ("name", "alias", "version")
    name: str = ""
    alias: str = ""
    version: str = ""


class Alias(Message):
    REQUIRED: ClassVar = ("name", "alias")
    name: str = ""
    alias: str = ""


@post(endpoint("/registered-models/create"), requires=Action.WRITE)
def create_registered_model(caller: Scope, registry: Registry, body: bytes) -> Response[bytes]:
    asked = wire.decode(body, Create)
    tags = wire.mapping(asked.tags)
    try:
        made = registry.models.create(caller, asked.name, description=asked.description, tags=tags)
    except Conflict as error:
        if error.code == "model.exists":
            raise _name_taken(registry.models.get(caller, asked.name).tags, tags, asked.name) from error
        raise
    return wire.reply({"registered_model": model_view(made)})


@get(endpoint("/registered-models/get"), requires=Action.READ)
def get_registered_model(caller: Scope, registry: Registry, request: Request[Any, Any, Any]) -> Response[bytes]:
    found = registry.models.get(caller, wire.decode_query(request, Named).name)
    return wire.reply({"registered_model": model_view(found)})


@patch(endpoint("/registered-models/update"), requires=Action.WRITE)
def update_registered_model(caller: Scope, registry: Registry, body: bytes) -> Response[bytes]:
    asked = wire.decode(body, Update)
    updated = registry.models.describe(caller, asked.name, asked.description)
    return wire.reply({"registered_model": model_view(updated)})


@post(endpoint("/registered-models/rename"), requires=Action.WRITE)
def rename_registered_model(caller: Scope, registry: Registry, body: bytes) -> Response[bytes]:
    asked = wire.decode(body, Rename)
    renamed = registry.models.rename(caller, asked.name, asked.new_name)
    return wire.reply({"registered_model": model_view(renamed)})


@delete(endpoint("/registered-models/delete"), requires=Action.WRITE)
def delete_registered_model(caller: Scope, registry: Registry, body: bytes) -> Response[bytes]:
    registry.models.delete(caller, wire.decode(body, Named).name, THROUGH_MLFLOW)
    return wire.reply()


@get(endpoint("/registered-models/search"), requires=Action.READ)
def search_registered_models(caller: Scope, registry: Registry, request: Request[Any, Any, Any]) -> Response[bytes]:
    asked = wire.decode_query(request, Search)
    check_max_results(asked.max_results, SEARCH_MAX)
    found = registry.models.search(caller, asked.filter, asked.order_by, limit=asked.max_results, page=asked.page_token)
    content: dict[str, Any] = {}
    if found.items:
        content["registered_models"] = [model_view(model) for model in found.items]
    if found.next:
        content["next_page_token"] = found.next
    return wire.reply(content)


def check_max_results(value: int, most: int) -> None:
    """Raise InvalidInput, in MLflow's words, for a page size that is not allowed."""
    if value < 1:
        raise InvalidInput(
            f"Invalid value for max_results. It must be a positive integer, but got {value}",
            code="parameter.invalid",
        )
    if value > most:
        raise InvalidInput(
            f"Invalid value for request parameter max_results. It must be at most {most}, but got value {value}",
            code="parameter.invalid",
        )


@get(endpoint("/registered-models/get-latest-versions"), requires=Action.READ)
def get_latest_versions(caller: Scope, registry: Registry, request: Request[Any, Any, Any]) -> Response[bytes]:
    return _latest(caller, registry, wire.decode_query(request, Latest))


@post(endpoint("/registered-models/get-latest-versions"), requires=Action.READ)
def post_latest_versions(caller: Scope, registry: Registry, body: bytes) -> Response[bytes]:
    return _latest(caller, registry, wire.decode(body, Latest))


def _latest(caller: Scope, registry: Registry, asked: Latest) -> Response[bytes]:
    found = registry.versions.latest(caller, asked.name, asked.stages)
    return wire.reply({"model_versions": [version_view(version) for version in found]} if found else {})


@post(endpoint("/registered-models/set-tag"), requires=Action.WRITE)
def set_registered_model_tag(caller: Scope, registry: Registry, body: bytes) -> Response[bytes]:
    asked = wire.decode(body, SetTag)
    registry.models.set_tag(caller, asked.name, asked.key, asked.value)
    return wire.reply()


@delete(endpoint("/registered-models/delete-tag"), requires=Action.WRITE)
def delete_registered_model_tag(caller: Scope, registry: Registry, body: bytes) -> Response[bytes]:
    asked = wire.decode(body, DeleteTag)
    registry.models.unset_tag(caller, asked.name, asked.key)
    return wire.reply()


@post(endpoint("/registered-models/alias"), requires=Action.WRITE)
def set_registered_model_alias(caller: Scope, registry: Registry, body: bytes) -> Response[bytes]:
    asked = wire.decode(body, SetAlias)
    registry.promotions.promote(caller, asked.name, asked.version, asked.alias, THROUGH_MLFLOW)
    return wire.reply()


@delete(endpoint("/registered-models/alias"), requires=Action.WRITE)
def delete_registered_model_alias(caller: Scope, registry: Registry, body: bytes) -> Response[bytes]:
    asked = wire.decode(body, Alias)
    registry.promotions.unset(caller, asked.name, asked.alias, THROUGH_MLFLOW)
    return wire.reply()


@get(endpoint("/registered-models/alias"), requires=Action.READ)
def get_model_version_by_alias(caller: Scope, registry: Registry, request: Request[Any, Any, Any]) -> Response[bytes]:
    asked = wire.decode_query(request, Alias)
    return wire.reply({"model_version": version_view(by_alias(caller, registry, asked.name, asked.alias))})


def by_alias(caller: Scope, registry: Registry, name: str, alias: str) -> Any:
    """The version under an alias. An alias that is not there is MLflow's INVALID_PARAMETER_VALUE."""
    try:
        return registry.promotions.aliased(caller, name, alias)
    except NotFound as error:
        if error.code == "alias.not_found":
            raise InvalidInput(error.message, code=error.code, hint=error.hint) from error
        raise


def _name_taken(existing: dict[str, str], new: dict[str, str], name: str) -> Conflict:
    old = "Prompt" if PROMPT_TAG in existing else "Registered Model"
    wanted = "Prompt" if PROMPT_TAG in new else "Registered Model"
    if old == wanted:
        return Conflict(f"{wanted} (name={name}) already exists.", code="model.exists")
    return Conflict(
        f"Tried to create a {wanted.lower()} with name {name!r}, but the name is already taken by a "
        f"{old.lower()}. MLflow does not allow creating a model and a prompt with the same name.",
        code="model.exists",
    )


HANDLERS = [
    create_registered_model,
    get_registered_model,
    update_registered_model,
    rename_registered_model,
    delete_registered_model,
    search_registered_models,
    get_latest_versions,
    post_latest_versions,
    set_registered_model_tag,
    delete_registered_model_tag,
    set_registered_model_alias,
    delete_registered_model_alias,
    get_model_version_by_alias,
]
