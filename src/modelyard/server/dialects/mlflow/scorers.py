"""MLflow's endpoints of scorers: what clients register, list, get and delete. Running them is the client's work."""

from __future__ import annotations

from typing import Any, ClassVar

from litestar import Request, Response

from modelyard.kernel.auth import Action, Scope
from modelyard.kernel.errors import InvalidInput
from modelyard.kernel.routing import delete, get, post, put
from modelyard.planes.tracking import Tracking
from modelyard.server.dialects.mlflow import wire
from modelyard.server.dialects.mlflow.wire import Message, endpoint
from modelyard.types.tracing import Scorer


class Register(Message):
    REQUIRED: ClassVar = ("experiment_id", "name", "serialized_scorer")
    experiment_id: str = ""
    name: str = ""
    serialized_scorer: str = ""


class OfExperiment(Message):
    REQUIRED: ClassVar = ("experiment_id",)
    experiment_id: str = ""


class OnlineConfig(Message):
    REQUIRED: ClassVar = ("experiment_id", "name")
    experiment_id: str = ""
    name: str = ""


class ByName(Message):
    REQUIRED: ClassVar = ("experiment_id", "name")
    experiment_id: str = ""
    name: str = ""
    version: int | None = None


@post(endpoint("/scorers/register", "3.0"), requires=Action.WRITE)
def register_scorer(caller: Scope, tracking: Tracking, body: bytes) -> Response[bytes]:
    asked = wire.decode(body, Register)
    made = tracking.scorers.register(caller, asked.experiment_id, asked.name, asked.serialized_scorer)
    return wire.reply(
        {
            "version": made.version,
            "scorer_id": made.id,
            "experiment_id": made.experiment_id,
            "name": made.name,
            "serialized_scorer": made.definition,
            "creation_time": made.created_ms,
        }
    )


@get(endpoint("/scorers/list", "3.0"), requires=Action.READ)
def list_scorers(caller: Scope, tracking: Tracking, request: Request[Any, Any, Any]) -> Response[bytes]:
    asked = wire.decode_query(request, OfExperiment)
    return _several(tracking.scorers.latest(caller, asked.experiment_id))


@get(endpoint("/scorers/versions", "3.0"), requires=Action.READ)
def list_scorer_versions(caller: Scope, tracking: Tracking, request: Request[Any, Any, Any]) -> Response[bytes]:
    asked = wire.decode_query(request, ByName)
    return _several(tracking.scorers.versions(caller, asked.experiment_id, asked.name))


@get(endpoint("/scorers/get", "3.0"), requires=Action.READ)
def get_scorer(caller: Scope, tracking: Tracking, request: Request[Any, Any, Any]) -> Response[bytes]:
    asked = wire.decode_query(request, ByName)
    return wire.reply({"scorer": view(tracking.scorers.get(caller, asked.experiment_id, asked.name, asked.version))})


@delete(endpoint("/scorers/delete", "3.0"), requires=Action.WRITE)
def delete_scorer(caller: Scope, tracking: Tracking, body: bytes) -> Response[bytes]:
    asked = wire.decode(body, ByName)
    tracking.scorers.delete(caller, asked.experiment_id, asked.name, asked.version)
    return wire.reply()


@put(endpoint("/scorers/online-config", "3.0"), requires=Action.WRITE)
def score_online(caller: Scope, tracking: Tracking, body: bytes) -> Response[bytes]:
    """MLflow scores traces as they come by models of its gateway only, and here is no gateway."""
    asked = wire.decode(body, OnlineConfig)
    scorer = tracking.scorers.get(caller, asked.experiment_id, asked.name)
    raise InvalidInput(
        f"Scorer '{scorer.name}' does not use a gateway model. Automatic evaluation is only supported for scorers that "
        "use gateway models.",
        code="scorer.not_online",
        hint="this server has no gateway: evaluate traces by `mlflow.genai.evaluate`",
    )


@get(endpoint("/scorers/online-configs", "3.0"), requires=Action.READ)
def list_online_configs() -> Response[bytes]:
    return wire.reply({"configs": []})


def view(scorer: Scorer) -> dict[str, Any]:
    """A version of a scorer as MLflow writes it."""
    return {
        "experiment_id": int(scorer.experiment_id),
        "scorer_name": scorer.name,
        "scorer_version": scorer.version,
        "serialized_scorer": scorer.definition,
        "creation_time": scorer.created_ms,
        "scorer_id": scorer.id,
    }


def _several(found: list[Scorer]) -> Response[bytes]:
    return wire.reply({"scorers": [view(one) for one in found]} if found else None)


HANDLERS = [
    register_scorer, list_scorers, list_scorer_versions, get_scorer, delete_scorer, score_online, list_online_configs,
]  # fmt: skip
