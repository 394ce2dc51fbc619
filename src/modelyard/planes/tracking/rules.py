"""What may be logged: names, lengths, counts. Pure; the texts are those that MLflow's clients and tests know."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from modelyard.kernel.errors import InvalidInput
from modelyard.types.tracking import Dataset, DatasetInput

BATCH_METRICS_MAX = 1_000
BATCH_PARAMS_MAX = 100
BATCH_TAGS_MAX = 100
BATCH_ENTITIES_MAX = 1_000
BATCH_BODY_BYTES_MAX = 1_000_000
NATIVE_BATCH_METRICS_MAX = 50_000
KEY_CHARACTERS_MAX = 250
PARAM_CHARACTERS_MAX = 6_000
TAG_CHARACTERS_MAX = 8_000
EXPERIMENT_NAME_CHARACTERS_MAX = 500
EXPERIMENT_TAG_CHARACTERS_MAX = 5_000
LOCATION_CHARACTERS_MAX = 2_048
DATASET_NAME_CHARACTERS_MAX = 500
DATASET_DIGEST_CHARACTERS_MAX = 36
DATASET_SOURCE_CHARACTERS_MAX = 65_535
DATASET_SCHEMA_CHARACTERS_MAX = 1_048_575
DATASET_PROFILE_CHARACTERS_MAX = 16_777_215
INPUT_TAG_KEY_CHARACTERS_MAX = 255
INPUT_TAG_VALUE_CHARACTERS_MAX = 500
INT64_MAX = 2**63 - 1
INT64_MIN = -(2**63)
TIME_MS_MIN, TIME_MS_MAX = -62_135_596_800_000, 253_402_300_799_999
"""The first millisecond of year 1 and the last of year 9999: no calendar of ours goes beyond."""
FLOAT_MAX = 1.7976931348623157e308

_KEY = re.compile(r"[/\w.\- :]*")
_EXPERIMENT_ID = re.compile(r"[0-9]{1,18}")
_RUN_ID = re.compile(r"[a-zA-Z0-9][\w\-]{0,255}")
_MODEL_ID = re.compile(r"m-[0-9a-f]{32}")
_MODEL_NAME_FORBIDDEN = ("/", ":", ".", "%", '"', "'")
_KEY_CHARACTERS = (
    "Names may only contain alphanumerics, underscores (_), dashes (-), periods (.), spaces ( ), colon(:)"
    " and slashes (/)."
)


def invalid_value(path: str, value: Any, why: str = "") -> str:
    """MLflow's sentence for a parameter that has no such value."""
    shown = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return f"Invalid value {shown} for parameter '{path}' supplied" + (f": {why}" if why else ".")


def missing_value(path: str) -> str:
    """MLflow's sentence for a parameter that is not there."""
    return f"Missing value for required parameter '{path}'."


def check_key(key: str, path: str) -> None:
    """Raise InvalidInput unless a metric, param or tag may have this name."""
    if not key:
        raise InvalidInput(missing_value(path), code="key.missing")
    if _KEY.fullmatch(key) is None:
        raise InvalidInput(invalid_value(path, key, _KEY_CHARACTERS), code="key.invalid")
    plain = posixpath.normpath(key)
    if plain != key or plain == "." or plain.startswith(("..", "/")):
        why = (
            "Names may be treated as files in certain cases, and must not resolve to other names"
            f" when treated as such. This name would resolve to {plain!r}"
        )
        raise InvalidInput(invalid_value(path, key, why), code="key.invalid")


def check_length(what: str, limit: int, text: str) -> None:
    """Raise InvalidInput for a text of more characters than the limit."""
    if len(text) > limit:
        raise InvalidInput(f"'{what}' exceeds the maximum length of {limit} characters", code="value.too_long")


def param_value(key: str, value: str, path: str = "") -> str:
    """The value as it is stored: cut at 6000 characters, as MLflow cuts it. Raises InvalidInput for the key."""
    check_key(key, _join(path, "key"))
    check_length("Param key", KEY_CHARACTERS_MAX, key)
    return value[:PARAM_CHARACTERS_MAX]


def tag_value(key: str, value: str, path: str = "") -> str:
    """The value as it is stored: cut at 8000 characters, as MLflow cuts it. Raises InvalidInput for the key."""
    check_key(key, _join(path, "key"))
    check_length(_join(path, "key"), KEY_CHARACTERS_MAX, key)
    return value[:TAG_CHARACTERS_MAX]


def experiment_tag(key: str, value: str) -> str:
    """The value as it is stored. Raises InvalidInput for a bad key or a value over 5000 characters."""
    check_key(key, "key")
    check_length("key", KEY_CHARACTERS_MAX, key)
    check_length("value", EXPERIMENT_TAG_CHARACTERS_MAX, value)
    return value


def check_metric_keys(keys: Iterable[str], paths: Mapping[str, str] | None = None) -> None:
    """Raise InvalidInput unless all are names that a metric may have; `paths` says where each was met."""
    for key in keys:
        path = (paths or {}).get(key, "")
        check_key(key, _join(path, "name"))
        check_length("Metric name", KEY_CHARACTERS_MAX, key)


def check_point(key: str, value: float, timestamp_ms: int, step: int, path: str = "") -> None:
    """Raise InvalidInput for a time or a step that no 64-bit column holds."""
    if not 0 <= timestamp_ms <= INT64_MAX:
        why = f"metric '{key}' (value={value}). Timestamp must be a nonnegative long (64-bit integer) "
        raise InvalidInput(invalid_value(_join(path, "timestamp"), timestamp_ms, why), code="metric.time_invalid")
    if not INT64_MIN <= step <= INT64_MAX:
        why = f"metric '{key}' (value={value}). Step must be a valid long (64-bit integer)."
        raise InvalidInput(invalid_value(_join(path, "step"), step, why), code="metric.step_invalid")


