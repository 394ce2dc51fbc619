"""The `MLmodel` file that MLflow writes beside a model: its flavors, and the signature as typed tensors."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec

from modelyard.engines.models.base import NUMPY_TYPES
from modelyard.kernel.errors import InvalidInput
from modelyard.types.serving import EVENT_TIME, ROW_ID, Datatype, TensorSpec

FILE_NAME = "MLmodel"
FILE_BYTES_MAX = 4 * 1024 * 1024
_COLUMN_TYPES: dict[str, Datatype] = {
    "boolean": "BOOL",
    "integer": "INT32",
    "long": "INT64",
    "float": "FP32",
    "double": "FP64",
    "string": "BYTES",
    "binary": "BYTES",
    "datetime": "BYTES",
}
_BY_NUMPY: dict[str, Datatype] = {name: cast(Datatype, kind) for kind, name in NUMPY_TYPES.items()} | {"str": "BYTES"}


class Signature(msgspec.Struct, frozen=True):
    """Inputs and outputs as tensors. `by_column`: the inputs are columns of one table, in this order."""

    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    by_column: bool


class MLmodel(msgspec.Struct, frozen=True):
    """What the file says. `signature` is None where it has none; `example` is the name of the saved input example."""

    flavors: dict[str, dict[str, Any]]
    signature: Signature | None
    example: str


def read(directory: Path) -> MLmodel | None:
    """The description in a model directory; None without one. Raises InvalidInput for a damaged one."""
    file = directory / FILE_NAME
    if not file.is_file():
        return None
    if file.stat().st_size > FILE_BYTES_MAX:
        raise _broken(f"it is larger than {FILE_BYTES_MAX:,} bytes")
    import yaml

    try:
        content = yaml.safe_load(file.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise _broken(f"it is not valid YAML: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("flavors", {}), dict):
        raise _broken("it is not a mapping with `flavors`")
    flavors = {str(key): value if isinstance(value, dict) else {} for key, value in content.get("flavors", {}).items()}
    signature = content.get("signature")
    info = content.get("saved_input_example_info")
    return MLmodel(
        flavors,
        parse_signature(signature) if isinstance(signature, Mapping) else None,
        str(info.get("artifact_path", "")) if isinstance(info, Mapping) else "",
    )


def parse_signature(signature: Mapping[str, Any]) -> Signature:
    """The tensors of a signature in MLflow's form: `inputs` and `outputs` are JSON texts (or lists already).

    Raises InvalidInput for one without inputs, with a type that no tensor has, or with a name that stands twice.
    """
    inputs, by_column = _specs(signature.get("inputs"), "inputs", "input")
    if not inputs:
        raise _broken("its signature has no inputs")
    outputs, _ = _specs(signature.get("outputs"), "outputs", "output")
    return Signature(inputs, outputs, by_column)


def _specs(value: Any, part: str, prefix: str) -> tuple[list[TensorSpec], bool]:
    if value is None or value == "":
        return [], False
    try:
        entries = json.loads(value) if isinstance(value, str) else value
    except ValueError as error:
        raise _broken(f"the {part} of its signature are not valid JSON: {error}") from error
    if not isinstance(entries, Sequence) or not all(isinstance(one, Mapping) for one in entries):
        raise _broken(f"the {part} of its signature are not a list")
    specs = [_spec(entry, f"{prefix}-{at}") for at, entry in enumerate(entries)]
    names = [one.name for one in specs]
    for name in names:
        if names.count(name) > 1:
            raise _broken(f"the {part} of its signature name '{name}' twice")
        if name in (ROW_ID, EVENT_TIME):
            raise _broken(f"the {part} of its signature name '{name}', which is reserved")
    return specs, bool(entries) and all(one.get("type") != "tensor" for one in entries)


def _spec(entry: Mapping[str, Any], default: str) -> TensorSpec:
    name = str(entry.get("name") or default)
    required = bool(entry.get("required", True))
    kind = entry.get("type")
    if kind == "tensor":
        tensor = entry.get("tensor-spec") or {}
        datatype = _BY_NUMPY.get(str(tensor.get("dtype")))
        shape = tensor.get("shape")
        if datatype is None or not isinstance(shape, list) or not all(isinstance(one, int) for one in shape):
            raise _broken(f"'{name}' in its signature is a tensor of type {tensor.get('dtype')!r}, shape {shape!r}")
        return TensorSpec(name=name, datatype=datatype, shape=shape, required=required)
    datatype = _COLUMN_TYPES.get(str(kind))
    if datatype is None:
        raise _broken(f"'{name}' in its signature has type {kind!r}, which is no tensor")
    return TensorSpec(name=name, datatype=datatype, shape=[-1], required=required)


def _broken(why: str) -> InvalidInput:
    return InvalidInput(
        f"the model's MLmodel file cannot be used: {why}",
        code="model.description_invalid",
        hint="log the model again with `signature=mlflow.models.infer_signature(inputs, outputs)`",
    )
