"""Runs one step of a pipeline, as the program of its job: `python -m modelyard.sdk.worker --run ID --step NAME`.

It fetches the code and the inputs, calls the task, and sends back what it returned or how it failed. The only program
that unpickles: what it loads was made by another step of the same project. Where it is and who it is (server, token,
project) comes by its environment.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, TypeVar
from urllib.parse import quote

import msgspec

from modelyard.kernel.errors import EngineError, InvalidInput, ModelyardError, Unavailable
from modelyard.sdk.client import Client, connect
from modelyard.sdk.code_snapshot import unpack
from modelyard.sdk.tasks import Dataset, Task, is_plain
from modelyard.types.pipelines import (
    DatasetRef,
    Input,
    ListOf,
    MapOf,
    Output,
    OutputFormat,
    OutputRef,
    ParamRef,
    StepError,
    StepReport,
    StepWork,
    Value,
)

T = TypeVar("T")
EXIT_TASK_FAILED = 1
EXIT_PLATFORM_FAILED = 70
EXIT_TRY_AGAIN = 75
"""EX_TEMPFAIL: the job is started again without spending an attempt."""

PATIENCE_S = 60.0
"""How long a server that does not answer is waited for: it may just be starting again."""

INLINE_BYTES_MAX = 64 * 1024
TRACEBACK_CHARACTERS_MAX = 16_000
PIECE_BYTES = 1024 * 1024
_ARROW_IPC = "application/vnd.apache.arrow.stream"


class TaskFailed(Exception):
    """The user's code failed, here or while it was imported; `error` says how."""

    def __init__(self, error: StepError) -> None:
        super().__init__(error.message)
        self.error = error


class Worker:
    """One step, from fetching its work to reporting it."""

    def __init__(self, client: Client, run_id: str, step: str, folder: Path) -> None:
        self._client = client
        self._path = f"/api/pipeline-runs/{quote(run_id, safe='')}/steps/{quote(step, safe='')}"
        self._runs = f"/api/pipeline-runs/{quote(run_id, safe='')}"
        self._folder = folder
        self._fetched: dict[str, Any] = {}

    def run(self) -> None:
        """Do the step. Raises TaskFailed (reported already) or whatever the platform failed with."""
        work = patiently(lambda: self._client.get(f"{self._path}/work", StepWork))
        patiently(lambda: self._fetch_code(work))
        try:
            function = guarded(lambda: load_task(work.task))
            inputs = {name: self._value(given, work.outputs) for name, given in work.inputs.items()}
            returned = guarded(lambda: function(**inputs))
            output = self._keep(returned)
        except TaskFailed as failure:
            self._report(StepReport(error=failure.error))
            raise
        self._report(StepReport(output=output))

    def _report(self, report: StepReport) -> None:
        patiently(lambda: self._client.post(f"{self._path}/report", report))

    def _fetch_code(self, work: StepWork) -> None:
        archive = self._folder / "code.tar"
        with archive.open("wb") as sink, self._client.stream(f"/api/code/{work.code.digest}") as pieces:
            for piece in pieces:
                sink.write(piece)
        root = self._folder / "code"
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        with archive.open("rb") as source:
            unpack(source, root)
        archive.unlink()
        sys.path[:0] = [str(root / path) for path in work.code.import_paths]
        # Programs read files of their project by relative paths.
        os.chdir(root)

    def _value(self, given: Input, outputs: Mapping[str, Output]) -> Any:
        match given:
            case Value():
                return given.value
            case DatasetRef():
                return Dataset(given.name, given.ref)
            case ListOf():
                return [self._value(item, outputs) for item in given.items]
            case MapOf():
                return {key: self._value(item, outputs) for key, item in given.items.items()}
            case OutputRef():
                value = self._output(given.step, outputs[given.step])
                return guarded(lambda: part_of(value, given.path))
            case ParamRef():
                raise EngineError(f"parameter '{given.name}' was not bound", code="worker.unbound")

    def _output(self, step: str, output: Output) -> Any:
        if step not in self._fetched:
            self._fetched[step] = output.value if output.inline else patiently(lambda: self._load(step, output))
        return self._fetched[step]

    def _load(self, step: str, output: Output) -> Any:
        path = f"{self._runs}/steps/{quote(step, safe='')}/output"
        with tempfile.TemporaryFile(dir=self._folder) as file:
            with self._client.stream(path) as pieces:
                for piece in pieces:
                    file.write(piece)
            file.seek(0)
            if output.format == "json":
                return msgspec.json.decode(file.read())
            if output.format == "arrow":
                import pyarrow as pa  # heavy: imported late

                return pa.ipc.open_stream(file).read_all()
            import cloudpickle  # heavy: imported late

            return guarded(lambda: cloudpickle.load(file))

    def _keep(self, returned: Any) -> Output:
        if is_plain(returned):
            content = msgspec.json.encode(returned)
            if len(content) <= INLINE_BYTES_MAX // 2:
                return Output(digest="", format="json", size_bytes=len(content), inline=True, value=returned)
            return self._send("json", io.BytesIO(content))
        with tempfile.TemporaryFile(dir=self._folder) as file:
            format: OutputFormat = "pickle"
            if is_arrow(returned):
                import pyarrow as pa  # heavy: imported late

                format = "arrow"
                with pa.ipc.new_stream(file, returned.schema) as sink:
                    sink.write_table(returned)
            else:
                guarded(lambda: pickled(returned, file))
            return self._send(format, file)

    def _send(self, format: OutputFormat, file: Any) -> Output:
        return patiently(lambda: self._send_once(format, file))

    def _send_once(self, format: OutputFormat, file: Any) -> Output:
        file.seek(0)
        pieces = iter(lambda: file.read(PIECE_BYTES), b"")
        kept: Output = self._client.send_bytes(
            "PUT", f"{self._path}/output", pieces, type=Output, params={"format": format}
        )
        return kept


