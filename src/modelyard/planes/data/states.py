"""A version with its files and schema, as the catalog knows them."""

from __future__ import annotations

import base64
import threading
from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from modelyard.engines.tables.base import DataFile, Snapshot, TableStore
from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database, Transaction
from modelyard.planes.data import manifests, store
from modelyard.planes.data.manifests import Arrangement, Manifest, Part

if TYPE_CHECKING:
    import pyarrow as pa

_MANIFESTS_KEPT = 256
_SCHEMAS_KEPT = 256


@dataclass(frozen=True)
class State:
    """A version's files; `version` is None, and there are none, before the first.

    `held` is empty of parts where the files were read from the log, because the version is older than manifests are.
    """

    version: store.VersionRow | None = None
    schema: pa.Schema | None = None
    held: tuple[tuple[Part, Sequence[DataFile]], ...] = ()
    listed: bool = True

    @property
    def number(self) -> int:
        """The version's number, 0 before the first."""
        return 0 if self.version is None else self.version.noun.version

    @property
    def table_version(self) -> int | None:
        """The version of the log with these rows, None where the log never had them."""
        return None if self.version is None else self.version.noun.table_version

    @property
    def rows(self) -> int:
        """Rows over all files."""
        return 0 if self.version is None else self.version.noun.rows

    @property
    def size_bytes(self) -> int:
        """Bytes over all files."""
        return 0 if self.version is None else self.version.noun.size_bytes

    @cached_property
    def files(self) -> tuple[DataFile, ...]:
        """All files, in their order."""
        return tuple(one for _, files in self.held for one in files)

    @property
    def count(self) -> int:
        """How many files there are."""
        return sum(part.files for part, _ in self.held)

    def is_same(self, other: State) -> bool:
        """Whether the other is this version in these files."""
        return self.number == other.number and [one for one, _ in self.held] == [one for one, _ in other.held]

    def arranged(self, removed: Collection[str], added: Sequence[DataFile]) -> Arrangement:
        """The manifests of a version with other files: without some, with others after all that stay."""
        if not self.listed or len(removed) == self.count:
            stay = [one for one in self.files if one.name not in removed]
            return manifests.appended((), [*stay, *added], lambda _: ())
        left = manifests.without(self.held, removed) if removed else Arrangement([part for part, _ in self.held], [])
        if not added:
            return left
        known = {part.id: files for part, files in self.held} | {one.id: one.files for one in left.new}
        made = manifests.appended(left.parts, added, lambda parts: [file for part in parts for file in known[part.id]])
        named = {part.id for part in made.parts}
        return Arrangement(made.parts, [*(one for one in left.new if one.id in named), *made.new])


class States:
    """Reads states. What is immutable in them (manifests, schemas) is kept for the next."""

    def __init__(self, database: Database, tables: TableStore) -> None:
        self._database = database
        self._tables = tables
        self._manifests: OrderedDict[str, list[DataFile]] = OrderedDict()
        self._schemas: OrderedDict[str, pa.Schema] = OrderedDict()
        self._lock = threading.Lock()

    def head(self, scope: Scope, name: str, branch: str) -> State:
        """The state that a branch names now."""
        with self._database.reading(scope) as tx:
            row = store.dataset_named(tx, name)
            found = State() if row is None else self._named(tx, row, branch)
        return found if row is None else self._from_log(row, found)

    def head_of(self, scope: Scope, dataset: store.DatasetRow, branch: str) -> State:
        """The state that a branch named when the dataset was looked up."""
        with self._database.reading(scope) as tx:
            found = self._named(tx, dataset, branch)
        return self._from_log(dataset, found)

    def newest(self, scope: Scope, dataset: store.DatasetRow, branch: str) -> tuple[store.DatasetRow, State]:
        """The dataset as it is now, and the state that a branch names."""
        with self._database.reading(scope) as tx:
            row = store.dataset_named(tx, dataset.noun.name) or dataset
            found = self._named(tx, row, branch)
        return row, self._from_log(row, found)

    def of(self, scope: Scope, dataset: store.DatasetRow, version: store.VersionRow) -> State:
        """The state of a version."""
        with self._database.reading(scope) as tx:
            found = self._listed(tx, dataset, version)
        return self._from_log(dataset, found)

    def _named(self, tx: Transaction, dataset: store.DatasetRow, branch: str) -> State:
        number = dataset.head(branch)
        version = store.version_row(tx, dataset, number) if number else None
        return State() if version is None else self._listed(tx, dataset, version)

    def _listed(self, tx: Transaction, dataset: store.DatasetRow, version: store.VersionRow) -> State:
        """The state as the catalog has it; without a schema where only the log knows the files."""
        if version.parts is None or version.schema_digest is None:
            return State(version, listed=False)
        schema = self._schema(tx, dataset.id, version.schema_digest)
        return State(version, schema, tuple(self._files(tx, version.parts)))

    def _from_log(self, dataset: store.DatasetRow, state: State) -> State:
        if state.listed or state.version is None:
            return state
        found = self._tables.snapshot(dataset.location, state.version.noun.table_version or 0)
        return replace(state, schema=found.schema, held=((Part("", len(found.held)), found.held),))

    def append_target(self, scope: Scope, name: str) -> tuple[store.AppendTarget, pa.Schema | None] | None:
        """Where a buffered append goes, and the schema that `main` has now, None before the first version."""
        with self._database.reading(scope) as tx:
            target = store.append_target(tx, name)
            if target is None:
                return None
            if target.schema_digest is not None:
                return target, self._schema(tx, target.id, target.schema_digest)
            if not target.latest:
                return target, None
        return target, self.head(scope, name, store.MAIN).schema

    def snapshot(self, scope: Scope, dataset: store.DatasetRow, version: store.VersionRow) -> Snapshot:
        """A version as engines read it."""
        state = self.of(scope, dataset, version)
        assert state.schema is not None
        if dataset.noun.origin:
            self._tables.require_unchanged(dataset.location, [one for one in state.files if one.modified_us])
        return Snapshot(
            version=version.noun.version,
            schema=state.schema,
            files=self._tables.paths(dataset.location, state.files),
            size_bytes=state.size_bytes,
            rows=state.rows,
            held=state.files,
            of=f"version {version.noun.version} of dataset '{dataset.noun.name}'",
        )

    def _files(self, tx: Transaction, parts: Sequence[Part]) -> list[tuple[Part, Sequence[DataFile]]]:
        with self._lock:
            known = {part.id: self._manifests[part.id] for part in parts if part.id in self._manifests}
        for part, files in manifests.read(tx, [part for part in parts if part.id not in known]):
            known[part.id] = files
            self._keep(Manifest(part.id, files))
        return [(part, known[part.id]) for part in parts]

    def _keep(self, manifest: Manifest) -> None:
        with self._lock:
            self._manifests[manifest.id] = manifest.files
            while len(self._manifests) > _MANIFESTS_KEPT:
                self._manifests.popitem(last=False)

    def _schema(self, tx: Transaction, dataset_id: str, digest: str) -> pa.Schema:
        with self._lock:
            known = self._schemas.get(digest)
        if known is None:
            known = schema_from(manifests.schema_of(tx, dataset_id, digest))
            with self._lock:
                self._schemas[digest] = known
                while len(self._schemas) > _SCHEMAS_KEPT:
                    self._schemas.popitem(last=False)
        return known


def schema_text(schema: pa.Schema) -> str:
    """A schema as text."""
    return base64.b64encode(schema.remove_metadata().serialize()).decode()


def schema_from(text: str) -> pa.Schema:
    """The schema of a text."""
    import pyarrow as pa  # heavy: imported late

    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text)))
