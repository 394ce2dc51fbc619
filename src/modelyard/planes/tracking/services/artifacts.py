"""The verbs of artifacts: files of runs and logged models, kept as blobs by content, named by a safe relative path.

An artifact is addressed by its owner and path, never by a location that a client names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO

from sqlalchemy import ColumnElement, and_, or_, select

from modelyard.engines.blobs.base import BlobStore
from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database, Transaction
from modelyard.kernel.errors import Conflict, InvalidInput, NotFound
from modelyard.kernel.limits import ARTIFACT_BYTES_MAX
from modelyard.kernel.paths import collision_key, safe_relative
from modelyard.planes.tracking import store
from modelyard.planes.tracking.owners import Owner
from modelyard.planes.tracking.rows import active_run_row, run_row
from modelyard.planes.tracking.services.experiments import ARTIFACT_ROOT
from modelyard.planes.tracking.shown import ShownArtifacts
from modelyard.types.tracking import Artifact

_TABLE = store.artifacts
_LISTED_MAX = 100_000


class Artifacts:
    """Artifacts of a project: put, open, list, delete."""

    def __init__(self, database: Database, blobs: BlobStore, shown: ShownArtifacts | None = None) -> None:
        self._database = database
        self._blobs = blobs
        self._shown = shown

    def put(self, scope: Scope, owner: Owner, path: str, source: BinaryIO | Iterable[bytes]) -> Artifact:
        """Store a file, in place of one of this path. Raises InvalidInput for an unsafe path or a deleted run, NotFound
        for an owner that is not there, Conflict where the path is a directory or differs from another only by case."""
        name = self.check_room(scope, owner, path)
        blob = self._blobs.put(source, size_bytes_max=ARTIFACT_BYTES_MAX)
        with self._database.transaction(scope) as tx:
            _check_owner(tx, owner, writing=True)
            _check_room(tx, owner, name)
            row = {
                "project": tx.project, "owner_kind": owner.kind, "owner_id": owner.id, "path": name,
                "folded": collision_key(name), "digest": blob.digest, "size_bytes": blob.size_bytes,
                "updated_at": tx.now,
            }  # fmt: skip
            store.put_rows(tx, _TABLE, [row], ["digest", "size_bytes", "updated_at"])
        self._show(scope, owner, name)
        return Artifact(path=name, size_bytes=blob.size_bytes, digest=blob.digest)

    def check_room(self, scope: Scope, owner: Owner, path: str) -> str:
        """The name of a file that may be stored there. Raises what `put` would raise."""
        name = str(safe_relative(path))
        with self._database.reading(scope) as tx:
            _check_owner(tx, owner, writing=True)
            _check_room(tx, owner, name)
        return name

    def open(self, scope: Scope, owner: Owner, path: str) -> tuple[Artifact, BinaryIO]:
        """A file and its bytes, to be closed by the caller. Raises NotFound, InvalidInput."""
        found = self.get(scope, owner, path)
        assert found.digest is not None
        return found, self._blobs.open(found.digest)

    def get(self, scope: Scope, owner: Owner, path: str) -> Artifact:
        """A file without its bytes. Raises NotFound, InvalidInput."""
        name = str(safe_relative(path))
        with self._database.reading(scope) as tx:
            row = tx.one(select(_TABLE).where(_of(tx, owner), _TABLE.c.path == name))
        if row is None:
            raise NotFound(
                f"there is no artifact '{name}'", code="artifact.not_found", hint="list them to see what is there"
            )
        return Artifact(path=name, size_bytes=row.size_bytes, digest=row.digest)

    def list(self, scope: Scope, owner: Owner, directory: str = "") -> list[Artifact]:
        """What is in a directory: its files, and its directories without a digest; nothing where there is no such."""
        prefix = f"{safe_relative(directory)}/" if directory.strip("/") else ""
        with self._database.reading(scope) as tx:
            rows = tx.all(_below(tx, owner, prefix).limit(_LISTED_MAX))
        found: dict[str, Artifact] = {}
        for row in rows:
            first, slash, _ = row.path[len(prefix) :].partition("/")
            path = prefix + first
            found[path] = (
                Artifact(path=path, is_dir=True)
                if slash
                else Artifact(path=path, size_bytes=row.size_bytes, digest=row.digest)
            )
        return sorted(found.values(), key=lambda artifact: artifact.path)

    def tree(self, scope: Scope, owner: Owner) -> Sequence[Artifact]:
        """All files of an owner, by path."""
        with self._database.reading(scope) as tx:
            rows = tx.all(_below(tx, owner, "").limit(_LISTED_MAX))
        return [Artifact(path=row.path, size_bytes=row.size_bytes, digest=row.digest) for row in rows]

    def delete(self, scope: Scope, owner: Owner, path: str) -> int:
        """Remove a file, or a directory with all below it. Returns how many files; raises NotFound for none."""
        name = str(safe_relative(path))
        with self._database.transaction(scope) as tx:
            _check_owner(tx, owner, writing=True)
            gone = tx.execute(
                _TABLE.delete().where(_of(tx, owner), or_(_TABLE.c.path == name, _starts(tx, f"{name}/")))
            )
            if gone.rowcount == 0:
                raise NotFound(f"there is no artifact '{name}'", code="artifact.not_found")
            tx.event("artifact.deleted", f"{owner.kind}:{owner.id}"[:512], {"path": name, "files": gone.rowcount})
        self._show(scope, owner, name)
        return int(gone.rowcount)

    def _show(self, scope: Scope, owner: Owner, name: str) -> None:
        if self._shown is not None:
            self._shown.changed(scope.project, owner, name)

    def kept_blobs(self) -> Iterator[str]:
        """The digests of all artifacts and parts of uploads of all projects; some more than once."""
        # Parts first: what is complete becomes an artifact, and is seen as the one or the other.
        for table in (store.artifact_parts, _TABLE):
            with self._database.reading() as tx:
                yield from (row.digest for row in tx.stream(select(table.c.digest)))


def below_uri(uri: str) -> str:
    """The path in the artifact tree of a URI of ours. Raises InvalidInput for a location of somebody else's."""
    if not uri.startswith(f"{ARTIFACT_ROOT}/"):
        raise InvalidInput(
            f"the artifacts at '{uri[:200]}' are not kept by this server",
            code="artifact.elsewhere",
            hint="read them from that location with a client that has access to it",
        )
    return uri[len(ARTIFACT_ROOT) :].lstrip("/")


