"""The verbs of versions: take one in, find, describe, tag, trust, move through MLflow's stages, drop, write out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import msgspec
from sqlalchemy import select

from modelyard.engines.blobs.base import CHUNK_BYTES, BlobStore
from modelyard.kernel.auth import Action, Scope, check
from modelyard.kernel.database import Database, Transaction
from modelyard.kernel.errors import Conflict, EngineError, NotFound
from modelyard.kernel.ids import new_id
from modelyard.kernel.paths import make_private, open_inside, safe_relative
from modelyard.planes.registry import store
from modelyard.planes.registry.filtering import versions_where
from modelyard.planes.registry.ports import Uses
from modelyard.planes.registry.retention import protection
from modelyard.planes.registry.rows import (
    data_behind,
    known_digest,
    locked_model,
    model_and_version,
    model_row,
    number_for,
    uses_of,
    version_noun,
    version_row,
)
from modelyard.planes.registry.rules import (
    canonical_stage,
    check_description,
    check_reason,
    check_tag_key,
    check_tags,
    check_version,
    guards,
)
from modelyard.planes.registry.search import (
    asks_for_prompts,
    order_versions,
    parse_versions,
)
from modelyard.planes.registry.services.models import announce_move
from modelyard.planes.registry.snapshot import Inspected, Snapshot, Sources, inspect
from modelyard.planes.registry.sources import Source, parse_source
from modelyard.planes.tracking import ARTIFACT_ROOT, page_offset, page_token
from modelyard.types.page import Page
from modelyard.types.registry import PROTECTED_TAG, AliasMove, ModelFile, ModelVersion

TEXT_BYTES_MAX = 1024 * 1024
VERSION_ROOT = "model-versions"
VERSION_PATH = re.compile(rf"{VERSION_ROOT}/([0-9a-f]{{32}})/([0-9]+)(?:/(.*))?", re.DOTALL)


class StoredVersion(NamedTuple):
    """A version as a part of the artifact tree: its files, and the path below it that was asked for."""

    model: str
    version: int
    files: Sequence[ModelFile]
    below: str

    def listing(self) -> list[tuple[str, int | None]]:
        """What lies directly below the path, by name: a file with its size, a folder without."""
        start = f"{self.below}/" if self.below else ""
        found: dict[str, int | None] = {}
        for one in self.files:
            if one.path.startswith(start):
                name, deeper, _ = one.path[len(start) :].partition("/")
                found[name] = None if deeper else one.size_bytes
        return sorted(found.items())


def version_location(model_id: str, number: int) -> str:
    """Where MLflow's clients find the files of a version."""
    return f"{ARTIFACT_ROOT}/{VERSION_ROOT}/{model_id}/{number}"


_ORDER_COLUMNS = {
    "name": store.models.c.name,
    "version": store.versions.c.version,
    "created_at": store.versions.c.created_at,
    "updated_at": store.versions.c.updated_at,
}


@dataclass(frozen=True)
class Elsewhere:
    """What a version that is taken over from another registry was there."""

    registry: str
    number: int
    stage: str
    created_at: datetime
    updated_at: datetime


