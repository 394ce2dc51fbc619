"""Python's regular expressions said in RE2, which is linear in time: what RE2 lacks is refused by name. Pure.

The two differ in what `\\d`, `\\w`, `\\s`, `\\b` and `$` mean, and in the names of some escapes; a pattern is parsed by
Python's own parser and written out again in RE2's words.
"""

from __future__ import annotations

import re
from typing import Any

from modelyard.planes.data.checks.values import Unfit

# The parser of `re` and its names; the module `sre_parse` that had them is deprecated.
_parser: Any = re._parser  # type: ignore[attr-defined]
c: Any = re._constants  # type: ignore[attr-defined]

_DIGIT = r"\p{Nd}"
_SPACE = r"\t\n\x0b\f\r\x1c-\x1f \x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}"
_WORD = r"\p{L}\p{N}_"
_CLASSES = {
    c.CATEGORY_DIGIT: _DIGIT,
    c.CATEGORY_NOT_DIGIT: r"\P{Nd}",
    c.CATEGORY_SPACE: _SPACE,
    c.CATEGORY_WORD: _WORD,
}
_NEGATED = {c.CATEGORY_NOT_SPACE: _SPACE, c.CATEGORY_NOT_WORD: _WORD}
_REPEATS = {c.MAX_REPEAT: "", c.MIN_REPEAT: "?"}
_REPEAT_MAX = 1000
_FLAGS_KNOWN = re.IGNORECASE | re.MULTILINE | re.DOTALL | re.VERBOSE | re.UNICODE


def to_re2(pattern: str) -> str:
    """The RE2 pattern that matches what Python's `re.search` matches. Raises Unfit for what RE2 cannot say."""
    try:
        parsed = _parser.parse(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise Unfit(f"{pattern!r} is no regular expression: {error}") from error
    flags = parsed.state.flags
    if flags & ~_FLAGS_KNOWN:
        raise Unfit(f"the flags of {pattern!r} are not supported")
    written = _sequence(parsed, flags)
    return f"(?i){written}" if flags & re.IGNORECASE else written


def _sequence(items: Any, flags: int) -> str:
    return "".join(_item(op, argument, flags) for op, argument in items)


def _item(op: Any, argument: Any, flags: int) -> str:
    if op is c.LITERAL:
        return _character(argument)
    if op is c.NOT_LITERAL:
        return f"[^{_character(argument)}]"
    if op is c.ANY:
        return r"(?s:.)" if flags & re.DOTALL else r"[^\n]"
    if op is c.IN:
        return _set(argument)
    if op is c.AT:
        return _at(argument, flags)
    if op is c.BRANCH:
        return f"(?:{'|'.join(_sequence(one, flags) for one in argument[1])})"
    if op is c.SUBPATTERN:
        _, added, removed, inner = argument
        flags = (flags | added) & ~removed
        named = ("i" if added & re.IGNORECASE else "") + ("-i" if removed & re.IGNORECASE else "")
        return f"(?{named}:{_sequence(inner, flags)})"
    if op in _REPEATS:
        return _repeated(argument, _REPEATS[op], flags)
    raise Unfit(f"{_what(op)} is not supported: patterns run in time linear in the text")


def _repeated(argument: Any, lazily: str, flags: int) -> str:
    low, high, inner = argument
    body = f"(?:{_sequence(inner, flags)})"
    if max(low, 0 if high is c.MAXREPEAT else high) > _REPEAT_MAX:
        raise Unfit(f"more than {_REPEAT_MAX} repetitions are not supported")
    bounds = f"{low}," if high is c.MAXREPEAT else f"{low},{high}"
    return f"{body}{{{bounds}}}{lazily}"


def _at(where: Any, flags: int) -> str:
    multiline = bool(flags & re.MULTILINE)
    if where is c.AT_BEGINNING:
        return "(?m:^)" if multiline else r"\A"
    if where is c.AT_END:
        # Python's $ also matches before a newline at the very end.
        return "(?m:$)" if multiline else r"(?:\n?\z)"
    if where is c.AT_BEGINNING_STRING:
        return r"\A"
    if where is c.AT_END_STRING:
        return r"\z"
    if where in (c.AT_BOUNDARY, c.AT_NON_BOUNDARY):
        return r"\b" if where is c.AT_BOUNDARY else r"\B"
    raise Unfit(f"{_what(where)} is not supported")


def _set(items: Any) -> str:
    negate = bool(items) and items[0][0] is c.NEGATE
    inside, outside = "", []
    for op, argument in items[1:] if negate else items:
        if op is c.LITERAL:
            inside += _character(argument)
        elif op is c.RANGE:
            inside += f"{_character(argument[0])}-{_character(argument[1])}"
        elif op is c.CATEGORY and argument in _CLASSES:
            inside += _CLASSES[argument]
        elif op is c.CATEGORY and argument in _NEGATED:
            outside.append(_NEGATED[argument])
        else:
            raise Unfit(f"{_what(op)} in a set is not supported")
    if not outside:
        return f"[{'^' if negate else ''}{inside}]"
    if negate or len(outside) > 1:
        raise Unfit(r"\W or \S in a negated set is not supported")
    return f"(?:[{inside}]|[^{outside[0]}])" if inside else f"[^{outside[0]}]"


def _character(code: int) -> str:
    character = chr(code)
    if character.isascii() and (character.isalnum() or character == "_"):
        return character
    return f"\\x{{{code:x}}}"


def _what(op: Any) -> str:
    names = {
        c.ASSERT: "a lookahead or lookbehind",
        c.ASSERT_NOT: "a negative lookahead or lookbehind",
        c.GROUPREF: "a back-reference",
        c.GROUPREF_EXISTS: "a conditional group",
        c.ATOMIC_GROUP: "an atomic group",
        c.POSSESSIVE_REPEAT: "a possessive repeat",
    }
    return names.get(op, str(op).lower())
