"""The child process in which models of unsafe formats are loaded: `python -m modelyard.engines.models.worker FD DIR`.

It is the only place where a model's pickle is opened, and it is started only for a version that somebody trusted. It
has none of the platform's secrets in its environment, and ends when its parent does.
"""

from __future__ import annotations

import os
import socket
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from modelyard.engines.models import mlmodel, pyfunc, sklearn
from modelyard.engines.models.columns import pack, unpack
from modelyard.engines.models.worker_wire import Answer, Ready, receive, send
from modelyard.kernel.errors import InvalidInput
from modelyard.types.serving import LoggedColumn

if TYPE_CHECKING:
    from modelyard.engines.models.base import Columns

T = TypeVar("T")


def load(directory: Path, *, trusted: bool) -> pyfunc.Estimator:
    """The model in a directory, by its own library where that suffices, else as an MLflow Python function."""
    description = mlmodel.read(directory)
    if description is None or description.signature is None:
        raise InvalidInput(
            "the model has no signature, so nothing says what it takes",
            code="model.signature_missing",
            hint="log it again with `signature=mlflow.models.infer_signature(inputs, outputs)`",
        )
    if "sklearn" in description.flavors:
        return sklearn.load(directory, description, trusted=trusted)
    if not trusted:
        raise InvalidInput("a Python function is code, and nobody trusted it", code="model.untrusted")
    return pyfunc.load(directory, description)


def serve(channel: socket.socket, directory: Path, *, trusted: bool) -> int:
    """Load, say so, then answer until the parent is gone."""
    model, error = attempt(lambda: load(directory, trusted=trusted))
    if model is None:
        send(channel, Ready(error=error))
        return 1
    outputs, _ = attempt(lambda: pyfunc.probe(model))
    send(channel, Ready(inputs=model.inputs, outputs=outputs or model.declared_outputs, platform=model.platform))
    while True:
        try:
            columns: Columns = unpack(receive(channel, list[LoggedColumn]))
        except EOFError:
            return 0
        packed, error = attempt(partial(_answer, model, columns))
        send(channel, Answer(outputs=packed or [], error=error))


def _answer(model: pyfunc.Estimator, columns: Columns) -> list[LoggedColumn]:
    return pack(model.predict(columns))


def attempt(call: Callable[[], T]) -> tuple[T | None, str]:
    """Run what the model's author wrote: the result, or its last words. The one place that catches whatever comes."""
    try:
        return call(), ""
    except Exception as error:  # noqa: BLE001  the author of a model decides what it raises
        return None, "".join(traceback.format_exception_only(error)).strip()[-2_000:] or type(error).__name__


def main() -> int:
    """Entry point of the process."""
    descriptor, directory, trust = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    # What a model prints must not end up among what the parent reads.
    os.dup2(2, 1)
    with socket.socket(fileno=descriptor) as channel:
        return serve(channel, directory, trusted=trust == "trusted")


if __name__ == "__main__":
    raise SystemExit(main())