class Versions:
    """Versions of a project's models."""

    def __init__(self, database: Database, blobs: BlobStore, sources: Sources, uses: Sequence[Uses] = ()) -> None:
        self._database = database
        self._blobs = blobs
        self._sources = sources
        self._uses = uses

    def create(
        self,
        scope: Scope,
        name: str,
        source: str,
        *,
        run: str = "",
        logged_model: str = "",
        description: str = "",
        tags: Mapping[str, str] | None = None,
        run_link: str = "",
        unchecked_source: bool = False,
        elsewhere: Elsewhere | None = None,
    ) -> ModelVersion:
        """Take a new version in: its files as they are now, by digest. Raises NotFound, InvalidInput.

        `unchecked_source` is for MLflow's prompts, whose source is a word that names nothing. What was a version
        `elsewhere` keeps its number, stage and times, and is announced as imported, not as new.
        """
        check_description(description)
        checked = check_tags(tags or {})
        with self._database.reading(scope) as tx:
            model_row(tx, name)
        parsed = Source("elsewhere", source) if unchecked_source else parse_source(source)
        snapshot, origin = self._read(scope, parsed)
        inspected = inspect(self._blobs, snapshot.files)
        # What a client says of the run is kept for MLflow's sake; lineage has only what is on record here.
        proven = self._sources.known_run(scope, snapshot.run or run)
        declared = self._sources.declared(scope, proven, snapshot.files)
        run = run or snapshot.run
        logged_model = logged_model or snapshot.logged_model
        with self._database.transaction(scope) as tx:
            model = locked_model(tx, name)
            number = _next_number(tx, name) if elsewhere is None else _taken_number(tx, model, elsewhere.number)
            # MLflow's clients load from the version's own files, not from where the run may still change its own.
            location = version_location(model.id, number) if inspected.digest else snapshot.location
            row = {
                "source": source, "location": location, "run_id": run, "logged_model_id": logged_model,
                "description": description, "run_link": run_link,
            }  # fmt: skip
            data, code, environment = data_behind(tx, proven)
            behind = (data, code or declared.code, environment or declared.environment)
            _insert(tx, model.id, number, row, inspected, len(snapshot.files), behind)
            store.add_files(tx, model.id, number, inspected.files)
            for key, value in checked.items():
                store.set_tag(tx, store.version_tags, {"model_id": model.id, "version": number, "key": key}, value)
            urn = f"model:{name}@{number}"
            if proven:
                tx.link(f"run:{proven}", "produced", urn)
            if origin:
                tx.link(urn, "derived", origin)
            told = {
                "model": name,
                "version": number,
                "run": proven,
                "digest": inspected.digest,
                "format": inspected.format,
            }
            if elsewhere is None:
                tx.event("model.version_created", urn, told)
            else:
                _as_elsewhere(tx, model.id, number, elsewhere)
                tx.event("model.version_imported", urn, {**told, "source": elsewhere.registry})
            return version_noun(tx, model, number)

    def _read(self, scope: Scope, source: Source) -> tuple[Snapshot, str]:
        if source.kind != "version":
            return self._sources.read(scope, source), ""
        with self._database.reading(scope) as tx:
            model = model_row(tx, source.owner)
            number = _staged(tx, model, source.version) or number_for(tx, model, source.alias or source.version)
            row = version_row(tx, model, number)
            files = store.files_of(tx, model.id, number)
        snapshot = Snapshot(row.location or row.source, files, row.run_id, row.logged_model_id)
        return snapshot, f"model:{source.owner}@{number}"

    def get(self, scope: Scope, name: str, version: str | int) -> ModelVersion:
        """A version by its number. Raises NotFound."""
        with self._database.reading(scope) as tx:
            model, row = model_and_version(tx, name, version)
            return version_noun(tx, model, row.version)

    def resolve(self, scope: Scope, name: str, reference: str | int) -> ModelVersion:
        """The version that a number, an alias or `latest` names. Raises NotFound."""
        with self._database.reading(scope) as tx:
            model = model_row(tx, name)
            return version_noun(tx, model, number_for(tx, model, reference))

    def recorded(self, scope: Scope, name: str, reference: str | int) -> ModelVersion:
        """The version that a number, an alias or `latest` names, also a dropped one by its number. Raises NotFound."""
        with self._database.reading(scope) as tx:
            model = model_row(tx, name)
            if str(reference).isdecimal() and store.alias_version(tx, model.id, str(reference)) is None:
                number = check_version(reference)
                if tx.one(store.with_name(model).where(store.versions.c.version == number)) is not None:
                    return version_noun(tx, model, number)
            return version_noun(tx, model, number_for(tx, model, reference))

    def list(self, scope: Scope, name: str, *, dropped: bool = False) -> Sequence[ModelVersion]:
        """All versions of a model, newest first; dropped ones only on request."""
        with self._database.reading(scope) as tx:
            statement = store.with_name(model_row(tx, name)).order_by(store.versions.c.version.desc())
            if not dropped:
                statement = statement.where(store.versions.c.dropped_at.is_(None))
            return store.to_versions(tx, tx.all(statement))

    def search(
        self,
        scope: Scope,
        filter: str = "",
        order_by: Sequence[str] = (),
        *,
        limit: int = 100,
        page: str | None = None,
    ) -> Page[ModelVersion]:
        """Versions of all models that meet a filter, newest changed first unless ordered otherwise."""
        clauses = parse_versions(filter)
        orders = order_versions(order_by)
        offset = page_offset(page)
        with self._database.reading(scope) as tx:
            statement = versions_where(tx, clauses, prompts=asks_for_prompts(clauses))
            for order in orders:
                column = _ORDER_COLUMNS[order.key]
                statement = statement.order_by(column.asc() if order.ascending else column.desc())
            rows = tx.all(statement.limit(limit + 1).offset(offset))
            found = store.to_versions(tx, rows[:limit])
        return Page(found, page_token(offset + limit) if len(rows) > limit else None)

    def latest(self, scope: Scope, name: str, stages: Sequence[str] = ()) -> Sequence[ModelVersion]:
        """The newest version of each of MLflow's stages."""
        wanted = {canonical_stage(stage) for stage in stages}
        with self._database.reading(scope) as tx:
            newest = store.to_models(tx, [model_row(tx, name)])[0].latest
        return [version for version in newest if not wanted or version.stage in wanted]

    def describe(self, scope: Scope, name: str, version: str | int, description: str) -> ModelVersion:
        """Set the description."""
        check_description(description)
        with self._database.transaction(scope) as tx:
            model, row = model_and_version(tx, name, version)
            _update(tx, model.id, row.version, description=description)
            return version_noun(tx, model, row.version)

    def set_tag(self, scope: Scope, name: str, version: str | int, key: str, value: str) -> None:
        """Set a tag."""
        number = check_version(version)
        check_tags({key: value})
        with self._database.transaction(scope) as tx:
            model, row = model_and_version(tx, name, number)
            store.set_tag(tx, store.version_tags, {"model_id": model.id, "version": row.version, "key": key}, value)
            _said_of_tag(tx, "model.version_tagged", name, row.version, key)

    def unset_tag(self, scope: Scope, name: str, version: str | int, key: str) -> None:
        """Take a tag away; that it is not there is no error."""
        number = check_version(version)
        check_tag_key(key)
        with self._database.transaction(scope) as tx:
            model, row = model_and_version(tx, name, number)
            store.unset_tag(tx, store.version_tags, {"model_id": model.id, "version": row.version, "key": key})
            _said_of_tag(tx, "model.version_untagged", name, row.version, key)

    def trust(self, scope: Scope, name: str, version: str | int, reason: str) -> ModelVersion:
        """Record that an approver takes responsibility for files that are not of a safe format."""
        check(scope.principal, Action.APPROVE, scope.project)
        check_reason(reason, "trusting a version")
        with self._database.transaction(scope) as tx:
            model = locked_model(tx, name, revised=True)
            row = version_row(tx, model, version)
            digest = known_digest(row, name)
            _update(tx, model.id, row.version, trusted=True, trusted_by=tx.actor, trusted_reason=reason)
            tx.event(
                "model.version_trusted",
                f"model:{name}@{row.version}",
                {"model": name, "version": row.version, "digest": digest, "reason": reason},
            )
            return version_noun(tx, model, row.version)

    def drop(
        self, scope: Scope, name: str, version: str | int, reason: str, *, with_aliases: bool = False
    ) -> ModelVersion:
        """Take a version out of use for ever. Raises Conflict (`version.in_use`) for a protected one: one that an alias
        points to, that is served or tagged as protected. `with_aliases`: aliases that no policy guards go with it."""
        check_reason(reason, "dropping a version")
        with self._database.transaction(scope) as tx:
            model, _ = model_and_version(tx, name, version)
            store.touch(tx, model.id, revised=True)
            # Read again under the lock: another may have dropped it, or moved an alias to it, in the meantime.
            row = version_row(tx, model, version)
            noun = version_noun(tx, model, row.version)
            policy = store.policy_of(model)
            going = noun.aliases if with_aliases else []
            if going and policy is not None:
                check(scope.principal, Action.ADMIN, scope.project)
                going = [one for one in going if not guards(policy, one)]
            held = msgspec.structs.replace(
                noun, aliases=[one for one in noun.aliases if one not in going], stage="None" if going else noun.stage
            )
            _check_droppable(tx, model, held, self._uses, with_stage=policy is not None)
            for alias in going:
                _let_go(tx, model, alias, row.version, reason)
            _update(tx, model.id, row.version, dropped_at=tx.now, dropped_by=tx.actor, dropped_reason=reason)
            tx.event(
                "model.version_dropped",
                f"model:{name}@{row.version}",
                {"model": name, "version": row.version, "digest": row.digest, "reason": reason},
            )
            return version_noun(tx, model, row.version)

    def purge(self, scope: Scope, name: str, version: int, reason: str) -> None:
        """Give the bytes of a dropped version up; its digests and all that is on record about it stay."""
        with self._database.transaction(scope) as tx:
            model = locked_model(tx, name, updated=False)
            table = store.versions
            mine = (table.c.model_id == model.id, table.c.version == version)
            done = tx.execute(
                table.update()
                .where(*mine, table.c.dropped_at.is_not(None), table.c.purged_at.is_(None))
                .values(purged_at=tx.now)
            )
            if done.rowcount:
                tx.event(
                    "model.version_purged",
                    f"model:{name}@{version}",
                    {"model": name, "version": version, "reason": reason},
                )

    def in_use(self, scope: Scope, name: str) -> Mapping[int, Sequence[str]]:
        """The versions that something serves now, and what."""
        with self._database.reading(scope) as tx:
            return uses_of(tx, self._uses, name)

    def files(self, scope: Scope, name: str, version: str | int, *, dropped: bool = False) -> Sequence[ModelFile]:
        """The files of a version, by path; with `dropped` those of a dropped one, too."""
        with self._database.reading(scope) as tx:
            if dropped:
                return store.files_of(tx, model_row(tx, name).id, check_version(version))
            model, row = model_and_version(tx, name, version)
            return store.files_of(tx, model.id, row.version)

    def open(self, scope: Scope, name: str, version: str | int, path: str) -> tuple[ModelFile, BinaryIO]:
        """One file of a version and its bytes, to be closed by the caller, their digest checked before the first one.
        Raises NotFound, InvalidInput, EngineError for a damaged file."""
        wanted = str(safe_relative(path))
        for one in self.files(scope, name, version):
            if one.path == wanted:
                return one, self._blobs.open(one.digest, verify=True)
        raise NotFound(f"{name}@{version} has no file '{wanted}'", code="version.no_such_file")

    def text(self, scope: Scope, name: str, version: str | int, path: str) -> str:
        """A small text file of a version; empty where there is none, where it is large or no text, or given up."""
        for one in self.files(scope, name, version):
            if one.path == path and one.size_bytes <= TEXT_BYTES_MAX:
                try:
                    return self._blobs.get(one.digest).decode("utf-8")
                except (NotFound, EngineError, UnicodeDecodeError):
                    return ""
        return ""

    def stored(self, scope: Scope, path: str) -> StoredVersion | None:
        """The files of the version that a path of the artifact tree lies in; None where it lies in none.

        Raises NotFound for a version that is not there, or not there any more.
        """
        found = VERSION_PATH.fullmatch(path)
        if found is None:
            return None
        with self._database.reading(scope) as tx:
            row = store.version_row(tx, found[1], check_version(found[2]))
            model = None if row is None else store.model_by_id(tx, found[1])
            if row is None or model is None:
                raise NotFound(f"No such artifact: '{path[:200]}'", code="version.not_found")
            files = store.files_of(tx, model.id, row.version)
        return StoredVersion(model.name, row.version, files, found[3] or "")

    def open_stored(self, place: StoredVersion) -> tuple[ModelFile, BinaryIO]:
        """The file that a path leads to, its digest checked. Raises NotFound."""
        for one in place.files:
            if one.path == place.below:
                return one, self._blobs.open(one.digest, verify=True)
        raise NotFound(f"No such artifact: '{place.below[:200]}'", code="version.no_such_file")

    @staticmethod
    def pieces(content: BinaryIO) -> Iterator[bytes]:
        """The bytes of an open file in pieces; closes it at the end."""
        with content:
            while piece := content.read(CHUNK_BYTES):
                yield piece

    def materialize(self, scope: Scope, name: str, version: str | int, into: Path) -> ModelVersion:
        """Write all files of a version below an empty directory, each checked against its digest.

        Raises Conflict where the files are not known here, EngineError where a blob is damaged, FileExistsError where
        a file is there already.
        """
        with self._database.reading(scope) as tx:
            model, row = model_and_version(tx, name, version)
            known_digest(row, name)
            noun = version_noun(tx, model, row.version)
            files = store.files_of(tx, model.id, row.version)
        make_private(into)
        for one in files:
            with self._blobs.open(one.digest, verify=True) as source, open_inside(into, one.path, "xb") as sink:
                while piece := source.read(CHUNK_BYTES):
                    sink.write(piece)
        return noun


