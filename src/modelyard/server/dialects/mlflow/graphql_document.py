"""Reading a GraphQL request: the part of the language that a query needs, as plain selections. Pure; no schema here.

Understood are operations with variables, fields with aliases and arguments, fragments of both kinds, and `@skip` and
`@include`; other directives are read over. Depth and size are bounded before anything is looked up.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from modelyard.kernel.errors import InvalidInput

CHARACTERS_MAX = 20_000
DEPTH_MAX = 10
SELECTIONS_MAX = 1_000
TOO_LARGE = "graphql.too_large"
"""The code of what is said of a query that asks for too much at once."""
_TOKEN = re.compile(
    r"(?P<blank>[\s,\ufeff]+|\#[^\n\r]*)|(?P<mark>\.\.\.|[{}()\[\]:=!$@|&])|(?P<name>[_A-Za-z][_0-9A-Za-z]*)"
    r'|(?P<number>-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)|(?P<text>"(?!"")(?:[^"\\\n\r]|\\.)*")'
)


class Selection(NamedTuple):
    """A field that is asked for: how the answer calls it, what it is, its arguments, what is asked of it."""

    alias: str
    name: str
    arguments: dict[str, Any]
    below: tuple[Selection, ...]


class Operation(NamedTuple):
    """What is asked: a `query` or a `mutation`, and its fields."""

    kind: str
    selections: tuple[Selection, ...]


class _Field(NamedTuple):
    alias: str
    name: str
    arguments: dict[str, Any]
    directives: dict[str, dict[str, Any]]
    below: list[Any]


class _Spread(NamedTuple):
    fragment: str
    directives: dict[str, dict[str, Any]]
    below: list[Any]


class _Variable(NamedTuple):
    name: str


def read(text: str, variables: Mapping[str, Any], operation: str = "") -> Operation:
    """The operation of a document, its fragments unfolded and its variables filled in. Raises InvalidInput."""
    if len(text) > CHARACTERS_MAX:
        raise _wrong(f"the query is longer than {CHARACTERS_MAX} characters")
    reader = _Reader(_tokens(text))
    reader.document()
    if operation and operation not in reader.operations:
        raise _wrong(f"there is no operation '{operation[:80]}' in it")
    if not operation and len(reader.operations) != 1:
        raise _wrong("it must have one operation, or say which by `operationName`")
    kind, fields = reader.operations[operation or next(iter(reader.operations))]
    return Operation(kind, _Unfolder(reader.fragments, variables).selections(fields, 1, ()))


def _wrong(why: str) -> InvalidInput:
    return InvalidInput(f"the GraphQL query cannot be read: {why}", code="graphql.invalid")


def _too_deep() -> InvalidInput:
    return InvalidInput(f"Query exceeds maximum depth of {DEPTH_MAX}", code=TOO_LARGE)


def _too_many() -> InvalidInput:
    return InvalidInput(f"Query exceeds maximum total selections of {SELECTIONS_MAX}", code=TOO_LARGE)


def _tokens(text: str) -> list[tuple[str, str]]:
    found, at = [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or match.end() == at:
            raise _wrong(f"unexpected character {text[at]!r} at {at}")
        at = match.end()
        if match.lastgroup != "blank":
            found.append((str(match.lastgroup), match[0]))
    return found


class _Reader:
    """Recursive descent over tokens. The depth of values and selections is bounded."""

    def __init__(self, tokens: Sequence[tuple[str, str]]) -> None:
        self._tokens = tokens
        self._at = 0
        self.operations: dict[str, tuple[str, list[Any]]] = {}
        self.fragments: dict[str, list[Any]] = {}

    def document(self) -> None:
        while self._at < len(self._tokens):
            if self._is("{"):
                self.operations[""] = ("query", self._selections(1))
                continue
            word = self._name()
            if word == "fragment":
                name = self._name()
                self._expect("on")
                self._name()
                self._directives()
                self.fragments[name] = self._selections(1)
            elif word in ("query", "mutation"):
                name = self._name() if self._peek()[0] == "name" else ""
                self._skip_definitions()
                self._directives()
                self.operations[name] = (word, self._selections(1))
            else:
                raise _wrong(f"'{word[:40]}' is no query")

    def _selections(self, depth: int) -> list[Any]:
        if depth > DEPTH_MAX:
            raise _too_deep()
        self._expect("{")
        found: list[Any] = []
        while not self._is("}"):
            if len(found) > SELECTIONS_MAX:
                raise _too_many()
            found.append(self._spread(depth) if self._is("...") else self._field(depth))
        self._expect("}")
        return found

    def _field(self, depth: int) -> _Field:
        name = alias = self._name()
        if self._is(":"):
            self._at += 1
            name = self._name()
        arguments = self._arguments()
        directives = self._directives()
        return _Field(alias, name, arguments, directives, self._selections(depth + 1) if self._is("{") else [])

    def _spread(self, depth: int) -> _Spread:
        self._expect("...")
        if self._peek()[0] == "name" and not self._is("on"):
            return _Spread(self._name(), self._directives(), [])
        if self._is("on"):
            self._at += 1
            self._name()
        return _Spread("", self._directives(), self._selections(depth + 1))

    def _arguments(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if not self._is("("):
            return found
        self._at += 1
        while not self._is(")"):
            name = self._name()
            self._expect(":")
            found[name] = self._value(1)
        self._at += 1
        return found

    def _directives(self) -> dict[str, dict[str, Any]]:
        found = {}
        while self._is("@"):
            self._at += 1
            name = self._name()
            found[name] = self._arguments()
        return found

    def _value(self, depth: int) -> Any:
        if depth > DEPTH_MAX:
            raise _wrong(f"a value is deeper than {DEPTH_MAX}")
        kind, text = self._peek()
        self._at += 1
        if text == "$":
            return _Variable(self._name())
        if text == "[":
            return self._list(depth)
        if text == "{":
            return self._object(depth)
        if kind == "number":
            return float(text) if set(text) & set(".eE") else int(text)
        if kind == "text":
            try:
                return json.loads(text)
            except ValueError as error:
                raise _wrong(f"{text[:40]} is no text") from error
        if kind == "name":
            return {"true": True, "false": False, "null": None}.get(text, text)
        raise _wrong(f"'{text[:40]}' is no value")

    def _list(self, depth: int) -> list[Any]:
        found = []
        while not self._is("]"):
            found.append(self._value(depth + 1))
        self._at += 1
        return found

    def _object(self, depth: int) -> dict[str, Any]:
        made = {}
        while not self._is("}"):
            name = self._name()
            self._expect(":")
            made[name] = self._value(depth + 1)
        self._at += 1
        return made

    def _skip_definitions(self) -> None:
        """Over the types of variables, which say nothing that the values do not."""
        if not self._is("("):
            return
        while not self._is(")"):
            self._at += 1
            self._peek()
        self._at += 1

    def _peek(self) -> tuple[str, str]:
        if self._at >= len(self._tokens):
            raise _wrong("it ends in the middle")
        return self._tokens[self._at]

    def _is(self, text: str) -> bool:
        return self._at < len(self._tokens) and self._tokens[self._at][1] == text

    def _name(self) -> str:
        kind, text = self._peek()
        if kind != "name":
            raise _wrong(f"'{text[:40]}' stands where a name should")
        self._at += 1
        return text

    def _expect(self, text: str) -> None:
        found = self._peek()[1]
        if found != text:
            raise _wrong(f"'{found[:40]}' stands where '{text}' should")
        self._at += 1


class _Unfolder:
    """Fragments put in their place and variables filled in, within bounds whatever they refer to."""

    def __init__(self, fragments: Mapping[str, list[Any]], variables: Mapping[str, Any]) -> None:
        self._fragments = fragments
        self._variables = variables
        self._count = 0

    def selections(self, fields: Sequence[Any], depth: int, within: tuple[str, ...]) -> tuple[Selection, ...]:
        found: dict[str, Selection] = {}
        for one in fields:
            self._count += 1
            if depth > DEPTH_MAX:
                raise _too_deep()
            if self._count > SELECTIONS_MAX:
                raise _too_many()
            if self._is_left_out(one.directives):
                continue
            for selection in self._unfolded(one, depth, within):
                known = found.get(selection.alias)
                merged = selection if known is None else known._replace(below=_merged(known.below, selection.below))
                found[selection.alias] = merged
        return tuple(found.values())

    def _unfolded(self, one: Any, depth: int, within: tuple[str, ...]) -> tuple[Selection, ...]:
        if isinstance(one, _Field):
            arguments = {name: self._filled(value) for name, value in one.arguments.items()}
            return (Selection(one.alias, one.name, arguments, self.selections(one.below, depth + 1, within)),)
        if not one.fragment:
            return self.selections(one.below, depth, within)
        if one.fragment in within or one.fragment not in self._fragments:
            raise _wrong(f"the fragment '{one.fragment[:80]}' is not there, or within itself")
        return self.selections(self._fragments[one.fragment], depth, (*within, one.fragment))

    def _is_left_out(self, directives: Mapping[str, dict[str, Any]]) -> bool:
        skip, include = directives.get("skip", {}), directives.get("include", {})
        return bool(self._filled(skip.get("if", False))) or not self._filled(include.get("if", True))

    def _filled(self, value: Any) -> Any:
        if isinstance(value, _Variable):
            return self._variables.get(value.name)
        if isinstance(value, list):
            return [self._filled(one) for one in value]
        if isinstance(value, dict):
            return {name: self._filled(one) for name, one in value.items()}
        return value


def _merged(first: tuple[Selection, ...], second: tuple[Selection, ...]) -> tuple[Selection, ...]:
    found = {one.alias: one for one in first}
    for one in second:
        known = found.get(one.alias)
        found[one.alias] = one if known is None else known._replace(below=_merged(known.below, one.below))
    return tuple(found.values())
