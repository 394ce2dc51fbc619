"""Servers to measure, each in a process of its own on loopback: ours, `mlflow server`, and one that does nothing."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

ROOT = Path(__file__).parents[1]
API = "/api/2.0/mlflow"
READY_TIMEOUT_S = 240
NOOP = """
import socket, sys, uvicorn
async def app(scope, receive, send):
    while (await receive()).get("more_body"): pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"{}"})
config = uvicorn.Config(app, http="httptools", loop="uvloop", lifespan="off", log_level="critical", access_log=False,
                        server_header=False, date_header=False)
bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
bound.bind(("127.0.0.1", 0))
bound.listen(128)
print(f"http://127.0.0.1:{bound.getsockname()[1]}", "-", flush=True)
uvicorn.Server(config).run(sockets=[bound])
"""


class Plain:
    """One keep-alive connection that speaks MLflow's REST API."""

    def __init__(self, url: str, token: str = "") -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=300)
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})

    def send(self, method: str, path: str, body: Any = None) -> bytes:
        """A request, and what came back as it came. Raises RuntimeError for any status but 200."""
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        self._connection.request(method, path, content, self._headers)
        reply = self._connection.getresponse()
        found = reply.read()
        if reply.status != 200:
            raise RuntimeError(f"{method} {path}: {reply.status} {found[:300]!r}")
        return found

    def call(self, method: str, path: str, body: Any = None) -> Any:
        return json.loads(self.send(method, API + path, body))

    def create_run(self) -> str:
        made = self.call("POST", "/runs/create", {"experiment_id": "0", "start_time": time.time_ns() // 10**6})
        return str(made["run"]["info"]["run_id"])


def environment(**added: str) -> dict[str, str]:
    """This process's, without what would compile every module anew at each start, which no user's machine does."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, **added}


def mlflow_program() -> str:
    """The program `mlflow` that `make foreign` has set up, or the one that `MLFLOW` names. Empty: there is none."""
    made = ROOT / ".venvs" / "mlflow3" / "bin" / "mlflow"
    return os.environ.get("MLFLOW") or (str(made) if made.exists() else "")


@contextmanager
def ours(home: Path) -> Iterator[tuple[str, str]]:
    """A server of ours over a home directory: its URL and token."""
    command = [sys.executable, "-m", "benchmarks._serve_tracking", str(home)]
    with _printing(command, NO_COLOR="1") as found:
        yield found


@contextmanager
def served(home: Path) -> Iterator[tuple[str, str, Callable[[], float]]]:
    """As `ours`, with what tells the most MiB that the server has held so far."""
    command = [sys.executable, "-m", "benchmarks._serve_tracking", str(home)]
    with subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url, token = process.stdout.readline().split()
            yield url, token, lambda: _held_mib(process.pid)
        finally:
            process.terminate()


def _held_mib(process: int) -> float:
    status = Path(f"/proc/{process}/status").read_text("utf-8")
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))


@contextmanager
def noop() -> Iterator[tuple[str, str]]:
    """A server that reads a request and answers `{}`."""
    with _printing([sys.executable, "-c", NOOP]) as found:
        yield found


@contextmanager
def _printing(command: list[str], **added: str) -> Iterator[tuple[str, str]]:
    process = subprocess.Popen(command, cwd=ROOT, env=environment(**added), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        url, token = process.stdout.readline().split()
        yield url, "" if token == "-" else token
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


@contextmanager
def theirs(directory: Path, program: str) -> Iterator[tuple[str, str]]:
    """`mlflow server` with one worker, which answers faster than its default of four, over SQLite in the directory."""
    port = free_port()
    directory.mkdir(exist_ok=True)
    command = [program, "server", "--port", str(port), "--workers", "1", "--backend-store-uri", "sqlite:///mlflow.db"]
    quiet = environment(MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="true")
    with (directory / "server.log").open("w") as log:
        process = subprocess.Popen(command, cwd=directory, env=quiet, stdout=log, stderr=log, start_new_session=True)
        try:
            wait_until_ready(f"http://127.0.0.1:{port}/health", process)
            yield f"http://127.0.0.1:{port}", ""
        finally:
            end(process)


def wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}")
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.02)
    raise RuntimeError(f"{url} did not answer")


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process that we started, and what it started."""
    try:
        tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for one in tree:
        one.terminate()
    _, alive = psutil.wait_procs(tree, timeout=10)
    for one in alive:
        one.kill()
    process.wait(10)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