def _check_droppable(
    tx: Transaction, model: Any, version: ModelVersion, uses: Sequence[Uses], *, with_stage: bool
) -> None:
    """MLflow's clients delete versions in any stage; only a policy makes a stage mean something."""
    retention = store.retention_of(model)
    tags = retention.protected_tags if retention is not None else [PROTECTED_TAG]
    looked_at = version if with_stage else msgspec.structs.replace(version, stage="None")
    guard = protection(looked_at, tags, uses_of(tx, uses, model.name).get(version.version, ()))
    if guard:
        raise Conflict(
            f"{version.model}@{version.version} is protected: {guard}",
            code="version.in_use",
            hint="move the alias to another version, switch the endpoint, or take the tag away first",
        )


def _said_of_tag(tx: Transaction, kind: str, name: str, version: int, key: str) -> None:
    tx.event(kind, f"model:{name}@{version}", {"model": name, "version": version, "key": key})


def _next_number(tx: Transaction, name: str) -> int:
    """The next number of a name. Its model's row is locked, so that no two take the same."""
    found = store.last_number(tx, name)
    number = int(found.last_version) + 1 if found is not None else 1
    tx.execute(
        store.names.update()
        .where(store.names.c.project == tx.project, store.names.c.name == name)
        .values(last_version=number)
    )
    return number


