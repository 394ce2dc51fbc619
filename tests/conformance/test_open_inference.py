"""Triton's own client against a running prediction process: what others wrote to speak the protocol works unchanged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from unit.endpoint.living import COLUMN_SIGNATURE, Living, linear, typed_columns

pytestmark = pytest.mark.filterwarnings("ignore")
FLOATS = np.random.default_rng(7).normal(size=(64, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def living(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Living]:
    """One process for the module, with one model of a matrix input."""
    made = Living(tmp_path_factory.mktemp("endpoint"))
    made.add(1, linear([1.0, -2.0, 0.5], 3.0))
    made.configure(1)
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def client(living: Living) -> Iterator[Any]:
    made = triton.InferenceServerClient(living.url.removeprefix("http://"), concurrency=4)
    yield made
    made.close()


def asked(values: np.ndarray[Any, Any], *, binary: bool, name: str = "x", kind: str = "FP32") -> Any:
    made = triton.InferInput(name, list(values.shape), kind)
    made.set_data_from_numpy(values, binary_data=binary)
    return made


def expected(living: Living) -> np.ndarray[Any, Any]:
    session = ort.InferenceSession(str(living.directory / "models/1/model.onnx"))
    return session.run(None, {"x": FLOATS})[0]


def test_health(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("delay")
    assert client.is_model_ready("delay", "1")
    assert not client.is_model_ready("other")
    assert not client.is_model_ready("delay", "9")


def test_metadata(client: Any) -> None:
    server = client.get_server_metadata()
    assert server["name"] == "modelyard"
    assert "binary_tensor_data" in server["extensions"]
    model = client.get_model_metadata("delay")
    assert (model["name"], model["versions"], model["platform"]) == ("delay", ["1"], "onnxruntime_onnx")
    assert model["inputs"][0] == {"name": "x", "datatype": "FP32", "shape": [-1, 3]}
    assert model["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [-1, 1]}]
    reserved = {one["name"]: one for one in model["inputs"][1:]}
    assert set(reserved) == {"modelyard.id", "modelyard.event_time"}
    assert all(one["parameters"] == {"optional": True} for one in reserved.values())


@pytest.mark.parametrize("sent_binary", [True, False])
@pytest.mark.parametrize("wanted", ["binary", "json", "none named"])
def test_infer_equals_the_runtime(living: Living, client: Any, sent_binary: bool, wanted: str) -> None:
    outputs = None if wanted == "none named" else [triton.InferRequestedOutput("y", binary_data=wanted == "binary")]
    reply = client.infer("delay", [asked(FLOATS, binary=sent_binary)], outputs=outputs, request_id="r-1")
    assert reply.get_response()["id"] == "r-1"
    assert reply.get_response()["model_version"] == "1"
    np.testing.assert_array_equal(reply.as_numpy("y"), expected(living))


def test_a_version_can_be_named(client: Any) -> None:
    reply = client.infer("delay", [asked(FLOATS, binary=True)], model_version="1")
    assert reply.as_numpy("y").shape == (64, 1)
    with pytest.raises(InferenceServerException, match="does not serve version '9'"):
        client.infer("delay", [asked(FLOATS, binary=True)], model_version="9")


def test_requests_at_once(living: Living, client: Any) -> None:
    calls = [client.async_infer("delay", [asked(FLOATS[n : n + 1], binary=True)]) for n in range(64)]
    found = np.concatenate([call.get_result().as_numpy("y") for call in calls])
    np.testing.assert_array_equal(found, expected(living))


def test_errors_reach_the_client(client: Any) -> None:
    for bad, said in (
        (asked(FLOATS.astype(np.float64), binary=True, kind="FP64"), "is FP32, not FP64"),
        (asked(FLOATS[:, :2].copy(), binary=False), r"the model takes \[-1, 3\]"),
        (asked(FLOATS, binary=True, name="z"), "not one of the model's"),
    ):
        with pytest.raises(InferenceServerException, match=said) as caught:
            client.infer("delay", [bad])
        assert caught.value.status() == "400"


@pytest.mark.parametrize("binary", [True, False])
def test_every_type_passes(tmp_path_factory: pytest.TempPathFactory, binary: bool) -> None:
    living = Living(tmp_path_factory.mktemp("columns"))
    living.add(1, typed_columns(), COLUMN_SIGNATURE)
    living.configure(1)
    living.start()
    try:
        client = triton.InferenceServerClient(living.url.removeprefix("http://"))
        sent = {
            "number": (np.array([1.5, -2.25]), "FP64"),
            "count": (np.array([2**60, -1]), "INT64"),
            "word": (np.array(["a", "é"], object), "BYTES"),
            "flag": (np.array([True, False]), "BOOL"),
        }
        inputs = [asked(array, binary=binary, name=name, kind=kind) for name, (array, kind) in sent.items()]
        outputs = [triton.InferRequestedOutput(f"{name}_out", binary_data=binary) for name in sent]
        reply = client.infer("delay", inputs, outputs=outputs)
        for name, (array, kind) in sent.items():
            found = reply.as_numpy(f"{name}_out").reshape(-1)
            texts = [one.decode() if isinstance(one, bytes) else one for one in found.tolist()]
            assert texts == array.tolist(), (name, kind)
        client.close()
    finally:
        living.stop()
