"""The verbs of experiments. Experiment 0, `Default`, is in every project from its first use on."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import bindparam, select

from modelyard.kernel.auth import Scope, system_scope
from modelyard.kernel.clock import from_us, to_us
from modelyard.kernel.database import Database, Transaction
from modelyard.kernel.errors import Conflict, InvalidInput, NotFound
from modelyard.kernel.prepared import Prepared
from modelyard.planes.tracking import filters, rules, search, store
from modelyard.types.page import Page
from modelyard.types.tracking import CreateExperiment, Experiment, Stage, UpdateExperiment, View

DEFAULT = "0"
ARTIFACT_ROOT = "mlflow-artifacts:"
_TABLE = store.experiments


class Experiments:
    """Experiments of a project: create, get, find, search, rename, delete, restore, tag."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._ready: set[str] = set()
        self._lock = threading.Lock()

    def create(self, scope: Scope, asked: CreateExperiment) -> Experiment:
        """A new experiment. Raises Conflict (`experiment.exists`) for a name in use, also by a deleted one."""
        rules.check_experiment_name(asked.name)
        rules.check_location(asked.artifact_location)
        tags = {key: rules.experiment_tag(key, value) for key, value in asked.tags.items()}
        self.make_ready(scope.project)
        with self._database.transaction(scope) as tx:
            if tx.one(select(_TABLE.c.number).where(_TABLE.c.project == tx.project, _TABLE.c.name == asked.name)):
                raise Conflict(
                    f"Experiment(name={asked.name}) already exists.",
                    code="experiment.exists",
                    hint="take another name, or restore it if it was deleted",
                )
            number = next_free_number(tx)
            location = asked.artifact_location or f"{ARTIFACT_ROOT}/{number}"
            row = _insert(tx, number, asked.name, location)
            _set_tags(tx, number, tags)
            tx.event("experiment.created", f"experiment:{number}", {"name": asked.name})
        return _noun(row, tags)

    def get(self, scope: Scope, experiment_id: str) -> Experiment:
        """An experiment of whichever stage. Raises NotFound, or InvalidInput for what is no id."""
        number = rules.experiment_number(experiment_id)
        self.make_ready(scope.project)
        with self._database.reading(scope) as tx:
            return self._nouns(tx, [_row(tx, number)])[0]

    def find(self, scope: Scope, name: str) -> Experiment | None:
        """The experiment of this name, of whichever stage."""
        self.make_ready(scope.project)
        with self._database.reading(scope) as tx:
            row = tx.one(select(_TABLE).where(_TABLE.c.project == tx.project, _TABLE.c.name == name))
            return self._nouns(tx, [row])[0] if row else None

    def search(
        self,
        scope: Scope,
        filter: str = "",
        order_by: Sequence[str] = (),
        view: View = "active",
        limit: int = 1_000,
        page: str | None = None,
    ) -> Page[Experiment]:
        """The experiments that a filter picks, newest first unless ordered otherwise. Raises InvalidInput."""
        clauses, orders = filters.parse_experiments(filter), filters.order_experiments(order_by)
        offset = filters.page_offset(page)
        self.make_ready(scope.project)
        with self._database.reading(scope) as tx:
            rows = search.experiment_rows(tx, clauses, orders, view, limit + 1, offset)
            more = filters.page_token(offset + limit) if len(rows) > limit else None
            return Page(self._nouns(tx, rows[:limit]), more)

    def rename(self, scope: Scope, experiment_id: str, name: str) -> None:
        """Give an active experiment another name. Raises Conflict (`experiment.exists`, `experiment.deleted`)."""
        rules.check_experiment_name(name)
        number = rules.experiment_number(experiment_id)
        self.make_ready(scope.project)
        with self._database.transaction(scope) as tx:
            row = _row(tx, number)
            if row.stage != "active":
                raise Conflict(
                    "Cannot rename a non-active experiment.", code="experiment.deleted", hint="restore it first"
                )
            taken = select(_TABLE.c.number).where(
                _TABLE.c.project == tx.project, _TABLE.c.name == name, _TABLE.c.number != number
            )
            if tx.one(taken):
                raise Conflict(f"Experiment(name={name}) already exists.", code="experiment.exists")
            _update(tx, number, name=name)
            tx.event("experiment.renamed", f"experiment:{number}", {"name": name, "was": row.name})

    def update(self, scope: Scope, experiment_id: str, asked: UpdateExperiment) -> Experiment:
        """Restore, rename, tag, delete, in this order, what is asked. Raises NotFound, InvalidInput, Conflict."""
        known = self.get(scope, experiment_id)
        if asked.stage == "active" and known.stage != "active":
            self.restore(scope, experiment_id)
        if asked.name is not None and asked.name != known.name:
            self.rename(scope, experiment_id, asked.name)
        for key, value in asked.tags.items():
            self.set_tag(scope, experiment_id, key, value)
        if asked.stage == "deleted" and known.stage != "deleted":
            self.delete(scope, experiment_id)
        return self.get(scope, experiment_id)

    def delete(self, scope: Scope, experiment_id: str) -> None:
        """Mark an active experiment and its runs deleted; they can be restored. Raises NotFound."""
        self._move(scope, experiment_id, "active", "deleted")

    def restore(self, scope: Scope, experiment_id: str) -> None:
        """Make a deleted experiment and its runs active again. Raises NotFound."""
        self._move(scope, experiment_id, "deleted", "active")

    def set_tag(self, scope: Scope, experiment_id: str, key: str, value: str) -> None:
        """Set a tag of an active experiment. Raises NotFound, InvalidInput."""
        value = rules.experiment_tag(key, value)
        number = rules.experiment_number(experiment_id)
        self.make_ready(scope.project)
        with self._database.transaction(scope) as tx:
            active(tx, number)
            _set_tags(tx, number, {key: value})

    def delete_tag(self, scope: Scope, experiment_id: str, key: str) -> None:
        """Remove a tag of an active experiment. Raises NotFound where there is none."""
        number = rules.experiment_number(experiment_id)
        self.make_ready(scope.project)
        with self._database.transaction(scope) as tx:
            active(tx, number)
            tags = store.experiment_tags
            gone = tx.execute(
                tags.delete().where(tags.c.project == tx.project, tags.c.experiment == number, tags.c.key == key)
            )
            if gone.rowcount == 0:
                raise NotFound(
                    f"No tag with name: {key} in experiment with id {experiment_id}", code="experiment.tag_not_found"
                )

    def make_ready(self, project: str) -> None:
        """See that the project has its experiment 0."""
        if project in self._ready:
            return
        with self._lock:
            if project in self._ready:
                return
            self._make_default(project)
            # Bounded, so that a crawl over made-up projects cannot fill the memory.
            if len(self._ready) > 10_000:
                self._ready.clear()
            self._ready.add(project)

    def _make_default(self, project: str) -> None:
        scope = system_scope(project)
        wanted = select(_TABLE.c.number).where(_TABLE.c.project == project, _TABLE.c.number == 0)
        with self._database.reading(scope) as tx:
            if tx.one(wanted):
                return
        try:
            with self._database.transaction(scope) as tx:
                if tx.one(wanted) is None:
                    _insert(tx, 0, "Default", f"{ARTIFACT_ROOT}/0")
                    tx.event("experiment.created", "experiment:0", {"name": "Default"})
        except Conflict:
            # Another process was first, which is as good.
            return

    def _move(self, scope: Scope, experiment_id: str, old: Stage, new: Stage) -> None:
        number = rules.experiment_number(experiment_id)
        self.make_ready(scope.project)
        with self._database.transaction(scope) as tx:
            if _row(tx, number).stage != old:
                raise _missing(number)
            _update(tx, number, stage=new)
            runs = store.runs
            tx.execute(
                runs.update()
                .where(runs.c.project == tx.project, runs.c.experiment == number, runs.c.stage == old)
                .values(stage=new, deleted_ms=now_ms(tx) if new == "deleted" else None)
            )
            tx.event(f"experiment.{'deleted' if new == 'deleted' else 'restored'}", f"experiment:{number}")

    def _nouns(self, tx: Transaction, rows: Sequence[Any]) -> list[Experiment]:
        tags = _tags_of(tx, [row.number for row in rows])
        return [_noun(row, tags.get(row.number, {})) for row in rows]