def _taken_number(tx: Transaction, model: Any, number: int) -> int:
    """A number that was given elsewhere. Raises Conflict where a version has it, also one that was dropped."""
    table = store.versions
    if tx.one(select(table.c.version).where(table.c.model_id == model.id, table.c.version == number)) is not None:
        raise Conflict(f"there is a version {model.name}@{number} already", code="version.exists")
    names = store.names
    tx.execute(
        names.update()
        .where(names.c.project == tx.project, names.c.name == model.name, names.c.last_version < number)
        .values(last_version=number)
    )
    return number


def _as_elsewhere(tx: Transaction, model_id: str, number: int, elsewhere: Elsewhere) -> None:
    table = store.versions
    tx.execute(
        table.update()
        .where(table.c.model_id == model_id, table.c.version == number)
        .values(
            stage=canonical_stage(elsewhere.stage),
            created_at=elsewhere.created_at,
            updated_at=elsewhere.updated_at,
        )
    )


def _staged(tx: Transaction, model: Any, word: str) -> int | None:
    """`models:/name/Production` means the newest version in that stage."""
    if word.lower() not in ("staging", "production", "archived", "none"):
        return None
    newest = store.to_models(tx, [model])[0].latest
    return next((version.version for version in newest if version.stage == canonical_stage(word)), None)


