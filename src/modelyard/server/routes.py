"""Every room's routes. A room that is not listed here is not served."""

from __future__ import annotations

from typing import Any


def all_routes() -> list[Any]:
    """The route handlers of all planes, dialects and pages."""
    return []
