"""Runs in a program: `with modelyard.start_run() as run: run.log_metric("loss", 0.3)`."""

from __future__ import annotations

import atexit
import getpass
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

import msgspec

from modelyard.kernel import settings
from modelyard.kernel.errors import Conflict, InvalidInput, ModelyardError
from modelyard.sdk.client import Client, connect
from modelyard.sdk.outbox import Outbox, send_leftovers
from modelyard.types.page import Page
from modelyard.types.tracking import (
    Artifact,
    CreateExperiment,
    CreateRun,
    Dataset,
    DatasetInput,
    Experiment,
    Point,
    Run,
    RunStatus,
    Series,
    UpdateRun,
    View,
)

PIECE_BYTES = 1024 * 1024
_GIT_TIMEOUT_S = 5.0


class ActiveRun:
    """A run that goes on. As a context it ends with the block: FINISHED, FAILED by an exception, KILLED by Ctrl-C."""

    def __init__(self, run: Run, client: Client, spool: Path) -> None:
        self.id = run.id
        self.name = run.name
        self.experiment_id = run.experiment_id
        self._client = client
        self._outbox = Outbox(client, run.id, spool)
        self._ended = False
        atexit.register(self._end_at_exit)

    def log_metric(self, key: str, value: float, step: int = 0) -> None:
        """Log one value. Returns at once; the value is sent in the background."""
        self._outbox.add([_point(key, value, step, _now_ms())])

    def log_metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log several values of one step. Returns at once."""
        now_ms = _now_ms()
        self._outbox.add([_point(key, value, step, now_ms) for key, value in values.items()])

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log params, as text. A param never changes: another value is refused at the next `flush`."""
        self._outbox.add(params={key: str(value) for key, value in params.items()})

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags, as text."""
        self._outbox.add(tags={key: str(value) for key, value in tags.items()})

    def log_input(self, dataset: str, version: int, *, context: str = "training") -> None:
        """Record that the run read a version of a dataset of this platform; lineage knows it from then on."""
        urn = f"dataset:{dataset}@{version}"
        found = Dataset(name=dataset, digest=str(version), source_type="modelyard", source=urn)
        self._outbox.add(inputs=[DatasetInput(found, {"mlflow.data.context": context})])

    def log_artifact(self, file: str | os.PathLike[str], to: str = "") -> list[Artifact]:
        """Store a file, or all files below a directory, under `to` of the run's artifacts; waits until it is done."""
        source = Path(file)
        if source.is_dir():
            return [
                self._put(one, "/".join(filter(None, (to, one.relative_to(source).as_posix()))))
                for one in sorted(source.rglob("*"))
                if one.is_file()
            ]
        if not source.is_file():
            raise InvalidInput(f"there is no file {str(source)!r} to log", code="artifact.no_file")
        return [self._put(source, "/".join(filter(None, (to, source.name))))]

    def log_text(self, text: str, path: str) -> Artifact:
        """Store a text as a file of the run."""
        found: Artifact = self._client.send_bytes("PUT", _file(self.id, path), text.encode(), type=Artifact)
        return found

    def flush(self) -> None:
        """Wait until the server has what was logged, or this machine's disk where the server is away.

        Raises the error with which the server refused something.
        """
        self._outbox.flush()

    def finish(self, status: RunStatus = "FINISHED") -> None:
        """Send what is left and end the run. Raises as `flush` does, after the run has ended."""
        if self._ended:
            return
        self._ended = True
        atexit.unregister(self._end_at_exit)
        try:
            self._outbox.close()
        finally:
            self._client.patch(f"/api/runs/{self.id}", UpdateRun(status=status, ended_at=datetime.now(UTC)))

    def __enter__(self) -> ActiveRun:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish()
            return
        # The program's own exception is the one that its author must see.
        with suppress(ModelyardError):
            self.finish("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")

    def _put(self, file: Path, path: str) -> Artifact:
        found: Artifact = self._client.send_bytes("PUT", _file(self.id, path), _pieces(file), type=Artifact)
        return found

    def _end_at_exit(self) -> None:
        with suppress(ModelyardError):
            self.finish()


def start_run(
    name: str = "",
    *,
    experiment: str = "",
    params: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
    client: Client | None = None,
) -> ActiveRun:
    """Start a run in the experiment of a name, made if it is new; without a name in the default one.

    What made the run is put on record: the program, the commit and whether the tree had changes, Python, host, user.
    """
    chosen = client or connect()
    spool = settings.load().home / "spool" / chosen.project
    send_leftovers(chosen, spool)
    asked = CreateRun(
        experiment_id=_experiment_id(chosen, experiment),
        name=name,
        user=_user(),
        started_at=datetime.now(UTC),
        tags={**source_tags(), **(tags or {})},
    )
    run = ActiveRun(chosen.post("/api/runs", asked, Run), chosen, spool)
    if params:
        run.log_params(params)
    return run


