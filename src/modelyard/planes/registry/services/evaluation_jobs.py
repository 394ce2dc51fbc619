"""The verbs of evaluations that the platform makes: the model says its scores in a job, and the server measures them.

So it is known whose scores they are: the bytes of the model are checked when they are laid out for the job, the rows
are of an immutable version, and what the job wrote is taken in by the server alone. The job gets no labels.
"""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import select

from modelyard.kernel.auth import Scope, system_scope
from modelyard.kernel.database import Database, Transaction
from modelyard.kernel.errors import Conflict, InvalidInput, ModelyardError, NotFound
from modelyard.kernel.ids import new_id
from modelyard.kernel.leases import Lease
from modelyard.kernel.paths import make_private
from modelyard.planes.data import Data
from modelyard.planes.jobs import Jobs
from modelyard.planes.registry import evaluation_job_store, evidence_store
from modelyard.planes.registry.rows import known_digest, locked_model, model_and_version, version_row
from modelyard.planes.registry.services.evidence import Evidence, Made
from modelyard.types.jobs import JobState, SubmitJob
from modelyard.types.registry import EvaluationJob, ModelVersion, ScoringSpec, StartEvaluation

if TYPE_CHECKING:
    import pyarrow as pa

TIMEOUT_S = 6 * 3_600.0
ERROR_CHARACTERS_MAX = 2_000
SPEC, MODEL, FEATURES, SCORES = "spec.json", "model", "features.arrow", "scores.arrow"
_PROGRAM = (sys.executable, "-m", "modelyard.endpoint.scoring")
_STALE = ("stale", "lease.stale")
Materialize = Callable[[Scope, str, int, Path], ModelVersion]


