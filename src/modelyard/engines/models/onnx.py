"""ONNX models on ONNX Runtime: one thread per model, since the process is the unit of scale."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

from modelyard.engines.models import mlmodel, onnx_wire
from modelyard.engines.models.base import NUMPY_TYPES
from modelyard.kernel.errors import InvalidInput, ModelyardError, UserCodeError
from modelyard.types.serving import Datatype, TensorSpec

if TYPE_CHECKING:
    from modelyard.engines.models.base import Array, Columns

PLATFORM = "onnxruntime_onnx"
_DATATYPES: dict[str, Datatype] = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}
# scikit-learn's converter wraps class probabilities in this type unless told not to (`zipmap=False`).
_MAPS = ("seq(map(int64,tensor(float)))", "seq(map(string,tensor(float)))")
# The runtime's exceptions have no base of their own: each derives from Exception alone.
_RUNTIME_ERRORS: tuple[type[Exception], ...] = (
    RuntimeError,
    ValueError,
    TypeError,
    *(one for one in vars(ort_state).values() if isinstance(one, type) and issubclass(one, Exception)),
)

Feed = Callable[["Columns"], "dict[str, Array]"]


class _Graph(NamedTuple):
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    maps: frozenset[str]


class OnnxModel:
    """An ONNX model behind its signature."""

    platform = PLATFORM

    def __init__(self, session: ort.InferenceSession, graph: _Graph, inputs: Sequence[TensorSpec], feed: Feed) -> None:
        self.inputs = inputs
        self.outputs = graph.outputs
        self.batches = all(one.shape[:1] == [-1] for one in (*graph.inputs, *graph.outputs))
        self._session = session
        self._maps = graph.maps
        self._names = [one.name for one in graph.outputs]
        self._feed = feed

    def predict(self, columns: Columns) -> dict[str, Array]:
        """Run the graph. Raises UserCodeError with the runtime's words where it fails."""
        try:
            values = self._session.run(self._names, self._feed(columns))
        except _RUNTIME_ERRORS as error:
            raise _failed(error) from error
        outputs = dict(zip(self._names, values, strict=True))
        for name in self._maps:
            outputs[name] = _from_maps(outputs[name])
        return outputs

    def close(self) -> None:
        """Nothing to give back: the session goes with the object."""


class OnnxEngine:
    """Loads an MLflow directory of the onnx flavor, or a directory that holds one bare `.onnx` file."""

    def load(self, directory: Path) -> OnnxModel:
        """Load and check the model. Raises InvalidInput where it is damaged, or its signature does not fit it."""
        description = mlmodel.read(directory)
        file = _find(directory, description)
        _check_external(file, directory)
        session = _open(file)
        graph = _graph_of(session)
        if description is None or description.signature is None:
            return OnnxModel(session, graph, graph.inputs, dict)
        signature = description.signature
        return OnnxModel(session, graph, signature.inputs, plan_feed(signature.inputs, graph.inputs))


def _failed(error: Exception) -> ModelyardError:
    return UserCodeError(
        f"the model failed: {str(error).strip()[:500]}",
        code="model.failed",
        hint="check the values of the inputs against what the model was trained on",
    )


def _find(directory: Path, description: mlmodel.MLmodel | None) -> Path:
    if description is not None and "onnx" in description.flavors:
        name = str(description.flavors["onnx"].get("data", "model.onnx"))
        if not onnx_wire.is_beside(name):
            raise InvalidInput(f"the model file {name!a} lies outside its directory", code="model.path_unsafe")
        folder = directory / name
        files = sorted(folder.glob("*.onnx")) if folder.is_dir() else [folder]
    else:
        files = sorted(directory.glob("*.onnx"))
    usable = [one for one in files if one.is_file() and not one.is_symlink()]
    if len(usable) != 1:
        raise InvalidInput(
            f"the model's directory has {len(usable)} ONNX files where one is needed",
            code="model.file_missing",
            hint="log the model with `mlflow.onnx.log_model`",
        )
    return usable[0]


def _check_external(file: Path, directory: Path) -> None:
    with file.open("rb") as stream:
        try:
            names = onnx_wire.scan(stream).external_files
        except onnx_wire.NotOnnx as error:
            raise InvalidInput(f"{file.name} is no ONNX model: {error}", code="model.damaged") from error
    root = directory.resolve()
    for name in names:
        inside = onnx_wire.is_beside(name) and (file.parent / name).resolve().is_relative_to(root)
        if not inside:
            raise InvalidInput(
                f"{file.name} wants to read {name[:200]!a}, which is outside the model's directory",
                code="model.path_unsafe",
                hint="save the model with its weights beside it, or in one file",
            )


