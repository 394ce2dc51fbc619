"""Taking in what another registry holds: its models and their versions, with their numbers and times.

Every verb may be repeated: what an earlier, killed pass has brought is found by its source. Aliases are moved as ever,
through the gates of whatever policy a model has here.
"""

from __future__ import annotations

from sqlalchemy import select

from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database, Transaction
from modelyard.kernel.errors import Conflict, NotFound
from modelyard.planes.registry import store
from modelyard.planes.registry.rows import model_row
from modelyard.planes.registry.services.models import Models
from modelyard.planes.registry.services.versions import Elsewhere, Versions
from modelyard.types.imports import ImportedVersion, ImportModel, ImportVersion
from modelyard.types.registry import Model

SOURCE_TAG = "modelyard.import.source"
PROMPT_TAG = "mlflow.prompt.is_prompt"


class Imports:
    """Imports into the registry of a project."""

    def __init__(self, database: Database, models: Models, versions: Versions) -> None:
        self._database = database
        self._models = models
        self._versions = versions

    def model(self, scope: Scope, asked: ImportModel) -> Model:
        """The registered model of that name, made with the time that it had there where it is new. Raises Conflict
        (`model.exists`) for one that does not come from there."""
        try:
            known = self._models.get(scope, asked.name)
        except NotFound:
            tags = {**asked.tags, SOURCE_TAG: asked.source}
            self._models.create(scope, asked.name, description=asked.description, tags=tags)
            self._keep_times(scope, asked)
            return self._models.get(scope, asked.name)
        if known.tags.get(SOURCE_TAG) != asked.source:
            raise Conflict(
                f"there is a model '{asked.name}' that does not come from {asked.source}",
                code="model.exists",
                hint="rename it, or import into another project",
            )
        return known

    def version(self, scope: Scope, asked: ImportVersion) -> ImportedVersion:
        """A version under its number, with its files as they are here now. Raises NotFound, InvalidInput, Conflict
        (`version.exists`) for a number that another version has."""
        tags = {**asked.tags, SOURCE_TAG: asked.source}
        with self._database.reading(scope) as tx:
            known = _is_known(tx, asked)
        if known:
            return ImportedVersion(version=self._versions.get(scope, asked.model, asked.version), existed=True)
        made = self._versions.create(
            scope,
            asked.model,
            asked.files,
            run=asked.run,
            logged_model=asked.logged_model,
            description=asked.description,
            tags=tags,
            # A prompt has no files; its source is a word.
            unchecked_source=PROMPT_TAG in asked.tags,
            elsewhere=Elsewhere(asked.source, asked.version, asked.stage, asked.created_at, asked.updated_at),
        )
        return ImportedVersion(version=made, existed=False)

    def _keep_times(self, scope: Scope, asked: ImportModel) -> None:
        times = {"created_at": asked.created_at, "updated_at": asked.updated_at}
        kept = {name: time for name, time in times.items() if time is not None}
        if not kept:
            return
        with self._database.transaction(scope) as tx:
            row = model_row(tx, asked.name)
            tx.execute(store.models.update().where(store.models.c.id == row.id).values(**kept))
            tx.event("model.imported", f"model:{asked.name}", {"model": asked.name, "source": asked.source})


def _is_known(tx: Transaction, asked: ImportVersion) -> bool:
    model = model_row(tx, asked.model)
    versions, tags = store.versions, store.version_tags
    number = tx.scalar(
        select(versions.c.version).where(versions.c.model_id == model.id, versions.c.version == asked.version)
    )
    if number is None:
        return False
    source = tx.scalar(
        select(tags.c.value).where(
            tags.c.model_id == model.id, tags.c.version == asked.version, tags.c.key == SOURCE_TAG
        )
    )
    if source != asked.source:
        raise Conflict(
            f"there is a version {asked.model}@{asked.version} that does not come from {asked.source}",
            code="version.exists",
            hint="import into another project",
        )
    return True
