"""Modelyard: one machine-learning platform on one event log and one lineage graph.

The names of the SDK, each loaded when it is first used, so that `import modelyard` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelyard.sdk.active_run import start_run
    from modelyard.sdk.checks_here import check, failing_rows, read_suite
    from modelyard.sdk.client import Client, connect
    from modelyard.sdk.data import dataset
    from modelyard.sdk.features import feature_view, historical
    from modelyard.sdk.files.handle import files
    from modelyard.sdk.pipelines import run_pipeline
    from modelyard.sdk.registry import ModelHandle as model
    from modelyard.sdk.serving import endpoint
    from modelyard.sdk.tasks import Dataset, pipeline, task

__version__ = "0.1.0"
__all__ = [
    "Client",
    "Dataset",
    "__version__",
    "check",
    "connect",
    "dataset",
    "endpoint",
    "failing_rows",
    "feature_view",
    "files",
    "historical",
    "model",
    "pipeline",
    "read_suite",
    "run_pipeline",
    "start_run",
    "task",
]
_HOMES = {
    "Client": ("client", "Client"),
    "Dataset": ("tasks", "Dataset"),
    "check": ("checks_here", "check"),
    "connect": ("client", "connect"),
    "dataset": ("data", "dataset"),
    "endpoint": ("serving", "endpoint"),
    "failing_rows": ("checks_here", "failing_rows"),
    "feature_view": ("features", "feature_view"),
    "files": ("files.handle", "files"),
    "historical": ("features", "historical"),
    "model": ("registry", "ModelHandle"),
    "pipeline": ("tasks", "pipeline"),
    "read_suite": ("checks_here", "read_suite"),
    "run_pipeline": ("pipelines", "run_pipeline"),
    "start_run": ("active_run", "start_run"),
    "task": ("tasks", "task"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'modelyard' has no attribute '{name}'")
    module, attribute = _HOMES[name]
    return getattr(importlib.import_module(f"modelyard.sdk.{module}"), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
