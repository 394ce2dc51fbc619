"""Tiny real models, and a real prediction process over them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper

from modelyard.types.serving import (
    FRAME_HEADER,
    EndpointConfig,
    EndpointOptions,
    EndpointStatus,
    PredictionRecord,
    VariantConfig,
)

DEADLINE_S = 30.0


def linear(weights: Sequence[float], bias: float = 0.0) -> bytes:
    """`x` [-1, n] to `y` [-1, 1]: the weighted sum and a bias, in FP32."""
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["product"]),
            helper.make_node("Add", ["product", "b"], ["y"]),
        ],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", len(weights)])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])],
        [
            onnx.numpy_helper.from_array(np.array(weights, np.float32).reshape(-1, 1), "w"),
            onnx.numpy_helper.from_array(np.array([bias], np.float32), "b"),
        ],
    )
    return serialized(graph)


def slow(loops: int) -> bytes:
    """As `linear([1.0])`, but each call counts up to `loops` first."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["go_on"]),
            helper.make_node("Add", ["sum", "one"], ["next"]),
        ],
        "count",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, []),
        ],
        [onnx.numpy_helper.from_array(np.array(1.0, np.float32), "one")],
    )
    graph = helper.make_graph(
        [
            helper.make_node("Loop", ["times", "yes", "zero"], ["counted"], body=body),
            helper.make_node("Mul", ["counted", "zero"], ["nothing"]),
            helper.make_node("Add", ["x", "nothing"], ["y"]),
        ],
        "slow",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])],
        [
            onnx.numpy_helper.from_array(np.array(loops, np.int64), "times"),
            onnx.numpy_helper.from_array(np.array(True), "yes"),
            onnx.numpy_helper.from_array(np.array(0.0, np.float32), "zero"),
        ],
    )
    return serialized(graph)


def typed_columns() -> bytes:
    """Columns of several types, each passed through: `number` FP64, `count` INT64, `word` BYTES, `flag` BOOL."""
    kinds = {
        "number": TensorProto.DOUBLE,
        "count": TensorProto.INT64,
        "word": TensorProto.STRING,
        "flag": TensorProto.BOOL,
    }
    graph = helper.make_graph(
        [helper.make_node("Identity", [name], [f"{name}_out"]) for name in kinds],
        "columns",
        [helper.make_tensor_value_info(name, kind, ["n", 1]) for name, kind in kinds.items()],
        [helper.make_tensor_value_info(f"{name}_out", kind, ["n", 1]) for name, kind in kinds.items()],
    )
    return serialized(graph)


def serialized(graph: onnx.GraphProto) -> bytes:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


COLUMN_SIGNATURE = {
    "inputs": json.dumps(
        [
            {"name": "number", "type": "double", "required": True},
            {"name": "count", "type": "long", "required": True},
            {"name": "word", "type": "string", "required": True},
            {"name": "flag", "type": "boolean", "required": True},
        ]
    ),
    "outputs": None,
}


def write_model(directory: Path, content: bytes, signature: dict[str, Any] | None = None) -> Path:
    """A model directory: MLflow's form where there is a signature, else the bare file."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "model.onnx").write_bytes(content)
    if signature is not None:
        described = {"flavors": {"onnx": {"data": "model.onnx"}}, "signature": signature}
        (directory / "MLmodel").write_text(yaml.safe_dump(described))
    return directory


class Living:
    """A prediction process over a directory, and the ways to talk to it."""

    def __init__(self, directory: Path, name: str = "delay") -> None:
        self.directory = directory
        self.name = name
        self.process: subprocess.Popen[bytes] | None = None

    def add(self, version: int, content: bytes, signature: dict[str, Any] | None = None) -> None:
        write_model(self.directory / f"models/{version}", content, signature)

    def configure(
        self, revision: int, weights: dict[int, float] | None = None, token_sha256: str = "", **options: Any
    ) -> None:
        """Write the configuration: version numbers with weights, each variant called `v<number>`."""
        variants = [
            VariantConfig(
                name=f"v{number}",
                model="m",
                version=number,
                digest=f"sha256:{number}",
                directory=f"models/{number}",
                weight=weight,
            )
            for number, weight in (weights or {1: 1.0}).items()
        ]
        config = EndpointConfig(
            revision=revision,
            endpoint=self.name,
            project="default",
            variants=variants,
            token_sha256=token_sha256,
            options=EndpointOptions(**options),
        )
        self.write(msgspec.json.encode(config))

    def write(self, content: bytes) -> None:
        partial = self.directory / "config.new"
        partial.write_bytes(content)
        partial.rename(self.directory / "config.json")

    def start(self) -> EndpointStatus:
        """Start the process and wait until it serves."""
        self.launch()
        return self.wait_for(lambda status: status.state == "ready")

    def launch(self) -> None:
        (self.directory / "status.json").unlink(missing_ok=True)
        with (self.directory / "stderr").open("ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "modelyard.endpoint", "--config", str(self.directory / "config.json")],
                stderr=errors,
            )

    def status(self) -> EndpointStatus | None:
        try:
            return msgspec.json.decode((self.directory / "status.json").read_bytes(), type=EndpointStatus)
        except FileNotFoundError:
            return None

    def wait_for(self, wanted: Callable[[EndpointStatus], bool]) -> EndpointStatus:
        """The status, once it is as wanted; fails after a while, or when the process ends."""
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            status = self.status()
            if status is not None and wanted(status):
                return status
            assert self.process is not None
            assert self.process.poll() is None, (self.directory / "stderr").read_text()
            time.sleep(0.01)
        raise AssertionError(f"not in time: {self.status()}, {(self.directory / 'stderr').read_text()}")

    @property
    def url(self) -> str:
        status = self.status()
        assert status is not None
        return f"http://127.0.0.1:{status.port}"

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=30.0)

    def infer(self, body: Any, **headers: str) -> httpx.Response:
        with self.client() as client:
            return client.post(f"/v2/models/{self.name}/infer", content=msgspec.json.encode(body), headers=headers)

    def kill(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(DEADLINE_S)

    def records(self) -> list[PredictionRecord]:
        """All whole records of all segments, in the order in which they were written."""
        found: list[PredictionRecord] = []
        for path in sorted((self.directory / "log").iterdir()):
            found.extend(frames(path.read_bytes()))
        return found


def frames(content: bytes) -> Iterator[PredictionRecord]:
    at = 0
    while at + FRAME_HEADER.size <= len(content):
        length, checksum = FRAME_HEADER.unpack_from(content, at)
        payload = content[at + FRAME_HEADER.size : at + FRAME_HEADER.size + length]
        if len(payload) < length:
            return
        assert zlib.crc32(payload) == checksum
        yield msgspec.msgpack.decode(payload, type=PredictionRecord)
        at += FRAME_HEADER.size + length


def rows(*values: float, id: str = "") -> dict[str, Any]:
    """A request of one-column rows for `linear([w])`."""
    tensor = {"name": "x", "datatype": "FP32", "shape": [len(values), 1], "data": list(values)}
    return {"inputs": [tensor], **({"id": id} if id else {})}
