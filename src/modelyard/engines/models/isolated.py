"""A model in a worker process: the parent's side. The worker is started again when it dies; a stall ends it.

The worker has its parent's environment. That of a prediction process was cleaned when the platform started it.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from modelyard.engines.models.columns import pack, unpack
from modelyard.engines.models.worker_wire import Answer, Ready, receive, send
from modelyard.kernel.errors import EngineError, InvalidInput, UserCodeError
from modelyard.types.serving import TensorSpec

if TYPE_CHECKING:
    from modelyard.engines.models.base import Array, Columns

LOAD_TIMEOUT_S = 120.0
ANSWER_TIMEOUT_S = 60.0


class IsolatedModel:
    """Speaks to one worker process. A worker that died is replaced at the next call."""

    batches = True

    def __init__(self, directory: Path, *, trusted: bool, answer_timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        self._directory = directory
        self._trusted = trusted
        self._answer_timeout_s = answer_timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        ready = self._start()
        self.inputs: list[TensorSpec] = ready.inputs
        self.outputs: list[TensorSpec] = ready.outputs
        self.platform = ready.platform

    @property
    def pid(self) -> int:
        """The worker's process id; 0 while there is none."""
        return self._process.pid if self._process is not None else 0

    def predict(self, columns: Columns) -> dict[str, Array]:
        """Ask the worker. Raises UserCodeError where the model fails, EngineError where the worker dies or stalls."""
        if self._channel is None:
            self._start()
        assert self._channel is not None
        try:
            send(self._channel, pack(columns))
            answer: Answer = receive(self._channel, Answer)
        except TimeoutError as error:
            self.close()
            raise EngineError(
                f"the model gave no answer within {self._answer_timeout_s:g} s; its process was ended",
                code="model.stalled",
            ) from error
        except (EOFError, OSError) as error:
            self.close()
            raise EngineError(
                f"the model's process died: {error}",
                code="model.worker_died",
                hint="it is started again for the next request; see the endpoint's process log",
            ) from error
        if answer.error:
            raise UserCodeError(f"the model failed: {answer.error}", code="model.failed")
        return unpack(answer.outputs)

    def close(self) -> None:
        """End the worker."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _command(self, descriptor: int) -> list[str]:
        # -P: or a module lying in the model's directory could be imported in place of one of Python's.
        worker = [sys.executable, "-P", "-m", "modelyard.engines.models.worker"]
        return [*worker, str(descriptor), str(self._directory), "trusted" if self._trusted else "untrusted"]

    def _start(self) -> Ready:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                self._command(theirs.fileno()),
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                cwd=self._directory,
            )
        self._channel = ours
        ours.settimeout(LOAD_TIMEOUT_S)
        try:
            ready: Ready = receive(ours, Ready)
        except (EOFError, OSError, EngineError) as error:
            self.close()
            raise EngineError(
                f"the model's process ended while loading it: {error}", code="model.worker_died"
            ) from error
        if ready.error:
            self.close()
            raise InvalidInput(
                f"the model cannot be loaded: {ready.error}",
                code="model.load_failed",
                hint="its packages must be installed where the endpoint runs, in the versions that it was saved with",
            )
        ours.settimeout(self._answer_timeout_s)
        return ready
