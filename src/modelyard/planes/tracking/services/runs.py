"""The verbs of runs: their life, their params and tags, what they read and made, and finding them."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import (
    BigInteger,
    Boolean,
    Double,
    Text,
    bindparam,
    cast,
    literal,
    null,
    select,
    union_all,
)

from modelyard.kernel.auth import Scope
from modelyard.kernel.clock import from_us, to_us
from modelyard.kernel.database import Database, Transaction
from modelyard.kernel.errors import InvalidInput, NotFound
from modelyard.kernel.ids import new_id
from modelyard.kernel.portions import portions
from modelyard.kernel.prepared import Prepared
from modelyard.planes.tracking import filters, rules, search, store
from modelyard.planes.tracking.inputs import urns_of
from modelyard.planes.tracking.points import Batch, Point, PointColumns
from modelyard.planes.tracking.rows import COLUMNS, RunRow, active_run_row, run_row
from modelyard.planes.tracking.services import experiments, metrics
from modelyard.types.page import Page
from modelyard.types.tracking import (
    READ_CONTEXT,
    TERMINAL_STATUSES,
    CreateRun,
    Dataset,
    DatasetInput,
    DatasetSummary,
    Metric,
    ModelOutput,
    Run,
    SearchRuns,
    Stage,
    UpdateRun,
)

NAME_TAG = "mlflow.runName"
CONTEXT_TAG = "mlflow.data.context"
# Tags that name what a run was made with, and the kind of URN each stands for.
MADE_WITH = {"mlflow.source.git.commit": "code", "modelyard.env": "env"}
SEARCH_MAX = 50_000
_CHUNK = 5_000
_DIGEST = re.compile(r"[0-9a-f]{7,64}")
# Words that MLflow makes names of too: programs look for them.
_ADJECTIVES = (
    "able", "bold", "bright", "calm", "capable", "charming", "dapper", "fearless", "gentle", "gifted", "inquisitive",
    "kindly", "learned", "luminous", "lyrical", "nimble", "orderly", "peaceful", "polite", "resilient", "sincere",
    "skillful", "thoughtful", "upbeat", "useful", "welcoming", "wise", "zealous",
)  # fmt: skip
_NOUNS = (
    "bear", "bee", "crane", "deer", "dolphin", "dove", "elk", "finch", "fox", "grouse", "gull", "hare", "hawk", "jay",
    "kite", "lark", "lynx", "mole", "moth", "newt", "owl", "quail", "robin", "seal", "stoat", "swan", "tern",
    "vole", "wren",
)  # fmt: skip
_RUNS = store.runs
_INSERT = Prepared(
    _RUNS.insert()
    .values({column.name: sa.bindparam(column.name) for column in COLUMNS if column.name != "number"})
    .returning(_RUNS.c.number)
)


def _details() -> sa.CompoundSelect[Any]:
    # One statement instead of three: reading a run is what clients do most.
    number: sa.BindParameter[int] = bindparam("number")
    texts, tags, latest = store.params, store.run_tags, store.latest_metrics
    # With their types, since PostgreSQL takes two bare NULLs for texts.
    nothing = (
        cast(null(), Double).label("number"),
        cast(null(), Boolean).label("is_nan"),
        cast(null(), BigInteger).label("step"),
        cast(null(), BigInteger).label("at"),
    )
    return union_all(
        select(literal("p").label("kind"), texts.c.key, texts.c.value.label("text"), *nothing).where(
            texts.c.run == number
        ),
        select(literal("t"), tags.c.key, tags.c.value, *nothing).where(tags.c.run == number),
        select(
            literal("m"),
            latest.c.key,
            cast(null(), Text),
            latest.c.value,
            latest.c.is_nan,
            latest.c.step,
            latest.c.timestamp_ms,
        ).where(latest.c.run == number),
    )


_DETAILS = Prepared(_details())


class Runs:
    """Runs of a project: create, get, search, update, finish, delete, restore, tag, and log what they do."""

    def __init__(self, database: Database, of_experiments: experiments.Experiments) -> None:
        self._database = database
        self._experiments = of_experiments

    def create(self, scope: Scope, asked: CreateRun) -> Run:
        """A new running run of an active experiment. A job's run is tied to the job. Raises NotFound, InvalidInput."""
        number = rules.experiment_number(asked.experiment_id or experiments.DEFAULT)
        tags = dict(asked.tags)
        named = tags.get(NAME_TAG, "")
        if asked.name and named and asked.name != named:
            raise InvalidInput(
                "Both 'run_name' argument and 'mlflow.runName' tag are specified, but with "
                f"different values (run_name='{asked.name}', mlflow.runName='{named}').",
                code="run.name_ambiguous",
            )
        name = asked.name or named or _made_up_name()
        tags = {key: rules.tag_value(key, value) for key, value in {**tags, NAME_TAG: name}.items()}
        start_ms = None if asked.started_at is None else to_us(asked.started_at) // 1_000
        if start_ms is not None:
            rules.check_time_ms("start_time", start_ms)
        self._experiments.make_ready(scope.project)
        run_id = new_id()

        def work(tx: Transaction) -> Run:
            location = experiments.active(tx, number).artifact_location
            row = RunRow(
                0, tx.project, run_id, number, name, asked.user[:255], "RUNNING", "active",
                experiments.now_ms(tx) if start_ms is None else start_ms, None,
                f"{location.rstrip('/')}/{run_id}/artifacts", False,
            )  # fmt: skip
            ((made,),) = tx.run(_INSERT, row._asdict())
            _put_tags(tx, made, tags)
            _tie(tx, run_id, tags)
            tx.event("run.created", f"run:{run_id}", {"experiment": str(number), "name": name})
            if tx.actor.startswith("job:"):
                tx.link(tx.actor, "produced", f"run:{run_id}")
            return _noun(row, {}, tags, [], [], [], [])

        return self._database.together(scope, work)

    def get(self, scope: Scope, run_id: str) -> Run:
        """A run with its params, tags, latest metrics, inputs and outputs. Raises NotFound."""
        with self._database.reading(scope) as tx:
            row = run_row(tx, run_id)
            texts: dict[str, dict[str, str]] = {"p": {}, "t": {}}
            found: list[Metric] = []
            for kind, key, text, value, is_nan, step, at in tx.run(_DETAILS, {"number": row.number}):
                if kind == "m":
                    found.append(Metric(key=key, value=None if is_nan else value, step=step, timestamp_ms=at))
                else:
                    texts[kind][key] = text
            links = _links_of(tx, [row.number]) if row.has_links else {}
            return _noun(row, texts["p"], texts["t"], found, *links.get(row.number, ([], [], [])))

    def search(
        self,
        scope: Scope,
        experiment_ids: Sequence[str] | None = None,
        filter: str = "",
        order_by: Sequence[str] = (),
        view: str = "active",
        limit: int = 1_000,
        page: str | None = None,
        metric_keys: Sequence[str] | None = None,
    ) -> Page[Run]:
        """The runs that a filter picks, newest first unless ordered otherwise. Raises InvalidInput.

        `experiment_ids` None searches all of the project, an empty list nothing. `metric_keys` limits which latest
        metrics come with each run.
        """
        if not 1 <= limit <= SEARCH_MAX:
            bound = "a positive integer" if limit < 1 else f"at most {SEARCH_MAX}"
            raise InvalidInput(
                f"Invalid value {limit} for parameter 'max_results' supplied. It must be {bound}",
                code="search.limit_invalid",
            )
        clauses, orders = filters.parse_runs(filter), filters.order_runs(order_by)
        offset = filters.page_offset(page)
        numbers = None if experiment_ids is None else [rules.experiment_number(one) for one in experiment_ids]
        stages: Any = view
        with self._database.reading(scope) as tx:
            found = search.run_numbers(tx, numbers, clauses, orders, stages, limit + 1, offset)
            more = filters.page_token(offset + limit) if len(found) > limit else None
            return Page(_load(tx, found[:limit], metric_keys), more)

    def ask(self, scope: Scope, asked: SearchRuns) -> Page[Run]:
        """`search` as the native API words it. Raises InvalidInput."""
        return self.search(
            scope, asked.experiments or None, asked.filter, asked.order_by, asked.view, asked.limit,
            asked.page or None, asked.metrics,
        )  # fmt: skip

    def update(self, scope: Scope, run_id: str, asked: UpdateRun) -> Run:
        """Change the status, end or name of an active run, or its stage. Raises NotFound, InvalidInput."""
        if asked.stage is not None:
            self._move(scope, run_id, asked.stage)
        changes: dict[str, Any] = {}
        if asked.status is not None:
            changes["status"] = asked.status
        if asked.ended_at is not None:
            changes["end_ms"] = to_us(asked.ended_at) // 1_000
            rules.check_time_ms("end_time", changes["end_ms"])
        if asked.name:
            changes["name"] = rules.tag_value(NAME_TAG, asked.name)
        if changes:
            with self._database.transaction(scope) as tx:
                row = active_run_row(tx, run_id)
                tx.execute(_RUNS.update().where(_RUNS.c.number == row.number).values(**changes))
                if "name" in changes:
                    _put_tags(tx, row.number, {NAME_TAG: changes["name"]})
                _tell(tx, row, changes)
        return self.get(scope, run_id)

    def finish(self, scope: Scope, run_id: str, status: str = "FINISHED") -> Run:
        """End a run now, with FINISHED, FAILED or KILLED. Raises NotFound, InvalidInput."""
        if status not in TERMINAL_STATUSES:
            raise InvalidInput(
                f"a run cannot end as '{status}'", code="run.status_invalid", hint="use FINISHED, FAILED or KILLED"
            )
        ended: Any = status
        return self.update(scope, run_id, UpdateRun(status=ended, ended_at=self._database.clock.now()))

    def delete(self, scope: Scope, run_id: str) -> None:
        """Mark a run deleted; it can be restored. Deleting twice is fine. Raises NotFound."""
        self._move(scope, run_id, "deleted")

    def restore(self, scope: Scope, run_id: str) -> None:
        """Make a deleted run active again. Raises NotFound."""
        self._move(scope, run_id, "active")

    def log(
        self,
        scope: Scope,
        run_id: str,
        points: Iterable[Point] | PointColumns = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        inputs: Sequence[DatasetInput] = (),
        of_models: Sequence[metrics.OfModel] = (),
    ) -> None:
        """Log to an active run, all or nothing. Points are (key, value, step, time in ms), or columns of these.

        Raises NotFound, or InvalidInput, also for a param that has another value already.
        """
        rules.check_inputs(inputs)
        texts = _checked(rules.param_value, "params", params or {})
        labels = _checked(rules.tag_value, "tags", tags or {})
        batch = Batch.of(points if isinstance(points, PointColumns) else PointColumns.of(points))

        def work(tx: Transaction) -> None:
            row = active_run_row(tx, run_id)
            _put_params(tx, row, texts)
            if batch.points:
                metrics.append(tx, row.number, batch)
            metrics.append_of_models(tx, row.id, of_models)
            if labels:
                _put_tags(tx, row.number, labels)
                _tie(tx, row.id, labels)
                if NAME_TAG in labels:
                    tx.execute(_RUNS.update().where(_RUNS.c.number == row.number).values(name=labels[NAME_TAG]))
            _put_inputs(tx, row, inputs)

        self._database.together(scope, work)

    def delete_tag(self, scope: Scope, run_id: str, key: str) -> None:
        """Remove a tag of an active run. Raises NotFound where there is none."""
        with self._database.transaction(scope) as tx:
            row = active_run_row(tx, run_id)
            tags = store.run_tags
            gone = tx.execute(tags.delete().where(tags.c.run == row.number, tags.c.key == key))
            if gone.rowcount == 0:
                raise NotFound(f"No tag with name: {key} in run with id {run_id}", code="run.tag_not_found")

    def log_models(
        self, scope: Scope, run_id: str, inputs: Sequence[str] = (), outputs: Sequence[ModelOutput] = ()
    ) -> None:
        """Record which logged models a run read and which it made. Raises NotFound, InvalidInput."""
        with self._database.transaction(scope) as tx:
            _put_models(tx, active_run_row(tx, run_id), inputs, outputs)

    def datasets(self, scope: Scope, experiment_ids: Sequence[str], limit: int = 1_000) -> list[DatasetSummary]:
        """The datasets that runs of some experiments read."""
        table = store.run_inputs
        numbers = [rules.experiment_number(one) for one in experiment_ids]
        statement = (
            select(table.c.experiment, table.c.name, table.c.digest, table.c.context)
            .distinct()
            .where(table.c.project == scope.project, table.c.experiment.in_(numbers))
            .order_by(table.c.experiment, table.c.name, table.c.digest, table.c.context)
            .limit(limit)
        )
        with self._database.reading(scope) as tx:
            return [
                DatasetSummary(experiment_id=str(row.experiment), name=row.name, digest=row.digest, context=row.context)
                for row in tx.all(statement)
            ]

    def _move(self, scope: Scope, run_id: str, stage: Stage) -> None:
        with self._database.transaction(scope) as tx:
            row = run_row(tx, run_id)
            if row.stage == stage:
                return
            deleted_ms = experiments.now_ms(tx) if stage == "deleted" else None
            tx.execute(_RUNS.update().where(_RUNS.c.number == row.number).values(stage=stage, deleted_ms=deleted_ms))
            tx.event("run.deleted" if stage == "deleted" else "run.restored", f"run:{run_id}")


