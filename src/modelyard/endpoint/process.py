"""The life of a prediction process: bind, serve, follow its configuration file, say how it goes, end in good order."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import psutil
import uvicorn

from modelyard.endpoint.front import Access, Front
from modelyard.endpoint.metrics import Metrics
from modelyard.endpoint.prediction_log import PredictionLog
from modelyard.endpoint.router import Router
from modelyard.endpoint.runner import Runner
from modelyard.endpoint.variants import Loaded, assemble, load_variants
from modelyard.kernel.errors import Conflict, InvalidInput, ModelyardError
from modelyard.types.serving import EndpointConfig, EndpointOptions, EndpointStatus

CONFIG_POLL_S = 0.25
LOG_TICK_S = 1.0
DRAIN_TIMEOUT_S = 30.0
KEEP_ALIVE_S = 75
CONFIG_BYTES_MAX = 4 * 1024 * 1024
LOG_FOLDER = "log"
STATUS_FILE = "status.json"
LOCK_FILE = "process.lock"
_log = logging.getLogger("modelyard.endpoint")


class _Server(uvicorn.Server):
    """Uvicorn without its signal handling, which ends the process before the log is closed."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Process:
    """One prediction process."""

    def __init__(self, config_path: Path, port: int = 0) -> None:
        self._config_path = config_path
        self._base = config_path.parent
        self._config = read_config(config_path)
        self._seen = stamp(config_path)
        self._socket = bind(self._config.host, port or self._config.options.port)
        self._port: int = self._socket.getsockname()[1]
        self._log = PredictionLog(self._base / LOG_FOLDER, self._config.options)
        self._metrics = Metrics(lambda: self._log.rows_written, lambda: self._log.rows_dropped)
        access = Access(host=self._config.host, token_sha256=self._config.token_sha256)
        self._front = Front(self._metrics, access, self._config.endpoint, self._config.options)
        self._started_at = psutil.Process().create_time()
        # One model at a time is loaded; the default pool is for decoding.
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="loader")
        self._failed_revision = 0
        self._problem = ""

    async def run(self) -> int:
        """Serve until told to stop. Returns the exit status."""
        server = _Server(
            uvicorn.Config(
                self._front, http="httptools", loop="uvloop", lifespan="off", ws="none", access_log=False,
                log_config=None, server_header=False, date_header=False,
                timeout_graceful_shutdown=int(DRAIN_TIMEOUT_S), timeout_keep_alive=KEEP_ALIVE_S,
            )
        )  # fmt: skip
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, setattr, server, "should_exit", True)
        self._say("starting")
        watching = asyncio.create_task(self._watch(server))
        ticking = asyncio.create_task(self._tick())
        try:
            await server.serve(sockets=[self._socket])
        finally:
            for task in (watching, ticking):
                task.cancel()
            results = await asyncio.gather(watching, ticking, return_exceptions=True)
            await self._end()
        faults = [one for one in results if isinstance(one, Exception)]
        for fault in faults:
            _log.error("the process ends by a fault", exc_info=fault)
        return 1 if faults or self._broken() else 0

    async def _watch(self, server: _Server) -> None:
        try:
            await self._apply(self._config)
            while not self._broken():
                await asyncio.sleep(CONFIG_POLL_S)
                await self._look()
        finally:
            # A process that no longer follows its configuration, or lost a model's thread, is better started again.
            server.should_exit = True

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(LOG_TICK_S)
            await asyncio.get_running_loop().run_in_executor(None, self._log.tick)

    def _broken(self) -> bool:
        serving = self._front.serving
        return serving is not None and any(one.broken for one in serving.runners.values())

    async def _look(self) -> None:
        now = stamp(self._config_path)
        if now == self._seen or now is None:
            return
        self._seen = now
        try:
            config = read_config(self._config_path)
        except ModelyardError as error:
            self._refuse(0, str(error))
            return
        serving = self._front.serving
        if config.revision <= (serving.config.revision if serving is not None else 0):
            return
        await self._apply(config)

    async def _apply(self, config: EndpointConfig) -> None:
        """Load beside what is served, then swap. What is served stays if the new does not load."""
        serving = self._front.serving
        # A runner keeps the limits it was made with, so other limits need another one. The port is none of them.
        same = serving is not None and _limits(serving.config) == _limits(config)
        have = serving.keys if serving is not None and same else frozenset()
        try:
            check(config, self._config)
            loaded = await asyncio.get_running_loop().run_in_executor(
                self._loader, load_variants, config, self._base, have
            )
        except ModelyardError as error:
            self._refuse(config.revision, str(error))
            return
        dropped = self._swap(config, loaded)
        self._failed_revision, self._problem = 0, ""
        self._metrics.revision.labels(config.endpoint).set(config.revision)
        self._say("ready")
        _log.info("revision %d is served", config.revision)
        for runner in dropped:
            runner.close()

    def _swap(self, config: EndpointConfig, loaded: list[Loaded]) -> list[Runner]:
        serving, dropped = assemble(config, loaded, self._front.serving, self._log, self._metrics)
        self._front.serving = serving
        self._front.options = config.options
        self._front.access = Access(host=config.host, token_sha256=config.token_sha256)
        self._log.configure(config.options)
        return dropped

    def _refuse(self, revision: int, why: str) -> None:
        _log.error("revision %d is not taken: %s", revision, why)
        self._metrics.reload_failures.labels(self._config.endpoint).inc()
        self._failed_revision, self._problem = revision, why
        self._front.problem = why
        self._say("failed" if self._front.serving is None else "ready")

    async def _end(self) -> None:
        """Answer what is queued, write it down, close the log."""
        serving, self._front.serving = self._front.serving, None
        loop = asyncio.get_running_loop()
        if serving is not None:
            for runner in serving.runners.values():
                runner.close()
            for runner in serving.runners.values():
                await loop.run_in_executor(None, runner.join, DRAIN_TIMEOUT_S)
        self._loader.shutdown(wait=False, cancel_futures=True)
        self._log.close()
        self._say("stopped", serving.config.revision if serving is not None else 0)

    def _say(self, state: str, revision: int | None = None) -> None:
        serving = self._front.serving
        status = EndpointStatus(
            pid=os.getpid(),
            process_started_at=self._started_at,
            host=self._config.host,
            port=self._port,
            state=state,  # type: ignore[arg-type]
            revision=revision if revision is not None else (serving.config.revision if serving is not None else 0),
            failed_revision=self._failed_revision,
            error=self._problem,
            at=datetime.now(UTC),
        )
        write_atomically(self._base / STATUS_FILE, msgspec.json.encode(status))


