"""What counts as safe: harmless formats pass, and every wrapping of a pickle is found without loading it."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import joblib
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.engines.models.formats import Safety, classify_directory, classify_file, classify_files


class Canary:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def onnx_bytes(external: str | None = None) -> bytes:
    weight = onnx.numpy_helper.from_array(np.ones((2, 1), np.float32), "w")
    if external is not None:
        onnx.external_data_helper.set_external_data(weight, location=external)
        weight.ClearField("raw_data")
        weight.data_location = onnx.TensorProto.EXTERNAL
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [None, 2])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None, 1])],
        [weight],
    )
    return onnx.helper.make_model(graph).SerializeToString()


def nested_onnx(external: str) -> bytes:
    """The external tensor hides in a constant inside the branch of an If."""
    inner = onnx.load_from_string(onnx_bytes(external)).graph
    holder = onnx.helper.make_node("Constant", [], ["c"], value=inner.initializer[0])
    branch = onnx.helper.make_graph([holder], "b", [], [onnx.helper.make_tensor_value_info("c", 1, [2, 1])])
    node = onnx.helper.make_node("If", ["flag"], ["c"], then_branch=branch, else_branch=branch)
    graph = onnx.helper.make_graph([node], "g", [], [onnx.helper.make_tensor_value_info("c", 1, [2, 1])])
    return onnx.helper.make_model(graph).SerializeToString()


def safetensors_bytes() -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return len(header).to_bytes(8, "little") + header + b"\0\0\0\0"


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def object_array() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def number_array() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.arange(3.0))
    return buffer.getvalue()


SAFE: dict[str, tuple[bytes, str]] = {
    "model.onnx": (onnx_bytes(), "onnx"),
    "with_data.onnx": (onnx_bytes("weights/w.bin"), "onnx"),
    "model.safetensors": (safetensors_bytes(), "safetensors"),
    "model.skops": (zipped({"schema.json": b"{}", "1.npy": number_array()}), "skops"),
    "model.xgb": (b'{"learner":{"attributes":{}}}', "xgboost"),
    "model.ubj": (b"{L\0\0\0\0\0\0\0\7learner{", "xgboost"),
    "model.lgb": (b"tree\nversion=v4\nnum_class=1\n", "lightgbm"),
    "MLmodel": (b"flavors:\n  onnx:\n    data: model.onnx\n", "data"),
    "requirements.txt": (b"click\nrequests\nRich\n(1.0)\ncolorama\ntqdm\n", "data"),
    "input_example.json": (b'{"columns": ["a"], "data": [[1.5]]}', "data"),
    "array.npy": (number_array(), "data"),
    "arrays.npz": (zipped({"a.npy": number_array()}), "data"),
    "empty.txt": (b"", "data"),
}


@pytest.mark.parametrize("name", SAFE)
def test_harmless_files_are_safe(name: str) -> None:
    content, expected = SAFE[name]
    verdict = classify_file(name, io.BytesIO(content))
    assert (verdict.safety, verdict.format) == (Safety.SAFE, expected), verdict


def payload(path: Path, protocol: int) -> bytes:
    return pickle.dumps(Canary(path), protocol=protocol)


WRAPPINGS: dict[str, Callable[[bytes], bytes]] = {
    "bare": lambda data: data,
    "gzip": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "lzma": lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE),
    "zlib": zlib.compress,
    "zip": lambda data: zipped({"archive/data": data}),
    "polyglot": lambda data: data + zipped({"schema.json": b"{}"}),
}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize(
    "name", ["model.pkl", "model.bin", "model.txt", "MLmodel", "model.onnx", "model.json", "x.skops"]
)
def test_a_pickle_is_unsafe_in_every_wrapping_and_name(tmp_path: Path, protocol: int, wrapping: str, name: str) -> None:
    canary = tmp_path / "canary"
    content = WRAPPINGS[wrapping](payload(canary, protocol))
    verdict = classify_file(name, io.BytesIO(content))
    assert verdict.safety is Safety.UNSAFE, verdict
    assert not canary.exists()


@pytest.mark.parametrize("compress", [0, 3, ("gzip", 3), ("bz2", 3), ("lzma", 3), ("xz", 3)])
def test_joblib_files_are_unsafe(tmp_path: Path, compress: object) -> None:
    file = tmp_path / "renamed.dat"
    joblib.dump(Canary(tmp_path / "canary"), file, compress=compress)
    assert classify_directory(tmp_path).safety is Safety.UNSAFE


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("object.npy", object_array()),
        ("objects.npz", zipped({"a.npy": object_array()})),
        ("model.pt", zipped({"archive/data.pkl": pickle.dumps({})})),
        ("plain.pt", b"anything"),
        ("code/model.py", b"print('hello')"),
        ("lib.bin", b"\x7fELF\x02\x01"),
        ("up.onnx", onnx_bytes("../secret")),
        ("absolute.onnx", onnx_bytes("/etc/passwd")),
        ("nested.onnx", nested_onnx("../../secret")),
        ("broken.txt", b"cos\nmkdir\n(S'canary'\ntR garbage that breaks it"),
        ("inst.txt", b"(S'canary'\nios\nmkdir\n."),
    ],
)
def test_what_runs_code_is_unsafe(name: str, content: bytes) -> None:
    verdict = classify_file(name, io.BytesIO(content))
    assert verdict.safety is Safety.UNSAFE, verdict
    assert verdict.reason


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.bin", b"\xff\xfe\xfd random"),
        ("cut.onnx", onnx_bytes()[:-3]),
        ("model.h5", b"\x89HDF\r\n\x1a\n"),
        ("packed.7z", b"7z\xbc\xaf\x27\x1c" + b"\0" * 32),
        ("data.csv.gz", gzip.compress(b"a,b\n1,2\n", mtime=0)),
        ("broken.json", b'{"a": '),
        ("broken.safetensors", (20).to_bytes(8, "little") + b"{not json at all....}"),
        ("model.keras", zipped({"config.json": b"{}", "model.weights.h5": b"x"})),
    ],
)
def test_what_is_not_known_is_not_safe(name: str, content: bytes) -> None:
    assert classify_file(name, io.BytesIO(content)).safety is Safety.UNKNOWN


def test_a_directory_is_as_safe_as_its_worst_file(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(onnx_bytes())
    (tmp_path / "MLmodel").write_bytes(b"flavors: {}")
    verdict = classify_directory(tmp_path)
    assert (verdict.safety, verdict.format, verdict.reasons) == (Safety.SAFE, "onnx", [])
    (tmp_path / "extra.pkl").write_bytes(pickle.dumps({}))
    verdict = classify_directory(tmp_path)
    assert verdict.safety is Safety.UNSAFE
    assert verdict.format == "pickle"
    assert any("extra.pkl" in reason for reason in verdict.reasons)


def test_a_link_is_unsafe_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").symlink_to("/etc/passwd")
    assert classify_directory(tmp_path).safety is Safety.UNSAFE


def test_no_model_file_means_unknown(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("hello")
    assert classify_directory(tmp_path).safety is Safety.UNKNOWN


def test_blobs_are_classified_by_opener() -> None:
    verdict = classify_files([("model.onnx", lambda: io.BytesIO(onnx_bytes()))])
    assert verdict.safety is Safety.SAFE


@given(
    st.binary(max_size=400),
    st.sampled_from(["a.onnx", "a.bin", "a.txt", "a.json", "a.skops", "a.npy", "a.safetensors"]),
)
def test_any_bytes_get_a_verdict(content: bytes, name: str) -> None:
    assert classify_file(name, io.BytesIO(content)).reason