def fill(
    tx: Transaction,
    row: RunRow,
    *,
    params: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
    inputs: Sequence[DatasetInput] = (),
    models: tuple[Sequence[str], Sequence[ModelOutput]] = ((), ()),
) -> None:
    """Put what is not a metric to a run of whichever stage. Raises InvalidInput."""
    _put_params(tx, row, _checked(rules.param_value, "params", params or {}))
    _put_tags(tx, row.number, _checked(rules.tag_value, "tags", tags or {}))
    _put_inputs(tx, row, inputs)
    _put_models(tx, row, *models)


def _put_models(tx: Transaction, row: RunRow, inputs: Sequence[str], outputs: Sequence[ModelOutput]) -> None:
    common = {"project": tx.project, "run": row.number}
    wanted = [{**common, "direction": "input", "model_id": one, "step": 0} for one in inputs] + [
        {**common, "direction": "output", "model_id": one.model_id, "step": one.step} for one in outputs
    ]
    store.put_rows(tx, store.run_models, wanted, ["step"])
    if wanted:
        _mark_linked(tx, row)


def _checked(check: Callable[[str, str, str], str], what: str, pairs: Mapping[str, str]) -> dict[str, str]:
    return {key: check(key, value, f"{what}[{at}]") for at, (key, value) in enumerate(pairs.items())}


