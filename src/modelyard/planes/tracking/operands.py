"""The operands of comparisons in filters: what is quoted, what is a number, what is a list. Pure."""

from __future__ import annotations

from modelyard.kernel.errors import InvalidInput
from modelyard.planes.tracking.grammar import Comparison, Kind, Token, list_items


def check_left(one: Comparison) -> None:
    """Raise InvalidInput where a comparison does not start with a name."""
    if one.left.kind is not Kind.NAME:
        raise InvalidInput(
            f"Invalid comparison clause. Expected 'Identifier' found '{one.left.text}'", code="filter.invalid"
        )


def check_operator(operator: str, allowed: frozenset[str], text: str = "") -> None:
    """Raise InvalidInput for an operator that is not among those allowed; `text` is the sentence for it."""
    if operator not in allowed:
        raise InvalidInput(
            text.format(operator) if text else f"Invalid comparator '{operator}' not one of '{sorted(allowed)}'",
            code="filter.invalid",
        )


def number_of(token: Token, expected: str) -> float:
    """The number that an operand is. Raises InvalidInput."""
    if token.kind is not Kind.NUMBER:
        raise InvalidInput(f"{expected}. Found {token.text}", code="filter.invalid")
    number = float(token.text)
    # Beyond 64 bits no column holds a whole number, and no database binds one.
    whole = len(token.text) <= 20 and not set(token.text) & set(".eE") and abs(number) < 2**63
    return int(token.text) if whole else number


def text_of(token: Token, expected: str) -> str:
    """The text that an operand holds in quotes. Raises InvalidInput."""
    if token.kind is Kind.TEXT:
        return token.text[1:-1]
    if token.kind is not Kind.NAME:
        raise InvalidInput(f"{expected} Got value {token.text}", code="filter.invalid")
    if not is_quoted(token.text, '"'):
        raise InvalidInput(
            "Parameter value is either not quoted or unidentified quote types used for string value "
            f"{token.text}. Use either single or double quotes.",
            code="filter.invalid",
        )
    return token.text[1:-1]


def texts_of(token: Token) -> list[str]:
    """The texts of a list. Raises InvalidInput for an empty one, or for what is no text."""
    items = list_items(token)
    if not items:
        raise InvalidInput(
            "While parsing a list in the query, expected a non-empty list of string values, but got empty list",
            code="filter.invalid",
        )
    if any(item.kind is not Kind.TEXT and not is_quoted(item.text, '"') for item in items):
        raise InvalidInput(
            "While parsing a list in the query, expected string value, punctuation, or whitespace, but got "
            "different type in list",
            code="filter.invalid",
        )
    return [item.text[1:-1] for item in items]


def is_quoted(text: str, quote: str) -> bool:
    """Whether a text starts and ends with this quote."""
    return len(text) >= 2 and text[0] == quote == text[-1]


def trimmed(text: str, quote: str) -> str:
    """A text without this quote around it."""
    return text[1:-1] if is_quoted(text, quote) else text


def unquoted(text: str) -> str:
    """A text without the single or double quotes around it."""
    return trimmed(text, "'") if is_quoted(text, "'") else trimmed(text, '"')