def _insert(
    tx: Transaction,
    model_id: str,
    number: int,
    said: Mapping[str, str],
    inspected: Inspected,
    files: int,
    behind: tuple[Sequence[str], str, str],
) -> None:
    data, code, environment = behind
    tx.execute(
        store.versions.insert().values(
            **said,
            model_id=model_id,
            version=number,
            created_at=tx.now,
            created_by=tx.actor,
            updated_at=tx.now,
            stage="None",
            data=data,
            code=code,
            environment=environment,
            digest=inspected.digest,
            size_bytes=inspected.size_bytes,
            files=files,
            format=inspected.format,
            format_reason=inspected.format_reason,
            signature=inspected.mlmodel.signature,
            flavors=inspected.mlmodel.flavors,
            license=inspected.license,
            input_example=inspected.mlmodel.input_example,
            trusted=False,
            trusted_by="",
            trusted_reason="",
            dropped_by="",
            dropped_reason="",
        )
    )


def _update(tx: Transaction, model_id: str, version: int, **values: Any) -> None:
    table = store.versions
    tx.execute(
        table.update()
        .where(table.c.model_id == model_id, table.c.version == version)
        .values(**values, updated_at=tx.now)
    )


def _let_go(tx: Transaction, model: Any, alias: str, version: int, reason: str) -> None:
    store.point_alias(tx, model.id, alias, None)
    move = AliasMove(
        id=new_id(),
        model=model.name,
        alias=alias,
        kind="drop",
        version=None,
        previous=version,
        at=tx.now,
        by=tx.actor,
        reason=reason,
    )
    store.add_move(tx, model.id, move)
    announce_move(tx, move)
