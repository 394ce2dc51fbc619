"""From a directory to a model that can be asked: by what the files are, and whether somebody trusted them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from modelyard.engines.models import formats, mlmodel
from modelyard.engines.models.isolated import ANSWER_TIMEOUT_S, IsolatedModel
from modelyard.engines.models.onnx import OnnxEngine
from modelyard.kernel.errors import Forbidden, InvalidInput

if TYPE_CHECKING:
    from modelyard.engines.models.base import LoadedModel

_OPENED_UNTRUSTED = frozenset({"onnx", "skops"})


def open_model(directory: Path, *, trusted: bool, answer_timeout_s: float = ANSWER_TIMEOUT_S) -> LoadedModel:
    """Load the model in a directory.

    ONNX runs in this process, all else in a worker process. Without trust only ONNX and skops files are opened; of the
    latter only the types that skops itself vouches for. Raises Forbidden where trust is needed, InvalidInput for a
    broken model.
    """
    if not directory.is_dir():
        raise InvalidInput(f"there is no model directory {directory}", code="model.file_missing")
    verdict = formats.classify_directory(directory)
    if not trusted and not (verdict.safety is formats.Safety.SAFE and verdict.format in _OPENED_UNTRUSTED):
        reasons = verdict.reasons or [f"{verdict.format} is loaded by a library that nobody has looked at"]
        raise Forbidden(
            f"this model may run code when it is loaded, and nobody has trusted it: {'; '.join(reasons[:5])}",
            code="model.untrusted",
            hint="log it as ONNX, or let an approver trust this version after looking at where it comes from",
        )
    description = mlmodel.read(directory)
    if _is_onnx(directory, description):
        return OnnxEngine().load(directory)
    return IsolatedModel(directory, trusted=trusted, answer_timeout_s=answer_timeout_s)


def _is_onnx(directory: Path, description: mlmodel.MLmodel | None) -> bool:
    if description is not None:
        return "onnx" in description.flavors
    return any(directory.glob("*.onnx"))
