"""The verbs of uploads in parts: begin, put a part, complete, abort. Nothing of an upload shows before it is complete.

Each part is a blob; completing strings them together into the file. What nobody completes is forgotten after a week.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, BinaryIO

from sqlalchemy import Row, select

from modelyard.engines.blobs.base import CHUNK_BYTES, BlobStore
from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database, Transaction
from modelyard.kernel.errors import InvalidInput, NotFound
from modelyard.kernel.ids import new_id
from modelyard.kernel.limits import ARTIFACT_BYTES_MAX
from modelyard.planes.tracking import store
from modelyard.planes.tracking.owners import Owner
from modelyard.planes.tracking.services.artifacts import Artifacts
from modelyard.types.tracking import Artifact

PARTS_MAX = 10_000
KEPT = timedelta(days=7)
_UPLOADS = store.artifact_uploads
_PARTS = store.artifact_parts


class Uploads:
    """Uploads in parts, of a project."""

    def __init__(self, database: Database, blobs: BlobStore, artifacts: Artifacts) -> None:
        self._database = database
        self._blobs = blobs
        self._artifacts = artifacts

    def begin(self, scope: Scope, owner: Owner, path: str, parts: int) -> str:
        """The id of a new upload of a file in so many parts. Raises what storing the file in one piece would raise."""
        if not 1 <= parts <= PARTS_MAX:
            raise InvalidInput(f"an upload has 1 to {PARTS_MAX} parts, not {parts}", code="upload.parts")
        name = self._artifacts.check_room(scope, owner, path)
        upload_id = new_id()
        with self._database.transaction(scope) as tx:
            _forget_old(tx)
            tx.execute(
                _UPLOADS.insert().values(
                    project=tx.project, id=upload_id, owner_kind=owner.kind, owner_id=owner.id, path=name,
                    parts=parts, created_at=tx.now,
                )
            )  # fmt: skip
        return upload_id

    def put_part(self, scope: Scope, upload_id: str, number: int, source: BinaryIO | Iterable[bytes]) -> str:
        """Store a part (the first is 1), in place of one of this number. Returns its tag. Raises NotFound."""
        with self._database.reading(scope) as tx:
            _check_number(_upload(tx, upload_id), number)
        blob = self._blobs.put(source, size_bytes_max=ARTIFACT_BYTES_MAX)
        with self._database.transaction(scope) as tx:
            _upload(tx, upload_id)
            row = {
                "project": tx.project, "upload": upload_id, "number": number, "digest": blob.digest,
                "size_bytes": blob.size_bytes,
            }  # fmt: skip
            store.put_rows(tx, _PARTS, [row], ["digest", "size_bytes"])
        return blob.digest

    def complete(self, scope: Scope, upload_id: str, tags: Mapping[int, str]) -> Artifact:
        """Make the file of the parts, whose tags by number are named. Raises NotFound, or InvalidInput where a part
        is missing or not the one that was put."""
        with self._database.reading(scope) as tx:
            upload = _upload(tx, upload_id)
            parts = tx.all(
                select(_PARTS).where(_PARTS.c.project == tx.project, _PARTS.c.upload == upload_id).order_by("number")
            )
        _check_parts(upload.parts, {row.number: row.digest for row in parts}, tags)
        owner = Owner(upload.owner_kind, upload.owner_id)
        made = self._artifacts.put(scope, owner, upload.path, self._strung([row.digest for row in parts]))
        self.abort(scope, upload_id)
        return made

    def abort(self, scope: Scope, upload_id: str) -> None:
        """Forget an upload and its parts, if it is there."""
        with self._database.transaction(scope) as tx:
            _forget(tx, [upload_id])

    def _strung(self, digests: Sequence[str]) -> Iterator[bytes]:
        for digest in digests:
            with self._blobs.open(digest) as part:
                while piece := part.read(CHUNK_BYTES):
                    yield piece


def _upload(tx: Transaction, upload_id: str) -> Row[Any]:
    row = tx.one(select(_UPLOADS).where(_UPLOADS.c.project == tx.project, _UPLOADS.c.id == upload_id))
    if row is None:
        raise NotFound(
            f"there is no upload '{upload_id[:80]}'", code="upload.not_found", hint="it was completed, or given up"
        )
    return row


def _check_number(upload: Row[Any], number: int) -> None:
    if not 1 <= number <= upload.parts:
        raise InvalidInput(f"the upload has parts 1 to {upload.parts}, and no part {number}", code="upload.parts")


def _check_parts(count: int, there: Mapping[int, str], tags: Mapping[int, str]) -> None:
    missing = [number for number in range(1, count + 1) if number not in there]
    if missing:
        raise InvalidInput(f"part {missing[0]} of {count} was not put", code="upload.incomplete")
    wrong = [number for number, tag in sorted(tags.items()) if there.get(number) != tag]
    if wrong:
        raise InvalidInput(
            f"part {wrong[0]} is not the one that was put: its tag is '{there.get(wrong[0], 'none')}'",
            code="upload.part_differs",
            hint="put that part again",
        )


def _forget_old(tx: Transaction) -> None:
    old = select(_UPLOADS.c.id).where(_UPLOADS.c.project == tx.project, _UPLOADS.c.created_at < tx.now - KEPT)
    _forget(tx, [row.id for row in tx.all(old.limit(1_000))])


def _forget(tx: Transaction, upload_ids: Sequence[str]) -> None:
    if upload_ids:
        tx.execute(_PARTS.delete().where(_PARTS.c.project == tx.project, _PARTS.c.upload.in_(upload_ids)))
        tx.execute(_UPLOADS.delete().where(_UPLOADS.c.project == tx.project, _UPLOADS.c.id.in_(upload_ids)))