def _open(file: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except _RUNTIME_ERRORS as error:
        raise InvalidInput(
            f"ONNX Runtime {ort.__version__} cannot load {file.name}: {str(error).strip()[:500]}",
            code="model.damaged",
            hint="check it with `onnx.checker.check_model`, or convert it with a lower opset",
        ) from error


def _graph_of(session: ort.InferenceSession) -> _Graph:
    inputs = [_spec(one) for one in session.get_inputs()]
    outputs, maps = [], set()
    for one in session.get_outputs():
        if one.type in _MAPS:
            maps.add(one.name)
            outputs.append(TensorSpec(name=one.name, datatype="FP32", shape=[-1, -1]))
        else:
            outputs.append(_spec(one))
    return _Graph(inputs, outputs, frozenset(maps))


def _spec(node: Any) -> TensorSpec:
    datatype = _DATATYPES.get(node.type)
    if datatype is None:
        raise InvalidInput(
            f"'{node.name}' of the ONNX graph is a {node.type}, which no tensor of the protocol can carry",
            code="model.type_unsupported",
        )
    return TensorSpec(
        name=node.name, datatype=datatype, shape=[one if isinstance(one, int) else -1 for one in node.shape]
    )


def plan_feed(wanted: Sequence[TensorSpec], graph: Sequence[TensorSpec]) -> Feed:
    """How the signature's columns become the graph's inputs: one to one by name, or stacked into the only input.

    Raises InvalidInput where they fit in neither way.
    """
    by_name = {one.name: one for one in wanted}
    if {one.name for one in graph} == set(by_name):
        for one in graph:
            _check_castable(by_name[one.name], one)
        return _feed_by_name(graph)
    single = graph[0] if len(graph) == 1 else None
    if single is not None and len(wanted) == 1:
        _check_castable(wanted[0], single)
        source, target = wanted[0].name, single
        return lambda columns: {target.name: _fit(columns[source], target)}
    if single is not None and len(single.shape) == 2 and single.shape[1] in (-1, len(wanted)):
        for one in wanted:
            _check_castable(one, single)
        return _feed_stacked([one.name for one in wanted], single)
    raise InvalidInput(
        f"the signature's inputs ({_shown(wanted)}) do not fit those of the ONNX graph ({_shown(graph)})",
        code="model.signature_mismatch",
        hint="name the graph's inputs as the signature's columns, or give the graph one matrix with a column for each",
    )


def _shown(specs: Sequence[TensorSpec]) -> str:
    text = ", ".join(f"{one.name}: {one.datatype}{one.shape}" for one in specs[:20])
    return text + (f" and {len(specs) - 20} more" if len(specs) > 20 else "")


def _check_castable(source: TensorSpec, target: TensorSpec) -> None:
    if (source.datatype == "BYTES") != (target.datatype == "BYTES"):
        raise InvalidInput(
            f"'{source.name}' is {source.datatype} in the signature, but the ONNX graph takes {target.datatype}",
            code="model.signature_mismatch",
            hint="encode the column in the graph, or log the signature that the graph has",
        )


def _feed_by_name(graph: Sequence[TensorSpec]) -> Feed:
    return lambda columns: {one.name: _fit(columns[one.name], one) for one in graph}


def _feed_stacked(names: Sequence[str], target: TensorSpec) -> Feed:
    dtype = np.dtype(NUMPY_TYPES[target.datatype])

    def feed(columns: Columns) -> dict[str, Array]:
        first = columns[names[0]]
        matrix = np.empty((first.shape[0], len(names)), dtype)
        for at, name in enumerate(names):
            matrix[:, at] = columns[name].reshape(-1)
        return {target.name: matrix}

    return feed


def _fit(column: Array, target: TensorSpec) -> Array:
    dtype = np.dtype(NUMPY_TYPES[target.datatype])
    fitted = column if column.dtype == dtype else column.astype(dtype)
    if fitted.ndim == 1 and len(target.shape) == 2:
        return fitted.reshape(-1, 1)
    return fitted


def _from_maps(rows: Sequence[dict[Any, float]]) -> Array:
    keys = sorted(rows[0]) if rows else []
    return np.array([[row[key] for key in keys] for row in rows], np.float32).reshape(len(rows), len(keys))
