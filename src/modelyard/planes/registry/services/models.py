"""The verbs of registered models: create, find, describe, tag, rename, delete, and declare their policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy import select

from modelyard.kernel.auth import Action, Scope, check
from modelyard.kernel.database import Database, Transaction
from modelyard.kernel.errors import Conflict
from modelyard.kernel.ids import new_id
from modelyard.planes.registry import store
from modelyard.planes.registry.documents import check_policy
from modelyard.planes.registry.filtering import models_where
from modelyard.planes.registry.ports import Uses
from modelyard.planes.registry.retention import protection
from modelyard.planes.registry.rows import locked_model, model_row, uses_of
from modelyard.planes.registry.rules import (
    check_description,
    check_model_name,
    check_tag_key,
    check_tags,
    guards,
)
from modelyard.planes.registry.search import (
    asks_for_prompts,
    order_models,
    parse_models,
)
from modelyard.planes.tracking import page_offset, page_token
from modelyard.types.page import Page
from modelyard.types.registry import PROTECTED_TAG, AliasMove, Model, Policy

_ORDER_COLUMNS = {"name": store.models.c.name, "updated_at": store.models.c.updated_at}


class Models:
    """Registered models of a project."""

    def __init__(self, database: Database, uses: Sequence[Uses] = ()) -> None:
        self._database = database
        self._uses = uses

    def create(
        self,
        scope: Scope,
        name: str,
        *,
        description: str = "",
        tags: Mapping[str, str] | None = None,
        policy: Policy | None = None,
    ) -> Model:
        """Register a name. Raises InvalidInput, Conflict (`model.exists`)."""
        check_model_name(name)
        check_description(description)
        checked = check_tags(tags or {})
        if policy is not None:
            check_policy(policy)
        with self._database.transaction(scope) as tx:
            if store.live_model(tx, name) is not None:
                raise _exists(name)
            model_id = new_id()
            policy, said = _policy_at_creation(tx, name, policy)
            _insert(tx, model_id, name, description, policy)
            _own_name(tx, model_id, name)
            for key, value in checked.items():
                store.set_tag(tx, store.model_tags, {"model_id": model_id, "key": key}, value)
            tx.event("model.created", f"model:{name}", {"model": name})
            if policy is not None:
                tx.event("model.policy_set", f"model:{name}", {"model": name, "reason": said})
            return store.to_models(tx, [model_row(tx, name)])[0]

    def get(self, scope: Scope, name: str) -> Model:
        """A model with its aliases, policy and the newest version of each stage. Raises NotFound."""
        with self._database.reading(scope) as tx:
            return store.to_models(tx, [model_row(tx, name)])[0]

    def search(
        self,
        scope: Scope,
        filter: str = "",
        order_by: Sequence[str] = (),
        *,
        limit: int = 100,
        page: str | None = None,
    ) -> Page[Model]:
        """Models that meet a filter, by name unless ordered otherwise; prompts only where they are asked for."""
        clauses = parse_models(filter)
        orders = order_models(order_by)
        offset = page_offset(page)
        with self._database.reading(scope) as tx:
            statement = models_where(tx, select(store.models), clauses, prompts=asks_for_prompts(clauses))
            for order in orders:
                column = _ORDER_COLUMNS[order.key]
                statement = statement.order_by(column.asc() if order.ascending else column.desc())
            rows = tx.all(statement.limit(limit + 1).offset(offset))
            found = store.to_models(tx, rows[:limit])
        return Page(found, page_token(offset + limit) if len(rows) > limit else None)

    def describe(self, scope: Scope, name: str, description: str) -> Model:
        """Set the description."""
        check_description(description)
        with self._database.transaction(scope) as tx:
            row = locked_model(tx, name)
            tx.execute(store.models.update().where(store.models.c.id == row.id).values(description=description))
            tx.event("model.described", f"model:{name}", {"model": name})
            return store.to_models(tx, [model_row(tx, name)])[0]

    def set_tag(self, scope: Scope, name: str, key: str, value: str) -> None:
        """Set a tag."""
        check_tags({key: value})
        with self._database.transaction(scope) as tx:
            row = locked_model(tx, name, updated=False)
            store.set_tag(tx, store.model_tags, {"model_id": row.id, "key": key}, value)
            tx.event("model.tagged", f"model:{name}", {"model": name, "key": key})

    def unset_tag(self, scope: Scope, name: str, key: str) -> None:
        """Take a tag away; that it is not there is no error."""
        check_tag_key(key)
        with self._database.transaction(scope) as tx:
            row = locked_model(tx, name, updated=False)
            store.unset_tag(tx, store.model_tags, {"model_id": row.id, "key": key})
            tx.event("model.untagged", f"model:{name}", {"model": name, "key": key})

    def set_policy(self, scope: Scope, name: str, policy: Policy | None, reason: str = "") -> Model:
        """Declare, change or take away the policy. Who wants to change a declared one has to be an admin."""
        if policy is not None:
            check_policy(policy)
        with self._database.transaction(scope) as tx:
            row = locked_model(tx, name, revised=True)
            if row.policy is not None:
                check(scope.principal, Action.ADMIN, scope.project)
            tx.execute(store.models.update().where(store.models.c.id == row.id).values(policy=policy))
            tx.event(
                "model.policy_set" if policy is not None else "model.policy_removed",
                f"model:{name}",
                {"model": name, "reason": reason},
            )
            return store.to_models(tx, [model_row(tx, name)])[0]

    def rename(self, scope: Scope, name: str, new_name: str) -> Model:
        """Give a model another name; versions, aliases and history come along. Raises Conflict where it is taken."""
        check_model_name(new_name, "new_name")
        with self._database.transaction(scope) as tx:
            row = locked_model(tx, name)
            _check_power(scope, row)
            if new_name == name:
                return store.to_models(tx, [row])[0]
            if store.live_model(tx, new_name) is not None:
                raise Conflict(f"Registered Model (name={new_name}) already exists.", code="model.exists")
            _take_name(tx, row, new_name)
            numbers = store.usable_versions(tx, row.id)
            tx.execute(
                store.models.update().where(store.models.c.id == row.id).values(name=new_name, live_name=new_name)
            )
            tx.execute(
                store.versions.update()
                .where(store.versions.c.model_id == row.id, store.versions.c.dropped_at.is_(None))
                .values(updated_at=tx.now)
            )
            for number in numbers:
                tx.link(f"model:{new_name}@{number}", "derived", f"model:{name}@{number}")
            tx.event("model.renamed", f"model:{new_name}", {"model": new_name, "previous": name})
            return store.to_models(tx, [model_row(tx, new_name)])[0]

    def delete(self, scope: Scope, name: str, reason: str = "") -> None:
        """Drop a model with all its versions; its numbers are never given out again under this name."""
        with self._database.transaction(scope) as tx:
            row = locked_model(tx, name)
            _check_power(scope, row)
            _check_deletable(tx, row, self._uses)
            for alias in tx.all(select(store.aliases).where(store.aliases.c.model_id == row.id)):
                store.point_alias(tx, row.id, alias.alias, None)
                move = AliasMove(
                    id=new_id(),
                    model=name,
                    alias=alias.alias,
                    kind="drop",
                    version=None,
                    previous=alias.version,
                    at=tx.now,
                    by=tx.actor,
                    reason=reason or "the model was deleted",
                )
                store.add_move(tx, row.id, move)
                announce_move(tx, move)
            tx.execute(
                store.versions.update()
                .where(store.versions.c.model_id == row.id, store.versions.c.dropped_at.is_(None))
                .values(dropped_at=tx.now, dropped_by=tx.actor, dropped_reason=reason or "the model was deleted")
            )
            tx.execute(
                store.models.update().where(store.models.c.id == row.id).values(live_name=None, deleted_at=tx.now)
            )
            tx.event("model.deleted", f"model:{name}", {"model": name, "reason": reason})


def announce_move(tx: Transaction, move: AliasMove) -> None:
    """Say that an alias moved. The subject is the version it moved to, or the one that it left for none."""
    tx.event(
        "model.alias_moved",
        f"model:{move.model}@{move.version or move.previous}",
        {
            "alias": move.alias,
            "model": move.model,
            "version": move.version,
            "previous": move.previous,
            "kind": move.kind,
            "reason": move.reason,
            "unmet": move.unmet,
        },
    )


def _policy_at_creation(tx: Transaction, name: str, policy: Policy | None) -> tuple[Policy | None, str]:
    """A name whose last model had a policy keeps it: to delete a model and make it anew is no way round its gates."""
    before = store.last_model(tx, name)
    had = None if before is None or before.deleted_at is None else store.policy_of(before)
    if had is not None and (policy is None or not tx.scope.principal.may(Action.ADMIN, tx.project)):
        return had, "kept from the deleted model of this name"
    return policy, "declared at creation"


def _check_deletable(tx: Transaction, row: Any, uses: Sequence[Uses]) -> None:
    """A model goes only when nothing of it is served, guarded or tagged as protected."""
    served = uses_of(tx, uses, row.name)
    policy, retention = store.policy_of(row), store.retention_of(row)
    tags = retention.protected_tags if retention is not None else [PROTECTED_TAG]
    live = store.with_name(row).where(store.versions.c.dropped_at.is_(None)).order_by(store.versions.c.version)
    for version in store.to_versions(tx, tx.all(live)):
        held = [one for one in version.aliases if policy is not None and guards(policy, one)]
        stage = version.stage if policy is not None else "None"
        looked_at = msgspec.structs.replace(version, aliases=held, stage=stage)
        guard = protection(looked_at, tags, served.get(version.version, ()))
        if guard:
            raise Conflict(
                f"model '{row.name}' cannot be deleted: version {version.version} is protected: {guard}",
                code="version.in_use",
                hint="take the alias, the endpoint or the tag away first",
            )


def _insert(tx: Transaction, model_id: str, name: str, description: str, policy: Policy | None) -> None:
    tx.execute(
        store.models.insert().values(
            id=model_id,
            project=tx.project,
            name=name,
            live_name=name,
            description=description,
            created_at=tx.now,
            created_by=tx.actor,
            updated_at=tx.now,
            deleted_at=None,
            policy=policy,
            revision=0,
        )
    )


def _own_name(tx: Transaction, model_id: str, name: str) -> None:
    """Let the numbers of a name that was used before go on, so that `model:name@3` never means two things."""
    found = store.last_number(tx, name)
    if found is None:
        tx.execute(store.names.insert().values(project=tx.project, name=name, model_id=model_id, last_version=0))
    else:
        tx.execute(store.names.update().where(_named(tx, name)).values(model_id=model_id))


def _take_name(tx: Transaction, row: Any, new_name: str) -> None:
    own = store.last_number(tx, row.name)
    last = 0 if own is None else own.last_version
    found = store.last_number(tx, new_name)
    if found is None:
        tx.execute(store.names.insert().values(project=tx.project, name=new_name, model_id=row.id, last_version=last))
        return
    if found.model_id != row.id and found.last_version > 0:
        raise Conflict(
            f"Registered Model (name={new_name}) already exists. It was deleted, but {found.last_version} versions "
            "of it stay on record under that name.",
            code="model.exists",
            hint="choose a name that was not used before",
        )
    tx.execute(
        store.names.update()
        .where(_named(tx, new_name))
        .values(model_id=row.id, last_version=max(last, found.last_version))
    )


def _named(tx: Transaction, name: str) -> sa.ColumnElement[bool]:
    return sa.and_(store.names.c.project == tx.project, store.names.c.name == name)


def _check_power(scope: Scope, row: Any) -> None:
    """A model with a policy is not renamed or deleted by whoever may write: that would be a way round the policy."""
    if row.policy is not None:
        check(scope.principal, Action.ADMIN, scope.project)


def _exists(name: str) -> Conflict:
    return Conflict(
        f"Registered Model (name={name}) already exists.",
        code="model.exists",
        hint="add a version to it, or choose another name",
    )