def list_runs(
    *,
    experiment: str = "",
    filter: str = "",
    order_by: Sequence[str] = (),
    view: View = "active",
    limit: int = 100,
    page: str | None = None,
    metrics: Sequence[str] | None = None,
    client: Client | None = None,
) -> Page[Run]:
    """The runs that a filter picks, newest first unless ordered otherwise. `experiment` is a name or an id."""
    chosen = client or connect()
    params: dict[str, Any] = {
        "experiment": [_known_experiment(chosen, experiment)] if experiment else None,
        "filter": filter or None,
        "order_by": list(order_by) or None,
        "view": view,
        "limit": limit,
        "page": page,
        "metric": list(metrics) if metrics else None,
    }
    return chosen.get("/api/runs", Page[Run], params)


def get_run(run_id: str, client: Client | None = None) -> Run:
    """A run with its params, tags, latest metrics, inputs and outputs."""
    return (client or connect()).get(f"/api/runs/{quote(run_id, safe='')}", Run)


def delete_run(run_id: str, client: Client | None = None) -> Run:
    """Mark a run deleted; it can be restored."""
    found: Run = (client or connect()).delete(f"/api/runs/{quote(run_id, safe='')}", Run)
    return found


def restore_run(run_id: str, client: Client | None = None) -> Run:
    """Make a deleted run active again."""
    return (client or connect()).post(f"/api/runs/{quote(run_id, safe='')}/restore", None, Run)


def read_history(run_id: str, key: str, *, points_max: int = 2_000, client: Client | None = None) -> Series:
    """The history of a metric by time, thinned to `points_max` with its extremes kept."""
    path = f"/api/runs/{quote(run_id, safe='')}/metrics/{quote(key)}"
    return (client or connect()).get(path, Series, {"points_max": points_max})


def list_artifacts(run_id: str, path: str = "", client: Client | None = None) -> list[Artifact]:
    """What is in a directory of a run's artifacts."""
    params = {"path": path or None}
    return (client or connect()).get(f"/api/runs/{quote(run_id, safe='')}/artifacts", list[Artifact], params)


def differences(runs: Sequence[Run]) -> list[tuple[str, list[str | None]]]:
    """What differs between runs: params, tags that people set and metrics, each with its value in every run."""
    rows: list[tuple[str, list[str | None]]] = []
    for label, tables in (
        ("param", [run.params for run in runs]),
        ("tag", [{key: value for key, value in run.tags.items() if "mlflow." not in key} for run in runs]),
        ("metric", [{one.key: _shown(one.value) for one in run.metrics} for run in runs]),
    ):
        for key in sorted({key for table in tables for key in table}):
            values = [table.get(key) for table in tables]
            if len(set(values)) > 1:
                rows.append((f"{label} {key}", values))
    return rows


def source_tags() -> dict[str, str]:
    """What made a run: the program, its commit and whether the tree had changes, Python and host."""
    tags = {
        "mlflow.source.name": sys.argv[0] or "python",
        "mlflow.source.type": "LOCAL",
        "mlflow.user": _user(),
        "modelyard.python": platform.python_version(),
        "modelyard.host": platform.node(),
    }
    commit = _git("rev-parse", "HEAD")
    if commit:
        tags["mlflow.source.git.commit"] = commit
        tags["modelyard.git.changed"] = "yes" if _git("status", "--porcelain", "--untracked-files=no") else "no"
    return {key: value for key, value in tags.items() if value}


def _experiment_id(client: Client, name: str) -> str:
    if not name:
        return "0"
    found = client.get("/api/experiments", Page[Experiment], {"name": name}).items
    if found:
        return found[0].id
    try:
        return client.post("/api/experiments", CreateExperiment(name=name), Experiment).id
    except Conflict:
        # Another program made it in between.
        return client.get("/api/experiments", Page[Experiment], {"name": name}).items[0].id


def _known_experiment(client: Client, name_or_id: str) -> str:
    found = client.get("/api/experiments", Page[Experiment], {"name": name_or_id}).items
    if found:
        return found[0].id
    return client.get(f"/api/experiments/{quote(name_or_id, safe='')}", Experiment).id


def _point(key: str, value: float, step: int, timestamp_ms: int) -> Point:
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise InvalidInput(
            f"metric '{key}' is {value!r}, which is no number", code="metric.not_a_number", hint="log a float"
        ) from error
    if math.isinf(number):
        number = math.copysign(sys.float_info.max, number)
    return Point(key, None if math.isnan(number) else number, int(step), timestamp_ms)


def _pieces(file: Path) -> Iterator[bytes]:
    with file.open("rb") as source:
        while piece := source.read(PIECE_BYTES):
            yield piece


def _file(run_id: str, path: str) -> str:
    return f"/api/runs/{run_id}/artifacts/{quote(path)}"


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=_GIT_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _shown(value: float | None) -> str:
    return "NaN" if value is None else msgspec.json.encode(value).decode()
