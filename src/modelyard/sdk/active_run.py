"""Runs in a program: `with modelyard.start_run() as run: run.log_metric("loss", 0.3)`.

What is called in a training loop only takes note: threads of `outbox` and `uploads` do the sending.
"""

from __future__ import annotations

import atexit
import math
import os
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from modelyard.kernel import settings
from modelyard.kernel.errors import Conflict, InvalidInput, ModelyardError
from modelyard.sdk import captured, media, reads
from modelyard.sdk.client import Client, connect
from modelyard.sdk.outbox import Outbox, Row, send_leftovers
from modelyard.sdk.system_metrics import INTERVAL_S, Sampler
from modelyard.sdk.uploads import Uploads, artifact_url, pieces, upload_leftovers
from modelyard.types.page import Page
from modelyard.types.tracking import (
    READ_CONTEXT,
    Artifact,
    CreateExperiment,
    CreateRun,
    Dataset,
    DatasetInput,
    Experiment,
    Run,
    RunStatus,
    UpdateRun,
)

_CAPTURE_TIMEOUT_S = 30.0


class ActiveRun:
    """A run that goes on. As a context it ends with the block: FINISHED, FAILED by an exception, KILLED by Ctrl-C."""

    def __init__(self, run: Run, client: Client, spool: Path) -> None:
        self.id = run.id
        self.name = run.name
        self.experiment_id = run.experiment_id
        self._client = client
        self._outbox = Outbox(client, run.id, spool)
        self._uploads = Uploads(client, run.id, spool)
        self._tables: list[str] = []
        self._background: list[threading.Thread] = []
        self._sampler: Sampler | None = None
        self._ended = False
        self._read: set[tuple[str, int, frozenset[str] | None]] = set()
        reads.listen(self._note_read)
        atexit.register(self._end_at_exit)

    # --- numbers and texts ------------------------------------------------------------------------------------

    def log_metric(self, key: str, value: float, step: int = 0) -> None:
        """Log one value. Returns at once; the value is sent in the background."""
        self.log_metrics({key: value}, step)

    def log_metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log several values of one step. Returns at once. Raises InvalidInput for what is no number."""
        try:
            numbers = [value if type(value) is float else float(value) for value in values.values()]
        except (TypeError, ValueError) as error:
            raise _not_a_number(values) from error
        self._outbox.add_row(Row(tuple(values), int(step), time.time_ns() // 1_000_000, numbers))

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log params, as text. A param never changes: another value is refused at the next `flush`."""
        self._outbox.add(params={key: str(value) for key, value in params.items()})

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags, as text."""
        self._outbox.add(tags={key: str(value) for key, value in tags.items()})

    def log_input(
        self, dataset: str, version: int, *, columns: Sequence[str] | None = None, context: str = "training"
    ) -> None:
        """Record that the run read a version of a dataset of this platform, and of it these columns (None: all);
        lineage knows it from then on. What `dataset(…).read(…)` reads while the run goes on is recorded by itself."""
        urn = f"dataset:{dataset}@{version}"
        found = Dataset(name=dataset, digest=str(version), source_type="modelyard", source=urn, schema=_schema(columns))
        self._outbox.add(inputs=[DatasetInput(found, {"mlflow.data.context": context})])

    def _note_read(self, dataset: str, version: int, columns: Sequence[str] | None) -> None:
        read = (dataset, version, None if columns is None else frozenset(columns))
        if read not in self._read:
            self._read.add(read)
            self.log_input(dataset, version, columns=columns, context=READ_CONTEXT)

    def seed_everything(self, seed: int) -> None:
        """Seed `random`, and numpy and torch where they are loaded, and put the seed on record. Raises InvalidInput."""
        if not 0 <= seed <= captured.SEED_MAX:
            raise InvalidInput(f"a seed lies from 0 to {captured.SEED_MAX}, not {seed}", code="run.seed_invalid")
        seeded = captured.seed_everything(seed)
        self.set_tags({"modelyard.seed": seed, "modelyard.seeded": ", ".join(seeded)})

    # --- media: on disk when the call returns, uploaded in the background ---------------------------------------

    def log_image(self, key: str, image: Any, step: int = 0) -> None:
        """Log an image of a key at a step: an array (height x width x channels) or an image of PIL."""
        self._uploads.put(media.image_path(key, step, time.time_ns() // 1_000_000), media.image_bytes(image))
        self._outbox.add(tags={"mlflow.loggedImages": "True"})

    def log_figure(self, figure: Any, path: str) -> None:
        """Log a figure of matplotlib (`loss.png`, `.svg`, `.pdf`) or plotly (`.html`)."""
        self._uploads.put(path, media.figure_bytes(figure, path))

    def log_table(self, table: Any, path: str) -> None:
        """Log a table to look at, as `name.json`: columns by name, a list of rows, or a frame."""
        if not path.endswith(".json"):
            raise InvalidInput(f"a table is logged as '.json', not {path[-40:]!a}", code="table.path_invalid")
        self._uploads.put(path, media.table_bytes(table))
        if path not in self._tables:
            self._tables.append(path)
        logged = [{"path": one, "type": "table"} for one in self._tables]
        self._outbox.add(tags={"mlflow.loggedArtifacts": msgspec.json.encode(logged).decode()})

    def log_histogram(self, key: str, values: Any, step: int = 0, bins: int = 64) -> None:
        """Log how values (such as weights) are spread at a step."""
        found = media.histogram(values, step, bins)
        self._uploads.put(media.histogram_path(key, step), msgspec.json.encode(found))

    def log_text(self, text: str, path: str) -> None:
        """Log a text as a file of the run."""
        self._uploads.put(path, text.encode())

    def log_dict(self, values: Mapping[str, Any], path: str) -> None:
        """Log nested plain values as a JSON file of the run."""
        self._uploads.put(path, msgspec.json.format(msgspec.json.encode(values, enc_hook=str)))

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

    # --- its life ---------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Wait until the server has what was logged, or this machine's disk where the server is away.

        Raises the error with which the server refused something.
        """
        for one in self._background:
            one.join(_CAPTURE_TIMEOUT_S)
        try:
            self._outbox.flush()
        finally:
            self._uploads.flush()

    def finish(self, status: RunStatus = "FINISHED") -> None:
        """Send what is left and end the run. Raises as `flush` does, after the run has ended."""
        if self._ended:
            return
        self._ended = True
        reads.stop(self._note_read)
        atexit.unregister(self._end_at_exit)
        if self._sampler is not None:
            self._sampler.stop()
        for one in self._background:
            one.join(_CAPTURE_TIMEOUT_S)
        try:
            self._close()
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

    def _close(self) -> None:
        try:
            self._outbox.close()
        finally:
            self._uploads.close()

    def _sample(self, interval_s: float) -> None:
        self._sampler = Sampler(self.log_metrics, interval_s)

    def _capture(self) -> None:
        """Put changes and packages on record, beside the program: listing packages takes a moment."""
        diff = captured.uncommitted_diff()
        thread = threading.Thread(target=self._keep_captured, args=(diff,), name="run-capture", daemon=True)
        self._background.append(thread)
        thread.start()

    def _keep_captured(self, diff: bytes) -> None:
        if diff:
            self._uploads.put(captured.DIFF_PATH, diff)
        listed = captured.packages()
        self._uploads.put(captured.PACKAGES_PATH, listed.encode())
        self.set_tags({"modelyard.env": captured.environment_hash(listed)})

    def _put(self, file: Path, path: str) -> Artifact:
        with file.open("rb") as source:
            found: Artifact = self._client.send_bytes("PUT", artifact_url(self.id, path), pieces(source), type=Artifact)
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
    seed: int | None = None,
    capture: bool = True,
    system_metrics: bool | float = True,
    client: Client | None = None,
) -> ActiveRun:
    """Start a run in the experiment of a name, made if it is new; without a name in the default one.

    What made the run is put on record: the program, the commit and the changes on top of it, packages, Python, host,
    hardware, user. `capture` False leaves out the changes and packages. `system_metrics`: every how many seconds the
    machine's load is sampled (10 without a number), or False. `seed`: as `seed_everything`.
    """
    chosen = client or connect()
    spool = settings.load().home / "spool" / chosen.project
    send_leftovers(chosen, spool)
    upload_leftovers(chosen, spool)
    asked = CreateRun(
        experiment_id=_experiment_id(chosen, experiment),
        name=name,
        user=captured.user(),
        started_at=datetime.now(UTC),
        tags={**captured.source_tags(), **(tags or {})},
    )
    run = ActiveRun(chosen.post("/api/runs", asked, Run), chosen, spool)
    if params:
        run.log_params(params)
    if seed is not None:
        run.seed_everything(seed)
    if capture:
        run._capture()
    if system_metrics:
        run._sample(INTERVAL_S if system_metrics is True else float(system_metrics))
    return run


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


def _schema(columns: Sequence[str] | None) -> str | None:
    """Columns in the form in which MLflow's clients write a dataset's schema."""
    if columns is None:
        return None
    named = [{"name": one, "type": "any", "required": False} for one in columns]
    return msgspec.json.encode({"mlflow_colspec": named}).decode()


def _not_a_number(values: Mapping[str, Any]) -> InvalidInput:
    for key, value in values.items():
        try:
            math.isnan(float(value))
        except (TypeError, ValueError):
            return InvalidInput(
                f"metric '{key}' is {value!r}, which is no number", code="metric.not_a_number", hint="log a float"
            )
    return InvalidInput("a metric is no number", code="metric.not_a_number", hint="log floats")
