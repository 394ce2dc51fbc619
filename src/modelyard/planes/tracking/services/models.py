"""The verbs of logged models: what a run saves, before anybody registers it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row, select

from modelyard.kernel.auth import Scope
from modelyard.kernel.clock import from_us
from modelyard.kernel.database import Database, Transaction
from modelyard.kernel.errors import InvalidInput, NotFound
from modelyard.kernel.ids import new_id
from modelyard.planes.tracking import filters, rules, search, store
from modelyard.planes.tracking.services import experiments, metrics
from modelyard.types.page import Page
from modelyard.types.tracking import LoggedModel, ModelStatus

PAGE_DEFAULT = 100
PAGE_MAX = 1_000
_TABLE = store.logged_models


class LoggedModels:
    """Logged models of a project: create, get, search, finish, delete, and their params and tags."""

    def __init__(self, database: Database, of_experiments: experiments.Experiments) -> None:
        self._database = database
        self._experiments = of_experiments

    def create(
        self,
        scope: Scope,
        experiment_id: str,
        name: str | None = None,
        *,
        model_type: str | None = None,
        source_run_id: str | None = None,
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> LoggedModel:
        """A new model whose files are still to come (PENDING). Raises NotFound, InvalidInput."""
        if name is not None:
            rules.check_model_name(name)
        number = rules.experiment_number(experiment_id)
        self._experiments.make_ready(scope.project)
        model_id = f"m-{new_id()}"
        with self._database.transaction(scope) as tx:
            experiment = experiments.active(tx, number)
            now = experiments.now_ms(tx)
            location = f"{experiment.artifact_location.rstrip('/')}/models/{model_id}/artifacts"
            tx.execute(
                _TABLE.insert().values(
                    project=tx.project, id=model_id, experiment=number, name=name or f"model-{model_id[-8:]}",
                    artifact_location=location, status="PENDING", stage="active", created_ms=now, updated_ms=now,
                    model_type=model_type or None, source_run_id=source_run_id or None,
                )
            )  # fmt: skip
            _put(tx, store.model_params, model_id, params or {})
            _put(tx, store.model_tags, model_id, tags or {})
            tx.event(
                "logged_model.created", f"logged-model:{model_id}", {"name": name or "", "run": source_run_id or ""}
            )
            return _nouns(tx, [_row(tx, model_id)])[0]

    def get(self, scope: Scope, model_id: str, *, allow_deleted: bool = False) -> LoggedModel:
        """A model with its params, tags and metrics. Raises NotFound, also for a deleted one unless that is allowed."""
        with self._database.reading(scope) as tx:
            row = _row(tx, model_id)
            if row.stage == "deleted" and not allow_deleted:
                raise _missing(model_id)
            return _nouns(tx, [row])[0]

    def search(
        self,
        scope: Scope,
        experiment_ids: Sequence[str] | None = None,
        filter: str = "",
        order_by: Sequence[filters.ModelOrder] = (),
        datasets: Sequence[tuple[str, str | None]] = (),
        limit: int = PAGE_DEFAULT,
        page: str | None = None,
    ) -> Page[LoggedModel]:
        """The models that a filter picks, newest first unless ordered otherwise. Raises InvalidInput."""
        if not 1 <= limit <= PAGE_MAX:
            raise InvalidInput(
                f"Invalid value {limit} for parameter 'max_results' supplied. It must be 1 to {PAGE_MAX}",
                code="search.limit_invalid",
            )
        clauses, offset = filters.parse_models(filter), filters.page_offset(page)
        numbers = None if experiment_ids is None else [rules.experiment_number(one) for one in experiment_ids]
        with self._database.reading(scope) as tx:
            rows = search.model_rows(tx, numbers, clauses, order_by, datasets, limit + 1, offset)
            more = filters.page_token(offset + limit) if len(rows) > limit else None
            return Page(_nouns(tx, rows[:limit]), more)

    def finish(self, scope: Scope, model_id: str, status: ModelStatus) -> LoggedModel:
        """Say that its files are complete (READY) or never will be (FAILED). Raises NotFound."""
        return self._change(scope, model_id, "logged_model.finished", status=status)

    def delete(self, scope: Scope, model_id: str) -> None:
        """Mark a model deleted. Raises NotFound."""
        self._change(scope, model_id, "logged_model.deleted", stage="deleted")

    def log_params(self, scope: Scope, model_id: str, params: Mapping[str, str]) -> None:
        """Add params. Raises NotFound, or InvalidInput for one that has another value already."""
        with self._database.transaction(scope) as tx:
            _row(tx, model_id)
            known = store.key_values(tx, store.model_params, store.model_params.c.model_id == model_id)
            for key, value in params.items():
                if known.get(key, value) != value:
                    raise InvalidInput(
                        f"Changing param values is not allowed. Param with key='{key}' was already logged with "
                        f"value='{known[key]}' for model ID='{model_id}'.",
                        code="param.changed",
                    )
            _put(tx, store.model_params, model_id, params)

    def set_tags(self, scope: Scope, model_id: str, tags: Mapping[str, str]) -> LoggedModel:
        """Set tags. Raises NotFound."""
        with self._database.transaction(scope) as tx:
            row = _row(tx, model_id)
            _put(tx, store.model_tags, model_id, tags)
            return _nouns(tx, [row])[0]

    def delete_tag(self, scope: Scope, model_id: str, key: str) -> None:
        """Remove a tag. Raises NotFound where there is none."""
        table = store.model_tags
        with self._database.transaction(scope) as tx:
            _row(tx, model_id)
            gone = tx.execute(
                table.delete().where(table.c.project == tx.project, table.c.model_id == model_id, table.c.key == key)
            )
            if gone.rowcount == 0:
                raise NotFound(
                    f"No tag with key {key!r} found for model with ID {model_id!r}.",
                    code="logged_model.tag_not_found",
                )

    def _change(self, scope: Scope, model_id: str, event: str, **values: str) -> LoggedModel:
        with self._database.transaction(scope) as tx:
            _row(tx, model_id)
            tx.execute(
                _TABLE.update()
                .where(_TABLE.c.project == tx.project, _TABLE.c.id == model_id)
                .values(updated_ms=experiments.now_ms(tx), **values)
            )
            tx.event(event, f"logged-model:{model_id}", values)
            return _nouns(tx, [_row(tx, model_id)])[0]


def known(tx: Transaction, model_id: str) -> bool:
    """Whether there is a logged model of this id."""
    return tx.one(select(_TABLE.c.id).where(_TABLE.c.project == tx.project, _TABLE.c.id == model_id)) is not None


def tag(tx: Transaction, model_id: str, key: str) -> str | None:
    """A tag of a logged model."""
    return store.key_values(tx, store.model_tags, store.model_tags.c.model_id == model_id).get(key)


def put_texts(tx: Transaction, model_id: str, params: Mapping[str, str], tags: Mapping[str, str]) -> None:
    """Set params and tags of a logged model. Raises InvalidInput for a bad key."""
    _put(tx, store.model_params, model_id, params)
    _put(tx, store.model_tags, model_id, tags)


def noun_of(tx: Transaction, model_id: str) -> LoggedModel:
    """A logged model of whichever stage. Raises NotFound."""
    return _nouns(tx, [_row(tx, model_id)])[0]


def _row(tx: Transaction, model_id: str) -> Row[Any]:
    row = tx.one(select(_TABLE).where(_TABLE.c.project == tx.project, _TABLE.c.id == model_id))
    if row is None:
        raise _missing(model_id)
    return row


def _missing(model_id: str) -> NotFound:
    return NotFound(f"Logged model with ID '{model_id[:80]}' not found.", code="logged_model.not_found")


def _put(tx: Transaction, table: Any, model_id: str, pairs: Mapping[str, str]) -> None:
    rows = []
    for key in sorted(pairs):
        value = rules.param_value(key, pairs[key]) if table is store.model_params else rules.tag_value(key, pairs[key])
        rows.append({"project": tx.project, "model_id": model_id, "key": key, "value": value})
    store.put_rows(tx, table, rows, ["value"])


def _nouns(tx: Transaction, rows: Sequence[Row[Any]]) -> list[LoggedModel]:
    ids = [row.id for row in rows]
    texts: list[dict[str, dict[str, str]]] = []
    for table in (store.model_params, store.model_tags):
        grouped: dict[str, dict[str, str]] = {}
        for row in tx.all(select(table).where(table.c.project == tx.project, table.c.model_id.in_(ids))):
            grouped.setdefault(row.model_id, {})[row.key] = row.value
        texts.append(grouped)
    values = metrics.of_models(tx, ids)
    return [
        LoggedModel(
            id=row.id,
            experiment_id=str(row.experiment),
            name=row.name,
            artifact_location=row.artifact_location,
            status=row.status,
            stage=row.stage,
            created_at=from_us(row.created_ms * 1_000),
            updated_at=from_us(row.updated_ms * 1_000),
            model_type=row.model_type,
            source_run_id=row.source_run_id,
            params=texts[0].get(row.id, {}),
            tags=texts[1].get(row.id, {}),
            metrics=values.get(row.id, []),
        )
        for row in rows
    ]
