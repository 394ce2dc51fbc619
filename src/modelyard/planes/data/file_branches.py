"""Branches of file datasets: a merge moves a name, a revert makes a version of an older tree; no byte is touched."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from modelyard.engines.blobs.base import BlobStore
from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database, Transaction
from modelyard.kernel.errors import Conflict, NotFound
from modelyard.kernel.ids import new_id
from modelyard.planes.data import store, trees
from modelyard.planes.data.publish import NO_REPORT
from modelyard.planes.data.refs import Ref, require_rows, resolve_number
from modelyard.types.data import DatasetVersion, WriteResult
from modelyard.types.data_branches import BranchMerge

_PATHS_SHOWN = 5


class FileBranches:
    """The verbs of branches that differ where a version is a tree of files."""

    def __init__(self, database: Database, blobs: BlobStore) -> None:
        self._database = database
        self._blobs = blobs

    def merge(self, scope: Scope, row: store.DatasetRow, branch: str, into: str) -> BranchMerge:
        """Let `into` name what `branch` names, where that was made from what `into` names. Raises Conflict, naming
        files that both changed."""
        name = row.noun.name
        for one in (branch, into):
            if one != store.MAIN and one not in row.noun.branches:
                raise NotFound(f"dataset '{name}' has no branch {one[:128]!a}", code="dataset.branch_not_found")
        source, target = row.head(branch), row.head(into)
        with self._database.reading(scope) as tx:
            parents = store.parents(tx, row.id)
        ended = BranchMerge(dataset=name, branch=branch, into=into, before=target, version=source, moved=True)
        if source in store.line(parents, target):
            return replace(ended, version=target, moved=False)
        if target not in store.line(parents, source):
            raise self._conflict(scope, row, (branch, source), (into, target), parents)
        with self._database.transaction(scope) as tx:
            version = _version(tx, row, source)
            store.move(tx, row.id, version, into, target, "merge")
            said = {"branch": branch, "into": into, "version": source, "before": target}
            tx.event("dataset.merged", version.urn, said)
            if into == store.MAIN:
                tell_published(tx, version, into)
        return ended

    def revert(self, scope: Scope, row: store.DatasetRow, to: Ref, branch: str) -> WriteResult:
        """Make a version with the tree of an older one. Raises NotFound."""
        name = row.noun.name
        with self._database.transaction(scope) as tx:
            now = store.dataset_named(tx, name) or row
            number = resolve_number(tx, now, to)
            if not number:
                raise NotFound(f"dataset '{name}' has no version {str(to)[:128]!a}", code="dataset.version_not_found")
            wanted, head = _version(tx, now, number), now.head(branch)
            require_rows(wanted)
            if wanted.version == head:
                return WriteResult(dataset=name, status="unchanged", rows=0, report=NO_REPORT, version=head)
            made = replace(
                wanted,
                version=now.last + 1,
                parent=head,
                branch=branch,
                mode="revert",
                rows_written=0,
                created_at=tx.now,
                created_by=tx.actor,
                source=wanted.urn,
                report=NO_REPORT,
                tags=[],
            )
            store.insert_version(tx, row.id, made, parts=(), schema_digest=None, write_id=new_id())
            store.advance(tx, row.id, made)
            tell_published(tx, made, branch)
            tx.link(made.urn, "derived", wanted.urn)
        return WriteResult(dataset=name, status="published", rows=made.rows, report=NO_REPORT, version=made.version)

    def _conflict(
        self,
        scope: Scope,
        row: store.DatasetRow,
        theirs: tuple[str, int],
        ours: tuple[str, int],
        parents: Mapping[int, int],
    ) -> Conflict:
        common = max(set(store.line(parents, theirs[1])) & set(store.line(parents, ours[1])), default=0)
        with self._database.reading(scope) as tx:
            named = [_version(tx, row, number).tree if number else None for number in (common, theirs[1], ours[1])]
        base, *sides = [trees.read_index(self._blobs, tree) if tree else [] for tree in named]
        changed = [
            {one.path for one in trees.differences(base, side, lambda chunk: trees.read_chunk(self._blobs, chunk))}
            for side in sides
        ]
        both = sorted(changed[0] & changed[1])
        said = f"; files changed in both: {', '.join(both[:_PATHS_SHOWN])}" if both else ""
        return Conflict(
            f"'{theirs[0]}' cannot be merged into '{ours[0]}' of dataset '{row.noun.name}': both moved since version "
            f"{common}{said}",
            code="dataset.merge_conflict",
            hint="check one of them out, and add its files to a new branch made from the other",
            details={"base": common, "paths": both[:100]},
        )


def _version(tx: Transaction, row: store.DatasetRow, number: int) -> DatasetVersion:
    found = store.version_row(tx, row, number)
    if found is None:
        raise NotFound(
            f"dataset '{row.noun.name}' has no version {number}",
            code="dataset.version_not_found",
            hint=f"list them with `modelyard dataset versions {row.noun.name}`",
        )
    return found.noun


def tell_published(tx: Transaction, version: DatasetVersion, branch: str) -> None:
    """Say that a branch names a new version."""
    kind = "dataset.version_published" if branch == store.MAIN else "dataset.branch_written"
    said = {"dataset": version.dataset, "version": version.version, "branch": branch, "mode": version.mode}
    tx.event(
        kind,
        version.urn,
        {**said, "rows": version.rows, "rows_written": version.rows_written, "source": version.source},
    )
