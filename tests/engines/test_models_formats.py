"""What counts as safe: harmless formats pass, and every wrapping of a pickle is found without loading it."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import tracemalloc
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

from modelyard.engines.models import onnx_wire
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


# --- crafted headers: bounded work, whatever a file says of itself --------------------------------------------------


def tensors(header: object, data: bytes = b"\0" * 4, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def tensor(shape: list[int], offsets: list[int], dtype: str = "F32") -> dict[str, object]:
    return {"w": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


@pytest.mark.parametrize(
    "content",
    [
        tensors(tensor([2**40, 2**40], [0, 4])),
        tensors(tensor([1], [0, 8])),
        tensors(tensor([1], [4, 0])),
        tensors(tensor([-1], [0, 4])),
        tensors(tensor([1] * 100, [0, 4])),
        tensors(tensor([10**30], [0, 4])),
        tensors(tensor([2], [0, 4])),
        tensors({"w": {}}),
        tensors({"w": "x"}),
        tensors(b"{" * 5_000),
        tensors(b'{"w":' * 5_000),
        tensors(tensor([1], [0, 4]), length=90_000_000),
        tensors(tensor([1], [0, 4]), length=17 * 1024 * 1024),
    ],
)
def test_a_damaged_safetensors_header_is_not_safe(content: bytes) -> None:
    assert classify_file("m.safetensors", io.BytesIO(content)).safety is not Safety.SAFE


def test_safetensors_as_its_own_library_writes_them(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    arrays = {"a": np.ones((3, 4), np.float32), "b": np.zeros((0,), np.int64), "c": np.ones((), np.float16)}
    content = safetensors.save(arrays, metadata={"format": "np"})
    assert classify_file("m.safetensors", io.BytesIO(content)).safety is Safety.SAFE


def varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])


def peak_bytes(act: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        act()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_huge_onnx_file_is_looked_through_without_being_held(tmp_path: Path) -> None:
    """Half a gigabyte of zeros where a graph should be, as a file with holes."""
    file = tmp_path / "huge.onnx"
    size = 512 * 1024 * 1024
    with file.open("wb") as stream:
        stream.write(b"\x08\x09\x3a" + varint(size))
        stream.truncate(8 + size)
    with file.open("rb") as stream:
        assert peak_bytes(lambda: classify_file("huge.onnx", stream)) < 8 * 1024 * 1024


def test_an_onnx_file_of_endless_parts_is_not_walked_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_wire, "PARTS_MAX", 10_000)
    parts = b"\x0a\x00" * 20_000 + b"\x12\x08location"  # empty nodes of a graph
    content = b"\x08\x09\x3a" + varint(len(parts)) + parts
    assert classify_file("many.onnx", io.BytesIO(content)).safety is not Safety.SAFE
    monkeypatch.setattr(onnx_wire, "PARTS_MAX", 100_000)
    assert onnx_wire.scan(io.BytesIO(content)).external_files == [], "as many as are looked at are fine"


def test_brackets_do_not_become_lists() -> None:
    content = b"[" + b"[]," * 4_000_000 + b"1]"
    verdicts: list[object] = []
    peak = peak_bytes(lambda: verdicts.append(classify_file("a.json", io.BytesIO(content))))
    assert peak < 3 * len(content), "the text itself, and no list of lists"
    assert classify_file("a.json", io.BytesIO(b"[" * 1_000_000)).safety is not Safety.SAFE


def test_a_zip_that_claims_a_huge_list_of_members_is_not_opened() -> None:
    content = bytearray(zipped({"schema.json": b"{}", "1.npy": number_array()}))
    end = content.rfind(b"PK\x05\x06")
    content[end + 12 : end + 16] = (2**31).to_bytes(4, "little")
    assert classify_file("m.skops", io.BytesIO(bytes(content))).safety is not Safety.SAFE


def test_an_lzma_stream_that_asks_for_gigabytes_gets_none() -> None:
    content = b"]" + (2**32 - 1).to_bytes(4, "little") + b"\xff" * 8 + b"\0" * 200
    assert peak_bytes(lambda: classify_file("m.bin", io.BytesIO(content))) < 16 * 1024 * 1024
