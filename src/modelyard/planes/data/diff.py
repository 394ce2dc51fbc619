"""What differs between two versions of a dataset: its columns, its rows, and by key which rows changed in what."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from modelyard.engines.tables.base import FileSet, Snapshot, file_set
from modelyard.engines.tables.sql import SqlSession, as_dictionaries, quoted
from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database
from modelyard.kernel.errors import InvalidInput
from modelyard.planes.data import kept_diffs, store
from modelyard.planes.data.branches import require_dataset
from modelyard.planes.data.profile import wire_row
from modelyard.types.data import ColumnChange, DatasetVersion, Profile, ProfileChange, VersionDiff

if TYPE_CHECKING:
    import pyarrow as pa

BEFORE = "before"
AFTER = "after"
_MEASURES = ("count", "nulls", "nans", "distinct", "min", "max", "mean", "std")
SAMPLE_ROWS_MAX = 20
KINDS = ("added", "removed", "changed")

Side = tuple[DatasetVersion, Snapshot]
Snap = Callable[[Scope, str, "int | str | None"], Side]
OpenSession = Callable[[Mapping[str, FileSet]], AbstractContextManager[SqlSession]]


class Diffs:
    """Compares versions. `snap` resolves a reference, `open_session` gives SQL over both. What was found is kept."""

    def __init__(self, database: Database, snap: Snap, open_session: OpenSession) -> None:
        self._database = database
        self._snap = snap
        self._open_session = open_session

    def between(
        self, scope: Scope, name: str, before: int | str, after: int | str | None, key: Sequence[str]
    ) -> VersionDiff:
        """What became of the version `before` until the version `after`.

        With a key, rows are matched by it and may be added, removed or changed; without one a row that changed is one
        removed and one added. Raises InvalidInput where the key is no column of both, or names several rows.
        """
        sides = self._snap(scope, name, before), self._snap(scope, name, after)
        dataset, known = self._kept(scope, name, sides, key)
        if known is not None:
            return known
        found = self._found(name, *sides, key)
        with self._database.transaction(scope) as tx:
            kept_diffs.keep(tx, dataset.id, found)
        return found

    def known(
        self, scope: Scope, name: str, before: int | str, after: int | str | None, key: Sequence[str]
    ) -> VersionDiff | None:
        """As `between`, where it was found before; else None, without reading a row. Raises NotFound."""
        return self._kept(scope, name, (self._snap(scope, name, before), self._snap(scope, name, after)), key)[1]

    def _kept(
        self, scope: Scope, name: str, sides: tuple[Side, Side], key: Sequence[str]
    ) -> tuple[store.DatasetRow, VersionDiff | None]:
        with self._database.reading(scope) as tx:
            dataset = require_dataset(store.dataset_named(tx, name), scope, name)
            return dataset, kept_diffs.kept(tx, dataset.id, sides[0][0].version, sides[1][0].version, key)

    def _found(self, name: str, before: Side, after: Side, key: Sequence[str]) -> VersionDiff:
        old, old_snapshot = before
        new, new_snapshot = after
        types = ({one.name: one.type for one in old.columns}, {one.name: one.type for one in new.columns})
        shared = [column for column in types[0] if types[0][column] == types[1].get(column)]
        missing = [column for column in key if column not in shared]
        if missing:
            raise InvalidInput(
                f"column '{missing[0]}' cannot be the key: it is not in both versions with one type",
                code="dataset.diff_key_invalid",
                hint=f"columns of both are: {', '.join(shared)}",
            )
        found = VersionDiff(
            dataset=name,
            before=old.version,
            after=new.version,
            key=list(key),
            rows_before=old.rows,
            rows_after=new.rows,
            columns=_column_changes(*types),
            profile=_profile_changes(old.profile, new.profile),
        )
        if not shared or old.version == new.version:
            return found
        common = set(old_snapshot.files) & set(new_snapshot.files)
        # Rows of a file that both have are the same in both, whatever the others are.
        tables = {BEFORE: _without(old_snapshot, common), AFTER: _without(new_snapshot, common)}
        wholes = {f"version_{one.version}": _only(snapshot.file_set, key) for one, snapshot in (before, after)}
        with self._open_session(tables | (wholes if key else {})) as session:
            for number in (old.version, new.version) if key else ():
                _require_unique(session, key, number)
            if not key:
                return _by_row(session, found, shared)
            for what, table, other in (("added", AFTER, BEFORE), ("removed", BEFORE, AFTER)):
                if not tables[other].files:
                    return _one_sided(session, found, what, table)
            return _by_key(session, found, shared, {*types[0], *types[1]})


def _without(snapshot: Snapshot, files: Collection[Path]) -> FileSet:
    kept = [(path, one) for path, one in zip(snapshot.files, snapshot.held, strict=True) if path not in files]
    return file_set(snapshot.schema, tuple(path for path, _ in kept), [one for _, one in kept])


def _only(table: FileSet, columns: Sequence[str]) -> FileSet:
    """The table with some of its columns: to name hundreds takes longer than to read a few."""
    import pyarrow as pa  # heavy: imported late

    return dataclasses.replace(table, schema=pa.schema([one for one in table.schema if one.name in columns]))


def _profile_changes(old: Profile | None, new: Profile | None) -> list[ProfileChange]:
    """What of the profiles of columns that both have differs."""
    if old is None or new is None:
        return []
    later = {one.name: one for one in new.columns}
    return [
        ProfileChange(one.name, measure, before, after)
        for one in old.columns
        if one.name in later
        for measure in _MEASURES
        if (before := getattr(one, measure)) != (after := getattr(later[one.name], measure))
    ]


def _require_unique(session: SqlSession, key: Sequence[str], version: int) -> None:
    names = ", ".join(quoted(name) for name in key)
    rows = session.rows(
        f"SELECT {names}, count(*) AS rows FROM version_{version} GROUP BY ALL HAVING count(*) > 1 LIMIT 1"
    )
    if rows:
        raise InvalidInput(
            f"the key names several rows of version {version}, such as {wire_row(rows[0])}",
            code="dataset.diff_key_not_unique",
            hint="use more columns as the key, or none to compare whole rows",
        )


def _column_changes(old: Mapping[str, str], new: Mapping[str, str]) -> list[ColumnChange]:
    names = [*old, *(name for name in new if name not in old)]
    return [ColumnChange(name, old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)]


def _by_row(session: SqlSession, found: VersionDiff, shared: Sequence[str]) -> VersionDiff:
    """What is left when equal rows are set off against each other, which takes one look at both sides."""
    columns = ", ".join(quoted(name) for name in shared)
    side, times, total, what = (quoted(name) for name in _unused(shared, "side", "times", "total", "what"))
    both = f"SELECT {columns}, 1 AS {side} FROM {AFTER} UNION ALL SELECT {columns}, -1 FROM {BEFORE}"
    left = f"SELECT {columns}, sum({side})::BIGINT AS {times} FROM ({both}) GROUP BY {columns} HAVING sum({side}) <> 0"
    sides = [
        f"(SELECT *, '{name}' AS {what}, (SELECT sum(abs({times}))::BIGINT FROM differing WHERE {times} {is_of} 0) AS "
        f"{total} FROM differing WHERE {times} {is_of} 0 ORDER BY {columns} LIMIT {SAMPLE_ROWS_MAX})"
        for name, is_of in (("added", ">"), ("removed", "<"))
    ]
    rows = session.rows(f"WITH differing AS MATERIALIZED ({left}) {' UNION ALL '.join(sides)}")
    counted = {"added": 0, "removed": 0}
    samples: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        *values, count, name, whole = row.values()
        counted[name] = whole
        # As often as it is there more than on the other side.
        some = samples.setdefault(name, [])
        some += [wire_row(dict(zip(shared, values, strict=True)))] * min(abs(count), SAMPLE_ROWS_MAX - len(some))
    return replace(found, added=counted["added"], removed=counted["removed"], samples=samples)


def _unused(taken: Collection[str], *names: str) -> Iterator[str]:
    """Names like these that no column has."""
    folded = {name.casefold() for name in taken}
    for name in names:
        while name in folded:
            name += "_"
        yield name


def _one_sided(session: SqlSession, found: VersionDiff, what: str, table: str) -> VersionDiff:
    """All rows of a table, where the other one has none."""
    count = session.one(f"SELECT count(*) AS rows FROM {table}")["rows"]
    order = ", ".join(quoted(name) for name in found.key)
    first = session.rows(f"SELECT * FROM {table} ORDER BY {order} LIMIT {SAMPLE_ROWS_MAX}")
    samples = {what: [wire_row(row) for row in first]} if count else {}
    return replace(found, **{what: count}, samples=samples)


def _by_key(session: SqlSession, found: VersionDiff, shared: Sequence[str], taken: Collection[str]) -> VersionDiff:
    """One look at both sides: rows that are on one side only or differ, counted, with the first of each by the key. Of
    many columns a second look costs as much as the first, and to name them once more as much as a small table. `taken`:
    all columns of both."""
    old, new, here = _unused(taken, "old", "new", "here")
    key, values = [quoted(name) for name in found.key], [name for name in shared if name not in found.key]
    matched = " AND ".join(f"{old}.{name} IS NOT DISTINCT FROM {new}.{name}" for name in key)
    alone = [f"{side}.{here} IS NULL" for side in (old, new)]
    differs = [f"{old}.{name} IS DISTINCT FROM {new}.{name}" for name in map(quoted, values)]
    place = f"row({', '.join(f'coalesce({new}.{name}, {old}.{name})' for name in key)})"
    rows = session.table(
        f"SELECT CASE WHEN {alone[0]} THEN 'added' WHEN {alone[1]} THEN 'removed' ELSE 'changed' END AS what, "
        f"count(*) AS rows, arg_min(struct_pack(before := {old}, after := {new}), {place}, {SAMPLE_ROWS_MAX}) AS first "
        f"FROM (SELECT *, true AS {here} FROM {BEFORE}) {old} "
        f"FULL JOIN (SELECT *, true AS {here} FROM {AFTER}) {new} ON {matched} "
        f"WHERE {' OR '.join([*alone, *differs])} GROUP BY 1"
    )
    counted, samples = dict.fromkeys(KINDS, 0), {}
    for at, what in enumerate(rows["what"].to_pylist()):
        counted[what] = rows["rows"][at].as_py()
        before, after = (one.drop_columns(here) for one in _sides(rows["first"][at].values))
        shown = {"added": after, "removed": before}.get(what) or _both(before, after, found.key, values)
        samples[what] = [wire_row(row) for row in as_dictionaries(shown)]
    return replace(found, **counted, samples={what: samples[what] for what in KINDS if what in samples})


def _sides(rows: pa.StructArray) -> list[pa.Table]:
    import pyarrow as pa  # heavy: imported late

    return [pa.Table.from_struct_array(side) for side in rows.flatten()]


def _both(before: pa.Table, after: pa.Table, key: Sequence[str], values: Sequence[str]) -> pa.Table:
    """Rows by their key, with what they hold on either side."""
    import pyarrow as pa  # heavy: imported late

    columns = {name: after[name] for name in key}
    for name in values:
        columns |= {f"{name} before": before[name], f"{name} after": after[name]}
    return pa.table(columns)
