"""MLflow's endpoints that log to a run: metrics, params, tags, inputs and outputs. The hot path of the dialect."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import msgspec
from litestar import Response

from modelyard.kernel.auth import Action, Scope
from modelyard.kernel.errors import InvalidInput
from modelyard.kernel.limits import MIB
from modelyard.kernel.routing import post
from modelyard.planes.tracking import (
    OfModel,
    PointColumns,
    Tracking,
    check_batch_sizes,
    check_params_unique,
    check_run_id,
)
from modelyard.server.dialects.mlflow import wire
from modelyard.server.dialects.mlflow.wire import Message, Pair, endpoint
from modelyard.types.tracking import Dataset, DatasetInput, ModelOutput

INPUTS_BYTES_MAX = 64 * MIB
"""The profile of one dataset may have 16 million characters."""
HISTORY_TAG = "mlflow.log-model.history"
TAG_CHARACTERS_MAX = 8_000
_MODEL_REQUIRED = frozenset({"artifact_path", "flavors", "utc_time_created", "run_id"})
_MODEL_FIELDS = ("run_id", "utc_time_created", "artifact_path", "model_uuid")


class Point(msgspec.Struct, kw_only=True, gc=False):
    key: str = ""
    value: float | None = None
    timestamp: int | None = None
    step: int = 0
    model_id: str = ""
    dataset_name: str = ""
    dataset_digest: str = ""


class LogMetric(Message):
    REQUIRED: ClassVar = ("run_id", "key", "value", "timestamp")
    run_id: str = ""
    run_uuid: str = ""
    key: str = ""
    value: float | None = None
    timestamp: int | None = None
    step: int = 0
    model_id: str = ""
    dataset_name: str = ""
    dataset_digest: str = ""


class LogBatch(Message):
    REQUIRED: ClassVar = ("run_id",)
    run_id: str = ""
    metrics: list[Point] = msgspec.field(default_factory=list)
    params: list[Pair] = msgspec.field(default_factory=list)
    tags: list[Pair] = msgspec.field(default_factory=list)


class LogPair(Message):
    REQUIRED: ClassVar = ("run_id", "key")
    run_id: str = ""
    run_uuid: str = ""
    key: str = ""
    value: str = ""


class Input(msgspec.Struct, kw_only=True):
    dataset: Dataset
    tags: list[Pair] = msgspec.field(default_factory=list)


class InputModel(msgspec.Struct, kw_only=True):
    model_id: str = ""


class OutputModel(msgspec.Struct, kw_only=True):
    model_id: str = ""
    step: int = 0


class LogInputs(Message):
    REQUIRED: ClassVar = ("run_id",)
    run_id: str = ""
    datasets: list[Input] = msgspec.field(default_factory=list)
    models: list[InputModel] = msgspec.field(default_factory=list)


class LogOutputs(Message):
    REQUIRED: ClassVar = ("run_id", "models")
    run_id: str = ""
    models: list[OutputModel] = msgspec.field(default_factory=list)


class LogModel(Message):
    REQUIRED: ClassVar = ("run_id", "model_json")
    run_id: str = ""
    model_json: str = ""


@post(endpoint("/runs/log-metric"), requires=Action.WRITE, direct=True)
def log_metric(caller: Scope, tracking: Tracking, body: bytes) -> Response[bytes]:
    asked = wire.decode(body, LogMetric)
    assert asked.value is not None
    assert asked.timestamp is not None
    tracking.runs.log(
        caller, asked.run_id, [(asked.key, asked.value, asked.step, asked.timestamp)], of_models=_of_models([asked])
    )
    return wire.reply()


@post(endpoint("/runs/log-batch"), requires=Action.WRITE, direct=True)
def log_batch(caller: Scope, tracking: Tracking, body: bytes) -> Response[bytes]:
    asked = wire.decode(body, LogBatch)
    check_run_id(asked.run_id)
    check_batch_sizes(len(asked.metrics), len(asked.params), len(asked.tags))
    points = _columns(asked.metrics)
    for what, pairs in (("params", asked.params), ("tags", asked.tags)):
        for at, pair in enumerate(pairs):
            if not pair.key:
                raise wire.missing(f"{what}[{at}].key")
    check_params_unique([pair.key for pair in asked.params])
    tracking.runs.log(
        caller,
        asked.run_id,
        points,
        wire.mapping(asked.params),
        wire.mapping(asked.tags),
        of_models=_of_models(asked.metrics),
    )
    return wire.reply()


@post(endpoint("/runs/log-parameter"), requires=Action.WRITE, direct=True)
def log_parameter(caller: Scope, tracking: Tracking, body: bytes) -> Response[bytes]:
    asked = wire.decode(body, LogPair)
    tracking.runs.log(caller, asked.run_id, params={asked.key: asked.value})
    return wire.reply()


@post(endpoint("/runs/set-tag"), requires=Action.WRITE, direct=True)
def set_tag(caller: Scope, tracking: Tracking, body: bytes) -> Response[bytes]:
    asked = wire.decode(body, LogPair)
    tracking.runs.log(caller, asked.run_id, tags={asked.key: asked.value})
    return wire.reply()


@post(endpoint("/runs/delete-tag"), requires=Action.WRITE)
def delete_tag(caller: Scope, tracking: Tracking, body: bytes) -> Response[bytes]:
    asked = wire.decode(body, LogPair)
    tracking.runs.delete_tag(caller, asked.run_id, asked.key)
    return wire.reply()


@post(endpoint("/runs/log-inputs"), requires=Action.WRITE, request_max_body_size=INPUTS_BYTES_MAX)
def log_inputs(caller: Scope, tracking: Tracking, body: bytes) -> Response[bytes]:
    asked = wire.decode(body, LogInputs)
    inputs = [DatasetInput(one.dataset, wire.mapping(one.tags)) for one in asked.datasets]
    tracking.runs.log(caller, asked.run_id, inputs=inputs)
    if asked.models:
        tracking.runs.log_models(caller, asked.run_id, inputs=[one.model_id for one in asked.models])
    return wire.reply()


@post(endpoint("/runs/outputs"), requires=Action.WRITE)
def log_outputs(caller: Scope, tracking: Tracking, body: bytes) -> Response[bytes]:
    asked = wire.decode(body, LogOutputs)
    outputs = [ModelOutput(one.model_id, one.step) for one in asked.models]
    tracking.runs.log_models(caller, asked.run_id, outputs=outputs)
    return wire.reply()


@post(endpoint("/runs/log-model"), requires=Action.WRITE)
def log_model(caller: Scope, tracking: Tracking, body: bytes) -> Response[bytes]:
    """What clients before 3.0 call: the run keeps a list of its models in a tag."""
    asked = wire.decode(body, LogModel)
    try:
        model = json.loads(asked.model_json)
    except ValueError as error:
        raise InvalidInput(f"Malformed model info. \n {asked.model_json[:1_000]} \n is not a valid JSON.") from error
    lacking = sorted(_MODEL_REQUIRED - set(model if isinstance(model, dict) else ()))
    if lacking or not isinstance(model["flavors"], dict):
        raise InvalidInput(f"Model json is missing mandatory fields: {lacking}")
    kept = {key: model[key] for key in _MODEL_FIELDS if key in model}
    kept["flavors"] = {
        name: {key: value for key, value in flavor.items() if key != "config"} if isinstance(flavor, dict) else flavor
        for name, flavor in model["flavors"].items()
    }
    history = [*_history(tracking.runs.get(caller, asked.run_id).tags.get(HISTORY_TAG, "[]")), kept]
    # A tag that is too long would be cut, and be no JSON any more.
    while len(history) > 1 and len(json.dumps(history)) > TAG_CHARACTERS_MAX:
        history.pop(0)
    tracking.runs.log(caller, asked.run_id, tags={HISTORY_TAG: json.dumps(history)})
    return wire.reply()


def _history(text: str) -> list[Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return []
    return found if isinstance(found, list) else []


def _columns(points: list[Point]) -> PointColumns:
    """Raises InvalidInput for a point that lacks something."""
    keys, values = [point.key for point in points], [point.value for point in points]
    times = [point.timestamp for point in points]
    if not all(keys) or None in values or None in times:
        for at, point in enumerate(points):
            for name in ("key", "value", "timestamp"):
                if getattr(point, name) in ("", None):
                    raise wire.missing(f"metrics[{at}].{name}")
    return PointColumns(keys, values, [point.step for point in points], times)  # type: ignore[arg-type]


def _of_models(points: list[Any]) -> list[OfModel]:
    return [
        OfModel(one.model_id, one.key, one.value, one.step, one.timestamp, one.dataset_name, one.dataset_digest)
        for one in points
        if one.model_id
    ]


HANDLERS = [
    log_metric,
    log_batch,
    log_parameter,
    set_tag,
    delete_tag,
    log_inputs,
    log_outputs,
    log_model,
]
