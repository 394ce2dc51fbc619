"""How deep plain data may be nested that is kept and looked at later, by whom its sender never sees."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from modelyard.kernel.errors import too_deep
from modelyard.kernel.limits import NESTING_MAX


def check_nesting(value: Any, what: str) -> None:
    """Raise InvalidInput (`body.too_deep`) for more lists and dicts within each other than everybody can follow."""
    level = _nests([value])
    for _ in range(NESTING_MAX):
        if not level:
            return
        level = _nests(inner for one in level for inner in (one.values() if isinstance(one, dict) else one))
    if level:
        raise too_deep(what)


def _nests(values: Iterable[Any]) -> list[Any]:
    return [one for one in values if isinstance(one, (list, tuple, dict))]
