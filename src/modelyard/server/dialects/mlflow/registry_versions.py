"""MLflow's model-versions endpoints: versions, their tags, stages and where to download them from."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any, ClassVar

import msgspec
from litestar import Request, Response
from litestar.response import Stream

from modelyard.kernel.auth import Action, Scope
from modelyard.kernel.errors import InvalidInput, NotFound
from modelyard.kernel.routing import delete, get, patch, post
from modelyard.planes.registry import Registry, check_not_climbing
from modelyard.planes.tracking import Tracking
from modelyard.server.dialects.mlflow import wire
from modelyard.server.dialects.mlflow.registry_models import PROMPT_TAG, THROUGH_MLFLOW, check_max_results
from modelyard.server.dialects.mlflow.registry_views import version_view
from modelyard.server.dialects.mlflow.wire import Message, Pair, endpoint
from modelyard.types.registry import ModelVersion

SEARCH_DEFAULT = 10_000
SEARCH_MAX = 200_000
MODEL_VERSIONS_TAG = "mlflow.modelVersions"


class Create(Message):
    REQUIRED: ClassVar = ("name", "source")
    name: str = ""
    source: str = ""
    run_id: str = ""
    tags: list[Pair] = []
    run_link: str = ""
    description: str = ""
    model_id: str = ""


class Version(Message):
    REQUIRED: ClassVar = ("name", "version")
    name: str = ""
    version: str = ""


class Update(Message):
    REQUIRED: ClassVar = ("name", "version")
    name: str = ""
    version: str = ""
    description: str = ""


class Transition(Message):
    REQUIRED: ClassVar = ("name", "version", "stage")
    name: str = ""
    version: str = ""
    stage: str = ""
    archive_existing_versions: bool = False


class Search(Message):
    filter: str = ""
    max_results: int = SEARCH_DEFAULT
    order_by: list[str] = []
    page_token: str = ""


class SetTag(Message):
    REQUIRED: ClassVar = ("name", "version", "key")
    name: str = ""
    version: str = ""
    key: str = ""
    value: str = ""


class DeleteTag(Message):
    REQUIRED: ClassVar = ("name", "version", "key")
    name: str = ""
    version: str = ""
    key: str = ""


@post(endpoint("/model-versions/create"), requires=Action.WRITE)
def create_model_version(caller: Scope, registry: Registry, tracking: Tracking, body: bytes) -> Response[bytes]:
    asked = wire.decode(body, Create)
    tags = wire.mapping(asked.tags)
    prompt = PROMPT_TAG in tags
    if prompt:
        _check_prompt_source(asked.source)
    made = registry.versions.create(
        caller,
        asked.name,
        asked.source,
        run=asked.run_id,
        logged_model=asked.model_id,
        description=asked.description,
        tags=tags,
        run_link=asked.run_link,
        unchecked_source=prompt,
    )
    if made.provenance.logged_model:
        _note_on_logged_model(caller, tracking, made)
    return wire.reply({"model_version": version_view(made)})


def _check_prompt_source(source: str) -> None:
    """A prompt's source is a word, not a place; what looks like a place on this machine is refused all the same."""
    if source.startswith("/") or source.lower().startswith("file:"):
        raise InvalidInput(
            f"Invalid prompt source: '{source}'. Local source paths are not allowed for prompts.",
            code="source.local",
        )
    check_not_climbing(source)


def _note_on_logged_model(caller: Scope, tracking: Tracking, made: ModelVersion) -> None:
    """MLflow's clients and pages find a logged model's versions in a tag of it."""
    with suppress(NotFound, InvalidInput):
        model = tracking.models.get(caller, made.provenance.logged_model)
        noted: list[Any] = []
        with suppress(msgspec.DecodeError, msgspec.ValidationError):
            noted = msgspec.json.decode(model.tags.get(MODEL_VERSIONS_TAG, "[]"), type=list[Any])
        noted.append({"name": made.model, "version": made.version})
        tracking.models.set_tags(caller, model.id, {MODEL_VERSIONS_TAG: json.dumps(noted)})


@get(endpoint("/model-versions/get"), requires=Action.READ)
def get_model_version(caller: Scope, registry: Registry, request: Request[Any, Any, Any]) -> Response[bytes]:
    asked = wire.decode_query(request, Version)
    return wire.reply({"model_version": version_view(registry.versions.get(caller, asked.name, asked.version))})


