"""Great Expectations' row conditions as SQL: the structured ones, `col("x")` texts, and pandas queries. Pure.

What pandas does with a missing value is kept: a comparison with one is false, and `!=` and `not in` are true.
"""

from __future__ import annotations

import ast
import io
import math
import re
import tokenize
from collections.abc import Mapping
from typing import Any

from modelyard.engines.tables.sql import literal, quoted

_CONDITIONS_MAX = 100
_OPERATORS = {"==": "=", "!=": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_COMPARED = {ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}
_TEXT = re.compile(
    r"""\s*col\((["'])(?P<column>.+?)\1\)\s*"""
    r"""(?:\.\s*(?P<null>notNull|isNull)\s*\(\)|(?P<op>==|!=|<=|>=|<|>)\s*(?P<value>.+?))\s*"""
)


class Unreadable(Exception):
    """This condition cannot be said in SQL; the message says why."""


def row_condition(value: Any, parser: str | None) -> str:
    """The SQL condition that a `row_condition` means; empty where there is none. Raises Unreadable."""
    if value in (None, ""):
        return ""
    if isinstance(value, Mapping):
        return _structured(value, 0)
    if not isinstance(value, str):
        raise Unreadable(f"a row condition of type {type(value).__name__}")
    if parser in ("great_expectations", "great_expectations__experimental__"):
        return _column_text(value)
    if parser in (None, "pandas"):
        return _column_text(value) if _TEXT.fullmatch(value) else _pandas_query(value)
    raise Unreadable(f"the condition parser {parser!r}")


def _structured(value: Mapping[str, Any], depth: int) -> str:
    if depth > _CONDITIONS_MAX:
        raise Unreadable("conditions nested too deep")
    match value.get("type"):
        case "nullity":
            return _null(_column(value), bool(value.get("is_null")))
        case "comparison":
            operator, parameter = str(value.get("operator")), value.get("parameter")
            if operator in ("IN", "NOT_IN"):
                return _inside(_column(value), list(parameter or []), operator == "NOT_IN")
            return _compared(_column(value), operator, parameter)
        case "and" | "or" as joint:
            inner = [_structured(one, depth + 1) for one in value.get("conditions") or []]
            return f" {joint.upper()} ".join(f"({one})" for one in inner) or ("true" if joint == "and" else "false")
        case "pass_through":
            return _pandas_query(str(value.get("pass_through_filter")))
        case other:
            raise Unreadable(f"a row condition of type {other!r}")


def _column(value: Mapping[str, Any]) -> str:
    column = value.get("column")
    name = column.get("name") if isinstance(column, Mapping) else column
    if not isinstance(name, str):
        raise Unreadable("a condition without a column")
    return name


def _column_text(text: str) -> str:
    parts = re.split(r"\s+AND\s+|\s*&\s*", text)
    if len(parts) > 1:
        return " AND ".join(f"({_column_text(part)})" for part in parts)
    found = _TEXT.fullmatch(text.strip("() ") if text.startswith("(") else text)
    if found is None:
        raise Unreadable(f"the condition {text!r}")
    if found["null"]:
        return _null(found["column"], found["null"] == "isNull")
    try:
        value = ast.literal_eval(found["value"])
    except (ValueError, SyntaxError):
        raise Unreadable(f"the value {found['value']!r}") from None
    return _compared(found["column"], found["op"], value)


# --- pandas -------------------------------------------------------------------------------------------------------


def _pandas_query(text: str) -> str:
    # A name in backticks is a column whose name is no identifier.
    names: list[str] = []

    def named(found: re.Match[str]) -> str:
        names.append(found[1])
        return f"backtick_{len(names) - 1}_"

    plain = re.sub(r"`([^`]+)`", named, text)
    try:
        tree = ast.parse(_python_precedence(plain.strip()), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError, tokenize.TokenError):
        raise Unreadable(f"the pandas query {text!r}") from None
    return _node(tree.body, names)


def _python_precedence(text: str) -> str:
    """In a pandas query `&`, `|` and `~` bind as `and`, `or` and `not` do."""
    words = {"&": "and", "|": "or", "~": "not"}
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return " ".join(words.get(token.string, token.string) for token in tokens).strip()


def _node(node: ast.expr, names: list[str]) -> str:
    match node:
        case ast.BoolOp(op=op, values=values):
            joint = " AND " if isinstance(op, ast.And) else " OR "
            return joint.join(f"({_node(one, names)})" for one in values)
        case ast.UnaryOp(op=ast.Not(), operand=inner):
            return f"NOT ({_node(inner, names)})"
        case ast.Compare(left=left, ops=ops, comparators=others):
            sides = [left, *others]
            return " AND ".join(
                f"({_comparison(one, op, other, names)})" for one, op, other in zip(sides, ops, others, strict=False)
            )
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=attribute), args=[], keywords=[]):
            if attribute in ("isnull", "isna", "notnull", "notna"):
                return _null(_name(name, names), attribute.startswith("is"))
    raise Unreadable(f"the pandas query {ast.unparse(node)!r}")


