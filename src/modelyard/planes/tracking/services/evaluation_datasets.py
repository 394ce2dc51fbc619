"""The verbs of evaluation datasets: create, get, search, tag, tie to experiments, delete; and of their records."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Row, case, exists, func, select

from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database, Transaction
from modelyard.kernel.errors import InvalidInput, NotFound
from modelyard.kernel.ids import new_id
from modelyard.kernel.portions import portions
from modelyard.planes.tracking import evaluation_filters, evaluation_store, filters, rules, store
from modelyard.planes.tracking.search import compare
from modelyard.planes.tracking.services import experiments
from modelyard.types.page import Page
from modelyard.types.tracing import EvaluationDataset, EvaluationRecord, PutRecord

NAME_CHARACTERS_MAX = 500
RECORDS_AT_ONCE_MAX = 10_000
USER_TAG = "mlflow.user"
_TABLE = evaluation_store.datasets
_TAGS = evaluation_store.dataset_tags
_TIES = evaluation_store.dataset_experiments
_RECORDS = evaluation_store.records
_COLUMNS = {
    "name": "name", "created_time": "created_ms", "last_update_time": "updated_ms",
    "created_by": "created_by", "last_updated_by": "updated_by",
}  # fmt: skip


class EvaluationDatasets:
    """Evaluation datasets of a project."""

    def __init__(self, database: Database, of_experiments: experiments.Experiments) -> None:
        self._database = database
        self._experiments = of_experiments

    def create(
        self, scope: Scope, name: str, experiment_ids: Sequence[str] = (), tags: Mapping[str, str] | None = None
    ) -> EvaluationDataset:
        """A new, empty dataset. Raises NotFound for an experiment, InvalidInput."""
        if not name.strip():
            raise InvalidInput(rules.missing_value("name"), code="evaluation_dataset.name_invalid")
        rules.check_length("name", NAME_CHARACTERS_MAX, name)
        dataset_id, tags = f"d-{new_id()}", dict(tags or {})
        numbers = [rules.experiment_number(one) for one in experiment_ids]
        self._experiments.make_ready(scope.project)
        with self._database.transaction(scope) as tx:
            now, by = experiments.now_ms(tx), tags.get(USER_TAG)
            tx.execute(
                _TABLE.insert().values(
                    project=tx.project, id=dataset_id, name=name, digest=_digest(name, now), created_ms=now,
                    updated_ms=now, created_by=by, updated_by=by, fields=None,
                )
            )  # fmt: skip
            _put_tags(tx, dataset_id, tags)
            _tie(tx, dataset_id, numbers)
            tx.event("evaluation_dataset.created", f"evaluation-dataset:{dataset_id}", {"name": name})
            return _nouns(tx, [dataset_id])[0]

    def get(self, scope: Scope, dataset_id: str) -> EvaluationDataset:
        """A dataset without its records. Raises NotFound."""
        with self._database.reading(scope) as tx:
            _row(tx, dataset_id)
            return _nouns(tx, [dataset_id])[0]

    def experiments_of(self, scope: Scope, dataset_id: str) -> list[str]:
        """The experiments that a dataset is tied to; none for one that is not there."""
        with self._database.reading(scope) as tx:
            tied = select(_TIES.c.experiment).where(_of(tx, _TIES, dataset_id)).order_by(_TIES.c.place)
            return [str(row.experiment) for row in tx.all(tied)]

    def search(
        self,
        scope: Scope,
        experiment_ids: Sequence[str] = (),
        filter: str = "",
        order_by: Sequence[str] = (),
        limit: int = 1_000,
        page: str | None = None,
    ) -> Page[EvaluationDataset]:
        """The datasets that a filter picks, of some experiments or of all, newest first. Raises InvalidInput."""
        clauses = evaluation_filters.parse_evaluation_datasets(filter)
        orders = evaluation_filters.order_evaluation_datasets(order_by)
        numbers = [rules.experiment_number(one) for one in experiment_ids]
        offset = filters.page_offset(page)
        with self._database.reading(scope) as tx:
            wanted = [_TABLE.c.project == tx.project, *(_condition(tx, clause) for clause in clauses)]
            if numbers:
                tied = (_TIES.c.project == _TABLE.c.project) & (_TIES.c.dataset == _TABLE.c.id)
                wanted.append(exists().where(tied, _TIES.c.experiment.in_(numbers)))
            keys: list[ColumnElement[Any]] = []
            for order in orders:
                column = _TABLE.c[_COLUMNS[order.key]]
                keys += [case((column.is_(None), 1), else_=0), column.asc() if order.ascending else column.desc()]
            found = select(_TABLE.c.id).where(*wanted).order_by(*keys, _TABLE.c.id.desc())
            ids = [row.id for row in tx.all(found.limit(limit + 1).offset(offset))]
            more = filters.page_token(offset + limit) if len(ids) > limit else None
            return Page(_nouns(tx, ids[:limit]), more)

    def set_tags(self, scope: Scope, dataset_id: str, tags: Mapping[str, str]) -> None:
        """Set tags. Raises NotFound, InvalidInput."""
        with self._database.transaction(scope) as tx:
            _row(tx, dataset_id)
            _put_tags(tx, dataset_id, tags)

    def delete_tag(self, scope: Scope, dataset_id: str, key: str) -> None:
        """Remove a tag, if it is there."""
        with self._database.transaction(scope) as tx:
            tx.execute(_TAGS.delete().where(_of(tx, _TAGS, dataset_id), _TAGS.c.key == key))

    def add_experiments(self, scope: Scope, dataset_id: str, experiment_ids: Sequence[str]) -> EvaluationDataset:
        """Tie a dataset to experiments. Raises NotFound for either."""
        numbers = [rules.experiment_number(one) for one in experiment_ids]
        self._experiments.make_ready(scope.project)
        with self._database.transaction(scope) as tx:
            _row(tx, dataset_id)
            _tie(tx, dataset_id, numbers)
            _touch(tx, dataset_id)
            return _nouns(tx, [dataset_id])[0]

    def remove_experiments(self, scope: Scope, dataset_id: str, experiment_ids: Sequence[str]) -> EvaluationDataset:
        """Untie a dataset from experiments, where it is tied. Raises NotFound for the dataset."""
        numbers = [rules.experiment_number(one) for one in experiment_ids]
        with self._database.transaction(scope) as tx:
            _row(tx, dataset_id)
            tx.execute(_TIES.delete().where(_of(tx, _TIES, dataset_id), _TIES.c.experiment.in_(numbers)))
            _touch(tx, dataset_id)
            return _nouns(tx, [dataset_id])[0]

    def delete(self, scope: Scope, dataset_id: str) -> None:
        """Delete a dataset and its records for good, if it is there."""
        with self._database.transaction(scope) as tx:
            for table in (_TAGS, _TIES, _RECORDS):
                tx.execute(table.delete().where(_of(tx, table, dataset_id)))
            gone = tx.execute(_TABLE.delete().where(_TABLE.c.project == tx.project, _TABLE.c.id == dataset_id))
            if gone.rowcount:
                tx.event("evaluation_dataset.deleted", f"evaluation-dataset:{dataset_id[:64]}")

    def put_records(self, scope: Scope, dataset_id: str, asked: Sequence[PutRecord]) -> tuple[int, int]:
        """Add records, or merge them with those of the same inputs; all or none. Returns how many were added and how
        many merged. Raises NotFound, InvalidInput."""
        if len(asked) > RECORDS_AT_ONCE_MAX:
            raise InvalidInput(
                f"at most {RECORDS_AT_ONCE_MAX} records at once, not {len(asked)}", code="evaluation_dataset.too_many"
            )
        with self._database.transaction(scope) as tx:
            row = _row(tx, dataset_id)
            added, merged, by = _put_records(tx, dataset_id, asked)
            now = max(experiments.now_ms(tx), row.updated_ms + 1)
            fields = fields_of(row.fields, asked)
            _change(
                tx, dataset_id, updated_ms=now, updated_by=by or row.updated_by, digest=_digest(row.name, now),
                fields=fields,
            )  # fmt: skip
            return added, merged

    def records(
        self, scope: Scope, dataset_id: str, limit: int = 1_000, page: str | None = None
    ) -> Page[EvaluationRecord]:
        """The records of a dataset in the order in which they came. Raises NotFound, InvalidInput."""
        after = filters.page_offset(page)
        with self._database.reading(scope) as tx:
            _row(tx, dataset_id)
            wanted = select(_RECORDS).where(_of(tx, _RECORDS, dataset_id), _RECORDS.c.place > after)
            rows = tx.all(wanted.order_by(_RECORDS.c.place).limit(limit + 1))
        more = filters.page_token(rows[limit - 1].place) if len(rows) > limit else None
        return Page([_record(row) for row in rows[:limit]], more)

    def delete_records(self, scope: Scope, dataset_id: str, record_ids: Sequence[str]) -> int:
        """Delete records, as far as they are there. Returns how many. Raises NotFound for the dataset."""
        with self._database.transaction(scope) as tx:
            row = _row(tx, dataset_id)
            gone = tx.execute(_RECORDS.delete().where(_of(tx, _RECORDS, dataset_id), _RECORDS.c.id.in_(record_ids)))
            if gone.rowcount:
                now = max(experiments.now_ms(tx), row.updated_ms + 1)
                _change(tx, dataset_id, updated_ms=now, digest=_digest(row.name, now))
            return int(gone.rowcount)


def fields_of(known: Mapping[str, Any] | None, added: Sequence[PutRecord]) -> dict[str, Any] | None:
    """Which keys inputs, outputs and expectations have, and of which type: the known ones, and what is added."""
    if known is None and not added:
        return None
    found: dict[str, Any] = {
        part: dict(value) if isinstance(value := (known or {}).get(part, {}), Mapping) else value
        for part in ("inputs", "outputs", "expectations")
    }
    for record in added:
        outputs = None if record.outputs is msgspec.UNSET else record.outputs
        for part, values in (
            ("inputs", record.inputs), ("outputs", outputs), ("expectations", record.expectations)
        ):  # fmt: skip
            if isinstance(values, Mapping) and isinstance(found[part], dict):
                for key, value in values.items():
                    found[part].setdefault(key, _type_name(value))
            elif values is not None and not found[part]:
                found[part] = _type_name(values)
    return {**found, "version": "1.0"}


def _type_name(value: Any) -> str:
    names = {bool: "boolean", int: "integer", float: "float", str: "string", list: "array", dict: "object"}
    return "null" if value is None else names.get(type(value), "unknown")


def _put_records(tx: Transaction, dataset_id: str, asked: Sequence[PutRecord]) -> tuple[int, int, str | None]:
    digests = [hashlib.sha256(msgspec.json.encode(one.inputs, order="deterministic")).hexdigest() for one in asked]
    known = _known(tx, dataset_id, digests)
    place = int(tx.scalar(select(func.coalesce(func.max(_RECORDS.c.place), 0)).where(_of(tx, _RECORDS, dataset_id))))
    now, added, merged, by = experiments.now_ms(tx), 0, 0, None
    rows: dict[str, dict[str, Any]] = {}
    for digest, one in zip(digests, asked, strict=True):
        before = rows.get(digest) or known.get(digest)
        user = one.tags.get(USER_TAG)
        by = user or by
        if before is None:
            place += 1
            added += 1
            rows[digest] = {
                "project": tx.project, "dataset": dataset_id, "inputs_digest": digest, "id": f"dr-{new_id()}",
                "inputs": one.inputs, "outputs": None if one.outputs is msgspec.UNSET else one.outputs,
                "expectations": one.expectations, "tags": one.tags, "source_type": one.source_type,
                "source": one.source, "created_ms": now, "updated_ms": now, "created_by": user, "updated_by": user,
                "place": place,
            }  # fmt: skip
            continue
        merged += 1
        rows[digest] = {
            **before,
            "outputs": before["outputs"] if one.outputs is msgspec.UNSET else one.outputs,
            "expectations": {**(before["expectations"] or {}), **(one.expectations or {})} or None,
            "tags": {**before["tags"], **one.tags},
            "updated_ms": now,
            "updated_by": user or before["updated_by"],
        }
    changed = ["outputs", "expectations", "tags", "updated_ms", "updated_by"]
    store.put_rows(tx, _RECORDS, [rows[digest] for digest in sorted(rows)], changed)
    return added, merged, by


def _known(tx: Transaction, dataset_id: str, digests: Sequence[str]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for some in portions(digests, 1_000):
        rows = tx.all(select(_RECORDS).where(_of(tx, _RECORDS, dataset_id), _RECORDS.c.inputs_digest.in_(some)))
        found.update({row.inputs_digest: dict(row._mapping) for row in rows})
    return found


def _condition(tx: Transaction, clause: filters.Clause) -> ColumnElement[bool]:
    if clause.field == "attribute":
        return compare(tx, _TABLE.c[_COLUMNS[clause.key]], clause)
    tags = _TAGS.alias()
    here = (tags.c.project == _TABLE.c.project) & (tags.c.dataset == _TABLE.c.id) & (tags.c.key == clause.key)
    return exists().where(here, compare(tx, tags.c.value, clause))


def _row(tx: Transaction, dataset_id: str) -> Row[Any]:
    row = tx.one(select(_TABLE).where(_TABLE.c.project == tx.project, _TABLE.c.id == dataset_id))
    if row is None:
        raise NotFound(f"Evaluation dataset with id '{dataset_id[:80]}' not found", code="evaluation_dataset.not_found")
    return row


def _digest(name: str, updated_ms: int) -> str:
    return hashlib.sha256(f"{name}:{updated_ms}".encode()).hexdigest()[:8]


def _put_tags(tx: Transaction, dataset_id: str, tags: Mapping[str, str]) -> None:
    for key in tags:
        rules.check_length("key", rules.KEY_CHARACTERS_MAX, key)
    rows = [{"project": tx.project, "dataset": dataset_id, "key": key, "value": tags[key]} for key in sorted(tags)]
    store.put_rows(tx, _TAGS, rows, ["value"])


def _tie(tx: Transaction, dataset_id: str, numbers: Sequence[int]) -> None:
    known = store.experiments
    there = select(known.c.number).where(known.c.project == tx.project, known.c.number.in_(numbers))
    missing = set(numbers) - {row.number for row in tx.all(there)}
    if missing:
        raise NotFound(f"No Experiment with id={min(missing)} exists", code="experiment.not_found")
    last = int(tx.scalar(select(func.coalesce(func.max(_TIES.c.place), 0)).where(_of(tx, _TIES, dataset_id))))
    rows = [
        {"project": tx.project, "dataset": dataset_id, "experiment": number, "place": last + at}
        for at, number in enumerate(dict.fromkeys(numbers), 1)
    ]
    if rows:
        tx.execute(store.inserting(tx, _TIES).on_conflict_do_nothing(), rows)


def _touch(tx: Transaction, dataset_id: str) -> None:
    _change(tx, dataset_id, updated_ms=experiments.now_ms(tx))


def _change(tx: Transaction, dataset_id: str, **values: Any) -> None:
    tx.execute(_TABLE.update().where(_TABLE.c.project == tx.project, _TABLE.c.id == dataset_id).values(**values))


def _of(tx: Transaction, table: Any, dataset_id: str) -> ColumnElement[bool]:
    found: ColumnElement[bool] = (table.c.project == tx.project) & (table.c.dataset == dataset_id)
    return found


def _nouns(tx: Transaction, dataset_ids: Sequence[str]) -> list[EvaluationDataset]:
    tags: dict[str, dict[str, str]] = {}
    ties: dict[str, list[str]] = {}
    named = {table: table.c.dataset.in_(dataset_ids) & (table.c.project == tx.project) for table in (_TAGS, _TIES)}
    for row in tx.all(select(_TAGS).where(named[_TAGS])):
        tags.setdefault(row.dataset, {})[row.key] = row.value
    for row in tx.all(select(_TIES).where(named[_TIES]).order_by(_TIES.c.place)):
        ties.setdefault(row.dataset, []).append(str(row.experiment))
    counted = select(_RECORDS.c.dataset, func.count().label("records")).where(
        _RECORDS.c.project == tx.project, _RECORDS.c.dataset.in_(dataset_ids)
    )
    counts = {row.dataset: row.records for row in tx.all(counted.group_by(_RECORDS.c.dataset))}
    rows = {
        row.id: row
        for row in tx.all(select(_TABLE).where(_TABLE.c.project == tx.project, _TABLE.c.id.in_(dataset_ids)))
    }
    return [
        EvaluationDataset(
            id=one, name=rows[one].name, digest=rows[one].digest, created_ms=rows[one].created_ms,
            updated_ms=rows[one].updated_ms, created_by=rows[one].created_by, updated_by=rows[one].updated_by,
            tags=tags.get(one, {}), fields=rows[one].fields, records=counts.get(one, 0),
            experiment_ids=ties.get(one, []),
        )
        for one in dataset_ids
    ]  # fmt: skip


def _record(row: Row[Any]) -> EvaluationRecord:
    return EvaluationRecord(
        id=row.id, dataset_id=row.dataset, inputs=row.inputs, outputs=row.outputs, expectations=row.expectations,
        tags=row.tags, source_type=row.source_type, source=row.source, created_ms=row.created_ms,
        updated_ms=row.updated_ms, created_by=row.created_by, updated_by=row.updated_by,
    )  # fmt: skip
