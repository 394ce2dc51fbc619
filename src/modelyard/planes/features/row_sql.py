"""What the SQL of a feature view may be: one row-wise SELECT over its source.

A view's SQL derives columns and filters rows, each from its own row alone. Whatever looks at several rows (aggregates,
windows, joins, DISTINCT, LIMIT, subqueries) would let a row see what was known only later, and whatever changes from
call to call (`now()`, `random()`) would make a training frame unrepeatable; both are refused, with the place.

The syntax tree is DuckDB's own (`json_serialize_sql`), so that nothing is read otherwise than it will be run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelyard.kernel.errors import InvalidInput

HINT = "derive columns and filter rows only, as in `SELECT *, arr_delay > 15 AS late FROM arrivals`; declare aggregates"
_NO_PLACE = 2**64 - 1
# DuckDB calls these consistent, or resolves them by the clock although they are written without parentheses.
_CLOCKS = frozenset(
    {"age", "current_date", "current_localtime", "current_localtimestamp", "current_time", "current_timestamp",
     "localtime", "localtimestamp", "now", "today"}
)  # fmt: skip
# Macros that only rewrite one expression; others may hide an aggregate or a subquery.
_PLAIN_MACROS = frozenset({"fdiv", "fmod", "nullif", "round_even", "roundbankers"})
_SEVERAL_ROWS = {
    "WINDOW": "a window function",
    "SUBQUERY": "a subquery",
}


@dataclass(frozen=True, slots=True)
class FunctionTraits:
    """What DuckDB's catalog says of a function name, over all its overloads."""

    kinds: frozenset[str]
    stabilities: frozenset[str]


def function_names(tree: Mapping[str, Any]) -> list[str]:
    """The names of the functions that a syntax tree calls."""
    return sorted({str(node["function_name"]).lower() for node in _nodes(tree) if "function_name" in node})


def check_row_wise(
    tree: Mapping[str, Any],
    text: str,
    source: str,
    columns: Sequence[str],
    functions: Mapping[str, FunctionTraits],
) -> None:
    """Raise InvalidInput (`feature_view.sql_invalid`), saying where, unless the tree is row-wise over `source`."""
    if tree.get("error"):
        reason = str(tree.get("error_message", "it cannot be parsed"))
        raise _refused(text, reason, int(tree.get("position", _NO_PLACE)))
    statements = tree["statements"]
    if len(statements) != 1:
        raise _refused(text, f"there are {len(statements)} statements, not one", _NO_PLACE)
    select = statements[0]["node"]
    if select["type"] != "SELECT_NODE":
        raise _refused(text, "it combines several SELECTs", _NO_PLACE)
    _check_clauses(select, text)
    _check_source(select["from_table"], text, source)
    known = {column.casefold() for column in columns}
    for node in _nodes(select["select_list"], select["where_clause"]):
        _check_expression(node, text, known, functions)


def place_of_name(tree: Mapping[str, Any], name: str) -> int:
    """The byte offset at which a column or function of this name is first written; none is `_NO_PLACE`."""
    for node in _nodes(tree):
        written = node.get("column_names") or [node.get("function_name") or node.get("table_name")]
        if written[-1] is not None and str(written[-1]).casefold() == name.casefold():
            return int(node.get("query_location", _NO_PLACE))
    return _NO_PLACE


def refused(text: str, reason: str, place: int = _NO_PLACE) -> InvalidInput:
    """The error for an SQL text that cannot be a view's, saying where."""
    return _refused(text, reason, place)


def _check_clauses(select: Mapping[str, Any], text: str) -> None:
    for modifier in select["modifiers"]:
        name = str(modifier["type"]).removesuffix("_MODIFIER")
        raise _refused(text, f"{name} looks at several rows", _NO_PLACE)
    if select["cte_map"]["map"]:
        raise _refused(text, "WITH is not row-wise", _NO_PLACE)
    if select["group_expressions"] or select["aggregate_handling"] != "STANDARD_HANDLING":
        raise _refused(text, "GROUP BY looks at several rows", _NO_PLACE)
    for clause in ("having", "qualify", "sample"):
        if select[clause] is not None:
            raise _refused(text, f"{clause.upper()} looks at several rows", _NO_PLACE)


def _check_source(table: Mapping[str, Any], text: str, source: str) -> None:
    place = int(table.get("query_location", _NO_PLACE))
    if table["type"] != "BASE_TABLE":
        what = "nothing" if table["type"] == "EMPTY" else f"a {str(table['type']).replace('_', ' ').lower()}"
        raise _refused(text, f"it selects from {what}, not from the view's source '{source}' alone", place)
    if table["schema_name"] or table["catalog_name"] or table["sample"] is not None or table["at_clause"] is not None:
        raise _refused(text, f"the source must be written as '{source}' alone", place)
    if table["table_name"].casefold() != source.casefold():
        raise _refused(text, f"it selects from '{table['table_name']}', but the view's source is '{source}'", place)


def _check_expression(
    node: Mapping[str, Any], text: str, columns: set[str], functions: Mapping[str, FunctionTraits]
) -> None:
    place = int(node.get("query_location", _NO_PLACE))
    kind = node.get("class")
    if kind in _SEVERAL_ROWS:
        raise _refused(text, f"{_SEVERAL_ROWS[str(kind)]} looks at several rows", place)
    if kind == "COLUMN_REF" and len(node["column_names"]) == 1:
        name = str(node["column_names"][0]).lower()
        if name in _CLOCKS and name not in columns:
            raise _refused(text, f"'{name}' is another at every call", place)
    if kind == "FUNCTION":
        _check_function(str(node["function_name"]).lower(), text, place, functions)


def _check_function(name: str, text: str, place: int, functions: Mapping[str, FunctionTraits]) -> None:
    if name in _CLOCKS:
        raise _refused(text, f"{name}() is another at every call", place)
    traits = functions.get(name)
    if traits is None or name in _PLAIN_MACROS:
        return  # what does not exist is said by the binder, with what is like it
    if "aggregate" in traits.kinds:
        raise _refused(text, f"{name}() is an aggregate, which looks at several rows", place)
    if traits.kinds != {"scalar"}:
        raise _refused(text, f"{name}() is not a plain function of one row", place)
    if traits.stabilities != {"CONSISTENT"}:
        raise _refused(text, f"{name}() is another at every call", place)


def _nodes(*roots: Any) -> Iterator[Mapping[str, Any]]:
    stack = list(reversed(roots))
    while stack:
        found = stack.pop()
        if isinstance(found, Mapping):
            yield found
            stack.extend(reversed(list(found.values())))
        elif isinstance(found, list):
            stack.extend(reversed(found))


def _refused(text: str, reason: str, place: int) -> InvalidInput:
    where, details = "", {}
    if place < len(text.encode()):
        before = text.encode()[:place].decode(errors="replace")
        line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
        where, details = f" at line {line}, column {column}", {"line": line, "column": column}
    return InvalidInput(
        f"the view's SQL is refused{where}: {reason}", code="feature_view.sql_invalid", hint=HINT, details=details
    )