def _limits(config: EndpointConfig) -> EndpointOptions:
    return msgspec.structs.replace(config.options, port=0)


def check(config: EndpointConfig, first: EndpointConfig) -> None:
    """Raise InvalidInput for a configuration that cannot be served, or is for another process."""
    if (config.endpoint, config.project) != (first.endpoint, first.project):
        raise InvalidInput(f"the configuration is for endpoint '{config.endpoint}' of project '{config.project}'")
    if not config.variants:
        raise InvalidInput("the configuration has no variants", hint="name at least one model version")
    # Raises for weights that choose nothing.
    Router([(one.name, one.weight) for one in config.variants])


def read_config(path: Path) -> EndpointConfig:
    """The configuration in a file. Raises InvalidInput where it is missing or damaged."""
    try:
        content = path.read_bytes()
        if len(content) > CONFIG_BYTES_MAX:
            raise InvalidInput(f"{path} is larger than {CONFIG_BYTES_MAX:,} bytes")
        return msgspec.json.decode(content, type=EndpointConfig)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}", code="endpoint.config_missing") from error
    except msgspec.DecodeError as error:
        raise InvalidInput(f"{path} is no endpoint configuration: {error}", code="endpoint.config_invalid") from error


def stamp(path: Path) -> tuple[int, int, int] | None:
    """What tells one state of a file from another; None where there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; a port that is taken gives way to a free one, which the status file tells."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for wanted in dict.fromkeys((port, 0)):
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, wanted))
        except OSError as error:
            listener.close()
            _log.warning("port %d of %s cannot be bound: %s", wanted, host, error.strerror)
            continue
        listener.listen(1024)
        listener.setblocking(False)
        return listener
    raise InvalidInput(f"no port of {host} can be bound", code="endpoint.bind_failed")


def lock(base: Path) -> int:
    """Hold the endpoint's directory for this process, as long as it lives. Raises Conflict where another has it."""
    handle = os.open(base / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise Conflict(f"another process serves {base} already", code="endpoint.locked") from error
    return handle


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file as a whole: a reader sees the old or the new, and nothing between."""
    hidden = path.with_name(f".{path.name}.{os.getpid()}")
    hidden.write_bytes(content)
    hidden.rename(path)