def _tie(tx: Transaction, run_id: str, tags: Mapping[str, str]) -> None:
    for tag in MADE_WITH.keys() & tags.keys():
        if _DIGEST.fullmatch(tags[tag]):
            tx.link(f"run:{run_id}", "used", f"{MADE_WITH[tag]}:{tags[tag]}")


def _tell(tx: Transaction, row: RunRow, changes: Mapping[str, Any]) -> None:
    status = changes.get("status")
    if status is None or status == row.status:
        return
    kind = "run.finished" if status in TERMINAL_STATUSES else "run.resumed"
    tx.event(kind, f"run:{row.id}", {"status": status, "experiment": str(row.experiment), "name": row.name})


def _put_params(tx: Transaction, row: RunRow, texts: Mapping[str, str]) -> None:
    if not texts:
        return
    table = store.params
    known = {
        one.key: one.value
        for one in tx.all(select(table.c.key, table.c.value).where(table.c.run == row.number, table.c.key.in_(texts)))
    }
    changed = [
        {"key": key, "old_value": known[key], "new_value": value}
        for key, value in texts.items()
        if key in known and known[key] != value
    ]
    if changed:
        raise _changed(row.id, changed)
    fresh = [
        {"run": row.number, "key": key, "project": tx.project, "value": texts[key]}
        for key in sorted(texts)
        if key not in known
    ]
    if fresh:
        # Another value that came in between breaks the key, and so this whole transaction: nothing is half done.
        tx.execute(table.insert(), fresh)


