"""Finding rows by the names that people use, or saying that they are not there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select

from modelyard.kernel import events, lineage
from modelyard.kernel.auth import Action, principal_named, principals
from modelyard.kernel.database import Transaction
from modelyard.kernel.errors import Conflict, NotFound
from modelyard.planes.registry import store
from modelyard.planes.registry.ports import Uses
from modelyard.planes.registry.rules import check_alias, check_model_name, check_version
from modelyard.types.registry import ModelVersion

JOB_PREFIX = "job:"
COPIES_FOLLOWED_MAX = 20


def model_row(tx: Transaction, name: str) -> Any:
    """The row of a model. Raises NotFound."""
    check_model_name(name)
    row = store.live_model(tx, name)
    if row is None:
        raise NotFound(
            f"Registered Model with name={name} not found",
            code="model.not_found",
            hint="list the models with `modelyard model list`",
        )
    return row


def past_model(tx: Transaction, name: str) -> Any:
    """The row of the model that has this name or had it last, also a deleted one: for its history. Raises NotFound."""
    check_model_name(name)
    row = store.live_model(tx, name) or store.last_model(tx, name)
    return model_row(tx, name) if row is None else row


def locked_model(tx: Transaction, name: str, *, revised: bool = False, updated: bool = True) -> Any:
    """The row of a model, locked until the commit, its time and (where `revised`) its revision renewed."""
    row = model_row(tx, name)
    store.touch(tx, row.id, revised=revised, updated=updated)
    return row


def version_row(tx: Transaction, model: Any, version: str | int) -> Any:
    """The row of a version that was not dropped. Raises NotFound."""
    row = store.version_row(tx, model.id, check_version(version))
    if row is None:
        raise _no_version(model.name, version)
    return row


def model_and_version(tx: Transaction, name: str, version: str | int) -> tuple[Any, Any]:
    """The rows of a version and its model. Raises NotFound, for the version where the model is not there either."""
    check_model_name(name)
    number = check_version(version)
    model = store.live_model(tx, name)
    row = None if model is None else store.version_row(tx, model.id, number)
    if row is None:
        raise _no_version(name, version)
    return model, row


def _no_version(name: str, version: str | int) -> NotFound:
    return NotFound(
        f"Model Version (name={name}, version={version}) not found",
        code="version.not_found",
        hint=f"list them with `modelyard model versions {name}`",
    )


def version_noun(tx: Transaction, model: Any, version: int) -> ModelVersion:
    """A version as a noun, with its tags and aliases."""
    row = tx.one(store.with_name(model).where(store.versions.c.version == version))
    assert row is not None
    return store.to_versions(tx, [row])[0]


def number_for(tx: Transaction, model: Any, reference: str | int) -> int:
    """The version that a number, an alias or `latest` names. Raises NotFound."""
    text = str(reference)
    if text.lower() == "latest":
        newest = max(store.usable_versions(tx, model.id), default=None)
        if newest is None:
            raise NotFound(f"Latest version not found for model {model.name}.", code="version.not_found")
        return newest
    aliased = store.alias_version(tx, model.id, text)
    if aliased is not None:
        return aliased
    if text.isdecimal():
        return int(version_row(tx, model, text).version)
    check_alias(text)
    raise NotFound(
        f"Registered model alias {text} not found.",
        code="alias.not_found",
        hint=f"see the aliases with `modelyard model get {model.name}`",
    )


def known_digest(row: Any, model: str) -> str:
    """The digest of a version's files. Raises Conflict where they lie outside this platform."""
    if not row.digest:
        raise Conflict(
            f"the files of {model}@{row.version} are not known here, so that nothing can be tied to them",
            code="version.no_files",
            hint="log the model to a run of this server and register models:/m-<id>",
        )
    return str(row.digest)


def data_behind(tx: Transaction, run: str) -> tuple[list[str], str, str]:
    """What a run, or the job that it ran in, used: the data versions, the code, the environment."""
    if not run:
        return [], "", ""
    subjects = [f"run:{run}"]
    found: dict[str, None] = {}
    for subject in subjects:
        for edge in lineage.neighbours(tx, subject):
            if edge.subject == subject and edge.relation == "used":
                found[edge.object] = None
            elif edge.relation == "produced" and edge.object == subject and edge.subject.startswith(JOB_PREFIX):
                subjects.append(edge.subject)
    data = sorted(urn for urn in found if urn.startswith("dataset:") and "#" not in urn)
    code = next((urn for urn in found if urn.startswith("code:")), "")
    environment = next((urn for urn in found if urn.startswith("env:")), "")
    return data, code, environment


def submitters_of(tx: Transaction, model: str, row: Any) -> frozenset[str]:
    """Who brought a version in: who registered it, who made its run, who submitted the job that did either, and the
    same of the version that it is a copy of."""
    people: set[str] = set()
    waiting = [(f"model:{model}@{row.version}", row.created_by)]
    for _ in range(COPIES_FOLLOWED_MAX):
        if not waiting:
            break
        urn, creator = waiting.pop()
        people |= _behind(tx, creator)
        for edge in lineage.neighbours(tx, urn):
            if edge.relation == "produced" and edge.object == urn and edge.subject.startswith("run:"):
                people |= _said(tx, edge.subject, "run.created")
            elif edge.relation == "derived" and edge.subject == urn:
                waiting += [(edge.object, one) for one in _said(tx, edge.object, "model.version_created")]
    return frozenset(people)


def _behind(tx: Transaction, actor: str) -> set[str]:
    """An actor, and who submitted it where it is a job."""
    if not actor.startswith(JOB_PREFIX):
        return {actor}
    said = events.recent(tx, subject=actor, kinds=frozenset({"job.submitted"}), limit=1)
    return {actor, *(str(event.data.get("submitted_by") or event.actor) for event in said)}


def _said(tx: Transaction, subject: str, kind: str) -> set[str]:
    """Who did what an event tells, with who is behind them."""
    found = events.recent(tx, subject=subject, kinds=frozenset({kind}), limit=1)
    return {one for event in found for one in _behind(tx, event.actor)}


def uses_of(tx: Transaction, uses: Sequence[Uses], name: str) -> dict[int, list[str]]:
    """The versions of a model that anything uses now, and what."""
    found: dict[int, list[str]] = {}
    for ask in uses:
        for number, users in ask(tx, name).items():
            found.setdefault(number, []).extend(users)
    return found


def may_approve(tx: Transaction, name: str, action: Action = Action.APPROVE) -> bool:
    """Whether a principal may approve now. Who is in no table acts in this very process, as its owner."""
    row = tx.one(select(principals.c.revoked).where(principals.c.name == name))
    if row is None:
        return True
    return not row.revoked and principal_named(tx, name).may(action, tx.project)
