"""What a log that is read once leaves: histories in columns, values that are no numbers, texts, files in memory."""

from __future__ import annotations

import json
import math
import posixpath
import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from modelyard.sdk.imports.source import SourceFile, Value

KEY_CHARACTERS_MAX = 250
DEPTH_MAX = 8
_FORBIDDEN = re.compile(r"[^/\w.\- :]")
_NUMBERS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class Columns:
    """The values of one metric."""

    def __init__(self) -> None:
        self.times, self.steps, self.values = array("q"), array("q"), array("d")

    def add(self, timestamp_ms: int, step: int, value: float) -> None:
        self.times.append(timestamp_ms)
        self.steps.append(step)
        self.values.append(value)

    def __iter__(self) -> Iterator[Value]:
        return map(Value, self.times, self.steps, self.values)


class Collected:
    """Metrics, other values and files of one run, under names that may be stored; `renamed` says which were changed."""

    def __init__(self) -> None:
        self.metrics: dict[str, Columns] = {}
        self.files: dict[str, bytes] = {}
        self.renamed: list[str] = []
        self._lines: dict[str, list[str]] = {}
        self._names: dict[str, str] = {}
        self._taken: set[str] = set()

    def name(self, text: str) -> str:
        """The name under which something is stored, always the same for the same text."""
        known = self._names.get(text)
        if known is not None:
            return known
        name, attempt = plain_name(text), 1
        while name in self._taken:
            attempt += 1
            name = f"{plain_name(text)[: KEY_CHARACTERS_MAX - 8]}_{attempt}"
        self._taken.add(name)
        self._names[text] = name
        if name != text:
            self.renamed.append(f"'{text[:100]}' is called '{name[:100]}' here")
        return name

    def knows(self, text: str) -> bool:
        """Whether something was stored under a name."""
        return text in self._names

    def point(self, key: str, timestamp_ms: int, step: int, value: float) -> None:
        """Add a value of a metric."""
        self.metrics.setdefault(self.name(key), Columns()).add(max(timestamp_ms, 0), step, value)

    def value(self, key: str, timestamp_ms: int, step: int, value: Any) -> None:
        """Add whatever was logged: a number is a metric, a mapping its parts, all else a line of a file of its own."""
        found = as_number(value)
        if found is not None:
            self.point(key, timestamp_ms, step, found)
        elif isinstance(value, dict) and "_type" not in value and value and key.count(".") < DEPTH_MAX:
            for name, part in value.items():
                self.value(f"{key}.{name}", timestamp_ms, step, part)
        elif value is not None:
            line = {"step": step, "timestamp_ms": timestamp_ms, "value": value}
            self._lines.setdefault(self.name(key), []).append(json.dumps(line))

    def all_files(self) -> dict[str, bytes]:
        """The files in memory, by path."""
        lines = {f"history/{key}.jsonl": "\n".join(found) + "\n" for key, found in self._lines.items()}
        return {**self.files, **{path: text.encode() for path, text in lines.items()}}

    def listed(self) -> Sequence[SourceFile]:
        """The files in memory, as a source lists them."""
        return [SourceFile(path, len(body)) for path, body in sorted(self.all_files().items())]


def plain_name(text: str) -> str:
    """The text as a name that metrics, params and tags may have."""
    name = posixpath.normpath(_FORBIDDEN.sub("_", text).strip("/") or "_")[:KEY_CHARACTERS_MAX].rstrip("/ ")
    return "_" + name if name.startswith(".") else name or "_"


def as_number(value: Any) -> float | None:
    """The number that a value is, or that JSON had to write as a text."""
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, int | float):
        return float(value) if -(2**1023) < value < 2**1023 or isinstance(value, float) else None
    return _NUMBERS.get(value) if isinstance(value, str) else None


def flat_texts(found: Mapping[str, Any], prefix: str = "", depth: int = 1) -> dict[str, str]:
    """Nested settings as params: `opt.lr` for what is in a mapping, JSON for lists."""
    texts: dict[str, str] = {}
    for key, value in found.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and value and depth < DEPTH_MAX:
            texts.update(flat_texts(value, f"{name}.", depth + 1))
        else:
            texts[name] = value if isinstance(value, str) else json.dumps(value)
    return texts


def put_nested(into: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Set a value at a path of keys."""
    for key in path[:-1]:
        below = into.get(key)
        if not isinstance(below, dict):
            below = into[key] = {}
        into = below
    into[path[-1]] = value
