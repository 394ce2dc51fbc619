"""Declared routes that wait for their first call.

Of every handler Litestar makes models of its signature, some two milliseconds each: for the hundreds that the rooms
declare that is longer than all else that a start does, and of most starts only few are called. So a handler is
registered when an address is asked for that may be its own. What is found there, and what is not, is what Litestar
would find if it had them all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from litestar.handlers import HTTPRouteHandler


@dataclass(slots=True)
class _Place:
    """What is declared below some first parts of an address."""

    handlers: list[HTTPRouteHandler] = field(default_factory=list)
    words: dict[str, _Place] = field(default_factory=dict)
    parameter: _Place | None = None
    takes_rest: bool = False
    """Whether a parameter that ends here may have slashes in it."""

    def all(self) -> Iterator[HTTPRouteHandler]:
        yield from self.handlers
        for place in (*self.words.values(), *([self.parameter] if self.parameter else [])):
            yield from place.all()


class Waiting:
    """Handlers by address, each given out once."""

    def __init__(self, handlers: Iterable[HTTPRouteHandler]) -> None:
        self._plain: dict[tuple[str, ...], list[HTTPRouteHandler]] = {}
        self._root = _Place()
        self._left: dict[int, HTTPRouteHandler] = {}
        for handler in handlers:
            self._left[id(handler)] = handler
            for path in sorted(handler.paths):
                parts = _parts(path)
                known = self._place(parts).handlers if "{" in path else self._plain.setdefault(parts, [])
                known.append(handler)

    def _place(self, parts: Iterable[str]) -> _Place:
        place = self._root
        for part in parts:
            if not part.startswith("{"):
                place = place.words.setdefault(part, _Place())
                continue
            place.parameter = place.parameter or _Place()
            place = place.parameter
            place.takes_rest |= part.endswith(":path}")
        return place

    def take(self, path: str) -> list[HTTPRouteHandler]:
        """The handlers, not taken yet, that decide what is found at an address."""
        if not self._left:
            return []
        parts = _parts(path)
        if parts in self._plain:
            return self._taken(self._plain[parts])
        place = self._root
        for part in parts:
            # Litestar takes the word where it knows one, and never looks back: it has to know both sides.
            if place.takes_rest or (place.words and place.parameter):
                return self._taken(place.all())
            below = place.words.get(part, place.parameter)
            if below is None:
                return []
            place = below
        return self._taken(place.all() if place.takes_rest else place.handlers)

    def take_all(self) -> list[HTTPRouteHandler]:
        """All that were not taken yet."""
        return self._taken(list(self._left.values()))

    def _taken(self, handlers: Iterable[HTTPRouteHandler]) -> list[HTTPRouteHandler]:
        return [one for handler in handlers if (one := self._left.pop(id(handler), None))]


def _parts(path: str) -> tuple[str, ...]:
    return tuple(part for part in path.split("/") if part)