def _changed(run_id: str, changed: list[dict[str, str]]) -> InvalidInput:
    if len(changed) == 1:
        one = changed[0]
        text = (
            f"Param with key='{one['key']}' was already logged with value='{one['old_value']}' for run "
            f"ID='{run_id}'. Attempted logging new value '{one['new_value']}'."
        )
    else:
        text = f"Params were already logged='{changed}' for run ID='{run_id}'."
    return InvalidInput(f"Changing param values is not allowed. {text}", code="param.changed")


def _put_tags(tx: Transaction, number: int, tags: Mapping[str, str]) -> None:
    rows = [{"run": number, "key": key, "project": tx.project, "value": tags[key]} for key in sorted(tags)]
    store.put_rows(tx, store.run_tags, rows, ["value"])


def _put_inputs(tx: Transaction, row: RunRow, inputs: Sequence[DatasetInput]) -> None:
    first: dict[tuple[str, str], DatasetInput] = {}
    for one in inputs:
        first.setdefault((one.dataset.name, one.dataset.digest), one)
    if not first:
        return
    of_experiment = [
        {
            "project": tx.project, "experiment": row.experiment, "name": one.dataset.name,
            "digest": one.dataset.digest, "source_type": one.dataset.source_type, "source": one.dataset.source,
            "schema": one.dataset.schema, "profile": one.dataset.profile,
        }
        for one in first.values()
    ]  # fmt: skip
    of_run = [
        {
            "run": row.number, "name": one.dataset.name, "digest": one.dataset.digest, "project": tx.project,
            "experiment": row.experiment, "context": one.tags.get(CONTEXT_TAG), "tags": one.tags,
        }
        for one in first.values()
    ]  # fmt: skip
    # Who logged a dataset first said what it is; later ones do not change it.
    tx.execute(store.inserting(tx, store.input_datasets).on_conflict_do_nothing(), of_experiment)
    table = store.run_inputs
    new = store.inserting(tx, table)
    said = {"context": new.excluded.context, "tags": new.excluded.tags}
    keys = [column.name for column in table.primary_key]
    tx.execute(new.on_conflict_do_update(index_elements=keys, set_=said, where=table.c.context == READ_CONTEXT), of_run)
    _mark_linked(tx, row)
    for one in inputs:
        for urn in urns_of(one.dataset):
            tx.link(f"run:{row.id}", "used", urn)


