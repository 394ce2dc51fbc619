"""The verbs of datasets of files: take bytes, make a version of a tree, list it, give its bytes back, compare."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO

from modelyard.engines.blobs.base import Blob, BlobStore, SharedDisk
from modelyard.kernel import frames
from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database, Transaction
from modelyard.kernel.errors import Conflict, InvalidInput, NotFound, TooLarge
from modelyard.kernel.ids import new_id
from modelyard.kernel.limits import ARTIFACT_BYTES_MAX, DATASET_FILES_MAX
from modelyard.planes.data import ledger, retention_store, store, trees
from modelyard.planes.data.branches import dataset_row
from modelyard.planes.data.file_branches import tell_published
from modelyard.planes.data.publish import JOB_PREFIX, NO_REPORT
from modelyard.planes.data.refs import Ref, require_rows, resolve_number
from modelyard.types.data import DatasetVersion
from modelyard.types.files import (
    CommitFiles,
    Dropbox,
    FileEntry,
    FilesDiff,
    FilesResult,
    FolderEntry,
    Problem,
    Verified,
)
from modelyard.types.page import Page

LISTED_MAX = 10_000
SHOWN_MAX = 1_000
MESSAGE_CHARACTERS_MAX = 2_000


class Files:
    """Datasets of files of a project. Bytes come before the version that names them: `missing`, `receive`, `commit`."""

    def __init__(self, database: Database, blobs: BlobStore) -> None:
        self._database = database
        self._blobs = blobs

    # --- bytes in ---------------------------------------------------------------------------------------------

    def missing(self, scope: Scope, name: str, digests: Sequence[str]) -> list[str]:
        """Of which blobs the dataset does not hold the bytes."""
        row = self._row(scope, name)
        known = self._known(scope, row, digests)
        return [digest for digest in digests if digest not in known]

    def receive(self, scope: Scope, name: str, source: frames.Pieces | BinaryIO) -> int:
        """Take blobs, framed one after the other. Returns how many. Raises InvalidInput for bytes of another digest."""
        row = self._row(scope, name)
        received = [(blob.digest, blob.size_bytes) for blob in self._stored(source)]
        self._blobs.settle()
        with self._database.transaction(scope) as tx:
            ledger.add(tx, row.id, received)
        return len(received)

    def dropbox(self) -> Dropbox | None:
        """A folder for programs that reach the store's disk; None where the store has no disk."""
        if not isinstance(self._blobs, SharedDisk):
            return None
        box, nonce = new_id(), secrets.token_hex(16)
        folder = self._blobs.make_drop(box, nonce)
        return Dropbox(id=box, folder=str(folder), nonce=nonce, blobs=str(self._blobs.root))

    def adopt(self, scope: Scope, name: str, box: str) -> int:
        """Take the files of a dropbox as blobs of the dataset. Returns how many. Raises NotFound, InvalidInput."""
        row = self._row(scope, name)
        if not isinstance(self._blobs, SharedDisk):
            raise NotFound("there is no dropbox here", code="blob.drop_not_found", hint="send the files instead")
        adopted = self._blobs.adopt(box)
        with self._database.transaction(scope) as tx:
            ledger.add(tx, row.id, [(blob.digest, blob.size_bytes) for blob in adopted])
        return len(adopted)

    # --- versions ---------------------------------------------------------------------------------------------

    def commit(self, scope: Scope, name: str, asked: CommitFiles) -> FilesResult:
        """Make the next version of a branch. Raises Conflict where the branch does not name what was expected,
        or moved meanwhile; InvalidInput for a file whose bytes the dataset does not hold, naming it."""
        row = self._row(scope, name)
        head = self._head(scope, row, asked)
        index = [] if head is None else trees.read_index(self._blobs, head.tree or "")
        before = [one for chunk in index for one in trees.read_chunk(self._blobs, chunk)]
        after = trees.changed_tree(before, asked.put, asked.remove, asked.replace_below)
        if len(after) > DATASET_FILES_MAX:
            raise TooLarge(
                f"a dataset has at most {DATASET_FILES_MAX:,} files, not {len(after):,}",
                code="files.too_many",
                hint="pack small files into larger ones, or divide the dataset",
            )
        self._check_held(scope, row, before, after)
        # What the head of a branch names stays, so long as it is the head; a commit that finds another fails.
        tree = trees.write_tree(self._blobs, after, {chunk.digest for chunk in index})
        if head is not None and head.tree == tree:
            return FilesResult(version=head, changed=False, added=0, replaced=0, removed=0)
        self._blobs.settle()
        return self._publish(scope, row, asked, head, tree, before, after)

    def version(self, scope: Scope, name: str, ref: Ref = None) -> DatasetVersion:
        """The version that a reference names. Raises NotFound."""
        row = self._row(scope, name)
        with self._database.reading(scope) as tx:
            number = resolve_number(tx, row, ref)
            found = store.version_row(tx, row, number) if number else None
        if found is None:
            what = "has no version yet" if number == 0 else f"has no version {str(ref)[:128]!a}"
            raise NotFound(
                f"dataset '{name}' {what}",
                code="dataset.version_not_found",
                hint=f"list them with `modelyard dataset versions {name}`",
            )
        require_rows(found.noun)
        return found.noun

    def used(self, scope: Scope, version: DatasetVersion) -> None:
        """Record that the caller read a version, where it is a job."""
        if scope.actor.startswith(JOB_PREFIX):
            with self._database.transaction(scope) as tx:
                tx.link(scope.actor, "used", version.urn)

    def diff(self, scope: Scope, name: str, before: Ref, after: Ref = None) -> FilesDiff:
        """What differs between two versions, by path."""
        old, new = self.version(scope, name, before), self.version(scope, name, after)
        indices = [trees.read_index(self._blobs, one.tree or "") for one in (old, new)]
        changes = trees.differences(indices[0], indices[1], lambda chunk: trees.read_chunk(self._blobs, chunk))
        added = [one.after for one in changes if one.before is None and one.after is not None]
        removed = [one.before for one in changes if one.after is None and one.before is not None]
        changed = [one.path for one in changes if one.before is not None and one.after is not None]
        return FilesDiff(
            dataset=name,
            before=old.version,
            after=new.version,
            added=len(added),
            removed=len(removed),
            changed=len(changed),
            added_bytes=sum(one.size_bytes for one in added),
            removed_bytes=sum(one.size_bytes for one in removed),
            added_paths=[one.path for one in added[:SHOWN_MAX]],
            removed_paths=[one.path for one in removed[:SHOWN_MAX]],
            changed_paths=changed[:SHOWN_MAX],
            renamed=_renamed(removed, added)[:SHOWN_MAX],
        )

    # --- files ------------------------------------------------------------------------------------------------

    def list(
        self, scope: Scope, name: str, ref: Ref = None, *, prefix: str = "", after: str = "", limit: int = SHOWN_MAX
    ) -> Page[FileEntry]:
        """Files by path, those below a prefix, after another."""
        if not 1 <= limit <= LISTED_MAX:
            raise InvalidInput(f"a page has 1 to {LISTED_MAX} files, not {limit}", code="page.limit_invalid")
        index = trees.read_index(self._blobs, self.version(scope, name, ref).tree or "")
        found: list[FileEntry] = []
        for one in trees.entries_after(index, lambda chunk: trees.read_chunk(self._blobs, chunk), prefix, after):
            if len(found) == limit:
                return Page(found, found[-1].path)
            found.append(one)
        return Page(found)

    def folder(
        self, scope: Scope, name: str, ref: Ref = None, directory: str = "", limit: int = SHOWN_MAX, past: str = ""
    ) -> Sequence[FolderEntry]:
        """What lies right in a directory of a version, by name; nothing where there is no such directory. `past`: begin
        after the entry with this path, of a directory with a `/` at its end."""
        index = trees.read_index(self._blobs, self.version(scope, name, ref).tree or "")
        return trees.children(index, lambda chunk: trees.read_chunk(self._blobs, chunk), directory, limit, past)

    def open(self, scope: Scope, name: str, path: str, ref: Ref = None) -> tuple[FileEntry, BinaryIO]:
        """One file and its bytes, to be closed by the caller. Raises NotFound."""
        version = self.version(scope, name, ref)
        found = next(iter(self._entries(version, [path])), None)
        if found is None:
            raise NotFound(
                f"version {version.version} of dataset '{name}' has no file {path[:200]!a}",
                code="files.not_there",
                hint=f"list them with `modelyard dataset files list {name}`",
            )
        self.used(scope, version)
        return found, self._blobs.open(found.digest)

    def fetch(self, scope: Scope, name: str, ref: Ref, paths: Sequence[str]) -> Iterator[bytes]:
        """The bytes of files of a version, framed; equal ones once. Raises NotFound for a path that is not there."""
        version = self.version(scope, name, ref)
        entries = self._entries(version, paths)
        if len(entries) != len(set(paths)):
            gone = min(set(paths) - {one.path for one in entries})
            raise NotFound(f"version {version.version} has no file {gone[:200]!a}", code="files.not_there")
        self.used(scope, version)
        return self._framed({one.digest: one for one in entries}.values())

    def verify(self, scope: Scope, name: str, ref: Ref = None) -> Verified:
        """Read every byte of a version and say which files are no longer what they were."""
        version = self.version(scope, name, ref)
        verdicts: dict[str, str] = {}
        problems = []
        for one in trees.read_tree(self._blobs, version.tree or ""):
            if one.digest not in verdicts:
                verdicts[one.digest] = self._verdict(one.digest)
            if verdicts[one.digest]:
                problems.append(Problem(one.path, one.digest, verdicts[one.digest]))
        return Verified(files=version.rows, size_bytes=version.size_bytes, problems=problems[:SHOWN_MAX])

    # --- what is kept -----------------------------------------------------------------------------------------

    def kept_blobs(self) -> Iterator[str]:
        """The digests of all blobs that datasets of any project hold or their versions name; some more than once.

        Raises NotFound or EngineError for a tree that cannot be read.
        """
        with self._database.reading() as tx:
            yield from ledger.held(tx)
            named = retention_store.trees_named(tx)
        read: set[str] = set()
        for tree in named:
            yield tree
            for chunk in trees.read_index(self._blobs, tree):
                if chunk.digest not in read:
                    read.add(chunk.digest)
                    yield chunk.digest
                    yield from (one.digest for one in trees.read_chunk(self._blobs, chunk))

    # --- within -----------------------------------------------------------------------------------------------

    def _row(self, scope: Scope, name: str) -> store.DatasetRow:
        row = dataset_row(self._database, scope, name)
        row.require("files")
        return row

    def _head(self, scope: Scope, row: store.DatasetRow, asked: CommitFiles) -> DatasetVersion | None:
        number = row.head(asked.branch)
        if not number and asked.branch != store.MAIN:
            raise NotFound(f"dataset '{row.noun.name}' has no branch '{asked.branch}'", code="dataset.branch_not_found")
        if asked.expect is not None and asked.expect != number:
            raise Conflict(
                f"branch '{asked.branch}' of dataset '{row.noun.name}' names version {number}, not {asked.expect}",
                code="stale",
                hint="look at what changed (`modelyard dataset diff`), and commit again",
            )
        return self.version(scope, row.noun.name, number) if number else None

    def _check_held(
        self, scope: Scope, row: store.DatasetRow, before: Iterable[FileEntry], after: Iterable[FileEntry]
    ) -> None:
        """Whoever puts a file must have sent its bytes, of that size."""
        new = set(after) - set(before)
        held = self._known(scope, row, sorted({one.digest for one in new}))
        for one in sorted(new):
            if held.get(one.digest) != one.size_bytes:
                raise InvalidInput(
                    f"the dataset does not hold {one.size_bytes} bytes of {one.path!a} with digest {one.digest}",
                    code="files.not_sent",
                    hint="send the bytes of each file before the version that names it",
                )

    def _known(self, scope: Scope, row: store.DatasetRow, digests: Sequence[str]) -> dict[str, int]:
        """Size by digest of what the dataset holds; a vacuum leaves these alone for its grace, since who asks for them
        is about to name them."""
        with self._database.reading(scope) as tx:
            known = ledger.known(tx, row.id, digests)
            marked = ledger.has_marked(tx, row.id)
        if marked:
            with self._database.transaction(scope) as tx:
                ledger.keep(tx, row.id, list(known))
                known = ledger.known(tx, row.id, digests)
        return known

    def _publish(
        self,
        scope: Scope,
        row: store.DatasetRow,
        asked: CommitFiles,
        head: DatasetVersion | None,
        tree: str,
        before: Sequence[FileEntry],
        after: Sequence[FileEntry],
    ) -> FilesResult:
        old, new = {one.path: one for one in before}, {one.path: one for one in after}
        replaced = sum(old[path] != new[path] for path in old.keys() & new.keys())
        with self._database.transaction(scope) as tx:
            now = store.dataset_named(tx, row.noun.name)
            made = DatasetVersion(
                dataset=row.noun.name,
                version=(now or row).last + 1,
                mode="commit",
                rows=len(after),
                rows_written=len(new.keys() - old.keys()) + replaced,
                size_bytes=sum(one.size_bytes for one in after),
                columns=[],
                created_at=tx.now,
                created_by=tx.actor,
                source=asked.message[:MESSAGE_CHARACTERS_MAX],
                report=NO_REPORT,
                parent=0 if head is None else head.version,
                branch=asked.branch,
                tree=tree,
            )
            self._record(tx, row, made)
        return FilesResult(
            version=made,
            changed=True,
            added=len(new.keys() - old.keys()),
            replaced=replaced,
            removed=len(old.keys() - new.keys()),
        )

    def _record(self, tx: Transaction, row: store.DatasetRow, made: DatasetVersion) -> None:
        store.insert_version(tx, row.id, made, parts=(), schema_digest=None, write_id=new_id())
        store.advance(tx, row.id, made)
        tell_published(tx, made, made.branch)
        if made.parent:
            tx.link(made.urn, "derived", f"dataset:{made.dataset}@{made.parent}")
        if tx.actor.startswith(JOB_PREFIX):
            tx.link(tx.actor, "produced", made.urn)

    def _stored(self, source: frames.Pieces | BinaryIO) -> Iterator[Blob]:
        for digest, size_bytes, content in frames.frames(source):
            if size_bytes > ARTIFACT_BYTES_MAX:
                raise TooLarge(f"a file has at most {ARTIFACT_BYTES_MAX} bytes", code="blob.too_large")
            blob = self._blobs.put(content, durable=False)
            if blob.digest != digest:
                raise InvalidInput(
                    f"what was sent as {digest[:64]!a} has the digest {blob.digest}",
                    code="files.damaged",
                    hint="send it again; the file changed, or the bytes were damaged on the way",
                )
            yield blob

    def _entries(self, version: DatasetVersion, paths: Sequence[str]) -> Sequence[FileEntry]:
        wanted = set(paths)
        return [one for one in trees.read_tree(self._blobs, version.tree or "") if one.path in wanted]

    def _framed(self, entries: Iterable[FileEntry]) -> Iterator[bytes]:
        for one in entries:
            yield frames.head(one.digest, one.size_bytes)
            with self._blobs.open(one.digest) as source:
                while piece := source.read(frames.PIECE_BYTES):
                    yield piece

    def _verdict(self, digest: str) -> str:
        try:
            with self._blobs.open(digest) as source:
                found = hashlib.file_digest(source, "sha256").hexdigest()  # type: ignore[arg-type]
        except NotFound:
            return "missing"
        return "" if found == digest else "damaged"


def _renamed(removed: Sequence[FileEntry], added: Sequence[FileEntry]) -> list[tuple[str, str]]:
    """Pairs of paths with the same content, each path once."""
    gone: dict[str, list[str]] = {}
    for one in removed:
        gone.setdefault(one.digest, []).append(one.path)
    return [(gone[one.digest].pop(0), one.path) for one in added if gone.get(one.digest)]