def _comparison(left: ast.expr, op: ast.cmpop, right: ast.expr, names: list[str]) -> str:
    if isinstance(left, ast.Name) and isinstance(op, (ast.In, ast.NotIn)):
        return _inside(_name(left.id, names), list(_value(right)), isinstance(op, ast.NotIn))
    operator = _COMPARED.get(type(op))
    if operator is None:
        raise Unreadable(f"the comparison {ast.unparse(left)} … {ast.unparse(right)}")
    if isinstance(left, ast.Name) and isinstance(right, ast.Name):
        return _two(_name(left.id, names), operator, _name(right.id, names))
    if isinstance(left, ast.Name):
        return _compared(_name(left.id, names), operator, _value(right))
    if isinstance(right, ast.Name):
        turned = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}.get(operator, operator)
        return _compared(_name(right.id, names), turned, _value(left))
    raise Unreadable(f"the comparison {ast.unparse(left)} … {ast.unparse(right)}")


def _name(name: str, names: list[str]) -> str:
    found = re.fullmatch(r"backtick_(\d+)_", name)
    return names[int(found[1])] if found and int(found[1]) < len(names) else name


def _value(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, SyntaxError):
        raise Unreadable(f"the value {ast.unparse(node)}") from None


# --- SQL ----------------------------------------------------------------------------------------------------------


def _null(column: str, is_null: bool) -> str:
    # NaN is missing too; only in a column of floating numbers can there be one.
    is_nan = f"(typeof({quoted(column)}) IN ('FLOAT', 'DOUBLE') AND coalesce({quoted(column)}::VARCHAR = 'nan', false))"
    missing = f"({quoted(column)} IS NULL OR {is_nan})"
    return missing if is_null else f"NOT {missing}"


def _compared(column: str, operator: str, value: Any) -> str:
    sign = _OPERATORS.get(operator)
    if sign is None:
        raise Unreadable(f"the operator {operator!r}")
    if value is None:
        raise Unreadable("a comparison with nothing")
    name = quoted(column)
    if sign == "!=":
        return f"{name} IS DISTINCT FROM {_literal(value)}"
    holds = f"coalesce({name} {sign} {_literal(value)}, false)"
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    # NaN is greater than every number in SQL, and compares with none in pandas.
    return f"{holds} AND NOT isnan({name})" if is_number and sign in (">", ">=") else holds


def _two(left: str, operator: str, right: str) -> str:
    if operator == "!=":
        return f"({quoted(left)} IS DISTINCT FROM {quoted(right)} OR {quoted(left)} IS NULL)"
    return f"coalesce({quoted(left)} {_OPERATORS[operator]} {quoted(right)}, false)"


def _inside(column: str, values: list[Any], negate: bool) -> str:
    listed = ", ".join(_literal(value) for value in values if value is not None)
    inside = f"coalesce({quoted(column)} IN ({listed}), false)" if listed else "false"
    return f"NOT {inside}" if negate else inside


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        if not math.isfinite(value):
            raise Unreadable(f"the value {value!r}")
        return repr(value)
    if isinstance(value, str):
        return literal(value)
    raise Unreadable(f"the value {value!r}")
