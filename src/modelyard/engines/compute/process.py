"""Commands as processes of this machine, each under a supervisor (`supervise.py`) that outlives the server.

The directory of a command holds all that is known of it, so a restarted server, or another one on the same machine,
finds and follows what runs. That a supervisor lives is told by the lock it holds, never by its process id alone: ids
are used again, a lock dies with its holder.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import msgspec
import psutil

from modelyard.engines.compute import supervise
from modelyard.engines.compute.base import CommandSpec, Finished, Handle, LogPiece, Lost, Running
from modelyard.kernel.disk import full_disk
from modelyard.kernel.errors import EngineError, InvalidInput, Unavailable
from modelyard.kernel.paths import make_private
from modelyard.types.jobs import Resources, Usage

MARK = "MYD_COMMAND"
"""Name of the variable that marks every process of a command, for the case that its supervisor is gone."""

MEMORY_SHARE = 0.8
ANNOUNCE_S_MAX = 10.0
_INHERITED = (
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS",
)  # fmt: skip


class ProcessEngine:
    """Runs commands on this machine.

    `environ` is the server's own environment, of which a command gets only what is needed to run a program at all:
    the rest may hold the server's secrets. `cpus` and `memory_bytes` 0 mean all CPUs, and 80 % of the memory.
    """

    name = "process"

    def __init__(self, environ: Mapping[str, str], *, cpus: float = 0.0, memory_bytes: int = 0) -> None:
        self._environ = {name: value for name, value in environ.items() if name in _INHERITED or name[:3] == "LC_"}
        self._capacity = Resources(
            cpus=cpus or float(_machine_cpus()),
            memory_bytes=memory_bytes or int(_machine_memory_bytes() * MEMORY_SHARE),
        )
        self._children: set[int] = set()
        self._lock = threading.Lock()

    def capacity(self) -> Resources:
        return self._capacity

    def start(self, spec: CommandSpec) -> Handle:
        _check(spec)
        directory = Path(spec.directory)
        self._reap()
        with self._lock, _starting():
            found = self.find(spec.directory)
            if found is not None:
                return found
            make_private(directory / "log")
            cwd = Path(spec.cwd) if spec.cwd is not None else make_private(directory / "work")
            started_at = time.time()
            content = {name: getattr(spec, name) for name in spec.__struct_fields__ if name != "env"}
            content |= {"cwd": str(cwd), "started_at": started_at}
            _write(directory / "spec.json", msgspec.json.encode(content))
            argv = [sys.executable, "-I", "-S", supervise.__file__, str(directory)]
            pid = self._launch(directory, argv, {**self._environ, **spec.env, MARK: str(directory)})
        return Handle(directory=spec.directory, pid=pid, started_at=started_at)

    def find(self, directory: str) -> Handle | None:
        folder = Path(directory)
        deadline = time.monotonic() + ANNOUNCE_S_MAX
        while True:
            # A supervisor announces itself before it starts the command. So where there is neither announcement nor
            # lock, the command never ran; where there is only the lock, the announcement is about to come.
            starting = _is_locked(folder)
            with suppress(FileNotFoundError):
                return msgspec.json.decode((folder / "started.json").read_bytes(), type=Handle)
            if not starting or time.monotonic() > deadline:
                return None
            time.sleep(0.005)

    def poll(self, handle: Handle) -> Running | Finished | Lost:
        self._reap()
        directory = Path(handle.directory)
        # Asked before the result is read: who finds the lock free knows that no result is still to come.
        alive = _is_locked(directory)
        finished = _read_result(directory)
        if finished is not None:
            return finished
        usage = _read_usage(directory)
        if alive:
            return Running(usage=usage)
        left = _end_leftovers(handle.directory)
        suffix = f"; {left} processes that it left were ended" if left else ""
        return Lost(reason=f"the process that watched it is gone and left no result{suffix}", usage=usage)

    def wait(self, handle: Handle, timeout_s: float) -> Running | Finished | Lost:
        deadline = time.monotonic() + timeout_s
        delay_s = 0.002
        while isinstance(found := self.poll(handle), Running) and time.monotonic() < deadline:
            time.sleep(min(delay_s, max(deadline - time.monotonic(), 0)))
            delay_s = min(delay_s * 1.5, 0.1)
        return found

    def watch(self, handle: Handle, ended: Callable[[], None]) -> None:
        def wait() -> None:
            with suppress(FileNotFoundError):
                lock = os.open(Path(handle.directory) / "lock", os.O_RDONLY)
                try:
                    fcntl.flock(lock, fcntl.LOCK_SH)
                finally:
                    os.close(lock)
            ended()

        threading.Thread(target=wait, name=f"watch-{handle.pid}", daemon=True).start()

    def stop(self, handle: Handle, grace_s: float) -> None:
        directory = Path(handle.directory)
        if (directory / "result.json").exists():
            return
        with _stopping():
            _write(directory / "stop.json", msgspec.json.encode({"grace_s": grace_s}))
        if (directory / "result.partial").exists():
            _signal_supervisor(directory, handle.pid)

    def read_log(self, handle: Handle, offset: int = 0, limit_bytes: int = 65_536) -> LogPiece:
        segments = _segments(Path(handle.directory) / "log")
        ended = (Path(handle.directory) / "result.json").exists() or not _is_locked(Path(handle.directory))
        size = segments[-1][0] + segments[-1][1].stat().st_size if segments else 0
        asked = max(size + offset, 0) if offset < 0 else offset
        for start, file in segments:
            with suppress(FileNotFoundError), file.open("rb") as source:
                at = max(asked, start)
                source.seek(at - start)
                content = source.read(limit_bytes)
                if content:
                    reached = at + len(content)
                    return LogPiece(
                        content=content,
                        offset=at,
                        next=reached,
                        skipped_bytes=at - asked,
                        end=ended and reached >= size,
                    )
        return LogPiece(content=b"", offset=asked, next=asked, skipped_bytes=0, end=ended)

    def _launch(self, directory: Path, argv: list[str], environ: dict[str, str]) -> int:
        lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            # The lock belongs to the open file, which the supervisor inherits: it is held without a gap.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.set_inheritable(lock, True)
            errors = str(directory / "supervisor.log")
            pid = os.posix_spawn(
                sys.executable,
                [*argv, str(lock)],
                environ,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 1, errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
                    (os.POSIX_SPAWN_DUP2, 1, 2),
                ],
                setsid=True,
            )
        except BlockingIOError as error:
            raise Unavailable(
                f"another server is starting the command of {directory} at this moment", code="compute.start_raced"
            ) from error
        finally:
            os.close(lock)
        self._children.add(pid)
        return pid

    def _reap(self) -> None:
        for pid in list(self._children):
            try:
                ended = os.waitpid(pid, os.WNOHANG)[0] == pid
            except ChildProcessError:
                ended = True
            if ended:
                self._children.discard(pid)


def _check(spec: CommandSpec) -> None:
    if not spec.argv or not os.path.isabs(spec.directory):
        raise InvalidInput("a command needs at least a program, and an absolute directory", code="compute.spec_invalid")
    if spec.timeout_s is not None and not 0 < spec.timeout_s < float("inf"):
        raise InvalidInput(f"a timeout of {spec.timeout_s} s has no meaning", code="compute.spec_invalid")


def _is_locked(directory: Path) -> bool:
    try:
        lock = os.open(directory / "lock", os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        # Shared, so that two who ask at once do not take each other for the supervisor.
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def _read_result(directory: Path) -> Finished | None:
    try:
        return msgspec.json.decode((directory / "result.json").read_bytes(), type=Finished)
    except FileNotFoundError:
        return None


def _read_usage(directory: Path) -> Usage:
    try:
        return msgspec.json.decode((directory / "usage.json").read_bytes(), type=Usage)
    except FileNotFoundError:
        return Usage()


def _segments(directory: Path) -> list[tuple[int, Path]]:
    with suppress(FileNotFoundError):
        return sorted((int(file.name), file) for file in directory.iterdir() if file.name.isdigit())
    return []


def _signal_supervisor(directory: Path, pid: int) -> None:
    if not hasattr(os, "pidfd_open"):
        if _is_locked(directory):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        return
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        # The lock is still held after the process was opened: so it was, and is, the supervisor that we opened.
        if _is_locked(directory):
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(process, signal.SIGTERM)
    finally:
        os.close(process)


def _end_leftovers(directory: str) -> int:
    """End what a killed supervisor could not: every process that carries the command's mark. Returns how many."""
    ended = 0
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == directory:
                process.kill()
                ended += 1
    return ended


def _write(file: Path, content: bytes) -> None:
    partial = file.with_name(file.name + ".new")
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as sink:
        sink.write(content)
        sink.flush()
        os.fsync(sink.fileno())
    partial.rename(file)


@contextmanager
def _starting() -> Iterator[None]:
    try:
        with _full_disk("started"):
            yield
    except OSError as error:
        raise EngineError(f"the command could not be started: {error}", code="compute.start_failed") from error


@contextmanager
def _stopping() -> Iterator[None]:
    try:
        with _full_disk("stopped"):
            yield
    except OSError as error:
        raise EngineError(f"the command could not be stopped: {error}", code="compute.stop_failed") from error


def _full_disk(done: str) -> AbstractContextManager[None]:
    return full_disk(
        f"the disk is full: the command was not {done}",
        code="compute.disk_full",
        hint="free some space; it is tried again",
    )


def _machine_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _machine_memory_bytes() -> int:
    total = int(psutil.virtual_memory().total)
    with suppress(OSError, ValueError):
        return min(int(Path("/sys/fs/cgroup/memory.max").read_text()), total)
    return total
