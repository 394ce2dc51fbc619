"""Clauses of a filter as SQL, on SQLite and PostgreSQL alike."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Select, exists, select

from modelyard.kernel.database import Transaction
from modelyard.kernel.errors import InvalidInput
from modelyard.planes.registry import store
from modelyard.planes.registry.search import PROMPT_TAG, Clause

PATTERN_CHARACTERS_MAX = 8_000
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_VERSION_COLUMNS = {
    "name": store.models.c.name,
    "version_number": store.versions.c.version,
    "run_id": store.versions.c.run_id,
    "source_path": store.versions.c.source,
}


def models_where(tx: Transaction, statement: Select[Any], clauses: Sequence[Clause], *, prompts: bool) -> Select[Any]:
    """Live models of the project that meet all clauses."""
    models, tags = store.models, store.model_tags
    statement = statement.where(models.c.project == tx.project, models.c.live_name.is_not(None))
    for clause in _plain(clauses, prompts):
        if clause.field == "attribute":
            statement = statement.where(compare(tx, models.c.name, clause))
        else:
            same = (tags.c.model_id == models.c.id) & (tags.c.key == clause.key)
            statement = statement.where(exists().where(same, compare(tx, tags.c.value, clause)))
    return statement if prompts else statement.where(~_is_prompt(models.c.id))


def versions_where(tx: Transaction, clauses: Sequence[Clause], *, prompts: bool) -> Select[Any]:
    """Versions of the project that meet all clauses and were not dropped, with their model's name."""
    models, versions, tags = store.models, store.versions, store.version_tags
    statement = (
        select(versions, models.c.name)
        .join(models, models.c.id == versions.c.model_id)
        .where(models.c.project == tx.project, models.c.live_name.is_not(None), versions.c.dropped_at.is_(None))
    )
    for clause in _plain(clauses, prompts):
        if clause.field == "attribute":
            statement = statement.where(compare(tx, _VERSION_COLUMNS[clause.key], clause))
        else:
            same = (
                (tags.c.model_id == versions.c.model_id)
                & (tags.c.version == versions.c.version)
                & (tags.c.key == clause.key)
            )
            statement = statement.where(exists().where(same, compare(tx, tags.c.value, clause)))
    if prompts:
        return statement.where(_is_prompt(models.c.id) | _is_prompt_version())
    return statement.where(~_is_prompt_version())


def compare(tx: Transaction, column: ColumnElement[Any], clause: Clause) -> ColumnElement[bool]:
    """A comparison as SQL. LIKE minds the case, ILIKE does not; a backslash is a backslash."""
    value = clause.value
    if clause.operator == "IN":
        assert isinstance(value, list)
        # Run ids have lower-case letters only; MLflow's clients rely on others finding nothing.
        return column.in_([one for one in value if one == one.lower()])
    if clause.operator not in ("LIKE", "ILIKE"):
        compared: ColumnElement[bool] = _COMPARE[clause.operator](column, value)
        return compared
    assert isinstance(value, str)
    if len(value) > PATTERN_CHARACTERS_MAX:
        raise InvalidInput(
            f"a pattern may have {PATTERN_CHARACTERS_MAX} characters, not {len(value)}", code="filter.too_long"
        )
    if tx.dialect == "postgresql":
        pattern = value.replace("\\", "\\\\")
        return column.like(pattern) if clause.operator == "LIKE" else column.ilike(pattern)
    # SQLite's LIKE folds the case of ASCII letters, its GLOB does not.
    if clause.operator == "ILIKE":
        return column.op("LIKE", is_comparison=True)(value)
    return column.op("GLOB", is_comparison=True)(_glob(value))


def _glob(pattern: str) -> str:
    replaced = {"%": "*", "_": "?", "*": "[*]", "?": "[?]", "[": "[[]"}
    return "".join(replaced.get(character, character) for character in pattern)


def _plain(clauses: Sequence[Clause], prompts: bool) -> list[Clause]:
    """Models have no prompt tag, so a filter that keeps prompts out says nothing about them."""
    return [clause for clause in clauses if prompts or (clause.field, clause.key) != ("tag", PROMPT_TAG)]


def _is_prompt(model_id: ColumnElement[Any]) -> ColumnElement[bool]:
    tags = store.model_tags
    return exists().where(tags.c.model_id == model_id, tags.c.key == PROMPT_TAG, tags.c.value == sa.literal("true"))


def _is_prompt_version() -> ColumnElement[bool]:
    tags, versions = store.version_tags, store.versions
    return exists().where(
        tags.c.model_id == versions.c.model_id,
        tags.c.version == versions.c.version,
        tags.c.key == PROMPT_TAG,
        tags.c.value == sa.literal("true"),
    )