def _mark_linked(tx: Transaction, row: RunRow) -> None:
    if not row.has_links:
        tx.execute(_RUNS.update().where(_RUNS.c.number == row.number).values(has_links=True))


def _load(tx: Transaction, numbers: Sequence[int], metric_keys: Sequence[str] | None) -> list[Run]:
    found: list[Run] = []
    for some in portions(numbers, _CHUNK):
        found += _load_chunk(tx, some, metric_keys)
    return found


def _load_chunk(tx: Transaction, numbers: Sequence[int], metric_keys: Sequence[str] | None) -> list[Run]:
    picked_runs = select(*COLUMNS).where(tx.among(_RUNS.c.number, numbers))
    rows = {row.number: row for row in map(RunRow._make, _plain(tx.execute(picked_runs)))}
    texts: list[dict[int, dict[str, str]]] = []
    for table in (store.params, store.run_tags):
        grouped: dict[int, dict[str, str]] = {}
        picked = select(table.c.run, table.c.key, table.c.value).where(tx.among(table.c.run, numbers))
        for run, key, value in _plain(tx.execute(picked)):
            grouped.setdefault(run, {})[key] = value
        texts.append(grouped)
    latest = metrics.latest_of(tx, numbers, metric_keys)
    linked = [number for number in numbers if rows[number].has_links]
    links = _links_of(tx, linked) if linked else {}
    return [
        _noun(
            rows[number], texts[0].get(number, {}), texts[1].get(number, {}), latest.get(number, []),
            *links.get(number, ([], [], [])),
        )
        for number in numbers
    ]  # fmt: skip


Links = tuple[list[DatasetInput], list[str], list[ModelOutput]]


def _links_of(tx: Transaction, numbers: Sequence[int]) -> dict[int, Links]:
    links: dict[int, Links] = {number: ([], [], []) for number in numbers}
    inputs, datasets, models = store.run_inputs, store.input_datasets, store.run_models
    same = sa.and_(
        datasets.c.project == inputs.c.project, datasets.c.experiment == inputs.c.experiment,
        datasets.c.name == inputs.c.name, datasets.c.digest == inputs.c.digest,
    )  # fmt: skip
    statement = (
        select(inputs.c.run, inputs.c.tags, datasets).join(datasets, same).where(tx.among(inputs.c.run, numbers))
    )
    for row in tx.all(statement.order_by(inputs.c.run, inputs.c.name, inputs.c.digest)):
        dataset = Dataset(
            name=row.name, digest=row.digest, source_type=row.source_type, source=row.source,
            schema=row.schema, profile=row.profile,
        )  # fmt: skip
        links[row.run][0].append(DatasetInput(dataset, row.tags))
    for row in tx.all(select(models).where(tx.among(models.c.run, numbers)).order_by(models.c.run, models.c.step)):
        if row.direction == "input":
            links[row.run][1].append(row.model_id)
        else:
            links[row.run][2].append(ModelOutput(row.model_id, row.step))
    return links


def _noun(
    row: RunRow,
    texts: dict[str, str],
    tags: dict[str, str],
    latest: list[Metric],
    inputs: list[DatasetInput],
    model_inputs: list[str],
    model_outputs: list[ModelOutput],
) -> Run:
    status: Any = row.status
    stage: Any = row.stage
    return Run(
        id=row.id,
        experiment_id=str(row.experiment),
        name=row.name,
        user=row.user,
        status=status,
        stage=stage,
        started_at=from_us(row.start_ms * 1_000),
        ended_at=None if row.end_ms is None else from_us(row.end_ms * 1_000),
        artifact_uri=row.artifact_uri,
        params=texts,
        tags=tags,
        metrics=latest,
        inputs=inputs,
        model_inputs=model_inputs,
        model_outputs=model_outputs,
    )


def _made_up_name() -> str:
    return f"{secrets.choice(_ADJECTIVES)}-{secrets.choice(_NOUNS)}-{secrets.randbelow(1_000)}"


def _plain(found: Iterable[Any]) -> Iterable[tuple[Any, ...]]:
    # Unpacking a row is several times faster than reading it by name, and these come by the ten thousand.
    return found