def _check_owner(tx: Transaction, owner: Owner, *, writing: bool) -> None:
    if owner.kind == "run":
        (active_run_row if writing else run_row)(tx, owner.id)
    elif owner.kind == "model":
        models = store.logged_models
        if tx.one(select(models.c.id).where(models.c.project == tx.project, models.c.id == owner.id)) is None:
            raise NotFound(f"Logged model with ID '{owner.id[:80]}' not found.", code="logged_model.not_found")


def _check_room(tx: Transaction, owner: Owner, name: str) -> None:
    parents = [name[:at] for at, character in enumerate(name) if character == "/"]
    taken = tx.one(
        select(_TABLE.c.path).where(_of(tx, owner), or_(_TABLE.c.path.in_(parents), _starts(tx, f"{name}/"))).limit(1)
    )
    if taken is not None:
        raise Conflict(
            f"'{name}' cannot be a file: '{taken.path}' is there",
            code="artifact.path_taken",
            hint="a path is a file or a directory, not both; choose another",
        )
    twin = tx.one(
        select(_TABLE.c.path).where(_of(tx, owner), _TABLE.c.folded == collision_key(name), _TABLE.c.path != name)
    )
    if twin is not None:
        raise Conflict(
            f"'{name}' differs from '{twin.path}' only by case or accents",
            code="artifact.path_collides",
            hint="such files overwrite each other where they are downloaded; choose another name",
        )


def _below(tx: Transaction, owner: Owner, prefix: str) -> Any:
    return select(_TABLE).where(_of(tx, owner), _starts(tx, prefix)).order_by(_TABLE.c.path)


def _starts(tx: Transaction, prefix: str) -> ColumnElement[bool]:
    if not prefix:
        return _TABLE.c.path != ""
    if tx.dialect == "postgresql":
        return _TABLE.c.path.startswith(prefix, autoescape=True)
    # SQLite's LIKE folds case; a range over the key does not, and uses the index. A prefix ends in '/', '0' follows it.
    return and_(_TABLE.c.path >= prefix, _TABLE.c.path < f"{prefix[:-1]}0")


def _of(tx: Transaction, owner: Owner) -> ColumnElement[bool]:
    return and_(_TABLE.c.project == tx.project, _TABLE.c.owner_kind == owner.kind, _TABLE.c.owner_id == owner.id)
