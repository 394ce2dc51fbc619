"""The verbs of pipelines: register, start, follow, resume, cancel; and what workers ask and report."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, Protocol, TypeVar

import msgspec

from modelyard.engines.blobs.base import Blob, BlobStore
from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database, Transaction, insert_missing
from modelyard.kernel.errors import Conflict, Forbidden, InvalidInput, NotFound
from modelyard.kernel.events import EventReader
from modelyard.kernel.ids import new_id
from modelyard.kernel.limits import ARTIFACT_BYTES_MAX, CODE_SNAPSHOT_BYTES_MAX, PAGE_ITEMS_DEFAULT, PAGE_ITEMS_MAX
from modelyard.kernel.nesting import check_nesting
from modelyard.kernel.reconcile import Reconciler
from modelyard.planes.jobs import Jobs, check_spec
from modelyard.planes.pipelines import store
from modelyard.planes.pipelines.advance import step_job
from modelyard.planes.pipelines.environment import current_environment
from modelyard.planes.pipelines.keys import (
    bind,
    bind_step,
    canonical,
    check_plan,
    complete_params,
    dataset_refs,
    digest_of,
    needs,
    resolve,
)
from modelyard.planes.pipelines.reconcile import AdvanceRuns, JobsEnded
from modelyard.types.page import Page
from modelyard.types.pipelines import (
    Environment,
    Output,
    OutputFormat,
    Pipeline,
    PipelineRun,
    Plan,
    RegisterPipeline,
    RunState,
    StepReport,
    StepState,
    StepWork,
)

INLINE_BYTES_MAX = 64 * 1024
"""Plain outputs up to this size are kept in the step's own row."""

PARAMS_BYTES_MAX = 1024 * 1024
T = TypeVar("T")
_URN = re.compile(r"[a-z][a-z-]{0,31}:[^\s\x00-\x1f]{1,470}")


class Versions(Protocol):
    """Of the data plane, what pipelines need: which version a reference names."""

    def resolve(self, scope: Scope, name: str, ref: int | str | None = None) -> Version: ...


class Version(Protocol):
    """A version of a dataset."""

    @property
    def version(self) -> int: ...


