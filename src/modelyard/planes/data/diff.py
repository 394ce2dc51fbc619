"""What differs between two versions of a dataset: its columns, its rows, and by key which rows changed in what."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from modelyard.engines.tables.base import FileSet, Snapshot, file_set
from modelyard.engines.tables.sql import SqlSession, quoted
from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database
from modelyard.kernel.errors import InvalidInput
from modelyard.planes.data import kept_diffs, store
from modelyard.planes.data.branches import require_dataset
from modelyard.planes.data.profile import wire_row
from modelyard.types.data import ColumnChange, DatasetVersion, Profile, ProfileChange, VersionDiff

BEFORE = "before"
AFTER = "after"
WHOLE = "whole"
_MEASURES = ("count", "nulls", "nans", "distinct", "min", "max", "mean", "std")
SAMPLE_ROWS_MAX = 20

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
        if key:
            for snapshot, number in ((old_snapshot, old.version), (new_snapshot, new.version)):
                with self._open_session({WHOLE: snapshot.file_set}) as session:
                    _require_unique(session, key, number)
        with self._open_session(tables) as session:
            return _by_key(session, found, shared) if key else _by_row(session, found, shared)


def _without(snapshot: Snapshot, files: Collection[Path]) -> FileSet:
    kept = [(path, one) for path, one in zip(snapshot.files, snapshot.held, strict=True) if path not in files]
    return file_set(snapshot.schema, tuple(path for path, _ in kept), [one for _, one in kept])


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
    rows = session.rows(f"SELECT {names}, count(*) AS rows FROM {WHOLE} GROUP BY ALL HAVING count(*) > 1 LIMIT 1")
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


def _by_key(session: SqlSession, found: VersionDiff, shared: Sequence[str]) -> VersionDiff:
    key = [quoted(name) for name in found.key]
    matched = " AND ".join(f"b.{name} IS NOT DISTINCT FROM a.{name}" for name in key)
    values = [quoted(name) for name in shared if name not in found.key]
    differs = " OR ".join(f"b.{name} IS DISTINCT FROM a.{name}" for name in values) or "false"
    come = f"(SELECT a.* FROM {AFTER} a ANTI JOIN {BEFORE} b ON {matched})"
    gone = f"(SELECT b.* FROM {BEFORE} b ANTI JOIN {AFTER} a ON {matched})"
    both = f"FROM {BEFORE} b JOIN {AFTER} a ON {matched} WHERE {differs}"
    sides = [f"b.{name} AS {quoted(f'{plain} before')}, a.{name} AS {quoted(f'{plain} after')}"
             for name, plain in zip(values, [one for one in shared if one not in found.key], strict=True)]  # fmt: skip
    changed = f"(SELECT {', '.join([*(f'a.{name}' for name in key), *sides])} {both})"
    counted = session.one(
        f"SELECT (SELECT count(*) FROM {come}) AS added, (SELECT count(*) FROM {gone}) AS removed, "
        f"(SELECT count(*) {both}) AS changed"
    )
    sources = {"added": come, "removed": gone, "changed": changed}
    samples = {
        what: [wire_row(row) for row in session.rows(f"SELECT * FROM {source} ORDER BY ALL LIMIT {SAMPLE_ROWS_MAX}")]
        for what, source in sources.items()
        if counted[what]
    }
    return replace(found, **counted, samples=samples)
