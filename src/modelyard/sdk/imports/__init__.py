"""Imports from other systems: an MLflow server, its SQLite file or `mlruns` folder, W&B offline runs, TensorBoard logs.

All go the same way: a `Source` tells what it has, the `Importer` brings what is not here yet through the API, reads it
back and compares. Run again, an import goes on where it was cut off.
"""

from __future__ import annotations

from pathlib import Path

from modelyard.kernel.errors import InvalidInput
from modelyard.sdk.client import Client, connect
from modelyard.sdk.imports.files import local_path
from modelyard.sdk.imports.importer import Importer, Progress
from modelyard.sdk.imports.mlflow_folder import MlflowFolder
from modelyard.sdk.imports.mlflow_http import MlflowServer
from modelyard.sdk.imports.mlflow_sqlite import MlflowSqlite
from modelyard.sdk.imports.source import Source
from modelyard.sdk.imports.target import Target
from modelyard.sdk.imports.tensorboard_folder import TensorboardFolder
from modelyard.sdk.imports.wandb_folder import WandbFolder
from modelyard.types.imports import ImportReport

__all__ = ["import_mlflow", "import_tensorboard", "import_wandb", "open_mlflow"]


def _silent(_what: str, _report: ImportReport) -> None:
    """Who does not ask hears nothing."""


def import_mlflow(
    uri: str,
    *,
    token: str = "",
    artifacts: Path | None = None,
    recheck: bool = False,
    progress: Progress = _silent,
    client: Client | None = None,
) -> ImportReport:
    """Bring an MLflow server (`http://…`), its SQLite file (`sqlite:///…`) or an `mlruns` folder into the project.

    `token` is the server's bearer token; `artifacts` the folder where a server keeps what it proxies, for whoever reads
    its database file.
    """
    return _bring(open_mlflow(uri, token, artifacts), client, recheck, progress)


def import_wandb(
    folder: Path, *, recheck: bool = False, progress: Progress = _silent, client: Client | None = None
) -> ImportReport:
    """Bring offline runs of W&B: a folder `offline-run-…`, or one with many. Each W&B project becomes an experiment."""
    return _bring(WandbFolder(folder), client, recheck, progress)


def import_tensorboard(
    folder: Path, *, recheck: bool = False, progress: Progress = _silent, client: Client | None = None
) -> ImportReport:
    """Bring a log directory of TensorBoard: an experiment of its name, a run for each folder with event files."""
    return _bring(TensorboardFolder(folder), client, recheck, progress)


def open_mlflow(uri: str, token: str = "", artifacts: Path | None = None) -> Source:
    """The MLflow store that a URI names. Raises InvalidInput."""
    if uri.startswith(("http://", "https://")):
        return MlflowServer(uri, token)
    if uri.startswith("sqlite:"):
        return MlflowSqlite(Path(uri.removeprefix("sqlite:///")), artifacts)
    if "://" in uri and not uri.startswith("file:"):
        raise InvalidInput(
            f"'{uri[:200]}' is nothing that an import reads",
            code="import.source_invalid",
            hint="give http(s)://…, sqlite:///FILE or an mlruns folder; on another database, start `mlflow server`",
        )
    folder = local_path(uri)
    assert folder is not None
    return MlflowFolder(folder, artifacts)


def _bring(source: Source, client: Client | None, recheck: bool, progress: Progress) -> ImportReport:
    try:
        return Importer(source, Target(client or connect()), progress, recheck=recheck).run()
    finally:
        source.close()
