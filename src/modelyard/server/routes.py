"""Every room's routes. A room that is not listed here is not served."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

import modelyard.planes
import modelyard.server.dialects


def all_routes() -> list[Any]:
    """The route handlers of all planes, dialects and pages."""
    found: list[Any] = []
    names = [f"modelyard.planes.{p.name}.routes" for p in pkgutil.iter_modules(modelyard.planes.__path__)]
    names += [f"modelyard.server.dialects.{p.name}" for p in pkgutil.iter_modules(modelyard.server.dialects.__path__)]
    names += ["modelyard.ui.views"]
    for name in names:
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        found += getattr(module, "ROUTES", [])
    return found
