"""Datasets made by SQL over other datasets, and where their columns come from."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from modelyard.engines.tables.base import FileSet, Snapshot
from modelyard.engines.tables.sql import SqlSession, quoted
from modelyard.kernel import lineage
from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database, Transaction
from modelyard.kernel.errors import InvalidInput, NotFound
from modelyard.planes.data import history_store, store
from modelyard.planes.data.column_lineage import QueryColumns, columns_of_query, tables_of_query
from modelyard.planes.data.consumption import ALL_ROWS, Upstream, family, tie_columns
from modelyard.types.contracts import (
    ColumnLineage,
    ColumnSource,
    ConsumedColumn,
    CreateFromSql,
    DataBehind,
    DataUse,
)
from modelyard.types.data import DatasetVersion, WriteResult

if TYPE_CHECKING:
    import pyarrow as pa

_COLUMN_URN = re.compile(r"dataset:([^@#]+)@(\d+)#(.+)", re.DOTALL)
_EDGES_MAX = 5_000
_VERSIONS_WALKED_MAX = 10
_SOURCE_CHARACTERS_MAX = 10_000
_BY_WEIGHT = ("endpoint", "model", "feature-view", "dataset", "pipeline-run", "run", "job")

OpenSession = Callable[[Mapping[str, FileSet]], AbstractContextManager[SqlSession]]
Snap = Callable[[Scope, str, "int | str | None"], tuple[DatasetVersion, Snapshot]]


class Derived(msgspec.Struct, frozen=True, kw_only=True):
    """What a version was made of: a version of another dataset, and pairs of an own column (`*`: the rows as such) and
    one of that version. `used` are all columns that the query needs, by type; empty where that is not known."""

    dataset: str
    version: int
    columns: list[tuple[str, str]] = []
    used: dict[str, str] = {}


class Write(Protocol):
    """How a stream becomes a version."""

    def __call__(
        self, scope: Scope, name: str, batches: Any, *, request: CreateFromSql, derived: Sequence[Derived]
    ) -> WriteResult: ...


class Derivations:
    """Makes datasets by SQL, and answers where columns come from."""

    def __init__(self, database: Database, snap: Snap, open_session: OpenSession, write: Write) -> None:
        self._database = database
        self._snap = snap
        self._open_session = open_session
        self._write = write

    def create(self, scope: Scope, name: str, request: CreateFromSql) -> WriteResult:
        """Run one SELECT over datasets and write what it gives as the next version of a dataset.

        It runs in the sandbox, sees those datasets and nothing else, and streams: what comes out may be larger than
        memory. Checks, contract and quarantine are those of every write. Raises NotFound for a dataset that the
        statement names and that does not exist, InvalidInput for what is not one SELECT.
        """
        read = self._read(scope, request)
        tables = {one: snapshot.file_set for one, (_, snapshot) in read.items()}
        with self._open_session(tables) as session:
            statement = _storable(session, session.checked(request.statement))
            schema = session.table(f"SELECT * FROM ({statement}\n) LIMIT 0").schema
            derived = _derived(request.statement, read, schema.names)
            return self._write(scope, name, _reader(session, statement, schema), request=request, derived=derived)

    def columns(self, scope: Scope, name: str, column: str, version: int | None = None) -> ColumnLineage:
        """Where a column comes from, and what came of it. Without a version it is the newest that SQL made or used.

        Raises NotFound for a dataset, version or column that is not there.
        """
        with self._database.reading(scope) as tx:
            row = store.dataset_named(tx, name)
            found = None if row is None else store.version_row(tx, row, version or row.noun.latest)
            if row is None or found is None or column not in {one.name for one in found.noun.columns}:
                where = f"version {version}" if version else "its newest version"
                raise NotFound(
                    f"there is no column {column[:120]!a} in {where} of dataset {name[:128]!a}",
                    code="dataset.column_unknown",
                    hint=f"see its columns with `modelyard dataset get {name}`",
                )
            made = lineage.ends_like(tx, "effect", f"dataset:{name}@", f"#{column}", _VERSIONS_WALKED_MAX)
            used = lineage.ends_like(tx, "cause", f"dataset:{name}@", f"#{column}", _VERSIONS_WALKED_MAX)
            if version is not None:
                made, used = ([one for one in urns if f"@{version}#" in one] for urns in (made, used))
            newest = max((_version_of(one) for one in made), default=found.noun.version)
            up = _walk(tx, [one for one in made if _version_of(one) == newest], "up")
            down, used_by = _walk(tx, used, "down"), _users(tx, used, name)
            return ColumnLineage(dataset=name, version=newest, column=column, up=up, down=down, used_by=used_by)

    def behind(self, scope: Scope, urn: str) -> DataBehind:
        """Which data made a thing: every dataset version that led to it, down to the columns that were read."""
        with self._database.reading(scope) as tx:
            upstream = Upstream(tx, [urn], through=True)
            found = upstream.of(urn)
        data = [
            DataUse(
                dataset=name,
                version=version,
                columns=sorted(uses.columns),
                readers=sorted(uses.readers),
                whole=uses.is_whole,
            )
            for (name, version), uses in sorted(found.items())
        ]
        return DataBehind(urn=urn, data=data, truncated=upstream.is_cut)

    def _read(self, scope: Scope, request: CreateFromSql) -> dict[str, tuple[DatasetVersion, Snapshot]]:
        """The datasets that the statement names, at the versions that are wanted."""
        wanted = tables_of_query(request.statement)
        with self._database.reading(scope) as tx:
            named = {one: store.dataset_folded(tx, one.casefold()) for one in {*wanted, *request.inputs}}
        missing = sorted(one for one in request.inputs if named[one] is None)
        if missing:
            raise NotFound(
                f"dataset {missing[0][:128]!a} does not exist in project '{scope.project}'",
                code="dataset.not_found",
                hint="list them with `modelyard dataset list`",
            )
        refs = {named[one] or one: ref for one, ref in request.inputs.items()}
        found = sorted({one for one in named.values() if one is not None})
        return {one: self._snap(scope, one, refs.get(one)) for one in found}


def _reader(session: SqlSession, statement: str, schema: pa.Schema) -> pa.RecordBatchReader:
    import pyarrow as pa  # heavy: imported late

    return pa.RecordBatchReader.from_batches(schema, session.batches(statement, schema))


def _storable(session: SqlSession, statement: str) -> str:
    """The statement with sums of integers, which DuckDB gives in 128 bits, in the 64 that a table holds."""
    columns = session.columns_of(statement)
    names = [name.casefold() for name, _ in columns]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidInput(
            f"two columns of the query are named '{twice}'",
            code="dataset.column_duplicate",
            hint="name them apart with AS; names are compared without case",
        )
    if not any(kind in ("HUGEINT", "UHUGEINT") for _, kind in columns):
        return statement
    cast = [
        f"CAST({quoted(name)} AS BIGINT) AS {quoted(name)}" if kind.endswith("HUGEINT") else quoted(name)
        for name, kind in columns
    ]
    return f"SELECT {', '.join(cast)} FROM ({statement}\n)"


def _derived(
    statement: str, read: Mapping[str, tuple[DatasetVersion, Snapshot]], outputs: Sequence[str]
) -> list[Derived]:
    schemas = {name: snapshot.schema.names for name, (_, snapshot) in read.items()}
    columns = columns_of_query(statement, schemas, outputs)
    return [_derived_of(name, version, snapshot, columns) for name, (version, snapshot) in read.items()]


def _derived_of(name: str, version: DatasetVersion, snapshot: Snapshot, columns: QueryColumns | None) -> Derived:
    if columns is None:
        return Derived(dataset=name, version=version.version)
    pairs = [(out, source) for out, sources in columns.outputs.items() for table, source in sources if table == name]
    pairs += [(ALL_ROWS, source) for table, source in columns.rows if table == name]
    used = {one: str(snapshot.schema.field(one).type) for one in columns.used.get(name, [])}
    return Derived(dataset=name, version=version.version, columns=pairs[:_EDGES_MAX], used=used)


def record_derivation(tx: Transaction, version: DatasetVersion, derived: Sequence[Derived]) -> None:
    """Draw the edges of a version that SQL made, and remember its dataset as a consumer of what it was made of."""
    kept = []
    for one in derived:
        source = f"dataset:{one.dataset}@{one.version}"
        if source != version.urn:
            tx.link(version.urn, "derived", source)
            tie_columns(tx, version.urn, "derived", source, list(one.used))  # for who reads it whole
        for own, column in one.columns:
            tx.link(f"{version.urn}#{own}", "derived", f"{source}#{column}")
        row = store.dataset_named(tx, one.dataset)
        if row is not None and one.dataset != version.dataset:
            uses = [ConsumedColumn(name=name, type=kind) for name, kind in one.used.items()]
            history_store.set_consumer(tx, row.id, f"dataset:{version.dataset}", uses, origin="lineage")
            kept.append(row.id)
    if derived:
        history_store.forget_lineage_consumer(tx, f"dataset:{version.dataset}", kept)


def source_text(statement: str) -> str:
    """How a statement stands as the source of a version."""
    return f"sql: {statement}"[:_SOURCE_CHARACTERS_MAX]


def _walk(tx: Transaction, urns: Sequence[str], direction: lineage.Direction) -> list[ColumnSource]:
    edges = {
        (edge.subject, edge.object)
        for urn in urns
        for edge in lineage.walk(tx, urn, direction).edges
        if edge.relation == "derived"
    }
    found = [(_COLUMN_URN.fullmatch(subject), _COLUMN_URN.fullmatch(source)) for subject, source in sorted(edges)]
    return [
        ColumnSource(
            dataset=one[1], version=int(one[2]), column=one[3],
            of_dataset=other[1], of_version=int(other[2]), of_column=other[3],
        )
        for one, other in found
        if one and other
    ]  # fmt: skip


def _users(tx: Transaction, urns: Sequence[str], name: str) -> list[str]:
    """All that came of columns, without their own dataset: what matters most first."""
    nodes = {family(node) for urn in urns for node in lineage.walk(tx, urn, "down").nodes}
    found = (node for node in nodes if not node.startswith(f"dataset:{name}@"))
    return sorted(found, key=lambda node: (_rank(node), node))


def _rank(urn: str) -> int:
    kind = urn.partition(":")[0]
    return _BY_WEIGHT.index(kind) if kind in _BY_WEIGHT else len(_BY_WEIGHT)


def _version_of(urn: str) -> int:
    found = _COLUMN_URN.fullmatch(urn)
    return int(found[2]) if found else 0
