"""What a compute engine can do: start a command, say how it is, stop it, show what it wrote.

An engine knows commands, not jobs: it gets a compiled `CommandSpec` and gives a `Handle` that a restarted server can
store, read back and go on with. All calls are idempotent; what is started twice under one directory runs once.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Protocol

import msgspec

from modelyard.kernel.limits import MIB
from modelyard.types.jobs import Resources, Usage

LOG_BYTES_MAX_DEFAULT = 16 * MIB


class CommandSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A command to run. `directory` (absolute, one per start) is its identity.

    `timeout_s` None: until it ends or is stopped, as for a service. `memory_bytes` 0: no cap. `env` is handed to the
    process only, never written; the values of `secret_env` names are struck out of what it prints.
    """

    directory: str
    argv: list[str]
    env: dict[str, str] = {}
    cwd: str | None = None
    timeout_s: float | None = None
    grace_s: float = 5.0
    memory_bytes: int = 0
    log_bytes_max: int = LOG_BYTES_MAX_DEFAULT
    secret_env: list[str] = []


class Handle(msgspec.Struct, frozen=True, kw_only=True):
    """A started command: its directory, the watching process, and when that was started (seconds since the epoch)."""

    directory: str
    pid: int
    started_at: float


class Outcome(StrEnum):
    """How a command ended. `exited` covers a signal that was not ours (a crash, the kernel's out-of-memory killer)."""

    EXITED = "exited"
    TIMED_OUT = "timed_out"
    STOPPED = "stopped"
    OUT_OF_MEMORY = "out_of_memory"
    NOT_STARTED = "not_started"


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """It runs; what it has used so far, sampled."""

    usage: Usage


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """It ended. Exactly one of `exit_code` and `signal` is set, none where it was not started. Times: epoch seconds."""

    outcome: Outcome
    exit_code: int | None
    signal: int | None
    message: str
    started_at: float
    ended_at: float
    usage: Usage

    @property
    def ok(self) -> bool:
        """Whether it ended by itself with exit code 0."""
        return self.outcome is Outcome.EXITED and self.exit_code == 0


class Lost(msgspec.Struct, frozen=True, kw_only=True):
    """It runs no more and nobody saw how it ended. Whatever it left running has been ended."""

    reason: str
    usage: Usage


class LogPiece(msgspec.Struct, frozen=True, kw_only=True):
    """Raw bytes of the output from `offset` on; `next` continues. `skipped_bytes` before `offset` were not kept."""

    content: bytes
    offset: int
    next: int
    skipped_bytes: int
    end: bool


class ComputeEngine(Protocol):
    """Runs commands on some machines."""

    name: str

    def capacity(self) -> Resources:
        """What all commands together may use."""
        ...

    def start(self, spec: CommandSpec) -> Handle:
        """Start a command, or find the one that was started in this directory before.

        Raises EngineError (`compute.start_failed`) where it cannot be started; Unavailable on a full disk.
        """
        ...

    def find(self, directory: str) -> Handle | None:
        """The handle of what was started in a directory, also by a server that did not live to record it."""
        ...

    def poll(self, handle: Handle) -> Running | Finished | Lost:
        """How it is. Cheap, never waits. A final answer stays the same for ever."""
        ...

    def wait(self, handle: Handle, timeout_s: float) -> Running | Finished | Lost:
        """As `poll`, but waits for the end, at most so long."""
        ...

    def watch(self, handle: Handle, ended: Callable[[], None]) -> None:
        """Call `ended` once, from another thread, when it is over. A hint that saves polling, not a promise."""
        ...

    def stop(self, handle: Handle, grace_s: float) -> None:
        """Ask it and all its children to end (SIGTERM), and end them after `grace_s` (SIGKILL). Does not wait."""
        ...

    def read_log(self, handle: Handle, offset: int = 0, limit_bytes: int = 65_536) -> LogPiece:
        """A piece of its output. A negative `offset` counts from the end."""
        ...