class Pipelines:
    """Pipelines of all projects: their plans run as jobs, their code and outputs lie in the blob store."""

    def __init__(self, database: Database, jobs: Jobs, data: Versions, blobs: BlobStore) -> None:
        self.database = database
        self.jobs = jobs
        self._data = data
        self.blobs = blobs

    # --- code and plans ---------------------------------------------------------------------------------------

    def put_code(self, scope: Scope, source: BinaryIO | Iterable[bytes]) -> Blob:
        """Keep a code snapshot. Raises TooLarge. It is never unpacked here, only in workers."""
        blob = self.blobs.put(source, size_bytes_max=CODE_SNAPSHOT_BYTES_MAX)
        with self.database.transaction(scope) as tx:
            row = {
                "project": tx.project,
                "digest": blob.digest,
                "size_bytes": blob.size_bytes,
                "created_by": tx.actor,
                "created_at": tx.now,
            }
            insert_missing(tx, store.code, [row])
        return blob

    def has_code(self, scope: Scope, digest: str) -> bool:
        """Whether the project has this snapshot already, so that it need not be sent again."""
        with self.database.reading(scope) as tx:
            known = store.code_row(tx, digest) is not None
        return known and self.blobs.exists(digest)

    def open_code(self, scope: Scope, digest: str) -> BinaryIO:
        """A code snapshot of the project. Raises NotFound."""
        with self.database.reading(scope) as tx:
            if store.code_row(tx, digest) is None:
                raise NotFound(f"project '{tx.project}' has no code snapshot {digest[:64]}", code="code.not_found")
        return self.blobs.open(digest, verify=True)

    def register(self, scope: Scope, request: RegisterPipeline) -> Pipeline:
        """A new version of a pipeline; the one that exists where plan and code are the same. Raises InvalidInput."""
        plan = request.plan
        check_nesting(msgspec.to_builtins(plan), f"the plan of pipeline '{plan.name[:80]}'")
        check_plan(plan)
        for step in plan.steps:
            check_spec(step_job(plan, "", step, 1), self.jobs.capacity())
        digest = digest_of([plan, request.code.digest, request.code.import_paths])
        return _unless_raced(lambda: self._register(scope, request, digest))

    def _register(self, scope: Scope, request: RegisterPipeline, digest: str) -> Pipeline:
        plan = request.plan
        with self.database.transaction(scope) as tx:
            existing = store.pipeline_by_digest(tx, plan.name, digest)
            if existing is not None:
                return store.to_pipeline(existing)
            if store.code_row(tx, request.code.digest) is None:
                raise InvalidInput(
                    f"pipeline '{plan.name}' refers to a code snapshot that was not sent: {request.code.digest[:64]}",
                    code="pipeline.code_missing",
                    hint="send it first; `modelyard pipeline run FILE:FUNCTION` does",
                )
            newest = store.pipeline_row(tx, plan.name, None)
            version = 1 if newest is None else newest.version + 1
            tx.execute(
                store.pipelines.insert().values(
                    project=tx.project,
                    name=plan.name,
                    version=version,
                    digest=digest,
                    plan=plan,
                    code=request.code,
                    created_by=tx.actor,
                    created_at=tx.now,
                )
            )
            data = {"version": version, "steps": len(plan.steps), "code": request.code.digest}
            tx.event("pipeline.registered", f"pipeline:{plan.name}", data)
            row = store.pipeline_row(tx, plan.name, version)
            assert row is not None
            return store.to_pipeline(row)

    def get_pipeline(self, scope: Scope, name: str, version: int | None = None) -> Pipeline:
        """A version of a pipeline, the newest for None. Raises NotFound."""
        with self.database.reading(scope) as tx:
            return store.to_pipeline(_pipeline_row(tx, name, version))

    def list_pipelines(
        self, scope: Scope, *, after: str | None = None, limit: int = PAGE_ITEMS_DEFAULT
    ) -> Page[Pipeline]:
        """The newest version of every pipeline, by name."""
        limit = max(1, min(limit, PAGE_ITEMS_MAX))
        with self.database.reading(scope) as tx:
            items = [store.to_pipeline(row) for row in store.newest_pipelines(tx, after, limit)]
        return Page(items, items[-1].name if len(items) == limit else None)

    # --- runs -------------------------------------------------------------------------------------------------

    def start(
        self,
        scope: Scope,
        name: str,
        params: Mapping[str, Any] | None = None,
        *,
        cause: str | None = None,
        version: int | None = None,
        idempotency_key: str | None = None,
    ) -> PipelineRun:
        """Start a run: params completed, datasets pinned to the versions of this moment. It goes on by itself.

        `cause` is the URN of what triggered it. Raises NotFound, InvalidInput; Conflict for a key used otherwise.
        """
        given = dict(params or {})
        _check_start(given, cause, idempotency_key)
        pipeline = self.get_pipeline(scope, name, version)
        request_digest = digest_of([name, version, given, cause])
        existing = self._started_before(scope, idempotency_key, request_digest)
        if existing is not None:
            return existing
        complete = complete_params(pipeline.plan, given)
        pinned = {
            label: self._data.resolve(scope, ref.name, ref.ref).version
            for label, ref in dataset_refs(pipeline.plan, complete).items()
        }
        row = {
            "pipeline": name,
            "version": pipeline.version,
            "state": RunState.RUNNING.value,
            "params": complete,
            "datasets": pinned,
            "cause": cause,
            "reason": "",
            "idempotency_key": idempotency_key,
            "request_digest": request_digest,
        }
        run_id = _unless_raced(lambda: self._insert_run(scope, pipeline, row))
        self.jobs.wake()
        return self.get_run(scope, run_id)

    def _insert_run(self, scope: Scope, pipeline: Pipeline, row: dict[str, Any]) -> str:
        """Write a new run with its steps; gives the id of the one that is there if its key was used meanwhile."""
        environment = current_environment()
        run_id = new_id()
        with self.database.transaction(scope) as tx:
            raced = None if row["idempotency_key"] is None else store.run_by_key(tx, row["idempotency_key"])
            if raced is not None:
                return str(raced.id)
            _keep_environment(tx, environment)
            more = {"id": run_id, "project": tx.project, "env": environment.hash, "created_by": tx.actor}
            tx.execute(store.runs.insert().values(**row, **more, created_at=tx.now, check_at=tx.now))
            tx.execute(store.steps.insert(), _new_steps(tx, run_id, pipeline.plan))
            urn, cause = f"pipeline-run:{run_id}", row["cause"]
            data = {"pipeline": pipeline.name, "version": pipeline.version, "cause": cause}
            tx.event("pipeline-run.started", urn, data)
            if cause is not None:
                tx.link(cause, "triggered", urn)
        return run_id

    def get_run(self, scope: Scope, run_id: str) -> PipelineRun:
        """A run with its steps. Raises NotFound."""
        with self.database.reading(scope) as tx:
            return _run_noun(tx, _run_row(tx, run_id))

    def list_runs(
        self,
        scope: Scope,
        *,
        pipeline: str | None = None,
        state: RunState | None = None,
        after: str | None = None,
        limit: int = PAGE_ITEMS_DEFAULT,
    ) -> Page[PipelineRun]:
        """Runs of the project, newest first."""
        limit = max(1, min(limit, PAGE_ITEMS_MAX))
        with self.database.reading(scope) as tx:
            rows = store.list_run_rows(tx, pipeline, state, after, limit)
            found = store.steps_of(tx, [row.id for row in rows])
        items = [store.to_run(row, found[row.id]) for row in rows]
        return Page(items, rows[-1].id if len(rows) == limit else None)

    def cancel(self, scope: Scope, run_id: str) -> PipelineRun:
        """End a run: what runs is stopped, what waits is not started. Raises Conflict for one that has ended."""
        with self.database.transaction(scope) as tx:
            row = _run_row(tx, run_id)
            if RunState(row.state).final and row.state != RunState.CANCELLED.value:
                raise Conflict(f"pipeline run '{run_id}' has {row.state} already", code="pipeline_run.ended")
            if row.state == RunState.RUNNING.value:
                table = store.runs
                values = {"state": RunState.CANCELLING.value, "check_at": tx.now}
                tx.execute(table.update().where(table.c.id == run_id).values(**values))
                tx.event("pipeline-run.cancel_requested", f"pipeline-run:{run_id}")
        self.jobs.wake()
        return self.get_run(scope, run_id)

    def resume(self, scope: Scope, run_id: str) -> PipelineRun:
        """Go on with a failed or cancelled run, with the same code, params and data: what was done stays done."""
        with self.database.transaction(scope) as tx:
            row = _run_row(tx, run_id)
            state = RunState(row.state)
            if state not in (RunState.FAILED, RunState.CANCELLED):
                raise Conflict(
                    f"pipeline run '{run_id}' is {state.value}, so there is nothing to resume",
                    code="pipeline_run.not_resumable",
                    hint="resume failed or cancelled runs; start a new run with `modelyard pipeline run`",
                )
            table = store.runs
            tx.update_guarded(
                table.update()
                .where(table.c.id == run_id, table.c.state == state.value)
                .values(state=RunState.RUNNING.value, reason="", ended_at=None, check_at=tx.now),
                what=f"pipeline run '{run_id}'",
            )
            steps = store.steps
            undone = [one.value for one in StepState if one.final and not one.done]
            fresh: dict[str, Any] = dict.fromkeys(
                ("job_id", "output", "error", "reported", "started_at", "ended_at", "cached_from")
            )
            tx.execute(
                steps.update()
                .where(steps.c.run_id == run_id, steps.c.state.in_(undone))
                .values(state=StepState.PENDING.value, reason="", key="", round=steps.c.round + 1, **fresh)
            )
            tx.event("pipeline-run.resumed", f"pipeline-run:{run_id}", {"pipeline": row.pipeline})
        self.jobs.wake()
        return self.get_run(scope, run_id)

    def open_output(self, scope: Scope, run_id: str, step: str) -> tuple[Output, BinaryIO | bytes]:
        """What a step returned, and its bytes. Raises NotFound where it has not returned anything (yet)."""
        with self.database.reading(scope) as tx:
            row = _step_row(tx, run_id, step)
        if row.output is None:
            raise NotFound(
                f"step '{step}' of pipeline run '{run_id}' is {row.state} and has no output", code="step.no_output"
            )
        output = msgspec.convert(row.output, Output)
        return output, canonical(output.value) if output.inline else self.blobs.open(output.digest)

    def get_environment(self, env_hash: str) -> Environment:
        """The environment that a hash stands for. Raises NotFound."""
        with self.database.reading() as tx:
            row = store.environment_row(tx, env_hash)
        if row is None:
            raise NotFound(f"no environment with the hash {env_hash[:64]} is known", code="environment.not_found")
        return store.to_environment(row)

    # --- workers ----------------------------------------------------------------------------------------------

    def work_of(self, scope: Scope, run_id: str, step_name: str) -> StepWork:
        """What the worker of a step has to do. Only the step's own job may ask."""
        with self.database.reading(scope) as tx:
            run = _run_row(tx, run_id)
            _own_step(tx, run_id, step_name)
            noun = store.to_run(run, store.steps_of(tx, [run_id])[run_id])
        pipeline = msgspec.convert({"plan": run.plan, "code": run.code}, RegisterPipeline)
        step = next(one for one in pipeline.plan.steps if one.name == step_name)
        outputs = {one.name: one.output for one in noun.steps if one.output is not None}
        return StepWork(
            run_id=run_id,
            step=step_name,
            task=step.task,
            code=pipeline.code,
            inputs=bind_step(step, pipeline.plan, noun.params, noun.datasets),
            outputs={name: outputs[name] for name in needs(step)},
        )

    def put_output(
        self, scope: Scope, run_id: str, step: str, format: OutputFormat, source: BinaryIO | Iterable[bytes]
    ) -> Output:
        """Keep the bytes that a step returned; they count once they are reported. Only the step's own job may."""
        with self.database.reading(scope) as tx:
            _own_step(tx, run_id, step)
        blob = self.blobs.put(source, size_bytes_max=ARTIFACT_BYTES_MAX)
        return Output(digest=blob.digest, format=format, size_bytes=blob.size_bytes)

    def report(self, scope: Scope, run_id: str, step_name: str, report: StepReport) -> None:
        """A worker says how its step went. Only the job that runs it may, so a lost one that wakes up is refused."""
        if (report.output is None) == (report.error is None):
            raise InvalidInput("a report has either an output or an error", code="step.report_invalid")
        output = None if report.output is None else self._checked(report.output)
        with self.database.transaction(scope) as tx:
            run = _run_row(tx, run_id)
            if output is not None and _is_reported(_step_row(tx, run_id, step_name), tx.actor, output):
                return
            row = _own_step(tx, run_id, step_name)
            table = store.steps
            this = table.c.run_id == run_id, table.c.name == step_name
            if output is None:
                attempt = self.jobs.get(tx, row.job_id).attempts[-1].number
                reported = {"attempt": attempt, "error": report.error}
                tx.execute(table.update().where(*this).values(reported=reported))
                return
            tx.update_guarded(
                table.update()
                .where(*this, table.c.state == StepState.RUNNING.value, table.c.job_id == row.job_id)
                .values(state=StepState.SUCCEEDED.value, output=output, ended_at=tx.now),
                what=f"step '{step_name}'",
            )
            step = next(one for one in msgspec.convert(run.plan, Plan).steps if one.name == step_name)
            if step.cache:
                entry = {
                    "project": tx.project, "key": row.key, "run_id": run_id, "step": step_name,
                    "job_id": row.job_id, "output": output, "created_at": tx.now,
                }  # fmt: skip
                insert_missing(tx, store.cache, [entry])
            tx.event("step.succeeded", f"pipeline-run:{run_id}", {"step": step_name, "job": row.job_id})
            store.set_check(tx, run_id, tx.now)
        self.jobs.wake()

    def _checked(self, output: Output) -> Output:
        if output.inline:
            content = canonical(output.value)
            if output.format != "json" or len(content) > INLINE_BYTES_MAX:
                raise InvalidInput("only small plain values can be reported inline", code="step.report_invalid")
            return msgspec.structs.replace(output, digest=digest_of(output.value), size_bytes=len(content))
        return msgspec.structs.replace(output, size_bytes=self.blobs.size_bytes(output.digest), value=None)

    # --- what carries it on -----------------------------------------------------------------------------------

    def reconcilers(self) -> list[Reconciler]:
        """What has to run for runs to advance."""
        return [AdvanceRuns(self.database, self.jobs, self.blobs)]

    def readers(self) -> list[EventReader]:
        """What hears that a job has ended, so that its run is looked at without delay."""
        return [JobsEnded(self.database, self.jobs)]

    def in_force(self, tx: Transaction) -> Mapping[str, Sequence[str]]:
        """The jobs of each pipeline's last successful run: the next one will need the same data."""
        found: dict[str, list[str]] = {}
        for pipeline, job in store.jobs_of_last_successes(tx):
            found.setdefault(f"job:{job}", []).append(f"pipeline:{pipeline}")
        return found

    def kept_blobs(self) -> Iterator[str]:
        """The digests of all blobs that this plane names, of all projects; some more than once."""
        with self.database.reading() as tx:
            yield from store.kept_blobs(tx)

    def _started_before(self, scope: Scope, key: str | None, request_digest: str) -> PipelineRun | None:
        if key is None:
            return None
        with self.database.reading(scope) as tx:
            row = store.run_by_key(tx, key)
            if row is None:
                return None
            if row.request_digest != request_digest:
                raise Conflict(
                    f"the idempotency key '{key}' was used for another run ({row.id})",
                    code="pipeline_run.idempotency_conflict",
                    hint="use a new key for what is not the same run",
                )
            return _run_noun(tx, _run_row(tx, row.id))


