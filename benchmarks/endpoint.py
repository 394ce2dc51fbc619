"""Requests per second of the prediction process, beside a no-op ASGI application on the same server.

Numbers of a shared machine jump about; the ratio to the no-op, taken in turns with it, is what can be compared.
`python -m benchmarks endpoint`
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httptools
import httpx
import msgspec
import numpy as np
from onnx import TensorProto, helper, numpy_helper

from modelyard.types.serving import EndpointConfig, EndpointStatus, VariantConfig

ROUNDS = 3
SECONDS = 2.0
NOOP = """
import sys, uvicorn
async def app(scope, receive, send):
    while (await receive()).get("more_body"): pass
    head = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
    await send(head)
    await send({"type": "http.response.body", "body": b"{}"})
uvicorn.run(app, port=int(sys.argv[1]), http="httptools", loop="uvloop", lifespan="off", log_level="critical",
            access_log=False, server_header=False, date_header=False)
"""


def write_endpoint(directory: Path, features: int) -> None:
    """A linear model of so many features, and a configuration that serves it."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", features])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])],
        [numpy_helper.from_array(np.ones((features, 1), np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    (directory / "model").mkdir()
    (directory / "model" / "model.onnx").write_bytes(model.SerializeToString())
    variant = VariantConfig(name="main", model="m", version=1, digest="d", directory="model")
    config = EndpointConfig(revision=1, endpoint="bench", project="default", variants=[variant])
    (directory / "config.json").write_bytes(msgspec.json.encode(config))


def request(path: str, rows: int, features: int) -> bytes:
    """A whole HTTP request with a JSON body."""
    tensor = {"name": "x", "datatype": "FP32", "shape": [rows, features], "data": [0.5] * (rows * features)}
    body = json.dumps({"inputs": [tensor]}).encode()
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


async def worker(port: int, content: bytes, until: float) -> int:
    """Send one request after the other on one connection. Returns how many were answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answered = 0

    class Reply:
        done = False

        def on_message_complete(self) -> None:
            self.done = True

    while time.monotonic() < until:
        reply = Reply()
        parser = httptools.HttpResponseParser(reply)
        writer.write(content)
        while not reply.done:
            parser.feed_data(await reader.read(65536))
        assert parser.get_status_code() == 200
        answered += 1
    writer.close()
    return answered


async def measure(port: int, content: bytes, connections: int) -> float:
    """Requests per second over so many connections."""
    until = time.monotonic() + SECONDS
    counts = await asyncio.gather(*(worker(port, content, until) for _ in range(connections)))
    return sum(counts) / SECONDS


def wait_for(url: str) -> None:
    """Wait until something answers."""
    for _ in range(200):
        try:
            httpx.get(url, timeout=1.0)
            return
        except httpx.TransportError:
            time.sleep(0.05)
    raise SystemExit(f"nothing answers at {url}")


def main() -> None:
    """Print requests per second and the ratio to the no-op, best of some rounds taken in turns."""
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        write_endpoint(directory, 8)
        config = str(directory / "config.json")
        process = subprocess.Popen([sys.executable, "-m", "modelyard.endpoint", "--config", config])
        began = time.monotonic()
        while True:
            time.sleep(0.01)
            file = directory / "status.json"
            if file.exists():
                status = msgspec.json.decode(file.read_bytes(), type=EndpointStatus)
                if status.state == "ready":
                    break
        print(f"ready after {time.monotonic() - began:.2f} s")
        noop = subprocess.Popen([sys.executable, "-c", NOOP, str(status.port + 1)])
        try:
            wait_for(f"http://127.0.0.1:{status.port + 1}/")
            print(f"{'rows':>5} {'connections':>12} {'no-op/s':>10} {'endpoint/s':>11} {'ratio':>6}")
            for rows, connections in ((1, 1), (1, 64), (64, 16)):
                content = request("/v2/models/bench/infer", rows, 8)
                floor = served = 0.0
                for _ in range(ROUNDS):
                    floor = max(floor, asyncio.run(measure(status.port + 1, content, connections)))
                    served = max(served, asyncio.run(measure(status.port, content, connections)))
                print(f"{rows:>5} {connections:>12} {floor:>10,.0f} {served:>11,.0f} {served / floor:>6.2f}")
        finally:
            for one in (noop, process):
                one.terminate()
                one.wait()
