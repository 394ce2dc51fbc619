"""The model runtimes: the same faces over ONNX in this process and over unsafe formats in a worker of their own."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper
from sklearn.linear_model import LogisticRegression

from modelyard.engines.models.isolated import IsolatedModel
from modelyard.engines.models.loading import open_model
from modelyard.engines.models.mlmodel import parse_signature
from modelyard.kernel.errors import EngineError, Forbidden, InvalidInput, UserCodeError
from unit.endpoint.living import linear, serialized, write_model

SIGNATURE = {
    "inputs": json.dumps([{"name": name, "type": "double", "required": True} for name in ("a", "b")]),
    "outputs": json.dumps([{"type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [-1]}}]),
}
COLUMNS = {"a": np.array([1.0, -3.0]), "b": np.array([2.0, 1.0])}


class Broken:
    """An estimator that refuses negative numbers, and ends its process on a nine."""

    def predict(self, table: Any) -> Any:
        values = np.asarray(table)
        if (values == 9.0).any():
            os._exit(7)
        if (values < 0).any():
            raise ValueError("negative numbers are beyond me")
        print("noise on standard output")
        return values.sum(axis=1)


class Trap:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def sklearn_directory(directory: Path, model: Any, dump: Any = None) -> Path:
    directory.mkdir(exist_ok=True)
    (dump or joblib.dump)(model, directory / "model.pkl")
    flavor = {"sklearn": {"pickled_model": "model.pkl", "serialization_format": "cloudpickle"}}
    (directory / "MLmodel").write_text(yaml.safe_dump({"flavors": flavor, "signature": SIGNATURE}))
    return directory


@pytest.fixture
def classifier() -> LogisticRegression:
    inputs = np.random.default_rng(1).normal(size=(200, 2))
    return LogisticRegression().fit(inputs, (inputs.sum(axis=1) > 0).astype(int))


# --- ONNX -------------------------------------------------------------------------------------------------------


def test_a_bare_model_has_the_graphs_own_inputs(tmp_path: Path) -> None:
    model = open_model(write_model(tmp_path, linear([2.0, 3.0])), trusted=False)
    assert [(one.name, one.datatype, one.shape) for one in model.inputs] == [("x", "FP32", [-1, 2])]
    assert model.batches
    assert model.predict({"x": np.array([[1, 1], [2, 0]], np.float32)})["y"].tolist() == [[5.0], [4.0]]


def test_columns_are_stacked_into_the_only_input(tmp_path: Path) -> None:
    model = open_model(write_model(tmp_path, linear([2.0, 3.0]), SIGNATURE), trusted=False)
    assert [(one.name, one.datatype, one.shape) for one in model.inputs] == [("a", "FP64", [-1]), ("b", "FP64", [-1])]
    assert model.predict(COLUMNS)["y"].tolist() == [[8.0], [-3.0]]


def test_a_signature_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="do not fit"):
        open_model(write_model(tmp_path, linear([2.0]), SIGNATURE), trusted=False)
    texts = {"inputs": json.dumps([{"name": "x", "type": "string"}]), "outputs": None}
    with pytest.raises(InvalidInput, match="BYTES in the signature"):
        open_model(write_model(tmp_path, linear([2.0]), texts), trusted=False)


def test_class_probabilities_as_maps_become_a_matrix(tmp_path: Path, classifier: LogisticRegression) -> None:
    skl2onnx = pytest.importorskip("skl2onnx")
    inputs = np.array([[1.0, 2.0], [-3.0, 1.0]], np.float32)
    converted = skl2onnx.to_onnx(classifier, inputs[:1], target_opset=18)
    model = open_model(write_model(tmp_path, converted.SerializeToString()), trusted=False)
    found = model.predict({"X": inputs})
    np.testing.assert_allclose(found["output_probability"], classifier.predict_proba(inputs), atol=1e-6)
    assert found["output_label"].tolist() == classifier.predict(inputs).tolist()


def external(location: str) -> bytes:
    weight = onnx.numpy_helper.from_array(np.ones((1, 1), np.float32), "w")
    onnx.external_data_helper.set_external_data(weight, location=location)
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])],
        [weight],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()


@pytest.mark.parametrize("location", ["../secret", "/etc/hostname", "a/../../secret", "..\\secret"])
@pytest.mark.parametrize("trusted", [True, False])
def test_weights_outside_the_directory_are_refused_even_with_trust(
    tmp_path: Path, location: str, trusted: bool
) -> None:
    (tmp_path / "secret").write_bytes(b"\0\0\x80?")
    with pytest.raises((InvalidInput, Forbidden), match="outside"):
        open_model(write_model(tmp_path / "model", external(location)), trusted=trusted)


def test_a_link_to_weights_outside_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"\0\0\x80?")
    directory = write_model(tmp_path / "model", external("w.bin"))
    (directory / "w.bin").symlink_to(tmp_path / "secret")
    for trusted in (True, False):
        with pytest.raises((InvalidInput, Forbidden), match=r"link|outside"):
            open_model(directory, trusted=trusted)


def test_weights_beside_the_model_are_read(tmp_path: Path) -> None:
    directory = write_model(tmp_path, external("w.bin"))
    (directory / "w.bin").write_bytes(np.array([4.0], np.float32).tobytes())
    # What only holds numbers has no format of its own, so such a model needs trust.
    model = open_model(directory, trusted=True)
    assert model.predict({"x": np.array([[2.0]], np.float32)})["y"].tolist() == [[8.0]]


@pytest.mark.parametrize("content", [b"", b"not a model", linear([1.0])[:-10]])
def test_a_damaged_model_is_refused(tmp_path: Path, content: bytes) -> None:
    for trusted in (True, False):
        with pytest.raises((InvalidInput, Forbidden)):
            open_model(write_model(tmp_path, content), trusted=trusted)


def test_a_graph_that_fails_says_why(tmp_path: Path) -> None:
    shape = onnx.numpy_helper.from_array(np.array([2, 2], np.int64), "shape")
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["a", "b"])],
        [shape],
    )
    model = open_model(write_model(tmp_path, serialized(graph)), trusted=False)
    with pytest.raises(UserCodeError, match=r"model failed"):
        model.predict({"x": np.zeros(3, np.float32)})


# --- unsafe formats ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compress", [0, 3])
def test_a_pickle_is_opened_only_with_trust_and_never_here(tmp_path: Path, compress: int) -> None:
    mark = tmp_path / "mark"
    directory = sklearn_directory(
        tmp_path / "model", Trap(mark), lambda model, file: joblib.dump(model, file, compress=compress)
    )
    with pytest.raises(Forbidden, match="nobody has trusted it"):
        open_model(directory, trusted=False)
    assert not mark.exists()
    with pytest.raises(InvalidInput, match="cannot be loaded"):
        open_model(directory, trusted=True)
    assert mark.exists()  # in the worker, which somebody trusted


@pytest.mark.slow
def test_a_trusted_estimator_predicts_in_its_worker(tmp_path: Path, classifier: LogisticRegression) -> None:
    model = open_model(sklearn_directory(tmp_path, classifier), trusted=True)
    assert isinstance(model, IsolatedModel)
    try:
        assert model.pid != os.getpid()
        assert [(one.name, one.datatype, one.shape) for one in model.outputs] == [
            ("prediction", "INT64", [-1]),
            ("probability", "FP64", [-1, 2]),
        ]
        found = model.predict(COLUMNS)
        table = np.stack([COLUMNS["a"], COLUMNS["b"]], axis=1)
        assert found["prediction"].tolist() == classifier.predict(table).tolist()
        np.testing.assert_array_equal(found["probability"], classifier.predict_proba(table))
    finally:
        model.close()


def broken(tmp_path: Path) -> IsolatedModel:
    cloudpickle = pytest.importorskip("cloudpickle")
    import sys

    cloudpickle.register_pickle_by_value(sys.modules[Broken.__module__])
    directory = sklearn_directory(tmp_path, Broken(), lambda model, file: file.write_bytes(cloudpickle.dumps(model)))
    model = open_model(directory, trusted=True)
    assert isinstance(model, IsolatedModel)
    return model


def test_a_model_that_raises_goes_on(tmp_path: Path) -> None:
    model = broken(tmp_path)
    try:
        with pytest.raises(UserCodeError, match="negative numbers are beyond me"):
            model.predict(COLUMNS)
        assert model.predict({"a": np.array([1.0]), "b": np.array([2.0])})["prediction"].tolist() == [3.0]
    finally:
        model.close()


@pytest.mark.slow
def test_a_worker_that_dies_is_started_again(tmp_path: Path) -> None:
    model = broken(tmp_path)
    try:
        with pytest.raises(EngineError, match="died"):
            model.predict({"a": np.array([9.0]), "b": np.array([2.0])})
        first = model.predict({"a": np.array([1.0]), "b": np.array([2.0])})
        pid = model.pid
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(EngineError, match="died"):
            model.predict({"a": np.array([1.0]), "b": np.array([2.0])})
        assert model.predict({"a": np.array([1.0]), "b": np.array([2.0])}).keys() == first.keys()
        assert model.pid != pid
    finally:
        model.close()


@pytest.mark.slow
def test_a_worker_that_stalls_is_ended(tmp_path: Path, classifier: LogisticRegression) -> None:
    model = IsolatedModel(sklearn_directory(tmp_path, classifier), trusted=True, answer_timeout_s=0.3)
    os.kill(model.pid, signal.SIGSTOP)
    with pytest.raises(EngineError, match=r"no answer within 0.3 s"):
        model.predict(COLUMNS)
    assert model.pid == 0
    assert model.predict(COLUMNS)["prediction"].shape == (2,)
    model.close()


@pytest.mark.slow
def test_skops_is_opened_without_trust_and_in_a_worker(tmp_path: Path, classifier: LogisticRegression) -> None:
    skops = pytest.importorskip("skops.io")
    tmp_path.joinpath("MLmodel").write_text(
        yaml.safe_dump({"flavors": {"sklearn": {"pickled_model": "model.skops"}}, "signature": SIGNATURE})
    )
    skops.dump(classifier, tmp_path / "model.skops")
    model = open_model(tmp_path, trusted=False)
    try:
        assert model.predict(COLUMNS)["prediction"].tolist() == classifier.predict(np.array([[1, 2], [-3, 1]])).tolist()
    finally:
        model.close()


@pytest.mark.slow
def test_the_authors_own_list_of_types_counts_only_with_trust(tmp_path: Path) -> None:
    skops = pytest.importorskip("skops.io")
    skops.dump(Broken(), tmp_path / "model.skops")
    flavor = {"pickled_model": "model.skops", "skops_trusted_types": [f"{Broken.__module__}.Broken"]}
    tmp_path.joinpath("MLmodel").write_text(yaml.safe_dump({"flavors": {"sklearn": flavor}, "signature": SIGNATURE}))
    with pytest.raises(InvalidInput, match="Untrusted"):
        open_model(tmp_path, trusted=False)


@pytest.mark.slow
def test_a_module_in_the_models_directory_is_not_imported(tmp_path: Path, classifier: LogisticRegression) -> None:
    directory = sklearn_directory(tmp_path, classifier)
    (directory / "json.py").write_text("raise SystemExit('planted')")
    model = open_model(directory, trusted=True)
    assert model.predict(COLUMNS)["prediction"].shape == (2,)
    model.close()


@pytest.mark.slow
def test_pyfunc_models_run_in_the_worker(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")

    class Doubled(mlflow.pyfunc.PythonModel):  # type: ignore[misc, name-defined]
        def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
            return model_input["a"] * 2

    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    signature = ModelSignature(inputs=Schema([ColSpec("double", "a"), ColSpec("double", "b")]))
    mlflow.pyfunc.save_model(str(tmp_path / "m"), python_model=Doubled(), signature=signature, pip_requirements=[])
    model = open_model(tmp_path / "m", trusted=True)
    try:
        assert [list(found) for found in model.predict(COLUMNS).values()] == [[2.0, -6.0]]
    finally:
        model.close()


# --- descriptions -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "inputs",
    [
        "",
        "[]",
        "{",
        '{"a": 1}',
        '[{"name": "a", "type": "object"}]',
        '[{"name": "a", "type": "tensor", "tensor-spec": {"dtype": "complex64", "shape": [-1]}}]',
        '[{"name": "a", "type": "tensor", "tensor-spec": {"dtype": "float32"}}]',
        '[{"name": "a", "type": "double"}, {"name": "a", "type": "double"}]',
        '[{"name": "modelyard.id", "type": "string"}]',
    ],
)
def test_signatures_that_cannot_be_meant_are_refused(inputs: str) -> None:
    with pytest.raises(InvalidInput, match="MLmodel file cannot be used"):
        parse_signature({"inputs": inputs})


@pytest.mark.parametrize("text", ["a: [", "- 1", "flavors: 3", "!!python/object/apply:os.mkdir ['canary']"])
def test_a_broken_description_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "MLmodel").write_text(text)
    write_model(tmp_path, linear([1.0]))
    with pytest.raises((InvalidInput, Forbidden)):
        open_model(tmp_path, trusted=True)
    assert not Path("canary").exists()