def _unless_raced(call: Callable[[], T]) -> T:
    """Once more where somebody else wrote the same row at the same moment: then it is found."""
    try:
        return call()
    except Conflict as error:
        if error.code != "catalog.integrity":
            raise
    return call()


def _check_start(params: dict[str, Any], cause: str | None, idempotency_key: str | None) -> None:
    check_nesting(params, "what is given as params")
    if len(canonical(params)) > PARAMS_BYTES_MAX:
        raise InvalidInput(
            f"the params have more than {PARAMS_BYTES_MAX:,} bytes",
            code="pipeline.params_invalid",
            hint="write large inputs to a dataset and pass its name",
        )
    if cause is not None and not _URN.fullmatch(cause):
        raise InvalidInput(
            f"the cause {cause[:80]!r} is not a URN", code="pipeline.cause_invalid", hint="write it as 'alert:<id>'"
        )
    if len(idempotency_key or "") > 255:
        raise InvalidInput("the idempotency key is longer than 255 characters", code="pipeline.key_invalid")


def _pipeline_row(tx: Transaction, name: str, version: int | None) -> Any:
    row = store.pipeline_row(tx, name, version)
    if row is None:
        shown = f"'{name[:100]}'" if version is None else f"'{name[:100]}' version {version}"
        raise NotFound(
            f"pipeline {shown} does not exist in project '{tx.project}'",
            code="pipeline.not_found",
            hint="list them with `modelyard pipeline list`",
        )
    return row