def patiently(call: Callable[[], T]) -> T:
    """Call again while the server is away. Raises Unavailable where it stays away."""
    deadline, delay_s = time.monotonic() + PATIENCE_S, 0.1
    while True:
        try:
            return call()
        except Unavailable:
            if time.monotonic() > deadline:
                raise
        time.sleep(delay_s)
        delay_s = min(delay_s * 1.5, 2.0)


def guarded(call: Callable[[], Any]) -> Any:
    """The boundary between the platform and the user's code: whatever that raises comes out as TaskFailed."""
    try:
        return call()
    except Unavailable:
        # The platform's fault, met by the user's code: as where it reads a dataset while the server is away.
        raise
    except BaseException as error:
        raise TaskFailed(described(error)) from error


def described(error: BaseException) -> StepError:
    """An error of the user's code with the end of its traceback, without the frames of this program."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    lines = traceback.format_exception(type(error), error.with_traceback(trace), trace)
    text = "".join(lines)[-TRACEBACK_CHARACTERS_MAX:]
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return StepError(kind="user_code", type=name, message=f"{name}: {error}"[:2000], traceback=text)


def load_task(reference: str) -> Callable[..., Any]:
    """The function of `module:function`."""
    module_name, _, name = reference.partition(":")
    module = importlib.import_module(module_name)
    try:
        found = getattr(module, name)
    except AttributeError as error:
        raise InvalidInput(
            f"module '{module_name}' has no '{name}'",
            code="task.not_found",
            hint="define tasks at the top level of a module, under the name of the function",
        ) from error
    function: Callable[..., Any] = found.function if isinstance(found, Task) else found
    return function


def part_of(value: Any, path: list[str | int]) -> Any:
    """The part of an output that keys and indices lead to."""
    for part in path:
        value = value[part]
    return value


def is_arrow(value: Any) -> bool:
    """Whether it is an Arrow table, asked without importing Arrow."""
    pyarrow = sys.modules.get("pyarrow")
    return pyarrow is not None and isinstance(value, pyarrow.Table)


def pickled(value: Any, file: Any) -> None:
    """Write a value that is neither plain nor Arrow."""
    import cloudpickle  # heavy: imported late

    cloudpickle.dump(value, file)


def main() -> NoReturn:
    """Run the step of the command line. Exit codes: 0 done, 1 the task failed, 70 the platform did, 75 it was away."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True)
    parser.add_argument("--step", required=True)
    asked = parser.parse_args()
    folder = Path.cwd()
    try:
        Worker(connect(), asked.run, asked.step, folder).run()
    except TaskFailed as failure:
        sys.stderr.write(failure.error.traceback)
        sys.stderr.flush()
        # Not sys.exit: threads that the task left behind must not keep a failed step alive.
        os._exit(EXIT_TASK_FAILED)
    except ModelyardError as error:
        sys.stderr.write(f"the platform failed this step: {error}\n")
        sys.stderr.flush()
        os._exit(EXIT_TRY_AGAIN if isinstance(error, Unavailable) else EXIT_PLATFORM_FAILED)
    sys.stdout.flush()
    os.chdir(folder)
    with suppress(OSError):
        shutil.rmtree(folder / "code")
    sys.exit(0)


if __name__ == "__main__":
    main()
