"""What a write does to the files of the version before: which go, and which rows of those stay and are written anew.

Files are never changed. Where some rows of a file go, the file goes, and what stays of it is written to a new one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelyard.engines.tables.base import FILE_COLUMN, DataFile, FileSet, Staged, TableStore, file_set
from modelyard.engines.tables.sql import Later, SqlSession, quoted
from modelyard.kernel.errors import InvalidInput
from modelyard.planes.data.checks import DATASET
from modelyard.planes.data.profile import wire_row
from modelyard.planes.data.states import State

if TYPE_CHECKING:
    import pyarrow as pa

OpenSession = Callable[[Mapping[str, "FileSet | pa.Table | Later"]], AbstractContextManager[SqlSession]]
REWRITTEN = "r"
_SOURCE = "source"
_TOUCHED = "touched"
_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class Effect:
    """Files that go, and the rows of them that stay, staged; `rows_gone` of them do not."""

    removed: tuple[DataFile, ...] = ()
    rewritten: Staged | None = None
    rows_gone: int = 0

    @property
    def removed_names(self) -> frozenset[str]:
        """The names of the files that go."""
        return frozenset(one.name for one in self.removed)

    def is_all_of(self, state: State) -> bool:
        """Whether nothing stays of the state."""
        return len(self.removed) == state.count and self.rewritten is None


class Rewriter:
    """Finds and stages the effect of a write on a state. What it reads and writes is bounded in memory."""

    def __init__(self, tables: TableStore, open_session: OpenSession) -> None:
        self._tables = tables
        self._open_session = open_session

    def overwrite(self, state: State) -> Effect:
        """All rows go."""
        return Effect(state.files, rows_gone=state.rows)

    def delete(
        self, location: str, write_id: str, state: State, where: str, partition_by: Sequence[str] = ()
    ) -> Effect:
        """The rows that meet a condition go. Raises InvalidInput for what is no condition on the rows."""
        if state.schema is None:
            return Effect()
        with self._open_session({DATASET: self._marked(location, state.files, state.schema)}) as session:
            session.check_condition(DATASET, where)
            # A line of its own, so that a comment at the end of the text hides nothing.
            found = f"FROM {DATASET} WHERE ({where}\n)"
            hit = _counted(session, f"SELECT {FILE_COLUMN}, count(*) AS rows {found} GROUP BY 1")
        stay = f"FROM {_TOUCHED} AS {DATASET} WHERE ({where}\n) IS NOT TRUE"
        return self._rewrite(location, write_id, state, hit, {}, stay, partition_by)

    def replace_by_key(
        self,
        location: str,
        write_id: str,
        state: State,
        source: FileSet,
        key: Sequence[str],
        partition_by: Sequence[str] = (),
    ) -> Effect:
        """The rows go whose key the source has. Raises InvalidInput where a key of the source is null, NaN or there
        twice, or is no key of the state."""
        names = [quoted(name) for name in key]
        with self._open_session({_SOURCE: source}) as session:
            _check_key(session, source.schema, key)
        if state.schema is None or not state.files:
            return Effect()
        matched = " AND ".join(f"d.{name} = s.{name}" for name in names)
        tables = {DATASET: self._marked(location, state.files, state.schema), _SOURCE: source}
        with self._open_session(tables) as session:
            found = f"FROM {DATASET} d SEMI JOIN {_SOURCE} s ON {matched}"
            hit = _counted(session, f"SELECT d.{FILE_COLUMN}, count(*) AS rows {found} GROUP BY 1")
        stay = f"FROM {_TOUCHED} d ANTI JOIN {_SOURCE} s ON {matched}"
        return self._rewrite(location, write_id, state, hit, {_SOURCE: source}, stay, partition_by)

    def _marked(self, location: str, files: Sequence[DataFile], schema: pa.Schema) -> FileSet:
        return file_set(schema, self._tables.paths(location, files), files, marked=True)

    def _rewrite(
        self,
        location: str,
        write_id: str,
        state: State,
        hit: Mapping[str, int],
        tables: Mapping[str, FileSet],
        stay: str,
        partition_by: Sequence[str],
    ) -> Effect:
        """Stage what stays of the files that were hit; those of which nothing stays are not read."""
        import pyarrow as pa  # heavy: imported late

        assert state.schema is not None
        paths = self._tables.paths(location, state.files)
        removed = tuple(one for one, path in zip(state.files, paths, strict=True) if str(path) in hit)
        gone = sum(hit.values())
        partly = [one for one in removed if hit[str(self._tables.paths(location, [one])[0])] < one.rows]
        if not partly:
            return Effect(removed, None, gone)
        columns = ", ".join(quoted(name) for name in state.schema.names)
        needed = {
            _TOUCHED: file_set(state.schema, self._tables.paths(location, partly), partly),
            DATASET: file_set(state.schema, paths, state.files),
            **tables,
        }
        with self._open_session(needed) as session:
            batches = session.batches(f"SELECT {columns} {stay}", state.schema)
            reader = pa.RecordBatchReader.from_batches(state.schema, batches)
            rewritten = self._tables.stage(location, write_id, reader, state.schema, partition_by, REWRITTEN)
        return Effect(removed, rewritten, gone)


def _counted(session: SqlSession, statement: str) -> dict[str, int]:
    return {row[FILE_COLUMN]: row["rows"] for row in session.rows(statement)}


def check_key_columns(schema: pa.Schema, key: Sequence[str]) -> None:
    """Raise InvalidInput unless these columns can be the key of a merge."""
    import pyarrow as pa  # heavy: imported late

    if not key:
        raise InvalidInput(
            "a merge needs a key: columns that say which row is meant",
            code="dataset.merge_key_missing",
            hint="give the dataset a key, or name columns with `on`",
        )
    for name in key:
        if name not in schema.names:
            raise InvalidInput(
                f"the key column '{name}' is not in the rows that were sent",
                code="dataset.merge_key_missing",
                hint=f"their columns are: {', '.join(schema.names[:20])}",
            )
        if pa.types.is_nested(schema.field(name).type):
            raise InvalidInput(f"column '{name}' is nested and cannot be a key", code="dataset.merge_key_missing")


def _check_key(session: SqlSession, schema: pa.Schema, key: Sequence[str]) -> None:
    import pyarrow as pa  # heavy: imported late

    names = [quoted(name) for name in key]
    empty = [f"{name} IS NULL" for name in names]
    empty += [f"isnan({quoted(name)})" for name in key if pa.types.is_floating(schema.field(name).type)]
    bad = f"FROM {_SOURCE} WHERE {' OR '.join(empty)}"
    counted = session.one(f"SELECT count(*) AS n {bad}")["n"]
    if counted:
        raise InvalidInput(
            f"{counted} of the rows to merge have null or NaN in their key ({', '.join(key)})",
            code="dataset.merge_key_null",
            hint="a row without a key matches no row; leave it out, or give it one",
            details={"rows": counted, "examples": _examples(session, f"SELECT * {bad} LIMIT {_EXAMPLES}")},
        )
    listed = ", ".join(names)
    twice = f"SELECT {listed}, count(*) AS rows FROM {_SOURCE} GROUP BY ALL HAVING count(*) > 1"
    examples = _examples(session, f"{twice} ORDER BY ALL LIMIT {_EXAMPLES}")
    if examples:
        counted = session.one(f"SELECT count(*) AS n FROM ({twice})")["n"]
        raise InvalidInput(
            f"{counted} keys are there more than once in the rows to merge, such as {examples[0]}",
            code="dataset.merge_key_duplicate",
            hint="keep one row for each key: which of them is meant cannot be known",
            details={"keys": counted, "examples": examples},
        )


def _examples(session: SqlSession, statement: str) -> list[dict[str, Any]]:
    return [wire_row(row) for row in session.rows(statement)]