def _run_row(tx: Transaction, run_id: str) -> Any:
    row = store.run_row(tx, run_id)
    if row is None:
        raise NotFound(
            f"pipeline run '{run_id[:40]}' does not exist in project '{tx.project}'",
            code="pipeline_run.not_found",
            hint="list them with `modelyard pipeline runs`",
        )
    return row


def _step_row(tx: Transaction, run_id: str, step: str) -> Any:
    _run_row(tx, run_id)
    row = store.step_row(tx, run_id, step)
    if row is None:
        raise NotFound(f"pipeline run '{run_id}' has no step '{step[:128]}'", code="step.not_found")
    return row


def _own_step(tx: Transaction, run_id: str, step: str) -> Any:
    """The row of a step that runs as the job that asks. Raises Forbidden for anybody else."""
    row = _step_row(tx, run_id, step)
    if row.state != StepState.RUNNING.value or row.job_id is None or tx.actor != f"job:{row.job_id}":
        raise Forbidden(
            f"'{tx.actor}' does not run step '{step}' of pipeline run '{run_id}', which is {row.state}",
            code="step.not_yours",
        )
    return row


def _is_reported(row: Any, actor: str, output: Output) -> bool:
    """Whether this is the same report once more, as from a worker whose first one got no reply."""
    if row.state != StepState.SUCCEEDED.value or actor != f"job:{row.job_id}":
        return False
    return bool(row.output["digest"] == output.digest)


def _run_noun(tx: Transaction, row: Any) -> PipelineRun:
    run = store.to_run(row, store.steps_of(tx, [row.id])[row.id])
    if run.state is not RunState.SUCCEEDED:
        return run
    plan = msgspec.convert(row.plan, Plan)
    outputs = {step.name: step.output for step in run.steps if step.output is not None}
    value = resolve(bind(plan.result, plan, run.params, run.datasets), outputs)
    return msgspec.structs.replace(run, result=value)


def _new_steps(tx: Transaction, run_id: str, plan: Plan) -> list[dict[str, Any]]:
    return [
        {
            "run_id": run_id,
            "name": step.name,
            "project": tx.project,
            "position": position,
            "task": step.task,
            "state": StepState.PENDING.value,
            "reason": "",
            "key": "",
            "round": 1,
        }
        for position, step in enumerate(plan.steps)
    ]


def _keep_environment(tx: Transaction, environment: Environment) -> None:
    row = {
        "hash": environment.hash,
        "python": environment.python,
        "platform": environment.platform,
        "packages": environment.packages,
        "created_at": tx.now,
    }
    insert_missing(tx, store.environments, [row])
