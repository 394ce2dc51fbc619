"""Reading a version: its files, or its rows with a projection and a condition; who reads in a job is remembered."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelyard.engines.tables.arrow import scan
from modelyard.engines.tables.base import FileSet, Snapshot
from modelyard.engines.tables.sql import SqlSession
from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database
from modelyard.kernel.errors import InvalidInput
from modelyard.planes.data import store
from modelyard.planes.data.checks import DATASET
from modelyard.planes.data.column_lineage import columns_of_query
from modelyard.planes.data.consumption import tie_columns
from modelyard.planes.data.publish import JOB_PREFIX
from modelyard.planes.data.refs import Ref, require_rows
from modelyard.planes.data.states import States
from modelyard.types.data import DatasetVersion

if TYPE_CHECKING:
    import pyarrow as pa

Find = Callable[[Scope, str, Ref], tuple[store.DatasetRow, store.VersionRow]]
OpenSession = Callable[[Mapping[str, FileSet]], AbstractContextManager[SqlSession]]


@dataclass(frozen=True, slots=True)
class Reading:
    """Rows of a version that are being read, in batches. `columns`: those that were named, in the projection or the
    condition; None where all were wanted."""

    version: DatasetVersion
    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]
    columns: Callable[[], Sequence[str] | None]


class Reader:
    """Reads versions. `find` gives a table's row and the version that a reference names, or raises NotFound."""

    def __init__(self, database: Database, states: States, find: Find, open_session: OpenSession) -> None:
        self._database = database
        self._states = states
        self._find = find
        self._open_session = open_session

    def snapshot(self, scope: Scope, name: str, ref: Ref, *, whole: bool = False) -> tuple[DatasetVersion, Snapshot]:
        """A version with the files that hold it. Counts as reading; `whole`: whoever asks may need any column, else
        those that he ties himself to, if he does."""
        version, snapshot = self._opened(scope, name, ref)
        self._remember(scope, version, lambda: None if whole else ())
        return version, snapshot

    def stream(self, scope: Scope, name: str, ref: Ref, columns: Sequence[str] | None, filter: str | None) -> Reading:
        """Rows of a version. What is wrong with the request is raised at once."""
        import pyarrow as pa  # heavy: imported late

        version, snapshot = self._opened(scope, name, ref)
        names = list(columns) if columns is not None else snapshot.schema.names
        missing = [column for column in names if column not in snapshot.schema.names]
        if missing or not names:
            raise InvalidInput(
                f"dataset '{name}' version {version.version} has no column '{missing[0]}'" if missing else "no columns",
                code="dataset.column_unknown",
                hint=f"its columns are: {', '.join(snapshot.schema.names)}",
            )
        schema = pa.schema([snapshot.schema.field(column) for column in names])
        if filter:
            with self._open_session({DATASET: snapshot.file_set}) as session:
                session.check_condition(DATASET, filter)

        def named() -> Sequence[str] | None:
            return None if columns is None else [*names, *_in_condition(filter, snapshot.schema.names)]

        self._remember(scope, version, named)
        return Reading(version, schema, self._batches(snapshot, schema, filter), named)

    def _batches(self, snapshot: Snapshot, schema: pa.Schema, filter: str | None) -> Iterator[pa.RecordBatch]:
        if filter:
            with self._open_session({DATASET: snapshot.file_set}) as session:
                yield from session.stream(DATASET, schema.names, filter, schema)
            return
        yield from scan(snapshot.file_set, schema.names)

    def _opened(self, scope: Scope, name: str, ref: Ref) -> tuple[DatasetVersion, Snapshot]:
        row, version = self._find(scope, name, ref)
        require_rows(version.noun)
        return version.noun, self._states.snapshot(scope, row, version)

    def _remember(self, scope: Scope, version: DatasetVersion, named: Callable[[], Sequence[str] | None]) -> None:
        """Tie a job to the version that it reads, and to the columns that it names."""
        if not scope.actor.startswith(JOB_PREFIX):
            return
        columns = named()
        with self._database.transaction(scope) as tx:
            tx.link(scope.actor, "used", version.urn)
            tie_columns(tx, scope.actor, "used", version.urn, columns)


def _in_condition(filter: str | None, columns: Sequence[str]) -> Sequence[str]:
    """The columns that a condition looks at; all of them where it does not tell."""
    if not filter:
        return ()
    query = columns_of_query(f"SELECT 1 AS one FROM {DATASET} WHERE ({filter}\n)", {DATASET: columns})
    return columns if query is None else sorted({column for _, column in query.rows})
