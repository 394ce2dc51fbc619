"""What a filter and an order may say of models and versions. Pure, one pass over the text, linear in its length.

Comparisons joined by AND, as MLflow's clients write them; the texts of the errors are those that its users know.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from modelyard.kernel.errors import InvalidInput

FILTER_CHARACTERS_MAX = 50_000
COMPARISONS_MAX = 100
LIST_ITEMS_MAX = 5_000
PROMPT_TAG = "mlflow.prompt.is_prompt"

_TEXTUAL = frozenset({"=", "!=", "LIKE", "ILIKE"})
_NUMERIC = frozenset({"=", "!=", "<", "<=", ">", ">="})
_MODEL_KEYS = frozenset({"name"})
_VERSION_KEYS = frozenset({"name", "version_number", "run_id", "source_path"})
_MODEL_ORDERS = {"name": "name", "last_updated_timestamp": "updated_at", "timestamp": "updated_at"}
_VERSION_ORDERS = {
    "name": "name",
    "version_number": "version",
    "creation_timestamp": "created_at",
    "last_updated_timestamp": "updated_at",
}

_TOKEN = re.compile(
    r"""
      (?P<space>\s+)
    | (?P<text>'[^']*')
    | (?P<number>-?\d+(?:\.\d+)?(?![\w.]))
    | (?P<name>(?:\w+|`[^`]*`|"[^"]*")(?:\.(?:[\w.]+|`[^`]*`|"[^"]*"))?)
    | (?P<operator>[<>=!]+)
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_WORDS = frozenset({"AND", "OR", "IN", "NOT", "LIKE", "ILIKE", "RLIKE", "BETWEEN", "IS", "NULL", "TRUE", "FALSE"})


class Clause(NamedTuple):
    """One condition on an attribute or a tag; `value` is a list for IN."""

    field: Literal["attribute", "tag"]
    key: str
    operator: str
    value: str | int | float | list[str]


class Order(NamedTuple):
    """A column to order by."""

    key: str
    ascending: bool


class _Token(NamedTuple):
    kind: str
    text: str


def parse_models(text: str) -> list[Clause]:
    """The clauses of a filter over models. Raises InvalidInput."""
    return [_clause(*parts, keys=_MODEL_KEYS) for parts in _comparisons(text)]


def parse_versions(text: str) -> list[Clause]:
    """The clauses of a filter over versions. Raises InvalidInput."""
    return [_clause(*parts, keys=_VERSION_KEYS) for parts in _comparisons(text)]


def order_models(order_by: Sequence[str]) -> list[Order]:
    """The columns to order models by; by name at the end. Raises InvalidInput."""
    orders: list[Order] = []
    for text in order_by:
        key, ascending = _split_order(text)
        if key not in _MODEL_ORDERS:
            raise InvalidInput(
                f"Invalid order by key '{key}' specified. Valid keys are '{sorted(_MODEL_ORDERS)}'",
                code="order.invalid",
            )
        orders.append(Order(_MODEL_ORDERS[key], ascending))
    return _complete(orders, order_by, Order("name", True))


def order_versions(order_by: Sequence[str]) -> list[Order]:
    """The columns to order versions by; by name and newest version at the end. Raises InvalidInput."""
    orders: list[Order] = []
    for text in order_by or ("last_updated_timestamp DESC",):
        key, ascending = _split_order(text)
        if key not in _VERSION_ORDERS:
            raise InvalidInput(
                f"Invalid attribute key '{key}' specified. Valid keys are '{sorted(_VERSION_ORDERS)}'",
                code="order.invalid",
            )
        orders.append(Order(_VERSION_ORDERS[key], ascending))
    return _complete(orders, order_by, Order("name", True), Order("version", False))


def asks_for_prompts(clauses: Sequence[Clause]) -> bool:
    """Whether prompts are meant, which MLflow keeps among the models under a tag; else they are left out."""
    for clause in clauses:
        if clause.field == "tag" and clause.key == PROMPT_TAG:
            wanted = str(clause.value).lower()
            return (clause.operator, wanted) in (("=", "true"), ("!=", "false"))
    return False


def _complete(orders: list[Order], said: Sequence[str], *ends: Order) -> list[Order]:
    keys = [order.key for order in orders]
    if len(set(keys)) < len(keys):
        raise InvalidInput(f"`order_by` contains duplicate fields: {list(said)}", code="order.duplicate")
    return orders + [end for end in ends if end.key not in keys]


def _split_order(text: str) -> tuple[str, bool]:
    pieces = _tokens(text)
    if not pieces or len(pieces) > 2 or any(piece.kind != "name" for piece in pieces):
        raise InvalidInput(f"Invalid order_by clause '{text}'. Could not be parsed.", code="order.invalid")
    key = _unquoted(pieces[0].text)
    for prefix in ("attribute.", "attributes."):
        key = key.removeprefix(prefix)
    if len(pieces) == 1:
        return key, True
    direction = pieces[1].text.lower()
    if direction not in ("asc", "desc"):
        raise InvalidInput(f"Invalid ordering key in order_by clause '{text}'.", code="order.invalid")
    return key, direction == "asc"


def _tokens(text: str) -> list[_Token]:
    if len(text) > FILTER_CHARACTERS_MAX:
        raise InvalidInput(f"the filter is longer than {FILTER_CHARACTERS_MAX} characters", code="filter.too_long")
    found = []
    for match in _TOKEN.finditer(text):
        kind, piece = match.lastgroup or "other", match[0]
        if kind == "name" and piece.upper() in _WORDS:
            kind, piece = "word", piece.upper()
        if kind != "space":
            found.append(_Token(kind, piece))
    return found


def _comparisons(text: str) -> Iterator[tuple[_Token, str, _Token, list[_Token]]]:
    pieces = _tokens(text)
    at = count = 0
    while at < len(pieces):
        if pieces[at] == _Token("word", "AND"):
            at += 1
            continue
        end = at
        while end < len(pieces) and pieces[end] != _Token("word", "AND"):
            end += 1
        count += 1
        if count > COMPARISONS_MAX:
            raise InvalidInput(f"the filter has more than {COMPARISONS_MAX} comparisons", code="filter.too_long")
        yield _comparison(pieces[at:end])
        at = end


def _comparison(pieces: list[_Token]) -> tuple[_Token, str, _Token, list[_Token]]:
    if len(pieces) >= 3 and pieces[0].kind == "name":
        operator = pieces[1]
        if operator == _Token("word", "IN") and pieces[2].text == "(" and pieces[-1].text == ")":
            return pieces[0], "IN", pieces[2], [piece for piece in pieces[3:-1] if piece.text != ","]
        simple = operator.kind == "operator" or operator.text in ("LIKE", "ILIKE", "RLIKE")
        if len(pieces) == 3 and simple and pieces[2].kind in ("text", "number", "name"):
            return pieces[0], operator.text, pieces[2], []
    raise InvalidInput(
        f"Invalid clause(s) in filter string: {' '.join(piece.text for piece in pieces)[:500]}",
        code="filter.invalid",
        hint="join comparisons by AND, such as: name LIKE 'delay%' AND tags.team = 'ops'",
    )


def _clause(left: _Token, operator: str, right: _Token, items: list[_Token], *, keys: frozenset[str]) -> Clause:
    entity, dot, key = left.text.partition(".")
    if dot and entity not in ("attribute", "tag", "tags"):
        raise InvalidInput(
            f"Invalid entity type '{entity[:100]}'. Valid entity types are ('attribute', 'tag', 'tags')",
            code="filter.invalid",
        )
    if dot and entity != "attribute":
        if operator not in _TEXTUAL:
            raise InvalidInput(f"Invalid comparator for tag: {operator}", code="filter.invalid")
        return Clause("tag", _unquoted(key), operator, _text(right, "tag"))
    key = _unquoted(key if dot else left.text)
    if key not in keys:
        raise InvalidInput(
            f"Invalid attribute key '{key[:100]}' specified. Valid keys are '{sorted(keys)}'", code="filter.invalid"
        )
    if key == "version_number":
        return Clause("attribute", key, _known(operator, _NUMERIC, f"attribute {key}"), _number(right))
    if operator == "IN":
        return Clause("attribute", key, operator, _texts(key, items))
    return Clause("attribute", key, _known(operator, _TEXTUAL, "attribute"), _text(right, "attributes"))


def _known(operator: str, allowed: frozenset[str], what: str) -> str:
    if operator not in allowed:
        raise InvalidInput(f"Invalid comparator for {what}: {operator}", code="filter.invalid")
    return operator


def _number(token: _Token) -> int | float:
    if token.kind != "number":
        raise InvalidInput(
            f"Expected a number for 'version_number'. Got value {token.text[:100]}", code="filter.invalid"
        )
    # Beyond 64 bits no column holds a whole number, and no database binds one.
    whole = "." not in token.text and len(token.text) <= 18
    return int(token.text) if whole else float(token.text)


def _text(token: _Token, what: str) -> str:
    if token.kind == "number":
        raise InvalidInput(
            f"Expected a quoted string value for {what} (e.g. 'my-value'). Got value {token.text}",
            code="filter.invalid",
        )
    if token.kind == "text" or (len(token.text) >= 2 and token.text[0] == token.text[-1] == '"'):
        return token.text[1:-1]
    raise InvalidInput(
        "Parameter value is either not quoted or unidentified quote types used for string value "
        f"{token.text[:200]}. Use either single or double quotes.",
        code="filter.invalid",
    )


def _texts(key: str, items: list[_Token]) -> list[str]:
    if key != "run_id":
        raise InvalidInput(
            "Only the 'run_id' attribute supports comparison with a list of quoted string values.",
            code="filter.invalid",
        )
    if not items:
        raise InvalidInput(
            "While parsing a list in the query, expected a non-empty list of string values, but got empty list",
            code="filter.invalid",
        )
    if len(items) > LIST_ITEMS_MAX:
        raise InvalidInput(f"the list has more than {LIST_ITEMS_MAX} items", code="filter.too_long")
    if any(item.kind != "text" and not item.text.startswith('"') for item in items):
        raise InvalidInput(
            "While parsing a list in the query, expected string value, punctuation, or whitespace, but got "
            "different type in list",
            code="filter.invalid",
        )
    return [item.text[1:-1] for item in items]


def _unquoted(text: str) -> str:
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "`\"'":
        return text[1:-1]
    return text