class EvaluationJobs:
    """Evaluations that the platform makes of versions. `directory`: where a job finds the model and the rows.

    `materialize` writes the files of a version, each checked against its digest.
    """

    def __init__(
        self, database: Database, data: Data, jobs: Jobs, evidence: Evidence, materialize: Materialize, directory: Path
    ) -> None:
        self._database = database
        self._data = data
        self._jobs = jobs
        self._evidence = evidence
        self._materialize = materialize
        self._directory = directory

    def start(self, scope: Scope, name: str, version: str | int, asked: StartEvaluation) -> EvaluationJob:
        """Ask for an evaluation. Raises NotFound, InvalidInput for columns that the dataset does not have, Conflict
        where the version's files are not known."""
        dataset, _, ref = asked.dataset.removeprefix("dataset:").partition("@")
        found = self._data.resolve(scope, dataset, ref or None)
        known = {one.name for one in found.columns}
        wanted = [asked.label, *([asked.row_id] if asked.row_id else []), *asked.slices, *asked.features]
        lacking = [one for one in wanted if one not in known]
        if lacking:
            raise InvalidInput(
                f"{found.urn} has no column '{lacking[0][:80]}'",
                code="evaluation.columns",
                hint=f"its columns are {', '.join(sorted(known))[:300]}",
            )
        if asked.label in asked.features:
            raise InvalidInput("the label cannot be a feature", code="evaluation.columns")
        with self._database.transaction(scope) as tx:
            model = locked_model(tx, name, updated=False)
            row = version_row(tx, model, version)
            made = EvaluationJob(
                id=new_id(), model=name, version=row.version, version_digest=known_digest(row, name),
                dataset=found.urn, state="preparing", asked=asked, by=tx.actor, at=tx.now,
            )  # fmt: skip
            evaluation_job_store.add(tx, model.id, made)
            said = {"model": name, "version": row.version, "evaluation": made.id, "dataset": found.urn}
            tx.event("model.evaluation_started", f"model:{name}@{row.version}", said)
        return made

    def list(self, scope: Scope, name: str, version: str | int) -> Sequence[EvaluationJob]:
        """Those of a version, newest first."""
        with self._database.reading(scope) as tx:
            model, row = model_and_version(tx, name, version)
            return evaluation_job_store.of_version(tx, model, row.version)

    def get(self, scope: Scope, evaluation: str) -> EvaluationJob:
        """One, by its id. Raises NotFound."""
        with self._database.reading(scope) as tx:
            return _found(tx, evaluation)

    # --- what carries it on -------------------------------------------------------------------------------------

    def due(self) -> Sequence[str]:
        """Those that have to be prepared, or whose job has ended, as `<project>/<id>`."""
        with self._database.reading() as tx:
            open_ = evaluation_job_store.unfinished(tx)
        return [
            f"{project}/{one}" for project, one, state, job in open_ if state == "preparing" or self._over(project, job)
        ]

    def carry_on(self, key: str, lease: Lease) -> None:
        """Take the next step of one. It may run twice: an evaluation is kept under the id of what was asked for."""
        project, _, one = key.partition("/")
        scope = system_scope(project)
        asked = self.get(scope, one)
        try:
            if asked.state == "preparing":
                self._prepare(scope, asked, lease)
            elif asked.state == "scoring":
                self._take_in(scope, asked, lease)
        except ModelyardError as error:
            if error.status >= 500 or error.code in _STALE:
                raise
            self._fail(scope, asked, str(error), lease)

    def _over(self, project: str, job: str) -> bool:
        with self._database.reading(system_scope(project)) as tx:
            return self._jobs.get(tx, job).state.final

    def _prepare(self, scope: Scope, asked: EvaluationJob, lease: Lease) -> None:
        folder = self._directory / asked.id
        shutil.rmtree(folder, ignore_errors=True)
        make_private(folder)
        version = self._materialize(scope, asked.model, asked.version, folder / MODEL)
        if version.digest != asked.version_digest:
            raise Conflict(f"{asked.model}@{asked.version} has other bytes now", code="evaluation.other_digest")
        spec = ScoringSpec(trusted=version.trusted, output=asked.asked.output, features=asked.asked.features)
        (folder / SPEC).write_bytes(msgspec.json.encode(spec))
        self._write_features(scope, asked, folder / FEATURES)
        command = SubmitJob(
            command=[*_PROGRAM, str(folder)], name=f"evaluate {asked.model}@{asked.version}", timeout_s=TIMEOUT_S,
            labels={"model": asked.model}, idempotency_key=f"evaluation-{asked.id}",
        )  # fmt: skip
        with self._database.transaction(scope, lease=lease) as tx:
            job = self._jobs.submit(tx, command, asked_by=asked.by)
            evaluation_job_store.change(tx, asked.id, "preparing", state="scoring", job=job.id)
            tx.link(f"job:{job.id}", "used", f"model:{asked.model}@{asked.version}")
            tx.link(f"job:{job.id}", "used", asked.dataset)
        self._jobs.wake()

    def _write_features(self, scope: Scope, asked: EvaluationJob, file: Path) -> None:
        import pyarrow as pa  # heavy: imported late

        name, number = _dataset_version(asked)
        columns = [one.name for one in self._data.resolve(scope, name, number).columns]
        kept = [one for one in columns if one != asked.asked.label]
        schema, batches = self._data.stream(scope, name, number, kept)
        with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
            for batch in batches:
                writer.write_batch(batch)

    def _take_in(self, scope: Scope, asked: EvaluationJob, lease: Lease) -> None:
        job = self._jobs.get_job(scope, asked.job)
        if job.state is not JobState.SUCCEEDED:
            log = self._jobs.read_log(scope, asked.job, offset=-ERROR_CHARACTERS_MAX).text.strip()
            self._fail(scope, asked, log or job.reason, lease)
            return
        with self._database.reading(scope) as tx:
            table = evidence_store.evaluations
            there = tx.one(select(table.c.id).where(table.c.id == asked.id)) is not None
        if not there:
            made = Made(asked.id, asked.job, asked.version_digest, asked.by)
            self._evidence.evaluate(
                scope, asked.model, asked.version, io.BytesIO(self._rows(scope, asked)), dataset=asked.dataset,
                threshold=asked.asked.threshold, made=made,
            )  # fmt: skip
        with self._database.transaction(scope, lease=lease) as tx:
            evaluation_job_store.change(tx, asked.id, "scoring", state="succeeded", ended_at=tx.now)
        shutil.rmtree(self._directory / asked.id, ignore_errors=True)

    def _rows(self, scope: Scope, asked: EvaluationJob) -> bytes:
        """The scores beside labels, names of rows and slices, in the order in which the model saw the rows."""
        import pyarrow as pa  # heavy: imported late

        name, number = _dataset_version(asked)
        wanted = asked.asked
        columns = list(dict.fromkeys([wanted.label, *([wanted.row_id] if wanted.row_id else []), *wanted.slices]))
        rows = self._data.read(scope, name, number, columns)
        scores = _read_scores(self._directory / asked.id / SCORES)
        if len(scores) != rows.num_rows:
            raise InvalidInput(
                f"the model gave {len(scores):,} scores for {rows.num_rows:,} rows", code="evaluation.scores"
            )
        ids = rows.column(wanted.row_id) if wanted.row_id else pa.array(range(rows.num_rows), pa.int64())
        table = pa.table(
            {
                "row_id": ids, "label": rows.column(wanted.label), "score": scores,
                **{one: rows.column(one) for one in wanted.slices},
            }
        )  # fmt: skip
        sink = io.BytesIO()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return sink.getvalue()

    def _fail(self, scope: Scope, asked: EvaluationJob, why: str, lease: Lease) -> None:
        with self._database.transaction(scope, lease=lease) as tx:
            evaluation_job_store.change(
                tx, asked.id, asked.state, state="failed", error=why[:ERROR_CHARACTERS_MAX], ended_at=tx.now
            )
            said = {"model": asked.model, "version": asked.version, "evaluation": asked.id, "error": why[:300]}
            tx.event("model.evaluation_failed", f"model:{asked.model}@{asked.version}", said)
        shutil.rmtree(self._directory / asked.id, ignore_errors=True)


def _dataset_version(asked: EvaluationJob) -> tuple[str, int]:
    name, _, number = asked.dataset.removeprefix("dataset:").rpartition("@")
    return name, int(number)


def _found(tx: Transaction, evaluation: str) -> EvaluationJob:
    found = evaluation_job_store.find(tx, evaluation)
    if found is None:
        raise NotFound(f"there is no evaluation job '{evaluation[:80]}'", code="evaluation.not_found")
    return found


def _read_scores(file: Path) -> pa.ChunkedArray:
    import pyarrow as pa  # heavy: imported late

    try:
        with pa.OSFile(str(file)) as source:
            return pa.ipc.open_stream(source).read_all().column("score")
    except (OSError, pa.ArrowException, KeyError) as error:
        raise InvalidInput(f"the job wrote no scores that can be read: {error}", code="evaluation.scores") from error
