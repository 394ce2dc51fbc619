"""MLflow's GraphQL endpoint, as far as its pages ask: five queries and two that it calls mutations.

The schema is the one of MLflow's pages, written as data; answers are the views that REST gives, with the fields that
were selected, named as GraphQL names them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, TypeVar

import msgspec
from litestar import Response

from modelyard.kernel.auth import Action, Scope
from modelyard.kernel.errors import InvalidInput, ModelyardError
from modelyard.kernel.portions import portions
from modelyard.kernel.routing import post
from modelyard.planes.registry import Registry
from modelyard.planes.tracking import Tracking
from modelyard.server.dialects.mlflow import artifacts, experiments, metrics, registry_versions, runs, wire
from modelyard.server.dialects.mlflow.graphql_document import TOO_LARGE, Selection, read
from modelyard.server.dialects.mlflow.wire import Message

VERSIONS_OF_RUNS_MAX = 1_000
ROOT_FIELDS_MAX = ALIASES_MAX = 10
"""As a stock server has them: one request is not to be many."""
_RUNS_AT_ONCE = 100
_CAPITAL = re.compile(r"(?<=[a-z0-9])([A-Z])")
M = TypeVar("M", bound=Message)

# What a field is: `text`, `long` (a text, since JavaScript's numbers are short), `number`, `flag`, or a type's name; in
# brackets a list of such.
_PAIR = {"key": "text", "value": "text"}
SCHEMA: dict[str, dict[str, str]] = {
    "ApiError": {"code": "text", "message": "text", "helpUrl": "text"},
    "Pair": _PAIR,
    "Experiment": {
        "experimentId": "text", "name": "text", "artifactLocation": "text", "lifecycleStage": "text",
        "lastUpdateTime": "long", "creationTime": "long", "tags": "[Pair]", "effectiveTraceArchivalRetention": "text",
        "workspace": "text",
    },
    "RunInfo": {
        "runId": "text", "runUuid": "text", "runName": "text", "experimentId": "text", "userId": "text",
        "status": "text", "startTime": "long", "endTime": "long", "artifactUri": "text", "lifecycleStage": "text",
    },
    "Metric": {
        "key": "text", "value": "number", "timestamp": "long", "step": "long", "datasetName": "text",
        "datasetDigest": "text", "modelId": "text", "runId": "text",
    },
    "RunData": {"metrics": "[Metric]", "params": "[Pair]", "tags": "[Pair]"},
    "Dataset": {
        "name": "text", "digest": "text", "sourceType": "text", "source": "text", "schema": "text", "profile": "text",
    },
    "DatasetInput": {"tags": "[Pair]", "dataset": "Dataset"},
    "ModelInput": {"modelId": "text"},
    "ModelOutput": {"modelId": "text", "step": "long"},
    "RunInputs": {"datasetInputs": "[DatasetInput]", "modelInputs": "[ModelInput]"},
    "RunOutputs": {"modelOutputs": "[ModelOutput]"},
    "ModelParam": {"name": "text", "value": "text"},
    "DeploymentJobState": {
        "jobId": "text", "runId": "text", "jobState": "text", "runState": "text", "currentTaskName": "text",
    },
    "ModelVersion": {
        "name": "text", "version": "text", "creationTimestamp": "long", "lastUpdatedTimestamp": "long",
        "userId": "text", "currentStage": "text", "description": "text", "source": "text", "runId": "text",
        "status": "text", "statusMessage": "text", "tags": "[Pair]", "runLink": "text", "aliases": "[text]",
        "modelId": "text", "modelParams": "[ModelParam]", "modelMetrics": "[Metric]",
        "deploymentJobState": "DeploymentJobState",
    },
    "Run": {
        "info": "RunInfo", "data": "RunData", "inputs": "RunInputs", "outputs": "RunOutputs",
        "experiment": "Experiment", "modelVersions": "[ModelVersion]",
    },
    "FileInfo": {"path": "text", "isDir": "flag", "fileSize": "long"},
    "DatasetSummary": {"experimentId": "text", "name": "text", "digest": "text", "context": "text"},
    "GetExperimentResponse": {"experiment": "Experiment", "apiError": "ApiError"},
    "GetRunResponse": {"run": "Run", "apiError": "ApiError"},
    "SearchRunsResponse": {"runs": "[Run]", "nextPageToken": "text", "apiError": "ApiError"},
    "GetMetricHistoryBulkIntervalResponse": {"metrics": "[Metric]", "apiError": "ApiError"},
    "ListArtifactsResponse": {
        "rootUri": "text", "files": "[FileInfo]", "nextPageToken": "text", "apiError": "ApiError",
    },
    "SearchModelVersionsResponse": {
        "modelVersions": "[ModelVersion]", "nextPageToken": "text", "apiError": "ApiError",
    },
    "SearchDatasetsResponse": {"datasetSummaries": "[DatasetSummary]", "apiError": "ApiError"},
}  # fmt: skip


class Ask(Message):
    """A GraphQL request."""

    REQUIRED: ClassVar = ("query",)
    query: str = ""
    operationName: str | None = None
    variables: dict[str, Any] | None = None


class Asking(msgspec.Struct, frozen=True):
    """Who asks of which planes."""

    caller: Scope
    tracking: Tracking
    registry: Registry


@post(["/graphql", wire.endpoint("/graphql")], requires=Action.READ)
def graphql(caller: Scope, tracking: Tracking, registry: Registry, body: bytes) -> Response[bytes]:
    asked = wire.decode(body, Ask)
    asking = Asking(caller, tracking, registry)
    try:
        operation = read(asked.query, asked.variables or {}, asked.operationName or "")
        _check_size(operation.selections)
        data = {one.alias: _answer(asking, one) for one in operation.selections}
    except InvalidInput as error:
        # MLflow tells of what is too large by its bare words.
        said: Any = error.message if error.code == TOO_LARGE else {"message": error.message}
        return wire.reply({"data": None, "errors": [said]})
    return wire.reply({"data": data, "errors": None})


def _check_size(selections: tuple[Selection, ...]) -> None:
    for what, limit, count in (
        ("root fields", ROOT_FIELDS_MAX, len(selections)), ("aliases", ALIASES_MAX, _aliases(selections))
    ):  # fmt: skip
        if count > limit:
            raise InvalidInput(
                f"GraphQL queries should have at most {limit} {what}. Got {count} {what}.", code=TOO_LARGE
            )


def _aliases(selections: Iterable[Selection]) -> int:
    return sum((one.alias != one.name) + _aliases(one.below) for one in selections)


def _answer(asking: Asking, asked: Selection) -> Any:
    if asked.name == "__typename":
        return "Query"
    if asked.name not in ROOTS:
        raise InvalidInput(f"Cannot query field '{asked.name}' on type 'Query'.", code="graphql.unknown_field")
    kind, resolve = ROOTS[asked.name]
    given = asked.arguments.get("input") or {}
    if not isinstance(given, dict):
        raise InvalidInput("`input` must be an object", code="graphql.invalid")
    try:
        found = resolve(asking, {_snake(name): value for name, value in given.items()}, asked)
    except ModelyardError as error:
        _, code, message = wire.error_of(error)
        found = {"api_error": {"code": code, "message": message}}
    return _project(found, kind, asked.below)


def _experiment(asking: Asking, given: dict[str, Any], _asked: Selection) -> dict[str, Any]:
    wanted = _message(given, experiments.ById)
    return {"experiment": experiments.view(asking.tracking.experiments.get(asking.caller, wanted.experiment_id))}


def _run(asking: Asking, given: dict[str, Any], asked: Selection) -> dict[str, Any]:
    wanted = _message(given, runs.ById)
    found = [runs.view(asking.tracking.runs.get(asking.caller, wanted.run_id))]
    _extend(asking, found, _below(asked, "run"))
    return {"run": found[0]}


def _runs(asking: Asking, given: dict[str, Any], asked: Selection) -> dict[str, Any]:
    found = runs.search(asking.caller, asking.tracking, _message(given, runs.Search))
    _extend(asking, found.get("runs", []), _below(asked, "runs"))
    return found


def _history(asking: Asking, given: dict[str, Any], _asked: Selection) -> dict[str, Any]:
    points = metrics.interval(asking.caller, asking.tracking, _message(given, metrics.Interval))
    return {"metrics": [msgspec.structs.asdict(point) for point in points]}


def _files(asking: Asking, given: dict[str, Any], _asked: Selection) -> dict[str, Any]:
    found = artifacts.listing(asking.caller, asking.tracking, _message(given, artifacts.Listed))
    # What REST leaves out is here the zero of its type.
    return {**found, "files": [{"file_size": 0, **one} for one in found.get("files", [])]}


def _versions(asking: Asking, given: dict[str, Any], _asked: Selection) -> dict[str, Any]:
    return registry_versions.search(asking.caller, asking.registry, _message(given, registry_versions.Search))


def _datasets(asking: Asking, given: dict[str, Any], _asked: Selection) -> dict[str, Any]:
    wanted = _message(given, experiments.SearchDatasets)
    found = experiments.datasets(asking.caller, asking.tracking, wanted)
    return {"dataset_summaries": [{"context": "", **one} for one in found]}


Resolver = Callable[[Asking, dict[str, Any], Selection], dict[str, Any]]
ROOTS: dict[str, tuple[str, Resolver]] = {
    "mlflowGetExperiment": ("GetExperimentResponse", _experiment),
    "mlflowGetRun": ("GetRunResponse", _run),
    "mlflowSearchRuns": ("SearchRunsResponse", _runs),
    "mlflowGetMetricHistoryBulkInterval": ("GetMetricHistoryBulkIntervalResponse", _history),
    "mlflowListArtifacts": ("ListArtifactsResponse", _files),
    "mlflowSearchModelVersions": ("SearchModelVersionsResponse", _versions),
    "mlflowSearchDatasets": ("SearchDatasetsResponse", _datasets),
}


def _extend(asking: Asking, found: list[dict[str, Any]], selected: Iterable[str]) -> None:
    """Add to runs what REST does not say of them: their experiment and their versions, each asked for once."""
    wanted = set(selected)
    if "experiment" in wanted:
        numbers = {one["info"]["experiment_id"] for one in found}
        known = {number: experiments.view(asking.tracking.experiments.get(asking.caller, number)) for number in numbers}
        for one in found:
            one["experiment"] = known[one["info"]["experiment_id"]]
    if "modelVersions" in wanted:
        by_run = _versions_of(asking, [one["info"]["run_id"] for one in found])
        for one in found:
            one["model_versions"] = by_run.get(one["info"]["run_id"], [])


def _versions_of(asking: Asking, run_ids: list[str]) -> dict[str, list[dict[str, Any]]]:
    by_run: dict[str, list[dict[str, Any]]] = {}
    for some in portions(run_ids, _RUNS_AT_ONCE):
        ids = ", ".join(f"'{one}'" for one in some)
        wanted = registry_versions.Search(filter=f"run_id IN ({ids})", max_results=VERSIONS_OF_RUNS_MAX)
        found = registry_versions.search(asking.caller, asking.registry, wanted)
        for version in found.get("model_versions", ()):
            by_run.setdefault(version["run_id"], []).append(version)
    return by_run


def _message(given: dict[str, Any], kind: type[M]) -> M:
    return wire.from_builtins(given, kind)


def _below(asked: Selection, name: str) -> list[str]:
    return [field.name for one in asked.below if one.name == name for field in one.below]


def _project(found: Mapping[str, Any], kind: str, selected: tuple[Selection, ...]) -> dict[str, Any]:
    """The selected fields of a view. Raises InvalidInput for a field that its type does not have."""
    fields, shown = SCHEMA[kind], {}
    if not selected:
        raise InvalidInput(f"a field of type '{kind}' must have a selection", code="graphql.invalid")
    for one in selected:
        if one.name == "__typename":
            shown[one.alias] = f"Mlflow{kind}"
            continue
        if one.name not in fields:
            raise InvalidInput(f"Cannot query field '{one.name}' on type '{kind}'.", code="graphql.unknown_field")
        shown[one.alias] = _value(found.get(_snake(one.name)), fields[one.name], one)
    return shown


def _value(found: Any, kind: str, asked: Selection) -> Any:
    if kind.startswith("["):
        return [_value(one, kind[1:-1], asked) for one in found or ()]
    if found is None:
        return None
    if kind == "long":
        return str(found)
    if kind == "number":
        # GraphQL has no word for not-a-number.
        value = float(found)
        return value if math.isfinite(value) else None
    if kind in ("text", "flag"):
        return found
    return _project(found, kind, asked.below)


def _snake(name: str) -> str:
    return _CAPITAL.sub(r"_\1", name).lower()


HANDLERS = [graphql]