class ExperimentRow(NamedTuple):
    """A row of `experiments`, in the order of its columns."""

    project: str
    number: int
    name: str
    artifact_location: str
    stage: str
    created_ms: int
    updated_ms: int


_BY_NUMBER = Prepared(
    select(*(_TABLE.c[name] for name in ExperimentRow._fields)).where(
        _TABLE.c.project == bindparam("project"), _TABLE.c.number == bindparam("number")
    )
)


def active(tx: Transaction, number: int) -> ExperimentRow:
    """The row of an active experiment. Raises NotFound, or InvalidInput (`experiment.deleted`)."""
    row = _row(tx, number)
    if row.stage != "active":
        raise InvalidInput(
            f"The experiment {number} must be in the 'active' state. Current state is {row.stage}.",
            code="experiment.not_active",
            hint="restore it first",
        )
    return row


def next_free_number(tx: Transaction) -> int:
    """The next number that no experiment has; an import may have taken some ahead of the counter."""
    while True:
        number = store.next_number(tx, "experiment")
        if tx.one(select(_TABLE.c.number).where(_TABLE.c.project == tx.project, _TABLE.c.number == number)) is None:
            return number


def label(tx: Transaction, number: int, tags: Mapping[str, str]) -> Experiment:
    """Set checked tags of an experiment of whichever stage, and read it. Raises NotFound."""
    row = _row(tx, number)
    _set_tags(tx, number, tags)
    return _noun(row, _tags_of(tx, [number]).get(number, {}))


