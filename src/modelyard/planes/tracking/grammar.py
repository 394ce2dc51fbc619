"""The form of a filter: comparisons joined by AND. Pure, one pass, linear in the length of the text.

What a comparison may say depends on what is searched (`filters.py`); here is only its shape, as MLflow's clients write
it: dotted names with parts in backticks or double quotes, texts in single or double quotes, numbers, lists for IN.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

from modelyard.kernel.errors import InvalidInput

FILTER_CHARACTERS_MAX = 50_000
COMPARISONS_MAX = 100
LIST_ITEMS_MAX = 5_000


class Kind(Enum):
    """What a piece of a filter is."""

    NAME = "name"
    TEXT = "text"
    NUMBER = "number"
    LIST = "list"
    OPERATOR = "operator"
    WORD = "word"
    OTHER = "other"


class Token(NamedTuple):
    """A piece of a filter, as it was written."""

    kind: Kind
    text: str


class Comparison(NamedTuple):
    """`left operator right`; `right` is None for IS NULL and IS NOT NULL. The operator is in upper case."""

    left: Token
    operator: str
    right: Token | None


class Stray(NamedTuple):
    """A stretch of the filter that is no comparison."""

    pieces: list[str]


# Only a quote that is never closed is looked for in vain, and of each sort only the last can be: one pass in all.
_TOKEN = re.compile(
    r"""
      (?P<space>\s+)
    | (?P<text>'(?:[^']|'')*')
    | (?P<number>-?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))
    | (?P<name>(?:\w+|`[^`]*`|"[^"]*")(?:\.(?:\w+|`[^`]*`|"[^"]*"))*)
    | (?P<operator>[<>=!~]+)
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_WORDS = frozenset({"AND", "OR", "IN", "NOT", "IS", "NULL", "LIKE", "ILIKE", "RLIKE", "TRUE", "FALSE", "BETWEEN"})
_OPERANDS = frozenset({Kind.NAME, Kind.TEXT, Kind.NUMBER})


def tokens(text: str) -> list[Token]:
    """The pieces of a text, without the space between them. Never raises: what is nothing else is OTHER."""
    found = []
    for match in _TOKEN.finditer(text):
        kind, piece = match.lastgroup or "other", match[0]
        if kind == "space":
            continue
        if kind == "name" and piece.upper() in _WORDS:
            kind = "word"
        found.append(Token(Kind(kind), piece))
    return found


def comparisons(text: str) -> list[Comparison | Stray]:
    """The comparisons of a filter in their order, and what is none. Raises InvalidInput for a text beyond the caps."""
    if len(text) > FILTER_CHARACTERS_MAX:
        raise InvalidInput(f"the filter is longer than {FILTER_CHARACTERS_MAX} characters", code="filter.too_long")
    found = list(_parse(tokens(text)))
    if len(found) > COMPARISONS_MAX:
        raise InvalidInput(f"the filter has more than {COMPARISONS_MAX} comparisons", code="filter.too_long")
    return found


def list_items(token: Token) -> list[Token]:
    """The pieces within the parentheses of a LIST, commas left out."""
    return [piece for piece in tokens(token.text[1:-1]) if piece.text != ","]


def _parse(pieces: list[Token]) -> Iterator[Comparison | Stray]:
    at = 0
    while at < len(pieces):
        if _word(pieces, at) == "AND":
            at += 1
            continue
        comparison, after = _comparison(pieces, at)
        if comparison is not None and (after >= len(pieces) or _word(pieces, after) == "AND"):
            yield comparison
            at = after
            continue
        if comparison is not None:
            yield comparison
            at = after
        stretch = at
        while at < len(pieces) and _word(pieces, at) != "AND":
            at += 1
        yield Stray([piece.text for piece in pieces[stretch:at]])


def _comparison(pieces: list[Token], at: int) -> tuple[Comparison | None, int]:
    """The comparison that starts at a place, and the place after it; None where none starts."""
    left = pieces[at]
    if left.kind not in _OPERANDS:
        return None, at
    operator, after = _operator(pieces, at + 1)
    if operator in ("IS NULL", "IS NOT NULL"):
        return Comparison(left, operator, None), after
    if not operator or after >= len(pieces):
        return None, at
    if operator in ("IN", "NOT IN"):
        right, after = _parenthesis(pieces, after)
        return (None, at) if right is None else (Comparison(left, operator, right), after)
    if pieces[after].kind in _OPERANDS:
        return Comparison(left, operator, pieces[after]), after + 1
    return None, at


def _operator(pieces: list[Token], at: int) -> tuple[str, int]:
    if at < len(pieces) and pieces[at].kind is Kind.OPERATOR:
        return pieces[at].text, at + 1
    first, second, third = (_word(pieces, at + offset) for offset in range(3))
    if first == "IS" and second == "NULL":
        return "IS NULL", at + 2
    if first == "IS" and second == "NOT" and third == "NULL":
        return "IS NOT NULL", at + 3
    if first == "NOT" and second in ("IN", "LIKE", "ILIKE", "RLIKE"):
        return f"NOT {second}", at + 2
    if first in ("IN", "LIKE", "ILIKE", "RLIKE"):
        return first, at + 1
    return "", at


def _parenthesis(pieces: list[Token], at: int) -> tuple[Token | None, int]:
    if pieces[at].text != "(":
        return None, at
    for end in range(at + 1, min(len(pieces), at + 2 * LIST_ITEMS_MAX)):
        if pieces[end].kind not in _OPERANDS and pieces[end].text not in (",", ")"):
            break
        if pieces[end].text == ")":
            inside = ", ".join(piece.text for piece in pieces[at + 1 : end] if piece.text != ",")
            return Token(Kind.LIST, f"({inside})"), end + 1
    return None, at


def _word(pieces: list[Token], at: int) -> str:
    if at < len(pieces) and pieces[at].kind is Kind.WORD:
        return pieces[at].text.upper()
    return ""