@patch(endpoint("/model-versions/update"), requires=Action.WRITE)
def update_model_version(caller: Scope, registry: Registry, body: bytes) -> Response[bytes]:
    asked = wire.decode(body, Update)
    updated = registry.versions.describe(caller, asked.name, asked.version, asked.description)
    return wire.reply({"model_version": version_view(updated)})


@post(endpoint("/model-versions/transition-stage"), requires=Action.WRITE)
def transition_model_version_stage(caller: Scope, registry: Registry, body: bytes) -> Response[bytes]:
    asked = wire.decode(body, Transition)
    moved = registry.promotions.transition(
        caller,
        asked.name,
        asked.version,
        asked.stage,
        archive_existing=asked.archive_existing_versions,
    )
    return wire.reply({"model_version": version_view(moved)})


@delete(endpoint("/model-versions/delete"), requires=Action.WRITE)
def delete_model_version(caller: Scope, registry: Registry, body: bytes) -> Response[bytes]:
    asked = wire.decode(body, Version)
    registry.versions.drop(caller, asked.name, asked.version, THROUGH_MLFLOW, with_aliases=True)
    return wire.reply()


@get(endpoint("/model-versions/get-download-uri"), requires=Action.READ)
def get_model_version_download_uri(
    caller: Scope, registry: Registry, request: Request[Any, Any, Any]
) -> Response[bytes]:
    asked = wire.decode_query(request, Version)
    found = registry.versions.get(caller, asked.name, asked.version)
    # What is asked for here is loaded next: where a policy wants signed files, this is the place to refuse.
    registry.statements.check_loadable(caller, asked.name, found.version)
    return wire.reply({"artifact_uri": found.location or found.source})


@get(endpoint("/model-versions/search"), requires=Action.READ)
def search_model_versions(caller: Scope, registry: Registry, request: Request[Any, Any, Any]) -> Response[bytes]:
    return wire.reply(search(caller, registry, wire.decode_query(request, Search)))


def search(caller: Scope, registry: Registry, asked: Search) -> dict[str, Any]:
    """The versions that are asked for, as MLflow writes them."""
    check_max_results(asked.max_results, SEARCH_MAX)
    found = registry.versions.search(
        caller, asked.filter, asked.order_by, limit=asked.max_results, page=asked.page_token
    )
    content: dict[str, Any] = {}
    if found.items:
        # As MLflow has it: a search says nothing of aliases.
        content["model_versions"] = [version_view(version, with_aliases=False) for version in found.items]
    if found.next:
        content["next_page_token"] = found.next
    return content


@post(endpoint("/model-versions/set-tag"), requires=Action.WRITE)
def set_model_version_tag(caller: Scope, registry: Registry, body: bytes) -> Response[bytes]:
    asked = wire.decode(body, SetTag)
    registry.versions.set_tag(caller, asked.name, asked.version, asked.key, asked.value)
    return wire.reply()


@delete(endpoint("/model-versions/delete-tag"), requires=Action.WRITE)
def delete_model_version_tag(caller: Scope, registry: Registry, body: bytes) -> Response[bytes]:
    asked = wire.decode(body, DeleteTag)
    registry.versions.unset_tag(caller, asked.name, asked.version, asked.key)
    return wire.reply()


@get(["/model-versions/get-artifact", endpoint("/model-versions/get-artifact")], requires=Action.READ)
def get_model_version_artifact(caller: Scope, registry: Registry, name: str, version: str, path: str) -> Stream:
    """One file of a version, from its own immutable snapshot."""
    file, content = registry.versions.open(caller, name, version, path)
    headers = {
        "content-disposition": "attachment",
        "content-length": str(file.size_bytes),
        "x-content-type-options": "nosniff",
    }
    return Stream(registry.versions.pieces(content), media_type="application/octet-stream", headers=headers)


HANDLERS = [
    create_model_version,
    get_model_version,
    update_model_version,
    transition_model_version_stage,
    delete_model_version,
    get_model_version_download_uri,
    search_model_versions,
    set_model_version_tag,
    delete_model_version_tag,
    get_model_version_artifact,
]