def check_batch_sizes(metrics: int, params: int, tags: int) -> None:
    """Raise InvalidInput for more than MLflow takes in one request."""
    for what, limit, count in (
        ("metrics", BATCH_METRICS_MAX, metrics),
        ("params", BATCH_PARAMS_MAX, params),
        ("tags", BATCH_TAGS_MAX, tags),
        ("metrics, params, and tags", BATCH_ENTITIES_MAX, metrics + params + tags),
    ):
        if count > limit:
            raise InvalidInput(
                f"A batch logging request can contain at most {limit} {what}. Got {count} {what}. Please split up"
                f" {what} across multiple requests and try again.",
                code="batch.too_large",
            )


def check_params_unique(keys: Collection[str]) -> None:
    """Raise InvalidInput where one batch names a param twice."""
    seen: set[str] = set()
    twice = [key for key in keys if key in seen or seen.add(key)]  # type: ignore[func-returns-value]
    if twice:
        raise InvalidInput(
            f"Duplicate parameter keys have been submitted: {twice}. Please ensure "
            "the request contains only one param value per param key.",
            code="param.duplicate",
        )


def check_run_id(run_id: str) -> None:
    """Raise InvalidInput for a text that no run can be called."""
    if _RUN_ID.fullmatch(run_id) is None:
        raise InvalidInput(invalid_value("run_id", run_id), code="run.id_invalid")


def experiment_number(experiment_id: str) -> int:
    """The number of an experiment. Raises InvalidInput for what is none."""
    if _EXPERIMENT_ID.fullmatch(experiment_id) is None:
        raise InvalidInput(
            f"Invalid experiment ID '{experiment_id[:80]}'. Experiment ID must be a valid integer.",
            code="experiment.id_invalid",
        )
    return int(experiment_id)


def check_experiment_name(name: str) -> None:
    """Raise InvalidInput for an empty or overlong name."""
    if not name:
        raise InvalidInput(f"Invalid experiment name: '{name}'", code="experiment.name_invalid")
    check_length("name", EXPERIMENT_NAME_CHARACTERS_MAX, name)


def check_location(location: str) -> None:
    """Raise InvalidInput for an artifact location that is no plain URI."""
    if len(location) > LOCATION_CHARACTERS_MAX:
        raise InvalidInput(
            "Invalid artifact path length. The length of the artifact path cannot be greater than"
            f" {LOCATION_CHARACTERS_MAX} characters. To configure this limit, please set the"
            " MLFLOW_ARTIFACT_LOCATION_MAX_LENGTH environment variable.",
            code="experiment.location_invalid",
        )
    if location.startswith("runs:"):
        raise InvalidInput(
            f"Artifact location cannot be a runs:/ URI. Given: '{location}'", code="experiment.location_invalid"
        )
    path = location.partition("?")[0].partition("#")[0]
    if ".." in path.split("/") or "#" in location or "?" in location:
        raise InvalidInput(
            f"Invalid artifact_location: {location}. It cannot climb ('..') nor have a query or a fragment.",
            code="experiment.location_invalid",
        )


def check_time_ms(name: str, time_ms: int) -> None:
    """Raise InvalidInput for a start or an end that is not in the years 1 to 9999."""
    if not TIME_MS_MIN <= time_ms <= TIME_MS_MAX:
        raise InvalidInput(
            invalid_value(name, time_ms, "it must be milliseconds within the years 1 to 9999"), code="run.time_invalid"
        )


def check_model_id(model_id: str) -> None:
    """Raise InvalidInput for a text that is no id of a logged model."""
    if _MODEL_ID.fullmatch(model_id) is None:
        raise InvalidInput(
            f"'{model_id[:80]}' is no id of a logged model",
            code="logged_model.id_invalid",
            hint="use `m-` and 32 lower-case hex digits",
        )


def check_model_name(name: str) -> None:
    """Raise InvalidInput for a name that a logged model cannot have."""
    if not name or any(character in name for character in _MODEL_NAME_FORBIDDEN):
        raise InvalidInput(
            f"Invalid model name ({name!r}) provided. Model name must be a non-empty string "
            f"and cannot contain the following characters: {_MODEL_NAME_FORBIDDEN}",
            code="logged_model.name_invalid",
        )


def check_inputs(inputs: Iterable[DatasetInput]) -> None:
    """Raise InvalidInput for a dataset or a tag of it that is too long."""
    for one in inputs:
        _check_dataset(one.dataset)
        for key, value in one.tags.items():
            check_length("key", INPUT_TAG_KEY_CHARACTERS_MAX, key)
            check_length("value", INPUT_TAG_VALUE_CHARACTERS_MAX, value)


def _check_dataset(dataset: Dataset) -> None:
    check_length("name", DATASET_NAME_CHARACTERS_MAX, dataset.name)
    check_length("digest", DATASET_DIGEST_CHARACTERS_MAX, dataset.digest)
    check_length("source", DATASET_SOURCE_CHARACTERS_MAX, dataset.source)
    check_length("schema", DATASET_SCHEMA_CHARACTERS_MAX, dataset.schema or "")
    check_length("profile", DATASET_PROFILE_CHARACTERS_MAX, dataset.profile or "")


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
