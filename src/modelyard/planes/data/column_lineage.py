"""Which columns of which tables a SELECT's columns come from. Pure: text and schemas in, columns out.

sqlglot resolves stars, aliases, subqueries, CTEs and unions against the tables' columns. What it cannot read (DuckDB
knows syntax that it does not) has no column lineage: `columns_of_query` says so by None, and nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlglot import exp
    from sqlglot.optimizer.scope import Scope

Source = tuple[str, str]
"""A table and one of its columns."""
COLUMNS_MAX = 10_000
_WORD = re.compile(r'"((?:[^"]|"")+)"|([A-Za-z_][A-Za-z0-9_]*)')


@dataclass(frozen=True, slots=True)
class QueryColumns:
    """`outputs`: for each column that comes out, those that its values are made of. `rows`: those that decide which
    rows come out, in filters, joins, groupings and orders."""

    outputs: dict[str, tuple[Source, ...]] = field(default_factory=dict)
    rows: tuple[Source, ...] = ()

    @property
    def used(self) -> dict[str, list[str]]:
        """Every column that the query needs, by table."""
        found: dict[str, set[str]] = {}
        for table, column in (*self.rows, *(one for sources in self.outputs.values() for one in sources)):
            found.setdefault(table, set()).add(column)
        return {table: sorted(columns) for table, columns in sorted(found.items())}


def tables_of_query(statement: str) -> set[str]:
    """Names that may be tables of a SELECT: exactly those where sqlglot can read it, else every word in it."""
    import sqlglot  # heavy: imported late
    from sqlglot import exp  # heavy: imported late
    from sqlglot.errors import SqlglotError  # heavy: imported late

    try:
        tree = sqlglot.parse_one(statement, dialect="duckdb")
        found = {table.name for table in tree.find_all(exp.Table) if table.name}
    except (SqlglotError, RecursionError):
        found = set()
    return found or {one[0] or one[1] for one in _WORD.findall(statement)}


def columns_of_query(
    statement: str, schemas: Mapping[str, Sequence[str]], outputs: Sequence[str] | None = None
) -> QueryColumns | None:
    """Where the columns of a SELECT over tables with these columns come from; None where that cannot be told.

    `outputs` are the names of its columns as the database has them: where they are not those that were found here,
    something was misread, and nothing is said.
    """
    import sqlglot  # heavy: imported late
    from sqlglot.errors import SqlglotError  # heavy: imported late
    from sqlglot.optimizer.qualify import qualify  # heavy: imported late
    from sqlglot.optimizer.scope import build_scope  # heavy: imported late

    if sum(map(len, schemas.values())) > COLUMNS_MAX:
        return None
    known = {table.casefold(): table for table in schemas}
    typed = {table: dict.fromkeys(columns, "VARCHAR") for table, columns in schemas.items()}
    try:
        tree = sqlglot.parse_one(statement, dialect="duckdb")
        whole = qualify(tree, schema=typed, dialect="duckdb", quote_identifiers=False)
        root = build_scope(whole)
        if root is None:
            return None
        walk = _Walk({table: {one.casefold(): one for one in columns} for table, columns in schemas.items()}, known)
        found = walk.outputs(root)
        if outputs is not None:
            if [one.casefold() for one in outputs] != [one.casefold() for one in found]:
                return None
            found = dict(zip(outputs, found.values(), strict=True))
        return QueryColumns(outputs=found, rows=tuple(sorted(walk.rows(root))))
    except (SqlglotError, RecursionError, _Unknown):
        return None


class _Unknown(Exception):
    """Something in the statement of which it cannot be told where it comes from."""


class _Walk:
    """Follows columns down through scopes to tables."""

    def __init__(self, columns: Mapping[str, Mapping[str, str]], tables: Mapping[str, str]) -> None:
        self._columns = columns
        self._tables = tables
        self._known: dict[int, dict[str, tuple[Source, ...]]] = {}
        self._rows_seen: set[int] = set()

    def outputs(self, scope: Scope) -> dict[str, tuple[Source, ...]]:
        """For each column of a scope's result, where its values come from."""
        key = id(scope)
        if key not in self._known:
            self._known[key] = {}  # a recursive CTE reads itself: nothing new comes of that
            self._known[key] = self._outputs(scope)
        return self._known[key]

    def _outputs(self, scope: Scope) -> dict[str, tuple[Source, ...]]:
        from sqlglot import exp  # heavy: imported late

        if scope.set_operation_scopes:
            sides = [self.outputs(one) for one in scope.set_operation_scopes]
            names = list(sides[0])
            rows = [list(side.values()) for side in sides]
            if any(len(one) != len(names) for one in rows):
                raise _Unknown("the sides of a union differ")
            return {name: _joined(one[place] for one in rows) for place, name in enumerate(names)}
        select = scope.expression
        if not isinstance(select, exp.Select):
            raise _Unknown(type(select).__name__)
        found: dict[str, tuple[Source, ...]] = {}
        for place, projection in enumerate(select.selects):
            if projection.is_star:
                raise _Unknown("a star that could not be resolved")
            found[projection.alias_or_name or f"column{place}"] = self._of(scope, projection)
        return found

    def _of(self, scope: Scope, expression: Any) -> tuple[Source, ...]:
        from sqlglot import exp  # heavy: imported late

        inner = {id(one.expression): one for one in scope.subquery_scopes}
        found: set[Source] = set()
        covered: set[int] = set()
        for node in expression.walk():
            if id(node) in inner:
                sub = inner[id(node)]
                found.update(_joined(self.outputs(sub).values()))
                found.update(self.rows(sub))
                covered.update(id(column) for column in node.find_all(exp.Column))
            elif isinstance(node, exp.Column) and id(node) not in covered:
                found.update(self._resolve(scope, node))
        return tuple(sorted(found))

    def _resolve(self, scope: Scope, column: exp.Column) -> tuple[Source, ...]:
        from sqlglot import exp  # heavy: imported late

        at: Any = scope
        while at is not None and column.table not in at.sources:
            at = at.parent
        if at is None:
            raise _Unknown(column.sql())
        source = at.sources[column.table]
        if isinstance(source, exp.Table):
            table = self._tables.get(source.name.casefold())
            name = None if table is None else self._columns[table].get(column.name.casefold())
            if table is None or name is None:
                raise _Unknown(column.sql())
            return ((table, name),)
        outputs = {name.casefold(): sources for name, sources in self.outputs(source).items()}
        return outputs.get(column.name.casefold(), ())

    def rows(self, scope: Scope) -> set[Source]:
        """Columns that decide which rows a scope gives, in it and in all that it reads."""
        from sqlglot import exp  # heavy: imported late

        found: set[Source] = set()
        if id(scope) in self._rows_seen:
            return found
        self._rows_seen.add(id(scope))
        for _, source in scope.selected_sources.values():
            if not isinstance(source, exp.Table):
                found |= self.rows(source)
        for side in scope.set_operation_scopes:
            found |= self.rows(side)
        select = scope.expression
        if isinstance(select, exp.Select):
            clauses = [select.args.get(name) for name in ("where", "group", "having", "qualify", "distinct")]
            clauses += [join.args.get("on") for join in select.args.get("joins") or ()]
            limited = select.args.get("limit") is not None
            clauses += [select.args.get("order")] if limited else []
            for clause in clauses:
                if clause is not None and clause is not False:
                    found |= set(self._of(scope, clause))
        return found


def _joined(several: Any) -> tuple[Source, ...]:
    return tuple(sorted({one for sources in several for one in sources}))