def experiment_row(tx: Transaction, number: int) -> ExperimentRow:
    """The row of an experiment of whichever stage. Raises NotFound."""
    return _row(tx, number)


def location_of(tx: Transaction, number: int) -> str:
    """The artifact location of an experiment of whichever stage. Raises NotFound."""
    return _row(tx, number).artifact_location


def _row(tx: Transaction, number: int) -> ExperimentRow:
    rows = tx.run(_BY_NUMBER, {"project": tx.project, "number": number})
    if not rows:
        raise _missing(number)
    return ExperimentRow._make(rows[0])


def _missing(number: int) -> NotFound:
    return NotFound(f"No Experiment with id={number} exists", code="experiment.not_found")


def _insert(tx: Transaction, number: int, name: str, location: str) -> ExperimentRow:
    now = now_ms(tx)
    tx.execute(
        _TABLE.insert().values(
            project=tx.project,
            number=number,
            name=name,
            artifact_location=location,
            stage="active",
            created_ms=now,
            updated_ms=now,
        )
    )
    return _row(tx, number)


def _update(tx: Transaction, number: int, **values: Any) -> None:
    tx.execute(
        _TABLE.update()
        .where(_TABLE.c.project == tx.project, _TABLE.c.number == number)
        .values(updated_ms=now_ms(tx), **values)
    )


def _set_tags(tx: Transaction, number: int, tags: Mapping[str, str]) -> None:
    rows = [{"project": tx.project, "experiment": number, "key": key, "value": tags[key]} for key in sorted(tags)]
    store.put_rows(tx, store.experiment_tags, rows, ["value"])


def _tags_of(tx: Transaction, numbers: Iterable[int]) -> dict[int, dict[str, str]]:
    table = store.experiment_tags
    found: dict[int, dict[str, str]] = {}
    for row in tx.all(select(table).where(table.c.project == tx.project, table.c.experiment.in_(list(numbers)))):
        found.setdefault(row.experiment, {})[row.key] = row.value
    return found


def _noun(row: Any, tags: Mapping[str, str]) -> Experiment:
    return Experiment(
        id=str(row.number),
        name=row.name,
        artifact_location=row.artifact_location,
        stage=row.stage,
        created_at=from_us(row.created_ms * 1_000),
        updated_at=from_us(row.updated_ms * 1_000),
        tags=dict(tags),
    )


def now_ms(tx: Transaction) -> int:
    """The transaction's instant in milliseconds, as MLflow counts time."""
    return to_us(tx.now) // 1_000
