"""Watches one command for its whole life. Run as a script: `python -I -S supervise.py DIRECTORY LOCK_FD`.

It is the parent of the command and outlives the server that started it. It keeps the lock of LOCK_FD for as long as it
lives (how a restarted server tells that it does), captures the output under a cap, meters, enforces the time and memory
limits on the command and all that it forked, and leaves `result.json`, written in one rename. Standard library only,
and nothing of ours: it starts in ten milliseconds, and there is one of these beside every job.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import select
import signal
import sys
import time
from contextlib import suppress
from typing import Any, NamedTuple, NoReturn

TAIL_SEGMENTS = 2
SAMPLE_S_MIN, SAMPLE_S_MAX = 0.1, 2.0
LEFTOVER_GRACE_S = 2.0
UNKILLABLE_S = 30.0
RESULT_BYTES = 4096
SECRET_BYTES_MIN = 6
_PR_SET_CHILD_SUBREAPER = 36
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Process(NamedTuple):
    """One line of /proc: who it is, and what it used, its reaped children included."""

    pid: int
    parent: int
    group: int
    cpu_s: float
    rss_bytes: int
    zombie: bool


def processes() -> dict[int, Process]:
    """All processes of the machine; empty where there is no /proc."""
    found = {}
    with suppress(OSError):
        for name in os.listdir("/proc"):
            if name.isdigit():
                process = _read_process(int(name))
                if process is not None:
                    found[process.pid] = process
    return found


def _read_process(pid: int) -> Process | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name is in parentheses and may hold spaces and parentheses itself.
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    cpu_ticks = sum(int(field) for field in fields[11:15])
    return Process(
        pid, int(fields[1]), int(fields[2]), cpu_ticks / _TICKS_PER_S, int(fields[21]) * _PAGE_BYTES, fields[0] == b"Z"
    )


def descendants(root: int) -> list[Process]:
    """All processes below one. Those that detached themselves are here too, since we are their subreaper."""
    everything = processes()
    children: dict[int, list[Process]] = {}
    for process in everything.values():
        children.setdefault(process.parent, []).append(process)
    found: list[Process] = []
    waiting = [root]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += [process.pid for process in below]
    return found


def own_memory_bytes(tree: list[Process]) -> int:
    """Memory of a tree, shared pages counted once; dearer to read than resident sizes, which count them each time."""
    total = 0
    for process in tree:
        size = process.rss_bytes
        with suppress(OSError, ValueError), open(f"/proc/{process.pid}/smaps_rollup", "rb") as file:
            size = next(int(line.split()[1]) * 1024 for line in file if line.startswith(b"Pss:"))
        total += size
    return total


class Redactor:
    """Strikes known secrets out of a stream, also where one is split over two reads."""

    def __init__(self, secrets: list[bytes]) -> None:
        self._secrets = [secret for secret in secrets if len(secret) >= SECRET_BYTES_MIN]
        self._longest = max((len(secret) for secret in self._secrets), default=0)
        self._held = b""

    def feed(self, piece: bytes) -> bytes:
        """What can be written now; the start of what may become a secret is held back."""
        text = self._held + piece
        for secret in self._secrets:
            text = text.replace(secret, b"***")
        held = 0
        for length in range(min(self._longest - 1, len(text)), 0, -1):
            if any(secret.startswith(text[-length:]) for secret in self._secrets):
                held = length
                break
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def flush(self) -> bytes:
        """What was held back."""
        held, self._held = self._held, b""
        return held


class Log:
    """Output in files named after the offset of their first byte: the first is kept, of the others the last ones.

    So a log is bounded, yet has both what a program says at its start and what it says when it fails.
    """

    def __init__(self, directory: str, bytes_max: int) -> None:
        self._directory = directory
        self._segment_bytes = max(bytes_max // (1 + TAIL_SEGMENTS), 1)
        self._offset = 0
        self._room = 0
        self._file = -1
        self._names: list[str] = []

    def write(self, content: bytes) -> None:
        """Append. On a full disk the bytes are counted and dropped: a job does not fail for its log."""
        while content:
            try:
                if self._room <= 0 or self._file < 0:
                    self._next_segment()
                written = os.write(self._file, content[: self._room])
            except OSError:
                self._offset += len(content)
                self.close()
                return
            self._offset += written
            self._room -= written
            content = content[written:]

    def close(self) -> None:
        """Close the open segment; a later write starts a new one."""
        if self._file >= 0:
            os.close(self._file)
        self._file, self._room = -1, 0

    def _next_segment(self) -> None:
        self.close()
        name = os.path.join(self._directory, f"{self._offset:020d}")
        self._file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._room = self._segment_bytes
        self._names.append(name)
        if len(self._names) > 1 + TAIL_SEGMENTS:
            with suppress(OSError):
                os.unlink(self._names.pop(1))


class Supervisor:
    """One command, from its start to its `result.json`."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        with open(os.path.join(directory, "spec.json"), encoding="utf-8") as file:
            self.spec: dict[str, Any] = json.load(file)
        secrets = [os.getenv(name, "").encode("utf-8", "surrogateescape") for name in self.spec["secret_env"]]
        self.redactor = Redactor(secrets)
        self.log = Log(os.path.join(directory, "log"), self.spec["log_bytes_max"])
        self.outcome = ""
        self.message = ""
        self.status: int | None = None
        self.pid = 0
        self.peak_rss_bytes = 0
        self.sampled_cpu_s = 0.0
        self.sample_s = SAMPLE_S_MIN
        self.kill_at: float | None = None
        self.ended: float | None = None
        self.clearing = False
        self.stop_asked = False
        self.output, self._output_end = os.pipe()
        self.wake, wake_end = os.pipe()
        for fd in (self.output, self.wake, wake_end):
            os.set_blocking(fd, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.set_wakeup_fd(wake_end, warn_on_full_buffer=False)
        self._reserve_result()
        handle = {"directory": directory, "pid": os.getpid(), "started_at": self.spec["started_at"]}
        self._replace("started.json", json.dumps(handle).encode())
        # Who asks to stop writes `stop.json` first and signals only if the reserved result is there: one of us sees it.
        self.stop_asked = self.stop_asked or os.path.exists(os.path.join(directory, "stop.json"))

    def run(self) -> None:
        """Start, watch to the end, write the result."""
        become_subreaper()
        self.started_at, self.started = time.time(), time.monotonic()
        self.sample_at = self.started + self.sample_s
        timeout_s = self.spec["timeout_s"]
        self.timeout_at = None if timeout_s is None else self.started + timeout_s
        self._spawn()
        while self.pid and not self._over():
            self._wait()
            self._reap()
            self._enforce(time.monotonic())
        self._drain()
        self.log.write(self.redactor.flush())
        self.log.close()
        self._write_result()

    def _on_stop(self, *_: object) -> None:
        self.stop_asked = True

    def _spawn(self) -> None:
        failure, failure_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            self._become_command(failure_end)
        os.close(failure_end)
        os.close(self._output_end)
        said = b""
        while piece := os.read(failure, 4096):
            said += piece
        os.close(failure)
        if said:
            os.waitpid(pid, 0)
            self.outcome, self.message = "not_started", said.decode("utf-8", "replace")
        else:
            self.pid = pid

    def _become_command(self, failure: int) -> NoReturn:
        try:
            signal.set_wakeup_fd(-1)
            # Ignored signals stay ignored over exec, and Python ignores some by itself.
            for number in (
                signal.SIGCHLD,
                signal.SIGTERM,
                signal.SIGINT,
                signal.SIGHUP,
                signal.SIGPIPE,
                signal.SIGXFSZ,
            ):
                signal.signal(number, signal.SIG_DFL)
            os.setsid()
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(self._output_end, 1)
            os.dup2(self._output_end, 2)
            prefer_for_oom_killer()
            os.chdir(self.spec["cwd"])
            os.execvp(self.spec["argv"][0], self.spec["argv"])
        except OSError as error:
            os.write(failure, f"cannot start {self.spec['argv'][0]!r}: {error.strerror}".encode())
        except ValueError as error:
            os.write(failure, f"cannot start {self.spec['argv'][0]!r}: {error}".encode())
        finally:
            os._exit(127)

    def _wait(self) -> None:
        now = time.monotonic()
        deadlines = [self.sample_at, self.timeout_at, self.kill_at]
        delay_s = min(deadline - now for deadline in deadlines if deadline is not None)
        if self.ended is not None:
            delay_s = min(delay_s, 0.02)
        watched = [self.wake] if self.output < 0 else [self.wake, self.output]
        ready, _, _ = select.select(watched, [], [], max(delay_s, 0.0))
        if self.wake in ready:
            with suppress(BlockingIOError):
                os.read(self.wake, 4096)
        if self.output in ready:
            self._read_output()

    def _read_output(self) -> bool:
        try:
            piece = os.read(self.output, 262_144)
        except BlockingIOError:
            return False
        if not piece:
            os.close(self.output)
            self.output = -1
            return False
        self.log.write(self.redactor.feed(piece))
        return True

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.pid:
                self.status, self.ended = status, time.monotonic()

    def _enforce(self, now: float) -> None:
        if self.ended is not None:
            if not self.clearing:
                self.clearing = True
                leave_by = self.ended + LEFTOVER_GRACE_S
                self.kill_at = leave_by if self.kill_at is None else min(self.kill_at, leave_by)
                self._signal(signal.SIGTERM)
        elif self.stop_asked:
            # Cleared before the wish is read: one that comes meanwhile is read once more, never lost.
            self.stop_asked = False
            self._end("stopped", "stopped on request", self._stop_grace_s())
        elif self.timeout_at is not None and now >= self.timeout_at:
            self._end("timed_out", f"ran longer than its timeout of {self.spec['timeout_s']:g} s", self.spec["grace_s"])
        if now >= self.sample_at:
            self._sample(now)
        if self.kill_at is not None and now >= self.kill_at:
            self._signal(signal.SIGKILL)
            self.kill_at = now + 0.05

    def _end(self, outcome: str, message: str, grace_s: float) -> None:
        self.timeout_at = None
        kill_at = time.monotonic() + grace_s
        if self.outcome:
            # Already ending: a later, more impatient stop shortens the grace, nothing else.
            self.kill_at = kill_at if self.kill_at is None else min(self.kill_at, kill_at)
            return
        self.outcome, self.message, self.kill_at = outcome, message, kill_at
        self._signal(signal.SIGTERM)

    def _stop_grace_s(self) -> float:
        try:
            with open(os.path.join(self.directory, "stop.json"), encoding="utf-8") as file:
                return float(json.load(file)["grace_s"])
        except (OSError, ValueError, KeyError):
            return float(self.spec["grace_s"])

    def _signal(self, number: int) -> None:
        # By groups: the kernel signals a group in one piece, so that a forking program cannot outrun it.
        groups = {process.group for process in descendants(os.getpid()) if not process.zombie}
        if self.ended is None or not os.path.isdir("/proc/self"):
            groups.add(self.pid)
        for group in groups - {os.getpgid(0)}:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(group, number)

    def _sample(self, now: float) -> None:
        tree = descendants(os.getpid())
        rss_bytes = sum(process.rss_bytes for process in tree)
        self.peak_rss_bytes = max(self.peak_rss_bytes, rss_bytes)
        reaped = resource.getrusage(resource.RUSAGE_CHILDREN)
        live_s = sum(process.cpu_s for process in tree)
        self.sampled_cpu_s = max(self.sampled_cpu_s, live_s + reaped.ru_utime + reaped.ru_stime)
        limit = self.spec["memory_bytes"]
        if limit and rss_bytes > limit and not self.outcome and (used := own_memory_bytes(tree)) > limit:
            message = f"used {used:,} bytes of memory, more than its {limit:,}"
            self._end("out_of_memory", message, min(self.spec["grace_s"], 1.0))
        self.sample_s = min(self.sample_s * 1.5, 0.5 if limit else SAMPLE_S_MAX)
        self.sample_at = now + self.sample_s
        with suppress(OSError):
            self._replace("usage.json", json.dumps(self._usage(now)).encode())

    def _usage(self, now: float) -> dict[str, float]:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        unit = 1 if sys.platform == "darwin" else 1024
        return {
            "cpu_s": round(max(used.ru_utime + used.ru_stime, self.sampled_cpu_s), 6),
            "wall_s": round(now - self.started, 6),
            "peak_rss_bytes": max(self.peak_rss_bytes, used.ru_maxrss * unit),
        }

    def _over(self) -> bool:
        if self.ended is None:
            return False
        left = [process for process in descendants(os.getpid()) if not process.zombie]
        return not left or time.monotonic() > self.ended + UNKILLABLE_S

    def _drain(self) -> None:
        while self.output >= 0 and self._read_output():
            pass

    def _reserve_result(self) -> None:
        # Its blocks are taken now, so that the result can be written when the job has filled the disk.
        path = os.path.join(self.directory, "result.partial")
        self._result = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        os.write(self._result, b" " * RESULT_BYTES)
        os.fsync(self._result)

    def _write_result(self) -> None:
        ended = self.ended if self.ended is not None else time.monotonic()
        usage = self._usage(ended)
        exit_code = signal_number = None
        if self.status is not None:
            if os.WIFSIGNALED(self.status):
                signal_number = os.WTERMSIG(self.status)
            else:
                exit_code = os.WEXITSTATUS(self.status)
        content = json.dumps(
            {
                "outcome": self.outcome or "exited",
                "exit_code": exit_code,
                "signal": signal_number,
                "message": self.message[:500],
                "started_at": self.started_at,
                "ended_at": self.started_at + usage["wall_s"],
                "usage": usage,
            }
        )
        os.pwrite(self._result, content.encode().ljust(RESULT_BYTES), 0)
        os.fsync(self._result)
        os.rename(os.path.join(self.directory, "result.partial"), os.path.join(self.directory, "result.json"))
        handle = os.open(self.directory, os.O_RDONLY)
        os.fsync(handle)

    def _replace(self, name: str, content: bytes) -> None:
        path = os.path.join(self.directory, name)
        with open(os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(content)
        os.rename(path + ".new", path)


def become_subreaper() -> None:
    """Inherit the orphans below us, so that a child that detaches itself stays ours to meter and to end. Linux only."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def prefer_for_oom_killer() -> None:
    """When the machine runs out of memory, a job shall die before its supervisor and the server do. Linux only."""
    with suppress(OSError), open("/proc/self/oom_score_adj", "wb") as file:
        file.write(b"500")


def main() -> None:
    """Take over the lock and watch."""
    directory, lock = sys.argv[1], int(sys.argv[2])
    os.set_inheritable(lock, False)
    os.chdir("/")
    Supervisor(directory).run()


if __name__ == "__main__":
    main()
