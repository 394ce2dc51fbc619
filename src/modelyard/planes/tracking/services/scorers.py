"""The verbs of scorers: register, get, list, delete. What a scorer does is kept as a text, and never run here."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Row, Select, func, select

from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database, Transaction
from modelyard.kernel.errors import InvalidInput, NotFound
from modelyard.kernel.ids import new_id
from modelyard.planes.tracking import rules, scorer_store
from modelyard.planes.tracking.services import experiments
from modelyard.types.tracing import Scorer

NAME_CHARACTERS_MAX = 256
DEFINITION_CHARACTERS_MAX = 65_536
NESTED_MAX = 8
GATEWAY = "gateway:"
_SCORERS, _VERSIONS = scorer_store.scorers, scorer_store.versions
# Where the definitions of MLflow's kinds of scorers have their model.
_WITH_MODEL = ("instructions_judge_pydantic_data", "builtin_scorer_pydantic_data", "third_party_scorer_data")
_WITH_SCORER = "memory_augmented_judge_data"


class Scorers:
    """Scorers of the experiments of a project, in versions."""

    def __init__(self, database: Database, of_experiments: experiments.Experiments) -> None:
        self._database = database
        self._experiments = of_experiments

    def register(self, scope: Scope, experiment_id: str, name: str, definition: str) -> Scorer:
        """The next version of a scorer of an active experiment. Raises NotFound, InvalidInput."""
        number = rules.experiment_number(experiment_id)
        _check_name(name)
        _check_definition(definition)
        self._experiments.make_ready(scope.project)
        with self._database.transaction(scope) as tx:
            experiments.active(tx, number)
            scorer = tx.one(select(_SCORERS).where(*_here(tx, number, name)))
            version = 1 if scorer is None else scorer.last_version + 1
            scorer_id = new_id() if scorer is None else scorer.id
            if scorer is None:
                new = {"project": tx.project, "experiment": number, "name": name, "id": scorer_id}
                tx.execute(_SCORERS.insert().values(last_version=version, **new))
            else:
                # Guarded, so that two who register at once do not get one number.
                here = (*_here(tx, number, name), _SCORERS.c.last_version == scorer.last_version)
                tx.update_guarded(_SCORERS.update().where(*here).values(last_version=version), f"scorer '{name}'")
            made = Scorer(
                id=scorer_id, experiment_id=str(number), name=name, version=version, definition=definition,
                created_ms=experiments.now_ms(tx),
            )  # fmt: skip
            kept = {"version": version, "definition": definition, "created_ms": made.created_ms}
            tx.execute(_VERSIONS.insert().values(project=tx.project, scorer=scorer_id, **kept))
            tx.event("scorer.registered", f"scorer:{scorer_id}@{version}", {"experiment": str(number), "name": name})
            return made

    def get(self, scope: Scope, experiment_id: str, name: str, version: int | None = None) -> Scorer:
        """A version of a scorer, the latest unless one is named. Raises NotFound, InvalidInput."""
        found = self.versions(scope, experiment_id, name)
        if version is None:
            return found[-1]
        for one in found:
            if one.version == version:
                return one
        raise _missing(experiment_id, name, version)

    def versions(self, scope: Scope, experiment_id: str, name: str) -> list[Scorer]:
        """All versions of a scorer, oldest first. Raises NotFound, InvalidInput."""
        number = rules.experiment_number(experiment_id)
        self._experiments.make_ready(scope.project)
        with self._database.reading(scope) as tx:
            experiments.active(tx, number)
            rows = tx.all(_joined().where(*_here(tx, number, name)).order_by(_VERSIONS.c.version))
        if not rows:
            raise _missing(experiment_id, name)
        return [_noun(row) for row in rows]

    def latest(self, scope: Scope, experiment_id: str) -> list[Scorer]:
        """The latest version of each scorer of an active experiment, by name. Raises NotFound, InvalidInput."""
        number = rules.experiment_number(experiment_id)
        self._experiments.make_ready(scope.project)
        of_same = _VERSIONS.alias()
        latest = (
            select(func.max(of_same.c.version))
            .where(of_same.c.project == _VERSIONS.c.project, of_same.c.scorer == _VERSIONS.c.scorer)
            .scalar_subquery()
        )
        with self._database.reading(scope) as tx:
            experiments.active(tx, number)
            wanted = _joined().where(*_here(tx, number), _VERSIONS.c.version == latest)
            return [_noun(row) for row in tx.all(wanted.order_by(_SCORERS.c.name))]

    def delete(self, scope: Scope, experiment_id: str, name: str, version: int | None = None) -> None:
        """Delete a version of a scorer, or the scorer with all of them. Raises NotFound, InvalidInput."""
        number = rules.experiment_number(experiment_id)
        self._experiments.make_ready(scope.project)
        with self._database.transaction(scope) as tx:
            experiments.active(tx, number)
            scorer = tx.one(select(_SCORERS).where(*_here(tx, number, name)))
            if scorer is None:
                raise _missing(experiment_id, name)
            gone: list[ColumnElement[bool]] = [_VERSIONS.c.project == tx.project, _VERSIONS.c.scorer == scorer.id]
            if version is not None:
                gone.append(_VERSIONS.c.version == version)
            if tx.execute(_VERSIONS.delete().where(*gone)).rowcount == 0:
                raise _missing(experiment_id, name, version)
            if version is None:
                tx.execute(_SCORERS.delete().where(*_here(tx, number, name)))
            subject = f"scorer:{scorer.id}" if version is None else f"scorer:{scorer.id}@{version}"
            tx.event("scorer.deleted", subject, {"experiment": str(number), "name": name})


def model_of(definition: dict[str, Any], depth: int = 0) -> Any:
    """The model that a definition names, None where it names none."""
    for key in _WITH_MODEL:
        found = definition.get(key)
        if isinstance(found, dict) and found:
            return found.get("model")
    outer = definition.get(_WITH_SCORER)
    inner = outer.get("base_judge") if isinstance(outer, dict) else None
    return model_of(inner, depth + 1) if isinstance(inner, dict) and depth < NESTED_MAX else None


def _check_name(name: str) -> None:
    if not name.strip():
        raise InvalidInput("Scorer name cannot be empty or contain only whitespace.", code="scorer.name_invalid")
    rules.check_length("name", NAME_CHARACTERS_MAX, name)


def _check_definition(definition: str) -> None:
    rules.check_length("serialized_scorer", DEFINITION_CHARACTERS_MAX, definition)
    try:
        found = msgspec.json.decode(definition.encode())
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise InvalidInput("serialized_scorer must be valid JSON", code="scorer.definition_invalid") from error
    if not isinstance(found, dict):
        raise InvalidInput("serialized_scorer must be a JSON object", code="scorer.definition_invalid")
    if found.get("call_source") is not None:
        raise InvalidInput(
            "Custom scorer registration (using @scorer decorator) is not supported: whoever loads such a scorer runs "
            "the code that is in it.",
            code="scorer.has_code",
            hint="keep its code in a repository and import it, or register a built-in scorer or a judge",
        )
    model = model_of(found)
    if model is None:
        return
    if not isinstance(model, str):
        raise InvalidInput(f"Scorer model must be a string, got {type(model).__name__}.", code="scorer.model_invalid")
    if model.startswith(GATEWAY):
        name = model.removeprefix(GATEWAY).lstrip("/")
        raise NotFound(
            f"GatewayEndpoint not found (name='{name[:80]}')", code="gateway.not_found",
            hint="this server has no gateway: name the model by its provider",
        )  # fmt: skip
    if not model.strip():
        raise InvalidInput("Scorer model cannot be empty or contain only whitespace.", code="scorer.model_invalid")


def _joined() -> Select[Any]:
    same = (_SCORERS.c.project == _VERSIONS.c.project) & (_SCORERS.c.id == _VERSIONS.c.scorer)
    of_version = (_VERSIONS.c.version, _VERSIONS.c.definition, _VERSIONS.c.created_ms)
    return select(_SCORERS.c.experiment, _SCORERS.c.name, _SCORERS.c.id, *of_version).join(_VERSIONS, same)


def _here(tx: Transaction, experiment: int, name: str | None = None) -> list[ColumnElement[bool]]:
    found = [_SCORERS.c.project == tx.project, _SCORERS.c.experiment == experiment]
    return found if name is None else [*found, _SCORERS.c.name == name]


def _missing(experiment_id: str, name: str, version: int | None = None) -> NotFound:
    which = f"'{name[:80]}'" if version is None else f"'{name[:80]}' and version {version}"
    return NotFound(f"Scorer with name {which} not found for experiment {experiment_id}.", code="scorer.not_found")


def _noun(row: Row[Any]) -> Scorer:
    return Scorer(
        id=row.id, experiment_id=str(row.experiment), name=row.name, version=row.version, definition=row.definition,
        created_ms=row.created_ms,
    )  # fmt: skip
